// A tiny valid model in every format, and the means to write it wrong: what the cases of this folder start from.
import { Buffer } from "node:buffer";

export const DIM = { V: 320, D: 128, F: 64, H: 2, G: 1, hd: 64, Kc: 3, L: 2 }; // layer 0 conv, layer 1 attention
export const SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
export const SPECIAL = [
  "<|pad|>",
  "<|startoftext|>",
  "<|endoftext|>",
  "<|fim_pre|>",
  "<|fim_mid|>",
  "<|fim_suf|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|tool_list_start|>",
  "<|tool_list_end|>",
  "<|tool_call_start|>",
  "<|tool_call_end|>",
  "<|tool_response_start|>",
  "<|tool_response_end|>",
];
export const TEMPLATE =
  "{{- bos_token -}}{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}{%- endfor -%}" +
  "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

export const utf8 = (s) => new Uint8Array(Buffer.from(s, "utf8"));
export const json = (v) => utf8(JSON.stringify(v));
export const concat = (...parts) => new Uint8Array(Buffer.concat(parts.map((p) => (typeof p === "string" ? utf8(p) : p))));
export const clone = (v) => structuredClone(v);
/** JSON text with a raw fragment put where the marker string stands; for what JSON.stringify cannot write (NaN, 1e400, duplicates). */
export const rawJson = (value, marks) => {
  let s = JSON.stringify(value);
  for (const [k, raw] of Object.entries(marks)) s = s.replaceAll(JSON.stringify(k), raw);
  return s;
};

/** The byte-level alphabet: byte → printable character. */
export function byteAlphabet() {
  const keep = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(keep(b) ? b : next++));
}
export const MERGES = [
  ["t", "h"],
  ["th", "e"],
  ["i", "n"],
  ["Ġ", "t"],
  ["e", "r"],
  ["a", "n"],
  ["Ġ", "a"],
  ["o", "n"],
  ["r", "e"],
  ["Ġ", "the"],
];
export const VOCAB = (() => {
  const tokens = [...SPECIAL, ...byteAlphabet(), ...MERGES.map(([a, b]) => a + b)];
  while (tokens.length < DIM.V) tokens.push(`<|reserved_${tokens.length}|>`);
  return tokens;
})();

export const validConfig = () => ({
  architectures: ["Lfm2ForCausalLM"],
  model_type: "lfm2",
  torch_dtype: "bfloat16",
  vocab_size: DIM.V,
  hidden_size: DIM.D,
  conv_dim: DIM.D,
  num_hidden_layers: DIM.L,
  num_attention_heads: DIM.H,
  num_key_value_heads: DIM.G,
  layer_types: ["conv", "full_attention"],
  conv_L_cache: DIM.Kc,
  conv_bias: false,
  block_auto_adjust_ff_dim: false,
  intermediate_size: DIM.F,
  norm_eps: 1e-5,
  rope_theta: 1000000,
  max_position_embeddings: 1024,
  tie_embedding: true,
  bos_token_id: 1,
  eos_token_id: 7,
  pad_token_id: 0,
});
export const validTokenizer = () => ({
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: VOCAB.flatMap((content, id) =>
    content.startsWith("<|") && content.endsWith("|>") && content.length > 4
      ? [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }]
      : [],
  ),
  normalizer: null,
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: SPLIT }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: true,
    vocab: Object.fromEntries(VOCAB.map((t, i) => [t, i])),
    merges: MERGES.map((m) => [...m]),
  },
});
export const validTokenizerConfig = () => ({
  bos_token: "<|startoftext|>",
  eos_token: "<|im_end|>",
  pad_token: "<|pad|>",
  tokenizer_class: "PreTrainedTokenizerFast",
  model_max_length: 1024,
});

