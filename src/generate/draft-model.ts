// A smaller model that guesses what the larger one will say: it chooses tokens by the same options and the same random numbers, one at a time.
import type { Draft, Drafter } from "./drafters.ts";
import type { GenerateRequest } from "./engine.ts";
import type { History } from "./history.ts";
import { rulesOf } from "./processors.ts";
import { sample } from "./sampler.ts";
import type { Scheduler } from "./scheduler.ts";
import { Session } from "./session.ts";

/** How much a new time counts in the mean. */
const NEW = 0.25;

/** Guesses by a model of the same vocabulary; one for each session of the larger one. */
export class DraftModel implements Drafter {
  readonly #scheduler: Scheduler;
  readonly #session: Session;
  #request: GenerateRequest | undefined;
  #ms = 0;

  /** @throws MemoryError when there is no room for its session */
  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
    this.#session = new Session(scheduler.model.openCache());
  }

  get msPerToken(): number {
    return this.#ms;
  }

  /** Goes by the options of this turn from now on. */
  begin(request: GenerateRequest): void {
    this.#request = request;
  }

  async draft(history: History, most: (kind: number) => number): Promise<Draft> {
    const count = most(0);
    const ids: number[] = [];
    if (count === 0) return { ids, kind: 0 }; // it catches up when it is asked again
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
        const start = performance.now();
        ids.push((await this.#step([last], history)) ?? 0);
        const ms = performance.now() - start;
        this.#ms += this.#ms === 0 ? ms : NEW * (ms - this.#ms);
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

  /** @returns what it takes to come behind `ids`, once all of them have been computed */
  async #step(ids: readonly number[], history: History): Promise<number | undefined> {
    let next: number | undefined;
    const { sampling = {}, processing, endIds, stopIds = [] } = this.#request ?? {};
    const rules = rulesOf(processing ?? {}, history, { endIds: endIds ?? stopIds, maxLength: Number.POSITIVE_INFINITY });
    await this.#scheduler.step({
      session: this.#session,
      ids,
      onLogits: (first) => {
        next = sample(this.#scheduler.model.logits(first), sampling, history, history.ids.length, rules);
      },
      isCancelled: () => undefined,
    });
    return next;
  }
}
