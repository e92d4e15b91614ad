// From logits to one token: penalty, temperature, top-k, top-p, min-p and their like in the reference's order, then a draw. Sees a row of logits, knows no model and no text.
// Tokens must not depend on the JavaScript engine: exponentials come from the kernels, everything else here is + - × ÷ and comparison.
import { FormatError, InputError, type Lfm2Error, type Lfm2ErrorOptions } from "../errors.ts";
import type { LargestLogits, Logits, TopLogits } from "../kernels/logits.ts";
import { kindOf } from "../values.ts";
import { random } from "./philox.ts";
import type { Rules } from "./processors.ts";
import { bucketAt, type Candidates, fillBuckets, idsBetween, smallestOf, sortByScore } from "./selection.ts";
import { cutsTails, cutTails, everything, type TailOptions } from "./tails.ts";

/** How a token is chosen. What is absent is off; `temperature` defaults to 1. */
export interface SamplingOptions extends TailOptions {
  /** 0 takes the likeliest token; above, logits are divided by it. */
  readonly temperature?: number | undefined;
  /** Keeps the k largest logits, and those equal to the k-th; 0 keeps all. */
  readonly topK?: number | undefined;
  /** Removes the tail that holds at most 1 - topP of the probability; 1 removes none. */
  readonly topP?: number | undefined;
  /** Removes tokens less likely than this share of the likeliest; 0 removes none. */
  readonly minP?: number | undefined;
  /** Keeps logits within so many deviations of the largest, whatever the temperature; 0 keeps all. */
  readonly topNSigma?: number | undefined;
  /** Above 1 makes tokens of the prompt and of the reply less likely; 1 is off. */
  readonly repetitionPenalty?: number | undefined;
  /** Names the random numbers; the same seed gives the same text. */
  readonly seed?: number | undefined;
}

/** Sampling options with every value filled in. */
export type Sampling = { readonly [K in keyof SamplingOptions]-?: number };

/** Closer to 0 than this, f32 logits overflow when divided; the likeliest token is taken. */
const GREEDY_BELOW = 1e-5;
/** Up to here the kernel's insertion into a sorted list is the fastest way to the k largest. */
const INSERTION_K = 200;
/** Nearly always what is drawn, and all that it is drawn from, lies among so many of the largest logits, which the kernel sorts in passing. */
const FEW = 64;
/** e^-1, as a number: no engine's `exp` is asked. */
const INVERSE_E = 0.36787944117144233;
const OFF: Sampling = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  epsilonCutoff: 0,
  etaCutoff: 0,
  topNSigma: 0,
  repetitionPenalty: 1,
  seed: 0,
};

interface Range {
  readonly expected: string;
  readonly advice: string;
  isValid(value: number): boolean;
}

const between = (low: number, high: number, advice: string): Range => ({
  expected: `a number from ${low} to ${high}`,
  advice,
  isValid: (value) => value >= low && value <= high,
});

/** By option: what it may be. */
export const RANGES: Readonly<Record<keyof Sampling, Range>> = {
  temperature: between(0, 100, "0 is greedy, 0.1 to 1 is usual."),
  topK: {
    expected: "an integer of 0 or more",
    advice: "0 is off, 50 is usual.",
    isValid: (value) => Number.isSafeInteger(value) && value >= 0,
  },
  topP: between(0, 1, "1 is off, 0.9 is usual."),
  minP: between(0, 1, "0 is off, 0.15 is usual."),
  typicalP: between(0, 1, "1 is off, 0.9 is usual."),
  epsilonCutoff: between(0, 1, "0 is off, 0.0003 is usual."),
  etaCutoff: between(0, 1, "0 is off, 0.0003 is usual."),
  topNSigma: between(0, 1000, "0 is off, 1 is usual."),
  repetitionPenalty: between(0.01, 100, "1 is off, 1.05 is usual."),
  seed: {
    expected: "an integer of 0 or more, at most 2^53 - 1",
    advice: "Any such number will do.",
    isValid: (value) => Number.isSafeInteger(value) && value >= 0,
  },
};

/**
 * Checks sampling options, and nothing else of the object.
 * @param where begins the sentence of an error
 * @param Class the class of an error
 * @throws InputError (or `Class`) when a value is no number or out of its range
 */
