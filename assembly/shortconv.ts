// LFM2's gated short convolution over the rows of many sequences, each with its own carried state; and its quantization for the matrix that comes next.
import { BLOCK, qd8_row, QD8_TWICE } from "./lib/blocks";
import { assert_states, conv_state, first_row, kept_gates, kept_rows, ROW_ENTRY_BYTES, row_count } from "./lib/rows";
import { quantize_blocks, share_blocks } from "./quantize";

// @ts-ignore: decorator
@inline function gate(bcu: usize, width: usize): v128 { return f32x4.mul(v128.load(bcu), v128.load(bcu + 2 * width)); }
// @ts-ignore: decorator
@inline function tap(w: usize, g: usize, i: usize): v128 { return f32x4.mul(v128.load(w + i), v128.load(g + i)); }
// @ts-ignore: decorator
@inline function biased(s: v128, bias: usize, i: usize): v128 { return bias ? f32x4.add(s, v128.load(bias + i)) : s; }

/**
 * One row: y = C ⊙ (Σ taps · gates + bias); the row's gate goes to g0, which may be the oldest one's place.
 * bytes: width of the thread's columns · width: of all columns · g1, g2, g3: gates 1, 2, 3 rows ago (g2, g3 only where Kc asks for them)
 */
function row__2(y: usize, bcu: usize, w: usize, bias: usize, g1: usize, g0: usize, width: usize, bytes: usize): void {
  for (let i: usize = 0; i < bytes; i += 16) {
    const g = gate(bcu + i, width), s = f32x4.add(tap(w, g1, i), f32x4.mul(v128.load(w + width + i), g));
    v128.store(y + i, f32x4.mul(v128.load(bcu + width + i), biased(s, bias, i)));
    v128.store(g0 + i, g);
  }
}

function row__3(y: usize, bcu: usize, w: usize, bias: usize, g2: usize, g1: usize, g0: usize, width: usize, bytes: usize): void {
  const w1 = w + width, w2 = w1 + width;
  for (let i: usize = 0; i < bytes; i += 16) {
    const g = gate(bcu + i, width), s = f32x4.add(f32x4.add(tap(w, g2, i), tap(w1, g1, i)), f32x4.mul(v128.load(w2 + i), g));
    v128.store(y + i, f32x4.mul(v128.load(bcu + width + i), biased(s, bias, i)));
    v128.store(g0 + i, g);
  }
}

function row__4(y: usize, bcu: usize, w: usize, bias: usize, g3: usize, g2: usize, g1: usize, g0: usize, width: usize, bytes: usize): void {
  const w1 = w + width, w2 = w1 + width, w3 = w2 + width;
  for (let i: usize = 0; i < bytes; i += 16) {
    const g = gate(bcu + i, width), s = f32x4.add(f32x4.add(tap(w, g3, i), tap(w1, g2, i)), tap(w2, g1, i));
    const all = f32x4.add(s, f32x4.mul(v128.load(w3 + i), g));
    v128.store(y + i, f32x4.mul(v128.load(bcu + width + i), biased(all, bias, i)));
    v128.store(g0 + i, g);
  }
}

/** Puts the last gates into the state, oldest row first: a, then (Kc 3 and 4) b, then (Kc 4) c. They may be rows of the state. */
function set_state(state: usize, a: usize, b: usize, c: usize, Kc: usize, width: usize, bytes: usize): void {
  for (let i: usize = 0; i < bytes; i += 16) {
    const x = v128.load(a + i), y = Kc > 2 ? v128.load(b + i) : x, z = Kc == 4 ? v128.load(c + i) : x;
    v128.store(state + i, x);
    if (Kc > 2) v128.store(state + width + i, y);
    if (Kc == 4) v128.store(state + 2 * width + i, z);
  }
}

