// The sequence for which a token is chosen: what processors look back on. Plain ids; knows no model and no text.

/** Ids of prompt and reply so far. */
export class History implements Iterable<number> {
  /** Every id, in order. */
  readonly ids: number[];
  /** How many of them are the prompt. */
  readonly promptTokens: number;
  /** How often each id was generated. */
  readonly generated: Map<number, number> = new Map();
  readonly #distinct: Set<number>;

  /** @param promptTokens the first so many ids are the prompt; default all of them */
  constructor(ids: Iterable<number>, promptTokens?: number) {
    this.ids = [...ids];
    this.promptTokens = promptTokens ?? this.ids.length;
    this.#distinct = new Set(this.ids);
    for (const id of this.ids.slice(this.promptTokens)) this.#count(id);
  }

  /** Takes in a generated id. */
  push(id: number): void {
    this.ids.push(id);
    this.#distinct.add(id);
    this.#count(id);
  }

  /** @returns a copy that goes its own way */
  fork(): History {
    return new History(this.ids, this.promptTokens);
  }

  /** Each id once. */
  [Symbol.iterator](): Iterator<number> {
    return this.#distinct.values();
  }

  #count(id: number): void {
    this.generated.set(id, (this.generated.get(id) ?? 0) + 1);
  }
}