export function checkSampling(
  options: SamplingOptions,
  where = "sampling",
  Class: new (message: string, options?: Lfm2ErrorOptions) => Lfm2Error = InputError,
): void {
  for (const [name, range] of Object.entries(RANGES)) {
    const value: unknown = options[name as keyof SamplingOptions];
    if (value === undefined || (typeof value === "number" && range.isValid(value))) continue;
    const got = typeof value === "number" ? String(value) : typeof value === "string" ? JSON.stringify(value) : kindOf(value);
    throw new Class(`${where}: expected ${name} to be ${range.expected}, got ${got}. ${range.advice}`);
  }
}

/** @returns a seed for a call that names none. It decides what text comes, so it is reported with the reply or fixed by the caller. */
export function randomSeed(): number {
  return Math.floor(Math.random() * 0x1_0000_0000);
}

/**
 * @param options of the call; they win
 * @param defaults for what the call leaves open
 * @returns every value, the seed drawn at random when none is named
 * @throws InputError when an option is no number or out of its range
 */
export function resolveSampling(options: SamplingOptions, defaults: SamplingOptions = {}): Sampling {
  checkSampling(options);
  const value = (name: keyof Sampling, otherwise: number): number => options[name] ?? defaults[name] ?? otherwise;
  return {
    temperature: value("temperature", OFF.temperature),
    topK: value("topK", OFF.topK),
    topP: value("topP", OFF.topP),
    minP: value("minP", OFF.minP),
    typicalP: value("typicalP", OFF.typicalP),
    epsilonCutoff: value("epsilonCutoff", OFF.epsilonCutoff),
    etaCutoff: value("etaCutoff", OFF.etaCutoff),
    topNSigma: value("topNSigma", OFF.topNSigma),
    repetitionPenalty: value("repetitionPenalty", OFF.repetitionPenalty),
    seed: options.seed ?? defaults.seed ?? randomSeed(),
  };
}

/** @returns whether the likeliest token is taken, so that no random number is needed. */
export function isGreedy(sampling: SamplingOptions): boolean {
  return (sampling.temperature ?? OFF.temperature) < GREEDY_BELOW;
}

/**
 * Chooses the next token. The logits are changed in place.
 * @param context distinct ids of prompt and reply so far, for the repetition penalty
 * @param position absolute position in the sequence that the token will have
 * @param rules of the call beside the repetition penalty
 * @returns its id
 * @throws FormatError when logits are NaN or infinite, or all are ruled out
 */
export function sample(logits: Logits, options: SamplingOptions, context: Iterable<number>, position: number, rules?: Rules): number {
  process(logits, options, context, rules);
  return pickToken(logits, options, position);
}

/**
 * The first half of `sample`: everything that a user's own function finds done.
 * @throws FormatError when logits are NaN or infinite
 */
export function process(logits: Logits, options: SamplingOptions, context: Iterable<number>, rules?: Rules): void {
  rules?.before(logits.view());
  if (!rules?.removeInvalidValues && !logits.isFinite()) throw damaged("NaN or Infinity");
  const { repetitionPenalty = OFF.repetitionPenalty } = options;
  if (repetitionPenalty !== 1) logits.penalize(context, repetitionPenalty);
  rules?.after(logits.view());
}

/**
 * The second half of `sample`: temperature, cuts, draw.
 * @param hasRules whether a call's rules or functions have been at the logits
 * @throws InputError when they have ruled all out; FormatError when that was the model
 */
export function pickToken(logits: Logits, options: SamplingOptions, position: number, hasRules?: boolean): number {
  const best = heat(logits, options, hasRules);
  if (isGreedy(options)) return best;
  const u = random(options.seed ?? OFF.seed, position);
  if (isOpen(logits, options) && Number.isFinite(logits.view()[best])) return drawFromAll(logits, u);
  return draw(choose(logits, options, best, 1), u);
}

/** Whether nothing is cut off. */
function isOpen({ size }: Logits, { topK = OFF.topK, topP = OFF.topP, minP = OFF.minP, ...rest }: SamplingOptions): boolean {
  return (topK === 0 || topK >= size) && topP >= 1 && minP <= 0 && !cutsTails(rest);
}

