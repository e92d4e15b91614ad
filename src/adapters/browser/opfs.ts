// The origin private file system as a shelf. In a dedicated worker files grow by a synchronous handle; elsewhere, where only whole files can be written, in pieces of some MiB.
import { collected } from "../../weights/collected.ts";
import { type DirectoryHandleLike, openObject } from "../../weights/objects.ts";
import type { Appender, Shelf, ShelfHost } from "../../weights/shelf.ts";
import type { ByteSource } from "../../weights/source.ts";
import { hostOf } from "./host.ts";
import { type FileHandle, growFile, writeWhole } from "./opfs-file.ts";
import { doing, storageNavigator, unlessMissing } from "./storage.ts";

interface Directory extends DirectoryHandleLike {
  getFileHandle(name: string, options?: { create?: boolean }): Promise<FileHandle>;
  getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<Directory>;
  removeEntry(name: string, options?: { recursive?: boolean }): Promise<void>;
  entries(): AsyncIterable<[string, FileHandle | Directory]>;
}

class Opfs implements Shelf {
  readonly place: string;
  readonly host: ShelfHost;
  readonly #root: Directory;
  readonly #name: string;

  constructor(root: Directory, name: string) {
    this.#root = root;
    this.#name = name;
    this.place = `OPFS (${name})`;
    this.host = hostOf(this.place);
  }

  /** @returns the folder of `path` and the name in it */
  async #at(path: string, create = false): Promise<{ folder: Directory; name: string }> {
    const parts = `${this.#name}/${path}`.split("/");
    let folder = this.#root;
    for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part, { create });
    return { folder, name: parts.at(-1) ?? "" };
  }

  async #file(path: string, create = false): Promise<FileHandle> {
    const { folder, name } = await this.#at(path, create);
    return folder.getFileHandle(name, { create });
  }

  list(folder: string): Promise<ReadonlyMap<string, number>> {
    return doing(this.place, "list files", async () => {
      const out = new Map<string, number>();
      await unlessMissing(async () => {
        const at = await this.#at(folder);
        await walk(await at.folder.getDirectoryHandle(at.name), "", out);
      });
      return out;
    });
  }

  open(path: string): Promise<ByteSource | undefined> {
    return doing(this.place, "open a file", () => unlessMissing(async () => (await openObject(await this.#file(path))) as ByteSource));
  }

  write(path: string, bytes: Uint8Array): Promise<void> {
    return doing(this.place, "keep a file", async () => writeWhole(await this.#file(path, true), bytes, this.place), bytes.length);
  }

  create(path: string): Promise<Appender> {
    return doing(this.place, "keep a file", async () => {
      const file = await this.#file(path, true);
      return file.createSyncAccessHandle ? growFile(file, this.place) : collected(this, path);
    });
  }

  async remove(path: string): Promise<void> {
    await doing(this.place, "remove a file", () =>
      unlessMissing(async () => {
        const { folder, name } = await this.#at(path);
        await folder.removeEntry(name, { recursive: true });
      }),
    );
  }
}

/** Adds the files below a folder to `out`, with their bytes. */
async function walk(folder: Directory, prefix: string, out: Map<string, number>): Promise<void> {
  for await (const [name, handle] of folder.entries()) {
    if (handle.kind === "directory") await walk(handle, `${prefix}${name}/`, out);
    else {
      const file = await handle.getFile().catch(() => undefined); // it has gone meanwhile
      if (file) out.set(prefix + name, file.size);
    }
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
