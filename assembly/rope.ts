// Rotary embedding (pairs i, i + hd/2), fused with the RMSNorm over head_dim that LFM2 applies to q and k before it.
import { clamp_row, first_row, position, ROW_ENTRY_BYTES, row_count, total_rows } from "./lib/rows";
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

/**
 * Each head of x: rmsnorm over hd with weights g, then rotation by the table's row of the same index; in place
 * x (T, heads·hd) f32, rows xStride floats apart · g (hd) f32 · table (T, hd) f32
 * needs: hd % 16 == 0, xStride % 4 == 0, 16-byte alignment
 * cost:  reads and writes x once more than it must, from L1. Threads share rows.
 */
export function norm_rope_f32(
  x: usize, xStride: usize, g: usize, table: usize, T: usize, heads: usize, hd: usize, eps: f32, ith: usize, nth: usize,
): void {
  assert(hd % 16 == 0);
  const head = hd << 2, half = hd << 1;
  for (let t = share(T, ith, nth), e = share(T, ith + 1, nth); t < e; t++) {
    const tp = table + t * head;
    let p = x + (t * xStride << 2);
    for (let h: usize = 0; h < heads; h++, p += head) {
      const r = f32x4.splat(1 / sqrt<f32>(sum_squares(p, hd) / <f32>hd + eps));
      for (let i: usize = 0; i < half; i += 16) {
        const j = half + i, c = v128.load(tp + i), s = v128.load(tp + j);
        const a = f32x4.mul(f32x4.mul(v128.load(p + i), r), v128.load(g + i));
        const b = f32x4.mul(f32x4.mul(v128.load(p + j), r), v128.load(g + j));
        v128.store(p + i, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
        v128.store(p + j, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
      }
    }
  }
}
