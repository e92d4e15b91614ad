// Causal attention with grouped queries over a paged cache of f32 or f16, online softmax over pages of 32 positions, many sequences a call.
// A layer's part of a page: for each kv head, 32 × hd elements of K, then 32 × hd of V: a step reads it in one linear stream.
// Pages lie at absolute multiples of 32 positions and a row meets them one after the other, so its bits do not depend on how the rows were chunked.
import { exp_f32x4, f16_bits, max_f32x4, sum_f32x4 } from "./lib/math";
import { clamp_row, first_row, PAGE, page_table, position, ROW_ENTRY_BYTES, row_count, total_rows } from "./lib/rows";
import { CONST, CONST_F16_MASK, CONST_F16_SCALE, load_f16x4 } from "./lib/simd";
import { share } from "./lib/threads";

/** 2^112: the difference of the exponent biases of f16 and f32. */
const TWO112: f32 = 5.192296858534828e33;
const LANES: usize = memory.data<u32>([0, 1, 2, 3], 16);

// @ts-ignore: decorator
@inline function store_f16(o: usize, x: usize, n: usize): void {
  for (const e = x + (n << 2); x < e; x += 32, o += 16) v128.store(o, i16x8.narrow_i32x4_u(f16_bits(v128.load(x)), f16_bits(v128.load(x, 16))));
}

/** One row of k and of v into its slot of the page; half: elements are f16. */
// @ts-ignore: decorator
@inline function append_row(slot: usize, tile: usize, k: usize, v: usize, G: usize, hd: usize, half: bool): void {
  for (const head = hd << 2; G > 0; G--, k += head, v += head, slot += 2 * tile) {
    if (half) {
      store_f16(slot, k, hd);
      store_f16(slot + tile, v, hd);
    } else {
      memory.copy(slot, k, head);
      memory.copy(slot + tile, v, head);
    }
  }
}

// @ts-ignore: decorator
@inline function append(
  rows: usize, nseq: usize, k: usize, v: usize, stride: usize, G: usize, hd: usize, layerOffset: usize, ith: usize, nth: usize, half: bool,
): void {
  const total = total_rows(rows, nseq), begin = share(total, ith, nth), end = share(total, ith + 1, nth);
  const element: usize = half ? 1 : 2, tile = PAGE * hd << element;
  let before: usize = 0;
  for (let s: usize = 0; s < nseq; s++, rows += ROW_ENTRY_BYTES) {
    const n = row_count(rows), t1 = clamp_row(end, before, n);
    for (let t = clamp_row(begin, before, n); t < t1; t++) {
      const p = position(rows) + t, page = load<usize>(page_table(rows) + (p / PAGE << 2)) + layerOffset, x = (first_row(rows) + t) * stride << 2;
      append_row(page + (p % PAGE * hd << element), tile, k + x, v + x, G, hd, half);
    }
    before += n;
  }
}

/**
 * Writes the step's rows of k and v into the cache.
 * k, v (all rows, G·hd) f32, rows stride floats apart · pages of the row table, this layer's part at layerOffset
 * needs: hd % 16 == 0, stride % 4 == 0, 16-byte alignment; the page table covers every position of the step
 * cost:  reads 8, writes 8 (f16: 4, rounded to nearest even) bytes a pair of values. Threads share rows.
 */
export function append_f32_f32kv(
  rows: usize, nseq: usize, k: usize, v: usize, stride: usize, G: usize, hd: usize, layerOffset: usize, ith: usize, nth: usize,
): void {
  append(rows, nseq, k, v, stride, G, hd, layerOffset, ith, nth, false);
}

/** As append_f32_f32kv, for a cache of f16. */
export function append_f32_f16kv(
  rows: usize, nseq: usize, k: usize, v: usize, stride: usize, G: usize, hd: usize, layerOffset: usize, ith: usize, nth: usize,
): void {
  append(rows, nseq, k, v, stride, G, hd, layerOffset, ith, nth, true);
}

/** n f16 (n % 16 == 0) of K to f32. */
function widen(out: usize, p: usize, n: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  for (const e = p + (n << 1); p < e; p += 32, out += 64) {
    v128.store(out, load_f16x4(p, mask, up));
    v128.store(out, load_f16x4(p + 8, mask, up), 16);
    v128.store(out, load_f16x4(p + 16, mask, up), 32);
    v128.store(out, load_f16x4(p + 24, mask, up), 48);
  }
}

