// A page in Chromium with the package as it is packed and no bundler: its own thread computes nothing; workers come from files, else from blobs, else not at all
// and the page says so; what ends them; that nothing stays behind. And a service worker that was bundled into parts, which it may not import.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { SourceMap } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { build } from "esbuild";
import { type Browser, openBrowser, type Page } from "../bundlers/browser.mjs";
import { pick } from "../scale.ts";
import { type AbortsTold, checkAborts } from "./abort.page.mjs";
import { withCount } from "./count-steps.mjs";
import { installed } from "./index.mjs";
import { ISOLATED, type Server, serveFolders } from "./server.mjs";

/** Of src/adapters/browser/worker.ts. */
const FRAME_MS = 16;
/** What a page's program finds: `lfm2` and `mini` of the package. */
const HEAD = `const lfm2 = await import("lfm2-wasm"); const { load } = lfm2; const { mini } = await import("lfm2-wasm/mini");`;
const SEVEN = "3 + 4 = 7";
const ASK = `(await model.generate("What is 3 + 4?")).text`;
const STORY = `"Tell me a story about a fox."`;

/** Counts what a page's own thread compiles and makes instances of, before anything else runs in it. */
const COUNTING = `globalThis.counted = {};
  for (const name of ["compile", "compileStreaming", "instantiate", "instantiateStreaming", "Module", "Instance"]) {
    const original = WebAssembly[name];
    globalThis.counted[name] = 0;
    WebAssembly[name] = new Proxy(original, {
      apply: (target, self, args) => (globalThis.counted[name]++, Reflect.apply(target, self, args)),
      construct: (target, args) => (globalThis.counted[name]++, Reflect.construct(target, args)),
    });
  }`;

/** Goes before the text of a thread's file: a thread that waits for work answers nobody, so it says by itself that it starts, compiles, makes an instance. */
const TELLING = `{
  const told = new BroadcastChannel("threads");
  told.postMessage("start");
  for (const name of ["compile", "compileStreaming", "instantiate", "instantiateStreaming", "Module", "Instance"]) {
    const tell = (call) => (target, ...args) => (told.postMessage(name), call(target, ...args));
    WebAssembly[name] = new Proxy(WebAssembly[name], { apply: tell(Reflect.apply), construct: tell(Reflect.construct) });
  }
}
`;

/** Notes of each message with parts when a worker sends it, how many there are, and whether its reader has asked for no more; `slow(ms)` makes its steps take that long at least. */
const SENDING = `globalThis.sends = [];
{
  let credit = 0;
  addEventListener("message", ({ data }) => {
    if (data?.kind === "stream") credit = data.window;
    else if (data?.kind === "pull") credit += data.count;
  });
  const { postMessage } = globalThis;
  globalThis.postMessage = (message, transfer) => {
    if (message?.kind === "items") {
      credit -= message.items.length;
      sends.push({ at: performance.now(), parts: message.items.length, isFull: credit === 0 });
    }
    postMessage.call(globalThis, message, transfer);
  };
  let stepMs = 0;
  globalThis.slow = (ms) => { stepMs = ms; };
  const { Instance } = WebAssembly;
  WebAssembly.Instance = function (module, imports) {
    const { exports } = new Instance(module, imports);
    const run = (...args) => {
      const start = performance.now();
      const failed = exports.run(...args);
      while (performance.now() < start + stepMs);
      return failed;
    };
    return { exports: { ...exports, ...(exports.run ? { run } : {}) } };
  };
}
`;

/** Counts messages with parts of streams that come from a page's workers, and the parts. */
const LISTENING = `globalThis.heard = { messages: 0, parts: 0 };
  globalThis.Worker = class extends Worker {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => {
        if (data?.kind !== "items") return;
        heard.messages++;
        heard.parts += data.items.length;
      });
    }
  };`;

/** Lists the files of the workers that a page itself starts. */
const STARTING = `globalThis.started = [];
  globalThis.Worker = class extends Worker {
    constructor(file, ...rest) {
      super(file, ...rest);
      started.push(String(file).split("/").at(-1));
    }
  };`;

interface Sent {
  /** By the worker's clock, ms. */
  readonly at: number;
  readonly parts: number;
  readonly isFull: boolean;
}

