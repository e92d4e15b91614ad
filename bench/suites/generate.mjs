// Whole steps: prefill and decode of a model by dtype, threads and build of the kernels, all in turns in one process. First each way is held to the reference's numbers on a golden model, and their
// greedy ids to each other. Goals are asserted.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { load } from "lfm2-wasm";
import { checkpointOf } from "../lib/checkpoints.mjs";
import { percent, times } from "../lib/goals.mjs";
import { check, median } from "../lib/measure.mjs";
import { againstReference } from "../lib/reference.mjs";
import { readTogether } from "../lib/shared-read.mjs";
import { greedy, prompt, take } from "../lib/stepper.mjs";
import { macsPerToken, tileOf } from "../lib/tile.mjs";
import * as shapes from "../shapes.mjs";

const CHECKED_TOKENS = 24;
const DECODE_TOKENS = 32;
const WARM_UP_STEPS = 16;
const LONG_STEPS = 8;

/**
 * Goals of issue 4: of the bandwidth that as many threads read with, of the int4 tile's rate, of one thread's speed, of the time at an empty context, of the prototypes' plain build; of
 * issue 5: of q4's rate a byte, for Q4_K and Q6_K.
 */
const GOALS = {
  read: 0.8,
  tile: 0.75,
  twoThreads: { prefill: 1.85, decode: 1.7 },
  longContext: { f16: 5, q8: 3.5 },
  plain: 1.1,
  superBlocks: 0.85,
  chunks: 0.95,
};
/** Rows of a prefill step where nothing is said (src/models/load-model.ts): no other size may be faster by more than a twentieth. */
const CHUNK_TOKENS = 128;

/** Ways to run one checkpoint; those that this runtime or this version lacks are left out. */
async function openAll(source, dtype, options, note) {
  const threads = options.threads.flatMap((n) => [{ threads: n }]);
  const variants = options.variant ? [options.variant] : [undefined, "plain"];
  const ways = variants.flatMap((variant, i) => threads.filter((t) => i === 0 || t.threads === 1).map((t) => ({ ...t, variant })));
  const kvs = options.isQuick ? ["f16"] : ["f16", "q8"];
  const models = [];
  for (const kvDtype of kvs)
    for (const way of kvDtype === "f16" ? ways : ways.slice(0, 1)) {
      try {
        const model = await load(source, { dtype, kvDtype, ...way, prefixCacheBytes: 0 });
        const { variant, threads: count } = model.info;
        const name = `${variant}, ${count} thread${count > 1 ? "s" : ""}${kvDtype === "f16" ? "" : `, ${kvDtype} cache`}`;
        if (models.some((m) => m.name === name)) model.dispose();
        else models.push({ name, model, kvDtype, threads: count, variant });
      } catch (error) {
        note(`left out: ${dtype}, ${JSON.stringify({ ...way, kvDtype })}: ${error.message}`);
      }
    }
  return models;
}

const agreement = (a, b) => a.findIndex((id, i) => id !== b[i]);

/** The same cache type means the same bits, whatever the threads, the build and the chunks. */
async function compare(models, vocabulary, title) {
  const ids = prompt(45, 1, vocabulary);
  for (const kvDtype of new Set(models.map((m) => m.kvDtype))) {
    const [first, ...others] = models.filter((m) => m.kvDtype === kvDtype);
    const expected = (await take(greedy(first.model, ids), CHECKED_TOKENS)).ids;
    check(
      expected.every((id) => id >= 0 && id < vocabulary),
      `${title}: ids of ${first.name}`,
    );
    for (const { name, model } of others) {
      const got = (await take(greedy(model, ids), CHECKED_TOKENS)).ids;
      check(agreement(expected, got) < 0, `${title}: ${name} gives other ids than ${first.name} from token ${agreement(expected, got)} on`);
    }
  }
}

async function* prefills(models, vocabulary, options, limit) {
  for (const tokens of options.prefills.filter((n) => n < limit)) {
    const times = models.map(() => []);
    for (let round = 0; round < options.rounds; round++)
      for (const [i, { model }] of models.entries()) {
        const generator = greedy(model, prompt(tokens, round, vocabulary));
        times[i].push((await take(generator, 1)).ms);
        await generator.return();
      }
    for (const [i, m] of models.entries())
      yield { ...m, what: `prefill ${tokens}`, prefill: tokens, tps: (1000 * tokens) / median(times[i]) };
  }
}

