// Where guesses at the next tokens come from that need no model. They know ids only.
import type { History } from "./history.ts";

/** Guesses at what comes next, and how far to trust them. */
export interface Draft {
  readonly ids: readonly number[];
  /** Guesses of one kind are right equally often, as far as their maker can tell: a small whole number. */
  readonly kind: number;
}

/** What guesses take before they are checked, in ms: nothing from those that only look. */
export interface Price {
  msPerToken: number;
  /** Reading what the reply has gone on by without guesses. */
  msBefore: number;
  /** Reading what is not read yet of the prompt. */
  msOfPrompt: number;
}

/** Where guesses come from. */
export interface Drafter {
  /** Tells what guesses take behind so many tokens. */
  price?(price: Price, tokens: number): void;
  /** @returns what may come behind `history`, at most `most` ids; none without an idea. `most` is asked for a kind of guesses, as they differ in what is worth it */
  draft(history: History, most: (kind: number) => number): Draft | Promise<Draft>;
}

const NOTHING: Draft = { ids: [], kind: 0 };

/** Kinds of guesses. Long matches go on far more often than others, single tokens far more seldom. */
export const KIND = { usual: 0, long: 1, single: 2 } as const;

/** A long match has at least so many tokens. */
const LONG_MATCH = 8;
/** Nobody looks further back than so many tokens. */
const LONGEST_MATCH = 64;
/** Earlier places that are looked at, the latest first. */
const PLACES = 32;

/** Where n-grams have been met before, for one n. */
class Places {
  readonly #n: number;
  /** Where an n-gram was last met, by its hash: the index behind it. */
  readonly #last = new Map<number, number>();
  /** For an index behind an n-gram, the one where its hash was met before; 0 for none. */
  readonly #before: number[] = [];
  #indexed = 0;

  constructor(n: number) {
    this.#n = n;
  }

  /** @returns the index behind the longest earlier match of the end of `ids`, the latest of several, and its tokens, n at least; 0 for none */
  longest(ids: readonly number[]): { readonly at: number; readonly length: number } {
    this.#index(ids);
    const end = ids.length;
    const best = { at: 0, length: this.#n - 1 };
    if (end < this.#n) return best;
    for (let n = 0, at = this.#before[end] ?? 0; n < PLACES && at > 0; n++, at = this.#before[at] ?? 0) {
      let same = 0;
      while (same < Math.min(at, LONGEST_MATCH) && ids[at - 1 - same] === ids[end - 1 - same]) same++;
      if (same > best.length) [best.at, best.length] = [at, same];
    }
    return best;
  }

  #index(ids: readonly number[]): void {
    const n = this.#n;
    for (let end = Math.max(n, this.#indexed + 1); end <= ids.length; end++) {
      let hash = 0;
      for (let i = end - n; i < end; i++) hash = (Math.imul(hash ^ ids[i]!, 0x9e3779b1) + 0x7f4a7c15) | 0;
      this.#before[end] = this.#last.get(hash) ?? 0;
      this.#last.set(hash, end);
    }
    this.#indexed = ids.length;
  }
}

/** What the sequence's end has met before went on this way then (Saxena, "Prompt Lookup Decoding", 2023). */
export class PromptLookup implements Drafter {
  readonly #places: Places;
  /** Of single tokens, which stand at so many places that those a long match leads to may not be among the latest: asked where no pair has come before. */
  readonly #singles: Places | undefined;

  /** @param ngram tokens that must match at least */
  constructor(ngram: number) {
    this.#places = new Places(Math.max(2, ngram));
    this.#singles = ngram === 1 ? new Places(1) : undefined;
  }

  draft({ ids }: History, most: (kind: number) => number): Draft {
    const { at, length } = this.#places.longest(ids);
    if (at > 0) {
      const kind = length >= LONG_MATCH ? KIND.long : KIND.usual;
      return { ids: from(ids, at, most(kind)), kind };
    }
    const count = this.#singles ? most(KIND.single) : 0; // first: nearly every token has come before, and few of them are worth a look
    const last = count > 0 ? this.#singles!.longest(ids).at : 0;
    return last > 0 ? { ids: from(ids, last, count), kind: KIND.single } : NOTHING;
  }
}

/** @returns `count` of `ids` from `at` on; a loop that is shorter goes on with itself */
function from(ids: readonly number[], at: number, count: number): readonly number[] {
  const drafted = ids.slice(at, at + count);
  for (let i = 0; drafted.length < count; i++) drafted.push(drafted[i]!);
  return drafted;
}

/** Guesses that were there before: what an earlier run gave, by place in the reply. */
export class GivenDrafts implements Drafter {
  readonly #ids: readonly number[];

  constructor(ids: Iterable<number>) {
    this.#ids = [...ids];
  }

  draft({ ids, promptTokens }: History, most: (kind: number) => number): Draft {
    const at = ids.length - promptTokens;
    return { ids: this.#ids.slice(at, at + most(0)), kind: 0 };
  }
}
