// Locks among all tabs and workers of an origin, by Web Locks: a holder that is closed loses them at once.
import { throwIfAborted } from "../../errors.ts";
import { unlessAborted } from "../../weights/source.ts";
import type { LockOptions, StoreLock } from "../../weights/store.ts";
import { storageNavigator } from "./storage.ts";

interface LockManager {
  request(name: string, options: { ifAvailable?: boolean; signal?: AbortSignal }, run: (lock: unknown) => Promise<void>): Promise<void>;
  query(): Promise<{ readonly held?: readonly { readonly name?: string }[] }>;
}

const manager = (): LockManager | undefined => storageNavigator().locks as LockManager | undefined;

/** Whether the browser has locks. */
export const hasLocks = (): boolean => manager() !== undefined;

/** @returns the lock; undefined where `ifAvailable` and another has it */
function request(name: string, options: { ifAvailable?: boolean; signal?: AbortSignal }): Promise<StoreLock | undefined> {
  return new Promise((resolve, reject) => {
    let isHeld = true;
    const hold = (lock: unknown): Promise<void> => {
      if (lock === null) {
        resolve(undefined);
        return Promise.resolve();
      }
      return new Promise((end) => {
        const release = async (): Promise<void> => {
          isHeld = false;
          end();
          await ended;
        };
        resolve({ isHeld: async () => isHeld, release });
      });
    };
    const ended: Promise<void> = (manager()?.request(name, options, hold) ?? Promise.resolve()).catch((error) => {
      isHeld = false;
      reject(error);
    });
  });
}

/** @returns the lock at once; undefined where another has it */
export const tryLock = (name: string): Promise<StoreLock | undefined> => request(name, { ifAvailable: true });

/** Takes a lock, waiting for its holder. @throws AbortError */
export async function lock(name: string, { signal, onWait }: LockOptions = {}): Promise<StoreLock> {
  throwIfAborted(signal);
  const free = await tryLock(name);
  if (free) return free;
  onWait?.();
  const control = new AbortController();
  const waiting = request(name, { signal: control.signal });
  try {
    return (await unlessAborted(waiting, signal)) as StoreLock;
  } catch (error) {
    control.abort();
    void waiting.then((late) => late?.release()).catch(() => {});
    throw error;
  }
}

/** @returns names of the locks that are held anywhere in the origin and begin so */
export async function heldLocks(prefix: string): Promise<string[]> {
  const { held = [] } = (await manager()?.query()) ?? {};
  return held.flatMap(({ name = "" }) => (name.startsWith(prefix) ? [name] : []));
}
