// Memory and processor time of a browser as the system sees them, from outside: what its processes with a page or a worker hold for themselves, and how long they have computed.
import { readdirSync, readFileSync } from "node:fs";

/** Of a process's command line, where it runs pages and workers: Chromium's, Firefox's. */
const CONTENT = /--type=renderer|-contentproc/;

/** @param {number} pid of the browser @param {(id: number) => number} measure @returns {number} the sum over all processes for content that it started */
function sum(pid, measure) {
  const parents = new Map();
  const sizes = new Map();
  for (const id of readdirSync("/proc").map(Number).filter(Boolean)) {
    try {
      parents.set(id, Number(statOf(id)[1]));
      if (CONTENT.test(readFileSync(`/proc/${id}/cmdline`, "utf8"))) sizes.set(id, measure(id));
    } catch {
      // it has ended
    }
  }
  const isOurs = (id) => id === pid || (id > 1 && isOurs(parents.get(id) ?? 0));
  let total = 0;
  for (const [id, size] of sizes) if (isOurs(id)) total += size;
  if (total === 0) throw new Error(`expected a process for pages below ${pid}, got none`);
  return total;
}

/** What the system tells of a process, from its state on. */
const statOf = (id) => readFileSync(`/proc/${id}/stat`, "utf8").split(") ").at(-1).split(" ");

/** @param {number} pid of the browser @returns {number} bytes that are theirs alone, and nobody's file */
export const contentBytes = (pid) =>
  sum(pid, (id) => {
    const kilobytes = [...readFileSync(`/proc/${id}/smaps_rollup`, "utf8").matchAll(/^(?:Anonymous|Swap): +(\d+) kB$/gm)];
    return kilobytes.reduce((bytes, [, count]) => bytes + 1024 * Number(count), 0);
  });

/** @param {number} pid of the browser @returns {number} milliseconds of processor time so far, in steps of 10 */
export const contentCpuMs = (pid) =>
  sum(pid, (id) =>
    statOf(id)
      .slice(11, 13)
      .reduce((ms, ticks) => ms + 10 * Number(ticks), 0),
  );
