// What a load and a call hold while they run and give back when they end, well or badly: files, listeners on signals, memory beside the model.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GenerateOptions, inspect, type LoadOptions, load, type Model, type ModelSource } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { openPath } from "../../src/adapters/node/files.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { ByteSource, Folder } from "../../src/weights/source.ts";
import { validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { PART_NAMES, SHARD_NAMES, writeFiles } from "../bad-files/write.ts";
import { checkpointFolder, ggufFile, kernels } from "../golden/support.ts";
import { Watch } from "./watched-source.ts";

const MINI = join("models", "lfm2-mini");
const STORY = "Tell me a story about a fox.";

describe("files", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-resources-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** A folder like the tiny model's, after `change` has been at it. */
  function folder(name: string, change: (dir: string) => void): string {
    const to = join(dir, name);
    rmSync(to, { recursive: true, force: true });
    cpSync(checkpointFolder("tiny-deep"), to, { recursive: true });
    change(to);
    return to;
  }

  function sharded(name: string, change: (dir: string) => void): string {
    const to = writeFiles(join(dir, `shards-${name}`), validSharded());
    change(to);
    return to;
  }

  function split(name: string, change: (dir: string) => void): string {
    const to = writeFiles(join(dir, `split-${name}`), validSplit());
    change(to);
    return to;
  }

  function gguf(name: string, change: (bytes: Buffer) => Uint8Array): string {
    const to = join(dir, name);
    writeFileSync(to, change(readFileSync(ggufFile("tiny-quant", "Q8_0"))));
    return to;
  }

  /** safetensors of the tiny model with another header. */
  function reheaded(dir: string, change: (header: string) => string): void {
    const path = join(dir, "model.safetensors");
    const bytes = readFileSync(path);
    const end = 8 + Number(bytes.readBigUInt64LE(0));
    const header = Buffer.from(change(bytes.toString("utf8", 8, end)));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(header.length));
    writeFileSync(path, Buffer.concat([size, header, bytes.subarray(end)]));
  }

  interface Case {
    readonly what: string;
    readonly path: () => string;
    readonly options?: LoadOptions;
    /** Name of the error, or none. */
    readonly error?: string;
  }

  /** Fires so many turns of the event loop after the first window: each window takes one. */
  const abortAfter = (turns: number): LoadOptions => {
    const control = new AbortController();
    const tick = (left: number): void => void (left === 0 ? control.abort() : setImmediate(tick, left - 1));
    let seen = 0;
    return { signal: control.signal, onProgress: () => seen++ === 0 && tick(turns) };
  };
  const cut = (bytes: number) => (dir: string) => truncateSync(join(dir, "model.safetensors"), bytes);
  const cases: readonly Case[] = [
    { what: "a folder", path: () => MINI },
    { what: "a GGUF", path: () => join("dist", "mini.gguf") },
    { what: "a folder without tokenizer", path: () => checkpointFolder("tiny-gqa3") },
    {
      what: "a missing tensor",
      path: () => folder("missing", (d) => reheaded(d, (h) => h.replace("layers.3.ffn_norm", "layers.3.ffn_morn"))),
      error: "FormatError",
    },
    {
      what: "a wrong shape",
      path: () => folder("shape", (d) => reheaded(d, (h) => h.replace("[64,1,3]", "[1,64,3]"))),
      error: "FormatError",
    },
    { what: "a header that is no JSON", path: () => folder("json", (d) => reheaded(d, (h) => h.replace('"', "'"))), error: "FormatError" },
    { what: "cut weights", path: () => folder("cut", cut(100_000)), error: "FormatError" },
    { what: "a cut header", path: () => folder("cut-header", cut(500)), error: "FormatError" },
    { what: "empty weights", path: () => folder("empty", cut(0)), error: "FormatError" },
    { what: "no weights", path: () => folder("no-weights", (d) => rmSync(join(d, "model.safetensors"))), error: "FormatError" },
    { what: "no config", path: () => folder("no-config", (d) => rmSync(join(d, "config.json"))), error: "FormatError" },
    {
      what: "shards",
      path: () =>
        folder("shards", (d) => {
          rmSync(join(d, "model.safetensors"));
          writeFileSync(join(d, "model.safetensors.index.json"), "{}");
        }),
      error: "FormatError",
    },
    { what: "shards that load", path: () => sharded("whole", () => {}) },
    {
      what: "a shard that is not there",
      path: () => sharded("missing-shard", (d) => rmSync(join(d, SHARD_NAMES[1]))),
      error: "FormatError",
    },
    { what: "a cut shard", path: () => sharded("cut-shard", (d) => truncateSync(join(d, SHARD_NAMES[1]), 5000)), error: "FormatError" },
    {
      what: "a split GGUF, by its second part",
      path: () =>
        join(
          split("parts", () => {}),
          PART_NAMES[1],
        ),
    },
    { what: "a folder with a split GGUF", path: () => split("parts", () => {}) },
    {
      what: "a part that is not there",
      path: () =>
        join(
          split("missing", (d) => rmSync(join(d, PART_NAMES[0]))),
          PART_NAMES[1],
        ),
      error: "FormatError",
    },
    {
      what: "a cut part",
      path: () =>
        join(
          split("cut", (d) => truncateSync(join(d, PART_NAMES[1]), 500)),
          PART_NAMES[0],
        ),
      error: "FormatError",
    },
    { what: "a bad config", path: () => folder("config", (d) => writeFileSync(join(d, "config.json"), "{")), error: "FormatError" },
    {
      what: "a bad tokenizer",
      path: () => folder("tokenizer", (d) => writeFileSync(join(d, "tokenizer.json"), "{}")),
      error: "FormatError",
    },
    {
      what: "a bad generation_config",
      path: () => folder("generation", (d) => writeFileSync(join(d, "generation_config.json"), "[]")),
      error: "FormatError",
    },
    {
      what: "a folder where a file should be",
      path: () =>
        folder("nested", (d) => {
          rmSync(join(d, "config.json"));
          mkdirSync(join(d, "config.json"));
        }),
      error: "StorageError",
    },
    { what: "a file that is no model", path: () => "package.json", error: "FormatError" },
    { what: "a cut GGUF", path: () => gguf("cut.gguf", (b) => b.subarray(0, b.length - 1000)), error: "FormatError" },
    { what: "a GGUF cut in its header", path: () => gguf("cut-header.gguf", (b) => b.subarray(0, 300)), error: "FormatError" },
    { what: "an empty file", path: () => gguf("empty.gguf", (b) => b.subarray(0, 0)), error: "FormatError" },
    {
      what: "a GGUF with weights that are not finite",
      path: () => gguf("nan.gguf", (b) => b.fill(0xff, b.length - 4000)),
      error: "FormatError",
    },
    { what: "a context that the model has not", path: () => MINI, options: { maxContextTokens: 4096 }, error: "InputError" },
    { what: "too little memory", path: () => MINI, options: { maxMemoryBytes: 1 << 20 }, error: "MemoryError" },
    { what: "a signal that has fired", path: () => MINI, options: { signal: AbortSignal.abort() }, error: "AbortError" },
    { what: "a signal at the first window", path: () => MINI, options: abortAfter(0), error: "AbortError" },
    { what: "a signal half-way, GGUF", path: () => join("dist", "mini.gguf"), options: abortAfter(4), error: "AbortError" },
    { what: "a listener that throws", path: () => MINI, options: { onProgress: () => assert.fail("enough") }, error: "AssertionError" },
  ];

  async function run(source: ModelSource, { options, error, what }: Case): Promise<void> {
    if (error) await assert.rejects(load(source, options), { name: error }, what);
    else (await load(source, options)).dispose();
  }

  it("are closed, whatever becomes of the load: every source of a folder or file", async () => {
    let handed = 0;
    for (const each of cases) {
      const path = each.path();
      const watch = new Watch();
      await run(watch.wrap(await openPath(path)), each);
      handed += watch.closed.size;
      assert.deepEqual([watch.open, each.what], [0, each.what], JSON.stringify([...watch.closed]));
      if (each.error && each.error !== "FormatError") continue;
      const looked = new Watch();
      await inspect(looked.wrap(await openPath(path))).catch((error: Error) => assert.equal(error.name, "FormatError", each.what));
      assert.deepEqual([looked.open, each.what], [0, each.what], "inspect");
    }
    assert.ok(handed > 2 * cases.length, `${handed} sources in all`);
  });

  it("are no more open in the process than before", async () => {
    assert.ok(existsSync("/proc/self/fd") || process.platform !== "linux");
    if (process.platform !== "linux") return; // the test above counts on every system
    // Node would close a forgotten file with the garbage, and say so
    const warnings: string[] = [];
    const warned = (warning: Error): number => warnings.push(warning.message);
    process.on("warning", warned);
    const count = (): number => readdirSync("/proc/self/fd").length;
    await run(MINI, { what: "warm up", path: () => MINI });
    const start = count();
    for (const each of cases) {
      const path = each.path();
      await run(path, each);
      assert.deepEqual([count(), each.what], [start, each.what]);
      await inspect(path).catch(() => {});
      assert.deepEqual([count(), each.what], [start, each.what], "inspect");
    }
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off("warning", warned);
    assert.deepEqual(warnings, []);
  });
});

