// The only place that knows which SIMD instructions the build may use: vector constants, the integer dot in both builds, f16 loads.

/**
 * Vector constants live in a data segment and are loaded where they are used (or once per kernel call): written as literals, V8 builds
 * them again at every use (three instructions each) instead of keeping a register.
 */
export const CONST: usize = memory.data<u32>([
  0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f,
  0x8fffe000, 0x8fffe000, 0x8fffe000, 0x8fffe000,
  0x77800000, 0x77800000, 0x77800000, 0x77800000,
  0x000f000f, 0x000f000f, 0x000f000f, 0x000f000f,
  0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000,
  0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff,
  0x4b400000, 0x4b400000, 0x4b400000, 0x4b400000,
  0x00010001, 0x00010001, 0x00010001, 0x00010001,
  0x00100010, 0x00100010, 0x00100010, 0x00100010,
  0x00f000f0, 0x00f000f0, 0x00f000f0, 0x00f000f0,
  0x0f000f00, 0x0f000f00, 0x0f000f00, 0x0f000f00,
  0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f3f3f,
  0xc0c0c0c0, 0xc0c0c0c0, 0xc0c0c0c0, 0xc0c0c0c0,
], 16);
export const CONST_NIBBLE: usize = 0;
export const CONST_F16_MASK: usize = 16; // sign, exponent and mantissa of an f16 shifted left by 13
export const CONST_F16_SCALE: usize = 32; // 2^112, moves the f16 exponent bias to f32's
export const CONST_NIBBLE16: usize = 48;
export const CONST_HIGH: usize = 64; // the upper bf16 of a word
export const CONST_ABS: usize = 80;
export const CONST_ROUND: usize = 96; // 1.5·2^23: adding it rounds to an integer (half to even) that then stands in the low bits

export const CONST_ONE16: usize = 112;
export const CONST_SIXTEEN16: usize = 128;
export const CONST_NIBBLE16_4: usize = 144; // the second and the third nibble of 16 bits, in place
export const CONST_NIBBLE16_8: usize = 160;
export const CONST_SIX: usize = 176; // the low six bits of bytes, and the other two
export const CONST_TWO: usize = 192;

/** Whether this is a build with relaxed SIMD: a module that a caller hands over cannot be told by its name. */
export const IS_RELAXED: i32 = ASC_FEATURE_RELAXED_SIMD;

/**
 * How this engine reads the right operand of the relaxed integer dots when its top bit is set:
 * 1 unsigned and not saturated (x86 with VNNI), -1 signed (Arm with dot product), 0 neither, but unsigned in the dot that sums no more than pairs
 * (other x86), 2 nothing of these: 7 bits are exact and no more, and the host takes the plain build.
 * An engine answers the same for its whole life, so the answer may choose a weight layout. The plain build answers 0.
 */
export function dot_operand_kind(): i32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return 0;
  const full = v128.load8_splat(CONST + CONST_NIBBLE); // a run-time value: keep the probe out of the constant folder
  const ff = i8x16.add(i8x16.shl(full, 4), full); // 0xff
  const r = i32x4.extract_lane(i32x4.relaxed_dot_i8x16_i7x16_add_s(i8x16.sub(ff, i8x16.splat(-128)), ff, i32x4.splat(0)), 0);
  if (r == 4 * 127 * 255) return 1; // 127 · 0xff, four times
  if (r == -4 * 127) return -1;
  const pair = i16x8.extract_lane_s(i16x8.relaxed_dot_i8x16_i7x16_s(i8x16.sub(full, i8x16.splat(23)), ff), 0);
  return pair == -2 * 8 * 255 ? 0 : 2; // -8 · 0xff, twice
}

/** acc + four products of i8 a lane; exact when w fits 7 bits or holds what dot_operand_kind allows. Relaxed build only. */
// @ts-ignore: decorator
@inline export function dot_i8(x: v128, w: v128, acc: v128): v128 {
  return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, acc);
}

/** acc + two products of i8 a lane of 16 bits; exact when the sum fits the lane and w fits 7 bits (dot_operand_kind 0: 8). Relaxed build only. */
// @ts-ignore: decorator
@inline export function pair_i8(x: v128, w: v128, acc: v128): v128 {
  return i16x8.add(acc, i16x8.relaxed_dot_i8x16_i7x16_s(x, w));
}

/** acc + the dots of both nibbles of w, low and high. */
// @ts-ignore: decorator
@inline export function dot_nibbles(pairs: bool, low: v128, high: v128, w: v128, m15: v128, acc: v128): v128 {
  const l = v128.and(w, m15), h = v128.and(i16x8.shr_u(w, 4), m15);
  return pairs ? pair_i8(high, h, pair_i8(low, l, acc)) : dot_i8(high, h, dot_i8(low, l, acc));
}

/** acc + two products of i16 a lane. */
// @ts-ignore: decorator
@inline export function dot_i16(x: v128, w: v128, acc: v128): v128 {
  return i32x4.add(acc, i32x4.dot_i16x8_s(x, w));
}

/** The one f32 step of a block in every quantized tile: f + float(acc) · (s · t). */
// @ts-ignore: decorator
@inline export function scaled(acc: v128, f: v128, s: v128, t: v128): v128 {
  return f32x4.add(f, f32x4.mul(f32x4.convert_i32x4_s(acc), f32x4.mul(s, t)));
}

/** Each of the first four, or last four, i16 twice: what dot_i16x8_s multiplies pairs of lanes by. */
// @ts-ignore: decorator
@inline export function twice_low(v: v128): v128 { return i8x16.shuffle(v, v, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23); }
// @ts-ignore: decorator
@inline export function twice_high(v: v128): v128 { return i8x16.shuffle(v, v, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31); }

/** Integer scales of four rows, from the i16 of eight, as `scaled_sums` takes them. pairs: for sums of 16 bits, two a row. */
// @ts-ignore: decorator
@inline export function low_scales(pairs: bool, s: v128): v128 { return pairs ? twice_low(s) : i32x4.extend_low_i16x8_s(s); }
// @ts-ignore: decorator
@inline export function high_scales(pairs: bool, s: v128): v128 { return pairs ? twice_high(s) : i32x4.extend_high_i16x8_s(s); }
/** A block's integer sums times such scales. */
// @ts-ignore: decorator
@inline export function scaled_sums(pairs: bool, acc: v128, s: v128): v128 { return pairs ? i32x4.dot_i16x8_s(acc, s) : i32x4.mul(acc, s); }

/** Four f16 at p as f32x4; exact for every finite value, subnormals included (infinity and NaN become finite: decode_rows reads those right). */
// @ts-ignore: decorator
@inline export function load_f16x4(p: usize, mask: v128, scale: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shl(v128.load16x4_s(p), 13), mask), scale);
}
