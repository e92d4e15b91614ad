// config.json and GGUF metadata to a config: every spelling, and a sentence for every contradiction.
import assert from "node:assert/strict";
import { MAX_LAYERS, parseConfig } from "../../src/models/config.ts";
import { configFromGguf, hfNames } from "../../src/models/names.ts";
import type { GgufValue } from "../../src/weights/gguf.ts";
import { parseJsonBytes } from "../../src/weights/json-scan.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";

const hf = {
  model_type: "lfm2",
  vocab_size: 100,
  hidden_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  intermediate_size: 96,
  block_auto_adjust_ff_dim: false,
  layer_types: ["conv", "full_attention", "conv"],
  eos_token_id: [7, 2],
};

describe("config.json", () => {
  it("has the reference's defaults", () => {
    const c = parseConfig(hf);
    assert.deepEqual([c.convLCache, c.convBias, c.normEps, c.ropeTheta, c.tieWordEmbeddings, c.headDim], [3, false, 1e-5, 1e6, true, 32]);
    assert.deepEqual(c.eosTokenIds, [7, 2]);
  });

  it("adjusts the ffn size as the reference does; the tensor's shape wins", () => {
    const size = (extra: object): number => parseConfig({ ...hf, block_auto_adjust_ff_dim: true, ...extra }).intermediateSize;
    assert.equal(size({ intermediate_size: 6656 }), 4608);
    assert.equal(size({ intermediate_size: 12288 }), 8192);
    assert.equal(size({ intermediate_size: 120, block_multiple_of: 16, block_ffn_dim_multiplier: 1.3 }), 112);
    assert.equal(size({ intermediate_size: 100, block_ffn_dim_multiplier: null }), 66);
    assert.equal(parseConfig({ ...hf, intermediate_size: undefined }, { intermediateSize: 208 }).intermediateSize, 208);
  });

  const bad: readonly (readonly [string, object, string, RegExp])[] = [
    ["another model", { model_type: "llama" }, "UnsupportedError", /"model_type": expected "lfm2", got "llama"/],
    [
      "an unknown rotary scaling",
      { rope_parameters: { rope_type: "ntk", factor: 4 } },
      "UnsupportedError",
      /"rope_type".*llama3, got "ntk"/,
    ],
    [
      "two kinds of scaling in one",
      { rope_parameters: { rope_type: "yarn", type: "linear", factor: 4 } },
      "FormatError",
      /"rope_type" and "type"/,
    ],
    ["a scaling without a factor", { rope_parameters: { rope_type: "linear" } }, "FormatError", /"factor".*positive number, got nothing/],
    ["a ramp that is no number", { rope_parameters: { rope_type: "yarn", factor: 4, beta_fast: "32" } }, "FormatError", /"beta_fast"/],
    [
      "too few divisors",
      { rope_parameters: { rope_type: "longrope", short_factor: [1], long_factor: [1] } },
      "FormatError",
      /"short_factor".*16 positive/,
    ],
    [
      "bands the wrong way round",
      { rope_parameters: { rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 1 } },
      "FormatError",
      /"high_freq_factor".*more than low_freq_factor 4/,
    ],
    ["heads that do not divide", { num_key_value_heads: 3, num_attention_heads: 4 }, "FormatError", /"num_key_value_heads".* 4 heads.*3/],
    ["heads that do not divide the width", { num_attention_heads: 3, num_key_value_heads: 3 }, "FormatError", /"num_attention_heads".*64/],
    ["a layer of another kind", { layer_types: ["conv", "mamba", "conv"] }, "UnsupportedError", /"mamba"/],
    ["an id beyond the vocabulary", { eos_token_id: [7, 100] }, "FormatError", /"eos_token_id".*below vocab_size 100/],
    ["weights of another library", { quantization_config: { quant_method: "awq" } }, "UnsupportedError", /"awq"/],
    ["another width inside", { conv_dim: 32 }, "UnsupportedError", /"conv_dim": expected hidden_size 64, got 32/],
    ["no rotary embedding", { use_pos_enc: false }, "UnsupportedError", /"use_pos_enc"/],
    ["another activation", { block_use_swiglu: false }, "UnsupportedError", /"block_use_swiglu"/],
    ["two widths", { block_dim: 128 }, "FormatError", /"hidden_size" and "block_dim"/],
    ["two epsilons", { norm_eps: 1e-5, block_norm_eps: 1e-6 }, "FormatError", /"norm_eps" and "block_norm_eps"/],
    ["two ties", { tie_embedding: true, tie_word_embeddings: false }, "FormatError", /"tie_embedding" and "tie_word_embeddings"/],
    ["two ffn sizes", { block_ff_dim: 192, intermediate_size: 96 }, "FormatError", /"intermediate_size".*"block_ff_dim" 192/],
    [
      "three thetas",
      { theta: 1e6, rope_theta: 1e6, rope_parameters: { rope_theta: 1e4 } },
      "FormatError",
      /"rope_theta".*"rope_parameters.rope_theta"/,
    ],
    [
      "a scaling beside default parameters",
      { rope_parameters: { rope_type: "default" }, rope_scaling: { type: "yarn" } },
      "FormatError",
      /"rope_parameters" and "rope_scaling" to agree/,
    ],
    ["parameters that are a list", { rope_parameters: [] }, "FormatError", /"rope_parameters"/],
    ["no model type", { model_type: undefined }, "FormatError", /"model_type".*got nothing/],
    ["seven taps", { conv_L_cache: 7 }, "UnsupportedError", /taps.*7/],
    ["an odd width", { hidden_size: 66 }, "UnsupportedError", /66/],
    ["two thetas", { theta: 1e4, rope_theta: 1e6 }, "FormatError", /"rope_theta" and "theta" to agree/],
    ["two head counts", { num_heads: 4 }, "FormatError", /"num_attention_heads" and "num_heads"/],
    ["two layer lists", { full_attn_idxs: [0] }, "FormatError", /"layer_types" and "full_attn_idxs"/],
    ["too few layer types", { layer_types: ["conv"] }, "FormatError", /"layer_types": expected 3 times/],
    ["a layer that is not there", { layer_types: undefined, full_attn_idxs: [5] }, "FormatError", /"full_attn_idxs"/],
    ["a negative size", { vocab_size: -1 }, "FormatError", /"vocab_size": expected a positive whole number, got -1/],
    ["a size beyond reason", { hidden_size: 2 ** 40 }, "FormatError", /"hidden_size"/],
    ["text for a number", { norm_eps: "1e-5" }, "FormatError", /"norm_eps"/],
    ["a missing size", { num_hidden_layers: undefined }, "FormatError", /"num_hidden_layers".*got nothing/],
    ["half an id", { eos_token_id: 1.5 }, "FormatError", /"eos_token_id"/],
    ["a word for a flag", { conv_bias: "no" }, "FormatError", /"conv_bias"/],
  ];
  for (const [what, extra, name, message] of bad) {
    it(`refuses ${what}`, () => assert.throws(() => parseConfig({ ...hf, ...extra }), { name, message }));
  }

  it("reads every spelling", () => {
    const plain = parseConfig({ ...hf, norm_eps: 2e-5, rope_theta: 5e5, tie_word_embeddings: false });
    const { num_attention_heads: num_heads, hidden_size: block_dim, intermediate_size: block_ff_dim, layer_types: _, ...rest } = hf;
    const other = {
      ...rest,
      num_heads,
      block_dim,
      block_ff_dim,
      full_attn_idxs: [1],
      block_norm_eps: 2e-5,
      theta: 5e5,
      tie_embedding: false,
    };
    assert.deepEqual(parseConfig(other), plain);
    const nested = { ...hf, norm_eps: 2e-5, tie_word_embeddings: false, dtype: "bfloat16", rope_scaling: null };
    for (const rope_parameters of [{ rope_type: "default", rope_theta: 5e5 }, { type: "default", rope_theta: 5e5 }, { rope_theta: 5e5 }])
      assert.deepEqual(parseConfig({ ...nested, rope_parameters }), plain);
    assert.deepEqual(parseConfig({ ...nested, rope_theta: 5e5, rope_parameters: { rope_theta: 5e5 } }), plain);
    assert.equal(parseConfig({ ...hf, max_position_embeddings: 2 ** 40 }).maxPositionEmbeddings, 2 ** 40);
  });

  it("takes an ffn size before or after the adjustment", () => {
    const both = { ...hf, block_auto_adjust_ff_dim: true, block_ff_dim: 6656 };
    for (const intermediate_size of [6656, 4608, undefined])
      assert.equal(parseConfig({ ...both, intermediate_size }).intermediateSize, 4608, String(intermediate_size));
    assert.throws(() => parseConfig({ ...both, intermediate_size: 4000 }, { intermediateSize: 4608 }), {
      name: "FormatError",
      message: /4608, got 4000/,
    });
  });

  it("refuses what is no object, and is not led astray by __proto__", () => {
    for (const json of [null, [], 3, "x"]) assert.throws(() => parseConfig(json), { name: "FormatError" });
    const polluted = JSON.parse(
      JSON.stringify({ ...hf, conv_bias: undefined }).replace("{", '{"__proto__":{"conv_bias":true},'),
    ) as unknown;
    assert.equal(parseConfig(polluted).convBias, false);
  });
});

