// Causal attention with grouped queries over a paged cache, online softmax over pages of 32 positions, many sequences a call.
// A row's keys are cut into segments at multiples of SEGMENT positions; each segment starts from nothing, and segments are added in ascending order. Whether one thread
// does all segments of a tile of rows, or several threads one each with attention_merge behind them, the bits are the same.
import { assert_pages, clamp_row, first_row, PAGE, page_table, position, ROW_ENTRY_BYTES, row_count, total_rows } from "../lib/rows";
import { CONST, CONST_ROUND } from "../lib/simd";
import { claim, claim_end, share } from "../lib/threads";
import { F16KV, F32KV, factor_for, half_bytes, largest_of, Q8KV, rounded8, scale_for, scales_at, scales_bytes, tile_bytes } from "./page";
import { scores, STATE_BYTES, STATE_QUERY, STATE_SUM, STATE_TOTAL, values, widen } from "./panel";
import { combine, softmax_f32, softmax_q8 } from "./softmax";

/** Positions of a segment. */
export const SEGMENT: i32 = 512;
/** Rows times heads that a thread works on at a time: what it keeps of them stays in L2. */
const TILE: usize = 64;
/** Bytes in front of the values of a slot: maximum, sum, 2 words unused. */
const SLOT_HEAD: usize = 16;

/** f16 widened without its factor 2^112: q and the scores share it (neither can overflow), p carries it for V. */
const TWO64: f32 = 1.8446744073709552e19;
const TWO48: f32 = 2.81474976710656e14;
const TWO112: f32 = 5.192296858534828e33;
/** q becomes integers up to this: sums over hd ≤ 1024 stay below 2^31. */
const Q_TOP: f32 = 16383;

// @ts-ignore: decorator
@inline function tile_heads(per: usize): usize { return max<usize>(TILE, per); }
// @ts-ignore: decorator
@inline function segments_of(end: usize): usize { return (end + SEGMENT - 1) / SEGMENT; }

/** Bytes of scratch that one thread needs for H query heads over G kv heads: rows of q, scores, values and state of a tile; K and V of one head in f32. */
export function attention_scratch_bytes(H: i32, G: i32, hd: i32): i32 {
  return <i32>(tile_heads(H / G) * (2 * (<usize>hd << 2) + PAGE * 4 + STATE_BYTES) + 2 * PAGE * (<usize>hd << 2));
}

/** Bytes of a slot: what one segment leaves of a row's head for attention_merge. */
export function attention_slot_bytes(hd: i32): i32 {
  return <i32>SLOT_HEAD + (hd << 2);
}

/** Segments that the steps' rows are shared out by, or 0 where a tile's segments stay with one thread, for want of slots or of segments. */
function split(rows: usize, nseq: usize, slots: usize, H: usize): usize {
  if (!slots) return 0;
  let most: usize = 0;
  for (let i: usize = 0; i < nseq; i++) most = max<usize>(most, segments_of(position(rows + i * ROW_ENTRY_BYTES) + row_count(rows + i * ROW_ENTRY_BYTES)));
  return most > 1 && total_rows(rows, nseq) * H * most <= slots ? most : 0;
}

/** A head of q, scaled, into the tile: f32, or i16 with its scale in the state. */
function take_query(o: usize, st: usize, q: usize, hd: usize, scale: f32, kv: i32): void {
  if (kv == Q8KV) {
    const amax = largest_of(q, hd), r = f32x4.splat(factor_for(amax, Q_TOP)), magic = v128.load(CONST + CONST_ROUND);
    for (const e = q + (hd << 2); q < e; q += 32, o += 16) v128.store(o, rounded8(q, r, magic));
    store<f32>(st, scale_for(amax, Q_TOP) * scale, STATE_QUERY);
  } else {
    const f = f32x4.splat(kv == F16KV ? scale * TWO64 : scale);
    for (const e = q + (hd << 2); q < e; q += 16, o += 16) v128.store(o, f32x4.mul(v128.load(q), f));
  }
}

/** Rows times heads from which on widening a page once pays (f16). */
const WIDEN: usize = 8;

