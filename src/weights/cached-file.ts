// A file of a hub that is read and kept in one pass: what the reader gets goes on into the store, in order, hashed on the way. Loads in one process share it. Knows no runtime and not what the bytes mean.
import { AbortError, StorageError, throwIfAborted } from "../errors.ts";
import { closed, damaged, HttpSource, hashFor, openHttp } from "./http.ts";
import { CACHE_STEP_BYTES } from "./limits.ts";
import type { Checksum, Hash, Network, RemoteFileOptions, RemoteSource } from "./request.ts";
import { type ByteSource, readClipped, truncated, unlessAborted } from "./source.ts";
import type { Store, StoreFile, StoreLock, StorePart } from "./store.ts";

/** What a load says about its files, and hears of them. */
export interface KeepOptions {
  readonly network: Network;
  readonly signal: AbortSignal | undefined;
  /** What is not there whole comes from the network and is not kept. */
  readonly isReadOnly?: boolean | undefined;
  /** A file that is there is proved before it is used, and what came in part is not gone on with. */
  readonly isDoubtful?: boolean | undefined;
  /** Another process downloads the file, and has so many bytes of it: called again and again while it does. */
  readonly onWait: (file: StoreFile, partBytes: number) => void;
  /** The file cannot be kept; the load goes on without. What it throws, the load fails with. */
  readonly onSkip: (error: StorageError) => void;
  /** A file was there whole: what it makes fail may be the cache's fault. */
  readonly onKept?: (() => void) | undefined;
  /** So many bytes of the file are there. */
  readonly onBytes?: ((file: StoreFile, bytes: number) => void) | undefined;
}

/** What is known of a file that is kept: its checksum, or at least its version. */
export interface KeptFileOptions extends RemoteFileOptions {
  /** Its first answer, where that is there already: whoever gets this closes it. */
  readonly begun?: HttpSource | undefined;
}

/** How often a load that waits for another process looks how far it is. */
const WAIT_MS = 500;

