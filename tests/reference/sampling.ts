// What a sampler needs, in float64 and with plain sorting.

/** e^(x - max), not normalised, and the sum; -Infinity gives 0. */
export function softmax(x: ArrayLike<number>): { p: Float64Array; sum: number } {
  const top = Array.from(x).reduce((a, v) => Math.max(a, v), Number.NEGATIVE_INFINITY);
  const p = Float64Array.from(x, (v) => Math.exp(v - top));
  return { p, sum: p.reduce((a, v) => a + v, 0) };
}

/** Indices of x from the largest value to the smallest, ties by index; NaN and -Infinity last, by index. */
export function order(x: ArrayLike<number>): number[] {
  const key = Array.from(x, (v) => (Number.isNaN(v) ? Number.NEGATIVE_INFINITY : v));
  return key.map((_, i) => i).sort((a, b) => (key[a] === key[b] ? a - b : key[b]! > key[a]! ? 1 : -1));
}

/** Index of the largest value; the lowest index wins, NaN never does. */
export function argmax(x: ArrayLike<number>): number {
  return order(x)[0]!;
}

/** Repetition penalty on one logit. */
export function penalize(x: number, penalty: number): number {
  return x < 0 ? x * penalty : x / penalty;
}
