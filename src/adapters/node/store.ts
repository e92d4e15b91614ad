// Downloaded models on a disk, in the layout of Hugging Face's own tools (weights/hub-layout.ts). Node, Deno and Bun share it.
import { readFile, readlink, rm, stat, statfs, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isFileLocked, lockFile } from "../../weights/file-lock.ts";
import * as layout from "../../weights/hub-layout.ts";
import type { ByteSource } from "../../weights/source.ts";
import type { LockOptions, Store, StoredFile, StoredModel, StoreFile, StoreLock, StorePart } from "../../weights/store.ts";
import { atOnce, show } from "./at-once.ts";
import { doing } from "./doing.ts";
import { openFile } from "./file-source.ts";
import { isMissing, orUndefined } from "./fs-errors.ts";
import { lockFiles } from "./lock-files.ts";
import { filesIn, listModels, removeModel } from "./models.ts";
import { openPart, type PartPaths } from "./store-part.ts";

class DiskStore implements Store {
  readonly place: string;

  constructor(place: string) {
    this.place = place;
  }

  #at(path: string): string {
    return join(this.place, path);
  }

  #paths(file: StoreFile): PartPaths {
    return { part: this.#at(layout.partPath(file)), blob: this.#at(layout.blobPath(file)), shown: this.#at(layout.shownPath(file)) };
  }

  async revision(repo: string, name: string): Promise<string | undefined> {
    const path = this.#at(layout.refPath(repo, name));
    return layout.commitIn(await doing("read", path, () => orUndefined(() => readFile(path, "utf8"))));
  }

  async setRevision(repo: string, name: string, commit: string): Promise<void> {
    const path = this.#at(layout.refPath(repo, name));
    if ((await this.revision(repo, name)) === commit) return; // the folder may be another user's, for reading only
    await doing("write", path, () => atOnce(path, (to) => writeFile(to, commit)));
  }

  files(repo: string, commit: string): Promise<readonly StoredFile[]> {
    const dir = this.#at(layout.snapshotPath(repo, commit));
    return doing("list", dir, () => filesIn(dir));
  }

  open(file: StoreFile): Promise<ByteSource | undefined> {
    const { shown, blob } = this.#paths(file);
    return doing("open", shown, async () => {
      // a commit never changes, but a repository of that name on another hub may be another
      const target = basename((await readlink(shown).catch(() => undefined)) ?? file.blob);
      const found = target === file.blob || !layout.isBlobName(target) ? await this.#openWhole(shown, file.sizeBytes) : undefined;
      if (found) return found;
      const source = await this.#openWhole(blob, file.sizeBytes);
      if (source) await show(blob, shown).catch(() => {}); // for others to find: where nothing can be written it is readable all the same
      return source;
    });
  }

  async #openWhole(path: string, sizeBytes: number): Promise<ByteSource | undefined> {
    const source = await orUndefined(() => openFile(path));
    if (source?.size === sizeBytes) return source;
    await source?.close(); // another program's, torn
    return undefined;
  }

  async drop(file: StoreFile): Promise<void> {
    const { shown, blob } = this.#paths(file);
    for (const path of [shown, blob]) await doing("remove", path, () => rm(path, { force: true }));
  }

  async partBytes(file: StoreFile): Promise<number> {
    const { part } = this.#paths(file);
    return (await doing("look at", part, () => orUndefined(() => stat(part))))?.size ?? 0;
  }

  lock(file: StoreFile, options?: LockOptions): Promise<StoreLock> {
    const path = this.#at(layout.lockPath(file));
    return doing("lock", path, () => lockFile(lockFiles, path, options));
  }

  isLocked(file: StoreFile): Promise<boolean> {
    const path = this.#at(layout.lockPath(file));
    return doing("look at", path, () => isFileLocked(lockFiles, path));
  }

  begin(file: StoreFile): Promise<StorePart> {
    return openPart(this.#paths(file));
  }

  list(): Promise<readonly StoredModel[]> {
    return doing("list", this.place, () => listModels(this));
  }

  /** Of the disk, for this user; where there is no folder yet, of the one that it will be made in. */
  async freeBytes(): Promise<number | undefined> {
    for (let dir = resolve(this.place); ; dir = dirname(dir)) {
      try {
        const { bavail, bsize } = await statfs(dir);
        return bavail * bsize;
      } catch (error) {
        if (!isMissing(error) || dir === dirname(dir)) return undefined;
      }
    }
  }

  remove(repo: string): Promise<StoredModel | undefined> {
    return doing("remove", this.#at(layout.folderOf(repo)), () => removeModel(this, repo));
  }
}

/** @param dir the cache's folder; need not exist yet */
export function diskStore(dir: string): Store {
  return new DiskStore(dir);
}