/** A row of a model's steps behind a context; ms a step. */
async function stepRow(m, context, ms, ceilings) {
  const { weightBytes, kvBytesPerToken } = m.model.info;
  const bytes = weightBytes + context * kvBytesPerToken;
  const gbps = bytes / ms / 1e6;
  const roof = m.threads === 1 ? ceilings.read(bytes) : await readTogether(bytes, m.threads);
  const ofSequential = m.threads === 1 ? gbps / ceilings.sequential(bytes) : undefined;
  return { ...m, what: `decode at ${context}`, context, tps: 1000 / ms, gbps, ofRead: gbps / roof, ofSequential };
}

async function* decodes(models, vocabulary, options, limit, ceilings) {
  for (const context of options.contexts.filter((n) => n + DECODE_TOKENS * (options.rounds + 1) < limit)) {
    const open = [];
    for (const { model } of models) {
      const generator = greedy(model, prompt(Math.max(1, context), 3, vocabulary));
      await take(generator, 1 + WARM_UP_STEPS);
      open.push(generator);
    }
    const each = models.map(() => []);
    for (let round = 0; round < options.rounds; round++)
      for (const [i, { model }] of models.entries()) {
        if (context === 0) {
          await open[i].return(); // an empty context again: rounds that follow each other would grow it
          open[i] = greedy(model, prompt(1, 3, vocabulary));
          await take(open[i], 1);
        }
        each[i].push((await take(open[i], DECODE_TOKENS)).ms / DECODE_TOKENS);
      }
    for (const generator of open) await generator.return();
    for (const [i, m] of models.entries()) yield await stepRow(m, context, median(each[i]), ceilings);
  }
}

/** Steps behind a long context in turns with steps at an empty one, one thread, by type of keys and values. Contexts are filled, not computed (lib/long-context.mjs). */
async function* longDecodes(models, vocabulary, options, ceilings) {
  const { longContext: context, longBeginning } = shapes;
  const [first] = models;
  const list = models.filter(
    (m) => m.threads === 1 && m.variant === first.variant && m.model.info.maxContextTokens > context + LONG_STEPS * (options.rounds + 2),
  );
  if (options.isQuick || !list.length) return;
  const { greedyBehind } = await import("../lib/long-context.mjs");
  for (const m of list) {
    const behind = ({ model }) => greedyBehind(model, prompt(longBeginning, 3, vocabulary), context);
    const long = behind(m);
    const expected = (await take(long, 1 + LONG_STEPS)).ids;
    const other = models.find((o) => o !== m && o.kvDtype === m.kvDtype);
    if (other) {
      const again = behind(other);
      const { ids } = await take(again, 1 + LONG_STEPS);
      await again.return();
      check(
        String(ids) === String(expected),
        `${other.name} gives other ids than ${m.name} behind ${context} tokens: ${ids}, expected ${expected}`,
      );
    }
    const each = [];
    for (let round = 0; round < options.rounds; round++) {
      const short = greedy(m.model, prompt(1, 3, vocabulary));
      await take(short, 1);
      const atZero = (await take(short, LONG_STEPS)).ms;
      await short.return();
      const { ms, ids } = await take(long, LONG_STEPS);
      check(
        ids.every((id) => id >= 0 && id < vocabulary),
        `${m.name}: ids behind ${context} tokens`,
      );
      each.push({ ms: ms / LONG_STEPS, ratio: ms / atZero });
    }
    await long.return();
    const row = await stepRow(m, context, median(each.map((e) => e.ms)), ceilings);
    yield { ...row, againstZero: median(each.map((e) => e.ratio)) };
  }
}

