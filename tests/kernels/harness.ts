// Runs kernels on buffers between canaries, in every build that this engine validates and in three places of the address space; the builds for threads with real ones.
// It knows commands and layouts, no kernel.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { instantiateSync } from "@assemblyscript/loader";
import { isAgain, pick } from "../scale.ts";
import { debugBuild } from "../tools/debug-build.ts";
import { type DotKind, emulated } from "./dot-kinds.ts";

/** The module's exports. */
export interface Kernels {
  run(commands: number, count: number, ith: number, nth: number): number;
  run_all(commands: number, count: number, nth: number): number;
  ready(): number;
  fail(): void;
  recover(count: number): number;
  dot_operand_kind(): number;
  qd8_row_bytes(K: number): number;
  attention_scratch_bytes(H: number, G: number, hd: number): number;
  attention_slot_bytes(hd: number): number;
  packed_block_bytes(dtype: number): number;
  stored_row_bytes(dtype: number, K: number): number;
  decode_rows(out: number, outStride: number, src: number, srcType: number, rows: number, K: number): void;
  pack_rows(dst: number, dstType: number, row0: number, src: number, srcType: number, rows: number, K: number, scratch: number): number;
  checksum(state: number, p: number, bytes: number): void;
  q8_flip(): number;
  rope_frequencies(out: number, theta: number, hd: number): void;
  penalize_f32(x: number, ids: number, n: number, penalty: number): void;
  divide_f32(x: number, n: number, t: number): void;
  softmax_f32(p: number, x: number, n: number): number;
  all_finite_f32(x: number, n: number): number;
  argmax_f32(x: number, n: number): number;
  topk_f32(values: number, indices: number, x: number, n: number, k: number): void;
  readonly Op: Readonly<Record<string, { valueOf(): number }>>;
  readonly [constant: string]: unknown;
}

/** A build of the module. */
export interface Variant {
  readonly name: "plain" | "relaxed" | "debug";
  readonly module: WebAssembly.Module;
  /** Real threads on a shared memory; 1 for the builds without, which do the shares of several one after the other. */
  readonly threads: number;
}

/** Builds that validate here; in the full run also the one that checks preconditions. */
export const variants: readonly Variant[] = pick<Variant["name"][]>({
  gate: ["plain", "relaxed"],
  full: ["plain", "relaxed", "debug"],
}).flatMap((name) => {
  const bytes = name === "debug" ? debugBuild() : readFileSync(`dist/kernels.${name}.wasm`);
  return WebAssembly.validate(bytes) ? [{ name, module: new WebAssembly.Module(bytes), threads: 1 }] : [];
});

/** The builds for threads, with two and with three. */
export const threaded: readonly Variant[] = (["plain", "relaxed"] as const).flatMap((name) => {
  const bytes = readFileSync(`dist/kernels.${name}-threads.wasm`);
  if (!WebAssembly.validate(bytes)) return [];
  const module = new WebAssembly.Module(bytes);
  return [2, 3].map((threads) => ({ name, module, threads }));
});

/** The relaxed build as on each kind of processor, whichever this one is. */
export const dotKinds: readonly { readonly kind: DotKind; readonly variant: Variant }[] = ([-1, 0, 1] as const).flatMap((kind) => {
  const bytes = emulated(kind);
  if (!variants.some(({ name }) => name === "relaxed")) return []; // the build has other relaxed instructions
  return [{ kind, variant: { name: "relaxed", module: new WebAssembly.Module(bytes), threads: 1 } }];
});

/** Starts the helpers of a variant on its memory, and waits for them as after a step that failed. */
export function startHelpers({ module, threads: nth }: Variant, memory: WebAssembly.Memory, kernels: Kernels): Worker[] {
  const file = pathToFileURL(join("dist", "thread.js"));
  const workers = Array.from({ length: nth - 1 }, (_, i) => {
    const worker = new Worker(file, { workerData: { module, memory, ith: i + 1, nth } });
    worker.unref();
    return worker;
  });
  assert.equal(kernels.recover(nth - 1), 1, "no helpers");
  return workers;
}

/** An instance on a memory, through AssemblyScript's own loader. */
export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  return instantiateSync<Record<string, unknown>>(module, { env: { memory } }).exports as unknown as Kernels;
}

/** Where buffers lie: below 2 GiB; all beyond it; beyond it and each in turn across the 2 GiB line, or ending 64 bytes below 4 GiB. */
export type Place = "low" | "high" | "cross" | "top";

