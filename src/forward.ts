// forward() as in the reference: batches with padding, positions, labels, kept columns. Here a batch becomes rows of real tokens and back; the rows are computed by the engine.
import { checkNames, checkObject } from "./checks.ts";
import { AbortError, InputError, throwIfAborted } from "./errors.ts";
import type { Engine, ForwardRequest, ForwardRow, ForwardRowResult } from "./generate/engine.ts";
import type { Lfm2Config } from "./models/config.ts";
import { isRecord, kindOf } from "./values.ts";

/** A dense array, row-major. */
export interface Tensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

/** Numbers of a batch (B,T): rows of one length, or one row by itself. */
export type Batch = ArrayLike<number> | readonly ArrayLike<number>[];

/** Keys, values and convolution states of a batch of sequences: what a forward pass gives to the next. */
export class KeyValueCache {
  static readonly name = "KeyValueCache";
  /** @internal */
  readonly sessions: readonly number[];
  /** What holds the sessions. @internal */
  readonly engine: Engine;
  /** Columns of all calls so far, padding counted. @internal */
  columns = 0;
  readonly #lengths: number[];
  readonly #close: (session: number) => void;
  #isOpen = true;

  /** @internal */
  constructor(sessions: readonly number[], engine: Engine, close: (session: number) => void) {
    this.sessions = sessions;
    this.engine = engine;
    this.#lengths = sessions.map(() => 0);
    this.#close = close;
    forgotten.register(this, { sessions, close }, this);
  }

  /** Tokens that each sequence holds, padding not counted. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }

  /** @internal */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** @internal */
  advance(row: number, tokens: number): void {
    this.#lengths[row] = (this.#lengths[row] ?? 0) + tokens;
  }

