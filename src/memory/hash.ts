// A checksum of 64 bits over words: finds damage and tells weights apart, resists nobody. Knows no format.

/** Takes words in, one after the other. Every step is a bijection of each half, so that a single changed word is always found. */
export class Hash {
  #a = 0x9e3779b9 | 0;
  #b = 0x85ebca6b | 0;

  add(words: ArrayLike<number>): this {
    let a = this.#a;
    let b = this.#b;
    for (let i = 0; i < words.length; i++) {
      const word = words[i] ?? 0;
      a = Math.imul(a ^ word, 0x01000193);
      a ^= a >>> 15;
      b = Math.imul(b + word, 0x5bd1e995) ^ (a & 0xffff);
      b = (b << 13) | (b >>> 19);
    }
    this.#a = a;
    this.#b = b;
    return this;
  }

  /** @returns both halves, unsigned */
  get words(): readonly [number, number] {
    return [this.#a >>> 0, this.#b >>> 0];
  }

  /** @returns 16 hexadecimal digits */
  toString(): string {
    return this.words.map((word) => word.toString(16).padStart(8, "0")).join("");
  }
}