/** q·Kᵀ of a page's n keys for `count` row-heads of one kv head. */
function page_scores(s: usize, q: usize, st: usize, K: usize, scales: usize, n: usize, count: usize, hd: usize, wide: usize, kv: i32): void {
  if (kv == Q8KV) return scores<i8>(s, q, K, scales, n, hd, count, st, 1);
  const up: f32 = kv == F16KV ? TWO48 : 1;
  if (kv == F16KV) {
    if (count < WIDEN) return scores<u16>(s, q, K, 0, n, hd, count, st, up);
    widen(wide, K, PAGE * hd);
    K = wide;
  }
  scores<f32>(s, q, K, 0, n, hd, count, st, up);
}

/** Their softmax, `per` row-heads a row: the first row sees `seen` keys and each further one a key more, n at most. */
function page_softmax(s: usize, st: usize, scales: usize, n: usize, seen: usize, count: usize, per: usize, kv: i32): void {
  for (const e = s + (count << 7); s < e; seen++) {
    const keys = min<usize>(n, seen);
    for (let i: usize = 0; i < per; i++, s += 128, st += STATE_BYTES) {
      if (kv == Q8KV) softmax_q8(s, st, keys, scales);
      else softmax_f32(s, st, keys, kv == F16KV ? TWO112 : 1);
    }
  }
}

/** o = o · alpha + p·V, over the same keys. */
function page_values(
  o: usize, s: usize, st: usize, V: usize, n: usize, seen: usize, count: usize, per: usize, hd: usize, wide: usize, kv: i32,
): void {
  const half = kv == F16KV && count < WIDEN;
  if (kv == F16KV && !half) {
    widen(wide, V, PAGE * hd);
    V = wide;
  }
  if (seen >= n) per = count; // every row sees all keys
  for (; count > 0; count -= per, seen++) {
    const keys = min<usize>(n, seen);
    if (kv == Q8KV) values<i8>(o, s, V, keys, hd, per, st);
    else if (half) values<u16>(o, s, V, keys, hd, per, st);
    else values<f32>(o, s, V, keys, hd, per, st);
    o += per * (hd << 2), s += per << 7, st += per * STATE_BYTES;
  }
}

/** A segment's values go to the row (the first segment), are added to it, or go to a slot. */
function keep(out: usize, o: usize, st: usize, bytes: usize, first: bool, slot: usize): void {
  if (slot) {
    store<u64>(slot, load<u64>(st));
    memory.copy(slot + SLOT_HEAD, o, bytes);
  } else if (first) {
    store<u64>(st, load<u64>(st), STATE_TOTAL);
    memory.copy(out, o, bytes);
  } else {
    combine(out, st + STATE_TOTAL, o, st, bytes);
  }
}

// @ts-ignore: decorator
@inline function normalize(out: usize, total: usize, bytes: usize): void {
  const r = f32x4.splat(1 / load<f32>(total, 4));
  for (let i: usize = 0; i < bytes; i += 16) v128.store(out + i, f32x4.mul(v128.load(out + i), r));
}

/**
 * Rows t0..t1 of one sequence, kv heads g0..g1, segments s0..s1; out and q are the sequence's first rows.
 * slots: the first row's first slot when other threads have other segments (`segments` of them a row), else 0
 */
