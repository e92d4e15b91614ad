// Q4_K weights as their file holds them (4 bits, a 6-bit scale and minimum for 32 values, two f16 for 256), int8 activations in blocks of 32: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each 256 k: 8 f16 d, 8 f16 dmin, then 8 blocks of 32 k: 8 bytes of scales, 8 of minima, nibbles as in qb4w.
// For 256 k: d · Σ float(scale · Σq·x) · x's scale, and dmin · Σ minimum · (-x's scale · Σx), the latter in integers (QD8_SUMS). Each is added to y in memory, so
// that the sums of a block find registers.
// A tile's rows are a compile-time constant of one inlined body: the tests of `rows` cost nothing.
import {
  groups_per_pass, groups_per_run, PAIRS, Q4KW_BLOCK, Q4KW_BYTES, Q4KW_HEAD, QD8_BLOCK, qd8_row, QD8_SCALE, QD8_SUMS, qd8_sums_offset, QD8_SUMS_SCALE, QD8_TWICE,
} from "../lib/blocks";
import {
  CONST, CONST_F16_MASK, CONST_F16_SCALE, CONST_NIBBLE, CONST_NIBBLE16, CONST_NIBBLE16_4, CONST_NIBBLE16_8, dot_i16, dot_i8, dot_nibbles, high_scales,
  load_f16x4, low_scales, pair_i8, scaled_sums,
} from "../lib/simd";

// @ts-ignore: decorator
@inline function dot(pairs: bool, x: v128, w: v128, acc: v128): v128 { return pairs ? pair_i8(x, w, acc) : dot_i8(x, w, acc); }
/** A block's first products: the sums start at 0, and eight pairs of at most 2·15·127 never leave 16 bits. */
// @ts-ignore: decorator
@inline function first(pairs: bool, x: v128, w: v128): v128 {
  return pairs ? i16x8.relaxed_dot_i8x16_i7x16_s(x, w) : dot_i8(x, w, i32x4.splat(0));
}

/** The f32 step of a block: f + float(products) · t. */
// @ts-ignore: decorator
@inline function step(f: v128, products: v128, t: v128): v128 { return f32x4.add(f, f32x4.mul(f32x4.convert_i32x4_s(products), t)); }

/** Minima of the blocks at w and behind it, a pair for each of 8 rows. */
// @ts-ignore: decorator
@inline function minima(w: usize): v128 {
  return i8x16.shuffle(v128.load64_zero(w, 8), v128.load64_zero(w + Q4KW_BLOCK, 8), 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/** What ends 256 k: y += f · d + float(Σ minimum · z) · (dmin · scale of z), for 8 rows of w, whose first block is at w, and one of x, with its sums at z. */
function add_super(y: usize, f0: v128, f1: v128, w: usize, z: usize): void {
  let n = minima(w), v = v128.load32_splat(z), a = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(n), v), b = i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(n), v);
  n = minima(w + 2 * Q4KW_BLOCK); v = v128.load32_splat(z, 4);
  a = dot_i16(i16x8.extend_low_i8x16_u(n), v, a); b = dot_i16(i16x8.extend_high_i8x16_u(n), v, b);
  n = minima(w + 4 * Q4KW_BLOCK); v = v128.load32_splat(z, 8);
  a = dot_i16(i16x8.extend_low_i8x16_u(n), v, a); b = dot_i16(i16x8.extend_high_i8x16_u(n), v, b);
  n = minima(w + 6 * Q4KW_BLOCK); v = v128.load32_splat(z, 12);
  a = dot_i16(i16x8.extend_low_i8x16_u(n), v, a); b = dot_i16(i16x8.extend_high_i8x16_u(n), v, b);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE), s = v128.load32_splat(z, QD8_SUMS_SCALE);
  f0 = f32x4.add(f32x4.mul(f0, load_f16x4(w - Q4KW_HEAD, mask, up)), f32x4.mul(f32x4.convert_i32x4_s(a), f32x4.mul(load_f16x4(w - Q4KW_HEAD + 16, mask, up), s)));
  f1 = f32x4.add(f32x4.mul(f1, load_f16x4(w - Q4KW_HEAD + 8, mask, up)), f32x4.mul(f32x4.convert_i32x4_s(b), f32x4.mul(load_f16x4(w - Q4KW_HEAD + 24, mask, up), s)));
  v128.store(y, f32x4.add(v128.load(y), f0)); v128.store(y, f32x4.add(v128.load(y, 16), f1), 16);
}

