// Linear memory: the arena, the pools, the plan before a load, the load's peak, and what is left after many loads and sessions.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { inspect, load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { fromPreset, layOut } from "../../scripts/checkpoints/make-gguf.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { ADDRESS_SPACE_BYTES, Arena, formatBytes, HEAP_START } from "../../src/memory/arena.ts";
import { BlockPool, PagePool } from "../../src/memory/pages.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { loadModel, planModel } from "../../src/models/load-model.ts";
import { type ByteSource, bytesSource } from "../../src/weights/source.ts";
import { checkpointFolder, feed, ggufFile, kernels } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { IMPATIENT, untilQuiet, WatchedFetch } from "./network.ts";
import { Watch } from "./watched-source.ts";

const asError = (error: unknown): unknown => error;
const memory = (): WebAssembly.Memory => new WebAssembly.Memory({ initial: 2, maximum: 65_536 });

describe("arena", () => {
  it("aligns, grows, gives back to a mark", () => {
    const arena = new Arena(memory());
    const first = arena.alloc(100, "x");
    assert.equal(first, HEAP_START);
    assert.equal(arena.alloc(1, "y"), HEAP_START + 128);
    const { mark } = arena;
    const big = arena.alloc(5 << 20, "z");
    assert.ok(arena.memory.buffer.byteLength >= big + (5 << 20));
    arena.release(mark);
    assert.equal(arena.alloc(8, "w"), big);
  });

  it("refuses what passes its limit, with both numbers, and stays usable", () => {
    const arena = new Arena(memory(), 1 << 20);
    assert.throws(() => arena.alloc(2 << 20, "a lot"), { name: "MemoryError", message: /2\.0 MiB for a lot, got 960 KiB/ });
    arena.alloc(1000, "little");
    assert.equal(new Arena(memory(), Number.MAX_SAFE_INTEGER).limitBytes, ADDRESS_SPACE_BYTES);
    let others = 0;
    const shared = new Arena(memory(), 1 << 20, () => others);
    others = 1 << 19;
    assert.throws(() => shared.alloc(500_000, "much"), { name: "MemoryError", message: /got 448 KiB/ });
    others = 0;
    shared.alloc(500_000, "much");
    assert.equal(formatBytes(1.5 * 2 ** 30), "1.5 GiB");
  });
});

describe("pools", () => {
  it("use freed blocks again", () => {
    const pool = new BlockPool(new Arena(memory()), 1000, "a block");
    const [a, b] = [pool.allocate(), pool.allocate()];
    pool.free(a);
    assert.equal(pool.allocate(), a);
    assert.deepEqual([pool.made, pool.used], [2, 2]);
    assert.notEqual(a, b);
  });

  it("count references of pages", () => {
    const pages = new PagePool(new Arena(memory()), 4096);
    const id = pages.allocate();
    const address = pages.addressOf(id);
    pages.retain(id);
    pages.release(id);
    assert.deepEqual([pages.references(id), pages.used], [1, 1]);
    pages.release(id);
    assert.equal(pages.used, 0);
    assert.equal(pages.addressOf(pages.allocate()), address);
  });
});

