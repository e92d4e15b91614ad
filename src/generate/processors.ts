// Rules on the logits before a token is drawn, in the reference's order: bias, penalties, banned and forced tokens. Sees a row of logits and ids; knows no text.
// A token must not depend on the JavaScript engine: only + - × ÷ and comparison here.
import { InputError } from "../errors.ts";
import { isRecord } from "../values.ts";
import type { History } from "./history.ts";

/** Rules on which tokens may come. What is absent is off. Ids are token ids. */
export interface ProcessorOptions {
  /** Added to the logit of an id. -Infinity rules it out. */
  readonly logitBias?: Readonly<Record<number, number>> | undefined;
  /** Added to the last id's logit where the sequence ends in the ids before it. The context must be at least as long as the whole, as in the reference. */
  readonly sequenceBias?: readonly (readonly [ids: readonly number[], bias: number])[] | undefined;
  /** Subtracted from the logits of tokens that the reply has already. */
  readonly presencePenalty?: number | undefined;
  /** Subtracted once for each time that the reply has a token already. */
  readonly frequencyPenalty?: number | undefined;
  /** No run of so many tokens comes twice, prompt included; 0 is off. */
  readonly noRepeatNgramSize?: number | undefined;
  /** Sequences that never come. An end token alone cannot be one. */
  readonly badWordsIds?: readonly (readonly number[])[] | undefined;
  /** Tokens of prompt and reply together before an end token may come. */
  readonly minLength?: number | undefined;
  /** Tokens of the reply before an end token may come. */
  readonly minTokens?: number | undefined;
  /** The token that follows a prompt of exactly one. */
  readonly forcedBosTokenId?: number | undefined;
  /** What the last token becomes when the reply reaches its length; one of them for several. */
  readonly forcedEosTokenId?: number | readonly number[] | undefined;
  /** Turns NaN and infinite logits into numbers instead of ending with a FormatError. */
  readonly removeInvalidValues?: boolean | undefined;
  /** After `start` tokens of the reply an end token's logit s grows by |s|·(factor^over - 1). */
  readonly exponentialDecayLengthPenalty?: readonly [start: number, factor: number] | undefined;
  /** Tokens that never come. */
  readonly suppressTokens?: readonly number[] | undefined;
  /** Tokens that do not come first. */
  readonly beginSuppressTokens?: readonly number[] | undefined;
}

/** Where the rules apply. */
export interface ProcessorSetting {
  /** Ids that end the reply. */
  readonly endIds: readonly number[];
  /** Tokens of prompt and reply at most. */
  readonly maxLength: number;
}

const LARGEST_F32 = 3.4028234663852886e38;
const RULED_OUT = Number.NEGATIVE_INFINITY;

/** Most sequences of one option, and most ids of one: a bound against mistakes. */
const MAX_SEQUENCES = 10_000;

/** @returns whether the next token could complete `sequence` */
function isCompletedBy(sequence: readonly number[], { ids }: History): boolean {
  const before = sequence.length - 1;
  if (before === 0) return true;
  if (sequence.length > ids.length) return false;
  return sequence.every((id, i) => i === before || ids[ids.length - before + i] === id);
}

/** x^n for a whole n, by multiplication. */
function power(x: number, n: number): number {
  let result = 1;
  for (let factor = x; n > 0; n = Math.floor(n / 2), factor *= factor) if (n % 2 === 1) result *= factor;
  return result;
}

type Rule = (scores: Float32Array, history: History, options: ProcessorOptions, setting: ProcessorSetting) => void;

const put = (scores: Float32Array, ids: readonly number[], value: number): void => {
  for (const id of ids) if (id < scores.length) scores[id] = value;
};
const add = (scores: Float32Array, id: number, value: number): void => {
  if (id < scores.length) scores[id] = scores[id]! + value;
};

