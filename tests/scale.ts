// How much a test does: the gate samples, the full run is the same code with bigger counts.

/** @returns the count for the run that was asked for: `npm test` (gate) or `npm run test:full`. */
export function pick<T>(counts: { readonly gate: T; readonly full: T }): T {
  return process.env.LFM2_TEST_SCALE === "full" ? counts.full : counts.gate;
}
