// Moving single rows into and out of packed quantized blocks: where a row's four-byte pieces lie.
// Used by pack and gather; the tiles read whole blocks.
import { Q8_FLIP, QBW_VALUES } from "./blocks";

/** Address of piece 0 of a row (lane 0..7) in a qb4w block; pieces are 16 bytes apart. */
// @ts-ignore: decorator
@inline function pieces4(block: usize, lane: usize): usize { return block + QBW_VALUES + ((lane >> 2) << 6) + ((lane & 3) << 2); }

/** The same in a qb8w block. */
// @ts-ignore: decorator
@inline function pieces8(block: usize, lane: usize): usize { return block + QBW_VALUES + ((lane >> 2) << 7) + ((lane & 3) << 2); }

/** A row's 16 bytes of nibbles (q + 8; byte j: value j low, value 16 + j high, as in Q4_0) into a qb4w block. */
// @ts-ignore: decorator
@inline export function put_q4(block: usize, lane: usize, nibbles: v128): void {
  const p = pieces4(block, lane);
  v128.store32_lane(p, nibbles, 0); v128.store32_lane(p, nibbles, 1, 16); v128.store32_lane(p, nibbles, 2, 32); v128.store32_lane(p, nibbles, 3, 48);
}

// @ts-ignore: decorator
@inline export function take_q4(block: usize, lane: usize): v128 {
  const p = pieces4(block, lane);
  return v128.load32_lane(p, v128.load32_lane(p, v128.load32_lane(p, v128.load32_zero(p), 1, 16), 2, 32), 3, 48);
}

/** A row's 32 signed bytes into a qb8w block, stored as the engine's dot wants them. */
// @ts-ignore: decorator
@inline export function put_q8(block: usize, lane: usize, low: v128, high: v128): void {
  const p = pieces8(block, lane), flip = i8x16.splat(<i8>Q8_FLIP), a = v128.xor(low, flip), b = v128.xor(high, flip);
  v128.store32_lane(p, a, 0); v128.store32_lane(p, a, 1, 16); v128.store32_lane(p, a, 2, 32); v128.store32_lane(p, a, 3, 48);
  v128.store32_lane(p, b, 0, 64); v128.store32_lane(p, b, 1, 80); v128.store32_lane(p, b, 2, 96); v128.store32_lane(p, b, 3, 112);
}

/** Values 0–15 (half 0) or 16–31 (half 1) of a row of a qb8w block, as signed bytes. */
// @ts-ignore: decorator
@inline export function take_q8(block: usize, lane: usize, half: usize): v128 {
  const p = pieces8(block, lane) + (half << 6);
  return v128.xor(v128.load32_lane(p, v128.load32_lane(p, v128.load32_lane(p, v128.load32_zero(p), 1, 16), 2, 32), 3, 48), i8x16.splat(<i8>Q8_FLIP));
}

/** Address of piece 0 of a row's 16 values (half 0 or 1) in a block of q6kw; three pieces are 16 bytes apart. */
// @ts-ignore: decorator
@inline function pieces6(block: usize, lane: usize, half: usize): usize { return block + QBW_VALUES + 96 * half + 48 * (lane >> 2) + ((lane & 3) << 2); }

/** 16 values 0..63 of a row into a q6kw block: three pieces of four, the fourth in their upper bits. */
// @ts-ignore: decorator
@inline export function put_q6(block: usize, lane: usize, half: usize, q: v128): void {
  const p = pieces6(block, lane, half), top = i32x4.extract_lane(q, 3);
  store<u32>(p, i32x4.extract_lane(q, 0) | (top & 0x03030303) << 6);
  store<u32>(p, i32x4.extract_lane(q, 1) | (top & 0x0c0c0c0c) << 4, 16);
  store<u32>(p, i32x4.extract_lane(q, 2) | (top & 0x30303030) << 2, 32);
}

export function take_q6(block: usize, lane: usize, half: usize): v128 {
  const p = pieces6(block, lane, half), a = load<u32>(p), b = load<u32>(p, 16), c = load<u32>(p, 32);
  const top = (a >> 6 & 0x03030303) | (b >> 4 & 0x0c0c0c0c) | (c >> 2 & 0x30303030);
  const q = i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(a), 1, b), 2, c), 3, top);
  return v128.and(q, i8x16.splat(63));
}

/** out (16) f32 = the signed bytes of q times d. */
// @ts-ignore: decorator
@inline export function store_scaled(out: usize, q: v128, d: v128): void {
  const a = i16x8.extend_low_i8x16_s(q), b = i16x8.extend_high_i8x16_s(q);
  v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(a)), d));
  v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(a)), d), 16);
  v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(b)), d), 32);
  v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(b)), d), 48);
}

/** out (32) f32 = the nibbles (q + 8, Q4_0's order) minus 8, times d. */
// @ts-ignore: decorator
@inline export function store_nibbles(out: usize, nibbles: v128, d: v128): void {
  const eight = i8x16.splat(8);
  store_scaled(out, i8x16.sub(v128.and(nibbles, i8x16.splat(15)), eight), d);
  store_scaled(out + 64, i8x16.sub(i8x16.shr_u(nibbles, 4), eight), d);
}
