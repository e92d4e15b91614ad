// Threads: sharing out a command's work, the barrier behind each command, a helper thread's life. Who computes a unit never changes its bits.
// Words in shared memory that threads change, each on a cache line of its own, below memoryBase: a data segment would be written again by every thread that instantiates.

/** Threads that have arrived at the barrier. */
const ARRIVED: usize = 256;
/** Counts barriers passed. */
const BARRIER: usize = 320;
/** Counts steps begun; address and number of the step's commands follow it. */
const STEP: usize = 384;
const STEP_COMMANDS: usize = STEP + 4;
const STEP_COUNT: usize = STEP + 8;
/** Units of the current command that are claimed; the barrier behind every command resets it. */
export const NEXT_UNIT: usize = 448;
/** Not 0 when the current step cannot be finished: TRAPPED or STALLED. */
const FAILED: usize = 512;
/** Counts helpers that wait for a step: when they start, and again after each step that failed. */
const READY: usize = 576;
/** Threads that sleep, or are about to: where there are none, nobody needs to be woken. */
const SLEEPERS: usize = 640;
/** Counts how often a thread has gone to sleep. */
const SLEEPS: usize = 704;

/** A thread of the step trapped: all leave it. */
const TRAPPED: i32 = 1;
/** A thread did not arrive for so long that it must have ended. */
const STALLED: i32 = 2;

/**
 * Polls before a thread sleeps, some 200 µs. Being woken is 0.1 to 0.5 ms late, and between two steps of a turn the host takes 0.1 to 0.2 ms. With 30 µs two threads
 * decode 8 to 10 % slower; with both cores busy by others it makes no difference (`npm run bench -- generate`).
 */
const POLLS: i32 = 700000;
/** A sleep of thread 0, in ns. It counts them, so that a process that was stopped for an hour has lost one. */
const NAP: i64 = 100_000_000;
/** Naps until a thread that has not even taken up the step, or is late by this much more than thread 0's own share, counts as ended. */
const PATIENCE_FIRST: i32 = 30;
const PATIENCE: i32 = 150;

/**
 * First unit of thread ith of nth when `total` units (rows, groups, columns, heads) are shared evenly; it ends where the next one's begins.
 * Shares differ by at most one unit.
 */
// @ts-ignore: decorator
@inline export function share(total: usize, ith: usize, nth: usize): usize {
  return total / nth * ith + min<usize>(ith, total % nth);
}

/** Units of the claim that starts at `first`: a `part`-th of an even share of what is left, `least` at least. */
// @ts-ignore: decorator
@inline function claim_size(first: usize, total: usize, least: usize, part: usize, nth: usize): usize {
  return min<usize>(total - first, max<usize>(least, (total - first) / (part * nth)));
}

/**
 * Claims the thread's next run of units: long runs first, for memory streams want few starts, shorter ones towards the end, for a late or slow
 * thread must not hold up the rest. Without threads in the build (or with one thread) there is one run, the even share.
 * Use: `for (let r = 0, u = claim(total, least, part, ith, nth, 0); u < total; u = claim(total, least, part, ith, nth, ++r)) { const end = claim_end(u, …); … }`
 * @param least units that are worth a start of their own
 * @param part 2 where a slow thread is worse than a start; 1 where work is over in microseconds and a start breaks a memory stream
 * @param run how many runs the thread has claimed of this command
 * @returns the run's first unit, or total when none is left; the run ends at claim_end (which may be the first unit itself: an empty share)
 */
export function claim(total: usize, least: usize, part: usize, ith: usize, nth: usize, run: i32): usize {
  if (!ASC_FEATURE_THREADS || nth == 1) return run ? total : share(total, ith, nth);
  let first = <usize>atomic.load<i32>(NEXT_UNIT);
  while (first < total) {
    const was = <usize>atomic.cmpxchg<i32>(NEXT_UNIT, <i32>first, <i32>(first + claim_size(first, total, least, part, nth)));
    if (was == first) return first;
    first = was;
  }
  return total;
}

/** Where the run that starts at `first` ends. */
// @ts-ignore: decorator
@inline export function claim_end(first: usize, total: usize, least: usize, part: usize, ith: usize, nth: usize): usize {
  return !ASC_FEATURE_THREADS || nth == 1 ? share(total, ith + 1, nth) : first + claim_size(first, total, least, part, nth);
}

/**
 * Returns true when the word at p is no longer `seen`: polls for a fifth of a millisecond, then sleeps, and polls again when it was woken for nothing (`wake`).
 * False after so many naps; with naps < 0 it waits for ever.
 * A function of its own on purpose: inlined into its callers, such a loop never ended under V8 11.3 (Node 20).
 */
