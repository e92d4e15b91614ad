// Q6_K weights as their file holds them (6 bits, an int8 scale for 16 values, an f16 for 256), int8 activations in blocks of 32: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each 256 k: 8 f16 d, then 8 blocks of 32 k: 8 bytes of scales for the first 16 k, 8 for the others, then for each
// 16 k three vectors of rows 0–3 and three of rows 4–7. Vector i holds, for each of four rows, four bytes: q + 32 of k = 4i..4i+3 in their low six bits; the other
// two bits of the three are those of k = 12..15, from the lowest up: three instructions less a vector than nibbles beside bit pairs.
// A block's integers are exact with the scales in them: less than 2^24. Six bits are exact for every engine's dot.
// A tile's rows are a compile-time constant of one inlined body: the tests of `rows` cost nothing.
import {
  groups_per_pass, groups_per_run, PAIRS, Q6KW_BLOCK, Q6KW_BYTES, Q6KW_HEAD, QD8_AGAIN_BLOCK, QD8_AGAIN_PAIR8, QD8_AGAIN_SCALE, QD8_BLOCK, QD8_PAIR32, QD8_PAIR8, qd8_row,
  QD8_SCALE, QD8_TWICE,
} from "../lib/blocks";
import {
  CONST, CONST_F16_MASK, CONST_F16_SCALE, CONST_SIX, CONST_TWO, dot_i16, dot_i8, high_scales, load_f16x4, low_scales, pair_i8, scaled, scaled_sums,
} from "../lib/simd";

// @ts-ignore: decorator
@inline function dot(pairs: bool, x: v128, w: v128, acc: v128): v128 { return pairs ? pair_i8(x, w, acc) : dot_i8(x, w, acc); }
/**
 * What the sums of 16 k start at: -32·Σx. In 16 bits of the lane's k: four pairs of at most 2·63·127 may wrap around on the way, but what comes out, at most
 * 8·32·127, fits the lane.
 */
