// A layer range in linear memory, ready to run: weights placed, scratch taken, one step at a time for one sequence or several. What a layer is stands in lfm2.ts; text and sampling are above.

import { InputError, PlatformError } from "../errors.ts";
import {
  COMMAND_BYTES,
  type CommandEncoder,
  type KernelScratch,
  ROW_TABLE_ENTRY_BYTES,
  type RowTable,
  SEGMENT_POSITIONS,
} from "../kernels/commands.ts";
import { Executor } from "../kernels/executor.ts";
import { type LargestLogits, Logits, MOST_LARGEST } from "../kernels/logits.ts";
import type { KernelTime } from "../kernels/profile.ts";
import type { Threads } from "../kernels/threads.ts";
import type { KernelInstance } from "../kernels/variants.ts";
import type { Arena } from "../memory/arena.ts";
import { GROUP_ROWS, type KvDType, roundUp } from "../memory/dtype.ts";
import type { Rows } from "../memory/tensor.ts";
import { type WasmMemory, Words } from "../memory/wasm.ts";
import { part } from "../part.ts";
import type { PlanItem } from "../weights/plan.ts";
import { type Cache, CachePool, cacheSize, KEPT_ROWS } from "./cache.ts";
import type { Lfm2Config } from "./config.ts";
import { fingerprint } from "./fingerprint.ts";
import { bufferColumns, type LayerRange, Lfm2, type Lfm2Buffers, type Lfm2Weights, matrixUses, rowStride } from "./lfm2.ts";
import { readKeys } from "./page-view.ts";
import { frequencyLength, ropeAttentionFactor, ropeFrequencies } from "./rope.ts";
import { readRows, TapCollector, type Taps } from "./taps.ts";

/** Columns of the head that are made at a time there. One row reads its weights in runs, and each begin costs some 10 µs of a stream from memory; of several rows what is made stays in the first cache. */
const LARGEST_COLUMNS = { alone: 32768, together: 4096 };

/** Logits that are kept at a time stay below this many bytes: all rows of a long prompt would be hundreds of megabytes. */
const LOGITS_BYTES = 8 << 20;

/** Commands of a step: the most that a layer records, taps included, some around the layers, and two for each row of logits. */
const COMMANDS_PER_LAYER = 24;
const COMMANDS_AROUND = 16;
/** Steps of the longest kind that are held to be run again; of others, which record half as much, twice as many. */
const HELD_STEPS = 4;

/** How a model is to run. */
export interface RunOptions {
  readonly kvDtype: KvDType;
  /** Positions that a session may reach. */
  readonly maxContextTokens: number;
  /** Rows of a step. */
  readonly chunkTokens: number;
  /** Threads that there is to be room for. */
  readonly threads: number;
}

/** One sequence's part of a step, from its cache's `statePosition` on: token ids, or rows (T,D) in the place of their embeddings. All of a step are of one kind. */
export interface StepInput {
  readonly cache: Cache;
  readonly ids?: ArrayLike<number>;
  /** (T,D) f32, row-major. */
  readonly hidden?: Float32Array;
  /** Positions of the rows (T,) for the rotary embedding; default their places in the cache. */
  readonly positions?: ArrayLike<number> | undefined;
}

/** What a step gives beside the caches' new content. */
export interface StepOptions {
  /**
   * Rows of the step whose logits are wanted, ascending, at most `logitsRows`; none of them for []. The others then end in the last layer, where keys,
   * values and the convolution's state have taken them in. By default all rows are computed to the end, without logits, for `head` or `hidden`; with `taps` too.
   */
  readonly logitsOf?: readonly number[];
  /** So many of each of these rows' logits, at most `MOST_LARGEST`, are all that is wanted: `largest` reads them, and there is no row for `logits`. */
  readonly largest?: number | undefined;
  readonly taps?: Taps | undefined;
  /** Length of the context that scaled rotary frequencies go by; default `maxContextTokens`, so that a session's never change. All rows of the step go by it. */
  readonly ropeLength?: number | undefined;
}

/** Bytes of the regions that a step needs, for rows up to `chunkTokens`. */
interface ScratchSizes {
  readonly columns: ReturnType<typeof bufferColumns>;
  readonly logitsColumns: number;
  readonly logitsRows: number;
  /** Segments of one row's keys at the longest context, for each head; several rows share them at shorter ones. None for one thread. */
  readonly slotCount: number;
  readonly commands: number;
  readonly regions: readonly (readonly [name: string, bytes: number])[];
}

