// The shelf that a browser has for an origin: OPFS, or the Cache API where there is none.
import { InputError } from "../../errors.ts";
import { quoted } from "../../values.ts";
import type { Shelf } from "../../weights/shelf.ts";
import { isPlainPath } from "../../weights/source.ts";
import { cacheStorage } from "./cache-storage.ts";
import { hasLocks } from "./locks.ts";
import { opfs } from "./opfs.ts";

/**
 * @param name a folder in the origin's storage
 * @returns the shelf; undefined where nothing may be kept, or nobody could tell who writes
 */
export async function browserShelf(name = "lfm2-wasm"): Promise<Shelf | undefined> {
  if (!isPlainPath(name) || name.includes("/"))
    throw new InputError(`load: cache.dir: expected the name of a folder in the origin's storage, got ${quoted(name)}.`);
  return hasLocks() ? ((await opfs(name)) ?? (await cacheStorage(name))) : undefined;
}
