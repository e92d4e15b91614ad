// From rows as a file stores them to f32 (decode_rows) and to the packed layouts that matmul reads (pack_rows). README.md draws both sides.
import { decode_blocks, fits_q8, k_minimum, k_nibbles, k_scale, q6_k_values, widen_to_q8 } from "./dequantize";
import {
  BF16, BLOCK, F16, F32, GROUP, packed_block_bytes, Q4, Q4_K, Q4KW_BLOCK, Q4KW_HEAD, Q6_K, Q6KW_BLOCK, Q6KW_HEAD, Q8, Q8_FLIP, QB4W_BYTES, QB8W_BYTES,
  QBW_VALUES, stored_row_bytes, SUPER,
} from "./lib/blocks";
import { put_q4, put_q6, put_q8, store_nibbles, store_scaled } from "./lib/layout";
import { bf16_bits, f16_bits, f32_of_f16, load_f16 } from "./lib/math";
import { CONST, CONST_ABS, CONST_ROUND, dot_i16 } from "./lib/simd";
import { largest, rounded } from "./quantize";

function decode_f16(out: usize, src: usize, K: usize): void {
  for (; K >= 4; K -= 4, out += 16, src += 8) v128.store(out, f32_of_f16(v128.load16x4_s(src)));
  for (; K > 0; K--, out += 4, src += 2) store<f32>(out, load_f16(src));
}

function decode_bf16(out: usize, src: usize, K: usize): void {
  for (; K >= 4; K -= 4, out += 16, src += 8) v128.store(out, i32x4.shl(v128.load16x4_u(src), 16));
  for (; K > 0; K--, out += 4, src += 2) store<u32>(out, <u32>load<u16>(src) << 16);
}

/** A Q8_0 block: f16 scale, 32 signed bytes. */
function decode_q8(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= BLOCK, out += 128, src += 34) {
    const d = f32x4.splat(load_f16(src));
    store_scaled(out, v128.load(src, 2), d);
    store_scaled(out + 64, v128.load(src, 18), d);
  }
}

/** A Q4_0 block: f16 scale, 16 bytes of nibbles. */
function decode_q4(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= BLOCK, out += 128, src += 18) store_nibbles(out, v128.load(src, 2), f32x4.splat(load_f16(src)));
}

function decode_row(out: usize, src: usize, srcType: i32, K: usize): void {
  switch (srcType) {
    case F32: return memory.copy(out, src, K << 2);
    case F16: return decode_f16(out, src, K);
    case BF16: return decode_bf16(out, src, K);
    case Q8: return decode_q8(out, src, K);
    case Q4: return decode_q4(out, src, K);
    default: return decode_blocks(out, src, srcType, K);
  }
}

/**
 * Stored rows to f32, exactly (infinities and NaN included)
 * out (rows,K) f32, rows outStride floats apart, columns K..outStride become 0 · src: rows of K values of srcType one behind the other, at any byte
 * needs: K a multiple of the type's block; reads nothing past the end
 * cost:  about 1 ns a value
 */
export function decode_rows(out: usize, outStride: usize, src: usize, srcType: i32, rows: usize, K: usize): void {
  const stored = stored_row_bytes(srcType, K);
  for (; rows > 0; rows--, src += stored, out += outStride << 2) {
    decode_row(out, src, srcType, K);
    memory.fill(out + (K << 2), 0, (outStride - K) << 2);
  }
}

/** 1 when every one of n values (n % 4 == 0) is below limit in size; NaN is not. */
function within(x: usize, n: usize, limit: f32): i32 {
  const abs = v128.load(CONST + CONST_ABS), lv = f32x4.splat(limit);
  let ok = f32x4.eq(lv, lv);
  for (; n > 0; n -= 4, x += 16) ok = v128.and(ok, f32x4.lt(v128.and(v128.load(x), abs), lv));
  return i32x4.all_true(ok);
}

/** From what size on a value becomes infinite in a float dtype. */
function limit_of(dtype: i32): f32 {
  switch (dtype) {
    case F16: return 65520;
    case BF16: return reinterpret<f32>(0x7f7f8000);
    default: return Infinity;
  }
}

// @ts-ignore: decorator
@inline function low32(a: v128, b: v128): v128 { return i8x16.shuffle(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23); }
// @ts-ignore: decorator
@inline function high32(a: v128, b: v128): v128 { return i8x16.shuffle(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31); }
// @ts-ignore: decorator
@inline function low64(a: v128, b: v128): v128 { return i8x16.shuffle(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23); }
// @ts-ignore: decorator
@inline function high64(a: v128, b: v128): v128 { return i8x16.shuffle(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31); }

