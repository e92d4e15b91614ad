// The origin private file system as a shelf. In a dedicated worker files grow by a synchronous handle; elsewhere, where only whole files can be written, in pieces of some MiB.
import { StorageError } from "../../errors.ts";
import { type DirectoryHandleLike, type FileHandleLike, openObject } from "../../weights/objects.ts";
import type { ByteSource } from "../../weights/source.ts";
import { collected } from "./collected.ts";
import { type Appender, doing, full, isMissing, type Shelf, storageNavigator } from "./shelf.ts";

interface SyncHandle {
  read(target: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  flush(): void;
  truncate(sizeBytes: number): void;
  close(): void;
}
interface Writable {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
  abort(): Promise<void>;
}
interface FileHandle extends FileHandleLike {
  createWritable?(): Promise<Writable>;
  createSyncAccessHandle?(options?: { mode?: string }): Promise<SyncHandle & { getSize(): number }>;
}
interface Directory extends DirectoryHandleLike {
  getFileHandle(name: string, options?: { create?: boolean }): Promise<FileHandle>;
  getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<Directory>;
  removeEntry(name: string, options?: { recursive?: boolean }): Promise<void>;
  entries(): AsyncIterable<[string, FileHandle | Directory]>;
}

/** A file under a synchronous handle. */
class SyncAppender implements Appender {
  readonly isFull = false;
  readonly #handle: SyncHandle;
  readonly #place: string;
  sizeBytes = 0;

  constructor(handle: SyncHandle, place: string) {
    this.#handle = handle;
    this.#place = place;
  }

  append(bytes: Uint8Array): Promise<void> {
    return doing(this.#place, "keep a file", async () => {
      for (let done = 0; done < bytes.length; ) {
        const count = this.#handle.write(bytes.subarray(done), { at: this.sizeBytes });
        if (count === 0) throw await full(this.#place, "a file");
        done += count;
        this.sizeBytes += count;
      }
    });
  }

  readInto(offset: number, target: Uint8Array): Promise<void> {
    return doing(this.#place, "read a file", async () => {
      for (let done = 0; done < target.length; ) {
        const count = this.#handle.read(target.subarray(done), { at: offset + done });
        if (count === 0) throw new StorageError(`cache: expected ${target.length} bytes at ${offset}, got ${done}: the file was cut.`);
        done += count;
      }
    });
  }

  flush(): Promise<void> {
    return doing(this.#place, "keep a file", async () => this.#handle.flush());
  }

  async close(): Promise<void> {
    this.#handle.close();
  }
}

class Opfs implements Shelf {
  readonly place: string;
  readonly #root: Directory;
  readonly #name: string;

  constructor(root: Directory, name: string) {
    this.#root = root;
    this.#name = name;
    this.place = `OPFS (${name})`;
  }

  /** @returns the folder of `path` and the name in it; undefined where it is not there and not to be made */
  async #at(path: string, create: boolean): Promise<{ folder: Directory; name: string } | undefined> {
    const parts = `${this.#name}/${path}`.split("/");
    let folder = this.#root;
    try {
      for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part, { create });
    } catch (error) {
      if (!create && isMissing(error)) return undefined;
      throw error;
    }
    return { folder, name: parts.at(-1) ?? "" };
  }

  async #file(path: string): Promise<FileHandle> {
    const at = await this.#at(path, true);
    if (!at) throw new Error("expected a folder that was made");
    return at.folder.getFileHandle(at.name, { create: true });
  }

  list(folder: string): Promise<ReadonlyMap<string, number>> {
    return doing(this.place, "list files", async () => {
      const out = new Map<string, number>();
      const walk = async (directory: Directory, prefix: string): Promise<void> => {
        for await (const [name, handle] of directory.entries()) {
          if (handle.kind === "directory") await walk(handle, `${prefix}${name}/`);
          else {
            const file = await handle.getFile().catch(() => undefined); // it has gone meanwhile
            if (file) out.set(prefix + name, file.size);
          }
        }
      };
      try {
        const at = await this.#at(folder, false);
        if (at) await walk(await at.folder.getDirectoryHandle(at.name), "");
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
      return out;
    });
  }

  open(path: string): Promise<ByteSource | undefined> {
    return doing(this.place, "open a file", async () => {
      try {
        const at = await this.#at(path, false);
        return at && ((await openObject(await at.folder.getFileHandle(at.name))) as ByteSource);
      } catch (error) {
        const { cause } = error as Error;
        if (isMissing(error) || isMissing(cause)) return undefined;
        throw error;
      }
    });
  }

  write(path: string, bytes: Uint8Array): Promise<void> {
    const write = async (): Promise<void> => {
      const file = await this.#file(path);
      if (file.createWritable) return writeWhole(await file.createWritable(), bytes);
      const appender = await this.#sync(file);
      try {
        await appender.append(bytes);
        await appender.flush();
      } finally {
        await appender.close();
      }
    };
    return doing(this.place, "keep a file", write, bytes.length);
  }

  create(path: string): Promise<Appender> {
    return doing(this.place, "keep a file", async () => {
      const file = await this.#file(path);
      return file.createSyncAccessHandle ? this.#sync(file) : collected(this, path);
    });
  }

  async #sync(file: FileHandle): Promise<Appender> {
    const handle = await file.createSyncAccessHandle?.();
    if (!handle)
      throw new StorageError(`cache: expected a browser that writes files of ${this.place} here, got one that does so in workers only.`, {
        code: "not-writable",
      });
    handle.truncate(0);
    return new SyncAppender(handle, this.place);
  }

  remove(path: string): Promise<void> {
    return doing(this.place, "remove a file", async () => {
      try {
        const at = await this.#at(path, false);
        await at?.folder.removeEntry(at.name, { recursive: true });
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    });
  }
}

async function writeWhole(writable: Writable, bytes: Uint8Array): Promise<void> {
  try {
    await writable.write(bytes);
    await writable.close(); // it appears now, or not at all
  } catch (error) {
    await writable.abort().catch(() => {});
    throw error;
  }
}

/**
 * @param name a folder in the origin's file system
 * @returns undefined where the browser has no such thing, or not for this origin
 */
export async function opfs(name: string): Promise<Shelf | undefined> {
  try {
    const root = (await storageNavigator().storage?.getDirectory?.()) as Directory | undefined;
    return root && new Opfs(root, name);
  } catch {
    return undefined; // a private window, a frame without an origin
  }
}
