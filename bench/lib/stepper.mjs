// Turns of a model's engine, a step for each pull: what `lfm2 bench` does, for many models in turns.

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
let calls = 1_000_000;

/** A number that no session has yet. */
export const newSession = () => calls++;

/** Greedy ids of an open session after `ids`, computed as they are pulled. */
export async function* continued(engine, session, ids) {
  const request = { ids: Uint32Array.from(ids), maxTokens: Number.MAX_SAFE_INTEGER, stopIds: [], stop: [], sampling: GREEDY };
  for await (const event of engine.generate(session, session, request)) if (event.type === "token") yield event.id;
}

/** Greedy ids after `ids` in a session of their own, computed as they are pulled. */
export async function* greedy({ engine }, ids) {
  const session = newSession();
  await engine.open(session);
  try {
    yield* continued(engine, session, ids);
  } finally {
    await engine.close(session);
  }
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