function scratchSizes(c: Lfm2Config, { kernels }: KernelInstance, { chunkTokens: R, threads, maxContextTokens }: RunOptions): ScratchSizes {
  const columns = bufferColumns(c);
  const logitsColumns = roundUp(c.vocabSize, GROUP_ROWS);
  const logitsRows = Math.max(1, Math.min(R, Math.floor(LOGITS_BYTES / (4 * logitsColumns))));
  const widest = Math.max(rowStride(c.hiddenSize), rowStride(c.intermediateSize), rowStride(columns.heads));
  const slotCount = threads > 1 ? c.numAttentionHeads * Math.ceil(maxContextTokens / SEGMENT_POSITIONS) : 0;
  const commands = COMMANDS_PER_LAYER * c.numHiddenLayers + COMMANDS_AROUND + 2 * logitsRows;
  const regions = Object.entries(columns).map(([name, n]) => [name, 4 * R * rowStride(n)] as const);
  return {
    columns,
    logitsColumns,
    logitsRows,
    slotCount,
    commands,
    regions: [
      ...regions,
      ["logits", 4 * logitsRows * rowStride(logitsColumns)],
      ["sampling", Logits.scratchBytes(c.vocabSize)],
      ["largest", 8 * threads * logitsRows * MOST_LARGEST],
      ["quantized", R * kernels.qd8_row_bytes(widest)],
      ["slots", slotCount * kernels.attention_slot_bytes(c.headDim)],
      ["attention", threads * kernels.attention_scratch_bytes(c.numAttentionHeads, c.numKeyValueHeads, c.headDim)],
      ["rope", 4 * R * c.headDim],
      ["frequencies", 4 * c.headDim],
      ["ids", 4 * R],
      ["rowNumbers", 4 * R],
      ["rowTable", ROW_TABLE_ENTRY_BYTES * R],
      ["rotaryRows", ROW_TABLE_ENTRY_BYTES * R],
      ["commands", COMMAND_BYTES * commands * HELD_STEPS],
    ],
  };
}

/** @returns the part of the plan that running needs beside the weights: scratch, and one session's own block */
export function runPlan(c: Lfm2Config, instance: KernelInstance, options: RunOptions, range: LayerRange): PlanItem[] {
  const { regions } = scratchSizes(c, instance, options);
  const size = cacheSize(c, c.layerTypes.slice(range.from, range.to), options.kvDtype, options.maxContextTokens);
  return [
    { what: "scratch", bytes: regions.reduce((sum, [, bytes]) => sum + roundUp(bytes, 64), 0) },
    { what: "a session", bytes: size.blockBytes + size.pageBytes },
  ];
}

/** Runs steps of one layer range. */
export class LanguageModel {
  readonly config: Lfm2Config;
  readonly range: LayerRange;
  readonly options: RunOptions;
  readonly caches: CachePool;
  readonly #memory: WasmMemory;
  readonly #arena: Arena;
  readonly #lfm2: Lfm2;
  readonly #executor: Executor;
  readonly #threads: Threads;
  readonly #region: ReadonlyMap<string, number>;
  readonly #sizes: ScratchSizes;
  readonly #instance: KernelInstance;
  readonly #ids: Words;
  readonly #rowTable: Words;
  /** Rows of logits that have been asked for. */
  readonly #logits: Logits[] = [];
  /** For which `frequencyLength` the frequencies are. */
  #ropeLength: number | undefined;
  /** The one of sessions. */
  readonly #ownRopeLength: number;
  /** Of a step of one token with its logits; with the largest of them it is greater by their number. */
  readonly #decodeKey: number;
  /** Rows of the last step that was asked for their largest logits, and how many of each. */
  #largestRows = 0;
  #largestCount = 0;