/** name → shape, in the reference's names. */
export function tensorShapes() {
  const { V, D, F, H, G, hd, Kc } = DIM;
  const block = (i) => ({
    [`model.layers.${i}.operator_norm.weight`]: [D],
    [`model.layers.${i}.ffn_norm.weight`]: [D],
    [`model.layers.${i}.feed_forward.w1.weight`]: [F, D],
    [`model.layers.${i}.feed_forward.w2.weight`]: [D, F],
    [`model.layers.${i}.feed_forward.w3.weight`]: [F, D],
  });
  return {
    "model.embed_tokens.weight": [V, D],
    "model.embedding_norm.weight": [D],
    ...block(0),
    ...block(1),
    "model.layers.0.conv.in_proj.weight": [3 * D, D],
    "model.layers.0.conv.conv.weight": [D, 1, Kc],
    "model.layers.0.conv.out_proj.weight": [D, D],
    "model.layers.1.self_attn.q_proj.weight": [H * hd, D],
    "model.layers.1.self_attn.k_proj.weight": [G * hd, D],
    "model.layers.1.self_attn.v_proj.weight": [G * hd, D],
    "model.layers.1.self_attn.out_proj.weight": [D, H * hd],
    "model.layers.1.self_attn.q_layernorm.weight": [hd],
    "model.layers.1.self_attn.k_layernorm.weight": [hd],
  };
}
export const product = (shape) => shape.reduce((a, b) => a * b, 1);
/** Values in ±0.1 (norms: 1), the same for the same name in every format. */
function values(name, n) {
  if (name.includes("norm")) return new Float32Array(n).fill(1);
  let s = 2166136261;
  for (const c of name) s = Math.imul(s ^ c.charCodeAt(0), 16777619);
  return Float32Array.from({ length: n }, () => {
    s = (Math.imul(s, 1664525) + 1013904223) | 0;
    return ((s >>> 8) / 2 ** 24 - 0.5) * 0.2;
  });
}
export const bf16 = (x) => {
  const u = new Uint32Array(x.buffer, x.byteOffset, x.length);
  return new Uint8Array(Uint16Array.from(u, (v) => (v + 0x7fff + ((v >>> 16) & 1)) >>> 16).buffer);
};
export function f16bits(x) {
  // round to nearest, enough for |x| in [2^-14, 65504], zero and less
  const u = new Uint32Array(Float32Array.of(x).buffer)[0],
    s = (u >>> 16) & 0x8000,
    e = ((u >>> 23) & 255) - 112,
    m = u & 0x7fffff;
  if (e <= 0) return s | Math.min(1023, Math.round(Math.abs(x) * 2 ** 24));
  return s | Math.min(0x7c00, (e << 10) + ((m + 0xfff + ((m >>> 13) & 1)) >>> 13));
}
export const f16 = (x) => new Uint8Array(Uint16Array.from(x, f16bits).buffer);
export const f32 = (x) => new Uint8Array(x.buffer.slice(x.byteOffset, x.byteOffset + x.byteLength));
export function q8_0(x) {
  // blocks of 32: f16 scale, 32 × int8
  const out = new Uint8Array((x.length / 32) * 34),
    view = new DataView(out.buffer);
  for (let b = 0; b < x.length / 32; b++) {
    const block = x.subarray(b * 32, b * 32 + 32),
      d = block.reduce((m, v) => Math.max(m, Math.abs(v)), 0) / 127;
    view.setUint16(b * 34, f16bits(d), true);
    for (const [i, v] of block.entries()) view.setInt8(b * 34 + 2 + i, d ? Math.round(v / d) : 0);
  }
  return out;
}

const made = new Map();
/** A copy of a tensor's n values as `encode` (bf16, f16, f32 or q8_0) stores them: hundreds of files have the same ones. */
export function stored(encode, name, n) {
  const key = `${encode.name} ${name}`;
  if (!made.has(key)) made.set(key, encode(values(name, n)));
  return made.get(key).slice();
}

