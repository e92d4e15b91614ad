// Where a step's time goes: its commands run one at a time with a clock around each, and what they touch follows from their arguments. Knows no layer.
import { DTYPE_CODE, isQuantized, KV_DTYPES, packedBytes, type WeightDType } from "../memory/dtype.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import { COMMAND_BYTES, OP, ROW_TABLE_ENTRY_BYTES } from "./commands.ts";

/** What the calls of one kernel for one purpose took together. Plain data. */
export interface KernelTime {
  /** Name of the op, a matmul's with the dtype of its weights: "matmul q4". */
  readonly kernel: string;
  /** What the model uses it for, "ffn down (1024, 4608)"; empty where the kernel says it all. */
  readonly part: string;
  readonly calls: number;
  readonly ms: number;
  /** Bytes that have to be read or written once at least: weights, cache, inputs and outputs. */
  readonly bytes: number;
  /** Multiply-adds of products and of attention; 0 for the others. */
  readonly macs: number;
}

const eachCache = (op: string, args: string): Record<string, string> => Object.fromEntries(KV_DTYPES.map((kv) => [`${op}_${kv}`, args]));

/** The arguments of each op from its first word on, in the order of assembly/README.md, which a test compares. What is missing here costs nothing but time. */
export const ARGUMENTS: Readonly<Record<string, string>> = {
  gather: "out, ids, matrix, T, outStride",
  rmsnorm: "y, yq, x, r, g, rows, M, D, stride, eps",
  quantize: "out, x, M, Kp, xStride",
  matmul: "y, x, xq, matrix, M, yStride, xStride, bias",
  ...eachCache("norm_rope_append", "qkv, stride, gq, gk, table, rowTable, nseq, layerOffset, H, G, hd, eps"),
  ...eachCache("attention", "out, outStride, q, qStride, rowTable, nseq, layerOffset, slots, slotCount, scratch, H, G, hd, scale"),
  shortconv: "y, yStride, yq, bcu, bcuStride, rowTable, nseq, layerOffset, taps, bias, D, Kc",
  silu_mul: "y, yStride, yq, ab, abStride, T, F8",
  add: "y, x, n",
  copy: "dst, src, bytes",
  largest: "lists, room, columns, x, xq, matrix, M, xStride, N, k",
  merge_largest: "lists, M, k",
};

const opNames = new Map(Object.entries(OP).map(([name, op]) => [op as number, name]));
const dtypeNames = new Map(Object.entries(DTYPE_CODE).map(([name, code]) => [code, name as WeightDType]));

/** A command's arguments by name, and the memory that they point into. */
class Arguments {
  readonly #memory: WasmMemory;
  readonly #words: Uint32Array;
  readonly #names: readonly string[];

  constructor(memory: WasmMemory, address: number, names: readonly string[]) {
    this.#memory = memory;
    this.#words = new Uint32Array(memory.buffer, address, COMMAND_BYTES / 4);
    this.#names = names;
  }

  /** @returns 0 for an argument that the op has not */
  of(name: string): number {
    return this.#words[this.#names.indexOf(name) + 1] ?? 0;
  }

