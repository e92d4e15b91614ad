// lfm2-wasm/transformers: the three examples of the reference's page, and each call against the package's own.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { type Folder, FormatError, InputError, type KeyValueCache, load, type Model } from "lfm2-wasm";
import { AutoTokenizer, type CallTokenizer, Lfm2Config, Lfm2ForCausalLM, Lfm2Model, type Lfm2Tokenizer } from "lfm2-wasm/transformers";
import { openPath } from "../../src/adapters/node/files.ts";
import { generationDefaults } from "../../src/generation-config.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { randomCheckpoint } from "../../src/transformers/random.ts";
import { bytesSource } from "../../src/weights/source.ts";
import { pageExamples, SMALL } from "../conformance/transformers.ts";
import { checkpointFolder } from "../golden/support.ts";

const MINI = "models/lfm2-mini";
const options = { threads: 1 } as const;

/** The bundled checkpoint with another generation_config.json, and perhaps of another name. */
async function configured(config: object, name?: string): Promise<Folder> {
  const folder = await openPath(MINI);
  if (!("open" in folder)) throw new Error(`${MINI} is a folder`);
  const json = new TextEncoder().encode(JSON.stringify(config));
  const open: Folder["open"] = async (path) => (path === "generation_config.json" ? bytesSource(json, path) : folder.open(path));
  return { name: name ?? folder.name, open };
}

