// The configuration of an LFM2 model, from a config.json in either dialect. Trusts nothing: two spellings of one key that disagree are an error, never a guess.
import { FormatError, UnsupportedError } from "../errors.ts";
import { isRecord, kindOf, quoted } from "../values.ts";
import { parseRopeScaling, type RopeScaling, type RopeShape } from "./rope.ts";

/** Kind of a layer's operator, in config.json's words. */
export type LayerType = "conv" | "full_attention";

/** An LFM2 model's configuration; names as in the reference, camelCase. */
export interface Lfm2Config {
  readonly modelType: "lfm2";
  /** V */
  readonly vocabSize: number;
  /** D */
  readonly hiddenSize: number;
  /** F, after any adjustment: the rows of w1. */
  readonly intermediateSize: number;
  /** L */
  readonly numHiddenLayers: number;
  /** H */
  readonly numAttentionHeads: number;
  /** G */
  readonly numKeyValueHeads: number;
  /** hd */
  readonly headDim: number;
  readonly layerTypes: readonly LayerType[];
  /** Kc, the convolution's taps. */
  readonly convLCache: number;
  readonly convBias: boolean;
  readonly normEps: number;
  readonly ropeTheta: number;
  /** How rotary frequencies are scaled for contexts longer than trained. */
  readonly ropeScaling: RopeScaling;
  readonly tieWordEmbeddings: boolean;
  readonly maxPositionEmbeddings: number;
  /** Whether the reference's `forward` gives its cache unless it is told. */
  readonly useCache: boolean;
  /** Deviation of the weights of a new model. */
  readonly initializerRange: number;
  /** What an adjusted F is rounded up to. */
  readonly blockMultipleOf: number;
  /** Times which two thirds of F are taken; null: neither times nor rounded. */
  readonly blockFfnDimMultiplier: number | null;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | undefined;
}

/** What a checkpoint's tensors say of the shape; where it and the config disagree, the tensors are right. */
export interface TensorHints {
  /** Rows of w1. */
  readonly intermediateSize?: number | undefined;
}

const where = "config.json";
type Json = Readonly<Record<string, unknown>>;
const has = (j: Json, key: string): boolean => Object.hasOwn(j, key) && j[key] !== null && j[key] !== undefined;

/** The value under whichever of `keys` is present; all that are present must agree. */
function pick(j: Json, ...keys: string[]): unknown {
  const present = keys.filter((k) => has(j, k));
  const first = present[0];
  if (first === undefined) return undefined;
  const other = present.find((k) => JSON.stringify(j[k]) !== JSON.stringify(j[first]));
  if (other !== undefined) {
    throw new FormatError(
      `${where}: expected "${first}" and "${other}" to agree, got ${JSON.stringify(j[first])} and ${JSON.stringify(j[other])}. Keep the one that is right.`,
    );
  }
  return j[first];
}

function fail(key: string, expected: string, got: unknown): never {
  throw new FormatError(
    `${where}: "${key}": expected ${expected}, got ${JSON.stringify(got) ?? "nothing"}. Use the config.json that came with the weights.`,
  );
}

/** Most layers: the largest LFM2 has 30. */
export const MAX_LAYERS = 512;
/** Most tokens of a vocabulary: ids are signed 32-bit numbers. What fits memory, the plan says. */
const MAX_VOCABULARY = 0x7fffffff;

/** Limit of a count: no LFM2 comes near, and products of two stay exact. */
const MAX_COUNT = 1 << 24;

function count(j: Json, keys: readonly string[], fallback?: number, most = MAX_COUNT): number {
  const value = pick(j, ...keys) ?? fallback;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1 || value > most)
    fail(keys[0] ?? "", "a positive whole number", value);
  return value;
}

function positive(j: Json, keys: readonly string[], fallback: number): number {
  const value = pick(j, ...keys) ?? fallback;
  if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) fail(keys[0] ?? "", "a positive number", value);
  return value;
}