const bias: Rule = (scores, history, { logitBias, sequenceBias = [] }) => {
  for (const [id, value] of Object.entries(logitBias ?? {})) add(scores, Number(id), value);
  for (const [ids, value] of sequenceBias) if (isCompletedBy(ids, history)) add(scores, ids.at(-1)!, value);
};

const counts: Rule = (scores, { generated }, { presencePenalty = 0, frequencyPenalty = 0 }) => {
  if (presencePenalty === 0 && frequencyPenalty === 0) return;
  for (const [id, count] of generated) add(scores, id, -(frequencyPenalty * count + presencePenalty));
};

const ngrams: Rule = (scores, { ids }, { noRepeatNgramSize: n = 0 }) => {
  if (n === 0) return;
  const last = ids.length - (n - 1);
  for (let i = 0; i < last; i++) {
    let k = 0;
    while (k < n - 1 && ids[i + k] === ids[last + k]) k++;
    if (k === n - 1) put(scores, [ids[i + k]!], RULED_OUT);
  }
};

const badWords: Rule = (scores, history, { badWordsIds = [] }, { endIds }) => {
  for (const ids of badWordsIds) {
    if (ids.length === 1 && endIds.includes(ids[0]!)) continue;
    if (isCompletedBy(ids, history)) put(scores, [ids.at(-1)!], RULED_OUT);
  }
};

const leastLength: Rule = (scores, { ids, promptTokens }, { minLength = 0, minTokens = 0 }, { endIds }) => {
  if (ids.length < minLength || ids.length - promptTokens < minTokens) put(scores, endIds, RULED_OUT);
};

const forced: Rule = (scores, { ids }, { forcedBosTokenId, forcedEosTokenId }, { maxLength }) => {
  const force = (to: number | readonly number[]): void => {
    scores.fill(RULED_OUT);
    put(scores, typeof to === "number" ? [to] : to, 0);
  };
  if (forcedBosTokenId !== undefined && ids.length === 1) force(forcedBosTokenId);
  if (forcedEosTokenId !== undefined && ids.length === maxLength - 1) force(forcedEosTokenId);
};

const invalid: Rule = (scores, _, { removeInvalidValues }) => {
  if (!removeInvalidValues) return;
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i]!;
    scores[i] = Number.isNaN(score) ? 0 : Math.min(Math.max(score, -LARGEST_F32), LARGEST_F32);
  }
};

const decay: Rule = (scores, { ids, promptTokens }, { exponentialDecayLengthPenalty }, { endIds }) => {
  if (!exponentialDecayLengthPenalty) return;
  const [start, factor] = exponentialDecayLengthPenalty;
  const over = ids.length - (start + promptTokens);
  if (over <= 0) return;
  for (const id of endIds) {
    const score = scores[id];
    // an end token that is ruled out stays so: the reference gets NaN here
    if (score !== undefined && Number.isFinite(score))
      scores[id] = Math.min(score + Math.abs(score) * (power(factor, over) - 1), LARGEST_F32);
  }
};

const suppressed: Rule = (scores, { ids, promptTokens }, { suppressTokens = [], beginSuppressTokens = [], forcedBosTokenId }) => {
  put(scores, suppressTokens, RULED_OUT);
  const first = promptTokens > 1 || forcedBosTokenId === undefined ? promptTokens : promptTokens + 1;
  if (ids.length === first) put(scores, beginSuppressTokens, RULED_OUT);
};

const AFTER_PENALTY: readonly Rule[] = [counts, ngrams, badWords, leastLength, forced, invalid, decay, suppressed];

/** A call's rules on a row of logits (V,), changed in place: those before the repetition penalty, and those after it. */
export interface Rules {
  /** Whether NaN and infinite logits are made numbers, and so no error. */
  readonly removeInvalidValues: boolean;
  before(scores: Float32Array): void;
  after(scores: Float32Array): void;
}