function await_change(p: usize, seen: i32, naps: i32): bool {
  if (ASC_FEATURE_THREADS) {
    for (;;) {
      for (let i = 0; i < POLLS; i++) if (atomic.load<i32>(p) != seen) return true;
      if (naps == 0) return false;
      atomic.add<i32>(SLEEPS, 1);
      atomic.add<i32>(SLEEPERS, 1); // before the wait looks at the word: release() changes the word, then looks here
      atomic.wait<i32>(p, seen, naps < 0 ? -1 : NAP);
      atomic.sub<i32>(SLEEPERS, 1);
      if (naps > 0) naps--;
    }
  }
  return true;
}

/** Counts the word at p up and wakes those who sleep on it. */
function release(p: usize): void {
  if (ASC_FEATURE_THREADS) {
    atomic.add<i32>(p, 1);
    if (atomic.load<i32>(SLEEPERS)) atomic.notify(p, -1);
  }
}

function fail_as(reason: i32): void {
  if (ASC_FEATURE_THREADS) {
    atomic.store<i32>(FAILED, reason);
    release(BARRIER);
  }
}

/**
 * Returns when all nth threads have called it; false when one of them failed, and the step must be left.
 * @param isFirst of its step: a helper that does not come here was not there when the step began
 */
export function barrier(ith: usize, nth: usize, isFirst: bool): bool {
  if (ASC_FEATURE_THREADS) {
    const seen = atomic.load<i32>(BARRIER);
    if (atomic.load<i32>(FAILED)) return false; // after `seen`: a failure from here on changes the word
    if (<usize>atomic.add<i32>(ARRIVED, 1) == nth - 1) {
      atomic.store<i32>(ARRIVED, 0);
      atomic.store<i32>(NEXT_UNIT, 0);
      release(BARRIER);
    } else if (!await_change(BARRIER, seen, ith ? -1 : isFirst ? PATIENCE_FIRST : PATIENCE)) fail_as(STALLED);
    return !atomic.load<i32>(FAILED);
  }
  return true;
}

/** Lets the helpers begin a step. */
export function begin_step(commands: usize, count: i32): void {
  if (ASC_FEATURE_THREADS) {
    store<usize>(STEP_COMMANDS, commands);
    store<i32>(STEP_COUNT, count);
    release(STEP);
  }
}

/** Instead of a number of commands: there are no steps any more. */
const NO_MORE: i32 = -1;

/** Lets the helpers go: each returns to its host once it is out of its step. A thread that sleeps is not ended from outside in every runtime. */
export function dismiss(): void {
  begin_step(0, NO_MORE);
}

// @ts-ignore: decorator
@inline export function is_dismissed(): bool { return step_count() == NO_MORE; }

/** Wakes the helpers before there is a step, so that they are awake when it begins; they sleep again if it does not come. */
export function wake(): void {
  if (ASC_FEATURE_THREADS) {
    if (atomic.load<i32>(SLEEPERS)) atomic.notify(STEP, -1);
  }
}

/** Returns how often threads have gone to sleep so far: they do where others want the cores, and between steps. */
export function sleeps(): i32 {
  return ASC_FEATURE_THREADS ? atomic.load<i32>(SLEEPS) : 0;
}

/** Waits for the step after `seen`; its commands are step_commands() and step_count(). @returns its number */
export function await_step(seen: i32): i32 {
  if (ASC_FEATURE_THREADS) {
    await_change(STEP, seen, -1);
    return atomic.load<i32>(STEP);
  }
  return seen;
}

// @ts-ignore: decorator
@inline export function step_commands(): usize { return load<usize>(STEP_COMMANDS); }
// @ts-ignore: decorator
@inline export function step_count(): i32 { return load<i32>(STEP_COUNT); }

/** Called by a helper that waits for its first step, or has left one that failed. @returns the number of the last step begun */
export function ready(): i32 {
  if (ASC_FEATURE_THREADS) {
    const seen = atomic.load<i32>(STEP); // first: thread 0 begins a step as soon as it has counted all helpers
    atomic.add<i32>(READY, 1);
    atomic.notify(READY, -1);
    return seen;
  }
  return 0;
}

/** Called by whoever caught a trap in its share of a step: all threads leave it. */
export function fail(): void {
  fail_as(TRAPPED);
}

/**
 * After a step that failed, by thread 0: waits until `count` helpers in all have become ready since the start, and clears the failure.
 * @returns 0 when one has not: it has ended, and there are no threads any more
 */
export function recover(count: i32): i32 {
  if (ASC_FEATURE_THREADS) {
    for (let naps = PATIENCE; ; naps--) {
      const now = atomic.load<i32>(READY);
      if (now == count) break;
      if (naps == 0 || atomic.load<i32>(FAILED) == STALLED) return 0;
      atomic.wait<i32>(READY, now, NAP);
    }
    atomic.store<i32>(ARRIVED, 0);
    atomic.store<i32>(NEXT_UNIT, 0);
    atomic.store<i32>(FAILED, 0);
  }
  return 1;
}
