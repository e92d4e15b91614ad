// The suite that every runtime runs, from the packed package: one function of plain options, bundled for no runtime in particular (tests/runtimes starts it).
import assert from "node:assert/strict";
import * as lfm2 from "lfm2-wasm";
import { mini as bundled } from "lfm2-wasm/mini";
import { apiSuite } from "./api.ts";
import { kernelGoldens } from "./kernel-goldens.ts";
import { type RealSources, realSources } from "./real-sources.ts";
import { type Outcome, runSuites } from "./runner.ts";
import { sessionsSuite } from "./sessions.ts";
import { guessesSuite } from "./speculation.ts";
import { pageExamples } from "./transformers.ts";

const { inspect } = lfm2;

let forced: "here" | undefined;
/** What is no options object is for load() to refuse. */
const load: typeof lfm2.load = (source, options) =>
  lfm2.load(source, forced && isOptions(options) ? { engine: forced, ...options } : options);
const isOptions = (options: unknown): boolean =>
  options === undefined || (typeof options === "object" && options !== null && !Array.isArray(options));

/** What differs between runtimes, and how much is done. */
export interface Everywhere {
  readonly runtime: string;
  /** Address of a server with `mini.gguf`, `model/` (the bundled checkpoint's folder), `dist/`, `golden/` (the kernels' arrays), `source/` (those of the suite of byte sources), and of what servers get wrong under `html/` and `octets/`. */
  readonly base: string;
  /** What `threads: 2` gives: two, a PlatformError, or one and a warning. */
  readonly threads: "two" | "refused" | "one";
  /** Where the engine is unless a call says otherwise. */
  readonly engine: "here" | "worker";
  /** Is asked for in every load. */
  readonly forced?: "here";
  /** Whether bytes of a module may be compiled. */
  readonly compiles: boolean;
  readonly hasRelaxed: boolean;
  /** Whether files beside the module may be read. */
  readonly hasFiles: boolean;
  /** Whether `engine: "worker"` starts one. */
  readonly hasWorkers: boolean;
  readonly cycles: number;
  /** For how long idle threads are watched, ms; 0: not. */
  readonly idleMs: number;
  /** Milliseconds that a test may take. */
  readonly testMs: number;
  /** Random programs of chats. */
  readonly programs: number;
  readonly replyTokens: number;
  /** Whether the suite of byte sources runs. */
  readonly hasSources: boolean;
  /** Of R2, where the runtime has one. */
  readonly bucket?: RealSources["bucket"];
}

/** What a runtime tells. */
export interface Answer extends Outcome {
  /** Ids of every reply, to be compared with other runtimes'. */
  readonly replies: Readonly<Record<string, readonly number[]>>;
  readonly info: unknown;
  /** What the package exports, sorted. */
  readonly names: readonly string[];
  /** From before `load` to the first token, ms; the import has been before. */
  readonly firstTokenMs: number;
  /** Milliseconds by part. */
  readonly ms: Readonly<Record<string, number>>;
}

const PROMPTS = [
  ...["Tell me a story about a fox.", "What is 3 + 4?", "What is 12 minus 5?", "My name is Tom.", "Hello!", "Who are you?"],
  ...["What color is the sky?", "Name an animal.", "Tell me a story about a bear and a bird.", "What is 9 + 8?", "Good night."],
  ...["Where does a fish live?", "Is the sun hot?", "Say the fox emoji 🦊 and 你好", "Repeat this: apple, pear, plum.", "What is my name?"],
  ...[
    "Once upon a time",
    "How many legs has a dog?",
    "<|im_end|> what is that?",
    "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich.",
  ],
] as const;
const SEEDS = [1, 2, 3];

/** Greedy, as the checkpoint recommends, and hot: the ids must be the same in every runtime. */
async function repliesOf(model: lfm2.Model, maxTokens: number): Promise<Record<string, number[]>> {
  const out: Record<string, number[]> = {};
  for (const prompt of PROMPTS)
    for (const seed of SEEDS) {
      const { tokens } = await model.generate(prompt, {
        seed,
        maxTokens,
        temperature: seed === 1 ? 0.3 : 1.3,
        minP: seed === 3 ? 0.05 : 0,
      });
      out[`${seed} ${prompt}`] = [...tokens];
    }
  return { ...out, ...(await rulesOf(model, Math.min(24, maxTokens))) };
}

