// int4 weights in blocks of 32 along K, int8 activations in blocks of 32: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each block: 8 f16 scales (16 bytes), then 8 vectors of 16 bytes; vector i of 4 (rows 0–3)
// and of 4 more (rows 4–7) holds, for each of four rows, four bytes: low nibbles k = 4i..4i+3, high nibbles k = 16+4i..16+4i+3,
// each stored as q + 8. That is a Q4_0 block's own nibble order: packing moves 4-byte pieces only.
// The accumulator starts at -8·Σx of the block, so the nibbles stay as stored; 4 bits are exact for every engine's dot.
import { QB4W_BYTES, QD8_BYTES, QD8_SCALE, QD8_SUM8 } from "../lib/blocks";
import { CONST, CONST_F16_MASK, CONST_F16_SCALE, CONST_NIBBLE, CONST_NIBBLE16, dot_i16, dot_i8, load_f16x4, scaled } from "../lib/simd";

/** Consecutive groups of w against one row of x. */
function relaxed__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE), mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BYTES;
  for (; groups > 0; groups--, y += 32) {
    let f0 = f32x4.splat(0), f1 = f32x4.splat(0);
    for (let xp = x; xp < xe; xp += QD8_BYTES, w += QB4W_BYTES) {
      let a0 = v128.load32_splat(xp, QD8_SUM8), a1 = a0;
      let xl = v128.load32_splat(xp, 0), xh = v128.load32_splat(xp, 16);
      let w0 = v128.load(w, 16), w1 = v128.load(w, 80);
      a0 = dot_i8(xl, v128.and(w0, m15), a0); a1 = dot_i8(xl, v128.and(w1, m15), a1);
      a0 = dot_i8(xh, v128.and(i16x8.shr_u(w0, 4), m15), a0); a1 = dot_i8(xh, v128.and(i16x8.shr_u(w1, 4), m15), a1);
      xl = v128.load32_splat(xp, 4); xh = v128.load32_splat(xp, 20);
      w0 = v128.load(w, 32); w1 = v128.load(w, 96);
      a0 = dot_i8(xl, v128.and(w0, m15), a0); a1 = dot_i8(xl, v128.and(w1, m15), a1);
      a0 = dot_i8(xh, v128.and(i16x8.shr_u(w0, 4), m15), a0); a1 = dot_i8(xh, v128.and(i16x8.shr_u(w1, 4), m15), a1);
      xl = v128.load32_splat(xp, 8); xh = v128.load32_splat(xp, 24);
      w0 = v128.load(w, 48); w1 = v128.load(w, 112);
      a0 = dot_i8(xl, v128.and(w0, m15), a0); a1 = dot_i8(xl, v128.and(w1, m15), a1);
      a0 = dot_i8(xh, v128.and(i16x8.shr_u(w0, 4), m15), a0); a1 = dot_i8(xh, v128.and(i16x8.shr_u(w1, 4), m15), a1);
      xl = v128.load32_splat(xp, 12); xh = v128.load32_splat(xp, 28);
      w0 = v128.load(w, 64); w1 = v128.load(w, 128);
      a0 = dot_i8(xl, v128.and(w0, m15), a0); a1 = dot_i8(xl, v128.and(w1, m15), a1);
      a0 = dot_i8(xh, v128.and(i16x8.shr_u(w0, 4), m15), a0); a1 = dot_i8(xh, v128.and(i16x8.shr_u(w1, 4), m15), a1);
      const t = v128.load32_splat(xp, QD8_SCALE);
      f0 = scaled(a0, f0, load_f16x4(w, mask, up), t);
      f1 = scaled(a1, f1, load_f16x4(w + 8, mask, up), t);
    }
    v128.store(y, f0); v128.store(y, f1, 16);
  }
}