// @ts-ignore: decorator
@inline function clear(y: usize): void { v128.store(y, i32x4.splat(0)); v128.store(y, i32x4.splat(0), 16); }

/** Consecutive groups of w against `rows` (1 to 4) rows of x; `pairs` as in qb4w. Unrolled by hand, loads next to their use. */
// @ts-ignore: decorator
@inline function relaxed(rows: i32, pairs: bool, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE), xRow = qd8_row(blocks, pairs), xe = x + blocks * QD8_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow, z = x + qd8_sums_offset(blocks, pairs);
    clear(y);
    if (rows > 1) clear(y + yRow);
    if (rows > 2) clear(y + 2 * yRow);
    if (rows > 3) clear(y + 3 * yRow);
    for (; x0 < xe; z += QD8_SUMS) {
      let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
      w += Q4KW_HEAD;
      for (const next = w + 8 * Q4KW_BLOCK; w < next; w += Q4KW_BLOCK) {
        let a00: v128, a01: v128, a10 = i32x4.splat(0), a11 = a10, a20 = a10, a21 = a10, a30 = a10, a31 = a10;
        let v: v128, w0: v128, w1: v128, l0: v128, l1: v128, h0: v128, h1: v128, s0: v128, s1: v128;
        w0 = v128.load(w, 16); l0 = v128.and(w0, m15); h0 = v128.and(i16x8.shr_u(w0, 4), m15);
        w1 = v128.load(w, 80); l1 = v128.and(w1, m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
        v = v128.load32_splat(x0, 0); a00 = first(pairs, v, l0); a01 = first(pairs, v, l1);
        v = v128.load32_splat(x0, 16); a00 = dot(pairs, v, h0, a00); a01 = dot(pairs, v, h1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 0); a10 = first(pairs, v, l0); a11 = first(pairs, v, l1);
          v = v128.load32_splat(x1, 16); a10 = dot(pairs, v, h0, a10); a11 = dot(pairs, v, h1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 0); a20 = first(pairs, v, l0); a21 = first(pairs, v, l1);
          v = v128.load32_splat(x2, 16); a20 = dot(pairs, v, h0, a20); a21 = dot(pairs, v, h1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 0); a30 = first(pairs, v, l0); a31 = first(pairs, v, l1);
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
        v = v128.load8x8_u(w); s0 = low_scales(pairs, v); s1 = high_scales(pairs, v);
        v = v128.load32_splat(x0, QD8_SCALE); f00 = step(f00, scaled_sums(pairs, a00, s0), v); f01 = step(f01, scaled_sums(pairs, a01, s1), v);
        if (rows > 1) {
          v = v128.load32_splat(x1, QD8_SCALE); f10 = step(f10, scaled_sums(pairs, a10, s0), v); f11 = step(f11, scaled_sums(pairs, a11, s1), v);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, QD8_SCALE); f20 = step(f20, scaled_sums(pairs, a20, s0), v); f21 = step(f21, scaled_sums(pairs, a21, s1), v);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, QD8_SCALE); f30 = step(f30, scaled_sums(pairs, a30, s0), v); f31 = step(f31, scaled_sums(pairs, a31, s1), v);
        }
        x0 += QD8_BLOCK;
        if (rows > 1) x1 += QD8_BLOCK;
        if (rows > 2) x2 += QD8_BLOCK;
        if (rows > 3) x3 += QD8_BLOCK;
      }
      const first = w - 8 * Q4KW_BLOCK;
      add_super(y, f00, f01, first, z);
      if (rows > 1) add_super(y + yRow, f10, f11, first, z + xRow);
      if (rows > 2) add_super(y + 2 * yRow, f20, f21, first, z + 2 * xRow);
      if (rows > 3) add_super(y + 3 * yRow, f30, f31, first, z + 3 * xRow);
    }
  }
}