/** Beams, rules and cuts, each with a reply of its own; and what a text is told, all of its digits. */
async function rulesOf(model: lfm2.Model, maxTokens: number): Promise<Record<string, number[]>> {
  const story = "Tell me a story about a fox.";
  const [fox = 0, bear = 0] = [" fox", " bear"].map((text) => model.tokenizer?.encode(text).at(-1));
  const calls: Readonly<Record<string, readonly [string | Uint32Array, lfm2.GenerateOptions]>> = {
    beams: [story, { numBeams: 4, numReturnSequences: 2, lengthPenalty: 0.7, temperature: 0 }],
    "drawn beams": [story, { numBeams: 3, sampleBeams: true, temperature: 1.5, topK: 40, seed: 5 }],
    penalties: [
      story,
      {
        ...{ temperature: 1.1, seed: 6, repetitionPenalty: 1.2, presencePenalty: 0.4, frequencyPenalty: 0.3 },
        ...{ noRepeatNgramSize: 2, badWordsIds: [[fox]], logitBias: { [bear]: 2.5 } },
      },
    ],
    "typical-p": [story, { temperature: 1.4, seed: 7, typicalP: 0.8, etaCutoff: 0.002 }],
    "forced ends": [
      Uint32Array.of(model.config.bosTokenId ?? 0),
      {
        ...{ temperature: 4, seed: 8, forcedBosTokenId: bear, forcedEosTokenId: 7 },
        exponentialDecayLengthPenalty: [4, 1.07],
      },
    ],
  };
  const out: Record<string, number[]> = {};
  for (const [name, [prompt, options]] of Object.entries(calls)) {
    const { tokens, sequences = [{ tokens }] } = await model.generate(prompt, { maxTokens, ...options });
    out[name] = sequences.flatMap((sequence) => [...sequence.tokens]);
  }
  const text = PROMPTS.join(" ");
  const [score, { loss }] = [await model.score(story), await model.perplexity(text, { contextTokens: 64, stride: 24 })];
  out.score = [...score.logprobs, loss];
  const [mean = [], last = []] = [...(await model.embed([text])), ...(await model.embed([text], { pooling: "last" }))];
  out.embed = [...mean, ...last];
  return out;
}

async function miniBytes(base: string): Promise<Uint8Array> {
  return new Uint8Array(await (await fetch(`${base}mini.gguf`)).arrayBuffer());
}

const ask = async (model: lfm2.Model): Promise<string> => (await model.generate("What is 3 + 4?")).text;
const SEVEN = "3 + 4 = 7";

let mini: lfm2.ModelSource = bundled;

function sources(o: Everywhere): void {
  describe("sources", () => {
    const works = async (source: lfm2.ModelSource, options?: lfm2.LoadOptions): Promise<void> => {
      const model = await load(source, options);
      assert.equal(await ask(model), SEVEN);
      model.dispose();
    };
    it("bytes, as Uint8Array and ArrayBuffer", async () => {
      const bytes = await miniBytes(o.base);
      await works(bytes);
      await works(bytes.buffer as ArrayBuffer);
    });
    it("a file's URL, as URL and text", async () => {
      await works(new URL("mini.gguf", o.base));
      await works(`${o.base}mini.gguf`);
    });
    it("a folder's URL", () => works(new URL("model/", o.base)));
    it("an object that reads by ranges", async () => {
      const bytes = await miniBytes(o.base);
      await works({ name: "mine", size: bytes.length, read: async (offset, length) => bytes.slice(offset, offset + length) });
    });
    it("inspect tells without loading", async () => {
      const { parameterCount, format } = await inspect(`${o.base}mini.gguf`);
      assert.deepEqual([format, parameterCount > 4e6], ["gguf", true]);
    });
    it("an address that is not there is a NetworkError with its status", () =>
      assert.rejects(load(`${o.base}nothing.gguf`, { network: { maxRetries: 0 } }), { name: "NetworkError", status: 404 }));
  });
}

