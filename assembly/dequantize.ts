// The block formats of GGUF beside Q8_0 and Q4_0: to f32, bit for bit as ggml does it, or, where int8 holds them exactly, to Q8_0. README.md draws the blocks.
// Every value is (scale · group scale) · q + minimum, multiplied and added in this order in f32, without a fused multiply-add.
import { BLOCK, IQ4_NL, Q2_K, Q3_K, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, SUPER } from "./lib/blocks";
import { store_scaled } from "./lib/layout";
import { load_f16 } from "./lib/math";

/** The values that the 16 indices of IQ4_NL stand for. */
// @ts-ignore: decorator
@inline function iq4_values(indices: v128): v128 {
  return i8x16.swizzle(i8x16(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), indices);
}

// @ts-ignore: decorator
@inline function low_nibbles(v: v128): v128 { return v128.and(v, i8x16.splat(15)); }
// @ts-ignore: decorator
@inline function high_nibbles(v: v128): v128 { return i8x16.shr_u(v, 4); }

/** out (16) f32 = the bytes of q (0..127) times d, plus m. */
// @ts-ignore: decorator
@inline export function store_affine(out: usize, q: v128, d: v128, m: v128): void {
  const a = i16x8.extend_low_i8x16_u(q), b = i16x8.extend_high_i8x16_u(q);
  v128.store(out, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(a)), d), m));
  v128.store(out, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(a)), d), m), 16);
  v128.store(out, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(b)), d), m), 32);
  v128.store(out, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(b)), d), m), 48);
}

/** 16 where bit i of `bits` is set, else 0, for i = 0..15. */
// @ts-ignore: decorator
@inline function fifth_bits(bits: u32): v128 {
  const v = i16x8.splat(<i16>bits), place = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  const spread = i8x16.shuffle(v, v, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return v128.and(i8x16.eq(v128.and(spread, place), place), i8x16.splat(16));
}

/** f16 d, f16 m, 16 bytes of nibbles: d·q + m. */
function decode_q4_1(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= BLOCK, out += 128, src += 20) {
    const d = f32x4.splat(load_f16(src)), m = f32x4.splat(load_f16(src + 2)), nibbles = v128.load(src, 4);
    store_affine(out, low_nibbles(nibbles), d, m);
    store_affine(out + 64, high_nibbles(nibbles), d, m);
  }
}

/** The 16 values of half 0 or 1 of a Q5_0 block (f16 d, 32 fifth bits, 16 bytes of nibbles) as signed bytes: q - 16. */
// @ts-ignore: decorator
@inline function q5_0_values(src: usize, half: u32): v128 {
  const nibbles = v128.load(src, 6), four = half ? high_nibbles(nibbles) : low_nibbles(nibbles);
  return i8x16.sub(v128.or(four, fifth_bits(load<u32>(src, 2) >> (half << 4))), i8x16.splat(16));
}

function decode_q5_0(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= BLOCK, out += 128, src += 22) {
    const d = f32x4.splat(load_f16(src));
    store_scaled(out, q5_0_values(src, 0), d);
    store_scaled(out + 64, q5_0_values(src, 1), d);
  }
}

/** f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles: d·q + m. */
function decode_q5_1(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= BLOCK, out += 128, src += 24) {
    const d = f32x4.splat(load_f16(src)), m = f32x4.splat(load_f16(src + 2)), bits = load<u32>(src, 4), nibbles = v128.load(src, 8);
    store_affine(out, v128.or(low_nibbles(nibbles), fifth_bits(bits)), d, m);
    store_affine(out + 64, v128.or(high_nibbles(nibbles), fifth_bits(bits >> 16)), d, m);
  }
}

/** f16 d, 16 bytes of indices into the 16 values. */
function decode_iq4_nl(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= BLOCK, out += 128, src += 18) {
    const d = f32x4.splat(load_f16(src)), indices = v128.load(src, 2);
    store_scaled(out, iq4_values(low_nibbles(indices)), d);
    store_scaled(out + 64, iq4_values(high_nibbles(indices)), d);
  }
}

