// RMS normalization.
import { sum_f32x4 } from "./lib/math";
import { share } from "./lib/threads";

/** Σ x² over n floats (n % 16 == 0), always in the same order. */
// @ts-ignore: decorator
@inline export function sum_squares(x: usize, n: usize): f32 {
  let a = f32x4.splat(0), b = a, c = a, d = a;
  for (const e = x + (n << 2); x < e; x += 64) {
    let v = v128.load(x); a = f32x4.add(a, f32x4.mul(v, v));
    v = v128.load(x, 16); b = f32x4.add(b, f32x4.mul(v, v));
    v = v128.load(x, 32); c = f32x4.add(c, f32x4.mul(v, v));
    v = v128.load(x, 48); d = f32x4.add(d, f32x4.mul(v, v));
  }
  return sum_f32x4(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
}

/**
 * y[i] = x[r] / sqrt(mean(x[r]²) + eps) · g, r = rows ? rows[i] : i; the mean is over D
 * y (M,D) f32, may be x when rows is 0 · x f32 · g (D) f32 · rows (M) i32 or 0
 * y and x have rows stride floats apart; columns D..stride of y become 0
 * needs: D % 16 == 0, stride % 16 == 0, 16-byte alignment
 * cost:  reads x twice (from L1), g once, writes y once. Threads share rows.
 */
export function rmsnorm_f32(
  y: usize, x: usize, g: usize, rows: usize, M: usize, D: usize, stride: usize, eps: f32, ith: usize, nth: usize,
): void {
  assert(D % 16 == 0 && stride % 16 == 0 && stride >= D);
  const bytes = D << 2, row = stride << 2;
  for (let m = share(M, ith, nth), e = share(M, ith + 1, nth); m < e; m++) {
    const xp = x + (rows ? load<usize>(rows + (m << 2)) : m) * row, yp = y + m * row;
    const r = f32x4.splat(1 / sqrt<f32>(sum_squares(xp, D) / <f32>D + eps));
    for (let i: usize = 0; i < bytes; i += 32) {
      v128.store(yp + i, f32x4.mul(f32x4.mul(v128.load(xp + i), r), v128.load(g + i)));
      v128.store(yp + i, f32x4.mul(f32x4.mul(v128.load(xp + i, 16), r), v128.load(g + i, 16)), 16);
    }
    memory.fill(yp + bytes, 0, row - bytes);
  }
}
