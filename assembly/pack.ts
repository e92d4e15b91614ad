// From rows as a file stores them to f32 (decode_rows) and to the packed layouts that matmul reads (pack_rows). README.md draws both sides.
import { decode_blocks, fits_q8, widen_to_q8 } from "./dequantize";
import { BF16, BLOCK, F16, F32, GROUP, packed_block_bytes, Q4, Q8, QB4W_BYTES, QB8W_BYTES, stored_row_bytes } from "./lib/blocks";
import { put_q4, put_q8, store_nibbles, store_scaled } from "./lib/layout";
import { bf16_bits, f16_bits, f32_of_f16, load_f16 } from "./lib/math";
import { CONST, CONST_ABS, CONST_ROUND } from "./lib/simd";
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

/** From what size on a value becomes infinite in a dtype (for q8 and q4: makes the block's f16 scale infinite). */
function limit_of(dtype: i32): f32 {
  switch (dtype) {
    case F16: return 65520;
    case BF16: return reinterpret<f32>(0x7f7f8000);
    case Q8: return 65520 * 127;
    case Q4: return 65520 * 8;
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

/** Four values at p divided by d in f64, plus `add` with the quotient's sign (or as it is), truncated to integers; NaN gives 0. */
// @ts-ignore: decorator
@inline function quotients(p: usize, d: v128, add: v128, sign: v128): v128 {
  const x = v128.load(p), a = f64x2.div(f64x2.promote_low_f32x4(x), d), b = f64x2.div(f64x2.promote_low_f32x4(high64(x, x)), d);
  const i = i32x4.trunc_sat_f64x2_s_zero(f64x2.add(a, v128.or(v128.and(a, sign), add)));
  return low64(i, i32x4.trunc_sat_f64x2_s_zero(f64x2.add(b, v128.or(v128.and(b, sign), add))));
}

/** 16 quotients as bytes. */
// @ts-ignore: decorator
@inline function quotient_bytes(p: usize, d: v128, add: v128, sign: v128): v128 {
  const a = i16x8.narrow_i32x4_s(quotients(p, d, add, sign), quotients(p + 16, d, add, sign));
  return i8x16.narrow_i16x8_s(a, i16x8.narrow_i32x4_s(quotients(p + 32, d, add, sign), quotients(p + 48, d, add, sign)));
}

/** Products with r of sizes up to 127 are off by 2^-16 at most; what lies this near to a tie is left to the division. */
const OFF_TIE: f32 = 0.49993896484375; // 0.5 - 2^-14
/** Sizes whose quotients the product may stand for: 127 / size is a normal number. */
const SMALL: f32 = 7.888609052210118e-31; // 2^-100
const LARGE: f32 = 1.2676506002282294e30; // 2^100

/** 1 when each of 32 products x·r is nearer to its integer than a tie is; 0 for NaN. */
function off_ties(p: usize, r: v128): i32 {
  const magic = v128.load(CONST + CONST_ROUND), abs = v128.load(CONST + CONST_ABS), limit = f32x4.splat(OFF_TIE);
  let ok = f32x4.eq(limit, limit);
  for (const e = p + 128; p < e; p += 16) {
    const t = f32x4.mul(v128.load(p), r);
    ok = v128.and(ok, f32x4.lt(v128.and(f32x4.sub(t, f32x4.sub(f32x4.add(t, magic), magic)), abs), limit));
  }
  return i32x4.all_true(ok);
}

/** 16 products x·r, rounded to bytes. */
// @ts-ignore: decorator
@inline function product_bytes(p: usize, r: v128): v128 {
  const magic = v128.load(CONST + CONST_ROUND);
  return i8x16.narrow_i16x8_s(
    rounded(v128.load(p), v128.load(p, 16), r, magic), rounded(v128.load(p, 32), v128.load(p, 48), r, magic));
}

/** 32 floats to lane `lane` of a qb8w block, as Q8_0: d = max|x| / 127, q = round(x / d), halves away from zero. */
function encode_q8(block: usize, lane: usize, p: usize): void {
  const amax = largest(p), d = <f64>amax / 127, r = f32x4.splat(127 / amax);
  store<u16>(block + (lane << 1), <u16>f16_of(<f32>d));
  if (amax > SMALL && amax < LARGE && off_ties(p, r)) return put_q8(block, lane, product_bytes(p, r), product_bytes(p + 64, r));
  const dv = f64x2.splat(d), add = f64x2.splat(0.5), sign = i64x2.splat(0x8000000000000000);
  put_q8(block, lane, quotient_bytes(p, dv, add, sign), quotient_bytes(p + 64, dv, add, sign));
}

/** The first of 32 values whose size is amax, with its sign; 0 when none is (NaN). */
function signed_largest(p: usize, amax: f32): f32 {
  const abs = v128.load(CONST + CONST_ABS), m = f32x4.splat(amax);
  for (const e = p + 128; p < e; p += 16) {
    const mask = i32x4.bitmask(f32x4.eq(v128.and(v128.load(p), abs), m));
    if (mask) return load<f32>(p + (ctz(mask) << 2));
  }
  return amax;
}

/** 32 floats to lane `lane` of a qb4w block, as Q4_0: d = (value of largest size) / -8, q = min(15, trunc(x / d + 8.5)). */
function encode_q4(block: usize, lane: usize, p: usize): void {
  const amax = largest(p), most = signed_largest(p, amax), d = <f64>most / -8, r = f32x4.splat(-8 / most), top = i8x16.splat(15);
  store<u16>(block + (lane << 1), <u16>f16_of(<f32>d));
  if (amax > SMALL && amax < LARGE && off_ties(p, r)) {
    const eight = i8x16.splat(8), a = i8x16.min_s(i8x16.add(product_bytes(p, r), eight), top);
    return put_q4(block, lane, v128.or(a, i8x16.shl(i8x16.min_s(i8x16.add(product_bytes(p + 64, r), eight), top), 4)));
  }
  const dv = f64x2.splat(d), add = f64x2.splat(8.5), none = i64x2.splat(0);
  const low = i8x16.min_s(quotient_bytes(p, dv, add, none), top), high = i8x16.min_s(quotient_bytes(p + 64, dv, add, none), top);
  put_q4(block, lane, d == 0 ? i8x16.splat(<i8>0x88) : v128.or(low, i8x16.shl(high, 4)));
}

/** 8 rows of x (Kp floats each) to a group of any packed dtype. */
function encode_group(dst: usize, dtype: i32, x: usize, Kp: usize): void {
  if (dtype < Q8) return encode_floats(dst, dtype, x, Kp);
  for (let lane: usize = 0; lane < GROUP; lane++) {
    for (const e = x + (Kp << 2); x < e; x += BLOCK << 2, dst += dtype == Q8 ? QB8W_BYTES : QB4W_BYTES) {
      if (dtype == Q8) encode_q8(dst, lane, x); else encode_q4(dst, lane, x);
    }
    dst -= Kp / BLOCK * packed_block_bytes(dtype);
  }
}

/** n ≤ 8 stored rows of Q8_0 or Q4_0 to a group of the same dtype: integers and scales move as they are. Returns 1 when every scale is finite. */
function move_group(dst: usize, dtype: i32, src: usize, n: usize, blocks: usize): i32 {
  let fine = 1;
  for (let lane: usize = 0; lane < GROUP; lane++) {
    let o = dst;
    for (let b: usize = 0; b < blocks; b++) {
      const d = lane < n ? <u32>load<u16>(src) : 0, zero = i8x16.splat(0);
      store<u16>(o + (lane << 1), <u16>d);
      if ((d & 0x7c00) == 0x7c00) fine = 0;
      if (dtype == Q8) {
        if (lane < n) put_q8(o, lane, v128.load(src, 2), v128.load(src, 18)); else put_q8(o, lane, zero, zero);
        o += QB8W_BYTES; src += 34;
      } else {
        put_q4(o, lane, lane < n ? v128.load(src, 2) : i8x16.splat(<i8>0x88));
        o += QB4W_BYTES; src += 18;
      }
    }
  }
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
 * From a dtype to the same, Q5_0 → q8 and IQ4_NL → q8 the bits are moved (floats: whole groups whose K needs no padding); everything else goes through f32
 * and is rounded once, q8 and q4 as Q8_0 and Q4_0 are made.
 * cost:  0.5 to 1.5 ns a value, moves 0.1 to 0.4 ns
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
    if (srcType == dstType && dstType >= Q8) fine &= move_group(dst, dstType, src, n, blocks);
    else if (srcType == dstType && n == GROUP && K == Kp) fine &= move_floats(dst, dstType, src, K);
    else if (dstType == Q8 && fits_q8(srcType)) {
      widen_to_q8(scratch, src, srcType, n * blocks);
      fine &= move_group(dst, dstType, scratch, n, blocks);
    }
    else {
      decode_rows(scratch, Kp, src, srcType, n, K);
      memory.fill(scratch + (n * Kp << 2), 0, ((GROUP - n) * Kp) << 2);
      fine &= within(scratch, GROUP * Kp, limit_of(dstType));
      encode_group(dst, dstType, scratch, Kp);
    }
    rows -= n;
  }
  return fine;
}
