// How long a step takes by its rows, learnt from the steps themselves. It decides how many rows are worth while, never what a row gives.

/** Steps of more rows are prompts, whose time nobody asks for. */
export const MOST_ROWS = 64;
/** What a row more costs before anything has been measured, in steps of one row. */
const GUESS = 0.5;
/** How much a new time counts that is shorter, and one that is longer: a busy machine, or code that is not compiled yet, only adds. */
const SHORTER = 0.5;
const LONGER = 0.1;
/** A step that the machine was busy during does not count for more than this, in times of the mean. */
const OUTLIER = 1.5;
/** Before so many steps a time may be that of code that was not compiled yet, and counts for no more than the guess. */
const TRUSTED = 4;
/** After so many steps of other rows a time counts for nothing: what was taken for too dear when it was slow is tried again. */
const STALE = 64;

/** Mean times of steps. */
export class StepCosts {
  readonly #ms: number[] = [];
  /** How many steps of so many rows there have been, and which of all steps was the last of them. */
  readonly #steps: number[] = [];
  readonly #last: number[] = [];
  #all: number;
  /** What a row more costs at least, undefined where it has to be found anew. */
  #more: number | undefined;

  /** @param without first steps that do not count */
  constructor(without: number = 0) {
    this.#all = -without;
  }

  /** Whether anything was measured. */
  get isKnown(): boolean {
    return this.#all > 0;
  }

  /** Forgets everything. */
  clear(): void {
    this.#ms.length = 0;
    this.#steps.length = 0;
    this.#last.length = 0;
    this.#more = undefined;
    this.#all = 0;
  }

  /** Takes in a step of so many rows, none of a prompt. Clocks that stand still while a step is computed tell nothing. */
  count(rows: number, ms: number): void {
    if (rows > MOST_ROWS || !(ms > 0)) return;
    if (++this.#all <= 0) return;
    const mean = this.#ms[rows];
    this.#steps[rows] = this.#age(rows) <= STALE ? (this.#steps[rows] ?? 0) + 1 : 1;
    this.#last[rows] = this.#all;
    this.#ms[rows] = mean === undefined ? ms : mean + (ms < mean ? SHORTER : LONGER) * (Math.min(ms, OUTLIER * mean) - mean);
    this.#more = undefined;
  }

  /** @returns the time of a step of so many rows, in steps of one row before any was seen. A time that was seen fades, over STALE steps, towards what rows cost at least of late */
  ms(rows: number): number {
    const single = this.#single();
    this.#more ??= this.#leastMore(single);
    const line = single + (rows - 1) * this.#more;
    const known = this.#known(rows, single);
    if (known === undefined) return line;
    const age = rows === 1 ? 0 : Math.min(1, this.#age(rows) / STALE);
    return (1 - age) * known + age * line;
  }

  /** What was seen; no row costs more than a step of its own, only code that is not compiled yet. */
  #known(rows: number, single: number): number | undefined {
    const known = this.#ms[rows];
    if (known === undefined || rows === 1) return known;
    const isTrusted = (this.#steps[rows] ?? 0) >= TRUSTED;
    return Math.min(known, single * (1 + (isTrusted ? 1 : GUESS) * (rows - 1)));
  }

  #single(): number {
    const single = this.#ms[1];
    if (single !== undefined) return single;
    for (let rows = 2; rows < this.#ms.length; rows++) {
      const known = this.#ms[rows];
      if (known !== undefined) return known / (1 + GUESS * (rows - 1));
    }
    return 1;
  }

  #leastMore(single: number): number {
    let least = Number.POSITIVE_INFINITY;
    for (let rows = 2; rows < this.#ms.length; rows++) {
      const known = this.#known(rows, single);
      if (known !== undefined && this.#age(rows) < STALE) least = Math.min(least, (known - single) / (rows - 1));
    }
    return least === Number.POSITIVE_INFINITY ? GUESS * single : Math.min(single, Math.max(0, least));
  }

  #age(rows: number): number {
    return this.#all - (this.#last[rows] ?? 0);
  }
}
