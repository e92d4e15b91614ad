// Dtype codes and block layouts, stored and packed: the numbers that both sides share (src/memory/dtype.ts; a test compares them).
// README.md draws the layouts byte by byte.
import { dot_operand_kind } from "./simd";

export const F32: i32 = 0;
export const F16: i32 = 1;
export const BF16: i32 = 2;
export const Q8: i32 = 3;
export const Q4: i32 = 4;

/** Codes of GGUF's other types. Of Q4_K and Q6_K there is a packed layout too, which holds the same values; of the rest pack_rows makes another dtype. */
export const Q4_1: i32 = 16;
export const Q5_0: i32 = 17;
export const Q5_1: i32 = 18;
export const Q2_K: i32 = 19;
export const Q3_K: i32 = 20;
export const Q4_K: i32 = 21;
export const Q5_K: i32 = 22;
export const Q6_K: i32 = 23;
export const IQ4_NL: i32 = 24;

/** Values in a block along K, rows in a group. */
export const BLOCK: usize = 32;
export const GROUP: usize = 8;

/** Values along K that share f16 scales in the K formats. */
export const SUPER: usize = 256;

/** Bytes of one block of a group of 8 rows, packed. */
export const F32W_BYTES: usize = 1024;
export const F16W_BYTES: usize = 512;
export const BF16W_BYTES: usize = 512;
export const QB8W_BYTES: usize = 272;
export const QB4W_BYTES: usize = 144;
/** Where the integers of a packed quantized block start: behind 8 f16 scales, or 16 bytes of scales and minima. */
export const QBW_VALUES: usize = 16;

/** Q4_K and Q6_K packed: for 256 values, the f16 of 8 rows, then 8 blocks. What a block takes on average counts as its size: K is whole super-blocks. */
export const Q4KW_HEAD: usize = 32;
export const Q4KW_BLOCK: usize = 144;
export const Q4KW_BYTES: usize = 148;
export const Q6KW_HEAD: usize = 16;
export const Q6KW_BLOCK: usize = 208;
export const Q6KW_BYTES: usize = 210;

/** How this engine's relaxed dots read their right operand; asked once, when the module starts. */
export const DOT_KIND: i32 = dot_operand_kind();
/** Products are summed in pairs of 16 bits (pair_i8), not in 32 bits: decided by the engine. */
export const PAIRS: bool = ASC_FEATURE_RELAXED_SIMD && DOT_KIND == 0;

/**
 * A row of quantized activations is its blocks one behind the other: values | f32 scale | i32 -8·Σq (plain: 256 times that) | i32 Q8_BIAS·Σq |
 * two i16 that add up to -8·Σq: of k < 16 and of the others. With PAIRS the last three are what sums of 16 bits start at, two i16 each, of the k with k mod 4 < 2 and
 * of the others: -32·Σq of k < 16, -32·Σq of k ≥ 16, -8·Σq.
 * Where int8 weights take the values otherwise, all blocks again follow (apart, so that a product reads no more than it needs: a long row fills the
 * L1 cache): 64 bytes of values | f32 scale | i32 Q8_BIAS·Σq | the last word of the first part | 4 unused. With PAIRS the values are 16·high + low, both in -8..8,
 * 32 bytes low, 32 high; in the plain build 32 × i16.
 */
export const QD8_VALUES: usize = ASC_FEATURE_RELAXED_SIMD ? 32 : 64;
export const QD8_SCALE: usize = QD8_VALUES;
export const QD8_SUM8: usize = QD8_VALUES + 4;
export const QD8_SUM_BIAS: usize = QD8_VALUES + 8;
export const QD8_PAIR8: usize = QD8_VALUES + 12;
/** Two words: with PAIRS, which needs neither of the sums in 32 bits. */
export const QD8_PAIR32: usize = QD8_SUM8;
export const QD8_BLOCK: usize = QD8_VALUES + 16;
export const QD8_AGAIN_SCALE: usize = 64;
export const QD8_AGAIN_BIAS: usize = 68;
export const QD8_AGAIN_PAIR8: usize = 72;
export const QD8_AGAIN_BLOCK: usize = 80;
/** Whether rows have that second part. */
export const QD8_TWICE: bool = PAIRS || !ASC_FEATURE_RELAXED_SIMD;
/**
 * Last in a row, for each whole 256 values where K is a multiple of them: -scale·Σq of the 8 blocks as i16 | their f32 scale | 12 unused.
 * What Q4_K subtracts, its minima times these, is then one product for 256 values.
 */
