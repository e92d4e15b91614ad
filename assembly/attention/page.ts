// Keys and values in a page of the cache: where they lie, and how a row gets there. Both stand in panels of 16 columns, row after row: K in two panels of 16 keys with hd rows,
// V in hd / 16 panels with a row a key. So q·Kᵀ and p·V are the same product. A layer's part of a page is K of all kv heads, then V of all: a step reads each in one
// linear stream. With K and V of a head side by side, a softmax stood between every two tiles of 4 KB, and the processor did not fetch ahead across it.
import { f16_bits } from "../lib/math";
import { PAGE } from "../lib/rows";
import { CONST, CONST_ABS, CONST_ROUND } from "../lib/simd";

/** Element types of the cache. */
export const F32KV: i32 = 0;
export const F16KV: i32 = 1;
export const Q8KV: i32 = 2;

/** A head whose largest |x| is below 2^-100 counts as zero: 127 / |x| must stay finite. */
const TINY: f32 = 7.888609052210118e-31;
const EVEN: usize = memory.data<u32>([0x00ff00ff, 0x00ff00ff, 0x00ff00ff, 0x00ff00ff], 16);

/** q8: bytes of a head's scales, 32 f32. Those of all heads stand in front of K, and of V. */
const SCALE_BYTES: usize = PAGE * 4;

/** Bytes of the values of K, or of V, of one kv head in a page. */
// @ts-ignore: decorator
@inline export function tile_bytes(hd: usize, kv: i32): usize {
  return kv == F32KV ? PAGE * hd << 2 : kv == F16KV ? PAGE * hd << 1 : PAGE * hd;
}
/** Bytes of all scales in front of K, and of V. */
// @ts-ignore: decorator
@inline export function scales_bytes(G: usize, kv: i32): usize { return kv == Q8KV ? G * SCALE_BYTES : 0; }
/** Bytes of K, or of V, of all G kv heads. */
// @ts-ignore: decorator
@inline export function half_bytes(G: usize, hd: usize, kv: i32): usize { return scales_bytes(G, kv) + G * tile_bytes(hd, kv); }
/** Where the scales of kv head g stand behind the start of K, or of V. */
// @ts-ignore: decorator
@inline export function scales_at(g: usize): usize { return g * SCALE_BYTES; }

/** Bits of the largest |x| of n values (n % 16 == 0), as an integer maximum: NaN is larger than everything and so is not lost. */
export function largest_of(x: usize, n: usize): f32 {
  const abs = v128.load(CONST + CONST_ABS);
  let a = i32x4.splat(0), b = a;
  for (const e = x + (n << 2); x < e; x += 32) {
    a = i32x4.max_s(a, v128.and(v128.load(x), abs));
    b = i32x4.max_s(b, v128.and(v128.load(x, 16), abs));
  }
  a = i32x4.max_s(a, b);
  a = i32x4.max_s(a, i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return reinterpret<f32>(max<i32>(i32x4.extract_lane(a, 0), i32x4.extract_lane(a, 1)));
}

/** Scale of integers up to `top` for values up to amax; NaN for NaN and for infinity, whose integers differ between machines, and through it the result. */
// @ts-ignore: decorator
@inline export function scale_for(amax: f32, top: f32): f32 { return amax < TINY ? 0 : amax / top + (amax - amax); }
// @ts-ignore: decorator
@inline export function factor_for(amax: f32, top: f32): f32 { return amax >= TINY ? top / amax : 0; }

/** Eight values times r, rounded (half to even) to i16. */
// @ts-ignore: decorator
@inline export function rounded8(x: usize, r: v128, magic: v128): v128 {
  return i16x8.narrow_i32x4_s(
    i32x4.sub(f32x4.add(f32x4.mul(v128.load(x), r), magic), magic),
    i32x4.sub(f32x4.add(f32x4.mul(v128.load(x, 16), r), magic), magic));
}

/** k (hd f32) as column j of a head's K. */
export function store_key(K: usize, scales: usize, j: usize, k: usize, hd: usize, kv: i32): void {
  if (kv == F32KV) {
    let o = K + (j >> 4) * (hd << 6) + ((j & 15) << 2);
    for (const e = k + (hd << 2); k < e; k += 16, o += 256) {
      const v = v128.load(k);
      v128.store32_lane(o, v, 0);
      v128.store32_lane(o, v, 1, 64);
      v128.store32_lane(o, v, 2, 128);
      v128.store32_lane(o, v, 3, 192);
    }
  } else if (kv == F16KV) { // a word holds columns i and i + 4 of eight: it comes apart by shifts (columns() in panel.ts)
    let o = K + (j >> 4) * (hd << 5) + ((j & 8) << 1) + ((j & 3) << 2) + ((j & 4) >> 1);
    for (const e = k + (hd << 2); k < e; k += 16, o += 128) {
      const v = f16_bits(v128.load(k));
      v128.store16_lane(o, v, 0);
      v128.store16_lane(o, v, 2, 32);
      v128.store16_lane(o, v, 4, 64);
      v128.store16_lane(o, v, 6, 96);
    }
  } else { // a key's values 2i, 2i+1 side by side
    const amax = largest_of(k, hd), r = f32x4.splat(factor_for(amax, 127)), magic = v128.load(CONST + CONST_ROUND);
    let o = K + (j >> 4) * (hd << 4) + ((j & 15) << 1);
    for (const e = k + (hd << 2); k < e; k += 32, o += 128) {
      const i = rounded8(k, r, magic), v = i8x16.narrow_i16x8_s(i, i);
      v128.store16_lane(o, v, 0);
      v128.store16_lane(o, v, 1, 32);
      v128.store16_lane(o, v, 2, 64);
      v128.store16_lane(o, v, 3, 96);
    }
    store<f32>(scales + (j << 2), scale_for(amax, 127));
  }
}

/** v (hd f32) as row j of a head's V. */
export function store_value(V: usize, scales: usize, j: usize, v: usize, hd: usize, kv: i32): void {
  if (kv == F32KV) {
    let o = V + (j << 6);
    for (const e = v + (hd << 2); v < e; v += 64, o += PAGE << 6) {
      v128.store(o, v128.load(v));
      v128.store(o, v128.load(v, 16), 16);
      v128.store(o, v128.load(v, 32), 32);
      v128.store(o, v128.load(v, 48), 48);
    }
  } else if (kv == F16KV) {
    let o = V + (j << 5);
    for (const e = v + (hd << 2); v < e; v += 64, o += PAGE << 5) {
      v128.store(o, v128.or(f16_bits(v128.load(v)), i32x4.shl(f16_bits(v128.load(v, 16)), 16)));
      v128.store(o, v128.or(f16_bits(v128.load(v, 32)), i32x4.shl(f16_bits(v128.load(v, 48)), 16)), 16);
    }
  } else { // a column's values of keys 2i, 2i+1 side by side
    const amax = largest_of(v, hd), r = f32x4.splat(factor_for(amax, 127)), magic = v128.load(CONST + CONST_ROUND);
    const odd = <i32>(j & 1) << 3, mine = i16x8.shl(v128.load(EVEN), odd);
    let o = V + (j >> 1 << 5);
    for (const e = v + (hd << 2); v < e; v += 64, o += PAGE << 4) {
      v128.store(o, v128.bitselect(i16x8.shl(rounded8(v, r, magic), odd), v128.load(o), mine));
      v128.store(o, v128.bitselect(i16x8.shl(rounded8(v + 32, r, magic), odd), v128.load(o, 16), mine), 16);
    }
    store<f32>(scales + (j << 2), scale_for(amax, 127));
  }
}
