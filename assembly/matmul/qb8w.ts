// int8 weights in blocks of 32 along K, int8 activations in blocks of 32: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each block: 8 f16 scales (16 bytes), then 16 vectors of 16 bytes; vector i of 8 (rows 0–3) and
// of 8 more (rows 4–7) holds k = 4i..4i+3 of four rows.
// The relaxed build multiplies 8 by 8 bits with one dot and stays exact, because the packer stores the bytes as the engine's dot reads its right
// operand (dot_operand_kind): biased by 128 where it reads unsigned, signed where it reads signed. Where it does neither (x86 without AVX-VNNI), the
// biased bytes are taken in two nibbles, which fit the 7 bits that every engine reads right.
import { DOT_KIND, QB8W_BYTES, QD8_BYTES, QD8_SCALE, QD8_SUM_BIAS } from "../lib/blocks";
import { CONST, CONST_F16_MASK, CONST_F16_SCALE, CONST_NIBBLE, dot_i16, dot_i8, load_f16x4, scaled } from "../lib/simd";

/** Consecutive groups of w against one row of x. */
function relaxed__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BYTES;
  for (; groups > 0; groups--, y += 32) {
    let f0 = f32x4.splat(0), f1 = f32x4.splat(0);
    for (let xp = x; xp < xe; xp += QD8_BYTES, w += QB8W_BYTES) {
      let a0 = v128.load32_splat(xp, QD8_SUM_BIAS), a1 = a0;
      let w0 = v128.load(w, 16), w1 = v128.load(w, 144);
      let v = v128.load32_splat(xp, 0); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 32); w1 = v128.load(w, 160);
      v = v128.load32_splat(xp, 4); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 48); w1 = v128.load(w, 176);
      v = v128.load32_splat(xp, 8); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 64); w1 = v128.load(w, 192);
      v = v128.load32_splat(xp, 12); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 80); w1 = v128.load(w, 208);
      v = v128.load32_splat(xp, 16); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 96); w1 = v128.load(w, 224);
      v = v128.load32_splat(xp, 20); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 112); w1 = v128.load(w, 240);
      v = v128.load32_splat(xp, 24); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      w0 = v128.load(w, 128); w1 = v128.load(w, 256);
      v = v128.load32_splat(xp, 28); a0 = dot_i8(v, w0, a0); a1 = dot_i8(v, w1, a1);
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up), t = v128.load32_splat(xp, QD8_SCALE);
      f0 = scaled(a0, f0, s0, t); f1 = scaled(a1, f1, s1, t);
    }
    v128.store(y, f0); v128.store(y, f1, 16);
  }
}

/** One group of w against four rows of x; a row gets the same bits as from the 1x8 tile. */
function relaxed__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = blocks * QD8_BYTES;
  let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
  let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
  for (const xe = x1; x0 < xe; ) {
    let a00 = v128.load32_splat(x0, QD8_SUM_BIAS), a10 = v128.load32_splat(x1, QD8_SUM_BIAS);
    let a20 = v128.load32_splat(x2, QD8_SUM_BIAS), a30 = v128.load32_splat(x3, QD8_SUM_BIAS);
    let a01 = a00, a11 = a10, a21 = a20, a31 = a30;
    let w0 = v128.load(w, 16), w1 = v128.load(w, 144);
    let v = v128.load32_splat(x0, 0); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 0); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 0); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 0); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 32); w1 = v128.load(w, 160);
    v = v128.load32_splat(x0, 4); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 4); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 4); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 4); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 48); w1 = v128.load(w, 176);
    v = v128.load32_splat(x0, 8); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 8); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 8); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 8); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 64); w1 = v128.load(w, 192);
    v = v128.load32_splat(x0, 12); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 12); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 12); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 12); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 80); w1 = v128.load(w, 208);
    v = v128.load32_splat(x0, 16); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 16); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 16); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 16); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 96); w1 = v128.load(w, 224);
    v = v128.load32_splat(x0, 20); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 20); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 20); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 20); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 112); w1 = v128.load(w, 240);
    v = v128.load32_splat(x0, 24); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 24); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 24); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 24); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    w0 = v128.load(w, 128); w1 = v128.load(w, 256);
    v = v128.load32_splat(x0, 28); a00 = dot_i8(v, w0, a00); a01 = dot_i8(v, w1, a01);
    v = v128.load32_splat(x1, 28); a10 = dot_i8(v, w0, a10); a11 = dot_i8(v, w1, a11);
    v = v128.load32_splat(x2, 28); a20 = dot_i8(v, w0, a20); a21 = dot_i8(v, w1, a21);
    v = v128.load32_splat(x3, 28); a30 = dot_i8(v, w0, a30); a31 = dot_i8(v, w1, a31);
    const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
    let t = v128.load32_splat(x0, QD8_SCALE); f00 = scaled(a00, f00, s0, t); f01 = scaled(a01, f01, s1, t);
    t = v128.load32_splat(x1, QD8_SCALE); f10 = scaled(a10, f10, s0, t); f11 = scaled(a11, f11, s1, t);
    t = v128.load32_splat(x2, QD8_SCALE); f20 = scaled(a20, f20, s0, t); f21 = scaled(a21, f21, s1, t);
    t = v128.load32_splat(x3, QD8_SCALE); f30 = scaled(a30, f30, s0, t); f31 = scaled(a31, f31, s1, t);
    w += QB8W_BYTES; x0 += QD8_BYTES; x1 += QD8_BYTES; x2 += QD8_BYTES; x3 += QD8_BYTES;
  }
  v128.store(y, f00); v128.store(y, f01, 16); y += yRow;
  v128.store(y, f10); v128.store(y, f11, 16); y += yRow;
  v128.store(y, f20); v128.store(y, f21, 16); y += yRow;
  v128.store(y, f30); v128.store(y, f31, 16);
}

