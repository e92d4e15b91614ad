// RMS normalization, with what stands before and behind it: the residual addition, and quantization for the matrix that comes next.
import { BLOCK, qd8_row, QD8_TWICE } from "./lib/blocks";
import { sum_f32x4 } from "./lib/math";
import { share } from "./lib/threads";
import { quantize_blocks } from "./quantize";

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

/** x += r over n floats (n % 16 == 0). @returns Σ x² of the sums, added as in sum_squares */
// @ts-ignore: decorator
@inline function add_sum_squares(x: usize, r: usize, n: usize): f32 {
  let a = f32x4.splat(0), b = a, c = a, d = a;
  for (const e = x + (n << 2); x < e; x += 64, r += 64) {
    let v = f32x4.add(v128.load(x), v128.load(r)); v128.store(x, v); a = f32x4.add(a, f32x4.mul(v, v));
    v = f32x4.add(v128.load(x, 16), v128.load(r, 16)); v128.store(x, v, 16); b = f32x4.add(b, f32x4.mul(v, v));
    v = f32x4.add(v128.load(x, 32), v128.load(r, 32)); v128.store(x, v, 32); c = f32x4.add(c, f32x4.mul(v, v));
    v = f32x4.add(v128.load(x, 48), v128.load(r, 48)); v128.store(x, v, 48); d = f32x4.add(d, f32x4.mul(v, v));
  }
  return sum_f32x4(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
}

/**
 * x += r, unless r is 0; y[i] = x[n] / sqrt(mean(x[n]²) + eps) · g, n = rows ? rows[i] : i, the mean over D; yq = y quantized, unless yq is 0
 * y (M,D) f32, may be x when rows is 0 · yq (M,stride) qd8 or 0 · x f32 · r (M,D) f32 or 0 · g (D) f32 · rows (M) i32 or 0
 * y, x and r have rows stride floats apart; columns D..stride of y become 0
 * needs: D % 16 == 0, stride % 16 == 0 (32 with yq), 16-byte alignment; not both r and rows
 * cost:  one pass: a row stays in L1 from the addition to its quantization. Threads share rows.
 */
export function rmsnorm_f32(
  y: usize, yq: usize, x: usize, r: usize, g: usize, rows: usize, M: usize, D: usize, stride: usize, eps: f32, ith: usize, nth: usize,
): void {
  assert(D % 16 == 0 && stride % 16 == 0 && stride >= D && !(r && rows) && (yq == 0 || stride % BLOCK == 0));
  const bytes = D << 2, row = stride << 2, blocks = stride / BLOCK, yqRow = qd8_row(blocks, QD8_TWICE);
  for (let m = share(M, ith, nth), e = share(M, ith + 1, nth); m < e; m++) {
    const xp = x + (rows ? load<usize>(rows + (m << 2)) : m) * row, yp = y + m * row;
    const squares = r ? add_sum_squares(xp, r + m * row, D) : sum_squares(xp, D);
    const scale = f32x4.splat(1 / sqrt<f32>(squares / <f32>D + eps));
    for (let i: usize = 0; i < bytes; i += 32) {
      v128.store(yp + i, f32x4.mul(f32x4.mul(v128.load(xp + i), scale), v128.load(g + i)));
      v128.store(yp + i, f32x4.mul(f32x4.mul(v128.load(xp + i, 16), scale), v128.load(g + i, 16)), 16);
    }
    memory.fill(yp + bytes, 0, row - bytes);
    if (yq) quantize_blocks(yq + m * yqRow, blocks, 0, yp, blocks);
  }
}
