// Packed images in a browser's storage, the least recently used ones gone when they take too much. An adapter asks for this file when a load first needs it.
import type { ImageStore } from "../../weights/packed-image.ts";
import type { FileSink } from "../../weights/sink.ts";
import { tryLock } from "./locks.ts";
import { openPile, PileWriter, removePile, textOf, writeText } from "./pile.ts";
import { freeBytes, type Shelf } from "./shelf.ts";
import { browserShelf } from "./store.ts";

/** All images together. */
const MOST_BYTES = 16 * 1024 * 1024 * 1024;
/** What stays free of the origin's quota: an image spares time, what else the page keeps may be worth more. */
const FREE_BYTES = 256 * 1024 * 1024;

const folderOf = (name: string): string => `packed/${name}`;
const usedAt = (name: string): string => `packed-used/${name}`;

async function makeRoom(shelf: Shelf, bytes: number, mostBytes: number): Promise<boolean> {
  if (bytes > mostBytes) return false;
  const sizes = new Map<string, number>();
  for (const [path, size] of await shelf.list("packed")) {
    const name = path.slice(0, path.indexOf("/"));
    sizes.set(name, (sizes.get(name) ?? 0) + size);
  }
  const images = [];
  for (const [name, size] of sizes) images.push({ name, size, usedMs: Number(await textOf(shelf, usedAt(name))) || 0 });
  images.sort((a, b) => a.usedMs - b.usedMs);
  let sum = images.reduce((total, { size }) => total + size, bytes);
  for (const { name, size } of images) {
    if (sum <= mostBytes) break;
    await removeImage(shelf, name);
    sum -= size;
  }
  return ((await freeBytes()) ?? Number.POSITIVE_INFINITY) >= bytes + FREE_BYTES;
}

async function removeImage(shelf: Shelf, name: string): Promise<void> {
  await removePile(shelf, folderOf(name));
  await shelf.remove(usedAt(name));
}

class ImageSink implements FileSink {
  readonly #writer: PileWriter;
  readonly #end: () => Promise<void>;

  constructor(writer: PileWriter, end: () => Promise<void>) {
    this.#writer = writer;
    this.#end = end;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#writer.append(bytes);
  }

  async commit(): Promise<void> {
    await this.#writer.commit();
    await this.#close();
  }

  async discard(): Promise<void> {
    this.#writer.discard();
    await this.#close();
  }

  async #close(): Promise<void> {
    try {
      await this.#writer.close();
    } finally {
      await this.#end();
    }
  }
}

function shelfImages(shelf: Shelf, mostBytes: number): ImageStore {
  return {
    async open(name) {
      const image = await openPile(shelf, folderOf(name), name);
      if (image) await writeText(shelf, usedAt(name), String(Date.now())).catch(() => {}); // a full storage may still be read
      return image;
    },
    async create(name, sizeBytes) {
      const held = await tryLock(`lfm2-wasm ${shelf.place} packed ${name}`);
      if (!held) return undefined; // another tab is at it
      try {
        await removeImage(shelf, name);
        if (await makeRoom(shelf, sizeBytes, mostBytes)) {
          await writeText(shelf, usedAt(name), String(Date.now()));
          return new ImageSink(await PileWriter.begin(shelf, folderOf(name)), () => held.release());
        }
      } catch (error) {
        await held.release();
        throw error;
      }
      await held.release();
      return undefined;
    },
    remove: (name) => removeImage(shelf, name),
    names: async () => [...new Set([...(await shelf.list("packed")).keys()].map((path) => path.slice(0, path.indexOf("/"))))],
  };
}

/** @param name a folder in the origin's storage */
export async function browserImages(name?: string, mostBytes: number = MOST_BYTES): Promise<ImageStore | undefined> {
  const shelf = await browserShelf(name);
  return shelf && shelfImages(shelf, mostBytes);
}