/** How often this thread compiles. */
interface Compiles {
  readonly compile: number;
  readonly compileStreaming: number;
  /** By the constructor; the few bytes that ask what an engine can do are not counted. */
  readonly Module: number;
}

/** How often this thread compiles while `what` runs, by the function that does. */
async function compilesDuring(what: () => Promise<unknown>): Promise<Compiles> {
  const calls = { compile: 0, compileStreaming: 0, Module: 0 };
  const functions = WebAssembly as unknown as Record<"compile" | "compileStreaming", (from: unknown) => Promise<WebAssembly.Module>>;
  const { compile, compileStreaming } = functions;
  const { Module } = WebAssembly;
  const counted = (name: "compile" | "compileStreaming"): ((from: unknown) => Promise<WebAssembly.Module>) => {
    const original = functions[name];
    return (from) => {
      calls[name]++;
      return original.call(WebAssembly, from);
    };
  };
  const construct = (target: typeof Module, args: [Uint8Array<ArrayBuffer>]): WebAssembly.Module => {
    if (args[0].byteLength > 1000) calls.Module++;
    return new target(...args);
  };
  Object.assign(functions, {
    compile: counted("compile"),
    compileStreaming: counted("compileStreaming"),
    Module: new Proxy(Module, { construct }),
  });
  try {
    await what();
  } finally {
    Object.assign(functions, { compile, compileStreaming, Module });
  }
  return calls;
}

