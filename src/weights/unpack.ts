// From packed groups of rows back to the blocks of a file: Q8_0 and Q4_0. assembly/README.md draws both sides.
import { GROUP_ROWS } from "../memory/dtype.ts";

/** Halves of a packed block of 8 rows, of a stored block of one, and pieces of four bytes that a row has in a block. */
const SHAPES = {
  q8: { packed: 136, stored: 17, pieces: 8 },
  q4: { packed: 72, stored: 9, pieces: 4 },
} as const;

/**
 * @param packed groups of 8 rows as `pack_rows` of the build without relaxed SIMD lays them out, which biases no byte; at an even address
 * @param rows how many of them there are without padding
 * @param blocks of 32 columns
 * @returns the rows as a file stores them, one behind the other
 */
export function storedBlocks(dtype: "q8" | "q4", packed: Uint8Array, rows: number, blocks: number): Uint8Array {
  const { packed: step, stored, pieces } = SHAPES[dtype];
  const from = new Uint16Array(packed.buffer, packed.byteOffset, packed.length >> 1);
  const out = new Uint16Array(rows * blocks * stored);
  for (let row = 0, to = 0; row < rows; row++) {
    const lane = row % GROUP_ROWS;
    let block = ((row - lane) / GROUP_ROWS) * blocks * step;
    const first = 8 + 8 * pieces * (lane >> 2) + 2 * (lane & 3);
    for (let b = 0; b < blocks; b++, block += step) {
      out[to++] = from[block + lane] ?? 0;
      for (let piece = 0, at = block + first; piece < pieces; piece++, at += 8) {
        out[to++] = from[at] ?? 0;
        out[to++] = from[at + 1] ?? 0;
      }
    }
  }
  return new Uint8Array(out.buffer);
}
