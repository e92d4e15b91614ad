// Scaled rotary embeddings: frequencies, factors and logits of every kind against the reference, and by which length of the context they go.
import assert from "node:assert/strict";
import { type LoadOptions, load, type Model } from "lfm2-wasm";
import { Lfm2Config } from "lfm2-wasm/transformers";
import { openPath } from "../../src/adapters/node/files.ts";
import { instantiateKernels } from "../../src/kernels/variants.ts";
import { WebAssembly } from "../../src/memory/wasm.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { parseConfig } from "../../src/models/config.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { frequencyLength, parseRopeScaling, ropeAttentionFactor, ropeFrequencies } from "../../src/models/rope.ts";
import { bytesSource, type Folder } from "../../src/weights/source.ts";
import { pick } from "../scale.ts";
import { checkpointFolder, distance, feed, goldenArrays, goldenJson, kernels, sameBits, tried } from "./support.ts";

interface Case {
  readonly name: string;
  readonly max_position_embeddings: number;
  readonly rope_parameters: { readonly rope_type: string; readonly rope_theta: number };
}
interface Table extends Case {
  readonly head_dim: number;
  readonly length: number;
  readonly inv_freq: readonly number[];
  readonly attention_factor: number;
}
interface LogitsCase extends Case {
  readonly model: string;
  readonly input_ids: readonly number[];
  readonly rows: readonly number[];
  readonly logits: string;
}

const cases = goldenJson<(Table | LogitsCase)[]>("forward", "rope.json");
const tables = cases.filter((c): c is Table => "inv_freq" in c);
const logitsCases = cases.filter((c): c is LogitsCase => "logits" in c);
const arrays = goldenArrays("forward", "rope.safetensors");
/** Of an f32 runtime's logits. */
const TOLERANCE = 1e-4;
const KINDS = ["default", "linear", "dynamic", "yarn", "longrope", "llama3"];

/** A case's checkpoint, with its config instead of its own. */
async function scaled({ model, rope_parameters, max_position_embeddings }: LogitsCase): Promise<Folder> {
  const own = await openPath(checkpointFolder(model));
  assert.ok("open" in own);
  return {
    name: own.name,
    open: async (path) => {
      const source = await own.open(path);
      if (path !== "config.json" || !source) return source;
      const { theta, ...config } = JSON.parse(new TextDecoder().decode(await source.read(0, source.size)));
      await source.close?.();
      assert.equal(theta, rope_parameters.rope_theta);
      return bytesSource(new TextEncoder().encode(JSON.stringify({ ...config, rope_parameters, max_position_embeddings })), path);
    },
  };
}

