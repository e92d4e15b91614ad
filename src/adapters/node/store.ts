// Downloaded models on a disk, in the layout that Hugging Face's own tools use: what they downloaded is found here, and what is downloaded here by them. Node, Deno and Bun share it.
//
// models--org--name/blobs/<sha256, or git's sha1>      the bytes; our unfinished ones end in .lfm2-wasm.incomplete, since no lock is shared with other programs
//                  /snapshots/<commit>/<path>          a symbolic link to a blob; a hard link or a copy where links cannot be made
//                  /refs/<branch or tag>               the commit that it pointed to
// .locks/models--org--name/<blob>.lfm2-wasm.lock
import { randomUUID } from "node:crypto";
import { constants, type Stats } from "node:fs";
import {
  copyFile,
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  statfs,
  symlink,
  writeFile,
} from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import { Lfm2Error, StorageError } from "../../errors.ts";
import type { ByteSource } from "../../weights/source.ts";
import type { LockOptions, Store, StoredFile, StoredModel, StoreFile, StoreLock, StorePart } from "../../weights/store.ts";
import { openFile } from "./files.ts";
import { isFileLocked, lockFile } from "./lock.ts";

const PART = ".lfm2-wasm.incomplete";
const LOCK = ".lfm2-wasm.lock";
const TRASH = ".lfm2-wasm-trash-";
const TEMPORARY = ".lfm2-wasm.temporary";
const BLOB = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? "";
const isMissing = (error: unknown): boolean => ["ENOENT", "ENOTDIR"].includes(codeOf(error));

/** What the file system's refusals mean to a caller. EFBIG is a limit of the process, EDQUOT one of the user. */
const CODES: Readonly<Record<string, string>> = {
  ENOSPC: "storage-full",
  EDQUOT: "storage-full",
  EFBIG: "storage-full",
  EACCES: "not-writable",
  EPERM: "not-writable",
  EROFS: "not-writable",
};
const ADVICE: Readonly<Record<string, string>> = {
  "storage-full": "Free some space, remove a model that is not needed, or name another folder",
  "not-writable": "Name a folder that may be written to (HF_HOME, or `cache: { dir }`)",
};

function refused(what: string, path: string, cause: unknown): Error {
  if (cause instanceof Lfm2Error) return cause;
  const code = CODES[codeOf(cause)];
  const advice = ADVICE[code ?? ""] ?? "Check the folder";
  return new StorageError(
    `cache: expected to ${what} ${JSON.stringify(path)}, got an error of the file system: ${(cause as Error).message}. ${advice}.`,
    {
      cause,
      ...(code === undefined ? {} : { code }),
    },
  );
}

/** Runs what reads or writes at `path`; whatever it throws comes out as a StorageError. */
async function doing<T>(what: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    throw refused(what, path, cause);
  }
}

