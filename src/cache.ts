// The option `cache`: which store a call uses, and how. Knows no runtime: an adapter opens the store.
import { InputError, PlatformError } from "./errors.ts";
import type { HubCache } from "./weights/hub.ts";
import type { ImageStore } from "./weights/packed-image.ts";
import type { Store } from "./weights/store.ts";

/** Where downloaded models are kept. */
export interface CacheOptions {
  /** Folder of the cache, in the layout of Hugging Face's tools; default theirs (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, or `~/.cache/huggingface/hub`). */
  readonly dir?: string | undefined;
  /**
   * Keeps weights as they lie in memory, so that the next start reads them straight into place. Default: where they are converted on the way, such as by `dtype`, and take
   * 16 MiB or more; a file that moves as it is gains little.
   */
  readonly packed?: boolean | undefined;
}

/** What a store holds: a hub's repositories, in a layout that other programs may share, or files of plain addresses. */
export type StoreKind = "hub" | "addresses";

/** Opens a runtime's store; `dir` names a folder where there are folders. One store may be both. @returns undefined where nothing may be kept */
export type OpenStore = (dir: string | undefined, kind: StoreKind) => Store | undefined | Promise<Store | undefined>;

/** @throws InputError */
export function checkCacheOption(cache: unknown): void {
  if (cache === undefined || cache === "auto" || cache === false) return;
  const { dir, packed, ...others } = typeof cache === "object" && cache !== null ? (cache as CacheOptions) : { dir: 0 };
  const isPlace = dir === undefined || (typeof dir === "string" && dir !== "");
  if (isPlace && ["undefined", "boolean"].includes(typeof packed) && Object.keys(others).length === 0) return;
  throw new InputError(
    `load: cache: expected "auto", false or { dir, packed } with a folder's path and true or false, got ${JSON.stringify(cache) ?? String(cache)}.`,
  );
}

/**
 * @returns the store that the option means; undefined for none
 * @throws PlatformError when a folder is named where there are none
 */
export async function storeFor(
  open: OpenStore | undefined,
  cache: "auto" | false | CacheOptions = "auto",
  kind: StoreKind = "hub",
): Promise<Store | undefined> {
  if (cache === false) return undefined;
  const dir = cache === "auto" ? undefined : cache.dir;
  if (!open && dir !== undefined)
    throw new PlatformError("cache: expected a runtime with folders for cache: { dir }, got one without. Leave it out.");
  return open?.(dir, kind);
}

/** Opens the place of packed images when it is needed. @returns undefined for none */
export function imagesFor(
  open: ((dir: string | undefined) => Promise<ImageStore | undefined>) | undefined,
  cache: "auto" | false | CacheOptions = "auto",
): (() => Promise<ImageStore | undefined>) | undefined {
  if (!open || cache === false) return undefined;
  return () => open(cache === "auto" ? undefined : cache.dir);
}

/** How a call uses the store, beyond a load's way. */
export type CacheUse = Partial<Omit<HubCache, "store">>;
