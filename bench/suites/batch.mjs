// Several rows in a step: replies that share it, and guessed tokens that fill it. Each way is first held to the ids that it gives alone; goals are asserted.
import { readFileSync } from "node:fs";
import { inspect, load } from "lfm2-wasm";
import { checkpointOf, likeMini, stranger } from "../lib/checkpoints.mjs";
import { percent, times } from "../lib/goals.mjs";
import { check } from "../lib/measure.mjs";
import { prompt } from "../lib/stepper.mjs";
import { headMacs, macsPerToken, tileOf } from "../lib/tile.mjs";

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const CONTEXT = 32;
/** Tokens of a reply, and how many of them come before the clock: the bundled model's steps take a tenth of a millisecond, and V8 compiles what has run often. */
const LENGTHS = { mini: { warmUps: 64, tokens: 512 } };
const LENGTH = { warmUps: 8, tokens: 96 };
const STEPS = 32;
/** 8 rows in a step: of the rate of the weights' tile by itself, the head included, and of one row's in that build of the kernels. */
const OF_TILE = 0.85;
const OF_ONE_ROW = { relaxed: 2, plain: 1.5 };
/** Guesses that are wrong may take so much: against none. */
const AT_NO_LOSS = 0.97;
/** A stranger's guesses are right by chance alone. */
const BY_CHANCE = 0.1;
/** Smaller shapes that guess for a larger one. */
const SMALLER = { "350m": ["mini"], "1.2b": ["mini", "350m"], "2.6b": ["350m"] };
/** Of the guesses of a smaller model that computes the same from the same weights: all, or all but near ties. */
const NEARLY_ALL = 0.9;
/** Kinds of tokens in a text where prompt lookup always finds something, and never the right thing. */
const FAILING_KINDS = 16;
let calls = 2_000_000;

/** Others on the machine only add to a time: of several, the one at the lower quartile counts. */
const quartile = (times) => times.toSorted((a, b) => a - b)[times.length >> 2];

/** Ids of a turn, ms from the last token of its warm-up to its last, and the times of the tokens. */
async function turn(model, ids, { tokens, warmUps }, more) {
  const { engine } = model;
  const call = calls++;
  await engine.open(call);
  const out = [];
  const times = [];
  let counts;
  const request = { ids: Uint32Array.from(ids), maxTokens: tokens, stopIds: [], stop: [], sampling: GREEDY, ...more };
  for await (const event of engine.generate(call, call, request)) {
    if (event.type === "finish") counts = event.speculation;
    if (event.type !== "token") continue;
    out.push(event.id);
    times.push(performance.now());
  }
  await engine.close(call);
  return { ids: out, ms: times.at(-1) - times[warmUps - 1], times, counts };
}

/** ms of a step of `rows` replies, from rounds in turns. */
async function stepTimes(model, counts, warmUps, rounds) {
  const length = { tokens: warmUps + STEPS, warmUps };
  const times = counts.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, rows] of counts.entries()) {
      const all = await Promise.all(
        Array.from({ length: rows }, (_, n) => turn(model, prompt(CONTEXT, n, model.config.vocabSize), length)),
      );
      const last = all.at(-1).times;
      for (let step = warmUps; step < last.length; step++) times[i].push(last[step] - last[step - 1]);
    }
  return times.map(quartile);
}

/** The reply's own ids, of which so many in a hundred are right, spread by a fixed rule. */
const corrupted = (ids, percent, vocabulary) => ids.map((id, i) => ((i * 37 + 11) % 100 < percent ? id : (id + 1 + (i % 7)) % vocabulary));

/**
 * A text of few kinds of tokens that begins with every pair of them and in which no three may come twice: each pair has come before, and what came after it
 * then is ruled out. So every guess of prompt lookup is wrong.
 */
function failing(vocabulary) {
  const kinds = prompt(FAILING_KINDS, 5, vocabulary);
  const logitBias = Object.fromEntries(kinds.map((id) => [id, 1000]));
  return {
    ids: [...kinds.flatMap((a, i) => [a, ...kinds.slice(i + 1).flatMap((b) => [a, b])]), kinds[0]],
    processing: { noRepeatNgramSize: 3, logitBias },
  };
}

/** @returns times without guesses of replies to all prompts over times with them, in turns, and how many were right in all rounds */
async function guessed(title, model, prompts, length, options, { speculation, ...more }) {
  const times = { plain: [], guessed: [] };
  const counts = { drafted: 0, accepted: 0 };
  for (let round = 0; round < options.rounds + 1; round++) {
    const ms = { plain: 0, guessed: 0 };
    for (const ids of prompts) {
      const plain = await turn(model, ids, length, more);
      const other = await turn(model, ids, length, { speculation, ...more });
      check(String(other.ids) === String(plain.ids), `${title}: guesses change the ids`);
      for (const name of Object.keys(counts)) counts[name] += other.counts[name];
      ms.plain += plain.ms;
      ms.guessed += other.ms;
    }
    if (round === 0) continue; // it learns what steps cost
    for (const how of Object.keys(ms)) times[how].push(ms[how]);
  }
  return { value: quartile(times.plain) / quartile(times.guessed), counts };
}

