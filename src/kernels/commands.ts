// The command encoder: records a step as commands in linear memory, as with a GPU's command buffer, for one call of `run`. Knows what each kernel wants, not what a layer is.
import { DTYPE_CODE, GROUP_ROWS, isQuantized, type KvDType, roundUp } from "../memory/dtype.ts";
import type { Matrix, Rows, Vector } from "../memory/tensor.ts";
import type { WasmMemory } from "../memory/wasm.ts";

/** The op in the first word of a command; the same numbers as in `assembly/run.ts`. */
export const OP = {
  nop: 0,
  gather: 1,
  rmsnorm: 2,
  quantize: 3,
  matmul: 4,
  rope_table: 5,
  norm_rope_append_f32: 6,
  norm_rope_append_f16: 7,
  norm_rope_append_q8: 8,
  attention_f32: 9,
  attention_f16: 10,
  shortconv: 11,
  silu_mul: 12,
  add: 13,
  copy: 14,
  largest: 15,
  merge_largest: 16,
  attention_q8: 17,
  attention_merge: 18,
} as const;

/** Bytes of a command: 16 words. */
export const COMMAND_BYTES = 64;
/** Bytes of one sequence's entry in a row table: 8 words. */
export const ROW_TABLE_ENTRY_BYTES = 32;

/** Bytes of the descriptor of a matrix: a head of 4 words, then 4 a segment. */
export function descriptorBytes(segments: number): number {
  return 16 + 16 * segments;
}

/** Writes the descriptor of `matrix` to its address. */
export function writeDescriptor(memory: WasmMemory, matrix: Matrix): void {
  const words = new Uint32Array(memory.buffer, matrix.address, descriptorBytes(matrix.segments.length) / 4);
  words.set([matrix.segments.length, matrix.columns, roundUp(matrix.columns, 32), outputColumns(matrix)]);
  matrix.segments.forEach((s, i) => {
    words.set([DTYPE_CODE[s.dtype], s.rows, roundUp(s.rows, GROUP_ROWS), s.address], 4 + 4 * i);
  });
}

/** @returns columns of the product with `matrix`: every segment's rows, padded to 8. */
export function outputColumns(matrix: Matrix): number {
  return matrix.segments.reduce((sum, s) => sum + roundUp(s.rows, GROUP_ROWS), 0);
}

/** Words of a command. */
const WORDS = COMMAND_BYTES / 4;

const hasQuantized = (matrix: Matrix): boolean => matrix.segments.some((s) => isQuantized(s.dtype));
const hasFloats = (matrix: Matrix): boolean => matrix.segments.some((s) => !isQuantized(s.dtype));

/** The sequences of a step: a row table in linear memory. One sequence is a table of one entry. */
export interface RowTable {
  readonly address: number;
  readonly sequences: number;
}

/** Scratch that kernels need beside their operands. */
export interface KernelScratch {
  /** Quantized activations: rows × ⌈widest K / 32⌉ blocks. */
  readonly quantized: number;
  /** `slotCount` × `attention_slot_bytes(headDim)`: lets threads share the segments of a row's keys. */
  readonly slots: number;
  /** 0 where one thread does them all. */
  readonly slotCount: number;
  /** `attention_scratch_bytes(query heads, kv heads, headDim)` bytes a thread. */
  readonly attention: number;
}

/** Positions in a page of keys and values; pages lie at absolute multiples of it, so that chunking cannot change a bit. */
export const PAGE_POSITIONS = 32;
/** Positions that attention sums up on their own: the same number as in `assembly/attention/attention.ts`. */
export const SEGMENT_POSITIONS = 512;

/** Geometry of the attention layers. */
export interface Heads {
  readonly query: number;
  readonly kv: number;
  /** A multiple of 16. */
  readonly dim: number;
}

/** @returns bytes of one attention layer's keys and values in a page */
export function layerPageBytes(heads: Heads, kvDtype: KvDType): number {
  const headBytes = { f32: 4 * heads.dim, f16: 2 * heads.dim, q8: heads.dim + 4 }[kvDtype]; // q8: with a scale
  return 2 * PAGE_POSITIONS * heads.kv * headBytes;
}

/** @returns bytes of one convolution layer's state: the last taps-1 rows of B ⊙ u */
export function layerStateBytes(columns: number, taps: number): number {
  return (taps - 1) * columns * 4;
}

const float = new Float32Array(1);
const floatBits = new Int32Array(float.buffer);

/** The bits of `x` as f32. */
function bits(x: number): number {
  float[0] = x;
  return floatBits[0] ?? 0;
}