// ---------------------------------------------------------------- safetensors
/** [name, {dtype, shape, data_offsets}, bytes] of the valid file, offsets filled in. */
export function safetensorsEntries(names = Object.keys(tensorShapes())) {
  const shapes = tensorShapes();
  let at = 0;
  return names.map((name) => {
    const bytes = stored(bf16, name, product(shapes[name])),
      info = { dtype: "BF16", shape: shapes[name], data_offsets: [at, at + bytes.length] };
    at += bytes.length;
    return [name, info, bytes];
  });
}
export function u64(n) {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt.asUintN(64, BigInt(n)));
  return new Uint8Array(b);
}
/** Assembles a file from header text (or bytes) and data; `length` overrides the declared header length. */
export function safetensorsFile(headerText, data, { length, pad = true } = {}) {
  let header = typeof headerText === "string" ? utf8(headerText) : headerText;
  if (pad && header.length % 8) header = concat(header, " ".repeat(8 - (header.length % 8)));
  return concat(u64(length ?? header.length), header, data);
}
export const stData = (entries) => concat(...entries.map((e) => e[2]));
export function validSafetensors(names) {
  const e = safetensorsEntries(names);
  return safetensorsFile(JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(e.map(([n, i]) => [n, i])) }), stData(e));
}
/** The valid header with one change: `change(header, entries)` may return new data. */
export function stWith(change, options) {
  const e = safetensorsEntries(),
    header = { __metadata__: { format: "pt" }, ...Object.fromEntries(e.map(([n, i]) => [n, clone(i)])) };
  const data = change(header, e) ?? stData(e);
  return safetensorsFile(JSON.stringify(header), data, options);
}
export const stRaw = (change, options) => {
  const e = safetensorsEntries(),
    header = Object.fromEntries(e.map(([n, i]) => [n, clone(i)]));
  return safetensorsFile(change(header, e), stData(e), options);
};
/** Appends a well-formed extra tensor of `n` bytes. */
export const extra = (header, e, name, info, n = 8) => {
  const at = e.at(-1)[1].data_offsets[1];
  Object.defineProperty(header, name, {
    value: { dtype: "U8", shape: [n], data_offsets: [at, at + n], ...info },
    enumerable: true,
    configurable: true,
    writable: true,
  });
  return concat(stData(e), new Uint8Array(n));
};

// ---------------------------------------------------------------- GGUF
export const T = { u8: 0, i8: 1, u16: 2, i16: 3, u32: 4, i32: 5, f32: 6, bool: 7, str: 8, arr: 9, u64: 10, i64: 11, f64: 12 };
export const le = (n, method, v) => {
  const b = Buffer.alloc(n);
  b[method](v);
  return new Uint8Array(b);
};
export const u32 = (v) => le(4, "writeUInt32LE", v >>> 0);
export const ggStr = (s) => {
  const b = typeof s === "string" ? utf8(s) : s;
  return concat(u64(b.length), b);
};
export function ggValue(type, v) {
  switch (type) {
    case T.u8:
    case T.bool:
      return Uint8Array.of(Number(v));
    case T.i8:
      return le(1, "writeInt8", v);
    case T.u16:
      return le(2, "writeUInt16LE", v);
    case T.i16:
      return le(2, "writeInt16LE", v);
    case T.u32:
      return u32(v);
    case T.i32:
      return le(4, "writeInt32LE", v);
    case T.f32:
      return le(4, "writeFloatLE", v);
    case T.str:
      return ggStr(v);
    case T.u64:
    case T.i64:
      return u64(v);
    case T.f64:
      return le(8, "writeDoubleLE", v);
    default:
      return v; // raw bytes
  }
}
export const arr = (type, items) => ({ array: type, items });
export const GGML = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8, Q4_K: 12, BF16: 30, IQ2_XS: 17, Q4_2: 4 };
export const GG_NAMES = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.embedding_norm.weight": "token_embd_norm.weight",
  operator_norm: "attn_norm",
  ffn_norm: "ffn_norm",
  "feed_forward.w1": "ffn_gate",
  "feed_forward.w2": "ffn_down",
  "feed_forward.w3": "ffn_up",
  "conv.in_proj": "shortconv.in_proj",
  "conv.conv": "shortconv.conv",
  "conv.out_proj": "shortconv.out_proj",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.out_proj": "attn_output",
  "self_attn.q_layernorm": "attn_q_norm",
  "self_attn.k_layernorm": "attn_k_norm",
};
export const ggName = (n) =>
  GG_NAMES[n] ?? n.replace(/^model\.layers\.(\d+)\.(.*)\.weight$/, (_, i, k) => `blk.${i}.${GG_NAMES[k]}.weight`);