/** The relaxed build where one dot is not exact: q + 128 = 16·high + low, both below 16. */
function nibbles__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE), m15 = v128.load(CONST + CONST_NIBBLE);
  const xe = x + blocks * QD8_BYTES;
  for (; groups > 0; groups--, y += 32) {
    let f0 = f32x4.splat(0), f1 = f32x4.splat(0);
    for (let xp = x; xp < xe; xp += QD8_BYTES, w += QB8W_BYTES) {
      let a0 = v128.load32_splat(xp, QD8_SUM_BIAS), a1 = a0, h0 = i32x4.splat(0), h1 = h0, wi = w + 16;
      for (let i: usize = 0; i < 32; i += 8, wi += 32) {
        let w0 = v128.load(wi), w1 = v128.load(wi, 128), v = v128.load32_splat(xp + i);
        a0 = dot_i8(v, v128.and(w0, m15), a0); h0 = dot_i8(v, v128.and(i16x8.shr_u(w0, 4), m15), h0);
        a1 = dot_i8(v, v128.and(w1, m15), a1); h1 = dot_i8(v, v128.and(i16x8.shr_u(w1, 4), m15), h1);
        w0 = v128.load(wi, 16); w1 = v128.load(wi, 144); v = v128.load32_splat(xp + i, 4);
        a0 = dot_i8(v, v128.and(w0, m15), a0); h0 = dot_i8(v, v128.and(i16x8.shr_u(w0, 4), m15), h0);
        a1 = dot_i8(v, v128.and(w1, m15), a1); h1 = dot_i8(v, v128.and(i16x8.shr_u(w1, 4), m15), h1);
      }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up), t = v128.load32_splat(xp, QD8_SCALE);
      f0 = scaled(i32x4.add(a0, i32x4.shl(h0, 4)), f0, s0, t); f1 = scaled(i32x4.add(a1, i32x4.shl(h1, 4)), f1, s1, t);
    }
    v128.store(y, f0); v128.store(y, f1, 16);
  }
}