function block(
  out: usize, outRow: usize, q: usize, qRow: usize, entry: usize, layerOffset: usize, slots: usize, segments: usize, scratch: usize,
  H: usize, G: usize, hd: usize, scale: f32, t0: usize, t1: usize, g0: usize, g1: usize, s0: usize, s1: usize, kv: i32,
): void {
  const per = H / G, row = hd << 2, rows = t1 - t0, perHead = rows * per, heads = tile_heads(per);
  const aRow = kv == Q8KV ? row >> 1 : row, tileBytes = tile_bytes(hd, kv), ahead = scales_bytes(G, kv), half = half_bytes(G, hd, kv), slotBytes = SLOT_HEAD + row;
  const sums = scratch + heads * row, products = sums + heads * row, state = products + heads * PAGE * 4, wide = state + heads * STATE_BYTES;
  const P = position(entry), pages = page_table(entry), end = P + t1;
  let n = (g1 - g0) * perHead;
  for (let g = g0, a = scratch, st = state; g < g1; g++) for (let t = t0; t < t1; t++) for (let j: usize = 0; j < per; j++) {
    take_query(a, st, q + t * qRow + (g * per + j) * row, hd, scale, kv);
    a += aRow, st += STATE_BYTES;
  }
  for (let seg = s0; seg < s1; seg++) {
    const from = seg * SEGMENT, to = min<usize>(end, from + SEGMENT), r0 = from > P + t0 ? from - P : t0; // rows before r0 do not see the segment
    memory.fill(sums, 0, n * row);
    for (let st = state, e = state + n * STATE_BYTES; st < e; st += STATE_BYTES) { store<f32>(st, -Infinity); store<f32>(st, 0, STATE_SUM); }
    for (let at = from; at < to; at += PAGE) {
      const part = load<usize>(pages + (at / PAGE << 2)) + layerOffset, r = at > P + t0 ? at - P : t0;
      const keys = min<usize>(PAGE, to - at), seen = P + r + 1 - at, count = (t1 - r) * per, V = part + half;
      for (let pass = 0; pass < 3; pass++) { // all heads' keys, then all heads' values: two linear streams
        for (let g = g0, i = (r - t0) * per; g < g1; g++, i += perHead) {
          const s = products + (i << 7), st = state + i * STATE_BYTES, tile = ahead + g * tileBytes;
          if (pass == 0) page_scores(s, scratch + i * aRow, st, part + tile, part + scales_at(g), keys, count, hd, wide, kv);
          else if (pass == 1) page_softmax(s, st, V + scales_at(g), keys, seen, count, per, kv);
          else page_values(sums + i * row, s, st, V + tile, keys, seen, count, per, hd, wide, kv);
        }
      }
    }
    for (let g = g0; g < g1; g++) for (let t = r0; t < t1; t++) for (let j: usize = 0; j < per; j++) {
      const i = (g - g0) * perHead + (t - t0) * per + j, h = g * per + j;
      keep(out + t * outRow + h * row, sums + i * row, state + i * STATE_BYTES, row, !seg, slots ? slots + ((t * segments + seg) * H + h) * slotBytes : 0);
    }
  }
  if (!slots) for (let g = g0; g < g1; g++) for (let t = t0; t < t1; t++) for (let j: usize = 0; j < per; j++) {
    normalize(out + t * outRow + (g * per + j) * row, state + ((g - g0) * perHead + (t - t0) * per + j) * STATE_BYTES + STATE_TOTAL, row);
  }
}

/** Units of a sequence: tiles of its rows × segments (1 when a tile's stay together) × kv heads, the heads innermost: neighbours read neighbouring bytes. */
function units_of(entry: usize, tileRows: usize, shared: bool, G: usize): usize {
  return (row_count(entry) + tileRows - 1) / tileRows * (shared ? segments_of(position(entry) + row_count(entry)) : 1) * G;
}

function attention(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, slots: usize, slotCount: usize,
  scratch: usize, H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize, kv: i32,
): void {
  assert(H % G == 0 && hd % 16 == 0 && hd <= 1024 && outStride >= H * hd && outStride % 4 == 0 && qStride % 4 == 0);
  if (!ASC_NO_ASSERT) assert_pages(rows, nseq, layerOffset, 2 * half_bytes(G, hd, kv));
  const per = H / G, tileRows = max<usize>(1, TILE / per), outRow = outStride << 2, qRow = qStride << 2, slotRow = H * (SLOT_HEAD + (hd << 2));
  const mine = scratch + ith * <usize>attention_scratch_bytes(<i32>H, <i32>G, <i32>hd), segments = split(rows, nseq, slotCount, H), shared = segments > 0;
  let total: usize = 0;
  for (let s: usize = 0; s < nseq; s++) total += units_of(rows + s * ROW_ENTRY_BYTES, tileRows, shared, G);
  for (let run = 0, u = claim(total, 1, 2, ith, nth, 0); u < total; u = claim(total, 1, 2, ith, nth, ++run)) {
    const stop = claim_end(u, total, 1, 2, ith, nth);
    let before: usize = 0;
    for (let s: usize = 0, entry = rows; s < nseq; s++, entry += ROW_ENTRY_BYTES) {
      const units = units_of(entry, tileRows, shared, G), last = clamp_row(stop, before, units);
      const T = row_count(entry), segs = segments_of(position(entry) + T), each = shared ? segs : 1;
      const o = out + first_row(entry) * outRow, p = q + first_row(entry) * qRow, own = shared ? slots + first_row(entry) * segments * slotRow : 0;
      for (let i = clamp_row(u, before, units); i < last;) {
        const g = i % G, seg = i / G % each, t = i / G / each * tileRows, t1 = min<usize>(T, t + tileRows);
        const g1 = min<usize>(min<usize>(G, g + last - i), g + max<usize>(1, TILE / ((t1 - t) * per)));
        block(
          o, outRow, p, qRow, entry, layerOffset, own, segments, mine, H, G, hd, scale,
          t, t1, g, g1, seg, shared ? seg + 1 : segments_of(position(entry) + t1), kv);
        i += g1 - g;
      }
      before += units;
    }
  }
  if (ith + 1 == nth) for (let s: usize = 0; s < nseq; s++, rows += ROW_ENTRY_BYTES) {
    for (let o = out + first_row(rows) * outRow, e = o + row_count(rows) * outRow; o < e; o += outRow) memory.fill(o + H * hd * 4, 0, outRow - H * hd * 4);
  }
}