/** As in qb4w: one row of x against two runs of groups at a time. (With sums of pairs it gains nothing.) */
function dots__1x16(y: usize, x: usize, w: usize, blocks: usize, run: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE), zero = i32x4.splat(0);
  const xe = x + blocks * QD8_BLOCK, far = run << 5;
  let u = w + run * blocks * Q4KW_BYTES;
  for (const end = u; w < end; y += 32) {
    let z = x + qd8_sums_offset(blocks, false);
    clear(y); clear(y + far);
    for (let xp = x; xp < xe; z += QD8_SUMS) {
      let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
      w += Q4KW_HEAD; u += Q4KW_HEAD;
      for (const next = w + 8 * Q4KW_BLOCK; w < next; w += Q4KW_BLOCK, u += Q4KW_BLOCK, xp += QD8_BLOCK) {
        let low = v128.load32_splat(xp, 0), high = v128.load32_splat(xp, 16);
        let a0 = dot_nibbles(false, low, high, v128.load(w, 16), m15, zero), a1 = dot_nibbles(false, low, high, v128.load(w, 80), m15, zero);
        let a2 = dot_nibbles(false, low, high, v128.load(u, 16), m15, zero), a3 = dot_nibbles(false, low, high, v128.load(u, 80), m15, zero);
        low = v128.load32_splat(xp, 4); high = v128.load32_splat(xp, 20);
        a0 = dot_nibbles(false, low, high, v128.load(w, 32), m15, a0); a1 = dot_nibbles(false, low, high, v128.load(w, 96), m15, a1);
        a2 = dot_nibbles(false, low, high, v128.load(u, 32), m15, a2); a3 = dot_nibbles(false, low, high, v128.load(u, 96), m15, a3);
        low = v128.load32_splat(xp, 8); high = v128.load32_splat(xp, 24);
        a0 = dot_nibbles(false, low, high, v128.load(w, 48), m15, a0); a1 = dot_nibbles(false, low, high, v128.load(w, 112), m15, a1);
        a2 = dot_nibbles(false, low, high, v128.load(u, 48), m15, a2); a3 = dot_nibbles(false, low, high, v128.load(u, 112), m15, a3);
        low = v128.load32_splat(xp, 12); high = v128.load32_splat(xp, 28);
        a0 = dot_nibbles(false, low, high, v128.load(w, 64), m15, a0); a1 = dot_nibbles(false, low, high, v128.load(w, 128), m15, a1);
        a2 = dot_nibbles(false, low, high, v128.load(u, 64), m15, a2); a3 = dot_nibbles(false, low, high, v128.load(u, 128), m15, a3);
        const t = v128.load32_splat(xp, QD8_SCALE);
        let s = v128.load8x8_u(w);
        f0 = step(f0, scaled_sums(false, a0, low_scales(false, s)), t); f1 = step(f1, scaled_sums(false, a1, high_scales(false, s)), t);
        s = v128.load8x8_u(u);
        f2 = step(f2, scaled_sums(false, a2, low_scales(false, s)), t); f3 = step(f3, scaled_sums(false, a3, high_scales(false, s)), t);
      }
      add_super(y, f0, f1, w - 8 * Q4KW_BLOCK, z); add_super(y + far, f2, f3, u - 8 * Q4KW_BLOCK, z);
    }
  }
}
function dots__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, false, y, yRow, x, w, blocks, groups);
}
function dots__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(2, false, y, yRow, x, w, blocks, groups);
}
function dots__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(4, false, y, yRow, x, w, blocks, groups);
}
function pairs__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, true, y, yRow, x, w, blocks, groups);
}
function pairs__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(4, true, y, yRow, x, w, blocks, groups);
}

