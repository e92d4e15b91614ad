// Computes what several turns want next in one step: the weights are read once for all of them. Rows join and leave at any step; none changes another's bits.
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
  /** Called with the logits of the last id, where they lie, once that id has been computed. */
  readonly onLogits: (logits: Logits) => void;
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
}

/** Gathers the jobs of one turn of the event loop into a step. */
export class Scheduler {
  readonly #use: () => LanguageModel;
  #queue: Waiting[] = [];
  /** Steps so far. */
  #steps = 0;

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
    let row = 0;
    for (const { job, isWhole } of parts) {
      try {
        if (isWhole) job.onLogits(this.#use().logits(row++));
        job.outcome = { reason: undefined };
      } catch (error) {
        job.outcome = { error };
      }
    }
  }

  #compute(parts: readonly Part[]): void {
    const logitsOf: number[] = [];
    let rows = 0;
    for (const { ids, isWhole } of parts) {
      rows += ids.length;
      if (isWhole) logitsOf.push(rows - 1);
    }
    this.#use().step(
      parts.map(({ job, ids }) => ({ cache: job.session.cache, ids })),
      { logitsOf },
    );
  }

  /** Takes from the queue what fits a step: single tokens first, so that replies under way wait for no prompt, then prompts in the order they came. */
  #parts(): Part[] {
    const waiting = this.#queue;
    this.#queue = [];
    const parts: Part[] = [];
    const room = { rows: Number.POSITIVE_INFINITY, logits: Number.POSITIVE_INFINITY };
    const take = (job: Waiting): void => {
      try {
        const reason = job.isCancelled();
        const { options, logitsRows } = this.#use();
        room.rows = Math.min(room.rows, options.chunkTokens);
        room.logits = Math.min(room.logits, logitsRows);
        if (reason) job.outcome = { reason };
        else if (room.rows === 0 || room.logits === 0) this.#queue.push(job);
        else parts.push(partOf(job, room));
      } catch (error) {
        job.outcome = { error };
      }
    };
    for (const job of waiting) if (job.ids.length === 1) take(job);
    for (const job of waiting) if (job.ids.length !== 1) take(job);
    return parts;
  }
}

/** A job's share of a step that has `room`. @throws MemoryError */
function partOf(job: Waiting, room: { rows: number; logits: number }): Part {
  const isWhole = job.ids.length <= room.rows;
  const ids = isWhole ? job.ids : Array.prototype.slice.call(job.ids, 0, room.rows);
  job.session.cache.reserve(ids.length);
  room.rows -= ids.length;
  if (isWhole) room.logits--;
  return { job, ids, isWhole };
}
