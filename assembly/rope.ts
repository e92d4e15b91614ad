// Rotary embedding (pairs i, i + hd/2), fused with the RMSNorm over head_dim that LFM2 applies to q and k before it, and with the write to the cache behind it.
import { F16KV, F32KV, half_bytes, Q8KV, scales_at, scales_bytes, store_key, store_value, tile_bytes } from "./attention/page";
import { assert_pages, clamp_row, first_row, first_written, PAGE, page_table, position, ROW_ENTRY_BYTES, row_count, total_rows } from "./lib/rows";
import { share } from "./lib/threads";
import { sum_squares } from "./norm";

/** out (hd/2) f64: theta^(-2i/hd). */
export function rope_frequencies(out: usize, theta: f64, hd: usize): void {
  for (let i: usize = 0; i < hd >> 1; i++) store<f64>(out + (i << 3), NativeMath.pow(theta, -<f64>(2 * i) / <f64>hd));
}

/**
 * A row of the table: hd/2 cosines, then hd/2 sines of position · freq[i], times factor
 * table (all rows, hd) f32 · freq (hd/2) f64; rows and positions from the row table
 * needs: hd % 2 == 0. Computed in f64 inside the module, so that every engine gives the same bits.
 * cost:  about 20 ns an element. Threads share rows.
 */
export function rope_table_f32(table: usize, rows: usize, nseq: usize, freq: usize, hd: usize, factor: f32, ith: usize, nth: usize): void {
  const total = total_rows(rows, nseq), begin = share(total, ith, nth), end = share(total, ith + 1, nth), half = hd >> 1;
  let before: usize = 0;
  for (let s: usize = 0; s < nseq; s++, rows += ROW_ENTRY_BYTES) {
    const n = row_count(rows), t1 = clamp_row(end, before, n);
    for (let t = clamp_row(begin, before, n); t < t1; t++) {
      const p = <f64>(position(rows) + t), row = table + ((first_row(rows) + t) * hd << 2);
      for (let i: usize = 0; i < half; i++) {
        const angle = p * load<f64>(freq + (i << 3));
        store<f32>(row + (i << 2), <f32>(NativeMath.cos(angle) * <f64>factor));
        store<f32>(row + ((half + i) << 2), <f32>(NativeMath.sin(angle) * <f64>factor));
      }
    }
    before += n;
  }
}

/** One head: x · r · g with r = 1 / rms, then rotated by the table's row, in place. */
function norm_rope(p: usize, g: usize, tp: usize, hd: usize, eps: f32): void {
  const half = hd << 1, r = f32x4.splat(1 / sqrt<f32>(sum_squares(p, hd) / <f32>hd + eps));
  for (let i: usize = 0; i < half; i += 16) {
    const j = half + i, c = v128.load(tp + i), s = v128.load(tp + j);
    const a = f32x4.mul(f32x4.mul(v128.load(p + i), r), v128.load(g + i));
    const b = f32x4.mul(f32x4.mul(v128.load(p + j), r), v128.load(g + j));
    v128.store(p + i, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
    v128.store(p + j, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
  }
}

function norm_rope_append(
  qkv: usize, stride: usize, gq: usize, gk: usize, table: usize, rows: usize, nseq: usize, layerOffset: usize,
  H: usize, G: usize, hd: usize, eps: f32, ith: usize, nth: usize, kv: i32,
): void {
  assert(H % G == 0 && hd % 16 == 0 && stride % 4 == 0);
  const head = hd << 2, per = H / G, tile = tile_bytes(hd, kv), ahead = scales_bytes(G, kv), half = half_bytes(G, hd, kv), total = total_rows(rows, nseq) * G, begin = share(total, ith, nth), end = share(total, ith + 1, nth);
  if (!ASC_NO_ASSERT) assert_pages(rows, nseq, layerOffset, 2 * half);
  let before: usize = 0;
  for (let s: usize = 0; s < nseq; s++, rows += ROW_ENTRY_BYTES) {
    const n = row_count(rows) * G, last = clamp_row(end, before, n);
    for (let i = clamp_row(begin, before, n); i < last; i++) {
      const t = i / G, g = i % G, row = first_row(rows) + t, p = position(rows) + t, tp = table + row * head;
      const x = qkv + (row * stride << 2), k = x + (H + g) * head, K = load<usize>(page_table(rows) + (p / PAGE << 2)) + layerOffset, V = K + half;
      for (let q = x + g * per * head, e = q + per * head; q < e; q += head) norm_rope(q, gq, tp, hd, eps);
      norm_rope(k, gk, tp, hd, eps);
      if (p < first_written(rows)) continue;
      store_key(K + ahead + g * tile, K + scales_at(g), p % PAGE, k, hd, kv);
      store_value(V + ahead + g * tile, V + scales_at(g), p % PAGE, k + G * head, hd, kv);
    }
    before += n;
  }
}

/**
 * Each head of q and of k: rmsnorm over hd with weights gq or gk, then rotation by the table's row, in place; k and v go to the row's position in the cache,
 * unless it lies before the sequence's first position to write.
 * qkv (all rows, H·hd + 2·G·hd) f32, rows stride floats apart: q, k, v side by side · gq, gk (hd) f32 · table (all rows, hd) f32 of rope_table
 * pages of the row table, this layer's part at layerOffset
 * needs: H % G == 0, hd % 16 == 0, stride % 4 == 0, 16-byte alignment; the page table covers every position of the step
 * cost:  reads qkv twice (from L1), writes q, k and the slots. Threads share rows and kv heads.
 */
export function norm_rope_append_f32_f32kv(
  qkv: usize, stride: usize, gq: usize, gk: usize, table: usize, rows: usize, nseq: usize, layerOffset: usize,
  H: usize, G: usize, hd: usize, eps: f32, ith: usize, nth: usize,
): void {
  norm_rope_append(qkv, stride, gq, gk, table, rows, nseq, layerOffset, H, G, hd, eps, ith, nth, F32KV);
}

/** As norm_rope_append_f32_f32kv, for a cache of f16 (rounded to nearest even). */
export function norm_rope_append_f32_f16kv(
  qkv: usize, stride: usize, gq: usize, gk: usize, table: usize, rows: usize, nseq: usize, layerOffset: usize,
  H: usize, G: usize, hd: usize, eps: f32, ith: usize, nth: usize,
): void {
  norm_rope_append(qkv, stride, gq, gk, table, rows, nseq, layerOffset, H, G, hd, eps, ith, nth, F16KV);
}

/** As norm_rope_append_f32_f32kv, for a cache of int8: each head of k and of v in 127ths of its largest value (rounded half to even). */
export function norm_rope_append_f32_qb8kv(
  qkv: usize, stride: usize, gq: usize, gk: usize, table: usize, rows: usize, nseq: usize, layerOffset: usize,
  H: usize, G: usize, hd: usize, eps: f32, ith: usize, nth: usize,
): void {
  norm_rope_append(qkv, stride, gq, gk, table, rows, nseq, layerOffset, H, G, hd, eps, ith, nth, Q8KV);
}
