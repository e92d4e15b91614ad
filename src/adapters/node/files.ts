// Files and folders through node:fs, which Node, Deno and Bun share.
import { type FileHandle, open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { StorageError, throwIfAborted, UnsupportedError } from "../../errors.ts";
import { type ByteSource, type Folder, isFolderFile, readClipped, truncated } from "../../weights/source.ts";

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
      throw new StorageError(
        `${this.name}: expected to read at ${position}, got an error of the file system: ${(cause as Error).message}.`,
        { cause },
      );
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

const isMissing = (error: unknown): boolean => ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");

/** @throws StorageError for what is no file: opening a pipe would wait for somebody to write to it */
export async function openFile(path: string): Promise<FileSource> {
  if (!(await stat(path)).isFile()) throw new StorageError(`${basename(path)}: expected a file, got a folder or a device. Pass a file.`);
  const handle = await open(path, "r");
  const { size, ino, mtimeNs } = await handle.stat({ bigint: true });
  const identity = `${await realpath(path)} ${ino} ${size} ${mtimeNs}`;
  return new FileSource(path, Number(size), identity, handle);
}

function folder(path: string): Folder {
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

function cannotOpen(path: string, cause: unknown): StorageError {
  if (cause instanceof StorageError) return cause;
  if (isMissing(cause)) {
    return new StorageError(
      `load: expected a file or folder at ${JSON.stringify(path)}, got none. Check the path; a model on a hub is named org/name.`,
      { code: "not-found", cause },
    );
  }
  return new StorageError(`load: expected to open ${JSON.stringify(path)}, got an error of the file system: ${(cause as Error).message}.`, {
    cause,
  });
}

/**
 * @param source a path, or a file: URL
 * @returns the file; the folder, also for the path of model.safetensors, of a shard or of the shards' index in it
 * @throws StorageError when nothing is there or it cannot be read; UnsupportedError for a URL of another kind
 */
export async function openPath(source: string | URL): Promise<ByteSource | Folder> {
  const text = String(source);
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme !== undefined && scheme !== "file") {
    throw new UnsupportedError(
      `load: expected a path, a file: URL or an https: address, got ${JSON.stringify(text)}. Download the file and pass its path.`,
      {
        code: "scheme",
      },
    );
  }
  const path = scheme === "file" ? fileURLToPath(text) : text;
  try {
    if ((await stat(path)).isDirectory()) return folder(path);
    if (isFolderFile(basename(path))) return folder(dirname(path));
    if (!path.endsWith(".safetensors")) return await openFile(path);
  } catch (cause) {
    throw cannotOpen(path, cause);
  }
  throw new UnsupportedError(
    `load: expected a folder, model.safetensors in it or a GGUF file, got ${JSON.stringify(basename(path))}. A file of another name cannot be loaded alone: pass the folder.`,
  );
}
