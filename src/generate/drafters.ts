// Where guesses at the next tokens come from that need no model. They know ids only.
import type { History } from "./history.ts";

/** Guesses at what comes next, and how far to trust them. */
export interface Draft {
  readonly ids: readonly number[];
  /** Guesses of one kind are right equally often, as far as their maker can tell: a small whole number. */
  readonly kind: number;
}

/** Where guesses come from. */
export interface Drafter {
  /** What making a guess costs, in ms: none for those that only look. */
  readonly msPerToken: number;
  /** @returns what may come behind `history`, at most `most` ids; none without an idea. `most` is asked for a kind of guesses, as they differ in what is worth it */
  draft(history: History, most: (kind: number) => number): Draft | Promise<Draft>;
}

const NOTHING: Draft = { ids: [], kind: 0 };

/** Matches of at least so many tokens are another kind: long ones go on far more often. */
const LONG_MATCH = 8;
/** Nobody looks further back than so many tokens. */
const LONGEST_MATCH = 64;
/** Earlier places that are looked at, the latest first. */
const PLACES = 32;

/** What the sequence's end has met before went on this way then (Saxena, "Prompt Lookup Decoding", 2023). */
export class PromptLookup implements Drafter {
  readonly msPerToken = 0;
  readonly #ngram: number;
  /** Where an n-gram was last met, by its hash: the index behind it. */
  readonly #last = new Map<number, number>();
  /** For an index behind an n-gram, the one where its hash was met before; 0 for none. */
  readonly #before: number[] = [];
  #indexed = 0;

  /** @param ngram tokens that must match at least */
  constructor(ngram: number) {
    this.#ngram = ngram;
  }

  draft({ ids }: History, most: (kind: number) => number): Draft {
    this.#index(ids);
    const end = ids.length;
    if (end < this.#ngram) return NOTHING;
    let best = 0;
    let length = this.#ngram - 1;
    let at = this.#before[end] ?? 0;
    for (let n = 0; n < PLACES && at > 0; n++, at = this.#before[at] ?? 0) {
      let same = 0;
      while (same < Math.min(at, LONGEST_MATCH) && ids[at - 1 - same] === ids[end - 1 - same]) same++;
      if (same > length) [best, length] = [at, same];
    }
    if (best === 0) return NOTHING;
    const kind = length >= LONG_MATCH ? 1 : 0;
    const count = most(kind);
    const drafted = ids.slice(best, best + count);
    // a loop that is shorter than what is asked for goes on with itself
    for (let i = 0; drafted.length < count; i++) drafted.push(drafted[i]!);
    return { ids: drafted, kind };
  }

  #index(ids: readonly number[]): void {
    const n = this.#ngram;
    for (let end = Math.max(n, this.#indexed + 1); end <= ids.length; end++) {
      let hash = 0;
      for (let i = end - n; i < end; i++) hash = (Math.imul(hash ^ ids[i]!, 0x9e3779b1) + 0x7f4a7c15) | 0;
      this.#before[end] = this.#last.get(hash) ?? 0;
      this.#last.set(hash, end);
    }
    this.#indexed = ids.length;
  }
}

/** Guesses that were there before: what an earlier run gave, by place in the reply. */
export class GivenDrafts implements Drafter {
  readonly msPerToken = 0;
  readonly #ids: readonly number[];

  constructor(ids: Iterable<number>) {
    this.#ids = [...ids];
  }

  draft({ ids, promptTokens }: History, most: (kind: number) => number): Draft {
    const at = ids.length - promptTokens;
    return { ids: this.#ids.slice(at, at + most(0)), kind: 0 };
  }
}
