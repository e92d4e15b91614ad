// Shapes of LFM2 models: the published family and tiny ones that vary what matters.
//
// A preset is a plain object in one neutral vocabulary (Shape below); `configJson` writes it in either of the two
// dialects of config.json that are found in the wild, `tensorList` names its tensors.

/**
 * @typedef {object} Shape
 * @property {number} D hidden size
 * @property {number} H query heads
 * @property {number} G key/value heads
 * @property {number} F effective ffn size (rows of w1 and w3), after any adjustment
 * @property {number} V vocabulary
 * @property {string} layers one letter a layer: "c" short convolution, "A" attention
 * @property {number} Kc conv_L_cache
 * @property {boolean} convBias
 * @property {boolean} tied
 * @property {number} theta rotary base
 * @property {number} eps
 * @property {number} maxPositions
 * @property {{ff: number, auto: boolean, multiplier: number|null, multipleOf: number}} ff what config.json says about the ffn size
 * @property {"original"|"hf"} dialect
 * @property {{bos: number, eos: number|number[], pad: number}} ids
 */

const family = {
  Kc: 3,
  convBias: false,
  tied: true,
  theta: 1e6,
  eps: 1e-5,
  maxPositions: 128000,
  V: 65536,
  G: 8,
  dialect: "original",
  ids: { bos: 1, eos: 7, pad: 0 },
};
const auto = (ff, multipleOf = 256, multiplier = 1) => ({ ff, auto: true, multiplier, multipleOf });
const plain = (ff, multipleOf = 256) => ({ ff, auto: false, multiplier: 1, multipleOf });

/** Letters for `n` layers with attention at `at`. */
function pattern(n, at) {
  return Array.from({ length: n }, (_, i) => (at.includes(i) ? "A" : "c")).join("");
}
const sixteen = pattern(16, [2, 5, 8, 10, 12, 14]);

/** The published family. The 230m layer pattern is assumed (8 conv + 6 attention is known, the order is not). */
export const big = {
  "230m": { ...family, D: 1024, H: 16, layers: pattern(14, [2, 4, 6, 8, 10, 12]), F: 2560, ff: plain(2560), dialect: "hf" },
  "350m": { ...family, D: 1024, H: 16, layers: sixteen, F: 4608, ff: auto(6656) },
  "700m": { ...family, D: 1536, H: 24, layers: sixteen, F: 6912, ff: auto(10240) },
  "1.2b": { ...family, D: 2048, H: 32, layers: sixteen, F: 8192, ff: auto(12288) },
  "2.6b": { ...family, D: 2048, H: 32, layers: pattern(30, [2, 5, 9, 13, 17, 21, 24, 27]), F: 10752, ff: plain(10752) },
};

const small = { ...family, maxPositions: 2048 };

/** Tiny ones. What each varies is in the comment; golden/README.md has the table. */
export const tiny = {
  // conv first, GQA 1:1, head_dim 64, original dialect with adjusted ffn, vocabulary not a multiple of 64
  "tiny-conv-first": { ...small, D: 128, H: 2, G: 2, F: 256, ff: auto(384, 64), V: 515, layers: "ccAcA" },
  // attention first, GQA 2:1, head_dim 32, Kc 4, theta 1e4, untied, hf dialect, w2 has K = 208 (no multiple of 32)
  "tiny-attn-first": {
    ...small,
    D: 128,
    H: 4,
    G: 2,
    F: 208,
    ff: plain(208),
    V: 389,
    layers: "AcAc",
    Kc: 4,
    theta: 1e4,
    tied: false,
    dialect: "hf",
    ids: { bos: 1, eos: [7, 2], pad: 0 },
  },
  // only convolutions, Kc 2, with bias; D = 96
  "tiny-conv-only": { ...small, D: 96, H: 3, G: 1, F: 160, ff: plain(160), V: 300, layers: "ccc", Kc: 2, convBias: true },
  // only attention, GQA 4:1, head_dim 64
  "tiny-attn-only": { ...small, D: 256, H: 4, G: 1, F: 256, ff: plain(256), V: 331, layers: "AA", dialect: "hf" },
  // GQA 3:1, head_dim 64, conv bias, untied, adjusted ffn in the hf dialect, multiple_of 32
  "tiny-gqa3": {
    ...small,
    D: 192,
    H: 3,
    G: 1,
    F: 224,
    ff: auto(300, 32),
    V: 257,
    layers: "cAc",
    convBias: true,
    tied: false,
    dialect: "hf",
  },
  // deeper, head_dim 32, ffn multiplier 1.3, theta 1e4, original dialect
  "tiny-deep": { ...small, D: 64, H: 2, G: 1, F: 112, ff: auto(120, 16, 1.3), V: 515, layers: "ccAccAccAcAc", theta: 1e4 },
  // every K a multiple of 256: K-quants fit; GQA 2:1, head_dim 64; 515 tokens as in tokenizer.json
  "tiny-quant": { ...small, D: 256, H: 4, G: 2, F: 256, ff: plain(256), V: 515, layers: "cAc" },
};

/** For what shows only beside some size: 41 MB in bf16. */
export const mid = {
  mid: { ...family, D: 512, H: 8, G: 4, F: 1536, ff: plain(1536), V: 8192, maxPositions: 32768, layers: "cAccA" },
};

export const presets = { ...tiny, ...mid, ...big };

export const headDim = (s) => s.D / s.H;

/** What the reference computes from config.json for the ffn size; must equal `F`. */
export function effectiveFf({ ff, auto, multiplier, multipleOf }) {
  if (!auto) return ff;
  let f = Math.trunc((2 * ff) / 3);
  if (multiplier !== null) {
    f = Math.trunc(multiplier * f);
    f = multipleOf * Math.floor((f + multipleOf - 1) / multipleOf);
  }
  return f;
}

