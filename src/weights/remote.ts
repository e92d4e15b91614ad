// What a caller may say about the network, and what a runtime offers. What comes of it is in ways.ts, with from-network.ts a part of the package that loads from elsewhere do without.
import { checkNames } from "../checks.ts";
import { InputError } from "../errors.ts";
import { checkAddress, checkToken } from "./address-check.ts";
import type { Fetch, Network, NetworkOptions } from "./request.ts";

/** What a runtime offers. */
export interface NetworkPlatform extends Pick<Network, "fetch" | "createHash" | "hasBackpressure" | "isCrossOrigin"> {
  /** The user's hub, as the environment has it. */
  readonly endpoint?: string | undefined;
  /** @returns the user's token, as the environment or the machine has it: it goes to the hub only */
  readonly token?: () => Promise<string | undefined>;
  /** Bytes of a file that a load holds unless the caller says otherwise; default 32 MiB. */
  readonly windowBytes?: number | undefined;
  /** Brings what lets loads at once share a download that nothing keeps; left out where they may not, or where one load is all there is. */
  readonly sharing?: (() => Promise<{ readonly share: Network["share"] & object }>) | undefined;
  /** The user wants no network: only a cache may answer. */
  readonly isOffline?: boolean | undefined;
}

/** What a caller may say about the network. */
export interface RemoteOptions {
  /** Address of the hub; default https://huggingface.co, in Node `HF_ENDPOINT`. */
  readonly endpoint?: string | undefined;
  /** A hub's access token, or a bearer token for an address; sent to that origin only. In Node, Deno and Bun `HF_TOKEN`, else what `hf auth login` has stored, is the default, for the hub. */
  readonly token?: string | undefined;
  /** Stands in for the runtime's `fetch`. */
  readonly fetch?: Fetch | undefined;
  /** How patient transfers are, and how much of a file they hold. */
  readonly network?: NetworkOptions | undefined;
}

const NETWORK: Readonly<Record<keyof NetworkOptions, 1>> = { stallMs: 1, maxRetries: 1, backoffMs: 1, windowBytes: 1 };

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
  for (const [name, value] of Object.entries(checkNames("load: network", network ?? {}, "NetworkOptions", NETWORK)))
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0))
      throw new InputError(`load: network.${name}: expected a whole number of at least 0, got ${String(value)}.`);
}