/**
 * @param most so many can be had
 * @returns how many of a row's largest logits are all that `pickLargest` wants, 0 where a choice wants all of them: nothing else may be at the logits before
 */
export function largestWanted(options: SamplingOptions, most: number): number {
  const { topK = OFF.topK, topNSigma = OFF.topNSigma, repetitionPenalty = OFF.repetitionPenalty } = options;
  if (most === 0 || repetitionPenalty !== 1) return 0;
  if (isGreedy(options)) return 1;
  return topK > 0 && topK < most && topNSigma <= 0 && !cutsTails(options) ? topK + 1 : 0;
}

/** What a step that was asked for the largest logits leaves, and may be asked for more. */
interface LargestFirst {
  largest(row: number): LargestLogits;
  logits(row?: number): Logits;
  /** Computes all logits, which `logits` then gives. */
  logitsAfterAll(): void;
}

/**
 * `sample` by no more than a row's largest logits, as many as `largestWanted` says or more: the same token.
 * @returns undefined where all logits have to be looked at, for ties at the border or tokens that were ruled out: they are computed by then
 * @throws FormatError when logits are NaN or infinite, or all are ruled out
 */
export function pickLargest(model: LargestFirst, row: number, options: SamplingOptions, position: number): number | undefined {
  const id = pickOf(model, row, options, position);
  if (id === undefined) model.logitsAfterAll();
  return id;
}

function pickOf(model: LargestFirst, row: number, options: SamplingOptions, position: number): number | undefined {
  const { values, ids } = model.largest(row);
  const best = ids[0]!;
  if (Number.isNaN(values[0])) throw damaged("NaN or Infinity");
  if (best < 0) throw damaged("-Infinity for all");
  if (isGreedy(options)) return best;
  const { temperature = OFF.temperature, topK = OFF.topK, topP = OFF.topP, minP = OFF.minP } = options;
  const by = Math.fround(temperature);
  const scores = Float32Array.from(values.subarray(0, topK + 1), (value) => value / by); // rounded as the kernel rounds it
  if (!(scores[0]! < Number.POSITIVE_INFINITY)) return undefined;
  for (let i = 0; i < topK; i++) {
    const isTie = !(scores[i]! > scores[i + 1]!);
    if (isTie && (i === topK - 1 || values[i] !== values[i + 1])) return undefined; // equal values are sorted by id, those that the division made equal are not
  }
  const top = { ids: Uint32Array.from(ids.subarray(0, topK)), weights: model.logits().weigh(scores.subarray(0, topK)) };
  return draw(cutByMinP(cutByTopP(top, topP, 1), minP, 1), random(options.seed ?? OFF.seed, position));
}

/**
 * The tokens that `sample` would draw from. The logits are changed in place.
 * @param context distinct ids of prompt and reply so far, for the repetition penalty
 * @throws FormatError when logits are NaN or infinite, or all are ruled out
 */
export function candidates(logits: Logits, options: SamplingOptions, context: Iterable<number>, rules?: Rules): Candidates {
  process(logits, options, context, rules);
  return cut(logits, options);
}

/**
 * Temperature and cuts on processed logits, which are changed in place.
 * @param least so many tokens stay behind every cut, where there are as many
 * @returns what is left to be drawn from
 * @throws FormatError when all logits are ruled out
 */
export function cut(logits: Logits, options: SamplingOptions, least: number = 1): Candidates {
  const best = heat(logits, options);
  return isGreedy(options) ? single(best) : choose(logits, options, best, least);
}

/** @returns the error of a call whose rules leave no token */
export function noneLeft(): InputError {
  return new InputError("logits: expected a token that the call's rules leave, got none. Change them.");
}

const damaged = (got: string): FormatError =>
  new FormatError(
    `logits: expected finite numbers, got ${got}. The checkpoint is damaged, or its values overflow: try another file or dtype.`,
  );

/** Applies the temperature. @returns the id of the largest logit */
function heat(logits: Logits, options: SamplingOptions, hasRules = false): number {
  const { temperature = OFF.temperature, topNSigma = OFF.topNSigma } = options;
  const best = logits.argmax();
  const largest = logits.view()[best] ?? Number.NaN;
  if (!(largest > Number.NEGATIVE_INFINITY)) throw hasRules ? noneLeft() : damaged("-Infinity for all");
  if (isGreedy(options)) return best;
  if (topNSigma > 0) cutBySigma(logits.view(), topNSigma, largest);
  if (temperature !== 1) logits.divide(temperature);
  return best;
}