// @ts-ignore: decorator
@inline function start(pairs: bool, x: usize, half: i32): v128 {
  if (pairs) return half ? v128.load32_splat(x, QD8_PAIR32 + 4) : v128.load32_splat(x, QD8_PAIR32);
  const sums = v128.load32_splat(x, QD8_PAIR8); // -8·Σx of both halves
  return half ? high_times(sums, 2) : low_times(sums, 2);
}
/** The lower or the upper 16 bits of a lane, times 2^n. */
// @ts-ignore: decorator
@inline function low_times(v: v128, n: i32): v128 { return i32x4.shr_s(i32x4.shl(v, 16), 16 - n); }
// @ts-ignore: decorator
@inline function high_times(v: v128, n: i32): v128 { return i32x4.shl(i32x4.shr_s(v, 16), n); }
/** The fourth vector, from the upper bits of three. */
// @ts-ignore: decorator
@inline function fourth(w: usize, two: v128): v128 {
  let v = i16x8.shr_u(v128.and(v128.load(w), two), 2);
  v = i16x8.shr_u(v128.or(v, v128.and(v128.load(w, 16), two)), 2);
  return i16x8.shr_u(v128.or(v, v128.and(v128.load(w, 32), two)), 2);
}
/** Consecutive groups of w against `rows` (1 to 4) rows of x; `pairs` as in qb4w. Unrolled by hand, loads next to their use. */
// @ts-ignore: decorator
@inline function relaxed(rows: i32, pairs: bool, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize, last: usize = 3): void {
  const m6 = v128.load(CONST + CONST_SIX), m2 = v128.load(CONST + CONST_TWO);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, pairs), xe = x + blocks * QD8_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
    let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x + last * xRow;
    for (; x0 < xe; ) {
      const d0 = load_f16x4(w, mask, up), d1 = load_f16x4(w + 8, mask, up);
      w += Q6KW_HEAD;
      for (const next = w + 8 * Q6KW_BLOCK; w < next; w += Q6KW_BLOCK) {
        let a00: v128, a01: v128, a10 = i32x4.splat(0), a11 = a10, a20 = a10, a21 = a10, a30 = a10, a31 = a10;
        let i00: v128, i01: v128, i10 = a10, i11 = a10, i20 = a10, i21 = a10, i30 = a10, i31 = a10;
        let v: v128, u: v128, w0: v128, w1: v128, s0: v128, s1: v128;
        w0 = v128.and(v128.load(w, 16), m6); w1 = v128.and(v128.load(w, 64), m6);
        v = v128.load32_splat(x0, 0); u = start(pairs, x0, 0); a00 = dot(pairs, v, w0, u); a01 = dot(pairs, v, w1, u);
        if (rows > 1) {
          v = v128.load32_splat(x1, 0); u = start(pairs, x1, 0); a10 = dot(pairs, v, w0, u); a11 = dot(pairs, v, w1, u);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 0); u = start(pairs, x2, 0); a20 = dot(pairs, v, w0, u); a21 = dot(pairs, v, w1, u);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 0); u = start(pairs, x3, 0); a30 = dot(pairs, v, w0, u); a31 = dot(pairs, v, w1, u);
        }
        w0 = v128.and(v128.load(w, 32), m6); w1 = v128.and(v128.load(w, 80), m6);
        v = v128.load32_splat(x0, 4); a00 = dot(pairs, v, w0, a00); a01 = dot(pairs, v, w1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 4); a10 = dot(pairs, v, w0, a10); a11 = dot(pairs, v, w1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 4); a20 = dot(pairs, v, w0, a20); a21 = dot(pairs, v, w1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 4); a30 = dot(pairs, v, w0, a30); a31 = dot(pairs, v, w1, a31);
        }
        w0 = v128.and(v128.load(w, 48), m6); w1 = v128.and(v128.load(w, 96), m6);
        v = v128.load32_splat(x0, 8); a00 = dot(pairs, v, w0, a00); a01 = dot(pairs, v, w1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 8); a10 = dot(pairs, v, w0, a10); a11 = dot(pairs, v, w1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 8); a20 = dot(pairs, v, w0, a20); a21 = dot(pairs, v, w1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 8); a30 = dot(pairs, v, w0, a30); a31 = dot(pairs, v, w1, a31);
        }
        w0 = fourth(w + 16, m2); w1 = fourth(w + 64, m2);
        v = v128.load32_splat(x0, 12); a00 = dot(pairs, v, w0, a00); a01 = dot(pairs, v, w1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 12); a10 = dot(pairs, v, w0, a10); a11 = dot(pairs, v, w1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 12); a20 = dot(pairs, v, w0, a20); a21 = dot(pairs, v, w1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 12); a30 = dot(pairs, v, w0, a30); a31 = dot(pairs, v, w1, a31);
        }
        v = v128.load8x8_s(w); s0 = low_scales(pairs, v); s1 = high_scales(pairs, v);
        i00 = scaled_sums(pairs, a00, s0); i01 = scaled_sums(pairs, a01, s1);
        if (rows > 1) {
          i10 = scaled_sums(pairs, a10, s0); i11 = scaled_sums(pairs, a11, s1);
        }
        if (rows > 2) {
          i20 = scaled_sums(pairs, a20, s0); i21 = scaled_sums(pairs, a21, s1);
        }
        if (rows > 3) {
          i30 = scaled_sums(pairs, a30, s0); i31 = scaled_sums(pairs, a31, s1);
        }
        w0 = v128.and(v128.load(w, 112), m6); w1 = v128.and(v128.load(w, 160), m6);
        v = v128.load32_splat(x0, 16); u = start(pairs, x0, 1); a00 = dot(pairs, v, w0, u); a01 = dot(pairs, v, w1, u);
        if (rows > 1) {
          v = v128.load32_splat(x1, 16); u = start(pairs, x1, 1); a10 = dot(pairs, v, w0, u); a11 = dot(pairs, v, w1, u);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 16); u = start(pairs, x2, 1); a20 = dot(pairs, v, w0, u); a21 = dot(pairs, v, w1, u);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 16); u = start(pairs, x3, 1); a30 = dot(pairs, v, w0, u); a31 = dot(pairs, v, w1, u);
        }
        w0 = v128.and(v128.load(w, 128), m6); w1 = v128.and(v128.load(w, 176), m6);
        v = v128.load32_splat(x0, 20); a00 = dot(pairs, v, w0, a00); a01 = dot(pairs, v, w1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 20); a10 = dot(pairs, v, w0, a10); a11 = dot(pairs, v, w1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 20); a20 = dot(pairs, v, w0, a20); a21 = dot(pairs, v, w1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 20); a30 = dot(pairs, v, w0, a30); a31 = dot(pairs, v, w1, a31);
        }
        w0 = v128.and(v128.load(w, 144), m6); w1 = v128.and(v128.load(w, 192), m6);
        v = v128.load32_splat(x0, 24); a00 = dot(pairs, v, w0, a00); a01 = dot(pairs, v, w1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 24); a10 = dot(pairs, v, w0, a10); a11 = dot(pairs, v, w1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 24); a20 = dot(pairs, v, w0, a20); a21 = dot(pairs, v, w1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 24); a30 = dot(pairs, v, w0, a30); a31 = dot(pairs, v, w1, a31);
        }
        w0 = fourth(w + 112, m2); w1 = fourth(w + 160, m2);
        v = v128.load32_splat(x0, 28); a00 = dot(pairs, v, w0, a00); a01 = dot(pairs, v, w1, a01);
        if (rows > 1) {
          v = v128.load32_splat(x1, 28); a10 = dot(pairs, v, w0, a10); a11 = dot(pairs, v, w1, a11);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, 28); a20 = dot(pairs, v, w0, a20); a21 = dot(pairs, v, w1, a21);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, 28); a30 = dot(pairs, v, w0, a30); a31 = dot(pairs, v, w1, a31);
        }
        v = v128.load8x8_s(w, 8); s0 = low_scales(pairs, v); s1 = high_scales(pairs, v);
        v = v128.load32_splat(x0, QD8_SCALE);
        f00 = scaled(i32x4.add(i00, scaled_sums(pairs, a00, s0)), f00, d0, v);
        f01 = scaled(i32x4.add(i01, scaled_sums(pairs, a01, s1)), f01, d1, v);
        if (rows > 1) {
          v = v128.load32_splat(x1, QD8_SCALE);
          f10 = scaled(i32x4.add(i10, scaled_sums(pairs, a10, s0)), f10, d0, v);
          f11 = scaled(i32x4.add(i11, scaled_sums(pairs, a11, s1)), f11, d1, v);
        }
        if (rows > 2) {
          v = v128.load32_splat(x2, QD8_SCALE);
          f20 = scaled(i32x4.add(i20, scaled_sums(pairs, a20, s0)), f20, d0, v);
          f21 = scaled(i32x4.add(i21, scaled_sums(pairs, a21, s1)), f21, d1, v);
        }
        if (rows > 3) {
          v = v128.load32_splat(x3, QD8_SCALE);
          f30 = scaled(i32x4.add(i30, scaled_sums(pairs, a30, s0)), f30, d0, v);
          f31 = scaled(i32x4.add(i31, scaled_sums(pairs, a31, s1)), f31, d1, v);
        }
        x0 += QD8_BLOCK;
        if (rows > 1) x1 += QD8_BLOCK;
        if (rows > 2) x2 += QD8_BLOCK;
        if (rows > 3) x3 += QD8_BLOCK;
      }
    }
    v128.store(y, f00); v128.store(y, f01, 16);
    if (rows > 1) { v128.store(y + yRow, f10); v128.store(y + yRow, f11, 16); }
    if (rows > 2) { v128.store(y + 2 * yRow, f20); v128.store(y + 2 * yRow, f21, 16); }
    if (rows > 3) { v128.store(y + last * yRow, f30); v128.store(y + last * yRow, f31, 16); }
  }
}

