// int4 weights in blocks of 32 along K, int8 activations in blocks of 32: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each block: 8 f16 scales (16 bytes), then 8 vectors of 16 bytes; vector i of 4 (rows 0–3)
// and of 4 more (rows 4–7) holds, for each of four rows, four bytes: low nibbles k = 4i..4i+3, high nibbles k = 16+4i..16+4i+3,
// each stored as q + 8. That is a Q4_0 block's own nibble order: packing moves 4-byte pieces only.
// The sums start at -8·Σx of the block, so the nibbles stay as stored; 4 bits are exact for every engine's dot.
// A tile's rows are a compile-time constant of one inlined body: the tests of `rows` cost nothing.
import { groups_per_pass, groups_per_run, PAIRS, QB4W_BYTES, QD8_BLOCK, QD8_PAIR8, qd8_row, QD8_SCALE, QD8_SUM8, QD8_TWICE } from "../lib/blocks";
import {
  CONST, CONST_F16_MASK, CONST_F16_SCALE, CONST_NIBBLE, CONST_NIBBLE16, CONST_NIBBLE16_4, CONST_NIBBLE16_8, CONST_ONE16, dot_i16, dot_i8, dot_nibbles, load_f16x4,
  pair_i8, scaled,
} from "../lib/simd";

// @ts-ignore: decorator
@inline function dot(pairs: bool, x: v128, w: v128, acc: v128): v128 { return pairs ? pair_i8(x, w, acc) : dot_i8(x, w, acc); }
/** What the sums of a block start at. */
// @ts-ignore: decorator
@inline function start(pairs: bool, x: usize): v128 { return pairs ? v128.load32_splat(x, QD8_PAIR8) : v128.load32_splat(x, QD8_SUM8); }
/** A block's integers from its sums. */
// @ts-ignore: decorator
@inline function whole(pairs: bool, acc: v128, one: v128): v128 { return pairs ? i32x4.dot_i16x8_s(acc, one) : acc; }

/**
 * Consecutive groups of w against `rows` (1 to 4) rows of x. Unrolled by hand, loads next to their use.
 * pairs: sums of 16 bits, where the engine's dot into 32 bits is three instructions: two products a lane, each at most 15·127 in size, eight times,
 * never leave the lane, nor does a sum that starts at -8·Σx of its k; the two halves of a row are added once a block.
 */
