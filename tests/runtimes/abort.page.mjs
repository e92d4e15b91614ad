// Calls on an engine in a worker that are aborted somewhere, in whatever runtime this runs, and how many steps are begun once the message of the abort is on its way. Nobody
// leaves a loop over a stream meanwhile, which would end the work, too. The worker counts: count-steps.mjs.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { shareCount } from "./count-steps.mjs";

const STORY = "Tell me a story about a fox.";
const endless = { stopIds: [], temperature: 0, maxTokens: 1500 };
/** 14 chunks and a bit. */
const long = Uint32Array.from({ length: 1800 }, (_, i) => 20 + ((i * 7) % 400));
const fired = (signal) =>
  new Promise((resolve) => (signal.aborted ? resolve() : signal.addEventListener("abort", resolve, { once: true })));

/** Calls by name: within how many calls of the kernels the abort comes, how many a step makes, and the call itself. One that stalls reads no further from the abort on until `resumed`. */
const CALLS = {
  "generate()": { within: 400, run: (model, signal) => model.generate(STORY, { ...endless, signal }) },
  'generate() with onAbort: "return"': {
    within: 400,
    run: (model, signal) => model.generate(STORY, { ...endless, signal, onAbort: "return" }),
  },
  "a prompt that is read": { within: 14, run: (model, signal) => model.generate(long, { maxTokens: 1, signal }) },
  "a stream whose reader stalls": {
    within: 14, // it works 16 parts ahead and no further: the prompt, and 15 tokens, of which the last is not fed
    run: async (model, signal, resumed) => {
      const stream = model.stream(STORY, { ...endless, signal })[Symbol.asyncIterator]();
      await stream.next();
      await fired(signal);
      await resumed;
      for (let isOver = false; !isOver; ) isOver = (await stream.next()).done;
    },
  },
  "a stream that is read to its end": {
    within: 400,
    run: async (model, signal) => {
      const stream = model.stream(STORY, { ...endless, signal, onAbort: "return" });
      for await (const _ of stream);
      return stream.reply;
    },
  },
  beams: { within: 100, run: (model, signal) => model.generate(STORY, { ...endless, numBeams: 3, signal }) },
  guesses: { within: 100, run: (model, signal) => model.generate(STORY, { ...endless, speculate: true, signal }) },
  "forward()": { within: 14, run: (model, signal) => model.forward({ inputIds: long, logitsToKeep: 1, signal }) },
  "embed()": { within: 28, callsPerStep: 2, run: (model, signal) => model.embed([long], { signal }) },
};

/** @returns how many calls of the kernels were begun after the abort, and how the call ended */
async function abortOne(model, { within, run }, count, random) {
  const control = new AbortController();
  let go = () => {};
  const resumed = new Promise((resolve) => {
    go = resolve;
  });
  let outcome;
  const before = count();
  const call = run(model, control.signal, resumed).then(
    (value) => (outcome = value?.finishReason ?? "done"),
    ({ name }) => (outcome = name),
  );
  const target = 1 + random(within);
  while (count() - before < target && !outcome) await new Promise((resolve) => setTimeout(resolve, 0));
  const how = outcome && "over";
  control.abort();
  const from = count(); // its message has been posted
  for (let i = 0; i < 3; i++) await model.status(); // between these it would go on
  go();
  await call;
  await model.status();
  return { after: count() - from, how: how ?? outcome };
}

/** @param {unknown} _files @param {{ aborts: number, seed: number, names?: readonly string[] }} options aborts of each call; of which calls, all where absent */
export async function run(_files, { aborts, seed, names = Object.keys(CALLS) }) {
  const { count, end } = await shareCount();
  const model = await load(mini, { engine: "worker", prefixCacheBytes: 0 });
  let state = seed;
  const random = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const calls = {};
  for (const name of names) {
    const { callsPerStep = 1 } = CALLS[name];
    const told = { callsPerStep, after: [], outcomes: {} };
    for (let i = 0; i < aborts; i++) {
      const { after, how } = await abortOne(model, CALLS[name], count, random);
      told.after.push(after);
      told.outcomes[how] = (told.outcomes[how] ?? 0) + 1;
    }
    calls[name] = told;
  }
  const { openSessions, usedPages } = await model.status();
  model.dispose();
  end();
  return { calls, left: [openSessions, usedPages] };
}

/** @throws unless every abort let its step end and one more begin, at most */
export function checkAborts({ calls, left }, aborts) {
  for (const [name, { callsPerStep, after, outcomes }] of Object.entries(calls)) {
    const { AbortError = 0, interrupted = 0 } = outcomes;
    const what = `${name}: ${after} calls of the kernels after the aborts, ${JSON.stringify(outcomes)}`;
    if (!(Math.max(...after) < 2 * callsPerStep)) throw new Error(what); // what is left of its step, and a whole one
    if (AbortError + interrupted < aborts / 4) throw new Error(what); // on a busy machine some are over before
  }
  if (`${left}` !== "0,0") throw new Error(`sessions and pages that stay: ${left}`);
}