/** The parts of the valid GGUF: change them, then `ggufFile(parts)`. */
export function ggufParts() {
  const shapes = tensorShapes();
  return {
    magic: "GGUF",
    version: 3,
    nTensors: undefined,
    nKv: undefined,
    align: 32,
    kv: [
      ["general.architecture", T.str, "lfm2"],
      ["general.name", T.str, "tiny"],
      ["general.alignment", T.u32, 32],
      ["lfm2.block_count", T.u32, DIM.L],
      ["lfm2.context_length", T.u32, 1024],
      ["lfm2.embedding_length", T.u32, DIM.D],
      ["lfm2.feed_forward_length", T.u32, DIM.F],
      ["lfm2.attention.head_count", T.u32, DIM.H],
      ["lfm2.attention.head_count_kv", T.arr, arr(T.i32, [0, DIM.G])],
      ["lfm2.attention.layer_norm_rms_epsilon", T.f32, 1e-5],
      ["lfm2.rope.freq_base", T.f32, 1e6],
      ["lfm2.vocab_size", T.u32, DIM.V],
      ["lfm2.shortconv.l_cache", T.u32, DIM.Kc],
      ["tokenizer.ggml.model", T.str, "gpt2"],
      ["tokenizer.ggml.pre", T.str, "lfm2"],
      ["tokenizer.ggml.tokens", T.arr, arr(T.str, [...VOCAB])],
      [
        "tokenizer.ggml.token_type",
        T.arr,
        arr(
          T.i32,
          VOCAB.map((t) => (/^<\|.+\|>$/.test(t) ? 3 : 1)),
        ),
      ],
      [
        "tokenizer.ggml.merges",
        T.arr,
        arr(
          T.str,
          MERGES.map((m) => m.join(" ")),
        ),
      ],
      ["tokenizer.ggml.bos_token_id", T.u32, 1],
      ["tokenizer.ggml.eos_token_id", T.u32, 7],
      ["tokenizer.ggml.padding_token_id", T.u32, 0],
      ["tokenizer.ggml.add_bos_token", T.bool, true],
      ["tokenizer.chat_template", T.str, TEMPLATE],
    ],
    tensors: Object.entries(shapes).map(([name, shape]) => {
      const type = name.includes("norm") || name.includes("conv.conv") ? GGML.F32 : name.includes("feed_forward") ? GGML.Q8_0 : GGML.F16;
      const dims = shape.length === 3 ? [shape[2], shape[0]] : [...shape].reverse();
      const encode = type === GGML.F32 ? f32 : type === GGML.F16 ? f16 : q8_0;
      return { name: ggName(name), dims, type, data: stored(encode, name, product(shape)), offset: undefined };
    }),
    tail: new Uint8Array(0),
  };
}
/** Bytes of a GGUF; `marks`, when given, receives [label, position] of every structural boundary. */
export function ggufFile(p, marks = []) {
  const out = [];
  let at = 0;
  const put = (label, bytes) => {
    const b = typeof bytes === "string" ? utf8(bytes) : bytes;
    out.push(b);
    at += b.length;
    marks.push([label, at]);
  };
  put("magic", p.magic);
  put("version", p.versionBytes ?? u32(p.version));
  put("n_tensors", u64(p.nTensors ?? p.tensors.length));
  put("n_kv", u64(p.nKv ?? p.kv.length));
  for (const [key, type, value, raw = {}] of p.kv) {
    put("key length", u64(raw.keyLength ?? (typeof key === "string" ? utf8(key) : key).length));
    put("key", key);
    put("value type", u32(raw.type ?? type));
    if (type === T.arr && !(value instanceof Uint8Array)) {
      put("array type", u32(raw.arrayType ?? value.array));
      put("array length", u64(raw.arrayLength ?? value.items.length));
      put("array body", concat(...value.items.map((v) => ggValue(value.array, v))));
    } else put("value", ggValue(value instanceof Uint8Array ? -1 : type, value));
  }
  let offset = 0;
  for (const t of p.tensors) {
    put("name length", u64(t.nameLength ?? (typeof t.name === "string" ? utf8(t.name) : t.name).length));
    put("name", t.name);
    put("n_dims", u32(t.nDims ?? t.dims.length));
    put("dims", concat(...t.dims.map((d) => u64(d))));
    put("type", u32(t.type));
    put("offset", u64(t.offset ?? offset));
    offset += Math.ceil(t.data.length / p.align) * p.align;
  }
  put("padding", new Uint8Array((p.align - (at % p.align)) % p.align));
  if (p.headOnly) return { head: concat(...out), size: at + offset };
  for (const t of p.tensors) put("data", concat(t.data, new Uint8Array((p.align - (t.data.length % p.align)) % p.align)));
  put("tail", p.tail);
  return concat(...out);
}
export const validGguf = () => ggufFile(ggufParts());
export const gg = (change) => {
  const p = ggufParts();
  change(p);
  return ggufFile(p);
};
export const kv = (p, key) => p.kv.find((e) => e[0] === key);
export const setKv = (p, key, value, type) => {
  const e = kv(p, key);
  e[2] = value;
  if (type !== undefined) e[1] = type;
};
export const tensor = (p, name) => p.tensors.find((t) => t.name === name);

