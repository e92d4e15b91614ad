// What a cache of downloaded models must be able to do: an adapter implements it on a disk, in OPFS, on the Cache API. Knows no runtime, no network, no format.
import type { ByteSource } from "./source.ts";

/** A file of a repository at one commit, and what its bytes are. */
export interface StoreFile {
  /** `org/name`. */
  readonly repo: string;
  /** 40 hexadecimal digits. */
  readonly commit: string;
  /** Plain path in the repository (`isPlainPath`). */
  readonly path: string;
  readonly sizeBytes: number;
  /** Names the content: its sha256, or git's sha1 of the blob, in lower-case hexadecimal. Files of one repository with the same name are the same bytes. */
  readonly blob: string;
}

/** A file that lies whole in a store. */
export interface StoredFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Undefined where the store does not know it: another program put the file there. */
  readonly blob: string | undefined;
}

/** What a store holds of one repository. */
export interface StoredModel {
  /** `org/name`. */
  readonly id: string;
  /** What `removeModel` gives back: every file once, unfinished ones too. */
  readonly sizeBytes: number;
  /** Of these, bytes of downloads that have not ended; the next load goes on from there. */
  readonly partialBytes: number;
  readonly revisions: readonly {
    readonly commit: string;
    /** Branches and tags that pointed there when they were last asked for. */
    readonly names: readonly string[];
    readonly files: readonly StoredFile[];
  }[];
}

/** The models of a cache. */
export interface StoredModels extends ReadonlyArray<StoredModel> {
  /** Bytes that the cache would still take: of the disk, or of what a browser grants the page. Undefined where nobody tells. */
  readonly freeBytes: number | undefined;
}

/**
 * The beginning of a file, growing at its end. At most one exists for a content, guarded by its lock. What was written stays readable until `close`,
 * after `commit` and `discard` too.
 */
export interface StorePart {
  /** How much is there; a part that an earlier process left begins with what it had written. */
  readonly sizeBytes: number;
  /** Fills `target` from bytes before `sizeBytes`. */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  /** Appends bytes, which hold until it resolves; never called again before. @throws StorageError, the part then being as before or shorter than it should be */
  append(bytes: Uint8Array): Promise<void>;
  /** Begins anew, with nothing. */
  clear(): Promise<void>;
  /** The bytes are proved: makes the whole file appear at once under its name, durable. @throws StorageError */
  commit(): Promise<void>;
  /** Removes what was written, at `close` at the latest. */
  discard(): Promise<void>;
  /** Gives the handle back; what is neither committed nor discarded stays for the next time. */
  close(): Promise<void>;
}

/** The right to write one content's part. */
export interface StoreLock {
  /** Whether it is still held: a process that slept too long may find that another took over. */
  isHeld(): Promise<boolean>;
  release(): Promise<void>;
}

/** How to wait for a lock. */
export interface LockOptions {
  /** Ends the wait with AbortError. */
  readonly signal?: AbortSignal | undefined;
  /** Called once when another holds it and the wait begins. What it throws, `lock` throws. */
  readonly onWait?: (() => void) | undefined;
}

/** Where downloaded models are kept. Whatever the storage refuses is a StorageError, `code` `"storage-full"` where it is full. Only whole, proved files are ever found. */
export interface Store {
  /** What messages call it: a path, "OPFS". */
  readonly place: string;
  /** @returns the commit that a branch or tag pointed to when it was last asked for */
  revision(repo: string, name: string): Promise<string | undefined>;
  setRevision(repo: string, name: string, commit: string): Promise<void>;
  /** @returns the files of a commit that are there; none when the commit is unknown */
  files(repo: string, commit: string): Promise<readonly StoredFile[]>;
  /** Opens a file that is there with the right size, also when it is known from another commit only: it then belongs to this one, too. */
  open(file: StoreFile): Promise<ByteSource | undefined>;
  /** Forgets a file that is there and turned out to be damaged. */
  drop(file: StoreFile): Promise<void>;
  /** @returns how much of an unfinished download is there */
  partBytes(file: StoreFile): Promise<number>;
  /** Takes the lock of a file's content, among all processes (tabs) that share the store; a holder that died loses it. */
  lock(file: StoreFile, options?: LockOptions): Promise<StoreLock>;
  /** @returns whether somebody holds the lock */
  isLocked(file: StoreFile): Promise<boolean>;
  /** Opens the part, empty where there was none. The caller holds the lock. */
  begin(file: StoreFile): Promise<StorePart>;
  list(): Promise<readonly StoredModel[]>;
  /** @returns bytes that the storage would still take; undefined where nobody tells */
  freeBytes(): Promise<number | undefined>;
  /** Removes all of a repository; nothing of it is found any more, even if this is interrupted. @returns what was there; undefined when nothing was. @throws StorageError `"in-use"` while a download is under way */
  remove(repo: string): Promise<StoredModel | undefined>;
}
