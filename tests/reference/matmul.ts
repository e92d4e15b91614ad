// y = x · Wᵀ in float64, with float activations and with the activations that the quantized kernels use.
import { roundToEven } from "./convert.ts";

/** Activations in blocks of 32: q = round-to-even(x · 127/max|x|) with the f32 steps that the kernel takes, scale = max|x| / 127 as f32. */
export function quantizeActivations(x: Float32Array): { q: Int8Array; scale: Float64Array } {
  const q = new Int8Array(x.length);
  const scale = new Float64Array(x.length / 32);
  for (let b = 0; b < scale.length; b++) {
    const block = x.subarray(b * 32, b * 32 + 32);
    const top = block.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
    if (top < 2 ** -100) continue; // counts as zero
    const inverse = Math.fround(127 / top);
    scale[b] = Math.fround(top / 127);
    block.forEach((v, i) => {
      q[b * 32 + i] = roundToEven(Math.fround(v * inverse));
    });
  }
  return { q, scale };
}

/** x (M,K) · w (N,K)ᵀ → (M,N); `size` is the same sum over absolute values, for error bounds. */
export function matmul(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  M: number,
  N: number,
  K: number,
): { y: Float64Array; size: Float64Array } {
  const y = new Float64Array(M * N);
  const size = new Float64Array(M * N);
  for (let m = 0; m < M; m++)
    for (let n = 0; n < N; n++)
      for (let k = 0; k < K; k++) {
        const p = x[m * K + k]! * w[n * K + k]!;
        y[m * N + n]! += p;
        size[m * N + n]! += Math.abs(p);
      }
  return { y, size };
}

/** The same on quantized activations: x (M,K) f32 is quantized in blocks of 32 first. K % 32 == 0. */
export function matmulQuantized(
  x: Float32Array,
  w: ArrayLike<number>,
  M: number,
  N: number,
  K: number,
): { y: Float64Array; size: Float64Array } {
  const { q, scale } = quantizeActivations(x);
  return matmul(
    Float64Array.from(q, (v, i) => v * scale[i >> 5]!),
    w,
    M,
    N,
    K,
  );
}

/**
 * How far rounded sums of activations may lead: the sum over a block of 32, times its scale, in 16 bits of the largest of the 8 in 256 values of a row (half a step, and a
 * hundredth for the f32 of the rounding itself), times the block's value in w (N,K), which is the same for all 32.
 */
export function sumsRounding(x: Float32Array, w: ArrayLike<number>, M: number, N: number, K: number): Float64Array {
  const { q, scale } = quantizeActivations(x);
  const sums = scale.map((s, b) => Math.abs(s * q.subarray(32 * b, 32 * b + 32).reduce((a, v) => a + v, 0)));
  const out = new Float64Array(M * N);
  for (let m = 0; m < M; m++)
    for (let n = 0; n < N; n++)
      for (let k = 0; k < K; k += 32) {
        const first = (m * K + k - (k % 256)) / 32;
        out[m * N + n]! += (Math.abs(w[n * K + k]!) * 0.51 * Math.max(...sums.subarray(first, first + 8))) / 32767;
      }
  return out;
}