describe("loading", () => {
  it("takes what the plan says, and streams through one window: peak = final size + one window", async () => {
    const path = checkpointFolder("tiny-gqa3");
    for (const dtype of ["f32", "bf16", "q8", "q4"] as const) {
      const reads: number[] = [];
      let open = 0;
      let most = 0;
      const counting = (source: ByteSource): ByteSource => ({
        name: source.name,
        size: source.size,
        read: (offset, length, signal) => source.read(offset, length, signal),
        close: async () => source.close?.(),
        readInto: async (offset, target, signal) => {
          reads.push(target.length);
          most = Math.max(most, ++open);
          await source.readInto?.(offset, target, signal);
          open--;
        },
      });
      const folder = await openPath(path);
      assert.ok("open" in folder);
      const checkpoint = await openCheckpoint({
        name: folder.name,
        open: async (name) => {
          const source = await folder.open(name);
          return source && counting(source);
        },
      });
      const before = process.memoryUsage().arrayBuffers;
      const { model, plan } = await loadModel(checkpoint, kernels, { dtype });
      const heap = process.memoryUsage().arrayBuffers - before;
      assert.equal(most, 1, "one window at a time");
      assert.ok(reads.every((bytes) => bytes <= plan.windowBytes));
      const slack = 65_536 + (1 << 20); // a page of rounding, and the arena's least growth for the first session
      assert.ok(model.memoryBytes <= plan.totalBytes + slack, `${model.memoryBytes} of ${plan.totalBytes} planned`);
      assert.ok(model.memoryBytes >= plan.totalBytes - slack);
      assert.ok(
        heap <= plan.totalBytes + slack + 65_536 * 2,
        `${heap} bytes of array buffers for ${plan.totalBytes} planned: a second copy?`,
      );
      const { variant, threads, ...planned } = await planModel(checkpoint, kernels, { dtype });
      assert.deepEqual(planned, plan);
      assert.deepEqual([typeof variant, threads], ["string", 1]);
      await checkpoint.close();
    }
  });

  it("reads nothing of the weights when the plan does not fit", async () => {
    const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-deep")));
    let read = 0;
    const tensors = new Map(
      [...checkpoint.tensors].map(([name, t]) => {
        const source: ByteSource = { name: t.source.name, size: t.source.size, read: async () => assert.fail(`read ${++read}`) };
        return [name, { ...t, source }] as const;
      }),
    );
    await assert.rejects(loadModel({ ...checkpoint, tensors }, kernels, { maxMemoryBytes: 1 << 20 }), (error: Error) => {
      assert.equal(error.name, "MemoryError");
      assert.match(error.message, /expected at most 1\.0 MiB, got a model that needs [\d.]+ (KiB|MiB) \(.*weights [\d.]+ KiB/);
      return true;
    });
    assert.equal(read, 0);
    await checkpoint.close();
  });

  for (const [type, dtypes] of [
    ["Q4_K_M", ["q4k", "q6k", "f32"]],
    ["Q6_K", ["q6k", "f32"]],
    ["Q8_0", ["q8", "f32"]],
    ["Q4_0", ["q4", "q6k", "f32"]],
  ] as const) {
    it(`${type} files of 350M and 1.2B take no more than 1.1 times their bytes`, async () => {
      for (const preset of ["350m", "1.2b"]) {
        const { header, bytes } = layOut(fromPreset(preset, 1), { type });
        const source: ByteSource = {
          name: `${preset}.gguf`,
          size: bytes,
          read: async (offset, length) => {
            const out = new Uint8Array(length); // what lies behind the header is not looked at
            out.set(header.subarray(offset, offset + length));
            return out;
          },
        };
        const checkpoint = await openCheckpoint(source);
        const plan = await planModel(checkpoint, kernels);
        const weights = plan.items.find(({ what }) => what === "weights")?.bytes ?? 0;
        assert.ok(weights > 0.99 * (bytes - header.length) && weights <= 1.1 * bytes, `${weights} of ${bytes} bytes`);
        assert.deepEqual(new Set(plan.dtypes.values()), new Set(dtypes));
      }
    });
  }

  it("names the smaller dtype that fits", async () => {
    const checkpoint = await openCheckpoint(await openPath("models/lfm2-mini"));
    const bytes = async (dtype: "q8" | "q4" | "bf16"): Promise<number> => (await planModel(checkpoint, kernels, { dtype })).totalBytes;
    for (const fits of ["bf16", "q8", "q4"] as const) {
      const maxMemoryBytes = (await bytes(fits)) + 1000;
      await assert.rejects(loadModel(checkpoint, kernels, { dtype: "f32", maxMemoryBytes }), {
        name: "MemoryError",
        message: new RegExp(`Load it with dtype "${fits}"`),
      });
    }
    await assert.rejects(loadModel(checkpoint, kernels, { maxMemoryBytes: 1 << 20 }), { message: /No dtype fits/ });
    await checkpoint.close();
  });

  it("reports progress that never falls and ends at the total", async () => {
    const seen: number[] = [];
    let total = 0;
    const phases: string[] = [];
    const model = await load(mini, {
      onProgress: ({ phase, loadedBytes, totalBytes }) => {
        phases.push(phase);
        seen.push(loadedBytes);
        total = totalBytes;
      },
    });
    model.dispose();
    assert.ok(seen.every((n, i) => n >= (seen[i - 1] ?? 0) && n <= total));
    assert.equal(seen.at(-1), total);
    assert.deepEqual([phases.filter((p) => p === "ready").length, phases.at(-1)], [1, "ready"]);
  });

  it("a source that shrinks, a missing tensor, a wrong shape: FormatError with the name", async () => {
    const bytes = readFileSync(ggufFile("tiny-quant", "Q8_0"));
    const source: ByteSource = {
      name: "cut.gguf",
      size: bytes.length,
      read: async (offset, length) => new Uint8Array(bytes.subarray(offset, Math.min(offset + length, bytes.length - 1000))),
    };
    await assert.rejects(load(source), { name: "FormatError", message: /cut\.gguf.*truncated/ });
    const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-deep")));
    const name = "model.layers.3.ffn_norm.weight";
    const without = new Map(checkpoint.tensors);
    const tensor = without.get(name) ?? assert.fail();
    without.delete(name);
    await assert.rejects(loadModel({ ...checkpoint, tensors: without }, kernels), {
      name: "FormatError",
      message: /model\.layers\.3\.ffn_norm\.weight/,
    });
    without.set(name, { ...tensor, shape: [63] });
    await assert.rejects(loadModel({ ...checkpoint, tensors: without }, kernels), {
      name: "FormatError",
      message: /shape \(64\), got \(63\)/,
    });
    await checkpoint.close();
  });
});

describe("a source whose close() fails", () => {
  const failing = (bytes: Uint8Array): ByteSource => ({
    ...bytesSource(bytes, "x.gguf"),
    close: () => Promise.reject(new Error("close failed")),
  });

  it("does not hide the error before it, nor spoil a load", async () => {
    await assert.rejects(load(failing(new Uint8Array(100))), { name: "FormatError" });
    await assert.rejects(inspect(failing(new Uint8Array(100))), { name: "FormatError" });
    const bytes = new Uint8Array(readFileSync(join("dist", "mini.gguf")));
    await assert.rejects(load(failing(bytes), { maxMemoryBytes: 1 << 20 }), { name: "MemoryError" });
    const model = await load(failing(bytes));
    assert.equal((await model.generate("Hello", { maxTokens: 2 })).usage.outputTokens, 2);
    model.dispose();
  });
});

describe("weights that are not finite", () => {
  for (const [what, type, at] of [
    ["a matrix in bf16", "BF16", "model.layers.1.self_attn.q_proj.weight"],
    ["a scale in Q8_0", "Q8_0", "model.layers.0.feed_forward.w1.weight"],
    ["a norm", "F32", "model.layers.2.ffn_norm.weight"],
  ] as const) {
    it(`${what}: FormatError with its name`, async () => {
      const bytes = new Uint8Array(readFileSync(ggufFile("tiny-quant", type)));
      const whole = await openCheckpoint(bytesSource(bytes, "nan.gguf"));
      const { offsetBytes } = whole.tensors.get(at) ?? assert.fail();
      bytes.set([0xff, 0xff, 0xff, 0xff], offsetBytes);
      await assert.rejects(load(bytes), { name: "FormatError", code: "not-finite", message: /expected finite numbers, got NaN/ });
    });
  }
});

describe("logits that are not finite", () => {
  it("end a reply at its first token with a FormatError, however it is asked for", async () => {
    const bytes = new Uint8Array(readFileSync(join("dist", "mini.gguf")));
    const whole = await openCheckpoint(bytesSource(bytes, "x.gguf"));
    const norm = whole.tensors.get("model.embedding_norm.weight") ?? assert.fail();
    assert.equal(norm.type, "F32");
    const view = new DataView(bytes.buffer, norm.offsetBytes, norm.bytes);
    for (let at = 0; at < norm.bytes; at += 4) view.setFloat32(at, 3e38, true); // finite, and so it is loaded
    const model = await load(bytes);
    let asked = 0;
    const options = { maxTokens: 500, stoppingCriteria: [() => ++asked < 0] };
    const chat = model.chat();
    const right = { name: "FormatError", message: /logits: expected finite numbers, got NaN or Infinity/ };
    for (const more of [
      { temperature: 0 },
      { temperature: 1, topK: 5 },
      { numBeams: 2 },
      { speculate: true },
      { numReturnSequences: 2 },
      { logprobs: true },
    ]) {
      await assert.rejects(model.generate("Hello", { ...options, ...more }), right, JSON.stringify(more));
      await assert.rejects(chat.prompt("Hello", { ...options, ...more }), right, JSON.stringify(more));
    }
    assert.equal(asked, 0, "no token was taken");
    chat.dispose();
    await new Promise((resolve) => setTimeout(resolve, 20)); // its session closes by itself
    assert.equal((await model.status()).openSessions, 0);
    model.dispose();
  });
});

describe("contexts", () => {
  /** More of a small shape, where scratch and the memory's last growth (1.6 MB) are more than 5 % of 32,768. */
  const CONTEXTS = [
    ["tiny-attn-only", "bf16", 131_072],
    ["350m", "bf16", 32_768],
    ["350m", "q4", 32_768],
  ] as const;
  for (const [preset, dtype, tokens] of CONTEXTS.slice(0, pick({ gate: 1, full: 3 })))
    it(`${tokens} tokens of ${preset} in ${dtype} take the weights, their keys and values, and at most 5 % more`, async () => {
      const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
      const { model, plan } = await loadModel(checkpoint, kernels, { dtype, kvDtype: "f16" });
      await checkpoint.close();
      const { numKeyValueHeads: G, headDim: hd, layerTypes } = model.config;
      const tokenBytes = 2 * 2 * G * hd * layerTypes.filter((type) => type === "full_attention").length;
      if (preset === "350m") assert.equal(tokenBytes, 12_288);
      // each as long as the shape's context allows: one of 32,768 tokens for the 350M shape
      const { maxContextTokens } = model.options;
      const caches = Array.from({ length: Math.ceil(tokens / maxContextTokens) }, () => model.openCache());
      for (const cache of caches)
        while (cache.position < maxContextTokens) {
          cache.reserve(128);
          cache.advance(128);
        }
      assert.equal(
        caches.reduce((sum, { position }) => sum + position, 0),
        tokens,
      );
      assert.equal(model.caches.pages.used, tokens / 32);
      const weights = plan.items.find(({ what }) => what === "weights")?.bytes ?? assert.fail();
      const needed = weights + tokens * tokenBytes;
      const figures = `${preset} in ${dtype}, ${tokens} tokens: ${model.memoryBytes} bytes, ${(model.memoryBytes / needed).toFixed(4)} × the ${needed} of weights, keys and values`;
      if (pick({ gate: false, full: true })) console.error(`\n${figures}`); // what docs/cache.md tells
      assert.ok(model.memoryBytes > needed && model.memoryBytes <= 1.05 * needed, figures);
      model.dispose();
    });

  it("when memory ends: a MemoryError before the step, and the session goes on with the same bits once there is room", async () => {
    const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-attn-first")));
    const free = (await loadModel(checkpoint, kernels, {})).model;
    const { model } = await loadModel(checkpoint, kernels, { maxMemoryBytes: free.memoryBytes + (1 << 20) });
    await checkpoint.close();
    const ids = Array.from({ length: 200 }, (_, i) => (i * 31 + 7) % model.config.vocabSize);
    const cache = model.openCache();
    model.step([{ cache, ids: ids.slice(0, 100) }]);
    const others: ReturnType<typeof model.openCache>[] = [];
    const fill = (): void => {
      for (;;) {
        const other = model.openCache();
        others.push(other);
        while (other.position < model.options.maxContextTokens) model.step([{ cache: other, ids: ids.slice(0, 64) }]);
      }
    };
    assert.throws(fill, { name: "MemoryError" });
    const { stateBytes } = model.caches.size;
    const held = (): unknown => [
      cache.position,
      cache.statePosition,
      new Uint8Array(model.caches.memory.buffer, cache.convState, stateBytes).slice(),
      cache.pages.slice(0, 4).map((page) => model.caches.contentOf(page).slice()),
    ];
    const before = held();
    for (let i = 0; i < 2; i++) {
      assert.throws(() => model.step([{ cache, ids: ids.slice(100) }]), { name: "MemoryError", message: /a page of keys and values/ });
      assert.deepEqual(held(), before);
    }
    for (const other of others) other.dispose();
    model.step([{ cache, ids: ids.slice(100) }], { logitsOf: [99] });
    const whole = feed(free, ids, [128]);
    assert.deepEqual(model.logits().copy(), whole.subarray(-model.config.vocabSize).slice());
    for (const each of [free, model]) each.dispose();
  });

  it("when memory ends within a chat's turn: what was said stays, and the chat goes on with the same text once there is room", async () => {
    const options = { prefixCacheBytes: 0, threads: 1 } as const;
    using free = await load(mini, options);
    using model = await load(mini, { ...options, maxMemoryBytes: free.info.memoryBytes + (1 << 18) });
    using chat = model.chat({ system: "You are kind." });
    const say = (maxTokens: number) => chat.prompt("I have a dog and a cat.", { maxTokens, stopIds: [], temperature: 0 });
    for (const length of [1, 3]) {
      const { text } = await say(20);
      assert.deepEqual([chat.messages.length, chat.messages.at(-1)?.content], [length + 2, text]);
    }
    const said = chat.messages;
    await assert.rejects(say(500), { name: "MemoryError" });
    assert.deepEqual(chat.messages, said);
    await assert.rejects(chat.prompt("And a bird. ".repeat(100)), { name: "MemoryError" });
    assert.deepEqual(chat.messages, said);
    await chat.rewind(chat.marks.at(-1)!);
    const fresh = free.chat({ messages: said });
    assert.deepEqual(
      (await say(8)).tokens,
      (await fresh.prompt("I have a dog and a cat.", { maxTokens: 8, stopIds: [], temperature: 0 })).tokens,
    );
    fresh.dispose();
  });

  it("a packed row takes the room of its longest sequence", async () => {
    const options = { threads: 1, prefixCacheBytes: 0, kvDtype: "f32" } as const;
    const sequence = Array.from({ length: 1024 }, (_, t) => 5 + (t % 300));
    const places = sequence.map((_, t) => t);
    using one = await load(mini, options);
    await one.forward({ inputIds: sequence, logitsToKeep: 1 });
    using two = await load(mini, { ...options, maxMemoryBytes: (await one.status()).memoryBytes });
    await two.forward({ inputIds: [...sequence, ...sequence], positionIds: [...places, ...places], logitsToKeep: 1 });
  });

  it("a forward pass holds keys and values of the rows under way only, and as few at a time as there is room for", async () => {
    const tiny = checkpointFolder("tiny-attn-first");
    using free = await load(tiny, { threads: 1 });
    const { memoryBytes } = await free.status();
    using model = await load(tiny, { threads: 1, maxMemoryBytes: memoryBytes + (1 << 19) });
    // pages of 16 KiB: 32 have room, or fewer beside the sessions
    const texts = Array.from({ length: 200 }, (_, i) => Uint32Array.from({ length: 1 + (i % 4) }, (_, t) => (20 + i + t) % 389));
    const vectors = await model.embed(texts);
    for (const i of [0, 3, 100, 199]) assert.deepEqual([vectors[i]], await free.embed([texts[i]!]), `text ${i}`);
    const [few, many] = [2, 10].map((B) => Array.from({ length: B }, (_, b) => Array.from({ length: 300 }, (_, t) => (7 * t + b) % 389)));
    await free.forward({ inputIds: few!, logitsToKeep: 1 });
    const after = (await free.status()).memoryBytes;
    const { logits } = await free.forward({ inputIds: many!, logitsToKeep: 1 });
    const { usedPages, ...then } = await free.status();
    assert.deepEqual([then.memoryBytes, usedPages], [after, 0]);
    const alone = await model.forward({ inputIds: many!.at(-1)!, logitsToKeep: 1 });
    assert.deepEqual(logits.data.slice(-389), alone.logits.data);
    // rows that keep what they hold are refused where they have no room together
    await assert.rejects(model.forward({ inputIds: many!, useCache: true, logitsToKeep: 1 }), { name: "MemoryError" });
    assert.equal((await model.status()).usedPages, 0);
  });

  it("when memory ends within a forward pass: its cache is what it was, and goes on once there is room", async () => {
    const options = { prefixCacheBytes: 0, threads: 1 } as const;
    const free = await load(checkpointFolder("tiny-attn-first"), options);
    const model = await load(checkpointFolder("tiny-attn-first"), { ...options, maxMemoryBytes: free.info.memoryBytes + (1 << 20) });
    const rows = (from: number, length: number): number[][] =>
      [0, 1, 2].map((b) => Array.from({ length }, (_, i) => 20 + (((from + i) * 31 + b) % 300)));
    const [begin, next] = [
      { inputIds: rows(0, 40), useCache: true },
      { inputIds: rows(40, 100), logitsToKeep: 1 },
    ];
    const { pastKeyValues: straight } = await free.forward(begin);
    const { pastKeyValues } = await model.forward(begin);
    const others: Disposable[] = [];
    const fill = async (): Promise<void> => {
      for (;;) {
        const { pastKeyValues: other } = await model.forward({ inputIds: rows(0, 100)[0]!, useCache: true, logitsToKeep: 1 });
        if (other) others.push(other);
      }
    };
    await assert.rejects(fill(), { name: "MemoryError" });
    others.pop()?.[Symbol.dispose](); // room for one row's pages
    await new Promise((resolve) => setTimeout(resolve, 5)); // its session closes by itself
    await assert.rejects(model.forward({ ...next, pastKeyValues }), { name: "MemoryError" });
    assert.deepEqual([pastKeyValues?.lengths, (await model.status()).usedPages], [[40, 40, 40], 3 * 2 + 4 * others.length]);
    for (const other of others) other[Symbol.dispose]();
    assert.deepEqual(
      (await model.forward({ ...next, pastKeyValues })).logits,
      (await free.forward({ ...next, pastKeyValues: straight })).logits,
    );
    for (const each of [free, model]) each.dispose();
  });
});

describe("memory stays flat", () => {
  const { Memory } = WebAssembly;
  /** What they compile stays, in the heap too, and comes for hours: a megabyte in all, a tenth of the heap. */
  const OPTIMIZERS = ["opt", "sparkplug"];
  let memories: WeakRef<WebAssembly.Memory>[];
  let server: BadServer;
  before(async () => {
    server = await serve({ "org/mini": { "mini.gguf": readFileSync(join("dist", "mini.gguf")) } });
    assert.ok(globalThis.gc, "run with --expose-gc");
    for (const flag of OPTIMIZERS) setFlagsFromString(`--no-${flag}`);
    WebAssembly.Memory = new Proxy(Memory, {
      construct: (_, [descriptor]: ConstructorParameters<typeof Memory>) => {
        const memory = new Memory(descriptor);
        memories.push(new WeakRef(memory));
        return memory;
      },
    });
  });
  after(async () => {
    await server.close();
    WebAssembly.Memory = Memory;
    for (const flag of OPTIMIZERS) setFlagsFromString(`--${flag}`);
  });
  beforeEach(() => {
    memories = [];
  });

  /** What is alive once the garbage is gone. `linear`: memories that were made in this test; newer engines count them nowhere. */
  async function alive(): Promise<{ readonly heap: number; readonly linear: number }> {
    for (let i = 0; i < 4; i++) {
      globalThis.gc?.();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const { heapUsed, external } = process.memoryUsage();
    return { heap: heapUsed + external, linear: memories.reduce((sum, ref) => sum + (ref.deref()?.buffer.byteLength ?? 0), 0) };
  }

  /** Runs `count` rounds; between the first tenth's end and the last's, what is alive grows by less than 1 %. The gate's first tenth is over before everything has run. */
  async function staysFlat(count: number, round: (i: number) => Promise<void>, linear: () => Promise<number>): Promise<void> {
    const tenths: { heap: number; linear: number }[] = [];
    for (let i = 0; i < count; i++) {
      await round(i);
      if ((i + 1) % (count / 10) === 0 && (i < count / 10 || i === count - 1))
        tenths.push({ heap: (await alive()).heap, linear: await linear() });
    }
    const [first, last] = tenths as [(typeof tenths)[0], (typeof tenths)[0]];
    const most = pick({ gate: 1.03, full: 1.01 });
    assert.ok(last.heap < most * first.heap, `heap: ${first.heap} bytes after the first tenth, ${last.heap} after the last`);
    assert.equal(last.linear, first.linear, "linear memory");
  }

  it("over loads", async () => {
    const bytes = readFileSync(join("dist", "mini.gguf"));
    const taken = new Set<number>();
    const round = async (): Promise<void> => {
      const model = await load(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length));
      assert.equal((await model.generate("Hello", { maxTokens: 3 })).usage.outputTokens, 3);
      taken.add((await model.status()).memoryBytes);
      model.dispose();
    };
    const loads = pick({ gate: 50, full: 1000 });
    await staysFlat(loads, round, async () => (await alive()).linear);
    assert.equal((await alive()).linear, 0, "no memory outlives its model");
    assert.equal(taken.size, 1, "each load takes as much as the first");
    assert.ok(memories.length >= loads, "the memories were seen");
  });

  it("over loads that are aborted at random points: no memory outlives them, no bytes, no file", async () => {
    const path = join("dist", "mini.gguf");
    const hub = { cache: false as const, endpoint: server.hub, network: { ...IMPATIENT, windowBytes: 1 << 19 } };
    let x = 5;
    const random = (n: number): number => (x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0) % n;
    /** Ways to a model, with what is called at each of their operations. @returns how many there were, and a load that may end */
    const ways: readonly ((fault: (n: number) => void, signal: AbortSignal) => Promise<{ operations: number; error: unknown }>)[] = [
      async (fault, signal) => {
        const watch = new Watch((n) => void fault(n));
        const error = await load(watch.wrap(await openPath(path)), { signal }).then((model) => model.dispose(), asError);
        assert.equal(watch.open, 0);
        return { operations: watch.operations, error };
      },
      async (fault, signal) => {
        const watch = new WatchedFetch(fault);
        const error = await load("org/mini", { ...hub, fetch: watch.fetch, signal }).then((model) => model.dispose(), asError);
        await untilQuiet(server);
        server.log.length = 0;
        assert.equal(watch.pending, 0);
        return { operations: watch.operations, error };
      },
    ];
    const counts: number[] = [];
    for (const way of ways) counts.push((await way(() => {}, new AbortController().signal)).operations);
    const loads = pick({ gate: 30, full: 300 });
    const arrays: number[] = [];
    let [aborted, made] = [0, 0];
    const round = async (i: number): Promise<void> => {
      const which = i % ways.length;
      const [position, turns] = [1 + random(counts[which] as number), random(4)];
      const control = new AbortController();
      const fire = (left: number): void => void (left === 0 ? control.abort() : setImmediate(fire, left - 1));
      const { error } = await ways[which]!((n) => n === position && fire(turns), control.signal);
      assert.ok(error === undefined || (error as Error).name === "AbortError", String(error));
      if (error) aborted++;
    };
    await staysFlat(loads, round, async () => {
      const { linear } = await alive();
      arrays.push(process.memoryUsage().arrayBuffers);
      made = memories.length;
      return linear;
    });
    assert.equal((await alive()).linear, 0, "no memory outlives its load");
    assert.ok((arrays.at(-1) as number) <= (arrays[0] as number) + (1 << 16), `arrays: ${arrays}`);
    assert.ok(aborted > loads / 2 && made > loads / 4, `${aborted} were aborted, ${made} memories made in ${loads} loads`);
  });

  it("over sessions of every kind, some of them left or aborted", async () => {
    const model = await load(mini, { prefixCacheBytes: 1 << 20 });
    const empty = model.chat();
    const saved = await empty.save();
    empty.dispose();
    const kinds: readonly ((i: number) => Promise<unknown>)[] = [
      async (i) => {
        const chat = model.chat();
        await chat.prompt(`Hello ${i}`, { maxTokens: 1 + (i % 3) });
        chat.dispose();
      },
      (i) => model.generate(`What is ${i} + ${i}?`, { maxTokens: 2, seed: i }),
      async (i) => {
        const chat = model.chat({ system: `You are number ${i}.` });
        await chat.prompt("Hi", { maxTokens: 1 });
        const fork = chat.fork();
        await fork.prompt("And you?", { maxTokens: 1 });
        await chat.rewind(0);
        for (const each of [chat, fork]) each.dispose();
      },
      async (i) => {
        for await (const part of model.stream(`Tell me story ${i}.`).textStream) if (part.length > 0) break;
      },
      async (i) => {
        const control = new AbortController();
        const reply = model.generate(`Tell me story ${i}.`, { signal: control.signal, onProgress: () => control.abort() });
        await assert.rejects(reply, { name: "AbortError" });
      },
      async (i) => {
        const { pastKeyValues } = await model.forward({ inputIds: [1, 20 + (i % 100)], useCache: true });
        pastKeyValues?.dispose();
      },
      async () => (await model.restore(saved)).dispose(),
    ];
    await staysFlat(
      pick({ gate: 300, full: 10_000 }),
      async (i) => void (await kinds[i % kinds.length]?.(i)),
      async () => {
        const { memoryBytes, openSessions, usedPages } = await model.status();
        assert.deepEqual([openSessions, usedPages], [0, 0]);
        assert.equal(memoryBytes, (await alive()).linear, "the model's memory is the only one");
        return memoryBytes;
      },
    );
    await (async () => void (await model.forward({ inputIds: [1, 20], useCache: true })))();
    assert.equal((await model.status()).openSessions, 1);
    await alive();
    assert.equal((await model.status()).openSessions, 0, "a cache that is collected gives its sessions back");
    model.dispose();
  });
});
