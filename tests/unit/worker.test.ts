// The engine in a worker: what crosses to it and how, that this thread goes on meanwhile, what happens when it ends, and that nothing is left behind.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import workerThreads, { type Worker } from "node:worker_threads";
import { type ByteSource, type Folder, type LoadOptions, load, type Model } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { openPath } from "../../src/adapters/node/files.ts";
import { workersOf } from "../../src/adapters/node/workers.ts";
import { loadModelWith } from "../../src/remote/load.ts";
import { kernels } from "../golden/support.ts";
import { checkAborts, run as runAborts } from "../runtimes/abort.page.mjs";
import { withCount } from "../runtimes/count-steps.mjs";
import { pick } from "../scale.ts";
import { Watch } from "./watched-source.ts";

const STORY = "Tell me a story about a fox.";
const endless = { stopIds: [], temperature: 0, maxTokens: 100_000 };
const inWorker = (options: LoadOptions = {}): LoadOptions => ({ engine: "worker", ...options });
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const bytes = new Uint8Array(readFileSync(mini));

/** Workers that the package has started since the test began. */
const started: Worker[] = [];
/** Whether they count the calls of their kernels. */
let isCounted = false;
const counted = (file: string | URL): URL =>
  new URL(`data:text/javascript,${encodeURIComponent(withCount("worker.js", `await import(${JSON.stringify(String(file))});`))}`);
const running = (): number => started.filter((w) => w.threadId !== -1).length;
async function allEnded(): Promise<void> {
  for (let i = 0; i < 500 && running() > 0; i++) await sleep(10);
  assert.equal(running(), 0, "workers that go on");
}