/** @returns the rules of a call on `history` as it grows; undefined when there are none */
export function rulesOf(options: ProcessorOptions, history: History, setting: ProcessorSetting): Rules | undefined {
  if (Object.values(options).every((value) => value === undefined)) return undefined;
  const apply =
    (rules: readonly Rule[]) =>
    (scores: Float32Array): void => {
      for (const rule of rules) rule(scores, history, options, setting);
    };
  return { removeInvalidValues: options.removeInvalidValues ?? false, before: apply([bias]), after: apply(AFTER_PENALTY) };
}

/** Of no class, of whichever realm: only an Object.prototype has none itself. */
const isPlain = (value: unknown): value is object =>
  isRecord(value) && Object.getPrototypeOf(Object.getPrototypeOf(value) ?? Object.prototype) === null;
const isId = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isIds = (value: unknown): boolean => Array.isArray(value) && value.length > 0 && value.length <= MAX_SEQUENCES && value.every(isId);
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
const isBias = (value: unknown): boolean => typeof value === "number" && value < Number.POSITIVE_INFINITY;
const isList = (value: unknown, isItem: (item: unknown) => boolean): boolean =>
  Array.isArray(value) && value.length <= MAX_SEQUENCES && value.every(isItem);

/** By option: what it may be. */
export const CHECKS: Readonly<Record<keyof ProcessorOptions, readonly [expected: string, isValid: (value: unknown) => boolean]>> = {
  logitBias: [
    "an object (no Map) from token ids to numbers",
    (value) => isPlain(value) && Object.entries(value).every(([id, bias]) => /^\d+$/.test(id) && isId(Number(id)) && isBias(bias)),
  ],
  sequenceBias: [
    "a list of [ids, bias]",
    (value) => isList(value, (item) => Array.isArray(item) && item.length === 2 && isIds(item[0]) && isBias(item[1])),
  ],
  presencePenalty: ["a number from -100 to 100", (value) => isNumber(value) && Math.abs(value) <= 100],
  frequencyPenalty: ["a number from -100 to 100", (value) => isNumber(value) && Math.abs(value) <= 100],
  noRepeatNgramSize: ["a whole number of 0 or more", isCount],
  badWordsIds: ["a list of lists of token ids, none of them empty", (value) => isList(value, isIds)],
  minLength: ["a whole number of 0 or more", isCount],
  minTokens: ["a whole number of 0 or more", isCount],
  forcedBosTokenId: ["a token id", isId],
  forcedEosTokenId: ["a token id or a list of them", (value) => isId(value) || isIds(value)],
  removeInvalidValues: ["true or false", (value) => typeof value === "boolean"],
  exponentialDecayLengthPenalty: [
    "[start, factor]: a whole number of 0 or more, and a number above 0",
    (value) => Array.isArray(value) && value.length === 2 && isCount(value[0]) && isNumber(value[1]) && value[1] > 0,
  ],
  suppressTokens: ["a list of token ids", (value) => isList(value, isId)],
  beginSuppressTokens: ["a list of token ids", (value) => isList(value, isId)],
};

/** Options whose ids are all that is left: others that are no tokens rule nothing out. */
const FORCED = ["forcedBosTokenId", "forcedEosTokenId"] as const;

/**
 * @param vocabSize V
 * @returns the processors' part of a call's options, checked
 * @throws InputError for a value of the wrong kind or out of range
 */
export function checkProcessors(options: ProcessorOptions, vocabSize: number = Number.POSITIVE_INFINITY): ProcessorOptions {
  const found: Record<string, unknown> = {};
  for (const [name, [expected, isValid]] of Object.entries(CHECKS)) {
    const value: unknown = options[name as keyof ProcessorOptions];
    if (value === undefined) continue;
    if (!isValid(value))
      throw new InputError(`options: ${name}: expected ${expected}, got ${JSON.stringify(value) ?? typeof value}. Leave it out for none.`);
    found[name] = value;
  }
  for (const name of FORCED)
    for (const id of [options[name] ?? []].flat())
      if (id >= vocabSize)
        throw new InputError(`options: ${name}: expected token ids from 0 to ${vocabSize - 1}, got ${id}. Leave it out for none.`);
  return found;
}
