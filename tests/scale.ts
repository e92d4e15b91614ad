// How much a test does: the gate samples, the full run is the same code with bigger counts.

/** The gate's second run, in the newest Node: of what tests/bits compares to the bit in every engine, the plain build is tried in the first alone. */
export const isAgain: boolean = process.env.LFM2_TEST_SCALE === "again";

/** @returns the count for the run that was asked for: `npm test` (gate) or `npm run test:full`. */
export function pick<T>(counts: { readonly gate: T; readonly full: T }): T {
  return process.env.LFM2_TEST_SCALE === "full" ? counts.full : counts.gate;
}
