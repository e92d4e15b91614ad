// How a GGUF spells LFM2: its tensor names in Hugging Face's, and its metadata as a config. Other formats use Hugging Face's names as they are.
import { FormatError, UnsupportedError } from "../errors.ts";
import { quoted } from "../values.ts";
import type { GgufValue } from "../weights/gguf.ts";
import type { WeightFile } from "../weights/tensor.ts";
import { checkConfig, type Lfm2Config, MAX_LAYERS, NOT_IN_GGUF, type TensorHints } from "./config.ts";
import type { RopeScaling } from "./rope.ts";

const parts: ReadonlyMap<string, string> = new Map([
  ["attn_norm", "operator_norm"],
  ["ffn_norm", "ffn_norm"],
  ["ffn_gate", "feed_forward.w1"],
  ["ffn_down", "feed_forward.w2"],
  ["ffn_up", "feed_forward.w3"],
  ["shortconv.in_proj", "conv.in_proj"],
  ["shortconv.conv", "conv.conv"],
  ["shortconv.out_proj", "conv.out_proj"],
  ["attn_q", "self_attn.q_proj"],
  ["attn_k", "self_attn.k_proj"],
  ["attn_v", "self_attn.v_proj"],
  ["attn_output", "self_attn.out_proj"],
  ["attn_q_norm", "self_attn.q_layernorm"],
  ["attn_k_norm", "self_attn.k_layernorm"],
]);

/** The final norm goes by two names, both misleading: an old one and llama.cpp's. */
const FINAL_NORMS = ["token_embd_norm.weight", "output_norm.weight"];

function hfName(name: string): string {
  if (name === "token_embd.weight") return "model.embed_tokens.weight";
  if (FINAL_NORMS.includes(name)) return "model.embedding_norm.weight";
  if (name === "output.weight") return "lm_head.weight";
  const [, layer, part = ""] = /^blk\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const known = parts.get(part);
  return layer !== undefined && known !== undefined ? `model.layers.${layer}.${known}.weight` : name;
}

const partNames: ReadonlyMap<string, string> = new Map([...parts].map(([gguf, hf]) => [hf, gguf]));

/** What a GGUF calls the tensor of a Hugging Face name. */
export function ggufName(name: string): string {
  if (name === "model.embed_tokens.weight") return "token_embd.weight";
  if (name === "model.embedding_norm.weight") return "token_embd_norm.weight";
  if (name === "lm_head.weight") return "output.weight";
  const [, layer, part = ""] = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const known = partNames.get(part);
  return layer !== undefined && known !== undefined ? `blk.${layer}.${known}.weight` : name;
}

/**
 * @returns the tensors under Hugging Face's names; unknown ones keep theirs
 * @throws FormatError when two tensors are the same one by two spellings
 */
export function hfNames({ tensors, unsupported }: WeightFile): WeightFile {
  const spellings = new Map<string, string>();
  for (const name of [...tensors.keys(), ...unsupported.keys()]) {
    const other = spellings.get(hfName(name));
    if (other !== undefined)
      throw new FormatError(`gguf: expected one "${hfName(name)}", got both "${other}" and "${name}". Convert the model again.`);
    spellings.set(hfName(name), name);
  }
  const renamed = <T>(map: ReadonlyMap<string, T>): Map<string, T> => new Map([...map].map(([name, value]) => [hfName(name), value]));
  return { tensors: renamed(tensors), unsupported: renamed(unsupported), nameInFile: ggufName };
}

type Metadata = ReadonlyMap<string, GgufValue>;

function number(metadata: Metadata, key: string, fallback?: number): number {
  const value = metadata.get(key) ?? fallback;
  const n = typeof value === "bigint" ? Number(value) : value;
  if (typeof n !== "number" || !Number.isFinite(n) || n <= 0) {
    throw new FormatError(
      `gguf: key "${key}": expected a positive number, got ${value === undefined ? "none" : String(value)}. Convert the model again.`,
    );
  }
  return n;
}

function whole(metadata: Metadata, key: string, fallback?: number): number {
  const n = number(metadata, key, fallback);
  if (!Number.isSafeInteger(n) || n > 1 << 24)
    throw new FormatError(`gguf: key "${key}": expected a whole number, got ${n}. Convert the model again.`);
  return n;
}

/** An array of one entry a layer, or one number for all. */
function perLayer(metadata: Metadata, key: string, layers: number): number[] {
  const value = metadata.get(key);
  const list = Array.isArray(value) ? value.map(Number) : Array.from({ length: layers }, () => Number(value));
  if (list.length !== layers || !list.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new FormatError(
      `gguf: key "${key}": expected ${layers} whole numbers, got ${Array.isArray(value) ? value.length : String(value)}. Convert the model again.`,
    );
  }
  return list;
}

function theOnly(values: readonly number[], key: string): number {
  const some = values.filter((n) => n > 0);
  const first = some[0];
  if (first === undefined || some.some((n) => n !== first))
    throw new FormatError(`gguf: key "${key}": expected one number of heads for all attention layers, got ${some.join(", ") || "none"}.`);
  return first;
}

/** What the tokenizer's keys say of special tokens. */
export interface TokenIds {
  readonly bosId?: number | undefined;
  readonly eosIds?: readonly number[];
  readonly padId?: number | undefined;
}

/** The shapes that a GGUF's tensors give where its metadata is silent. */
export interface GgufHints extends TensorHints {
  readonly vocabSize?: number | undefined;
  readonly tied: boolean;
}

