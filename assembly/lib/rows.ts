// The row table: which rows of a step belong to which sequence. It knows nothing of layers.
// An entry is 8 words: first row, number of rows, position of the first row, address of the page table, address of the conv state, first position to write,
// address of the kept gates or 0, rows of them a layer.

export const ROW_ENTRY_BYTES: usize = 32;
/** Positions in a page of the KV cache. */
export const PAGE: usize = 32;

// @ts-ignore: decorator
@inline export function first_row(entry: usize): usize { return load<usize>(entry); }
// @ts-ignore: decorator
@inline export function row_count(entry: usize): usize { return load<usize>(entry, 4); }
// @ts-ignore: decorator
@inline export function position(entry: usize): usize { return load<usize>(entry, 8); }
// @ts-ignore: decorator
@inline export function page_table(entry: usize): usize { return load<usize>(entry, 12); }
// @ts-ignore: decorator
@inline export function conv_state(entry: usize): usize { return load<usize>(entry, 16); }
/** Keys and values of earlier positions are in the pages already and stay: their rows only bring the conv state back. */
// @ts-ignore: decorator
@inline export function first_written(entry: usize): usize { return load<usize>(entry, 20); }

/** Where the gates that a rewind may need are kept, one row behind the other; 0 where none are. */
// @ts-ignore: decorator
@inline export function kept_gates(entry: usize): usize { return load<usize>(entry, 24); }
/** Rows from one layer's kept gates to the next one's. */
// @ts-ignore: decorator
@inline export function kept_rows(entry: usize): usize { return load<usize>(entry, 28); }

/** Rows of all nseq sequences. */
export function total_rows(table: usize, nseq: usize): usize {
  let n: usize = 0;
  for (let i: usize = 0; i < nseq; i++) n += row_count(table + i * ROW_ENTRY_BYTES);
  return n;
}

/** Where `row` of the rows of all sequences falls in a sequence that has `count` rows and `before` ahead of it, clamped to 0..count. */
// @ts-ignore: decorator
@inline export function clamp_row(row: usize, before: usize, count: usize): usize {
  return row <= before ? 0 : min<usize>(row - before, count);
}
