// A file that is read by ranges, and the folder that it lies in, through node:fs. Node, Deno and Bun share it.
import { type FileHandle, open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { StorageError, throwIfAborted } from "../../errors.ts";
import { type ByteSource, type Folder, readClipped, truncated } from "../../weights/source.ts";
import { isMissing, refusal } from "./fs-errors.ts";

/** A file that reads straight into the memory it is given. */
class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly identity: string;
  readonly #handle: FileHandle;
  readonly #folder: string;

  /** @param identity the file's place, number and times, which another content does not share */
  constructor(path: string, size: number, identity: string, handle: FileHandle) {
    this.name = basename(path);
    this.#folder = dirname(path);
    this.size = size;
    this.identity = identity;
    this.#handle = handle;
  }

  async sibling(name: string): Promise<ByteSource | undefined> {
    return name === basename(name) ? folder(this.#folder).open(name) : undefined;
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readClipped(this, offset, length, signal);
  }

  async readInto(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (let done = 0; done < target.length; ) {
      throwIfAborted(signal);
      const { bytesRead } = await this.#read(target, done, offset + done);
      if (bytesRead === 0) throw truncated(this.name, offset, target.length, `${done}`);
      done += bytesRead;
    }
  }

  async #read(target: Uint8Array, at: number, position: number): Promise<{ bytesRead: number }> {
    try {
      return await this.#handle.read(target, at, target.length - at, position);
    } catch (cause) {
      throw refusal(`${this.name}: expected to read at ${position}`, cause);
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** @throws StorageError for what is no file: opening a pipe would wait for somebody to write to it */
export async function openFile(path: string): Promise<FileSource> {
  if (!(await stat(path)).isFile()) throw new StorageError(`${basename(path)}: expected a file, got a folder or a device. Pass a file.`);
  const handle = await open(path, "r");
  const { size, ino, mtimeNs } = await handle.stat({ bigint: true });
  const identity = `${await realpath(path)} ${ino} ${size} ${mtimeNs}`;
  return new FileSource(path, Number(size), identity, handle);
}

/** @returns the folder at `path` */
export function folder(path: string): Folder {
  return {
    name: basename(path),
    open: async (name) => {
      try {
        return await openFile(join(path, name));
      } catch (cause) {
        if (isMissing(cause)) return undefined;
        throw cannotOpen(join(path, name), cause);
      }
    },
    list: async () => {
      try {
        return await readdir(path);
      } catch (cause) {
        throw cannotOpen(path, cause);
      }
    },
  };
}

/** What to throw where `path` could not be opened. */
export function cannotOpen(path: string, cause: unknown): StorageError {
  if (cause instanceof StorageError) return cause;
  if (isMissing(cause)) {
    return new StorageError(
      `load: expected a file or folder at ${JSON.stringify(path)}, got none. Check the path; a model on a hub is named org/name.`,
      { code: "not-found", cause },
    );
  }
  return refusal(`load: expected to open ${JSON.stringify(path)}`, cause);
}
