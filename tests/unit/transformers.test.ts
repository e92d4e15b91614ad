// lfm2-wasm/transformers: the three examples of the reference's page, and each call against the package's own.
import assert from "node:assert/strict";
import { FormatError, InputError, load, type Model, UnsupportedError } from "lfm2-wasm";
import { AutoTokenizer, Lfm2Config, Lfm2ForCausalLM, Lfm2Model, type Lfm2Tokenizer } from "lfm2-wasm/transformers";

const MINI = "models/lfm2-mini";
const SMALL = {
  vocabSize: 512,
  hiddenSize: 64,
  intermediateSize: 128,
  numHiddenLayers: 3,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
} as const;
const options = { threads: 1 } as const;

describe("lfm2-wasm/transformers", () => {
  let own: Model;
  let model: Lfm2ForCausalLM;
  let tokenizer: Lfm2Tokenizer;
  before(async () => {
    own = await load(MINI, { ...options, dtype: "bf16" });
    model = await Lfm2ForCausalLM.fromPretrained(MINI, { ...options, dtype: "bfloat16" });
    tokenizer = await AutoTokenizer.fromPretrained(MINI);
  });
  after(() => {
    own.dispose();
    model.dispose();
  });

  const ask = (content: string): number[] => tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true });

  describe("the examples of the reference's page", () => {
    it("bfloat16, chat template, sampled reply, decode", async () => {
      assert.deepEqual((await model.ready()).info.dtypes, ["bf16"]);
      const inputIds = ask("What is 3 + 4?");
      const call = { inputIds, doSample: true, temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05, maxNewTokens: 512, seed: 1 };
      const [output = []] = await model.generate(call);
      assert.deepEqual(output.slice(0, inputIds.length), inputIds);
      assert.match(
        tokenizer.decode(output, { skipSpecialTokens: false }),
        /^<\|startoftext\|>.*What is 3 \+ 4\?.*3 \+ 4 = 7<\|im_end\|>$/s,
      );
      assert.match(tokenizer.decode(output, { skipSpecialTokens: true }), /3 \+ 4 = 7$/);
      assert.deepEqual(await model.generate(call), [output], "the seed gives it again");
    });

    it("configuration → model", async () => {
      const configuration = new Lfm2Config(SMALL);
      using bare = new Lfm2Model(configuration, options);
      assert.equal(bare.config, configuration);
      const { lastHiddenState, pastKeyValues } = await bare.forward({ inputIds: [1, 2, 3] });
      assert.deepEqual(lastHiddenState.dims, [1, 3, 64]);
      assert.deepEqual(pastKeyValues?.lengths, [3]);
      // the final norm is all ones: each row has the mean square 1
      const first = lastHiddenState.data.subarray(0, 64);
      assert.ok(Math.abs(first.reduce((sum, x) => sum + x * x, 0) / 64 - 1) < 0.02);
    });

    it("causal LM with maxLength", async () => {
      const inputIds = tokenizer.encode("What is 3 + 4?");
      const maxLength = inputIds.length + 5;
      const [output = []] = await model.generate({ inputIds: [inputIds], maxLength, eosTokenId: [] });
      assert.equal(output.length, maxLength);
      assert.deepEqual(output.slice(0, inputIds.length), inputIds);
      const [text] = tokenizer.batchDecode([output], { skipSpecialTokens: true });
      assert.ok(text?.startsWith("What is 3 + 4?"));
    });
  });

  describe("Lfm2Config", () => {
    it("has the documented defaults", () => {
      const { checked: _, ...values } = new Lfm2Config() as Lfm2Config & { checked: unknown };
      assert.deepEqual(
        { ...values },
        {
          modelType: "lfm2",
          vocabSize: 65536,
          hiddenSize: 2560,
          intermediateSize: 12288,
          numHiddenLayers: 32,
          numAttentionHeads: 32,
          numKeyValueHeads: 8,
          headDim: 80,
          maxPositionEmbeddings: 128000,
          initializerRange: 0.02,
          normEps: 1e-5,
          useCache: true,
          padTokenId: 0,
          bosTokenId: 1,
          eosTokenId: 2,
          tieWordEmbeddings: true,
          ropeParameters: { ropeTheta: 1e6, ropeType: "default" },
          convBias: false,
          convLCache: 3,
          blockMultipleOf: 256,
          blockFfnDimMultiplier: 1,
          blockAutoAdjustFfDim: true,
          layerTypes: new Array(32).fill("full_attention"),
        },
      );
    });

    it("reads a checkpoint's, and refuses what config.json would be refused for", async () => {
      const config = await Lfm2Config.fromPretrained(MINI);
      assert.deepEqual([config.hiddenSize, config.intermediateSize, config.eosTokenId], [256, own.config.intermediateSize, 7]);
      assert.deepEqual(config.layerTypes, own.config.layerTypes);
      assert.deepEqual(model.config.toJSON(), config.toJSON());
      assert.throws(() => new Lfm2Config({ numKeyValueHeads: 5 }), FormatError);
      assert.throws(() => new Lfm2Config({ layerTypes: ["conv"] }), FormatError);
      assert.throws(() => new Lfm2Config({ hidden_size: 64 } as object), InputError);
      assert.throws(() => new Lfm2Config({ initializerRange: -1 }), InputError);
    });
  });

  describe("generate", () => {
    it("greedy is the package's own, row by row, with padding on either side", async () => {
      const [a, b] = [ask("What is 3 + 4?"), ask("Tell me a story about a fox.")];
      const T = Math.max(a.length, b.length) + 1;
      const padding = (row: readonly number[]): number[] => new Array(T - row.length).fill(0);
      const wanted = await Promise.all(
        [a, b].map(async (ids) => [...(await own.generate(Uint32Array.from(ids), { temperature: 0, maxTokens: 24 })).tokens]),
      );
      const inputIds = [
        [...padding(a), ...a],
        [...b, ...padding(b)],
      ];
      const attentionMask = [
        [...padding(a), ...a.map(() => 1)],
        [...b.map(() => 1), ...padding(b)],
      ];
      const rows = await model.generate({ inputIds, attentionMask, maxNewTokens: 24 });
      const longest = Math.max(...wanted.map((w) => w.length));
      assert.deepEqual(
        rows,
        wanted.map((w, i) => [...inputIds[i]!, ...w, ...new Array(longest - w.length).fill(0)]),
      );
    });

    it("20 new tokens by default, beams, several samples, least length before another end", async () => {
      const inputIds = ask("Tell me a story about a fox.");
      const reply = async (more: object): Promise<number[][]> =>
        (await model.generate({ inputIds, ...more })).map((row) => row.slice(inputIds.length));
      const [plain = []] = await reply({});
      assert.equal(plain.length, 20);
      const beams = await reply({ numBeams: 3, numReturnSequences: 2, maxNewTokens: 6 });
      const searched = await own.generate(Uint32Array.from(inputIds), {
        numBeams: 3,
        numReturnSequences: 2,
        maxTokens: 6,
        repetitionPenalty: 1,
      });
      assert.deepEqual(
        beams,
        searched.sequences?.map((s) => [...s.tokens]),
      );
      const samples = await reply({ doSample: true, temperature: 2, numReturnSequences: 2, maxNewTokens: 6, seed: 4 });
      assert.deepEqual([samples[1]], await reply({ doSample: true, temperature: 2, maxNewTokens: 6, seed: 5 }));
      const [end = 0] = plain;
      assert.deepEqual(await reply({ eosTokenId: end }), [[end]]);
      const [later = []] = await reply({ eosTokenId: end, minNewTokens: 3, maxNewTokens: 8 });
      assert.ok(later.length >= 4 && !later.slice(0, 3).includes(end), String(later));
      const [longer = []] = await reply({ eosTokenId: end, minLength: inputIds.length + 3, maxNewTokens: 8 });
      assert.deepEqual(longer, later);
    });

    it("refuses what the reference refuses", async () => {
      const inputIds = [1, 2, 3];
      const fails = (more: object, kind: new (message: string) => Error) =>
        assert.rejects(model.generate({ inputIds, ...more }), (error) => error instanceof kind);
      await fails({ maxLength: 3 }, InputError);
      await fails({ numReturnSequences: 2 }, InputError);
      await fails({ doSample: true, temperature: 0 }, InputError);
      await fails({ doSample: true, numBeams: 2 }, UnsupportedError);
      await fails({ attentionMask: [1, 1] }, InputError);
      await fails({ minLength: -1 }, InputError);
      await fails({ minLength: "many" }, InputError);
      await fails({ eosTokenId: -1 }, InputError);
      await fails({ inputIds: [[1], [1, 2]] }, InputError);
      await fails({ inputIds: [] }, InputError);
      await fails({ inputIds: [99999] }, InputError);
    });
  });

  it("forward is the package's own, with a cache by default", async () => {
    const inputIds = [1, 20, 30, 40];
    const labels = inputIds;
    const [got, want] = [await model.forward({ inputIds, labels }), await own.forward({ inputIds, labels })];
    assert.deepEqual(got.logits, want.logits);
    assert.equal(got.loss, want.loss);
    assert.deepEqual(got.pastKeyValues?.lengths, [4]);
    assert.equal((await model.forward({ inputIds, useCache: false })).pastKeyValues, undefined);
    using bare = await Lfm2Model.fromPretrained(MINI, { ...options, dtype: "bfloat16" });
    const { lastHiddenState, hiddenStates } = await bare.forward({ inputIds });
    assert.equal(hiddenStates, undefined);
    assert.deepEqual(lastHiddenState, (await own.forward({ inputIds, outputHiddenStates: true })).hiddenStates?.at(-1));
  });

  it("the tokenizer renders and decodes as the model does", () => {
    const messages = [{ role: "user", content: "<|im_end|> Hello" }] as const;
    const text = tokenizer.applyChatTemplate(messages, { tokenize: false, addGenerationPrompt: true });
    assert.match(text, /^<\|startoftext\|><\|im_start\|>user\n.*<\|im_start\|>assistant\n$/s);
    const ids = tokenizer.applyChatTemplate(messages);
    assert.equal(ids.filter((id) => id === 7).length, 1, "a user's text is no control token");
    assert.deepEqual(tokenizer.encode("<|im_end|>"), [1, 7]);
    assert.ok(!tokenizer.encode("<|im_end|>", { splitSpecialTokens: true, addSpecialTokens: false }).includes(7));
    assert.equal(tokenizer.decode([1, 7], { skipSpecialTokens: true }), "");
  });

  describe("a new model", () => {
    const logitsOf = async (more: object, seed: number): Promise<Float32Array> => {
      using fresh = new Lfm2ForCausalLM(new Lfm2Config({ ...SMALL, ...more }), { ...options, seed });
      return (await fresh.forward({ inputIds: [1, 2, 3], useCache: false })).logits.data;
    };

    it("is what its seed says, with every kind of layer, tied or not", async () => {
      const hybrid = { layerTypes: ["conv", "full_attention", "conv"], convBias: true, tieWordEmbeddings: false };
      const logits = await logitsOf(hybrid, 3);
      assert.deepEqual(await logitsOf(hybrid, 3), logits);
      assert.notDeepEqual(await logitsOf(hybrid, 4), logits);
      assert.ok(logits.every(Number.isFinite));
      assert.equal(logits.length, 3 * 512);
    });

    it("draws embeddings from normal(0, initializerRange), the pad token's row zero", async () => {
      using bare = new Lfm2Model(new Lfm2Config({ ...SMALL, initializerRange: 0.5, padTokenId: 5 }), options);
      const inputIds = Array.from({ length: 512 }, (_, i) => i);
      const { hiddenStates } = await bare.forward({ inputIds, outputHiddenStates: true, useCache: false });
      const embeddings = hiddenStates?.[0]?.data ?? assert.fail();
      assert.ok(embeddings.subarray(5 * 64, 6 * 64).every((x) => x === 0));
      const moment = (n: number): number => embeddings.reduce((sum, x) => sum + (x / 0.5) ** n, 0) / (511 * 64);
      // 32,704 numbers: five deviations of each moment's estimate
      for (const [n, want, bound] of [
        [1, 0, 0.028],
        [2, 1, 0.04],
        [3, 0, 0.11],
        [4, 3, 0.28],
      ] as const)
        assert.ok(Math.abs(moment(n) - want) < bound, `moment ${n}: ${moment(n)}`);
    });

    it("is loaded once, and no more when disposed of", async () => {
      const fresh = new Lfm2ForCausalLM(new Lfm2Config(SMALL), options);
      const [a, b] = await Promise.all([fresh.ready(), fresh.ready()]);
      assert.equal(a, b);
      fresh.dispose();
      await assert.rejects(fresh.ready(), InputError);
      assert.throws(() => new Lfm2ForCausalLM(SMALL as never), InputError);
      assert.throws(() => new Lfm2ForCausalLM(new Lfm2Config(SMALL), { seed: -1 }), InputError);
    });
  });
});