const PAGE_BYTES = 65536;
const CANARY_BYTES = 64;
const CANARY = Uint8Array.from({ length: CANARY_BYTES }, (_, i) => (i * 37 + 11) & 255);
const MIDDLE = 2 ** 31;
const END = 2 ** 32;
const memories = new Map<string, WebAssembly.Memory>();
const served = new Set<WebAssembly.Memory>();

/** A memory with few pages, or with all of them (hardly any of which is ever touched), shared by all tests of a build. */
function memoryFor(variant: Variant, place: Place): WebAssembly.Memory {
  const pages = place === "low" ? 1024 : 65536;
  const key = `${variant.name} ${variant.threads} ${pages}`;
  const memory = memories.get(key) ?? new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: variant.threads > 1 });
  memories.set(key, memory);
  return memory;
}

type Numbers = Float32Array | Float64Array | Int32Array | Uint32Array | Uint16Array | Uint8Array | Int8Array;
/** A command's argument: an integer, or an f32. */
export type Argument = number | { readonly f: number };

/** Buffers, commands and results of one build in one place. */
export class Sandbox {
  readonly variant: Variant;
  readonly place: Place;
  readonly kernels: Kernels;
  readonly memory: WebAssembly.Memory;
  readonly #title: string;
  #buffers: { at: number; bytes: number }[] = [];
  #next = 0;
  /** Which buffer since the last reset goes to the special place ("cross" and "top" only). */
  #special = -1;
  #most = 0;
  #name = "";

  constructor(title: string, variant: Variant, place: Place) {
    this.#title = title;
    this.variant = variant;
    this.place = place;
    this.memory = memoryFor(variant, place);
    this.kernels = instantiate(variant.module, this.memory);
    this.reset();
  }

  /** Registers a test; in "cross" and "top" its body runs once for each buffer that it makes, with that one in the special place. */
  it(name: string, body: () => void): void {
    it(name, () => {
      this.#name = name;
      this.#most = 0;
      this.#special = 0;
      do {
        this.reset();
        body();
        this.check();
      } while (this.#hasSpecial && ++this.#special < this.#most);
    });
  }

  get #hasSpecial(): boolean {
    return this.place === "cross" || this.place === "top";
  }

  /** All of `list`; where bodies run once a buffer, only its first `few`. */
  some<T>(list: readonly T[], few = 3): readonly T[] {
    return this.#hasSpecial ? list.slice(0, few) : list;
  }

  /** Forgets all buffers. */
  reset(): void {
    this.#buffers = [];
    this.#next = this.place === "low" ? PAGE_BYTES : MIDDLE + 256 * PAGE_BYTES;
  }

  /** Fails if a byte around any buffer has changed. */
  check(): void {
    for (const { at, bytes } of this.#buffers) {
      const around = [this.bytes(at - CANARY_BYTES, CANARY_BYTES), this.bytes(at + bytes, CANARY_BYTES)];
      for (const canary of around)
        assert.ok(
          canary.every((v, i) => v === ((i * 37 + 11) & 255)),
          "a byte outside a buffer was written",
        );
    }
  }

  /** A buffer of `bytes` filled with `fill`; 16-byte aligned and no better. */
  room(bytes: number, fill = 0xff): number {
    const special = this.#hasSpecial && this.#buffers.length === this.#special;
    const at = special ? this.#specialPlace(bytes) : Math.ceil((this.#next + CANARY_BYTES) / 32) * 32 + 16;
    if (!special) this.#next = at + bytes + CANARY_BYTES;
    this.bytes(at, bytes).fill(fill);
    for (const side of [at - CANARY_BYTES, at + bytes]) this.bytes(side, CANARY_BYTES).set(CANARY);
    this.#buffers.push({ at, bytes });
    this.#most = Math.max(this.#most, this.#buffers.length);
    return at;
  }