// @ts-ignore: decorator
@inline function odd32(v: v128): v128 { return i8x16.shuffle(v, v, 4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15); }

// @ts-ignore: decorator
@inline function put_f16_pair(p: usize, even: v128, odd: v128): void { v128.store(p, v128.or(f16_bits(even), i32x4.shl(f16_bits(odd), 16))); }
// @ts-ignore: decorator
@inline function put_bf16_pair(p: usize, even: v128, odd: v128): void { v128.store(p, v128.or(bf16_bits(even), i32x4.shl(bf16_bits(odd), 16))); }

/** 8 rows of x (Kp floats each) to a group of f32w, f16w or bf16w: k after k, the rows side by side. */
function encode_floats(dst: usize, dtype: i32, x: usize, Kp: usize): void {
  const row = Kp << 2;
  for (let half: usize = 0; half < 2; half++) {
    let p = x + 4 * half * row, o = dst + (half << 4);
    for (let k: usize = 0; k < Kp; k += 4, p += 16) {
      const a = v128.load(p), b = v128.load(p + row), c = v128.load(p + 2 * row), d = v128.load(p + 3 * row);
      const ab = low32(a, b), cd = low32(c, d), ef = high32(a, b), gh = high32(c, d);
      const k0 = low64(ab, cd), k1 = high64(ab, cd), k2 = low64(ef, gh), k3 = high64(ef, gh);
      if (dtype == F32) {
        v128.store(o, k0); v128.store(o, k1, 32); v128.store(o, k2, 64); v128.store(o, k3, 96);
        o += 128;
      } else if (dtype == F16) {
        put_f16_pair(o, k0, k1); put_f16_pair(o + 32, k2, k3);
        o += 64;
      } else {
        put_bf16_pair(o, k0, k1); put_bf16_pair(o + 32, k2, k3);
        o += 64;
      }
    }
  }
}

/** Bits of one f32 rounded to f16. */
function f16_of(v: f32): u32 {
  return <u32>i32x4.extract_lane(f16_bits(f32x4.splat(v)), 0);
}

/** Sizes of a block's largest value between which scales are searched: below them an f16 scale is 0, above them infinite. */
const SMALL: f32 = 9.094947017729282e-13; // 2^-40
const LARGE: f32 = 1.099511627776e12; // 2^40
/** Integers that stand for the values of a block while its scale is sought: the largest becomes this. */
const FINE: f32 = 4095;
/** What the trials of a scale put the block's largest value at, in steps / FINE · 2^15: 127.3 to 122.5 for q8, 8.9 to 6.7 for q4. */
const TRIALS: usize = memory.data<i16>([1019, 1013, 1008, 1002, 997, 991, 985, 980, 71, 69, 66, 64, 62, 59, 57, 54], 16);
const TRIALS_END: usize = 16;

/** The sums of four vectors' lanes, as floats. */
// @ts-ignore: decorator
@inline function sums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(low32(a, b), high32(a, b)), cd = i32x4.add(low32(c, d), high32(c, d));
  return f32x4.convert_i32x4_s(i32x4.add(low64(ab, cd), high64(ab, cd)));
}

/** Eight values to integers in -FINE..FINE. */
// @ts-ignore: decorator
@inline function fine(p: usize, r: v128): v128 { return rounded(v128.load(p), v128.load(p, 16), r, v128.load(CONST + CONST_ROUND)); }

/** Eight of these integers to those of a trial: x·r / 2^15, halves up (the factors are small: neither build's product saturates). */
// @ts-ignore: decorator
@inline function tried(x: v128, r: v128): v128 { return ASC_FEATURE_RELAXED_SIMD ? i16x8.relaxed_q15mulr_s(x, r) : i16x8.q15mulr_sat_s(x, r); }

/** Products of 32 integers, as four sums. */
// @ts-ignore: decorator
@inline function dot32(a0: v128, a1: v128, a2: v128, a3: v128, b0: v128, b1: v128, b2: v128, b3: v128): v128 {
  return dot_i16(a3, b3, dot_i16(a2, b2, dot_i16(a1, b1, i32x4.dot_i16x8_s(a0, b0))));
}

