// The reference's Lfm2Config: its keys in camelCase, its defaults, checked by the rules that check a config.json.
import { InputError, inspect, type LoadOptions, type ModelSource } from "lfm2-wasm";
import { type Lfm2Config as CheckedConfig, type LayerType, parseConfig } from "../models/config.ts";
import type { Llama3Scaling, LongRopeScaling, YarnScaling } from "../models/rope.ts";
import { isRecord, kindOf } from "../values.ts";

/** The documented keys; what is left out has the reference's default. */
export interface Lfm2ConfigOptions {
  /** V; default 65,536. */
  readonly vocabSize?: number | undefined;
  /** D; default 2560. */
  readonly hiddenSize?: number | undefined;
  /** F before the adjustment of `blockAutoAdjustFfDim`; default 12,288. */
  readonly intermediateSize?: number | undefined;
  /** L; default 32. */
  readonly numHiddenLayers?: number | undefined;
  /** H; default 32. */
  readonly numAttentionHeads?: number | undefined;
  /** G, a divisor of H; default 8. */
  readonly numKeyValueHeads?: number | undefined;
  /** Default D / H. */
  readonly headDim?: number | undefined;
  /** Default 128,000. */
  readonly maxPositionEmbeddings?: number | undefined;
  /** Deviation of the weights of a new model; default 0.02. */
  readonly initializerRange?: number | undefined;
  /** Default 1e-5. */
  readonly normEps?: number | undefined;
  /** Whether `forward` gives `pastKeyValues`; default true. */
  readonly useCache?: boolean | undefined;
  /** Default 0. Its row of a new embedding is zero. */
  readonly padTokenId?: number | undefined;
  /** Default 1. */
  readonly bosTokenId?: number | undefined;
  /** Default 2. */
  readonly eosTokenId?: number | readonly number[] | undefined;
  /** Whether the head is the embedding; default true. */
  readonly tieWordEmbeddings?: boolean | undefined;
  /** `{ ropeTheta, ropeType, factor, … }`; default theta 1e6, no scaling. */
  readonly ropeParameters?: Readonly<Record<string, unknown>> | undefined;
  /** Whether the convolution layers have biases; default false. */
  readonly convBias?: boolean | undefined;
  /** Kc, the convolution's taps; default 3. */
  readonly convLCache?: number | undefined;
  /** What an adjusted F is rounded up to; default 256. */
  readonly blockMultipleOf?: number | undefined;
  /** Times which two thirds of F are taken; default 1. With null they are taken as they are. */
  readonly blockFfnDimMultiplier?: number | null | undefined;
  /** Whether F is adjusted; default true. */
  readonly blockAutoAdjustFfDim?: boolean | undefined;
  /** Layers that attend; default all. */
  readonly fullAttnIdxs?: readonly number[] | undefined;
  /** The kind of each layer, in the place of `fullAttnIdxs`. */
  readonly layerTypes?: readonly LayerType[] | undefined;
}

const DEFAULTS = {
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

type RopeKey = "ropeTheta" | "ropeType" | Exclude<keyof YarnScaling | keyof LongRopeScaling | keyof Llama3Scaling, "type">;
const ROPE_KEYS: ReadonlySet<string> = new Set<RopeKey>([
  ...(["ropeTheta", "ropeType", "factor", "originalMaxPositionEmbeddings", "attentionFactor", "betaFast", "betaSlow"] as const),
  ...(["mscale", "mscaleAllDim", "truncate", "shortFactor", "longFactor", "lowFreqFactor", "highFreqFactor"] as const),
]);

const snake = (name: string): string => (name === "convLCache" ? "conv_L_cache" : name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`));
const present = (record: object): [string, unknown][] => Object.entries(record).filter(([, value]) => value !== undefined);
const snakeKeys = (record: object): Record<string, unknown> =>
  Object.fromEntries(present(record).map(([name, value]) => [snake(name), value]));

function optionsOf(options: Lfm2ConfigOptions): Record<string, unknown> {
  if (!isRecord(options))
    throw new InputError(`Lfm2Config: expected an object with keys, got ${kindOf(options)}. Leave it out for the defaults.`);
  const strange = Object.keys(options).find((name) => !KEYS.has(name));
  if (strange !== undefined)
    throw new InputError(`Lfm2Config: expected the documented keys, got ${JSON.stringify(strange)}. They are in camelCase: convLCache.`);
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
 * The configuration of an LFM2 model.
 * @example
 * const config = new Lfm2Config({ hiddenSize: 256, intermediateSize: 768, numHiddenLayers: 4, numAttentionHeads: 4, numKeyValueHeads: 2 });
 */
export class Lfm2Config {
  static readonly name = "Lfm2Config";
  readonly modelType = "lfm2";
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** As given: before the adjustment that `blockAutoAdjustFfDim` asks for. */
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly initializerRange: number;
  readonly normEps: number;
  readonly useCache: boolean;
  readonly padTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | readonly number[] | undefined;
  readonly tieWordEmbeddings: boolean;
  readonly ropeParameters: Readonly<Record<string, unknown>>;
  readonly convBias: boolean;
  readonly convLCache: number;
  readonly blockMultipleOf: number;
  readonly blockFfnDimMultiplier: number | null;
  readonly blockAutoAdjustFfDim: boolean;
  readonly layerTypes: readonly LayerType[];
  /** As the engine takes it. @internal */
  readonly checked: CheckedConfig;

  /** @throws InputError for a key that is none; FormatError for a value out of range, or two that contradict each other; UnsupportedError for a shape that the kernels lack */
  constructor(options: Lfm2ConfigOptions = {}) {
    const values = { ...DEFAULTS, ...Object.fromEntries(present(optionsOf(options))) } as typeof DEFAULTS & Lfm2ConfigOptions;
    const rope = { ropeTheta: 1e6, ropeType: "default", ...values.ropeParameters };
    this.checked = parseConfig({ ...snakeKeys(values), model_type: "lfm2", rope_parameters: snakeKeys(rope) });
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
    this.layerTypes = this.checked.layerTypes;
  }

  /**
   * Reads a checkpoint's configuration. `intermediateSize` is the one after adjustment then, `blockAutoAdjustFfDim` false.
   * @throws as `inspect`
   */
  static async fromPretrained(source: ModelSource, options: LoadOptions = {}): Promise<Lfm2Config> {
    return Lfm2Config.of((await inspect(source, options)).config);
  }

  /** @internal */
  static of(checked: CheckedConfig): Lfm2Config {
    const { modelType: _, ropeTheta, ropeScaling, eosTokenIds, ...rest } = checked;
    const { type, ...scaling } = ropeScaling;
    const eosTokenId = eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds;
    const ropeParameters = { ropeTheta, ropeType: type, ...scaling };
    const config = new Lfm2Config({ ...rest, eosTokenId, ropeParameters, blockAutoAdjustFfDim: false });
    // a checkpoint that names no such token has none
    return Object.assign(config, { padTokenId: checked.padTokenId, bosTokenId: checked.bosTokenId, checked });
  }

  /** @returns config.json's content */
  toJSON(): Record<string, unknown> {
    const { checked: _, ropeParameters, ...rest } = this;
    return { architectures: ["Lfm2ForCausalLM"], ...snakeKeys(rest), rope_parameters: snakeKeys(ropeParameters) };
  }
}