/** The defaults of what a GGUF does not tell: the reference's. */
export const NOT_IN_GGUF = { useCache: true, initializerRange: 0.02, blockMultipleOf: 256, blockFfnDimMultiplier: 1 } as const;

/** Most that a deviation of weights may be. */
const MAX_RANGE = 1000;

function initializerRange(j: Json): number {
  const value = pick(j, "initializer_range") ?? NOT_IN_GGUF.initializerRange;
  if (typeof value !== "number" || !(value >= 0 && value <= MAX_RANGE)) fail("initializer_range", `a number from 0 to ${MAX_RANGE}`, value);
  return value;
}

/** @returns null where it is null, which is not the default */
const multiplier = (j: Json): number | null => (j.block_ffn_dim_multiplier === null ? null : positive(j, ["block_ffn_dim_multiplier"], 1));
const multipleOf = (j: Json): number => count(j, ["block_multiple_of"], 256);

function flag(j: Json, keys: readonly string[], fallback: boolean): boolean {
  const value = pick(j, ...keys) ?? fallback;
  if (typeof value !== "boolean") fail(keys[0] ?? "", "true or false", value);
  return value;
}

function ids(j: Json, key: string, vocabSize: number): number[] {
  const value = has(j, key) ? j[key] : [];
  const list = Array.isArray(value) ? value : [value];
  if (!list.every((id) => Number.isSafeInteger(id) && id >= 0 && id < vocabSize)) {
    fail(key, `a token id below vocab_size ${vocabSize}, or a list of them`, value);
  }
  return list;
}

function layerTypes(j: Json, layers: number): LayerType[] {
  const types = has(j, "layer_types") ? j.layer_types : undefined;
  const at = has(j, "full_attn_idxs") ? j.full_attn_idxs : undefined;
  if (at !== undefined && !(Array.isArray(at) && at.every((i) => Number.isSafeInteger(i) && i >= 0 && i < layers))) {
    fail("full_attn_idxs", `layer numbers below ${layers}`, at);
  }
  const fromIndexes = Array.isArray(at)
    ? Array.from({ length: layers }, (_, i): LayerType => (at.includes(i) ? "full_attention" : "conv"))
    : undefined;
  if (types === undefined) return fromIndexes ?? Array.from({ length: layers }, () => "full_attention");
  if (!Array.isArray(types) || types.length !== layers || !types.every((t) => typeof t === "string")) {
    fail("layer_types", `${layers} times "conv" or "full_attention"`, types);
  }
  const strange = (types as string[]).find((t) => t !== "conv" && t !== "full_attention");
  if (strange !== undefined)
    throw new UnsupportedError(
      `${where}: "layer_types": expected "conv" or "full_attention", got ${quoted(strange)}. LFM2 has no such layers.`,
    );
  if (fromIndexes?.some((t, i) => t !== types[i])) {
    throw new FormatError(
      `${where}: expected "layer_types" and "full_attn_idxs" to agree, got different layers. Keep the one that is right.`,
    );
  }
  return types as LayerType[];
}

/** The ffn size that the reference derives: two thirds, times the multiplier, up to a multiple. `size` is `block_ff_dim`. */
function adjusted(j: Json, size: number): number {
  if (!flag(j, ["block_auto_adjust_ff_dim"], true)) return size;
  const two = Math.trunc((2 * size) / 3);
  const [times, multiple] = [multiplier(j), multipleOf(j)];
  return times === null ? two : multiple * Math.ceil(Math.trunc(times * two) / multiple);
}

/** Rows of w1. Where `intermediate_size` stands beside `block_ff_dim`, it is that size before or after the adjustment. */
function intermediateSize(j: Json): number {
  if (!has(j, "block_ff_dim")) return adjusted(j, count(j, ["intermediate_size"]));
  const size = count(j, ["block_ff_dim"]);
  const after = adjusted(j, size);
  if (has(j, "intermediate_size")) {
    const other = count(j, ["intermediate_size"]);
    if (other !== size && other !== after) {
      throw new FormatError(
        `${where}: expected "intermediate_size" to be "block_ff_dim" ${size} or what it is adjusted to, ${after}, got ${other}. Keep the one that is right.`,
      );
    }
  }
  return after;
}