// @ts-ignore: decorator
@inline function relaxed(rows: i32, pairs: bool, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE), one = v128.load(CONST + CONST_ONE16);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, pairs), xe = x + blocks * QD8_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
    let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
    for (; x0 < xe; ) {
      let a00 = start(pairs, x0), a01 = a00;
      let a10 = rows > 1 ? start(pairs, x1) : i32x4.splat(0), a11 = a10;
      let a20 = rows > 2 ? start(pairs, x2) : i32x4.splat(0), a21 = a20;
      let a30 = rows > 3 ? start(pairs, x3) : i32x4.splat(0), a31 = a30;
      let v: v128, w0: v128, w1: v128, l0: v128, l1: v128, h0: v128, h1: v128;
      w0 = v128.load(w, 16); l0 = v128.and(w0, m15); h0 = v128.and(i16x8.shr_u(w0, 4), m15);
      w1 = v128.load(w, 80); l1 = v128.and(w1, m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
      v = v128.load32_splat(x0, 0); a00 = dot(pairs, v, l0, a00); a01 = dot(pairs, v, l1, a01);
      v = v128.load32_splat(x0, 16); a00 = dot(pairs, v, h0, a00); a01 = dot(pairs, v, h1, a01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 0); a10 = dot(pairs, v, l0, a10); a11 = dot(pairs, v, l1, a11);
        v = v128.load32_splat(x1, 16); a10 = dot(pairs, v, h0, a10); a11 = dot(pairs, v, h1, a11);
      }
      if (rows > 2) {
        v = v128.load32_splat(x2, 0); a20 = dot(pairs, v, l0, a20); a21 = dot(pairs, v, l1, a21);
        v = v128.load32_splat(x2, 16); a20 = dot(pairs, v, h0, a20); a21 = dot(pairs, v, h1, a21);
      }
      if (rows > 3) {
        v = v128.load32_splat(x3, 0); a30 = dot(pairs, v, l0, a30); a31 = dot(pairs, v, l1, a31);
        v = v128.load32_splat(x3, 16); a30 = dot(pairs, v, h0, a30); a31 = dot(pairs, v, h1, a31);
      }
      w0 = v128.load(w, 32); l0 = v128.and(w0, m15); h0 = v128.and(i16x8.shr_u(w0, 4), m15);
      w1 = v128.load(w, 96); l1 = v128.and(w1, m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
      v = v128.load32_splat(x0, 4); a00 = dot(pairs, v, l0, a00); a01 = dot(pairs, v, l1, a01);
      v = v128.load32_splat(x0, 20); a00 = dot(pairs, v, h0, a00); a01 = dot(pairs, v, h1, a01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 4); a10 = dot(pairs, v, l0, a10); a11 = dot(pairs, v, l1, a11);
        v = v128.load32_splat(x1, 20); a10 = dot(pairs, v, h0, a10); a11 = dot(pairs, v, h1, a11);
      }
      if (rows > 2) {
        v = v128.load32_splat(x2, 4); a20 = dot(pairs, v, l0, a20); a21 = dot(pairs, v, l1, a21);
        v = v128.load32_splat(x2, 20); a20 = dot(pairs, v, h0, a20); a21 = dot(pairs, v, h1, a21);
      }
      if (rows > 3) {
        v = v128.load32_splat(x3, 4); a30 = dot(pairs, v, l0, a30); a31 = dot(pairs, v, l1, a31);
        v = v128.load32_splat(x3, 20); a30 = dot(pairs, v, h0, a30); a31 = dot(pairs, v, h1, a31);
      }
      w0 = v128.load(w, 48); l0 = v128.and(w0, m15); h0 = v128.and(i16x8.shr_u(w0, 4), m15);
      w1 = v128.load(w, 112); l1 = v128.and(w1, m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
      v = v128.load32_splat(x0, 8); a00 = dot(pairs, v, l0, a00); a01 = dot(pairs, v, l1, a01);
      v = v128.load32_splat(x0, 24); a00 = dot(pairs, v, h0, a00); a01 = dot(pairs, v, h1, a01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 8); a10 = dot(pairs, v, l0, a10); a11 = dot(pairs, v, l1, a11);
        v = v128.load32_splat(x1, 24); a10 = dot(pairs, v, h0, a10); a11 = dot(pairs, v, h1, a11);
      }
      if (rows > 2) {
        v = v128.load32_splat(x2, 8); a20 = dot(pairs, v, l0, a20); a21 = dot(pairs, v, l1, a21);
        v = v128.load32_splat(x2, 24); a20 = dot(pairs, v, h0, a20); a21 = dot(pairs, v, h1, a21);
      }
      if (rows > 3) {
        v = v128.load32_splat(x3, 8); a30 = dot(pairs, v, l0, a30); a31 = dot(pairs, v, l1, a31);
        v = v128.load32_splat(x3, 24); a30 = dot(pairs, v, h0, a30); a31 = dot(pairs, v, h1, a31);
      }
      w0 = v128.load(w, 64); l0 = v128.and(w0, m15); h0 = v128.and(i16x8.shr_u(w0, 4), m15);
      w1 = v128.load(w, 128); l1 = v128.and(w1, m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
      v = v128.load32_splat(x0, 12); a00 = dot(pairs, v, l0, a00); a01 = dot(pairs, v, l1, a01);
      v = v128.load32_splat(x0, 28); a00 = dot(pairs, v, h0, a00); a01 = dot(pairs, v, h1, a01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 12); a10 = dot(pairs, v, l0, a10); a11 = dot(pairs, v, l1, a11);
        v = v128.load32_splat(x1, 28); a10 = dot(pairs, v, h0, a10); a11 = dot(pairs, v, h1, a11);
      }
      if (rows > 2) {
        v = v128.load32_splat(x2, 12); a20 = dot(pairs, v, l0, a20); a21 = dot(pairs, v, l1, a21);
        v = v128.load32_splat(x2, 28); a20 = dot(pairs, v, h0, a20); a21 = dot(pairs, v, h1, a21);
      }
      if (rows > 3) {
        v = v128.load32_splat(x3, 12); a30 = dot(pairs, v, l0, a30); a31 = dot(pairs, v, l1, a31);
        v = v128.load32_splat(x3, 28); a30 = dot(pairs, v, h0, a30); a31 = dot(pairs, v, h1, a31);
      }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
      v = v128.load32_splat(x0, QD8_SCALE);
      f00 = scaled(whole(pairs, a00, one), f00, s0, v); f01 = scaled(whole(pairs, a01, one), f01, s1, v);
      if (rows > 1) {
        v = v128.load32_splat(x1, QD8_SCALE);
        f10 = scaled(whole(pairs, a10, one), f10, s0, v); f11 = scaled(whole(pairs, a11, one), f11, s1, v);
      }
      if (rows > 2) {
        v = v128.load32_splat(x2, QD8_SCALE);
        f20 = scaled(whole(pairs, a20, one), f20, s0, v); f21 = scaled(whole(pairs, a21, one), f21, s1, v);
      }
      if (rows > 3) {
        v = v128.load32_splat(x3, QD8_SCALE);
        f30 = scaled(whole(pairs, a30, one), f30, s0, v); f31 = scaled(whole(pairs, a31, one), f31, s1, v);
      }
      w += QB4W_BYTES; x0 += QD8_BLOCK;
      if (rows > 1) x1 += QD8_BLOCK;
      if (rows > 2) x2 += QD8_BLOCK;
      if (rows > 3) x3 += QD8_BLOCK;
    }
    v128.store(y, f00); v128.store(y, f01, 16);
    if (rows > 1) { v128.store(y + yRow, f10); v128.store(y + yRow, f11, 16); }
    if (rows > 2) { v128.store(y + 2 * yRow, f20); v128.store(y + 2 * yRow, f21, 16); }
    if (rows > 3) { v128.store(y + 3 * yRow, f30); v128.store(y + 3 * yRow, f31, 16); }
  }
}

