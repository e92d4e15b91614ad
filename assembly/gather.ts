// Embedding lookup: rows of a packed matrix back to f32, exactly the values that a matmul with that matrix uses.
import { store_affine } from "./dequantize";
import {
  BF16, BLOCK, F16, F32, GROUP, packed_block_bytes, Q4, Q4_K, Q4KW_BLOCK, Q4KW_HEAD, Q6_K, Q6KW_BLOCK, Q6KW_HEAD, Q8, QB4W_BYTES, QB8W_BYTES, SUPER,
} from "./lib/blocks";
import { store_nibbles, store_scaled, take_q4, take_q6, take_q8 } from "./lib/layout";
import { load_f16 } from "./lib/math";
import { share } from "./lib/threads";
import { columns, padded_columns, segment, segment_address, segment_count, segment_dtype, segment_rows } from "./matmul/matrix";

/** out (K) f32 of row `lane` of the group at w. */
function row_f32w(out: usize, w: usize, lane: usize, K: usize): void {
  for (let p = w + (lane << 2); K > 0; K--, out += 4, p += 32) store<f32>(out, load<f32>(p));
}

function row_f16w(out: usize, w: usize, lane: usize, K: usize): void {
  let p = w + (lane << 2);
  for (; K >= 2; K -= 2, out += 8, p += 32) {
    store<f32>(out, load_f16(p));
    store<f32>(out + 4, load_f16(p + 2));
  }
  if (K) store<f32>(out, load_f16(p));
}

function row_bf16w(out: usize, w: usize, lane: usize, K: usize): void {
  let p = w + (lane << 2);
  for (; K >= 2; K -= 2, out += 8, p += 32) {
    const pair = load<u32>(p);
    store<u32>(out, pair << 16);
    store<u32>(out, pair & 0xffff0000, 4);
  }
  if (K) store<u32>(out, load<u32>(p) << 16);
}

function row_qb8w(out: usize, w: usize, lane: usize, K: usize): void {
  for (; K >= BLOCK; K -= BLOCK, out += 128, w += QB8W_BYTES) {
    const d = f32x4.splat(load_f16(w + (lane << 1)));
    store_scaled(out, take_q8(w, lane, 0), d);
    store_scaled(out + 64, take_q8(w, lane, 1), d);
  }
  if (K) last_values(out, K, load_f16(w + (lane << 1)), take_q8(w, lane, 0), take_q8(w, lane, 1));
}

function row_qb4w(out: usize, w: usize, lane: usize, K: usize): void {
  for (; K >= BLOCK; K -= BLOCK, out += 128, w += QB4W_BYTES) store_nibbles(out, take_q4(w, lane), f32x4.splat(load_f16(w + (lane << 1))));
  if (K == 0) return;
  const nibbles = take_q4(w, lane), eight = i8x16.splat(8);
  const low = i8x16.sub(v128.and(nibbles, i8x16.splat(15)), eight), high = i8x16.sub(i8x16.shr_u(nibbles, 4), eight);
  last_values(out, K, load_f16(w + (lane << 1)), low, high);
}

function row_q4kw(out: usize, w: usize, lane: usize, K: usize): void {
  for (; K > 0; K -= SUPER) {
    const d = load_f16(w + (lane << 1)), dmin = load_f16(w + 16 + (lane << 1));
    w += Q4KW_HEAD;
    for (const next = w + 8 * Q4KW_BLOCK; w < next; w += Q4KW_BLOCK, out += 128) {
      const s = f32x4.splat(d * <f32>load<u8>(w + lane)), m = f32x4.splat(-(dmin * <f32>load<u8>(w + lane, 8))), nibbles = take_q4(w, lane);
      store_affine(out, v128.and(nibbles, i8x16.splat(15)), s, m);
      store_affine(out + 64, i8x16.shr_u(nibbles, 4), s, m);
    }
  }
}

function row_q6kw(out: usize, w: usize, lane: usize, K: usize): void {
  for (; K > 0; K -= SUPER) {
    const d = load_f16(w + (lane << 1));
    w += Q6KW_HEAD;
    for (const next = w + 8 * Q6KW_BLOCK; w < next; w += Q6KW_BLOCK)
      for (let half: usize = 0; half < 2; half++, out += 64)
        store_scaled(out, i8x16.sub(take_q6(w, lane, half), i8x16.splat(32)), f32x4.splat(d * <f32>load<i8>(w + (half << 3) + lane)));
  }
}

/** The first K < 32 values of a block, one at a time: a row of out may end right behind them. */
function last_values(out: usize, K: usize, d: f32, low: v128, high: v128): void {
  for (let k: usize = 0; k < K; k++) {
    store<f32>(out + (k << 2), <f32>i8x16.extract_lane_s(low, 0) * d);
    if (k == 15) low = high;
    else low = i8x16.shuffle(low, low, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0);
  }
}

/** Rows of all segments, without padding. */
function true_rows(matrix: usize): usize {
  let rows: usize = 0;
  for (let i: usize = 0, n = segment_count(matrix); i < n; i++) rows += segment_rows(segment(matrix, i));
  return rows;
}

/** Row id of the matrix (counted over the segments' true rows) to out (K) f32. */
function row_of_matrix(out: usize, matrix: usize, id: usize, K: usize): void {
  let s = segment(matrix, 0);
  for (let i: usize = 1, n = segment_count(matrix); i < n && id >= segment_rows(s); i++) {
    id -= segment_rows(s);
    s = segment(matrix, i);
  }
  const dtype = segment_dtype(s), lane = id % GROUP;
  const w = segment_address(s) + id / GROUP * (padded_columns(matrix) / BLOCK) * packed_block_bytes(dtype);
  switch (dtype) {
    case F32: return row_f32w(out, w, lane, K);
    case F16: return row_f16w(out, w, lane, K);
    case BF16: return row_bf16w(out, w, lane, K);
    case Q8: return row_qb8w(out, w, lane, K);
    case Q4: return row_qb4w(out, w, lane, K);
    case Q4_K: return row_q4kw(out, w, lane, K);
    case Q6_K: return row_q6kw(out, w, lane, K);
    default: unreachable();
  }
}

/**
 * out[t] = row ids[t] of the matrix, bit for bit what decode_rows makes of it where it is stored as it is packed
 * out (T,K) f32, rows outStride floats apart, columns K..outStride become 0 · ids (T) i32, below Σ rows of the segments
 * matrix: descriptor, segments of any dtypes
 * needs: outStride ≥ K; reads only the rows' own blocks
 * cost:  0.2 to 0.5 ns a value, f16 4 ns. Threads share rows.
 */
export function gather_f32(out: usize, ids: usize, matrix: usize, T: usize, outStride: usize, ith: usize, nth: usize): void {
  const K = columns(matrix);
  assert(outStride >= K);
  for (let t = share(T, ith, nth), e = share(T, ith + 1, nth); t < e; t++) {
    const o = out + (t * outStride << 2);
    if (!ASC_NO_ASSERT) assert(load<usize>(ids + (t << 2)) < true_rows(matrix), "an id that is no row");
    row_of_matrix(o, matrix, load<usize>(ids + (t << 2)), K);
    memory.fill(o + (K << 2), 0, (outStride - K) << 2);
  }
}
