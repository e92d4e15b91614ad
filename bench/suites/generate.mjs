// Whole steps: prefill and decode of a model by dtype, threads and build of the kernels, all in turns in one process. First their greedy ids are compared.
import { load } from "lfm2-wasm";
import { checkpointOf } from "../lib/checkpoints.mjs";
import { check, median } from "../lib/measure.mjs";
import { greedy, prompt, take } from "../lib/stepper.mjs";
import * as shapes from "../shapes.mjs";

const CHECKED_TOKENS = 24;
const DECODE_TOKENS = 32;
const WARM_UP_STEPS = 16;

/** Ways to run one checkpoint; those that this runtime or this version lacks are left out. */
async function openAll(source, dtype, options, note) {
  const threads = options.threads.flatMap((n) => [{ threads: n }]);
  const variants = options.variant ? [options.variant] : [undefined, "plain"];
  const ways = variants.flatMap((variant) =>
    threads.filter((t) => variant === undefined || t.threads === 1).map((t) => ({ ...t, variant })),
  );
  const kvs = options.isFull ? ["f16", "q8"] : ["f16"];
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
    for (const [i, m] of models.entries()) yield { ...m, what: `prefill ${tokens}`, tps: (1000 * tokens) / median(times[i]) };
  }
}

async function* decodes(models, vocabulary, options, limit, ceilings) {
  const contexts = options.isFull ? [...options.contexts, shapes.longContext - DECODE_TOKENS * (options.rounds + 1)] : options.contexts;
  const atZero = new Map();
  for (const context of contexts.filter((n) => n + DECODE_TOKENS * (options.rounds + 1) < limit)) {
    const open = [];
    for (const { model } of models) {
      const generator = greedy(model, prompt(Math.max(1, context), 3, vocabulary));
      await take(generator, 1 + WARM_UP_STEPS);
      open.push(generator);
    }
    const times = models.map(() => []);
    for (let round = 0; round < options.rounds; round++)
      for (const [i, { model }] of models.entries()) {
        if (context === 0) {
          await open[i].return(); // an empty context again: rounds that follow each other would grow it
          open[i] = greedy(model, prompt(1, 3, vocabulary));
          await take(open[i], 1);
        }
        times[i].push((await take(open[i], DECODE_TOKENS)).ms / DECODE_TOKENS);
      }
    for (const generator of open) await generator.return();
    for (const [i, m] of models.entries()) {
      const ms = median(times[i]);
      const { weightBytes, kvBytesPerToken } = m.model.info;
      const bytes = weightBytes + context * kvBytesPerToken;
      const gbps = bytes / ms / 1e6;
      const row = { ...m, what: `decode at ${context}`, tps: 1000 / ms, gbps };
      if (m.threads === 1) row.ofRead = gbps / ceilings.read(bytes);
      if (context === 0) atZero.set(m.name, ms);
      else if (atZero.has(m.name)) row.againstZero = ms / atZero.get(m.name);
      yield row;
    }
  }
}

/** @returns rows with tokens/s */
export async function generate({ ceilings, options, note }) {
  const rows = [];
  for (const shape of options.shapes)
    for (const dtype of options.dtypes) {
      const title = `${shape} ${dtype}`;
      if (!options.wants(title)) continue;
      const models = await openAll(await checkpointOf(shape, dtype), shape === "mini" && dtype === "q4" ? undefined : dtype, options, note);
      try {
        const { model } = models[0];
        const { vocabSize } = model.config;
        await compare(models, vocabSize, title);
        note(`${title}: ${models.map((m) => m.name).join("; ")}: the same ${CHECKED_TOKENS} greedy ids`);
        for (const part of [
          prefills(models, vocabSize, options, model.info.maxContextTokens),
          decodes(models, vocabSize, options, model.info.maxContextTokens, ceilings),
        ])
          for await (const { name, what, threads, variant, kvDtype, tps, gbps, ofRead, againstZero } of part) {
            const row = {
              key: `${title}, ${name}: ${what}`,
              shape,
              dtype,
              name,
              what,
              threads,
              variant,
              kvDtype,
              tps,
              gbps,
              ofRead,
              againstZero,
              value: tps,
            };
            rows.push(row);
            const share = ofRead ? `, ${gbps.toFixed(1)} GB/s, ${Math.round(100 * ofRead)} % of read bandwidth` : "";
            note(`${row.key}: ${tps.toFixed(1)} tokens/s${share}${againstZero ? `, ${againstZero.toFixed(2)} × the time at 0` : ""}`);
          }
      } finally {
        for (const { model } of models) model.dispose();
      }
    }
  return { rows };
}
