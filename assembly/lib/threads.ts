// Sharing out a command's work: the one place that decides which part of it a thread does. Who computes a unit never changes its bits.

/** Word in shared memory: units of the current command that are claimed; the barrier behind every command resets it. Below memoryBase, where no data segment writes. */
export const NEXT_UNIT: usize = 448;

/**
 * First unit of thread ith of nth when `total` units (rows, groups, columns, heads) are shared evenly; it ends where the next one's begins.
 * Shares differ by at most one unit.
 */
// @ts-ignore: decorator
@inline export function share(total: usize, ith: usize, nth: usize): usize {
  return total / nth * ith + min<usize>(ith, total % nth);
}

/** Units of the claim that starts at `first`: half of an even share of what is left, `least` at least. */
// @ts-ignore: decorator
@inline function claim_size(first: usize, total: usize, least: usize, nth: usize): usize {
  return min<usize>(total - first, max<usize>(least, (total - first) / (2 * nth)));
}

/**
 * Claims the thread's next run of units: long runs first, for memory streams want few starts, shorter ones towards the end, for a late or slow
 * thread must not hold up the rest. Without threads in the build (or with one thread) there is one run, the even share.
 * Use: `for (let r = 0, u = claim(total, least, ith, nth, 0); u < total; u = claim(total, least, ith, nth, ++r)) { const end = claim_end(u, …); … }`
 * @param least units that are worth a start of their own
 * @param run how many runs the thread has claimed of this command
 * @returns the run's first unit, or total when none is left; the run ends at claim_end (which may be the first unit itself: an empty share)
 */
export function claim(total: usize, least: usize, ith: usize, nth: usize, run: i32): usize {
  if (!ASC_FEATURE_THREADS || nth == 1) return run ? total : share(total, ith, nth);
  for (;;) {
    const first = <usize>atomic.load<i32>(NEXT_UNIT);
    if (first >= total) return total;
    if (<usize>atomic.cmpxchg<i32>(NEXT_UNIT, <i32>first, <i32>(first + claim_size(first, total, least, nth))) == first) return first;
  }
}

/** Where the run that starts at `first` ends. */
// @ts-ignore: decorator
@inline export function claim_end(first: usize, total: usize, least: usize, ith: usize, nth: usize): usize {
  return !ASC_FEATURE_THREADS || nth == 1 ? share(total, ith + 1, nth) : first + claim_size(first, total, least, nth);
}
