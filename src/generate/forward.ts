// Forward passes: sequences in, logits, hidden states, attention, log-probabilities out. Rows of a batch share steps, and each is as if it were alone.
import { AbortError, MemoryError } from "../errors.ts";
import { nextMacrotask } from "../macrotask.ts";
import { exp } from "../math.ts";
import { formatBytes } from "../memory/arena.ts";
import type { CacheMark } from "../models/cache.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { frequencyLength } from "../models/rope.ts";
import type { Taps } from "../models/taps.ts";
import type { CancelCheck, ForwardEvent, ForwardRequest, ForwardRow, ForwardRowResult } from "./engine.ts";
import { logSum } from "./logprobs.ts";
import { Session } from "./session.ts";

/** In a session's list of ids, for a row whose keys no prompt of ids has: no id is it, so none continues from there by mistake. */
const NO_ID = -1;

/** A row on its way. */
interface RowState {
  readonly row: ForwardRow;
  /** The one that it continues, or one of its own, from its first step to its last. */
  session: Session | undefined;
  readonly isOwn: boolean;
  /** Where the caller's session stood. */
  readonly mark: CacheMark | undefined;
  /** T, rows of it that are to be computed. */
  readonly length: number;
  /** Positions that the cache held before. */
  readonly past: number;
  /** What its rotary frequencies go by: rows of several share no step. */
  readonly ropeLength: number;
  readonly result: Mutable<ForwardRowResult>;
  /** For each position the places in `result.logits` that want it. */
  readonly wanted: ReadonlyMap<number, readonly number[]>;
  done: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A part of a row in a step, `count` of its positions from `from` on; in the step they begin at row `at`. */
interface Piece {
  readonly state: RowState;
  readonly from: number;
  readonly count: number;
  readonly at: number;
}

/** @throws MemoryError when the host has no room for so many */
function floats(count: number, what: string): Float32Array {
  try {
    return new Float32Array(count);
  } catch (cause) {
    throw new MemoryError(
      `forward: expected ${formatBytes(4 * count)} for ${what}, got less from the host. Ask for fewer logits, or pass fewer ids.`,
      { cause },
    );
  }
}

const lengthOf = ({ ids, embeds }: ForwardRow, hiddenSize: number): number => (ids ? ids.length : (embeds?.length ?? 0) / hiddenSize);

/** What a forward pass asks of a step beside logits. */
const needsTaps = ({ hiddenStates, attentions }: ForwardRequest): boolean => hiddenStates === "all" || attentions === true;

function begin(model: LanguageModel, row: ForwardRow, session: Session | undefined, request: ForwardRequest, i: number): RowState {
  const { vocabSize: V, hiddenSize: D, numHiddenLayers: L, numAttentionHeads: H } = model.config;
  const length = lengthOf(row, D);
  const past = session?.cache.position ?? 0;
  const places = request.logits === "all" ? Array.from({ length }, (_, t) => t) : Array.from(request.logits[i] ?? []);
  const wanted = new Map<number, number[]>();
  for (const [place, position] of places.entries()) wanted.set(position, [...(wanted.get(position) ?? []), place]);
  const rows = (count: number, what: string): Float32Array[] => Array.from({ length: count }, () => floats(length * D, what));
  const result: Mutable<ForwardRowResult> = { logits: floats(places.length * V, "the logits") };
  if (request.hiddenStates) result.hiddenStates = rows(request.hiddenStates === "all" ? L + 1 : 1, "the hidden states");
  if (request.hiddenStates === "all") result.lastLayer = floats(length * D, "the last layer");
  if (request.attentions) result.attentions = attentionLayers(model).map(() => floats(H * length * (past + length), "the attentions"));
  if (row.targets) result.logprobs = new Float64Array(length).fill(Number.NaN);
  const ropeLength = frequencyLength(model.config, request.ropeLength ?? endOf(row, past + length));
  return { row, session, mark: session?.cache.mark(), isOwn: session === undefined, length, past, ropeLength, result, wanted, done: 0 };
}

const attentionLayers = ({ config }: LanguageModel): number[] =>
  config.layerTypes.flatMap((type, i) => (type === "full_attention" ? [i] : []));

/** Where a packed row's next sequence begins, or its end. */
function border({ row, done, length }: RowState): number {
  return row.borders?.find((b) => b > done) ?? length;
}

/** Whether two rows may share a step. */
const areAlike = (a: RowState, b: RowState): boolean =>
  (a.row.ids !== undefined) === (b.row.ids !== undefined) && a.ropeLength === b.ropeLength && a.session !== b.session;

/** Ends a session of the row's own. */
function close(state: RowState): void {
  if (!state.isOwn) return;
  state.session?.cache.dispose();
  state.session = undefined;
}

/**
 * Opens a row's own session with its first piece, and makes room for this one: a row whose time has not come holds nothing.
 * @returns whether there is room; a row beside others waits until they have ended
 * @throws MemoryError where there are none
 */
function makeRoom(model: LanguageModel, state: RowState, count: number, isBesideOthers: boolean): boolean {
  try {
    state.session ??= new Session(model.openCache());
    state.session.cache.reserve(count);
    return true;
  } catch (error) {
    if (state.done === 0) close(state);
    if (isBesideOthers && error instanceof MemoryError) return false;
    throw error;
  }
}

/** Makes the pieces of the next step, and room for them: as much of each unfinished row as fits, rows of ids and rows of embeddings apart, and those whose keys are turned otherwise. Rows under way go first. */
function takePieces(model: LanguageModel, states: readonly RowState[]): Piece[] {
  const { chunkTokens } = model.options;
  const pieces: Piece[] = [];
  let at = 0;
  for (const state of [...states.filter(({ done }) => done > 0), ...states.filter(({ done }) => done === 0)]) {
    if (state.done === state.length || !pieces.every((p) => areAlike(p.state, state))) continue;
    const count = Math.min(border(state) - state.done, chunkTokens - at);
    if (count <= 0) break;
    if (state.done > 0 && state.row.borders?.includes(state.done)) state.session!.cache.forgetKeys(); // another sequence: its room is that of the one before
    if (!makeRoom(model, state, count, at > 0)) break;
    pieces.push({ state, from: state.done, count, at });
    at += count;
  }
  return pieces;
}

/**
 * Computes `request`; other calls may run between two steps.
 * @param sessions those that rows continue and that keep what they take in once all rows are through; a row without has one of its own while it is under way
 * @throws InputError; MemoryError; AbortError when the call is cancelled
 */
export async function* forward(
  use: () => LanguageModel,
  sessions: readonly (Session | undefined)[],
  request: ForwardRequest,
  isCancelled: CancelCheck,
): AsyncGenerator<ForwardEvent> {
  const states = request.rows.map((row, i) => begin(use(), row, sessions[i], request, i));
  const totalTokens = states.reduce((sum, { length }) => sum + length, 0);
  let isWhole = false;
  try {
    for (;;) {
      const pieces = takePieces(use(), states);
      if (pieces.length === 0) break;
      if (isCancelled()) throw new AbortError();
      step(use(), pieces, request);
      yield { type: "progress", processedTokens: states.reduce((sum, { done }) => sum + done, 0), totalTokens };
      await nextMacrotask();
    }
    isWhole = true;
  } finally {
    for (const state of states) {
      if (!isWhole) putBack(state);
      close(state);
    }
  }
  yield { type: "result", rows: states.map(({ result }) => result) };
}

/** Lets the caller's session stand where it stood before a call that came to nothing. */
function putBack({ session, mark }: RowState): void {
  if (!session || !mark) return;
  session.cache.putBack(mark);
  session.tokens.truncate(session.cache.position);
}

/** The highest position of a row, plus one: scaled rotary frequencies go by it, as in the reference's call with this row alone. */
const endOf = ({ positions }: ForwardRow, end: number): number => positions?.reduce((most, p) => Math.max(most, p + 1), 0) ?? end;

function step(model: LanguageModel, pieces: readonly Piece[], request: ForwardRequest): void {
  const D = model.config.hiddenSize;
  const ropeLength = pieces[0]!.state.ropeLength;
  const inputs = pieces.map(({ state: { row, session }, from, count }) => ({
    cache: session!.cache,
    ...(row.ids ? { ids: row.ids.subarray(from, from + count) } : { hidden: row.embeds!.subarray(from * D, (from + count) * D) }),
    positions: row.positions?.subarray(from, from + count),
  }));
  const taps: Taps | undefined = needsTaps(request) ? new Map() : undefined;
  const heads = pieces.flatMap((piece) => rowsWithLogits(piece).map((row) => ({ piece, row })));
  const isWhole = taps !== undefined || request.hiddenStates !== undefined || heads.length > model.logitsRows;
  model.step(inputs, isWhole ? { taps, ropeLength } : { logitsOf: heads.map(({ row }) => row), ropeLength });
  for (const [i, { state, from, count }] of pieces.entries()) {
    follow(state.session!, inputs[i]!.cache.position, idsOf(model, { state, from, count }));
  }
  if (request.hiddenStates) takeNormed(model, pieces, request);
  for (let i = 0; i < heads.length; i += model.logitsRows) {
    const group = heads.slice(i, i + model.logitsRows);
    if (isWhole) model.head(group.map(({ row }) => row));
    for (const [k, { piece, row }] of group.entries()) takeLogits(model, piece, row - piece.at + piece.from, k);
  }
  if (taps) for (const piece of pieces) takeTaps(model, piece, taps, request);
  for (const { state, count } of pieces) {
    state.done += count;
    if (state.done === state.length) close(state);
  }
}

/** A piece's ids as its session keeps them: a row that came as an embedding, or whose key is turned by another position or frequency than a chat's, has none. */
function idsOf({ config, options }: LanguageModel, { state, from, count }: Omit<Piece, "at">): Int32Array {
  const { row, past, ropeLength } = state;
  const isAlike = ropeLength === frequencyLength(config, options.maxContextTokens);
  return Int32Array.from({ length: count }, (_, t) => {
    const position = row.positions?.[from + t] ?? past + from + t;
    return isAlike && position === past + from + t ? (row.ids?.[from + t] ?? NO_ID) : NO_ID;
  });
}

function follow(session: Session, position: number, ids: ArrayLike<number>): void {
  session.tokens.truncate(position - ids.length);
  session.follow(position - ids.length, ids);
}

/** Rows of the step whose logits something asks for. */
function rowsWithLogits({ state: { row, wanted }, from, count, at }: Piece): number[] {
  const rows: number[] = [];
  for (let t = from; t < from + count; t++) if (wanted.has(t) || (row.targets?.[t] ?? -1) >= 0) rows.push(at + t - from);
  return rows;
}

/** @param k which row of the head's has the logits of position `t` */
function takeLogits(model: LanguageModel, { state: { row, result, wanted } }: Piece, t: number, k: number): void {
  const logits = model.logits(k);
  for (const place of wanted.get(t) ?? []) result.logits.set(logits.view(), place * logits.size);
  const target = row.targets?.[t] ?? -1;
  if (target >= 0 && result.logprobs) result.logprobs[t] = logits.view()[target]! - logSum(logits);
}

/** The final norm's output of every row. */
function takeNormed(model: LanguageModel, pieces: readonly Piece[], { hiddenStates }: ForwardRequest): void {
  const D = model.config.hiddenSize;
  const last = pieces.at(-1)!;
  const T = last.at + last.count;
  model.norm(T);
  const normed = model.normed(T);
  for (const { state, from, count, at } of pieces) {
    const index = hiddenStates === "all" ? model.config.numHiddenLayers : 0;
    state.result.hiddenStates?.[index]?.set(normed.subarray(at * D, (at + count) * D), from * D);
  }
}

function takeTaps(model: LanguageModel, piece: Piece, taps: Taps, request: ForwardRequest): void {
  const { hiddenSize: D, numHiddenLayers: L } = model.config;
  const { state, from, count, at } = piece;
  const rows = (name: string, columns: number): Float32Array => taps.get(name)!.subarray(at * columns, (at + count) * columns);
  if (request.hiddenStates === "all") {
    for (let i = 0; i < L; i++) state.result.hiddenStates?.[i]?.set(rows(i === 0 ? "embed" : `layer.${i - 1}.hidden`, D), from * D);
    state.result.lastLayer?.set(rows(`layer.${L - 1}.hidden`, D), from * D);
  }
  if (!request.attentions) return;
  const { numAttentionHeads: H, numKeyValueHeads: G, headDim: hd } = model.config;
  for (const [j, layer] of attentionLayers(model).entries()) {
    const qkv = rows(`layer.${layer}.qkv`, (H + 2 * G) * hd);
    attend(model, piece, qkv, model.keys(state.session!.cache, j), state.result.attentions![j]!);
  }
}

/** Writes the probabilities of a piece's rows into out (H,T,past+T): softmax(q·kᵀ / √hd) over the keys up to each row's own. */
function attend(model: LanguageModel, { state, from, count }: Piece, qkv: Float32Array, keys: Float32Array, out: Float32Array): void {
  const { numAttentionHeads: H, numKeyValueHeads: G, headDim: hd } = model.config;
  const S = state.session!.cache.position; // keys of this packed sequence, or of all
  const offset = state.past + from + count - S; // where they begin among all columns
  const [T, columns, width] = [state.length, state.past + state.length, (H + 2 * G) * hd];
  const scores = new Float64Array(S);
  for (let h = 0; h < H; h++) {
    const k = Math.floor(h / (H / G)) * S * hd;
    for (let t = 0; t < count; t++) {
      const seen = S - count + t + 1;
      let largest = Number.NEGATIVE_INFINITY;
      for (let s = 0; s < seen; s++) {
        let dot = 0;
        for (let i = 0; i < hd; i++) dot += qkv[t * width + h * hd + i]! * keys[k + s * hd + i]!;
        scores[s] = dot / Math.sqrt(hd);
        largest = Math.max(largest, scores[s]!);
      }
      let sum = 0;
      for (let s = 0; s < seen; s++) sum += scores[s] = exp(Math.max(-690, scores[s]! - largest));
      const to = (h * T + from + t) * columns + offset;
      for (let s = 0; s < seen; s++) out[to + s] = scores[s]! / sum;
    }
  }
}
