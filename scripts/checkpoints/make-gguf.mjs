#!/usr/bin/env node
// Writes an LFM2 GGUF (version 3) from a preset and seed, or from a checkpoint folder, one chunk at a time.
//
//   node make-gguf.mjs --preset tiny-quant --seed 1 --type Q4_K_M --out x.gguf [--tokenizer tokenizer.json] [--template t.jinja]
//   node make-gguf.mjs --from DIR --type Q8_0 --out x.gguf [--final-norm output_norm]
//
// --type F32 F16 BF16 Q8_0 Q4_0 Q4_K (every matrix) Q4_K_M Q5_K_M Q6_K, MIXED (every block format of these in one file, for tests), or
// Q4_1 Q5_0 Q5_1 IQ4_NL Q2_K Q3_K, then for every matrix but the embedding.
// Made from a preset, the weights are rounded to bf16 first, so that they are the weights of the bf16 checkpoint of the same seed.
// What is kept in which format follows the files that Liquid ships: norms and convolution taps F32; token_embd Q6_K in the Q4 and
// Q5 files; ffn_down and attn_v partly Q6_K in the _M files. A row that a format does not divide is stored as Q8_0 or F16 instead.
// Keys and tensor names are those of llama.cpp's converter. conv_bias has no place in that format and is refused.
import { closeSync, existsSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { count, encode, fillTensor, parseArgs, presetOf } from "./make-checkpoint.mjs";
import { shapeFromConfig, tensorList } from "./presets.mjs";
import { quantize, types } from "./quants.mjs";

const ALIGNMENT = 32;
const fileTypes = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, Q4_K: 14, Q4_K_M: 15, Q5_K_M: 17, Q6_K: 18, BF16: 32, MIXED: 15 };
/** Types of the whole file but the embedding, which is Q6_K, with the file type of the mixture whose name is nearest. */
const plainTypes = { Q4_1: 3, Q5_0: 8, Q5_1: 9, IQ4_NL: 25, Q2_K: 10, Q3_K: 12 };

// ---- where weights come from ----

/** A source has `shape` and `read(tensor, start, n)` → Float32Array. */
export function fromPreset(name, seed) {
  const shape = presetOf(name);
  const read = (t, start, n) => {
    const bf16 = encode(fillTensor(seed, t, start, new Float32Array(n)), "bf16");
    return widen(bf16, "BF16");
  };
  return { shape, read };
}

function widen(bytes, dtype) {
  const aligned = new Uint8Array(bytes).buffer;
  if (dtype === "F32") return new Float32Array(aligned);
  const u16 = new Uint16Array(aligned);
  const out = new Uint32Array(u16.length);
  if (dtype === "BF16") {
    for (let i = 0; i < out.length; i++) out[i] = u16[i] << 16;
    return new Float32Array(out.buffer);
  }
  if (dtype !== "F16") throw new Error(`dtype ${dtype} is not handled`);
  const f = new Float32Array(u16.length);
  for (let i = 0; i < f.length; i++) {
    const e = (u16[i] >>> 10) & 31;
    const m = u16[i] & 1023;
    f[i] = (u16[i] & 0x8000 ? -1 : 1) * (e === 0 ? m * 2 ** -24 : (1024 + m) * 2 ** (e - 25));
  }
  return f;
}

export function fromFolder(dir) {
  const indexPath = join(dir, "model.safetensors.index.json");
  const files = existsSync(indexPath)
    ? [...new Set(Object.values(JSON.parse(readFileSync(indexPath, "utf8")).weight_map))]
    : ["model.safetensors"];
  const where = new Map();
  for (const file of files) {
    const fd = openSync(join(dir, file), "r");
    const head = Buffer.alloc(8);
    readSync(fd, head, 0, 8, 0);
    const size = Number(head.readBigUInt64LE());
    const json = Buffer.alloc(size);
    readSync(fd, json, 0, size, 8);
    for (const [name, info] of Object.entries(JSON.parse(json.toString("utf8"))))
      if (name !== "__metadata__") where.set(name, { fd, dtype: info.dtype, shape: info.shape, at: 8 + size + info.data_offsets[0] });
  }
  const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8"));
  const shape = shapeFromConfig(config, where.get("model.layers.0.feed_forward.w1.weight").shape[0]);
  const read = (t, start, n) => {
    const w = where.get(t.name);
    const each = w.dtype === "F32" ? 4 : 2;
    const bytes = Buffer.alloc(n * each);
    readSync(w.fd, bytes, 0, bytes.length, w.at + start * each);
    return widen(bytes, w.dtype);
  };
  return { shape, read };
}

// ---- names and formats ----

