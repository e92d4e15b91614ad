// What surrounds a browser's shelf: Web Locks among tabs and workers, and the origin's quota.
import type { ShelfHost } from "../../weights/shelf.ts";
import { heldLocks, lock, tryLock } from "./locks.ts";
import { doing, freeBytes, full } from "./storage.ts";

/** @param place the shelf's */
export const hostOf = (place: string): ShelfHost => ({
  lock: (name, options) => doing(place, "lock a file", () => lock(name, options)),
  tryLock,
  heldLocks,
  freeBytes,
  full: (what) => full(place, what),
});
