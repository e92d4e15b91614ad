// LFM2, as in the paper: gated short convolutions and a few grouped-query attention layers, each followed by a gated ffn. Records kernels; knows neither dtype, thread, platform nor sampling.
//
// T rows of this step · D hidden · F ffn · H query heads · G kv heads · hd head dim · V vocabulary · L layers · Kc taps
import type { CommandEncoder, Heads, RowTable } from "../kernels/commands.ts";
import { outputColumns } from "../kernels/commands.ts";
import { BLOCK, GROUP_ROWS, roundUp } from "../memory/dtype.ts";
import type { Matrix, Rows, Vector } from "../memory/tensor.ts";
import type { WeightList } from "../weights/plan.ts";
import type { Lfm2Config } from "./config.ts";

/** Layers [from, to), with the embedding in front and the head behind or without. */
export interface LayerRange {
  readonly from: number;
  readonly to: number;
  readonly embedding: boolean;
  readonly head: boolean;
}

interface Ffn {
  readonly norm: Vector; // (D)
  readonly gateUp: Matrix; // (2F, D): w1 above w3
  readonly down: Matrix; // (D, F): w2
}

interface ConvLayer {
  readonly kind: "conv";
  readonly operatorNorm: Vector; // (D)
  readonly inProj: Matrix; // (3D, D): B, C, u
  readonly inBias: Vector | undefined; // (3D)
  readonly taps: Vector; // (Kc, D)
  readonly convBias: Vector | undefined; // (D)
  readonly outProj: Matrix; // (D, D)
  readonly outBias: Vector | undefined; // (D)
  readonly index: number; // among the convolution layers: its place in the state
  readonly ffn: Ffn;
}

interface AttentionLayer {
  readonly kind: "attention";
  readonly operatorNorm: Vector; // (D)
  readonly qkv: Matrix; // (H·hd + 2·G·hd, D): q above k above v
  readonly qNorm: Vector; // (hd)
  readonly kNorm: Vector; // (hd)
  readonly outProj: Matrix; // (D, H·hd)
  readonly index: number; // among the attention layers: its place in a page
  readonly ffn: Ffn;
}

/** The named weights of a layer range. */
export interface Lfm2Weights {
  readonly embedding: Matrix | undefined; // (V, D)
  readonly layers: readonly (ConvLayer | AttentionLayer)[];
  readonly norm: Vector | undefined; // (D), the final norm, "embedding_norm" in files
  readonly head: Matrix | undefined; // (V, D), the embedding where they are tied
}

/** Names the tensors of a layer range, and no others. */
export function nameWeights(list: WeightList, c: Lfm2Config, range: LayerRange): Lfm2Weights {
  const { hiddenSize: D, intermediateSize: F, vocabSize: V } = c;
  const wantsEmbedding = range.embedding || (range.head && c.tieWordEmbeddings);
  const embedding = wantsEmbedding ? list.matrix(D, ["model.embed_tokens.weight", V]) : undefined;
  let convs = 0;
  let attentions = 0;
  const layers = c.layerTypes.slice(range.from, range.to).map((type, i) => {
    const p = `model.layers.${range.from + i}`;
    const ffn = (): Ffn => ({
      norm: list.vector(`${p}.ffn_norm.weight`, D),
      gateUp: list.matrix(D, [`${p}.feed_forward.w1.weight`, F], [`${p}.feed_forward.w3.weight`, F]),
      down: list.matrix(F, [`${p}.feed_forward.w2.weight`, D]),
    });
    return type === "conv" ? nameConv(list, c, p, convs++, ffn) : nameAttention(list, c, p, attentions++, ffn);
  });
  const norm = range.head ? list.vector("model.embedding_norm.weight", D) : undefined;
  const ownHead = range.head && !c.tieWordEmbeddings ? list.matrix(D, ["lm_head.weight", V]) : undefined;
  return { embedding, layers, norm, head: range.head ? (ownHead ?? embedding) : undefined };
}

function nameConv(list: WeightList, c: Lfm2Config, p: string, index: number, ffn: () => Ffn): ConvLayer {
  const D = c.hiddenSize;
  const bias = (name: string, n: number): Vector | undefined => (c.convBias ? list.vector(`${p}.conv.${name}.bias`, n) : undefined);
  return {
    kind: "conv",
    operatorNorm: list.vector(`${p}.operator_norm.weight`, D),
    inProj: list.matrix(D, [`${p}.conv.in_proj.weight`, 3 * D]),
    inBias: bias("in_proj", 3 * D),
    taps: list.taps(`${p}.conv.conv.weight`, D, c.convLCache),
    convBias: bias("conv", D),
    outProj: list.matrix(D, [`${p}.conv.out_proj.weight`, D]),
    outBias: bias("out_proj", D),
    index,
    ffn: ffn(),
  };
}

