// A checkpoint as a GGUF with quantized matrices: the bits that a load with that dtype packs, as a file that llama.cpp reads too. Streams: beside a window nothing is held.
import { InputError, throwIfAborted, UnsupportedError } from "../errors.ts";
import { instantiateKernels, type KernelInstance } from "../kernels/variants.ts";
import { type ModelSource, openSource, type Platform } from "../lfm2.ts";
import { nextMacrotask } from "../macrotask.ts";
import { Arena } from "../memory/arena.ts";
import { BLOCK, DTYPE_CODE, GROUP_ROWS, packedBytes, roundUp } from "../memory/dtype.ts";
import { WebAssembly } from "../memory/wasm.ts";
import { type Checkpoint, openCheckpoint } from "../models/checkpoint.ts";
import { nameWeights } from "../models/lfm2.ts";
import { wholeModel } from "../models/load-model.ts";
import { ggufName } from "../models/names.ts";
import { readTexts, type Texts } from "../models/texts.ts";
import { type LoadProgress, Meter } from "../progress.ts";
import { type GgufEntry, type GgufTensor, ggufHeader, ggufPadding } from "../weights/gguf-writer.ts";
import { notFinite, windowFor } from "../weights/load.ts";
import { resolveWeights, WeightList } from "../weights/plan.ts";
import type { FileSink } from "../weights/sink.ts";
import { readExactly } from "../weights/source.ts";
import { STORED_TYPES, type StoredTensor, storedBytes } from "../weights/tensor.ts";
import { storedBlocks } from "../weights/unpack.ts";
import { configEntries, quantizationEntries, templateEntries, tokenizerEntries } from "./metadata.ts";

/** Element types that a file can be written in. */
export type QuantizedDType = "q4" | "q8";
export const QUANTIZED_DTYPES: readonly QuantizedDType[] = ["q4", "q8"];
const FILE_TYPE = { q4: "Q4_0", q8: "Q8_0" } as const;

/** Options of `quantizeTo`. */
export interface QuantizeOptions {
  /** Of the matrices. */
  readonly dtype: QuantizedDType;
  /** Of the embedding, and of a head apart from it; default `dtype`. */
  readonly embedding?: QuantizedDType | undefined;
  /** Bytes of the source's tensors. */
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What was written. */
export interface QuantizeResult {
  readonly name: string;
  readonly dtype: QuantizedDType;
  readonly embedding: QuantizedDType;
  readonly sourceBytes: number;
  readonly bytes: number;
  readonly parameterCount: number;
  /** Tensors by their type in the file. */
  readonly tensors: Readonly<Record<string, number>>;
}

/** A tensor on its way. */
interface Item extends GgufTensor {
  readonly stored: StoredTensor;
  readonly dtype: QuantizedDType | undefined;
  readonly rows: number;
  readonly columns: number;
}

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function matrixItem(stored: StoredTensor, name: string, rows: number, columns: number, dtype: QuantizedDType): Item {
  if (columns % BLOCK !== 0)
    throw new UnsupportedError(
      `quantize: tensor "${name}": expected rows of a multiple of ${BLOCK} values, got ${columns}: ${FILE_TYPE[dtype]} has no form for them. Load it with a dtype instead.`,
    );
  const type = FILE_TYPE[dtype];
  return { name: ggufName(name), type, shape: [rows, columns], bytes: storedBytes(type, rows * columns), stored, dtype, rows, columns };
}

/** What the file will hold, in the order in which a step uses it. */
function itemsOf(list: WeightList, { tensors }: Checkpoint, { dtype, embedding = dtype }: QuantizeOptions): Item[] {
  const items: Item[] = [];
  for (const m of list.matrices)
    for (const s of m.segments) {
      const isVocabulary = s.name === "model.embed_tokens.weight" || s.name === "lm_head.weight";
      const stored = tensors.get(s.name);
      if (stored) items.push(matrixItem(stored, s.name, s.rows, m.columns, isVocabulary ? embedding : dtype));
    }
  for (const v of list.vectors) {
    const stored = tensors.get(v.name);
    const n = v.length * v.taps;
    const shape = v.kind === "taps" ? [v.length, v.taps] : [v.length];
    if (stored) items.push({ name: ggufName(v.name), type: "F32", shape, bytes: 4 * n, stored, dtype: undefined, rows: 1, columns: n });
  }
  return items;
}

/** Keys of the source that are not the written file's. */
const REPLACED = /^(?:general\.(?:alignment|file_type|quantization_version)|split\.)/;

function entriesOf(checkpoint: Checkpoint, texts: Texts, dtype: QuantizedDType): GgufEntry[] {
  if (texts.format === "gguf") {
    const kept = [...texts.metadata].filter(([key]) => !REPLACED.test(key));
    return [...kept.map(([key, value]): GgufEntry => [key, texts.types.get(key) ?? 0, value]), ...quantizationEntries(dtype)];
  }
  const { config, names } = checkpoint;
  return [
    ...configEntries(config, names[0] ?? "lfm2"),
    ...quantizationEntries(dtype),
    ...(texts.tokenizer === undefined ? [] : tokenizerEntries(texts.tokenizer, config)),
    ...templateEntries(texts.template),
  ];
}

/** Reads, converts and writes, piece by piece, in a small memory of its own. */
class Writer {
  readonly #instance: KernelInstance;
  readonly #sink: FileSink;
  readonly #signal: AbortSignal | undefined;
  readonly #meter: Meter | undefined;
  readonly #totalBytes: number;
  readonly #windowBytes: number;
  readonly #window: number;
  readonly #scratch: number;
  readonly #packed: number;
  #loadedBytes = 0;
  writtenBytes = 0;

