// Guesses at tokens, so that one pass checks several: who makes them for a turn, and how many. A guess never chooses a token: generate.ts chooses each as it does
// without, and keeps a guess only where it is that very token.
import { MemoryError } from "../errors.ts";
import { Acceptance, DraftBudget, MOST_DRAFTED, type Place } from "./draft-budget.ts";
import { DraftModel } from "./draft-model.ts";
import { type Draft, type Drafter, GivenDrafts, PromptLookup } from "./drafters.ts";
import type { CancelCheck, GenerateRequest, SpeculationCount, SpeculationRequest } from "./engine.ts";
import type { History } from "./history.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Session } from "./session.ts";
import { StepCosts } from "./step-costs.ts";

type By = SpeculationRequest["by"];

const NONE: readonly number[] = [];

/** Steps of a draft model whose code may not be compiled yet: what they took would keep it from ever being asked again. */
const FIRST_STEPS = 4;

/** How much the outcomes of a session's earlier turns still count. */
const OF_EARLIER_TURNS = 0.5;

/** What is known of a session from turn to turn. */
interface Known {
  readonly acceptance: Map<By, Acceptance>;
  draftModel: DraftModel | undefined;
}

/** Speculation on one engine. */
export class Speculator {
  readonly #scheduler: Scheduler;
  readonly #draft: Scheduler | undefined;
  readonly #costs = new StepCosts();
  readonly #draftCosts = new StepCosts(FIRST_STEPS);
  readonly #budgets = new Map<By, DraftBudget>();
  readonly #known = new WeakMap<Session, Known>();
  readonly #counts: Counts = { drafted: 0, accepted: 0 };

  /** @param draft steps of the draft model, if there is one */
  constructor(scheduler: Scheduler, draft: Scheduler | undefined) {
    this.#scheduler = scheduler;
    this.#draft = draft;
    scheduler.onStep = (rows, ms) => this.#costs.count(rows, ms);
  }

