// A generator around an iterator whose values mostly pass as they come: those go by it. Knows no value.

/** What a generator leaves to its relay. */
export interface Lane<A, B> {
  /**
   * Set before a `yield` behind which the generator would only ask this for the next value: then the relay does, and a value that it cannot pass, or the end,
   * is what `yield` gives.
   */
  source: AsyncIterator<A> | undefined;
  /** @returns what is to be told of a value, null for nothing; undefined where the generator is to see it */
  take: (value: A) => B | null | undefined;
}

/** The values of a generator, one call at a time and in order. A value that passes costs one promise; by `yield` it would be a function to resume, a request in its queue and three. */
export class Relay<A, B> implements AsyncIterableIterator<B, undefined> {
  readonly #generator: AsyncGenerator<B, undefined, IteratorResult<A> | undefined>;
  readonly #lane: Lane<A, B>;
  /** The source has been asked, and this will be told. */
  #asked: Promise<IteratorResult<B, undefined>> | undefined;
  readonly #onResult = (result: IteratorResult<A>): IteratorResult<B, undefined> | Promise<IteratorResult<B, undefined>> => {
    this.#asked = undefined;
    const value = result.done ? undefined : this.#lane.take(result.value);
    if (value === undefined) return this.#generator.next(result);
    return value === null ? this.next() : { done: false, value };
  };
  readonly #onError = (reason: unknown): Promise<IteratorResult<B, undefined>> => {
    this.#asked = undefined;
    return this.#generator.throw(reason);
  };

  constructor(generate: (lane: Lane<A, B>) => AsyncGenerator<B, undefined, IteratorResult<A> | undefined>) {
    this.#lane = { source: undefined, take: () => undefined };
    this.#generator = generate(this.#lane);
  }

  next(): Promise<IteratorResult<B, undefined>> {
    if (this.#asked) return this.#after(() => this.next());
    const { source } = this.#lane;
    if (!source) return this.#generator.next(undefined);
    this.#asked = source.next().then(this.#onResult, this.#onError);
    return this.#asked;
  }

  return(): Promise<IteratorResult<B, undefined>> {
    return this.#asked ? this.#after(() => this.return()) : this.#generator.return(undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #after<T>(call: () => Promise<T>): Promise<T> {
    return this.#asked ? this.#asked.then(call, call) : call();
  }
}

/** What `see` gives to leave a source before its end. */
export const LEAVE: unique symbol = Symbol("leave");

/**
 * Yields what `see` makes of a source's values, undefined for nothing; the lane's `take` has to make the same of those that it takes.
 * The source is left as by `for await`.
 */
export async function* through<A, B>(
  lane: Lane<A, B>,
  source: AsyncIterator<A>,
  see: (value: A) => Promise<B | undefined | typeof LEAVE>,
): AsyncGenerator<B, undefined, IteratorResult<A> | undefined> {
  let isOpen = false;
  try {
    for (let result = await source.next(); !result.done; ) {
      isOpen = true;
      const value = await see(result.value);
      if (value === LEAVE) break;
      let next: IteratorResult<A> | undefined;
      if (value !== undefined) {
        lane.source = source;
        next = yield value;
        lane.source = undefined;
      }
      isOpen = false;
      result = next ?? (await source.next());
    }
  } finally {
    lane.source = undefined;
    if (isOpen) await source.return?.();
  }
}
