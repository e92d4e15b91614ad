// Whether helpers are worth having: where others want the cores, threads that meet behind every command wait for each other's turns, and one alone can be faster. Knows no clock and no kernel.

/** Sleeps within a step from which on its threads held each other up: with cores to themselves they meet while they poll. */
const HELD_UP_SLEEPS = 8;
/** Shorter steps are not worth a thought, ms; in longer ones, of prompts, waiting is the lesser part, and a trial would cost more than it could gain. */
const [LEAST_MS, MOST_MS] = [2, 250];
/** Steps whose median counts: one that something else held up says nothing. With helpers, most of them must have been held up. */
const TRIAL_STEPS = 3;
const MOST_OF_THEM = 2;
/** From one trial of a kind to its next, ms of steps of all kinds: at first so long, twice as long after each trial that changed nothing … */
const LEAST_PAUSE_MS = 250;
/** … and so long at most. Alone it is one step that tries the helpers, and they are missed when others are gone; of a step alone nobody gains where helpers have paid so often. */
const LONGEST_PAUSE_MS = { alone: 1000, together: 8000 };
/** A step with helpers shows that they are worth having again where it takes so much of the time of one alone. */
const WORTH_IT = 0.9;
/** Kinds of steps that are told apart; with one more all are forgotten. */
const MOST_KINDS = 64;

/** Steps of one kind, whose times can be compared. */
class Kind {
  isAlone = false;
  /** Whether the steps now are computed the other way to see how long they take. */
  #isTrial = false;
  /** The last steps the way that they are computed now. */
  #steps: { readonly ms: number; readonly isHeldUp: boolean }[] = [];
  /** Median ms before the trial. */
  #before = 0;
  #pauseMs = LEAST_PAUSE_MS;
  /** When the last trial ended. */
  #since = Number.NEGATIVE_INFINITY;

  /** @param now ms of all steps so far, this one included */
  took(ms: number, sleeps: number, now: number): void {
    if (this.#isTrial && !this.isAlone) {
      this.#end(ms >= WORTH_IT * this.#before, now);
      return;
    }
    const isHeldUp = ms >= LEAST_MS && ms <= MOST_MS && sleeps >= HELD_UP_SLEEPS;
    this.#steps = [...this.#steps, { ms, isHeldUp }].slice(-TRIAL_STEPS);
    if (this.#steps.length < TRIAL_STEPS) return;
    const median = this.#steps.map((step) => step.ms).sort((a, b) => a - b)[TRIAL_STEPS >> 1] ?? 0;
    if (this.#isTrial) this.#end(median >= this.#before, now);
    else if (now - this.#since >= this.#pauseMs && (this.isAlone || this.#steps.filter((step) => step.isHeldUp).length >= MOST_OF_THEM)) {
      this.#before = median;
      this.#change(true);
    }
  }

  /** @param isVain whether the trial has gained nothing: then it is as it was */
  #end(isVain: boolean, now: number): void {
    const isAlone = this.isAlone !== isVain;
    this.#pauseMs = isVain ? Math.min(2 * this.#pauseMs, isAlone ? LONGEST_PAUSE_MS.alone : LONGEST_PAUSE_MS.together) : LEAST_PAUSE_MS;
    this.#since = now;
    if (isVain) this.#change(false);
    else {
      this.#isTrial = false;
      this.#steps = [];
    }
  }

  #change(isTrial: boolean): void {
    this.isAlone = !this.isAlone;
    this.#isTrial = isTrial;
    this.#steps = [];
  }
}

/** Chooses for steps of each kind whether helpers take part, by how long they took with and without. No choice changes a bit of a result. */
export class Crowding {
  readonly #kinds = new Map<number, Kind>();
  /** Of the last step. */
  #last: Kind | undefined;
  /** Of all steps. */
  #ms = 0;

  /** Whether a step like the last is better computed without helpers. */
  get isAlone(): boolean {
    return this.#last?.isAlone ?? false;
  }

  /** @param kind of the next step: its steps are compared. @returns whether it is better computed without helpers */
  next(kind: number): boolean {
    let found = this.#kinds.get(kind);
    if (!found) {
      if (this.#kinds.size === MOST_KINDS) this.#kinds.clear();
      found = new Kind();
      this.#kinds.set(kind, found);
    }
    this.#last = found;
    return found.isAlone;
  }

  /**
   * Takes in the step that `next` was asked for.
   * @param sleeps how often its threads went to sleep
   */
  took(ms: number, sleeps: number): void {
    this.#ms += ms;
    this.#last?.took(ms, sleeps, this.#ms);
  }
}