/** 16 bytes of a scale and a minimum for 16 values each, 64 bytes of two-bit values, f16 d, f16 dmin: (d·scale)·q - dmin·minimum. */
function decode_q2_k(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= SUPER, src += 84) {
    const d = load_f16(src + 80), dmin = load_f16(src + 82);
    for (let group: usize = 0; group < 16; group++, out += 64) {
      const s = <u32>load<u8>(src + group), bytes = v128.load(src + 16 + ((group >> 3) << 5) + ((group & 1) << 4));
      const q = v128.and(i8x16.shr_u(bytes, <i32>(group & 6)), i8x16.splat(3));
      store_affine(out, q, f32x4.splat(d * <f32>(s & 15)), f32x4.splat(-(dmin * <f32>(s >> 4))));
    }
  }
}

/** Six-bit scale `group` (0..15) of a Q3_K block: four low bits in bytes 96..103, two high ones in bytes 104..107. */
// @ts-ignore: decorator
@inline function q3_k_scale(src: usize, group: usize): i32 {
  const low = <u32>load<u8>(src + 96 + (group & 7)) >> <u32>((group >> 3) << 2) & 15;
  const high = <u32>load<u8>(src + 104 + (group & 3)) >> <u32>((group >> 2) << 1) & 3;
  return <i32>(low | high << 4);
}

/** 32 bytes of third bits, 64 bytes of two-bit values, 16 six-bit scales, f16 d: (d·(scale - 32))·(q - 4). */
function decode_q3_k(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= SUPER, src += 110) {
    const d = load_f16(src + 108);
    for (let group: usize = 0; group < 16; group++, out += 64) {
      const at = (group & 1) << 4, two = v128.and(i8x16.shr_u(v128.load(src + 32 + ((group >> 3) << 5) + at), <i32>(group & 6)), i8x16.splat(3));
      const third = v128.and(i8x16.shl(i8x16.shr_u(v128.load(src + at), <i32>(group >> 1)), 2), i8x16.splat(4));
      store_scaled(out, i8x16.sub(v128.or(two, third), i8x16.splat(4)), f32x4.splat(d * <f32>(q3_k_scale(src, group) - 32)));
    }
  }
}

/** Six-bit scale of group 0..7, from the 12 bytes of a Q4_K or Q5_K block. */
// @ts-ignore: decorator
@inline export function k_scale(p: usize, group: usize): u32 {
  if (group < 4) return load<u8>(p + group) & 63;
  return load<u8>(p + group + 4) & 15 | load<u8>(p + group - 4) >> 6 << 4;
}

/** Six-bit minimum of group 0..7. */
// @ts-ignore: decorator
@inline export function k_minimum(p: usize, group: usize): u32 {
  if (group < 4) return load<u8>(p + group + 4) & 63;
  return load<u8>(p + group + 4) >> 4 | load<u8>(p + group) >> 6 << 4;
}

/** Nibbles of 16 values at `half` 0 or 16 of group 0..7: two groups share 32 bytes. */
// @ts-ignore: decorator
@inline export function k_nibbles(p: usize, group: usize, half: usize): v128 {
  return low_nibbles(i8x16.shr_u(v128.load(p + ((group >> 1) << 5) + half), <i32>((group & 1) << 2)));
}

/** f16 d, f16 dmin, 12 bytes of scales and minima for 8 groups of 32, 128 bytes of nibbles: (d·scale)·q - dmin·minimum. */
function decode_q4_k(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= SUPER, src += 144) {
    const d = load_f16(src), dmin = load_f16(src + 2);
    for (let group: usize = 0; group < 8; group++, out += 128) {
      const s = f32x4.splat(d * <f32>k_scale(src + 4, group)), m = f32x4.splat(-(dmin * <f32>k_minimum(src + 4, group)));
      store_affine(out, k_nibbles(src + 16, group, 0), s, m);
      store_affine(out + 64, k_nibbles(src + 16, group, 16), s, m);
    }
  }
}

