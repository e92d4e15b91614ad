// A smaller model that guesses what the larger one will say: it chooses tokens by the same options and the same random numbers, one at a time.
import { AbortError } from "../errors.ts";
import type { Draft, Drafter, Price } from "./drafters.ts";
import type { CancelCheck, GenerateRequest } from "./engine.ts";
import type { History } from "./history.ts";
import { rulesOf } from "./processors.ts";
import { largestWanted, pickLargest, sample } from "./sampler.ts";
import type { Scheduler } from "./scheduler.ts";
import { Session } from "./session.ts";
import { MOST_ROWS, type StepCosts } from "./step-costs.ts";

const NOTHING: Draft = { ids: [], kind: 0 };

/** Guesses by a model of the same vocabulary; one for each session of the larger one. */
export class DraftModel implements Drafter {
  readonly #scheduler: Scheduler;
  readonly #session: Session;
  readonly #costs: StepCosts;
  #request: GenerateRequest | undefined;
  #isCancelled: CancelCheck = () => undefined;

  /**
   * @param costs of this model's steps, for all sessions
   * @throws MemoryError when there is no room for its session
   */
  constructor(scheduler: Scheduler, costs: StepCosts) {
    this.#scheduler = scheduler;
    this.#session = new Session(scheduler.model.openCache());
    this.#costs = costs;
  }

  price(price: Price, tokens: number): void {
    const costs = this.#costs;
    const { isKnown } = costs;
    const read = this.#session.tokens.length;
    const prompt = this.#request?.ids.length ?? 0;
    const more = tokens - Math.max(read, prompt);
    price.msPerToken = isKnown ? costs.ms(1) : 0;
    price.msBefore = isKnown && more > 1 ? costs.ms(more) - costs.ms(1) : 0; // the last of them gives a guess
    price.msOfPrompt = isKnown && prompt > read ? costs.ms(prompt - read) : 0;
  }

  /** Goes by the options of this turn from now on, and computes no more once that is cancelled. */
  begin(request: GenerateRequest, isCancelled: CancelCheck): void {
    this.#request = request;
    this.#isCancelled = isCancelled;
  }

  draft(history: History, most: (kind: number) => number): Draft | Promise<Draft> {
    const count = most(0);
    return count === 0 ? NOTHING : this.#draft(history, count); // it catches up when it is asked again
  }

  async #draft(history: History, count: number): Promise<Draft> {
    const ids: number[] = [];
    const session = this.#session;
    session.keep(history.ids);
    while (session.tokens.length < history.ids.length) {
      const next = await this.#step(history.ids.slice(session.cache.statePosition), history);
      if (next !== undefined) ids.push(next);
    }
    session.cache.keepStates(); // the next call goes back to here, or to a token behind
    let pushed = 0;
    try {
      while (ids.length < count) {
        const last = ids.at(-1) ?? 0;
        if (this.#request?.stopIds.includes(last)) break;
        history.push(last);
        pushed++;
        ids.push((await this.#step([last], history)) ?? 0);
      }
    } finally {
      for (; pushed > 0; pushed--) history.pop();
    }
    return { ids, kind: 0 };
  }

  /** Gives back its session. */
  close(): void {
    this.#session.cache.dispose();
  }

  /** @returns what it takes to come behind `ids`, once all of them have been computed. @throws AbortError when the turn is cancelled */
  async #step(ids: readonly number[], history: History): Promise<number | undefined> {
    let next: number | undefined;
    const { sampling = {}, processing, endIds, stopIds = [] } = this.#request ?? {};
    const rules = rulesOf(processing ?? {}, history, { endIds: endIds ?? stopIds, maxLength: Number.POSITIVE_INFINITY });
    const session = this.#session;
    const { model } = this.#scheduler;
    const from = session.cache.statePosition;
    const start = performance.now();
    const reason = await this.#scheduler.step({
      session,
      ids,
      largest: rules ? 0 : largestWanted(sampling, model.mostLargest),
      onLogits: (first, _, areLargest) => {
        next = areLargest ? pickLargest(model, first, sampling, history.ids.length) : undefined;
        next ??= sample(model.logits(first), sampling, history, history.ids.length, rules);
      },
      isCancelled: this.#isCancelled,
    });
    if (reason) throw new AbortError();
    const rows = session.cache.statePosition - from;
    const counted = Math.min(rows, MOST_ROWS);
    this.#costs.count(counted, ((performance.now() - start) * counted) / rows);
    return next;
  }
}