/** The high nibbles of the block first, then, four bits up, the low ones on top: eight sums at a time fit the registers. */
function nibbles__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE), m15 = v128.load(CONST + CONST_NIBBLE);
  const xRow = blocks * QD8_BYTES;
  let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
  let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
  for (const xe = x1; x0 < xe; ) {
    let a00 = i32x4.splat(0), a01 = a00, a10 = a00, a11 = a00, a20 = a00, a21 = a00, a30 = a00, a31 = a00, wi = w + 16;
    for (let i: usize = 0; i < 32; i += 4, wi += 16) {
      const l0 = v128.and(i16x8.shr_u(v128.load(wi), 4), m15), l1 = v128.and(i16x8.shr_u(v128.load(wi, 128), 4), m15);
      let v = v128.load32_splat(x0 + i); a00 = dot_i8(v, l0, a00); a01 = dot_i8(v, l1, a01);
      v = v128.load32_splat(x1 + i); a10 = dot_i8(v, l0, a10); a11 = dot_i8(v, l1, a11);
      v = v128.load32_splat(x2 + i); a20 = dot_i8(v, l0, a20); a21 = dot_i8(v, l1, a21);
      v = v128.load32_splat(x3 + i); a30 = dot_i8(v, l0, a30); a31 = dot_i8(v, l1, a31);
    }
    let b = v128.load32_splat(x0, QD8_SUM_BIAS); a00 = i32x4.add(i32x4.shl(a00, 4), b); a01 = i32x4.add(i32x4.shl(a01, 4), b);
    b = v128.load32_splat(x1, QD8_SUM_BIAS); a10 = i32x4.add(i32x4.shl(a10, 4), b); a11 = i32x4.add(i32x4.shl(a11, 4), b);
    b = v128.load32_splat(x2, QD8_SUM_BIAS); a20 = i32x4.add(i32x4.shl(a20, 4), b); a21 = i32x4.add(i32x4.shl(a21, 4), b);
    b = v128.load32_splat(x3, QD8_SUM_BIAS); a30 = i32x4.add(i32x4.shl(a30, 4), b); a31 = i32x4.add(i32x4.shl(a31, 4), b);
    wi = w + 16;
    for (let i: usize = 0; i < 32; i += 4, wi += 16) {
      const l0 = v128.and(v128.load(wi), m15), l1 = v128.and(v128.load(wi, 128), m15);
      let v = v128.load32_splat(x0 + i); a00 = dot_i8(v, l0, a00); a01 = dot_i8(v, l1, a01);
      v = v128.load32_splat(x1 + i); a10 = dot_i8(v, l0, a10); a11 = dot_i8(v, l1, a11);
      v = v128.load32_splat(x2 + i); a20 = dot_i8(v, l0, a20); a21 = dot_i8(v, l1, a21);
      v = v128.load32_splat(x3 + i); a30 = dot_i8(v, l0, a30); a31 = dot_i8(v, l1, a31);
    }
    const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
    let t = v128.load32_splat(x0, QD8_SCALE); f00 = scaled(a00, f00, s0, t); f01 = scaled(a01, f01, s1, t);
    t = v128.load32_splat(x1, QD8_SCALE); f10 = scaled(a10, f10, s0, t); f11 = scaled(a11, f11, s1, t);
    t = v128.load32_splat(x2, QD8_SCALE); f20 = scaled(a20, f20, s0, t); f21 = scaled(a21, f21, s1, t);
    t = v128.load32_splat(x3, QD8_SCALE); f30 = scaled(a30, f30, s0, t); f31 = scaled(a31, f31, s1, t);
    w += QB8W_BYTES; x0 += QD8_BYTES; x1 += QD8_BYTES; x2 += QD8_BYTES; x3 += QD8_BYTES;
  }
  v128.store(y, f00); v128.store(y, f01, 16); y += yRow;
  v128.store(y, f10); v128.store(y, f11, 16); y += yRow;
  v128.store(y, f20); v128.store(y, f21, 16); y += yRow;
  v128.store(y, f30); v128.store(y, f31, 16);
}

/** The plain build's 1x8: the same integers, hence the same bits. Even and odd bytes of a pair are widened to 16 bits apart. */
function plain__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + blocks * QD8_BYTES;
  for (; groups > 0; groups--, y += 32) {
    let f0 = f32x4.splat(0), f1 = f32x4.splat(0);
    for (let xp = x; xp < xe; xp += QD8_BYTES, w += QB8W_BYTES) {
      let a0 = i32x4.splat(0), a1 = a0, wi = w + 16;
      for (let i: usize = 0; i < 64; i += 8, wi += 16) {
        const w0 = v128.load(wi), w1 = v128.load(wi, 128);
        let l0 = i16x8.shr_s(i16x8.shl(w0, 8), 8), l1 = i16x8.shr_s(i16x8.shl(w1, 8), 8);
        let v = v128.load32_splat(xp + i); a0 = dot_i16(v, l0, a0); a1 = dot_i16(v, l1, a1);
        l0 = i16x8.shr_s(w0, 8); l1 = i16x8.shr_s(w1, 8);
        v = v128.load32_splat(xp + i, 4); a0 = dot_i16(v, l0, a0); a1 = dot_i16(v, l1, a1);
      }
      const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up), t = v128.load32_splat(xp, QD8_SCALE);
      f0 = scaled(a0, f0, s0, t); f1 = scaled(a1, f1, s1, t);
    }
    v128.store(y, f0); v128.store(y, f1, 16);
  }
}

