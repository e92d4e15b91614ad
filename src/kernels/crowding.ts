// Whether helpers are worth having: where others want the cores, threads that meet behind every command wait for each other's turns, and one alone can be faster. Knows no clock and no kernel.

/** Sleeps within a step from which on its threads held each other up: with cores to themselves they meet while they poll. */
const HELD_UP_SLEEPS = 8;
/** Shorter steps are not worth a thought, ms. */
const LEAST_MS = 2;
/** Steps whose mean is compared with as many the other way. */
const TRIAL_STEPS = 3;
/** Steps from one trial to the next: few at first, twice as many after each that changed nothing. */
const [LEAST_PAUSE, LONGEST_PAUSE] = [16, 128];

/** Chooses for steps in a row whether helpers take part, by how long they took with and without. No choice changes a bit of a result. */
export class Crowding {
  #isAlone = false;
  /** Of the steps that are compared. */
  #kind = -1;
  /** ms of the last steps. */
  #times: number[] = [];
  /** Mean ms before a trial; undefined while there is none. */
  #before: number | undefined;
  #pause = LEAST_PAUSE;
  /** Steps until there may be a trial. */
  #left = 0;

  /** Whether the next step is better computed without helpers. */
  get isAlone(): boolean {
    return this.#isAlone;
  }

  /**
   * Takes in a step.
   * @param kind steps of two kinds are not compared
   * @param sleeps how often its threads went to sleep
   */
  took(kind: number, ms: number, sleeps: number): void {
    const isTrial = this.#before !== undefined;
    if (kind !== this.#kind || ms < LEAST_MS) {
      if (isTrial) this.#isAlone = !this.#isAlone; // as it was
      this.#before = undefined;
      this.#kind = kind;
      this.#times = [];
      return;
    }
    if (!isTrial && --this.#left > 0) return;
    if (!isTrial && !this.#isAlone && sleeps < HELD_UP_SLEEPS) {
      this.#times = [];
      return;
    }
    this.#times.push(ms);
    if (this.#times.length < TRIAL_STEPS) return;
    const mean = this.#times.reduce((a, b) => a + b, 0) / TRIAL_STEPS;
    this.#times = [];
    if (this.#before !== undefined && mean < this.#before) this.#pause = LEAST_PAUSE;
    else if (isTrial) this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    if (this.#before === undefined || mean >= this.#before) this.#isAlone = !this.#isAlone; // begins a trial, or ends one that gained nothing
    this.#before = isTrial ? undefined : mean;
    this.#left = this.#pause;
  }
}
