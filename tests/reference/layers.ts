// The small operations of a layer in float64: rmsnorm, rope, silu·mul, gated short convolution.

/** One row: x / sqrt(mean(x²) + eps) · g. */
export function rmsnorm(x: ArrayLike<number>, g: ArrayLike<number>, eps: number): Float64Array {
  const row = Float64Array.from(x);
  const mean = row.reduce((a, v) => a + v * v, 0) / row.length;
  return row.map((v, i) => (v / Math.sqrt(mean + eps)) * g[i]!);
}

/** theta^(-2i/hd), i < hd/2. */
export function ropeFrequencies(theta: number, hd: number): Float64Array {
  return Float64Array.from({ length: hd / 2 }, (_, i) => theta ** ((-2 * i) / hd));
}

/** One head (hd) at `position`: pairs (i, i + hd/2) are rotated by position · frequencies[i] and scaled by `factor`. */
export function rope(x: ArrayLike<number>, position: number, frequencies: ArrayLike<number>, factor = 1): Float64Array {
  const half = x.length / 2;
  const y = new Float64Array(x.length);
  for (let i = 0; i < half; i++) {
    const angle = position * frequencies[i]!;
    const [c, s] = [Math.cos(angle) * factor, Math.sin(angle) * factor];
    y[i] = x[i]! * c - x[i + half]! * s;
    y[i + half] = x[i + half]! * c + x[i]! * s;
  }
  return y;
}

/** a / (1 + e^-a) · b. */
export function siluMul(a: number, b: number): number {
  return (a / (1 + Math.exp(-a))) * b;
}

/** Sizes and weights of a gated short convolution: taps (Kc, D), tap 0 meets the oldest row; bias (D) when there is one. */
export interface ShortConv {
  readonly D: number;
  readonly Kc: number;
  readonly taps: ArrayLike<number>;
  readonly bias?: ArrayLike<number> | undefined;
}

/**
 * y = C ⊙ (conv(B ⊙ u) + bias) over T rows after `state` (Kc-1, D), oldest row first.
 * @param bcu (T, 3·D): B, C, u of a row side by side
 */
export function shortConv(conv: ShortConv, bcu: ArrayLike<number>, state: ArrayLike<number>): { y: Float64Array; state: Float64Array } {
  const { D, Kc, taps, bias } = conv;
  const T = bcu.length / (3 * D);
  const gates = Array.from({ length: Kc - 1 }, (_, r) => Float64Array.from({ length: D }, (_, i) => state[r * D + i]!));
  const y = new Float64Array(T * D);
  for (let t = 0; t < T; t++) {
    const at = t * 3 * D;
    gates.push(Float64Array.from({ length: D }, (_, i) => bcu[at + i]! * bcu[at + 2 * D + i]!));
    for (let i = 0; i < D; i++) {
      let sum = bias?.[i] ?? 0;
      for (let j = 0; j < Kc; j++) sum += taps[j * D + i]! * gates[t + j]![i]!;
      y[t * D + i] = bcu[at + D + i]! * sum;
    }
  }
  return { y, state: Float64Array.from(gates.slice(gates.length - (Kc - 1)).flatMap((row) => [...row])) };
}
