// int8 weights in blocks of 32 along K, int8 activations in blocks of 32: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each block: 8 f16 scales (16 bytes), then 16 vectors of 16 bytes; vector i of 8 (rows 0–3) and
// of 8 more (rows 4–7) holds k = 4i..4i+3 of four rows.
// The relaxed build multiplies 8 by 8 bits with one dot and stays exact, because the packer stores the bytes as the engine's dot reads its right
// operand (dot_operand_kind): biased by 128 where it reads unsigned, signed where it reads signed. Where it does neither (x86 without AVX-VNNI), the
// dot that sums pairs only reads unsigned bytes right; it is exact for activations in two halves.
// A tile's rows are a compile-time constant of one inlined body: the tests of `rows` cost nothing.
import {
  groups_per_pass, groups_per_run, PAIRS, QB8W_BYTES, QD8_AGAIN_BIAS, QD8_AGAIN_BLOCK, QD8_AGAIN_SCALE, QD8_BLOCK, qd8_row, QD8_SCALE, QD8_SUM_BIAS,
  QD8_TWICE,
} from "../lib/blocks";
import {
  CONST, CONST_F16_MASK, CONST_F16_SCALE, CONST_ONE16, CONST_SIXTEEN16, dot_i16, dot_i8, load_f16x4, pair_i8, scaled,
} from "../lib/simd";

/** Consecutive groups of w against `rows` (1 to 4) rows of x: one dot for a vector of w. Unrolled by hand, loads next to their use. */
// @ts-ignore: decorator
@inline function relaxed(rows: i32, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, false), xe = x + blocks * QD8_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
    let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
    for (; x0 < xe; ) {
      let a00 = v128.load32_splat(x0, QD8_SUM_BIAS), a01 = a00;
      let a10 = rows > 1 ? v128.load32_splat(x1, QD8_SUM_BIAS) : i32x4.splat(0), a11 = a10;
      let a20 = rows > 2 ? v128.load32_splat(x2, QD8_SUM_BIAS) : i32x4.splat(0), a21 = a20;
      let a30 = rows > 3 ? v128.load32_splat(x3, QD8_SUM_BIAS) : i32x4.splat(0), a31 = a30;
      let v: v128, w0: v128, w1: v128;
      w0 = v128.load(w, 16); w1 = v128.load(w, 144);
      v = v128.load32_splat(x0, 0); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 0); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 0); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 0); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 32); w1 = v128.load(w, 160);
      v = v128.load32_splat(x0, 4); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 4); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 4); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 4); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 48); w1 = v128.load(w, 176);
      v = v128.load32_splat(x0, 8); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 8); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 8); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 8); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 64); w1 = v128.load(w, 192);
      v = v128.load32_splat(x0, 12); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 12); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 12); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 12); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 80); w1 = v128.load(w, 208);
      v = v128.load32_splat(x0, 16); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 16); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 16); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 16); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 96); w1 = v128.load(w, 224);
      v = v128.load32_splat(x0, 20); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 20); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 20); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 20); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 112); w1 = v128.load(w, 240);
      v = v128.load32_splat(x0, 24); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 24); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 24); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 24); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      w0 = v128.load(w, 128); w1 = v128.load(w, 256);
      v = v128.load32_splat(x0, 28); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
      if (rows > 1) { v = v128.load32_splat(x1, 28); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11); }
      if (rows > 2) { v = v128.load32_splat(x2, 28); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21); }
      if (rows > 3) { v = v128.load32_splat(x3, 28); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31); }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
      v = v128.load32_splat(x0, QD8_SCALE); f00 = scaled(a00, f00, s0, v); f01 = scaled(a01, f01, s1, v);
      if (rows > 1) { v = v128.load32_splat(x1, QD8_SCALE); f10 = scaled(a10, f10, s0, v); f11 = scaled(a11, f11, s1, v); }
      if (rows > 2) { v = v128.load32_splat(x2, QD8_SCALE); f20 = scaled(a20, f20, s0, v); f21 = scaled(a21, f21, s1, v); }
      if (rows > 3) { v = v128.load32_splat(x3, QD8_SCALE); f30 = scaled(a30, f30, s0, v); f31 = scaled(a31, f31, s1, v); }
      w += QB8W_BYTES; x0 += QD8_BLOCK;
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

