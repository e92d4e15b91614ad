// Rotary frequencies and how they are scaled for contexts longer than trained: what a config says, and the numbers. Knows no layer.
import { FormatError, UnsupportedError } from "../errors.ts";
import { ln, power } from "../math.ts";
import { isRecord, quoted } from "../values.ts";

/** How the frequencies theta^(-2i/hd), i = 0 … hd/2-1, are changed; names as in `rope_parameters`, camelCase. */
export type RopeScaling =
  | { readonly type: "default" }
  /** All frequencies divided by `factor`. */
  | { readonly type: "linear"; readonly factor: number }
  /** A theta that grows with the length of the context, beyond the trained one. */
  | { readonly type: "dynamic"; readonly factor: number }
  | YarnScaling
  | LongRopeScaling
  | Llama3Scaling;

/** Fast pairs stay, slow ones are divided by `factor`, a ramp between. */
export interface YarnScaling {
  readonly type: "yarn";
  readonly factor: number;
  /** Context that the model was trained on before. */
  readonly originalMaxPositionEmbeddings: number;
  /** Times which cosines and sines are taken; from `factor` and the two mscales when undefined. */
  readonly attentionFactor: number | undefined;
  /** Turns within the original context from which a pair counts as fast, and up to which as slow. */
  readonly betaFast: number;
  readonly betaSlow: number;
  readonly mscale: number | undefined;
  readonly mscaleAllDim: number | undefined;
  /** Whether the ramp begins and ends at whole pairs. */
  readonly truncate: boolean;
}

/** A divisor for each pair: one list within the original context, another beyond. */
export interface LongRopeScaling {
  readonly type: "longrope";
  readonly factor: number;
  readonly originalMaxPositionEmbeddings: number;
  readonly attentionFactor: number | undefined;
  readonly shortFactor: readonly number[];
  readonly longFactor: readonly number[];
}

/** Long waves are divided by `factor`, short ones stay, and what lies between is mixed. */
export interface Llama3Scaling {
  readonly type: "llama3";
  readonly factor: number;
  readonly originalMaxPositionEmbeddings: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
}

const KINDS = ["default", "linear", "dynamic", "yarn", "longrope", "llama3"];
const TWO_PI = 2 * Math.PI;

/** Reads keys of one object of a config, with messages that name it. */
class Reader {
  readonly #json: Readonly<Record<string, unknown>>;
  readonly #where: string;

  constructor(json: Readonly<Record<string, unknown>>, where: string) {
    this.#json = json;
    this.#where = where;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#json, key) && this.#json[key] !== null && this.#json[key] !== undefined;
  }