/** What the rows of one shape and dtype say of the goals. */
function addGoals(goals, rows, { shape, dtype, title }, variant) {
  const own = rows.filter((r) => r.shape === shape && r.dtype === dtype && r.variant === variant);
  const f16 = own.filter((r) => r.kvDtype === "f16");
  const tile = dtype === "q4" && shape !== "mini" ? tileOf("q4", variant) : undefined;
  if (shape !== "mini")
    for (const row of f16.filter((r) => r.context === 0))
      goals.add(`${row.key}, of the read bandwidth`, row.ofRead, { atLeast: GOALS.read, show: percent });
  if (shape === "350m" && dtype === "q4") addPlainGoals(goals, rows);
  for (const row of f16.filter((r) => r.threads === 1)) {
    if (tile && row.prefill)
      goals.add(`${row.key}, of the tile's ${tile.toFixed(1)} GMAC/s`, (row.tps * macsPerToken(shape)) / 1e9 / tile, {
        atLeast: GOALS.tile,
        show: percent,
      });
    const two = shape !== "mini" && f16.find((r) => r.threads === 2 && r.what === row.what);
    if (two)
      goals.add(`${title}: ${row.what}, two threads`, two.tps / row.tps, {
        atLeast: GOALS.twoThreads[row.prefill ? "prefill" : "decode"],
        show: times,
      });
  }
  for (const row of own.filter((r) => shape === "350m" && r.againstZero))
    goals.add(`${row.key}, time at 0`, row.againstZero, { atMost: GOALS.longContext[row.kvDtype], show: times });
}

/** The plain build against the prototypes' own, where this engine's or an older one's rate is known. */
function addPlainGoals(goals, rows) {
  const major = Number(process.versions.node.split(".")[0]);
  const known = shapes.plainPrototype.filter(({ node }) => node <= major).at(-1);
  for (const row of rows.filter((r) => r.shape === "350m" && r.dtype === "q4" && r.variant === "plain" && r.kvDtype === "f16")) {
    const tps = known?.tps[row.threads]?.[row.what];
    if (tps)
      goals.add(`${row.key}, of the prototypes' ${tps} tokens/s in Node ${known.node}`, row.tps / tps, {
        atLeast: GOALS.plain,
        show: times,
      });
  }
}

/** One process that runs a model's steps. @returns what `lfm2 bench --json` prints */
async function alone(model, variant) {
  const steps = ["--prefill", WARM_UP_STEPS, "--decode", 2 * DECODE_TOKENS, "--rounds", 3].map(String);
  const args = ["dist/cli.js", "bench", "--model", model, "--threads", "1", "--variant", variant, ...steps, "--json"];
  return JSON.parse((await promisify(execFile)(process.execPath, args)).stdout);
}

/**
 * Decode of Q4_K and Q6_K against q4, one thread, by build of the kernels: bytes a second. Each model has a process of its own, in turns: where one's memory lies
 * decides how fast it is read, and of several in a process the last one's lies worst.
 */
async function* superBlocks(shape, options, note, goals) {
  const dtypes = ["q4", "q4k", "q6k"];
  const paths = new Map();
  const cells = new Map();
  for (const dtype of dtypes) {
    const path = await checkpointOf(shape, dtype);
    const models = await openAll(path, undefined, { ...options, threads: [1], isQuick: true }, note);
    try {
      await compare(models, models[0].model.config.vocabSize, `${shape} ${dtype}`);
    } finally {
      for (const { model, variant } of models) {
        cells.set(`${variant} ${dtype}`, { variant, dtype, tps: [], gbps: [] });
        model.dispose();
      }
    }
    paths.set(dtype, path);
  }
  for (let round = 0; round < options.rounds; round++)
    for (const { variant, dtype, tps, gbps } of cells.values()) {
      const result = await alone(paths.get(dtype), variant);
      tps.push(result.decode_tps);
      gbps.push(result.decode_gbps);
    }
  for (const { variant, dtype, tps, gbps } of cells.values()) {
    const name = `${variant}, 1 thread`;
    yield { title: `${shape} ${dtype}, alone`, dtype, variant, name, what: "decode at 0", tps: median(tps), gbps: median(gbps) };
    const q4 = cells.get(`${variant} q4`);
    if (dtype !== "q4")
      goals.add(`${shape} ${dtype}, ${name}: decode at 0, bytes a second of q4's`, median(gbps.map((rate, i) => rate / q4.gbps[i])), {
        atLeast: GOALS.superBlocks,
        show: times,
      });
  }
}

