// Guesses at tokens, so that one pass checks several: who makes them for a turn, and how many. A guess never chooses a token: generate.ts chooses each as it does
// without, and keeps a guess only where it is that very token.
import { Acceptance, DraftBudget, MOST_DRAFTED, type Place } from "./draft-budget.ts";
import { DraftModel } from "./draft-model.ts";
import { type Draft, type Drafter, GivenDrafts, PromptLookup } from "./drafters.ts";
import type { GenerateRequest, SpeculationCount, SpeculationRequest } from "./engine.ts";
import type { History } from "./history.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Session } from "./session.ts";
import { StepCosts } from "./step-costs.ts";

type By = SpeculationRequest["by"];

const NONE: readonly number[] = [];

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
  readonly #budgets = new Map<By, DraftBudget>();
  readonly #known = new WeakMap<Session, Known>();
  #drafted = 0;
  #accepted = 0;

  /** @param draft steps of the draft model, if there is one */
  constructor(scheduler: Scheduler, draft: Scheduler | undefined) {
    this.#scheduler = scheduler;
    this.#draft = draft;
    scheduler.onStep = (rows, ms) => this.#costs.count(rows, ms);
  }

  /** Guesses of all turns. */
  get counts(): SpeculationCount {
    return { drafted: this.#drafted, accepted: this.#accepted };
  }

  /** @returns what guesses in a turn on `session`; nothing where there is no draft model for one that asks for it */
  begin(session: Session, request: GenerateRequest, asked: SpeculationRequest): Speculation | undefined {
    const { by } = asked;
    const known = this.#known.get(session) ?? { acceptance: new Map(), draftModel: undefined };
    this.#known.set(session, known);
    const drafter = this.#drafter(known, request, asked);
    if (!drafter) return undefined;
    const budget = this.#budgets.get(by) ?? new DraftBudget(this.#costs);
    budget.begin();
    this.#budgets.set(by, budget);
    const acceptance = known.acceptance.get(by) ?? new Acceptance(budget.acceptance);
    acceptance.fade(OF_EARLIER_TURNS);
    known.acceptance.set(by, acceptance);
    const place = (kind: number): Place => {
      const others = Math.max(0, this.#scheduler.decoding - 1);
      return { acceptance, kind, others, msPerToken: drafter.msPerToken };
    };
    const tell = (drafted: number, accepted: number): void => {
      this.#drafted += drafted;
      this.#accepted += accepted;
    };
    return new Speculation(session, drafter, asked, request.stopIds, budget, place, tell);
  }

  /** Gives back what was kept for a session. */
  close(session: Session): void {
    this.#known.get(session)?.draftModel?.close();
    this.#known.delete(session);
  }

  #drafter(known: Known, request: GenerateRequest, asked: SpeculationRequest): Drafter | undefined {
    if (asked.by === "given") return new GivenDrafts(asked.ids ?? []);
    if (asked.by === "prompt-lookup") return new PromptLookup(asked.ngram);
    if (!this.#draft) return undefined;
    known.draftModel ??= new DraftModel(this.#draft);
    known.draftModel.begin(request);
    return known.draftModel;
  }
}

/** Guesses of one turn. */
export class Speculation {
  readonly #session: Session;
  readonly #drafter: Drafter;
  readonly #request: SpeculationRequest;
  readonly #stopIds: ReadonlySet<number>;
  readonly #budget: DraftBudget;
  readonly #place: (kind: number) => Place;
  readonly #tell: (drafted: number, accepted: number) => void;
  #now: Place;
  #isOff = false;
  #drafted = 0;
  #accepted = 0;

  constructor(
    session: Session,
    drafter: Drafter,
    request: SpeculationRequest,
    stopIds: readonly number[],
    budget: DraftBudget,
    place: (kind: number) => Place,
    tell: (drafted: number, accepted: number) => void,
  ) {
    this.#session = session;
    this.#drafter = drafter;
    this.#request = request;
    this.#stopIds = new Set(stopIds);
    this.#budget = budget;
    this.#place = place;
    this.#tell = tell;
    this.#now = place(0);
  }

  get counts(): SpeculationCount {
    return { drafted: this.#drafted, accepted: this.#accepted };
  }

  /**
   * @returns what may come behind `history`, at most `room` ids, to be checked in the next step; the session is then ready to go back by them. A promise only
   * where somebody computes: each reply waits for it once a step
   */
  draft(history: History, room: number): readonly number[] | Promise<readonly number[]> {
    const { max, isAdaptive } = this.#request;
    const most = Math.min(room, max, MOST_DRAFTED);
    if (most <= 0 || this.#isOff) return NONE;
    if (isAdaptive) {
      this.#now = this.#place(0);
      if (this.#budget.isSpent(this.#now)) return NONE;
    }
    try {
      const draft = this.#drafter.draft(history, (kind) => {
        this.#now = this.#place(kind);
        return isAdaptive ? this.#budget.most(this.#now, most) : most;
      });
      return draft instanceof Promise ? draft.then(this.#take).catch(this.#giveUp) : this.#take(draft);
    } catch {
      return this.#giveUp();
    }
  }

  /** @throws MemoryError */
  readonly #take = ({ ids }: Draft): readonly number[] => {
    const end = ids.findIndex((id) => this.#stopIds.has(id));
    const guesses = end < 0 ? ids : ids.slice(0, end); // nothing comes behind the end, and so it needs no row: the row before tells whether it comes
    if (guesses.length > 0) this.#session.cache.keepStates();
    return guesses;
  };

  /** No memory for it, or a draft model that is gone: the reply goes on without. */
  readonly #giveUp = (): readonly number[] => {
    this.#isOff = true;
    return NONE;
  };

  /** Takes in a step: how many guesses it had, none perhaps, and how many of them were right. */
  count(drafted: number, accepted: number): void {
    this.#budget.count(this.#now, drafted, accepted);
    this.#drafted += drafted;
    this.#accepted += accepted;
    this.#tell(drafted, accepted);
  }

  /** The turn is over. */
  end(): void {
    this.#session.cache.dropStates();
  }
}