/** One group of w against four rows of x; a row gets the same bits as from the 1x8 tile. */
function relaxed__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE), mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = blocks * QD8_BYTES;
  let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
  let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
  for (const xe = x1; x0 < xe; ) {
    let a00 = v128.load32_splat(x0, QD8_SUM8), a10 = v128.load32_splat(x1, QD8_SUM8);
    let a20 = v128.load32_splat(x2, QD8_SUM8), a30 = v128.load32_splat(x3, QD8_SUM8);
    let a01 = a00, a11 = a10, a21 = a20, a31 = a30;
    let w0 = v128.load(w, 16), w1 = v128.load(w, 80), l0 = v128.and(w0, m15), l1 = v128.and(w1, m15);
    let h0 = v128.and(i16x8.shr_u(w0, 4), m15), h1 = v128.and(i16x8.shr_u(w1, 4), m15);
    let v = v128.load32_splat(x0, 0); a00 = dot_i8(v, l0, a00); a01 = dot_i8(v, l1, a01);
    v = v128.load32_splat(x0, 16); a00 = dot_i8(v, h0, a00); a01 = dot_i8(v, h1, a01);
    v = v128.load32_splat(x1, 0); a10 = dot_i8(v, l0, a10); a11 = dot_i8(v, l1, a11);
    v = v128.load32_splat(x1, 16); a10 = dot_i8(v, h0, a10); a11 = dot_i8(v, h1, a11);
    v = v128.load32_splat(x2, 0); a20 = dot_i8(v, l0, a20); a21 = dot_i8(v, l1, a21);
    v = v128.load32_splat(x2, 16); a20 = dot_i8(v, h0, a20); a21 = dot_i8(v, h1, a21);
    v = v128.load32_splat(x3, 0); a30 = dot_i8(v, l0, a30); a31 = dot_i8(v, l1, a31);
    v = v128.load32_splat(x3, 16); a30 = dot_i8(v, h0, a30); a31 = dot_i8(v, h1, a31);
    w0 = v128.load(w, 32); w1 = v128.load(w, 96); l0 = v128.and(w0, m15); l1 = v128.and(w1, m15);
    h0 = v128.and(i16x8.shr_u(w0, 4), m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
    v = v128.load32_splat(x0, 4); a00 = dot_i8(v, l0, a00); a01 = dot_i8(v, l1, a01);
    v = v128.load32_splat(x0, 20); a00 = dot_i8(v, h0, a00); a01 = dot_i8(v, h1, a01);
    v = v128.load32_splat(x1, 4); a10 = dot_i8(v, l0, a10); a11 = dot_i8(v, l1, a11);
    v = v128.load32_splat(x1, 20); a10 = dot_i8(v, h0, a10); a11 = dot_i8(v, h1, a11);
    v = v128.load32_splat(x2, 4); a20 = dot_i8(v, l0, a20); a21 = dot_i8(v, l1, a21);
    v = v128.load32_splat(x2, 20); a20 = dot_i8(v, h0, a20); a21 = dot_i8(v, h1, a21);
    v = v128.load32_splat(x3, 4); a30 = dot_i8(v, l0, a30); a31 = dot_i8(v, l1, a31);
    v = v128.load32_splat(x3, 20); a30 = dot_i8(v, h0, a30); a31 = dot_i8(v, h1, a31);
    w0 = v128.load(w, 48); w1 = v128.load(w, 112); l0 = v128.and(w0, m15); l1 = v128.and(w1, m15);
    h0 = v128.and(i16x8.shr_u(w0, 4), m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
    v = v128.load32_splat(x0, 8); a00 = dot_i8(v, l0, a00); a01 = dot_i8(v, l1, a01);
    v = v128.load32_splat(x0, 24); a00 = dot_i8(v, h0, a00); a01 = dot_i8(v, h1, a01);
    v = v128.load32_splat(x1, 8); a10 = dot_i8(v, l0, a10); a11 = dot_i8(v, l1, a11);
    v = v128.load32_splat(x1, 24); a10 = dot_i8(v, h0, a10); a11 = dot_i8(v, h1, a11);
    v = v128.load32_splat(x2, 8); a20 = dot_i8(v, l0, a20); a21 = dot_i8(v, l1, a21);
    v = v128.load32_splat(x2, 24); a20 = dot_i8(v, h0, a20); a21 = dot_i8(v, h1, a21);
    v = v128.load32_splat(x3, 8); a30 = dot_i8(v, l0, a30); a31 = dot_i8(v, l1, a31);
    v = v128.load32_splat(x3, 24); a30 = dot_i8(v, h0, a30); a31 = dot_i8(v, h1, a31);
    w0 = v128.load(w, 64); w1 = v128.load(w, 128); l0 = v128.and(w0, m15); l1 = v128.and(w1, m15);
    h0 = v128.and(i16x8.shr_u(w0, 4), m15); h1 = v128.and(i16x8.shr_u(w1, 4), m15);
    v = v128.load32_splat(x0, 12); a00 = dot_i8(v, l0, a00); a01 = dot_i8(v, l1, a01);
    v = v128.load32_splat(x0, 28); a00 = dot_i8(v, h0, a00); a01 = dot_i8(v, h1, a01);
    v = v128.load32_splat(x1, 12); a10 = dot_i8(v, l0, a10); a11 = dot_i8(v, l1, a11);
    v = v128.load32_splat(x1, 28); a10 = dot_i8(v, h0, a10); a11 = dot_i8(v, h1, a11);
    v = v128.load32_splat(x2, 12); a20 = dot_i8(v, l0, a20); a21 = dot_i8(v, l1, a21);
    v = v128.load32_splat(x2, 28); a20 = dot_i8(v, h0, a20); a21 = dot_i8(v, h1, a21);
    v = v128.load32_splat(x3, 12); a30 = dot_i8(v, l0, a30); a31 = dot_i8(v, l1, a31);
    v = v128.load32_splat(x3, 28); a30 = dot_i8(v, h0, a30); a31 = dot_i8(v, h1, a31);
    const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
    let t = v128.load32_splat(x0, QD8_SCALE); f00 = scaled(a00, f00, s0, t); f01 = scaled(a01, f01, s1, t);
    t = v128.load32_splat(x1, QD8_SCALE); f10 = scaled(a10, f10, s0, t); f11 = scaled(a11, f11, s1, t);
    t = v128.load32_splat(x2, QD8_SCALE); f20 = scaled(a20, f20, s0, t); f21 = scaled(a21, f21, s1, t);
    t = v128.load32_splat(x3, QD8_SCALE); f30 = scaled(a30, f30, s0, t); f31 = scaled(a31, f31, s1, t);
    w += QB4W_BYTES; x0 += QD8_BYTES; x1 += QD8_BYTES; x2 += QD8_BYTES; x3 += QD8_BYTES;
  }
  v128.store(y, f00); v128.store(y, f01, 16); y += yRow;
  v128.store(y, f10); v128.store(y, f11, 16); y += yRow;
  v128.store(y, f20); v128.store(y, f21, 16); y += yRow;
  v128.store(y, f30); v128.store(y, f31, 16);
}

/** The plain build's 1x8: the same integers, hence the same bits. A byte pair splits into four planes of 16-bit lanes. */
function plain__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE16), mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BYTES;
  for (; groups > 0; groups--, y += 32) {
    let f0 = f32x4.splat(0), f1 = f32x4.splat(0);
    for (let xp = x; xp < xe; xp += QD8_BYTES, w += QB4W_BYTES) {
      let a0 = v128.load32_splat(xp, QD8_SUM8), a1 = a0, wi = w, xi = xp;
      for (let i: usize = 0; i < 4; i++, wi += 16, xi += 8) {
        const w0 = v128.load(wi, 16), w1 = v128.load(wi, 80), k0 = v128.load32_splat(xi), k1 = v128.load32_splat(xi, 4);
        const k16 = v128.load32_splat(xi, 32), k17 = v128.load32_splat(xi, 36);
        a0 = dot_i16(k0, v128.and(w0, m15), a0); a1 = dot_i16(k0, v128.and(w1, m15), a1);
        a0 = dot_i16(k16, v128.and(i16x8.shr_u(w0, 4), m15), a0); a1 = dot_i16(k16, v128.and(i16x8.shr_u(w1, 4), m15), a1);
        a0 = dot_i16(k1, v128.and(i16x8.shr_u(w0, 8), m15), a0); a1 = dot_i16(k1, v128.and(i16x8.shr_u(w1, 8), m15), a1);
        a0 = dot_i16(k17, i16x8.shr_u(w0, 12), a0); a1 = dot_i16(k17, i16x8.shr_u(w1, 12), a1);
      }
      const t = v128.load32_splat(xp, QD8_SCALE);
      f0 = scaled(a0, f0, load_f16x4(w, mask, up), t);
      f1 = scaled(a1, f1, load_f16x4(w + 8, mask, up), t);
    }
    v128.store(y, f0); v128.store(y, f1, 16);
  }
}