describe("scaled rotary embeddings", () => {
  it("every kind is among the goldens", () => {
    for (const some of [tables, logitsCases]) assert.deepEqual([...new Set(some.map((c) => c.rope_parameters.rope_type))], KINDS);
  });

  for (const variant of tried) {
    it(`frequencies within 1e-12 and attention factors of all ${tables.length} tables (${variant})`, async () => {
      const memory = new WebAssembly.Memory({ initial: 2, maximum: 65_536 });
      const { kernels: module } = await instantiateKernels(kernels, memory, variant, false);
      for (const { name, rope_parameters, head_dim: headDim, max_position_embeddings, length, inv_freq, attention_factor } of tables) {
        const shape = { headDim, maxPositionEmbeddings: max_position_embeddings };
        const ropeScaling = parseRopeScaling(rope_parameters, name, shape);
        const got = ropeFrequencies({ ...shape, ropeTheta: rope_parameters.rope_theta, ropeScaling }, length, (theta) => {
          module.rope_frequencies(65_536, theta, headDim);
          return new Float64Array(memory.buffer, 65_536, headDim / 2);
        });
        assert.equal(got.length, headDim / 2);
        inv_freq.forEach((f, i) => {
          assert.ok(Math.abs((got[i] ?? 0) / f - 1) < 1e-12, `${name}, pair ${i}: ${got[i]}, expected ${f}`);
        });
        assert.ok(Math.abs(ropeAttentionFactor(ropeScaling) - attention_factor) < 1e-12, name);
      }
    });
  }

  it("Lfm2Config takes every kind by its camelCase names, and tells it again as config.json has it", () => {
    const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
    for (const { name, head_dim: headDim, max_position_embeddings, rope_parameters } of tables) {
      const shape = { headDim, maxPositionEmbeddings: max_position_embeddings };
      const ropeParameters = Object.fromEntries(Object.entries(rope_parameters).map(([key, value]) => [camel(key), value]));
      const config = new Lfm2Config({ ...shape, hiddenSize: 4 * headDim, numAttentionHeads: 4, numKeyValueHeads: 2, ropeParameters });
      assert.deepEqual(config.ropeParameters, ropeParameters, name);
      assert.deepEqual(config.toJSON().rope_parameters, rope_parameters, name);
      const { ropeTheta, ropeScaling } = config.checked;
      assert.deepEqual([ropeTheta, ropeScaling], [rope_parameters.rope_theta, parseRopeScaling(rope_parameters, name, shape)], name);
      // a checkpoint's configuration, which has every key filled in, is the same one
      for (const again of [Lfm2Config.of(config.checked), Lfm2Config.of(parseConfig(config.toJSON()))]) {
        assert.deepEqual(again.checked, config.checked, name);
        assert.deepEqual(parseConfig(again.toJSON()).ropeScaling, ropeScaling, name);
      }
    }
  });

  it("Lfm2Config refuses a name that is none, with the names that are, and a kind or a number that is none", () => {
    const refused = (ropeParameters: object, error: string, message: RegExp): void =>
      assert.throws(() => new Lfm2Config({ ropeParameters: { ...ropeParameters } }), { name: error, message });
    const names = /ropeParameters: expected ropeTheta, ropeType, factor, .*, got "(fctor|rope_type|type)"\. Correct its name\./;
    refused({ ropeType: "linear", factor: 2, fctor: 4 }, "InputError", names);
    refused({ rope_type: "linear", factor: 2 }, "InputError", names);
    refused({ type: "linear", factor: 2 }, "InputError", names);
    refused({ ropeType: "linear" }, "InputError", /ropeParameters: factor: expected a positive number, got nothing/);
    refused({ ropeType: "cubic" }, "UnsupportedError", /expected one of default, linear, .*, got "cubic"/);
  });

  for (const c of logitsCases) {
    it(`${c.name}: forward() within ${TOLERANCE}, whatever maxContextTokens is`, async () => {
      const looksAtLength = ["dynamic", "longrope"].includes(c.rope_parameters.rope_type);
      for (const maxContextTokens of looksAtLength ? [90, 200] : pick({ gate: [200], full: [90, 200] })) {
        const model = await load(await scaled(c), { dtype: "f32", kvDtype: "f32", maxContextTokens, threads: 1 });
        const { logits } = await model.forward({ inputIds: [...c.input_ids] });
        const V = model.config.vocabSize;
        const want = arrays.get(c.logits) ?? assert.fail(c.logits);
        c.rows.forEach((row, i) => {
          const far = distance(logits.data.subarray(row * V, (row + 1) * V), want.subarray(i * V, (i + 1) * V));
          assert.ok(far < TOLERANCE, `row ${row}: ${far}`);
        });
        await model.dispose();
      }
    });
  }

  for (const c of logitsCases.filter(({ rope_parameters }) => ["dynamic", "longrope"].includes(rope_parameters.rope_type))) {
    // beyond the border all lengths of longrope have one set of divisors: what both have computed is the same
    const isShared = c.name === "longrope logits of 90 tokens";
    it(`${c.name}: a chat takes ${isShared ? "over what a forward pass beyond the border computed" : "nothing over from a forward pass, whose frequencies go by its own length"}`, async () => {
      const likely = async (model: Model): Promise<object> => {
        const { usage, logprobs } = await model.generate(Uint32Array.from(c.input_ids), { maxTokens: 1, temperature: 0, logprobs: true });
        return { logprobs, cachedTokens: usage.cachedTokens };
      };
      const options: LoadOptions = { dtype: "f32", kvDtype: "f32", maxContextTokens: 200, threads: 1 };
      const [clean, warm] = [await load(await scaled(c), options), await load(await scaled(c), options)];
      const { pastKeyValues } = await warm.forward({ inputIds: [...c.input_ids], useCache: true });
      assert.deepEqual(await likely(warm), { ...(await likely(clean)), cachedTokens: isShared ? 89 : 0 });
      pastKeyValues?.dispose();
      for (const each of [clean, warm]) each.dispose();
    });
  }

  for (const c of logitsCases.filter((c) => c.input_ids.length === 90 && ["dynamic", "longrope"].includes(c.rope_parameters.rope_type))) {
    const options: LoadOptions = { dtype: "f32", kvDtype: "f32", maxContextTokens: 200, threads: 1 };
    const texts = [8, 90, 30, 60].map((length, i) => Uint32Array.from(c.input_ids.slice(90 - length), (id, t) => (t === 0 ? id : id + i)));

    it(`${c.name}: a row beside rows of other lengths is the row alone, to the last bit, and goes on so`, async () => {
      using model = await load(await scaled(c), options);
      const V = model.config.vocabSize;
      const pad = (ids: Uint32Array): number[] => [...new Array<number>(90 - ids.length).fill(0), ...ids];
      const inputIds = texts.map((ids) => pad(ids));
      const attentionMask = texts.map((ids) => pad(ids.map(() => 1)));
      const all = await model.forward({ inputIds, attentionMask, outputHiddenStates: true, useCache: true });
      const more = await model.forward({ inputIds: texts.map(() => [20, 21, 22]), pastKeyValues: all.pastKeyValues });
      for (const [b, ids] of texts.entries()) {
        const alone = await model.forward({ inputIds: ids, outputHiddenStates: true, useCache: true });
        const rest = await model.forward({ inputIds: [20, 21, 22], pastKeyValues: alone.pastKeyValues });
        assert.ok(sameBits(all.logits.data.subarray(((b + 1) * 90 - ids.length) * V, (b + 1) * 90 * V), alone.logits.data), `row ${b}`);
        assert.ok(sameBits(more.logits.data.subarray(b * 3 * V, (b + 1) * 3 * V), rest.logits.data), `row ${b} goes on`);
        const D = model.config.hiddenSize;
        for (const [i, { data }] of (alone.hiddenStates ?? assert.fail()).entries())
          assert.ok(sameBits(all.hiddenStates![i]!.data.subarray(((b + 1) * 90 - ids.length) * D, (b + 1) * 90 * D), data), `states ${i}`);
        alone.pastKeyValues?.dispose();
      }
      all.pastKeyValues?.dispose();
    });

    it(`${c.name}: embed(), score() and perplexity() are forward() over each text, a reply's figures are those of its session`, async () => {
      using model = await load(await scaled(c), options);
      const together = await model.embed(texts);
      for (const [b, ids] of texts.entries()) {
        const [alone] = await model.embed([ids]);
        assert.ok(sameBits(together[b]!, alone!), `text ${b}`);
        const { logprobs } = await model.score(ids);
        const { loss = Number.NaN } = await model.forward({ inputIds: ids, labels: ids });
        assert.ok(Math.abs(loss + logprobs.reduce((sum, p) => sum + p, 0) / logprobs.length) < 1e-12);
        assert.equal((await model.perplexity(ids)).loss, loss);
      }
      const [ids] = texts as [Uint32Array];
      const reply = await model.generate(ids, { maxTokens: 8, temperature: 0, stopIds: [], logprobs: true });
      const said = Uint32Array.from([...ids, ...reply.tokens]);
      const { promptLogprobs } = await model.generate(said, { maxTokens: 1, promptLogprobs: true });
      assert.deepEqual(
        [...promptLogprobs!.slice(ids.length - 1)],
        reply.logprobs?.map(({ logprob }) => logprob),
      );
      assert.notDeepEqual(promptLogprobs, (await model.score(said)).logprobs, "which goes by 16 tokens, the reply by 200");
    });
  }

  for (const c of logitsCases.filter(({ input_ids }) => input_ids.length === 90)) {
    it(`${c.name}: a session goes by maxContextTokens from its first token on, in any pieces the same bits`, async () => {
      const checkpoint = await openCheckpoint(await scaled(c));
      try {
        const V = checkpoint.config.vocabSize;
        const run = async (maxContextTokens: number, ...pieces: readonly number[][]): Promise<Float32Array[]> => {
          const { model } = await loadModel(checkpoint, kernels, { dtype: "f32", kvDtype: "f32", maxContextTokens });
          const rows = pieces.map((chunks) => feed(model, c.input_ids, chunks));
          model.dispose();
          return rows;
        };
        const [whole, one, cut] = (await run(90, [90], [1], [7, 30, 2])) as [Float32Array, Float32Array, Float32Array];
        assert.ok(sameBits(one, whole) && sameBits(cut, whole));
        // at its own length a session is what one pass is
        const last = (arrays.get(c.logits) ?? assert.fail(c.logits)).subarray(-V);
        assert.ok(distance(whole.subarray(-V), last) < TOLERANCE);
        // and a longer one is another where the kind looks at the length: longrope only across the border, which 90 have passed
        const [longer] = (await run(200, [90])) as [Float32Array];
        assert.equal(sameBits(longer, whole), checkpoint.config.ropeScaling.type !== "dynamic");
        const [shorter] = (await run(128, [30, 60])) as [Float32Array];
        assert.equal(sameBits(shorter, whole), checkpoint.config.ropeScaling.type !== "dynamic");
        const { config } = checkpoint;
        const isOne = new Set([1, 90, 200].map((length) => frequencyLength(config, length))).size === 1;
        assert.equal(isOne, !["dynamic", "longrope"].includes(c.rope_parameters.rope_type));
      } finally {
        await checkpoint.close();
      }
    });
  }
});
