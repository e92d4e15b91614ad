// The reference's Lfm2Config: its keys in camelCase, its defaults, checked by the rules that check a config.json.
import { FormatError, InputError, inspect, type LoadOptions, type ModelSource, UnsupportedError } from "lfm2-wasm";
import { type Lfm2Config as CheckedConfig, type LayerType, parseConfig } from "../models/config.ts";
import type { Llama3Scaling, LongRopeScaling, YarnScaling } from "../models/rope.ts";
import { isRecord, kindOf } from "../values.ts";

/** The documented keys; what is left out has the reference's default. A configuration is one, too: `new Lfm2Config({ ...config, normEps: 1e-6 })`. */
export interface Lfm2ConfigOptions {
  /** Kind of the model's architecture; default "lfm2", there is no other. */
  readonly modelType?: "lfm2" | undefined;
  /** V, tokens of the vocabulary; default 65,536. */
  readonly vocabSize?: number | undefined;
  /** D, numbers of a hidden state, a multiple of 16; default 2560. */
  readonly hiddenSize?: number | undefined;
  /** F, width of the feed-forward part, before the adjustment of `blockAutoAdjustFfDim`; default 12,288. */
  readonly intermediateSize?: number | undefined;
  /** L, layers of either kind; default 32. */
  readonly numHiddenLayers?: number | undefined;
  /** H, heads of queries in an attention layer; default 32. */
  readonly numAttentionHeads?: number | undefined;
  /** G, heads of keys and values, a divisor of H: each serves H / G of queries; default 8. */
  readonly numKeyValueHeads?: number | undefined;
  /** hd, numbers of a head's query or key; default D / H. */
  readonly headDim?: number | undefined;
  /** Positions of the longest context that the model is meant for; default 128,000. */
  readonly maxPositionEmbeddings?: number | undefined;
  /** Standard deviation of the weights of a new model; default 0.02. */
  readonly initializerRange?: number | undefined;
  /** What the RMS norms add to the mean square, so that none divides by zero; default 1e-5. */
  readonly normEps?: number | undefined;
  /** Whether `forward` gives `pastKeyValues` unless it is told; default true. */
  readonly useCache?: boolean | undefined;
  /** Id of the token that fills rows up, whose row of a new embedding is zero; null for none; default 0. */
  readonly padTokenId?: number | null | undefined;
  /** Id of the token that a text begins with; null for none; default 1. */
  readonly bosTokenId?: number | null | undefined;
  /** Id of the token that ends a reply, or several; null for none; default 2. */
  readonly eosTokenId?: number | readonly number[] | null | undefined;
  /** Whether the head's weights are the embedding's; default true. */
  readonly tieWordEmbeddings?: boolean | undefined;
  /** Rotary embedding, `{ ropeTheta, ropeType, factor, … }`: its base and the kind of scaling with that kind's numbers; default theta 1e6, no scaling. */
  readonly ropeParameters?: Readonly<Record<string, unknown>> | undefined;
  /** Whether the convolution layers have biases; default false. */
  readonly convBias?: boolean | undefined;
  /** Kc, the convolution's taps, 2 to 4: a token sees Kc - 1 before it; default 3. */
  readonly convLCache?: number | undefined;
  /** What an adjusted F is rounded up to a multiple of; default 256. */
  readonly blockMultipleOf?: number | undefined;
  /** Times which two thirds of F are taken when it is adjusted; default 1. With null they are taken as they are, and not rounded. */
  readonly blockFfnDimMultiplier?: number | null | undefined;
  /** Whether F is adjusted: two thirds of it, times `blockFfnDimMultiplier`, rounded up to `blockMultipleOf`; default true. */
  readonly blockAutoAdjustFfDim?: boolean | undefined;
  /** Numbers of the layers that attend, from 0; the others are convolutions; default all. */
  readonly fullAttnIdxs?: readonly number[] | undefined;
  /** The kind of each layer, `"conv"` or `"full_attention"`, in the place of `fullAttnIdxs`; default as that says. */
  readonly layerTypes?: readonly LayerType[] | undefined;
}

