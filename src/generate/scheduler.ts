// Computes what several turns want next in one step: the weights are read once for all of them. Rows join and leave at any step; none changes another's bits.
import { MemoryError } from "../errors.ts";
import { inMacrotask } from "../macrotask.ts";
import type { Cache } from "../models/cache.ts";
import type { LanguageModel, StepInput, StepOptions } from "../models/language-model.ts";
import type { CancelCheck, FinishReason } from "./engine.ts";
import type { Session } from "./session.ts";

/** What a turn wants computed. */
export interface Job {
  readonly session: Session;
  /** Ids from the position where the session's rows begin. A step takes as many as have room, one at least. */
  readonly ids: ArrayLike<number>;
  /** The last so many of them are guesses: fewer are computed where a step has no room. */
  readonly drafted?: number;
  /** So many of each row's largest logits are all that it wants; 0 where it wants all logits. */
  readonly largest?: number;
  /**
   * Called once all ids have been computed, but for guesses: row `first` of the model's logits is that of the last that is none, those of the `drafted` guesses follow.
   * With `areLargest` the model has the largest logits of these rows, as many as the job wants or more; else all of them.
   */
  readonly onLogits: (first: number, drafted: number, areLargest: boolean) => void;
  readonly isCancelled: CancelCheck;
}

/** How a job ended. */
export type Outcome = { readonly reason: FinishReason | undefined } | { readonly error: unknown };

const COMPUTED: Outcome = { reason: undefined };
const LAST = [0];

/** A job that waits for its steps. One that has ended may be entered again: a reply under way takes the same for all its tokens. */
export interface Waiting {
  readonly job: Job;
  outcome: Outcome | undefined;
  /** Steps that there had been when it began to wait. */
  seen: number;
  readonly onTurn: () => void;
  /** What a step takes that computes this job alone. */
  readonly inputs: readonly StepInput[];
  readonly options: StepOptions;
}

/** A job with its share of a step. */
interface Part {
  readonly waiting: Waiting;
  readonly cache: Cache;
  /** Where its rows begin. */
  readonly from: number;
  readonly ids: ArrayLike<number>;
  /** Whether that is all that the job wants. */
  readonly isWhole: boolean;
  /** Guesses at its end. */
  readonly drafted: number;
}

/** What a step still takes. */
interface Room {
  rows: number;
  logits: number;
  /** Guesses that each reply under way may have, so that none waits for another's. */
  drafted: number;
}

/** Ids that are no guesses. */
const certain = ({ ids, drafted = 0 }: Job): number => ids.length - drafted;

/** Gathers the jobs of one turn of the event loop into a step. */
export class Scheduler {
  readonly #use: () => LanguageModel;
  #queue: Waiting[] = [];
  /** Steps so far. */
  #steps = 0;
  /** Replies under way in the last step. */
  decoding = 0;
  /** Told the rows of each step that reads no prompt, and its ms: choosing tokens and going back from wrong guesses is part of what rows cost. */
  onStep: ((rows: number, ms: number) => void) | undefined;

  /** @param use gives the model. @throws AbortError when it is gone */
  constructor(use: () => LanguageModel) {
    this.#use = use;
  }

  get model(): LanguageModel {
    return this.#use();
  }

  /**
   * Computes ids of a session, together with whatever other sessions want by the next turn of the event loop.
   * @returns why nothing was computed, when the call was to end before
   * @throws MemoryError when there is no room for the session's pages, which leaves it as it was; PlatformError, AbortError
   */
  step(job: Job): Promise<FinishReason | undefined> {
    return new Promise((resolve, reject) => {
      const onEnd = (outcome: Outcome): void => ("error" in outcome ? reject(outcome.error) : resolve(outcome.reason));
      this.enter(this.waiting(job, onEnd));
    });
  }

  /** @param onEnd is called in a macrotask each time that the job, entered, has ended; throws nothing */
  waiting(job: Job, onEnd: (outcome: Outcome) => void): Waiting {
    // everyone waits for a turn of their own, and whose comes first computes for all: where a turn ends with the request that began it, as at the edge, nobody else is left waiting
    const onTurn = (): void => {
      if (!waiting.outcome && waiting.seen === this.#steps) {
        this.#steps++;
        this.#run();
      }
      if (waiting.outcome) onEnd(waiting.outcome);
      else this.#wait(waiting); // no room in that step
    };
    const { session, ids, largest = 0 } = job;
    const options = { logitsOf: LAST, largest };
    const waiting: Waiting = { job, outcome: undefined, seen: 0, onTurn, inputs: [{ cache: session.cache, ids }], options };
    return waiting;
  }

  /** Has a job wait for its step; its `waiting` is told how it ended, and no promise is made. */
  enter(waiting: Waiting): void {
    waiting.outcome = undefined;
    this.#queue.push(waiting);
    this.#wait(waiting);
  }

