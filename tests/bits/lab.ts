// One build of the kernels on a memory of its own, driven through the ABI alone (assembly/README.md), in any engine: no import of a runtime's. Thread shares run one after the other.
import type { Bits, Ledger } from "./ledger.ts";

/** The module's functions that the cases call by name. */
export interface Kernels {
  run(commands: number, count: number, ith: number, nth: number): void;
  dot_operand_kind(): number;
  qd8_row_bytes(K: number): number;
  attention_scratch_bytes(H: number, G: number, hd: number): number;
  attention_slot_bytes(hd: number): number;
  packed_block_bytes(dtype: number): number;
  stored_row_bytes(dtype: number, K: number): number;
  decode_rows(out: number, outStride: number, src: number, srcType: number, rows: number, K: number): void;
  pack_rows(dst: number, dstType: number, row0: number, src: number, srcType: number, rows: number, K: number, scratch: number): number;
  rope_frequencies(out: number, theta: number, hd: number): void;
  penalize_f32(x: number, ids: number, n: number, penalty: number): void;
  divide_f32(x: number, n: number, t: number): void;
  softmax_f32(p: number, x: number, n: number): number;
  all_finite_f32(x: number, n: number): number;
  argmax_f32(x: number, n: number): number;
  topk_f32(values: number, indices: number, x: number, n: number, k: number): void;
}

/** A command's argument: an integer, or an f32. */
export type Argument = number | { readonly f: number };

/** Dtypes by code, and those that are packed from stored blocks of 256 only. */
export const DTYPES = ["f32", "f16", "bf16", "q8", "q4"] as const;
export const K_DTYPES = ["q4k", "q6k"] as const;
export type DType = (typeof DTYPES)[number] | (typeof K_DTYPES)[number];
export const codeOf = (dtype: DType): number => (dtype === "q4k" ? 21 : dtype === "q6k" ? 23 : DTYPES.indexOf(dtype));
export const isQuantized = (dtype: DType): boolean => dtype.startsWith("q");
export const isKDType = (dtype: DType): boolean => dtype === "q4k" || dtype === "q6k";

/** `n` rounded up to a multiple of `to`. */
export const up = (n: number, to: number): number => Math.ceil(n / to) * to;

const INITIAL_PAGES = 1024;
const START = 1 << 16;
/** Beyond every buffer: kernels whose scratch a case cannot know find room here. */
const SLACK = 1 << 16;

/** A compiled build with its name. */
export interface Build {
  readonly name: string;
  readonly module: WebAssembly.Module;
}

interface Numbers {
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Buffers, commands and results of one build. */
export class Lab {
  readonly build: string;
  readonly kernels: Kernels;
  readonly ops: ReadonlyMap<string, number>;
  /** Positions that attention sums up on their own. */
  readonly segment: number;
  readonly ledger: Ledger;
  /** Ops that were run by name. */
  readonly used: Set<string> = new Set();
  readonly #memory: WebAssembly.Memory;
  readonly #isShared: boolean;
  readonly #full: boolean;
  #next = START;

  constructor({ name, module }: Build, ledger: Ledger, full: boolean) {
    const { instance, memory, isShared } = instantiate(module);
    this.build = name;
    this.ledger = ledger;
    this.kernels = instance.exports as unknown as Kernels;
    this.#memory = memory;
    this.#isShared = isShared;
    this.#full = full;
    const value = (name: string): number => (instance.exports[name] as { value: number }).value;
    this.segment = value("SEGMENT");
    const names = Object.keys(instance.exports).filter((key) => key.startsWith("Op."));
    this.ops = new Map(names.map((key) => [key.slice(3), value(key)]));
  }

  /** The count for the run that was asked for. */
  pick<T>(counts: { readonly gate: T; readonly full: T }): T {
    return this.#full ? counts.full : counts.gate;
  }

  /** Fewer ways are enough: a build with threads is made of the same code as the one without, and here it runs on one. */
  get isLight(): boolean {
    return this.#isShared;
  }

  /** Numbers of threads to share work among. In a build with threads a command ends at a barrier, which waits for all of them: there it is one. */
  threads(list: readonly number[]): readonly number[] {
    return this.#isShared ? [1] : list;
  }

  /** Element types of the cache that the module has. */
  get caches(): readonly string[] {
    return ["f32", "f16", "q8"].filter((kv) => this.ops.has(`attention_${kv}`));
  }

  /** Forgets all buffers. */
  reset(): void {
    this.#next = START;
  }

  /** A buffer of `bytes`, filled with `fill`. */
  room(bytes: number, fill = 0xff): number {
    const at = up(this.#next, 64) + 16; // 16-byte aligned and no better
    this.#next = at + bytes;
    const missing = Math.ceil((this.#next + SLACK - this.#memory.buffer.byteLength) / 65536);
    if (missing > 0) this.#memory.grow(missing);
    new Uint8Array(this.#memory.buffer, at, bytes).fill(fill);
    return at;
  }

  /** A buffer of n floats, all NaN. */
  floats(n: number): number {
    return this.room(4 * n);
  }

  /** A buffer that holds a copy of `data`. */
  put(data: Numbers): number {
    const at = this.room(data.byteLength);
    this.write(at, data);
    return at;
  }

  write(at: number, data: Numbers): void {
    new Uint8Array(this.#memory.buffer, at, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }

  /** A view of n floats, until the next buffer is made. */
  read(at: number, n: number): Float32Array {
    return new Float32Array(this.#memory.buffer, at, n);
  }

  readInts(at: number, n: number): Int32Array {
    return new Int32Array(this.#memory.buffer, at, n);
  }

  readBytes(at: number, n: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, at, n);
  }

  /** Runs one command as nth threads would, their shares one after the other. */
  run(op: string, args: readonly Argument[], nth = 1): void {
    const code = this.ops.get(op);
    if (code === undefined) throw new Error(`no op ${op}`);
    this.used.add(op);
    const words = new Int32Array(16);
    const float = new Float32Array(words.buffer);
    words[0] = code;
    for (const [i, a] of args.entries()) {
      if (typeof a === "number") words[i + 1] = a;
      else float[i + 1] = a.f;
    }
    const before = this.#next;
    const at = this.put(words);
    this.#next = before; // a command is read before anything is written behind it
    for (let ith = 0; ith < nth; ith++) this.kernels.run(at, 1, ith, nth);
  }

  /** See `Ledger.agree`; `how` is told with the build's name. */
  agree(group: string, part: string | number, how: string, data: Bits): void {
    this.ledger.agree(group, part, `${this.build}, ${how}`, data);
  }
}

function instantiate(module: WebAssembly.Module): { instance: WebAssembly.Instance; memory: WebAssembly.Memory; isShared: boolean } {
  const link = (memory: WebAssembly.Memory): WebAssembly.Instance =>
    new WebAssembly.Instance(module, {
      env: {
        memory,
        abort: () => {
          throw new Error("the module aborted");
        },
      },
    });
  const limits = { initial: INITIAL_PAGES, maximum: 65536 };
  const memory = new WebAssembly.Memory(limits);
  try {
    return { instance: link(memory), memory, isShared: false };
  } catch (error) {
    if (!/shared/i.test(String(error))) throw error;
    const shared = new WebAssembly.Memory({ ...limits, shared: true });
    return { instance: link(shared), memory: shared, isShared: true };
  }
}
