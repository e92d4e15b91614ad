// What a text's perplexity by sliding windows and a text's embedding are made of, in float64 from logits and hidden states alone.

/** -log of the share of `id` in softmax(logits). */
function surprise(logits: ArrayLike<number>, id: number): number {
  const values = Array.from(logits);
  const top = Math.max(...values);
  return Math.log(values.reduce((sum, x) => sum + Math.exp(x - top), 0)) + top - values[id]!;
}

/**
 * Windows of `contextTokens` begin every `stride` tokens; each scores what none before it has scored, the first token of all nowhere.
 * @param logitsOf logits (n,V) of a window's tokens from an empty context, row by row
 * @returns mean of -log p over all tokens that are scored, and their number
 */
export async function windowLoss(
  ids: readonly number[],
  contextTokens: number,
  stride: number,
  logitsOf: (window: readonly number[]) => Promise<readonly ArrayLike<number>[]>,
): Promise<{ loss: number; tokens: number }> {
  const terms: number[] = [];
  for (let begin = 0, scored = 1; scored < ids.length; begin += stride) {
    const end = Math.min(begin + contextTokens, ids.length);
    const rows = await logitsOf(ids.slice(begin, end));
    for (; scored < end; scored++) terms.push(surprise(rows[scored - 1 - begin]!, ids[scored]!));
  }
  return { loss: terms.reduce((a, b) => a + b, 0) / terms.length, tokens: terms.length };
}

/** @param rows hidden states (T,D) @returns the mean of the rows, or the last of them (D,) */
export function pooled(rows: readonly ArrayLike<number>[], pooling: "mean" | "last"): number[] {
  if (pooling === "last") return Array.from(rows.at(-1)!);
  return Array.from(rows[0]!, (_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
}