/**
 * g = B ⊙ u; y = C ⊙ (taps[0]·g[t-Kc+1] + … + taps[Kc-1]·g[t] + bias); the state keeps the last Kc-1 rows of g; yq = y quantized, unless yq is 0
 * y f32, rows yStride floats apart, columns D..yStride become 0 · yq (rows of y, yStride) qd8 or 0
 * bcu f32, rows bcuStride floats apart: B, C, u at columns 0, D, 2D
 * state (conv state address of the row table + layerOffset): (Kc-1, D) f32, oldest first · taps (Kc,D) f32 · bias (D) f32 or 0
 * kept gates of the row table, unless 0: (Kc-1 + rows, D) f32 a layer: the state before the step, then g of its rows; the state after row t is there at row t+1
 * needs: 2 ≤ Kc ≤ 4, D % 4 == 0, strides % 4 == 0, yStride % 32 == 0 with yq, 16-byte alignment
 * cost:  reads 3, writes 1 float a value, the rest from L1. Threads share blocks of 32 columns (eight at a time where their sums go together), so none waits for another's state.
 */
export function shortconv_f32(
  y: usize, yStride: usize, yq: usize, bcu: usize, bcuStride: usize, rows: usize, nseq: usize, layerOffset: usize,
  taps: usize, bias: usize, D: usize, Kc: usize, ith: usize, nth: usize,
): void {
  assert(Kc >= 2 && Kc <= 4 && D % 4 == 0 && yStride % 4 == 0 && (yq == 0 || yStride % BLOCK == 0));
  if (!ASC_NO_ASSERT) assert_states(rows, nseq, layerOffset, Kc, D << 2);
  const blocks = (yStride + BLOCK - 1) / BLOCK, width = D << 2, yRow = yStride << 2, yqRow = yq ? qd8_row(blocks, QD8_TWICE) : 0;
  const block = share_blocks(blocks, blocks, ith, nth), begin = block << 7, end = min<usize>(share_blocks(blocks, blocks, ith + 1, nth) << 7, yRow);
  if (begin >= end) return;
  const bytes = max<usize>(begin, min<usize>(end, width)) - begin, zeros = end - begin - bytes;
  for (const e = rows + nseq * ROW_ENTRY_BYTES; rows < e; rows += ROW_ENTRY_BYTES) {
    const first = first_row(rows);
    sequence(y + first * yRow + begin, yRow, yq + first * yqRow, yqRow, bcu + (first * bcuStride << 2) + begin, bcuStride << 2, row_count(rows),
      conv_state(rows) + layerOffset + begin, kept(rows, layerOffset, Kc, begin), taps + begin, bias ? bias + begin : 0, Kc, width, bytes, zeros, blocks, block);
  }
}

/** The columns from `begin` on of a sequence's kept gates in the layer whose state lies at `layerOffset`; 0 without any. */
function kept(rows: usize, layerOffset: usize, Kc: usize, begin: usize): usize {
  const gates = kept_gates(rows);
  return gates ? gates + layerOffset / (Kc - 1) * kept_rows(rows) + begin : 0;
}

/** The n rows of one sequence, for `bytes` of its columns with `zeros` bytes behind them; these start at block `block` of `blocks`. */
function sequence(
  y: usize, yRow: usize, yq: usize, yqRow: usize, bcu: usize, bcuRow: usize, n: usize,
  state: usize, kept: usize, w: usize, bias: usize, Kc: usize, width: usize, bytes: usize, zeros: usize,
  blocks: usize, block: usize,
): void {
  if (kept) for (let i: usize = 0; i < Kc - 1; i++) memory.copy(kept + i * width, state + i * width, bytes);
  let a = kept ? kept : state, b = a + width, c = b + width; // oldest to newest
  for (; n > 0; n--, y += yRow, yq += yqRow, bcu += bcuRow) {
    const g = kept ? a + (Kc - 1) * width : a;
    if (Kc == 2) {
      row__2(y, bcu, w, bias, a, g, width, bytes);
      a = g;
    } else if (Kc == 3) {
      row__3(y, bcu, w, bias, a, b, g, width, bytes);
      a = b; b = g;
    } else {
      row__4(y, bcu, w, bias, a, b, c, g, width, bytes);
      a = b; b = c; c = g;
    }
    if (zeros) memory.fill(y + bytes, 0, zeros);
    if (yqRow) quantize_blocks(yq, blocks, block, y, (bytes + zeros) >> 7);
  }
  if (a != state) set_state(state, a, b, c, Kc, width, bytes);
}
