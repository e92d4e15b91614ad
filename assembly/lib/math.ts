// Vector mathematics from IEEE operations only (no fused multiply-add), so that every engine and both builds give the same bits.
import { CONST, CONST_F16_MASK, CONST_F16_SCALE } from "./simd";

/** What exp_f32x4 adds and multiplies; silu has the same arithmetic with its own order of registers. */
export const EXP: usize = memory.data<f32>([
  1.4426950408889634, 1.4426950408889634, 1.4426950408889634, 1.4426950408889634, // log2 e
  12582912, 12582912, 12582912, 12582912, // 1.5·2^23
  0.693359375, 0.693359375, 0.693359375, 0.693359375, // ln 2, high part
  -2.12194440e-4, -2.12194440e-4, -2.12194440e-4, -2.12194440e-4, // ln 2, low part
  1.9875691500e-4, 1.9875691500e-4, 1.9875691500e-4, 1.9875691500e-4,
  1.3981999507e-3, 1.3981999507e-3, 1.3981999507e-3, 1.3981999507e-3,
  8.3334519073e-3, 8.3334519073e-3, 8.3334519073e-3, 8.3334519073e-3,
  4.1665795894e-2, 4.1665795894e-2, 4.1665795894e-2, 4.1665795894e-2,
  1.6666665459e-1, 1.6666665459e-1, 1.6666665459e-1, 1.6666665459e-1,
  0.5, 0.5, 0.5, 0.5,
  1, 1, 1, 1,
  -87.33654, -87.33654, -87.33654, -87.33654, // below it e^x is not a normal number
  87.33654, 87.33654, 87.33654, 87.33654, // for e^-x
  -88, -88, -88, -88,
], 16);

/**
 * e^x for x ≤ 88; 0 below -87.33654 and for NaN. Error below 1 ulp of the exact value: 0.92 at most among a million floats (tests/kernels/sample.test.ts).
 * Range reduction by ln 2 in two parts, polynomial of degree 6 (the coefficients of Cephes' expf);
 * adding 1.5·2^23 rounds x·log2 e to an integer whose low bits then go straight to the exponent.
 */
// @ts-ignore: decorator
@inline export function exp_f32x4(x: v128): v128 {
  const t = f32x4.add(f32x4.mul(x, v128.load(EXP)), v128.load(EXP + 16));
  const n = f32x4.sub(t, v128.load(EXP + 16));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, v128.load(EXP + 32))), f32x4.mul(n, v128.load(EXP + 48)));
  let p = f32x4.add(f32x4.mul(r, v128.load(EXP + 64)), v128.load(EXP + 80));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP + 96));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP + 112));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP + 128));
  p = f32x4.add(f32x4.mul(p, r), v128.load(EXP + 144));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), v128.load(EXP + 160));
  return v128.and(i32x4.add(p, i32x4.shl(t, 23)), f32x4.ge(x, v128.load(EXP + 176)));
}

/** Sum of four lanes, in one fixed order. */
// @ts-ignore: decorator
@inline export function sum_f32x4(v: v128): f32 {
  const h = f32x4.add(v, i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return f32x4.extract_lane(h, 0) + f32x4.extract_lane(h, 1);
}

/** Four f16 (sign-extended to i32 lanes) to f32: exact, infinities and NaN included. */
// @ts-ignore: decorator
@inline export function f32_of_f16(h: v128): v128 {
  const t = v128.and(i32x4.shl(h, 13), v128.load(CONST + CONST_F16_MASK));
  const special = i32x4.ge_s(v128.and(t, i32x4.splat(0x7fffffff)), i32x4.splat(0x0f800000)); // exponent 31
  return v128.or(f32x4.mul(t, v128.load(CONST + CONST_F16_SCALE)), v128.and(special, i32x4.splat(0x7f800000)));
}

/** The f16 at p as f32: exact, infinities and NaN included. p at any byte. */
export function load_f16(p: usize): f32 {
  return f32x4.extract_lane(f32_of_f16(i32x4.splat(<i32>load<i16>(p))), 0);
}

/** Four f32 to four f16 (round to nearest even, overflow to infinity, NaN stays NaN), in the low half of each i32 lane. */
// @ts-ignore: decorator
@inline export function f16_bits(v: v128): v128 {
  const sign = v128.and(v, i32x4.splat(0x80000000)), a = v128.xor(v, sign);
  // subnormal results: adding 0.5 puts the rounded mantissa into the low bits
  const small = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, i32x4.splat(0xc8000fff)), odd), 13);
  const big = v128.or(i32x4.splat(0x7c00), v128.and(i32x4.gt_s(a, i32x4.splat(0x7f800000)), i32x4.splat(0x200)));
  let r = v128.bitselect(small, normal, i32x4.lt_s(a, i32x4.splat(0x38800000)));
  r = v128.bitselect(r, big, i32x4.lt_s(a, i32x4.splat(0x477ff000)));
  return v128.or(r, i32x4.shr_u(sign, 16));
}

/** Four f32 to four bf16 (round to nearest even, NaN stays NaN), in the low half of each i32 lane. */
// @ts-ignore: decorator
@inline export function bf16_bits(v: v128): v128 {
  const odd = v128.and(i32x4.shr_u(v, 16), i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(i32x4.add(v, i32x4.splat(0x7fff)), odd), 16);
  return v128.bitselect(rounded, v128.or(i32x4.shr_u(v, 16), i32x4.splat(0x40)), f32x4.eq(v, v));
}