/** Rows of several replies in a step. */
async function* together({ title, shape, dtype, threads }, model, length, options) {
  const counts = [1, 2, 3, 4, 8];
  const keys = [
    ...counts.slice(1).map((rows) => `${rows} rows`),
    "8 rows, of the tile's",
    ...[1, 2, 3].map((rows) => `a row beside ${rows}`),
  ];
  if (!keys.some((key) => options.wants(`${title}: ${key}`))) return;
  const { vocabSize } = model.config;
  const { variant } = model.info;
  const alone = [];
  for (let n = 0; n < 3; n++) alone.push((await turn(model, prompt(CONTEXT, n, vocabSize), length)).ids);
  const shared = await Promise.all(alone.map((_, n) => turn(model, prompt(CONTEXT, n, vocabSize), length)));
  check(String(shared.map(({ ids }) => ids)) === String(alone), `${title}: replies together give other ids than alone`);
  const ms = await stepTimes(model, counts, length.warmUps, options.rounds);
  const of = (rows) => ms[counts.indexOf(rows)];
  for (const rows of counts.slice(1)) {
    const value = (rows * of(1)) / of(rows);
    const text = `${((1000 * rows) / of(rows)).toFixed(1)} tokens/s, ${value.toFixed(2)} × one row`;
    yield { key: `${title}: ${rows} rows`, value, text, goal: rows === 8 ? OF_ONE_ROW[variant] : undefined };
  }
  if (shape !== "mini" && threads === 1) {
    const rate = tileOf(dtype, variant);
    const value = (8 * (macsPerToken(shape) + headMacs(shape))) / of(8) / 1e6 / rate;
    yield { key: `${title}: 8 rows, of the tile's ${rate.toFixed(1)} GMAC/s`, value, text: percent(value), goal: OF_TILE, show: percent };
  }
  for (const rows of [2, 3, 4]) {
    const value = (of(rows - 1) + of(1)) / of(rows);
    yield { key: `${title}: a row beside ${rows - 1}`, value, text: `${value.toFixed(2)} × two steps`, goal: 1 };
  }
}

/** Guesses that were there before, of which so many are right, and prompt lookup that finds nothing right. */
async function* ofGuesses({ title, shape }, model, length, options) {
  const { vocabSize } = model.config;
  const ids = prompt(CONTEXT, 0, vocabSize);
  const isWanted = (key) => options.wants(`${title}: ${key}`);
  const shares = [
    [100, shape === "350m" ? 1.8 : undefined],
    [75, shape === "350m" ? 1.3 : undefined],
    [50, undefined],
    [0, AT_NO_LOSS],
  ].filter(([share]) => isWanted(`guesses, ${share} % right`));
  const own = shares.length ? (await turn(model, ids, length)).ids : [];
  for (const [share, goal] of shares) {
    const speculation = { by: "given", ngram: 1, max: 15, isAdaptive: true, ids: Uint32Array.from(corrupted(own, share, vocabSize)) };
    const found = await guessed(title, model, [ids], length, options, { speculation });
    yield row(`${title}: guesses, ${share} % right`, found, goal);
  }
  if (!isWanted(ALWAYS_FAILS)) return;
  const { ids: text, processing } = failing(vocabSize);
  const speculation = { by: "prompt-lookup", ngram: 1, max: 15, isAdaptive: true };
  const found = await guessed(title, model, [text], length, options, { processing, speculation });
  check(
    found.counts.drafted > 0 && found.counts.accepted === 0,
    `${title}: lookup that fails: ${found.counts.accepted} of ${found.counts.drafted} right`,
  );
  yield row(`${title}: ${ALWAYS_FAILS}`, found, AT_NO_LOSS);
}

const ALWAYS_FAILS = "prompt lookup that always fails";

const row = (key, { value, counts }, goal) => ({
  key,
  value,
  text: `${value.toFixed(2)} ×, ${counts.accepted} of ${counts.drafted} right`,
  goal,
});

/** Guesses of a draft model: one that knows nothing of what the model says, and the model itself, whose guesses are all right and never pay. */
async function* ofDrafts(title, path, loadOptions, length, options) {
  for (const [what, drafted] of [
    ["a draft model that fails", stranger],
    ["the model as its own draft", () => path],
  ]) {
    const key = `${title}: ${what}`;
    if (!options.wants(key)) continue;
    const { vocabSize } = (await inspect(path)).config;
    const model = await load(path, { ...loadOptions, draft: await drafted(vocabSize) });
    const speculation = { by: "draft", ngram: 1, max: 15, isAdaptive: true };
    const found = await guessed(key, model, [prompt(CONTEXT, 0, vocabSize)], length, options, { speculation });
    const share = found.counts.accepted / found.counts.drafted; // NaN without guesses
    check(drafted === stranger ? share < BY_CHANCE : share === 1, `${key}: ${found.counts.accepted} of ${found.counts.drafted} right`);
    yield row(key, found, AT_NO_LOSS);
    model.dispose();
  }
}

