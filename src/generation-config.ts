// generation_config.json by the names of `generate`: what a checkpoint wants where a call says nothing. Knows no model.
import { FormatError, UnsupportedError } from "./errors.ts";
import type { GenerateOptions } from "./turn.ts";
import { isRecord, kindOf } from "./values.ts";

/** What may stand in generation_config.json and in a call of `generate`, with the reference's names; what both leave out has its default. */
export interface GenerationDefaults
  extends Pick<
    GenerateOptions,
    | "temperature"
    | "topK"
    | "topP"
    | "minP"
    | "typicalP"
    | "epsilonCutoff"
    | "etaCutoff"
    | "repetitionPenalty"
    | "numBeams"
    | "lengthPenalty"
    | "earlyStopping"
    | "numReturnSequences"
    | "noRepeatNgramSize"
    | "sequenceBias"
    | "badWordsIds"
    | "suppressTokens"
    | "beginSuppressTokens"
    | "forcedBosTokenId"
    | "forcedEosTokenId"
    | "exponentialDecayLengthPenalty"
    | "removeInvalidValues"
  > {
  /** Draws tokens (temperature 1 and topK 50 unless given); false (default) takes the likeliest. */
  readonly doSample?: boolean | undefined;
  /** Tokens to be generated at most; default 20. Counts before `maxLength`, but a call's before a file's. */
  readonly maxNewTokens?: number | undefined;
  /** Columns of prompt, padding included, and reply at most. */
  readonly maxLength?: number | undefined;
  /** Tokens to be generated at least. */
  readonly minNewTokens?: number | undefined;
  /** Columns of prompt, padding included, and reply at least. */
  readonly minLength?: number | undefined;
  /** Ids that end a row; default the configuration's. */
  readonly eosTokenId?: number | readonly number[] | undefined;
  /** What fills shorter rows up; default the configuration's, else the first that ends a row. With beams 0 is none, as in the reference: the first that ends a row fills up. */
  readonly padTokenId?: number | undefined;
  /** Texts that end a row. */
  readonly stopStrings?: string | readonly string[] | undefined;
}

const isNumber = (value: unknown): boolean => typeof value === "number";
const isIds = (value: unknown): boolean => Array.isArray(value) && value.every(isNumber);

/** Kinds of values; whether a number is in range is asked where it is used. */
const KINDS = {
  number: ["a number", isNumber],
  flag: ["true or false", (value: unknown) => typeof value === "boolean"],
  stopping: ['true, false or "never"', (value: unknown) => typeof value === "boolean" || value === "never"],
  ids: ["a list of numbers", isIds],
  idOrIds: ["a number or a list of them", (value: unknown) => isNumber(value) || isIds(value)],
  lists: ["a list of lists", (value: unknown) => Array.isArray(value) && value.every(Array.isArray)],
  text: ["a text or a list of them", (value: unknown) => [value].flat().every((item) => typeof item === "string")],
} as const satisfies Record<string, readonly [string, (value: unknown) => boolean]>;

const KEYS: Readonly<Record<keyof GenerationDefaults, keyof typeof KINDS>> = {
  doSample: "flag",
  temperature: "number",
  topK: "number",
  topP: "number",
  minP: "number",
  typicalP: "number",
  epsilonCutoff: "number",
  etaCutoff: "number",
  repetitionPenalty: "number",
  maxNewTokens: "number",
  maxLength: "number",
  minNewTokens: "number",
  minLength: "number",
  numBeams: "number",
  lengthPenalty: "number",
  earlyStopping: "stopping",
  numReturnSequences: "number",
  noRepeatNgramSize: "number",
  sequenceBias: "lists",
  badWordsIds: "lists",
  suppressTokens: "ids",
  beginSuppressTokens: "ids",
  forcedBosTokenId: "number",
  forcedEosTokenId: "idOrIds",
  exponentialDecayLengthPenalty: "ids",
  removeInvalidValues: "flag",
  eosTokenId: "idOrIds",
  padTokenId: "number",
  stopStrings: "text",
};