function plain__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xRow = blocks * QD8_BYTES;
  let f00 = f32x4.splat(0), f01 = f00, f10 = f00, f11 = f00, f20 = f00, f21 = f00, f30 = f00, f31 = f00;
  let x0 = x, x1 = x0 + xRow, x2 = x1 + xRow, x3 = x2 + xRow;
  for (const xe = x1; x0 < xe; ) {
    let a00 = i32x4.splat(0), a01 = a00, a10 = a00, a11 = a00, a20 = a00, a21 = a00, a30 = a00, a31 = a00, wi = w + 16;
    for (let i: usize = 0; i < 64; i += 8, wi += 16) {
      const w0 = v128.load(wi), w1 = v128.load(wi, 128);
      let l0 = i16x8.shr_s(i16x8.shl(w0, 8), 8), l1 = i16x8.shr_s(i16x8.shl(w1, 8), 8);
      let v = v128.load32_splat(x0 + i); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
      v = v128.load32_splat(x1 + i); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11);
      v = v128.load32_splat(x2 + i); a20 = dot_i16(v, l0, a20); a21 = dot_i16(v, l1, a21);
      v = v128.load32_splat(x3 + i); a30 = dot_i16(v, l0, a30); a31 = dot_i16(v, l1, a31);
      l0 = i16x8.shr_s(w0, 8); l1 = i16x8.shr_s(w1, 8);
      v = v128.load32_splat(x0 + i, 4); a00 = dot_i16(v, l0, a00); a01 = dot_i16(v, l1, a01);
      v = v128.load32_splat(x1 + i, 4); a10 = dot_i16(v, l0, a10); a11 = dot_i16(v, l1, a11);
      v = v128.load32_splat(x2 + i, 4); a20 = dot_i16(v, l0, a20); a21 = dot_i16(v, l1, a21);
      v = v128.load32_splat(x3 + i, 4); a30 = dot_i16(v, l0, a30); a31 = dot_i16(v, l1, a31);
    }
    const s0 = load_f16x4(w, mask, up), s1 = load_f16x4(w + 8, mask, up);
    let t = v128.load32_splat(x0, QD8_SCALE); f00 = scaled(a00, f00, s0, t); f01 = scaled(a01, f01, s1, t);
    t = v128.load32_splat(x1, QD8_SCALE); f10 = scaled(a10, f10, s0, t); f11 = scaled(a11, f11, s1, t);
    t = v128.load32_splat(x2, QD8_SCALE); f20 = scaled(a20, f20, s0, t); f21 = scaled(a21, f21, s1, t);
    t = v128.load32_splat(x3, QD8_SCALE); f30 = scaled(a30, f30, s0, t); f31 = scaled(a31, f31, s1, t);
    w += QB8W_BYTES; x0 += QD8_BYTES; x1 += QD8_BYTES; x2 += QD8_BYTES; x3 += QD8_BYTES;
  }
  v128.store(y, f00); v128.store(y, f01, 16); y += yRow;
  v128.store(y, f10); v128.store(y, f11, 16); y += yRow;
  v128.store(y, f20); v128.store(y, f21, 16); y += yRow;
  v128.store(y, f30); v128.store(y, f31, 16);
}

// @ts-ignore: decorator
@inline function tile__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  if (!ASC_FEATURE_RELAXED_SIMD) plain__1x8(y, x, w, blocks, groups);
  else if (DOT_KIND != 0) relaxed__1x8(y, x, w, blocks, groups);
  else nibbles__1x8(y, x, w, blocks, groups);
}

// @ts-ignore: decorator
@inline function tile__4x8(y: usize, yRow: usize, x: usize, w: usize, blocks: usize): void {
  if (!ASC_FEATURE_RELAXED_SIMD) plain__4x8(y, yRow, x, w, blocks);
  else if (DOT_KIND != 0) relaxed__4x8(y, yRow, x, w, blocks);
  else nibbles__4x8(y, yRow, x, w, blocks);
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) qd8 · w (8·groups, 32·blocks) qb8w
 * needs: 16-byte alignment; reads nothing past the end
 * cost:  streams N·K·8.5/8 bytes of w once a call from memory, once per 4 rows of x from L1
 */
export function matmul_qd8_qb8w(y: usize, yRow: usize, x: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  if (M == 1) return tile__1x8(y, x, w, blocks, groups);
  const xRow = blocks * QD8_BYTES, group = blocks * QB8W_BYTES;
  for (; groups > 0; groups--, w += group, y += 32) { // the group stays in L1 while x passes
    let m = M, xp = x, yp = y;
    for (; m >= 4; m -= 4, xp += 4 * xRow, yp += 4 * yRow) tile__4x8(yp, yRow, xp, w, blocks);
    for (; m > 0; m--, xp += xRow, yp += yRow) tile__1x8(yp, xp, w, blocks, 1);
  }
}
