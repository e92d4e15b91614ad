// A Blob or File as a source. It is known by its shape: no type of the DOM.
import { StorageError } from "../errors.ts";
import { type ByteSource, type ReadPart, sourceOf } from "./source.ts";

/** Of a `Blob` or `File` what is used. */
export interface BlobLike {
  readonly size: number;
  /** Of a `File`. */
  readonly name?: string;
  /** Of a `File` that was chosen with its folder: the path in it, the folder's name first. */
  readonly webkitRelativePath?: string;
  slice(start?: number, end?: number): BlobLike;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** Bytes of a Blob that are in memory at once. */
const PART_BYTES = 1 << 20;
/** What bytes without a name are called: only a GGUF can be loaded from one file. */
export const NAMELESS = "model.gguf";

/** @returns a source over a Blob or File: a page's own file, or one of OPFS. */
export function blobSource(blob: BlobLike, name: string = blob.name ?? NAMELESS): ByteSource {
  const part: ReadPart = async (offset, length) => {
    try {
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    } catch (cause) {
      throw unreadable(name, cause); // the file has gone, or changed since it was chosen
    }
  };
  return sourceOf(name, blob.size, part, PART_BYTES);
}

/** @returns the error of a file that the browser does not read */
export function unreadable(name: string, cause: unknown): StorageError {
  const said = cause instanceof Error ? cause.message : String(cause);
  return new StorageError(`${name}: expected to read the file, got an error: ${said} Choose the file again.`, { cause });
}
