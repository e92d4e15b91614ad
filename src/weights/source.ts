// Where bytes come from: something with a name and a size that can be read by ranges. Must not know what the bytes mean, nor any runtime.
import { AbortError, FormatError, throwIfAborted } from "../errors.ts";

/** Bytes that can be read by ranges: a file, a Blob, an object in a bucket. Reads may overlap; every one of them settles, also when the source is closed meanwhile. */
export interface ByteSource {
  /** What error messages call it: a file name, an address. */
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  /** Names these very bytes, wherever they are known to be others when it changes: a path with size and time, a commit with a checksum. A packed image is kept by it. */
  readonly identity?: string | undefined;
  /** @returns up to `length` bytes from `offset`; fewer only where the file ends before, none past its end. Rejects once `signal` has fired. */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /**
   * Fills all of `target` from `offset`, or rejects: spares a copy where the runtime can. It may lie in memory that threads share: its buffer cannot be
   * transferred.
   */
  readInto?(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Of a file on the network that a cache may hold: bytes that are not there yet. */
  readonly missingBytes?: number | undefined;
  /** Whether it comes from the network, and nothing but its length and version tells that its bytes are right. */
  readonly isUnproved?: boolean | undefined;
  /** Of such a file, opened to be looked at: whether a load, here or in another process, is bringing them. */
  readonly isDownloading?: boolean | undefined;
  /** Opens the file of this name beside it, where there is such a thing: a split file needs its other parts. */
  sibling?(name: string): Promise<ByteSource | undefined>;
  /** Proves the whole by a checksum, where there is one. @throws FormatError when the bytes are others than they should be */
  verify?(signal?: AbortSignal): Promise<void>;
  /** Gives back what the source holds open; once more does nothing. */
  close?(): Promise<void>;
}

/** A set of files that belong together. */
export interface Folder {
  readonly name: string;
  /** @returns the file at `path`, or undefined when there is none. */
  open(path: string): Promise<ByteSource | undefined>;
  /** Names of the files right in it, where they can be listed: finds a GGUF whose name nobody gave. */
  list?(): Promise<readonly string[]>;
}

/** Brings up to `length` bytes from `offset`, at least one. */
export type ReadPart = (offset: number, length: number, signal: AbortSignal | undefined) => Promise<Uint8Array>;

/** @throws FormatError: the file is shorter than it said */
export function truncated(name: string, offset: number, length: number, got: string): FormatError {
  return new FormatError(
    `${name}: truncated: expected ${length} bytes at ${offset}, got ${got}. The file changed or is damaged: load it again.`,
  );
}

/**
 * A source from one function that brings parts, however short they come.
 * @param partBytes - what is asked for at once at most
 */
export function sourceOf(
  name: string,
  size: number,
  part: ReadPart,
  partBytes: number = Number.POSITIVE_INFINITY,
): Required<Pick<ByteSource, "readInto">> & ByteSource {
  const readInto = async (offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> => {
    if (offset < 0 || offset + target.length > size) throw truncated(name, offset, target.length, `a file of ${size}`);
    for (let done = 0; done < target.length; ) {
      throwIfAborted(signal);
      const length = Math.min(target.length - done, partBytes);
      const bytes = await unlessAborted(part(offset + done, length, signal), signal);
      if (bytes.length === 0) throw truncated(name, offset, target.length, `${done}`);
      target.set(bytes, done);
      done += bytes.length;
    }
  };
  return { name, size, readInto, read: (offset, length, signal) => readClipped({ size, readInto }, offset, length, signal) };
}

/** `read` by way of `readInto`. */
export async function readClipped(
  source: Required<Pick<ByteSource, "size" | "readInto">>,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const target = new Uint8Array(Math.max(0, Math.min(length, source.size - offset)));
  if (target.length > 0) await source.readInto(offset, target, signal);
  return target;
}

/** @returns what `promise` gives, but no later than the signal, whether the promise heeds it or not */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let stop = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(new AbortError(undefined, { cause: signal.reason }));
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** @returns a source over bytes that are already in memory; `read` copies nothing. */
export function bytesSource(bytes: Uint8Array, name: string): ByteSource {
  const size = bytes.length;
  const part: ReadPart = async (offset, length) => bytes.subarray(offset, offset + length);
  const read: ByteSource["read"] = async (offset, length, signal) => {
    throwIfAborted(signal);
    return bytes.subarray(offset, offset + length);
  };
  return { ...sourceOf(name, size, part), read };
}

/**
 * Reads a range and makes sure that all of it came.
 * @throws FormatError when the range is not inside the source, or the answer is shorter than the range.
 * @throws AbortError when `signal` has fired.
 */
export async function readExactly(source: ByteSource, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
  throwIfAborted(signal);
  if (offset < 0 || length < 0 || !Number.isSafeInteger(offset + length) || offset + length > source.size) {
    throw new FormatError(
      `${source.name}: truncated: expected bytes ${offset} to ${offset + length}, got a file of ${source.size} bytes. Fetch the file again.`,
    );
  }
  const bytes = await source.read(offset, length, signal);
  throwIfAborted(signal);
  if (bytes.length === length) return bytes;
  throw new FormatError(
    `${source.name}: truncated: expected ${length} bytes at ${offset}, got ${bytes.length}. The file changed or is damaged: fetch it again.`,
  );
}

/** Fills `target` from `offset`: straight where the source can, else as `readExactly` reads it. @throws what that throws */
export async function fill(source: ByteSource, offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
  if (!source.readInto) return target.set(await readExactly(source, offset, target.length, signal));
  throwIfAborted(signal);
  await source.readInto(offset, target, signal);
  throwIfAborted(signal);
}

/** @returns whether `path` names something inside its folder: plain characters, no empty, `.` or `..` segment, no address. */
export function isPlainPath(path: string): boolean {
  return path.length <= 1024 && path.split("/").every((part) => /^[A-Za-z0-9._-]+$/.test(part) && !/^\.{1,2}$/.test(part));
}

/** Files that stand for the folder that they lie in: model.safetensors, a shard, the shards' index. */
export const isFolderFile = (name: string): boolean => /^model(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?$/.test(name);

const ascii = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/**
 * Recognises what often lies in the place of weights.
 * @param head - the first bytes of the file, 64 are enough
 * @returns a phrase for an error message, or undefined
 */
export function commonMistake(head: Uint8Array): string | undefined {
  const text = ascii(head.subarray(0, 64));
  if (text.startsWith("version https://git-lfs")) return "a Git LFS pointer. Run `git lfs pull`, or download the file itself";
  if (/^\s*<(?:!doctype|html|\?xml|head|body)/i.test(text)) return "an HTML page. Check the address, and whether it needs a login";
  return undefined;
}

/** @returns whether it is a folder; an object that can do both is a file */
export function isFolder(source: ByteSource | Folder): source is Folder {
  return "open" in source && !("read" in source);
}
