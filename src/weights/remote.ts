// From a caller's options and what an adapter offers to a source on the network: a hub's id, or an address. The only file that decides where a token goes.
import { InputError, PlatformError } from "../errors.ts";
import type { DType } from "../memory/dtype.ts";
import { openUrl } from "./address.ts";
import { DEFAULT_ENDPOINT, openHub } from "./hub.ts";
import type { HubId } from "./hub-id.ts";
import { Pool } from "./piece.ts";
import { checkAddress, checkToken, type Fetch, type Network, type NetworkOptions } from "./request.ts";
import type { ByteSource, Folder } from "./source.ts";

/** What a runtime offers. */
export interface NetworkPlatform extends Pick<Network, "fetch" | "createHash" | "hasBackpressure"> {
  /** The user's hub and token, as the environment has them: the token goes to that hub only. */
  readonly endpoint?: string | undefined;
  readonly token?: string | undefined;
  /** Bytes of a file that a load holds unless the caller says otherwise; default 32 MiB. */
  readonly windowBytes?: number | undefined;
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

/** A source on the network. */
export interface Remote {
  readonly source: ByteSource | Folder;
  /** What a hub had to offer; undefined for an address. */
  readonly hub: { readonly file: string; readonly downloadBytes: number } | undefined;
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

/**
 * Opens a model by its id on a hub, or by an address.
 * @param dtype what a load asks for: a hub's file is chosen by it
 * @throws InputError, NetworkError, FormatError, UnsupportedError, AbortError; PlatformError where the runtime offers no network
 */
export async function openRemote(
  platform: NetworkPlatform | undefined,
  what: HubId | URL | string,
  options: RemoteOptions,
  { dtype, signal }: { readonly dtype?: DType | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<Remote> {
  if (!platform)
    throw new PlatformError("load: expected a runtime with fetch, got one without. Pass bytes, or a source that reads by ranges.");
  const { createHash, hasBackpressure } = platform;
  const token = options.token ?? platform.token;
  checkToken(token);
  const hub = checkAddress(options.endpoint ?? platform.endpoint ?? DEFAULT_ENDPOINT, "endpoint");
  const base = {
    fetch: options.fetch ?? platform.fetch,
    createHash,
    hasBackpressure,
    endpoint: hub.href.replace(/\/+$/, ""),
    token,
    options: { ...options.network, windowBytes: options.network?.windowBytes ?? platform.windowBytes },
    pool: new Pool(),
  };
  if (typeof what === "object" && "repo" in what) {
    const { source, file, downloadBytes } = await openHub({ ...base, tokenOrigin: hub.origin }, what, dtype, signal);
    return { source, hub: { file, downloadBytes } };
  }
  // a token that the caller passes with an address is meant for it; the environment's stays the hub's
  const tokenOrigin = options.token === undefined ? hub.origin : checkAddress(what, "source").origin;
  return { source: await openUrl({ ...base, tokenOrigin }, what, signal), hub: undefined };
}
