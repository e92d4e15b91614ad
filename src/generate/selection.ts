// Sets of token ids picked out of scores and weights without sorting more of them than must be. Pure arrays and comparison; knows no sampling option.

/** Tokens that may be drawn, with unnormalised weights: e^(score - largest score). From the sampler they come the largest logit first, ties by id. */
export interface Candidates {
  readonly ids: Uint32Array;
  readonly weights: Float32Array;
}

/** @returns ids whose value is in [low, high), ascending. */
export function idsBetween(values: Float32Array, low: number, high: number): Uint32Array {
  const ids = new Uint32Array(values.length);
  let count = 0;
  for (let id = 0; id < values.length; id++) {
    const value = values[id]!;
    if (value >= low && value < high) ids[count++] = id;
  }
  return ids.subarray(0, count);
}

/** Sorts ids by falling score, ties by id. One exact f64 key per id, order of the score above id: the engine's own numeric sort needs no comparison function then. */
export function sortByScore(scores: Float32Array, ids: Uint32Array): Uint32Array {
  const ID_SPACE = 0x20_0000;
  const score = new Float32Array(1);
  const bits = new Int32Array(score.buffer);
  const keys = new Float64Array(ids.length);
  for (let i = 0; i < ids.length; i++) {
    // Adding 0 makes one zero of both. Bits of floats ascend with positive values and descend with negative ones.
    score[0] = scores[ids[i]!]! + 0;
    const ordinal = bits[0]! < 0 ? ~bits[0]! - 0x8000_0000 : bits[0]!;
    keys[i] = -ordinal * ID_SPACE + ids[i]!;
  }
  keys.sort();
  return Uint32Array.from(keys, (key) => key - Math.floor(key / ID_SPACE) * ID_SPACE);
}

/** Weights are sorted into buckets of equal upper bits, eight to the octave: who needs the heaviest share of the mass sorts no more than that. */
const BUCKET_SHIFT = 20;
const BUCKETS = (0x3f80_0000 >> BUCKET_SHIFT) + 1;

/**
 * @param weights (n,) from 0 to 1
 * @param isCount gives every weight the mass 1: buckets then find a rank
 * @returns mass of each bucket; the last holds the weight 1
 */
export function fillBuckets(weights: Float32Array, isCount = false): Float64Array {
  const bits = new Uint32Array(weights.buffer, weights.byteOffset, weights.length);
  const masses = new Float64Array(BUCKETS);
  for (let i = 0; i < bits.length; i++) masses[bits[i]! >>> BUCKET_SHIFT]! += isCount ? 1 : weights[i]!;
  return masses;
}

/** @returns the bucket in which the mass, heaviest first, exceeds `mass`, and the mass of those above it. */
export function bucketAt(masses: Float64Array, mass: number): { bucket: number; above: number } {
  let above = 0;
  let bucket = BUCKETS - 1;
  let lowest = bucket;
  for (; bucket >= 0; bucket--) {
    if (masses[bucket]! > 0) lowest = bucket;
    if (above + masses[bucket]! > mass) break;
    above += masses[bucket]!;
  }
  // Rounding may leave the sum just short of the total: then it is the lowest bucket that holds anything.
  return bucket >= 0 ? { bucket, above } : { bucket: lowest, above: above - masses[lowest]! };
}

/** @returns the smallest weight that falls into a bucket */
export const smallestOf = (bucket: number): number => new Float32Array(Uint32Array.of(bucket << BUCKET_SHIFT).buffer)[0]!;