/**
 * out = softmax(q·kᵀ·scale + causal mask)·v, a row at position p sees the keys 0..p of its own sequence
 * out (all rows, H·hd) f32, rows outStride floats apart, columns H·hd..outStride become 0 · q (all rows, H·hd) f32, rows qStride floats apart, already rotated
 * pages of the row table, this layer's part at layerOffset, filled for every position up to the last row's
 * slots: room for slotCount × attention_slot_bytes(hd), or 0. Where rows · H · segments (of the longest sequence, more than one) fit, threads share segments too,
 *   and out is there only after attention_merge_f32 with the same arguments · scratch: attention_scratch_bytes(H, G, hd) per thread
 * needs: H % G == 0, hd % 16 == 0, strides % 4 == 0, 16-byte alignment. What lies behind a row's position in a page (NaN too) has no influence.
 * cost:  streams the pages once a tile of 64 / (H / G) rows; 2·hd MAC a key and head. Threads claim (tile, segment, kv head) units.
 */
export function attention_f32_f32kv(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, slots: usize, slotCount: usize,
  scratch: usize, H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize,
): void {
  attention(out, outStride, q, qStride, rows, nseq, layerOffset, slots, slotCount, scratch, H, G, hd, scale, ith, nth, F32KV);
}

/** As attention_f32_f32kv, over a cache of f16: widened once a page and kv head where many rows read it, in registers where few do. */
export function attention_f32_f16kv(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, slots: usize, slotCount: usize,
  scratch: usize, H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize,
): void {
  attention(out, outStride, q, qStride, rows, nseq, layerOffset, slots, slotCount, scratch, H, G, hd, scale, ith, nth, F16KV);
}

/**
 * As attention_f32_f32kv, over a cache of int8 with a scale for each position and head. q becomes 15-bit integers a head, p times v's scale 16-bit ones a page:
 * integer sums, exact in every build, whose rounding is far below that of the cache. needs: hd ≤ 1024
 */
export function attention_f32_qb8kv(
  out: usize, outStride: usize, q: usize, qStride: usize, rows: usize, nseq: usize, layerOffset: usize, slots: usize, slotCount: usize,
  scratch: usize, H: usize, G: usize, hd: usize, scale: f32, ith: usize, nth: usize,
): void {
  attention(out, outStride, q, qStride, rows, nseq, layerOffset, slots, slotCount, scratch, H, G, hd, scale, ith, nth, Q8KV);
}

/** Adds up what attention left in slots, if it did, in ascending order. Arguments as there. cost: nothing to speak of. Threads share rows and heads. */
export function attention_merge_f32(
  out: usize, outStride: usize, rows: usize, nseq: usize, slots: usize, slotCount: usize, H: usize, hd: usize, ith: usize, nth: usize,
): void {
  const segments = split(rows, nseq, slotCount, H);
  if (!segments) return;
  const total = total_rows(rows, nseq) * H, begin = share(total, ith, nth), end = share(total, ith + 1, nth), row = hd << 2, slotBytes = SLOT_HEAD + row;
  let before: usize = 0;
  for (let s: usize = 0; s < nseq; s++, rows += ROW_ENTRY_BYTES) {
    const n = row_count(rows) * H, last = clamp_row(end, before, n);
    for (let i = clamp_row(begin, before, n); i < last; i++) {
      const t = i / H, h = i % H, o = out + ((first_row(rows) + t) * outStride << 2) + h * row;
      const first = slots + ((first_row(rows) + t) * segments * H + h) * slotBytes;
      memory.copy(o, first + SLOT_HEAD, row);
      for (let seg: usize = 1, e = segments_of(position(rows) + t + 1), slot = first; seg < e; seg++) {
        slot += H * slotBytes;
        combine(o, first, slot + SLOT_HEAD, slot, row);
      }
      normalize(o, first, row);
    }
    before += n;
  }
}
