// Recommended sampling by name, and what generation_config.json changes about it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { FormatError } from "../../src/errors.ts";
import { recommendedSampling } from "../../src/generate/defaults.ts";

const text = { temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05 };
const instruct = { temperature: 0.1, topK: 50, repetitionPenalty: 1.05 };
const thinking = { ...instruct, topP: 0.1 };
const large = { temperature: 0.2, topK: 80, repetitionPenalty: 1.05 };
const greedy = { temperature: 0 };

const rows: readonly (readonly [object, readonly string[]])[] = [
  [text, ["LFM2-350M", "LFM2 1.2B", "LiquidAI/LFM2-2.6B", "LFM2-8B-A1B-Q4_0.gguf", "LFM2.5-1.2B-JP", "my finetune", "", "drag-racing"]],
  [instruct, ["LFM2.5-1.2B-Instruct", "LFM2.5 1.2B Instruct", "LiquidAI/LFM2.5-230M", "lfm2.5_350m"]],
  [thinking, ["LFM2.5-1.2B-Thinking"]],
  [large, ["LFM2.5-2.6B", "LFM2.5-8B-A1B"]],
  [greedy, ["LFM2-1.2B-Extract", "LFM2-1.2B-RAG", "LFM2-350M-PII-Extract-JP", "LFM2.5-350M-Extract-Q8_0", "lfm2-mini", "LFM2 Mini"]],
];

describe("recommended sampling", () => {
  for (const [expected, names] of rows) {
    for (const name of names) it(name || "(no name)", () => assert.deepEqual(recommendedSampling([name]), expected));
  }

  it("asks the next name when one says nothing", () => {
    assert.deepEqual(recommendedSampling([undefined, "model", "LFM2.5-2.6B"]), large);
    assert.deepEqual(recommendedSampling(["LFM2-350M", "LFM2.5-2.6B"]), text);
  });

  it("lets generation_config.json win, value by value", () => {
    const all = { temperature: 0.7, top_k: 12, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.2, do_sample: true, eos_token_id: 7 };
    const named = { temperature: 0.7, topK: 12, topP: 0.9, minP: 0.02, repetitionPenalty: 1.2 };
    assert.deepEqual(recommendedSampling(["LFM2-350M"], all), named);
    const tails = { typical_p: 0.9, epsilon_cutoff: 0.001, eta_cutoff: 0.002 };
    assert.deepEqual(recommendedSampling(["LFM2-350M"], tails), { ...text, typicalP: 0.9, epsilonCutoff: 0.001, etaCutoff: 0.002 });
    assert.deepEqual(recommendedSampling(["LFM2-350M"], { temperature: 0.6, min_p: null }), { ...text, temperature: 0.6 });
    assert.deepEqual(recommendedSampling(["LFM2-350M"], { do_sample: false, temperature: 0.6 }), { ...text, temperature: 0 });
    const silent: unknown = JSON.parse(readFileSync("models/lfm2-mini/generation_config.json", "utf8"));
    assert.deepEqual(recommendedSampling(["LFM2.5-350M"], silent), instruct);
  });

  it("refuses values of the wrong kind", () => {
    const values = [{ temperature: "warm" }, { top_k: 1.5 }, { top_p: 2 }, { min_p: -1 }, { repetition_penalty: 0 }, { temperature: {} }];
    for (const config of [...values, 3, [], "x"]) {
      const isRight = (error: unknown) =>
        error instanceof FormatError && error.message.startsWith("[lfm2] generation_config.json: expected ");
      assert.throws(() => recommendedSampling(["LFM2-350M"], config), isRight, JSON.stringify(config));
    }
  });
});
