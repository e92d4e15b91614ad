// From a caller's options and what an adapter offers to a source on the network: a hub's id, or an address. The only file that decides where a token goes.
import { PlatformError } from "../errors.ts";
import { part } from "../part.ts";
import { openDirectly, openUrl } from "./address.ts";
import { checkAddress, checkToken } from "./address-check.ts";
import type { HubCache, HubModel, HubOptions } from "./hub.ts";
import type { HubId } from "./hub-id.ts";
import { Pool } from "./piece.ts";
import type { NetworkPlatform, RemoteOptions } from "./remote.ts";
import type { Network } from "./request.ts";
import type { ByteSource, Folder } from "./source.ts";

/** The address of the hub that is asked unless another is named. */
const DEFAULT_ENDPOINT = "https://huggingface.co";

interface Ways {
  readonly network: Network;
  /** The hub's origin: where a token of the environment goes, and no other place. */
  readonly hubOrigin: string;
}

/** @throws PlatformError where the runtime offers no network; InputError */
async function waysOf(platform: NetworkPlatform | undefined, options: RemoteOptions): Promise<Ways> {
  if (!platform)
    throw new PlatformError("load: expected a runtime with fetch, got one without. Pass bytes, or a source that reads by ranges.");
  const { createHash, hasBackpressure, isCrossOrigin } = platform;
  const { share } = (await platform.sharing?.()) ?? {};
  const token = options.token ?? (await platform.token?.());
  checkToken(token);
  const hub = checkAddress(options.endpoint ?? platform.endpoint ?? DEFAULT_ENDPOINT, "endpoint");
  const network = {
    fetch: options.fetch ?? platform.fetch,
    createHash,
    hasBackpressure,
    isCrossOrigin,
    share,
    endpoint: hub.href.replace(/\/+$/, ""),
    token,
    options: { ...options.network, windowBytes: options.network?.windowBytes ?? platform.windowBytes },
    pool: new Pool(),
  };
  return { network, hubOrigin: hub.origin };
}

/**
 * Finds a model by its id on a hub.
 * @param how its `dtype` is what a load asks for: the file is chosen by it; its `cache` is where files are kept
 * @throws InputError, NetworkError, FormatError, AbortError; PlatformError where the runtime offers no network
 */
export async function findRemote(
  platform: NetworkPlatform | undefined,
  id: HubId,
  options: RemoteOptions,
  how: HubOptions,
  signal?: AbortSignal,
): Promise<HubModel> {
  const { network, hubOrigin } = await waysOf(platform, options);
  const { findHub } = await part("hub", () => import("./hub.ts"));
  return findHub({ ...network, tokenOrigin: hubOrigin }, id, { ...how, isOffline: platform?.isOffline }, signal);
}

/**
 * Opens a file or a folder by its address.
 * @param cache where files are kept
 * @throws InputError, NetworkError, FormatError, UnsupportedError, AbortError; PlatformError where the runtime offers no network
 */
export async function openAddress(
  platform: NetworkPlatform | undefined,
  address: URL | string,
  options: RemoteOptions,
  cache: HubCache | undefined,
  signal?: AbortSignal,
): Promise<ByteSource | Folder> {
  const { network, hubOrigin } = await waysOf(platform, options);
  // a token that the caller passes with an address is meant for it; the environment's stays the hub's
  const tokenOrigin = options.token === undefined ? hubOrigin : checkAddress(address, "source").origin;
  const ways = { ...network, tokenOrigin };
  if (!cache) return openUrl(openDirectly(ways), address, signal);
  const { AddressCache } = await part("address-cache", () => import("./address-cache.ts"));
  const files = new AddressCache(ways, cache, signal);
  return openUrl((file) => files.open(file), address, signal);
}