/** Rules out the logits below largest - n·σ, σ the deviation of those that are not ruled out. */
function cutBySigma(scores: Float32Array, n: number, largest: number): void {
  const live = (add: (score: number) => number): number => {
    let total = 0;
    for (const score of scores) if (Number.isFinite(score)) total += add(score);
    return total;
  };
  const count = live(() => 1);
  const mean = live((score) => score) / count;
  const least = largest - n * Math.sqrt(live((score) => (score - mean) * (score - mean)) / count);
  for (let id = 0; id < scores.length; id++) if (scores[id]! < least) scores[id] = Number.NEGATIVE_INFINITY;
}

const single = (id: number): Candidates => ({ ids: Uint32Array.of(id), weights: Float32Array.of(1) });

/** Every cut on prepared logits, each on what the one before left. */
function choose(logits: Logits, options: SamplingOptions, best: number, least: number): Candidates {
  // Only a penalty or temperature at the end of its range on absurd logits gets here.
  if (!Number.isFinite(logits.view()[best])) return single(best);
  if (!cutsTails(options)) return chooseLikely(logits, options, best, least);
  const { topK = OFF.topK, topP = OFF.topP, minP = OFF.minP } = options;
  const isOpen = (topK === 0 || topK >= logits.size) && topP >= 1 && minP <= 0;
  const kept = cutTails(isOpen ? everything(logits) : chooseLikely(logits, options, best, least), logits, options, least);
  const ids = sortByScore(logits.view(), kept.ids);
  return weigh(logits, ids);
}

/** top-k, top-p and min-p. */
function chooseLikely(logits: Logits, options: SamplingOptions, best: number, least: number): Candidates {
  const { topK: k = OFF.topK, topP = OFF.topP, minP = OFF.minP } = options;
  const largest = logits.view()[best]!;
  const topK = k > 0 ? Math.max(k, least) : 0;
  if (topK > 0 && topK < logits.size) return cutByMinP(cutByTopP(weigh(logits, largestScores(logits, topK)), topP, least), minP, least);
  if (topP < 1) return cutByMinP(nucleus(logits, topP, least), minP, least);
  const lowest = minP > 0 ? largest - reach(minP) : -Number.MAX_VALUE;
  return cutByMinP(weigh(logits, scoresFrom(logits, lowest, least)), minP, least);
}

/** @returns the largest few logits and their ids, sorted. */
function few(logits: Logits): TopLogits {
  return logits.topK(Math.min(FEW, logits.size));
}

/** @returns ids of the logits from `lowest` on, and of the `least` largest that are not ruled out, sorted. */
function scoresFrom(logits: Logits, lowest: number, least: number): Uint32Array {
  const { ids, values } = few(logits);
  const end = values.findIndex((value, i) => value < lowest && (i >= least || value === Number.NEGATIVE_INFINITY));
  if (end >= 0) return ids.subarray(0, end);
  return sortByScore(logits.view(), idsBetween(logits.view(), lowest, Number.POSITIVE_INFINITY));
}

/** @returns ids of the k largest logits and of those equal to the k-th, sorted; none that was ruled out. */
function largestScores(logits: Logits, k: number): Uint32Array {
  if (k > INSERTION_K) return largestScoresOfMany(logits, k);
  const { ids, values } = logits.topK(k + 1);
  const border = values[k - 1]!;
  if (border === Number.NEGATIVE_INFINITY) return ids.filter((_, i) => values[i] !== Number.NEGATIVE_INFINITY);
  if (values[k] !== border) return ids.subarray(0, k);
  return sortByScore(logits.view(), idsBetween(logits.view(), border, Number.POSITIVE_INFINITY));
}

