// What a model wants from a checkpoint, and the plan that gives every byte a place before one is read. Knows tensors by name and shape only, no architecture.
import { FormatError, MemoryError, UnsupportedError } from "../errors.ts";
import { descriptorBytes } from "../kernels/commands.ts";
import { type Arena, formatBytes } from "../memory/arena.ts";
import { BLOCK, DTYPE_CODE, DTYPES, type DType, packedBytes, roundUp } from "../memory/dtype.ts";
import type { Matrix, Vector } from "../memory/tensor.ts";
import { requireTensor, STORED_TYPES, type StoredTensor, tensorText, type WeightFile } from "./tensor.ts";

/** The weights that a model names, collected while it names them. Their addresses are 0 until `placeWeights`. */
export class WeightList {
  readonly matrices: Matrix[] = [];
  readonly vectors: Vector[] = [];

  /** A matrix of `columns` columns whose rows are those of the named tensors, one below the other. */
  matrix(columns: number, ...segments: readonly (readonly [name: string, rows: number])[]): Matrix {
    const matrix: Matrix = {
      kind: "matrix",
      columns,
      address: 0,
      segments: segments.map(([name, rows]) => ({ name, rows, dtype: "f32", address: 0 })),
    };
    this.matrices.push(matrix);
    return matrix;
  }

  /** A vector of `length` f32. */
  vector(name: string, length: number): Vector {
    return this.#add({ kind: "vector", name, length, taps: 1, address: 0 });
  }

  /** The taps of a depthwise convolution, (length, 1, taps) in files and (taps, length) in memory. */
  taps(name: string, length: number, taps: number): Vector {
    return this.#add({ kind: "taps", name, length, taps, address: 0 });
  }

  #add(vector: Vector): Vector {
    this.vectors.push(vector);
    return vector;
  }
}

const vectorBytes = (v: Vector): number => v.taps * roundUp(v.length, BLOCK) * 4;

/** @returns bytes that the weights take in linear memory, each matrix in its segments' dtypes */
export function weightBytes(list: WeightList): number {
  let bytes = 0;
  for (const m of list.matrices) {
    bytes += roundUp(descriptorBytes(m.segments.length), 64);
    for (const s of m.segments) bytes += roundUp(packedBytes(s.dtype, s.rows, m.columns), 64);
  }
  for (const v of list.vectors) bytes += roundUp(vectorBytes(v), 64);
  return bytes;
}

function shapeText(shape: readonly number[]): string {
  return `(${shape.join(", ")})`;
}

/** @throws FormatError when the tensor is missing or has another shape, UnsupportedError when its type cannot be packed */
function find(file: WeightFile, name: string, shape: readonly number[]): StoredTensor {
  const tensor = requireTensor(file, name, "checkpoint");
  const got = tensor.shape.filter((n, i) => !(n === 1 && i === 1 && tensor.shape.length === 3));
  if (got.length !== shape.length || got.some((n, i) => n !== shape[i])) {
    throw new FormatError(
      `${tensor.source.name}: tensor ${tensorText(file, name)}: expected shape ${shapeText(shape)}, got ${shapeText(tensor.shape)}. The config and the weights belong to different models.`,
      { code: "wrong-shape" },
    );
  }
  return tensor;
}

/** Checks that every wanted tensor is there with its shape, and sets each segment's dtype: `dtype`, or as stored when undefined. */
export function resolveWeights(list: WeightList, file: WeightFile, dtype: DType | undefined): void {
  for (const m of list.matrices) {
    for (const s of m.segments) {
      const stored = find(file, s.name, [s.rows, m.columns]);
      s.dtype = dtype ?? STORED_TYPES[stored.type].dtype;
    }
  }
  for (const v of list.vectors) {
    const stored = find(file, v.name, v.taps > 1 ? [v.length, v.taps] : [v.length]);
    if (STORED_TYPES[stored.type].values > 1) {
      throw new UnsupportedError(
        `${stored.source.name}: tensor ${tensorText(file, v.name)} is stored as ${stored.type}; expected F32, F16 or BF16 for a vector. Convert the file again without quantizing it.`,
      );
    }
  }
}

/** A share of the plan: what and how much. */
export interface PlanItem {
  readonly what: string;
  readonly bytes: number;
}

/**
 * Checks that a plan fits before anything is allocated or read.
 * @param items every region of linear memory that the model will take
 * @param limitBytes what there is
 * @param smaller gives the total for another dtype, for the advice in the message
 * @throws MemoryError that says how much is needed, how much there is and which smaller dtype would fit
 */
export function checkPlan(
  items: readonly PlanItem[],
  limitBytes: number,
  current: DType | undefined,
  smaller: (dtype: DType) => number,
): void {
  const total = items.reduce((sum, item) => sum + item.bytes, 0);
  if (total <= limitBytes) return;
  const fits = DTYPES.filter((d) => d !== current && smaller(d) <= limitBytes && smaller(d) < total);
  const best = fits.sort((a, b) => smaller(b) - smaller(a))[0];
  const detail = items.map((i) => `${i.what} ${formatBytes(i.bytes)}`).join(", ");
  const advice = best
    ? `Load it with dtype "${best}" (${formatBytes(smaller(best))}).`
    : "No dtype fits: use a smaller model or raise maxMemoryBytes.";
  throw new MemoryError(
    `load: expected at most ${formatBytes(limitBytes)}, got a model that needs ${formatBytes(total)} (${detail}). ${advice}`,
  );
}

/** Takes the weights' regions from the arena, in the order of use: a step then reads memory from one end to the other. */
export function placeWeights(list: WeightList, arena: Arena): void {
  for (const m of list.matrices) {
    m.address = arena.alloc(descriptorBytes(m.segments.length), "a matrix");
    for (const s of m.segments) s.address = arena.alloc(packedBytes(s.dtype, s.rows, m.columns), `tensor "${s.name}"`);
  }
  for (const v of list.vectors) v.address = arena.alloc(vectorBytes(v), `tensor "${v.name}"`);
}

/** Smaller models load as fast as an image of packed weights would. */
const LEAST_IMAGE_BYTES = 16 << 20;

/** @returns whether an image of packed weights is worth its place on the disk: moving blocks as they are is as fast as reading them packed */
export function isWorthAnImage(list: WeightList, tensors: ReadonlyMap<string, StoredTensor>): boolean {
  let bytes = 0;
  for (const m of list.matrices)
    for (const { name, dtype, rows } of m.segments) {
      const stored = tensors.get(name);
      if (stored && STORED_TYPES[stored.type].code !== DTYPE_CODE[dtype]) bytes += packedBytes(dtype, rows, m.columns);
    }
  return bytes >= LEAST_IMAGE_BYTES;
}