  #specialPlace(bytes: number): number {
    return Math.floor((this.place === "top" ? END - CANARY_BYTES - bytes : MIDDLE - bytes / 2) / 16) * 16;
  }

  /** Room for n floats, all NaN. */
  floats(n: number): number {
    return this.room(4 * n, 0xff);
  }

  /** A buffer that holds a copy of `data`. */
  put(data: Numbers): number {
    const at = this.room(data.byteLength);
    this.bytes(at, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return at;
  }

  bytes(at: number, n: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, n);
  }

  /** A copy of n floats. */
  read(at: number, n: number): Float32Array {
    return new Float32Array(this.memory.buffer, at, n).slice();
  }

  readInts(at: number, n: number): Int32Array {
    return new Int32Array(this.memory.buffer, at, n).slice();
  }

  /** Runs one command as nth threads would: their shares one after the other, or in the variant's threads where there are no more than nth. */
  run(op: string, args: readonly Argument[], nth = 1): void {
    const words = new Int32Array(16);
    const code = this.kernels.Op[op];
    if (code === undefined) throw new Error(`no op ${op}`);
    words[0] = code.valueOf();
    for (const [i, a] of args.entries()) words[i + 1] = typeof a === "number" ? a : new Int32Array(Float32Array.of(a.f).buffer)[0]!;
    const at = this.put(words);
    const { threads } = this.variant;
    if (threads === 1) for (let ith = 0; ith < nth; ith++) this.kernels.run(at, 1, ith, nth);
    else if (nth < threads) this.kernels.run(at, 1, 0, 1);
    else this.#runThreads(at);
  }

  #runThreads(command: number): void {
    if (!served.has(this.memory)) startHelpers(this.variant, this.memory, this.kernels);
    served.add(this.memory);
    assert.equal(this.kernels.run_all(command, 1, this.variant.threads), 0, "a thread failed");
  }

  /** Fails unless `data` has the bits that this test's `key` had before: in another build, place, split or number of threads. */
  agree(key: string, data: Float32Array | Int32Array): void {
    const id = `${this.#title} | ${this.#name} | ${key}`;
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    const before = agreed.get(id);
    if (before === undefined) agreed.set(id, Buffer.from(bytes));
    else assert.ok(before.equals(bytes), `${key}: other bits than before`);
  }
}

const agreed = new Map<string, Buffer>();

/** In the gate's second Node the plain build only gives what the relaxed one is compared with. */
const isTried = (name: Variant["name"]): boolean => !isAgain || name !== "plain";

/** Registers `cases` for every build and place; with `readsInt8`, what depends on how a processor's dots read int8 weights, for every kind of processor too. */
export function suite(title: string, cases: (lab: Sandbox) => void, readsInt8 = false): void {
  for (const place of ["low", "high", "cross", "top"] as const)
    for (const variant of variants.filter(({ name }) => place === "low" || isTried(name)))
      describe(`${title} (${variant.name}, ${place})`, () => cases(new Sandbox(title, variant, place)));
  for (const variant of threaded.filter(({ name }) => isTried(name))) {
    const { name, threads } = variant;
    describe(`${title} (${name}, ${threads} threads)`, () => cases(new Sandbox(title, variant, "low")));
  }
  const kinds = pick<readonly DotKind[]>({ gate: [-1], full: [-1, 0, 1] });
  for (const { kind, variant } of readsInt8 ? dotKinds.filter(({ kind }) => kinds.includes(kind)) : [])
    describe(`${title} (${variant.name}, dot kind ${kind})`, () => cases(new Sandbox(title, variant, "low")));
}

/** Fails where |actual - expected| exceeds the bound, or is NaN. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number | ((i: number) => number), what = ""): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const limit = typeof bound === "number" ? bound : bound(i);
    const error = Math.abs(actual[i]! - expected[i]!);
    if (!(error <= limit)) assert.fail(`${what} [${i}]: ${actual[i]}, expected ${expected[i]} ± ${limit}`); // a text for each value would take longest
  }
}

/** A small generator of reproducible test data. */
export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return s / 2 ** 32;
  };
}

const deviates = new Map<string, Float32Array>();

/** n normal deviates times `scale`, as f32: a copy, for every build and place asks for the same. */
export function normal(n: number, seed: number, scale = 1): Float32Array {
  const key = `${n} ${seed} ${scale}`;
  let made = deviates.get(key);
  if (!made) {
    const r = random(seed);
    for (let i = 0; i < 8; i++) r();
    made = new Float32Array(n);
    for (let i = 0; i < n; i++) made[i] = scale * Math.sqrt(-2 * Math.log(1 - r())) * Math.cos(2 * Math.PI * r());
    deviates.set(key, made);
  }
  return made.slice();
}

/** Rows of `columns` values laid out `stride` apart, the gaps filled. */
export function spread(data: ArrayLike<number>, columns: number, stride: number, fill: number = Number.NaN): Float32Array {
  const rows = data.length / columns;
  const out = new Float32Array(rows * stride).fill(fill);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[r * stride + c] = data[r * columns + c]!;
  return out;
}

/** The inverse of `spread`: `columns` values of each row from column `from` on. */
export function columnsOf(data: Float32Array, stride: number, columns: number, from = 0): Float32Array {
  const rows = data.length / stride;
  const out = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) out.set(data.subarray(r * stride + from, r * stride + from + columns), r * columns);
  return out;
}

/** `n` rounded up to a multiple of `to`. */
export const up = (n: number, to: number): number => Math.ceil(n / to) * to;
