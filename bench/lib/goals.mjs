// Goals that a suite measures: bounds, texts, and what the run says of them.

/**
 * @param value what was measured, against `atLeast` or `atMost`
 * @param show makes a text of a value
 * @returns a row of a suite's goals
 */
export function goal(key, value, { atLeast, atMost, show }) {
  const isMet = atLeast === undefined ? value <= atMost : value >= atLeast;
  const limit = atLeast === undefined ? `at most ${show(atMost)}` : `at least ${show(atLeast)}`;
  return { key, value, text: show(value), limit, isMet };
}

export const times = (x) => `${x.toFixed(2)} ×`;
export const percent = (x) => `${Math.round(100 * x)} %`;

/** A missed goal makes the run fail. */
export function assertGoals(goals, note) {
  for (const { key, text, limit, isMet } of goals) note(`${key}: ${text}, ${limit}: ${isMet ? "met" : "missed"}`);
  if (goals.some((g) => !g.isMet)) process.exitCode = 1;
}