function plain__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  const m15 = v128.load(CONST + CONST_NIBBLE16), mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = blocks * QD8_BYTES;
  let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
  let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
  for (const xe = x1; x0 < xe; ) {
    let a00 = v128.load32_splat(x0, QD8_SUM8), a10 = v128.load32_splat(x1, QD8_SUM8);
    let a20 = v128.load32_splat(x2, QD8_SUM8), a30 = v128.load32_splat(x3, QD8_SUM8);
    let a01 = a00, a11 = a10, a21 = a20, a31 = a30, wi = w + 16;
    for (let i: usize = 0; i < 32; i += 8, wi += 16) {
      const w0 = v128.load(wi), w1 = v128.load(wi, 64);
      let l0 = v128.and(w0, m15), l1 = v128.and(w1, m15);
      let v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
      v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11);
      v = v128.load32_splat(x2 + i); a20 = dot_i16(v, l0, a20); a21 = dot_i16(v, l1, a21);
      v = v128.load32_splat(x3 + i); a30 = dot_i16(v, l0, a30); a31 = dot_i16(v, l1, a31);
      l0 = v128.and(i16x8.shr_u(w0, 8), m15); l1 = v128.and(i16x8.shr_u(w1, 8), m15);
      v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
      v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11);
      v = v128.load32_splat(x2 + i, 4); a20 = dot_i16(v, l0, a20); a21 = dot_i16(v, l1, a21);
      v = v128.load32_splat(x3 + i, 4); a30 = dot_i16(v, l0, a30); a31 = dot_i16(v, l1, a31);
      l0 = v128.and(i16x8.shr_u(w0, 4), m15); l1 = v128.and(i16x8.shr_u(w1, 4), m15);
      v = v128.load32_splat(x0 + i, 32); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
      v = v128.load32_splat(x1 + i, 32); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11);
      v = v128.load32_splat(x2 + i, 32); a20 = dot_i16(v, l0, a20); a21 = dot_i16(v, l1, a21);
      v = v128.load32_splat(x3 + i, 32); a30 = dot_i16(v, l0, a30); a31 = dot_i16(v, l1, a31);
      l0 = i16x8.shr_u(w0, 12); l1 = i16x8.shr_u(w1, 12);
      v = v128.load32_splat(x0 + i, 36); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
      v = v128.load32_splat(x1 + i, 36); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11);
      v = v128.load32_splat(x2 + i, 36); a20 = dot_i16(v, l0, a20); a21 = dot_i16(v, l1, a21);
      v = v128.load32_splat(x3 + i, 36); a30 = dot_i16(v, l0, a30); a31 = dot_i16(v, l1, a31);
    }
    const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
    let t = v128.load32_splat(x0, QD8_SCALE); f00 = scaled(a00, f00, s0, t); f01 = scaled(a01, f01, s1, t);
    t = v128.load32_splat(x1, QD8_SCALE); f10 = scaled(a10, f10, s0, t); f11 = scaled(a11, f11, s1, t);
    t = v128.load32_splat(x2, QD8_SCALE); f20 = scaled(a20, f20, s0, t); f21 = scaled(a21, f21, s1, t);
    t = v128.load32_splat(x3, QD8_SCALE); f30 = scaled(a30, f30, s0, t); f31 = scaled(a31, f31, s1, t);
    w += QB4W_BYTES; x0 += QD8_BYTES; x1 += QD8_BYTES; x2 += QD8_BYTES; x3 += QD8_BYTES;
  }
  v128.store(y, f00); v128.store(y, f01, 16); y += yRow;
  v128.store(y, f10); v128.store(y, f11, 16); y += yRow;
  v128.store(y, f20); v128.store(y, f21, 16); y += yRow;
  v128.store(y, f30); v128.store(y, f31, 16);
}

