// Goals that a run measures: bounds and texts. One that is missed stops nothing: it is told at once and again at the end, and the run fails.

export const times = (x) => `${x.toFixed(2)} ×`;
export const percent = (x) => `${Math.round(100 * x)} %`;

/** The goals of a run, in the order in which they were measured. */
export class Goals {
  /** Each with key, value, text, limit, isMet. */
  rows = [];
  #note;

  /** @param note takes a line as soon as there is one */
  constructor(note) {
    this.#note = note;
  }

  /**
   * @param value what was measured, against `atLeast` or `atMost`
   * @param show makes a text of a value
   * @param text says more of what was measured
   * @returns the goal's row
   */
  add(key, value, { atLeast, atMost, show, text = show(value) }) {
    const isMet = atLeast === undefined ? value <= atMost : value >= atLeast; // what is no number is missed
    const limit = atLeast === undefined ? `at most ${show(atMost)}` : `at least ${show(atLeast)}`;
    const row = { key, value, text, limit, isMet };
    this.rows.push(row);
    this.#note(`${isMet ? "goal met" : "GOAL MISSED"}: ${key}: ${text}, ${limit}`);
    return row;
  }

  get missed() {
    return this.rows.filter((row) => !row.isMet);
  }
}