/** A block of two groups against one row of x, added to the eight sums of each at y and z. */
// @ts-ignore: decorator
@inline function two_blocks(y: usize, z: usize, x: usize, w: usize, u: usize, mask: v128, up: v128): void {
  let a0 = v128.load32_splat(x, QD8_SUM_BIAS), a1 = a0, a2 = a0, a3 = a0;
  let v = v128.load32_splat(x, 0);
  a0 = dot_i8(v, v128.load(w, 16), a0); a1 = dot_i8(v, v128.load(w, 144), a1);
  a2 = dot_i8(v, v128.load(u, 16), a2); a3 = dot_i8(v, v128.load(u, 144), a3);
  v = v128.load32_splat(x, 4);
  a0 = dot_i8(v, v128.load(w, 32), a0); a1 = dot_i8(v, v128.load(w, 160), a1);
  a2 = dot_i8(v, v128.load(u, 32), a2); a3 = dot_i8(v, v128.load(u, 160), a3);
  v = v128.load32_splat(x, 8);
  a0 = dot_i8(v, v128.load(w, 48), a0); a1 = dot_i8(v, v128.load(w, 176), a1);
  a2 = dot_i8(v, v128.load(u, 48), a2); a3 = dot_i8(v, v128.load(u, 176), a3);
  v = v128.load32_splat(x, 12);
  a0 = dot_i8(v, v128.load(w, 64), a0); a1 = dot_i8(v, v128.load(w, 192), a1);
  a2 = dot_i8(v, v128.load(u, 64), a2); a3 = dot_i8(v, v128.load(u, 192), a3);
  v = v128.load32_splat(x, 16);
  a0 = dot_i8(v, v128.load(w, 80), a0); a1 = dot_i8(v, v128.load(w, 208), a1);
  a2 = dot_i8(v, v128.load(u, 80), a2); a3 = dot_i8(v, v128.load(u, 208), a3);
  v = v128.load32_splat(x, 20);
  a0 = dot_i8(v, v128.load(w, 96), a0); a1 = dot_i8(v, v128.load(w, 224), a1);
  a2 = dot_i8(v, v128.load(u, 96), a2); a3 = dot_i8(v, v128.load(u, 224), a3);
  v = v128.load32_splat(x, 24);
  a0 = dot_i8(v, v128.load(w, 112), a0); a1 = dot_i8(v, v128.load(w, 240), a1);
  a2 = dot_i8(v, v128.load(u, 112), a2); a3 = dot_i8(v, v128.load(u, 240), a3);
  v = v128.load32_splat(x, 28);
  a0 = dot_i8(v, v128.load(w, 128), a0); a1 = dot_i8(v, v128.load(w, 256), a1);
  a2 = dot_i8(v, v128.load(u, 128), a2); a3 = dot_i8(v, v128.load(u, 256), a3);
  v = v128.load32_splat(x, QD8_SCALE);
  v128.store(y, scaled(a0, v128.load(y), load_f16x4(w, mask, up), v));
  v128.store(y, scaled(a1, v128.load(y, 16), load_f16x4(w + 8, mask, up), v), 16);
  v128.store(z, scaled(a2, v128.load(z), load_f16x4(u, mask, up), v));
  v128.store(z, scaled(a3, v128.load(z, 16), load_f16x4(u + 8, mask, up), v), 16);
}
/** Runs at a time: of these weights memory is all that a product waits for. */
const RUNS: usize = 4;

/** One row of x against RUNS runs of so many groups, as in qb4w. (Activations in two halves are bound by instructions, and have no such tile.) */
function dots__1x32(y: usize, x: usize, w: usize, blocks: usize, run: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BLOCK, bytes = run * blocks * QB8W_BYTES, z = run << 5;
  memory.fill(y, 0, RUNS * z);
  for (const end = w + bytes; w < end; y += 32)
    for (let xp = x; xp < xe; xp += QD8_BLOCK, w += QB8W_BYTES) {
      two_blocks(y, y + z, xp, w, w + bytes, mask, up);
      two_blocks(y + 2 * z, y + 3 * z, xp, w + 2 * bytes, w + 3 * bytes, mask, up);
    }
}

