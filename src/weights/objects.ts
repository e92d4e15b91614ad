// Objects that hold a checkpoint, as sources: bytes, Blobs and Files, handles of a file system in the browser, whatever reads by ranges. They are known by their
// shape: no type of the DOM, no runtime, and not what the bytes mean.
import { InputError, StorageError, throwIfAborted } from "../errors.ts";
import { isRecord, kindOf } from "../values.ts";
import { type BlobLike, blobSource, NAMELESS, unreadable } from "./blob.ts";
import { isR2Address, openR2, type R2Address } from "./r2.ts";
import { type ByteSource, bytesSource, type Folder, type ReadPart, readClipped, sourceOf, truncated, unlessAborted } from "./source.ts";

interface SyncHandle {
  read(target: Uint8Array<ArrayBuffer>, options?: { at?: number }): number;
  getSize(): number;
  close(): void;
}

/** Of a `FileSystemFileHandle` what is used. */
export interface FileHandleLike {
  readonly kind: "file";
  readonly name: string;
  getFile(): Promise<BlobLike>;
  createSyncAccessHandle?(options?: { mode?: string }): Promise<SyncHandle>;
}

/** Of a `FileSystemDirectoryHandle` what is used. */
export interface DirectoryHandleLike {
  readonly kind: "directory";
  readonly name: string;
  getFileHandle(name: string): Promise<FileHandleLike>;
  getDirectoryHandle(name: string): Promise<DirectoryHandleLike>;
  keys?(): AsyncIterable<string>;
}

/** Anything that reads by ranges. A read that brings fewer bytes than asked for is followed by another for the rest. */
export type ReadsByRanges = Omit<ByteSource, "name"> & { readonly name?: string };

/** What `openObject` opens. */
export type ObjectSource =
  | ArrayBufferLike
  | ArrayBufferView
  | BlobLike
  | ArrayLike<BlobLike>
  | FileHandleLike
  | DirectoryHandleLike
  | R2Address
  | ReadsByRanges
  | Folder;

const can = (value: object, ...names: readonly string[]): boolean =>
  names.every((name) => typeof (value as Record<string, unknown>)[name] === "function");
const isBlob = (value: object): value is BlobLike => can(value, "slice", "arrayBuffer") && "size" in value;
const isFileHandle = (value: object): value is FileHandleLike => can(value, "getFile");
const isDirectoryHandle = (value: object): value is DirectoryHandleLike => can(value, "getFileHandle", "getDirectoryHandle");
const isBuffer = (value: object): value is ArrayBufferLike =>
  /^\[object (?:Shared)?ArrayBuffer\]$/.test(Object.prototype.toString.call(value));
const isRanges = (value: object): value is ReadsByRanges => can(value, "read");
const isFolder = (value: object): value is Folder => can(value, "open");
const isFiles = (value: object): value is ArrayLike<BlobLike> =>
  "length" in value && Array.from(value as ArrayLike<unknown>).every((file) => typeof file === "object" && file !== null && isBlob(file));

/**
 * @param what an object that holds a checkpoint; one of `open` and `name` is taken as a folder as it is
 * @throws InputError for an object of another kind; StorageError when it cannot be opened
 */
export async function openObject(what: ObjectSource, signal?: AbortSignal): Promise<ByteSource | Folder> {
  if (!isRecord(what) && !Array.isArray(what)) throw unknown(kindOf(what));
  if (ArrayBuffer.isView(what)) return bytesSource(new Uint8Array(what.buffer, what.byteOffset, what.byteLength), NAMELESS);
  if (isBuffer(what)) return bytesSource(new Uint8Array(what), NAMELESS);
  if (isR2Address(what)) return openR2(what, signal);
  if (isFileHandle(what)) return handleSource(what);
  if (isDirectoryHandle(what)) return handleFolder(what);
  if (isRanges(what)) return rangesSource(what);
  if (isFolder(what)) return checkedFolder(what);
  if (isBlob(what)) return blobSource(what);
  if (isFiles(what) && what.length > 0) return filesFolder(Array.from(what));
  throw unknown(Array.isArray(what) ? "a list of other things" : "an object of another kind");
}

function unknown(got: string): InputError {
  return new InputError(
    `load: expected a path, a URL, a hub's id, bytes, a File or a list of them, a handle of a file or folder, { bucket, key } or { size, read }, got ${got}.`,
  );
}

