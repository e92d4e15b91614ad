// Wrong config.json files.
import { Buffer } from "node:buffer";
import { concat, json, rawJson, utf8, validConfig } from "./valid.mjs";
import { F, HTML, LFS, OK, U } from "./words.mjs";

const cfg = (change) => () => {
  const c = validConfig();
  return change(c) ?? json(c);
};
const set = (o) =>
  cfg((c) => {
    Object.assign(c, o);
  });
const rawCfg = (key, raw) =>
  cfg((c) => {
    c[key] = "@@";
    return utf8(rawJson(c, { "@@": raw }));
  });
export const CONFIG = [
  ["cf-empty", F, "config", "0 bytes", () => new Uint8Array(0)],
  ["cf-html", F, "config|JSON", "an HTML error page", () => utf8(HTML)],
  ["cf-git-lfs-pointer", F, "config|LFS|JSON", "a Git LFS pointer", () => utf8(LFS)],
  ["cf-array", F, "config", "an array", () => utf8("[]")],
  ["cf-null", F, "config", "null", () => utf8("null")],
  ["cf-cut", F, "config|JSON", "cut in the middle", () => json(validConfig()).slice(0, 150)],
  [
    "cf-utf16",
    F,
    "config|UTF-8|JSON",
    "UTF-16 with byte order mark",
    () => new Uint8Array(Buffer.from(`\ufeff${JSON.stringify(validConfig())}`, "utf16le")),
  ],
  ["cf-bom", OK, "", "UTF-8 with byte order mark", () => utf8(`\ufeff${JSON.stringify(validConfig())}`)],
  ["cf-too-long", F, "config|limit", "4 MiB of spaces", () => concat(json(validConfig()), " ".repeat(4 * 2 ** 20))],
  [
    "cf-deep-nesting",
    F,
    "nest|depth|config",
    "100,000 nested arrays under an unknown key",
    () => utf8(`{"x":${"[".repeat(100000)}${"]".repeat(100000)},${JSON.stringify(validConfig()).slice(1)}`),
  ],
  [
    "cf-proto",
    OK,
    "",
    "__proto__ holds other sizes: ignored, nothing polluted",
    () => utf8(`{"__proto__":{"hidden_size":1,"polluted":true},${JSON.stringify(validConfig()).slice(1)}`),
  ],
  ["cf-constructor", OK, "", "constructor.prototype.polluted", set({ constructor: { prototype: { polluted: true } } })],
  [
    "cf-auto-map",
    OK,
    "",
    "auto_map points to code: ignored, never fetched",
    set({ auto_map: { AutoModelForCausalLM: "attacker/repo--evil.Model" } }),
  ],
  ["cf-eps-nan", F, "norm_eps|JSON", "norm_eps NaN, as Python writes it", rawCfg("norm_eps", "NaN")],
  ["cf-eps-infinity", F, "norm_eps|JSON", "norm_eps Infinity", rawCfg("norm_eps", "Infinity")],
  ["cf-eps-negative", F, "norm_eps", "norm_eps -1", set({ norm_eps: -1 })],
  ["cf-hidden-1e400", F, "hidden_size", "hidden_size 1e400", rawCfg("hidden_size", "1e400")],
  ["cf-hidden-zero", F, "hidden_size", "hidden_size 0", set({ hidden_size: 0, conv_dim: 0 })],
  ["cf-hidden-negative", F, "hidden_size", "hidden_size -128", set({ hidden_size: -128 })],
  ["cf-hidden-fraction", F, "hidden_size", "hidden_size 128.5", set({ hidden_size: 128.5 })],
  ["cf-hidden-string", F, "hidden_size", 'hidden_size "128"', set({ hidden_size: "128" })],
  ["cf-hidden-2p31", F, "hidden_size|embed_tokens", "hidden_size 2^31", set({ hidden_size: 2 ** 31 })],
  [
    "cf-hidden-missing",
    F,
    "hidden_size",
    "no hidden_size",
    cfg((c) => {
      delete c.hidden_size;
    }),
  ],
  ["cf-layers-zero", F, "num_hidden_layers", "no layers", set({ num_hidden_layers: 0, layer_types: [] })],
  [
    "cf-layers-billion",
    F,
    "num_hidden_layers",
    "num_hidden_layers 1e9 without layer_types: nothing may loop or allocate by it",
    cfg((c) => {
      c.num_hidden_layers = 1e9;
      delete c.layer_types;
      c.full_attn_idxs = [1];
    }),
  ],
  ["cf-heads-zero", F, "num_attention_heads", "num_attention_heads 0", set({ num_attention_heads: 0 })],
  ["cf-heads-not-dividing", F, "num_attention_heads", "3 heads over 128", set({ num_attention_heads: 3 })],
  ["cf-kv-heads-not-dividing", F, "num_key_value_heads", "3 key/value heads for 2 heads", set({ num_key_value_heads: 3 })],
  ["cf-kv-heads-zero", F, "num_key_value_heads", "num_key_value_heads 0", set({ num_key_value_heads: 0 })],
  ["cf-vocab-zero", F, "vocab_size", "vocab_size 0", set({ vocab_size: 0 })],
  ["cf-vocab-true", F, "vocab_size", "vocab_size true", set({ vocab_size: true })],
  ["cf-model-type-other", U, "llama", "model_type llama", set({ model_type: "llama", architectures: ["LlamaForCausalLM"] })],
  [
    "cf-model-type-missing",
    F,
    "model_type",
    "no model_type",
    cfg((c) => {
      delete c.model_type;
    }),
  ],
  [
    "cf-model-type-proto",
    U,
    "__proto__",
    "model_type __proto__: a registry in a plain object finds something",
    set({ model_type: "__proto__" }),
  ],
  ["cf-model-type-constructor", U, "constructor", "model_type constructor", set({ model_type: "constructor" })],
  ["cf-model-type-path", U, "evil", "model_type ../../evil: never an import path", set({ model_type: "../../evil" })],
  [
    "cf-layer-types-too-many",
    F,
    "layer_types",
    "three layer_types for two layers",
    set({ layer_types: ["conv", "full_attention", "conv"] }),
  ],
  ["cf-layer-types-unknown", U, "mamba", "a layer type that LFM2 does not have", set({ layer_types: ["mamba", "full_attention"] })],
  [
    "cf-attn-idxs-out-of-range",
    F,
    "full_attn_idxs",
    "full_attn_idxs [5] of 2 layers",
    cfg((c) => {
      delete c.layer_types;
      c.full_attn_idxs = [5];
    }),
  ],
  [
    "cf-attn-idxs-negative",
    F,
    "full_attn_idxs",
    "full_attn_idxs [-1]",
    cfg((c) => {
      delete c.layer_types;
      c.full_attn_idxs = [-1];
    }),
  ],
  ["cf-conv-cache-zero", F, "conv_L_cache", "conv_L_cache 0", set({ conv_L_cache: 0 })],
  ["cf-rope-theta-zero", F, "rope_theta", "rope_theta 0", set({ rope_theta: 0 })],
  ["cf-rope-scaling", OK, "", "rope_scaling by 1", set({ rope_scaling: { rope_type: "linear", factor: 1 } })],
  [
    "cf-rope-scaling-unknown",
    U,
    "rope_scaling|mrope",
    "rope_scaling of an unknown kind: ignoring it would change the text",
    set({ rope_scaling: { rope_type: "mrope" } }),
  ],
  ["cf-rope-factor-negative", F, "factor", "rope_scaling factor -4", set({ rope_scaling: { rope_type: "linear", factor: -4 } })],
  [
    "cf-rope-factors-short",
    F,
    "short_factor",
    "longrope with one factor",
    set({ rope_scaling: { rope_type: "longrope", factor: 4, short_factor: [1], long_factor: [1] } }),
  ],
  [
    "cf-quantization-config",
    U,
    "quantization_config|bitsandbytes",
    "weights quantized by bitsandbytes",
    set({ quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } }),
  ],
  ["cf-eos-out-of-range", F, "eos_token_id", "eos_token_id 999999", set({ eos_token_id: 999999 })],
  ["cf-eos-string", F, "eos_token_id", "eos_token_id is a string", set({ eos_token_id: "<|im_end|>" })],
  ["cf-eos-list", OK, "", "eos_token_id is a list", set({ eos_token_id: [7, 2] })],
  ["cf-positions-zero", F, "max_position_embeddings", "max_position_embeddings 0", set({ max_position_embeddings: 0 })],
  ["cf-positions-huge", OK, "", "max_position_embeddings 2^40: nothing is allocated for it", set({ max_position_embeddings: 2 ** 40 })],
  ["cf-untied-without-head", F, "lm_head", "tie_embedding false, but no lm_head.weight", set({ tie_embedding: false })],
  ["cf-dtype-disagrees", OK, "", "torch_dtype float32, tensors BF16: the tensor is right", set({ torch_dtype: "float32" })],
];