/** Prompts by the rows of a step, one thread, all sizes in turns; how long the slowest step takes is how late an abort may come. The logits are the same bits. */
async function* chunks(shape, options, goals) {
  const chunking = await import("../lib/chunks.mjs");
  const sizes = shapes.chunkTokens;
  const model = await chunking.open(await checkpointOf(shape, "q4"), Math.max(...sizes));
  try {
    for (const tokens of options.prefills.filter((n) => n >= Math.max(...sizes))) {
      const each = sizes.map(() => []);
      for (let round = -1; round < options.rounds; round++) {
        const ids = prompt(tokens, round + 1);
        const results = sizes.map((size) => chunking.prefill(model, ids, size));
        results.forEach(({ logits }, i) => {
          const other = logits.findIndex((v, at) => v !== results[0].logits[at]);
          check(other < 0, `${shape} q4, prompt of ${tokens}: logit ${other} differs between chunks of ${sizes[0]} and ${sizes[i]}`);
        });
        if (round >= 0) for (const [i, result] of results.entries()) each[i].push(result);
      }
      const tps = each.map((list) => (1000 * tokens) / median(list.map(({ ms }) => ms)));
      for (const [i, size] of sizes.entries()) {
        const own = { title: `${shape} q4`, dtype: "q4", slowestMs: median(each[i].map((result) => result.slowestMs)) };
        yield { ...own, name: `chunks of ${size}`, what: `prefill ${tokens}`, tps: tps[i] };
      }
      const share = tps[sizes.indexOf(CHUNK_TOKENS)] / Math.max(...tps);
      goals.add(`${shape} q4, prefill ${tokens}: chunks of ${CHUNK_TOKENS}, of the best size`, share, {
        atLeast: GOALS.chunks,
        show: percent,
      });
    }
  } finally {
    model.dispose();
  }
}

/** @returns rows with tokens/s */
export async function generate({ ceilings, options, note, goals }) {
  const rows = [];
  const reference = [];
  const add = async (part, shape, dtype, title) => {
    for await (const { model: _, ...measured } of part) {
      const { name, what, tps, gbps, ofRead, ofSequential, againstZero, slowestMs } = measured;
      const row = { key: `${measured.title ?? title}, ${name}: ${what}`, shape, dtype, ...measured, value: tps };
      rows.push(row);
      const inOrder = ofSequential ? ` (${percent(ofSequential)} of reading from first to last)` : "";
      const share = ofRead ? `, ${gbps.toFixed(1)} GB/s, ${percent(ofRead)} of read bandwidth${inOrder}` : "";
      const slowest = slowestMs ? `, the slowest step ${slowestMs.toFixed(0)} ms` : "";
      note(`${row.key}: ${tps.toFixed(1)} tokens/s${share}${slowest}${againstZero ? `, ${againstZero.toFixed(2)} × the time at 0` : ""}`);
    }
  };
  for (const shape of options.shapes) {
    for (const dtype of options.dtypes) {
      const title = `${shape} ${dtype}`;
      if (!options.wants(title)) continue;
      const models = await openAll(await checkpointOf(shape, dtype), shape === "mini" && dtype === "q4" ? undefined : dtype, options, note);
      try {
        const { model } = models[0];
        const { vocabSize } = model.config;
        const held = await againstReference(dtype, models);
        reference.push(...held.map((way) => ({ dtype, ...way })));
        note(
          `${dtype}, the reference's logits on a golden model: ${held.map(({ name, far }) => `${name}: within ${far.toPrecision(2)}`).join("; ")}`,
        );
        await compare(models, vocabSize, title);
        note(`${title}: ${models.map((m) => m.name).join("; ")}: the same ${CHECKED_TOKENS} greedy ids`);
        const limit = model.info.maxContextTokens;
        await add(prefills(models, vocabSize, options, limit), shape, dtype, title);
        await add(decodes(models, vocabSize, options, limit, ceilings), shape, dtype, title);
        await add(longDecodes(models, vocabSize, options, ceilings), shape, dtype, title);
        addGoals(goals, rows, { shape, dtype, title }, models[0].variant);
      } finally {
        for (const { model } of models) model.dispose();
      }
    }
    if (shape === "mini") continue;
    // cells of their own, also with --quick where --only names them
    const asked = (title) => options.wants(title) && (!options.isQuick || options.only);
    if (asked(`${shape} q4k and q6k`)) await add(superBlocks(shape, options, note, goals), shape);
    if (asked(`${shape} chunks`)) await add(chunks(shape, options, goals), shape);
  }
  return { rows, reference };
}