/** @param files as for `run` */
function kernels(o: Everywhere, files: Readonly<Record<string, unknown>>): void {
  const variant = o.hasRelaxed ? "relaxed" : "plain";
  const build = (name: string, folder = ""): URL => new URL(`${folder}dist/kernels.${name}.wasm`, o.base);
  describe("kernels", () => {
    it("of this engine are chosen, and told with the runtime, threads and memory", async () => {
      const model = await load(mini);
      const { info } = model;
      assert.deepEqual([info.runtime, info.variant, info.threads, info.engine, info.warnings], [o.runtime, variant, 1, o.engine, []]);
      const { memoryBytes } = await model.status();
      assert.ok(info.memoryBytes === memoryBytes && memoryBytes > info.weightBytes && info.weightBytes > 2e6);
      model.dispose();
    });
    it("by the name that is asked for: plain, relaxed where there is one, or a PlatformError", async () => {
      for (const asked of ["plain", variant] as const) {
        const model = await load(mini, { variant: asked });
        assert.equal(model.info.variant, asked);
        model.dispose();
      }
      if (!o.hasRelaxed) await assert.rejects(load(mini, { variant: "relaxed" }), { name: "PlatformError", code: "no-build" });
    });
    if (!o.compiles) {
      it("are never compiled here: bytes are a PlatformError that says to import the module", async () => {
        const bytes = await (await fetch(build("plain"))).arrayBuffer();
        await assert.rejects(load(mini, { wasm: bytes }), {
          name: "PlatformError",
          code: "no-compile",
          message: /import module from "lfm2-wasm\/kernels/,
        });
        await assert.rejects(load(mini, { wasm: build("plain") }), { name: "PlatformError", message: /import the module/ });
      });
      it("come as imported modules, alone or by name", async () => {
        const [plain, relaxed] = ["plain", "relaxed"].map((name) => files[`kernels.${name}.wasm`] as WebAssembly.Module);
        assert.ok(plain && relaxed);
        for (const [wasm, expected] of [
          [plain, "plain"],
          [relaxed, variant],
          [{ plain }, "plain"],
          [{ plain, relaxed }, variant],
        ] as const) {
          const model = await load(mini, { wasm });
          assert.deepEqual([await ask(model), model.info.variant], [SEVEN, expected]);
          model.dispose();
        }
      });
      return;
    }
    it("come as URL, text, response, bytes or module, alone or by name", async () => {
      const bytes = new Uint8Array(await (await fetch(build("plain"))).arrayBuffer());
      const responses = { response: await fetch(build("plain")), untyped: await fetch(build("plain", "octets/")) };
      const wasm = {
        url: build("plain"),
        text: build("plain").href,
        ...responses,
        bytes,
        buffer: bytes.slice().buffer,
        module: await WebAssembly.compile(bytes),
      };
      for (const [how, one] of Object.entries(wasm)) {
        const model = await load(mini, { wasm: one as Uint8Array });
        assert.deepEqual([await ask(model), model.info.variant], [SEVEN, "plain"], how);
        model.dispose();
      }
      const model = await load(mini, { wasm: { plain: build("plain"), relaxed: build("relaxed") } });
      assert.equal(model.info.variant, variant);
      model.dispose();
    });
    it("are compiled while they come, once an address in a thread; as a whole where the server names another type", async () => {
      const loads = async (wasm: URL): Promise<void> => {
        for (let i = 0; i < 2; i++) (await load(mini, { wasm, engine: "here" })).dispose();
      };
      const streamed = new URL("?streamed", build("plain"));
      assert.deepEqual(await compilesDuring(() => loads(streamed)), { compile: 0, compileStreaming: 1, Module: 0 });
      const whole = new URL("?whole", build("plain", "octets/"));
      assert.deepEqual(await compilesDuring(() => loads(whole)), { compile: 1, compileStreaming: 0, Module: 0 });
    });
    if (o.threads === "two" && o.engine === "here")
      it("are compiled once for a model with threads, too; what its helpers do is counted from outside", async () => {
        const wasm = { "plain-threads": new URL("?shared", build("plain-threads")) };
        const loads = async (): Promise<void> => {
          for (let i = 0; i < 2; i++) {
            const model = await load(mini, { wasm, threads: 2 });
            assert.deepEqual([await ask(model), model.info.threads], [SEVEN, 2]);
            model.dispose();
          }
        };
        assert.deepEqual(await compilesDuring(loads), { compile: 0, compileStreaming: 1, Module: 0 });
      });
    it("that are not there, or no wasm, are a PlatformError that says what to do", async () => {
      const bad: [string, object, RegExp][] = [
        ["missing", build("nothing"), /status 404\. Copy the \.wasm files/],
        ["a page", build("plain", "html/"), /an HTML page\. Copy/],
        ["words", new TextEncoder().encode("<html>words</html>"), /bytes of another kind\. Copy/],
        ["nobody there", new URL("http://127.0.0.1:1/kernels.wasm"), /an error: .*\. Copy/],
      ];
      for (const [what, wasm, message] of bad)
        await assert.rejects(load(mini, { wasm }), (error: Error) => {
          assert.deepEqual([error.name, (error as lfm2.PlatformError).code], ["PlatformError", "no-wasm"], what);
          assert.match(error.message, message, what);
          return true;
        });
      const part = new Uint8Array(await (await fetch(build("plain"))).arrayBuffer()).slice(0, 20_000);
      await assert.rejects(load(mini, { wasm: part }), { name: "PlatformError", message: /expected a build that this engine compiles/ });
      for (const wasm of [5, {}, { fast: build("plain") }, { plain: 5 }, null])
        await assert.rejects(load(mini, { wasm } as never), { name: "InputError", message: /load: wasm: expected.*got/s });
    });
    if (o.threads !== "one")
      it("one build is for one thread", () => assert.rejects(load(mini, { wasm: build("plain"), threads: 2 }), { name: "PlatformError" }));
  });
}