/**
 * The scale that gives the least squared error to 32 values that are rounded to q8's or q4's integers. Their parts of the largest, which is `most`, lie at p. Each of eight trials puts `most` at another place and
 * rounds; for its integers q the best scale is Σxq / Σq², which gains (Σxq)² / Σq². The sums are exact: of values rounded to FINE parts of the largest.
 * Squared errors are within 0.3 % (q4) and 7 % (q8) of those of a search as fine as it may be. Where no factor of a trial takes FINE beyond the integers, nothing is
 * held within them: of q4's only the first five reach 8, and the first two -9.
 */
function best_scale(p: usize, most: f32, isQ8: bool): f32 {
  const x0 = v128.load(p), x1 = v128.load(p, 16), x2 = v128.load(p, 32), x3 = v128.load(p, 48);
  const high = i16x8.splat(isQ8 ? 127 : 7);
  let best = f32x4.splat(0), scale = best, trials = TRIALS;
  if (!isQ8) {
    const low = i16x8.splat(-8);
    trials += TRIALS_END;
    let t = v128.load16_splat(trials), q0 = i16x8.max_s(i16x8.min_s(tried(x0, t), high), low), q1 = i16x8.max_s(i16x8.min_s(tried(x1, t), high), low), q2 = i16x8.max_s(i16x8.min_s(tried(x2, t), high), low), q3 = i16x8.max_s(i16x8.min_s(tried(x3, t), high), low);
    const xa = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qa = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    t = v128.load16_splat(trials, 2); q0 = i16x8.max_s(i16x8.min_s(tried(x0, t), high), low); q1 = i16x8.max_s(i16x8.min_s(tried(x1, t), high), low); q2 = i16x8.max_s(i16x8.min_s(tried(x2, t), high), low); q3 = i16x8.max_s(i16x8.min_s(tried(x3, t), high), low);
    const xb = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qb = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    t = v128.load16_splat(trials, 4); q0 = i16x8.min_s(tried(x0, t), high); q1 = i16x8.min_s(tried(x1, t), high); q2 = i16x8.min_s(tried(x2, t), high); q3 = i16x8.min_s(tried(x3, t), high);
    const xc = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qc = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    t = v128.load16_splat(trials, 6); q0 = i16x8.min_s(tried(x0, t), high); q1 = i16x8.min_s(tried(x1, t), high); q2 = i16x8.min_s(tried(x2, t), high); q3 = i16x8.min_s(tried(x3, t), high);
    const xd = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qd = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    const xq = sums(xa, xb, xc, xd);
    scale = f32x4.div(xq, sums(qa, qb, qc, qd)); best = f32x4.mul(xq, scale); trials += 8;
  }
  for (const e = isQ8 ? TRIALS + TRIALS_END : trials + 8; trials < e; trials += 8) {
    let t = v128.load16_splat(trials), q0 = i16x8.min_s(tried(x0, t), high), q1 = i16x8.min_s(tried(x1, t), high), q2 = i16x8.min_s(tried(x2, t), high), q3 = i16x8.min_s(tried(x3, t), high);
    const xa = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qa = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    t = v128.load16_splat(trials, 2); q0 = tried(x0, t); q1 = tried(x1, t); q2 = tried(x2, t); q3 = tried(x3, t);
    const xb = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qb = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    t = v128.load16_splat(trials, 4); q0 = tried(x0, t); q1 = tried(x1, t); q2 = tried(x2, t); q3 = tried(x3, t);
    const xc = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qc = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    t = v128.load16_splat(trials, 6); q0 = tried(x0, t); q1 = tried(x1, t); q2 = tried(x2, t); q3 = tried(x3, t);
    const xd = dot32(x0, x1, x2, x3, q0, q1, q2, q3), qd = dot32(q0, q1, q2, q3, q0, q1, q2, q3);
    const xq = sums(xa, xb, xc, xd), s = f32x4.div(xq, sums(qa, qb, qc, qd)), gain = f32x4.mul(xq, s), better = f32x4.gt(gain, best);
    best = v128.bitselect(gain, best, better); scale = v128.bitselect(s, scale, better);
  }
  const g = high64(best, best), upper = f32x4.gt(g, best);
  best = v128.bitselect(g, best, upper); scale = v128.bitselect(high64(scale, scale), scale, upper);
  // no branch, which would be guessed wrong every other time
  return f32x4.extract_lane(v128.bitselect(odd32(scale), scale, f32x4.gt(odd32(best), best)), 0) * (most / FINE);
}

