// Streams tensors from their source into linear memory, packed on the way: beside the final bytes there is one window, no second copy. Knows no architecture.
import { FormatError, throwIfAborted } from "../errors.ts";
import { writeDescriptor } from "../kernels/commands.ts";
import type { Kernels } from "../kernels/variants.ts";
import { nextMacrotask } from "../macrotask.ts";
import { BLOCK, DTYPE_CODE, GROUP_ROWS, roundUp, type WeightDType } from "../memory/dtype.ts";
import type { Segment, Vector } from "../memory/tensor.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import type { WeightList } from "./plan.ts";
import { type ByteSource, fill } from "./source.ts";
import { STORED_TYPES, type StoredTensor, storedBytes } from "./tensor.ts";

/** Bytes of a file in memory at a time, or twice 8 rows of the widest matrix where that is more: large enough that a read's own cost does not show. */
const WINDOW_BYTES = 1 << 20;

/** What `loadWeights` reports. */
export interface WeightProgress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
  readonly file: string;
}

/** The window through which a checkpoint streams: file bytes in two halves, then one group of rows as f32. */
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
  return { bytes: roundUp(Math.max(WINDOW_BYTES, 2 * row * GROUP_ROWS), 128), groupBytes: GROUP_ROWS * roundUp(columns, BLOCK) * 4 };
}

const halfOf = ({ bytes }: Window): number => bytes / 2;

function rowBytes(tensor: StoredTensor | undefined, columns: number): number {
  return tensor ? storedBytes(tensor.type, columns) : 0;
}

/** Bytes of a tensor, and what becomes of them once they lie somewhere in linear memory. */
interface Step {
  readonly tensor: StoredTensor;
  /** Of the tensor's bytes, the first. */
  readonly from: number;
  readonly bytes: number;
  take(address: number): void;
}

/** One tensor's way into memory: its steps, from front to back. */
interface Job {
  readonly tensor: StoredTensor;
  readonly steps: (tensor: StoredTensor, target: LoadTarget) => Iterable<Step>;
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

/** Takes step after step through the window: while one half of it is packed, the other is read into. */
async function stream(
  steps: Iterable<Step>,
  totalBytes: number,
  { memory, windowAddress, window }: LoadTarget,
  { signal, onProgress }: LoadWeightsOptions,
): Promise<void> {
  const iterator = steps[Symbol.iterator]();
  let count = 0;
  const next = (): { step: Step; address: number; came: Promise<void> } | undefined => {
    const { done, value: step } = iterator.next();
    if (done) return undefined;
    throwIfAborted(signal);
    const address = windowAddress + (count++ % 2) * halfOf(window);
    const { tensor, from, bytes } = step;
    const came = fill(tensor.source, tensor.offsetBytes + from, new Uint8Array(memory.buffer, address, bytes), signal);
    came.catch(() => {}); // heard of when its turn comes
    return { step, address, came };
  };
  let loadedBytes = 0;
  for (let current = next(); current; ) {
    await current.came;
    const ahead = next();
    await nextMacrotask();
    throwIfAborted(signal);
    const { step, address } = current;
    loadedBytes += step.bytes;
    onProgress?.({ loadedBytes, totalBytes, file: step.tensor.source.name });
    step.take(address);
    current = ahead;
  }
}

function* packSegment(
  tensor: StoredTensor,
  segment: Segment,
  columns: number,
  { kernels, windowAddress, window }: LoadTarget,
): Iterable<Step> {
  const type = STORED_TYPES[tensor.type].code;
  const perRow = rowBytes(tensor, columns);
  const most = Math.max(GROUP_ROWS, Math.floor(halfOf(window) / perRow / GROUP_ROWS) * GROUP_ROWS);
  for (let row = 0; row < segment.rows; row += most) {
    const rows = Math.min(most, segment.rows - row);
    const take = (address: number): void => {
      const [to, scratch] = [DTYPE_CODE[segment.dtype], windowAddress + window.bytes];
      const allFinite = kernels.pack_rows(segment.address, to, row, address, type, rows, columns, scratch);
      if (allFinite === 0) throw notFinite(tensor, segment.dtype);
    };
    yield { tensor, from: row * perRow, bytes: rows * perRow, take };
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

function* widenVector(tensor: StoredTensor, vector: Vector, { kernels, memory, windowAddress, window }: LoadTarget): Iterable<Step> {
  const { length, taps, address: place } = vector;
  const stride = roundUp(length, BLOCK);
  const take = (address: number): void => {
    const wide = windowAddress + window.bytes;
    kernels.decode_rows(wide, length * taps, address, STORED_TYPES[tensor.type].code, 1, length * taps);
    const from = new Float32Array(memory.buffer, wide, length * taps);
    if (!from.every(Number.isFinite)) throw notFinite(tensor, "f32");
    const to = new Float32Array(memory.buffer, place, taps * stride).fill(0);
    // (length, taps) in the file, tap by tap in memory; the kernel takes rows of `length` floats
    for (let tap = 0; tap < taps; tap++) for (let i = 0; i < length; i++) to[tap * length + i] = from[i * taps + tap] ?? 0;
  };
  yield { tensor, from: 0, bytes: tensor.bytes, take };
}

function jobs(list: WeightList, tensors: ReadonlyMap<string, StoredTensor>): Job[] {
  const out: Job[] = [];
  const add = (name: string, steps: Job["steps"]): void => {
    const tensor = tensors.get(name);
    if (tensor) out.push({ tensor, steps });
  };
  for (const m of list.matrices) for (const s of m.segments) add(s.name, (tensor, target) => packSegment(tensor, s, m.columns, target));
  for (const v of list.vectors) add(v.name, (tensor, target) => widenVector(tensor, v, target));
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
  const totalBytes = ordered.reduce((sum, job) => sum + job.tensor.bytes, 0);
  const steps = function* (): Iterable<Step> {
    for (const job of ordered) yield* job.steps(job.tensor, target);
  };
  await stream(steps(), totalBytes, target, options);
  writeDescriptors(list, target.memory);
}

/** Writes what the kernels read of each matrix. */
export function writeDescriptors(list: WeightList, memory: WasmMemory): void {
  for (const matrix of list.matrices) writeDescriptor(memory, matrix);
}