const DEFAULTS = {
  modelType: "lfm2",
  vocabSize: 65_536,
  hiddenSize: 2560,
  intermediateSize: 12_288,
  numHiddenLayers: 32,
  numAttentionHeads: 32,
  numKeyValueHeads: 8,
  maxPositionEmbeddings: 128_000,
  initializerRange: 0.02,
  normEps: 1e-5,
  useCache: true,
  padTokenId: 0,
  bosTokenId: 1,
  eosTokenId: 2,
  tieWordEmbeddings: true,
  convBias: false,
  convLCache: 3,
  blockMultipleOf: 256,
  blockFfnDimMultiplier: 1,
  blockAutoAdjustFfDim: true,
} as const;

type Key = keyof Lfm2ConfigOptions;
const KEYS: ReadonlySet<string> = new Set<Key>([
  ...(Object.keys(DEFAULTS) as Key[]),
  "headDim",
  "ropeParameters",
  "fullAttnIdxs",
  "layerTypes",
]);
/** Keys that null says something of. */
const NULLABLE: ReadonlySet<string> = new Set<Key>(["padTokenId", "bosTokenId", "eosTokenId", "blockFfnDimMultiplier"]);

type RopeKey = "ropeTheta" | "ropeType" | Exclude<keyof YarnScaling | keyof LongRopeScaling | keyof Llama3Scaling, "type">;
const ROPE_KEYS: ReadonlySet<string> = new Set<RopeKey>([
  ...(["ropeTheta", "ropeType", "factor", "originalMaxPositionEmbeddings", "attentionFactor", "betaFast", "betaSlow"] as const),
  ...(["mscale", "mscaleAllDim", "truncate", "shortFactor", "longFactor", "lowFreqFactor", "highFreqFactor"] as const),
]);

