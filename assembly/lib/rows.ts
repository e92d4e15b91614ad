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

/** Below it lie the module's own words (HEAP_START in src/memory/arena.ts). */
const LOWEST: usize = 65536;

// @ts-ignore: decorator
@inline function is_room(at: usize, bytes: usize): bool {
  return at >= LOWEST && at % 16 == 0 && <u64>at + <u64>bytes <= <u64>memory.size() << 16;
}

/**
 * In a build with assertions: for every position up to a sequence's last, the page table's entry is a page whose layer, `bytes` from layerOffset on, lies in memory.
 * The host proves more before a step, by the pages that the sequence holds; who wants to be told of a position beyond them clears the entries behind.
 */
export function assert_pages(rows: usize, nseq: usize, layerOffset: usize, bytes: usize): void {
  for (let i: usize = 0; i < nseq; i++, rows += ROW_ENTRY_BYTES) {
    const pages = (position(rows) + row_count(rows) + PAGE - 1) / PAGE;
    assert(row_count(rows) > 0 && pages <= 1 << 27, "a sequence without rows, or one that is too long");
    assert(is_room(page_table(rows), pages << 2), "a page table outside the memory");
    for (let p: usize = 0; p < pages; p++) assert(is_room(load<usize>(page_table(rows) + (p << 2)), layerOffset + bytes), "an entry that is no page");
  }
}

/** In a build with assertions: every sequence's convolution state of the layer, Kc-1 rows of `width` bytes, and its kept gates there lie in memory. */
export function assert_states(rows: usize, nseq: usize, layerOffset: usize, Kc: usize, width: usize): void {
  for (let i: usize = 0; i < nseq; i++, rows += ROW_ENTRY_BYTES) {
    assert(is_room(conv_state(rows), layerOffset + (Kc - 1) * width), "a convolution state outside the memory");
    const gates = layerOffset / (Kc - 1) * kept_rows(rows) + (Kc - 1 + row_count(rows)) * width;
    assert(kept_gates(rows) == 0 || is_room(kept_gates(rows), gates), "kept gates outside the memory");
  }
}