function nameAttention(list: WeightList, c: Lfm2Config, p: string, index: number, ffn: () => Ffn): AttentionLayer {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: hd } = c;
  const a = `${p}.self_attn`;
  return {
    kind: "attention",
    operatorNorm: list.vector(`${p}.operator_norm.weight`, D),
    qkv: list.matrix(D, [`${a}.q_proj.weight`, H * hd], [`${a}.k_proj.weight`, G * hd], [`${a}.v_proj.weight`, G * hd]),
    qNorm: list.vector(`${a}.q_layernorm.weight`, hd),
    kNorm: list.vector(`${a}.k_layernorm.weight`, hd),
    outProj: list.matrix(H * hd, [`${a}.out_proj.weight`, D]),
    index,
    ffn: ffn(),
  };
}

/** @returns what each matrix is for, by the address of its descriptor */
export function matrixUses({ embedding, layers, head }: Lfm2Weights): Map<number, string> {
  const uses = new Map<number, string>();
  const name = (matrix: Matrix | undefined, use: string): unknown => matrix && uses.set(matrix.address, use);
  name(embedding, "embedding");
  name(head, "head"); // of a tied one, only the head is a product
  for (const layer of layers) {
    if (layer.kind === "conv") {
      name(layer.inProj, "conv in");
      name(layer.outProj, "conv out");
    } else {
      name(layer.qkv, "attention qkv");
      name(layer.outProj, "attention out");
    }
    name(layer.ffn.gateUp, "ffn gate and up");
    name(layer.ffn.down, "ffn down");
  }
  return uses;
}

/** Where a head keeps the largest logits of its rows, see `CommandEncoder.largest`. */
export interface LargestLists {
  readonly address: number;
  /** Columns of the product that are made at a time. */
  readonly columns: number;
  readonly k: number;
  /** Whether more than one thread may share the step. */
  readonly areSeveral: boolean;
}

/** Activations of a step, up to the engine's chunk of rows each. */
export interface Lfm2Buffers {
  readonly h: Rows; // (T,D) the residual stream
  readonly x: Rows; // (T,D) normed rows, then a convolution's output
  readonly r: Rows; // (T,D) what the operator or the ffn adds
  readonly wide: Rows; // (T, 3D | (H+2G)·hd | 2F) the fused projections
  readonly heads: Rows; // (T, H·hd) attention's output
  readonly act: Rows; // (T,F) silu(w1 n) ⊙ w3 n
  readonly rope: number; // (T,hd) f32 cosines and sines
  readonly frequencies: number; // (hd/2) f64
  /** Times which cosines and sines are taken. */
  readonly ropeFactor: number;
}

/** Columns of each buffer. */
export function bufferColumns(c: Lfm2Config): Record<"h" | "x" | "r" | "wide" | "heads" | "act", number> {
  const { hiddenSize: D, intermediateSize: F, numAttentionHeads: H, numKeyValueHeads: G, headDim: hd } = c;
  const wide = Math.max(3 * D, (H + 2 * G) * hd, 2 * roundUp(F, GROUP_ROWS));
  return { h: D, x: D, r: D, wide, heads: H * hd, act: F };
}

/** What a step computes on its way, for whoever wants to look: the rows are valid until the next command. */
export type Tap = (name: "embed" | `layer.${number}.${"operator" | "ffn" | "hidden" | "qkv"}`, rows: Rows, columns: number) => void;

/** A step of T rows. */
export interface Step {
  readonly T: number;
  readonly rows: RowTable;
  /** A table of the same rows with other positions, for the rotary embedding. */
  readonly rotary?: RowTable | undefined;
  /** Address of T token ids, or undefined when the rows (T,D) already lie in `buffers.h`. */
  readonly ids: number | undefined;
  /** Numbers of the rows, ascending, that are wanted behind the last layer: they come to stand at the top of `buffers.h`. Default all. */
  readonly outputs?: readonly number[] | undefined;
  readonly tap?: Tap | undefined;
}

/** A layer range as commands: its weights, its buffers, its geometry. */
export class Lfm2 {
  readonly config: Lfm2Config;
  readonly weights: Lfm2Weights;
  readonly buffers: Lfm2Buffers;
  readonly #heads: Heads;
  readonly #from: number;

  constructor(config: Lfm2Config, weights: Lfm2Weights, buffers: Lfm2Buffers, from = 0) {
    this.config = config;
    this.weights = weights;
    this.buffers = buffers;
    this.#heads = { query: config.numAttentionHeads, kv: config.numKeyValueHeads, dim: config.headDim };
    this.#from = from;
  }

