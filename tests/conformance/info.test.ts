// What load() finds out about a checkpoint and applies where a call says nothing: sampling by name, generation_config.json, the cache's element type.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GenerateOptions, load, type Model, type ModelSource } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { fromPreset, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";
import { checkpointFolder } from "../golden/support.ts";

const PRESET = "tiny-deep";
// Liquid AI's recommendations, as its model cards have them.
const text = { temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05 };
const instruct = { temperature: 0.1, topK: 50, repetitionPenalty: 1.05 };
const thinking = { ...instruct, topP: 0.1 };
const large = { temperature: 0.2, topK: 80, repetitionPenalty: 1.05 };
const greedy = { temperature: 0 };

async function withModel<T>(source: ModelSource, use: (model: Model) => T | Promise<T>): Promise<T> {
  const model = await load(source);
  try {
    return await use(model);
  } finally {
    model.dispose();
  }
}

describe("sampling that a checkpoint recommends", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-info-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** A GGUF whose `general.name` and file name are given. */
  function gguf(general: string, file: string): string {
    const out = join(dir, file);
    writeGguf(fromPreset(PRESET, 1), { type: "Q8_0", out, name: general });
    return out;
  }

  /** A folder of that name; `config` is added to config.json, `generation` is generation_config.json. */
  function folder(name: string, config: object = {}, generation?: unknown): string {
    const to = join(dir, name);
    rmSync(to, { recursive: true, force: true });
    mkdirSync(to);
    const from = checkpointFolder(PRESET);
    cpSync(join(from, "model.safetensors"), join(to, "model.safetensors"));
    const original = JSON.parse(readFileSync(join(from, "config.json"), "utf8")) as object;
    writeFileSync(join(to, "config.json"), JSON.stringify({ ...original, ...config }));
    if (generation !== undefined) writeFileSync(join(to, "generation_config.json"), JSON.stringify(generation));
    return to;
  }

  async function recommends(path: string, sampling: GenerateOptions, name?: string): Promise<void> {
    await withModel(path, ({ info }) => {
      assert.deepEqual(info.sampling, sampling, path);
      if (name !== undefined) assert.equal(info.name, name);
    });
  }

  it("follows a GGUF's name, else the file's", async () => {
    await recommends(gguf("LFM2.5 1.2B Instruct", "a.gguf"), instruct, "LFM2.5 1.2B Instruct");
    await recommends(gguf("LFM2.5-1.2B-Thinking", "b.gguf"), thinking);
    await recommends(gguf("LFM2-350M", "LFM2.5-2.6B.gguf"), text);
    await recommends(gguf("", "LFM2.5-2.6B-Q8_0.gguf"), large, "LFM2.5-2.6B-Q8_0.gguf");
    await recommends(gguf("model", "LFM2-1.2B-Extract-Q8_0.gguf"), greedy, "model");
    await recommends(gguf("my finetune", "model.gguf"), text);
  });

  it("follows a config's _name_or_path, else the folder's name", async () => {
    await recommends(folder("model-1", { _name_or_path: "LiquidAI/LFM2.5-1.2B-Thinking" }), thinking, "LiquidAI/LFM2.5-1.2B-Thinking");
    await recommends(folder("LFM2.5-1.2B-Instruct"), instruct, "LFM2.5-1.2B-Instruct");
    await recommends(folder("LFM2.5-8B-A1B", { _name_or_path: "" }), large);
    await recommends(folder("LFM2-1.2B-RAG", { _name_or_path: "checkpoints/final" }), greedy);
    await recommends(folder("unnamed"), text);
  });

  it("generation_config.json wins, value by value", async () => {
    const generation = { temperature: 0.7, top_k: 12, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.2 };
    const all = { temperature: 0.7, topK: 12, topP: 0.9, minP: 0.02, repetitionPenalty: 1.2 };
    await recommends(folder("LFM2.5-350M", {}, generation), all);
    await recommends(folder("LFM2.5-230M", {}, { top_k: 7 }), { ...instruct, topK: 7 });
    await recommends(folder("LFM2-700M", {}, { do_sample: false }), { ...text, temperature: 0 });
    await assert.rejects(load(folder("LFM2-2.6B", {}, { temperature: "warm" })), {
      name: "FormatError",
      message: /generation_config\.json.*temperature/,
    });
  });

  it("with beams, limits, rules and stop strings that generation_config.json names, a call's own first", async () => {
    const prompt = Uint32Array.of(1, 76, 507, 288, 30, 300);
    const plain = await withModel(folder("LFM2-1.2B-RAG"), async (model) => {
      assert.deepEqual([model.info.generation, model.info.warnings], [{}, []]);
      return model.generate(prompt, { maxTokens: 9, stopIds: [] });
    });
    const never = plain.tokens[0]!;
    const config = { do_sample: true, temperature: 1.5, num_beams: 3, num_return_sequences: 2, length_penalty: 0.5, early_stopping: true };
    const rules = { max_new_tokens: 9, max_length: 8, min_new_tokens: 2, suppress_tokens: [never], stop_strings: "x", penalty_alpha: 0.6 };
    await withModel(folder("LFM2-1.2B-RAG", {}, { ...config, ...rules, transformers_version: "4", bad_words_ids: null }), async (model) => {
      const named = { sampleBeams: true, numBeams: 3, numReturnSequences: 2, lengthPenalty: 0.5, earlyStopping: true };
      const generation = { ...named, maxTokens: 9, minTokens: 2, suppressTokens: [never], stop: "x" };
      assert.deepEqual(model.info.generation, generation);
      assert.match(model.info.warnings.join(), /"penalty_alpha": expected 0 or none, got 0\.6\. Take it out/);
      const call = { seed: 3, stopIds: [] };
      const silent = await model.generate(prompt, call);
      assert.deepEqual([silent.sequences?.length, silent.tokens.length, silent.tokens.includes(never)], [2, 9, false]);
      const reply = async (options: GenerateOptions) =>
        (({ timings: _, ...rest }) => rest)(await model.generate(prompt, { ...call, ...options }));
      assert.deepEqual(await reply(generation), await reply({ numBeams: undefined }));
      assert.notDeepEqual((await reply({ sampleBeams: false })).tokens, silent.tokens);
      assert.deepEqual((await reply({ temperature: 0 })).tokens, (await reply({ sampleBeams: false })).tokens, "greedy draws nothing");
      const own = {
        numBeams: 1,
        numReturnSequences: 1,
        temperature: 0,
        repetitionPenalty: 1,
        suppressTokens: [],
        maxLength: prompt.length + 4,
      };
      assert.deepEqual((await reply(own)).tokens, plain.tokens.slice(0, 4));
    });
    await assert.rejects(load(folder("LFM2-2.6B", {}, { num_beams: "two" })), {
      name: "FormatError",
      message: /"num_beams": expected a number/,
    });
  });

  it("every rule and cut that generation_config.json may name is a default", async () => {
    const cuts: GenerateOptions = { typicalP: 0.9, epsilonCutoff: 0.01, etaCutoff: 0.02 };
    const rules: GenerateOptions = {
      noRepeatNgramSize: 3,
      sequenceBias: [[[5, 6], -2.5]],
      badWordsIds: [[7], [8, 9]],
      suppressTokens: [10],
      beginSuppressTokens: [11],
      forcedBosTokenId: 12,
      forcedEosTokenId: [13, 14],
      exponentialDecayLengthPenalty: [4, 1.1],
      removeInvalidValues: true,
    };
    const same: GenerateOptions = { ...cuts, ...rules };
    const file = Object.entries(same).map(([key, value]) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]);
    await withModel(folder("LFM2-1.2B-RAG", {}, Object.fromEntries(file)), async (model) => {
      assert.deepEqual([model.info.generation, model.info.sampling], [rules, { temperature: 0, ...cuts }]);
      const prompt = Uint32Array.of(1, 76, 507, 288, 30, 300);
      const ids = async (options: GenerateOptions): Promise<number[]> => [
        ...(await model.generate(prompt, { seed: 8, maxTokens: 12, stopIds: [], temperature: 1, ...options })).tokens,
      ];
      const silent = await ids({});
      assert.ok([13, 14].includes(silent.at(-1) ?? -1), "the end is forced");
      const none = Object.fromEntries(Object.keys(same).map((key) => [key, undefined]));
      await withModel(folder("LFM2-1.2B-RAG"), async (other) => {
        const { tokens } = await other.generate(prompt, {
          seed: 8,
          maxTokens: 12,
          stopIds: [],
          temperature: 1,
          ...(same as GenerateOptions),
        });
        assert.deepEqual([...tokens], silent);
      });
      assert.deepEqual(await ids(none), silent, "undefined is silence, too");
    });
  });

  it("is what a call without options samples by, and an option of the call wins", async () => {
    const sampling = { temperature: 1.1, top_k: 9, repetition_penalty: 1.3 };
    await withModel(folder("LFM2.5-1.2B-Instruct", {}, sampling), async (model) => {
      const prompt = Uint32Array.of(1, 76, 507, 288, 30, 300);
      const ids = async (options: GenerateOptions): Promise<number[]> => [
        ...(await model.generate(prompt, { seed: 8, maxTokens: 40, stopIds: [], ...options })).tokens,
      ];
      const silent = await ids({});
      assert.deepEqual(silent, await ids({ temperature: 1.1, topK: 9, repetitionPenalty: 1.3 }));
      for (const other of [{ temperature: 0 }, { topK: 0 }, { repetitionPenalty: 1 }]) assert.notDeepEqual(await ids(other), silent);
    });
  });
});

describe("the cache", () => {
  /** Keys and values of a token of the bundled model: 3 attention layers, 2 heads, 64 columns. */
  const values = 2 * 3 * 2 * 64;
  /** Linear memory grows in steps of 1 MiB. */
  const STEP = 1 << 20;

  it("is f16 unless f32 or q8 is asked for, and takes what info says", async () => {
    for (const [options, kvDtype, bytes] of [
      [{}, "f16", 2 * values],
      [{ kvDtype: "f16" }, "f16", 2 * values],
      [{ kvDtype: "f32" }, "f32", 4 * values],
      [{ kvDtype: "q8" }, "q8", values + (4 * values) / 64],
    ] as const) {
      const model = await load(mini, options);
      assert.deepEqual([model.info.kvDtype, model.info.kvBytesPerToken], [kvDtype, bytes]);
      await model.forward({ inputIds: new Uint32Array(1024).fill(20), logitsToKeep: 1 });
      const grown = (await model.status()).memoryBytes - model.info.memoryBytes;
      assert.ok(Math.abs(grown - 1024 * bytes) <= STEP, `${grown} bytes more after 1024 tokens`);
      model.dispose();
    }
    assert.equal(2 * values, 1536);
  });
});