/** acc + the dots of 16 k of four rows, which are at w, with those of a row of x, each vector loaded once. */
// @ts-ignore: decorator
@inline function sixteen(w: usize, v0: v128, v1: v128, v2: v128, v3: v128, acc: v128, m6: v128, m2: v128): v128 {
  const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32);
  const a = dot_i8(v2, v128.and(w2, m6), dot_i8(v1, v128.and(w1, m6), dot_i8(v0, v128.and(w0, m6), acc)));
  const f = v128.or(i16x8.shr_u(v128.or(i16x8.shr_u(v128.and(w0, m2), 2), v128.and(w1, m2)), 2), v128.and(w2, m2));
  return dot_i8(v3, i16x8.shr_u(f, 2), a);
}

/** As in qb4w: one row of x against two runs of groups at a time. (With sums of pairs it gains nothing.) */
function dots__1x16(y: usize, x: usize, w: usize, blocks: usize, run: usize): void {
  const m6 = v128.load(CONST + CONST_SIX), m2 = v128.load(CONST + CONST_TWO);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BLOCK, z = run << 5;
  let u = w + run * blocks * Q6KW_BYTES;
  for (const end = u; w < end; y += 32) {
    let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
    for (let xp = x; xp < xe; ) {
      const d0 = load_f16x4(w, mask, up), d1 = load_f16x4(w + 8, mask, up), d2 = load_f16x4(u, mask, up), d3 = load_f16x4(u + 8, mask, up);
      w += Q6KW_HEAD; u += Q6KW_HEAD;
      for (const next = w + 8 * Q6KW_BLOCK; w < next; w += Q6KW_BLOCK, u += Q6KW_BLOCK, xp += QD8_BLOCK) {
        let v0 = v128.load32_splat(xp, 0), v1 = v128.load32_splat(xp, 4), v2 = v128.load32_splat(xp, 8), v3 = v128.load32_splat(xp, 12), b = start(false, xp, 0);
        let s = v128.load8x8_s(w), t = v128.load8x8_s(u);
        const i0 = scaled_sums(false, sixteen(w + 16, v0, v1, v2, v3, b, m6, m2), low_scales(false, s));
        const i1 = scaled_sums(false, sixteen(w + 64, v0, v1, v2, v3, b, m6, m2), high_scales(false, s));
        const i2 = scaled_sums(false, sixteen(u + 16, v0, v1, v2, v3, b, m6, m2), low_scales(false, t));
        const i3 = scaled_sums(false, sixteen(u + 64, v0, v1, v2, v3, b, m6, m2), high_scales(false, t));
        v0 = v128.load32_splat(xp, 16); v1 = v128.load32_splat(xp, 20); v2 = v128.load32_splat(xp, 24); v3 = v128.load32_splat(xp, 28); b = start(false, xp, 1);
        s = v128.load8x8_s(w, 8); t = v128.load8x8_s(u, 8);
        const v = v128.load32_splat(xp, QD8_SCALE);
        f0 = scaled(i32x4.add(i0, scaled_sums(false, sixteen(w + 112, v0, v1, v2, v3, b, m6, m2), low_scales(false, s))), f0, d0, v);
        f1 = scaled(i32x4.add(i1, scaled_sums(false, sixteen(w + 160, v0, v1, v2, v3, b, m6, m2), high_scales(false, s))), f1, d1, v);
        f2 = scaled(i32x4.add(i2, scaled_sums(false, sixteen(u + 112, v0, v1, v2, v3, b, m6, m2), low_scales(false, t))), f2, d2, v);
        f3 = scaled(i32x4.add(i3, scaled_sums(false, sixteen(u + 160, v0, v1, v2, v3, b, m6, m2), high_scales(false, t))), f3, d3, v);
      }
    }
    v128.store(y, f0); v128.store(y, f1, 16); v128.store(y + z, f2); v128.store(y + z, f3, 16);
  }
}
function dots__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, false, y, yRow, x, w, blocks, groups);
}
function dots__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(2, false, y, yRow, x, w, blocks, groups);
}
function dots__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize, last: usize): void {
  relaxed(4, false, y, yRow, x, w, blocks, groups, last);
}
function pairs__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, true, y, yRow, x, w, blocks, groups);
}
function pairs__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize, last: usize): void {
  relaxed(4, true, y, yRow, x, w, blocks, groups, last);
}

