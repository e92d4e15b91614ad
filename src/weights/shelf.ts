// What a storage must be able to do for models to be kept in it: named files in folders, locks among all who use it, a word about its room. OPFS and the Cache API
// are such shelves. Knows nothing of models, and no runtime.
import type { StorageError } from "../errors.ts";
import { type ByteSource, readExactly } from "./source.ts";
import type { LockOptions, StoreLock } from "./store.ts";

/** A file that grows at its end. */
export interface Appender {
  readonly sizeBytes: number;
  /** Whether it should grow no further: the next bytes go into a file of their own. */
  readonly isFull: boolean;
  /** Takes bytes that hold until it resolves. @throws StorageError */
  append(bytes: Uint8Array): Promise<void>;
  /** Fills `target` with bytes from `offset` on. */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  /** What was appended outlives this process. */
  flush(): Promise<void>;
  /** Gives it back, without `flush` as far as it is written. */
  close(): Promise<void>;
}

/** What surrounds a shelf: others who use it at the same time, and the room that there is. */
export interface ShelfHost {
  /** Takes a lock among all who use the shelf, waiting for its holder. @throws AbortError */
  lock(name: string, options?: LockOptions): Promise<StoreLock>;
  /** @returns the lock at once; undefined where another has it */
  tryLock(name: string): Promise<StoreLock | undefined>;
  /** @returns names of the locks that are held by anybody and begin so */
  heldLocks(prefix: string): Promise<readonly string[]>;
  /** @returns bytes that may still be written; undefined where nobody tells */
  freeBytes(): Promise<number | undefined>;
  /** @returns the error that says that there is no room for `what` */
  full(what: string): Promise<StorageError>;
}

/** Named files. A path is segments with slashes between; segments are plain characters and `%`. Whatever is refused is a StorageError. */
export interface Shelf {
  /** What messages call it, and what tells it from other shelves of the origin. */
  readonly place: string;
  readonly host: ShelfHost;
  /** @returns paths below `folder`, relative to it, with their bytes; none where there is no such folder */
  list(folder: string): Promise<ReadonlyMap<string, number>>;
  /** @returns the file; undefined where there is none */
  open(path: string): Promise<ByteSource | undefined>;
  /** Writes a small file, in the place of one that is there; where the storage can, at once or not at all. */
  write(path: string, bytes: Uint8Array): Promise<void>;
  /** Begins a new file that grows. */
  create(path: string): Promise<Appender>;
  /** Removes a file, or a folder with all in it; nothing happens where there is none. */
  remove(path: string): Promise<void>;
}

/** Longest text: sizes of a pile's thousand pieces take some 10 KB. */
const MAX_TEXT_BYTES = 1 << 20;

/** @returns the text of a small file; undefined where there is none */
export async function textOf(shelf: Shelf, path: string): Promise<string | undefined> {
  const source = await shelf.open(path);
  if (!source) return undefined;
  try {
    return source.size > MAX_TEXT_BYTES ? undefined : new TextDecoder().decode(await readExactly(source, 0, source.size));
  } finally {
    await source.close?.();
  }
}

/** Writes a small text. */
export const writeText = (shelf: Shelf, path: string, text: string): Promise<void> => shelf.write(path, new TextEncoder().encode(text));

/** @returns bytes as text with a unit */
export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