/** The bundled model with a feed-forward so wide that it takes more than workerd allows, of which nothing but the headers can be read. */
async function wideModel(base: string): Promise<lfm2.Folder> {
  const get = async (name: string): Promise<Response> => fetch(`${base}model/${name}`);
  const config = (await (await get("config.json")).json()) as object;
  const file = new Uint8Array(await (await get("model.safetensors")).arrayBuffer());
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<
    string,
    { shape: number[]; data_offsets: number[] }
  >;
  const width = 16_384;
  const ff = { intermediate_size: width, block_ff_dim: width, block_auto_adjust_ff_dim: false };
  let end = 0;
  for (const [name, tensor] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (name.includes("feed_forward")) tensor.shape = tensor.shape.map((n) => (n === 512 ? width : n));
    const bytes = 2 * tensor.shape.reduce((x, y) => x * y, 1);
    tensor.data_offsets = [end, (end += bytes)];
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + text.length);
  new DataView(head.buffer).setBigUint64(0, BigInt(text.length), true);
  head.set(text, 8);
  const source = (name: string, bytes: Uint8Array, size = bytes.length): lfm2.ByteSource => ({
    name,
    size,
    read: async (offset, count) => {
      if (offset >= bytes.length && offset < size) throw new Error("a weight was read");
      const piece = new Uint8Array(Math.min(count, size - offset)); // zeros behind the header
      piece.set(bytes.subarray(offset, offset + count));
      return piece;
    },
  });
  return {
    name: "wide",
    open: async (path) => {
      if (path === "config.json") return source(path, new TextEncoder().encode(JSON.stringify({ ...config, ...ff })));
      if (path === "model.safetensors") return source(path, head, head.length + end);
      const response = await get(path);
      return response.ok ? source(path, new Uint8Array(await response.arrayBuffer())) : undefined;
    },
  };
}

/** Where the bits of two results differ: places of the first few. */
function different(a: Float32Array, b: Float32Array): number[] {
  const [x, y] = [a, b].map(({ buffer, byteOffset, length }) => new Uint32Array(buffer, byteOffset, length));
  const out: number[] = [];
  for (let i = 0; i < Math.max(a.length, b.length) && out.length < 3; i++) if (x?.[i] !== y?.[i]) out.push(i);
  return out;
}

/** Of the process what tells of it, where there is one. */
const { process, location } = globalThis as {
  process?: { cpuUsage?: () => { user: number; system: number } };
  location?: { origin?: string };
};

/** What whoever started a browser sees of its processes (tests/runtimes/browser.mjs). */
const cpuOfBrowser = async (): Promise<number> => Number(await (await fetch(`${location?.origin}/cpu`)).text());

/** Milliseconds of processor time that the process has taken so far, all its threads. */
async function cpuMs(): Promise<number> {
  const used = process?.cpuUsage?.();
  const ms = used ? (used.user + used.system) / 1000 : await cpuOfBrowser();
  assert.ok(ms > 10, `a process that has computed for ${ms} ms`);
  return ms;
}

