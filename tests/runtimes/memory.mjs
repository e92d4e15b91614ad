// Memory of a browser as the system sees it, from outside: what its processes with a page or a worker hold for themselves.
import { readdirSync, readFileSync } from "node:fs";

/** Of a process's command line, where it runs pages and workers: Chromium's, Firefox's. */
const CONTENT = /--type=renderer|-contentproc/;

/** @param {number} pid of the browser @returns {number} bytes that are theirs alone, and nobody's file, of all processes for content that it started */
export function contentBytes(pid) {
  const parents = new Map();
  const sizes = new Map();
  for (const id of readdirSync("/proc").map(Number).filter(Boolean)) {
    try {
      parents.set(id, Number(readFileSync(`/proc/${id}/stat`, "utf8").split(") ").at(-1).split(" ")[1]));
      if (!CONTENT.test(readFileSync(`/proc/${id}/cmdline`, "utf8"))) continue;
      const kilobytes = [...readFileSync(`/proc/${id}/smaps_rollup`, "utf8").matchAll(/^(?:Anonymous|Swap): +(\d+) kB$/gm)];
      sizes.set(
        id,
        kilobytes.reduce((sum, [, count]) => sum + 1024 * Number(count), 0),
      );
    } catch {
      // it has ended
    }
  }
  const isOurs = (id) => id === pid || (id > 1 && isOurs(parents.get(id) ?? 0));
  let bytes = 0;
  for (const [id, size] of sizes) if (isOurs(id)) bytes += size;
  if (bytes === 0) throw new Error(`expected a process for pages below ${pid}, got none`);
  return bytes;
}
