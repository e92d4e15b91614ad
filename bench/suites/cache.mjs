// A session as a value: what rewind, fork, save, restore and a prefix that is held cost as the context grows. Each result goes on with the ids of a run that never paused; goals are asserted.
import { load } from "lfm2-wasm";
import { checkpointOf } from "../lib/checkpoints.mjs";
import { times } from "../lib/goals.mjs";
import { check } from "../lib/measure.mjs";
import { prompt } from "../lib/stepper.mjs";

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const CONTEXTS = [1024, 4096, 16384];
/** And then this one, or what the model allows. */
const LONGEST_CONTEXT = 32512;
const QUICK_CONTEXT = 4096;
const BACK = 64;
const PAGE_POSITIONS = 32;
/** From so many tokens on going back, and a prefix that is held, are to be so many times as fast as a prefill. */
const LONG_CONTEXT = 16_384;
const OF_PREFILL = 10;
/** A fork takes no longer than this, however long the context: a few steps of a small model. */
const FORK_MS = 5;
const FORKS = 5;
let calls = 3_000_000;

async function timed(work) {
  const start = performance.now();
  const value = await work();
  return { value, ms: performance.now() - start };
}

/** The first token that a session gives behind `ids`. */
async function next(engine, session, ids) {
  let id = -1;
  const request = { ids: Uint32Array.from(ids), maxTokens: 1, stopIds: [], stop: [], sampling: GREEDY };
  for await (const event of engine.generate(calls++, session, request)) if (event.type === "token") id = event.id;
  return id;
}

/** A fork goes back by `BACK` and on to the end, in an engine where no session takes over what another one holds: else nothing would be computed again. */
async function rewound(engine, state, context, ids) {
  const [whole, fork] = [calls++, calls++];
  await engine.restore(whole, state);
  await next(engine, whole, ids); // computes what a state leaves out
  await engine.fork(whole, fork);
  const before = (await engine.status()).usedPages;
  const back = await timed(async () => {
    await engine.rewind(fork, context - BACK);
    return next(engine, fork, ids);
  });
  const pages = (await engine.status()).usedPages - before;
  for (const session of [whole, fork]) await engine.close(session);
  return { ...back, pages };
}

/** @returns rows: ms and bytes by context */
export async function cache({ options, note, goals }) {
  const rows = [];
  const [shape] = options.shapes;
  const model = await load(await checkpointOf(shape, "q4"), { threads: 1, prefixCacheBytes: 1 << 30 });
  const alone = await load(await checkpointOf(shape, "q4"), { threads: 1, prefixCacheBytes: 0 });
  const { engine, info } = model;
  const most = Math.min(info.maxContextTokens - 1, options.isQuick ? QUICK_CONTEXT : LONGEST_CONTEXT);
  const contexts = [...CONTEXTS.filter((n) => n < most), most];
  for (const context of contexts) {
    const session = calls++;
    await engine.open(session);
    const ids = prompt(context, 1, model.config.vocabSize);
    const prefill = await timed(() => next(engine, session, ids));
    const row = (what, ms, bytes, goal) => {
      const key = `${shape}, context ${context}: ${what}`;
      if (!options.wants(key)) return;
      rows.push({ key, value: 1 / ms, ms, bytes, ofPrefill: prefill.ms / ms });
      note(`${key}: ${ms.toFixed(2)} ms${bytes === undefined ? "" : `, ${(bytes / 1e6).toFixed(2)} MB`}`);
      if (goal) goals.add(key, ...goal);
    };
    const ofPrefill = (ms) =>
      context >= LONG_CONTEXT ? [prefill.ms / ms, { atLeast: OF_PREFILL, show: (x) => `prefill / ${times(x)}` }] : undefined;
    row("prefill", prefill.ms, context * info.kvBytesPerToken);
    const used = async () => (await engine.status()).usedPages;
    const pageBytes = PAGE_POSITIONS * info.kvBytesPerToken;
    const before = await used();
    const forks = [];
    for (let n = 0; n < FORKS; n++) {
      const fork = calls++;
      forks.push((await timed(() => engine.fork(session, fork))).ms);
      check((await used()) === before, "a fork takes no pages");
      await engine.close(fork);
    }
    const forkMs = forks.sort((a, b) => a - b)[FORKS >> 1];
    row("fork", forkMs, 0, [forkMs, { atMost: FORK_MS, show: (ms) => `${ms.toFixed(2)} ms` }]);
    const saved = await timed(() => engine.save(session, ""));
    row("save", saved.ms, saved.value.length);
    const again = calls++;
    const restored = await timed(() => engine.restore(again, saved.value));
    row("restore", restored.ms, saved.value.length);
    check((await next(engine, again, ids)) === prefill.value, `context ${context}: other ids after a restore`);
    await engine.close(again);
    const back = await rewound(alone.engine, saved.value, context, ids);
    check(back.value === prefill.value, `context ${context}: other ids after a rewind`);
    row(`rewind by ${BACK}, and on to the end`, back.ms, back.pages * pageBytes, ofPrefill(back.ms));
    const other = calls++;
    await engine.open(other);
    const shared = await used();
    const hit = await timed(() => next(engine, other, ids));
    check(hit.value === prefill.value, `context ${context}: other ids from a prefix that is held`);
    row("a new session whose prompt another one holds", hit.ms, ((await used()) - shared) * pageBytes, ofPrefill(hit.ms));
    await engine.close(other);
    await engine.close(session);
  }
  for (const each of [model, alone]) each.dispose();
  return { rows };
}
