// Stands between the host and the kernels: before each call every address range that the call is to read or write must lie in one region that the arena has handed out, every id below
// the rows of its matrix, every position within the capacity, every entry of a page table a page that the sequence holds. It decodes commands by the kernels' own comments, not by the encoder.
import assert from "node:assert/strict";
import { OP } from "../../src/kernels/commands.ts";
import { Arena } from "../../src/memory/arena.ts";
import { BlockPool, PagePool } from "../../src/memory/pages.ts";
import type { WasmMemory } from "../../src/memory/wasm.ts";
import type { Cache } from "../../src/models/cache.ts";
import { LanguageModel } from "../../src/models/language-model.ts";
import type { Kernels } from "../kernels/harness.ts";

interface Region {
  readonly address: number;
  readonly bytes: number;
  readonly what: string;
}

/** What is known of one linear memory. */
class Ledger {
  readonly regions: Region[] = [];
  /** Blocks of the pools that are in use. */
  readonly live: Set<number> = new Set();
  readonly pageAt: Map<number, readonly [pool: PagePool, id: number]> = new Map();
  /** By the address of their page table. */
  readonly caches: Map<number, Cache> = new Map();
  /** Positions that a session may have. */
  capacity = 0;

  find(address: number): Region | undefined {
    let [low, high] = [0, this.regions.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.regions[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    return this.regions[low - 1];
  }
}

interface Matrix {
  readonly K: number;
  readonly Kp: number;
  readonly rows: number;
  readonly paddedRows: number;
}
interface Sequence {
  readonly first: number;
  readonly count: number;
  readonly position: number;
  readonly pages: number;
  readonly state: number;
  readonly written: number;
  readonly kept: number;
  readonly keptRows: number;
}

const PAGE = 32;
const ROW_WORDS = 8;
const COMMAND_WORDS = 16;
const NAMES = new Map(Object.entries(OP).map(([name, code]) => [code as number, name]));
const up = (n: number, to: number): number => Math.ceil(n / to) * to;

/** What went to the kernels of the models that were made meanwhile. */
export class KernelWatch {
  /** Steps and commands that were looked at, by name, and other calls with addresses. */
  steps = 0;
  readonly commands: Map<string, number> = new Map();
  readonly calls: Map<string, number> = new Map();
  /** Called before a step is looked at: a test of this very file changes a word there. */
  onStep: ((words: Uint32Array, commands: number, count: number) => void) | undefined;
  /** Whether steps are looked at. */
  looks = true;
  /** Whether entries behind a session's pages are overwritten before each step: a position beyond them then reads no page. */
  clears = false;
  readonly ledgers: Map<WasmMemory, Ledger> = new Map();

  ledgerOf(memory: WasmMemory): Ledger {
    const known = this.ledgers.get(memory) ?? new Ledger();
    this.ledgers.set(memory, known);
    return known;
  }

  /** Wraps the exports of an instance on `memory`. */
  wrap(exports: Readonly<Record<string, unknown>>, memory: WasmMemory): Record<string, unknown> {
    const kernels = exports as unknown as Kernels;
    const call = new Call(this, kernels, memory);
    const watched: Record<string, unknown> = { ...exports };
    const before = (name: string, check: (...args: number[]) => void): void => {
      const run = exports[name] as (...args: number[]) => unknown;
      watched[name] = (...args: number[]) => {
        this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
        call.where = name;
        check(...args);
        return run(...args);
      };
    };
    before("run", (commands, count) => call.step(commands!, count!));
    before("run_all", (commands, count) => call.step(commands!, count!));
    before("pack_rows", (dst, type, row0, src, from, rows, K, scratch) => {
      const groupBytes = (up(K!, PAGE) / PAGE) * kernels.packed_block_bytes(type!);
      call.within(dst!, Math.ceil((row0! + rows!) / 8) * groupBytes, "the rows", /^tensor/);
      call.within(src!, rows! * kernels.stored_row_bytes(from!, K!), "what is packed", /window/);
      call.within(scratch!, 8 * up(K!, PAGE) * 4, "scratch", /window/);
    });
    before("decode_rows", (out, stride, src, from, rows, K) => {
      call.within(out!, ((rows! - 1) * stride! + K!) * 4, "the rows", /window/);
      call.within(src!, rows! * kernels.stored_row_bytes(from!, K!), "what is decoded", /window/);
    });
    before("rope_frequencies", (out, _theta, hd) => call.within(out!, hd! * 4, "frequencies", /frequencies/));
    before("penalize_f32", (x, ids, n) => {
      call.within(ids!, n! * 4, "ids", /sampling/);
      for (let i = 0; i < n!; i++) call.within(x! + 4 * call.words[ids! / 4 + i]!, 4, `logit ${call.words[ids! / 4 + i]}`, /logits/);
    });
    before("divide_f32", (x, n) => call.within(x!, n! * 4, "logits", /logits/));
    before("argmax_f32", (x, n) => call.within(x!, n! * 4, "logits", /logits/));
    before("all_finite_f32", (x, n) => call.within(x!, n! * 4, "logits", /logits/));
    before("softmax_f32", (p, x, n) => {
      call.within(p!, n! * 4, "probabilities", /sampling/);
      call.within(x!, n! * 4, "logits", /logits|sampling/);
    });
    before("topk_f32", (values, indices, x, n, k) => {
      assert.ok(k! > 0 && k! <= n!, `topk: ${k} of ${n}`);
      for (const [at, count] of [
        [values!, k!],
        [indices!, k!],
      ] as const)
        call.within(at, 4 * count, "the largest", /sampling/);
      call.within(x!, 4 * n!, "logits", /logits/);
    });
    return watched;
  }
}

/** The calls on one memory. */
class Call {
  where = "";
  readonly #watch: KernelWatch;
  readonly #kernels: Kernels;
  readonly #memory: WasmMemory;
  readonly #ledger: Ledger;
  #words = new Uint32Array(0);
  #at = 0;

  constructor(watch: KernelWatch, kernels: Kernels, memory: WasmMemory) {
    this.#watch = watch;
    this.#kernels = kernels;
    this.#memory = memory;
    this.#ledger = watch.ledgerOf(memory);
  }

  get words(): Uint32Array {
    if (this.#words.byteLength !== this.#memory.buffer.byteLength) this.#words = new Uint32Array(this.#memory.buffer);
    return this.#words;
  }

  /** Fails unless all bytes lie in one region, of one of these kinds. @returns it */
  within(address: number, bytes: number, what: string, kind: RegExp): Region {
    const region = this.#ledger.find(address);
    const end = region ? region.address + region.bytes : 0;
    const said = `${this.where}: ${what}: ${bytes} bytes at ${address}, nearest is ${region?.what} of ${region?.bytes} at ${region?.address}`;
    assert.ok(region && bytes >= 0 && address + bytes <= end && end <= this.#memory.buffer.byteLength, said);
    assert.match(region.what, kind, said);
    return region;
  }

  /** A buffer of the model's own. */
  #buffer(address: number, bytes: number, what: string): void {
    this.within(address, bytes, what, /^(scratch|taps)/);
  }

  /** A vector among the weights, from its start. */
  #vector(address: number, floats: number, what: string): void {
    const region = this.within(address, 4 * floats, what, /^tensor/);
    assert.equal(region.address, address, `${this.where}: ${what} begins inside ${region.what}`);
  }

  #matrix(address: number): Matrix {
    const at = address / 4;
    const [segments, K, Kp, paddedRows] = this.words.subarray(at, at + 4) as unknown as [number, number, number, number];
    const own = this.within(address, 16 + 16 * segments, "a descriptor", /^a matrix/);
    assert.equal(own.address, address, `${this.where}: no descriptor begins at ${address}`);
    assert.equal(Kp, up(K, PAGE));
    let [rows, padded] = [0, 0];
    for (let i = 0; i < segments; i++) {
      const [dtype, n, all, w] = this.words.subarray(at + 4 + 4 * i, at + 8 + 4 * i) as unknown as [number, number, number, number];
      assert.equal(all, up(n, 8));
      const bytes = (all / 8) * (Kp / PAGE) * this.#kernels.packed_block_bytes(dtype);
      const region = this.within(w, bytes, `segment ${i}`, /^tensor/);
      assert.equal(region.address, w, `${this.where}: segment ${i} begins inside ${region.what}`);
      rows += n;
      padded += all;
    }
    assert.equal(padded, paddedRows);
    return { K, Kp, rows, paddedRows };
  }

  #sequences(table: number, nseq: number): { readonly all: readonly Sequence[]; readonly rows: number } {
    this.within(table, 4 * ROW_WORDS * nseq, "a row table", /rowTable|rotaryRows/);
    const all: Sequence[] = [];
    let rows = 0;
    for (let s = 0; s < nseq; s++) {
      const [first, count, position, pages, state, written, kept, keptRows] = this.words.subarray(
        table / 4 + ROW_WORDS * s,
        table / 4 + ROW_WORDS * (s + 1),
      ) as unknown as [number, number, number, number, number, number, number, number];
      assert.ok(first === rows && count > 0, `${this.where}: rows of sequence ${s}: ${count} from ${first} on, behind ${rows}`);
      all.push({ first, count, position, pages, state, written, kept, keptRows });
      rows += count;
    }
    return { all, rows };
  }

