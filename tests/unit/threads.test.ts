// Threads: how many, what happens when one cannot start, traps, or is killed, and that nothing is left behind: no busy core, no process that does not end.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import os, { availableParallelism } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import workerThreads, { type Worker } from "node:worker_threads";
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { presetOf } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { tensorList } from "../../scripts/checkpoints/presets.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { threadsOf } from "../../src/adapters/node/threads.ts";
import { OP } from "../../src/kernels/commands.ts";
import type { ThreadSource } from "../../src/kernels/threads.ts";
import { loadWith, threadOptions } from "../../src/lfm2.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { checkpointFolder, kernels, threads } from "../golden/support.ts";
import { instantiate, startHelpers, threaded } from "../kernels/harness.ts";
import { pick } from "../scale.ts";

const STORY = "Tell me a story about a fox.";
const endless = { stopIds: [], temperature: 0 };
/** Of the processor's time after a reply: what two helpers poll, twenty times over. */
const IDLE_MS = 10;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Blocks this thread, so that no event reaches it. */
const block = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** Workers that the package has started since `watchWorkers`, those that ended included. */
const started: Worker[] = [];
const running = (): number => started.filter((w) => w.threadId !== -1).length;
async function allEnded(): Promise<void> {
  for (let i = 0; i < 500 && running() > 0; i++) await sleep(10);
  assert.equal(running(), 0, "threads that go on");
}