  /**
   * @param threads that serve already; the model ends them
   * @param arena whose memory from its mark on is zero: padding columns must be, and no kernel writes them
   */
  constructor(
    config: Lfm2Config,
    weights: Lfm2Weights,
    instance: KernelInstance,
    threads: Threads,
    arena: Arena,
    options: RunOptions,
    range: LayerRange,
  ) {
    this.config = config;
    this.range = range;
    this.options = options;
    this.#instance = instance;
    this.#memory = instance.memory;
    this.#threads = threads;
    this.#arena = arena;
    this.#sizes = scratchSizes(config, instance, options);
    this.#region = new Map(this.#sizes.regions.map(([name, bytes]) => [name, arena.alloc(bytes, `scratch (${name})`)]));
    const scratch: KernelScratch = {
      quantized: this.#at("quantized"),
      slots: this.#at("slots"),
      slotCount: this.#sizes.slotCount,
      attention: this.#at("attention"),
    };
    const commands = { address: this.#at("commands"), capacity: this.#sizes.commands, steps: HELD_STEPS };
    this.#executor = new Executor(threads, instance.memory, commands, scratch, options.kvDtype);
    this.#ids = new Words(instance.memory, this.#at("ids"), options.chunkTokens);
    this.#rowTable = new Words(instance.memory, this.#at("rowTable"), (ROW_TABLE_ENTRY_BYTES / 4) * options.chunkTokens);
    this.#decodeKey = this.#keyOf(1, 1, kindOf([0], 1) ?? 0, 0);
    this.#ownRopeLength = frequencyLength(config, options.maxContextTokens);
    this.#lfm2 = new Lfm2(config, weights, this.#buffers(), range.from);
    const types = config.layerTypes.slice(range.from, range.to);
    this.caches = new CachePool(arena, cacheSize(config, types, options.kvDtype, options.maxContextTokens));
  }

  /** Bytes of linear memory that are taken. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /** Threads that compute. */
  get threads(): number {
    return this.#threads.count;
  }

  /** Tells this model from others, see `fingerprint`: keys and values that one has computed mean nothing to another. */
  get fingerprint(): string {
    const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: hd, convLCache: Kc, normEps, layerTypes } = this.config;
    const { ropeFactor } = this.#lfm2.buffers;
    this.#setFrequencies(this.options.maxContextTokens);
    const frequencies = new Float64Array(this.#memory.buffer, this.#at("frequencies"), hd / 2);
    const kinds = layerTypes.map((type) => (type === "conv" ? 1 : 2));
    return fingerprint(this.#memory, this.#lfm2.weights, [
      D,
      H,
      G,
      hd,
      Kc,
      normEps,
      ...kinds,
      ...frequencies,
      ...(ropeFactor === 1 ? [] : [ropeFactor]),
    ]);
  }

  /** Ends the threads. Twice does no harm; afterwards no step can be run. */
  dispose(): void {
    this.#threads.end();
  }

  /** @returns an empty cache */
  openCache(): Cache {
    return this.caches.open();
  }