/** Waits so long, or until the promise has settled, whichever is first. @throws AbortError */
async function pause(ms: number, until: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const time = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await unlessAborted(Promise.race([time, until.catch(() => {})]), signal);
  } finally {
    clearTimeout(timer);
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

/** One reader's view of a shared file. */
class CachedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly isUnproved: boolean;
  readonly options: KeepOptions;
  readonly #shared: SharedFile;
  readonly #onClose: () => void;
  /** Of this reader alone, where the shared bytes are gone. */
  #own: HttpSource | undefined;
  #error: Error | undefined;
  #closing: Promise<void> | undefined;

  constructor(shared: SharedFile, options: KeepOptions, onClose: () => void) {
    this.name = shared.remote.name;
    this.size = shared.file.sizeBytes;
    this.isUnproved = shared.remote.checksum === undefined;
    this.options = options;
    this.#shared = shared;
    this.#onClose = onClose;
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readClipped(this, offset, length, signal);
  }

  async readInto(offset: number, target: Uint8Array, signal: AbortSignal | undefined = this.options.signal): Promise<void> {
    if (target.length === 0) return;
    this.#check();
    if (offset + target.length > this.size) throw truncated(this.name, offset, target.length, `a file of ${this.size}`);
    if (!this.#own && (await this.#shared.readInto(this, offset, target, signal))) return;
    this.#own ??= new HttpSource(this.options.network, this.#shared.remote, this.options.signal);
    await this.#own.readInto(offset, target, signal);
  }

  async verify(signal: AbortSignal | undefined = this.options.signal): Promise<void> {
    this.#check();
    if (this.#own) await this.#own.verify(signal);
    else await this.#shared.finish(this, signal);
    this.#check();
  }

  /** The file cannot be kept. Where that is an error to the caller, this source ends with it. */
  skip(error: StorageError): void {
    try {
      this.options.onSkip(error);
    } catch (refusal) {
      this.#error = asError(refusal);
    }
  }

  #check(): void {
    if (this.#error) throw this.#error;
    if (this.#closing) throw closed(this.name);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#onClose();
    await this.#own?.close();
    await this.#shared.leave(this);
  }
}

/** Files that are being downloaded by this process, by store, repository and content. */
const shared = new Map<string, SharedFile>();

const keyOf = (store: Store, { repo, blob }: StoreFile): string => [store.place, repo, blob].join("\n");

/** The download of one file, shared by all who read it. Takes turns: one reader at a time brings it further. */
class SharedFile {
  readonly file: StoreFile;
  readonly remote: KeptFileOptions;
  readonly #store: Store;
  readonly #readers = new Set<CachedSource>();
  /** Ends the wait for the lock when nobody waits any more. */
  readonly #control = new AbortController();
  /** Resolves to whether there is something to download; the file may be there by then. */
  readonly ready: Promise<boolean>;
  /** Resolves when it turns out that another process downloads the file; `isWaiting` as long as it does. */
  readonly waits: Promise<void>;
  isWaiting = false;
  #wait: () => void = () => {};
  /** Resolves when everything has been given back. */
  readonly ended: Promise<void>;
  #end: () => void = () => {};
  #lock: StoreLock | undefined;
  #part: StorePart | undefined;
  #hash: Hash | undefined;
  #stream: HttpSource | undefined;
  /** Bytes from the front that have passed, and how many of them the part has. */
  #passed = 0;
  #kept = 0;
  #mustDiscard = false;
  #writing: Promise<void> = Promise.resolve();
  #buffer: Uint8Array = new Uint8Array(0);
  #turn: Promise<void> = Promise.resolve();
  #isProved = false;
  /** Whether what an earlier process left has been looked at. */
  #isTakenUp = false;
  #begun: HttpSource | undefined;
  #isLeft = false;
  #error: Error | undefined;
  /** Why the file is not kept. */
  skipped: StorageError | undefined;

  /**
   * @param isFresh what an earlier download left is not gone on with
   * @param before when to begin
   */
  constructor(store: Store, file: StoreFile, remote: KeptFileOptions, isFresh: boolean, before: Promise<void> | undefined) {
    this.#store = store;
    this.file = file;
    this.remote = remote;
    this.#begun = remote.begun;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.waits = new Promise((resolve) => {
      this.#wait = resolve;
    });
    this.ready = this.#begin(isFresh, before);
    this.ready.catch(() => {}); // whoever joins hears of it
  }

  async #begin(isFresh: boolean, before: Promise<void> | undefined): Promise<boolean> {
    await before;
    const { signal } = this.#control;
    const onWait = (): void => {
      this.isWaiting = true;
      this.#wait();
    };
    try {
      this.#lock = await this.#store.lock(this.file, { signal, onWait });
    } finally {
      this.isWaiting = false;
    }
    throwIfAborted(signal);
    const whole = await this.#store.open(this.file);
    await whole?.close?.();
    if (whole) return false;
    this.#part = await this.#store.begin(this.file);
    if (isFresh || this.#part.sizeBytes > this.file.sizeBytes) await this.#part.clear();
    return true;
  }

  /** Whoever joins must leave, whatever `ready` says. */
  join(reader: CachedSource): void {
    this.#readers.add(reader);
  }

  async leave(reader: CachedSource): Promise<void> {
    if (!this.#readers.delete(reader)) return;
    if (this.#readers.size > 0) return;
    const key = keyOf(this.#store, this.file); // stays there until all has been given back: the next one waits for it
    this.#isLeft = true;
    this.#control.abort();
    await this.ready.catch(() => {});
    await this.#stream?.close();
    await this.#takeBegun()?.close();
    await this.#turn;
    await this.#writing;
    try {
      if (this.#mustDiscard) await this.#part?.discard().catch(() => {}); // nothing that a reader could do about it
      await this.#part?.close().catch(() => {});
      await this.#lock?.release().catch(() => {});
    } finally {
      if (shared.get(key) === this) shared.delete(key);
      this.#end();
    }
  }

  /** Whether it is too late to join. */
  get isOver(): boolean {
    return this.#isLeft || this.#error !== undefined;
  }

  /** Runs one at a time. */
  async #inTurn<T>(signal: AbortSignal | undefined, run: () => Promise<T>): Promise<T> {
    throwIfAborted(signal);
    const before = this.#turn;
    let done = (): void => {};
    this.#turn = new Promise((resolve) => {
      done = resolve;
    });
    try {
      await unlessAborted(before, signal);
    } catch (error) {
      void before.then(done);
      throw error;
    }
    try {
      this.#check();
      return await run();
    } finally {
      done();
    }
  }

  #check(): void {
    if (this.#error) throw this.#error;
    if (this.#isLeft) throw closed(this.remote.name);
  }

  /** @returns whether the bytes could be had; not where they passed long ago and could not be kept */
  readInto(reader: CachedSource, offset: number, target: Uint8Array, signal: AbortSignal | undefined): Promise<boolean> {
    return this.#inTurn(signal, async () => {
      await this.#takeUp(reader, signal);
      if (offset < this.#passed) await this.#writing;
      const old = Math.max(0, Math.min(target.length, this.#passed - offset));
      if (old > 0 && !(await this.#again(offset, target.subarray(0, old)))) return false;
      if (old === target.length) return true;
      await this.#passTo(reader, offset, signal);
      for (let at = old; at < target.length; at += CACHE_STEP_BYTES)
        await this.#pass(reader, target.subarray(at, at + CACHE_STEP_BYTES), signal);
      return true;
    });
  }

  /** Bytes that have passed, from the part. @returns whether it has them */
  async #again(offset: number, target: Uint8Array): Promise<boolean> {
    if (!this.#part || offset + target.length > this.#kept) return false;
    try {
      await this.#part.readInto(offset, target);
      return true;
    } catch (error) {
      if (error instanceof StorageError) return false;
      throw error;
    }
  }

  /** Brings the rest, proves the whole, and makes it known. @throws FormatError `"checksum"` when the bytes are others */
  finish(reader: CachedSource, signal: AbortSignal | undefined): Promise<void> {
    return this.#inTurn(signal, async () => {
      if (this.#isProved) return;
      await this.#takeUp(reader, signal);
      await this.#passTo(reader, this.file.sizeBytes, signal);
      await this.#writing;
      await this.#prove();
      this.#isProved = true;
      if (!this.skipped) await this.#commit();
    });
  }

  async #prove(): Promise<void> {
    const { checksum, name } = this.remote;
    const got = await this.#hash?.digest();
    if (!checksum || got === checksum.hex) return;
    this.#error = damaged(name, checksum, got);
    this.#mustDiscard = true;
    throw this.#error;
  }

  async #commit(): Promise<void> {
    try {
      await this.#checkLock();
      await this.#part?.commit();
    } catch (error) {
      this.#skip(error);
    }
  }

  /** Hashes what an earlier process left: the first who reads needs it. */
  async #takeUp(reader: CachedSource, signal: AbortSignal | undefined): Promise<void> {
    const part = this.#part;
    if (!part || this.#isTakenUp) return;
    const { checksum } = this.remote;
    const newHash = (): Hash | undefined => checksum && hashFor(reader.options.network, checksum, this.file.sizeBytes);
    let hash = newHash();
    let passed = hash ? 0 : part.sizeBytes; // without a checksum nothing is to be proved
    const buffer = new Uint8Array(Math.min(CACHE_STEP_BYTES, part.sizeBytes));
    try {
      for (; passed < part.sizeBytes; passed += buffer.length) {
        throwIfAborted(signal);
        this.#check();
        const bytes = buffer.subarray(0, Math.min(buffer.length, part.sizeBytes - passed));
        await part.readInto(passed, bytes);
        hash?.update(bytes);
      }
      passed = part.sizeBytes;
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      hash = newHash();
      passed = 0;
      this.#skip(error);
    }
    this.#isTakenUp = true;
    this.#hash = hash;
    this.#passed = passed;
    this.#kept = passed;
    reader.options.onBytes?.(this.file, this.#passed);
  }

  #takeBegun(): HttpSource | undefined {
    const begun = this.#begun;
    this.#begun = undefined;
    return begun;
  }

  async #passTo(reader: CachedSource, offset: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#passed >= offset) return;
    const buffer = new Uint8Array(Math.min(CACHE_STEP_BYTES, offset - this.#passed));
    while (this.#passed < offset) await this.#pass(reader, buffer.subarray(0, Math.min(buffer.length, offset - this.#passed)), signal);
  }

  /** Fills `target` with the bytes that come next, and hands them on. */
  async #pass(reader: CachedSource, target: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#stream && this.#passed === 0) this.#stream = this.#takeBegun();
    this.#stream ??= new HttpSource(reader.options.network, { ...this.remote, isProvedByReader: true, fromBytes: this.#passed });
    try {
      await this.#stream.readInto(this.#passed, target, signal);
    } catch (error) {
      if (!(error instanceof AbortError)) {
        // the next one who wants bytes asks in its own way
        await this.#stream.close();
        this.#stream = undefined;
      }
      throw error;
    }
    await this.#writing;
    if (this.#buffer.length < target.length) this.#buffer = new Uint8Array(target.length);
    const bytes = this.#buffer.subarray(0, target.length);
    bytes.set(target);
    this.#hash?.update(bytes);
    this.#passed += bytes.length;
    if (!this.skipped) this.#writing = this.#keep(bytes);
    for (const { options } of this.#readers) options.onBytes?.(this.file, this.#passed);
  }

  async #keep(bytes: Uint8Array): Promise<void> {
    try {
      await this.#checkLock();
      await this.#part?.append(bytes);
      this.#kept += bytes.length;
    } catch (error) {
      this.#skip(error);
    }
  }

  async #checkLock(): Promise<void> {
    if (await this.#lock?.isHeld()) return;
    throw new StorageError(
      `cache: expected to hold the lock of ${this.remote.name}, got it taken over: this process stood still for long.`,
      {
        code: "lock-lost",
      },
    );
  }

  /** From here on nothing is kept; the readers go on. */
  #skip(cause: unknown): void {
    const error =
      cause instanceof StorageError
        ? cause
        : new StorageError(`cache: expected to keep ${this.remote.name}, got an error: ${asError(cause).message}.`, { cause });
    this.skipped = error;
    this.#mustDiscard = error.code !== "lock-lost"; // else it is another's now
    for (const reader of this.#readers) reader.skip(error);
  }
}

/** The checksum of all of a source. */
async function digestOf(source: ByteSource, network: Network, checksum: Checksum, signal: AbortSignal | undefined): Promise<string> {
  const hash = hashFor(network, checksum, source.size);
  for (let at = 0; at < source.size; at += CACHE_STEP_BYTES) hash.update(await source.read(at, CACHE_STEP_BYTES, signal));
  return hash.digest();
}

/** @returns the source by another name, and with what else is known of it */
export function renamed(source: ByteSource, other: Partial<ByteSource>): ByteSource {
  const { name, size, readInto, verify } = source;
  return {
    ...{ name, size },
    read: (offset, length, signal) => source.read(offset, length, signal),
    ...(readInto && { readInto: (offset, target, signal) => readInto.call(source, offset, target, signal) }),
    ...(verify && { verify: (signal) => verify.call(source, signal) }),
    close: async () => source.close?.(),
    get isUnproved() {
      return source.isUnproved;
    },
    ...other,
  };
}

/** @returns bytes of a file that are not in the store; a store that cannot be read has nothing */
export async function missingIn(store: Store, file: StoreFile): Promise<number> {
  try {
    const whole = await store.open(file);
    await whole?.close?.();
    if (whole) return 0;
    return Math.max(0, file.sizeBytes - (file.blob === "" ? 0 : await store.partBytes(file)));
  } catch (error) {
    if (error instanceof StorageError) return file.sizeBytes;
    throw error;
  }
}

/** Opens the files of one load by way of a store. */
export class Keeper {
  readonly #store: Store;
  readonly #options: KeepOptions;
  /** Sources that hold a lock. */
  #held = 0;

  constructor(store: Store, options: KeepOptions) {
    this.#store = store;
    this.#options = options;
  }

  /**
   * @returns the file from the store; where it is not there, from the network by way of the store; where that cannot keep it, from the network alone
   * @throws AbortError, and what `onSkip` throws
   */
  async open(file: StoreFile, remote: KeptFileOptions): Promise<ByteSource> {
    const { signal, onSkip } = this.#options;
    try {
      throwIfAborted(signal);
      return await this.#open(file, remote);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      onSkip(error);
      return this.#plain(remote);
    } finally {
      if (!this.#isUsed(file, remote)) await remote.begun?.close();
    }
  }

  async #open(file: StoreFile, remote: KeptFileOptions): Promise<ByteSource> {
    const { isDoubtful, isReadOnly } = this.#options;
    if (isDoubtful && !isReadOnly && !remote.checksum) await this.#store.drop(file); // nothing would prove it
    for (;;) {
      const whole = await this.whole(file, remote.checksum);
      if (whole) return whole;
      if (isReadOnly) return this.#plain(remote);
      // who holds one lock does not wait for another: that is how two would wait for each other
      const isElsewhere = this.#held > 0 && !shared.has(keyOf(this.#store, file)) && (await this.#store.isLocked(file));
      if (isElsewhere) return this.#plain(remote);
      const download = this.#join(file, remote);
      if (download.skipped) throw download.skipped;
      const reader = new CachedSource(download, this.#options, () => this.#held--);
      download.join(reader);
      this.#held++;
      try {
        if (await this.#until(download)) return reader;
      } catch (error) {
        await reader.close();
        throw error;
      }
      await reader.close(); // another process has brought it meanwhile
    }
  }

  /** Opens the file where it is in the store, whole. Where there is reason to doubt it, it is proved first. */
  async whole(file: StoreFile, checksum: Checksum | undefined): Promise<ByteSource | undefined> {
    const { network, signal, isDoubtful } = this.#options;
    const source = await this.#store.open(file);
    if (source) this.#options.onKept?.();
    if (!source || !isDoubtful || !checksum) return source;
    try {
      if ((await digestOf(source, network, checksum, signal)) === checksum.hex) return source;
    } catch (error) {
      await source.close?.();
      throw error;
    }
    await source.close?.();
    await this.#store.drop(file);
    return undefined;
  }

  /** Whether the download has taken over what was begun. */
  #isUsed(file: StoreFile, { begun }: KeptFileOptions): boolean {
    return shared.get(keyOf(this.#store, file))?.remote.begun === begun;
  }

  #plain(remote: KeptFileOptions): RemoteSource {
    return openHttp(this.#options.network, remote, this.#options.signal);
  }

  #join(file: StoreFile, remote: KeptFileOptions): SharedFile {
    const key = keyOf(this.#store, file);
    const there = shared.get(key);
    if (there && !there.isOver) return there;
    const download = new SharedFile(this.#store, file, remote, this.#options.isDoubtful ?? false, there?.ended);
    shared.set(key, download);
    return download;
  }

  /** Waits for the download's lock, and tells how far the one who holds it is. */
  async #until(download: SharedFile): Promise<boolean> {
    const { signal, onWait } = this.#options;
    const { file, ready } = download;
    await unlessAborted(Promise.race([ready, download.waits]), signal);
    while (download.isWaiting) {
      onWait(file, await this.#store.partBytes(file));
      await pause(WAIT_MS, ready, signal);
    }
    return unlessAborted(ready, signal);
  }
}
