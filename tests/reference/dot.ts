// A product with int8 weights byte by byte, as a processor's dot reads them: the integers of a block exactly, then the kernels' f32 step.
import { f16FromBits } from "./convert.ts";
import { quantizeActivations } from "./matmul.ts";

/** Rows of a group, values of a block along K, and its bytes packed: 8 f16 scales, then the integers. */
const [GROUP, BLOCK, BLOCK_BYTES, SCALES_BYTES] = [8, 32, 272, 16];

/** Where the integer of row `lane` (0 to 7), value `k` (0 to 31) stands in a packed block: four values of four rows in each 16 bytes, rows 0 to 3 before 4 to 7. */
export const placeOf = (lane: number, k: number): number =>
  SCALES_BYTES + (lane < 4 ? 0 : 128) + 16 * Math.floor(k / 4) + 4 * (lane % 4) + (k % 4);

/**
 * y (M,N) f32 of x (M,K) f32, quantized to int8 first, and packed qb8w.
 * @param isSigned how the dot reads a byte of w; where it reads it unsigned the byte is q + 128, and 128·Σx goes off the sum
 */
export function matmulBytes(x: Float32Array, packed: Uint8Array, isSigned: boolean, M: number, N: number, K: number): Float32Array {
  const [blocks, activations, view] = [K / BLOCK, quantizeActivations(x), new DataView(packed.buffer, packed.byteOffset)];
  const sumOf = (at: number, lane: number, from: number): number => {
    let sum = 0;
    for (let k = 0; k < BLOCK; k++) {
      const [place, q] = [at + placeOf(lane, k), activations.q[from + k] ?? 0];
      sum += isSigned ? q * view.getInt8(place) : q * view.getUint8(place) - 128 * q;
    }
    return sum;
  };
  return Float32Array.from({ length: M * N }, (_, i) => {
    const [m, n] = [Math.floor(i / N), i % N];
    let y = 0;
    for (let b = 0; b < blocks; b++) {
      const at = (Math.floor(n / GROUP) * blocks + b) * BLOCK_BYTES;
      const scale = Math.fround(f16FromBits(view.getUint16(at + 2 * (n % GROUP), true)) * (activations.scale[m * blocks + b] ?? 0));
      y = Math.fround(y + Math.fround(sumOf(at, n % GROUP, m * K + b * BLOCK) * scale));
    }
    return y;
  });
}
