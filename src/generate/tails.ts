// Cuts that look at more than the likeliest tokens: typical-p, epsilon and eta. Candidates in any order; the order is kept. No engine's exp or log is asked:
// with w = e^(score - largest) and Z = Σw, the surprise of a token is ln Z - (score - largest), and ln Z drops out of every difference.
import type { Logits } from "../kernels/logits.ts";
import type { Candidates } from "./selection.ts";

/** Cuts by more than a token's own rank. What is absent is off. */
export interface TailOptions {
  /** Keeps the tokens whose surprise is nearest to the expected one, until they hold this share of the probability; 1 keeps all. */
  readonly typicalP?: number | undefined;
  /** Removes tokens less likely than this; 0 removes none. */
  readonly epsilonCutoff?: number | undefined;
  /** Removes tokens less likely than the lesser of this and √this · e^-entropy; 0 removes none. */
  readonly etaCutoff?: number | undefined;
}

/** @returns whether an option asks for one of these cuts */
export function cutsTails({ typicalP = 1, epsilonCutoff = 0, etaCutoff = 0 }: TailOptions): boolean {
  return typicalP < 1 || isShare(epsilonCutoff) || isShare(etaCutoff);
}

/** The reference takes 0 and 1 for off. */
const isShare = (value: number): boolean => value > 0 && value < 1;

/** @returns all logits that are not ruled out, by id */
export function everything(logits: Logits): Candidates {
  logits.softmax();
  const weights = logits.probabilities();
  const ids = Uint32Array.from({ length: weights.length }, (_, id) => id);
  return keep({ ids, weights: weights.slice() }, (_, weight) => weight > 0);
}

/**
 * @param candidates whose weights are e^(score - largest), not empty
 * @param least so many of them stay behind each cut
 */
export function cutTails(candidates: Candidates, logits: Logits, options: TailOptions, least: number): Candidates {
  const { typicalP = 1, epsilonCutoff = 0, etaCutoff = 0 } = options;
  let kept = candidates;
  if (typicalP < 1) kept = cutByTypicality(kept, logits, typicalP, least);
  if (isShare(epsilonCutoff)) kept = cutBelow(kept, epsilonCutoff, least);
  if (isShare(etaCutoff)) kept = cutBelow(kept, etaLimit(kept, logits, etaCutoff), least);
  return kept;
}

function keep({ ids, weights }: Candidates, isKept: (i: number, weight: number) => boolean): Candidates {
  const places = new Uint32Array(ids.length);
  let count = 0;
  for (let i = 0; i < ids.length; i++) if (isKept(i, weights[i]!)) places[count++] = i;
  const kept = places.subarray(0, count);
  return { ids: Uint32Array.from(kept, (i) => ids[i]!), weights: Float32Array.from(kept, (i) => weights[i]!) };
}

function sum(weights: Float32Array): number {
  let total = 0;
  for (const weight of weights) total += weight;
  return total;
}

const largest = (weights: Float32Array): number => weights.reduce((a, b) => Math.max(a, b), 0);

/** Removes what is less likely than `probability`; the `least` likeliest stay. */
function cutBelow(candidates: Candidates, probability: number, least: number): Candidates {
  const { weights } = candidates;
  const limit = probability * sum(weights);
  const last = least === 1 ? largest(weights) : (weights.slice().sort().at(-least) ?? 0);
  return keep(candidates, (_, weight) => weight >= limit || weight >= last);
}

/** @returns score - largest score of each, and their mean over the distribution: minus the entropy, but for ln Z */
function depths({ ids, weights }: Candidates, logits: Logits): { readonly depth: Float64Array; readonly mean: number } {
  const scores = logits.view();
  let top = Number.NEGATIVE_INFINITY;
  for (const id of ids) top = Math.max(top, scores[id]!);
  const depth = Float64Array.from(ids, (id) => scores[id]! - top);
  let mean = 0;
  for (let i = 0; i < depth.length; i++) if (weights[i]! > 0) mean += weights[i]! * depth[i]!;
  return { depth, mean: mean / sum(weights) };
}

/** min(eta, √eta · e^-entropy) */
function etaLimit(candidates: Candidates, logits: Logits, eta: number): number {
  const { mean } = depths(candidates, logits);
  const negativeEntropy = logits.weigh(Float32Array.of(0, mean))[1]! / (sum(candidates.weights) / largest(candidates.weights));
  return Math.min(eta, Math.sqrt(eta) * negativeEntropy);
}

/** Keeps those whose surprise is nearest to the entropy, until they hold `typicalP` of the mass and are `least` at the least, and all that are as near as the last of them. */
function cutByTypicality(candidates: Candidates, logits: Logits, typicalP: number, least: number): Candidates {
  const { weights } = candidates;
  const { depth, mean } = depths(candidates, logits);
  const off = depth.map((d) => Math.abs(mean - d));
  const mass = typicalP * sum(weights);
  // only those within a radius that certainly holds the mass, and enough of them, are sorted
  const widest = off.reduce((a, b) => Math.max(a, b), 0);
  const holds = (radius: number): boolean =>
    massWithin(weights, off, radius) > mass * (1 + 1e-6) && (least === 1 || off.filter((d) => d <= radius).length >= least);
  let radius = 1;
  while (radius < widest && !holds(radius)) radius *= 2;
  const near = Array.from(off.keys()).filter((i) => off[i]! <= radius);
  near.sort((a, b) => off[a]! - off[b]! || a - b);
  let last = 0;
  for (let before = weights[near[0]!]!; last < near.length - 1 && (before < mass || last + 1 < least); ) before += weights[near[++last]!]!;
  const limit = off[near[last]!]!;
  return keep(candidates, (i) => off[i]! <= limit);
}

function massWithin(weights: Float32Array, off: Float64Array, radius: number): number {
  let total = 0;
  for (let i = 0; i < off.length; i++) if (off[i]! <= radius) total += weights[i]!;
  return total;
}