  constructor(
    instance: KernelInstance,
    sink: FileSink,
    options: QuantizeOptions,
    items: readonly Item[],
    window: { bytes: number; groupBytes: number },
  ) {
    this.#instance = instance;
    this.#sink = sink;
    this.#signal = options.signal;
    this.#meter = options.onProgress && new Meter(options.onProgress);
    this.#totalBytes = items.reduce((sum, item) => sum + item.stored.bytes, 0);
    this.#windowBytes = window.bytes;
    const arena = new Arena(instance.memory);
    this.#window = arena.alloc(window.bytes, "the window");
    this.#scratch = arena.alloc(window.groupBytes, "a group of rows");
    const packed = items.map((item) => (item.dtype ? packedBytes(item.dtype, this.#rowsAtOnce(item), item.columns) : 0));
    this.#packed = arena.alloc(Math.max(...packed), "packed rows");
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#sink.write(bytes);
    this.writtenBytes += bytes.length;
  }

  async tensor(item: Item): Promise<void> {
    if (item.dtype) await this.#matrix(item, item.dtype);
    else await this.#vector(item);
    await this.write(new Uint8Array(ggufPadding(item.bytes)));
  }

  #rowsAtOnce({ stored, rows, columns }: Item): number {
    const most = Math.floor(this.#windowBytes / storedBytes(stored.type, columns) / GROUP_ROWS) * GROUP_ROWS;
    return Math.min(Math.max(GROUP_ROWS, most), roundUp(rows, GROUP_ROWS));
  }

  async #matrix(item: Item, dtype: QuantizedDType): Promise<void> {
    const { stored, columns } = item;
    const { kernels, memory } = this.#instance;
    const step = this.#rowsAtOnce(item);
    const rowBytes = storedBytes(stored.type, columns);
    const code = STORED_TYPES[stored.type].code;
    for (let row = 0; row < item.rows; row += step) {
      const rows = Math.min(step, item.rows - row);
      await this.#fill(stored, row * rowBytes, rows * rowBytes);
      if (kernels.pack_rows(this.#packed, DTYPE_CODE[dtype], 0, this.#window, code, rows, columns, this.#scratch) === 0)
        throw notFinite(stored, dtype);
      const packed = new Uint8Array(memory.buffer, this.#packed, packedBytes(dtype, rows, columns));
      await this.write(storedBlocks(dtype, packed, rows, columns / BLOCK));
    }
  }

  async #vector({ stored, columns }: Item): Promise<void> {
    const { kernels, memory } = this.#instance;
    await this.#fill(stored, 0, stored.bytes);
    kernels.decode_rows(this.#scratch, columns, this.#window, STORED_TYPES[stored.type].code, 1, columns);
    const values = new Float32Array(memory.buffer, this.#scratch, columns);
    if (!values.every(Number.isFinite)) throw notFinite(stored, "f32");
    await this.write(new Uint8Array(values.slice().buffer));
  }

  async #fill(tensor: StoredTensor, at: number, bytes: number): Promise<void> {
    const signal = this.#signal;
    const got = await readExactly(tensor.source, tensor.offsetBytes + at, bytes, signal);
    new Uint8Array(this.#instance.memory.buffer, this.#window, bytes).set(got);
    await nextMacrotask();
    throwIfAborted(signal);
    this.#loadedBytes += bytes;
    this.#meter?.report({ phase: "read", loadedBytes: this.#loadedBytes, totalBytes: this.#totalBytes, file: tensor.source.name });
  }
}

function checkOptions({ dtype, embedding }: QuantizeOptions): void {
  for (const [name, value] of [["dtype", dtype] as const, ["embedding", embedding ?? dtype] as const])
    if (!QUANTIZED_DTYPES.includes(value))
      throw new InputError(`quantize: ${name}: expected "q4" or "q8", got ${JSON.stringify(value) ?? String(value)}.`);
}

/**
 * Writes a checkpoint as a GGUF whose matrices are quantized. Norms, biases and the taps of convolutions stay f32.
 * @param source as for `load`
 * @param sink takes the file's bytes from the front; committed at the end, discarded when anything fails
 * @throws InputError, FormatError, UnsupportedError, NetworkError, StorageError, AbortError
 */
export async function quantizeTo(
  platform: Platform,
  source: ModelSource,
  sink: FileSink,
  options: QuantizeOptions,
): Promise<QuantizeResult> {
  try {
    checkOptions(options);
    throwIfAborted(options.signal);
    const opened = await openSource(platform, source, { signal: options.signal });
    const checkpoint = await openCheckpoint(opened.source, options.signal);
    try {
      const texts = await readTexts(opened.source, checkpoint.format, options.signal);
      const result = await writeModel(platform, checkpoint, texts, sink, options);
      await checkpoint.verify(options.signal);
      throwIfAborted(options.signal);
      await sink.commit();
      return result;
    } finally {
      await checkpoint.close().catch(() => {}); // all has been read, or a better error is on its way
    }
  } catch (error) {
    await sink.discard().catch(() => {}); // the first error is the one that helps
    throw error;
  }
}

async function writeModel(
  platform: Platform,
  checkpoint: Checkpoint,
  texts: Texts,
  sink: FileSink,
  options: QuantizeOptions,
): Promise<QuantizeResult> {
  const { dtype, embedding = dtype } = options;
  const list = new WeightList();
  nameWeights(list, checkpoint.config, wholeModel(checkpoint));
  resolveWeights(list, checkpoint, dtype);
  const items = itemsOf(list, checkpoint, options);
  const header = ggufHeader(entriesOf(checkpoint, texts, dtype), items);
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 65_536 });
  const instance = await instantiateKernels(platform.kernels, memory, "plain"); // its layout of int8 is the file's: no byte is biased
  const writer = new Writer(instance, sink, options, items, windowFor(list, checkpoint.tensors));
  await writer.write(header);
  for (const item of items) await writer.tensor(item);
  const tensors: Record<string, number> = {};
  for (const { type } of items) tensors[type] = (tensors[type] ?? 0) + 1;
  return {
    name: checkpoint.names[0] ?? "",
    dtype,
    embedding,
    sourceBytes: items.reduce((sum, item) => sum + item.stored.bytes, 0),
    bytes: writer.writtenBytes,
    parameterCount: items.reduce((sum, item) => sum + count(item.shape), 0),
    tensors,
  };
}