describe("lfm2-wasm/transformers", () => {
  let own: Model;
  let model: Lfm2ForCausalLM;
  let tokenizer: Lfm2Tokenizer & CallTokenizer;
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

  pageExamples(MINI);

  describe("Lfm2Config", () => {
    it("has the documented defaults", () => {
      const config = new Lfm2Config();
      assert.deepEqual([config.headDim, config.layerTypes], [80, new Array(32).fill("full_attention")], "which follow from others");
      assert.deepEqual(
        { ...config },
        {
          modelType: "lfm2",
          vocabSize: 65536,
          hiddenSize: 2560,
          intermediateSize: 12288,
          numHiddenLayers: 32,
          numAttentionHeads: 32,
          numKeyValueHeads: 8,
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
        },
      );
    });

    it("each key has its default and its meaning in its documentation, in the options and in the class", () => {
      const text = readFileSync("src/transformers/config.ts", "utf8");
      const documented = (from: string): Map<string, string> => {
        const body = text.slice(text.indexOf(from)).split(/^}/m)[0] ?? "";
        const keys = body.matchAll(/^ {2}(?:\/\*\* (.*) \*\/\n {2})?readonly (\w+)\??[:=]? ?/gm);
        return new Map([...keys].map(([, words = "", key = ""]) => [key, words]));
      };
      const [options, fields] = [documented("export interface Lfm2ConfigOptions"), documented("export class Lfm2Config")];
      const keys = new Set([...Object.keys(new Lfm2Config()), "headDim", "layerTypes"]);
      assert.equal(keys.size, 23);
      assert.deepEqual(new Set(options.keys()), new Set([...keys, "fullAttnIdxs"]));
      assert.deepEqual(new Set(fields.keys()), new Set([...keys, "checked"]));
      for (const [key, words] of options) assert.match(words, /\bdefault /, key);
      // a meaning is three words at least, the letter of a shape and the default apart
      for (const [key, words] of [...options, ...fields].filter(([name]) => name !== "checked"))
        assert.match(words.replace(/^\w{1,2}, /, "").replace(/[;,] default .*/, ""), /^\S+ \S+ \S+/, key);
    });

    it("another is made of its keys, of what toJSON gives, and of nothing that changes later", () => {
      const layerTypes: ("conv" | "full_attention")[] = ["conv", "full_attention", "conv"];
      const shortFactor = new Array<number>(8).fill(1);
      const ropeParameters = { ropeType: "longrope", factor: 2, shortFactor, longFactor: shortFactor };
      const config = new Lfm2Config({
        ...SMALL,
        layerTypes,
        ropeParameters,
        padTokenId: null,
        eosTokenId: [3, 4],
        blockFfnDimMultiplier: null,
      });
      const before = JSON.stringify(config);
      layerTypes[0] = "full_attention";
      shortFactor[0] = 9;
      assert.throws(() => (config.layerTypes as string[]).push("conv"), TypeError);
      assert.equal(JSON.stringify(config), before);
      assert.deepEqual(config.checked.layerTypes, ["conv", "full_attention", "conv"]);
      const copy = new Lfm2Config({ ...config });
      assert.deepEqual([copy, copy.checked], [config, config.checked]);
      assert.deepEqual(Lfm2Config.fromDict(config.toJSON()).checked, config.checked);
      assert.deepEqual(Lfm2Config.fromDict(JSON.parse(JSON.stringify(config))).checked, config.checked);
      const read = Lfm2Config.fromDict({ ...config.toJSON(), pad_token_id: undefined });
      assert.deepEqual([read.padTokenId, new Lfm2Config({ ...read }).padTokenId], [null, null]);
      const small = new Lfm2Config({ ...new Lfm2Config(), numHiddenLayers: 2, hiddenSize: 1024, normEps: 1e-6 });
      assert.deepEqual([small.layerTypes, small.headDim, small.checked.normEps], [["full_attention", "full_attention"], 32, 1e-6]);
      assert.equal(new Lfm2Config({ ...new Lfm2Config({ ...SMALL, headDim: 32 }), hiddenSize: 96 }).headDim, 32);
      assert.throws(() => new Lfm2Config({ ...config, numHiddenLayers: 2 }), {
        name: "InputError",
        message:
          /^\[lfm2\] Lfm2Config: layerTypes: expected 2 times "conv" or "full_attention", got \["conv",.*\]\. Give it such a value\.$/,
      });
    });

    it("its errors name its keys, and no file", () => {
      const refused: readonly [object, string, string?][] = [
        [{ vocabSize: -1 }, "vocabSize: expected a positive whole number, got -1. Give it such a value."],
        [{ tieWordEmbeddings: 1 }, "tieWordEmbeddings: expected true or false, got 1. Give it such a value."],
        [{ convLCache: 0.5 }, "convLCache: expected a positive whole number, got 0.5. Give it such a value."],
        [
          { numAttentionHeads: 7, numKeyValueHeads: 7 },
          "numAttentionHeads: expected a divisor of hiddenSize 2560, got 7. Give it such a value.",
        ],
        [
          { eosTokenId: [70_000] },
          "eosTokenId: expected a token id below vocabSize 65536, or a list of them, got [70000]. Give it such a value.",
        ],
        [
          { ropeParameters: { ropeType: "dynamic" } },
          "ropeParameters: factor: expected a positive number, got nothing. Give it such a value.",
        ],
        [
          { layerTypes: new Array(32).fill("conv"), fullAttnIdxs: [1] },
          "expected layerTypes and fullAttnIdxs to agree, got different layers. Keep the one that is right.",
        ],
        [{ useCache: null }, "useCache: expected a value, got null. Leave it out for the default."],
        [
          { hiddenSize: 40, numAttentionHeads: 1, numKeyValueHeads: 1 },
          "expected a hidden size that 16 divides, got 40. Such a shape is not supported.",
          "UnsupportedError",
        ],
        [
          { modelType: "llama" },
          'modelType: expected "lfm2", got "llama". This package runs Liquid AI\'s LFM2 text models.',
          "UnsupportedError",
        ],
      ];
      for (const [options, message, name = "InputError"] of refused)
        assert.throws(() => new Lfm2Config(options), { name, message: `[lfm2] Lfm2Config: ${message}` });
    });

    it("keeps every key of a config.json, whether the engine looks at it or not", async () => {
      const odd = new Lfm2Config({
        ...SMALL,
        ...{ useCache: false, initializerRange: 0.5, blockMultipleOf: 32, blockFfnDimMultiplier: 1.3, normEps: 1e-6, convLCache: 4 },
        ...{ maxPositionEmbeddings: 4096, padTokenId: 3, bosTokenId: 4, eosTokenId: [5, 6], convBias: true, tieWordEmbeddings: false },
        ...{ layerTypes: undefined, fullAttnIdxs: [1], ropeParameters: { ropeTheta: 5e5, ropeType: "linear", factor: 2 } },
      });
      const plain = new Lfm2Config();
      const same = Object.keys(odd).filter((key) => JSON.stringify(odd[key as "checked"]) === JSON.stringify(plain[key as "checked"]));
      assert.deepEqual(same, ["modelType", "blockAutoAdjustFfDim"], "none of them is at its default");
      const read = await Lfm2Config.fromPretrained(randomCheckpoint(odd, 0));
      assert.deepEqual(read.toJSON(), {
        ...odd.toJSON(),
        intermediate_size: odd.checked.intermediateSize,
        block_auto_adjust_ff_dim: false,
      });
      const same2 = await Lfm2Config.fromPretrained(randomCheckpoint(new Lfm2Config({ ...SMALL, blockFfnDimMultiplier: null }), 0));
      assert.equal(same2.blockFfnDimMultiplier, null);
      using model = await Lfm2ForCausalLM.fromPretrained(randomCheckpoint(odd, 0), options);
      assert.equal((await model.forward({ inputIds: [1, 2] })).pastKeyValues, undefined, "useCache is false");
    });

    it("reads a checkpoint's, and refuses what config.json would be refused for", async () => {
      const config = await Lfm2Config.fromPretrained(MINI);
      assert.deepEqual([config.hiddenSize, config.intermediateSize, config.eosTokenId], [256, own.config.intermediateSize, 7]);
      assert.deepEqual(config.layerTypes, own.config.layerTypes);
      assert.deepEqual(model.config.toJSON(), config.toJSON());
      assert.throws(() => new Lfm2Config({ numKeyValueHeads: 5 }), InputError);
      assert.throws(() => new Lfm2Config({ layerTypes: ["conv"] }), InputError);
      assert.throws(() => Lfm2Config.fromDict({ ...config.toJSON(), num_key_value_heads: 5 }), FormatError);
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
      const third = beams[0]?.[2] ?? 0; // ends some rows early
      const ragged = { numBeams: 3, numReturnSequences: 3, maxNewTokens: 6, eosTokenId: third };
      for (const [padTokenId, fill] of [
        [undefined, third],
        [0, third],
        [9, 9],
      ] as const) {
        const rows = await reply({ ...ragged, padTokenId });
        const fills = rows.map((row) => (row.includes(third) ? row.slice(row.indexOf(third) + 1) : []));
        assert.ok(fills.flat().length > 0 && fills.flat().every((id) => id === fill), `${padTokenId}: ${rows.join("; ")}`);
      }
      const drawing = { doSample: true, temperature: 30, topK: 40, numBeams: 3, maxNewTokens: 6, seed: 8 };
      const drawn = await own.generate(Uint32Array.from(inputIds), {
        ...{ numBeams: 3, sampleBeams: true, temperature: 30, topK: 40, minP: 0, repetitionPenalty: 1, maxTokens: 6, seed: 8 },
      });
      assert.deepEqual(await reply(drawing), [[...drawn.tokens]]);
      assert.notDeepEqual(await reply(drawing), await reply({ numBeams: 3, maxNewTokens: 6 }));
      const samples = await reply({ doSample: true, temperature: 2, numReturnSequences: 2, maxNewTokens: 6, seed: 4 });
      assert.deepEqual([samples[1]], await reply({ doSample: true, temperature: 2, maxNewTokens: 6, seed: 5 }));
      const [end = 0] = plain;
      assert.deepEqual(await reply({ eosTokenId: end }), [[end]]);
      const [later = []] = await reply({ eosTokenId: end, minNewTokens: 3, maxNewTokens: 8 });
      assert.ok(later.length >= 4 && !later.slice(0, 3).includes(end), String(later));
      const [longer = []] = await reply({ eosTokenId: end, minLength: inputIds.length + 3, maxNewTokens: 8 });
      assert.deepEqual(longer, later);
    });

    it("does what generation_config.json says where a call says nothing", async () => {
      const inputIds = ask("Tell me a story about a fox.");
      const withConfig = async (config: object, work: (model: Lfm2ForCausalLM) => Promise<void>): Promise<void> => {
        using other = await Lfm2ForCausalLM.fromPretrained(await configured(config), { ...options, dtype: "bfloat16" });
        await work(other);
      };
      const file = { do_sample: true, temperature: 1.7, top_k: 7, top_p: 0.98, min_p: 0.01, repetition_penalty: 1.2, max_new_tokens: 9 };
      const named = { doSample: true, temperature: 1.7, topK: 7, topP: 0.98, minP: 0.01, repetitionPenalty: 1.2, maxNewTokens: 9 };
      await withConfig({ ...file, transformers_version: "4", pad_token_id: null }, async (other) => {
        assert.deepEqual(other.generationConfig, named);
        assert.deepEqual(await other.generate({ inputIds, seed: 3 }), await model.generate({ inputIds, ...named, seed: 3 }));
        const own = { doSample: false, repetitionPenalty: 1, maxNewTokens: 5 };
        assert.deepEqual(await other.generate({ inputIds, ...own }), await model.generate({ inputIds, ...own }), "a call's count first");
        const [row] = await other.generate({ inputIds, seed: 3, maxLength: inputIds.length + 4, temperature: undefined });
        assert.equal(row?.length, inputIds.length + 4, "a call's maxLength is not undone by the file's max_new_tokens");
      });
      const [both] = await model.generate({ inputIds, maxNewTokens: 6, maxLength: inputIds.length + 3 });
      assert.equal(both?.length, inputIds.length + 6, "maxNewTokens counts, as in the reference");
      const [greedy = []] = await model.generate({ inputIds, maxNewTokens: 12 });
      const [first = 0, , third = 0] = greedy.slice(inputIds.length);
      const rules = {
        num_beams: 2,
        num_return_sequences: 2,
        max_length: inputIds.length + 4,
        suppress_tokens: [first],
        early_stopping: true,
      };
      await withConfig(rules, async (other) => {
        const same = { numBeams: 2, numReturnSequences: 2, maxLength: inputIds.length + 4, suppressTokens: [first], earlyStopping: true };
        const rows = await other.generate({ inputIds });
        assert.deepEqual(rows, await model.generate({ inputIds, ...same }));
        assert.ok(rows.length === 2 && !rows[0]?.slice(inputIds.length).includes(first));
      });
      await withConfig({ eos_token_id: [7, third], pad_token_id: 9 }, async (other) => {
        const inner = await other.ready();
        assert.deepEqual(inner.info.stopIds, [7, third]);
        const both = { inputIds: [inputIds, inputIds.map((id) => (id === 7 ? 7 : id))], maxNewTokens: 12 };
        const [row = []] = await other.generate(both);
        assert.equal(row[greedy.indexOf(third, inputIds.length)], third);
        assert.ok(row.slice(greedy.indexOf(third, inputIds.length) + 1).every((id) => id === 9));
        const { finishReason, tokens } = await inner.generate(Uint32Array.from(inputIds), { temperature: 0 });
        assert.deepEqual([finishReason, tokens.at(-1)], ["stop", third], "load() takes its end tokens, too");
      });
      for (const [config, message] of [
        [{ num_beams: "two" }, /"num_beams": expected a number, got string/],
        [{ eos_token_id: "</s>" }, /"eos_token_id": expected a token id/],
      ] as const)
        await assert.rejects(Lfm2ForCausalLM.fromPretrained(await configured(config), options), { name: "FormatError", message });
      for (const [config, message] of [
        [{ bad_words_ids: [1] }, /"bad_words_ids": expected a list of lists/],
        [{ do_sample: 1 }, /"do_sample": expected true or false/],
      ] as const)
        assert.throws(() => generationDefaults(config), { name: "FormatError", message });
      const unsupported = { name: "UnsupportedError" };
      await assert.rejects(Lfm2ForCausalLM.fromPretrained(await configured({ num_beam_groups: 2 }), options), unsupported);
      for (const config of [{ renormalize_logits: true }, { force_words_ids: [[5]] }, { guidance_scale: 1.5 }])
        assert.throws(() => generationDefaults(config), unsupported);
      const idle = { renormalize_logits: false, num_beam_groups: 1, diversity_penalty: 0, guidance_scale: null };
      await withConfig(idle, async (other) => assert.deepEqual(other.generationConfig, {}));
    });

    it("goes by the reference's defaults where a checkpoint's name recommends others", async () => {
      const inputIds = ask("Tell me a story about a fox.");
      using other = await Lfm2ForCausalLM.fromPretrained(await configured({}, "LFM2-350M"), { ...options, dtype: "float32" });
      const inner = await other.ready();
      assert.deepEqual([inner.info.sampling, inner.info.dtypes], [{ temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05 }, ["f32"]]);
      const off = {
        topK: 0,
        topP: 1,
        minP: 0,
        typicalP: 1,
        epsilonCutoff: 0,
        etaCutoff: 0,
        repetitionPenalty: 1,
        maxTokens: 20,
        stopIds: [],
      };
      const reply = async (more: object): Promise<number[][]> =>
        (await other.generate({ inputIds, maxNewTokens: 20, eosTokenId: [], seed: 4, ...more })).map((row) => row.slice(inputIds.length));
      const own = async (more: object): Promise<number[]> => [
        ...(await inner.generate(Uint32Array.from(inputIds), { ...off, seed: 4, ...more })).tokens,
      ];
      assert.deepEqual(await reply({}), [await own({ temperature: 0 })]);
      const hot = { doSample: true, temperature: 30 };
      assert.deepEqual(await reply(hot), [await own({ temperature: 30, topK: 50 })], "topK 50");
      for (const tail of [{ typicalP: 0.2 }, { epsilonCutoff: 0.02 }, { etaCutoff: 0.5 }])
        assert.deepEqual(await reply({ ...hot, temperature: 3, ...tail }), [await own({ temperature: 3, topK: 50, ...tail })]);
      const samples = await reply({ ...hot, inputIds: [inputIds, inputIds], numReturnSequences: 2 });
      assert.deepEqual(samples.slice(2), [
        await own({ temperature: 30, topK: 50, seed: 6 }),
        await own({ temperature: 30, topK: 50, seed: 7 }),
      ]);
    });

    it("takes stop strings, functions on the logits and on when to stop", async () => {
      const inputIds = ask("What is 3 + 4?");
      const reply = async (more: object): Promise<string> =>
        tokenizer.decode((await model.generate({ inputIds, ...more }))[0]!.slice(inputIds.length));
      assert.equal(await reply({}), "3 + 4 = 7<|im_end|>");
      assert.match(await reply({ stopStrings: "= " }), /^3 \+ 4 = ?$/);
      const end = tokenizer.eosTokenId ?? assert.fail();
      const never = (logits: Float32Array): void => void (logits[end] = Number.NEGATIVE_INFINITY);
      assert.ok(!(await reply({ logitsProcessor: [never], maxNewTokens: 12 })).includes("<|im_end|>"));
      assert.equal(await reply({ stoppingCriteria: [() => true] }), "3");
    });

    it("refuses what the reference refuses", async () => {
      const inputIds = [1, 2, 3];
      const fails = (more: object, kind: new (message: string) => Error) =>
        assert.rejects(model.generate({ inputIds, ...more }), (error) => error instanceof kind);
      await fails({ maxLength: 3 }, InputError);
      await fails({ numReturnSequences: 2 }, InputError);
      await fails({ doSample: true, temperature: 0 }, InputError);
      await fails({ attentionMask: [1, 1] }, InputError);
      await fails({ minLength: -1 }, InputError);
      await fails({ minLength: "many" }, InputError);
      await fails({ eosTokenId: -1 }, InputError);
      await fails({ inputIds: [[1], [1, 2]] }, InputError);
      await fails({ inputIds: [] }, InputError);
      await fails({ inputIds: [99999] }, InputError);
      for (const [name, value, theirs] of [
        ["maxNewTokens", 0, "got 0. Leave it out for 20, or what generation_config.json says."],
        ["minNewTokens", -1, "got -1. "],
        ["stopStrings", "", "got an empty one. "],
        ["logitsProcessor", 5, "got number. "],
        ["eosTokenId", -1, "got [-1]. "],
      ] as const)
        await assert.rejects(model.generate({ inputIds, [name]: value } as never), (error: Error) => {
          assert.ok(error instanceof InputError && error.message.startsWith(`[lfm2] generate: ${name}: expected `), error.message);
          return error.message.includes(theirs);
        });
      for (const [name, advice] of [
        ["maxTokens", "Write maxNewTokens"],
        ["max_new_tokens", "Write maxNewTokens"],
        ["frequencyPenalty", "Leave it out"],
        ["useCache", "Leave it out"],
      ] as const)
        await assert.rejects(model.generate({ inputIds, [name]: 3 } as never), {
          name: "InputError",
          message: `[lfm2] generate: expected names that GenerationConfig lists, got "${name}". ${advice}.`,
        });
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

  describe("a row of a padded batch is the row alone, bit for bit, and so is what goes on from its cache", () => {
    /** Over a page's border, at one, within the first page. */
    const LENGTHS = [37, 32, 3];
    const PADDING = 9;
    const rows = LENGTHS.map((length, b) => Array.from({ length }, (_, t) => (t * t * 5 + 17 * b + 3 * t + 1) % 250));
    const next = [[30, 31, 32], [33, 34], [35]];
    const last = [[40], [41], [42]];

    const padded = (batch: readonly (readonly number[])[], side: "left" | "right") => {
      const T = Math.max(...batch.map((row) => row.length));
      const placed = (row: readonly number[], padding: number): number[] => {
        const gap = new Array<number>(T - row.length).fill(padding);
        return side === "left" ? [...gap, ...row] : [...row, ...gap];
      };
      const ones = batch.map((row) => row.map(() => 1));
      return { inputIds: batch.map((row) => placed(row, PADDING)), attentionMask: ones.map((row) => placed(row, 0)) };
    };

    /** The rows in three calls on one cache, the second with padding of its own. @returns logits at real tokens, call after call */
    async function steps(model: Lfm2ForCausalLM, side: "left" | "right", which: readonly number[]): Promise<Float32Array[][]> {
      let pastKeyValues: KeyValueCache | undefined;
      const out: Float32Array[][] = which.map(() => []);
      for (const part of [rows, next, last]) {
        const input = padded(
          which.map((b) => part[b]!),
          side,
        );
        const given = await model.forward({ ...input, pastKeyValues });
        pastKeyValues = given.pastKeyValues;
        const [, T = 0, V = 0] = given.logits.dims;
        for (const [b, mask] of input.attentionMask.entries())
          out[b]!.push(...mask.flatMap((m, t) => (m === 1 ? [given.logits.data.slice((b * T + t) * V, (b * T + t + 1) * V)] : [])));
      }
      assert.deepEqual(
        pastKeyValues?.lengths,
        which.map((b) => rows[b]!.length + next[b]!.length + 1),
      );
      pastKeyValues?.dispose();
      return out;
    }

    for (const dtype of ["bf16", "q8", "q4"] as const)
      it(`${dtype}, keys and values in f16, f32 and q8`, async () => {
        const seen: Float32Array[] = [];
        for (const kvDtype of ["f16", "f32", "q8"] as const) {
          // four taps, and a K that is no multiple of a block
          using model = await Lfm2ForCausalLM.fromPretrained(checkpointFolder("tiny-attn-first"), {
            ...options,
            dtype,
            kvDtype,
            prefixCacheBytes: 0,
          });
          assert.deepEqual([(await model.ready()).info.dtypes.includes(dtype), (await model.ready()).info.kvDtype], [true, kvDtype]);
          const alone = await Promise.all(rows.map(async (_, b) => (await steps(model, "right", [b]))[0]!));
          for (const side of ["left", "right"] as const)
            assert.deepEqual(await steps(model, side, [0, 1, 2]), alone, `${kvDtype}, ${side}`);
          seen.push(alone[0]!.at(-1)!);
        }
        const [a, b, c] = seen.map(String);
        assert.ok(a !== b && b !== c && a !== c, "each kind of keys and values has bits of its own");
      });
  });

  it("the tokenizer renders and decodes as the model does", () => {
    const messages = [{ role: "user", content: "<|im_end|> Hello" }] as const;
    const text = tokenizer.applyChatTemplate(messages, { tokenize: false, addGenerationPrompt: true });
    assert.match(text, /^<\|startoftext\|><\|im_start\|>user\n.*<\|im_start\|>assistant\n$/s);
    const ids = tokenizer.applyChatTemplate(messages);
    assert.equal(ids.filter((id) => id === 7).length, 1, "a user's text is no control token");
    assert.deepEqual(tokenizer.encode("<|im_end|>"), [1, 7]);
    const tools = [{ type: "function", function: { name: "add_up", parameters: {} } }];
    assert.match(tokenizer.applyChatTemplate(messages, { tokenize: false, tools }), /"add_up"/);
    assert.ok(!tokenizer.encode("<|im_end|>", { splitSpecialTokens: true, addSpecialTokens: false }).includes(7));
    assert.equal(tokenizer.decode([1, 7], { skipSpecialTokens: true }), "");
  });

  describe("a tokenizer called with texts", () => {
    const [short, long] = ["Hello!", "Tell me a story about a fox."];
    it("gives ids and mask, one row for one text", () => {
      const ids = tokenizer.encode(short);
      assert.deepEqual(tokenizer(short), { inputIds: [ids], attentionMask: [ids.map(() => 1)] });
      assert.deepEqual(tokenizer(short, { addSpecialTokens: false }).inputIds, [ids.slice(1)]);
      assert.deepEqual([tokenizer.padTokenId, tokenizer.bosTokenId, tokenizer.eosTokenId], [0, 1, 7]);
    });

    it("pads on either side, and cuts", () => {
      const [a, b] = [tokenizer.encode(short), tokenizer.encode(long)];
      const gap = new Array<number>(b.length - a.length).fill(0);
      const ones = (row: readonly number[]): number[] => row.map(() => 1);
      assert.deepEqual(tokenizer([short, long], { padding: true }), {
        inputIds: [[...a, ...gap], b],
        attentionMask: [[...ones(a), ...gap], ones(b)],
      });
      const left = { inputIds: [[...gap, ...a], b], attentionMask: [[...gap, ...ones(a)], ones(b)] };
      assert.deepEqual(tokenizer([short, long], { padding: "longest", paddingSide: "left" }), left);
      tokenizer.paddingSide = "left";
      assert.deepEqual(tokenizer([short, long], { padding: true }), left);
      tokenizer.paddingSide = "right";
      const cut = tokenizer([short, long], { padding: "maxLength", truncation: true, maxLength: 6 });
      assert.deepEqual(cut.inputIds, [[...a, ...new Array(6)].slice(0, 6).map((id) => id ?? 0), b.slice(0, 6)]);
      assert.deepEqual(
        cut.attentionMask.map((row) => row.reduce((x, y) => x + y)),
        [Math.min(6, a.length), 6],
      );
    });

    it("what it gives goes into generate and forward, each row as alone", async () => {
      for (const paddingSide of ["left", "right"] as const) {
        const batch = tokenizer([short, long], { padding: true, paddingSide });
        const rows = await model.generate({ ...batch, maxNewTokens: 6, eosTokenId: [] });
        for (const [b, text] of [short, long].entries()) {
          const alone = tokenizer(text);
          const T = batch.inputIds[0]!.length;
          assert.deepEqual(
            rows[b]?.slice(T),
            (await model.generate({ ...alone, maxNewTokens: 6, eosTokenId: [] }))[0]?.slice(alone.inputIds[0]!.length),
          );
          const { logits } = await model.forward({ ...batch, useCache: false });
          const at = batch.attentionMask[b]!.lastIndexOf(1);
          const V = model.config.vocabSize;
          const own = (await model.forward({ ...alone, useCache: false, logitsToKeep: 1 })).logits.data;
          assert.deepEqual(logits.data.slice((b * T + at) * V, (b * T + at + 1) * V), own);
        }
      }
    });

    it("refuses rows of several lengths without padding, and what is no text", () => {
      const refused = (texts: unknown, more: object, message: RegExp): void =>
        assert.throws(
          () => tokenizer(texts as string, more),
          (error: Error) => error.name === "InputError" && message.test(error.message),
        );
      refused([short, long], {}, /texts of one length, got .* Pass padding: true/);
      refused([], {}, /expected a text or a list of texts/);
      refused([1], {}, /expected a text or a list of texts/);
      refused(short, { padding: "max" }, /padding: expected true, false/);
      refused(short, { paddingSide: "top" }, /paddingSide/);
      refused(short, { truncation: true }, /maxLength: expected a whole number/);
      refused(short, null as never, /tokenizer: expected an object.* got null/);
    });

    it("refuses ids that are none, options that are no object, and names that are none's, call by call", () => {
      const none = null as never;
      const calls: readonly [() => unknown, RegExp][] = [
        [() => tokenizer.decode(5 as never), /decode: expected token ids .* got number/],
        [() => tokenizer.decode([5], none), /decode: expected an object/],
        [() => tokenizer.batchDecode([1, 20] as never), /decode: expected token ids .* got number/],
        [() => tokenizer.batchDecode([[1, 20]], none), /batchDecode: expected an object/],
        [() => tokenizer.encode("a", none), /encode: expected an object/],
        [() => tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }], none), /applyChatTemplate: expected an object/],
        [() => tokenizer("a", { return_tensors: "pt" } as never), /TokenizeOptions lists, got "return_tensors"\. Leave it out/],
        [() => tokenizer.encode("a", { add_special_tokens: false } as never), /EncodeTextOptions lists.* Write addSpecialTokens/],
        [() => tokenizer.decode([5], { skip_special_tokens: true } as never), /DecodeTextOptions lists.* Write skipSpecialTokens/],
        [() => tokenizer.batchDecode([], { skip_special_tokens: true } as never), /Write skipSpecialTokens/],
        [() => tokenizer.applyChatTemplate([], { add_generation_prompt: true } as never), /Options lists.* Write addGenerationPrompt/],
      ];
      for (const [call, message] of calls) assert.throws(call, { name: "InputError", message });
    });
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
      const config = new Lfm2Config({ ...SMALL, initializerRange: 0.5, padTokenId: 5, useCache: false });
      using bare = new Lfm2Model(config, { ...options, dtype: "float16" });
      const inputIds = Array.from({ length: 512 }, (_, i) => i);
      const { hiddenStates, pastKeyValues } = await bare.forward({ inputIds, outputHiddenStates: true });
      assert.deepEqual([pastKeyValues, (await bare.ready()).info.dtypes], [undefined, ["f16"]]);
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

    it("draws each linear layer, convolution and head anew from normal(0, initializerRange); norms are one, biases zero", async () => {
      const range = 0.02;
      const layerTypes = ["conv", "full_attention", "conv"] as const;
      const config = new Lfm2Config({ ...SMALL, layerTypes, convBias: true, tieWordEmbeddings: false, padTokenId: 5 });
      const checkpoint = await openCheckpoint(randomCheckpoint(config, 11));
      assert.equal(config.initializerRange, range);
      const kinds: Record<string, string[]> = { one: [], zero: [], normal: [] };
      const beginnings = new Set<number>();
      for (const [name, { source, offsetBytes, bytes, shape }] of checkpoint.tensors) {
        const read = await source.read(offsetBytes, bytes);
        let values = new Float32Array(read.slice().buffer);
        assert.equal(
          values.length,
          shape.reduce((a, b) => a * b, 1),
          name,
        );
        const kind = values.every((x) => x === 1) ? "one" : values.every((x) => x === 0) ? "zero" : "normal";
        const short = name.replace(/^model\.(layers\.\d+\.)?/, "");
        if (!kinds[kind]!.includes(short)) kinds[kind]!.push(short);
        if (kind !== "normal") continue;
        if (short === "embed_tokens.weight") {
          assert.ok(values.subarray(64 * 5, 64 * 6).every((x) => x === 0));
          values = Float32Array.from([...values.subarray(0, 64 * 5), ...values.subarray(64 * 6)]);
        }
        const n = values.length;
        const moment = (k: number): number => values.reduce((sum, x) => sum + (x / range) ** k, 0) / n;
        // five deviations of each moment's estimate
        for (const [k, want, variance] of [
          [1, 0, 1],
          [2, 1, 2],
          [3, 0, 15],
          [4, 3, 96],
        ] as const)
          assert.ok(Math.abs(moment(k) - want) < 5 * Math.sqrt(variance / n), `${name}: moment ${k} of ${n}: ${moment(k)}`);
        beginnings.add(values[0]!);
      }
      await checkpoint.close();
      const norms = ["operator_norm", "self_attn.q_layernorm", "self_attn.k_layernorm", "ffn_norm", "embedding_norm"];
      const biases = ["conv.in_proj", "conv.conv", "conv.out_proj"];
      const linear = ["conv.in_proj", "conv.conv", "conv.out_proj", "lm_head", "embed_tokens"];
      linear.push(...["q_proj", "k_proj", "v_proj", "out_proj"].map((name) => `self_attn.${name}`));
      linear.push(...["w1", "w2", "w3"].map((name) => `feed_forward.${name}`));
      const sorted = (names: readonly string[], end: string): string[] => names.map((name) => name + end).sort();
      assert.deepEqual(
        [kinds.one!.sort(), kinds.zero!.sort(), kinds.normal!.sort()],
        [sorted(norms, ".weight"), sorted(biases, ".bias"), sorted(linear, ".weight")],
      );
      assert.equal(beginnings.size, 2 + 2 * 3 + 4 + 3 * 3, "no two tensors begin alike");
    });

    it("has norms with the configuration's normEps, and a context of maxPositionEmbeddings", async () => {
      const run = async (normEps: number) => {
        const layerTypes = ["conv", "full_attention", "conv"] as const;
        const config = new Lfm2Config({ ...SMALL, layerTypes, normEps, initializerRange: 0.5, maxPositionEmbeddings: 96 });
        using bare = new Lfm2Model(config, options);
        assert.equal((await bare.ready()).info.maxContextTokens, 96);
        return await bare.forward({ inputIds: [1, 2, 3], outputHiddenStates: true, outputAttentions: true, useCache: false });
      };
      const { lastLayerOutput: usual } = await run(1e-5);
      // so large that no layer adds much: each norm in front of one has it
      const { hiddenStates = [], lastLayerOutput, lastHiddenState, attentions = [] } = await run(1e6);
      const [embeddings, x] = [hiddenStates[0]?.data ?? assert.fail(), lastLayerOutput?.data ?? assert.fail()];
      const largest = (a: Float32Array): number => a.reduce((most, v, i) => Math.max(most, Math.abs(v - embeddings[i]!)), 0);
      for (const data of [hiddenStates[1]!.data, hiddenStates[2]!.data, x]) assert.ok(largest(data) < 0.05, `${largest(data)}`);
      assert.ok(largest(usual!.data) > 1, "which they do with another");
      // and no query prefers a key: (1,4,3,3), a third each in the last row
      const [seen] = attentions;
      for (let h = 0; h < 4; h++)
        for (const p of seen!.data.subarray(9 * h + 6, 9 * h + 9)) assert.ok(Math.abs(p - 1 / 3) < 1e-6, `the norms of q and k: ${p}`);
      for (const [i, v] of x.entries()) {
        const row = x.subarray(i - (i % 64), i - (i % 64) + 64);
        const want = v / Math.sqrt(row.reduce((sum, y) => sum + y * y, 0) / 64 + 1e6);
        assert.ok(Math.abs(lastHiddenState.data[i]! - want) <= 1e-5 * Math.abs(want), `the final norm, ${i}`);
      }
    });

    it("is loaded once, and no more when disposed of", async () => {
      const fresh = new Lfm2ForCausalLM(new Lfm2Config(SMALL), options);
      const [a, b] = await Promise.all([fresh.ready(), fresh.ready()]);
      assert.equal(a, b);
      // without a pad token the first that ends a row fills it up
      Object.assign(fresh.config, { padTokenId: undefined });
      const prompts = { inputIds: [[1], [2]], maxNewTokens: 3 };
      const [[, end = 0] = [], other = []] = await fresh.generate(prompts);
      assert.ok(!other.slice(1).includes(end));
      assert.deepEqual((await fresh.generate({ ...prompts, eosTokenId: [end, 7] }))[0], [1, end, end, end]);
      fresh.dispose();
      await assert.rejects(fresh.ready(), InputError);
      assert.throws(() => new Lfm2ForCausalLM(SMALL as never), InputError);
      assert.throws(() => new Lfm2ForCausalLM(new Lfm2Config(SMALL), { seed: -1 }), InputError);
    });
  });
});
