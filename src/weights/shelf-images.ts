// Packed images on a shelf, the least recently used ones gone when they take too much. Knows no runtime.
import type { ImageStore } from "./packed-image.ts";
import { openPile, removePile } from "./pile.ts";
import { PileWriter } from "./pile-writer.ts";
import { type Shelf, textOf, writeText } from "./shelf.ts";
import type { FileSink } from "./sink.ts";

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
  return ((await shelf.host.freeBytes()) ?? Number.POSITIVE_INFINITY) >= bytes + FREE_BYTES;
}

async function removeImage(shelf: Shelf, name: string): Promise<void> {
  await removePile(shelf, folderOf(name));
  await shelf.remove(usedAt(name));
}

/** @param ended is waited for when the image is whole or given up */
function sinkOf(writer: PileWriter, ended: () => Promise<void>): FileSink {
  const end = async (how: Promise<void>): Promise<void> => {
    await how;
    try {
      await writer.close();
    } finally {
      await ended();
    }
  };
  return { write: (bytes) => writer.append(bytes), commit: () => end(writer.commit()), discard: () => end(writer.discard()) };
}

/** @param mostBytes all images together */
export function shelfImages(shelf: Shelf, mostBytes: number = MOST_BYTES): ImageStore {
  return {
    async open(name) {
      const image = await openPile(shelf, folderOf(name), name);
      if (image) await writeText(shelf, usedAt(name), String(Date.now())).catch(() => {}); // a full storage may still be read
      return image;
    },
    async create(name, sizeBytes) {
      const held = await shelf.host.tryLock(`lfm2-wasm ${shelf.place} packed ${name}`);
      if (!held) return undefined; // another tab is at it
      try {
        await removeImage(shelf, name);
        if (await makeRoom(shelf, sizeBytes, mostBytes)) {
          await writeText(shelf, usedAt(name), String(Date.now()));
          return sinkOf(await PileWriter.begin(shelf, folderOf(name)), () => held.release());
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