/** As Q4_K, with 32 bytes of fifth bits (bit `group` of byte i for value i) before the nibbles. */
function decode_q5_k(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= SUPER, src += 176) {
    const d = load_f16(src), dmin = load_f16(src + 2);
    for (let group: usize = 0; group < 8; group++, out += 128) {
      const s = f32x4.splat(d * <f32>k_scale(src + 4, group)), m = f32x4.splat(-(dmin * <f32>k_minimum(src + 4, group)));
      for (let half: usize = 0; half < 32; half += 16) {
        const fifth = v128.and(i8x16.shl(i8x16.shr_u(v128.load(src + 16 + half), <i32>group), 4), i8x16.splat(16));
        store_affine(out + (half << 2), v128.or(k_nibbles(src + 48, group, half), fifth), s, m);
      }
    }
  }
}

/** The 16 values of group 0..15 of a Q6_K block: q, 0..63. */
export function q6_k_values(src: usize, group: usize): v128 {
  // of each half of 128 values: groups 0, 1 and 4, 5 have the nibbles of bytes 0..31, groups 2, 3 and 6, 7 those of bytes 32..63
  const low = v128.load(src + ((group >> 3) << 6) + ((group & 3) << 4)), high = v128.load(src + 128 + ((group >> 3) << 5) + ((group & 1) << 4));
  const pair = v128.and(i8x16.shl(i8x16.shr_u(high, <i32>(group & 6)), 4), i8x16.splat(0x30));
  return v128.or(low_nibbles(i8x16.shr_u(low, <i32>(group & 4))), pair);
}

/** 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales for groups of 16, f16 d: (d·scale)·(q - 32). */
function decode_q6_k(out: usize, src: usize, K: usize): void {
  for (; K > 0; K -= SUPER, src += 210) {
    const d = load_f16(src + 208);
    for (let group: usize = 0; group < 16; group++, out += 64) {
      store_scaled(out, i8x16.sub(q6_k_values(src, group), i8x16.splat(32)), f32x4.splat(d * <f32>load<i8>(src + 192 + group)));
    }
  }
}

/**
 * K values of a block format to f32, exactly as ggml computes them (infinities and NaN included)
 * out (K) f32 · src: whole blocks of srcType, at any byte
 * needs: K a multiple of the block; reads nothing past the end
 * cost:  0.3 to 0.45 ns a value
 */
export function decode_blocks(out: usize, src: usize, srcType: i32, K: usize): void {
  switch (srcType) {
    case Q4_1: return decode_q4_1(out, src, K);
    case Q5_0: return decode_q5_0(out, src, K);
    case Q5_1: return decode_q5_1(out, src, K);
    case Q2_K: return decode_q2_k(out, src, K);
    case Q3_K: return decode_q3_k(out, src, K);
    case Q4_K: return decode_q4_k(out, src, K);
    case Q5_K: return decode_q5_k(out, src, K);
    case Q6_K: return decode_q6_k(out, src, K);
    case IQ4_NL: return decode_iq4_nl(out, src, K);
    default: unreachable();
  }
}

/** Whether every value of the type is f16 scale times int8: such blocks become Q8_0 without loss. */
// @ts-ignore: decorator
@inline export function fits_q8(srcType: i32): bool { return srcType == Q5_0 || srcType == IQ4_NL; }

/**
 * Blocks of a type that `fits_q8` to as many blocks of Q8_0, without loss
 * out (34 · blocks) bytes · src: the blocks, at any byte
 */
export function widen_to_q8(out: usize, src: usize, srcType: i32, blocks: usize): void {
  const size: usize = srcType == Q5_0 ? 22 : 18;
  for (; blocks > 0; blocks--, out += 34, src += size) {
    store<u16>(out, load<u16>(src));
    if (srcType == Q5_0) {
      v128.store(out, q5_0_values(src, 0), 2);
      v128.store(out, q5_0_values(src, 1), 18);
    } else {
      const indices = v128.load(src, 2);
      v128.store(out, iq4_values(low_nibbles(indices)), 2);
      v128.store(out, iq4_values(high_nibbles(indices)), 18);
    }
  }
}
