// Clocks and medians.

export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** A result was not what the reference says: nothing that was measured counts. */
export class CheckFailed extends Error {}

export function check(ok, what) {
  if (!ok) throw new CheckFailed(`check failed: ${what}`);
}

/** How often `work` has to run for about `ms` milliseconds. It warms up on the way. */
function repeatsFor(work, ms) {
  for (let n = 1; ; n *= 2) {
    const start = performance.now();
    for (let i = 0; i < n; i++) work();
    const took = performance.now() - start;
    if (took >= ms || n > 1e6) return Math.max(1, Math.round((n * ms) / took));
  }
}

/** Runs that come before the first measured one: V8 compiles for speed what has run often. */
const WARM_UPS = 8;

/**
 * Median ms of one call of each of `works`, measured in turns, so that what disturbs one disturbs all.
 * @returns one median for each
 */
export function timeInTurns(works, { rounds = 5, ms = 25 } = {}) {
  for (const work of works) for (let i = 0; i < WARM_UPS; i++) work();
  const repeats = works.map((work) => repeatsFor(work, ms));
  const times = works.map(() => []);
  for (let round = 0; round < rounds; round++)
    works.forEach((work, w) => {
      const start = performance.now();
      for (let i = 0; i < repeats[w]; i++) work();
      times[w].push((performance.now() - start) / repeats[w]);
    });
  return times.map(median);
}

export const time = (work, options) => timeInTurns([work], options)[0];
