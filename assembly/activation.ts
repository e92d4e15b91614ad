// silu(a) ⊙ b, the gate of the feed-forward network.
import { exp_f32x4 } from "./lib/math";
import { share } from "./lib/threads";

/**
 * y = silu(a) ⊙ b, silu(a) = a / (1 + e^-a)
 * y (T,F8) f32, rows yStride floats apart, columns F8..yStride become 0 · ab f32, rows abStride floats apart: a at column 0, b at column F8
 * needs: F8 % 4 == 0, strides % 4 == 0, 16-byte alignment
 * cost:  reads 8, writes 4 bytes a value; bound by exp and the division. Threads share columns.
 */
export function silu_mul_f32(y: usize, yStride: usize, ab: usize, abStride: usize, T: usize, F8: usize, ith: usize, nth: usize): void {
  assert(F8 % 4 == 0 && yStride % 4 == 0 && yStride >= F8);
  const vectors = yStride >> 2, begin = share(vectors, ith, nth) << 4, end = share(vectors, ith + 1, nth) << 4;
  const width = F8 << 2, stop = min<usize>(end, width), one = f32x4.splat(1), limit = f32x4.splat(88);
  for (; T > 0; T--, ab += abStride << 2, y += yStride << 2) {
    for (let i = begin; i < stop; i += 16) {
      const v = v128.load(ab + i), e = exp_f32x4(f32x4.pmin(f32x4.neg(v), limit)); // pmin keeps NaN
      v128.store(y + i, f32x4.mul(f32x4.div(v, f32x4.add(one, e)), v128.load(ab + width + i)));
    }
    for (let i = max<usize>(begin, width); i < end; i += 16) v128.store(y + i, f32x4.splat(0));
  }
}