/** A block of x against one of each of two groups, whose sums are in memory. */
// @ts-ignore: decorator
@inline function two_blocks(pairs: bool, y: usize, z: usize, x: usize, w: usize, u: usize, m15: v128, one: v128, mask: v128, up: v128): void {
  let low = v128.load32_splat(x, 0), high = v128.load32_splat(x, 16);
  let a0 = start(pairs, x), a1 = a0, a2 = a0, a3 = a0;
  a0 = dot_nibbles(pairs, low, high, v128.load(w, 16), m15, a0); a1 = dot_nibbles(pairs, low, high, v128.load(w, 80), m15, a1);
  a2 = dot_nibbles(pairs, low, high, v128.load(u, 16), m15, a2); a3 = dot_nibbles(pairs, low, high, v128.load(u, 80), m15, a3);
  low = v128.load32_splat(x, 4); high = v128.load32_splat(x, 20);
  a0 = dot_nibbles(pairs, low, high, v128.load(w, 32), m15, a0); a1 = dot_nibbles(pairs, low, high, v128.load(w, 96), m15, a1);
  a2 = dot_nibbles(pairs, low, high, v128.load(u, 32), m15, a2); a3 = dot_nibbles(pairs, low, high, v128.load(u, 96), m15, a3);
  low = v128.load32_splat(x, 8); high = v128.load32_splat(x, 24);
  a0 = dot_nibbles(pairs, low, high, v128.load(w, 48), m15, a0); a1 = dot_nibbles(pairs, low, high, v128.load(w, 112), m15, a1);
  a2 = dot_nibbles(pairs, low, high, v128.load(u, 48), m15, a2); a3 = dot_nibbles(pairs, low, high, v128.load(u, 112), m15, a3);
  low = v128.load32_splat(x, 12); high = v128.load32_splat(x, 28);
  a0 = dot_nibbles(pairs, low, high, v128.load(w, 64), m15, a0); a1 = dot_nibbles(pairs, low, high, v128.load(w, 128), m15, a1);
  a2 = dot_nibbles(pairs, low, high, v128.load(u, 64), m15, a2); a3 = dot_nibbles(pairs, low, high, v128.load(u, 128), m15, a3);
  const t = v128.load32_splat(x, QD8_SCALE);
  v128.store(y, scaled(whole(pairs, a0, one), v128.load(y), load_f16x4(w, mask, up), t));
  v128.store(y, scaled(whole(pairs, a1, one), v128.load(y, 16), load_f16x4(w + 8, mask, up), t), 16);
  v128.store(z, scaled(whole(pairs, a2, one), v128.load(z), load_f16x4(u, mask, up), t));
  v128.store(z, scaled(whole(pairs, a3, one), v128.load(z, 16), load_f16x4(u + 8, mask, up), t), 16);
}