describe("config.json under mutation", () => {
  const numbers = (config: object): number[] => Object.values(config).filter((value): value is number => typeof value === "number");
  const kinds: readonly (readonly [string, object])[] = [
    ["one dialect", { ...hf, layer_types: ["conv", "full_attention"], num_hidden_layers: 2, rope_parameters: { rope_theta: 1e6 } }],
    [
      "the other",
      { ...hf, layer_types: undefined, full_attn_idxs: [1], num_hidden_layers: 2, conv_L_cache: 3, block_auto_adjust_ff_dim: true },
    ],
  ];
  for (const [what, config] of kinds) {
    it(`ends with one of our errors, or gives a config of whole numbers within their limits: ${what}`, async () => {
      const bytes = new TextEncoder().encode(JSON.stringify(config));
      const clean = Object.getOwnPropertyNames(Object.prototype);
      const seen = await fuzz(
        bytes,
        bytes.length,
        pick({ gate: 10_000, full: 1_000_000 }),
        (mutated) => parseConfig(parseJsonBytes(mutated, "config.json", { maxBytes: 1 << 20 })),
        (parsed) => {
          assert.ok(numbers(parsed).every(Number.isFinite));
          const sizes = [parsed.hiddenSize, parsed.intermediateSize, parsed.numAttentionHeads, parsed.numKeyValueHeads, parsed.vocabSize];
          assert.ok(sizes.every((n) => Number.isSafeInteger(n) && n >= 1));
          assert.equal(parsed.layerTypes.length, parsed.numHiddenLayers);
          assert.ok(parsed.numHiddenLayers <= MAX_LAYERS && parsed.eosTokenIds.every((id) => Number.isSafeInteger(id) && id >= 0));
        },
      );
      assert.deepEqual(Object.getOwnPropertyNames(Object.prototype), clean);
      assert.ok(seen.accepted > 100 && seen.refused > 1000, JSON.stringify(seen));
    });
  }
});