/**
 * Records commands from one address on. Two that follow each other become one where a kernel does both in one pass over its rows: an addition goes into
 * the rmsnorm of the sum, the quantization of a matrix's input into the command that computes this input. The bits are the same either way.
 * Letters as everywhere: T rows of this step, D hidden, F ffn, hd head dim.
 */
export class CommandEncoder {
  readonly address: number;
  readonly #words: Int32Array;
  readonly #scratch: KernelScratch;
  readonly #kvDtype: KvDType;
  #count = 0;
  /** The rows that the last command writes and where, among the words, it is told to quantize them as well; 0 where it cannot. */
  #output: Rows | undefined;
  #outputRows = 0;
  #quantizeWord = 0;
  /** Where it is told to write them at all; 0 where it must. */
  #valuesWord = 0;
  /** The rows to which the last command adds, and what. */
  #sum: Rows | undefined;
  #addend = 0;

  /**
   * @param memory the linear memory; it must not grow while a step is recorded
   * @param address where the commands go, `capacity` of them
   * @param kvDtype element type of the pages that attention reads
   */
  constructor(memory: WasmMemory, address: number, capacity: number, scratch: KernelScratch, kvDtype: KvDType) {
    this.address = address;
    this.#words = new Int32Array(memory.buffer, address, (capacity * COMMAND_BYTES) / 4);
    this.#scratch = scratch;
    this.#kvDtype = kvDtype;
  }

  /** Commands recorded so far. */
  get count(): number {
    return this.#count;
  }

