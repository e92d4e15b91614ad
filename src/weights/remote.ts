// From a caller's options and what an adapter offers to a source on the network: a hub's id, or an address. The only file that decides where a token goes.
import { InputError, PlatformError } from "../errors.ts";
import { openDirectly, openUrl } from "./address.ts";
import type { HubCache, HubModel, HubOptions } from "./hub.ts";
import type { HubId } from "./hub-id.ts";
import { Pool } from "./piece.ts";
import { checkAddress, checkToken, type Fetch, type Network, type NetworkOptions } from "./request.ts";
import type { ByteSource, Folder } from "./source.ts";

/** The address of the hub that is asked unless another is named. */
const DEFAULT_ENDPOINT = "https://huggingface.co";

/** What a runtime offers. */
export interface NetworkPlatform extends Pick<Network, "fetch" | "createHash" | "hasBackpressure" | "isCrossOrigin"> {
  /** The user's hub and token, as the environment has them: the token goes to that hub only. */
  readonly endpoint?: string | undefined;
  readonly token?: string | undefined;
  /** Bytes of a file that a load holds unless the caller says otherwise; default 32 MiB. */
  readonly windowBytes?: number | undefined;
  /** The user wants no network: only a cache may answer. */
  readonly isOffline?: boolean | undefined;
}

/** What a caller may say about the network. */
export interface RemoteOptions {
  /** Address of the hub; default https://huggingface.co, in Node `HF_ENDPOINT`. */
  readonly endpoint?: string | undefined;
  /** A hub's access token, or a bearer token for an address; sent to that origin only. In Node `HF_TOKEN` is the default, for the hub. */
  readonly token?: string | undefined;
  /** Stands in for the runtime's `fetch`. */
  readonly fetch?: Fetch | undefined;
  /** How patient transfers are, and how much of a file they hold. */
  readonly network?: NetworkOptions | undefined;
}

/** @throws InputError naming the option; a token is never repeated */
export function checkRemoteOptions({ endpoint, token, fetch, network }: RemoteOptions): void {
  const is = (name: string, value: unknown, type: string): void => {
    if (value !== undefined && (typeof value !== type || value === null))
      throw new InputError(`load: ${name}: expected a value of type ${type}, got ${value === null ? "null" : typeof value}.`);
  };
  is("endpoint", endpoint, "string");
  is("token", token, "string");
  is("fetch", fetch, "function");
  is("network", network, "object");
  checkToken(token);
  if (endpoint !== undefined) checkAddress(endpoint, "endpoint");
  for (const name of ["stallMs", "maxRetries", "backoffMs", "windowBytes"] as const) {
    const value = network?.[name];
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0))
      throw new InputError(`load: network.${name}: expected a whole number of at least 0, got ${String(value)}.`);
  }
}

interface Ways {
  readonly network: Network;
  /** The hub's origin: where a token of the environment goes, and no other place. */
  readonly hubOrigin: string;
}

/** @throws PlatformError where the runtime offers no network; InputError */
function waysOf(platform: NetworkPlatform | undefined, options: RemoteOptions): Ways {
  if (!platform)
    throw new PlatformError("load: expected a runtime with fetch, got one without. Pass bytes, or a source that reads by ranges.");
  const { createHash, hasBackpressure, isCrossOrigin } = platform;
  const token = options.token ?? platform.token;
  checkToken(token);
  const hub = checkAddress(options.endpoint ?? platform.endpoint ?? DEFAULT_ENDPOINT, "endpoint");
  const network = {
    fetch: options.fetch ?? platform.fetch,
    createHash,
    hasBackpressure,
    isCrossOrigin,
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
  const { network, hubOrigin } = waysOf(platform, options);
  const { findHub } = await import("./hub.ts"); // a part of the package that loads from elsewhere do without
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
  const { network, hubOrigin } = waysOf(platform, options);
  // a token that the caller passes with an address is meant for it; the environment's stays the hub's
  const tokenOrigin = options.token === undefined ? hubOrigin : checkAddress(address, "source").origin;
  const ways = { ...network, tokenOrigin };
  if (!cache) return openUrl(openDirectly(ways), address, signal);
  const { AddressCache } = await import("./address-cache.ts");
  const files = new AddressCache(ways, cache, signal);
  return openUrl((file) => files.open(file), address, signal);
}