describe("engine in a worker", () => {
  const { Worker: original } = workerThreads;
  let here: Model;
  let story: string;
  before(async () => {
    workerThreads.Worker = class extends original {
      constructor(...[file, options]: ConstructorParameters<typeof original>) {
        super(isCounted ? counted(file) : file, options);
        started.push(this);
      }
    };
    syncBuiltinESMExports();
    here = await load(mini, { prefixCacheBytes: 0 });
    story = (await here.generate(STORY)).text;
  });
  after(() => {
    here.dispose();
    workerThreads.Worker = original;
    syncBuiltinESMExports();
  });
  beforeEach(() => void started.splice(0));
  afterEach(allEnded);

  async function tells(source: Parameters<typeof load>[0], options?: LoadOptions): Promise<void> {
    const model = await load(source, inWorker(options));
    assert.equal(model.info.engine, "worker");
    assert.equal((await model.generate(STORY)).text, story);
    model.dispose();
  }

  it("is asked for by name, and told by the model", async () => {
    assert.equal(here.info.engine, "here");
    const model = await load(mini, inWorker());
    const { engine, ...info } = model.info;
    const { engine: _, ...expected } = here.info;
    assert.deepEqual(info, expected);
    assert.equal(engine, "worker");
    assert.equal(started.length, 1);
    model.dispose();
    await assert.rejects(load(mini, { engine: "moon" as "here" }), { name: "InputError", message: /engine.*"here", "worker", "auto"/ });
  });

  it("this thread's event loop goes on while a prompt is read", async () => {
    const model = await load(mini, inWorker({ prefixCacheBytes: 0 }));
    const prompt = Uint32Array.from({ length: 1024 }, (_, i) => 20 + ((i * 7) % 400));
    const turnsDuring = async (what: Model): Promise<number> => {
      let turns = 0;
      let isOver = false;
      const turn = (): void => {
        turns++;
        if (!isOver) setImmediate(turn);
      };
      setImmediate(turn);
      await what.generate(prompt, { maxTokens: 1 });
      isOver = true;
      return turns;
    };
    await turnsDuring(model); // warm
    assert.ok((await turnsDuring(here)) < 200, "the other engine is not asynchronous after all");
    const turns = await turnsDuring(model);
    assert.ok(turns > 1000, `${turns} turns of the event loop`);
    model.dispose();
  });

  it("an abort acts within one step", async () => {
    const aborts = pick({ gate: 2, full: 100 });
    const names = pick({ gate: ["generate()", "a stream whose reader stalls", "forward()"], full: undefined });
    isCounted = true;
    try {
      checkAborts(await runAborts({}, { aborts, seed: 3, names }), aborts);
    } finally {
      isCounted = false;
    }
  });

  it("gives the same with threads of its own", async () => {
    const model = await load(mini, inWorker({ threads: 2 }));
    assert.deepEqual([model.info.threads, model.info.engine], [2, "worker"]);
    assert.equal((await model.generate(STORY)).text, story);
    model.dispose();
  });

  describe("sources", () => {
    it("bytes, whole or a view on a part", async () => {
      const copy = new Uint8Array(bytes.length + 7);
      copy.set(bytes, 7);
      await tells(copy.subarray(7));
      assert.equal(copy[7], bytes[0], "the caller's bytes have moved away");
      await tells(bytes.slice().buffer);
    });

    it("an object that reads by ranges: small ones, one after the other, closed at the end", async () => {
      const watch = new Watch();
      let most = 0;
      let atOnce = 0;
      let mostAtOnce = 0;
      const file = watch.wrap(await openPath(mini)) as ByteSource;
      const source: ByteSource = {
        name: file.name,
        size: file.size,
        read: async (offset, length, signal) => {
          most = Math.max(most, length);
          mostAtOnce = Math.max(mostAtOnce, ++atOnce);
          try {
            return await file.read(offset, length, signal);
          } finally {
            atOnce--;
          }
        },
        close: () => file.close?.() ?? Promise.resolve(),
      };
      await tells(source);
      assert.ok(watch.reads > 3 && most <= 4 << 20 && mostAtOnce === 1, JSON.stringify({ reads: watch.reads, most, mostAtOnce }));
      assert.deepEqual([...watch.closed.values()], [1]);
    });

    it("a folder of such", async () => {
      const watch = new Watch();
      const exact = await load("models/lfm2-mini");
      const model = await load(watch.wrap(await openPath("models/lfm2-mini")) as Folder, inWorker());
      assert.equal((await model.generate(STORY)).text, (await exact.generate(STORY)).text);
      assert.ok(watch.closed.size >= 3 && watch.open === 0, JSON.stringify([...watch.closed]));
      model.dispose();
      exact.dispose();
    });

    it("one that fails, or gives what is no bytes", async () => {
      const broken = { name: "broken", size: bytes.length, read: () => Promise.reject(new RangeError("out of paper")) };
      await assert.rejects(load(broken, inWorker()), { message: "out of paper" });
      const odd = { name: "odd", size: bytes.length, read: async () => "GGUF" as never };
      await assert.rejects(load(odd, inWorker()), { name: "InputError", message: /odd: read: expected a Uint8Array/ });
    });

    it("a URL through a fetch of the caller's", async () => {
      const asked: string[] = [];
      const fetch: LoadOptions["fetch"] = async (url, { headers }) => {
        asked.push(`${url} ${headers.range}`);
        const [, from, to] = /bytes=(\d+)-(\d*)/.exec(headers.range ?? "") ?? assert.fail("no range");
        const end = Math.min(bytes.length, to === "" ? bytes.length : Number(to) + 1);
        return new Response(bytes.slice(Number(from), end), {
          status: 206,
          headers: { "content-range": `bytes ${from}-${end - 1}/${bytes.length}`, etag: '"v1"' },
        });
      };
      const progress: number[] = [];
      await tells("https://models.example/mini.gguf", { fetch, onProgress: ({ loadedBytes }) => progress.push(loadedBytes) });
      assert.ok(asked.length > 0 && asked.every((line) => line.startsWith("https://models.example/mini.gguf bytes=")));
      assert.ok(
        progress.length > 0 &&
          progress.at(-1) === progress.reduce((a, b) => Math.max(a, b)) &&
          progress.every((n, i) => n >= (progress[i - 1] ?? 0)),
      );
      const failing: LoadOptions["fetch"] = () => Promise.reject(new TypeError("no way out"));
      const unkept = "https://models.example/other.gguf"; // the first is kept by now
      await assert.rejects(load(unkept, inWorker({ fetch: failing, network: { maxRetries: 0 } })), { name: "NetworkError" });
    });
  });

  describe("ends", () => {
    it("a load that is aborted, or whose progress throws", async () => {
      const watch = new Watch();
      const source = watch.wrap(await openPath(mini)) as ByteSource;
      const control = new AbortController();
      const reason = new Error("enough");
      await assert.rejects(load(source, inWorker({ signal: control.signal, onProgress: () => control.abort(reason) })), (error: Error) => {
        return error.name === "AbortError" && error.cause === reason;
      });
      await allEnded();
      assert.equal(watch.open, 0, "the source was left open");
      const stop = (): never => {
        throw new RangeError("stop");
      };
      await assert.rejects(load(mini, inWorker({ onProgress: stop })), { name: "RangeError", message: "stop" });
    });

    it("errors cross as what they are", async () => {
      const model = await load(mini, inWorker());
      await assert.rejects(model.generate("fox ".repeat(3000)), (error: Error) => {
        assert.deepEqual([error.name, (error as { code?: string }).code], ["InputError", "context-full"]);
        assert.match(error.message, /^\[lfm2\] context: expected a prompt of at most 2048/);
        return true;
      });
      model.dispose();
    });

    it("a worker that dies: every call that waits, and every later one, is a PlatformError", async () => {
      const model = await load(mini, inWorker());
      const gone = { name: "PlatformError", code: "worker-ended", message: /^\[lfm2\] engine: expected .*got .*Load the model again\.$/ };
      const calls = [model.generate(STORY, endless), model.generate(STORY, endless), model.forward({ inputIds: new Array(2000).fill(30) })];
      const chat = model.chat();
      const reading = (async () => {
        for await (const part of chat.stream(STORY, endless)) if (part.type === "text-delta") void started[0]?.terminate();
      })();
      for (const call of [...calls, reading]) await assert.rejects(call, gone);
      await assert.rejects(model.generate(STORY), gone);
      await assert.rejects(model.status(), gone);
      model.dispose();
      chat.dispose();
    });

    it("a worker that cannot start", async () => {
      const missing = workersOf(pathToFileURL(join("dist", "no-such-worker.js")), "node");
      const platform = { runtime: "node", open: openPath, kernels } as const;
      const refused = { name: "PlatformError", code: "no-worker", message: /no-such-worker.*engine: "here"/ };
      await assert.rejects(loadModelWith(platform, missing, mini, { engine: "worker" }), refused);
      await assert.rejects(loadModelWith(platform, undefined, mini, { engine: "worker" }), { name: "PlatformError", code: "no-worker" });
      // where a worker is only the better place, here will do
      const model = await loadModelWith(platform, { ...missing, isDefault: true }, mini);
      assert.equal(model.info.engine, "here");
      model.dispose();
    });

    it("dispose ends it while it computes", async () => {
      const model = await load(mini, inWorker({ threads: 2 }));
      const call = model.generate(STORY, endless);
      const stream = model.stream(STORY, endless)[Symbol.asyncIterator]();
      await stream.next();
      model.dispose();
      await assert.rejects(call, { name: "AbortError", code: "disposed" });
      await assert.rejects(model.status(), { name: "AbortError", code: "disposed" });
    });

    it("a model that was forgotten instead of disposed of", async () => {
      await (async () => {
        await (await load(mini, inWorker())).generate(STORY, { maxTokens: 2 });
      })();
      assert.equal(running(), 1);
      for (let i = 0; i < 100 && running() > 0; i++) {
        globalThis.gc?.();
        await sleep(20);
      }
    });

    it("many in turn", async () => {
      for (let i = 0; i < pick({ gate: 5, full: 100 }); i++) await tells(mini);
    });

    /** Runs a program that uses the package. @returns its exit code; the program must end by itself */
    const program = (body: string): Promise<{ code: number | null; stderr: string }> =>
      new Promise((resolve) => {
        const head = `import { load } from "lfm2-wasm"; import { mini } from "lfm2-wasm/mini"; const model = await load(mini, { engine: "worker" });`;
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

    for (const [what, body] of [
      ["after a reply", `await model.generate("Hi", { maxTokens: 5 });`],
      [
        "after an abort",
        `const signal = AbortSignal.timeout(30); await model.generate("Hi", { signal, stopIds: [], maxTokens: 1e6 }).catch((e) => { if (e.name !== "AbortError") throw e; });`,
      ],
      ["in the middle of a stream", `for await (const part of model.stream("Hi")) if (part.type === "text-delta") break;`],
      ["after dispose", "model.dispose();"],
    ] as const)
      it(`lets a program end by itself ${what}`, async () => {
        assert.deepEqual(await program(body), { code: 0, stderr: "" });
      });
  });

  it("works ahead of whoever reads, but not far", async () => {
    const model = await load(mini, inWorker());
    const stream = model.stream(STORY, endless)[Symbol.asyncIterator]();
    await stream.next();
    const counts: number[] = [];
    for (let i = 0; i < 5; i++) {
      await sleep(50);
      counts.push((await model.status()).usedPages);
    }
    // a prompt of some 20 tokens and 16 more: two pages of 32
    assert.ok(
      counts.every((pages) => pages <= 2),
      counts.join(),
    );
    await stream.return?.();
    model.dispose();
  });
});