interface Heard {
  readonly messages: number;
  readonly parts: number;
}

interface Visit {
  readonly headers?: Record<string, string>;
  /** Of the package's files, where not the page's own. */
  readonly from?: string;
  /** Runs before everything else. */
  readonly before?: string;
}

describe("a page in Chromium", function () {
  this.timeout(120_000);
  const binary = installed(["chromium"], "a page in Chromium")[0]?.binary;
  if (!binary) return;
  let project: string;
  let browser: Browser;
  before(async () => {
    project = mkdtempSync(join(tmpdir(), "lfm2-page-"));
    mkdirSync(join(project, "without-workers"));
    cpSync("dist", join(project, "without-workers"), {
      recursive: true,
      filter: (path) => !/(worker|thread)\.browser\.js$|types/.test(path),
    });
    browser = await openBrowser(binary);
  });
  after(async () => {
    await browser?.close();
    rmSync(project, { recursive: true, force: true });
  });

  /** A page that knows the package by an import map. @returns what `use` does */
  async function visit<T>(
    { headers = {}, from = "/dist/", before = "" }: Visit,
    use: (page: Page, server: Server) => Promise<T>,
  ): Promise<T> {
    const own = mkdtempSync(join(project, "page-"));
    const server = await serveFolders(
      {
        "/": own,
        "/dist/": "dist",
        "/without/": join(project, "without-workers"),
        "/counted/": join(project, "counted"),
        "/watched/": join(project, "watched"),
        "/app/": join(project, "app"),
        "/tests/": join("tests", "runtimes"),
        "/node_modules/": "node_modules",
      },
      { headers },
    );
    const imports = {
      "lfm2-wasm": `${from}browser.js`,
      "lfm2-wasm/mini": `${from}mini.js`,
      "@huggingface/jinja": "/node_modules/@huggingface/jinja/dist/index.js",
      "@huggingface/tokenizers": "/node_modules/@huggingface/tokenizers/dist/tokenizers.mjs",
    };
    const head = `<!doctype html><link rel="icon" href="data:,"><script type="importmap">${JSON.stringify({ imports })}</script>`;
    writeFileSync(join(own, "index.html"), head);
    const page = await browser.newPage();
    try {
      if (before) await page.evaluateOnNewDocument(before);
      await page.goto(server.url);
      return await use(page, server);
    } finally {
      await page.close();
      await server.close();
    }
  }

  const run = <T>(page: Page, body: string): Promise<T> => page.evaluate(`(async () => { ${HEAD} ${body} })()`) as Promise<T>;
  const infoOf = (page: Page, options = "{}"): Promise<unknown[]> =>
    run(
      page,
      `const model = await load(mini, ${options}); const { engine, threads, warnings } = model.info; const text = ${ASK};
       model.dispose(); return [text, engine, threads, ...warnings];`,
    );

  describe("computes in its worker", () => {
    const file = "worker.browser.js";
    const head = `${COUNTING}\n${SENDING}`;
    before(() => {
      const dist = join(project, "watched");
      cpSync("dist", dist, { recursive: true, filter: (path) => !path.includes("types") });
      writeFileSync(join(dist, file), head + readFileSync(join("dist", file), "utf8"));
      const thread = "thread.browser.js";
      writeFileSync(join(dist, thread), TELLING + readFileSync(join("dist", thread), "utf8"));
    });
    /** How often a page's only worker has compiled: as a whole, while the file came. */
    const compiled = async (page: Page): Promise<readonly (number | undefined)[]> => {
      const [worker, ...others] = page.workers();
      assert.equal(others.length, 0);
      const { compile, compileStreaming } = (await worker?.evaluate<Record<string, number>>("counted")) ?? {};
      return [compile, compileStreaming];
    };

    it("compiles nothing in its own thread and makes no instance: load, chat, stream, forward, save; a frame's parts come in one message", async () => {
      await visit({ from: "/watched/", before: COUNTING + LISTENING }, async (page) => {
        const { counted, parts, heard } = await run<{ counted: Record<string, number>; parts: number; heard: Heard }>(
          page,
          `const model = globalThis.model = await load(mini); const chat = model.chat(); await chat.prompt("My name is Tom.", { maxTokens: 5 });
           const from = { ...globalThis.heard }; let parts = 0;
           for await (const part of chat.stream(${STORY}, { maxTokens: 200, stopIds: [] })) parts += part.type === "text-delta";
           const heard = { messages: globalThis.heard.messages - from.messages, parts: globalThis.heard.parts - from.parts };
           await (await model.restore(await chat.save())).prompt("Hi", { maxTokens: 3 });
           await model.forward({ inputIds: [1, 2, 3] }); return { counted: globalThis.counted, parts, heard };`,
        );
        assert.ok(Object.values(counted).length === 6 && Object.values(counted).every((count) => count === 0), JSON.stringify(counted));
        assert.ok(parts > 150 && heard.parts >= parts, JSON.stringify({ parts, heard }));
        assert.ok(heard.messages <= heard.parts / 2, `${heard.messages} messages for ${heard.parts} parts`);
        assert.deepEqual(await compiled(page), [0, 1]);
        await aFrameEach(page);
        await page.evaluate("model.dispose()");
        // the count counts: the same in this thread
        assert.deepEqual((await infoOf(page, `{ engine: "here" }`)).slice(0, 2), [SEVEN, "here"]);
        assert.ok((await page.evaluate<number>(`counted.Instance + counted.instantiate`)) > 0);
      });
    });

    /** What becomes of a reply's parts: those of one frame travel in one message, and one that comes alone is not held back. */
    async function aFrameEach(page: Page): Promise<void> {
      const [worker] = page.workers();
      const streamed = async (maxTokens: number): Promise<readonly Sent[]> => {
        await worker?.evaluate("sends.length = 0");
        await page.evaluate(
          `(async () => { for await (const part of model.stream(${STORY}, { maxTokens: ${maxTokens}, stopIds: [], temperature: 0 })); })()`,
        );
        return (await worker?.evaluate<Sent[]>("sends")) ?? [];
      };
      const fast = await streamed(200);
      const early = fast.filter(
        ({ at, isFull }, i) => i > 1 && i < fast.length - 1 && !isFull && at - (fast[i - 1]?.at ?? 0) < FRAME_MS - 0.5,
      );
      assert.ok(early.length <= fast.length / 4, JSON.stringify(fast)); // a step that the machine holds up for a frame is sent at once
      assert.ok(fast.reduce((sum, { parts }) => sum + parts, 0) > 150);
      await worker?.evaluate(`slow(${FRAME_MS + 4})`);
      const slow = await streamed(10);
      assert.ok(slow.length >= 10, JSON.stringify(slow));
      assert.ok(
        slow.slice(0, -1).every(({ parts }) => parts === 1), // the last has the end as well
        JSON.stringify(slow),
      );
      await worker?.evaluate("slow(0)");
    }

    it("compiles once for it and its threads, which are handed the module", async () => {
      const before = `globalThis.threadsSaid = []; new BroadcastChannel("threads").onmessage = ({ data }) => threadsSaid.push(data);`;
      await visit({ from: "/watched/", headers: ISOLATED, before }, async (page) => {
        assert.deepEqual(
          await run(page, `const model = globalThis.model = await load(mini, { threads: 3 }); return [${ASK}, model.info.threads];`),
          [SEVEN, 3],
        );
        await page.waitForFunction("threadsSaid.filter((said) => said === 'Instance').length === 2");
        assert.deepEqual((await page.evaluate<string[]>("threadsSaid")).sort(), ["Instance", "Instance", "start", "start"]);
        const engine = page.workers().find((worker) => worker.url().endsWith(file));
        const { compile, compileStreaming } = (await engine?.evaluate<Record<string, number>>("counted")) ?? {};
        assert.deepEqual([compile, compileStreaming], [0, 1]);
      });
    });

    if (pick({ gate: true, full: false })) return;

    it("which takes the kernels as a whole where the server names another type", async () => {
      await visit({ from: "/watched/" }, async (page) => {
        const address = `new URL("/octets/watched/kernels.plain.wasm", location.href)`;
        assert.equal(await run(page, `const model = await load(mini, { wasm: ${address} }); return ${ASK};`), SEVEN);
        assert.deepEqual(await compiled(page), [1, 0]);
      });
    });

    it("whose errors tell their place, by the map that is built and not packed", async () => {
      await visit({ from: "/watched/" }, async (page) => {
        const stack = await run<string>(page, "return load(new Uint8Array(100)).catch(({ stack }) => stack);");
        const [, line = 0, column = 0] = /worker\.browser\.js:(\d+):(\d+)/.exec(stack)?.map(Number) ?? assert.fail(stack);
        const map = new SourceMap(
          JSON.parse(readFileSync(join("dist", `${file}.map`), "utf8")) as ConstructorParameters<typeof SourceMap>[0],
        );
        const place = map.findEntry(line - head.split("\n").length, column - 1);
        assert.ok("originalSource" in place, stack);
        const source = readFileSync(join("dist", place.originalSource), "utf8").split("\n")[place.originalLine] ?? "";
        assert.match(source, /throw new FormatError/, `${place.originalSource}:${place.originalLine + 1}`);
      });
    });
  });

  it("an abort acts within one step", async () => {
    const dist = join(project, "counted");
    cpSync("dist", dist, { recursive: true, filter: (path) => !path.includes("types") });
    const file = "worker.browser.js";
    writeFileSync(join(dist, file), withCount(file, readFileSync(join("dist", file), "utf8")));
    const aborts = pick({ gate: 2, full: 40 });
    const names = pick({ gate: ["generate()", "a stream whose reader stalls", "a prompt that is read"], full: undefined });
    const told = await visit({ headers: ISOLATED, from: "/counted/" }, (page) =>
      run<AbortsTold>(page, `return (await import("/tests/abort.page.mjs")).run({}, ${JSON.stringify({ aborts, seed: 2, names })});`),
    );
    checkAborts(told, aborts);
  });

  it("an abort ends a stream, a reader that is slow is waited for, a disposed model's workers are gone", async () => {
    await visit({}, async (page) => {
      const told = await run<{ read: number; pages: number[]; name: string }>(
        page,
        `const model = await load(mini); const control = new AbortController(); let read = 0; let name = "";
         const endless = { stopIds: [], temperature: 0, maxTokens: 1500 };
         try {
           for await (const part of model.stream(${STORY}, { ...endless, signal: control.signal })) {
             if (part.type === "text-delta" && ++read === 10) control.abort();
           }
         } catch (error) { name = error.name; }
         const slow = model.stream(${STORY}, endless)[Symbol.asyncIterator](); await slow.next();
         const pages = [];
         for (let i = 0; i < 4; i++) { await new Promise((r) => setTimeout(r, 50)); pages.push((await model.status()).usedPages); }
         const pending = model.generate(${STORY}, endless).catch((error) => error);
         globalThis.end = () => { model.dispose(); return pending.then(({ name, code }) => name + " " + code); };
         return { read, pages, name };`,
      );
      assert.deepEqual([told.name, told.read], ["AbortError", 10]);
      assert.ok(
        told.pages.every((pages) => pages <= 2),
        told.pages.join(),
      ); // a prompt of some 20 tokens and 16 more
      assert.equal(page.workers().length, 1);
      assert.equal(await page.evaluate(`end()`), "AbortError disposed");
      await workersGone(page);
    });
  });

  it("starts the threads of its engine itself, for Firefox may never start a worker's own: they end with the model, and with the engine's worker", async () => {
    for (const end of ["model.dispose()", undefined])
      await visit({ headers: ISOLATED, before: STARTING }, async (page) => {
        const model = `globalThis.model = await load(mini, { threads: 3 }); return [${ASK}, model.info.threads, ...started.sort()]`;
        assert.deepEqual(await run(page, model), [SEVEN, 3, "thread.browser.js", "thread.browser.js", "worker.browser.js"]);
        assert.equal(page.workers().length, 3);
        if (end) await page.evaluate(end);
        else {
          const engine = page.workers().find((worker) => worker.url().endsWith("/worker.browser.js"));
          await engine?.evaluate("setTimeout(() => { throw new Error('an engine that dies'); })");
          const told = await page.evaluate(`model.generate("Hello").catch(({ name, code }) => name + " " + code)`);
          assert.equal(told, "PlatformError worker-ended");
        }
        await workersGone(page);
      });
  });

  it("a load that is aborted while its threads start leaves none, nor does a model that the program has dropped", async () => {
    await visit({ headers: ISOLATED }, async (page) => {
      const aborted = await run(
        page,
        `const { Worker } = globalThis;
         const controller = new AbortController();
         let threads = 0;
         globalThis.Worker = class extends Worker {
           constructor(file, ...rest) {
             super(file, ...rest);
             if (!String(file).endsWith("/thread.browser.js")) return;
             threads++;
             controller.abort();
           }
         };
         const told = await load(mini, { threads: 3, signal: controller.signal }).catch(({ name }) => name);
         globalThis.Worker = Worker;
         return [told, threads > 0];`,
      );
      assert.deepEqual(aborted, ["AbortError", true]);
      await workersGone(page);
      await run(page, `return (await load(mini, { threads: 3 })).generate("Hello", { maxTokens: 2 }).then(({ text }) => text)`);
      assert.equal(page.workers().length, 3);
      const session = await page.createCDPSession();
      await workersGone(page, () => session.send("HeapProfiler.collectGarbage"));
    });
  });

  it("a program's own worker of an isolated page computes in it with two threads, and gives the ids of one", async () => {
    const app = join(project, "app");
    const text = `import { load } from "lfm2-wasm"; import { mini } from "lfm2-wasm/mini";
      const told = async (threads) => {
        const model = await load(mini, { threads });
        const { tokens } = await model.generate(${STORY}, { maxTokens: 40, temperature: 1.2, seed: 7, stopIds: [] });
        const { info } = model;
        model.dispose();
        return { ids: [...tokens], threads: info.threads, engine: info.engine, warnings: info.warnings };
      };
      Promise.all([told(1), told(2)]).then(postMessage, (error) => postMessage(String(error)));`;
    await build({
      stdin: { contents: text, resolveDir: process.cwd() },
      ...{ bundle: true, format: "esm", platform: "browser", target: "es2022", tsconfigRaw: {}, logLevel: "error" },
      outfile: join(app, "app.js"),
      alias: { "lfm2-wasm": resolve("dist", "browser.js"), "lfm2-wasm/mini": resolve("dist", "mini.js") },
    });
    for (const name of readdirSync("dist"))
      if (/\.(wasm|gguf)$|^thread\.browser\.js$/.test(name)) cpSync(join("dist", name), join(app, name));
    await visit({ headers: ISOLATED }, async (page) => {
      const [one, two] = await page.evaluate<Record<string, unknown>[]>(
        `new Promise((resolve, reject) => {
          const worker = new Worker("/app/app.js", { type: "module" });
          worker.onmessage = ({ data }) => (typeof data === "string" ? reject(new Error(data)) : resolve(data));
          worker.onerror = ({ message }) => reject(new Error(message));
        })`,
      );
      assert.equal((one as { ids?: unknown[] } | undefined)?.ids?.length, 40);
      assert.deepEqual(one, { ...one, threads: 1, engine: "here", warnings: [] });
      assert.deepEqual(two, { ...one, threads: 2 });
    });
  });

  it("another origin's package: the worker, and its threads, come by way of a blob", async () => {
    const other = await serveFolders({ "/dist/": "dist" }, { headers: { "cross-origin-resource-policy": "cross-origin" } });
    try {
      await visit({ from: `${other.url}dist/`, headers: ISOLATED }, async (page) => {
        assert.deepEqual(await infoOf(page, "{ threads: 2 }"), [SEVEN, "worker", 2]);
      });
    } finally {
      await other.close();
    }
  });

  it("a policy that allows blobs alone as workers", async () => {
    const policy = { "content-security-policy": "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:" };
    await visit({ headers: { ...ISOLATED, ...policy } }, async (page) => {
      assert.deepEqual(await infoOf(page, "{ threads: 2 }"), [SEVEN, "worker", 2]);
    });
  });

  it("no worker at all, by the policy or for lack of its file: in the page's own thread, with a warning", async () => {
    const policy = { "content-security-policy": "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; worker-src 'none'" };
    for (const [how, given] of Object.entries({ policy: { headers: policy }, file: { from: "/without/" } }))
      await visit(given, async (page) => {
        const [text, engine, threads, ...warnings] = await infoOf(page);
        assert.deepEqual([text, engine, threads, warnings.length], [SEVEN, "here", 1, 1], how);
        assert.match(String(warnings[0]), /^engine: it computes on this thread, for no worker started: .*\.$/);
        const refused = await run(page, `return load(mini, { engine: "worker" }).catch(({ name, code }) => name + " " + code)`);
        assert.equal(refused, "PlatformError no-worker", how);
      });
  });

  it("without isolation, with the engine in it, and threads wished for: one, and why", async () => {
    await visit({}, async (page) => {
      const [, , one, why] = await infoOf(page, "{ threads: 4 }");
      assert.equal(one, 1);
      assert.match(String(why), /not cross-origin isolated: serve it with .*Cross-Origin-Embedder-Policy/);
      const [, engine, two, because] = await infoOf(page, `{ threads: 4, engine: "here" }`);
      assert.deepEqual([engine, two], ["here", 1]);
      assert.match(String(because), /page's own thread/);
    });
  });

  it('a service worker in parts without "lfm2-wasm/whole": a PlatformError that names it; with it, it works', async () => {
    const own = join(project, "service");
    const entry = `import { load } from "lfm2-wasm"; import { mini } from "lfm2-wasm/mini";
      const ask = async () => { const model = await load(mini); return ${ASK}; };
      onmessage = (e) => e.waitUntil(ask().catch(({ name, code, message }) => [name, code, message]).then((told) => e.source.postMessage(told)));`;
    const entries = { without: entry, whole: `import "lfm2-wasm/whole"; ${entry}` };
    mkdirSync(own);
    for (const [name, text] of Object.entries(entries)) writeFileSync(join(own, `${name}.js`), text);
    await build({
      entryPoints: Object.keys(entries).map((name) => join(own, `${name}.js`)),
      ...{ bundle: true, splitting: true, format: "esm", platform: "browser", target: "es2022", tsconfigRaw: {}, logLevel: "error" },
      outdir: join(own, "out"),
      alias: {
        "lfm2-wasm": resolve("dist", "browser.js"),
        "lfm2-wasm/mini": resolve("dist", "mini.js"),
        "lfm2-wasm/whole": resolve("dist", "whole.js"),
      },
      nodePaths: [resolve("node_modules")],
    });
    for (const name of ["kernels.plain.wasm", "kernels.relaxed.wasm", "mini.gguf"]) cpSync(join("dist", name), join(own, "out", name));
    writeFileSync(join(own, "out", "index.html"), '<!doctype html><link rel="icon" href="data:,">');
    const server = await serveFolders({ "/": join(own, "out") });
    const page = await browser.newPage();
    try {
      await page.goto(server.url);
      const told = (name: string): Promise<unknown> =>
        page.evaluate(
          `(async () => {
            const answer = new Promise((resolve) => { navigator.serviceWorker.onmessage = ({ data }) => resolve(data); });
            const { installing } = await navigator.serviceWorker.register("/${name}.js", { type: "module", scope: "/${name}" });
            installing.postMessage("go");
            return answer;
          })()`,
        );
      const [name, code, message] = (await told("without")) as string[];
      assert.deepEqual([name, code], ["PlatformError", "no-part"]);
      assert.match(String(message), /expected to load its part "[a-z-]+", got an error: .*In a service worker.*import "lfm2-wasm\/whole"/s);
      assert.equal(await told("whole"), SEVEN);
      assert.deepEqual(server.missing, []);
    } finally {
      await page.close();
      await server.close();
    }
  });

  it("load and dispose, over and over: no worker stays (memory: cycles.test.ts)", async () => {
    await visit({ headers: ISOLATED }, async (page) => {
      await run(
        page,
        `for (let i = 0; i < ${pick({ gate: 2, full: 20 })}; i++) { const model = await load(mini, { threads: 2 }); await model.generate("Hello", { maxTokens: 2 }); model.dispose(); }`,
      );
      await workersGone(page);
    });
  });
});

/** A worker that was ended is told of a little later, and on a busy machine seconds later. @param meanwhile is called until then */
async function workersGone(page: Page, meanwhile?: () => Promise<unknown>): Promise<void> {
  for (let i = 0; i < 1_500 && page.workers().length > 0; i++) {
    await meanwhile?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(page.workers().length, 0);
}
