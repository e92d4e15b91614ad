// Activations to int8, one scale per block of 32.
// The relaxed build keeps values as i8, and once more in two halves where int8 weights take them so; the plain build twice as i16 in the order
// k, k+2, k+1, k+3 of each four, which is how masks and shifts take int4 and int8 weights apart, and times what these leave.
import {
  BLOCK, PAIRS, Q8_BIAS, QD8_AGAIN_BIAS, QD8_AGAIN_BLOCK, QD8_AGAIN_PAIR8, QD8_AGAIN_SCALE, QD8_BLOCK, qd8_row, QD8_PAIR32, QD8_PAIR8,
  QD8_SCALE, QD8_SUM8, QD8_SUM_BIAS, QD8_SUMS, qd8_sums_offset, QD8_SUMS_SCALE, QD8_TWICE,
} from "./lib/blocks";
import { CONST, CONST_ABS, CONST_ROUND } from "./lib/simd";
import { share } from "./lib/threads";

/** A block whose largest |x| is below 2^-100 counts as zero: 127 / |x| must stay finite. */
const TINY: f32 = 7.888609052210118e-31;

// @ts-ignore: decorator
@inline function pairs(v: v128): v128 {
  return i8x16.shuffle(v, v, 0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
}

/** Eight values to integers: adding 1.5·2^23 rounds them (half to even) and leaves them in the low bits. */
// @ts-ignore: decorator
@inline export function rounded(a: v128, b: v128, r: v128, magic: v128): v128 {
  return i16x8.narrow_i32x4_s(i32x4.sub(f32x4.add(f32x4.mul(a, r), magic), magic), i32x4.sub(f32x4.add(f32x4.mul(b, r), magic), magic));
}

/** Sixteen values (|i| ≤ 127) as 16·high + low, both in -8..8. */
// @ts-ignore: decorator
@inline function store_halves(low: usize, a: v128, b: v128): void {
  const eight = i16x8.splat(8), ha = i16x8.shr_s(i16x8.add(a, eight), 4), hb = i16x8.shr_s(i16x8.add(b, eight), 4);
  v128.store(low, i8x16.narrow_i16x8_s(i16x8.sub(a, i16x8.shl(ha, 4)), i16x8.sub(b, i16x8.shl(hb, 4))));
  v128.store(low, i8x16.narrow_i16x8_s(ha, hb), 32);
}

/** Bits of the largest |x| of 32 values, as an integer maximum: NaN is larger than everything and so is not lost. */
// @ts-ignore: decorator
@inline export function largest(p: usize): f32 {
  const abs = v128.load(CONST + CONST_ABS);
  let a = v128.and(v128.load(p), abs), b = v128.and(v128.load(p, 16), abs);
  a = i32x4.max_s(a, v128.and(v128.load(p, 32), abs)); b = i32x4.max_s(b, v128.and(v128.load(p, 48), abs));
  a = i32x4.max_s(a, v128.and(v128.load(p, 64), abs)); b = i32x4.max_s(b, v128.and(v128.load(p, 80), abs));
  a = i32x4.max_s(a, v128.and(v128.load(p, 96), abs)); b = i32x4.max_s(b, v128.and(v128.load(p, 112), abs));
  a = i32x4.max_s(a, b);
  a = i32x4.max_s(a, i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return f32x4.extract_lane(i32x4.max_s(a, i8x16.shuffle(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)), 0);
}

/** Lanes 0 and 1: the sum of 16 integers (i16) with k mod 4 < 2, and of the others. */
// @ts-ignore: decorator
@inline function pair_sums(a: v128, b: v128): v128 {
  const s = i32x4.extadd_pairwise_i16x8_s(i16x8.add(a, b));
  return i32x4.add(s, i8x16.shuffle(s, s, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
}

// @ts-ignore: decorator
@inline function two_i16(low: i32, high: i32): i32 { return (low & 0xffff) | (high << 16); }

/** One block: 32 floats at p to the QD8_BLOCK bytes at o and, with QD8_TWICE, the QD8_AGAIN_BLOCK bytes at again. @returns -scale·Σq */
function quantize_block(o: usize, again: usize, p: usize): f32 {
  const amax = largest(p), magic = v128.load(CONST + CONST_ROUND), r = f32x4.splat(amax >= TINY ? 127 / amax : 0);
  const i0 = rounded(v128.load(p), v128.load(p, 16), r, magic), i1 = rounded(v128.load(p, 32), v128.load(p, 48), r, magic);
  const i2 = rounded(v128.load(p, 64), v128.load(p, 80), r, magic), i3 = rounded(v128.load(p, 96), v128.load(p, 112), r, magic);
  if (ASC_FEATURE_RELAXED_SIMD) {
    v128.store(o, i8x16.narrow_i16x8_s(i0, i1));
    v128.store(o, i8x16.narrow_i16x8_s(i2, i3), 16);
    if (PAIRS) { store_halves(again, i0, i1); store_halves(again + 16, i2, i3); }
  } else {
    // each four k, k+2, k+1, k+3; for int4 times 256, 256, 1, 1 and, from k = 16 on, 16, 16, 256, 256; for int8 times 1, 1, 256, 256
    const p0 = pairs(i0), p1 = pairs(i1), p2 = pairs(i2), p3 = pairs(i3), even = i64x2.splat(0xffffffff);
    const w0 = i16x8.shl(p0, 8), w1 = i16x8.shl(p1, 8), w2 = i16x8.shl(p2, 8), w3 = i16x8.shl(p3, 8);
    v128.store(o, v128.bitselect(w0, p0, even));
    v128.store(o, v128.bitselect(w1, p1, even), 16);
    v128.store(o, v128.bitselect(i16x8.shl(p2, 4), w2, even), 32);
    v128.store(o, v128.bitselect(i16x8.shl(p3, 4), w3, even), 48);
    v128.store(again, v128.bitselect(p0, w0, even));
    v128.store(again, v128.bitselect(p1, w1, even), 16);
    v128.store(again, v128.bitselect(p2, w2, even), 32);
    v128.store(again, v128.bitselect(p3, w3, even), 48);
  }
  const low = pair_sums(i0, i1), high = pair_sums(i2, i3);
  const low0 = i32x4.extract_lane(low, 0), low1 = i32x4.extract_lane(low, 1), high0 = i32x4.extract_lane(high, 0), high1 = i32x4.extract_lane(high, 1);
  const sum = low0 + low1 + high0 + high1;
  // NaN reaches the scale, and through it the result; so does infinity, as NaN: what its block's integers are differs between builds and machines
  const scale: f32 = amax < TINY ? 0 : amax / 127 + (amax - amax);
  store<f32>(o, scale, QD8_SCALE);
  const pair8 = PAIRS ? two_i16(-8 * (low0 + high0), -8 * (low1 + high1)) : two_i16(-8 * (low0 + low1), -8 * (high0 + high1));
  store<i32>(o, pair8, QD8_PAIR8);
  if (PAIRS) {
    store<i32>(o, two_i16(-32 * low0, -32 * low1), QD8_PAIR32);
    store<i32>(o, two_i16(-32 * high0, -32 * high1), QD8_PAIR32 + 4);
  } else {
    store<i32>(o, (ASC_FEATURE_RELAXED_SIMD ? -8 : -8 * 256) * sum, QD8_SUM8);
    store<i32>(o, Q8_BIAS * sum, QD8_SUM_BIAS);
  }
  if (QD8_TWICE) {
    store<f32>(again, scale, QD8_AGAIN_SCALE);
    store<i32>(again, Q8_BIAS * sum, QD8_AGAIN_BIAS);
    store<i64>(again, <i64><u32>pair8, QD8_AGAIN_PAIR8);
  }
  return scale * -<f32>sum;
}

/** Eight floats at o, side by side, to i16 and their scale in the same place. Their rounding is 1/65534 of the largest. What is not finite reaches a product by its block's scale. */
function quantize_sums(o: usize): void {
  const abs = v128.load(CONST + CONST_ABS), a = v128.load(o), b = v128.load(o, 16);
  let m = i32x4.max_s(v128.and(a, abs), v128.and(b, abs));
  m = i32x4.max_s(m, i8x16.shuffle(m, m, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  const amax = f32x4.extract_lane(i32x4.max_s(m, i8x16.shuffle(m, m, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)), 0);
  const some = amax >= TINY && amax < Infinity;
  v128.store(o, rounded(a, b, f32x4.splat(some ? 32767 / amax : 0), v128.load(CONST + CONST_ROUND)));
  v128.store(o, f32x4.replace_lane(f32x4.splat(0), 0, some ? amax / 32767 : 0), QD8_SUMS_SCALE);
}

/**
 * Blocks block..block+n of a row of `blocks` blocks, from the values side by side at p; for kernels that quantize what they have just written.
 * Where blocks % 8 == 0, so must block and n be: `share_blocks` shares them so.
 */
export function quantize_blocks(row: usize, blocks: usize, block: usize, p: usize, n: usize): void {
  let o = row + block * QD8_BLOCK, again = row + blocks * QD8_BLOCK + block * QD8_AGAIN_BLOCK;
  if (blocks & 7) {
    for (; n > 0; n--, o += QD8_BLOCK, again += QD8_AGAIN_BLOCK, p += BLOCK << 2) quantize_block(o, again, p);
    return;
  }
  assert(block % 8 == 0 && n % 8 == 0);
  for (let sums = row + qd8_sums_offset(blocks, QD8_TWICE) + (block << 2); n > 0; n -= 8, sums += QD8_SUMS) {
    for (let i: usize = 0; i < QD8_SUMS; i += 4, o += QD8_BLOCK, again += QD8_AGAIN_BLOCK, p += BLOCK << 2) store<f32>(sums + i, quantize_block(o, again, p));
    quantize_sums(sums);
  }
}

/** As `share`, of `total` blocks in rows of `blocks`: eight that go together are one thread's. */
// @ts-ignore: decorator
@inline export function share_blocks(total: usize, blocks: usize, ith: usize, nth: usize): usize {
  return blocks & 7 ? share(total, ith, nth) : share(total >> 3, ith, nth) << 3;
}

/**
 * q = round(x / scale), scale = max|x| / 127 over 32 values; round half to even
 * out (M,Kp) qd8 · x (M,Kp) f32, rows xStride floats apart
 * needs: Kp % 32 == 0
 * cost:  reads 4, writes 1.6 (relaxed; 4.1 where its sums are pairs) or 5.1 (plain) bytes a value. Threads share blocks, eight at a time where their sums go together.
 */
export function quantize_f32_qd8(out: usize, x: usize, M: usize, Kp: usize, xStride: usize, ith: usize, nth: usize): void {
  const blocks = Kp / BLOCK, row = qd8_row(blocks, QD8_TWICE), end = share_blocks(M * blocks, blocks, ith + 1, nth);
  for (let b = share_blocks(M * blocks, blocks, ith, nth); b < end; ) {
    const m = b / blocks, block = b % blocks, n = min<usize>(blocks - block, end - b);
    quantize_blocks(out + m * row, blocks, block, x + ((m * xStride + block * BLOCK) << 2), n);
    b += n;
  }
}
