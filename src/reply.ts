// A reply as it streams and as a whole. One stream of parts; everything else is a fold over it.
import { AbortError } from "./errors.ts";
import type { FinishReason, Timings } from "./generate/engine.ts";
import type { TokenLogprob } from "./generate/logprobs.ts";
import { Relay, through } from "./relay.ts";

/** Tokens that a turn took. */
export interface Usage {
  /** Tokens of the prompt, history included. */
  readonly inputTokens: number;
  /** Of these, tokens that the cache held already. */
  readonly cachedTokens: number;
  /** Tokens generated, the one that ended the reply included. */
  readonly outputTokens: number;
  /** With `onContextFull: "drop-oldest"`: messages that were left out, system messages not counted; absent for none. */
  readonly droppedMessages?: number;
  /** With `speculate`: tokens that were guessed and checked. */
  readonly draftedTokens?: number;
  /** With `speculate`: of these, the ones that were right. */
  readonly acceptedTokens?: number;
}

/** One of several replies to a prompt. */
export interface ReplySequence {
  readonly text: string;
  /** Generated token ids, the one that ended it included. */
  readonly tokens: Uint32Array;
  /** Of beam search: Σ ln p / tokens^lengthPenalty. */
  readonly score?: number;
  /** Of sampling: what makes it again. */
  readonly seed?: number;
  /** One entry a token, with `logprobs` or `topLogprobs`. */
  readonly logprobs?: readonly TokenLogprob[];
}

/** A finished reply. */
export interface Reply {
  readonly text: string;
  /** Generated token ids, the one that ended the reply included. */
  readonly tokens: Uint32Array;
  /** `"stop"`: the model or a stop string ended it; `"length"`: maxTokens or the context; `"interrupted"`: the signal, with `onAbort: "return"`. */
  readonly finishReason: FinishReason;
  readonly usage: Usage;
  readonly timings: Timings;
  /** What makes the same text again. */
  readonly seed: number;
  /** With `numReturnSequences` or `numBeams`: every reply, best first; the first is this one. */
  readonly sequences?: readonly ReplySequence[];
  /** One entry a token, with `logprobs` or `topLogprobs`. */
  readonly logprobs?: readonly TokenLogprob[];
  /** With `promptLogprobs`: ln p of each token of the prompt but the first, given those before. Absent where an abort came first. */
  readonly promptLogprobs?: Float64Array;
}

/** How far the prompt has been read. */
export interface PromptProgress {
  /** Tokens that have been read, or were in the cache; never falls. */
  readonly processedTokens: number;
  /** Tokens of the prompt, history included. */
  readonly totalTokens: number;
  /** Of these, tokens that the cache held already. */
  readonly cachedTokens: number;
}

/** A piece of a reply. */
export type Part =
  /** The prompt, as far as it has been read; once a chunk. */
  | ({ readonly type: "prefill" } & PromptProgress)
  /** Text that was added; never half a character. */
  | { readonly type: "text-delta"; readonly delta: string }
  /** The end, with the whole reply. */
  | { readonly type: "finish"; readonly reply: Reply };

const OVER = { done: true, value: undefined } as const;

/**
 * A reply that streams: iterate it for typed parts, or `textStream` for text alone, or await `reply`. It is computed as it is read, one step a part;
 * awaiting `reply` reads it to the end. Leaving a loop early ends the computation.
 */
export class ReplyStream implements AsyncIterable<Part> {
  readonly #source: AsyncIterator<Part>;
  readonly #buffer: Part[] = [];
  #reply: Promise<Reply> | undefined;
  /** The last pull, and how many are under way: those of several readers queue up, so that they share one source. */
  #pulling: Promise<unknown> = Promise.resolve();
  #pulls = 0;
  #finished: Reply | undefined;
  #error: { readonly reason: unknown } | undefined;
  #isOver = false;
  // these are made once: between two steps of a large model the caches hold its weights, and each function and promise more is waited for
  readonly #read = (): Promise<IteratorResult<Part>> => this.#ask(this.#give, this.#fail);
  readonly #give = (result: IteratorResult<Part>): IteratorResult<Part> => {
    if (this.#buffer.length > 0) {
      this.#keep(result);
      return this.#next();
    }
    this.#note(result);
    return result.done ? this.#next() : result;
  };
  readonly #keep = (result: IteratorResult<Part>): void => {
    this.#note(result);
    if (!result.done) this.#buffer.push(result.value);
  };
  readonly #fail = (reason: unknown): IteratorResult<Part> => {
    this.#failed(reason);
    return this.#next();
  };
  readonly #failed = (reason: unknown): void => {
    this.#pulls--;
    this.#isOver = true;
    this.#error ??= { reason }; // who was cancelled hears of that
  };

  /** @internal */
  constructor(source: AsyncIterable<Part>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** The whole reply. @throws what the computation throws; AbortError when a loop over the parts was left early */
  get reply(): Promise<Reply> {
    this.#reply ??= this.#readAll();
    return this.#reply;
  }

  /** The text alone, piece by piece. */
  get textStream(): AsyncIterable<string> {
    const parts = this[Symbol.asyncIterator]();
    return new Relay<Part, string>((lane) => {
      lane.take = (part) => (part.type === "text-delta" ? part.delta : null);
      return through(lane, parts, async (part) => (part.type === "text-delta" ? part.delta : undefined));
    });
  }

  [Symbol.asyncIterator](): AsyncIterator<Part> {
    return {
      next: () => {
        if (this.#buffer.length > 0) return Promise.resolve(this.#next());
        return this.#pull(this.#read);
      },
      return: async () => {
        await this.#leave();
        return { done: true, value: undefined };
      },
    };
  }

  /** Reads on without a consumer, so that whoever waits behind this reply is not held up. */
  async drain(): Promise<void> {
    while (!this.#isOver) await this.#pull(() => this.#ask(this.#keep, this.#failed));
  }

  /** Ends the computation; whoever reads or awaits gets `reason`. @internal */
  cancel(reason: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = { reason };
    this.#source.return?.().catch(() => {}); // what it still has to say comes too late
  }

  async #readAll(): Promise<Reply> {
    await this.drain();
    if (this.#error) throw this.#error.reason;
    if (this.#finished) return this.#finished;
    throw new AbortError("reply: the loop that read this reply was left before its end.");
  }

  /** Asks for a part when all that asked before have got theirs. */
  #pull<T>(ask: () => Promise<T>): Promise<T> {
    const pull = this.#pulls++ === 0 ? ask() : this.#pulling.then(ask, ask);
    this.#pulling = pull;
    return pull;
  }

  #ask<T>(onPart: (result: IteratorResult<Part>) => T, onError: (reason: unknown) => T): Promise<T> {
    return this.#isOver ? Promise.resolve(OVER).then(onPart) : this.#source.next().then(onPart, onError);
  }

  #note(result: IteratorResult<Part>): void {
    this.#pulls--;
    if (result.done) this.#isOver = true;
    else if (result.value.type === "finish") this.#finished = result.value.reply;
  }

  /** The oldest part that nobody has read, or the end. @throws what the computation threw */
  #next(): IteratorResult<Part> {
    const value = this.#buffer.shift();
    if (value) return { done: false, value };
    if (this.#error) throw this.#error.reason;
    return OVER;
  }

  async #leave(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    await this.#source.return?.();
  }
}