/** @throws UnsupportedError for a model that is no LFM2, FormatError when nothing says what it is */
export function checkArchitecture(metadata: Metadata): void {
  const architecture = metadata.get("general.architecture");
  if (architecture === "lfm2") return;
  const got = architecture === undefined ? "none" : typeof architecture === "string" ? quoted(architecture) : typeof architecture;
  const message = `gguf: key "general.architecture": expected "lfm2", got ${got}. This package runs Liquid AI's LFM2 text models.`;
  throw typeof architecture === "string" ? new UnsupportedError(message, { code: "model-type" }) : new FormatError(message);
}

/** Divisors of rotary frequencies: what llama.cpp's converter makes of longrope, and of llama3 (`rope_freqs`). No LFM2 has them. */
const ROPE_TENSOR = /^(?:blk\.\d+\.)?(?:rope_factors_(?:long|short)|rope_freqs)\.weight$/;

/** @throws UnsupportedError for a GGUF whose tensors change the rotary embedding: to skip them would be to compute another model */
export function checkRopeTensors({ tensors, unsupported }: WeightFile): void {
  for (const name of [...tensors.keys(), ...unsupported.keys()]) {
    if (!ROPE_TENSOR.test(name)) continue;
    throw new UnsupportedError(
      `gguf: expected rotary frequencies from the metadata, got a tensor "${name}" that divides them. Such a scaling is not supported in a GGUF: load the original folder, whose config.json has it.`,
      { code: "rope-tensors" },
    );
  }
}

/** Linear and yarn have keys; longrope's divisors are tensors: `checkRopeTensors`. */
function ropeScaling(metadata: Metadata, maxPositionEmbeddings: number): RopeScaling {
  const key = (name: string): string => `lfm2.rope.scaling.${name}`;
  const type = metadata.get(key("type")) ?? (metadata.has("lfm2.rope.scale_linear") ? "linear" : "none");
  if (type === "none") return { type: "default" };
  for (const name of ["attn_factor", "yarn_attn_factor", "yarn_ext_factor"]) {
    const value = number(metadata, key(name), 1);
    if (value !== 1) throw new UnsupportedError(`gguf: key "${key(name)}": expected 1, got ${value}. Such a scaling is not supported.`);
  }
  const factor = number(metadata, metadata.has(key("factor")) ? key("factor") : "lfm2.rope.scale_linear", type === "yarn" ? 1 : undefined);
  if (type === "linear") return { type, factor };
  if (type === "yarn") {
    return {
      type,
      factor,
      originalMaxPositionEmbeddings: whole(metadata, key("original_context_length"), maxPositionEmbeddings),
      attentionFactor: undefined,
      betaFast: number(metadata, key("yarn_beta_fast"), 32),
      betaSlow: number(metadata, key("yarn_beta_slow"), 1),
      mscale: undefined,
      mscaleAllDim: undefined,
      truncate: true,
    };
  }
  throw new UnsupportedError(
    `gguf: key "${key("type")}": expected none, linear or yarn, got ${JSON.stringify(type)}. Such a rotary embedding is not supported.`,
  );
}

/** @returns the config in a GGUF's metadata */
export function configFromGguf(metadata: Metadata, ids: TokenIds, hints: GgufHints): Lfm2Config {
  checkArchitecture(metadata);
  const numHiddenLayers = whole(metadata, "lfm2.block_count");
  if (numHiddenLayers > MAX_LAYERS)
    throw new FormatError(`gguf: key "lfm2.block_count": expected at most ${MAX_LAYERS}, got ${numHiddenLayers}.`);
  const kv = perLayer(metadata, "lfm2.attention.head_count_kv", numHiddenLayers);
  const hiddenSize = whole(metadata, "lfm2.embedding_length");
  const heads = theOnly(perLayer(metadata, "lfm2.attention.head_count", numHiddenLayers), "lfm2.attention.head_count");
  const maxPositionEmbeddings = whole(metadata, "lfm2.context_length", 128_000);
  const config: Lfm2Config = {
    modelType: "lfm2",
    vocabSize: hints.vocabSize ?? whole(metadata, "lfm2.vocab_size"),
    hiddenSize,
    intermediateSize: hints.intermediateSize ?? whole(metadata, "lfm2.feed_forward_length"),
    numHiddenLayers,
    numAttentionHeads: heads,
    numKeyValueHeads: kv.some((n) => n > 0) ? theOnly(kv, "lfm2.attention.head_count_kv") : heads,
    headDim: metadata.has("lfm2.attention.key_length") ? whole(metadata, "lfm2.attention.key_length") : hiddenSize / heads,
    layerTypes: kv.map((n) => (n > 0 ? "full_attention" : "conv")),
    convLCache: whole(metadata, "lfm2.shortconv.l_cache", 3),
    convBias: false,
    normEps: number(metadata, "lfm2.attention.layer_norm_rms_epsilon", 1e-5),
    ropeTheta: number(metadata, "lfm2.rope.freq_base", 1e6),
    ropeScaling: ropeScaling(metadata, maxPositionEmbeddings),
    tieWordEmbeddings: hints.tied,
    maxPositionEmbeddings,
    ...NOT_IN_GGUF,
    bosTokenId: ids.bosId,
    eosTokenIds: ids.eosIds ?? [],
    padTokenId: ids.padId,
  };
  checkConfig(config);
  return config;
}
