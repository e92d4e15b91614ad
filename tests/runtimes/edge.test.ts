// The edge: a worker of the test's own from the packed package in workerd and in Deno, behind a real socket: parts arrive as they are computed, a client that leaves ends
// its reply and takes nobody along, and long work lets other requests in; what comes from a hub is proved there. And examples/cloudflare-worker, with weights from R2 and from static assets too.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { pick } from "../scale.ts";
import { serve as serveHub } from "../tools/bad-server.ts";
import { installPacked } from "../tools/packed.ts";
import { installed, RUNTIMES } from "./index.mjs";
import { serveWorker } from "./workerd/serve.mjs";

/** What is used of miniflare. */
interface LocalCloud {
  dispatchFetch(url: string, init: RequestInit): Promise<Response>;
  getR2Bucket(name: string): Promise<{ put(key: string, bytes: ArrayBuffer): Promise<unknown> }>;
  dispose(): Promise<void>;
}

type Served = Awaited<ReturnType<typeof serveWorker>>;

/** What the test's own worker tells. */
interface Stats {
  readonly loads: number;
  /** Tokens that were chosen, of all requests. */
  readonly tokens: number;
  readonly openSessions: number;
}

/** A saved chat that went on. */
interface Conversation {
  readonly text: string;
  /** Tokens of the prompt that were in the cache. */
  readonly cached: number;
  readonly saved: readonly number[];
}

const isFull = pick({ gate: false, full: true });
const LEAVERS = pick({ gate: 3, full: 24 });
/** A reply that nobody ends is as long as this: whoever has to wait for its end is found out by the count. */
const ENDLESS = 1500;
const SHORT = 40;
/** What each token takes at least: a step of a larger model, as far as the event loop is concerned. */
const STEP_MS = 2;
/** Two at most: a place that is not given back is missed at once. */
const MAX_REQUESTS = 2;

/** Tells what goes on inside. Replies end at their limit, or when `/stop` is asked for. */
const OWN = `
  import { load } from "lfm2-wasm";
  import { mini } from "lfm2-wasm/mini";
  import { createHandler } from "lfm2-wasm/server";
  let model, loads = 0, tokens = 0, stops = 0;
  const counted = (options) => {
    const before = stops;
    const step = () => {
      tokens++;
      for (const start = Date.now(); Date.now() < start + ${STEP_MS}; );
      return stops > before;
    };
    return { ...options, stopIds: [], stoppingCriteria: [step] };
  };
  const handle = createHandler(async () => {
    loads++;
    model = await load(mini);
    return Object.create(model, {
      info: { value: model.info },
      stream: { value: (input, options) => model.stream(input, counted(options)) },
      generate: { value: (input, options) => model.generate(input, counted(options)) },
    });
  }, { maxRequests: ${MAX_REQUESTS} });
  export default {
    async fetch(request, env, context) {
      if (request.url.endsWith("/stop")) stops++;
      else if (request.url.endsWith("/save") || request.url.endsWith("/restore")) {
        const one = await load(mini);
        const isNew = request.url.endsWith("/save");
        const chat = isNew ? one.chat() : await one.restore(await request.bytes());
        if (isNew) await chat.prompt("Tell me a story about a fox.");
        const saved = await chat.save();
        const { text, usage } = await chat.prompt("And one about a bear.");
        one.dispose();
        return Response.json({ text, cached: usage.cachedTokens, saved: [...saved] });
      } else if (request.url.endsWith("/hub")) {
        try {
          const one = await load("org/mini", { endpoint: env.HUB, network: { backoffMs: 2, maxRetries: 1 } });
          const { text } = await one.generate("What is 3 + 4?");
          one.dispose();
          return Response.json({ text });
        } catch ({ name, message }) {
          return Response.json({ name, message });
        }
      } else if (!request.url.endsWith("/stats")) return handle(request, env, context);
      return Response.json({ loads, tokens, openSessions: (await model?.status())?.openSessions ?? 0 });
    },
  };`;

const requestOf = (isStreamed: boolean, maxTokens: number, question = "Tell me a story about a fox."): string =>
  JSON.stringify({ messages: [{ role: "user", content: question }], max_tokens: maxTokens, temperature: 0, stream: isStreamed });

/** A client with nothing between it and the socket. */
class Client {
  readonly #socket: Socket;
  #text = "";
  #reads = 0;
  #wake = (): void => {};