describe("threads", () => {
  const { Worker: original } = workerThreads;
  before(() => {
    workerThreads.Worker = class extends original {
      constructor(...args: ConstructorParameters<typeof original>) {
        super(...args);
        started.push(this);
      }
    };
    syncBuiltinESMExports();
  });
  after(() => {
    workerThreads.Worker = original;
    syncBuiltinESMExports();
  });
  beforeEach(() => void started.splice(0));

  describe("how many", () => {
    const source = (available: number): ThreadSource => ({ available: () => available, spawn: () => assert.fail("not yet") });
    const count = (...args: Parameters<typeof threadOptions>): number => threadOptions(...args)?.count ?? 1;

    it("auto: as many as there are, at most 8, fewer for a small model, one where there are none", () => {
      const big = 350e6;
      for (const [available, expected] of [
        [1, 1],
        [2, 2],
        [6, 6],
        [64, 8],
      ] as const)
        assert.equal(count(source(available), "auto", big), expected);
      assert.equal(count(source(4), undefined, big), 4);
      assert.equal(count(undefined, "auto", big), 1);
      assert.deepEqual(
        [4e6, 63e6, 64e6, 130e6].map((parameters) => count(source(64), "auto", parameters)),
        [1, 1, 2, 4],
      );
    });

    it("a number: that many, or an error", () => {
      assert.deepEqual([count(source(2), 5, 4e6), count(source(2), 1, 350e6), count(undefined, 1)], [5, 1, 1]);
      assert.throws(() => threadOptions(undefined, 2), {
        name: "PlatformError",
        code: "no-threads",
        message: /threads: 2.*Pass threads: 1/,
      });
    });

    it("is told by the model, and starts no more workers than that", async () => {
      for (const [threads, expected] of [
        [1, 1],
        [2, 2],
        [3, 3],
        ["auto", 1], // the bundled model is small
      ] as const) {
        const model = await load(mini, { threads });
        assert.deepEqual([model.info.threads, running()], [expected, expected - 1]);
        assert.ok((await model.generate(STORY)).text.includes("fox"));
        model.dispose();
        await allEnded();
      }
    });

    it("auto takes every core that the process has for a model of 64 M parameters and more", () => {
      const { availableParallelism: real } = os;
      const node = (): ThreadSource => threadsOf(pathToFileURL(join("dist", "thread.js")));
      const parameters = (shape: string): number =>
        tensorList(presetOf(shape)).reduce((sum, tensor) => sum + tensor.shape.reduce((a, b) => a * b, 1), 0);
      assert.equal(node().available(), availableParallelism());
      assert.equal(count(node(), "auto", parameters("350m")), Math.min(8, availableParallelism()));
      try {
        for (const [cores, expected] of [
          [1, 1],
          [2, 2],
          [5, 5],
          [96, 8],
        ] as const) {
          os.availableParallelism = () => cores;
          syncBuiltinESMExports();
          assert.equal(node().available(), cores);
          assert.deepEqual(
            ["350m", "mid"].map((shape) => count(node(), "auto", parameters(shape))),
            [expected, 1],
          );
        }
      } finally {
        os.availableParallelism = real;
        syncBuiltinESMExports();
      }
    });

    it("auto is what a load does: a model of 350 M parameters takes every core", async function () {
      if (pick({ gate: true, full: false })) this.skip(); // makes and reads 700 MB
      const model = await load(checkpointFolder("350m"));
      assert.equal(model.info.threads, Math.min(8, availableParallelism()));
      assert.equal(running(), model.info.threads - 1);
      model.dispose();
      await allEnded();
    });
  });

  describe("that cannot start", () => {
    const missing = threadsOf(pathToFileURL(join("dist", "no-such-thread.js")));
    const refusing: ThreadSource = {
      available: () => 2,
      spawn: () => {
        throw new Error("no workers here");
      },
    };
    /** Says that it serves, and begins no step: so does one that others keep from the cores for seconds. */
    const late: ThreadSource = { available: () => 2, spawn: () => ({ ready: Promise.resolve(), end: () => {} }) };
    const attempt = async (source: ThreadSource, isRequired: boolean): Promise<number> => {
      const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-deep")));
      try {
        const { model } = await loadModel(checkpoint, kernels, { threads: { count: 2, source, isRequired } });
        const cache = model.openCache();
        model.step([{ cache, ids: [1, 2, 3] }], { logitsOf: [2] });
        assert.ok(model.logits().isFinite());
        model.dispose();
        return model.threads;
      } finally {
        await checkpoint.close();
      }
    };

    for (const [what, source, reason] of [
      ["a file that is not there", missing, /no-such-thread/],
      ["a runtime that refuses", refusing, /no workers here/],
      ...pick({ gate: [], full: [["one that begins too late", late, /did not begin/] as const] }), // takes 7 seconds
    ] as const)
      it(`${what}: one thread when that will do, else a PlatformError`, async () => {
        assert.equal(await attempt(source, false), 1);
        await assert.rejects(attempt(source, true), { name: "PlatformError", code: "no-threads", message: reason });
        await allEnded();
      });

    it("a runtime without: one thread, or a PlatformError", async () => {
      const platform = { runtime: "node", open: openPath, kernels } as const;
      const model = await loadWith(platform, mini, { threads: "auto" });
      assert.equal(model.info.threads, 1);
      model.dispose();
      await assert.rejects(loadWith(platform, mini, { threads: 2 }), { name: "PlatformError", code: "no-threads" });
    });

    it("a load that is aborted or fails leaves no thread", async () => {
      const control = new AbortController();
      const loading = load(mini, { threads: 3, signal: control.signal, onProgress: () => control.abort() });
      await assert.rejects(loading, { name: "AbortError" });
      assert.equal(started.length, 2);
      await allEnded();
    });
  });

  describe("a helper that traps", () => {
    for (const variant of threaded)
      it(`ends the step for all, and the next one works (${variant.name}, ${variant.threads} threads)`, () => {
        const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
        const k = instantiate(variant.module, memory);
        const [workers, helpers] = [startHelpers(variant, memory, k), variant.threads - 1];
        const words = new Int32Array(memory.buffer);
        const commands = 65_536;
        const half = 1024;
        const copy = (dst: number): void => void words.set([OP.copy, dst, 2 * 65_536, half * variant.threads], commands / 4);
        words.fill(7, 32_768, 32_768 + half);
        for (let round = 1; round <= 3; round++) {
          // thread 0's share ends where the memory ends: only the others' lie beyond it
          copy(4 * 65_536 - half);
          assert.equal(k.run_all(commands, 1, variant.threads), 1);
          assert.equal(k.recover(helpers * (round + 1)), 1);
          copy(3 * 65_536);
          words.fill(0, 49_152);
          assert.equal(k.run_all(commands, 1, variant.threads), 0);
          assert.ok(words.subarray(49_152, 49_152 + (half * variant.threads) / 4).every((word, i) => word === words[32_768 + i]));
        }
        for (const worker of workers) void worker.terminate();
      });
  });

  describe("a helper that is gone", () => {
    const stopped = {
      name: "PlatformError",
      code: "thread-stopped",
      message: /^\[lfm2\] threads: expected .*got .*Load the model again\.$/,
    };

    it("between two calls: the next one says so, and every later one; the rest ends with it", async () => {
      const model = await load(mini, { threads: 3 });
      await model.generate(STORY, { maxTokens: 5 });
      await started[0]?.terminate();
      for (let i = 0; i < 3; i++) await assert.rejects(model.generate(STORY), stopped);
      await assert.rejects(model.forward({ inputIds: [1, 2, 3] }), stopped);
      await allEnded();
      model.dispose();
    });

    it("during a turn: the turn ends with the error", async () => {
      const model = await load(mini, { threads: 2 });
      const turn = model.generate(STORY, { ...endless, maxTokens: 100_000 });
      const ends = assert.rejects(turn, stopped);
      await sleep(30);
      void started[0]?.terminate();
      await ends;
      model.dispose();
      await allEnded();
    });

    it("while this thread can hear nothing: the step ends nevertheless", async function () {
      this.timeout(60_000);
      const [variant] = threaded;
      assert.ok(variant);
      const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
      const k = instantiate(variant.module, memory);
      const [worker] = startHelpers(variant, memory, k);
      assert.equal(k.run_all(65_536, 4, 2), 0); // four nops
      void worker?.terminate();
      block(300);
      const start = performance.now();
      assert.equal(k.run_all(65_536, 4, 2), 1);
      assert.ok(performance.now() - start < 10_000);
      assert.equal(k.recover(2), 0);
    });

    it("in the middle of a step: the same, later", async function () {
      if (pick({ gate: true, full: false })) this.skip(); // takes 15 seconds
      this.timeout(120_000);
      const [variant] = threaded;
      assert.ok(variant);
      const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
      const k = instantiate(variant.module, memory);
      // a helper that does one command of the step, then nothing more
      const file = `const { workerData: { module, memory } } = require("node:worker_threads");
        const k = new WebAssembly.Instance(module, { env: { memory, abort() {} } }).exports;
        k.ready(); k.run(65536, 1, 1, 2);`;
      new workerThreads.Worker(file, { eval: true, workerData: { module: variant.module, memory } });
      assert.equal(k.recover(1), 1);
      assert.equal(k.run_all(65_536, 4, 2), 1);
      assert.equal(k.recover(2), 0);
    });
  });

  describe("leave nothing behind", () => {
    it("no result lies in shared memory", async () => {
      const model = await load(mini, { threads: 2 });
      const { logits, hiddenStates } = await model.forward({ inputIds: [1, 20, 30], outputHiddenStates: true });
      const { tokens } = await model.generate(STORY, { maxTokens: 3 });
      for (const { buffer } of [logits.data, tokens, ...(hiddenStates ?? []).map((h) => h.data)]) assert.ok(buffer instanceof ArrayBuffer);
      model.dispose();
    });

    it("an idle pool takes no time of a core, from the end of a reply on", async () => {
      const model = await load(mini, { threads: 3 });
      // two helpers poll for 0.2 ms each. What else comes, of the compiler and the collector, does not come every time: polling does
      let least = Number.POSITIVE_INFINITY;
      for (let i = 0; i < 8 && least > IDLE_MS; i++) {
        await model.generate(STORY, { maxTokens: 20 });
        const before = process.cpuUsage();
        await sleep(400);
        const { user, system } = process.cpuUsage(before);
        least = Math.min(least, (user + system) / 1000);
      }
      assert.ok(least <= IDLE_MS, `${least} ms of 400`);
      model.dispose();
    });

    it("many models in turn, and several at once", async () => {
      for (let i = 0; i < pick({ gate: 10, full: 100 }); i++) {
        const model = await load(mini, { threads: 2 });
        assert.equal((await model.generate(STORY, { maxTokens: 2 })).tokens.length, 2);
        model.dispose();
      }
      await allEnded();
      const models = await Promise.all(Array.from({ length: 8 }, () => load(mini, { threads: 2 })));
      const texts = await Promise.all(models.map((m) => m.generate(STORY, { maxTokens: 10 })));
      assert.equal(new Set(texts.map((t) => t.text)).size, 1);
      for (const model of models) model.dispose();
      await allEnded();
    });

    it("a model that was forgotten instead of disposed of", async () => {
      const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-deep")));
      await (async () => {
        const { model } = await loadModel(checkpoint, kernels, { threads: threads(2) });
        model.step([{ cache: model.openCache(), ids: [1, 2, 3] }]);
      })();
      await checkpoint.close();
      assert.equal(running(), 1);
      for (let i = 0; i < 100 && running() > 0; i++) {
        globalThis.gc?.();
        await sleep(20);
      }
      assert.equal(running(), 0);
    });

    /** Runs a program that uses the package. @returns its exit code; the program must end by itself */
    const program = (body: string): Promise<{ code: number | null; stderr: string }> =>
      new Promise((resolve) => {
        const head = `import { load } from "lfm2-wasm"; import { mini } from "lfm2-wasm/mini"; const model = await load(mini, { threads: 3 });
          if (model.info.threads !== 3) throw new Error("no threads");`;
        const child = spawn(process.execPath, ["--input-type=module", "-e", `${head} ${body}`], { stdio: ["ignore", "ignore", "pipe"] });
        let stderr = "";
        child.stderr.on("data", (text) => {
          stderr += text;
        });
        const timer = setTimeout(() => child.kill("SIGKILL"), 60_000);
        child.on("exit", (code) => {
          clearTimeout(timer);
          resolve({ code, stderr });
        });
      });

    it("a build is compiled once, for all loads and their threads", async () => {
      // in a program of its own, where nothing has been compiled before
      const body = `import workerThreads from "node:worker_threads"; import { syncBuiltinESMExports } from "node:module";
        const compiled = []; const given = [];
        const { compile, Module } = WebAssembly;
        WebAssembly.compile = async (bytes) => { const module = await compile(bytes); compiled.push({ module, bytes: bytes.length }); return module; };
        workerThreads.Worker = class extends workerThreads.Worker { constructor(file, options) { super(file, options); given.push(options.workerData.module); } };
        syncBuiltinESMExports();
        const { load } = await import("lfm2-wasm"); const { mini } = await import("lfm2-wasm/mini");
        for (let i = 0; i < 2; i++) { const model = await load(mini, { threads: 3 }); await model.generate("Hi", { maxTokens: 2 }); model.dispose(); }
        const chosen = compiled.at(-1).module;
        console.log(JSON.stringify({ bytes: compiled.map(({ bytes }) => bytes), given: given.length, same: given.every((module) => module instanceof Module && module === chosen) }));`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", body], { stdio: ["ignore", "pipe", "inherit"] });
      let said = "";
      child.stdout.on("data", (text) => {
        said += text;
      });
      await new Promise((resolve) => child.once("close", resolve));
      const { bytes, ...threads } = JSON.parse(said) as { bytes: number[]; given: number; same: boolean };
      assert.deepEqual(threads, { given: 4, same: true });
      // a relaxed build that is not exact here would be compiled before the plain one: each once
      assert.ok(bytes.length >= 1 && new Set(bytes).size === bytes.length, bytes.join());
    });

    for (const [what, body] of [
      ["after a load", ""],
      ["after a reply", `await model.generate("Hi", { maxTokens: 5 });`],
      ["after a reply and dispose", `await model.generate("Hi", { maxTokens: 5 }); model.dispose();`],
      [
        "after an abort",
        `const signal = AbortSignal.timeout(30); await model.generate("Hi", { signal, stopIds: [], maxTokens: 1e6 }).catch((e) => { if (e.name !== "AbortError") throw e; });`,
      ],
      ["in the middle of a stream", `for await (const part of model.stream("Hi")) if (part.type === "text-delta") break;`],
    ] as const)
      it(`a program ends by itself ${what}`, async () => {
        assert.deepEqual(await program(body), { code: 0, stderr: "" });
      });
  });
});