/** Prompts of the stories that the bundled model tells, each longer than what is measured. */
const stories = () =>
  JSON.parse(readFileSync("models/lfm2-mini/examples.json", "utf8"))
    .examples.filter(({ task }) => task === "story")
    .map(({ prompt_ids: ids }) => ids);
const STORY = { warmUps: 8, tokens: 80 };

/**
 * A large model that tells the bundled model's stories, and a smaller one that tells them too and guesses for it from 4-bit weights: from those of the large one, or from what rounding left
 * of them.
 */
async function* ofSmaller({ title, shape, dtype }, loadOptions, options) {
  for (const smaller of SMALLER[shape] ?? []) {
    const key = `${title}: the ${smaller === "mini" ? "bundled model" : smaller} as its draft`;
    if (!options.wants(key)) continue;
    const [path, draft] = [await likeMini(shape, dtype), await likeMini(smaller, "q4")];
    const prompts = stories();
    const own = await tell(await load(draft, { ...loadOptions, dtype: undefined }), prompts);
    const model = await load(path, { ...loadOptions, draft });
    const found = await guessed(key, model, prompts, STORY, options, { speculation: { by: "draft", ngram: 1, max: 15, isAdaptive: true } });
    const said = await tell(model, prompts);
    const same = said.filter((ids, i) => String(ids) === String(own[i])).length;
    const share = found.counts.accepted / found.counts.drafted; // NaN without guesses
    check(
      dtype !== "q4" || found.counts.drafted === 0 || share > NEARLY_ALL,
      `${key}: ${found.counts.accepted} of ${found.counts.drafted} right`,
    );
    const { text, ...rest } = row(key, found);
    yield { ...rest, text: `${text}; ${same} of ${prompts.length} stories are its own` };
  }
}

/** @returns the ids of the replies; the model is given back */
async function tell(model, prompts) {
  const told = [];
  for (const ids of prompts) told.push((await turn(model, ids, STORY)).ids);
  model.dispose();
  return told;
}

/** Words that the bundled model has learnt to repeat. */
const WORDS = [
  "apple river stone cloud bread lamp tiger honey candle mirror garden pencil",
  "window basket forest engine button planet rocket castle ribbon pepper island thunder",
  "violin whisper marble feather lantern saddle bridge copper kitten market orange pillow",
];

/** A copy is a few steps, and what guesses them is still being compiled for so many rounds. */
const ROUNDS_TO_COMPILE = 20;

async function* copies(title, model, options) {
  const times = { plain: [], guessed: [] };
  for (let round = 0; round < ROUNDS_TO_COMPILE + 4 * options.rounds; round++) {
    let [plain, guessed] = [0, 0];
    for (const words of WORDS) {
      const text = `Repeat exactly: ${words}`;
      const a = await model.generate(text, { temperature: 0 });
      const b = await model.generate(text, { temperature: 0, speculate: "prompt-lookup" });
      check(a.text === words, `${title}: expected a copy of ${words}, got ${a.text}`);
      check(b.text === words, `${title}: guesses change the text`);
      plain += a.timings.decodeMs;
      guessed += b.timings.decodeMs;
    }
    if (round < ROUNDS_TO_COMPILE) continue;
    times.plain.push(plain);
    times.guessed.push(guessed);
  }
  const value = quartile(times.plain) / quartile(times.guessed);
  yield { key: `${title}: copy prompts`, value, text: `${value.toFixed(2)} × with prompt lookup`, goal: 1.25 };
}

/** @returns rows with a ratio each, larger is better */
export async function batch({ options, note, goals }) {
  const rows = [];
  const take = async (source) => {
    for await (const { goal, show = times, ...row } of source) {
      if (!options.wants(row.key)) continue;
      rows.push(row);
      if (goal !== undefined) goals.add(row.key, row.value, { atLeast: goal, show, text: row.text });
      else note(`${row.key}: ${row.text}`);
    }
  };
  for (const shape of options.shapes)
    for (const dtype of options.dtypes.filter((d) => !options.isQuick || d === "q4"))
      for (const threads of options.threads) {
        const isAsStored = dtype.endsWith("k") || (shape === "mini" && dtype === "q4");
        const asked = isAsStored ? undefined : dtype;
        const path = await checkpointOf(shape, dtype);
        const loadOptions = { dtype: asked, threads, variant: options.variant || undefined, prefixCacheBytes: 0 };
        const model = await load(path, loadOptions);
        const title = `${shape} ${dtype}, ${model.info.variant}, ${threads} thread${threads > 1 ? "s" : ""}`;
        const what = { title, shape, dtype, threads };
        const length = LENGTHS[shape] ?? LENGTH;
        await take(together(what, model, length, options));
        await take(ofGuesses(what, model, length, options));
        if (shape === "mini" && options.wants(`${title}: copy prompts`)) await take(copies(title, model, options));
        model.dispose();
        await take(ofDrafts(title, path, loadOptions, length, options));
        await take(ofSmaller(what, loadOptions, options));
      }
  return { rows };
}