  constructor(port: number, body: string) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    const head = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json"];
    this.#socket.write(`${[...head, `content-length: ${body.length}`].join("\r\n")}\r\n\r\n${body}`);
    this.#socket.on("data", (bytes: Buffer) => {
      this.#text += bytes;
      this.#reads++;
      this.#wake();
    });
    this.#socket.on("close", () => this.#wake());
    this.#socket.on("error", () => this.#wake());
  }

  get reads(): number {
    return this.#reads;
  }

  /** The objects that have come so far. */
  get objects(): { readonly choices: readonly { readonly delta: { readonly content?: string } }[] }[] {
    return [...this.#text.matchAll(/^data: (\{.*\})\r?$/gm)].map(([, json = ""]) => JSON.parse(json));
  }

  get text(): string {
    return this.objects.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
  }

  async until(isDone: () => boolean): Promise<this> {
    while (!isDone()) {
      assert.ok(!this.#socket.destroyed, `the connection ended after ${this.#text}`);
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    return this;
  }

  async end(): Promise<this> {
    await this.until(() => this.#text.endsWith("\r\n0\r\n\r\n"));
    this.leave();
    return this;
  }

  leave(): void {
    this.#socket.destroy();
  }

  /** Leaves so that the other side hears of it without writing. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }
}

/** Deno with a program that serves the worker, and tells its port first. */
async function serveInDeno(binary: string, project: string): Promise<Served> {
  writeFileSync(
    join(project, "deno.mjs"),
    `import worker from "./own.js";
     Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: ({ port }) => console.log(port) }, (request) => worker.fetch(request));`,
  );
  const child = spawn(binary, ["run", "--quiet", "--no-lock", "--no-prompt", "--allow-read", "--allow-net", "deno.mjs"], {
    cwd: project,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout.once("data", (bytes: Buffer) => resolve(Number(`${bytes}`)));
    child.once("close", (code) => reject(new Error(`deno ended with ${code}`)));
  });
  const close = (): Promise<void> => {
    child.kill("SIGKILL");
    return ended;
  };
  return { port, pid: child.pid ?? 0, close };
}

/** What a server of chat completions is held to, whoever carries the sockets. */
function suite(name: string, serve: () => Promise<Served>, serveSignalled: () => Promise<Served>): void {
  let served: Served;
  const get = async (path: string): Promise<Stats> => (await fetch(`http://127.0.0.1:${served.port}${path}`)).json() as Promise<Stats>;
  const stats = (): Promise<Stats> => get("/stats");
  const ask = (body: string): Promise<Response> =>
    fetch(`http://127.0.0.1:${served.port}/v1/chat/completions`, { method: "POST", body, headers: { "content-type": "application/json" } });

  /** Whoever has left is noticed when something is written to them. */
  async function allLeft(): Promise<Stats> {
    for (let i = 0; i < 500; i++) {
      const told = await stats();
      if (told.openSessions === 0) return told;
      await sleep(10);
    }
    return stats();
  }

  before(async () => {
    served = await serve();
  });
  after(() => served?.close());

  it(`${name}: a client that leaves while the model is loaded leaves the load to the others`, async () => {
    const first = new Client(served.port, requestOf(true, SHORT));
    await sleep(20);
    first.leave();
    assert.equal((await ask(requestOf(false, SHORT))).status, 200);
    assert.equal((await allLeft()).loads, 1);
  });

  it(`${name}: parts arrive one by one, and other requests are let in, while the rest is not computed yet`, async () => {
    const { tokens: before } = await stats();
    const client = new Client(served.port, requestOf(true, ENDLESS));
    await client.until(() => client.objects.length >= 3);
    await get("/stop");
    await client.end();
    const tokens = (await stats()).tokens - before;
    assert.ok(tokens < ENDLESS, "all was computed before anybody was heard");
    const whole = await new Client(served.port, requestOf(true, SHORT)).end();
    assert.ok(whole.reads >= SHORT / 8, `${whole.reads} reads for ${whole.objects.length} parts`);
  });

  it(`${name}: a whole answer lets other requests in`, async () => {
    const { tokens: before } = await stats();
    const whole = ask(requestOf(false, ENDLESS));
    while ((await stats()).tokens < before + 2);
    await get("/stop");
    assert.equal((await whole).status, 200);
    const tokens = (await stats()).tokens - before;
    assert.ok(tokens < ENDLESS, "all was computed before anybody was heard");
  });

  it(`${name}: a client that leaves ends its reply, and leaves its place and its session`, async () => {
    const { tokens: before } = await stats();
    for (let i = 0; i < LEAVERS; i++) {
      const client = new Client(served.port, requestOf(true, ENDLESS));
      await client.until(() => client.objects.length > 1 + (i % 7));
      client.leave();
      const { openSessions } = await allLeft();
      assert.equal(openSessions, 0, `client ${i}`);
    }
    const { tokens } = await stats();
    assert.ok(tokens - before < (LEAVERS * ENDLESS) / 2, `${tokens - before} tokens for ${LEAVERS} that left at once`);
    assert.equal((await ask(requestOf(false, SHORT))).status, 200);
  });

  it(`${name}: one that leaves takes nobody along, and changes nobody's text`, async () => {
    const bear = requestOf(true, SHORT, "Tell me a story about a bear.");
    const alone = (await new Client(served.port, bear).end()).text;
    assert.ok(alone.length > SHORT);
    for (const isFirst of [true, false]) {
      const make = { stays: () => new Client(served.port, bear), leaves: () => new Client(served.port, requestOf(true, ENDLESS)) };
      const leaves = isFirst ? make.leaves() : undefined;
      const stays = make.stays();
      const leaver = leaves ?? make.leaves();
      await Promise.all([leaver.until(() => leaver.objects.length > 4), stays.until(() => stays.objects.length > 4)]);
      leaver.leave();
      assert.equal((await stays.end()).text, alone);
    }
    assert.equal((await allLeft()).openSessions, 0);
  });

  it(`${name}: a whole answer that nobody waits for is not computed (workerd: with enable_request_signal)`, async () => {
    const signalled = await serveSignalled();
    const others = served;
    served = signalled;
    try {
      assert.equal((await ask(requestOf(false, SHORT))).status, 200);
      const { tokens: before } = await stats();
      const client = new Client(served.port, requestOf(false, ENDLESS));
      while ((await stats()).tokens < before + 2);
      client.reset();
      const { tokens } = await allLeft();
      assert.ok(tokens - before < ENDLESS, "nobody was told");
    } finally {
      served = others;
      await signalled.close();
    }
  });
}

describe("the edge", () => {
  const [{ binary: deno } = { binary: undefined }] = isFull ? installed(["deno"], "a server in Deno") : [];
  const hasWorkerd = installed(["workerd"], "a worker behind a socket").length > 0;
  let project: string;
  let folder: string;
  before(async () => {
    project = mkdtempSync(join(tmpdir(), "lfm2-edge-"));
    const dist = join(installPacked(project), "dist");
    folder = join(project, "out");
    mkdirSync(folder);
    cpSync(join("examples", "cloudflare-worker", "worker.js"), join(project, "worker.js"));
    writeFileSync(join(project, "own.js"), OWN);
    await build({
      entryPoints: ["worker.js", "own.js"].map((name) => join(project, name)),
      outdir: folder,
      absWorkingDir: project,
      bundle: true,
      splitting: true,
      format: "esm",
      target: "es2022",
      conditions: ["workerd", "worker", "browser"],
      external: ["*.wasm", "*.gguf"],
      tsconfigRaw: {},
      logLevel: "warning",
    });
    for (const name of readdirSync(dist)) if (/\.(wasm|gguf)$/.test(name)) cpSync(join(dist, name), join(folder, name));
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  if (hasWorkerd) {
    const workerd = (flags?: readonly string[]) => () => serveWorker(folder, "own.js", flags ? { flags } : {});
    suite("workerd", workerd(), workerd(["enable_request_signal"]));
  }
  if (deno) {
    const serve = () => serveInDeno(deno, project);
    suite("Deno", serve, serve);
  }
  if (!hasWorkerd) return;

  it("workerd: what comes from a hub has its sha256, or is a FormatError", async () => {
    const mini = readFileSync(join("dist", "mini.gguf"));
    const hub = await serveHub({ "org/mini": { "mini.gguf": mini } });
    const { port, close } = await serveWorker(folder, "own.js", { env: { HUB: hub.hub } });
    try {
      const loaded = async (): Promise<unknown> => (await fetch(`http://127.0.0.1:${port}/hub`)).json();
      const right = { text: "3 + 4 = 7" };
      assert.deepEqual(await loaded(), right);
      hub.set({ flip: mini.length - 100, match: "cdn" }); // a weight's: nothing but the checksum tells
      const { name, message } = (await loaded()) as Error;
      assert.equal(name, "FormatError", message);
      assert.match(message, /mini\.gguf: expected bytes of sha256 [0-9a-f]{64}, got [0-9a-f]{64}: the file came damaged/);
      hub.set({});
      // a request may not read what another one has fetched: each downloads by itself
      assert.deepEqual(await Promise.all([loaded(), loaded()]), [right, right]);
    } finally {
      await Promise.all([close(), hub.close()]);
    }
  });

  it("examples/cloudflare-worker answers whole and in parts, and asks for its key", async () => {
    const { port, close } = await serveWorker(folder, "worker.js", { env: { API_KEY: "secret" }, flags: ["enable_request_signal"] });
    try {
      const post = (key: string): Promise<Response> =>
        fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
          body: JSON.stringify({ messages: [{ role: "user", content: "What is 3 + 4?" }], stream: true }),
        });
      assert.equal((await post("other")).status, 401);
      const response = await post("secret");
      assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
      const events = (await response.text()).split("\n\n");
      assert.deepEqual(events.slice(-2), ["data: [DONE]", ""]);
      const parts = events.slice(0, -2).map((event) => JSON.parse(event.slice("data: ".length)) as Client["objects"][number]);
      assert.equal(parts.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), "3 + 4 = 7");
    } finally {
      await close();
    }
  });

  if (!isFull) return;

  it("workerd: an instance that is evicted breaks off what it streams; the next one loads anew, gives the same text, and goes on with a saved conversation", async () => {
    const bear = requestOf(true, SHORT, "Tell me a story about a bear.");
    const one = await serveWorker(folder, "own.js");
    const textOf = async (port: number): Promise<string> => (await new Client(port, bear).end()).text;
    const get = async <T>(port: number, path: string, body?: Uint8Array<ArrayBuffer>): Promise<T> =>
      (await fetch(`http://127.0.0.1:${port}${path}`, body ? { method: "POST", body } : {})).json() as Promise<T>;
    const text = await textOf(one.port);
    const kept = await get<Conversation>(one.port, "/save");
    const client = new Client(one.port, requestOf(true, ENDLESS));
    await client.until(() => client.objects.length >= 3);
    await one.close();
    await assert.rejects(client.end(), /the connection ended/);
    const next = await serveWorker(folder, "own.js");
    try {
      assert.deepEqual(await get<Stats>(next.port, "/stats"), { loads: 0, tokens: 0, openSessions: 0 });
      assert.equal(await textOf(next.port), text);
      assert.equal((await get<Stats>(next.port, "/stats")).loads, 1);
      const restored = await get<Conversation>(next.port, "/restore", Uint8Array.from(kept.saved));
      assert.equal(restored.text, kept.text);
      assert.ok(restored.cached >= 64 && restored.cached <= kept.cached, `${restored.cached} of ${kept.cached} tokens`); // whole pages of 32 are saved
    } finally {
      await next.close();
    }
  });

  for (const kind of ["R2", "assets"])
    it(`examples/cloudflare-worker takes its weights from ${kind}; a load that failed is tried again`, async () => {
      const { Miniflare } = (await import(pathToFileURL(RUNTIMES.workerd?.find() ?? "").href)) as {
        Miniflare: new (options: object) => LocalCloud;
      };
      const kinds: Readonly<Record<string, string>> = { ".js": "ESModule", ".wasm": "CompiledWasm", ".gguf": "Data" };
      const names = readdirSync(folder).filter((name) => extname(name) in kinds);
      const directory = join(project, "assets");
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, "other.txt"), "no model");
      const cloud = new Miniflare({
        modules: ["worker.js", ...names.filter((name) => name !== "worker.js")].map((path) => ({
          type: kinds[extname(path)],
          path,
          contents: readFileSync(join(folder, path)),
        })),
        compatibilityDate: "2026-04-01",
        compatibilityFlags: ["enable_request_signal"],
        bindings: { MODEL: "own.gguf" },
        ...(kind === "R2"
          ? { r2Buckets: ["MODELS"] }
          : {
              assets: { directory, binding: "ASSETS", routerConfig: { has_user_worker: true, invoke_user_worker_ahead_of_assets: true } },
            }),
        cf: false,
      });
      try {
        const post = (): Promise<Response> =>
          cloud.dispatchFetch("http://localhost/v1/chat/completions", {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ messages: [{ role: "user", content: "What is 3 + 4?" }] }),
          });
        const bytes = Uint8Array.from(readFileSync(join("dist", "mini.gguf")));
        if (kind === "R2") {
          assert.equal((await post()).status, 500);
          await (await cloud.getR2Bucket("MODELS")).put("own.gguf", bytes.buffer);
        } else writeFileSync(join(directory, "own.gguf"), bytes);
        const response = await post();
        const text = await response.text();
        assert.equal(response.status, 200, text);
        assert.match(text, /"content":"3 \+ 4 = 7"/);
      } finally {
        await cloud.dispose();
      }
    });
});