  /** Every page that a sequence reads or writes is one that it holds; what it writes nobody else holds. */
  #pages(sequences: readonly Sequence[], layerOffset: number, bytes: number): void {
    const writers = new Set<number>();
    for (const { position, count, pages: table, written } of sequences) {
      const end = position + count;
      assert.ok(end <= this.#ledger.capacity, `${this.where}: position ${end - 1} of ${this.#ledger.capacity}`);
      const cache = this.#ledger.caches.get(table);
      assert.ok(cache, `${this.where}: a page table that no session has`);
      const block = this.within(table, 4 * Math.ceil(end / PAGE), "a page table", /^a session/);
      assert.ok(this.#ledger.live.has(block.address), `${this.where}: a page table of a session that is closed`);
      for (let p = 0; p < Math.ceil(end / PAGE); p++) {
        const address = this.words[table / 4 + p]!;
        const region = this.within(address, layerOffset + bytes, `page ${p}`, /^a page of keys/);
        const page = this.#ledger.pageAt.get(address);
        assert.ok(region.address === address && page && this.#ledger.live.has(address), `${this.where}: entry ${p} is no page in use`);
        const [pool, id] = page;
        assert.equal(id, cache.pages[p], `${this.where}: entry ${p} is another's page`);
        const from = Math.max(position, written);
        if (from >= end || (p + 1) * PAGE <= from) continue; // read only
        assert.ok(pool.references(id) === 1 && !writers.has(address), `${this.where}: page ${p} is written, and shared`);
        writers.add(address);
      }
    }
  }

  /** Entries behind a session's pages hold nothing. */
  #clearAll(): void {
    for (const [table, cache] of this.#ledger.caches) {
      const block = this.#ledger.find(cache.convState);
      if (!block || !this.#ledger.live.has(block.address)) continue;
      this.words.fill(0xffffffff, table / 4 + cache.pages.length, (block.address + block.bytes) / 4);
    }
  }

  step(commands: number, count: number): void {
    this.#watch.steps++;
    if (this.#watch.clears) this.#clearAll();
    this.#watch.onStep?.(this.words, commands, count);
    if (!this.#watch.looks) return;
    // the first step of threads does nothing
    const isFirst = count === 1 && this.words[commands / 4] === 0;
    this.within(commands, 4 * COMMAND_WORDS * count, "commands", isFirst ? /window/ : /commands/);
    if (isFirst) return;
    for (let i = 0; i < count; i++) {
      this.#at = commands / 4 + COMMAND_WORDS * i;
      const name = NAMES.get(this.words[this.#at]!) ?? assert.fail(`no op ${this.words[this.#at]}`);
      this.where = `command ${i} of ${count}, ${name}`;
      this.#watch.commands.set(name, (this.#watch.commands.get(name) ?? 0) + 1);
      this.#check(name);
    }
  }

  #check(name: string): void {
    const a = (n: number): number => this.words[this.#at + n]!;
    const row8 = (columns: number): number => this.#kernels.qd8_row_bytes(columns);
    const span = (rows: number, stride: number, columns: number): number => 4 * ((rows - 1) * stride + columns);
    const optional = (address: number, bytes: number, what: string): void => {
      if (address) this.#buffer(address, bytes, what);
    };
    if (name === "gather") {
      const [out, ids, w, T, stride] = [a(1), a(2), a(3), a(4), a(5)];
      const { K, rows } = this.#matrix(w);
      assert.ok(stride >= K);
      this.#buffer(out, 4 * T * stride, "rows");
      this.within(ids, 4 * T, "ids", /\(ids\)/);
      for (let t = 0; t < T; t++) assert.ok(this.words[ids / 4 + t]! < rows, `${this.where}: id ${this.words[ids / 4 + t]} of ${rows}`);
    } else if (name === "rmsnorm") {
      const [y, yq, x, r, g, rows, M, D, stride] = [a(1), a(2), a(3), a(4), a(5), a(6), a(7), a(8), a(9)];
      let last = M - 1;
      if (rows) {
        this.within(rows, 4 * M, "row numbers", /rowNumbers/);
        last = Math.max(...this.words.subarray(rows / 4, rows / 4 + M));
      }
      this.#buffer(y, 4 * M * stride, "y");
      this.#buffer(x, span(last + 1, stride, D), "x");
      optional(yq, M * row8(stride), "quantized");
      optional(r, span(M, stride, D), "r");
      this.#vector(g, D, "the gain");
    } else if (name === "quantize") {
      const [out, x, M, Kp, stride] = [a(1), a(2), a(3), a(4), a(5)];
      this.#buffer(out, M * row8(Kp), "quantized");
      this.#buffer(x, span(M, stride, Kp), "x");
    } else if (name === "matmul") {
      const [y, x, xq, w, M, yStride, xStride, bias] = [a(1), a(2), a(3), a(4), a(5), a(6), a(7), a(8)];
      const { Kp, paddedRows } = this.#matrix(w);
      assert.ok(yStride >= paddedRows && (x || xq));
      this.#buffer(y, span(M, yStride, paddedRows), "y");
      optional(x, span(M, xStride, Kp), "x");
      optional(xq, M * row8(Kp), "quantized x");
      if (bias) this.#vector(bias, paddedRows, "the bias");
    } else if (name === "largest") {
      const [lists, room, columns, x, xq, w, M, xStride, N, k] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(a) as [
        ...[number, number, number, number, number, number, number, number, number, number],
      ];
      const { Kp, rows } = this.#matrix(w);
      assert.ok(N <= rows && columns % 8 === 0 && k > 0);
      this.within(lists, 8 * M * k, "the lists", /largest/); // of one thread at least
      this.within(room, 4 * M * columns, "columns of the product", /logits/);
      optional(x, span(M, xStride, Kp), "x");
      optional(xq, M * row8(Kp), "quantized x");
    } else if (name === "merge_largest") {
      const [lists, M, k] = [a(1), a(2), a(3)];
      this.within(lists, 8 * M * k, "the lists", /largest/); // of one thread at least
    } else if (name === "rope_table") {
      const [table, rowTable, nseq, freq, hd] = [a(1), a(2), a(3), a(4), a(5)];
      this.within(table, 4 * this.#sequences(rowTable, nseq).rows * hd, "the table", /\(rope\)/);
      this.within(freq, 4 * hd, "frequencies", /frequencies/);
    } else if (name.startsWith("norm_rope_append")) {
      const [qkv, stride, gq, gk, table, rowTable, nseq, offset, H, G, hd] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(a) as [
        ...[number, number, number, number, number, number, number, number, number, number, number],
      ];
      const { all, rows } = this.#sequences(rowTable, nseq);
      this.#buffer(qkv, span(rows, stride, (H + 2 * G) * hd), "q, k and v");
      this.#vector(gq, hd, "q's gain");
      this.#vector(gk, hd, "k's gain");
      this.within(table, 4 * rows * hd, "the table", /\(rope\)/);
      this.#pages(all, offset, pageBytes(name, G, hd));
    } else if (name === "attention_merge") {
      const [out, stride, rowTable, nseq, slots, slotCount, H, hd] = [a(1), a(2), a(3), a(4), a(5), a(6), a(7), a(8)];
      this.#buffer(out, span(this.#sequences(rowTable, nseq).rows, stride, H * hd), "rows");
      this.within(slots, slotCount * this.#kernels.attention_slot_bytes(hd), "slots", /slots/);
    } else if (name.startsWith("attention")) {
      const [out, stride, q, qStride, rowTable, nseq, offset, slots, slotCount, scratch, H, G, hd] = [
        ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map(a),
      ] as [...[number, number, number, number, number, number, number, number, number, number, number, number, number]];
      const { all, rows } = this.#sequences(rowTable, nseq);
      this.#buffer(out, 4 * rows * stride, "rows");
      this.#buffer(q, span(rows, qStride, H * hd), "q");
      this.#pages(all, offset, pageBytes(name, G, hd));
      if (slotCount) this.within(slots, slotCount * this.#kernels.attention_slot_bytes(hd), "slots", /slots/);
      this.within(scratch, this.#kernels.attention_scratch_bytes(H, G, hd), "scratch", /attention/);
    } else if (name === "shortconv") {
      const [y, stride, yq, bcu, bcuStride, rowTable, nseq, offset, taps, bias, D, Kc] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map(a) as [
        ...[number, number, number, number, number, number, number, number, number, number, number, number],
      ];
      const { all, rows } = this.#sequences(rowTable, nseq);
      this.#buffer(y, 4 * rows * stride, "y");
      optional(yq, rows * row8(stride), "quantized");
      this.#buffer(bcu, span(rows, bcuStride, 3 * D), "B, C and u");
      this.#vector(taps, Kc * D, "taps");
      if (bias) this.#vector(bias, D, "the bias");
      for (const { state, pages, kept, keptRows, count } of all) {
        const block = this.within(state, offset + 4 * (Kc - 1) * D, "the state", /^a session/);
        assert.ok(block.address === state && this.#ledger.live.has(state), `${this.where}: a state of a session that is closed`);
        assert.ok(state + offset + 4 * (Kc - 1) * D <= pages, `${this.where}: the state reaches into the page table`);
        if (!kept) continue;
        const region = this.within(kept, 4 * ((offset / 4 / (Kc - 1) / D) * keptRows + Kc - 1 + count) * D, "gates", /^kept/);
        assert.ok(this.#ledger.live.has(region.address), `${this.where}: kept gates that are given back`);
      }
    } else if (name === "silu_mul") {
      const [y, stride, yq, ab, abStride, T, columns] = [a(1), a(2), a(3), a(4), a(5), a(6), a(7)];
      optional(y, 4 * T * stride, "y");
      optional(yq, T * row8(stride), "quantized");
      this.#buffer(ab, span(T, abStride, 2 * columns), "a and b");
    } else if (name === "add") {
      this.#buffer(a(1), 4 * a(3), "y");
      this.#buffer(a(2), 4 * a(3), "x");
    } else if (name === "copy") {
      this.#buffer(a(1), a(3), "the copy");
      this.#buffer(a(2), a(3), "what is copied");
    } else assert.fail(`${name}: no check`);
  }
}

/** Bytes of keys and values of a layer in a page. */
function pageBytes(op: string, G: number, hd: number): number {
  return 2 * PAGE * G * (op.endsWith("q8") ? hd + 4 : op.endsWith("f16") ? 2 * hd : 4 * hd);
}

/** Runs `use`, and looks at every call of the kernels of models that are loaded within. */
export async function watchKernels(use: (watch: KernelWatch) => Promise<void> | void): Promise<void> {
  const watch = new KernelWatch();
  const { Instance } = WebAssembly;
  const { alloc, release } = Arena.prototype;
  const { allocate, free } = BlockPool.prototype;
  const newPage = PagePool.prototype.allocate;
  const { step } = LanguageModel.prototype;
  const memories = new WeakMap<BlockPool, WasmMemory>();
  let last: WasmMemory | undefined;
  const ledger = (memory: WasmMemory | undefined): Ledger => watch.ledgerOf(memory ?? assert.fail("a block of no memory"));
  WebAssembly.Instance = new Proxy(Instance, {
    construct: (_, [module, imports]: [WebAssembly.Module, { env?: { memory?: WasmMemory } }]) => {
      const { exports } = new Instance(module, imports);
      const memory = imports?.env?.memory;
      return { exports: memory && "run" in exports ? watch.wrap(exports, memory) : exports };
    },
  });
  Arena.prototype.alloc = function (this: Arena, bytes, what) {
    const address = alloc.call(this, bytes, what);
    last = this.memory;
    ledger(last).regions.push({ address, bytes, what });
    return address;
  };
  Arena.prototype.release = function (this: Arena, mark) {
    const { regions } = ledger(this.memory);
    while ((regions.at(-1)?.address ?? -1) >= mark) regions.pop();
    release.call(this, mark);
  };
  BlockPool.prototype.allocate = function (this: BlockPool) {
    const address = allocate.call(this);
    const memory = memories.get(this) ?? last ?? assert.fail("a block of no arena");
    memories.set(this, memory);
    ledger(memory).live.add(address);
    last = memory;
    return address;
  };
  BlockPool.prototype.free = function (this: BlockPool, address) {
    const { live, caches } = ledger(memories.get(this));
    live.delete(address);
    for (const [table, cache] of caches) if (cache.convState === address) caches.delete(table); // the next who gets the block is another session
    free.call(this, address);
  };
  PagePool.prototype.allocate = function (this: PagePool) {
    const id = newPage.call(this);
    ledger(last).pageAt.set(this.addressOf(id), [this, id]);
    return id;
  };
  LanguageModel.prototype.step = function (this: LanguageModel, inputs, options) {
    const own = ledger(this.caches.memory);
    own.capacity = this.options.maxContextTokens;
    for (const { cache } of inputs) own.caches.set(cache.pageTable, cache);
    return step.call(this, inputs, options);
  };
  try {
    await use(watch);
  } finally {
    WebAssembly.Instance = Instance;
    Object.assign(Arena.prototype, { alloc, release });
    Object.assign(BlockPool.prototype, { allocate, free });
    PagePool.prototype.allocate = newPage;
    LanguageModel.prototype.step = step;
  }
}
