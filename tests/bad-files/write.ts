// Files of the catalogue on disk, for tests of what reads paths.
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Files } from "./catalogue.mjs";

/** Names of the valid shards and of the valid GGUF's parts. */
export const SHARD_NAMES: readonly [string, string] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
export const PART_NAMES: readonly [string, string] = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];

/** @returns `dir`, which then holds these files and no others */
export function writeFiles(dir: string, files: Files): string {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    const path = join(dir, name);
    writeFileSync(path, content instanceof Uint8Array ? content : content.head);
    if (!(content instanceof Uint8Array)) truncateSync(path, content.size);
  }
  return dir;
}