/** What a file and a call may say, by name. */
export const GENERATION_KEYS: Readonly<Record<keyof GenerationDefaults, string>> = KEYS;

/** What would change the tokens and is not there, with the value that asks for nothing. */
const UNSUPPORTED: Readonly<Record<string, unknown>> = {
  renormalize_logits: false,
  num_beam_groups: 1,
  diversity_penalty: 0,
  penalty_alpha: 0,
  guidance_scale: 1,
  encoder_repetition_penalty: 1,
  encoder_no_repeat_ngram_size: 0,
  constraints: null,
  force_words_ids: null,
  dola_layers: null,
  watermarking_config: null,
  top_h: null,
};

const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** @returns a sentence on the first rule that a generation_config.json asks for and `generate` has not, if there is one */
export function missingRule(json: unknown): string | undefined {
  const values = isRecord(json) ? json : {};
  const key = Object.keys(UNSUPPORTED).find((name) => (values[name] ?? UNSUPPORTED[name]) !== UNSUPPORTED[name]);
  if (key === undefined) return undefined;
  return `generation_config.json: "${key}": expected ${JSON.stringify(UNSUPPORTED[key])} or none, got ${JSON.stringify(values[key])}. Take it out: generate() has no such rule.`;
}

/**
 * @param json content of a generation_config.json, undefined where there is none. What changes no token is left out, and so is null
 * @throws FormatError for a value of another kind; UnsupportedError for what `generate` has not
 */
export function generationDefaults(json: unknown): GenerationDefaults {
  const missing = missingRule(json);
  if (missing !== undefined) throw new UnsupportedError(missing);
  return valuesOf(json);
}

function valuesOf(json: unknown): GenerationDefaults {
  const values = isRecord(json) ? json : {}; // what is no object, `recommendedSampling` has refused
  const found: Record<string, unknown> = {};
  for (const [name, kind] of Object.entries(KEYS)) {
    const value = values[snake(name)];
    if (value === undefined || value === null) continue;
    const [expected, isValid] = KINDS[kind];
    if (!isValid(value))
      throw new FormatError(
        `generation_config.json: "${snake(name)}": expected ${expected}, got ${kindOf(value)}. Use the file that came with the weights.`,
      );
    found[name] = value;
  }
  return found;
}

/** What is there: an option that is undefined takes nothing away. */
export const present = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, v]) => v !== undefined)) as T;

/**
 * @param json content of a generation_config.json
 * @returns what it says to `generate`, but for sampling and end tokens
 * @throws FormatError for a value of another kind
 */
export function callDefaults(json: unknown): GenerateOptions {
  const { doSample, maxNewTokens, maxLength, minNewTokens, stopStrings, eosTokenId: _, padTokenId: __, ...rules } = valuesOf(json);
  const { temperature: ___, topK, topP, minP, typicalP, epsilonCutoff, etaCutoff, repetitionPenalty, ...rest } = rules;
  const limits = maxNewTokens === undefined ? { maxLength } : { maxTokens: maxNewTokens };
  return present({ ...rest, ...limits, minTokens: minNewTokens, stop: stopStrings, sampleBeams: doSample });
}

/**
 * @param generation as `callDefaults` gave it
 * @param temperature where the call names none
 * @returns a call's options, and where it says nothing the file's. A limit of the call's is not undone by another one of the file
 */
export function withDefaults(options: GenerateOptions, generation: GenerateOptions, temperature: number = 1): GenerateOptions {
  const { maxTokens, maxLength, sampleBeams, ...rest } = generation;
  const isLimited = (options.maxTokens ?? options.maxLength) !== undefined;
  const all = { ...rest, ...(isLimited ? {} : { maxTokens, maxLength }), ...present(options) };
  const canSample = (all.numBeams ?? 1) > 1 && (all.temperature ?? temperature) > 0;
  return sampleBeams && canSample ? { sampleBeams, ...all } : all;
}
