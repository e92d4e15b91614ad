// A tensor as it lies in a file: name, element type, shape, place. Must not know models nor linear memory.
import { FormatError, UnsupportedError } from "../errors.ts";
import type { DType } from "../memory/dtype.ts";
import type { ByteSource } from "./source.ts";

/** Element types of a file that can be packed. */
export type StoredType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0";

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
}

/** The dtype that holds the same values in linear memory. */
export const STORED_DTYPE: Readonly<Record<StoredType, DType>> = { F32: "f32", F16: "f16", BF16: "bf16", Q8_0: "q8", Q4_0: "q4" };

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
  throw new FormatError(`${where}: expected a tensor "${name}", got none: it is missing. Use a complete file.`);
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
