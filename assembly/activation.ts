// silu(a) ⊙ b, the gate of the feed-forward network, and its quantization for the matrix that comes next.
import { BLOCK, qd8_row, QD8_TWICE } from "./lib/blocks";
import { EXP } from "./lib/math";
import { quantize_blocks, share_blocks } from "./quantize";

/** Columns that are computed before they are quantized: 1 KiB, which L1 holds. */
const TILE: usize = 8 * BLOCK;

/**
 * y = silu(a) ⊙ b over `bytes` of f32; y may be a. silu's error is below 2.5 ulp from -87 to 88: 2.1 at most among a million floats (tests/kernels/elementwise.test.ts).
 * e^-a as exp_f32x4 computes it, with every sign turned: the same bits without negations, and its constants stay in registers.
 */
// @ts-ignore: decorator
@inline function silu_mul(y: usize, a: usize, b: usize, bytes: usize): void {
  const log2e = v128.load(EXP), round = v128.load(EXP + 16), high = v128.load(EXP + 32), low = v128.load(EXP + 48);
  const c7 = v128.load(EXP + 64), c6 = v128.load(EXP + 80), c5 = v128.load(EXP + 96), c4 = v128.load(EXP + 112), c3 = v128.load(EXP + 128);
  const c2 = v128.load(EXP + 144), one = v128.load(EXP + 160);
  for (let i: usize = 0; i < bytes; i += 16) {
    const v = v128.load(a + i), x = f32x4.pmax(v, v128.load(EXP + 208)); // pmax keeps NaN
    const t = f32x4.sub(round, f32x4.mul(x, log2e)), n = f32x4.sub(t, round);
    const r = f32x4.add(f32x4.add(x, f32x4.mul(n, high)), f32x4.mul(n, low));
    let p = f32x4.sub(c6, f32x4.mul(r, c7));
    p = f32x4.sub(c5, f32x4.mul(p, r));
    p = f32x4.sub(c4, f32x4.mul(p, r));
    p = f32x4.sub(c3, f32x4.mul(p, r));
    p = f32x4.sub(c2, f32x4.mul(p, r));
    p = f32x4.add(f32x4.sub(f32x4.mul(p, f32x4.mul(r, r)), r), one);
    const e = v128.and(i32x4.add(p, i32x4.shl(t, 23)), f32x4.le(x, v128.load(EXP + 192)));
    v128.store(y + i, f32x4.mul(f32x4.div(v, f32x4.add(one, e)), v128.load(b + i)));
  }
}

/**
 * y = silu(a) ⊙ b, silu(a) = a / (1 + e^-a); yq = y quantized, unless yq is 0
 * y (T,F8) f32, rows yStride floats apart, columns F8..yStride become 0; or 0 where only yq is wanted: then y takes a's place · yq (T,yStride) qd8 or 0
 * ab f32, rows abStride floats apart: a at column 0, b at column F8
 * needs: F8 % 4 == 0, strides % 4 == 0, yStride % 32 == 0 with yq, yStride == F8 without y, 16-byte alignment
 * cost:  reads 8, writes 4 bytes a value (and 1.5 or 2.5 of qd8); bound by exp and the division. Threads share blocks of 32 columns, eight at a time where their sums go together.
 */
export function silu_mul_f32(
  y: usize, yStride: usize, yq: usize, ab: usize, abStride: usize, T: usize, F8: usize, ith: usize, nth: usize,
): void {
  assert(F8 % 4 == 0 && yStride % 4 == 0 && yStride >= F8 && (yq == 0 || yStride % BLOCK == 0) && (y != 0 || (yq != 0 && yStride == F8)));
  const blocks = (yStride + BLOCK - 1) / BLOCK, begin = share_blocks(blocks, blocks, ith, nth) * BLOCK;
  const end = min<usize>(share_blocks(blocks, blocks, ith + 1, nth) * BLOCK, yStride), yqRow = qd8_row(blocks, QD8_TWICE);
  const row = (y ? yStride : abStride) << 2;
  let out = y ? y : ab;
  for (let t: usize = 0; t < T; t++, ab += abStride << 2, out += row) {
    for (let column = begin; column < end; column += TILE) {
      const next = min<usize>(column + TILE, end), stop = max<usize>(column, min<usize>(next, F8)), p = out + (column << 2);
      silu_mul(p, ab + (column << 2), ab + ((F8 + column) << 2), (stop - column) << 2);
      memory.fill(out + (stop << 2), 0, (next - stop) << 2);
      if (yq) quantize_blocks(yq + t * yqRow, blocks, column / BLOCK, p, (next - column) / BLOCK);
    }
  }
}