  /**
   * Runs one step: appends each sequence's tokens to its cache.
   * @param inputs sequences, together at most `chunkTokens` rows
   * @param options rows whose logits are wanted; a map that receives a copy of what each layer computes
   * @returns T, the rows of the step; `logits`, or `head` and `hidden`, read what it left
   * @throws InputError when ids are out of range or a context is full; MemoryError when the pages do not fit. The caches stay as they were.
   */
  step(inputs: readonly StepInput[], options: StepOptions = {}): number {
    if (options.largest) {
      this.#largestRows = options.logitsOf?.length ?? 0;
      this.#largestCount = options.largest;
    }
    if (inputs.length === 1 && this.#stepsOnce(inputs[0]!, options)) return 1;
    const { logitsOf, largest = 0, taps, ropeLength } = options;
    this.#setFrequencies(ropeLength ?? this.options.maxContextTokens);
    let T = 0;
    for (const input of inputs) T += this.#lengthOf(input);
    if (T === 0 || T > this.options.chunkTokens) throw new RangeError(`a step takes 1 to ${this.options.chunkTokens} rows, got ${T}`);
    if (logitsOf) checkRows(logitsOf, T);
    for (const input of inputs) {
      const length = this.#lengthOf(input);
      this.#checkRoom(input.cache, length);
      input.cache.reserve(length);
    }
    const collector = taps ? new TapCollector(this.#arena, T, this.config, this.range) : undefined;
    try {
      this.#writeRowTable(inputs);
      const areIds = this.#writeInputs(inputs);
      const rotary = this.#writePositions(inputs);
      const kind = rotary || taps || !areIds ? undefined : kindOf(logitsOf, T);
      const key = kind === undefined ? undefined : this.#keyOf(T, inputs.length, kind, largest);
      this.#run(inputs, { T, areIds, rotary, logitsOf, largest, collector }, key);
      collector?.read(taps ?? new Map());
    } finally {
      collector?.release();
    }
    for (const input of inputs) input.cache.advance(this.#lengthOf(input));
    return T;
  }

  /**
   * Computes the logits of some rows of the last step, which was to give all of them.
   * @param rows row numbers within the step, at most `logitsRows` of them
   */
  head(rows: readonly number[]): void {
    this.#executor.run((c) => this.#recordHead(c, rows, false, 0));
  }

  /** Computes all logits of the rows that the last step was asked for the largest of, for `logits`. What `largest` gives stays. */
  logitsAfterAll(): void {
    const rows = Array.from({ length: this.#largestRows }, (_, i) => i);
    this.#executor.run((c) => this.#recordHead(c, rows, true, 0)); // the last layer has left them in the first rows
  }

  /** @param areOnTop these rows are the first ones of h */
  #recordHead(c: CommandEncoder, rows: readonly number[], areOnTop: boolean, largest: number): void {
    const { logitsRows, logitsColumns } = this.#sizes;
    if (rows.length > logitsRows) throw new RangeError(`the head takes at most ${logitsRows} rows, got ${rows.length}`);
    new Int32Array(this.#memory.buffer, this.#at("rowNumbers"), rows.length).set(rows);
    const logits = this.#rows("logits", logitsColumns);
    const most = rows.length === 1 ? LARGEST_COLUMNS.alone : LARGEST_COLUMNS.together;
    const columns = Math.min(most, GROUP_ROWS * Math.floor(logits.stride / GROUP_ROWS / this.threads));
    const lists = largest > 0 ? { address: this.#at("largest"), columns, k: largest, areSeveral: this.threads > 1 } : undefined;
    this.#lfm2.head(c, logits, areOnTop ? 0 : this.#at("rowNumbers"), rows.length, lists);
  }

  /**
   * Times each command of the next steps (`true`, from zero) or no more. Steps are slower by the clock's calls, some per cent of a small model's.
   * @returns what was measured since the last call with `true`
   */
  async profile(isOn: boolean): Promise<readonly KernelTime[]> {
    const { CommandTimer } = await part("profile", () => import("../kernels/profile.ts"));
    const times = this.#executor.timer?.times() ?? [];
    this.#executor.timer = isOn ? new CommandTimer(this.#memory, matrixUses(this.#lfm2.weights)) : undefined;
    return times;
  }

  /** Rows that `head` takes at a time. */
  get logitsRows(): number {
    return this.#sizes.logitsRows;
  }

  /** @returns row i of the last `head`, as a view that kernels and samplers work on */
  logits(i = 0): Logits {
    const made = this.#logits[i];
    if (made) return made;
    const { address, stride } = this.#rows("logits", this.#sizes.logitsColumns);
    const row = new Logits(this.#instance.kernels, this.#memory, address + 4 * stride * i, this.#at("sampling"), this.config.vocabSize);
    this.#logits[i] = row;
    return row;
  }

  /** The most of a row's largest logits that a step keeps; 0 where so many threads have no columns of their own to make. */
  get mostLargest(): number {
    const groups = this.#rows("logits", this.#sizes.logitsColumns).stride / GROUP_ROWS;
    return groups < this.threads ? 0 : Math.min(MOST_LARGEST, this.config.vocabSize);
  }

  /** @returns the largest logits of row i of the last step that was asked for them, views that hold until the next one */
  largest(i: number): LargestLogits {
    const [M, k] = [this.#largestRows, this.#largestCount];
    const address = this.#at("largest") + 4 * k * i;
    return { values: new Float32Array(this.#memory.buffer, address, k), ids: new Int32Array(this.#memory.buffer, address + 4 * k * M, k) };
  }

  /** @returns the residual stream (T,D) that the last step left: what the next layer range takes */
  hidden(T: number): Float32Array {
    return readRows(this.#memory, this.#lfm2.buffers.h, T, this.config.hiddenSize);
  }

  /** @returns the keys (G,S,hd) that `cache` holds of attention layer number `layer`, for whoever wants to look */
  keys(cache: Cache, layer: number): Float32Array {
    const { numAttentionHeads: query, numKeyValueHeads: kv, headDim: dim } = this.config;
    const addresses = cache.pages.map((id) => this.caches.pages.addressOf(id));
    return readKeys(this.#memory.buffer, addresses, { query, kv, dim }, layer, this.options.kvDtype, cache.position);
  }

  /** Computes the final norm of the first `M` rows of the last step, which was to give all of them; see `normed`. */
  norm(M: number): void {
    this.#executor.run((c) => this.#lfm2.norm(c, M));
  }

  /** @returns the final norm's output (M,D) of the rows that the last `head` or `norm` took */
  normed(M: number): Float32Array {
    return readRows(this.#memory, this.#lfm2.buffers.x, M, this.config.hiddenSize);
  }

  /**
   * A step of one id with its logits, as nearly all are, in few functions: between two steps of a large model the caches hold its weights, and each function is waited for.
   * @returns whether it was one, and has been recorded before; if not, nothing has been done
   */
  #stepsOnce({ cache, ids, positions }: StepInput, { logitsOf, largest = 0, taps, ropeLength }: StepOptions): boolean {
    if (ids?.length !== 1 || logitsOf?.length !== 1 || logitsOf[0] !== 0 || positions || taps || ropeLength !== undefined) return false;
    const id = ids[0]!;
    const { maxContextTokens } = this.options;
    if (
      !(Number.isInteger(id) && id >= 0 && id < this.config.vocabSize) ||
      cache.statePosition >= maxContextTokens ||
      this.#ropeLength !== this.#ownRopeLength
    )
      return false;
    cache.reserve(1);
    this.#writeEntry(0, cache, 0, 1);
    this.#ids.view[0] = id;
    try {
      if (!this.#executor.rerun(this.#decodeKey + largest)) return false;
    } catch (error) {
      // a trap leaves some layers' states advanced and others not: the session starts again
      if (error instanceof PlatformError) cache.reset();
      throw error;
    }
    cache.advance(1);
    return true;
  }

  /** Positions, pages and states are in the row table: nothing else tells two steps of one key apart. */
  #keyOf(T: number, sequences: number, kind: number, largest: number): number {
    return ((T * (this.options.chunkTokens + 1) + sequences) * KINDS + kind) * (MOST_LARGEST + 1) + largest;
  }

  #run(inputs: readonly StepInput[], step: Recording, key: number | undefined): void {
    try {
      if (key === undefined || !this.#executor.rerun(key)) this.#record(inputs.length, step, key);
    } catch (error) {
      // a trap leaves some layers' states advanced and others not: these sessions start again
      if (error instanceof PlatformError) for (const { cache } of inputs) cache.reset();
      throw error;
    }
  }

  #record(sequences: number, { T, areIds, rotary, logitsOf, largest, collector }: Recording, key: number | undefined): void {
    const outputs = this.range.head && this.range.to > this.range.from && !collector ? logitsOf : undefined;
    const rows = { address: this.#at("rowTable"), sequences };
    const ids = areIds ? this.#at("ids") : undefined;
    this.#executor.run((c) => {
      this.#lfm2.layers(c, { T, rows, rotary, ids, outputs, tap: collector?.record(c) });
      if (logitsOf?.length) this.#recordHead(c, logitsOf, outputs !== undefined, largest);
    }, key);
  }

  /** @param contextLength matters for some kinds of scaled rotary embeddings only */
  #setFrequencies(contextLength: number): void {
    const { config } = this;
    const length = frequencyLength(config, contextLength);
    if (length === this.#ropeLength) return;
    const at = this.#at("frequencies");
    const inMemory = new Float64Array(this.#memory.buffer, at, config.headDim / 2);
    const plain = (theta: number): Float64Array => {
      this.#instance.kernels.rope_frequencies(at, theta, config.headDim);
      return inMemory.slice();
    };
    inMemory.set(ropeFrequencies(config, length, plain));
    this.#ropeLength = length;
  }

  #lengthOf({ ids, hidden }: StepInput): number {
    return ids ? ids.length : (hidden?.length ?? 0) / this.config.hiddenSize;
  }

  #checkRoom(cache: Cache, tokens: number): void {
    const { maxContextTokens } = this.options;
    const end = cache.statePosition + tokens;
    if (end <= maxContextTokens) return;
    throw new InputError(
      `context: expected at most ${maxContextTokens} tokens, got ${end} (${cache.position} held and ${end - cache.position} new). Shorten the input or raise maxContextTokens.`,
      { code: "context-full" },
    );
  }

  #writeRowTable(inputs: readonly StepInput[]): void {
    let first = 0;
    for (let i = 0; i < inputs.length; i++) {
      const input = inputs[i]!;
      const length = this.#lengthOf(input);
      this.#writeEntry((i * ROW_TABLE_ENTRY_BYTES) / 4, input.cache, first, length);
      first += length;
    }
  }

  #writeEntry(at: number, cache: Cache, first: number, length: number): void {
    const words = this.#rowTable.view;
    words[at] = first;
    words[at + 1] = length;
    words[at + 2] = cache.statePosition;
    words[at + 3] = cache.pageTable;
    words[at + 4] = cache.convState;
    words[at + 5] = cache.position;
    words[at + 6] = cache.keptGates(length);
    words[at + 7] = this.config.convLCache - 1 + KEPT_ROWS;
  }

  /** Writes ids or rows; tells whether they are ids. */
  #writeInputs(inputs: readonly StepInput[]): boolean {
    let first = 0;
    for (const input of inputs) {
      if (input.ids) this.#writeIds(first, input.ids);
      else this.#writeHidden(first, this.#lengthOf(input), input.hidden ?? new Float32Array(0));
      first += this.#lengthOf(input);
    }
    return inputs[0]?.ids !== undefined;
  }

  /** Writes a table of single rows with the positions that callers gave; returns it, if any did. */
  #writePositions(inputs: readonly StepInput[]): RowTable | undefined {
    let isAsked = false;
    for (const { positions } of inputs) isAsked ||= positions !== undefined;
    if (!isAsked) return undefined;
    const address = this.#at("rotaryRows");
    let row = 0;
    for (const input of inputs) {
      const { cache, positions } = input;
      for (let t = 0; t < this.#lengthOf(input); t++, row++) {
        const position = positions?.[t] ?? cache.statePosition + t;
        new Uint32Array(this.#memory.buffer, address + ROW_TABLE_ENTRY_BYTES * row, 3).set([row, 1, position]);
      }
    }
    return { address, sequences: row };
  }

  #writeIds(first: number, ids: ArrayLike<number>): void {
    const to = this.#ids.view;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] ?? -1;
      if (!Number.isInteger(id) || id < 0 || id >= this.config.vocabSize) {
        throw new InputError(
          `tokens: expected ids from 0 to ${this.config.vocabSize - 1}, got ${id} at index ${i}. Encode the text with this model's tokenizer.`,
        );
      }
      to[first + i] = id;
    }
  }

  #writeHidden(first: number, length: number, hidden: Float32Array): void {
    const { h } = this.#lfm2.buffers;
    const D = this.config.hiddenSize;
    for (let t = 0; t < length; t++) {
      new Float32Array(this.#memory.buffer, h.address + 4 * h.stride * (first + t), D).set(hidden.subarray(t * D, (t + 1) * D));
    }
  }

  #buffers(): Lfm2Buffers {
    const { columns } = this.#sizes;
    const rows = (name: keyof typeof columns): Rows => this.#rows(name, columns[name]);
    return {
      h: rows("h"),
      x: rows("x"),
      r: rows("r"),
      wide: rows("wide"),
      heads: rows("heads"),
      act: rows("act"),
      rope: this.#at("rope"),
      frequencies: this.#at("frequencies"),
      ropeFactor: ropeAttentionFactor(this.config.ropeScaling),
    };
  }

  #rows(name: string, columns: number): Rows {
    return { address: this.#at(name), stride: rowStride(columns) };
  }

  #at(name: string): number {
    return this.#region.get(name) ?? 0;
  }
}

/** A step as it is to be recorded. */
interface Recording {
  readonly T: number;
  readonly areIds: boolean;
  readonly rotary: RowTable | undefined;
  readonly logitsOf: readonly number[] | undefined;
  readonly largest: number;
  readonly collector: TapCollector | undefined;
}

function checkRows(logitsOf: readonly number[], T: number): void {
  let before = -1;
  for (const row of logitsOf) {
    if (!(row > before && row < T)) throw new RangeError(`logitsOf takes ascending rows below ${T}, got ${logitsOf}`);
    before = row;
  }
}

const KINDS = 4;

/** @returns a number below `KINDS` for the rows whose logits a step usually gives: what it is asked for, none, the last, all. Undefined for others */
function kindOf(logitsOf: readonly number[] | undefined, T: number): number | undefined {
  if (!logitsOf) return 0;
  if (logitsOf.length === 0) return 1;
  if (logitsOf.length === T) return 2;
  return logitsOf.length === 1 && logitsOf[0] === T - 1 ? 3 : undefined;
}