/** Runs at a time. */
const RUNS: usize = 4;

/** One row of x against RUNS runs of so many groups, one behind the other in memory and read at the same time. (Two groups that are neighbours halve the rate of memory.) */
// @ts-ignore: decorator
@inline function in_runs(pairs: bool, y: usize, x: usize, w: usize, blocks: usize, run: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE), one = v128.load(CONST + CONST_ONE16);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BLOCK, bytes = run * blocks * QB4W_BYTES, z = run << 5;
  memory.fill(y, 0, RUNS * z);
  for (const end = w + bytes; w < end; y += 32)
    for (let xp = x; xp < xe; xp += QD8_BLOCK, w += QB4W_BYTES) {
      two_blocks(pairs, y, y + z, xp, w, w + bytes, m15, one, mask, up);
      two_blocks(pairs, y + 2 * z, y + 3 * z, xp, w + 2 * bytes, w + 3 * bytes, m15, one, mask, up);
    }
}

function dots__1x32(y: usize, x: usize, w: usize, blocks: usize, run: usize): void { in_runs(false, y, x, w, blocks, run); }
function pairs__1x32(y: usize, x: usize, w: usize, blocks: usize, run: usize): void { in_runs(true, y, x, w, blocks, run); }
function dots__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, false, y, yRow, x, w, blocks, groups);
}
function dots__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(2, false, y, yRow, x, w, blocks, groups);
}
function dots__3x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(3, false, y, yRow, x, w, blocks, groups);
}
function dots__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(4, false, y, yRow, x, w, blocks, groups);
}
function pairs__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, true, y, yRow, x, w, blocks, groups);
}
function pairs__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(2, true, y, yRow, x, w, blocks, groups);
}
function pairs__3x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(3, true, y, yRow, x, w, blocks, groups);
}
function pairs__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(4, true, y, yRow, x, w, blocks, groups);
}

/**
 * The plain tiles: the same integers, hence the same bits. A byte pair splits into four planes of 16-bit lanes, by one instruction each: what is
 * left of the shifts stands in x, as 256, 1, 16 and 256 times itself, so that every product is 256 times the true one.
 * Two rows and two planes at a time: V8 before version 12 loads all operands of a loop body first, and these fit its 15 registers.
 */
