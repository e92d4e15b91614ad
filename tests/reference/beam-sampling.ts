// Beam search whose continuations are drawn, in float64 and with plain sorting: the reference's `_beam_search` with do_sample (transformers, 2025).

/** What is searched, and how. */
export interface BeamSampling {
  readonly prompt: readonly number[];
  readonly maxNewTokens: number;
  readonly numBeams: number;
  readonly endIds: readonly number[];
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly lengthPenalty: number;
  readonly earlyStopping: boolean;
  /** A number in [0, 1) for draw number `draw` of the token at `position`. */
  readonly uniform: (position: number, draw: number) => number;
}

interface Candidate {
  readonly ids: readonly number[];
  readonly total: number;
}

const falling = (x: readonly number[]): number[] => x.map((_, i) => i).sort((a, b) => x[b]! - x[a]! || a - b);

/** ln of the probabilities. */
function logSoftmax(x: ArrayLike<number>): number[] {
  const list = Array.from(x);
  const top = list.reduce((a, b) => Math.max(a, b));
  const sum = list.reduce((total, v) => total + Math.exp(v - top), 0);
  return list.map((v) => v - top - Math.log(sum));
}

/** Temperature, top-k, top-p on log-probabilities, which are not made to sum to 1 again; `least` of them stay. */
function warped(scores: readonly number[], { temperature, topK, topP }: BeamSampling, least: number): number[] {
  const hot = scores.map((s) => s / temperature);
  const order = falling(hot);
  const border = topK > 0 ? hot[order[Math.min(hot.length, Math.max(topK, least)) - 1]!]! : Number.NEGATIVE_INFINITY;
  const kept = order.filter((i) => hot[i]! >= border);
  const p = logSoftmax(kept.map((i) => hot[i]!)).map(Math.exp);
  const out = hot.map(() => Number.NEGATIVE_INFINITY);
  let before = 0;
  for (const [rank, i] of kept.entries()) {
    if (rank < least || before < topP) out[i] = hot[i]!;
    before += p[rank]!;
  }
  return out;
}

/** Draws `count` of the candidates without putting any back, each by its share of what is left. */
function drawn(all: readonly Candidate[], count: number, uniform: (draw: number) => number): Candidate[] {
  const top = all.reduce((a, c) => Math.max(a, c.total), Number.NEGATIVE_INFINITY);
  const left = all.map((candidate) => ({ candidate, weight: Math.exp(candidate.total - top) })).filter(({ weight }) => weight > 0);
  const out: Candidate[] = [];
  for (let k = 0; k < count && left.length > 0; k++) {
    const mass = uniform(k) * left.reduce((sum, { weight }) => sum + weight, 0);
    let i = 0;
    for (let sum = left[0]!.weight; i < left.length - 1 && sum <= mass; ) sum += left[++i]!.weight;
    out.push(...left.splice(i, 1).map(({ candidate }) => candidate));
  }
  return out;
}

/**
 * @param stepLogits gives the logits of the token after ids
 * @returns new ids and score of each finished sequence, best first
 */
export async function sampleBeams(
  stepLogits: (ids: readonly number[]) => Promise<ArrayLike<number>>,
  o: BeamSampling,
): Promise<{ readonly ids: readonly number[]; readonly score: number }[]> {
  const P = o.prompt.length;
  const wanted = Math.max(2, 1 + o.endIds.length) * o.numBeams;
  let running: Candidate[] = [{ ids: o.prompt, total: 0 }];
  let finished: { ids: readonly number[]; score: number }[] = [];
  let isOpen = true;
  for (let length = P + 1; ; length++) {
    const all: Candidate[] = [];
    for (const { ids, total } of running) {
      const scores = warped(logSoftmax(await stepLogits(ids)), o, o.endIds.length + 1);
      // by falling score, as every draw here walks
      for (const id of falling(scores))
        if (scores[id]! > Number.NEGATIVE_INFINITY) all.push({ ids: [...ids, id], total: total + scores[id]! });
    }
    const top = drawn(all, wanted, (draw) => o.uniform(length - 1, draw));
    const isEnd = ({ ids }: Candidate): boolean => o.endIds.includes(ids.at(-1)!) || length === P + o.maxNewTokens;
    const isFull = (): boolean => finished.length === o.numBeams;
    if (isOpen && !(isFull() && o.earlyStopping)) {
      const ended = top.slice(0, o.numBeams).filter(isEnd);
      finished = [...finished, ...ended.map(({ ids, total }) => ({ ids, score: total / (length - P) ** o.lengthPenalty }))]
        .sort((a, b) => b.score - a.score)
        .slice(0, o.numBeams);
    }
    running = top
      .filter((c) => !isEnd(c))
      .sort((a, b) => b.total - a.total)
      .slice(0, o.numBeams);
    if (running.length === 0) break;
    const possible = running[0]!.total / (length - P) ** o.lengthPenalty;
    isOpen &&= possible > (isFull() ? finished.at(-1)!.score : Number.NEGATIVE_INFINITY);
    if (!isOpen || (o.earlyStopping && isFull())) break;
  }
  return finished.map(({ ids, score }) => ({ ids: ids.slice(P), score }));
}