/** @returns the source as the rest of the loader needs it: named, and a read ends with its signal and brings all that was asked for */
function rangesSource(from: ReadsByRanges): ByteSource {
  const { name = "model", size } = from;
  if (!Number.isSafeInteger(size) || size < 0)
    throw new InputError(`load: size: expected a whole number of bytes, got ${String(size)}. Pass an object with { size, read }.`);
  const part: ReadPart = async (offset, length, signal) => {
    const bytes: unknown = await from.read(offset, length, signal);
    if (bytes instanceof Uint8Array && bytes.length <= length) return bytes;
    const got = bytes instanceof Uint8Array ? `${bytes.length}` : kindOf(bytes);
    throw new InputError(`${name}: read: expected a Uint8Array of at most ${length} bytes, got ${got}. Mend the object that was passed.`);
  };
  const source = sourceOf(name, size, part);
  const { readInto } = from;
  const into: ByteSource["readInto"] = async (offset, target, signal) => {
    throwIfAborted(signal);
    if (offset + target.length > size) throw truncated(name, offset, target.length, `a file of ${size}`);
    await unlessAborted(Promise.resolve(readInto?.call(from, offset, target, signal)), signal);
  };
  return {
    ...source,
    ...(readInto && { readInto: into }),
    ...(from.sibling && { sibling: (path) => Promise.resolve(from.sibling?.(path)) }),
    ...(from.verify && { verify: async (signal) => from.verify?.(signal) }),
    ...(from.close && { close: async () => from.close?.() }),
  };
}

/** As the rest of the loader needs it: what it hands out is looked at like a source that is passed alone. */
function checkedFolder(from: Folder): Folder {
  const open = async (path: string): Promise<ByteSource | undefined> => {
    const source = await from.open(path);
    return source && rangesSource(source);
  };
  return { name: from.name, open, ...(from.list && { list: async () => (await from.list?.()) ?? [] }) };
}

/** A list of Files is a folder; where all were chosen with one folder, paths begin below it. */
function filesFolder(files: readonly BlobLike[]): Folder {
  const paths = files.map(({ webkitRelativePath, name }) => webkitRelativePath || name || NAMELESS);
  const roots = new Set(paths.map((path) => (path.includes("/") ? path.slice(0, path.indexOf("/")) : "")));
  const [root = ""] = roots.size === 1 ? roots : [];
  const byPath = new Map(paths.map((path, i) => [root === "" ? path : path.slice(root.length + 1), files[i] as BlobLike]));
  return {
    name: root === "" ? "files" : root,
    open: async (path) => {
      const file = byPath.get(path);
      return file && blobSource(file, path);
    },
    list: async () => [...byPath.keys()].filter((path) => !path.includes("/")),
  };
}

/**
 * In a worker a file of OPFS reads straight into memory, even memory that threads share. Elsewhere, and where another tab writes to it, it reads as a File.
 */
async function handleSource(handle: FileHandleLike): Promise<ByteSource> {
  const sync = await handle.createSyncAccessHandle?.({ mode: "read-only" }).catch(() => undefined);
  if (sync) return syncSource(handle.name, sync);
  try {
    return blobSource(await handle.getFile(), handle.name);
  } catch (cause) {
    throw unreadable(handle.name, cause);
  }
}

function syncSource(name: string, handle: SyncHandle): ByteSource {
  const size = handle.getSize();
  const readInto: ByteSource["readInto"] & object = async (offset, target, signal) => {
    throwIfAborted(signal);
    if (offset < 0 || offset + target.length > size) throw truncated(name, offset, target.length, `a file of ${size}`);
    for (let done = 0; done < target.length; ) {
      const count = readSync(name, handle, target.subarray(done), offset + done);
      if (count === 0) throw truncated(name, offset, target.length, `${done}`);
      done += count;
    }
  };
  const read: ByteSource["read"] = (offset, length, signal) => readClipped({ size, readInto }, offset, length, signal);
  return { name, size, readInto, read, close: async () => handle.close() };
}

function readSync(name: string, handle: SyncHandle, target: Uint8Array, at: number): number {
  try {
    return handle.read(target as Uint8Array<ArrayBuffer>, { at }); // shared memory will do as well, whatever the type says
  } catch (cause) {
    throw unreadable(name, cause);
  }
}

const isMissing = (error: unknown): boolean => /^(?:NotFoundError|TypeMismatchError)$/.test((error as Error | undefined)?.name ?? "");

function handleFolder(handle: DirectoryHandleLike): Folder {
  return {
    name: handle.name,
    open: async (path) => {
      const parts = path.split("/");
      try {
        let folder = handle;
        for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
        return await handleSource(await folder.getFileHandle(parts.at(-1) ?? ""));
      } catch (cause) {
        if (isMissing(cause)) return undefined;
        throw cause instanceof StorageError ? cause : unreadable(path, cause);
      }
    },
    ...(handle.keys && { list: async () => collect(handle.keys?.() ?? []) }),
  };
}

async function collect(names: AsyncIterable<string> | Iterable<string>): Promise<string[]> {
  const out: string[] = [];
  for await (const name of names) out.push(name);
  return out;
}