function dots__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(1, y, yRow, x, w, blocks, groups);
}
function dots__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(2, y, yRow, x, w, blocks, groups);
}
function dots__3x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(3, y, yRow, x, w, blocks, groups);
}
function dots__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  relaxed(4, y, yRow, x, w, blocks, groups);
}

// @ts-ignore: decorator
@inline function pair(x: v128, w: v128): v128 { return i16x8.relaxed_dot_i8x16_i7x16_s(x, w); }

/**
 * Where one dot of 8 by 8 bits is not exact: activations in two halves, x = 16·high + low, both in -8..8. A product with a byte of w (q + 128) is at
 * most 255·8 in size, two a lane, eight times: 32,640 fits the lane's 16 bits. Two rows at most: eight sums fit the registers.
 */
// @ts-ignore: decorator
@inline function pairs(rows: i32, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const one = v128.load(CONST + CONST_ONE16), sixteen = v128.load(CONST + CONST_SIXTEEN16);
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, true), first = x + blocks * QD8_BLOCK, xe = first + blocks * QD8_AGAIN_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, x0 = first, x1 = x0 + xRow;
    for (; x0 < xe; ) {
      let l10 = f00, l11 = f00, h10 = f00, h11 = f00;
      let w0 = v128.load(w, 16), w1 = v128.load(w, 144), v = v128.load32_splat(x0, 0), l00 = pair(v, w0), l01 = pair(v, w1);
      v = v128.load32_splat(x0, 32);
      let h00 = pair(v, w0), h01 = pair(v, w1);
      if (rows > 1) {
        v = v128.load32_splat(x1, 0); l10 = pair(v, w0); l11 = pair(v, w1);
        v = v128.load32_splat(x1, 32); h10 = pair(v, w0); h11 = pair(v, w1);
      }
      w0 = v128.load(w, 32); w1 = v128.load(w, 160);
      v = v128.load32_splat(x0, 4); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 36); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 4); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 36); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      w0 = v128.load(w, 48); w1 = v128.load(w, 176);
      v = v128.load32_splat(x0, 8); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 40); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 8); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 40); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      w0 = v128.load(w, 64); w1 = v128.load(w, 192);
      v = v128.load32_splat(x0, 12); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 44); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 12); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 44); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      w0 = v128.load(w, 80); w1 = v128.load(w, 208);
      v = v128.load32_splat(x0, 16); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 48); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 16); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 48); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      w0 = v128.load(w, 96); w1 = v128.load(w, 224);
      v = v128.load32_splat(x0, 20); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 52); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 20); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 52); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      w0 = v128.load(w, 112); w1 = v128.load(w, 240);
      v = v128.load32_splat(x0, 24); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 56); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 24); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 56); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      w0 = v128.load(w, 128); w1 = v128.load(w, 256);
      v = v128.load32_splat(x0, 28); l00 = pair_i8(v, w0, l00); l01 = pair_i8(v, w1, l01);
      v = v128.load32_splat(x0, 60); h00 = pair_i8(v, w0, h00); h01 = pair_i8(v, w1, h01);
      if (rows > 1) {
        v = v128.load32_splat(x1, 28); l10 = pair_i8(v, w0, l10); l11 = pair_i8(v, w1, l11);
        v = v128.load32_splat(x1, 60); h10 = pair_i8(v, w0, h10); h11 = pair_i8(v, w1, h11);
      }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
      let b = v128.load32_splat(x0, QD8_AGAIN_BIAS);
      v = v128.load32_splat(x0, QD8_AGAIN_SCALE);
      f00 = scaled(dot_i16(l00, one, dot_i16(h00, sixteen, b)), f00, s0, v); f01 = scaled(dot_i16(l01, one, dot_i16(h01, sixteen, b)), f01, s1, v);
      if (rows > 1) {
        b = v128.load32_splat(x1, QD8_AGAIN_BIAS);
        v = v128.load32_splat(x1, QD8_AGAIN_SCALE);
        f10 = scaled(dot_i16(l10, one, dot_i16(h10, sixteen, b)), f10, s0, v); f11 = scaled(dot_i16(l11, one, dot_i16(h11, sixteen, b)), f11, s1, v);
      }
      w += QB8W_BYTES; x0 += QD8_AGAIN_BLOCK;
      if (rows > 1) x1 += QD8_AGAIN_BLOCK;
    }
    v128.store(y, f00); v128.store(y, f01, 16);
    if (rows > 1) { v128.store(y + yRow, f10); v128.store(y + yRow, f11, 16); }
  }
}