// @ts-ignore: decorator
@inline function plain(rows: i32, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE16), m240 = v128.load(CONST + CONST_NIBBLE16_4), m3840 = v128.load(CONST + CONST_NIBBLE16_8);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, true), xe = x + blocks * QD8_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, x0 = x, x1 = x0 + xRow;
    for (; x0 < xe; ) {
      let a00 = v128.load32_splat(x0, QD8_SUM8), a01 = a00;
      let a10 = rows > 1 ? v128.load32_splat(x1, QD8_SUM8) : i32x4.splat(0), a11 = a10;
      let v: v128, l0: v128, l1: v128, wi = w + 16;
      for (let i: usize = 0; i < 32; i += 8, wi += 16) {
        const w0 = v128.load(wi), w1 = v128.load(wi, 64);
        l0 = v128.and(w0, m15); l1 = v128.and(w1, m15);
        v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
        if (rows > 1) { v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
        l0 = v128.and(w0, m3840); l1 = v128.and(w1, m3840);
        v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
        if (rows > 1) { v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
        if (rows == 1) {
          l0 = v128.and(w0, m240); l1 = v128.and(w1, m240);
          v = v128.load32_splat(x0 + i, 32); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          l0 = i16x8.shr_u(w0, 12); l1 = i16x8.shr_u(w1, 12);
          v = v128.load32_splat(x0 + i, 36); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
        }
      }
      if (rows > 1) {
        wi = w + 16;
        for (let i: usize = 32; i < 64; i += 8, wi += 16) {
          const w0 = v128.load(wi), w1 = v128.load(wi, 64);
          l0 = v128.and(w0, m240); l1 = v128.and(w1, m240);
          v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          l0 = i16x8.shr_u(w0, 12); l1 = i16x8.shr_u(w1, 12);
          v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
        }
      }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
      v = v128.load32_splat(x0, QD8_SCALE);
      f00 = scaled(i32x4.shr_s(a00, 8), f00, s0, v); f01 = scaled(i32x4.shr_s(a01, 8), f01, s1, v);
      if (rows > 1) {
        v = v128.load32_splat(x1, QD8_SCALE);
        f10 = scaled(i32x4.shr_s(a10, 8), f10, s0, v); f11 = scaled(i32x4.shr_s(a11, 8), f11, s1, v);
      }
      w += QB4W_BYTES; x0 += QD8_BLOCK;
      if (rows > 1) x1 += QD8_BLOCK;
    }
    v128.store(y, f00); v128.store(y, f01, 16);
    if (rows > 1) { v128.store(y + yRow, f10); v128.store(y + yRow, f11, 16); }
  }
}

function plain__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  plain(1, y, yRow, x, w, blocks, groups);
}
function plain__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  plain(2, y, yRow, x, w, blocks, groups);
}

/** The largest tile's rows. */
const MOST: usize = ASC_FEATURE_RELAXED_SIMD ? 4 : 2;

/** `rows` (1 to MOST) rows of x against consecutive groups of w: a row gets the same bits from every tile. */
function tile(rows: usize, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  if (!ASC_FEATURE_RELAXED_SIMD) {
    if (rows == 1) plain__1x8(y, yRow, x, w, blocks, groups); else plain__2x8(y, yRow, x, w, blocks, groups);
  } else if (PAIRS) {
    switch (<i32>rows) {
      case 1: return pairs__1x8(y, yRow, x, w, blocks, groups);
      case 2: return pairs__2x8(y, yRow, x, w, blocks, groups);
      case 3: return pairs__3x8(y, yRow, x, w, blocks, groups);
      default: return pairs__4x8(y, yRow, x, w, blocks, groups);
    }
  } else {
    switch (<i32>rows) {
      case 1: return dots__1x8(y, yRow, x, w, blocks, groups);
      case 2: return dots__2x8(y, yRow, x, w, blocks, groups);
      case 3: return dots__3x8(y, yRow, x, w, blocks, groups);
      default: return dots__4x8(y, yRow, x, w, blocks, groups);
    }
  }
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) qd8 · w (8·groups, 32·blocks) qb4w
 * needs: 16-byte alignment; reads nothing past the end
 * cost:  streams N·K·4.5/8 bytes of w once a call from memory, once per tile from L1
 */
export function matmul_qd8_qb4w(y: usize, yRow: usize, x: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  const xRow = qd8_row(blocks, QD8_TWICE), group = blocks * QB4W_BYTES;
  if (ASC_FEATURE_RELAXED_SIMD) {
    const run = M == 1 ? groups_per_run(groups, group, RUNS) : 0;
    if (run) {
      if (PAIRS) pairs__1x32(y, x, w, blocks, run); else dots__1x32(y, x, w, blocks, run);
      y += (RUNS * run) << 5; w += RUNS * run * group; groups -= RUNS * run;
    }
  }
  if (M <= MOST) return tile(M, y, yRow, x, w, blocks, groups);
  for (let n = groups_per_pass(group); groups > 0; groups -= n, w += n * group, y += 32 * n) { // they stay in the second cache while x passes
    n = min(n, groups);
    let m = M, xp = x, yp = y;
    for (; m >= MOST; m -= MOST, xp += MOST * xRow, yp += MOST * yRow) tile(MOST, yp, yRow, xp, w, blocks, n);
    if (m) tile(m, yp, yRow, xp, w, blocks, n);
  }
}