  /** Guesses of all turns. */
  get counts(): SpeculationCount {
    return { ...this.#counts };
  }

  /** @returns what guesses in a turn on `session`; nothing where there is no draft model, or no memory for it, for one that asks for it */
  begin(session: Session, request: GenerateRequest, asked: SpeculationRequest, isCancelled: CancelCheck): Speculation | undefined {
    const { by } = asked;
    const known = this.#known.get(session) ?? { acceptance: new Map(), draftModel: undefined };
    this.#known.set(session, known);
    const drafter = this.#drafter(known, request, asked, isCancelled);
    if (!drafter) return undefined;
    const budget = this.#budgets.get(by) ?? new DraftBudget(this.#costs);
    if (budget.begin() && by === "draft") this.#draftCosts.clear();
    this.#budgets.set(by, budget);
    const acceptance = known.acceptance.get(by) ?? new Acceptance(budget.acceptance);
    acceptance.fade(OF_EARLIER_TURNS);
    known.acceptance.set(by, acceptance);
    return new Speculation({
      session,
      drafter,
      asked,
      stopIds: new Set(request.stopIds),
      budget,
      acceptance,
      scheduler: this.#scheduler,
      all: this.#counts,
    });
  }

  /** Gives back what was kept for a session. */
  close(session: Session): void {
    this.#known.get(session)?.draftModel?.close();
    this.#known.delete(session);
  }

  #drafter(known: Known, request: GenerateRequest, asked: SpeculationRequest, isCancelled: CancelCheck): Drafter | undefined {
    if (asked.by === "given") return new GivenDrafts(asked.ids ?? []);
    if (asked.by === "prompt-lookup") return new PromptLookup(asked.ngram);
    if (!this.#draft) return undefined;
    try {
      known.draftModel ??= new DraftModel(this.#draft, this.#draftCosts);
    } catch (error) {
      if (error instanceof MemoryError) return undefined; // guesses are no reason to fail
      throw error;
    }
    known.draftModel.begin(request, isCancelled);
    return known.draftModel;
  }
}

type Counts = { -readonly [K in keyof SpeculationCount]: SpeculationCount[K] };

/** What a turn's guesses are made with. */
interface Means {
  readonly session: Session;
  readonly drafter: Drafter;
  readonly asked: SpeculationRequest;
  readonly stopIds: ReadonlySet<number>;
  readonly budget: DraftBudget;
  readonly acceptance: Acceptance;
  readonly scheduler: Scheduler;
  /** Counts of all turns. */
  readonly all: Counts;
}

/** Guesses of one turn. */
export class Speculation {
  readonly #means: Means;
  readonly #place: Place;
  readonly #counts: Counts = { drafted: 0, accepted: 0 };
  /** Ids that there is room for. */
  #room = 0;
  #isOff = false;
  /** Steps that go without guesses, whatever comes. */
  #wait = 0;
  /** Steps without guesses that the budget has not been told of: that is done once for several. */
  #without = 0;

  constructor(means: Means) {
    this.#means = means;
    this.#place = { acceptance: means.acceptance, kind: 0, others: 0, msPerToken: 0, msBefore: 0, msOfPrompt: 0 };
  }

  get counts(): SpeculationCount {
    return { ...this.#counts };
  }

  /**
   * @returns what may come behind `history`, at most `room` ids, to be checked in the next step; the session is then ready to go back by them. A promise only
   * where somebody computes: each reply waits for it once a step
   */
  draft(history: History, room: number): readonly number[] | Promise<readonly number[]> {
    if (this.#wait > 0) {
      this.#wait--;
      return NONE;
    }
    const { asked, drafter, budget, scheduler } = this.#means;
    this.#room = Math.min(room, asked.max, MOST_DRAFTED);
    if (this.#room <= 0 || this.#isOff) return NONE;
    const place = this.#place;
    place.others = Math.max(0, scheduler.decoding - 1);
    drafter.price?.(place, history.ids.length);
    this.#pass();
    if (asked.isAdaptive) {
      const wait = budget.wait(place);
      if (wait > 0) {
        this.#wait = wait - 1;
        return NONE;
      }
    }
    try {
      const draft = drafter.draft(history, this.#most);
      return draft instanceof Promise ? draft.then(this.#take).catch(this.#giveUp) : this.#take(draft);
    } catch {
      return this.#giveUp();
    }
  }

  readonly #most = (kind: number): number => {
    this.#place.kind = kind;
    const { asked, budget } = this.#means;
    return asked.isAdaptive ? budget.most(this.#place, this.#room) : this.#room;
  };

  /** @throws MemoryError */
  readonly #take = ({ ids }: Draft): readonly number[] => {
    if (ids.length === 0) return NONE;
    const { session, stopIds } = this.#means;
    const end = ids.findIndex((id) => stopIds.has(id));
    const guesses = end < 0 ? ids : ids.slice(0, end); // nothing comes behind the end, and so it needs no row: the row before tells whether it comes
    if (guesses.length > 0) session.cache.keepStates();
    return guesses;
  };

  /** No memory for it, a draft model that is gone, or a turn that is to end: it goes on without. */
  readonly #giveUp = (): readonly number[] => {
    this.#isOff = true;
    return NONE;
  };

  /** Takes in a step: how many guesses it had, none perhaps, and how many of them were right. */
  count(drafted: number, accepted: number): void {
    if (drafted === 0) {
      this.#without++;
      return;
    }
    this.#means.budget.count(this.#place, drafted, accepted);
    for (const counts of [this.#counts, this.#means.all]) {
      counts.drafted += drafted;
      counts.accepted += accepted;
    }
  }

  /** The turn is over. */
  end(): void {
    this.#pass();
    this.#means.session.cache.dropStates();
  }

  #pass(): void {
    if (this.#without === 0) return;
    this.#means.budget.pass(this.#without);
    this.#without = 0;
  }
}