  /** Gives the memory back. Twice does no harm; a cache that is collected does it too. */
  dispose(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    forgotten.unregister(this);
    for (const session of this.sessions) this.#close(session);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const forgotten: FinalizationRegistry<{ sessions: readonly number[]; close: (session: number) => void }> = new FinalizationRegistry(
  ({ sessions, close }) => {
    for (const session of sessions) close(session);
  },
);

/** How far a batch or a text has been read. */
export interface ReadProgress {
  /** Tokens that have been read; never falls. */
  readonly processedTokens: number;
  readonly totalTokens: number;
}

/** Input of `forward`, with the reference's names. */
export interface ForwardInput {
  /** Token ids (B,T) or (T,). Each row is what it would be alone; dynamic and longrope scaling go by a row's own highest position. */
  readonly inputIds?: Batch | undefined;
  /** Embeddings (B,T,D) in the place of ids. */
  readonly inputsEmbeds?: Tensor | undefined;
  /** 1 at real tokens, 0 at padding, left or right (B,T); with a cache (B, columns of the past + T) is taken too, which says of the past what the cache holds. Default all ones. */
  readonly attentionMask?: Batch | undefined;
  /** Positions for the rotary embedding (B,T) or (T,); default the number of real tokens before. Where they jump, without mask and cache, a new sequence begins. */
  readonly positionIds?: Batch | undefined;
  /** Places in the cache (T,): as many as there were columns before, and so on; or as many as it holds, where padding is none. Only checked. */
  readonly cachePosition?: ArrayLike<number> | undefined;
  /** What an earlier call gave; it goes on to hold these tokens too. A call that fails or is aborted leaves it as it was. */
  readonly pastKeyValues?: KeyValueCache | undefined;
  /** Gives `pastKeyValues`, to be disposed of by the caller; default true where a cache comes in, else false, as it takes memory; the models of `lfm2-wasm/transformers` go by their configuration, where it is true. */
  readonly useCache?: boolean | undefined;
  /** Ids to be predicted (B,T), shifted here: the label of a token is scored by the logits before it. -100 is ignored. */
  readonly labels?: Batch | undefined;
  /** Divides the sum of the loss in the place of the number of labels. */
  readonly numItemsInBatch?: number | undefined;
  /** Logits of so many columns from the end, or of these columns; 0 (default) of all. */
  readonly logitsToKeep?: number | ArrayLike<number> | undefined;
  readonly outputHiddenStates?: boolean | undefined;
  readonly outputAttentions?: boolean | undefined;
  /** Called after each chunk. What it throws ends the call. */
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined;
  /** Ends the call before its next chunk. */
  readonly signal?: AbortSignal | undefined;
}

/** Output of `forward`. At padding all is zero. */
export interface ForwardOutput {
  /** Mean of -ln p over the labels of the batch; NaN without one. */
  readonly loss?: number;
  /** (B, kept columns, V) */
  readonly logits: Tensor;
  readonly pastKeyValues?: KeyValueCache;
  /** L+1 times (B,T,D): the embeddings, the outputs of all layers but the last, the final norm's output. */
  readonly hiddenStates?: readonly Tensor[];
  /** (B,T,D): the last layer's output before the final norm, which is in none of `hiddenStates`. */
  readonly lastLayerOutput?: Tensor;
  /** (B, H, T, past + T) for each attention layer. */
  readonly attentions?: readonly Tensor[];
  /** Which layers these are. */
  readonly attentionLayerIndices?: readonly number[];
}

/** What `forward` needs of its model. @internal */
export interface ForwardHost {
  readonly engine: Engine;
  readonly config: Lfm2Config;
  readonly maxContextTokens: number;
  nextCall(): number;
  open(): Promise<number>;
  close(session: number): void;
}

/** The batch as columns, and where its real tokens are. */
interface Columns {
  readonly B: number;
  readonly T: number;
  /** Columns of real tokens of each row, ascending. */
  readonly real: readonly (readonly number[])[];
}

const IGNORED = -100;

const refuse = (name: string, expected: string, got: string, advice: string): InputError =>
  new InputError(`forward: ${name}: expected ${expected}, got ${got}. ${advice}`);

const isList = (value: unknown): value is ArrayLike<number> => Array.isArray(value) || ArrayBuffer.isView(value);

/** @returns rows of numbers. @throws InputError */
function rowsOf(name: string, batch: Batch): readonly ArrayLike<number>[] {
  if (!isList(batch)) throw refuse(name, "rows of numbers", kindOf(batch), "Pass (B,T) or (T,).");
  const rows = (batch.length > 0 && isList(batch[0]) ? batch : [batch]) as readonly ArrayLike<number>[];
  const T = rows[0]?.length ?? 0;
  const odd = rows.find((row) => !isList(row) || row.length !== T);
  if (odd)
    throw refuse(
      name,
      `rows of ${T} numbers, as the first`,
      isList(odd) ? `${odd.length}` : kindOf(odd),
      "Pad them, with an attentionMask.",
    );
  return rows;
}

function whole(name: string, value: number | undefined, least: number, end: number): number {
  if (value !== undefined && Number.isInteger(value) && value >= least && value < end) return value;
  throw refuse(name, `whole numbers from ${least} to ${end - 1}`, String(value), "Check the batch.");
}

function sizeOf({ inputIds, inputsEmbeds }: ForwardInput, D: number): { B: number; T: number; ids?: readonly ArrayLike<number>[] } {
  if ((inputIds === undefined) === (inputsEmbeds === undefined))
    throw refuse("inputIds", "either inputIds or inputsEmbeds", inputIds === undefined ? "none of them" : "both", "Pass one of them.");
  if (inputIds !== undefined) {
    const ids = rowsOf("inputIds", inputIds);
    return { B: ids.length, T: ids[0]?.length ?? 0, ids };
  }
  if (!isRecord(inputsEmbeds)) throw refuse("inputsEmbeds", `a tensor (B,T,${D}) of f32`, kindOf(inputsEmbeds), "Pass { data, dims }.");
  const { data, dims } = inputsEmbeds as Tensor;
  const [B = 0, T = 0, columns] = dims ?? [];
  if (!(data instanceof Float32Array) || dims?.length !== 3 || columns !== D || data.length !== B * T * D)
    throw refuse("inputsEmbeds", `a tensor (B,T,${D}) of f32`, `dims [${dims}] and ${data?.length} numbers`, "Check its shape.");
  return { B, T };
}

/** @returns (B,T) of an option that may be given as one row for all. */
function broadcast(name: string, batch: Batch, { B, T }: { B: number; T: number }): readonly ArrayLike<number>[] {
  const rows = rowsOf(name, batch);
  if (rows[0]?.length !== T || (rows.length !== B && rows.length !== 1))
    throw refuse(name, `(${B},${T})`, `(${rows.length},${rows[0]?.length})`, "It goes with the input.");
  return rows.length === B ? rows : Array.from({ length: B }, () => rows[0]!);
}

function columnsOf({ attentionMask, pastKeyValues }: ForwardInput, { B, T }: { B: number; T: number }): Columns {
  const all = Array.from({ length: T }, (_, t) => t);
  if (attentionMask === undefined) return { B, T, real: Array.from({ length: B }, () => all) };
  const mask = rowsOf("attentionMask", attentionMask);
  const width = mask[0]?.length ?? 0;
  const bits = (row: ArrayLike<number>): number[] => Array.from(row, (value) => whole("attentionMask", value, 0, 2));
  const past = pastKeyValues ? width - T : 0;
  if (mask.length !== B || width !== past + T || (past !== 0 && past !== pastKeyValues?.columns))
    throw refuse(
      "attentionMask",
      `(${B},${T})${pastKeyValues ? ` or, with the columns of the past, (${B},${pastKeyValues.columns + T})` : ""}`,
      `(${mask.length},${width})`,
      "It goes with the input.",
    );
  const rows = mask.map(bits);
  for (const [b, row] of rows.entries()) {
    const [held, ones] = [pastKeyValues?.lengths[b], row.slice(0, past).reduce((sum, one) => sum + one, 0)];
    if (past !== 0 && ones !== held)
      throw refuse(
        "attentionMask",
        `${held} ones over the past of row ${b}, the tokens that it holds`,
        `${ones}`,
        "They cannot be masked any more.",
      );
  }
  const real = rows.map((row) => all.filter((t) => row[past + t] === 1));
  return { B, T, real };
}

/** Columns whose logits are wanted. */
function keptColumns(keep: ForwardInput["logitsToKeep"], T: number): readonly number[] {
  if (keep === undefined || keep === 0) return Array.from({ length: T }, (_, t) => t);
  if (typeof keep === "number") {
    const count = Math.min(T, whole("logitsToKeep", keep, 0, Number.MAX_SAFE_INTEGER));
    return Array.from({ length: count }, (_, i) => T - count + i);
  }
  if (!isList(keep)) throw refuse("logitsToKeep", "a number, or a list of columns", kindOf(keep), "Leave it out for all.");
  return Array.from(keep, (column) => whole("logitsToKeep", column < 0 ? column + T : column, 0, T));
}

/** Places where neighbouring positions do not follow each other. */
const jumps = (positions: Uint32Array): number[] => [...positions.keys()].filter((i) => i > 0 && positions[i] !== positions[i - 1]! + 1);

/** The id that the logits of each real token are to predict: the label of the next real token. */
function targetsOf(labels: ArrayLike<number>, real: readonly number[], V: number): Int32Array {
  for (let t = 0; t < labels.length; t++) if (labels[t] !== IGNORED) whole("labels", labels[t], 0, V);
  return Int32Array.from(real, (_, i) => {
    const label = real[i + 1] === undefined ? IGNORED : labels[real[i + 1]!]!;
    return label === IGNORED ? -1 : label;
  });
}

/** @returns a tensor (B,T,columns) of each row's (real tokens, columns) */
function spread(parts: readonly (Float32Array | undefined)[], { B, T, real }: Columns, columns: number): Tensor {
  const dims = [B, T, columns];
  if (B === 1 && real[0]?.length === T && parts[0]) return { data: parts[0], dims };
  const data = new Float32Array(B * T * columns);
  for (const [b, part] of parts.entries())
    for (const [i, t] of (real[b] ?? []).entries()) data.set(part!.subarray(i * columns, (i + 1) * columns), (b * T + t) * columns);
  return { data, dims };
}

/** @returns (B, H, T, past + T) of each row's (H, n, past + n); a row's own past ends where the longest one's does */
function spreadAttention(
  parts: readonly (Float32Array | undefined)[],
  { B, T, real }: Columns,
  past: readonly number[],
  H: number,
): Tensor {
  const longest = Math.max(...past);
  const S = longest + T;
  const data = new Float32Array(B * H * T * S);
  for (const [b, part] of parts.entries()) {
    const columns = real[b] ?? [];
    const [n, before] = [columns.length, past[b] ?? 0];
    const place = (s: number): number => (s < before ? longest - before + s : longest + columns[s - before]!);
    for (let h = 0; h < H; h++)
      for (const [i, t] of columns.entries())
        for (let s = 0; s < before + n; s++) data[((b * H + h) * T + t) * S + place(s)] = part![(h * n + i) * (before + n) + s]!;
  }
  return { data, dims: [B, H, T, S] };
}

/** @throws InputError unless `places` go on where the cache ends: columns of padding may be counted, as the reference does, or not */
function checkPlaces(places: ArrayLike<number>, T: number, past: KeyValueCache | undefined): void {
  const [columns = 0, held = 0] = [past?.columns, past && Math.max(...past.lengths)];
  const goOn = (from: number): boolean => Array.from(places).every((place, t) => place === from + t);
  const isEven = past?.lengths.every((length) => length === held) ?? true;
  if (isList(places) && places.length === T && (goOn(columns) || (isEven && goOn(held)))) return;
  const got = isList(places) ? `${places.length}: ${Array.from(places).slice(0, 8)}` : kindOf(places);
  throw refuse("cachePosition", `${T} places from ${columns} on, where the cache ends`, got, "Leave it out.");
}

/** A batch as the engine takes it. */
interface Prepared {
  readonly columns: Columns;
  readonly kept: readonly number[];
  readonly rows: readonly ForwardRow[];
  readonly request: Omit<ForwardRequest, "rows">;
}

/** What a call may say; the compiler misses none. */
const KEYS: Readonly<Record<keyof ForwardInput, 1>> = {
  inputIds: 1,
  inputsEmbeds: 1,
  attentionMask: 1,
  positionIds: 1,
  cachePosition: 1,
  pastKeyValues: 1,
  useCache: 1,
  labels: 1,
  numItemsInBatch: 1,
  logitsToKeep: 1,
  outputHiddenStates: 1,
  outputAttentions: 1,
  onProgress: 1,
  signal: 1,
};

function prepare(host: ForwardHost, input: ForwardInput): Prepared {
  checkNames("forward", input, "ForwardInput", KEYS);
  const { vocabSize: V, hiddenSize: D } = host.config;
  const { inputsEmbeds, positionIds, labels, logitsToKeep, pastKeyValues: past, useCache } = input;
  const { B, T, ids } = sizeOf(input, D);
  if (B === 0 || T === 0)
    throw new InputError("forward: expected one token at least, got none. Encode a text first.", { code: "empty-prompt" });
  if (past && (!past.isOpen || past.sessions.length !== B))
    throw refuse(
      "pastKeyValues",
      `an open cache of ${B} sequences`,
      past.isOpen ? `one of ${past.sessions.length}` : "one that was disposed of",
      "Begin anew.",
    );
  if (past && past.engine !== host.engine)
    throw refuse("pastKeyValues", "a cache that this model gave", "one of another model", "Give it to the model that it came from.");
  const columns = columnsOf(input, { B, T });
  if (input.cachePosition !== undefined) checkPlaces(input.cachePosition, T, past);
  const { numItemsInBatch: items } = input;
  if (items !== undefined && !(typeof items === "number" && items > 0))
    throw refuse("numItemsInBatch", "a number above 0", String(items), "Leave it out for the mean.");
  if (labels !== undefined && keptColumns(logitsToKeep, T).length !== T)
    throw refuse("logitsToKeep", "all columns where there are labels", String(logitsToKeep), "Leave one of them out.");
  const positions = positionIds === undefined ? undefined : broadcast("positionIds", positionIds, { B, T });
  const wanted = labels === undefined ? undefined : broadcast("labels", labels, { B, T });
  const kept = keptColumns(logitsToKeep, T);
  const rows = columns.real.map((real, b): ForwardRow => {
    const held = past?.lengths[b] ?? 0;
    if (held + real.length > host.maxContextTokens) {
      throw new InputError(
        `forward: expected at most ${host.maxContextTokens} tokens, got ${held + real.length}. Load the model with a larger maxContextTokens.`,
        { code: "context-full" },
      );
    }
    const own = positions && Uint32Array.from(real, (t) => whole("positionIds", positions[b]![t], 0, 0x8000_0000));
    const isPacked = own !== undefined && input.attentionMask === undefined && !past && !useCache;
    return {
      ...(ids
        ? { ids: Uint32Array.from(real, (t) => whole("inputIds", ids[b]![t], 0, V)) }
        : { embeds: gather(inputsEmbeds!.data, real, b * T, D) }),
      positions: own,
      borders: isPacked ? jumps(own) : undefined,
      targets: wanted && targetsOf(wanted[b]!, real, V),
    };
  });
  const request = {
    logits: columns.real.map((real) => {
      const places = new Map(real.map((t, i) => [t, i]));
      return kept.flatMap((t) => places.get(t) ?? []);
    }),
    hiddenStates: input.outputHiddenStates ? ("all" as const) : undefined,
    attentions: input.outputAttentions,
  };
  return { columns, kept, rows, request };
}

function gather(data: Float32Array, real: readonly number[], first: number, D: number): Float32Array {
  const out = new Float32Array(real.length * D);
  for (const [i, t] of real.entries()) out.set(data.subarray((first + t) * D, (first + t + 1) * D), i * D);
  return out;
}

/**
 * One forward pass over a batch.
 * @throws InputError for shapes that do not fit, ids outside the vocabulary, a context that is full; AbortError
 * @internal
 */
export async function forward(host: ForwardHost, input: ForwardInput): Promise<ForwardOutput> {
  const { pastKeyValues, useCache = pastKeyValues !== undefined } = checkObject("forward", input);
  const { columns, kept, rows, request } = prepare(host, { ...input, useCache });
  throwIfAborted(input.signal);
  const past = pastKeyValues?.lengths.slice() ?? columns.real.map(() => 0);
  const cache = pastKeyValues ?? (useCache ? await openCache(host, columns.B) : undefined);
  try {
    const asked = rows.map((row, b) => ({ ...row, session: cache?.sessions[b] }));
    const inStep = pastKeyValues && input.onProgress !== undefined; // an engine that lives elsewhere is not through then when it throws
    const results = await runForward(host, { ...request, rows: asked, inStep }, input);
    for (const [b, real] of columns.real.entries()) cache?.advance(b, real.length);
    if (cache) cache.columns += columns.T;
    return output(host.config, input, columns, kept, results, past, useCache ? cache : undefined);
  } catch (error) {
    if (cache && !(pastKeyValues && (await standsAt(past, cache)))) cache.dispose();
    throw error;
  }
}

/** Whether a cache holds what it held before a call that failed: after a trap, or where the engine is gone, it does not. */
async function standsAt(past: readonly number[], { engine, sessions }: KeyValueCache): Promise<boolean> {
  const held = await Promise.all(sessions.map((session) => engine.tokens(session))).catch(() => []);
  return past.every((length, b) => held[b]?.length === length);
}

async function openCache(host: ForwardHost, B: number): Promise<KeyValueCache> {
  const sessions = await Promise.all(Array.from({ length: B }, () => host.open()));
  return new KeyValueCache(sessions, host.engine, (session) => host.close(session));
}

/** @returns what came of each row. @throws AbortError with the signal's own reason; what `onProgress` throws @internal */
export async function runForward(
  { engine, nextCall }: ForwardHost,
  request: ForwardRequest,
  { signal, onProgress }: Pick<ForwardInput, "signal" | "onProgress">,
): Promise<readonly ForwardRowResult[]> {
  const call = nextCall();
  const cancel = (): void => {
    engine.cancel(call).catch(() => {}); // an engine that is gone has nothing left to cancel
  };
  throwIfAborted(signal);
  signal?.addEventListener("abort", cancel, { once: true });
  let rows: readonly ForwardRowResult[] = [];
  try {
    for await (const event of engine.forward(call, request)) {
      if (event.type === "result") rows = event.rows;
      else if (!signal?.aborted)
        // an engine that lives elsewhere may have worked ahead
        onProgress?.({ processedTokens: event.processedTokens, totalTokens: event.totalTokens });
    }
    return rows;
  } catch (error) {
    if (error instanceof AbortError && error.code === "abort") throwIfAborted(signal);
    throw error;
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

function output(
  config: Lfm2Config,
  input: ForwardInput,
  columns: Columns,
  kept: readonly number[],
  results: readonly ForwardRowResult[],
  past: readonly number[],
  cache: KeyValueCache | undefined,
): ForwardOutput {
  const { vocabSize: V, hiddenSize: D, numHiddenLayers: L, numAttentionHeads: H, layerTypes } = config;
  // of the kept columns each row has those that are real, in their order
  const places = columns.real.map((real) => kept.flatMap((t, k) => (real.includes(t) ? [k] : [])));
  const logits = spread(
    results.map((r) => r.logits),
    { B: columns.B, T: kept.length, real: places },
    V,
  );
  const attentionLayerIndices = layerTypes.flatMap((type, i) => (type === "full_attention" ? [i] : []));
  return {
    logits,
    ...(input.labels !== undefined && { loss: lossOf(results, input.numItemsInBatch) }),
    ...(cache && { pastKeyValues: cache }),
    ...(input.outputHiddenStates && {
      hiddenStates: Array.from({ length: L + 1 }, (_, i) =>
        spread(
          results.map((r) => r.hiddenStates?.[i]),
          columns,
          D,
        ),
      ),
      lastLayerOutput: spread(
        results.map((r) => r.lastLayer),
        columns,
        D,
      ),
    }),
    ...(input.outputAttentions && {
      attentions: attentionLayerIndices.map((_, j) =>
        spreadAttention(
          results.map((r) => r.attentions?.[j]),
          columns,
          past,
          H,
        ),
      ),
      attentionLayerIndices,
    }),
  };
}

function lossOf(results: readonly ForwardRowResult[], items: number | undefined): number {
  const scored = results.flatMap((r) => Array.from(r.logprobs ?? []).filter((p) => !Number.isNaN(p)));
  return -scored.reduce((sum, p) => sum + p, 0) / (items ?? scored.length);
}