const snake = (name: string): string => (name === "convLCache" ? "conv_L_cache" : name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`));
const present = (record: object): [string, unknown][] => Object.entries(record).filter(([, value]) => value !== undefined);
const snakeKeys = (record: object): Record<string, unknown> =>
  Object.fromEntries(present(record).map(([name, value]) => [snake(name), value]));

/** @returns a copy that no later change of `value` reaches, down to the last list */
function frozen<T>(value: T): T {
  if (Array.isArray(value)) return Object.freeze(value.map(frozen)) as T;
  return isRecord(value) ? (Object.freeze(Object.fromEntries(Object.entries(value).map(([key, v]) => [key, frozen(v)]))) as T) : value;
}

const CAMEL: ReadonlyMap<string, string> = new Map([
  ...[...KEYS, ...ROPE_KEYS].map((name) => [snake(name), name] as const),
  ["tie_embedding", "tieWordEmbeddings"],
]);

/** Checks by the rules of a config.json, whose messages name its keys and its file. */
function check(json: Readonly<Record<string, unknown>>): CheckedConfig {
  try {
    return parseConfig(json);
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof UnsupportedError)) throw error;
    const [expected = "", ...got] = error.message.split(", got ");
    const named = expected
      .replace(/^\[lfm2\] config(\.json)?: /, "Lfm2Config: ")
      .replace(/"(\w+)"|\w+_\w+/g, (text, quotedName: string | undefined) => CAMEL.get(quotedName ?? text) ?? text);
    const message = [named, ...got].join(", got ").replace("Use the config.json that came with the weights.", "Give it such a value.");
    throw error instanceof FormatError ? new InputError(message) : new UnsupportedError(message);
  }
}

function optionsOf(options: Lfm2ConfigOptions): Record<string, unknown> {
  if (!isRecord(options))
    throw new InputError(`Lfm2Config: expected an object with keys, got ${kindOf(options)}. Leave it out for the defaults.`);
  const strange = Object.keys(options).find((name) => !KEYS.has(name));
  if (strange !== undefined)
    throw new InputError(
      `Lfm2Config: expected the documented keys, got ${JSON.stringify(strange)}. They are in camelCase: convLCache; fromDict() takes those of a config.json.`,
    );
  const empty = Object.entries(options).find(([name, value]) => value === null && !NULLABLE.has(name));
  if (empty) throw new InputError(`Lfm2Config: ${empty[0]}: expected a value, got null. Leave it out for the default.`);
  const { ropeParameters = {} } = options;
  if (!isRecord(ropeParameters))
    throw new InputError(`Lfm2Config: ropeParameters: expected an object, got ${kindOf(ropeParameters)}. Pass { ropeTheta: 1e6 }.`);
  const odd = Object.keys(ropeParameters).find((name) => !ROPE_KEYS.has(name));
  if (odd !== undefined)
    throw new InputError(
      `Lfm2Config: ropeParameters: expected ${[...ROPE_KEYS].join(", ")}, got ${JSON.stringify(odd)}. Correct its name.`,
    );
  return options as Record<string, unknown>;
}

/**
 * The configuration of an LFM2 model. It never changes: another one is made of its keys.
 * @example
 * const config = new Lfm2Config({ hiddenSize: 256, intermediateSize: 768, numHiddenLayers: 4, numAttentionHeads: 4, numKeyValueHeads: 2 });
 * const hybrid = new Lfm2Config({ ...config, fullAttnIdxs: [1, 3] });
 */
export class Lfm2Config {
  static readonly name = "Lfm2Config";
  /** Kind of the model's architecture. */
  readonly modelType = "lfm2";
  /** V, tokens of the vocabulary. */
  readonly vocabSize: number;
  /** D, numbers of a hidden state. */
  readonly hiddenSize: number;
  /** F, width of the feed-forward part, as given: before the adjustment that `blockAutoAdjustFfDim` asks for. */
  readonly intermediateSize: number;
  /** L, layers of either kind. */
  readonly numHiddenLayers: number;
  /** H, heads of queries in an attention layer. */
  readonly numAttentionHeads: number;
  /** G, heads of keys and values, a divisor of H. */
  readonly numKeyValueHeads: number;
  /** hd, numbers of a head's query or key. Where it is D / H, a copy by `...` leaves it out. */
  readonly headDim: number;
  /** Positions of the longest context that the model is meant for. */
  readonly maxPositionEmbeddings: number;
  /** Standard deviation of the weights of a new model. */
  readonly initializerRange: number;
  /** What the RMS norms add to the mean square. */
  readonly normEps: number;
  /** Whether `forward` gives `pastKeyValues` unless it is told. */
  readonly useCache: boolean;
  /** Id of the token that fills rows up; null for none. */
  readonly padTokenId: number | null;
  /** Id of the token that a text begins with; null for none. */
  readonly bosTokenId: number | null;
  /** Id of the token that ends a reply, or several; null, or no id, for none. */
  readonly eosTokenId: number | readonly number[] | null;
  /** Whether the head's weights are the embedding's. */
  readonly tieWordEmbeddings: boolean;
  /** Rotary embedding: base, kind of scaling and that kind's numbers. */
  readonly ropeParameters: Readonly<Record<string, unknown>>;
  /** Whether the convolution layers have biases. */
  readonly convBias: boolean;
  /** Kc, the convolution's taps. */
  readonly convLCache: number;
  /** What an adjusted F is rounded up to a multiple of. */
  readonly blockMultipleOf: number;
  /** Times which two thirds of F are taken when it is adjusted; null: as they are, and not rounded. */
  readonly blockFfnDimMultiplier: number | null;
  /** Whether F is adjusted. */
  readonly blockAutoAdjustFfDim: boolean;
  /** The kind of each layer. Where nobody has said it, a copy by `...` leaves it out. */
  readonly layerTypes: readonly LayerType[];
  /** As the engine takes it. @internal */
  readonly checked: CheckedConfig;

  /** @throws InputError for a key that is none, a value out of range, or two that contradict each other; UnsupportedError for a shape that the kernels lack */
  constructor(options: Lfm2ConfigOptions = {}) {
    const given: Lfm2ConfigOptions = frozen(Object.fromEntries(present(optionsOf(options))));
    const values = { ...DEFAULTS, ...given } as typeof DEFAULTS & Lfm2ConfigOptions;
    const rope = Object.freeze({ ropeTheta: 1e6, ropeType: "default", ...values.ropeParameters });
    this.checked = check({ ...snakeKeys(values), rope_parameters: snakeKeys(rope) });
    this.vocabSize = values.vocabSize;
    this.hiddenSize = values.hiddenSize;
    this.intermediateSize = values.intermediateSize;
    this.numHiddenLayers = values.numHiddenLayers;
    this.numAttentionHeads = values.numAttentionHeads;
    this.numKeyValueHeads = values.numKeyValueHeads;
    this.headDim = this.checked.headDim;
    this.maxPositionEmbeddings = values.maxPositionEmbeddings;
    this.initializerRange = values.initializerRange;
    this.normEps = values.normEps;
    this.useCache = values.useCache;
    this.padTokenId = values.padTokenId;
    this.bosTokenId = values.bosTokenId;
    this.eosTokenId = values.eosTokenId;
    this.tieWordEmbeddings = values.tieWordEmbeddings;
    this.ropeParameters = rope;
    this.convBias = values.convBias;
    this.convLCache = values.convLCache;
    this.blockMultipleOf = values.blockMultipleOf;
    this.blockFfnDimMultiplier = values.blockFfnDimMultiplier;
    this.blockAutoAdjustFfDim = values.blockAutoAdjustFfDim;
    this.layerTypes = Object.freeze(this.checked.layerTypes);
    // what follows from other keys is no key of a copy, where those may be others
    const hide = (name: keyof Lfm2Config): unknown => Object.defineProperty(this, name, { enumerable: false });
    hide("checked");
    if (this.headDim === this.hiddenSize / this.numAttentionHeads) hide("headDim");
    if (!given.layerTypes && !given.fullAttnIdxs) hide("layerTypes");
  }

  /**
   * Reads a checkpoint's configuration. `intermediateSize` is the one after adjustment then, `blockAutoAdjustFfDim` false.
   * @throws as `inspect`
   */
  static async fromPretrained(source: ModelSource, options: LoadOptions = {}): Promise<Lfm2Config> {
    return Lfm2Config.of((await inspect(source, options)).config);
  }

  /**
   * Reads config.json's content, in either dialect; what `toJSON` gives is one. `intermediateSize` is the one after adjustment then, too.
   * @throws FormatError for a key that is missing, wrong or contradicts another; UnsupportedError
   */
  static fromDict(json: unknown): Lfm2Config {
    return Lfm2Config.of(parseConfig(json));
  }

  /** @internal */
  static of(checked: CheckedConfig): Lfm2Config {
    const { ropeTheta, ropeScaling, eosTokenIds, padTokenId = null, bosTokenId = null, ...rest } = checked;
    const { type, ...scaling } = ropeScaling;
    const eosTokenId = eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds;
    const ropeParameters = { ropeTheta, ropeType: type, ...scaling };
    return new Lfm2Config({ ...rest, padTokenId, bosTokenId, eosTokenId, ropeParameters, blockAutoAdjustFfDim: false });
  }

  /** @returns config.json's content */
  toJSON(): Record<string, unknown> {
    const { ropeParameters, layerTypes, ...rest } = this;
    return { architectures: ["Lfm2ForCausalLM"], ...snakeKeys({ ...rest, layerTypes }), rope_parameters: snakeKeys(ropeParameters) };
  }
}
