// What a bias on single logits gives, in float64: the reference's rule for sequences of one token (score + bias, for every such entry), before its penalty
// on tokens that were seen (score · p below zero, score / p from zero on), and the probabilities from it.

/**
 * @param logits (V,)
 * @param biases pairs of id and value; a token that is named twice has both
 * @param seen ids that the penalty hits
 * @returns scores (V,) behind both
 */
export function biasedScores(
  logits: readonly number[],
  biases: readonly (readonly [id: number, value: number])[],
  seen: readonly number[],
  penalty: number,
): number[] {
  const scores = [...logits];
  for (const [id, value] of biases) scores[id]! += value;
  for (const id of new Set(seen)) scores[id] = scores[id]! < 0 ? scores[id]! * penalty : scores[id]! / penalty;
  return scores;
}

/** @returns e^score, as shares of their sum (V,) */
export function probabilitiesOf(scores: readonly number[]): number[] {
  const top = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - top));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}