const parts = {
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

function ggufName(name, finalNorm) {
  if (name === "model.embed_tokens.weight") return "token_embd.weight";
  if (name === "model.embedding_norm.weight") return `${finalNorm}.weight`;
  if (name === "lm_head.weight") return "output.weight";
  const [, layer, part] = name.match(/^model\.layers\.(\d+)\.(.+)\.weight$/);
  return `blk.${layer}.${parts[part]}.weight`;
}

/** The layers whose ffn_down and attn_v get more bits in a `_M` file: first and last eighth and every third between. */
function moreBits(i, n) {
  return i < Math.floor(n / 8) || i >= Math.floor((7 * n) / 8) || (i - Math.floor(n / 8)) % 3 === 2;
}

function wanted(name, scheme, shape, order) {
  if (["F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K"].includes(scheme)) return scheme;
  const isHead = name === "output.weight" || (name === "token_embd.weight" && shape.tied);
  if (scheme === "MIXED") {
    if (isHead) return "Q6_K";
    if (name.includes("attn_k.")) return "F16";
    if (name.includes("attn_v.")) return "BF16";
    return ["Q4_K", "Q5_K", "Q8_0", "Q6_K", "Q4_0"][order % 5];
  }
  if (isHead) return "Q6_K";
  if (scheme === "Q4_0" || scheme in plainTypes) return scheme;
  const base = scheme === "Q4_K_M" ? "Q4_K" : "Q5_K";
  const [, layer, part] = name.match(/^blk\.(\d+)\.(.+)\.weight$/) ?? [];
  const attention = [...shape.layers].flatMap((k, i) => (k === "A" ? [i] : []));
  if (part === "ffn_down" && moreBits(Number(layer), shape.layers.length)) return "Q6_K";
  if (part === "attn_v" && moreBits(attention.indexOf(Number(layer)), attention.length)) return "Q6_K";
  return base;
}

function formatOf(name, { type: scheme, head }, tensor, shape, order) {
  if (tensor.shape.length === 1 || name.endsWith("shortconv.conv.weight")) return "F32";
  const isHead = name === "output.weight" || name === "token_embd.weight";
  const type = isHead && head ? head : wanted(name, scheme, shape, order);
  const K = tensor.shape.at(-1);
  if (K % types[type].block === 0) return type;
  return K % 32 === 0 ? "Q8_0" : "F16";
}

// ---- the file ----

class Writer {
  parts = [];
  u32(x) {
    const b = Buffer.alloc(4);
    b.writeUInt32LE(x);
    this.parts.push(b);
    return this;
  }
  i32(x) {
    const b = Buffer.alloc(4);
    b.writeInt32LE(x);
    this.parts.push(b);
    return this;
  }
  u64(x) {
    const b = Buffer.alloc(8);
    b.writeBigUInt64LE(BigInt(x));
    this.parts.push(b);
    return this;
  }
  f32(x) {
    const b = Buffer.alloc(4);
    b.writeFloatLE(x);
    this.parts.push(b);
    return this;
  }
  text(s) {
    const b = Buffer.from(s, "utf8");
    this.u64(b.length).parts.push(b);
    return this;
  }
  bytes() {
    return Buffer.concat(this.parts);
  }
}
const kinds = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 };

function putValue(w, kind, v) {
  if (kind === "bool") w.parts.push(Buffer.from([v ? 1 : 0]));
  else if (kind === "string") w.text(v);
  else w[kind](v);
}

function putKey(w, [key, kind, value]) {
  w.text(key);
  if (!Array.isArray(value)) {
    w.u32(kinds[kind]);
    return putValue(w, kind, value);
  }
  w.u32(kinds.array).u32(kinds[kind]).u64(value.length);
  for (const v of value) putValue(w, kind, v);
}

/** tokenizer.json → the tokenizer.ggml.* keys. Types: 1 normal, 3 control, 4 user-defined, 5 unused. */
function tokenizerKeys(file, shape, template) {
  const keys = [];
  const one = (eos) => (Array.isArray(eos) ? eos[0] : eos);
  if (!file) keys.push(["tokenizer.ggml.model", "string", "none"]);
  else {
    const j = JSON.parse(readFileSync(file, "utf8"));
    const tokens = Array.from({ length: shape.V }, (_, i) => `[PAD${i}]`);
    const kind = new Array(shape.V).fill(5);
    for (const [text, id] of Object.entries(j.model.vocab)) if (id < shape.V) [tokens[id], kind[id]] = [text, 1];
    for (const t of j.added_tokens) if (t.id < shape.V) [tokens[t.id], kind[t.id]] = [t.content, t.special ? 3 : 4];
    keys.push(
      ["tokenizer.ggml.model", "string", "gpt2"],
      ["tokenizer.ggml.pre", "string", "lfm2"],
      ["tokenizer.ggml.tokens", "string", tokens],
      ["tokenizer.ggml.token_type", "i32", kind],
      ["tokenizer.ggml.merges", "string", j.model.merges.map((m) => (Array.isArray(m) ? m.join(" ") : m))],
    );
  }
  keys.push(
    ["tokenizer.ggml.bos_token_id", "u32", shape.ids.bos],
    ["tokenizer.ggml.eos_token_id", "u32", one(shape.ids.eos)],
    ["tokenizer.ggml.padding_token_id", "u32", shape.ids.pad],
    ["tokenizer.ggml.add_bos_token", "bool", true],
    ["tokenizer.ggml.add_eos_token", "bool", false],
  );
  if (template) keys.push(["tokenizer.chat_template", "string", readFileSync(template, "utf8")]);
  return keys;
}

