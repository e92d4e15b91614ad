// What every build, tile, chunking and number of threads must agree on: the first to compute a value writes it down, all others are compared. NaN counts as one value, for wasm leaves its sign and payload open.

/** Results that can be compared bit for bit; a multiple of four bytes. */
export type Bits = Float32Array | Int32Array | Uint32Array | Uint8Array;

const NAN = 0x7fc00000;
const isNaNWord = (word: number): boolean => (word & 0x7fffffff) > 0x7f800000;

interface Entry {
  readonly words: Uint32Array;
  readonly how: string;
}

/** At most so many differences are told of each group. */
const TOLD = 3;

/** Collects results by group and part. */
export class Ledger {
  readonly #groups = new Map<string, Map<string, Entry>>();
  readonly #differences = new Map<string, string[]>();
  /** Values that were compared with an earlier one. */
  comparisons = 0;

  /**
   * Writes down, or compares.
   * @param group what hashes are made of: a kernel on one input
   * @param part which of its results: a row
   * @param how it was computed: build, rows at a time, chunking, threads; only for the message
   */
  agree(group: string, part: string | number, how: string, data: Bits): void {
    const isFloat = data instanceof Float32Array;
    const words = new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    let parts = this.#groups.get(group);
    if (!parts) {
      parts = new Map();
      this.#groups.set(group, parts);
    }
    const key = String(part);
    const before = parts.get(key);
    if (!before) {
      const copy = words.slice();
      if (isFloat) for (let i = 0; i < copy.length; i++) if (isNaNWord(copy[i] ?? 0)) copy[i] = NAN;
      parts.set(key, { words: copy, how });
      return;
    }
    this.comparisons++;
    const at = firstDifference(before.words, words, isFloat);
    if (at < 0) return;
    const list = this.#differences.get(group) ?? [];
    this.#differences.set(group, list);
    if (list.length < TOLD) list.push(`${group}: ${part}: word ${at} of ${words.length} with ${how} differs from ${before.how}`);
  }

  /** Sentences, one for each difference. */
  get differences(): string[] {
    return [...this.#differences.values()].flat();
  }

  /** One hash for each group, over its parts in the order in which they came first. */
  hashes(): Record<string, string> {
    return Object.fromEntries([...this.#groups].map(([group, parts]) => [group, hash(parts)]));
  }
}

function firstDifference(before: Uint32Array, now: Uint32Array, isFloat: boolean): number {
  if (before.length !== now.length) return Math.min(before.length, now.length);
  for (let i = 0; i < now.length; i++) {
    if (before[i] === now[i] || (isFloat && before[i] === NAN && isNaNWord(now[i] ?? 0))) continue;
    return i;
  }
  return -1;
}

function hash(parts: ReadonlyMap<string, Entry>): string {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  const mix = (v: number): void => {
    a = Math.imul(a ^ v, 0x01000193);
    b = Math.imul(b ^ v, 0x85ebca6b) ^ (b >>> 13);
  };
  for (const [part, { words }] of parts) {
    for (let i = 0; i < part.length; i++) mix(part.charCodeAt(i));
    for (let i = 0; i < words.length; i++) mix(words[i] ?? 0);
  }
  const hex = (v: number): string => (v >>> 0).toString(16).padStart(8, "0");
  return hex(a) + hex(b);
}