  #wait(waiting: Waiting): void {
    waiting.seen = this.#steps;
    inMacrotask(waiting.onTurn);
  }

  // here and below loops and no closures: between two steps of a large model the caches hold its weights, and each function, closure and array more is waited for
  #run(): void {
    const [only] = this.#queue;
    if (only && this.#queue.length === 1 && only.job.ids.length === 1) {
      this.#decode(only);
      return;
    }
    const parts = this.#parts();
    if (parts.length === 0) return;
    const { onStep } = this;
    const start = onStep ? performance.now() : 0;
    let areLargest = false;
    try {
      areLargest = this.#compute(parts);
    } catch (error) {
      for (const { waiting } of parts) waiting.outcome = { error };
      return;
    } finally {
      for (const { waiting, from, ids } of parts) waiting.job.session.follow(from, ids);
    }
    let first = 0;
    for (const { waiting, isWhole, drafted } of parts) {
      waiting.outcome = COMPUTED;
      if (!isWhole) continue;
      try {
        waiting.job.onLogits(first, drafted, areLargest);
      } catch (error) {
        waiting.outcome = { error };
      }
      first += 1 + drafted;
    }
    if (!onStep || this.decoding < parts.length) return;
    let rows = 0;
    for (const { ids } of parts) rows += ids.length;
    onStep(rows, performance.now() - start);
  }

  /** A step of one token, as nearly all are: what all the functions below do, without them. */
  #decode(waiting: Waiting): void {
    this.#queue.pop();
    const { session, ids, largest = 0, onLogits, isCancelled } = waiting.job;
    try {
      const reason = isCancelled();
      if (reason) {
        waiting.outcome = { reason };
        return;
      }
      const from = session.cache.statePosition;
      const { onStep } = this;
      const start = onStep ? performance.now() : 0;
      try {
        this.#use().step(waiting.inputs, waiting.options);
      } finally {
        session.follow(from, ids);
      }
      this.decoding = 1;
      waiting.outcome = COMPUTED;
      onLogits(0, 0, largest > 0);
      onStep?.(1, performance.now() - start);
    } catch (error) {
      waiting.outcome = { error };
    }
  }

  /** @returns whether the largest logits are all that there is of them: nobody wants more */
  #compute(parts: readonly Part[]): boolean {
    const logitsOf: number[] = [];
    let rows = 0;
    let decoding = 0;
    let largest = 0;
    let isEnough = true;
    for (const { waiting, ids, isWhole, drafted } of parts) {
      rows += ids.length;
      if (isWhole) for (let i = drafted; i >= 0; i--) logitsOf.push(rows - 1 - i);
      if (certain(waiting.job) === 1) decoding++;
      if (!isWhole) continue;
      const { largest: wanted = 0 } = waiting.job;
      isEnough &&= wanted > 0;
      largest = Math.max(largest, wanted);
    }
    this.#use().step(parts, { logitsOf, largest: isEnough ? largest : 0 });
    this.decoding = decoding;
    return isEnough;
  }

  /** Takes from the queue what fits a step: single tokens first, so that replies under way wait for no prompt, then prompts in the order they came. */
  #parts(): Part[] {
    const queue = this.#queue;
    this.#queue = [];
    const parts: Part[] = [];
    let decoding = 0;
    for (const { job } of queue) if (certain(job) === 1) decoding++;
    const room: Room = { rows: Number.POSITIVE_INFINITY, logits: Number.POSITIVE_INFINITY, drafted: 0 };
    if (decoding > 0) for (const waiting of queue) if (certain(waiting.job) === 1) this.#take(waiting, parts, room, decoding);
    if (decoding < queue.length) for (const waiting of queue) if (certain(waiting.job) !== 1) this.#take(waiting, parts, room, decoding);
    return parts;
  }

  /** Gives a job its share of the step, or puts it back where there is no room. */
  #take(waiting: Waiting, parts: Part[], room: Room, decoding: number): void {
    try {
      const reason = waiting.job.isCancelled();
      const { options, logitsRows } = this.#use();
      room.rows = Math.min(room.rows, options.chunkTokens);
      room.logits = Math.min(room.logits, logitsRows);
      room.drafted = Math.floor(Math.min(options.chunkTokens, logitsRows) / Math.max(1, decoding)) - 1;
      if (reason) waiting.outcome = { reason };
      else if (room.rows === 0 || room.logits === 0) this.#queue.push(waiting);
      else parts.push(partOf(waiting, room));
    } catch (error) {
      waiting.outcome = { error };
    }
  }
}

/** A job's share of a step that has `room`. @throws MemoryError */
function partOf(waiting: Waiting, room: Room): Part {
  const { job } = waiting;
  const { cache } = job.session;
  const wanted = certain(job);
  const isWhole = wanted <= room.rows;
  const certainly = Math.min(wanted, room.rows);
  let drafted = isWhole ? Math.max(0, Math.min(job.drafted ?? 0, room.drafted, room.rows - wanted, room.logits - 1)) : 0;
  cache.reserve(certainly);
  try {
    if (drafted > 0) cache.reserve(certainly + drafted);
  } catch (error) {
    if (!(error instanceof MemoryError)) throw error;
    drafted = 0; // guesses are no reason to fail
  }
  const count = certainly + drafted;
  const ids = count === job.ids.length ? job.ids : Array.prototype.slice.call(job.ids, 0, count);
  room.rows -= count;
  if (isWhole) room.logits -= 1 + drafted;
  return { waiting, cache, from: cache.statePosition, ids, isWhole, drafted };
}