async function orUndefined<T>(run: () => Promise<T>): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Makes `path` appear at once: `make` writes it under another name beside it. */
async function atOnce(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
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
function show(blob: string, path: string): Promise<void> {
  const ways = [(to: string) => symlink(relative(dirname(path), blob), to), (to: string) => link(blob, to)];
  return atOnce(path, async (to) => {
    for (const way of ways) {
      try {
        return await way(to);
      } catch (error) {
        if (!["EPERM", "EACCES", "ENOTSUP", "ENOSYS", "EINVAL", "EXDEV", "UNKNOWN"].includes(codeOf(error))) throw error;
      }
    }
    await copyFile(blob, to);
  });
}

class DiskPart implements StorePart {
  readonly #handle: FileHandle;
  readonly #path: string;
  readonly #blob: string;
  readonly #shown: string;
  sizeBytes: number;

  constructor(handle: FileHandle, sizeBytes: number, path: string, blob: string, shown: string) {
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
    this.#path = path;
    this.#blob = blob;
    this.#shown = shown;
  }

  readInto(offset: number, target: Uint8Array): Promise<void> {
    return doing("read", this.#path, async () => {
      for (let done = 0; done < target.length; ) {
        const { bytesRead } = await this.#handle.read(target, done, target.length - done, offset + done);
        if (bytesRead === 0)
          throw new StorageError(`${basename(this.#path)}: truncated: expected ${target.length} bytes at ${offset}, got ${done}.`);
        done += bytesRead;
      }
    });
  }

  append(bytes: Uint8Array): Promise<void> {
    return doing("write", this.#path, async () => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.sizeBytes);
        done += bytesWritten;
        this.sizeBytes += bytesWritten;
      }
    });
  }

  clear(): Promise<void> {
    return doing("cut", this.#path, async () => {
      await this.#handle.truncate(0);
      this.sizeBytes = 0;
    });
  }

  commit(): Promise<void> {
    return doing("keep", this.#blob, async () => {
      await this.#handle.datasync(); // a name must not outlive its bytes when the machine stops
      await rename(this.#path, this.#blob);
      await show(this.#blob, this.#shown);
    });
  }

  discard(): Promise<void> {
    return doing("remove", this.#path, () => rm(this.#path, { force: true }));
  }

  close(): Promise<void> {
    return doing("close", this.#path, () => this.#handle.close());
  }
}

/** Every file below `dir`, with what is known of it itself, links not followed; none that a killed process was about to give its name. */
async function walk(dir: string, prefix = ""): Promise<{ path: string; at: string; stats: Stats }[]> {
  const found = [];
  for (const entry of (await orUndefined(() => readdir(dir, { withFileTypes: true }))) ?? []) {
    const at = join(dir, entry.name);
    if (entry.isDirectory()) found.push(...(await walk(at, `${prefix}${entry.name}/`)));
    else if (!entry.name.endsWith(TEMPORARY)) {
      const stats = await orUndefined(() => lstat(at));
      if (stats) found.push({ path: prefix + entry.name, at, stats });
    }
  }
  return found;
}

/** An address has `:`; no id has. */
const folderOf = (repo: string): string => `models--${repo.includes(":") ? encodeURIComponent(repo) : repo.replaceAll("/", "--")}`;
const repoOf = (folder: string): string => {
  const name = folder.slice("models--".length);
  return name.includes("%") ? decodeURIComponent(name) : name.replaceAll("--", "/");
};

class DiskStore implements Store {
  readonly place: string;

  constructor(place: string) {
    this.place = place;
  }

  #in(repo: string, ...path: readonly string[]): string {
    return join(this.place, folderOf(repo), ...path);
  }

  #blob({ repo, blob }: StoreFile): string {
    return this.#in(repo, "blobs", blob);
  }

  #shown({ repo, commit, path }: StoreFile): string {
    return this.#in(repo, "snapshots", commit, path);
  }

  #lock({ repo, blob }: StoreFile): string {
    return join(this.place, ".locks", folderOf(repo), blob + LOCK);
  }

  async revision(repo: string, name: string): Promise<string | undefined> {
    const path = this.#in(repo, "refs", name);
    const text = await doing("read", path, () => orUndefined(() => readFile(path, "utf8")));
    return /^[0-9a-f]{40}$/.exec(text?.trim() ?? "")?.[0];
  }

  async setRevision(repo: string, name: string, commit: string): Promise<void> {
    const path = this.#in(repo, "refs", name);
    if ((await this.revision(repo, name)) === commit) return; // the folder may be another user's, for reading only
    await doing("write", path, () => atOnce(path, (to) => writeFile(to, commit)));
  }

  async files(repo: string, commit: string): Promise<readonly StoredFile[]> {
    const dir = this.#in(repo, "snapshots", commit);
    return doing("list", dir, async () => {
      const files: StoredFile[] = [];
      for (const { path, at, stats } of await walk(dir)) {
        const target = stats.isSymbolicLink() ? await readlink(at) : "";
        const whole = await orUndefined(() => stat(at)); // none where a link leads nowhere
        const name = basename(target);
        if (whole?.isFile()) files.push({ path, sizeBytes: whole.size, blob: BLOB.test(name) ? name : undefined });
      }
      return files;
    });
  }

  async open(file: StoreFile): Promise<ByteSource | undefined> {
    const [shown, blob] = [this.#shown(file), this.#blob(file)];
    return doing("open", shown, async () => {
      // a commit never changes, but a repository of that name on another hub may be another
      const target = basename((await readlink(shown).catch(() => undefined)) ?? file.blob);
      const found = target === file.blob || !BLOB.test(target) ? await this.#openWhole(shown, file.sizeBytes) : undefined;
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
    for (const path of [this.#shown(file), this.#blob(file)]) await doing("remove", path, () => rm(path, { force: true }));
  }

  async partBytes(file: StoreFile): Promise<number> {
    const path = this.#blob(file) + PART;
    return (await doing("look at", path, () => orUndefined(() => stat(path))))?.size ?? 0;
  }

  lock(file: StoreFile, options?: LockOptions): Promise<StoreLock> {
    return doing("lock", this.#lock(file), () => lockFile(this.#lock(file), options));
  }

  isLocked(file: StoreFile): Promise<boolean> {
    return doing("look at", this.#lock(file), () => isFileLocked(this.#lock(file)));
  }

  async begin(file: StoreFile): Promise<StorePart> {
    const blob = this.#blob(file);
    const path = blob + PART;
    return doing("write", path, async () => {
      await mkdir(dirname(path), { recursive: true });
      const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
      return new DiskPart(handle, (await handle.stat()).size, path, blob, this.#shown(file));
    });
  }

  async list(): Promise<readonly StoredModel[]> {
    return doing("list", this.place, async () => {
      const names = (await orUndefined(() => readdir(this.place))) ?? [];
      await this.#sweep(names);
      const ids = names.filter((name) => name.startsWith("models--")).map(repoOf);
      return Promise.all(ids.sort().map((id) => this.#model(id)));
    });
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

  async #model(id: string): Promise<StoredModel> {
    const files = await walk(this.#in(id));
    const sizes = new Map(files.filter(({ stats }) => stats.isFile()).map(({ stats }) => [`${stats.dev} ${stats.ino}`, stats.size])); // a hard link is the same file
    const partials = files.filter(({ path }) => path.startsWith("blobs/") && path.endsWith(PART));
    const names = new Map<string, string[]>();
    for (const { path } of files) {
      const name = path.startsWith("refs/") ? path.slice("refs/".length) : undefined;
      const commit = name === undefined ? undefined : await this.revision(id, name);
      if (name !== undefined && commit !== undefined) names.set(commit, [...(names.get(commit) ?? []), name]);
    }
    const commits = new Set(files.flatMap(({ path }) => /^snapshots\/([0-9a-f]{40})\//.exec(path)?.[1] ?? []));
    const revisions = [...commits].map(async (commit) => ({ commit, names: names.get(commit) ?? [], files: await this.files(id, commit) }));
    return {
      id,
      sizeBytes: [...sizes.values()].reduce((sum, size) => sum + size, 0),
      partialBytes: partials.reduce((sum, { stats }) => sum + stats.size, 0),
      revisions: await Promise.all(revisions),
    };
  }

  async remove(repo: string): Promise<StoredModel | undefined> {
    const dir = this.#in(repo);
    return doing("remove", dir, async () => {
      const model = await orUndefined(async () => (await stat(dir)) && (await this.#model(repo)));
      if (!model) return undefined;
      await this.#checkUnused(repo);
      // gone at once, whenever this process ends
      await rename(dir, join(this.place, TRASH + randomUUID()));
      await this.#sweep(await readdir(this.place));
      return model;
    });
  }

  async #checkUnused(repo: string): Promise<void> {
    const locks = join(this.place, ".locks", folderOf(repo));
    for (const name of (await orUndefined(() => readdir(locks))) ?? []) {
      if (!name.endsWith(LOCK) || !(await isFileLocked(join(locks, name)))) continue;
      throw new StorageError(`cache: expected ${repo} to be at rest, got a download under way. End it first, or wait.`, { code: "in-use" });
    }
  }

  /** Ends removals, also such as another process began. */
  async #sweep(names: readonly string[]): Promise<void> {
    for (const name of names) if (name.startsWith(TRASH)) await rm(join(this.place, name), { recursive: true, force: true });
  }
}

/** @returns the user's home; undefined where it may not be known */
function homeFolder(): string | undefined {
  try {
    return homedir();
  } catch {
    return undefined; // Deno tells it to those who may ask
  }
}

type Variable = (name: string) => string | undefined;

/** @returns the path that a variable holds */
function pathIn(variable: Variable, name: string): string | undefined {
  const home = (): string => variable("HOME") || homeFolder() || "~";
  return (
    variable(name)
      ?.trim()
      .replace(/^~(?=$|[/\\])/, home) || undefined
  );
}

const below = (dir: string | undefined, ...path: readonly string[]): string | undefined =>
  dir === undefined ? undefined : join(dir, ...path);

/** @returns Hugging Face's own folder: `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME` or ~/.cache; undefined without a home */
function hubHome(variable: Variable): string | undefined {
  return (
    pathIn(variable, "HF_HOME") ??
    below(pathIn(variable, "XDG_CACHE_HOME"), "huggingface") ??
    below(variable("HOME") || homeFolder(), ".cache", "huggingface")
  );
}

/**
 * @param variable reads the environment
 * @returns the folder that Hugging Face's tools use: `HF_HUB_CACHE`, or `hub` in their own; undefined without a home
 */
export function cacheFolder(variable: Variable): string | undefined {
  return pathIn(variable, "HF_HUB_CACHE") ?? pathIn(variable, "HUGGINGFACE_HUB_CACHE") ?? below(hubHome(variable), "hub");
}

/** @returns the file in which Hugging Face's tools keep the token of who has logged in: `HF_TOKEN_PATH`, or `token` in their own folder */
export function tokenPath(variable: Variable): string | undefined {
  return pathIn(variable, "HF_TOKEN_PATH") ?? below(hubHome(variable), "token");
}

/** @returns a folder of ours: in a cache that is named, or beside Hugging Face's tools' */
export function ownFolder(name: string, dir: string | undefined, variable: Variable): string | undefined {
  if (dir !== undefined) return join(dir, ".lfm2-wasm", name);
  const hub = cacheFolder(variable);
  return hub && join(dirname(hub), "lfm2-wasm", name);
}

/** @returns the folder of files at plain addresses, which no other program knows */
export const addressFolder = (dir: string | undefined, variable: Variable): string | undefined => ownFolder("addresses", dir, variable);

/** @param dir the cache's folder; need not exist yet */
export function diskStore(dir: string): Store {
  return new DiskStore(dir);
}
