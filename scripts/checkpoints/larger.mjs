// A larger model that says what a smaller one says: its weights hold the smaller one's and are zero elsewhere, so it takes the time of its own size.
//
// Hidden columns, heads, convolution channels and ffn columns beyond the smaller model's are zero, layers beyond its own add nothing, ids beyond its vocabulary repeat its
// tokens. The mean of squares runs over more columns: weights of norms times √r and eps times r, with r the smaller model's share of the columns, undo that. The norms of
// heads have as many values as before and take the same eps, so queries and keys are multiplied by √r too, rounded to a power of two: blocks of weights round as before.
// Where r is a power of four all these factors are powers of two, and each logit has the smaller model's bits; where it is not, the norms round otherwise and the eps of
// heads is up to twice or half as large.
import { count } from "./make-checkpoint.mjs";
import { headDim, tensorList } from "./presets.mjs";

/**
 * @param source of the smaller model: `fromPreset` or `fromFolder`
 * @param shape of the larger one. Its rotary base, eps and special ids do not count
 * @returns the source of the larger one
 */
export function larger(source, shape) {
  const small = source.shape;
  checkShapes(small, shape);
  const layers = places(small.layers, shape.layers);
  const r = small.D / shape.D;
  const own = new Map(tensorList(small).map((t) => [t.name, t]));
  const maps = mapsOf(small, shape, Math.sqrt(r), 2 ** Math.round(Math.log2(r) / 2));
  const read = (tensor, start, n) => {
    const values = new Float32Array(n);
    const [, layer, part] = tensor.name.match(/^(?:model\.)?(?:layers\.(\d+)\.)?(.+)\.weight$/);
    const place = layer && layers.indexOf(Number(layer));
    if (place === -1) return values;
    const from = own.get(layer ? tensor.name.replace(`.${layer}.`, `.${place}.`) : tensor.name);
    const { row: rowOf, column: columnOf, factor = 1 } = maps[part];
    const [width, ownWidth] = [tensor, from].map((t) => count(t.shape) / t.shape[0]);
    for (let row = Math.floor(start / width); row * width < start + n; row++) {
      const ownRow = rowOf(row);
      if (ownRow === NONE) continue;
      const given = source.read(from, ownRow * ownWidth, ownWidth);
      const first = row * width - start;
      for (let column = Math.max(0, -first); column < width && first + column < n; column++) {
        const ownColumn = columnOf(column);
        if (ownColumn !== NONE) values[first + column] = factor * given[ownColumn];
      }
    }
    return values;
  };
  return { shape: { ...shape, theta: small.theta, ids: small.ids, eps: small.eps * r }, read };
}

const NONE = -1;

/** For each part of a layer, and what is in none: where its rows and columns are in the smaller one's, and what its values are multiplied by. */
function mapsOf(small, large, ofNorm, ofHead) {
  const hd = headDim(small);
  const upTo = (count) => (i) => (i < count ? i : NONE);
  const all = (i) => i;
  const hidden = upTo(small.D);
  const ffn = upTo(small.F);
  const keys = upTo(small.G * hd);
  const queries = (i) => {
    const [group, inGroup] = [Math.floor(i / ((large.H / large.G) * hd)), i % ((large.H / large.G) * hd)];
    const each = (small.H / small.G) * hd;
    return group < small.G && inGroup < each ? group * each + inGroup : NONE;
  };
  const threeHidden = (i) => (i % large.D < small.D ? Math.floor(i / large.D) * small.D + (i % large.D) : NONE);
  const vocabulary = { row: (id) => id % small.V, column: hidden };
  const norm = { row: hidden, column: all, factor: ofNorm };
  const headNorm = { row: all, column: all };
  return {
    embed_tokens: vocabulary,
    lm_head: vocabulary,
    embedding_norm: norm,
    operator_norm: norm,
    ffn_norm: norm,
    "conv.in_proj": { row: threeHidden, column: hidden },
    "conv.conv": { row: hidden, column: all },
    "conv.out_proj": { row: hidden, column: hidden },
    "self_attn.q_proj": { row: queries, column: hidden, factor: ofHead },
    "self_attn.k_proj": { row: keys, column: hidden, factor: ofHead },
    "self_attn.v_proj": { row: keys, column: hidden },
    "self_attn.out_proj": { row: hidden, column: queries },
    "self_attn.q_layernorm": headNorm,
    "self_attn.k_layernorm": headNorm,
    "feed_forward.w1": { row: ffn, column: hidden },
    "feed_forward.w3": { row: ffn, column: hidden },
    "feed_forward.w2": { row: hidden, column: ffn },
  };
}

function checkShapes(small, large) {
  for (const [what, fits] of [
    ["as many values a head", headDim(small) === headDim(large)],
    ["at least as many columns, key heads, ffn columns and tokens", ["D", "G", "F", "V"].every((key) => small[key] <= large[key])],
    ["at least as many query heads a key head", small.H / small.G <= large.H / large.G],
    [
      "the same taps, heads of logits and no biases",
      small.Kc === large.Kc && small.tied === large.tied && !small.convBias && !large.convBias,
    ],
  ])
    if (!fits) throw new Error(`a larger model: expected ${what}, got ${JSON.stringify(large)} for ${JSON.stringify(small)}`);
}

/** @returns for each layer of the smaller one where it is in the larger one: the first place that keeps the order */
function places(small, large) {
  const at = [];
  for (const kind of small) {
    const place = large.indexOf(kind, (at.at(-1) ?? -1) + 1);
    if (place < 0) throw new Error(`a larger model: expected the layers ${small} in this order among its own, got ${large}`);
    at.push(place);
  }
  return at;
}