describe("listeners on a signal", () => {
  let model: Model;
  before(async () => {
    model = await load(mini);
  });
  after(() => model.dispose());

  it("are taken off again by every call, well or badly ended", async () => {
    const control = new AbortController();
    const { signal } = control;
    let added = 0;
    const add = signal.addEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>): void => {
      added++;
      add(...args);
    };
    const short: GenerateOptions = { signal, maxTokens: 4 };
    const calls: readonly (readonly [string, () => Promise<unknown>])[] = [
      ["generate", () => model.generate(STORY, short)],
      ["generate at once", () => Promise.all([1, 2, 3].map(() => model.generate(STORY, short)))],
      ["a prompt too long", () => assert.rejects(model.generate("fox ".repeat(3000), short), { name: "InputError" })],
      ["no prompt", () => assert.rejects(model.generate(new Uint32Array(0), short), { name: "InputError" })],
      [
        "a stream that is left",
        async () => {
          for await (const part of model.stream(STORY, { signal })) if (part.type === "text-delta") break;
        },
      ],
      ["a stream that nobody reads", async () => void model.stream(STORY, { signal })],
      ["forward", () => model.forward({ inputIds: [1, 20, 21], signal })],
      ["forward without ids", () => assert.rejects(model.forward({ inputIds: [], signal }), { name: "InputError" })],
      ["load", async () => (await load(mini, { signal })).dispose()],
      ["a load that fails", () => assert.rejects(load("package.json", { signal }), { name: "FormatError" })],
      ["inspect", () => inspect(MINI, { signal })],
      [
        "turns of a chat that wait for each other",
        async () => {
          const chat = model.chat();
          await Promise.all([STORY, "What is my name?", "Hi"].map((text) => chat.prompt(text, short)));
          chat.dispose();
        },
      ],
      [
        "a chat that is disposed meanwhile",
        async () => {
          const chat = model.chat();
          const turns = Promise.allSettled([STORY, "Hi"].map((text) => chat.prompt(text, { signal })));
          await new Promise((resolve) => setTimeout(resolve, 5));
          chat.dispose();
          assert.ok((await turns).every(({ status }) => status === "rejected"));
        },
      ],
      [
        "a model that is disposed meanwhile",
        async () => {
          const gone = await load(mini, { signal });
          const calls = Promise.allSettled([
            gone.generate(STORY, { signal }),
            gone.forward({ inputIds: new Uint32Array(600).fill(20), signal }),
            gone.chat().prompt("Hi", { signal }),
          ]);
          gone.dispose();
          assert.ok((await calls).every(({ status }) => status === "rejected"));
        },
      ],
    ];
    for (let round = 0; round < 3; round++) {
      for (const [what, call] of calls) {
        await call();
        await new Promise((resolve) => setTimeout(resolve, 5)); // what is left or disposed ends a moment later
        assert.deepEqual([getEventListeners(signal, "abort").length, what], [0, what]);
      }
    }
    assert.ok(added >= 3 * 12, `only ${added} listeners came at all`);
  });

  it("are taken off when it fires", async () => {
    const control = new AbortController();
    const { signal } = control;
    const chat = model.chat();
    const calls = Promise.allSettled([
      model.generate(STORY, { signal, stopIds: [] }),
      model.forward({ inputIds: new Uint32Array(2000).fill(20), signal }),
      chat.prompt(STORY, { signal, stopIds: [] }),
      chat.prompt("Hi", { signal }),
    ]);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(getEventListeners(signal, "abort").length, 4);
    control.abort();
    assert.ok((await calls).every((c) => c.status === "rejected" && c.reason.name === "AbortError"));
    assert.equal(getEventListeners(signal, "abort").length, 0);
    chat.dispose();
  });
});

