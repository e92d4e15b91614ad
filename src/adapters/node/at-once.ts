// Paths that appear at once: written under another name beside theirs, then renamed. Node, Deno and Bun share it.
import { randomUUID } from "node:crypto";
import { copyFile, link, mkdir, rename, rm, symlink } from "node:fs/promises";
import { dirname, relative } from "node:path";
import { codeOf } from "./fs-errors.ts";

const TEMPORARY = ".lfm2-wasm.temporary";
/** What a system says that has no links of a kind, or no right to make one. */
const NO_LINKS = ["EPERM", "EACCES", "ENOTSUP", "ENOSYS", "EINVAL", "EXDEV", "UNKNOWN"];

/** Whether a killed process was about to give the file its name. */
export const isTemporary = (name: string): boolean => name.endsWith(TEMPORARY);

/** Makes `path` appear at once: `make` writes it under another name beside it. */
export async function atOnce(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomUUID()}${TEMPORARY}`;
  try {
    await make(temporary);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/** Shows `blob` at `path`: by a link, and where there is no right or no way to make one, by a copy. */
export function show(blob: string, path: string): Promise<void> {
  const ways = [(to: string) => symlink(relative(dirname(path), blob), to), (to: string) => link(blob, to)];
  return atOnce(path, async (to) => {
    for (const way of ways) {
      try {
        return await way(to);
      } catch (error) {
        if (!NO_LINKS.includes(codeOf(error))) throw error;
      }
    }
    await copyFile(blob, to);
  });
}