function limits(o: Everywhere): void {
  describe("what the runtime has, and has not", () => {
    if (o.threads === "two" && o.idleMs > 0)
      it("threads that have nothing to do take no time of a core", async () => {
        const model = await load(mini, { threads: 3 });
        await model.generate("Hello", { maxTokens: 20 });
        const idle = async (): Promise<number> => {
          await new Promise((resolve) => setTimeout(resolve, 50)); // they look for work a while before they sleep
          const before = await cpuMs();
          await new Promise((resolve) => setTimeout(resolve, o.idleMs));
          return (await cpuMs()) - before;
        };
        let ms = await idle();
        for (let i = 0; i < 4 && ms > o.idleMs / 4; i++) ms = await idle(); // garbage may be collected; threads that poll do so again
        assert.ok(ms <= o.idleMs / 4, `${ms} ms of ${o.idleMs}`); // two that poll take twice the time, or all that the machine gives
        model.dispose();
      });
    if (o.threads === "two")
      it("two threads give what one gives, to the last bit", async () => {
        const [one, two] = [await load(mini, { threads: 1 }), await load(mini, { threads: 2 })];
        assert.deepEqual([one.info.threads, two.info.threads, two.info.warnings], [1, 2, []]);
        const prompt = one.tokenizer?.encode(PROMPTS.join(" ")) ?? [];
        for (const inputIds of [prompt, prompt.slice(0, 1), prompt.slice(0, 37)]) {
          const [expected, got] = [await one.forward({ inputIds }), await two.forward({ inputIds })];
          assert.deepEqual(different(expected.logits.data, got.logits.data), []);
        }
        const options = { seed: 3, maxTokens: o.replyTokens, temperature: 1.2 };
        for (const text of PROMPTS.slice(0, o.cycles >= 100 ? 5 : 2))
          assert.deepEqual([...(await two.generate(text, options)).tokens], [...(await one.generate(text, options)).tokens]);
        one.dispose();
        two.dispose();
      });
    if (o.threads === "two")
      it("eight threads start, every time", async () => {
        for (let i = 0; i < o.cycles / 4; i++) {
          const model = await load(mini, { threads: 8 });
          const { tokens } = await model.generate("Hello", { maxTokens: 1 }); // more threads than cores are slow
          assert.deepEqual([tokens.length, model.info.threads], [1, 8]);
          model.dispose();
        }
      });
    else if (o.threads === "one")
      it("threads: one, and a warning that says why", async () => {
        const model = await load(mini, { threads: 2 });
        assert.deepEqual([await ask(model), model.info.threads, model.info.warnings.length], [SEVEN, 1, 1]);
        assert.match(model.info.warnings[0] ?? "", /^threads: one computes, for .*\.$/);
        model.dispose();
      });
    else
      it("threads: a PlatformError for two, one for auto", async () => {
        await assert.rejects(load(mini, { threads: 2 }), { name: "PlatformError", code: "no-threads", message: /threads: 1/ });
        const model = await load(mini, { threads: "auto" });
        assert.equal(model.info.threads, 1);
        model.dispose();
      });
    if (o.runtime === "browser" || o.runtime === "workerd")
      it("files of the computer: none, and what to do instead", () =>
        assert.rejects(load("file:///models/any.gguf"), {
          name: "PlatformError",
          code: "no-files",
          message: /load: expected an https: address.*got "file:\/\/\/models\/any\.gguf".*serve it/,
        }));
    if (o.runtime === "workerd" || (o.runtime === "deno" && !o.hasFiles))
      it("a store of models: none, and what to do instead", async () => {
        const refused = {
          name: "PlatformError",
          code: "no-store",
          message: /expected a place to keep models, got none.*load\(\) needs none/,
        };
        await assert.rejects(lfm2.listModels(), refused);
        await assert.rejects(lfm2.removeModel("org/name"), refused);
        await assert.rejects(lfm2.pull("org/name"), refused);
      });
    if (o.runtime === "workerd")
      it("memory: 85 MB unless more is asked for, before a weight is read", async () => {
        const wide = await wideModel(o.base);
        await assert.rejects(load(wide), { name: "MemoryError", message: /81\.1 MiB/ });
        await assert.rejects(load(wide, { maxMemoryBytes: 1e9 }), { message: /a weight was read/ });
      });
    it("memory: each load takes the same (what stays in the process: tests/runtimes/cycles)", async () => {
      const held = new Set<number>();
      for (let i = 0; i < o.cycles; i++) {
        const model = await load(mini);
        await model.generate("Hello", { maxTokens: 2 });
        held.add((await model.status()).memoryBytes);
        model.dispose();
      }
      assert.equal(held.size, 1);
    });
  });
}

/** What is used of a MessagePort, which not every runtime's types have alike. */
interface Port {
  onmessage: (() => void) | null;
  postMessage(message: unknown): void;
  close(): void;
}