/** Which of eight values have this size, as words of all ones. */
// @ts-ignore: decorator
@inline function of_size(p: usize, m: v128, abs: v128): v128 {
  return i16x8.narrow_i32x4_s(f32x4.eq(v128.and(v128.load(p), abs), m), f32x4.eq(v128.and(v128.load(p, 16), abs), m));
}

/** The first of 32 values whose size is amax, with its sign; no branch, which would be guessed wrong. */
function signed_largest(p: usize, amax: f32): f32 {
  const abs = v128.load(CONST + CONST_ABS), m = f32x4.splat(amax);
  const low = i8x16.bitmask(i8x16.narrow_i16x8_s(of_size(p, m, abs), of_size(p + 32, m, abs)));
  const high = i8x16.bitmask(i8x16.narrow_i16x8_s(of_size(p + 64, m, abs), of_size(p + 96, m, abs)));
  return load<f32>(p + (ctz(low | high << 16) << 2));
}

/** 16 products x·r rounded (half to even) to integers in low..high, as bytes. */
// @ts-ignore: decorator
@inline function rounded_bytes(p: usize, r: v128, low: v128, high: v128): v128 {
  const a = i16x8.max_s(i16x8.min_s(fine(p, r), high), low), b = i16x8.max_s(i16x8.min_s(fine(p + 32, r), high), low);
  return i8x16.narrow_i16x8_s(a, b);
}

// @ts-ignore: decorator
@inline function is_searched(amax: f32): bool { return amax > SMALL && amax < LARGE; }

/**
 * Kp floats at x to lane `lane` of the blocks at dst (qb8w or qb4w): the f16 scales of the least squared error, then the integers nearest to x / scale. Each of the three
 * loops is so short that a processor has several blocks of it under way. Behind the floats it needs room for as many words. Returns 1 when every scale is finite.
 */
function encode_row(dst: usize, dtype: i32, lane: usize, x: usize, Kp: usize): i32 {
  const isQ8 = dtype == Q8, step: usize = isQ8 ? QB8W_BYTES : QB4W_BYTES, ints = x + (Kp << 2), mosts = ints + (Kp << 1), end = ints;
  let i = ints, m = mosts;
  for (let p = x; p < end; m += 4) {
    let most = largest(p);
    if (!isQ8 && is_searched(most)) most = -signed_largest(p, most);
    store<f32>(m, most);
    const r = f32x4.splat(FINE / most);
    for (const e = p + (BLOCK << 2); p < e; p += 32, i += 16) v128.store(i, fine(p, r));
  }
  let block = dst + (lane << 1);
  for (i = ints, m = mosts; i < mosts; i += BLOCK << 1, m += 4, block += step) {
    const most = load<f32>(m);
    store<u16>(block, <u16>f16_of(is_searched(abs(most)) ? best_scale(i, most, isQ8) : most));
  }
  const low = i16x8.splat(isQ8 ? -127 : -8), high = i16x8.splat(isQ8 ? 127 : 7), eight = i8x16.splat(8);
  let finite = 1;
  for (let p = x; p < end; p += BLOCK << 2, dst += step) {
    const d = load_f16(dst + (lane << 1)), isFinite = d - d == 0, r = f32x4.splat(isFinite && d != 0 ? 1 / d : 0);
    const a = rounded_bytes(p, r, low, high), b = rounded_bytes(p + 64, r, low, high);
    if (isQ8) put_q8(dst, lane, a, b);
    else put_q4(dst, lane, v128.or(i8x16.add(a, eight), i8x16.shl(i8x16.add(b, eight), 4)));
    finite &= i32(isFinite);
  }
  return finite;
}

/** 8 rows of x (Kp floats each) to a group of floats. Returns 1 when every value is finite in it. */
function encode_group(dst: usize, dtype: i32, x: usize, Kp: usize): i32 {
  encode_floats(dst, dtype, x, Kp);
  return within(x, GROUP * Kp, limit_of(dtype));
}

/** Words 0 to 3 of four rows at p, side by side, to o, o + 16, o + 32 and o + 48; each byte xored with flip. */
function put_four_rows(o: usize, p: usize, row: usize, flip: v128): void {
  const a = v128.load(p), b = v128.load(p + row), c = v128.load(p + 2 * row), d = v128.load(p + 3 * row);
  const ab = low32(a, b), cd = low32(c, d), ef = high32(a, b), gh = high32(c, d);
  v128.store(o, v128.xor(low64(ab, cd), flip)); v128.store(o, v128.xor(high64(ab, cd), flip), 16);
  v128.store(o, v128.xor(low64(ef, gh), flip), 32); v128.store(o, v128.xor(high64(ef, gh), flip), 48);
}