/** config.json of a shape, as an object. `dtype` is "bfloat16", "float16" or "float32". */
export function configJson(s, dtype, dialect = s.dialect) {
  const at = [...s.layers].flatMap((k, i) => (k === "A" ? [i] : []));
  const common = {
    architectures: ["Lfm2ForCausalLM"],
    model_type: "lfm2",
    vocab_size: s.V,
    hidden_size: s.D,
    num_hidden_layers: s.layers.length,
    num_attention_heads: s.H,
    num_key_value_heads: s.G,
    max_position_embeddings: s.maxPositions,
    norm_eps: s.eps,
    initializer_range: 0.02,
    use_cache: true,
    conv_L_cache: s.Kc,
    conv_bias: s.convBias,
    block_auto_adjust_ff_dim: s.ff.auto,
    block_ffn_dim_multiplier: s.ff.multiplier,
    block_multiple_of: s.ff.multipleOf,
    bos_token_id: s.ids.bos,
    eos_token_id: s.ids.eos,
    pad_token_id: s.ids.pad,
  };
  if (dialect === "original") {
    return {
      ...common,
      block_dim: s.D,
      block_ff_dim: s.ff.ff,
      block_norm_eps: s.eps,
      block_use_swiglu: true,
      conv_dim: s.D,
      conv_dim_out: s.D,
      full_attn_idxs: at,
      num_heads: s.H,
      theta: s.theta,
      tie_embedding: s.tied,
      torch_dtype: dtype,
      use_pos_enc: true,
    };
  }
  return {
    ...common,
    intermediate_size: s.ff.ff,
    layer_types: [...s.layers].map((k) => (k === "A" ? "full_attention" : "conv")),
    rope_parameters: { rope_theta: s.theta, rope_type: "default" },
    tie_word_embeddings: s.tied,
    dtype,
  };
}

/**
 * Tensors of a shape in the order in which files hold them. `std` and `centre` say how `fillTensor` scales them: chosen so that
 * the residual stream stays near 1 and every part of a layer matters in the logits.
 * @returns {{name: string, shape: number[], std: number, centre: number}[]}
 */
export function tensorList(s) {
  const { D, F, V, H, G, Kc } = s;
  const hd = headDim(s);
  const out = [];
  const add = (name, shape, std, centre = 0) => out.push({ name, shape, std, centre });
  const linear = (name, n, k, gain) => add(`${name}.weight`, [n, k], gain / Math.sqrt(k));
  const norm = (name, n, centre = 1) => add(`${name}.weight`, [n], 0.1, centre);
  add("model.embed_tokens.weight", [V, D], 0.1);
  for (let i = 0; i < s.layers.length; i++) {
    const p = `model.layers.${i}`;
    norm(`${p}.operator_norm`, D);
    norm(`${p}.ffn_norm`, D);
    if (s.layers[i] === "c") {
      linear(`${p}.conv.in_proj`, 3 * D, D, 1);
      add(`${p}.conv.conv.weight`, [D, 1, Kc], 1 / Math.sqrt(Kc));
      linear(`${p}.conv.out_proj`, D, D, 0.3);
      if (s.convBias) {
        add(`${p}.conv.in_proj.bias`, [3 * D], 0.2);
        add(`${p}.conv.conv.bias`, [D], 0.2);
        add(`${p}.conv.out_proj.bias`, [D], 0.05);
      }
    } else {
      linear(`${p}.self_attn.q_proj`, H * hd, D, 1);
      linear(`${p}.self_attn.k_proj`, G * hd, D, 1);
      linear(`${p}.self_attn.v_proj`, G * hd, D, 1);
      linear(`${p}.self_attn.out_proj`, D, H * hd, 0.6);
      norm(`${p}.self_attn.q_layernorm`, hd, 1.4);
      norm(`${p}.self_attn.k_layernorm`, hd, 1.4);
    }
    linear(`${p}.feed_forward.w1`, F, D, 1);
    linear(`${p}.feed_forward.w3`, F, D, 1);
    linear(`${p}.feed_forward.w2`, D, F, 0.5);
  }
  norm("model.embedding_norm", D);
  if (!s.tied) linear("lm_head", V, D, 2);
  return out;
}

/** A shape from config.json in either dialect; `rowsOfW1` is the real ffn size, which wins over the config. */
export function shapeFromConfig(j, rowsOfW1) {
  const n = j.num_hidden_layers;
  const at = j.full_attn_idxs ?? [...Array(n).keys()];
  const layers = j.layer_types ? j.layer_types.map((t) => (t === "full_attention" ? "A" : "c")).join("") : pattern(n, at);
  return {
    D: j.hidden_size,
    H: j.num_attention_heads ?? j.num_heads,
    G: j.num_key_value_heads,
    F: rowsOfW1,
    V: j.vocab_size,
    layers,
    Kc: j.conv_L_cache ?? 3,
    convBias: j.conv_bias ?? false,
    tied: j.tie_embedding ?? j.tie_word_embeddings ?? true,
    theta: j.theta ?? j.rope_theta ?? j.rope_parameters?.rope_theta ?? 1e6,
    eps: j.norm_eps ?? j.block_norm_eps ?? 1e-5,
    maxPositions: j.max_position_embeddings ?? 128000,
    dialect: j.layer_types ? "hf" : "original",
    ff: { ff: rowsOfW1, auto: false, multiplier: 1, multipleOf: 256 },
    ids: { bos: j.bos_token_id ?? 1, eos: j.eos_token_id ?? 7, pad: j.pad_token_id ?? 0 },
  };
}