export const QD8_SUMS: usize = 32;
export const QD8_SUMS_SCALE: usize = 16;

/** @returns bytes of a row before its sums of 256; a tile knows whether its rows have the second part, all else asks QD8_TWICE */
// @ts-ignore: decorator
@inline export function qd8_sums_offset(blocks: usize, twice: bool): usize {
  return blocks * (twice ? QD8_BLOCK + QD8_AGAIN_BLOCK : QD8_BLOCK);
}

/** @returns bytes of a row of so many blocks */
// @ts-ignore: decorator
@inline export function qd8_row(blocks: usize, twice: bool): usize {
  return qd8_sums_offset(blocks, twice) + (blocks >> 3) * QD8_SUMS;
}

/**
 * What is added to q in a byte of qb8w, negated: 0 where the dot reads signed bytes (and in the plain build), else -128: the dots then read
 * unsigned bytes. The host never sees it.
 */
export const Q8_BIAS: i32 = ASC_FEATURE_RELAXED_SIMD && DOT_KIND >= 0 ? -128 : 0;
/** The same as a byte to exclusive-or with: q ^ flip = q + 128. */
export const Q8_FLIP: i32 = Q8_BIAS & 0x80;

/**
 * Bytes of weights that a product takes at a time while rows of activations pass, four by four: the first four read them from memory, the others from the second cache.
 * Fewer would break the stream from memory too often: against what the first cache holds (20 KB) 8 rows are 1.04 to 1.25 times as fast, 128 rows 1.01.
 */
const TAKEN_BYTES: usize = 128 << 10;

/** @returns how many groups of so many bytes those are, at least one */
// @ts-ignore: decorator
@inline export function groups_per_pass(groupBytes: usize): usize {
  return max<usize>(1, TAKEN_BYTES / groupBytes);
}

/** A run has at least so many bytes: memory gives several such runs at a time faster than one behind the other, since page walks and prefetches overlap. */
const RUN_BYTES: usize = 128 << 10;

/** @returns how many groups a product of one row takes in each of `runs` runs, one behind the other in memory and read at the same time; 0 where there are too few */
// @ts-ignore: decorator
@inline export function groups_per_run(groups: usize, groupBytes: usize, runs: usize): usize {
  return groups * groupBytes < runs * RUN_BYTES ? 0 : groups / runs;
}

/** @returns bytes of a packed block of the dtype */
export function packed_block_bytes(dtype: i32): usize {
  switch (dtype) {
    case F32: return F32W_BYTES;
    case F16: return F16W_BYTES;
    case BF16: return BF16W_BYTES;
    case Q8: return QB8W_BYTES;
    case Q4: return QB4W_BYTES;
    case Q4_K: return Q4KW_BYTES;
    case Q6_K: return Q6KW_BYTES;
    default: return unreachable();
  }
}

/** @returns bytes that K values of the type take in a file (K a multiple of the block) */
export function stored_row_bytes(dtype: i32, K: usize): usize {
  switch (dtype) {
    case F32: return K << 2;
    case F16: return K << 1;
    case BF16: return K << 1;
    case Q8: return K / BLOCK * 34;
    case Q4: return K / BLOCK * 18;
    case Q4_1: return K / BLOCK * 20;
    case Q5_0: return K / BLOCK * 22;
    case Q5_1: return K / BLOCK * 24;
    case IQ4_NL: return K / BLOCK * 18;
    case Q2_K: return (K >> 8) * 84;
    case Q3_K: return (K >> 8) * 110;
    case Q4_K: return (K >> 8) * 144;
    case Q5_K: return (K >> 8) * 176;
    case Q6_K: return (K >> 8) * 210;
    default: return unreachable();
  }
}

/** @returns bytes of a quantized row of K values (K a multiple of 32) */
export function qd8_row_bytes(K: i32): i32 {
  return <i32>qd8_row(<usize>K / BLOCK, QD8_TWICE);
}
