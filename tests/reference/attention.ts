// Causal grouped-query attention in float64.

/** Query heads, kv heads, head dim, and the factor on the scores. */
export interface Heads {
  readonly H: number;
  readonly G: number;
  readonly hd: number;
  readonly scale: number;
}

/**
 * @param q (T, H·hd), rows at positions P, P+1, …
 * @param k (P+T, G·hd), and v, for positions 0 …
 * @returns (T, H·hd)
 */
export function attention(
  { H, G, hd, scale }: Heads,
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  T: number,
  P: number,
): Float64Array {
  const y = new Float64Array(T * H * hd);
  for (let t = 0; t < T; t++)
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * G) / H);
      const row = (t * H + h) * hd;
      const scores = new Float64Array(P + t + 1);
      for (let j = 0; j < scores.length; j++) {
        let dot = 0;
        for (let i = 0; i < hd; i++) dot += q[row + i]! * k[(j * G + g) * hd + i]!;
        scores[j] = dot * scale;
      }
      const top = scores.reduce((a, s) => Math.max(a, s), Number.NEGATIVE_INFINITY);
      const p = scores.map((s) => Math.exp(s - top));
      const sum = p.reduce((a, s) => a + s, 0);
      for (let j = 0; j < p.length; j++) {
        const w = p[j]! / sum;
        for (let i = 0; i < hd; i++) y[row + i]! += w * v[(j * G + g) * hd + i]!;
      }
    }
  return y;
}