  fail(key: string, expected: string): never {
    const got = JSON.stringify(this.has(key) ? this.#json[key] : undefined) ?? "nothing";
    throw new FormatError(`${this.#where}: "${key}": expected ${expected}, got ${got}. Use the config.json that came with the weights.`);
  }

  positive(key: string, fallback?: number): number {
    const value = this.has(key) ? this.#json[key] : fallback;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) this.fail(key, "a positive number");
    return value;
  }

  optional(key: string): number | undefined {
    return this.has(key) ? this.positive(key) : undefined;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.has(key) ? this.#json[key] : fallback;
    if (typeof value !== "boolean") this.fail(key, "true or false");
    return value;
  }

  /** `count` positive numbers. */
  list(key: string, count: number): number[] {
    const value = this.has(key) ? this.#json[key] : undefined;
    const isOne = (n: unknown): n is number => typeof n === "number" && Number.isFinite(n) && n > 0;
    if (!Array.isArray(value) || value.length !== count || !value.every(isOne)) this.fail(key, `${count} positive numbers, one a pair`);
    return value;
  }
}

/** The shape that a scaling depends on. */
export interface RopeShape {
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
}

/**
 * @param rope `rope_parameters`, or what older files call `rope_scaling`
 * @param where names it in messages
 * @throws UnsupportedError for a kind that is not known, FormatError for a key that is missing or wrong
 */
export function parseRopeScaling(rope: unknown, where: string, { headDim, maxPositionEmbeddings }: RopeShape): RopeScaling {
  if (!isRecord(rope))
    throw new FormatError(`${where}: expected an object, got ${JSON.stringify(rope)}. Use the config.json that came with the weights.`);
  const read = new Reader(rope, where);
  if (read.has("rope_type") && read.has("type") && rope.rope_type !== rope.type)
    throw new FormatError(`${where}: expected "rope_type" and "type" to agree, got two kinds. Keep the one that is right.`);
  const type = String(rope.rope_type ?? rope.type ?? "default");
  const original = (): number => read.positive("original_max_position_embeddings", maxPositionEmbeddings);
  /** Where it may be left out: by how much the context has grown. */
  const growth = (): number => read.positive("factor", maxPositionEmbeddings / original());
  switch (type) {
    case "default":
      return { type };
    case "linear":
    case "dynamic":
      return { type, factor: read.positive("factor") };
    case "yarn":
      return {
        type,
        factor: growth(),
        originalMaxPositionEmbeddings: original(),
        attentionFactor: read.optional("attention_factor"),
        betaFast: read.positive("beta_fast", 32),
        betaSlow: read.positive("beta_slow", 1),
        mscale: read.optional("mscale"),
        mscaleAllDim: read.optional("mscale_all_dim"),
        truncate: read.flag("truncate", true),
      };
    case "longrope":
      return {
        type,
        factor: growth(),
        originalMaxPositionEmbeddings: original(),
        attentionFactor: read.optional("attention_factor"),
        shortFactor: read.list("short_factor", headDim / 2),
        longFactor: read.list("long_factor", headDim / 2),
      };
    case "llama3": {
      const [lowFreqFactor, highFreqFactor] = [read.positive("low_freq_factor"), read.positive("high_freq_factor")];
      if (highFreqFactor <= lowFreqFactor) read.fail("high_freq_factor", `more than low_freq_factor ${lowFreqFactor}`);
      return { type, factor: read.positive("factor"), originalMaxPositionEmbeddings: original(), lowFreqFactor, highFreqFactor };
    }
    default:
      throw new UnsupportedError(
        `${where}: "rope_type": expected one of ${KINDS.join(", ")}, got ${quoted(type)}. Such a rotary embedding is not supported.`,
      );
  }
}

/** What a scaling needs beside itself. */
export interface RopeConfig extends RopeShape {
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
}

/** @returns a length that stands for all those with the frequencies of `length`: two lengths have the same ones exactly where it is the same */
export function frequencyLength({ maxPositionEmbeddings, ropeScaling: s }: RopeConfig, length: number): number {
  if (s.type === "dynamic") return Math.max(length, maxPositionEmbeddings);
  return s.type === "longrope" && length > s.originalMaxPositionEmbeddings ? s.originalMaxPositionEmbeddings + 1 : 1;
}

const clamp = (x: number): number => Math.min(Math.max(x, 0), 1);

/** The share of each pair that is divided by `factor`, from 0 for fast ones to 1 for slow ones. */
function yarnRamp(s: YarnScaling, theta: number, hd: number): (pair: number) => number {
  /** The pair that turns so often within the original context, as a real number. */
  const at = (turns: number): number => (hd * ln(s.originalMaxPositionEmbeddings / (turns * TWO_PI))) / (2 * ln(theta));
  const [fast, slow] = [at(s.betaFast), at(s.betaSlow)];
  const low = Math.max(s.truncate ? Math.floor(fast) : fast, 0);
  const end = Math.min(s.truncate ? Math.ceil(slow) : slow, hd - 1);
  const high = end === low ? end + 0.001 : end;
  return (pair) => clamp((pair - low) / (high - low));
}

function llama3Frequency(s: Llama3Scaling, frequency: number): number {
  const turns = (s.originalMaxPositionEmbeddings * frequency) / TWO_PI;
  if (turns < s.lowFreqFactor) return frequency / s.factor;
  if (turns > s.highFreqFactor) return frequency;
  const smooth = (turns - s.lowFreqFactor) / (s.highFreqFactor - s.lowFreqFactor);
  return ((1 - smooth) * frequency) / s.factor + smooth * frequency;
}

/**
 * @param length positions of the context: of the whole call in a single pass, of the longest context in a session. Only dynamic and longrope look at it.
 * @param plain gives theta^(-2i/hd) of each pair, as the module computes it: the same bits in every engine
 * @returns the angle a position of each pair (hd/2)
 */
export function ropeFrequencies(c: RopeConfig, length: number, plain: (theta: number) => Float64Array): Float64Array {
  const { headDim: hd, maxPositionEmbeddings, ropeTheta, ropeScaling: s } = c;
  const own = plain(ropeTheta);
  switch (s.type) {
    case "default":
      return own;
    case "linear":
      return own.map((f) => f / s.factor);
    case "dynamic": {
      const grown = (s.factor * Math.max(length, maxPositionEmbeddings)) / maxPositionEmbeddings - (s.factor - 1);
      return plain(ropeTheta * power(grown, hd / (hd - 2)));
    }
    case "yarn": {
      const ramp = yarnRamp(s, ropeTheta, hd);
      return own.map((f, i) => (f / s.factor) * ramp(i) + f * (1 - ramp(i)));
    }
    case "longrope": {
      const divisors = length > s.originalMaxPositionEmbeddings ? s.longFactor : s.shortFactor;
      return own.map((f, i) => f / (divisors[i] ?? 1));
    }
    case "llama3":
      return own.map((f) => llama3Frequency(s, f));
  }
}

/** @returns times which cosines and sines are taken; a score carries its square */
export function ropeAttentionFactor(s: RopeScaling): number {
  if (s.type !== "yarn" && s.type !== "longrope") return 1;
  if (s.attentionFactor !== undefined) return s.attentionFactor;
  if (s.factor <= 1) return 1;
  const log = ln(s.factor);
  if (s.type === "longrope") return Math.sqrt(1 + log / ln(s.originalMaxPositionEmbeddings));
  const scale = (m: number): number => 0.1 * m * log + 1;
  return s.mscale !== undefined && s.mscaleAllDim !== undefined ? scale(s.mscale) / scale(s.mscaleAllDim) : scale(1);
}
