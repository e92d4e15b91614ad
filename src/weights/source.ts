// Where bytes come from: something with a name and a size that can be read by ranges. Must not know what the bytes mean, nor any runtime.
import { FormatError, throwIfAborted } from "../errors.ts";

/** Bytes that can be read by ranges: a file, a Blob, an object in a bucket. */
export interface ByteSource {
  /** What error messages call it: a file name, an address. */
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  /** @returns up to `length` bytes from `offset`; fewer only if the source is shorter than it said. */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Fills `target` from `offset`: spares a copy where the runtime can. It may lie in memory that threads share: its buffer cannot be transferred. */
  readInto?(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Opens the file of this name beside it, where there is such a thing: a split file needs its other parts. */
  sibling?(name: string): Promise<ByteSource | undefined>;
  /** Proves the whole by a checksum, where there is one. @throws FormatError when the bytes are others than they should be */
  verify?(signal?: AbortSignal): Promise<void>;
  /** Gives back what the source holds open. */
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

/** @returns a source over bytes that are already in memory; nothing is copied. */
export function bytesSource(bytes: Uint8Array, name: string): ByteSource {
  return {
    name,
    size: bytes.length,
    read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
    readInto: (offset, target) => {
      target.set(bytes.subarray(offset, offset + target.length));
      return Promise.resolve();
    },
  };
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

/** @returns whether `path` names something inside its folder: plain characters, no empty, `.` or `..` segment, no address. */
export function isPlainPath(path: string): boolean {
  return path.length <= 1024 && path.split("/").every((part) => /^[A-Za-z0-9._-]+$/.test(part) && !/^\.{1,2}$/.test(part));
}

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
