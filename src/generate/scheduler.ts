// Computes what several turns want next in one step: the weights are read once for all of them. Rows join and leave at any step; none changes another's bits.
import { MemoryError } from "../errors.ts";
import type { Logits } from "../kernels/logits.ts";
import { nextMacrotask } from "../macrotask.ts";
import type { LanguageModel } from "../models/language-model.ts";
import type { CancelCheck, FinishReason } from "./engine.ts";
import type { Session } from "./session.ts";

/** What a turn wants computed. */
export interface Job {
  readonly session: Session;
  /** Ids from the position where the session's rows begin. A step takes as many as have room, one at least. */
  readonly ids: ArrayLike<number>;
  /** The last so many of them are guesses: fewer are computed where a step has no room. */
  readonly drafted?: number;
  /** Called once all ids have been computed, but for guesses: with the logits of the last that is none, where they lie, and of the `drafted` guesses behind it. */
  readonly onLogits: (row: (i: number) => Logits, drafted: number) => void;
  readonly isCancelled: CancelCheck;
}

/** How a job ended. */
type Outcome = { readonly reason: FinishReason | undefined } | { readonly error: unknown };

interface Waiting extends Job {
  outcome: Outcome | undefined;
}

/** A job with its share of a step. */
interface Part {
  readonly job: Waiting;
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
  /** Told the rows of each step that reads no prompt, and its ms. */
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
  async step(job: Job): Promise<FinishReason | undefined> {
    const waiting: Waiting = { ...job, outcome: undefined };
    this.#queue.push(waiting);
    for (;;) {
      // everyone waits for a turn of their own, and whose comes first computes for all: where a turn ends with the request that began it, as at the edge, nobody else is left waiting
      const seen = this.#steps;
      await nextMacrotask();
      if (!waiting.outcome && seen === this.#steps) {
        this.#steps++;
        this.#run();
      }
      const { outcome } = waiting;
      if (!outcome) continue; // no room in that step
      if ("error" in outcome) throw outcome.error;
      return outcome.reason;
    }
  }

  #run(): void {
    const parts = this.#parts();
    if (parts.length === 0) return;
    const froms = parts.map(({ job }) => job.session.cache.statePosition);
    try {
      this.#compute(parts);
    } catch (error) {
      for (const { job } of parts) job.outcome = { error };
      return;
    } finally {
      for (const [i, { job, ids }] of parts.entries()) job.session.follow(froms[i] ?? 0, ids);
    }
    let first = 0;
    for (const { job, isWhole, drafted } of parts) {
      const own = first;
      if (isWhole) first += 1 + drafted;
      try {
        if (isWhole) job.onLogits((i) => this.#use().logits(own + i), drafted);
        job.outcome = { reason: undefined };
      } catch (error) {
        job.outcome = { error };
      }
    }
  }

  #compute(parts: readonly Part[]): void {
    const logitsOf: number[] = [];
    let rows = 0;
    for (const { ids, isWhole, drafted } of parts) {
      rows += ids.length;
      if (isWhole) for (let i = drafted; i >= 0; i--) logitsOf.push(rows - 1 - i);
    }
    const start = performance.now();
    this.#use().step(
      parts.map(({ job, ids }) => ({ cache: job.session.cache, ids })),
      { logitsOf },
    );
    this.decoding = parts.filter(({ job }) => certain(job) === 1).length;
    if (this.decoding === parts.length) this.onStep?.(rows, performance.now() - start);
  }

  /** Takes from the queue what fits a step: single tokens first, so that replies under way wait for no prompt, then prompts in the order they came. */
  #parts(): Part[] {
    const waiting = this.#queue;
    this.#queue = [];
    const parts: Part[] = [];
    const decoding = waiting.filter((job) => certain(job) === 1);
    const room: Room = { rows: Number.POSITIVE_INFINITY, logits: Number.POSITIVE_INFINITY, drafted: 0 };
    const take = (job: Waiting): void => {
      try {
        const reason = job.isCancelled();
        const { options, logitsRows } = this.#use();
        room.rows = Math.min(room.rows, options.chunkTokens);
        room.logits = Math.min(room.logits, logitsRows);
        room.drafted = Math.floor(Math.min(options.chunkTokens, logitsRows) / Math.max(1, decoding.length)) - 1;
        if (reason) job.outcome = { reason };
        else if (room.rows === 0 || room.logits === 0) this.#queue.push(job);
        else parts.push(partOf(job, room));
      } catch (error) {
        job.outcome = { error };
      }
    };
    for (const job of decoding) take(job);
    for (const job of waiting) if (certain(job) !== 1) take(job);
    return parts;
  }
}

/** A job's share of a step that has `room`. @throws MemoryError */
function partOf(job: Waiting, room: Room): Part {
  const wanted = certain(job);
  const isWhole = wanted <= room.rows;
  const certainly = Math.min(wanted, room.rows);
  let drafted = isWhole ? Math.max(0, Math.min(job.drafted ?? 0, room.drafted, room.rows - wanted, room.logits - 1)) : 0;
  job.session.cache.reserve(certainly);
  try {
    if (drafted > 0) job.session.cache.reserve(certainly + drafted);
  } catch (error) {
    if (!(error instanceof MemoryError)) throw error;
    drafted = 0; // guesses are no reason to fail
  }
  const count = certainly + drafted;
  const ids = count === job.ids.length ? job.ids : Array.prototype.slice.call(job.ids, 0, count);
  room.rows -= count;
  if (isWhole) room.logits -= 1 + drafted;
  return { job, ids, isWhole, drafted };
}
