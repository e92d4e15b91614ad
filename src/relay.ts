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

/** Calls of an iterator one at a time and in the order in which they came, whenever they come. Each says that it is over before its promise tells. */
export class InOrder {
  #calls = 0;
  #last: Promise<unknown> | undefined;

  protected call<T>(call: () => Promise<T>): Promise<T> {
    const promise = this.#calls++ === 0 || !this.#last ? call() : this.#last.then(call, call);
    this.#last = promise;
    return promise;
  }

  protected over(): void {
    this.#calls--;
  }

  /** What a generator gives to a call, which is over then. */
  protected ends<T>(answer: Promise<T>): Promise<T> {
    return answer.finally(() => this.over());
  }
}

/** The values of a generator. A value that passes costs one promise; by `yield` it would be a function to resume, a request in its queue and three. */
export class Relay<A, B> extends InOrder implements AsyncIterableIterator<B, undefined> {
  readonly #generator: AsyncGenerator<B, undefined, IteratorResult<A> | undefined>;
  readonly #lane: Lane<A, B>;
  readonly #onResult = (result: IteratorResult<A>): IteratorResult<B, undefined> | Promise<IteratorResult<B, undefined>> => {
    const value = result.done ? undefined : this.#lane.take(result.value);
    if (value === undefined) return this.ends(this.#generator.next(result));
    if (value === null) return this.#step();
    this.over();
    return { done: false, value };
  };
  readonly #onError = (reason: unknown): Promise<IteratorResult<B, undefined>> => this.ends(this.#generator.throw(reason));
  readonly #step = (): Promise<IteratorResult<B, undefined>> => {
    const { source } = this.#lane;
    return source ? source.next().then(this.#onResult, this.#onError) : this.ends(this.#generator.next(undefined));
  };

  constructor(generate: (lane: Lane<A, B>) => AsyncGenerator<B, undefined, IteratorResult<A> | undefined>) {
    super();
    this.#lane = { source: undefined, take: () => undefined };
    this.#generator = generate(this.#lane);
  }

  next(): Promise<IteratorResult<B, undefined>> {
    return this.call(this.#step);
  }

  return(): Promise<IteratorResult<B, undefined>> {
    return this.call(() => this.ends(this.#generator.return(undefined)));
  }

  [Symbol.asyncIterator](): this {
    return this;
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