function metadata(shape, scheme, name, tokenizer, template) {
  return [
    ["general.architecture", "string", "lfm2"],
    ["general.type", "string", "model"],
    ["general.name", "string", name],
    ["lfm2.block_count", "u32", shape.layers.length],
    ["lfm2.context_length", "u32", shape.maxPositions],
    ["lfm2.embedding_length", "u32", shape.D],
    ["lfm2.feed_forward_length", "u32", shape.F],
    ["lfm2.attention.head_count", "u32", shape.H],
    ["lfm2.attention.head_count_kv", "i32", [...shape.layers].map((k) => (k === "A" ? shape.G : 0))],
    ["lfm2.rope.freq_base", "f32", shape.theta],
    ["lfm2.attention.layer_norm_rms_epsilon", "f32", shape.eps],
    ["general.file_type", "u32", fileTypes[scheme] ?? plainTypes[scheme]],
    ["lfm2.vocab_size", "u32", shape.V],
    ["lfm2.shortconv.l_cache", "u32", shape.Kc],
    ["general.quantization_version", "u32", 2],
    ...tokenizerKeys(tokenizer, shape, template),
  ];
}

/** Rows written at a time, so that a chunk stays near four million values. */
const rowsAtOnce = (K) => Math.max(1, Math.floor((1 << 22) / K));

/**
 * @param options `type` as on the command line; `head`, a block type, is that of the embedding and the head where it should differ
 * @returns the file's header, padded, with its tensors in order, and how long the file is: all but the numbers
 */
export function layOut({ shape }, { type, head, name = "lfm2-random", tokenizer, template, finalNorm = "token_embd_norm" }) {
  if (shape.convBias) throw new Error("GGUF has no tensors for conv_bias");
  let offset = 0;
  let linears = 0;
  const tensors = tensorList(shape).map((t) => {
    const as = ggufName(t.name, finalNorm);
    const format = formatOf(as, { type, head }, t, shape, linears);
    if (format !== "F32" || t.shape.length === 2) linears++;
    const ne = t.shape.filter((_, i) => !(t.shape.length === 3 && i === 1)).reverse();
    const size = (count(t.shape) / types[format].block) * types[format].bytes;
    const entry = { ...t, as, format, ne, size, offset };
    offset += Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    return entry;
  });
  const keys = metadata(shape, type, name, tokenizer, template);
  const w = new Writer();
  w.parts.push(Buffer.from("GGUF"));
  w.u32(3).u64(tensors.length).u64(keys.length);
  for (const k of keys) putKey(w, k);
  for (const t of tensors) {
    w.text(t.as).u32(t.ne.length);
    for (const n of t.ne) w.u64(n);
    w.u32(types[t.format].id).u64(t.offset);
  }
  const keysAndTensors = w.bytes();
  const header = Buffer.alloc(Math.ceil(keysAndTensors.length / ALIGNMENT) * ALIGNMENT);
  keysAndTensors.copy(header);
  return { header, tensors, bytes: header.length + offset };
}

/** @param options as for `layOut`; `encoders` may replace the quantizer of a block type by another */
export function writeGguf(source, { encoders = {}, ...options }) {
  const { header, tensors } = layOut(source, options);
  const fd = openSync(options.out, "w");
  writeSync(fd, header);
  const pad = (n) => n && writeSync(fd, Buffer.alloc(n));
  for (const t of tensors) {
    const total = count(t.shape);
    const step = t.shape.length === 2 ? rowsAtOnce(t.shape[1]) * t.shape[1] : total;
    const encoded = encoders[t.format] ?? ((values) => quantize(values, t.format));
    for (let at = 0; at < total; at += step) writeSync(fd, encoded(source.read(t, at, Math.min(step, total - at))));
    pad((ALIGNMENT - (t.size % ALIGNMENT)) % ALIGNMENT);
  }
  closeSync(fd);
  return tensors;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const a = parseArgs(process.argv.slice(2));
  if (!a.out || !(a.preset || a.from) || !(a.type in fileTypes || a.type in plainTypes)) {
    console.error(
      "usage: make-gguf.mjs (--preset NAME [--seed 1] | --from DIR) --type TYPE --out FILE [--tokenizer FILE] [--template FILE] [--head TYPE] [--final-norm NAME] [--name TEXT]",
    );
    console.error(`types: ${[...Object.keys(fileTypes), ...Object.keys(plainTypes)].join(" ")}`);
    process.exit(2);
  }
  const source = a.from ? fromFolder(a.from) : fromPreset(a.preset, Number(a.seed ?? 1));
  const options = { type: a.type, out: a.out, tokenizer: a.tokenizer, template: a.template, name: a.name };
  if (a.head) options.head = a.head;
  if (a["final-norm"]) options.finalNorm = a["final-norm"];
  writeGguf(source, options);
}