/** The plain tiles: the same integers, hence the same bits; qb4w says how a pair of bytes is taken apart. */
// @ts-ignore: decorator
@inline function plain(rows: i32, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE16), m240 = v128.load(CONST + CONST_NIBBLE16_4), m3840 = v128.load(CONST + CONST_NIBBLE16_8);
  const xRow = qd8_row(blocks, true), xe = x + blocks * QD8_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let x0 = x, x1 = x0 + xRow, z = x + qd8_sums_offset(blocks, true);
    clear(y);
    if (rows > 1) clear(y + yRow);
    for (; x0 < xe; z += QD8_SUMS) {
      let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00;
      w += Q4KW_HEAD;
      for (const next = w + 8 * Q4KW_BLOCK; w < next; w += Q4KW_BLOCK) {
        let a00 = i32x4.splat(0), a01 = a00, a10 = a00, a11 = a00, v: v128, l0: v128, l1: v128, wi = w + 16;
        for (let i: usize = 0; i < 32; i += 8, wi += 16) {
          const w0 = v128.load(wi), w1 = v128.load(wi, 64);
          l0 = v128.and(w0, m15); l1 = v128.and(w1, m15);
          v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          l0 = v128.and(w0, m3840); l1 = v128.and(w1, m3840);
          v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          l0 = v128.and(w0, m240); l1 = v128.and(w1, m240);
          v = v128.load32_splat(x0 + i, 32); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + i, 32); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          l0 = i16x8.shr_u(w0, 12); l1 = i16x8.shr_u(w1, 12);
          v = v128.load32_splat(x0 + i, 36); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + i, 36); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
        }
        v = v128.load8x8_u(w);
        const s0 = low_scales(false, v), s1 = high_scales(false, v);
        v = v128.load32_splat(x0, QD8_SCALE);
        f00 = step(f00, scaled_sums(false, i32x4.shr_s(a00, 8), s0), v); f01 = step(f01, scaled_sums(false, i32x4.shr_s(a01, 8), s1), v);
        x0 += QD8_BLOCK;
        if (rows > 1) {
          v = v128.load32_splat(x1, QD8_SCALE);
          f10 = step(f10, scaled_sums(false, i32x4.shr_s(a10, 8), s0), v); f11 = step(f11, scaled_sums(false, i32x4.shr_s(a11, 8), s1), v);
          x1 += QD8_BLOCK;
        }
      }
      add_super(y, f00, f01, w - 8 * Q4KW_BLOCK, z);
      if (rows > 1) add_super(y + yRow, f10, f11, w - 8 * Q4KW_BLOCK, z + xRow);
    }
  }
}

function plain__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  plain(1, y, yRow, x, w, blocks, groups);
}
function plain__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  plain(2, y, yRow, x, w, blocks, groups);
}

/** The largest tile's rows. Three are two and one: these weights have a tile less than the others, for size; and with sums of pairs two are one and one. */
const MOST: usize = ASC_FEATURE_RELAXED_SIMD ? 4 : 2;

/** `rows` (1, 2 without PAIRS, or MOST) rows of x against consecutive groups of w: a row gets the same bits from every tile. */
function tile(rows: usize, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  if (!ASC_FEATURE_RELAXED_SIMD) {
    if (rows == 1) plain__1x8(y, yRow, x, w, blocks, groups); else plain__2x8(y, yRow, x, w, blocks, groups);
  } else if (PAIRS) {
    if (rows == 1) pairs__1x8(y, yRow, x, w, blocks, groups); else pairs__4x8(y, yRow, x, w, blocks, groups);
  } else {
    if (rows == 1) dots__1x8(y, yRow, x, w, blocks, groups);
    else if (rows == 2) dots__2x8(y, yRow, x, w, blocks, groups);
    else dots__4x8(y, yRow, x, w, blocks, groups);
  }
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) qd8 · w (8·groups, 32·blocks) q4kw
 * needs: blocks % 8 == 0; 16-byte alignment; reads nothing past the end
 * cost:  streams N·K·4.625/8 bytes of w once a call from memory, once per tile from L1
 */
export function matmul_qd8_q4kw(y: usize, yRow: usize, x: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  const xRow = qd8_row(blocks, QD8_TWICE), group = blocks * Q4KW_BYTES;
  if (ASC_FEATURE_RELAXED_SIMD) {
    const run = M == 1 && !PAIRS ? groups_per_run(groups, group, 2) : 0;
    if (run) {
      dots__1x16(y, x, w, blocks, run);
      y += run << 6; w += 2 * run * group; groups -= 2 * run;
    }
  }
  if (M == 1 || (M == 2 && !PAIRS) || M == MOST) return tile(M, y, yRow, x, w, blocks, groups);
  for (let n = groups_per_pass(group); groups > 0; groups -= n, w += n * group, y += 32 * n) { // they stay in the second cache while x passes
    n = min(n, groups);
    let m = M, xp = x, yp = y;
    for (; m >= MOST; m -= MOST, xp += MOST * xRow, yp += MOST * yRow) tile(MOST, yp, yRow, xp, w, blocks, n);
    if (m >= 2 && !PAIRS) { tile(2, yp, yRow, xp, w, blocks, n); m -= 2; xp += 2 * xRow; yp += 2 * yRow; }
    for (; m > 0; m--, xp += xRow, yp += yRow) tile(1, yp, yRow, xp, w, blocks, n);
  }
}
