// The sequence for which a token is chosen: what processors look back on. Plain ids; knows no model and no text.

function count(counts: Map<number, number>, id: number, by: number): void {
  const now = (counts.get(id) ?? 0) + by;
  if (now > 0) counts.set(id, now);
  else counts.delete(id);
}

/** Ids of prompt and reply so far. */
export class History implements Iterable<number> {
  /** Every id, in order. */
  readonly ids: number[];
  /** How many of them are the prompt. */
  readonly promptTokens: number;
  /** How often each id was generated. */
  readonly generated: Map<number, number> = new Map();
  /** How often each id is there. */
  readonly #counts = new Map<number, number>();

  /** @param promptTokens the first so many ids are the prompt; default all of them */
  constructor(ids: Iterable<number>, promptTokens?: number) {
    this.ids = [...ids];
    this.promptTokens = promptTokens ?? this.ids.length;
    for (const id of this.ids) count(this.#counts, id, 1);
    for (const id of this.ids.slice(this.promptTokens)) count(this.generated, id, 1);
  }

  /** Takes in a generated id. */
  push(id: number): void {
    this.ids.push(id);
    count(this.#counts, id, 1);
    count(this.generated, id, 1);
  }

  /** Takes back the last generated id. */
  pop(): void {
    const id = this.ids.pop();
    if (id === undefined) return;
    count(this.#counts, id, -1);
    count(this.generated, id, -1);
  }

  /** @returns a copy that goes its own way */
  fork(): History {
    return new History(this.ids, this.promptTokens);
  }

  /** Each id once. */
  [Symbol.iterator](): Iterator<number> {
    return this.#counts.keys();
  }
}