function largestScoresOfMany(logits: Logits, k: number): Uint32Array {
  logits.softmax();
  const weights = logits.probabilities();
  const { bucket } = bucketAt(fillBuckets(weights, true), k - 1);
  // One bucket more: where two meet, the last bit of an exponential may order two weights otherwise than their scores.
  const ids = idsBetween(weights, smallestOf(Math.max(0, bucket - 1)), Number.POSITIVE_INFINITY);
  const scores = logits.view();
  const sorted = sortByScore(scores, ids);
  const border = Math.max(scores[sorted[k - 1]!]!, -Number.MAX_VALUE);
  let count = sorted.length;
  while (scores[sorted[count - 1]!]! < border) count--;
  return sorted.subarray(0, count);
}

/** @returns a distance from the largest score, beyond which e^-distance is certainly below `minP`: a rounded-up -ln(minP). */
function reach(minP: number): number {
  let distance = 1;
  for (let weight = INVERSE_E; weight >= minP * 0.999; weight *= INVERSE_E) distance++;
  return distance;
}

/** @param ids sorted; the first is that of the largest score */
function weigh(logits: Logits, ids: Uint32Array): Candidates {
  const scores = logits.view();
  return { ids, weights: logits.weigh(Float32Array.from(ids, (id) => scores[id]!)) };
}

/** Removes the tail of at most 1 - topP of the mass; the first `least` stay. */
function cutByTopP(candidates: Candidates, topP: number, least: number): Candidates {
  if (topP >= 1) return candidates;
  return cutAtMass(candidates, topP * sum(candidates.weights), least);
}

/** Keeps those that have less than `mass` before them; the first `least` stay. */
function cutAtMass({ ids, weights }: Candidates, mass: number, least: number): Candidates {
  let before = weights[0]!;
  let count = 1;
  for (; count < ids.length && (before < mass || count < least); count++) before += weights[count]!;
  return { ids: ids.subarray(0, count), weights: weights.subarray(0, count) };
}

/** Removes what is less likely than `minP` times the first; the first `least` stay. */
function cutByMinP({ ids, weights }: Candidates, minP: number, least: number): Candidates {
  const lowest = minP * weights[0]!;
  let count = weights.length;
  while (count > least && weights[count - 1]! < lowest) count--;
  return { ids: ids.subarray(0, count), weights: weights.subarray(0, count) };
}

function sum(weights: Float32Array): number {
  let total = 0;
  for (const weight of weights) total += weight;
  return total;
}

/** Takes the candidate in whose share of the mass `u` falls, the first candidate from 0 on. */
function draw({ ids, weights }: Candidates, u: number): number {
  return pick(ids, weights, u * sum(weights), 0);
}

/** @returns the id where the running sum, which begins at `before`, first exceeds `mass`. */
function pick(ids: Uint32Array, weights: Float32Array, mass: number, before: number): number {
  let last = 0;
  for (let i = 0; i < ids.length; i++) {
    if (weights[i] === 0) break;
    last = i;
    before += weights[i]!;
    if (before > mass) break;
  }
  return ids[last]!;
}

/** @returns the largest few of the logits whose `softmax` has been computed, with their weights. */
function fewWeighed(logits: Logits): Candidates {
  const { ids } = few(logits);
  const weights = logits.probabilities();
  return { ids, weights: Float32Array.from(ids, (id) => weights[id]!) };
}

/** top-p on all logits. */
function nucleus(logits: Logits, topP: number, least: number): Candidates {
  const mass = topP * logits.softmax();
  const first = fewWeighed(logits);
  if (sum(first.weights) >= mass && least <= FEW) return cutAtMass(first, mass, least);
  const buckets = fillBuckets(logits.probabilities());
  const ids = idsBetween(logits.probabilities(), smallestOf(bucketAt(buckets, mass).bucket), Number.POSITIVE_INFINITY);
  return cutAtMass(weigh(logits, sortByScore(logits.view(), ids)), mass, least);
}

/** The token that `draw` would take from all of them, without sorting more than one bucket. */
function drawFromAll(logits: Logits, u: number): number {
  const mass = u * logits.softmax();
  const first = fewWeighed(logits);
  if (sum(first.weights) > mass) return pick(first.ids, first.weights, mass, 0);
  const weights = logits.probabilities();
  const { bucket, above } = bucketAt(fillBuckets(weights), mass);
  const ids = sortByScore(logits.view(), idsBetween(weights, smallestOf(bucket), smallestOf(bucket + 1)));
  return pick(
    ids,
    Float32Array.from(ids, (id) => weights[id]!),
    mass,
    above,
  );
}
