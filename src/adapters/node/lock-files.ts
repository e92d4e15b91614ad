// Files and processes for the locks of weights/file-lock.ts, by node:fs. Node, Deno and Bun share it.
import { mkdir, open, readFile, readlink, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import type { LockFiles } from "../../weights/file-lock.ts";
import { codeOf, orUndefined } from "./fs-errors.ts";

let space: Promise<string> | undefined;

export const lockFiles: LockFiles = {
  pid: process.pid,

  /** Of this machine, and on Linux of the namespace of pids, which each container has. */
  space() {
    space ??= readlink("/proc/self/ns/pid").then(
      (namespace) => `${hostname()} ${namespace}`,
      () => (process.platform === "linux" ? "" : hostname()),
    );
    return space;
  },

  isGone(pid) {
    try {
      process.kill(pid, 0);
      return false;
    } catch (error) {
      return codeOf(error) === "ESRCH";
    }
  },

  async create(path, content) {
    await mkdir(dirname(path), { recursive: true });
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
  },

  read: (path) => orUndefined(() => readFile(path, "utf8")),

  async silentMs(path) {
    const stats = await orUndefined(() => stat(path));
    return stats && Date.now() - stats.mtimeMs;
  },

  async touch(path) {
    const now = new Date();
    await utimes(path, now, now);
  },

  remove: (path) => rm(path, { force: true }),

  every(ms, run) {
    const timer = setInterval(run, ms).unref();
    return () => clearInterval(timer);
  },
};