function pairs__1x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  pairs(1, y, yRow, x, w, blocks, groups);
}
function pairs__2x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  pairs(2, y, yRow, x, w, blocks, groups);
}

/**
 * The plain tiles: the same integers, hence the same bits. Even and odd bytes of a pair are widened to 16 bits apart, by one instruction each:
 * the even ones become 256 times themselves, and for the odd ones x is, so that every product is 256 times the true one.
 * Two rows at a time: V8 before version 12 loads all operands of a loop body first, and these fit its 15 registers.
 */
// @ts-ignore: decorator
@inline function plain(rows: i32, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = qd8_row(blocks, true), first = x + blocks * QD8_BLOCK, xe = first + blocks * QD8_AGAIN_BLOCK;
  for (; groups > 0; groups--, y += 32) {
    let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, x0 = first, x1 = x0 + xRow;
    for (; x0 < xe; ) {
      let a00 = i32x4.splat(0), a01 = a00, a10 = a00, a11 = a00, v: v128, l0: v128, l1: v128, wi = w + 16;
      for (let i: usize = 0; i < 64; i += 8, wi += 16) {
        const w0 = v128.load(wi), w1 = v128.load(wi, 128);
        l0 = i16x8.shl(w0, 8); l1 = i16x8.shl(w1, 8);
        v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
        if (rows > 1) { v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
        l0 = i16x8.shr_s(w0, 8); l1 = i16x8.shr_s(w1, 8);
        v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
        if (rows > 1) { v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11); }
      }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
      v = v128.load32_splat(x0, QD8_AGAIN_SCALE);
      f00 = scaled(i32x4.shr_s(a00, 8), f00, s0, v); f01 = scaled(i32x4.shr_s(a01, 8), f01, s1, v);
      if (rows > 1) {
        v = v128.load32_splat(x1, QD8_AGAIN_SCALE);
        f10 = scaled(i32x4.shr_s(a10, 8), f10, s0, v); f11 = scaled(i32x4.shr_s(a11, 8), f11, s1, v);
      }
      w += QB8W_BYTES; x0 += QD8_AGAIN_BLOCK;
      if (rows > 1) x1 += QD8_AGAIN_BLOCK;
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
const MOST: usize = ASC_FEATURE_RELAXED_SIMD && !PAIRS ? 4 : 2;

/** `rows` (1 to MOST) rows of x against consecutive groups of w: a row gets the same bits from every tile. */
function tile(rows: usize, y: usize, yRow: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  if (!ASC_FEATURE_RELAXED_SIMD) {
    if (rows == 1) plain__1x8(y, yRow, x, w, blocks, groups); else plain__2x8(y, yRow, x, w, blocks, groups);
  } else if (PAIRS) {
    if (rows == 1) pairs__1x8(y, yRow, x, w, blocks, groups); else pairs__2x8(y, yRow, x, w, blocks, groups);
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
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) qd8 · w (8·groups, 32·blocks) qb8w
 * needs: 16-byte alignment; reads nothing past the end
 * cost:  streams N·K·8.5/8 bytes of w once a call from memory, once per tile from L1
 */
export function matmul_qd8_qb8w(y: usize, yRow: usize, x: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  const xRow = qd8_row(blocks, QD8_TWICE), group = blocks * QB8W_BYTES;
  if (ASC_FEATURE_RELAXED_SIMD) {
    const run = M == 1 && !PAIRS ? groups_per_run(groups, group, RUNS) : 0;
    if (run) {
      dots__1x32(y, x, w, blocks, run);
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
