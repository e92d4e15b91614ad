// Locks between processes by files, for file systems and runtimes without better ones: a file that exists is a lock, touched while its holder lives. Knows nothing of what it guards, and
// of files and processes what LockFiles says.
import { throwIfAborted } from "../errors.ts";
import { unlessAborted } from "./source.ts";
import type { LockOptions, StoreLock } from "./store.ts";

/** How often a holder touches its lock. */
const BEAT_MS = 1000;
/** Silence after which a lock is stale whatever is known of its holder: it is on another machine, or its number now belongs to another process. */
const SILENT_MS = 30 * BEAT_MS;
const POLL_MS = 100;

/** What stands in a lock. */
export interface Holder {
  /** Names this lock alone. */
  readonly token: string;
  readonly pid: number;
  /** Where the pid means that process; `""` where that is not known, and no pid is believed. */
  readonly space: string;
}

/** The files that are locks, and the processes that hold them. Errors come as the file system gives them. */
export interface LockFiles {
  /** Writes a file, and the folders to it. @returns whether it did: there was none */
  create(path: string, content: string): Promise<boolean>;
  /** Undefined where there is none. */
  read(path: string): Promise<string | undefined>;
  /** @returns ms since it was written or touched; undefined where there is none */
  silentMs(path: string): Promise<number | undefined>;
  touch(path: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Of this process. */
  readonly pid: number;
  space(): Promise<string>;
  /** Whether a process of this space is known to be gone. */
  isGone(pid: number): boolean;
  /** Runs again and again, and keeps no process alive. @returns ends it */
  every(ms: number, run: () => void): () => void;
}

/** @returns who holds the lock; undefined when nobody does. A file without sense, cut off by a full disk or a crash, has a holder that is nobody. */
async function holderOf(files: LockFiles, path: string): Promise<Holder | undefined> {
  const text = await files.read(path);
  if (text === undefined) return undefined;
  try {
    return { token: "", pid: 0, space: "", ...(JSON.parse(text) as Partial<Holder>) };
  } catch {
    return { token: "", pid: 0, space: "" };
  }
}

async function isStale(files: LockFiles, path: string, { pid, space }: Holder): Promise<boolean> {
  const silentMs = await files.silentMs(path);
  if (silentMs === undefined) return false; // released meanwhile
  return silentMs > SILENT_MS || (space !== "" && space === (await files.space()) && files.isGone(pid));
}

/** Removes a stale lock. Of those who found it so one does: they agree by a lock of their own, which nobody holds longer than these lines take. @returns whether it is gone */
async function breakLock(files: LockFiles, path: string, seen: Holder): Promise<boolean> {
  const guard = `${path}.break`;
  if (!(await files.create(guard, ""))) {
    const silentMs = await files.silentMs(guard).catch(() => undefined);
    if (silentMs !== undefined && silentMs > SILENT_MS) await files.remove(guard);
    return false;
  }
  try {
    const now = await holderOf(files, path);
    if (now?.token !== seen.token || !(await isStale(files, path, now))) return false;
    await files.remove(path);
    return true;
  } finally {
    await files.remove(guard);
  }
}

function hold(files: LockFiles, path: string, token: string): StoreLock {
  // whoever asks isHeld learns what has become of it
  const stop = files.every(BEAT_MS, () => void files.touch(path).catch(() => {}));
  const isHeld = async (): Promise<boolean> => (await holderOf(files, path).catch(() => undefined))?.token === token;
  const release = async (): Promise<void> => {
    stop();
    if (await isHeld()) await files.remove(path);
  };
  return { isHeld, release };
}

/**
 * Takes the lock that the file stands for, waiting for its holder, however long that takes; a holder that died loses it within seconds.
 * @throws AbortError; errors of the file system as they come
 */
export async function lockFile(files: LockFiles, path: string, { signal, onWait }: LockOptions = {}): Promise<StoreLock> {
  const me: Holder = { token: crypto.randomUUID(), pid: files.pid, space: await files.space() };
  let hasWaited = false;
  for (;;) {
    throwIfAborted(signal);
    if (await files.create(path, JSON.stringify(me))) return hold(files, path, me.token);
    const holder = await holderOf(files, path);
    if (holder === undefined) continue;
    if ((await isStale(files, path, holder)) && (await breakLock(files, path, holder))) continue;
    if (!hasWaited) onWait?.();
    hasWaited = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const passed = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, POLL_MS);
    });
    await unlessAborted(passed, signal).finally(() => clearTimeout(timer));
  }
}

/** @returns whether somebody who lives holds the lock */
export async function isFileLocked(files: LockFiles, path: string): Promise<boolean> {
  const holder = await holderOf(files, path);
  return holder !== undefined && !(await isStale(files, path, holder));
}
