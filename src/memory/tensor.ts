// What an address in linear memory stands for: rows of activations, a vector, a matrix of packed weights. Plain records; kernels and models give them meaning.
import type { WeightDType } from "./dtype.ts";

/** Rows of f32 activations: row r starts at `address + 4·stride·r`. */
export interface Rows {
  readonly address: number;
  /** Floats from one row to the next, a multiple of 16; columns past the used ones are zero. */
  readonly stride: number;
}

/** Rows of a matrix that come from one tensor, with a dtype of their own. */
export interface Segment {
  readonly name: string;
  readonly rows: number;
  dtype: WeightDType;
  /** Where the packed rows lie. */
  address: number;
}

/** Packed weights (rows, columns): the rows of all segments, one below the other. */
export interface Matrix {
  readonly kind: "matrix";
  readonly columns: number;
  readonly segments: readonly Segment[];
  /** Address of the descriptor that kernels read. */
  address: number;
}

/** f32 weights: a norm's gain, a bias, or the taps of a convolution as (taps, length). */
export interface Vector {
  readonly kind: "vector" | "taps";
  readonly name: string;
  readonly length: number;
  /** 1, or the number of taps. */
  readonly taps: number;
  address: number;
}
