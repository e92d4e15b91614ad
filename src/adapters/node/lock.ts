// Locks between processes by files, for file systems and runtimes without better ones: a file that exists is a lock, touched while its holder lives. Knows nothing of what it guards.
import { randomUUID } from "node:crypto";
import { mkdir, open, readFile, readlink, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { AbortError, throwIfAborted } from "../../errors.ts";
import type { LockOptions, StoreLock } from "../../weights/store.ts";

/** How often a holder touches its lock. */
const BEAT_MS = 1000;
/** Silence after which a lock is stale whatever is known of its holder: it is on another machine, or its number now belongs to another process. */
const SILENT_MS = 30 * BEAT_MS;
const POLL_MS = 100;

interface Holder {
  readonly token: string;
  readonly pid: number;
  /** Where the pid means that process: this machine, and on Linux the namespace of pids, which each container has. */
  readonly space: string;
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? "";
const isMissing = (error: unknown): boolean => codeOf(error) === "ENOENT";

/** @returns who holds the lock; undefined when nobody does. A file without sense, cut off by a full disk or a crash, has a holder that is nobody. */
async function holderOf(path: string): Promise<Holder | undefined> {
  try {
    const text = await readFile(path, "utf8");
    const { token = "", pid = 0, space = "" } = text === "" ? {} : (JSON.parse(text) as Partial<Holder>);
    return { token, pid, space };
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (error instanceof SyntaxError) return { token: "", pid: 0, space: "" };
    throw error;
  }
}

let ownSpace: Promise<string> | undefined;

function here(): Promise<string> {
  ownSpace ??= readlink("/proc/self/ns/pid").then(
    (namespace) => `${hostname()} ${namespace}`,
    () => (process.platform === "linux" ? "" : hostname()), // "": not known, so no pid is believed
  );
  return ownSpace;
}

/** @returns whether the process is known to be gone */
async function isGone({ pid, space }: Holder): Promise<boolean> {
  if (space === "" || space !== (await here())) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return codeOf(error) === "ESRCH";
  }
}

async function isStale(path: string, holder: Holder): Promise<boolean> {
  try {
    const silentMs = Date.now() - (await stat(path)).mtimeMs;
    return silentMs > SILENT_MS || (await isGone(holder));
  } catch (error) {
    if (isMissing(error)) return false; // released meanwhile
    throw error;
  }
}

/** @returns whether the file was made: it did not exist */
async function create(path: string, content: string): Promise<boolean> {
  try {
    const handle = await open(path, "wx");
    try {
      await handle.writeFile(content);
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

/** Removes a stale lock. Of those who found it so one does: they agree by a lock of their own, which nobody holds longer than these lines take. @returns whether it is gone */
async function breakLock(path: string, seen: Holder): Promise<boolean> {
  const guard = `${path}.break`;
  if (!(await create(guard, ""))) {
    const since = await stat(guard).catch(() => undefined);
    if (since && Date.now() - since.mtimeMs > SILENT_MS) await rm(guard, { force: true });
    return false;
  }
  try {
    const now = await holderOf(path);
    if (now?.token !== seen.token || !(await isStale(path, now))) return false;
    await rm(path, { force: true });
    return true;
  } finally {
    await rm(guard, { force: true });
  }
}

class FileLock implements StoreLock {
  readonly #path: string;
  readonly #token: string;
  readonly #beat: NodeJS.Timeout;

  constructor(path: string, token: string) {
    this.#path = path;
    this.#token = token;
    this.#beat = setInterval(() => void this.#touch(), BEAT_MS);
    this.#beat.unref();
  }

  async #touch(): Promise<void> {
    const now = new Date();
    await utimes(this.#path, now, now).catch(() => {}); // whoever asks isHeld learns what has become of it
  }

  async isHeld(): Promise<boolean> {
    return (await holderOf(this.#path).catch(() => undefined))?.token === this.#token;
  }

  async release(): Promise<void> {
    clearInterval(this.#beat);
    if (await this.isHeld()) await rm(this.#path, { force: true });
  }
}

function pause(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(new AbortError(undefined, { cause: signal?.reason }));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, POLL_MS);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Takes the lock that the file stands for, waiting for its holder, however long that takes; a holder that died loses it within seconds.
 * @throws AbortError; errors of the file system as they come
 */
export async function lockFile(path: string, { signal, onWait }: LockOptions = {}): Promise<StoreLock> {
  const me: Holder = { token: randomUUID(), pid: process.pid, space: await here() };
  let hasWaited = false;
  for (;;) {
    throwIfAborted(signal);
    await mkdir(dirname(path), { recursive: true });
    if (await create(path, JSON.stringify(me))) return new FileLock(path, me.token);
    const holder = await holderOf(path);
    if (holder === undefined) continue;
    if ((await isStale(path, holder)) && (await breakLock(path, holder))) continue;
    if (!hasWaited) onWait?.();
    hasWaited = true;
    await pause(signal);
  }
}

/** @returns whether somebody who lives holds the lock */
export async function isFileLocked(path: string): Promise<boolean> {
  const holder = await holderOf(path);
  return holder !== undefined && !(await isStale(path, holder));
}
