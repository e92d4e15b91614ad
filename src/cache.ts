// The option `cache`: which store a call uses, and how. Knows no runtime: an adapter opens the store.
import { InputError, PlatformError } from "./errors.ts";
import type { HubCache } from "./weights/hub.ts";
import type { Store } from "./weights/store.ts";

/** Where downloaded models are kept. */
export interface CacheOptions {
  /** Folder of the cache, in the layout of Hugging Face's tools; default theirs (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, or `~/.cache/huggingface/hub`). */
  readonly dir?: string | undefined;
}

/** Opens a runtime's store; `dir` names a folder where there are folders. @returns undefined where nothing may be kept */
export type OpenStore = (dir: string | undefined) => Store | undefined | Promise<Store | undefined>;

/** @throws InputError */
export function checkCacheOption(cache: unknown): void {
  if (cache === undefined || cache === "auto" || cache === false) return;
  const dir = typeof cache === "object" && cache !== null ? (cache as CacheOptions).dir : 0;
  if (dir === undefined || (typeof dir === "string" && dir !== "")) return;
  throw new InputError(
    `load: cache: expected "auto", false or { dir } with a folder's path, got ${JSON.stringify(cache) ?? String(cache)}.`,
  );
}

/**
 * @returns the store that the option means; undefined for none
 * @throws PlatformError when a folder is named where there are none
 */
export async function storeFor(open: OpenStore | undefined, cache: "auto" | false | CacheOptions = "auto"): Promise<Store | undefined> {
  if (cache === false) return undefined;
  const dir = cache === "auto" ? undefined : cache.dir;
  if (!open && dir !== undefined)
    throw new PlatformError("cache: expected a runtime with folders for cache: { dir }, got one without. Leave it out.");
  return open?.(dir);
}

/** How a call uses the store, beyond a load's way. */
export type CacheUse = Partial<Omit<HubCache, "store">>;