// @ts-ignore: decorator
@inline function tile__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  if (ASC_FEATURE_RELAXED_SIMD) relaxed__1x8(y, x, w, blocks, groups); else plain__1x8(y, x, w, blocks, groups);
}

// @ts-ignore: decorator
@inline function tile__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  if (ASC_FEATURE_RELAXED_SIMD) relaxed__4x8(y, yRow, x, w, blocks); else plain__4x8(y, yRow, x, w, blocks);
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) qd8 · w (8·groups, 32·blocks) qb4w
 * needs: 16-byte alignment; reads nothing past the end
 * cost:  streams N·K·4.5/8 bytes of w once a call from memory, once per 4 rows of x from L1
 */
export function matmul_qd8_qb4w(y: usize, yRow: usize, x: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  if (M == 1) return tile__1x8(y, x, w, blocks, groups);
  const xRow = blocks * QD8_BYTES, group = blocks * QB4W_BYTES;
  for (; groups > 0; groups--, w += group, y += 32) { // the group stays in L1 while x passes
    let m = M, xp = x, yp = y;
    for (; m >= 4; m -= 4, xp += 4 * xRow, yp += 4 * yRow) tile__4x8(yp, yRow, xp, w, blocks);
    for (; m > 0; m--, xp += xRow, yp += yRow) tile__1x8(yp, xp, w, blocks, 1);
  }
}