describe("a GGUF's metadata", () => {
  const metadata = (extra: Record<string, GgufValue | undefined> = {}): Map<string, GgufValue> =>
    new Map(
      Object.entries<GgufValue | undefined>({
        "general.architecture": "lfm2",
        "lfm2.block_count": 3,
        "lfm2.embedding_length": 64,
        "lfm2.feed_forward_length": 96,
        "lfm2.attention.head_count": 2,
        "lfm2.attention.head_count_kv": [0, 1, 0],
        "lfm2.vocab_size": 100,
        ...extra,
      }).filter((entry): entry is [string, GgufValue] => entry[1] !== undefined),
    );
  const read = (extra?: Record<string, GgufValue | undefined>) =>
    configFromGguf(metadata(extra), { bosId: 1, eosIds: [7] }, { tied: true });

  it("gives the same config as config.json", () => {
    assert.deepEqual(read({ "lfm2.context_length": 128_000 }), { ...parseConfig({ ...hf, eos_token_id: 7, bos_token_id: 1 }) });
  });

  it("reads a scaled rotary embedding as config.json does", () => {
    const { ropeScaling } = read({ "lfm2.rope.scaling.type": "linear", "lfm2.rope.scaling.factor": 4 });
    assert.deepEqual(ropeScaling, parseConfig({ ...hf, rope_parameters: { rope_type: "linear", factor: 4 } }).ropeScaling);
    assert.deepEqual(read({ "lfm2.rope.scale_linear": 4 }).ropeScaling, ropeScaling);
    assert.deepEqual(read({ "lfm2.rope.scaling.type": "none" }).ropeScaling, { type: "default" });
    const scaling = { "lfm2.rope.scaling.type": "yarn", "lfm2.rope.scaling.factor": 8, "lfm2.rope.scaling.original_context_length": 64 };
    assert.deepEqual(
      read({ ...scaling, "lfm2.rope.scaling.yarn_beta_fast": 16 }).ropeScaling,
      parseConfig({ ...hf, rope_scaling: { type: "yarn", factor: 8, original_max_position_embeddings: 64, beta_fast: 16 } }).ropeScaling,
    );
  });

  const bad: readonly (readonly [string, Record<string, GgufValue | undefined>, string, RegExp])[] = [
    ["another architecture", { "general.architecture": "llama" }, "UnsupportedError", /"llama"/],
    ["a list of the wrong length", { "lfm2.attention.head_count_kv": [0, 1] }, "FormatError", /head_count_kv.*expected 3/],
    ["heads that differ by layer", { "lfm2.attention.head_count_kv": [2, 1, 0] }, "FormatError", /head_count_kv/],
    ["no width", { "lfm2.embedding_length": undefined }, "FormatError", /embedding_length.*got none/],
    ["no architecture", { "general.architecture": undefined }, "FormatError", /general.architecture.*got none/],
    ["an architecture that is a number", { "general.architecture": 5 }, "FormatError", /general.architecture.*got number/],
    ["half a layer", { "lfm2.block_count": 2.5 }, "FormatError", /block_count/],
    [
      "longrope, whose divisors are tensors",
      { "lfm2.rope.scaling.type": "longrope", "lfm2.rope.scaling.factor": 4 },
      "UnsupportedError",
      /none, linear or yarn, got "longrope"/,
    ],
    ["linear scaling without a factor", { "lfm2.rope.scaling.type": "linear" }, "FormatError", /scale_linear.*got none/],
    [
      "another attention factor",
      { "lfm2.rope.scaling.type": "yarn", "lfm2.rope.scaling.attn_factor": 2 },
      "UnsupportedError",
      /attn_factor.*got 2/,
    ],
  ];
  for (const [what, extra, name, message] of bad) it(`refuses ${what}`, () => assert.throws(() => read(extra), { name, message }));

  it("refuses both spellings of the final norm", () => {
    const tensor = {} as never;
    const tensors = new Map([
      ["token_embd_norm.weight", tensor],
      ["output_norm.weight", tensor],
    ]);
    assert.throws(() => hfNames({ tensors, unsupported: new Map() }), { name: "FormatError", message: /both/ });
    tensors.delete("token_embd_norm.weight");
    assert.deepEqual([...hfNames({ tensors, unsupported: new Map() }).tensors.keys()], ["model.embedding_norm.weight"]);
  });

  it("refuses a tensor by the names of both formats: none takes the other's place unseen", () => {
    const both = ["blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"].map((name) => [name, {} as never] as const);
    const says = /expected one "model\.layers\.3\.self_attn\.q_proj\.weight", got both "blk\.3\.attn_q\.weight" and "model/;
    for (const file of [
      { tensors: new Map(both), unsupported: new Map() },
      { tensors: new Map(both.slice(0, 1)), unsupported: new Map([[both[1]?.[0] ?? "", "a sentence"]]) },
    ])
      assert.throws(() => hfNames(file), { name: "FormatError", message: says });
  });
});
