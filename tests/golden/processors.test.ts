// Every rule and cut against the reference's own logits processors: the same ids kept, the same probabilities, in both builds of the kernels.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { History } from "../../src/generate/history.ts";
import { checkProcessors, type ProcessorOptions, rulesOf } from "../../src/generate/processors.ts";
import { checkSampling, cut, process, type SamplingOptions, sample } from "../../src/generate/sampler.ts";
import { instances, logitsOf } from "../tools/sampling-kernels.ts";

interface Case {
  readonly name: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly context: readonly number[];
  readonly logits: readonly (number | string | null)[];
  readonly applied: readonly string[];
  readonly kept: readonly number[];
  readonly scores: readonly (number | string | null)[];
  readonly probs: readonly number[];
  readonly argmax: number;
}

const SAMPLING: Readonly<Record<string, keyof SamplingOptions>> = {
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  typical_p: "typicalP",
  epsilon_cutoff: "epsilonCutoff",
  eta_cutoff: "etaCutoff",
  top_n_sigma: "topNSigma",
  repetition_penalty: "repetitionPenalty",
};
const RULES: Readonly<Record<string, keyof ProcessorOptions>> = {
  sequence_bias: "sequenceBias",
  presence_penalty: "presencePenalty",
  frequency_penalty: "frequencyPenalty",
  no_repeat_ngram_size: "noRepeatNgramSize",
  bad_words_ids: "badWordsIds",
  min_length: "minLength",
  min_new_tokens: "minTokens",
  forced_bos_token_id: "forcedBosTokenId",
  forced_eos_token_id: "forcedEosTokenId",
  remove_invalid_values: "removeInvalidValues",
  exponential_decay_length_penalty: "exponentialDecayLengthPenalty",
  suppress_tokens: "suppressTokens",
  begin_suppress_tokens: "beginSuppressTokens",
};
/** Say where the rules apply; or change nothing that can be drawn. */
const SETTING = ["input_length", "max_length", "eos_token_id", "do_sample", "renormalize_logits"];
/** Of beam sampling, whose cuts leave more than one token. */
const BEAM_SAMPLING = ["min_tokens_to_keep", "num_beams"];

const { cases } = JSON.parse(readFileSync("tests/golden/data/processors/cases.json", "utf8")) as { readonly cases: readonly Case[] };
const number = (value: number | string | null): number => {
  if (typeof value === "number") return value;
  return value === "nan" || value === "NaN"
    ? Number.NaN
    : value === "inf" || value === "Infinity"
      ? Number.POSITIVE_INFINITY
      : Number.NEGATIVE_INFINITY;
};
const list = (value: unknown): number[] => (value === undefined ? [] : Array.isArray(value) ? value : [value as number]);

function optionsOf<T extends object>(params: Case["params"], names: Readonly<Record<string, keyof T>>): T {
  const entries = Object.entries(params).flatMap(([key, value]) => (names[key] ? [[names[key], value]] : []));
  return Object.fromEntries(entries) as T;
}

describe("processor goldens", () => {
  it("has cases, every parameter of which is known", () => {
    assert.equal(cases.length, 69);
    const known = [...Object.keys(SAMPLING), ...Object.keys(RULES), ...SETTING, ...BEAM_SAMPLING];
    for (const { name, params } of cases) for (const key of Object.keys(params)) assert.ok(known.includes(key), `${name}: ${key}`);
  });

  for (const { name, params, context, logits, kept, scores, probs, argmax, applied } of cases) {
    it(name, async () => {
      const sampling = optionsOf<SamplingOptions>(params, SAMPLING);
      const processing = checkProcessors(optionsOf<ProcessorOptions>(params, RULES));
      checkSampling(sampling);
      const isSampled = params.do_sample !== false;
      for (const instance of await instances(3)) {
        const history = new History(context, params.input_length as number | undefined);
        const setting = {
          endIds: list(params.eos_token_id),
          maxLength: (params.max_length as number | undefined) ?? Number.MAX_SAFE_INTEGER,
        };
        const row = () => logitsOf(instance, logits.map(number));
        const rules = rulesOf(processing, history, setting);
        assert.equal(
          rules !== undefined,
          applied.some((rule) => rule in RULES || rule === "frequency_presence_penalty"),
          applied.join(),
        );
        if (isSampled) {
          const least = (params.min_tokens_to_keep as number | undefined) ?? 1;
          const given = row();
          process(given, sampling, history, rules);
          const { ids, weights } = cut(given, sampling, least);
          const total = weights.reduce((a, b) => a + b, 0);
          assert.deepEqual(
            [...ids].sort((a, b) => a - b),
            kept,
            instance.variant,
          );
          for (const [i, id] of kept.entries()) {
            const probability = weights[ids.indexOf(id)]! / total;
            assert.ok(Math.abs(probability - probs[i]!) < 1e-5, `${instance.variant}: ${id} has ${probability}, expected ${probs[i]}`);
          }
        }
        if (!isSampled) {
          const given = row();
          process(given, sampling, history, rules);
          for (const [id, score] of scores.map(number).entries())
            assert.ok(
              given.view()[id] === score || Math.abs(given.view()[id]! - score) <= 1e-6 * Math.max(1, Math.min(Math.abs(score), 3.5e38)),
              `${id}: ${given.view()[id]}, not ${score}`,
            );
        }
        if (!applied.includes("typical_p"))
          // which may drop the likeliest
          assert.equal(sample(row(), { ...sampling, temperature: 0 }, history, 0, rules), argmax, instance.variant);
      }
    });
  }

  it("invalid values become numbers by the reference's formula: NaN 0, infinities the largest and the lowest of f32", async () => {
    const context = [1, 2];
    const rules = rulesOf({ removeInvalidValues: true }, new History(context, 2), { endIds: [], maxLength: Number.MAX_SAFE_INTEGER });
    const largest = (2 - 2 ** -23) * 2 ** 127;
    for (const instance of await instances(3)) {
      const row = () => logitsOf(instance, [1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -2]);
      const given = row();
      process(given, {}, context, rules);
      assert.deepEqual([...given.view()].slice(0, 5), [1, 0, largest, -largest, -2]);
      assert.throws(() => process(row(), {}, context), { name: "FormatError", message: /NaN or Infinity/ });
    }
  });
});
