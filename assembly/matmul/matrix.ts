// A weight matrix as the host describes it: segments of rows, each packed in its own dtype (q|k|v and w1|w3 are fused, a GGUF mixes types).
// Descriptor, u32 words: segments, K, Kp, Σ padded rows; then for each segment: dtype, rows, padded rows, address. K is padded to 32, rows to 8.
import { BF16, BLOCK, F16, F32, GROUP, packed_block_bytes, Q4, Q4_K, Q6_K, Q8 } from "../lib/blocks";
import { claim, claim_end } from "../lib/threads";
import { matmul_f32_bf16w } from "./bf16w";
import { matmul_f32_f16w } from "./f16w";
import { matmul_f32_f32w } from "./f32w";
import { matmul_qd8_q4kw } from "./q4kw";
import { matmul_qd8_q6kw } from "./q6kw";
import { matmul_qd8_qb4w } from "./qb4w";
import { matmul_qd8_qb8w } from "./qb8w";

/** Groups that are worth a start of their own: below some ten kilobytes a memory stream does not reach its speed. */
export const LEAST_GROUPS: usize = 4;
/** Up to so many rows a product waits for memory. */
export const FEW_ROWS: usize = 4;

// @ts-ignore: decorator
@inline export function segment_count(matrix: usize): usize { return load<usize>(matrix); }
// @ts-ignore: decorator
@inline export function columns(matrix: usize): usize { return load<usize>(matrix, 4); }
// @ts-ignore: decorator
@inline export function padded_columns(matrix: usize): usize { return load<usize>(matrix, 8); }
// @ts-ignore: decorator
@inline export function padded_rows(matrix: usize): usize { return load<usize>(matrix, 12); }
// @ts-ignore: decorator
@inline export function segment(matrix: usize, i: usize): usize { return matrix + 16 + (i << 4); }
// @ts-ignore: decorator
@inline export function segment_dtype(s: usize): i32 { return load<i32>(s); }
// @ts-ignore: decorator
@inline export function segment_rows(s: usize): usize { return load<usize>(s, 4); }
// @ts-ignore: decorator
@inline export function segment_padded_rows(s: usize): usize { return load<usize>(s, 8); }
// @ts-ignore: decorator
@inline export function segment_address(s: usize): usize { return load<usize>(s, 12); }

/**
 * y = x · Wᵀ (+ bias), W being the segments one below the other
 * y (M, Σ padded rows) f32, rows yStride floats apart · x (M,Kp) f32, rows xStride floats apart, for float segments
 * xq (M,Kp) qd8 for quantized ones; x or xq may be 0 when no segment reads it · bias (Σ padded rows) f32 or 0
 * needs: 16-byte alignment; columns K..Kp of x finite (weights are 0 there); columns of padding rows get 0 (or their bias)
 * cost:  streams every packed byte of W once a call. Threads share groups of 8 rows.
 */
export function matmul(
  y: usize, x: usize, xq: usize, matrix: usize, M: usize, yStride: usize, xStride: usize, bias: usize, ith: usize, nth: usize,
): void {
  const blocks = padded_columns(matrix) / BLOCK, groups = padded_rows(matrix) / GROUP;
  assert(yStride >= padded_rows(matrix));
  const part: usize = M > FEW_ROWS ? 2 : 1;
  for (let run = 0, begin = claim(groups, LEAST_GROUPS, part, ith, nth, 0); begin < groups; begin = claim(groups, LEAST_GROUPS, part, ith, nth, ++run)) {
    const end = claim_end(begin, groups, LEAST_GROUPS, part, ith, nth);
    if (begin == end) return; // an empty share
    groups_of_matrix(y, x, xq, matrix, M, yStride, xStride, blocks, begin, end);
    if (bias) add_bias(y + (begin << 5), yStride << 2, bias + (begin << 5), M, (end - begin) << 5);
  }
}

/** Groups begin..end, counted over all segments. */
export function groups_of_matrix(
  y: usize, x: usize, xq: usize, matrix: usize, M: usize, yStride: usize, xStride: usize, blocks: usize, begin: usize, end: usize,
): void {
  let before: usize = 0;
  for (let i: usize = 0, n = segment_count(matrix); i < n; i++) {
    const s = segment(matrix, i), last = before + segment_padded_rows(s) / GROUP;
    const g0 = max<usize>(before, begin), g1 = min<usize>(last, end);
    if (g0 < g1) {
      const dtype = segment_dtype(s), w = segment_address(s) + (g0 - before) * blocks * packed_block_bytes(dtype);
      rows_of_segment(dtype, y + (g0 << 5), yStride << 2, x, xq, xStride << 2, w, M, blocks, g1 - g0);
    }
    before = last;
  }
}

function rows_of_segment(
  dtype: i32, y: usize, yRow: usize, x: usize, xq: usize, xRow: usize, w: usize, M: usize, blocks: usize, groups: usize,
): void {
  switch (dtype) {
    case F32: return matmul_f32_f32w(y, yRow, x, xRow, w, M, blocks, groups);
    case F16: return matmul_f32_f16w(y, yRow, x, xRow, w, M, blocks, groups);
    case BF16: return matmul_f32_bf16w(y, yRow, x, xRow, w, M, blocks, groups);
    case Q8: return matmul_qd8_qb8w(y, yRow, xq, w, M, blocks, groups);
    case Q4: return matmul_qd8_qb4w(y, yRow, xq, w, M, blocks, groups);
    case Q4_K: return matmul_qd8_q4kw(y, yRow, xq, w, M, blocks, groups);
    case Q6_K: return matmul_qd8_q6kw(y, yRow, xq, w, M, blocks, groups);
    default: unreachable();
  }
}

/** y (M, bytes/4) += bias (bytes/4) in every row. */
function add_bias(y: usize, yRow: usize, bias: usize, M: usize, bytes: usize): void {
  for (; M > 0; M--, y += yRow)
    for (let i: usize = 0; i < bytes; i += 16) v128.store(y + i, f32x4.add(v128.load(y + i), v128.load(bias + i)));
}
