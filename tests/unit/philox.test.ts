// The random numbers: known answers of the authors' Random123, and what a draw may rely on.
import assert from "node:assert/strict";
import { philox4x32, random } from "../../src/generate/philox.ts";

const ONES = 0xffffffff;
const MASK = 0xffffffffn;

/** Philox once more, over BigInt. */
function reference(counter: readonly bigint[], key: readonly bigint[]): number[] {
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & MASK, (p0 >> 32n) ^ c3 ^ k1, p0 & MASK];
    k0 = (k0 + 0x9e3779b9n) & MASK;
    k1 = (k1 + 0xbb67ae85n) & MASK;
  }
  return [c0, c1, c2, c3].map(Number);
}

describe("philox", () => {
  it("gives the known answers", () => {
    assert.deepEqual(philox4x32([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    assert.deepEqual(philox4x32([ONES, ONES, ONES, ONES], [ONES, ONES]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    const pi = philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
    assert.deepEqual(pi, [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
  });

  it("agrees with 64-bit arithmetic everywhere", () => {
    let words: [number, number, number, number] = [1, 2, 3, 4];
    for (let i = 0; i < 2000; i++) {
      const key = [words[3], (words[0] ^ i) >>> 0] as const;
      const next = philox4x32(words, key);
      assert.deepEqual(next, reference(words.map(BigInt), key.map(BigInt)));
      words = next;
    }
  });

  it("makes 53-bit fractions of seed and position, all halves of both counting", () => {
    const [a, b] = reference([7n, 3n, 0n, 0n], [42n, 9n]) as [number, number];
    assert.equal(random(42 + 9 * 2 ** 32, 7 + 3 * 2 ** 32), Number(((BigInt(a) >> 5n) << 26n) | (BigInt(b) >> 6n)) / 2 ** 53);
    const seeds = [0, 1, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];
    const positions = [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 40];
    const seen = new Set(seeds.flatMap((seed) => positions.map((position) => random(seed, position))));
    assert.equal(seen.size, seeds.length * positions.length);
    for (const u of seen) assert.ok(u >= 0 && u < 1 && Number.isInteger(u * 2 ** 53));
  });

  it("is even over positions and over seeds", () => {
    for (const draw of [(i: number) => random(5, i), (i: number) => random(i, 5)]) {
      const bins = new Array<number>(32).fill(0);
      for (let i = 0; i < 32_000; i++) bins[Math.floor(draw(i) * 32)]!++;
      const chiSquare = bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
      assert.ok(chiSquare < 61.1, `chi-square ${chiSquare} of 31 degrees of freedom: less than once in a thousand`);
    }
  });
});