/** The objects that may hold theta and the kind of scaling. */
const ROPE_KEYS = ["rope_parameters", "rope_scaling"] as const;

function ropeTheta(j: Json): number {
  const thetas: Record<string, unknown> = { theta: j.theta, rope_theta: j.rope_theta };
  for (const key of ROPE_KEYS) {
    if (!has(j, key)) continue;
    const rope = j[key];
    if (!isRecord(rope)) fail(key, "an object", rope);
    thetas[`${key}.rope_theta`] = has(rope, "rope_theta") ? rope.rope_theta : undefined;
  }
  return positive(thetas, ["rope_theta", "theta", "rope_parameters.rope_theta", "rope_scaling.rope_theta"], 1e6);
}

function ropeScaling(j: Json, shape: RopeShape): RopeScaling {
  const own = has(j, "original_max_position_embeddings") ? { original_max_position_embeddings: j.original_max_position_embeddings } : {};
  const read = (key: string): RopeScaling => parseRopeScaling({ ...own, ...(j[key] as Json) }, `${where}: ${key}`, shape);
  const [first, second] = ROPE_KEYS.filter((key) => has(j, key)).map(read);
  if (second && JSON.stringify(first) !== JSON.stringify(second))
    throw new FormatError(
      `${where}: expected "rope_parameters" and "rope_scaling" to agree, got two scalings. Keep the one that is right.`,
    );
  return first ?? { type: "default" };
}

const hasFfnSize = (j: Json): boolean => has(j, "block_ff_dim") || has(j, "intermediate_size");

/** What a config may ask for that would change the result, and is not there. */
function checkVariety(j: Json, hiddenSize: number): void {
  if (has(j, "quantization_config")) {
    const method = isRecord(j.quantization_config) ? j.quantization_config.quant_method : undefined;
    throw new UnsupportedError(
      `${where}: "quantization_config": expected none, got ${typeof method === "string" ? quoted(method) : "one"}. Use the bf16 checkpoint or a GGUF.`,
    );
  }
  for (const key of ["block_use_swiglu", "use_pos_enc"]) {
    if (!flag(j, [key], true)) throw new UnsupportedError(`${where}: "${key}": expected true, got false. This package runs no such model.`);
  }
  for (const key of ["conv_dim", "conv_dim_out"]) {
    const size = count(j, [key], hiddenSize);
    if (size !== hiddenSize)
      throw new UnsupportedError(`${where}: "${key}": expected hidden_size ${hiddenSize}, got ${size}. Such a shape is not supported.`);
  }
}

/**
 * @param json the parsed config.json
 * @throws UnsupportedError for a model that is no LFM2, FormatError when nothing says what it is
 */
export function checkModelType(json: unknown): void {
  if (!isRecord(json))
    throw new FormatError(`${where}: expected an object, got ${kindOf(json)}. Use the config.json that came with the weights.`);
  const type = Object.hasOwn(json, "model_type") ? json.model_type : undefined;
  if (type === "lfm2") return;
  const got = type === undefined ? "nothing" : typeof type === "string" ? quoted(type) : kindOf(type);
  const message = `${where}: "model_type": expected "lfm2", got ${got}. This package runs Liquid AI's LFM2 text models.`;
  throw typeof type === "string" ? new UnsupportedError(message, { code: "model-type" }) : new FormatError(message);
}

/**
 * @param json the parsed config.json, in the original or the Hugging Face dialect
 * @param hints what the tensors' shapes say
 * @throws UnsupportedError for another model_type; FormatError for a key that is missing, wrong or contradicts another
 */