describe("the peak of a load", () => {
  /** Beside the model, a load may hold one window in JavaScript; what is small and comes and goes counts to the rest. */
  const SLACK = 3 << 20;

  /** Without `readInto`: every answer is a new array. */
  const plain = (source: ByteSource): ByteSource => ({
    name: source.name,
    size: source.size,
    read: (offset, length, signal) => source.read(offset, length, signal),
    close: async () => source.close?.(),
  });

  for (const [what, wrap] of [
    ["a file", (s: ByteSource) => s],
    ["a source that only reads", plain],
  ] as const) {
    it(`is the final size and one window, at every moment: ${what}`, async () => {
      const gc = globalThis.gc ?? assert.fail("run with --expose-gc");
      const folder = (await openPath(checkpointFolder("mid"))) as Folder;
      const open = async (path: string): Promise<ByteSource | undefined> => {
        const source = await folder.open(path);
        return source && wrap(source);
      };
      const checkpoint = await openCheckpoint({ name: folder.name, open });
      const used = (): { arrays: number; all: number } => {
        gc();
        const { arrayBuffers, external, heapUsed } = process.memoryUsage();
        return { arrays: arrayBuffers, all: external + heapUsed };
      };
      const before = used();
      const most = { arrays: 0, all: 0 };
      let samples = 0;
      let last = 0;
      const look = (): void => {
        samples++;
        const now = used();
        most.arrays = Math.max(most.arrays, now.arrays - before.arrays);
        most.all = Math.max(most.all, now.all - before.all);
      };
      const { model, plan } = await loadModel(checkpoint, kernels, {
        onProgress: ({ loadedBytes, totalBytes }) => {
          if (loadedBytes - last < 1 << 20 && loadedBytes < totalBytes) return;
          last = loadedBytes;
          look();
        },
      });
      look();
      const weights = plan.items.find((i) => i.what === "weights")?.bytes ?? 0;
      assert.ok(weights > 12 * SLACK && samples > 30, `${weights} bytes of weights, ${samples} samples`);
      assert.ok(plan.windowBytes < 2 << 20);
      // `arrayBuffers` counts what JavaScript allocates and no WebAssembly memory: here a copy of the file would show
      assert.ok(most.arrays <= plan.windowBytes + SLACK, `${most.arrays} bytes of arrays beside the model`);
      // `external` counts WebAssembly memory too (until Node 24): here a second memory would show
      assert.ok(most.all <= plan.totalBytes + plan.windowBytes + 2 * SLACK, `${most.all} bytes in all, ${plan.totalBytes} planned`);
      assert.ok(model.memoryBytes <= plan.totalBytes + SLACK);
      await checkpoint.close();
    });
  }
});