/** 8 stored rows of Q8_0 or Q4_0 to a group of the same dtype: integers and scales move as they are. Returns 1 when every scale is finite. */
function move_eight(dst: usize, dtype: i32, src: usize, blocks: usize): i32 {
  const isQ8 = dtype == Q8, stored: usize = isQ8 ? 34 : 18, row = blocks * stored, upper = row << 2, flip = i8x16.splat(isQ8 ? <i8>Q8_FLIP : 0);
  const exponent = i16x8.splat(0x7c00);
  let fine = i16x8.eq(exponent, exponent);
  for (const e = src + row; src < e; src += stored, dst += isQ8 ? QB8W_BYTES : QB4W_BYTES) {
    let d = v128.load16_lane(src, exponent, 0), p = src + upper;
    d = v128.load16_lane(src + row, d, 1); d = v128.load16_lane(src + 2 * row, d, 2); d = v128.load16_lane(src + 3 * row, d, 3);
    d = v128.load16_lane(p, d, 4); d = v128.load16_lane(p + row, d, 5); d = v128.load16_lane(p + 2 * row, d, 6); d = v128.load16_lane(p + 3 * row, d, 7);
    v128.store(dst, d);
    fine = v128.and(fine, i16x8.ne(v128.and(d, exponent), exponent));
    put_four_rows(dst + QBW_VALUES, src + 2, row, flip);
    if (isQ8) {
      put_four_rows(dst + QBW_VALUES + 64, src + 18, row, flip);
      put_four_rows(dst + QBW_VALUES + 128, p + 2, row, flip);
      put_four_rows(dst + QBW_VALUES + 192, p + 18, row, flip);
    } else put_four_rows(dst + QBW_VALUES + 64, p + 2, row, flip);
  }
  return i16x8.all_true(fine);
}

/** As `move_eight` for n ≤ 8 rows; where they are fewer, `scratch` (src may be it) takes them with rows of zeros behind. */
function move_group(dst: usize, dtype: i32, src: usize, n: usize, blocks: usize, scratch: usize): i32 {
  if (n < GROUP) {
    const row = blocks * (dtype == Q8 ? 34 : 18), end = scratch + GROUP * row;
    memory.copy(scratch, src, n * row);
    memory.fill(scratch + n * row, dtype == Q8 ? 0 : 0x88, (GROUP - n) * row);
    if (dtype == Q4) for (let p = scratch + n * row; p < end; p += 18) store<u16>(p, 0);
    src = scratch;
  }
  return move_eight(dst, dtype, src, blocks);
}

// @ts-ignore: decorator
@inline function is_finite_f16(d: u32): i32 { return i32((d & 0x7c00) != 0x7c00); }

/** A stored Q4_K block to lane `lane` of a super-block of q4kw. Returns 1 when both scales are finite. */
function move_q4_k(dst: usize, lane: usize, src: usize): i32 {
  const d = <u32>load<u16>(src), dmin = <u32>load<u16>(src, 2);
  store<u16>(dst + (lane << 1), d);
  store<u16>(dst + (lane << 1), dmin, 16);
  let block = dst + Q4KW_HEAD;
  for (let g: usize = 0; g < 8; g++, block += Q4KW_BLOCK) {
    store<u8>(block + lane, k_scale(src + 4, g));
    store<u8>(block + lane, k_minimum(src + 4, g), 8);
    put_q4(block, lane, v128.or(k_nibbles(src + 16, g, 0), i8x16.shl(k_nibbles(src + 16, g, 16), 4)));
  }
  return is_finite_f16(d) & is_finite_f16(dmin);
}

/** A stored Q6_K block to lane `lane` of a super-block of q6kw. Returns 1 when the scale is finite. */
function move_q6_k(dst: usize, lane: usize, src: usize): i32 {
  const d = <u32>load<u16>(src, 208);
  store<u16>(dst + (lane << 1), d);
  for (let g: usize = 0; g < 16; g++) {
    const block = dst + Q6KW_HEAD + (g >> 1) * Q6KW_BLOCK, half = g & 1;
    store<u8>(block + (half << 3) + lane, load<u8>(src + 192 + g));
    put_q6(block, lane, half, q6_k_values(src, g));
  }
  return is_finite_f16(d);
}