export function parseConfig(json: unknown, hints: TensorHints = {}): Lfm2Config {
  checkModelType(json);
  const j = json as Json;
  const numHiddenLayers = count(j, ["num_hidden_layers"]);
  if (numHiddenLayers > MAX_LAYERS) fail("num_hidden_layers", `at most ${MAX_LAYERS}`, numHiddenLayers);
  const hiddenSize = count(j, ["hidden_size", "block_dim"]);
  const numAttentionHeads = count(j, ["num_attention_heads", "num_heads"]);
  const numKeyValueHeads = count(j, ["num_key_value_heads"]);
  const vocabSize = count(j, ["vocab_size"], undefined, MAX_VOCABULARY);
  if (numAttentionHeads % numKeyValueHeads) fail("num_key_value_heads", `a divisor of ${numAttentionHeads} heads`, numKeyValueHeads);
  if (!has(j, "head_dim") && hiddenSize % numAttentionHeads)
    fail("num_attention_heads", `a divisor of hidden_size ${hiddenSize}`, numAttentionHeads);
  checkVariety(j, hiddenSize);
  const ffnSize = hints.intermediateSize === undefined || hasFfnSize(j) ? intermediateSize(j) : hints.intermediateSize;
  const headDim = has(j, "head_dim") ? count(j, ["head_dim"]) : hiddenSize / numAttentionHeads;
  const maxPositionEmbeddings = count(j, ["max_position_embeddings"], 128_000, Number.MAX_SAFE_INTEGER);
  const theta = ropeTheta(j);
  const config: Lfm2Config = {
    modelType: "lfm2",
    vocabSize,
    hiddenSize,
    intermediateSize: hints.intermediateSize ?? ffnSize,
    numHiddenLayers,
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    layerTypes: layerTypes(j, numHiddenLayers),
    convLCache: count(j, ["conv_L_cache"], 3),
    convBias: flag(j, ["conv_bias"], false),
    normEps: positive(j, ["norm_eps", "block_norm_eps"], 1e-5),
    ropeTheta: theta,
    ropeScaling: ropeScaling(j, { headDim, maxPositionEmbeddings }),
    tieWordEmbeddings: flag(j, ["tie_embedding", "tie_word_embeddings"], true),
    maxPositionEmbeddings,
    useCache: flag(j, ["use_cache"], true),
    initializerRange: initializerRange(j),
    blockMultipleOf: multipleOf(j),
    blockFfnDimMultiplier: multiplier(j),
    bosTokenId: ids(j, "bos_token_id", vocabSize)[0],
    eosTokenIds: ids(j, "eos_token_id", vocabSize),
    padTokenId: ids(j, "pad_token_id", vocabSize)[0],
  };
  checkConfig(config);
  return config;
}

/** What the kernels need of the shape. */
export function checkConfig(c: Lfm2Config): void {
  const need = (ok: boolean, what: string, got: unknown): void => {
    if (!ok) throw new UnsupportedError(`config: expected ${what}, got ${String(got)}. Such a shape is not supported.`);
  };
  need(c.numHiddenLayers <= MAX_LAYERS, `at most ${MAX_LAYERS} layers`, c.numHiddenLayers);
  need(c.vocabSize <= MAX_VOCABULARY, `a vocabulary of at most ${MAX_VOCABULARY}`, c.vocabSize);
  need(c.intermediateSize >= 1, "an ffn of at least one row", c.intermediateSize);
  need(c.hiddenSize % 16 === 0, "a hidden size that 16 divides", c.hiddenSize);
  need(
    c.numAttentionHeads % c.numKeyValueHeads === 0,
    "query heads that the key/value heads divide",
    `${c.numAttentionHeads} / ${c.numKeyValueHeads}`,
  );
  need(
    !c.layerTypes.includes("full_attention") || (c.headDim % 16 === 0 && c.headDim <= 1024),
    "a head size up to 1024 that 16 divides",
    c.headDim,
  );
  need(!c.layerTypes.includes("conv") || (c.convLCache >= 2 && c.convLCache <= 4), "2 to 4 convolution taps", c.convLCache);
}
