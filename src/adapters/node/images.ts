// Packed images on a disk: one file each in a folder of the user's cache, the least recently used ones gone when they take too much. Node, Deno and Bun share it.
import { mkdir, readdir, rm, stat, statfs, utimes } from "node:fs/promises";
import { join } from "node:path";
import type { ImageStore } from "../../weights/packed-image.ts";
import { openFile } from "./file-source.ts";
import { createFile } from "./sink.ts";

/** All images together. */
const MOST_BYTES = 16 * 1024 * 1024 * 1024;
/** What stays free on the disk. */
const FREE_BYTES = 1024 * 1024 * 1024;
/** What a writer that died left behind is removed after so long. */
const DEAD_MS = 3_600_000;
const SUFFIX = ".safetensors";
const NAME = /^[0-9a-f]{16}\.safetensors$/;
const PARTIAL = /^[0-9a-f]{16}\.safetensors\.[0-9a-f-]+\.partial$/;

interface Image {
  readonly path: string;
  readonly bytes: number;
  readonly usedMs: number;
}

async function imagesIn(dir: string): Promise<Image[]> {
  const images: Image[] = [];
  for (const name of await readdir(dir)) {
    const path = join(dir, name);
    if (!NAME.test(name) && !PARTIAL.test(name)) continue;
    const { size, mtimeMs } = await stat(path);
    if (NAME.test(name)) images.push({ path, bytes: size, usedMs: mtimeMs });
    else if (Date.now() - mtimeMs > DEAD_MS) await rm(path, { force: true });
  }
  return images.sort((a, b) => a.usedMs - b.usedMs);
}

/** Removes images, the longest unused first, until `bytes` more are within the bound. @returns whether they are */
async function makeRoom(dir: string, bytes: number, mostBytes: number): Promise<boolean> {
  if (bytes > mostBytes) return false;
  const images = await imagesIn(dir);
  let sum = images.reduce((total, image) => total + image.bytes, bytes);
  for (const image of images) {
    if (sum <= mostBytes) break;
    await rm(image.path, { force: true });
    sum -= image.bytes;
  }
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize >= bytes + FREE_BYTES;
}

/** @param dir where images are */
export function diskImages(dir: string, mostBytes: number = MOST_BYTES): ImageStore {
  const pathOf = (name: string): string => join(dir, name + SUFFIX);
  return {
    async open(name) {
      const path = pathOf(name);
      const now = new Date();
      try {
        await utimes(path, now, now); // it has been used
      } catch {
        if (!(await stat(path).catch(() => undefined))) return undefined;
      }
      return openFile(path);
    },
    async create(name, sizeBytes) {
      await mkdir(dir, { recursive: true });
      return (await makeRoom(dir, sizeBytes, mostBytes)) ? createFile(pathOf(name), { overwrite: true }) : undefined;
    },
    remove: (name) => rm(pathOf(name), { force: true }),
    names: async () => {
      const files = await readdir(dir).catch(() => []); // no folder yet
      return files.flatMap((file) => (NAME.test(file) ? [file.slice(0, -SUFFIX.length)] : []));
    },
  };
}
