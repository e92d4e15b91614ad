// How long a step takes by its rows, learnt from the steps themselves. It decides how many rows are worth while, never what a row gives.

/** Steps of more rows are prompts, whose time nobody asks for. */
const MOST_ROWS = 64;
/** What a row more costs before anything has been measured, in steps of one row. */
const GUESS = 0.5;
/** How much a new time counts that is shorter, and one that is longer: a busy machine, or code that is not compiled yet, only adds. */
const SHORTER = 0.5;
const LONGER = 0.1;
/** A step that the machine was busy during does not count for more than this, in times of the mean. */
const OUTLIER = 1.5;

/** Before so many steps, a time may be that of code that was not compiled yet, and the guess counts where it is less. */
const TRUSTED = 4;
/** So it does after so many steps of other rows: what was taken for too dear when it was slow is tried again. */
const STALE = 1024;

/** Mean times of steps. */
export class StepCosts {
  readonly #ms: number[] = [];
  /** How many steps each has been seen, and which of all steps was the last of them. */
  readonly #steps: number[] = [];
  readonly #last: number[] = [];
  #all = 0;

  /** Takes in a step of so many rows, none of a prompt. Clocks that stand still while a step is computed tell nothing. */
  count(rows: number, ms: number): void {
    if (rows > MOST_ROWS || !(ms > 0)) return;
    const mean = this.#ms[rows];
    this.#steps[rows] = this.#isStale(rows) ? 1 : (this.#steps[rows] ?? 0) + 1;
    this.#last[rows] = ++this.#all;
    this.#ms[rows] = mean === undefined ? ms : mean + (ms < mean ? SHORTER : LONGER) * (Math.min(ms, OUTLIER * mean) - mean);
  }

  /** @returns the time of a step of so many rows, as far as it is known: by what is nearest, else by a guess in units of its own */
  ms(rows: number): number {
    const known = this.#ms[rows];
    const single = this.#ms[1];
    if (known !== undefined) {
      if (rows === 1 || single === undefined) return known;
      const isTrusted = (this.#steps[rows] ?? 0) >= TRUSTED && !this.#isStale(rows);
      return Math.min(known, single * (isTrusted ? rows : 1 + GUESS * (rows - 1))); // no row costs more than a step of its own, only code that is not compiled yet
    }
    for (let off = 1; off < MOST_ROWS; off++) {
      const other = this.#ms[rows - off] !== undefined ? rows - off : rows + off;
      if (this.#ms[other] !== undefined) return (this.ms(other) * (1 + GUESS * (rows - 1))) / (1 + GUESS * (other - 1));
    }
    return 1 + GUESS * (rows - 1);
  }

  #isStale(rows: number): boolean {
    return this.#all - (this.#last[rows] ?? 0) >= STALE;
  }
}
