// Element types of weights and of the KV cache: codes shared with the kernels, sizes in files and in linear memory. The block layouts are in assembly/README.md.

/** Element types that weights can be loaded as. `q8` and `q4` are blocks of 32 along K with one f16 scale. */
export type DType = "f32" | "f16" | "bf16" | "q8" | "q4";

/** Element types that a weight can have in linear memory: also a GGUF's Q4_K and Q6_K as they are, which nothing else is made into. */
export type WeightDType = DType | "q4k" | "q6k";

/** Element types of keys and values in the cache. `q8` is int8 with an f32 scale for each position and head. */
export type KvDType = "f32" | "f16" | "q8";

/** The codes by which kernels know a dtype. Compared with `assembly/lib/blocks.ts` by a test. */
export const DTYPE_CODE: Readonly<Record<WeightDType, number>> = { f32: 0, f16: 1, bf16: 2, q8: 3, q4: 4, q4k: 21, q6k: 23 };

/** Every element type of the cache, from the most to the fewest bits. */
export const KV_DTYPES: readonly KvDType[] = ["f32", "f16", "q8"];

/** Every dtype to load as, from the most to the fewest bits. */
export const DTYPES: readonly DType[] = ["f32", "bf16", "f16", "q8", "q4"];
/** Every dtype in memory, likewise. */
export const WEIGHT_DTYPES: readonly WeightDType[] = ["f32", "bf16", "f16", "q8", "q6k", "q4k", "q4"];

/** @returns whether the kernels multiply it by quantized activations */
export function isQuantized(dtype: WeightDType): boolean {
  return dtype.startsWith("q");
}

/** Rows in a group of the packed layout, and values in a quantized block. */
export const GROUP_ROWS = 8;
export const BLOCK = 32;

/** Bytes of one block of 32 along K of a group of 8 rows; on average where blocks of 256 have a head. */
export const packedBlockBytes: Readonly<Record<WeightDType, number>> = {
  f32: 1024,
  f16: 512,
  bf16: 512,
  q8: 272,
  q4: 144,
  q4k: 148,
  q6k: 210,
};

/** @returns bytes of a matrix of (rows, columns) packed for the kernels: rows padded to 8, columns to 32. */
export function packedBytes(dtype: WeightDType, rows: number, columns: number): number {
  return Math.ceil(rows / GROUP_ROWS) * Math.ceil(columns / BLOCK) * packedBlockBytes[dtype];
}

/** @returns `n` rounded up to a multiple of `to`. */
export function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}