/** n ≤ 8 stored rows of Q4_K or Q6_K to a group of the same; padding rows have only zeros. Returns 1 when every scale is finite. */
function move_super(dst: usize, dtype: i32, src: usize, n: usize, K: usize): i32 {
  const stored = stored_row_bytes(dtype, SUPER), packed = SUPER / BLOCK * packed_block_bytes(dtype);
  let fine = 1;
  memory.fill(dst, 0, K / SUPER * packed);
  for (let lane: usize = 0; lane < n; lane++)
    for (let k: usize = 0, o = dst; k < K; k += SUPER, o += packed, src += stored)
      fine &= dtype == Q4_K ? move_q4_k(o, lane, src) : move_q6_k(o, lane, src);
  return fine;
}

/** 1 when none of `bytes` / 2 halves at p (bytes % 16 == 0, at any byte) has all exponent bits set. */
function finite_halves(p: usize, bytes: usize, exponent: i16): i32 {
  const m = i16x8.splat(exponent);
  let ok = i16x8.eq(m, m);
  for (const e = p + bytes; p < e; p += 16) ok = v128.and(ok, i16x8.ne(v128.and(v128.load(p), m), m));
  return i16x8.all_true(ok);
}

/** 8 stored rows of floats to a group of the same dtype: words (an f32, or a pair of halves) side by side. Returns 1 when every value is finite. */
function move_floats(dst: usize, dtype: i32, src: usize, K: usize): i32 {
  const bytes = stored_row_bytes(dtype, K);
  encode_floats(dst, F32, src, bytes >> 2);
  if (dtype == F32) return within(src, GROUP * K, Infinity);
  return finite_halves(src, GROUP * bytes, dtype == F16 ? 0x7c00 : 0x7f80);
}

/**
 * Packs stored rows into a segment; padding rows and columns become 0
 * dst: the segment, packed in dstType · row0: index in the segment of the first row
 * src: rows of K values of srcType one behind the other, at any byte
 * scratch: 8 × Kp f32 · returns 1 when every packed value is finite, 0 otherwise (the values are packed all the same)
 * needs: row0 % 8 == 0; a call that does not end on a multiple of 8 rows ends the segment; K a multiple of srcType's block
 * From a dtype to the same (Q4_K and Q6_K: nothing else is packed to them), Q5_0 → q8 and IQ4_NL → q8 the bits are moved (floats: whole groups whose K needs no
 * padding); everything else goes through f32 and is rounded once, to q8 and q4 with the scale of the least squared error.
 * cost:  0.5 to 1.5 ns a value, to q8 and q4 1.5 to 2, moves 0.1 to 0.4 ns, whole groups of Q8_0 and Q4_0 0.1
 */
export function pack_rows(
  dst: usize, dstType: i32, row0: usize, src: usize, srcType: i32, rows: usize, K: usize, scratch: usize,
): i32 {
  assert(row0 % GROUP == 0);
  const blocks = (K + BLOCK - 1) / BLOCK, Kp = blocks * BLOCK, group = blocks * packed_block_bytes(dstType), stored = stored_row_bytes(srcType, K);
  let fine = 1;
  dst += row0 / GROUP * group;
  for (; rows > 0; dst += group, src += GROUP * stored) {
    const n = min<usize>(rows, GROUP);
    if (srcType == dstType && dstType > Q4) fine &= move_super(dst, dstType, src, n, K);
    else if (srcType == dstType && dstType >= Q8) fine &= move_group(dst, dstType, src, n, blocks, scratch);
    else if (srcType == dstType && n == GROUP && K == Kp) fine &= move_floats(dst, dstType, src, K);
    else if (dstType == Q8 && fits_q8(srcType)) {
      widen_to_q8(scratch, src, srcType, n * blocks);
      fine &= move_group(dst, dstType, scratch, n, blocks, scratch);
    }
    else if (dstType >= Q8) {
      assert(dstType <= Q4); // a row at a time: it stays in the first cache
      for (let lane: usize = 0; lane < GROUP; lane++) {
        if (lane < n) decode_rows(scratch, Kp, src + lane * stored, srcType, 1, K);
        else memory.fill(scratch, 0, Kp << 2);
        fine &= encode_row(dst, dstType, lane, scratch, Kp);
      }
    }
    else {
      decode_rows(scratch, Kp, src, srcType, n, K);
      memory.fill(scratch + (n * Kp << 2), 0, ((GROUP - n) * Kp) << 2);
      fine &= encode_group(dst, dstType, scratch, Kp);
    }
    rows -= n;
  }
  return fine;
}
