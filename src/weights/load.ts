// Streams tensors from their source into linear memory, packed on the way: beside the final bytes there is one window, no second copy. Knows no architecture.
import { FormatError, throwIfAborted } from "../errors.ts";
import { writeDescriptor } from "../kernels/commands.ts";
import type { Kernels } from "../kernels/variants.ts";
import { nextMacrotask } from "../macrotask.ts";
import { BLOCK, DTYPE_CODE, GROUP_ROWS, roundUp, type WeightDType } from "../memory/dtype.ts";
import type { Segment, Vector } from "../memory/tensor.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import type { WeightList } from "./plan.ts";
import { type ByteSource, readExactly } from "./source.ts";
import { STORED_TYPES, type StoredTensor, storedBytes } from "./tensor.ts";

/** Bytes of a file in memory at a time, or 8 rows of the widest matrix where that is more: large enough that a read's own cost does not show. */
const WINDOW_BYTES = 1 << 20;

/** What `loadWeights` reports. */
export interface WeightProgress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
  readonly file: string;
}

/** The window through which a checkpoint streams: file bytes, then one group of rows as f32. */
export interface Window {
  readonly bytes: number;
  readonly groupBytes: number;
}

/** @returns how large the window must be for the list's tensors */
export function windowFor(list: WeightList, tensors: ReadonlyMap<string, StoredTensor>): Window {
  let row = 0;
  let columns = 0;
  for (const m of list.matrices) {
    columns = Math.max(columns, m.columns);
    for (const s of m.segments) row = Math.max(row, rowBytes(tensors.get(s.name), m.columns));
  }
  for (const v of list.vectors) {
    columns = Math.max(columns, (v.length * v.taps) / GROUP_ROWS);
    row = Math.max(row, rowBytes(tensors.get(v.name), v.length * v.taps) / GROUP_ROWS);
  }
  return { bytes: roundUp(Math.max(WINDOW_BYTES, row * GROUP_ROWS), 64), groupBytes: GROUP_ROWS * roundUp(columns, BLOCK) * 4 };
}

function rowBytes(tensor: StoredTensor | undefined, columns: number): number {
  return tensor ? storedBytes(tensor.type, columns) : 0;
}

/** One tensor's way into memory. */
interface Job {
  readonly tensor: StoredTensor;
  readonly run: (job: Job, loader: Loader) => Promise<void>;
}

/** Where the loader works. */
export interface LoadTarget {
  readonly kernels: Kernels;
  readonly memory: WasmMemory;
  /** Address of the window: `window.bytes + window.groupBytes` bytes, free again after the load. */
  readonly windowAddress: number;
  readonly window: Window;
}

/** Options of `loadWeights`. */
export interface LoadWeightsOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: WeightProgress) => void) | undefined;
}

class Loader {
  readonly target: LoadTarget;
  readonly #options: LoadWeightsOptions;
  readonly #totalBytes: number;
  #loadedBytes = 0;

  constructor(target: LoadTarget, options: LoadWeightsOptions, totalBytes: number) {
    this.target = target;
    this.#options = options;
    this.#totalBytes = totalBytes;
  }