/** The engine in a worker where there are workers: this thread goes on meanwhile, and an abort acts over there. */
function elsewhere(o: Everywhere): void {
  describe('engine: "worker"', () => {
    const options = { engine: "worker", prefixCacheBytes: 0 } as const;
    if (!o.hasWorkers) {
      it("is a PlatformError that says what to do", () =>
        assert.rejects(load(mini, options), {
          name: "PlatformError",
          code: "no-worker",
          message: /engine: expected to start a worker, got: .*engine: "here"/,
        }));
      return;
    }
    it("this thread's timers and messages go on while a prompt is read", async () => {
      const model = await load(mini, options);
      assert.equal(model.info.engine, "worker");
      const CHUNKS = 8;
      const prompt = Uint32Array.from({ length: CHUNKS * 128 }, (_, i) => 20 + ((i * 7) % 400));
      await model.generate(prompt, { maxTokens: 1 }); // warm
      const { port1, port2 } = new MessageChannel() as unknown as { port1: Port; port2: Port };
      let [ticks, turns] = [0, 0];
      port2.onmessage = () => {
        turns++;
        port1.postMessage(0);
      };
      const timer = setInterval(() => ticks++, 10);
      port1.postMessage(0);
      const prompts = 3;
      for (let i = 0; i < prompts; i++) await model.generate(prompt, { maxTokens: 1 });
      clearInterval(timer);
      port2.onmessage = null;
      port1.close();
      port2.close();
      // an engine in this thread would give way once a chunk
      assert.ok(turns > 10 * prompts * CHUNKS, `${turns} turns of the event loop`);
      assert.ok(ticks >= 3, `${ticks} ticks of 10 ms`);
      model.dispose();
    });
    it("an abort ends the turn there, too: nothing of it is left when its error comes", async () => {
      const model = await load(mini, options);
      const held = async (): Promise<readonly number[]> => {
        const { openSessions, usedPages } = await model.status();
        return [openSessions, usedPages];
      };
      const control = new AbortController();
      const endless = { stopIds: [], temperature: 0, maxTokens: 1900, signal: control.signal };
      const aborted = assert.rejects(model.generate("Tell me a story about a fox.", endless), { name: "AbortError" });
      let pages = 0;
      while (pages < 3) [, pages = 0] = await held(); // of 32 positions
      control.abort();
      await aborted;
      assert.deepEqual(await held(), [0, 0]);
      assert.ok(pages < 1900 / 32, `${pages} pages: the turn was over before it could be aborted`);
      model.dispose();
    });
  });
}

/** Runs it all. @param files builds of the kernels, compiled, where nothing compiles them here: `kernels.NAME.wasm` */
export async function run(files: Readonly<Record<string, unknown>>, o: Everywhere, begins?: (what: string) => void): Promise<Answer> {
  const ms: Record<string, number> = {};
  const timed = async <T>(name: string, part: () => Promise<T>): Promise<T> => {
    begins?.(name);
    const start = performance.now();
    const value = await part();
    ms[name] = performance.now() - start;
    return value;
  };
  forced = o.forced;
  if (!o.hasFiles) mini = new URL("mini.gguf", o.base);
  let first = 0;
  const start = performance.now();
  const model = await load(mini);
  for await (const part of model.stream("Tell me a story about a fox.", { maxTokens: 2 })) {
    if (part.type === "text-delta") first ||= performance.now() - start;
  }
  const replies = await timed("replies", () => repliesOf(model, o.replyTokens));
  const { info } = model;
  model.dispose();
  const outcome = await timed("suite", () =>
    runSuites(
      () => {
        sources(o);
        if (o.hasSources) realSources({ isBrowser: o.runtime === "browser", base: `${o.base}source/`, bucket: o.bucket });
        kernels(o, files);
        limits(o);
        elsewhere(o);
        // tests/bits compares builds with each other elsewhere
        const builds = o.compiles ? [o.hasRelaxed ? "relaxed" : "plain"] : ["plain", "relaxed"];
        kernelGoldens(o.base, builds, async (name) => {
          const file = `kernels.${name}.wasm`;
          if (!o.compiles) return files[file] as WebAssembly.Module;
          return WebAssembly.compile(new Uint8Array(await (await fetch(`${o.base}dist/${file}`)).arrayBuffer()));
        });
        pageExamples(new URL("model/", o.base));
        sessionsSuite("from the packed package", (options) => load(mini, options), o.programs);
        guessesSuite((options) => load(mini, options), mini);
        apiSuite("from the packed package", load, mini, new URL("model/", o.base));
      },
      o.testMs,
      begins,
    ),
  );
  return { ...outcome, replies, info, names: Object.keys(lfm2).sort(), firstTokenMs: first, ms };
}
