// The examples of the reference's page on LFM2, line by line, on the bundled model. Knows no runtime.
import assert from "node:assert/strict";
import type { ModelSource } from "lfm2-wasm";
import { AutoTokenizer, Lfm2Config, Lfm2ForCausalLM, Lfm2Model } from "lfm2-wasm/transformers";

/** A new model with less of everything. */
export const SMALL = {
  vocabSize: 512,
  hiddenSize: 64,
  intermediateSize: 128,
  numHiddenLayers: 3,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
} as const;

/** Adds the suite for one place of the checkpoint's folder. */
export function pageExamples(source: ModelSource): void {
  describe("the examples of the reference's page", () => {
    it("bfloat16, chat template, sampled reply, decode", async () => {
      using model = await Lfm2ForCausalLM.fromPretrained(source, { dtype: "bfloat16", threads: 1 });
      const tokenizer = await AutoTokenizer.fromPretrained(source);
      assert.deepEqual((await model.ready()).info.dtypes, ["bf16"]);

      const prompt = "What is 3 + 4?";
      const inputIds = tokenizer.applyChatTemplate([{ role: "user", content: prompt }], { addGenerationPrompt: true, tokenize: true });
      const call = { inputIds, doSample: true, temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05, maxNewTokens: 512, seed: 1 };
      const output = await model.generate(call);

      const text = tokenizer.decode(output[0] ?? [], { skipSpecialTokens: false });
      assert.match(text, /^<\|startoftext\|>.*What is 3 \+ 4\?.*3 \+ 4 = 7<\|im_end\|>$/s);
      assert.deepEqual(output[0]?.slice(0, inputIds.length), inputIds);
      assert.deepEqual(await model.generate(call), output, "the seed gives it again");
    });

    it("configuration, model, configuration of the model", async () => {
      const initial = new Lfm2Config();
      using large = new Lfm2Model(initial); // 3 billion weights, which are drawn when they are needed
      assert.equal(large.config, initial);
      // the same with less of each, to compute with
      const configuration = new Lfm2Config(SMALL);
      using model = new Lfm2Model(configuration, { threads: 1 });
      assert.equal(model.config, configuration);
      const { lastHiddenState, pastKeyValues } = await model.forward({ inputIds: [1, 2, 3] });
      assert.deepEqual(lastHiddenState.dims, [1, 3, 64]);
      assert.deepEqual(pastKeyValues?.lengths, [3]);
      // the final norm is all ones: each row has the mean square 1
      const first = lastHiddenState.data.subarray(0, 64);
      assert.ok(Math.abs(first.reduce((sum, x) => sum + x * x, 0) / 64 - 1) < 0.02);
    });

    it("causal language model: tokenizer(prompt), generate with maxLength, batchDecode", async () => {
      using model = await Lfm2ForCausalLM.fromPretrained(source, { threads: 1 });
      const tokenizer = await AutoTokenizer.fromPretrained(source);

      const prompt = "Hey, are you conscious? Can you talk to me?";
      const inputs = tokenizer(prompt);
      const generateIds = await model.generate({ inputIds: inputs.inputIds, maxLength: 50 });
      const [text = ""] = tokenizer.batchDecode(generateIds, { skipSpecialTokens: true });

      assert.ok(text.startsWith(prompt), text);
      const [ids = []] = inputs.inputIds;
      assert.deepEqual(generateIds[0]?.slice(0, ids.length), ids);
      const length = generateIds[0]?.length ?? 0;
      assert.ok(length === 50 || (length > ids.length && generateIds[0]?.at(-1) === tokenizer.eosTokenId), `${length} columns`);
    });
  });
}
