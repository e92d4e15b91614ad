// The block formats of GGUF that no kernel multiplies by, to f32 as ggml computes it: one value at a time, slow and obvious. Nothing here imports from src/ or assembly/.
import { f16FromBits } from "./convert.ts";

/** Types, with the values and bytes of a block and the code by which the kernels know them. */
export const BLOCK_TYPES = {
  Q4_1: { values: 32, bytes: 20, code: 16 },
  Q5_0: { values: 32, bytes: 22, code: 17 },
  Q5_1: { values: 32, bytes: 24, code: 18 },
  Q2_K: { values: 256, bytes: 84, code: 19 },
  Q3_K: { values: 256, bytes: 110, code: 20 },
  Q4_K: { values: 256, bytes: 144, code: 21 },
  Q5_K: { values: 256, bytes: 176, code: 22 },
  Q6_K: { values: 256, bytes: 210, code: 23 },
  IQ4_NL: { values: 32, bytes: 18, code: 24 },
} as const;
export type BlockType = keyof typeof BLOCK_TYPES;

const IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const f = Math.fround;
/** Byte → value i of 32: low nibbles first, then high ones. */
const nibble = (b: Uint8Array, at: number, i: number): number => (i < 16 ? b[at + i]! & 15 : b[at + i - 16]! >> 4);
const half = (b: Uint8Array, at: number): number => f16FromBits(b[at]! | (b[at + 1]! << 8));
const bit = (b: Uint8Array, at: number, i: number): number => (b[at + (i >> 3)]! >> (i & 7)) & 1;
/** Signed byte. */
const i8 = (v: number): number => (v << 24) >> 24;

/** Six-bit scale (or minimum) number g of the 12 bytes of a Q4_K or Q5_K block. */
function six(b: Uint8Array, at: number, g: number): [scale: number, minimum: number] {
  if (g < 4) return [b[at + g]! & 63, b[at + 4 + g]! & 63];
  const both = b[at + 4 + g]!;
  return [(both & 15) | ((b[at + g - 4]! >> 6) << 4), (both >> 4) | ((b[at + g]! >> 6) << 4)];
}

/** Value i of the block `b`. */
const decoders: Readonly<Record<BlockType, (b: Uint8Array, i: number) => number>> = {
  Q4_1: (b, i) => f(f(nibble(b, 4, i) * half(b, 0)) + half(b, 2)),
  Q5_0: (b, i) => f((nibble(b, 6, i) + 16 * bit(b, 2, i) - 16) * half(b, 0)),
  Q5_1: (b, i) => f(f((nibble(b, 8, i) + 16 * bit(b, 4, i)) * half(b, 0)) + half(b, 2)),
  Q2_K: (b, i) => {
    const s = b[i >> 4]!;
    const q = (b[16 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
    return f(f(f(half(b, 80) * (s & 15)) * q) - f(half(b, 82) * (s >> 4)));
  },
  Q3_K: (b, i) => {
    const g = i >> 4;
    const low = (b[96 + (g & 7)]! >> (4 * (g >> 3))) & 15;
    const high = (b[104 + (g & 3)]! >> (2 * (g >> 2))) & 3;
    const two = (b[32 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
    const third = (b[i & 31]! >> (i >> 5)) & 1;
    return f(f(half(b, 108) * (low + 16 * high - 32)) * (two + 4 * third - 4));
  },
  Q4_K: (b, i) => {
    const [s, m] = six(b, 4, i >> 5);
    const q = (b[16 + 32 * (i >> 6) + (i & 31)]! >> (i & 32 ? 4 : 0)) & 15;
    return f(f(f(half(b, 0) * s) * q) - f(half(b, 2) * m));
  },
  Q5_K: (b, i) => {
    const [s, m] = six(b, 4, i >> 5);
    const q = ((b[48 + 32 * (i >> 6) + (i & 31)]! >> (i & 32 ? 4 : 0)) & 15) + 16 * ((b[16 + (i & 31)]! >> (i >> 5)) & 1);
    return f(f(f(half(b, 0) * s) * q) - f(half(b, 2) * m));
  },
  Q6_K: (b, i) => {
    const low = (b[64 * (i >> 7) + (i & 63)]! >> (i & 64 ? 4 : 0)) & 15;
    const high = (b[128 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
    return f(f(half(b, 208) * i8(b[192 + (i >> 4)]!)) * (low + 16 * high - 32));
  },
  IQ4_NL: (b, i) => f(IQ4[nibble(b, 2, i)]! * half(b, 0)),
};

/** @returns the values of whole blocks, as f32 */
export function decodeBlocks(type: BlockType, raw: Uint8Array): Float32Array {
  const { values, bytes } = BLOCK_TYPES[type];
  return Float32Array.from({ length: (raw.length / bytes) * values }, (_, i) => {
    const block = Math.floor(i / values);
    return decoders[type](raw.subarray(block * bytes, (block + 1) * bytes), i % values);
  });
}
