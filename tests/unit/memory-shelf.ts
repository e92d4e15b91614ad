// A shelf in memory whose user may end at any change: what a tab leaves that is closed there.
import { StorageError } from "../../src/errors.ts";
import type { Appender, Shelf, ShelfHost } from "../../src/weights/shelf.ts";
import { bytesSource } from "../../src/weights/source.ts";
import type { StoreLock } from "../../src/weights/store.ts";

/** A file that grows has so many bytes at least when the next begins. */
const FULL_BYTES = 100;

/** How much of the change at which the user ended is done. */
export type Share = 0 | 0.5 | 1;

/** @returns a shelf over `files`, which outlive it; change number `last` (from 0) is done in part, and nothing after it. `hasEnded` tells whether it came to that. */
export function memoryShelf(
  files: Map<string, Uint8Array>,
  last: number = Number.POSITIVE_INFINITY,
  share: Share = 1,
): Shelf & { readonly hasEnded: () => boolean } {
  const held = new Set<string>();
  let changes = 0;
  const look = async <T>(run: () => T): Promise<T> => {
    if (changes > last) throw new StorageError("the tab is closed");
    return run();
  };
  const change = (run: (share: Share) => void): Promise<void> =>
    look(() => {
      const isLast = changes++ === last;
      run(isLast ? share : 1);
      if (isLast) throw new StorageError("the tab is being closed");
    });
  const tryLock = async (name: string): Promise<StoreLock | undefined> => {
    if (held.has(name)) return undefined;
    held.add(name);
    return { isHeld: async () => held.has(name), release: async () => void held.delete(name) };
  };
  const host: ShelfHost = {
    tryLock,
    lock: async (name) => (await tryLock(name)) ?? Promise.reject(new Error(`expected ${name} to be free: one tab waits for itself`)),
    heldLocks: async (prefix) => [...held].filter((name) => name.startsWith(prefix)),
    freeBytes: async () => undefined,
    full: async (what) => new StorageError(`no room for ${what}`),
  };
  const cut = (bytes: Uint8Array, share: Share): Uint8Array => bytes.slice(0, Math.ceil(bytes.length * share));
  const below = (folder: string): string[] => [...files.keys()].filter((path) => path === folder || path.startsWith(`${folder}/`));
  const bytesOf = (path: string): Uint8Array => files.get(path) ?? new Uint8Array(0);
  const create = async (path: string): Promise<Appender> => {
    await change((share) => share > 0 && files.set(path, new Uint8Array(0)));
    return {
      get sizeBytes() {
        return bytesOf(path).length;
      },
      get isFull() {
        return bytesOf(path).length >= FULL_BYTES;
      },
      append: (bytes) => change((share) => files.set(path, Uint8Array.from([...bytesOf(path), ...cut(bytes, share)]))),
      readInto: (offset, target) => look(() => target.set(bytesOf(path).subarray(offset, offset + target.length))),
      flush: () => change(() => {}),
      close: async () => {},
    };
  };
  return {
    place: "memory",
    host,
    hasEnded: () => changes > last,
    list: (folder) => look(() => new Map(below(folder).map((path) => [path.slice(folder.length + 1), bytesOf(path).length]))),
    open: (path) => look(() => (files.has(path) ? bytesSource(bytesOf(path), path) : undefined)),
    write: (path, bytes) => change((share) => share > 0 && files.set(path, cut(bytes, share))),
    create,
    remove: (path) =>
      change((share) => {
        const paths = below(path);
        for (const one of paths.slice(0, Math.ceil(paths.length * share))) files.delete(one);
      }),
  };
}
