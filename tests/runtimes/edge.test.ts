// The edge: examples/cloudflare-worker and a worker of the test's own from the packed package in workerd, behind a real socket. Parts arrive as they are computed, a
// client that leaves ends its reply and takes nobody along, and long work lets other requests in.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "esbuild";
import { pick } from "../scale.ts";
import { installPacked } from "../tools/packed.ts";
import { installed } from "./index.mjs";
import { serveWorker } from "./workerd/serve.mjs";

type Served = Awaited<ReturnType<typeof serveWorker>>;

/** What the test's own worker tells. */
interface Stats {
  readonly loads: number;
  /** Tokens that were chosen, of all requests. */
  readonly tokens: number;
  readonly openSessions: number;
}

const LEAVERS = pick({ gate: 6, full: 64 });
const MAX_TOKENS = 300;
/** Two at most: a place that is not given back is missed at once. */
const MAX_REQUESTS = 2;

/** Tells what goes on inside; replies never end by themselves. */
const OWN = `
  import { load } from "lfm2-wasm";
  import { mini } from "lfm2-wasm/mini";
  import { createHandler } from "lfm2-wasm/server";
  let model, loads = 0, tokens = 0;
  const counted = (options) => ({ ...options, stopIds: [], stoppingCriteria: [() => void tokens++] });
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
      if (!request.url.endsWith("/stats")) return handle(request, env, context);
      return Response.json({ loads, tokens, openSessions: (await model?.status())?.openSessions ?? 0 });
    },
  };`;

const requestOf = (isStreamed: boolean, question = "Tell me a story about a fox."): string =>
  JSON.stringify({ messages: [{ role: "user", content: question }], max_tokens: MAX_TOKENS, temperature: 0, stream: isStreamed });

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

describe("the edge", () => {
  if (!installed(["workerd"], "a worker behind a socket").length) return;
  let project: string;
  let folder: string;
  let served: Served;
  const stats = async (): Promise<Stats> => (await fetch(`http://127.0.0.1:${served.port}/stats`)).json() as Promise<Stats>;
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
    served = await serveWorker(folder, "own.js");
  });
  after(async () => {
    await served?.close();
    rmSync(project, { recursive: true, force: true });
  });

  it("a client that leaves while the model is loaded leaves the load to the others", async () => {
    const first = new Client(served.port, requestOf(true));
    await sleep(20);
    first.leave();
    assert.equal((await ask(requestOf(false))).status, 200);
    assert.equal((await allLeft()).loads, 1);
  });

  it("parts arrive one by one, while the rest is not computed yet", async () => {
    const { tokens: before } = await stats();
    const client = new Client(served.port, requestOf(true));
    await client.until(() => client.objects.length >= 3);
    const { tokens } = await stats();
    assert.ok(tokens - before < MAX_TOKENS / 2, `${tokens - before} tokens when the first parts had come`);
    await client.end();
    assert.equal((await stats()).tokens - before, MAX_TOKENS);
    assert.ok(client.reads > MAX_TOKENS / 10, `${client.reads} reads for ${client.objects.length} parts`);
  });

  it("long work lets other requests in", async () => {
    const { tokens: before } = await stats();
    let isDone = false;
    const whole = ask(requestOf(false)).then(async (response) => {
      isDone = true;
      return response.json();
    });
    let seen = 0;
    while (!isDone) {
      const { tokens } = await stats();
      if (tokens > before && tokens < before + MAX_TOKENS) seen++;
    }
    await whole;
    assert.ok(seen > 0, "nobody was answered in between");
  });

  it("a client that leaves ends its reply, and leaves its place and its session", async () => {
    const { tokens: before } = await stats();
    for (let i = 0; i < LEAVERS; i++) {
      const client = new Client(served.port, requestOf(true));
      await client.until(() => client.objects.length > 1 + (i % 7));
      client.leave();
      const { openSessions } = await allLeft();
      assert.equal(openSessions, 0, `client ${i}`);
    }
    const { tokens } = await stats();
    assert.ok(tokens - before < (LEAVERS * MAX_TOKENS) / 2, `${tokens - before} tokens for ${LEAVERS} that left at once`);
    assert.equal((await ask(requestOf(false))).status, 200);
  });

  it("one that leaves takes nobody along, and changes nobody's text", async () => {
    const bear = requestOf(true, "Tell me a story about a bear.");
    const alone = (await new Client(served.port, bear).end()).text;
    assert.ok(alone.length > MAX_TOKENS);
    for (const isFirst of [true, false]) {
      const make = { stays: () => new Client(served.port, bear), leaves: () => new Client(served.port, requestOf(true)) };
      const leaves = isFirst ? make.leaves() : undefined;
      const stays = make.stays();
      const leaver = leaves ?? make.leaves();
      await Promise.all([leaver.until(() => leaver.objects.length > 4), stays.until(() => stays.objects.length > 4)]);
      leaver.leave();
      assert.equal((await stays.end()).text, alone);
    }
    assert.equal((await allLeft()).openSessions, 0);
  });

  it("with enable_request_signal a whole answer that nobody waits for is not computed", async () => {
    const signalled = await serveWorker(folder, "own.js", { flags: ["enable_request_signal"] });
    const others = served;
    served = signalled;
    try {
      assert.equal((await ask(requestOf(false))).status, 200);
      const { tokens: before } = await stats();
      const client = new Client(served.port, requestOf(false));
      while ((await stats()).tokens < before + 5);
      client.reset();
      const { tokens } = await allLeft();
      assert.ok(tokens - before < MAX_TOKENS, `${tokens - before} tokens`);
    } finally {
      served = others;
      await signalled.close();
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
});
