// What several kernel tests share: golden arrays, packed matrices with the values they stand for, row tables with pages and states.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { BLOCK_TYPES } from "../reference/blocks.ts";
import { bf16ToBits, dequantize, encodeQ4, encodeQ8, f16ToBits, quantizeQ4, quantizeQ8, toBf16, toF16 } from "../reference/convert.ts";
import { type Sandbox, up } from "./harness.ts";

/** Dtypes by code, and those that are packed from their own blocks only, whose codes are the blocks'. */
export const DTYPES = ["f32", "f16", "bf16", "q8", "q4"] as const;
export const K_DTYPES = { q4k: "Q4_K", q6k: "Q6_K" } as const;
export type KDType = keyof typeof K_DTYPES;
export type DType = (typeof DTYPES)[number] | KDType;
export const isKDType = (dtype: DType): dtype is KDType => dtype in K_DTYPES;
export const codeOf = (dtype: DType): number => (isKDType(dtype) ? BLOCK_TYPES[K_DTYPES[dtype]].code : DTYPES.indexOf(dtype));
export const isQuantized = (dtype: DType): boolean => dtype.startsWith("q");

/** A golden array. */
export interface Golden {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly bytes: Uint8Array;
  readonly data: Float32Array;
}

/** The cases and arrays of tests/golden/data/kernels/NAME. */
export function golden<Case>(name: string): { cases: Case[]; array(key: string): Golden } {
  const path = `tests/golden/data/kernels/${name}`;
  const file = readFileSync(`${path}.safetensors`);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return {
    cases: JSON.parse(readFileSync(`${path}.json`, "utf8")) as Case[],
    array(key) {
      const entry = header[key];
      if (!entry) throw new Error(`${path} has no array ${key}`);
      const bytes = new Uint8Array(file.subarray(start + entry.data_offsets[0], start + entry.data_offsets[1]));
      return {
        shape: entry.shape,
        dtype: entry.dtype,
        bytes,
        data: entry.dtype === "F32" ? new Float32Array(bytes.buffer) : new Float32Array(),
      };
    },
  };
}

/** Rows (N,K) rounded to the values that a dtype holds; q8 and q4 as the packer quantizes them, in blocks of 32 of each zero-padded row. */
export function rounded(w: Float32Array, N: number, K: number, dtype: DType): Float32Array {
  if (dtype === "f32") return w;
  if (dtype === "f16") return w.map(toF16);
  if (dtype === "bf16") return w.map(toBf16);
  const Kp = up(K, 32);
  const padded = Float32Array.from({ length: N * Kp }, (_, i) => (i % Kp < K ? w[Math.floor(i / Kp) * K + (i % Kp)]! : 0));
  const values = dequantize(dtype === "q8" ? quantizeQ8(padded) : quantizeQ4(padded));
  return Float32Array.from({ length: N * K }, (_, i) => values[Math.floor(i / K) * Kp + (i % K)]!);
}

/** Rows as a file stores them. K % 32 == 0 for q8 and q4. */
export function stored(w: Float32Array, dtype: DType): Uint8Array {
  if (dtype === "q8") return encodeQ8(quantizeQ8(w));
  if (dtype === "q4") return encodeQ4(quantizeQ4(w));
  if (dtype === "f32") return new Uint8Array(w.slice().buffer);
  return new Uint8Array(Uint16Array.from(w, dtype === "f16" ? f16ToBits : bf16ToBits).buffer);
}

/** One segment: N rows of K values (before rounding) in a dtype. */
export interface Segment {
  readonly dtype: DType;
  readonly N: number;
  readonly w: Float32Array;
  /** Stored blocks instead of w, for a `KDType`. */
  readonly raw?: Uint8Array;
}

/** Packs a segment from f32, or from its own blocks. @returns its address */
export function packSegment(lab: Sandbox, { dtype, N, w, raw }: Segment, K: number): number {
  const Kp = up(K, 32);
  const bytes = (up(N, 8) / 8) * (Kp / 32) * lab.kernels.packed_block_bytes(codeOf(dtype));
  const [dst, src, scratch] = [lab.room(bytes), lab.put(raw ?? w), lab.room(8 * Kp * 4)];
  lab.kernels.pack_rows(dst, codeOf(dtype), 0, src, raw ? codeOf(dtype) : 0, N, K, scratch);
  return dst;
}

/** Writes the descriptor of segments that are packed already. @returns its address */
export function describeMatrix(lab: Sandbox, K: number, segments: readonly { dtype: DType; N: number; address: number }[]): number {
  const total = segments.reduce((sum, s) => sum + up(s.N, 8), 0);
  return lab.put(
    Uint32Array.from([segments.length, K, up(K, 32), total, ...segments.flatMap((s) => [codeOf(s.dtype), s.N, up(s.N, 8), s.address])]),
  );
}

/** Packs segments and describes them. @returns the descriptor's address */
export function packMatrix(lab: Sandbox, K: number, segments: readonly Segment[]): number {
  return describeMatrix(
    lab,
    K,
    segments.map((s) => ({ ...s, address: packSegment(lab, s, K) })),
  );
}

/** Room for y (M,stride) quantized. @returns its address */
export function quantizedRoom(lab: Sandbox, M: number, stride: number): number {
  return lab.room(M * lab.kernels.qd8_row_bytes(stride));
}

/** Fails unless yq, a `quantizedRoom`, holds the bytes that the command `quantize` makes of y (M,stride). */
export function isQuantized8(lab: Sandbox, yq: number, y: number, M: number, stride: number): void {
  const want = quantizedRoom(lab, M, stride);
  lab.run("quantize", [want, y, M, stride, stride]);
  const bytes = M * lab.kernels.qd8_row_bytes(stride);
  assert.deepEqual(lab.bytes(yq, bytes), lab.bytes(want, bytes));
}

/** A sequence of a row table. */
export interface Sequence {
  readonly first: number;
  readonly count: number;
  readonly position: number;
  readonly pages?: number;
  readonly state?: number;
  /** Position from which keys and values are written. */
  readonly kept?: number;
  /** Address of kept gates, and rows of them a layer. */
  readonly gates?: readonly [address: number, rows: number];
}

/** Writes a row table. @returns its address */
export function rowTable(lab: Sandbox, sequences: readonly Sequence[]): number {
  const entry = (s: Sequence): number[] => [s.first, s.count, s.position, s.pages ?? 0, s.state ?? 0, s.kept ?? 0, ...(s.gates ?? [0, 0])];
  return lab.put(Uint32Array.from(sequences.flatMap(entry)));
}

/** Pages for `positions`, filled with NaN of both element types, and their table. @returns the table's address */
export function pages(lab: Sandbox, positions: number, pageBytes: number): number {
  const addresses = Array.from({ length: Math.ceil(positions / 32) }, () => lab.room(pageBytes));
  return lab.put(Uint32Array.from(addresses));
}