  /** Brings `bytes` bytes of the tensor from `at` on into the window. */
  async fill(tensor: StoredTensor, at: number, bytes: number): Promise<void> {
    const { signal, onProgress } = this.#options;
    throwIfAborted(signal);
    const { source } = tensor;
    const offset = tensor.offsetBytes + at;
    if (source.readInto) {
      await source.readInto(offset, new Uint8Array(this.target.memory.buffer, this.target.windowAddress, bytes), signal);
    } else {
      const got = await readExactly(source, offset, bytes, signal);
      new Uint8Array(this.target.memory.buffer, this.target.windowAddress, bytes).set(got);
    }
    await nextMacrotask();
    throwIfAborted(signal);
    this.#loadedBytes += bytes;
    onProgress?.({ loadedBytes: this.#loadedBytes, totalBytes: this.#totalBytes, file: source.name });
  }
}

async function packSegment(tensor: StoredTensor, segment: Segment, columns: number, loader: Loader): Promise<void> {
  const { kernels, windowAddress, window } = loader.target;
  const type = STORED_TYPES[tensor.type].code;
  const perRow = rowBytes(tensor, columns);
  const step = Math.max(GROUP_ROWS, Math.floor(window.bytes / perRow / GROUP_ROWS) * GROUP_ROWS);
  for (let row = 0; row < segment.rows; row += step) {
    const rows = Math.min(step, segment.rows - row);
    await loader.fill(tensor, row * perRow, rows * perRow);
    const allFinite = kernels.pack_rows(
      segment.address,
      DTYPE_CODE[segment.dtype],
      row,
      windowAddress,
      type,
      rows,
      columns,
      windowAddress + window.bytes,
    );
    if (allFinite === 0) throw notFinite(tensor, segment.dtype);
  }
}

/** A value that is finite in its file may still be too large for f16, or for an f16 scale. */
export function notFinite({ name, source, type }: StoredTensor, dtype: WeightDType): FormatError {
  if (STORED_TYPES[type].dtype !== dtype && dtype !== "f32" && dtype !== "bf16") {
    return new FormatError(
      `${source.name}: tensor "${name}": expected values that ${dtype} can hold, got larger ones, or NaN. Load it as bf16 or f32.`,
      {
        code: "not-finite",
      },
    );
  }
  return new FormatError(
    `${source.name}: tensor "${name}": expected finite numbers, got NaN or Infinity. The file is damaged: fetch it again.`,
    { code: "not-finite" },
  );
}

async function widenVector(tensor: StoredTensor, vector: Vector, loader: Loader): Promise<void> {
  const { kernels, memory, windowAddress, window } = loader.target;
  const { length, taps, address } = vector;
  const stride = roundUp(length, BLOCK);
  await loader.fill(tensor, 0, tensor.bytes);
  const wide = windowAddress + window.bytes;
  kernels.decode_rows(wide, length * taps, windowAddress, STORED_TYPES[tensor.type].code, 1, length * taps);
  const from = new Float32Array(memory.buffer, wide, length * taps);
  if (!from.every(Number.isFinite)) throw notFinite(tensor, "f32");
  const to = new Float32Array(memory.buffer, address, taps * stride).fill(0);
  // (length, taps) in the file, tap by tap in memory; the kernel takes rows of `length` floats
  for (let tap = 0; tap < taps; tap++) for (let i = 0; i < length; i++) to[tap * length + i] = from[i * taps + tap] ?? 0;
}

function jobs(list: WeightList, tensors: ReadonlyMap<string, StoredTensor>): Job[] {
  const out: Job[] = [];
  const add = (name: string, run: Job["run"]): void => {
    const tensor = tensors.get(name);
    if (tensor) out.push({ tensor, run });
  };
  for (const m of list.matrices) for (const s of m.segments) add(s.name, (job, loader) => packSegment(job.tensor, s, m.columns, loader));
  for (const v of list.vectors) add(v.name, (job, loader) => widenVector(job.tensor, v, loader));
  // file after file, and in the order in which they lie in it: one pass from front to back
  const order = new Map<ByteSource, number>();
  for (const { source } of tensors.values()) if (!order.has(source)) order.set(source, order.size);
  const file = ({ tensor }: Job): number => order.get(tensor.source) ?? 0;
  return out.sort((a, b) => file(a) - file(b) || a.tensor.offsetBytes - b.tensor.offsetBytes);
}

/**
 * Reads every tensor of a list that `resolveWeights` has checked and `placeWeights` has placed.
 * @throws FormatError when a source is shorter than its header says; AbortError within one window of the signal
 */
export async function loadWeights(
  list: WeightList,
  tensors: ReadonlyMap<string, StoredTensor>,
  target: LoadTarget,
  options: LoadWeightsOptions = {},
): Promise<void> {
  const ordered = jobs(list, tensors);
  const loader = new Loader(
    target,
    options,
    ordered.reduce((sum, job) => sum + job.tensor.bytes, 0),
  );
  for (const job of ordered) await job.run(job, loader);
  writeDescriptors(list, target.memory);
}

/** Writes what the kernels read of each matrix. */
export function writeDescriptors(list: WeightList, memory: WasmMemory): void {
  for (const matrix of list.matrices) writeDescriptor(memory, matrix);
}
