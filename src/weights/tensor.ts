// A tensor as it lies in a file: name, element type, shape, place. Must not know models nor linear memory.
import { FormatError, UnsupportedError } from "../errors.ts";
import type { WeightDType } from "../memory/dtype.ts";
import type { ByteSource } from "./source.ts";

/** Element types of a file that can be packed. */
export type StoredType =
  | "F32"
  | "F16"
  | "BF16"
  | "Q8_0"
  | "Q4_0"
  | "Q4_1"
  | "Q5_0"
  | "Q5_1"
  | "Q2_K"
  | "Q3_K"
  | "Q4_K"
  | "Q5_K"
  | "Q6_K"
  | "IQ4_NL";

/** A tensor's place in a file. */
export interface StoredTensor {
  readonly name: string;
  readonly type: StoredType;
  /** Row-major, rows first: (N,K) for a matrix. A GGUF's dimensions are reversed. */
  readonly shape: readonly number[];
  readonly source: ByteSource;
  /** Absolute offset in `source`; may be odd. */
  readonly offsetBytes: number;
  readonly bytes: number;
}

/** What a weight file holds, whatever its format. */
export interface WeightFile {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Tensors of a type that cannot be packed: name → the sentence that says so. They harm only whoever needs them. */
  readonly unsupported: ReadonlyMap<string, string>;
  /** What the file calls a tensor, where that is another name: for messages. */
  readonly nameInFile?: ((name: string) => string) | undefined;
}

/** @returns a tensor's name for a message: in quotes, with the file's own where that is another */
export function tensorText(file: WeightFile, name: string): string {
  const own = file.nameInFile?.(name) ?? name;
  return own === name ? `"${name}"` : `"${own}" ("${name}")`;
}

/** How a type lies in a file, and what becomes of it. */
export interface StoredLayout {
  /** The code by which kernels know it; compared with `assembly/lib/blocks.ts` by a test. */
  readonly code: number;
  /** Values and bytes of a block along K. */
  readonly values: number;
  readonly bytes: number;
  /** The dtype that it has in linear memory unless another is asked for: the same values, or the nearest that a kernel multiplies by. */
  readonly dtype: WeightDType;
}

/**
 * Every type that can be packed. F32 to Q4_0, Q4_K and Q6_K stay as they are; Q5_0 and IQ4_NL keep their values, as int8 with the same scale. Other blocks are
 * quantized again: to q8, which loses 0.5 % of their rms; those of 2 and 3 bits to q4, which adds 3 and 7 % to the error that they have already
 * and spares half of the memory (IQ4_NL as q4 would add half as much again). `tests/kernels/dequantize.test.ts` holds the bounds.
 */
export const STORED_TYPES: Readonly<Record<StoredType, StoredLayout>> = {
  F32: { code: 0, values: 1, bytes: 4, dtype: "f32" },
  F16: { code: 1, values: 1, bytes: 2, dtype: "f16" },
  BF16: { code: 2, values: 1, bytes: 2, dtype: "bf16" },
  Q8_0: { code: 3, values: 32, bytes: 34, dtype: "q8" },
  Q4_0: { code: 4, values: 32, bytes: 18, dtype: "q4" },
  Q4_1: { code: 16, values: 32, bytes: 20, dtype: "q8" },
  Q5_0: { code: 17, values: 32, bytes: 22, dtype: "q8" },
  Q5_1: { code: 18, values: 32, bytes: 24, dtype: "q8" },
  Q2_K: { code: 19, values: 256, bytes: 84, dtype: "q4" },
  Q3_K: { code: 20, values: 256, bytes: 110, dtype: "q4" },
  Q4_K: { code: 21, values: 256, bytes: 144, dtype: "q4k" },
  Q5_K: { code: 22, values: 256, bytes: 176, dtype: "q8" },
  Q6_K: { code: 23, values: 256, bytes: 210, dtype: "q6k" },
  IQ4_NL: { code: 24, values: 32, bytes: 18, dtype: "q8" },
};

/** @returns bytes that `count` values of a type take in a file; `count` is a multiple of the type's block */
export function storedBytes(type: StoredType, count: number): number {
  const { values, bytes } = STORED_TYPES[type];
  return (count / values) * bytes;
}

/** @returns whether a file's type is one that can be packed */
export function isStoredType(type: string): type is StoredType {
  return Object.hasOwn(STORED_TYPES, type);
}

/**
 * Takes a tensor that is needed.
 * @param where - the file's name, for the message
 * @throws UnsupportedError when it is there in a type that cannot be packed, FormatError when it is missing.
 */
export function requireTensor(file: WeightFile, name: string, where: string): StoredTensor {
  const tensor = file.tensors.get(name);
  if (tensor) return tensor;
  const sentence = file.unsupported.get(name);
  if (sentence !== undefined) throw new UnsupportedError(sentence);
  throw new FormatError(`${where}: expected a tensor ${tensorText(file, name)}, got none: it is missing. Use a complete file.`);
}

/**
 * @param shape - each a safe integer ≥ 0
 * @returns the number of elements, or undefined when a number cannot hold it exactly
 */
export function elementCount(shape: readonly number[]): number | undefined {
  let count = 1;
  for (const n of shape) {
    if (n === 0) return 0;
    count *= n;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}