// ---------------------------------------------------------------- whole folders
export const once = (build) => {
  let v;
  return () => (v ??= build()).slice();
};
export const wholeSt = once(() => validSafetensors()),
  wholeTok = once(() => json(validTokenizer()));
export const validRepo = () => ({
  "config.json": json(validConfig()),
  "generation_config.json": json({ bos_token_id: 1, eos_token_id: 7, pad_token_id: 0 }),
  "tokenizer.json": wholeTok(),
  "tokenizer_config.json": json(validTokenizerConfig()),
  "chat_template.jinja": utf8(TEMPLATE),
  "model.safetensors": wholeSt(),
});
export const SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
/** Two shards and their index; `change(index, files)` may alter both. */
export function validSharded(change = () => {}) {
  const names = Object.keys(tensorShapes()),
    half = [names.slice(0, 8), names.slice(8)],
    files = validRepo();
  delete files["model.safetensors"];
  half.forEach((n, i) => {
    files[SHARDS[i]] = validSafetensors(n);
  });
  const index = {
    metadata: { total_size: half.flat().reduce((s, n) => s + 2 * product(tensorShapes()[n]), 0) },
    weight_map: Object.fromEntries(half.flatMap((n, i) => n.map((k) => [k, SHARDS[i]]))),
  };
  const raw = change(index, files);
  files["model.safetensors.index.json"] = raw ?? json(index);
  return files;
}

export const PARTS = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];
/** The valid GGUF in two parts, as llama.cpp's gguf-split cuts it: all metadata in the first. `change(first, second)` may alter both. */
export function validSplit(change = () => {}) {
  const first = ggufParts();
  const total = first.tensors.length;
  const keys = (no) => [
    ["split.no", T.u16, no],
    ["split.count", T.u16, 2],
    ["split.tensors.count", T.i32, total],
  ];
  const second = { ...ggufParts(), kv: keys(1), tensors: first.tensors.splice(7) };
  first.kv.push(...keys(0));
  change(first, second);
  return { [PARTS[0]]: ggufFile(first), [PARTS[1]]: ggufFile(second) };
}