/** The plain tiles: the same integers, hence the same bits; qb8w says how a pair of bytes is taken apart. */
// @ts-ignore: decorator
@inline function plain(rows: i32, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m6 = v128.load(CONST + CONST_SIX), m2 = v128.load(CONST + CONST_TWO);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, true), begin = x + blocks * QD8_BLOCK, xe = begin + blocks * QD8_AGAIN_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, x0 = begin, x1 = x0 + xRow;
    for (; x0 < xe; ) {
      const d0 = load_f16x4(w, mask, up), d1 = load_f16x4(w + 8, mask, up);
      w += Q6KW_HEAD;
      for (const next = w + 8 * Q6KW_BLOCK; w < next; w += Q6KW_BLOCK) {
        let i00 = i32x4.splat(0), i01 = i00, i10 = i00, i11 = i00, v: v128, wi = w + 16;
        for (let half: usize = 0; half < 64; half += 32, wi += 48) {
          v = v128.load32_splat(x0, QD8_AGAIN_PAIR8);
          let a00 = half ? high_times(v, 10) : low_times(v, 10), a01 = a00, w0: v128, w1: v128, l0: v128, l1: v128; // 256 times -32·Σx
          if (rows > 1) v = v128.load32_splat(x1, QD8_AGAIN_PAIR8);
          let a10 = rows > 1 ? (half ? high_times(v, 10) : low_times(v, 10)) : i32x4.splat(0), a11 = a10;
          w0 = fourth(wi, m2); w1 = fourth(wi + 48, m2);
          l0 = i16x8.shl(w0, 8); l1 = i16x8.shl(w1, 8);
          v = v128.load32_splat(x0 + half, 24); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + half, 24); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          l0 = i16x8.shr_u(w0, 8); l1 = i16x8.shr_u(w1, 8);
          v = v128.load32_splat(x0 + half, 28); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
          if (rows > 1) { v = v128.load32_splat(x1 + half, 28); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          for (let i = half, e = half + 24; i < e; i += 8, wi += 16) {
            w0 = v128.and(v128.load(wi), m6); w1 = v128.and(v128.load(wi, 48), m6);
            l0 = i16x8.shl(w0, 8); l1 = i16x8.shl(w1, 8);
            v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
            if (rows > 1) { v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
            l0 = i16x8.shr_u(w0, 8); l1 = i16x8.shr_u(w1, 8);
            v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
            if (rows > 1) { v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
          }
          v = v128.load8x8_s(w + (half >> 2));
          const s0 = low_scales(false, v), s1 = high_scales(false, v);
          i00 = i32x4.add(i00, scaled_sums(false, i32x4.shr_s(a00, 8), s0)); i01 = i32x4.add(i01, scaled_sums(false, i32x4.shr_s(a01, 8), s1));
          if (rows > 1) {
            i10 = i32x4.add(i10, scaled_sums(false, i32x4.shr_s(a10, 8), s0)); i11 = i32x4.add(i11, scaled_sums(false, i32x4.shr_s(a11, 8), s1));
          }
        }
        v = v128.load32_splat(x0, QD8_AGAIN_SCALE);
        f00 = scaled(i00, f00, d0, v); f01 = scaled(i01, f01, d1, v);
        x0 += QD8_AGAIN_BLOCK;
        if (rows > 1) {
          v = v128.load32_splat(x1, QD8_AGAIN_SCALE);
          f10 = scaled(i10, f10, d0, v); f11 = scaled(i11, f11, d1, v);
          x1 += QD8_AGAIN_BLOCK;
        }
      }
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

/** The largest tile's rows. Three take it too and have their last row twice, which is faster than two and one (0.76 of the time from memory); in the plain build they are two and one, and with sums of pairs two are one and one. */
const MOST: usize = ASC_FEATURE_RELAXED_SIMD ? 4 : 2;

/** `rows` (1, 2 without PAIRS, 3 if relaxed, or MOST) rows of x against consecutive groups of w: a row gets the same bits from every tile. */
function tile(rows: usize, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  if (!ASC_FEATURE_RELAXED_SIMD) {
    if (rows == 1) plain__1x8(y, yRow, x, w, blocks, groups); else plain__2x8(y, yRow, x, w, blocks, groups);
  } else if (PAIRS) {
    if (rows == 1) pairs__1x8(y, yRow, x, w, blocks, groups); else pairs__4x8(y, yRow, x, w, blocks, groups, rows - 1);
  } else {
    if (rows == 1) dots__1x8(y, yRow, x, w, blocks, groups);
    else if (rows == 2) dots__2x8(y, yRow, x, w, blocks, groups);
    else dots__4x8(y, yRow, x, w, blocks, groups, rows - 1);
  }
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) qd8 · w (8·groups, 32·blocks) q6kw
 * needs: blocks % 8 == 0; 16-byte alignment; reads nothing past the end
 * cost:  streams N·K·6.5625/8 bytes of w once a call from memory, once per tile from L1
 */
export function matmul_qd8_q6kw(y: usize, yRow: usize, x: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  const xRow = qd8_row(blocks, QD8_TWICE), group = blocks * Q6KW_BYTES;
  if (ASC_FEATURE_RELAXED_SIMD) {
    const run = M == 1 && !PAIRS ? groups_per_run(groups, group, 2) : 0;
    if (run) {
      dots__1x16(y, x, w, blocks, run);
      y += run << 6; w += 2 * run * group; groups -= 2 * run;
    }
  }
  if (M == 1 || (M == 2 && !PAIRS) || M == MOST || (M == 3 && ASC_FEATURE_RELAXED_SIMD)) return tile(M, y, yRow, x, w, blocks, groups);
  for (let n = groups_per_pass(group); groups > 0; groups -= n, w += n * group, y += 32 * n) { // they stay in the second cache while x passes
    n = min(n, groups);
    let m = M, xp = x, yp = y;
    for (; m >= MOST; m -= MOST, xp += MOST * xRow, yp += MOST * yRow) tile(MOST, yp, yRow, xp, w, blocks, n);
    if (m == 3) { tile(3, yp, yRow, xp, w, blocks, n); continue; } // MOST is 4
    if (m >= 2 && !PAIRS) { tile(2, yp, yRow, xp, w, blocks, n); m -= 2; xp += 2 * xRow; yp += 2 * yRow; }
    for (; m > 0; m--, xp += xRow, yp += yRow) tile(1, yp, yRow, xp, w, blocks, n);
  }
}