  /** The matrix's true size, its bytes and the dtype of most of its rows. */
  matrix(): { columns: number; rows: number; bytes: number; dtype: WeightDType } {
    const address = this.of("matrix");
    const [segments = 0, columns = 0] = new Uint32Array(this.#memory.buffer, address, 2);
    const words = new Uint32Array(this.#memory.buffer, address + 16, 4 * segments);
    const sum = { columns, rows: 0, bytes: 0, dtype: "f32" as WeightDType };
    let most = 0;
    for (let i = 0; i < words.length; i += 4) {
      const dtype = dtypeNames.get(words[i] ?? 0) ?? "f32";
      const rows = words[i + 1] ?? 0;
      sum.rows += rows;
      sum.bytes += packedBytes(dtype, rows, columns);
      if (rows > most) sum.dtype = dtype;
      most = Math.max(most, rows);
    }
    return sum;
  }

  /** Rows of each sequence, with the position of the first. */
  sequences(): { rows: number; position: number }[] {
    const count = this.of("nseq");
    const words = new Uint32Array(this.#memory.buffer, this.of("rowTable"), (count * ROW_TABLE_ENTRY_BYTES) / 4);
    return Array.from({ length: count }, (_, i) => ({ rows: words[8 * i + 1] ?? 0, position: words[8 * i + 2] ?? 0 }));
  }
}

interface Cost {
  readonly kernel: string;
  readonly bytes: number;
  readonly macs: number;
}

/** Bytes that a head's key or value takes in the cache, by the end of the op's name; int8 ones have a scale. */
function headBytes(kernel: string, hd: number): number {
  return kernel.endsWith("_f32") ? 4 * hd : kernel.endsWith("_f16") ? 2 * hd : hd + 4;
}

function costOf(kernel: string, a: Arguments): Cost {
  const n = (name: string): number => a.of(name);
  const moves = (bytes: number): Cost => ({ kernel, bytes, macs: 0 });
  const rows = (): number => a.sequences().reduce((sum, s) => sum + s.rows, 0);
  if (kernel === "matmul" || kernel === "largest") {
    const { columns: K, rows: N, bytes, dtype } = a.matrix();
    const input = isQuantized(dtype) ? 1.5 : 4;
    return {
      kernel: `matmul ${dtype}`,
      bytes: bytes + n("M") * (K * input + (kernel === "matmul" ? 4 * N : 8 * n("k"))),
      macs: n("M") * N * K,
    };
  }
  const [H, G, hd] = [n("H"), n("G"), n("hd")];
  const yq = n("yq") ? 1.5 : 0; // what is also written quantized
  if (kernel in ARGUMENTS && kernel.startsWith("attention_")) {
    const keys = a.sequences().reduce((sum, s) => sum + s.position + s.rows, 0);
    const pairs = a.sequences().reduce((sum, s) => sum + s.rows * s.position + (s.rows * (s.rows + 1)) / 2, 0);
    return { kernel, bytes: 2 * keys * G * headBytes(kernel, hd) + 8 * rows() * H * hd, macs: 2 * pairs * H * hd };
  }
  if (kernel.startsWith("norm_rope_append_")) return moves(rows() * (8 * (H + G) * hd + 4 * G * hd + 2 * G * headBytes(kernel, hd)));
  if (kernel === "gather") {
    const { bytes, rows: V, columns } = a.matrix();
    return moves(n("T") * (bytes / V + 4 * columns));
  }
  if (kernel === "rmsnorm") return moves(((n("r") ? 16 : 8) + yq) * n("M") * n("D"));
  if (kernel === "quantize") return moves(5.5 * n("M") * n("Kp"));
  if (kernel === "shortconv") return moves((16 + yq) * rows() * n("D"));
  if (kernel === "silu_mul") return moves((12 + yq) * n("T") * n("F8"));
  if (kernel === "add") return moves(12 * n("n"));
  if (kernel === "copy") return moves(2 * n("bytes"));
  return moves(0);
}

/** Runs commands one by one and sums up, by kernel and part, what each took. */
export class CommandTimer {
  readonly #memory: WasmMemory;
  readonly #parts: ReadonlyMap<number, string>;
  readonly #times = new Map<string, { -readonly [K in keyof KernelTime]: KernelTime[K] }>();

  /** @param parts what the matrix whose descriptor lies at an address is for */
  constructor(memory: WasmMemory, parts: ReadonlyMap<number, string>) {
    this.#memory = memory;
    this.#parts = parts;
  }

  /** Runs `count` commands from `address` on; `run` runs the one at an address. */
  run(address: number, count: number, run: (command: number) => void): void {
    for (let c = address; c < address + count * COMMAND_BYTES; c += COMMAND_BYTES) {
      const start = performance.now();
      run(c);
      this.#add(c, performance.now() - start);
    }
  }

  /** @returns the sums so far, in the order in which the kernels first ran */
  times(): KernelTime[] {
    return [...this.#times.values()].map((time) => ({ ...time }));
  }

  #add(address: number, ms: number): void {
    const [op = 0] = new Uint32Array(this.#memory.buffer, address, 1);
    const name = opNames.get(op) ?? `op ${op}`;
    const names = ARGUMENTS[name]?.split(", ");
    const a = new Arguments(this.#memory, address, names ?? []);
    const { kernel, bytes, macs } = names ? costOf(name, a) : { kernel: name, bytes: 0, macs: 0 };
    const part = names && (name === "matmul" || name === "largest") ? this.#partOf(a) : "";
    const key = `${kernel}|${part}`;
    const time = this.#times.get(key) ?? { kernel, part, calls: 0, ms: 0, bytes: 0, macs: 0 };
    this.#times.set(key, time);
    time.calls++;
    time.ms += ms;
    time.bytes += bytes;
    time.macs += macs;
  }

  #partOf(a: Arguments): string {
    const { rows, columns } = a.matrix();
    return `${this.#parts.get(a.of("matrix")) ?? "other"} (${rows}, ${columns})`;
  }
}