/** n f16 (n % 16 == 0) of V to f32 · 2^-112, which is exact and two thirds of the work: the probabilities carry the factor. */
function widen_small(out: usize, p: usize, n: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK);
  for (const e = p + (n << 1); p < e; p += 32, out += 64) {
    v128.store(out, v128.and(i32x4.shl(v128.load16x4_s(p), 13), mask));
    v128.store(out, v128.and(i32x4.shl(v128.load16x4_s(p, 8), 13), mask), 16);
    v128.store(out, v128.and(i32x4.shl(v128.load16x4_s(p, 16), 13), mask), 32);
    v128.store(out, v128.and(i32x4.shl(v128.load16x4_s(p, 24), 13), mask), 48);
  }
}

/** Four vectors to the vector of their sums. */
// @ts-ignore: decorator
@inline function sums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(
    i8x16.shuffle(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
    i8x16.shuffle(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31));
  const cd = f32x4.add(
    i8x16.shuffle(c, d, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
    i8x16.shuffle(c, d, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31));
  return f32x4.add(
    i8x16.shuffle(ab, cd, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
    i8x16.shuffle(ab, cd, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
}

/** s = q·Kᵀ for n keys, rounded up to four (the surplus is computed from stale bytes and masked by softmax); row: bytes of a key. */
function scores__1x4(s: usize, q: usize, K: usize, n: usize, row: usize): void {
  for (const e = s + (n << 2), qe = q + row; s < e; s += 16, K += row << 2) {
    let a = f32x4.splat(0), b = a, c = a, d = a, k = K, l = k + row, m = l + row, o = m + row;
    for (let p = q; p < qe; p += 32, k += 32, l += 32, m += 32, o += 32) {
      const x = v128.load(p), y = v128.load(p, 16);
      a = f32x4.add(a, f32x4.mul(x, v128.load(k))); b = f32x4.add(b, f32x4.mul(x, v128.load(l)));
      c = f32x4.add(c, f32x4.mul(x, v128.load(m))); d = f32x4.add(d, f32x4.mul(x, v128.load(o)));
      a = f32x4.add(a, f32x4.mul(y, v128.load(k, 16))); b = f32x4.add(b, f32x4.mul(y, v128.load(l, 16)));
      c = f32x4.add(c, f32x4.mul(y, v128.load(m, 16))); d = f32x4.add(d, f32x4.mul(y, v128.load(o, 16)));
    }
    v128.store(s, sums(a, b, c, d));
  }
}

/** The same for two heads of q, side by side; their scores lie 128 bytes apart. */
function scores__2x4(s: usize, q: usize, K: usize, n: usize, row: usize): void {
  for (const e = s + (n << 2), qe = q + row; s < e; s += 16, K += row << 2) {
    let a0 = f32x4.splat(0), b0 = a0, c0 = a0, d0 = a0, a1 = a0, b1 = a0, c1 = a0, d1 = a0, k = K, l = k + row, m = l + row, o = m + row;
    for (let p = q, r = q + row; p < qe; p += 32, r += 32, k += 32, l += 32, m += 32, o += 32) {
      let x = v128.load(p), y = v128.load(r), v = v128.load(k);
      a0 = f32x4.add(a0, f32x4.mul(x, v)); a1 = f32x4.add(a1, f32x4.mul(y, v)); v = v128.load(l);
      b0 = f32x4.add(b0, f32x4.mul(x, v)); b1 = f32x4.add(b1, f32x4.mul(y, v)); v = v128.load(m);
      c0 = f32x4.add(c0, f32x4.mul(x, v)); c1 = f32x4.add(c1, f32x4.mul(y, v)); v = v128.load(o);
      d0 = f32x4.add(d0, f32x4.mul(x, v)); d1 = f32x4.add(d1, f32x4.mul(y, v));
      x = v128.load(p, 16); y = v128.load(r, 16); v = v128.load(k, 16);
      a0 = f32x4.add(a0, f32x4.mul(x, v)); a1 = f32x4.add(a1, f32x4.mul(y, v)); v = v128.load(l, 16);
      b0 = f32x4.add(b0, f32x4.mul(x, v)); b1 = f32x4.add(b1, f32x4.mul(y, v)); v = v128.load(m, 16);
      c0 = f32x4.add(c0, f32x4.mul(x, v)); c1 = f32x4.add(c1, f32x4.mul(y, v)); v = v128.load(o, 16);
      d0 = f32x4.add(d0, f32x4.mul(x, v)); d1 = f32x4.add(d1, f32x4.mul(y, v));
    }
    v128.store(s, sums(a0, b0, c0, d0));
    v128.store(s, sums(a1, b1, c1, d1), 128);
  }
}

/** One online-softmax step: s becomes e^(s - max) · up, (max, sum) at ml advance; returns what earlier sums must be multiplied by. */
function softmax(s: usize, ml: usize, n: usize, up: f32): f32 {
  const rest = n & 3;
  if (rest) { // keys past n: whatever was there, NaN included, counts as -Infinity
    const p = s + ((n - rest) << 2);
    v128.store(p, v128.bitselect(v128.load(p), f32x4.splat(-Infinity), i32x4.lt_u(v128.load(LANES), i32x4.splat(<i32>rest))));
  }
  const e = s + (n << 2);
  let top = f32x4.splat(-Infinity);
  for (let p = s; p < e; p += 16) top = f32x4.max(top, v128.load(p));
  const before = load<f32>(ml), m = max<f32>(before, max_f32x4(top)), mv = f32x4.splat(m), uv = f32x4.splat(up);
  let sum = f32x4.splat(0);
  for (let p = s; p < e; p += 16) {
    const v = exp_f32x4(f32x4.sub(v128.load(p), mv));
    v128.store(p, f32x4.mul(v, uv));
    sum = f32x4.add(sum, v);
  }
  const alpha = before == m ? <f32>1 : f32x4.extract_lane(exp_f32x4(f32x4.splat(before - m)), 0);
  store<f32>(ml, m);
  store<f32>(ml, load<f32>(ml, 4) * alpha + sum_f32x4(sum), 4);
  return alpha;
}

/** o = o·alpha + s·V over n keys, 32 columns at a time, the last 16 alone. */
function values__1x8(o: usize, s: usize, V: usize, n: usize, row: usize, alpha: f32): void {
  const av = f32x4.splat(alpha), e = s + (n << 2), ve = V + row;
  for (; V + 64 < ve; V += 128, o += 128) {
    let a0 = f32x4.mul(v128.load(o), av), a1 = f32x4.mul(v128.load(o, 16), av);
    let a2 = f32x4.mul(v128.load(o, 32), av), a3 = f32x4.mul(v128.load(o, 48), av);
    let a4 = f32x4.mul(v128.load(o, 64), av), a5 = f32x4.mul(v128.load(o, 80), av);
    let a6 = f32x4.mul(v128.load(o, 96), av), a7 = f32x4.mul(v128.load(o, 112), av);
    for (let p = s, v = V; p < e; p += 4, v += row) {
      const x = v128.load32_splat(p);
      a0 = f32x4.add(a0, f32x4.mul(x, v128.load(v))); a1 = f32x4.add(a1, f32x4.mul(x, v128.load(v, 16)));
      a2 = f32x4.add(a2, f32x4.mul(x, v128.load(v, 32))); a3 = f32x4.add(a3, f32x4.mul(x, v128.load(v, 48)));
      a4 = f32x4.add(a4, f32x4.mul(x, v128.load(v, 64))); a5 = f32x4.add(a5, f32x4.mul(x, v128.load(v, 80)));
      a6 = f32x4.add(a6, f32x4.mul(x, v128.load(v, 96))); a7 = f32x4.add(a7, f32x4.mul(x, v128.load(v, 112)));
    }
    v128.store(o, a0); v128.store(o, a1, 16); v128.store(o, a2, 32); v128.store(o, a3, 48);
    v128.store(o, a4, 64); v128.store(o, a5, 80); v128.store(o, a6, 96); v128.store(o, a7, 112);
  }
  if (V < ve) {
    let a0 = f32x4.mul(v128.load(o), av), a1 = f32x4.mul(v128.load(o, 16), av);
    let a2 = f32x4.mul(v128.load(o, 32), av), a3 = f32x4.mul(v128.load(o, 48), av);
    for (let p = s, v = V; p < e; p += 4, v += row) {
      const x = v128.load32_splat(p);
      a0 = f32x4.add(a0, f32x4.mul(x, v128.load(v))); a1 = f32x4.add(a1, f32x4.mul(x, v128.load(v, 16)));
      a2 = f32x4.add(a2, f32x4.mul(x, v128.load(v, 32))); a3 = f32x4.add(a3, f32x4.mul(x, v128.load(v, 48)));
    }
    v128.store(o, a0); v128.store(o, a1, 16); v128.store(o, a2, 32); v128.store(o, a3, 48);
  }
}

/** The same for two heads of o, side by side, 16 columns at a time. */
function values__2x4(o: usize, s: usize, V: usize, n: usize, row: usize, alpha0: f32, alpha1: f32): void {
  const av0 = f32x4.splat(alpha0), av1 = f32x4.splat(alpha1), e = s + (n << 2);
  for (let ve = V + row, r = o + row; V < ve; V += 64, o += 64, r += 64) {
    let a0 = f32x4.mul(v128.load(o), av0), a1 = f32x4.mul(v128.load(o, 16), av0);
    let a2 = f32x4.mul(v128.load(o, 32), av0), a3 = f32x4.mul(v128.load(o, 48), av0);
    let b0 = f32x4.mul(v128.load(r), av1), b1 = f32x4.mul(v128.load(r, 16), av1);
    let b2 = f32x4.mul(v128.load(r, 32), av1), b3 = f32x4.mul(v128.load(r, 48), av1);
    for (let p = s, v = V; p < e; p += 4, v += row) {
      const x = v128.load32_splat(p), y = v128.load32_splat(p, 128);
      let w = v128.load(v); a0 = f32x4.add(a0, f32x4.mul(x, w)); b0 = f32x4.add(b0, f32x4.mul(y, w));
      w = v128.load(v, 16); a1 = f32x4.add(a1, f32x4.mul(x, w)); b1 = f32x4.add(b1, f32x4.mul(y, w));
      w = v128.load(v, 32); a2 = f32x4.add(a2, f32x4.mul(x, w)); b2 = f32x4.add(b2, f32x4.mul(y, w));
      w = v128.load(v, 48); a3 = f32x4.add(a3, f32x4.mul(x, w)); b3 = f32x4.add(b3, f32x4.mul(y, w));
    }
    v128.store(o, a0); v128.store(o, a1, 16); v128.store(o, a2, 32); v128.store(o, a3, 48);
    v128.store(r, b0); v128.store(r, b1, 16); v128.store(r, b2, 32); v128.store(r, b3, 48);
  }
}

/** heads (one kv head's) of one query row against n ≤ 32 keys of a tile, in pairs; row: bytes of a head in f32. */
function heads_of_row(o: usize, ml: usize, q: usize, heads: usize, K: usize, V: usize, n: usize, row: usize, s: usize, up: f32): void {
  for (; heads >= 2; heads -= 2, o += row << 1, q += row << 1, ml += 16) {
    scores__2x4(s, q, K, n, row);
    const alpha = softmax(s, ml, n, up);
    values__2x4(o, s, V, n, row, alpha, softmax(s + PAGE * 4, ml + 8, n, up));
  }
  if (heads) {
    scores__1x4(s, q, K, n, row);
    values__1x8(o, s, V, n, row, softmax(s, ml, n, up));
  }
}

/** Bytes of scratch that one thread needs: K and V of one head in f32, two rows of scores. */
export function attention_scratch_bytes(hd: i32): i32 {
  return <i32>PAGE * (hd * 8 + 8);
}

/** Scales q, clears out and the (max, sum) pairs of heads h0..h1 of n rows. */
function begin_rows(
  out: usize, outRow: usize, q: usize, qRow: usize, ml: usize, n: usize, H: usize, h0: usize, h1: usize, row: usize, scale: f32,
): void {
  const factor = f32x4.splat(scale), zero = f32x4.splat(0), i0 = h0 * row, i1 = h1 * row;
  for (; n > 0; n--, out += outRow, q += qRow, ml += H << 3) {
    for (let i = i0; i < i1; i += 16) { v128.store(q + i, f32x4.mul(v128.load(q + i), factor)); v128.store(out + i, zero); }
    for (let h = h0; h < h1; h++) { store<f32>(ml + (h << 3), -Infinity); store<f32>(ml + (h << 3), 0, 4); }
  }
}

/** Divides heads h0..h1 of n rows of out by their sums. */
function end_rows(out: usize, outRow: usize, ml: usize, n: usize, H: usize, h0: usize, h1: usize, row: usize): void {
  for (; n > 0; n--, out += outRow, ml += H << 3) for (let h = h0; h < h1; h++) {
    const o = out + h * row, r = f32x4.splat(1 / load<f32>(ml + (h << 3), 4));
    for (let i: usize = 0; i < row; i += 16) v128.store(o + i, f32x4.mul(v128.load(o + i), r));
  }
}

/** The rows of one sequence, heads h0..h1; addresses of its first row. */
function sequence(
  out: usize, outRow: usize, q: usize, qRow: usize, entry: usize, layerOffset: usize, ml: usize, scratch: usize,
  H: usize, h0: usize, h1: usize, per: usize, hd: usize, half: bool,
): void {
  const T = row_count(entry), P = position(entry), pages = page_table(entry), end = P + T, row = hd << 2;
  const wideV = scratch + PAGE * row, s = wideV + PAGE * row, tile = half ? PAGE * row >> 1 : PAGE * row;
  const up = half ? TWO112 : <f32>1;
  for (let at: usize = 0; at < end; at += PAGE) {
    const page = load<usize>(pages + (at / PAGE << 2)) + layerOffset, n = min<usize>(PAGE, end - at), t0 = at > P ? at - P : 0;
    for (let h = h0; h < h1; h += per) {
      let K = page + h / per * 2 * tile, V = K + tile;
      if (half) {
        widen(scratch, K, n * hd); K = scratch;
        widen_small(wideV, V, n * hd); V = wideV;
      }
      for (let t = t0; t < T; t++) {
        const keys = min<usize>(n, P + t + 1 - at);
        heads_of_row(out + t * outRow + h * row, ml + ((t * H + h) << 3), q + t * qRow + h * row, per, K, V, keys, row, s, up);
      }
    }
  }
}

function attention(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, ml: usize, scratch: usize,
  H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize, half: bool,
): void {
  assert(H % G == 0 && hd % 16 == 0 && outStride >= H * hd && outStride % 4 == 0 && qStride % 4 == 0);
  const per = H / G, h0 = share(G, ith, nth) * per, h1 = share(G, ith + 1, nth) * per;
  const outRow = outStride << 2, qRow = qStride << 2, row = hd << 2;
  const mine = scratch + ith * <usize>attention_scratch_bytes(<i32>hd);
  for (let s: usize = 0; s < nseq; s++, rows += ROW_ENTRY_BYTES) {
    const n = row_count(rows), first = first_row(rows), o = out + first * outRow, p = q + first * qRow, e = ml + (first * H << 3);
    if (h0 < h1 && n > 0) {
      begin_rows(o, outRow, p, qRow, e, n, H, h0, h1, row, scale);
      sequence(o, outRow, p, qRow, rows, layerOffset, e, mine, H, h0, h1, per, hd, half);
      end_rows(o, outRow, e, n, H, h0, h1, row);
    }
    if (ith + 1 == nth) for (let t: usize = 0; t < n; t++) memory.fill(o + t * outRow + H * row, 0, outRow - H * row);
  }
}

/**
 * out = softmax(q·kᵀ·scale + causal mask)·v, a row at position p sees the keys 0..p of its own sequence
 * out (all rows, H·hd) f32, rows outStride floats apart, columns H·hd..outStride become 0
 * q (all rows, H·hd) f32, rows qStride floats apart, already rotated; is multiplied by scale in place
 * pages of the row table, this layer's part at layerOffset, filled for every position up to the last row's
 * ml (all rows · H) × (max, sum) f32, scratch · scratch: attention_scratch_bytes(hd) per thread
 * needs: H % G == 0, hd % 16 == 0, strides % 4 == 0, 16-byte alignment. What lies behind a row's position in a page (NaN too) has no influence.
 * cost:  streams the pages once a call (f16: widened once a page and kv head); 2·hd MAC a key and head. Threads share kv heads.
 */
export function attention_f32_f32kv(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, ml: usize, scratch: usize,
  H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize,
): void {
  attention(out, outStride, q, qStride, rows, nseq, layerOffset, ml, scratch, H, G, hd, scale, ith, nth, false);
}

/** As attention_f32_f32kv, over a cache of f16. */
export function attention_f32_f16kv(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, ml: usize, scratch: usize,
  H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize,
): void {
  attention(out, outStride, q, qStride, rows, nseq, layerOffset, ml, scratch, H, G, hd, scale, ith, nth, true);
}
