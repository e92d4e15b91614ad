// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): random numbers as a function of a key and a counter, in 32-bit integers. Knows no token.

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
/** Steps of the key from round to round: the golden ratio and √3 - 1. */
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
const WORD = 0x1_0000_0000;

/** @returns the upper 32 bits of a · b, as an unsigned number. */
function mulHigh(a: number, b: number): number {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const low = a0 * b0;
  const middle = a1 * b0 + (low >>> 16);
  const other = a0 * b1 + (middle & 0xffff);
  // Each sum stays below 2^32, where numbers are exact; `middle` is cut as an unsigned number.
  return (a1 * b1 + (middle >>> 16) + (other >>> 16)) >>> 0;
}

/**
 * @param counter four 32-bit words
 * @param key two 32-bit words
 * @returns four random 32-bit words, unsigned
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = mulHigh(MULTIPLIER_0, c0);
    const high1 = mulHigh(MULTIPLIER_1, c2);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

/**
 * The random number of a token: a function of seed and position alone, so that chunks, neighbours in a batch, forks and cache hits cannot shift it.
 * @param seed a safe integer ≥ 0
 * @param position absolute position in the sequence of the token that is drawn, a safe integer ≥ 0
 * @param draw which of several numbers at that position
 * @returns a multiple of 2^-53 in [0, 1)
 */
export function random(seed: number, position: number, draw: number = 0): number {
  const [a, b] = philox4x32([position >>> 0, (position / WORD) >>> 0, draw, 0], [seed >>> 0, (seed / WORD) >>> 0]);
  return ((a >>> 5) * 0x400_0000 + (b >>> 6)) / 0x20_0000_0000_0000;
}
