// Turns of a model's engine, a step for each pull: what `lfm2 bench` does, for many models in turns.

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
let calls = 1_000_000;

/** A number that no session has yet. */
export const newSession = () => calls++;

/**
 * Greedy ids of an open session after `ids`, computed as they are pulled. No generator: what it would do is not the library's, and takes a tenth of a large
 * model's JavaScript a step.
 * @param end is called when it is left
 */
export function continued(engine, session, ids, end = async () => {}) {
  const request = { ids: Uint32Array.from(ids), maxTokens: Number.MAX_SAFE_INTEGER, stopIds: [], stop: [], sampling: GREEDY };
  const events = engine.generate(session, session, request)[Symbol.asyncIterator]();
  const next = () =>
    events.next().then(({ value }) => (value?.type === "token" ? { done: false, value: value.id } : value ? next() : OVER));
  const leave = async () => {
    await events.return();
    await end();
    return OVER;
  };
  return { next, return: leave, [Symbol.asyncIterator]: () => ({ next, return: leave }) };
}

const OVER = { done: true, value: undefined };

/** Greedy ids after `ids` in a session of their own, computed as they are pulled. */
export function greedy({ engine }, ids) {
  const session = newSession();
  let steps;
  const opened = engine.open(session).then(() => {
    steps = continued(engine, session, ids, () => engine.close(session));
    return steps;
  });
  return { next: () => (steps ? steps.next() : opened.then((s) => s.next())), return: () => opened.then((s) => s.return()) };
}

/** `count` ids below `vocabulary`, the same for a salt. */
export const prompt = (count, salt, vocabulary = 65536) =>
  Array.from({ length: count }, (_, i) => 20 + ((i * 7919 + salt * 104729) % (vocabulary - 20)));

/** The next `count` ids, and ms. */
export async function take(generator, count) {
  const ids = [];
  const start = performance.now();
  for (let i = 0; i < count; i++) ids.push((await generator.next()).value);
  return { ids, ms: performance.now() - start };
}
