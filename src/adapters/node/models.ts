// What a folder of downloaded models holds, and how one of them goes. Node, Deno and Bun share it.
import { randomUUID } from "node:crypto";
import type { Stats } from "node:fs";
import { lstat, readdir, readlink, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { StorageError } from "../../errors.ts";
import { isFileLocked } from "../../weights/file-lock.ts";
import * as layout from "../../weights/hub-layout.ts";
import { revisionsOf } from "../../weights/revisions.ts";
import type { Store, StoredFile, StoredModel } from "../../weights/store.ts";
import { isTemporary } from "./at-once.ts";
import { orUndefined } from "./fs-errors.ts";
import { lockFiles } from "./lock-files.ts";

const namesIn = async (dir: string): Promise<string[]> => (await orUndefined(() => readdir(dir))) ?? [];

/** Every file below `dir`, with what is known of it itself, links not followed; none that a killed process was about to give its name. */
async function walk(dir: string, prefix = ""): Promise<{ path: string; at: string; stats: Stats }[]> {
  const found = [];
  for (const entry of (await orUndefined(() => readdir(dir, { withFileTypes: true }))) ?? []) {
    const at = join(dir, entry.name);
    if (entry.isDirectory()) found.push(...(await walk(at, `${prefix}${entry.name}/`)));
    else if (!isTemporary(entry.name)) {
      const stats = await orUndefined(() => lstat(at));
      if (stats) found.push({ path: prefix + entry.name, at, stats });
    }
  }
  return found;
}

/** @returns the files of a commit. @param dir its snapshot */
export async function filesIn(dir: string): Promise<readonly StoredFile[]> {
  const files: StoredFile[] = [];
  for (const { path, at, stats } of await walk(dir)) {
    const target = stats.isSymbolicLink() ? await readlink(at) : "";
    const whole = await orUndefined(() => stat(at)); // none where a link leads nowhere
    const name = basename(target);
    if (whole?.isFile()) files.push({ path, sizeBytes: whole.size, blob: layout.isBlobName(name) ? name : undefined });
  }
  return files;
}

async function modelOf(store: Store, id: string): Promise<StoredModel> {
  const files = await walk(join(store.place, layout.folderOf(id)));
  const sizes = new Map(files.filter(({ stats }) => stats.isFile()).map(({ stats }) => [`${stats.dev} ${stats.ino}`, stats.size])); // a hard link is the same file
  const paths = files.map(({ path }) => path);
  const partials = files.filter(({ path }) => layout.isPart(path));
  return {
    id,
    sizeBytes: [...sizes.values()].reduce((sum, size) => sum + size, 0),
    partialBytes: partials.reduce((sum, { stats }) => sum + stats.size, 0),
    revisions: await revisionsOf(store, id, paths),
  };
}

export async function listModels(store: Store): Promise<readonly StoredModel[]> {
  const names = await namesIn(store.place);
  await sweep(store.place, names);
  const ids = names.filter(layout.isModelFolder).map(layout.repoOf);
  return Promise.all(ids.sort().map((id) => modelOf(store, id)));
}

/** @returns what was there; undefined when nothing was */
export async function removeModel(store: Store, repo: string): Promise<StoredModel | undefined> {
  const dir = join(store.place, layout.folderOf(repo));
  const model = await orUndefined(async () => (await stat(dir)) && (await modelOf(store, repo)));
  if (!model) return undefined;
  await checkUnused(store.place, repo);
  // gone at once, whenever this process ends
  await rename(dir, join(store.place, layout.TRASH + randomUUID()));
  await sweep(store.place, await readdir(store.place));
  return model;
}

async function checkUnused(place: string, repo: string): Promise<void> {
  const locks = join(place, layout.locksPath(repo));
  for (const name of await namesIn(locks)) {
    if (!layout.isLock(name) || !(await isFileLocked(lockFiles, join(locks, name)))) continue;
    throw new StorageError(`cache: expected ${repo} to be at rest, got a download under way. End it first, or wait.`, { code: "in-use" });
  }
}

/** Ends removals, also such as another process began. */
async function sweep(place: string, names: readonly string[]): Promise<void> {
  for (const name of names) if (name.startsWith(layout.TRASH)) await rm(join(place, name), { recursive: true, force: true });
}
