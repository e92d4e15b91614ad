// Inputs of the bits tests, made from integers alone: no engine's Math has a say in them. Knows no kernel.

/** A generator of 32-bit integers (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** @returns an integer from 0 to 2^32 - 1 */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** @returns an integer from 0 to n - 1 */
  below(n: number): number {
    return this.next() % n;
  }
}

/** A seed for a name, so that a case's numbers depend on nothing but what it is called. */
export function seedOf(name: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
  return h;
}

const bits = (sign: number, exponent: number, mantissa: number): number => ((sign << 31) | (exponent << 23) | (mantissa & 0x7fffff)) >>> 0;
/** Writes element i, as a number or as its bits. */
type Write = (r: Random, of: Float32Array, words: Uint32Array, i: number) => void;
const uniform: Write = (r, of, _, i) => {
  of[i] = (r.next() >>> 8) * 2 ** -23 - 1;
};
/** Exponents from `low` to `high`, any mantissa: sums of such numbers depend on their order in most bits. */
const spread =
  (low: number, high: number): Write =>
  (r, _, words, i) => {
    const word = r.next();
    words[i] = bits(word >>> 31, 127 + low + r.below(high - low + 1), word);
  };

const INFINITY = 0x7f800000;
const NAN = 0x7fc00000;

/** Kinds of numbers. */
const KINDS = {
  /** [-1, 1) */
  uniform,
  /** 2^-20 to 2^21, both signs. */
  wide: spread(-20, 20),
  /** As wide, within what an f16 scale can hold. */
  wide12: spread(-24, 11),
  /** Zeros of both signs, denormals, the smallest normal numbers, and a few that are not small. */
  tiny(r, _, words, i) {
    const sign = r.next() & 1;
    const choice = r.below(16);
    if (choice < 4) words[i] = bits(sign, 0, 0);
    else if (choice < 8) words[i] = bits(sign, 0, r.next());
    else if (choice < 12) words[i] = bits(sign, 1 + r.below(30), r.next());
    else words[i] = bits(sign, 100 + r.below(27), r.next());
  },
  /** Up to the largest f32: some products and sums overflow, and infinities meet. */
  huge(r, _, words, i) {
    words[i] = bits(r.next() & 1, r.below(8) === 0 ? 254 - r.below(4) : 120 + r.below(120), r.next());
  },
  /** Uniform numbers, now and then a NaN, an infinity or a zero of either sign. */
  special(r, of, words, i) {
    const choice = r.below(512);
    if (choice < 4) words[i] = [NAN, INFINITY, 0xff800000, 0x80000000][choice] ?? 0;
    else uniform(r, of, words, i);
  },
  /** As special, once in some four thousand. */
  seldom(r, of, words, i) {
    const choice = r.below(16_384);
    if (choice < 4) words[i] = [NAN, INFINITY, 0xff800000, 0x80000000][choice] ?? 0;
    else uniform(r, of, words, i);
  },
  /** In each block of 32 one size, both signs: quantizes to ±127 throughout. */
  flat(r, of, _, i) {
    const size = i % 32 === 0 ? 2 ** (r.below(20) - 10) : Math.abs(of[i - 1] ?? 1);
    of[i] = r.next() & 1 ? size : -size;
  },
  /** Quarters: many lie half-way between two integers once they are scaled. */
  ties(r, of, _, i) {
    of[i] = i % 32 === 0 ? 127 : (r.below(1017) - 508) / 4;
  },
} satisfies Record<Kind, Write>;

/** A kind of numbers. */
export type Kind = "uniform" | "wide" | "wide12" | "tiny" | "huge" | "special" | "seldom" | "flat" | "ties";

const made = new Map<string, Float32Array>();

/** n numbers of a kind, the same in every engine. Every build asks for them, so they are made once: nobody writes to them. */
export function numbers(kind: Kind, n: number, name: string, times = 1): Float32Array {
  const key = `${kind} ${n} ${name}`;
  const before = made.get(`${key} ${times}`);
  if (before) return before;
  const r = new Random(seedOf(key));
  const out = new Float32Array(n);
  made.set(`${key} ${times}`, out);
  const words = new Uint32Array(out.buffer);
  const write: Write = KINDS[kind];
  for (let i = 0; i < n; i++) write(r, out, words, i);
  if (times !== 1) for (let i = 0; i < n; i++) out[i] = (out[i] ?? 0) * times;
  return out;
}

/** Values and bytes of a stored block, and where its f16 lie. */
const STORED: Readonly<Record<string, { readonly values: number; readonly size: number; readonly halves: readonly number[] }>> = {
  q8: { values: 32, size: 34, halves: [0] },
  q4: { values: 32, size: 18, halves: [0] },
  q4k: { values: 256, size: 144, halves: [0, 2] },
  q6k: { values: 256, size: 210, halves: [208] },
};

/** `count` values in blocks of Q8_0, Q4_0, Q4_K or Q6_K, with any scales that are finite; `extreme`: bytes at the ends of their ranges, or of nibbles at these. */
export function storedBlocks(dtype: string, count: number, name: string, extreme: boolean): Uint8Array {
  const { values, size, halves } = STORED[dtype] ?? { values: 0, size: 0, halves: [] };
  const blocks = count / values;
  const r = new Random(seedOf(`${dtype} ${blocks} ${name}`));
  const ends = dtype === "q8" ? [0x80, 0x81, 0x7f, 0x00] : [0x00, 0xff, 0x0f, 0xf0];
  const out = new Uint8Array(blocks * size);
  for (let b = 0; b < blocks; b++) {
    const one = r.below(4) === 0 ? ends[r.below(2)] : undefined; // whole blocks at one end: the largest sums there are
    for (let i = 0; i < size; i++) out[b * size + i] = extreme ? (one ?? ends[r.below(4)] ?? 0) : r.next();
    for (const at of halves) {
      const scale = extreme ? r.below(0x7c00) | ((r.next() & 1) << 15) : 0x2000 + r.below(0x0800); // f16: any finite one, or about 2^-7
      out.set([scale & 255, scale >> 8], b * size + at);
    }
  }
  return out;
}