  /** Plain parameters: a rest parameter would be an array a command. */
  #put(op: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0, j = 0, k = 0, l = 0, m = 0, n = 0, o = 0): void {
    const words = this.#words;
    const at = this.#count * WORDS;
    if (at + WORDS > words.length) throw new RangeError("the command buffer is full");
    this.#count++;
    words[at] = op;
    words[at + 1] = a;
    words[at + 2] = b;
    words[at + 3] = c;
    words[at + 4] = d;
    words[at + 5] = e;
    words[at + 6] = f;
    words[at + 7] = g;
    words[at + 8] = h;
    words[at + 9] = i;
    words[at + 10] = j;
    words[at + 11] = k;
    words[at + 12] = l;
    words[at + 13] = m;
    words[at + 14] = n;
    words[at + 15] = o;
    this.#output = undefined;
    this.#sum = undefined;
  }

  /** The command just put writes M rows of y, and also quantizes them if its word number `word` is an address. `values`: with word 0, then quantizes only. */
  #writes(y: Rows, M: number, word: number, values = 0): void {
    const at = (this.#count - 1) * WORDS;
    this.#output = y;
    this.#outputRows = M;
    this.#quantizeWord = at + word;
    this.#valuesWord = values && at + values;
  }

  /** Has the last command quantize M rows of x, and do no more if that is `all`. @returns whether it is the one that writes them, all `columns` of each */
  #quantizesWhatItWrites(x: Rows, M: number, columns: number, all: boolean): boolean {
    const y = this.#output;
    if (y?.address !== x.address || y.stride !== columns || x.stride !== columns || this.#outputRows !== M) return false;
    this.#words[this.#quantizeWord] = this.#scratch.quantized;
    if (all && this.#valuesWord) this.#words[this.#valuesWord] = 0;
    return true;
  }

  /** Has x quantized where w wants it. @returns where that is, or 0 */
  #quantized(x: Rows, w: Matrix, M: number): number {
    if (!hasQuantized(w)) return 0;
    const columns = roundUp(w.columns, 32);
    const { quantized } = this.#scratch;
    if (!this.#quantizesWhatItWrites(x, M, columns, !hasFloats(w))) this.#put(OP.quantize, quantized, x.address, M, columns, x.stride);
    return quantized;
  }

  /** out (T,D) = the rows `ids` of w, widened to f32. ids: T i32. */
  gather(out: Rows, ids: number, w: Matrix, T: number): void {
    this.#put(OP.gather, out.address, ids, w.address, T, out.stride);
  }

  /** y (M,D) = x / rms(x) · gain; row i of y comes from row `rows[i]` of x when `rows` is the address of M i32. */
  rmsnorm(y: Rows, x: Rows, gain: Vector, M: number, eps: number, rows = 0): void {
    let addend = 0;
    if (this.#sum?.address === x.address && this.#outputRows === M && rows === 0) {
      addend = this.#addend;
      this.#count--;
    }
    this.#put(OP.rmsnorm, y.address, 0, x.address, addend, gain.address, rows, M, gain.length, x.stride, bits(eps));
    this.#writes(y, M, 2);
  }

  /** y (M,N) = x (M,K) · Wᵀ + bias. The only place where quantization shows: int8 and int4 weights meet int8 activations. */
  linear(y: Rows, x: Rows, w: Matrix, M: number, bias?: Vector): void {
    const quantized = this.#quantized(x, w, M);
    this.#put(OP.matmul, y.address, hasFloats(w) ? x.address : 0, quantized, w.address, M, y.stride, x.stride, bias?.address ?? 0);
  }

  /**
   * The k largest of each row of x (M,K) · Wᵀ, of whose columns the first N count: largest first, ties by index.
   * areSeveral: threads may share the step · lists: of as many as there are, (M,k) f32 and (M,k) i32 each; the first one is the result. room: (M, columns) f32 a thread, columns a multiple of 8
   */
  largest(lists: number, room: number, columns: number, x: Rows, w: Matrix, M: number, N: number, k: number, areSeveral: boolean): void {
    const quantized = this.#quantized(x, w, M);
    this.#put(OP.largest, lists, room, columns, hasFloats(w) ? x.address : 0, quantized, w.address, M, x.stride, N, k);
    if (areSeveral) this.#put(OP.merge_largest, lists, M, k);
  }

  /** table: for each row hd/2 cosines and hd/2 sines of its position times `frequencies` (hd/2 f64), times `factor`. */
  ropeTable(table: number, rows: RowTable, frequencies: number, headDim: number, factor: number): void {
    this.#put(OP.rope_table, table, rows.address, rows.sequences, frequencies, headDim, bits(factor));
  }

  /**
   * Each head of q and k, in place: rmsnorm over hd, then the rotation of its row's position; k and v go to the pages of each sequence, in the part of
   * attention layer number `layer`.
   * qkv (T, H·hd + 2·G·hd): q, k, v side by side · table: of ropeTable
   */
  normRopeAppend(qkv: Rows, qGain: Vector, kGain: Vector, table: number, rows: RowTable, heads: Heads, layer: number, eps: number): void {
    const op = OP[`norm_rope_append_${this.#kvDtype}`];
    const offset = layer * layerPageBytes(heads, this.#kvDtype);
    const { address, sequences } = rows;
    const { query, kv, dim } = heads;
    this.#put(op, qkv.address, qkv.stride, qGain.address, kGain.address, table, address, sequences, offset, query, kv, dim, bits(eps));
  }

  /** out (T, H·hd) = causal attention of q (T, H·hd) over each sequence's pages. */
  attention(out: Rows, q: Rows, rows: RowTable, heads: Heads, layer: number, scale: number): void {
    const op = OP[`attention_${this.#kvDtype}`];
    const offset = layer * layerPageBytes(heads, this.#kvDtype);
    const { slots, slotCount, attention } = this.#scratch;
    const { query, kv, dim } = heads;
    const { address, sequences } = rows;
    this.#put(
      op,
      out.address,
      out.stride,
      q.address,
      q.stride,
      address,
      sequences,
      offset,
      slots,
      slotCount,
      attention,
      query,
      kv,
      dim,
      bits(scale),
    );
    if (slotCount > 0) this.#put(OP.attention_merge, out.address, out.stride, address, sequences, slots, slotCount, query, dim);
  }

  /** y (T,D) = C ⊙ (conv(B ⊙ u) + bias) with B, C, u at columns 0, D, 2D of bcu; advances the state of convolution layer number `layer`. */
  shortconv(y: Rows, bcu: Rows, rows: RowTable, T: number, layer: number, taps: Vector, bias?: Vector): void {
    const offset = layer * layerStateBytes(taps.length, taps.taps);
    const { address, sequences } = rows;
    const { length: D, taps: Kc } = taps;
    this.#put(
      OP.shortconv,
      y.address,
      y.stride,
      0,
      bcu.address,
      bcu.stride,
      address,
      sequences,
      offset,
      taps.address,
      bias?.address,
      D,
      Kc,
    );
    this.#writes(y, T, 3);
  }

  /** y (T,F) = silu(a) ⊙ b with a at column 0 and b at column `columns` of ab. For the next command alone: a quantized matrix takes y without its being written. */
  siluMul(y: Rows, ab: Rows, T: number, columns: number): void {
    this.#put(OP.silu_mul, y.address, y.stride, 0, ab.address, ab.stride, T, columns);
    this.#writes(y, T, 3, columns === y.stride ? 1 : 0);
  }

  /** y += x over T rows; both have the same stride. */
  add(y: Rows, x: Rows, T: number): void {
    this.#put(OP.add, y.address, x.address, T * y.stride);
    this.#sum = y;
    this.#addend = x.address;
    this.#outputRows = T;
  }

  /** Copies T rows to an address: a tap on what a step computes on its way. */
  copy(to: number, from: Rows, T: number): void {
    this.#put(OP.copy, to, from.address, T * from.stride * 4);
  }
}