  /** h (T,D): the embedding, then every layer of the range; of the last one no more than `outputs` asks for. */
  layers(c: CommandEncoder, step: Step): void {
    const { h, x, r, rope, frequencies, ropeFactor } = this.buffers;
    const { embedding, layers } = this.weights;
    const { outputs } = step;
    let { T } = step;
    const eps = this.config.normEps;
    if (step.ids !== undefined && embedding) c.gather(h, step.ids, embedding, T); // h (T,D)
    const D = this.config.hiddenSize;
    step.tap?.("embed", h, D);
    if (layers.some((layer) => layer.kind === "attention"))
      c.ropeTable(rope, step.rotary ?? step.rows, frequencies, this.#heads.dim, ropeFactor);
    layers.forEach((layer, i) => {
      const n = this.#from + i;
      const isLast = i === layers.length - 1;
      c.rmsnorm(x, h, layer.operatorNorm, T, eps); // x (T,D)
      const y =
        layer.kind === "conv" ? this.#shortConv(c, layer, step) : this.#attention(c, layer, step, n, isLast && outputs?.length === 0);
      if (isLast && outputs) T = keepRows(c, outputs, [h, y]); // state and pages have all rows: what nobody reads ends here
      if (T === 0) return;
      c.linear(r, y, layer.outProj, T, layer.kind === "conv" ? layer.outBias : undefined); // r (T,D)
      step.tap?.(`layer.${n}.operator`, r, D);
      c.add(h, r, T); // h += r
      c.rmsnorm(x, h, layer.ffn.norm, T, eps); // x (T,D)
      this.#mlp(c, layer.ffn, T); // r (T,D)
      step.tap?.(`layer.${n}.ffn`, r, D);
      c.add(h, r, T); // h += r
      step.tap?.(`layer.${n}.hidden`, h, D);
    });
  }

  /**
   * logits (M,V) of the M rows of h whose numbers lie at address `rows`, or of its first M when that is 0; x keeps the normed rows.
   * @param largest instead of logits, in whose place it works: lists of the largest of each row
   */
  head(c: CommandEncoder, logits: Rows, rows: number, M: number, largest?: LargestLists): void {
    const { h, x } = this.buffers;
    const { norm, head } = this.weights;
    if (!norm || !head) throw new RangeError("this layer range has no head");
    c.rmsnorm(x, h, norm, M, this.config.normEps, rows); // x (M,D)
    if (!largest)
      c.linear(logits, x, head, M); // logits (M,V)
    else c.largest(largest.address, logits.address, largest.columns, x, head, M, this.config.vocabSize, largest.k, largest.areSeveral);
  }

  /** x (M,D): the final norm of the first M rows of h. */
  norm(c: CommandEncoder, M: number): void {
    const { norm } = this.weights;
    if (!norm) throw new RangeError("this layer range has no head");
    c.rmsnorm(this.buffers.x, this.buffers.h, norm, M, this.config.normEps);
  }

  /** Advances the convolution state. @returns y (T,D) = C ⊙ conv(B ⊙ u), before the output projection */
  #shortConv(c: CommandEncoder, layer: ConvLayer, { T, rows }: Step): Rows {
    const { x, wide: bcu } = this.buffers;
    c.linear(bcu, x, layer.inProj, T, layer.inBias); // bcu (T,3D): B, C, u
    c.shortconv(x, bcu, rows, T, layer.index, layer.taps, layer.convBias); // x (T,D) = C ⊙ conv(B ⊙ u)
    return x;
  }

  /** Appends to the KV pages. @returns out (T,H·hd), before the output projection; not computed when `appendsOnly` */
  #attention(c: CommandEncoder, layer: AttentionLayer, { T, rows, tap }: Step, n: number, appendsOnly: boolean): Rows {
    const { x, wide: q, heads: out, rope } = this.buffers;
    c.linear(q, x, layer.qkv, T); // q (T,H·hd), k and v (T,G·hd) side by side
    c.normRopeAppend(q, layer.qNorm, layer.kNorm, rope, rows, this.#heads, layer.index, this.config.normEps);
    tap?.(`layer.${n}.qkv`, q, (this.#heads.query + 2 * this.#heads.kv) * this.#heads.dim);
    if (!appendsOnly) c.attention(out, q, rows, this.#heads, layer.index, 1 / Math.sqrt(this.#heads.dim)); // out (T,H·hd)
    return out;
  }

  #mlp(c: CommandEncoder, ffn: Ffn, T: number): void {
    const { x, r, wide: gateUp, act } = this.buffers;
    c.linear(gateUp, x, ffn.gateUp, T); // gateUp (T,2F): w1 x, w3 x
    c.siluMul(act, gateUp, T, outputColumns(ffn.gateUp) / 2); // act (T,F) = silu(w1 x) ⊙ w3 x
    c.linear(r, act, ffn.down, T); // r (T,D)
  }
}

/** Moves the rows with these numbers, which ascend, to the top of each buffer. @returns how many they are */
function keepRows(c: CommandEncoder, numbers: readonly number[], buffers: readonly Rows[]): number {
  numbers.forEach((from, to) => {
    if (from === to) return;
    for (const rows of buffers) {
      const row = (n: number): Rows => ({ address: rows.address + 4 * rows.stride * n, stride: rows.stride });
      c.copy(row(to).address, row(from), 1);
    }
  });
  return numbers.length;
}

/** @returns floats from one row of a buffer to the next */
export const rowStride = (columns: number): number => roundUp(columns, BLOCK);
