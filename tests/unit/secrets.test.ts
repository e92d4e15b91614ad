// Nothing secret gets about: a token, a signed link, the query of an address and what users write stand in no error (message, stack, cause), log line, event, cache or request to another
// origin, whatever the network does and however a call fails.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { type LoadOptions, load, type Model, pull } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { encodeState } from "../../src/models/saved-state.ts";
import { createHandler } from "../../src/server/index.ts";
import { pick } from "../scale.ts";
import { type BadServer, SCENARIOS, type Scenario, serve } from "../tools/bad-server.ts";
import { allOf, IMPATIENT, STALL_MS, untilQuiet } from "./network.ts";

const TOKEN = "hf_SECRETSECRETSECRET";
const PROMPT = "PROMPT-SECRET: my card is 4111 1111.";
/** The bad server's links are signed with SECRET-LINK. */
const SECRET = /SECRET/;

/** What is written to the console and to the standard streams, and the warnings of the process. */
class Witness {
  readonly #said: string[] = [];
  readonly #undo: (() => void)[] = [];

  constructor() {
    const replace = <T extends object, K extends keyof T>(owner: T, name: K, by: (original: T[K]) => T[K]): void => {
      const original = owner[name];
      owner[name] = by(original);
      this.#undo.push(() => {
        owner[name] = original;
      });
    };
    const note = (...args: unknown[]): void => void this.#said.push(args.map((a) => (typeof a === "string" ? a : inspect(a))).join(" "));
    for (const name of ["log", "info", "warn", "error", "debug", "trace", "dir"] as const) replace(console, name, () => note);
    for (const stream of [process.stdout, process.stderr])
      replace(
        stream,
        "write",
        (write) =>
          ((...args: Parameters<typeof write>) => {
            note(Buffer.from(args[0] as Uint8Array).toString());
            return write.apply(stream, args);
          }) as typeof write,
      );
    process.on("warning", note);
    this.#undo.push(() => process.off("warning", note));
  }

  end(): string {
    for (const undo of this.#undo) undo();
    return this.#said.join("\n");
  }
}

/** Names and contents of all files below `dir`, where it is. */
function* filesIn(dir: string): Generator<readonly [string, Buffer]> {
  if (!existsSync(dir)) return;
  for (const name of readdirSync(dir, { recursive: true, encoding: "utf8" })) {
    const path = join(dir, name);
    yield [name, statSync(path).isFile() ? readFileSync(path) : Buffer.of()];
  }
}

/** A saved chat (src/models/saved-state.ts has the format) with another note, and a checksum that fits. */
function withNote(saved: Uint8Array, change: (note: string) => string): Uint8Array {
  const view = new DataView(saved.buffer, saved.byteOffset);
  const headerBytes = view.getUint32(12, true);
  const header = JSON.parse(new TextDecoder().decode(saved.subarray(16, 16 + headerBytes)));
  const up = (n: number): number => Math.ceil(n / 64) * 64;
  const tokensAt = up(16 + headerBytes);
  const tokens = new Uint32Array(saved.slice(tokensAt, tokensAt + 4 * header.tokens).buffer);
  const pagesAt = up(tokensAt + 4 * header.tokens);
  const pages = Array.from({ length: header.pages }, (_, i) =>
    saved.subarray(pagesAt + header.pageBytes * i, pagesAt + header.pageBytes * (i + 1)),
  );
  return encodeState({ ...header, heads: { query: 1, kv: 1, dim: 16 } }, { tokens, pages, note: change(header.note) });
}

describe("secrets", () => {
  const bytes = readFileSync("dist/mini.gguf");
  const root = mkdtempSync(join(tmpdir(), "lfm2-secrets-"));
  let server: BadServer;
  let right: readonly number[];
  let count = 0;
  before(async () => {
    assert.ok(!bytes.includes("SECRET"));
    server = await serve({ "org/mini": { "mini.gguf": bytes } });
    const model = await load(mini);
    right = await tokensOf(model);
    model.dispose();
  });
  after(async () => {
    await server.close();
    rmSync(root, { recursive: true });
  });

  const tokensOf = async (model: Model): Promise<readonly number[]> => [
    ...(await model.generate(PROMPT, { maxTokens: 4, temperature: 0 })).tokens,
  ];

  /** Loads, asks, and looks everywhere. @returns tokens, or the error */
  async function checked(source: string, scenario: Scenario, options: LoadOptions = {}): Promise<unknown> {
    const dir = join(root, `${count++}`);
    const witness = new Witness();
    const events: string[] = [];
    const isSilent = scenario.stall !== undefined || scenario.trickleHeaders === true;
    server.set(scenario.delay === undefined ? scenario : { ...scenario, delay: 50 });
    server.log.length = 0;
    let said = "";
    let result: unknown;
    try {
      const model = await load(source, {
        endpoint: server.hub,
        network: { ...IMPATIENT, windowBytes: 2 << 20, ...(isSilent ? { stallMs: STALL_MS } : {}) },
        cache: { dir, packed: true },
        onProgress: (event) => events.push(inspect(event, { depth: 9 })),
        ...options,
      });
      result = await tokensOf(model);
      events.push(inspect(model.info, { depth: 9 }));
      model.dispose();
    } catch (error) {
      result = error;
    } finally {
      said = witness.end();
    }
    await untilQuiet(server);
    if (result instanceof Error) assert.doesNotMatch(allOf(result), SECRET);
    else assert.deepEqual(result, right);
    for (const text of [said, ...events]) assert.doesNotMatch(text, SECRET);
    for (const { host, url, authorization, headers } of server.log) {
      assert.ok(host === "hub" || authorization === undefined, "the token goes to the hub alone");
      const { authorization: _, ...others } = headers;
      assert.doesNotMatch(`${url} ${JSON.stringify(others)}`, /hf_|PROMPT/);
    }
    for (const [name, content] of filesIn(dir)) assert.ok(!SECRET.test(name) && !content.includes("SECRET"), name);
    rmSync(dir, { recursive: true, force: true });
    return result;
  }

  const scenarios = pick<readonly string[]>({
    gate: [
      ...["healthy", "reset-always", "500-always", "redirect-loop", "redirect-to-file", "html-page", "empty-body"],
      ...["403-expired-link", "flip-a-bit-always", "redirect-3-hops"],
    ],
    full: Object.keys(SCENARIOS),
  });

  it("a hub's token goes to the hub, in every scenario, and no further", async () => {
    for (const name of scenarios) {
      const scenario: Scenario = SCENARIOS[name] ?? assert.fail(name);
      const result = await checked("org/mini", { ...scenario, token: TOKEN } as Scenario, { token: TOKEN });
      if (scenario.good === "no") assert.ok(result instanceof Error, name);
      assert.ok(
        server.log.some(({ host, authorization }) => host === "hub" && authorization === `Bearer ${TOKEN}`),
        name,
      );
    }
  });

  it("nor does what follows an address's question mark", async () => {
    const address = `${server.hub}/org/mini/resolve/main/mini.gguf?signature=ADDRESS-SECRET`;
    for (const name of pick({ gate: ["healthy", "drop-at-zero-always"], full: scenarios })) {
      const scenario: Scenario = SCENARIOS[name] ?? assert.fail(name);
      await checked(address, scenario);
      assert.ok(server.log.every(({ host, url }) => (host === "hub") === url.includes("ADDRESS-SECRET") || host === "cdn"));
      assert.ok(server.log.some(({ url }) => url.includes("ADDRESS-SECRET")));
    }
  });

  it("a token that is refused, repeated by the hub, or none at all is told without it", async () => {
    const refused = async (options: object, scenario: object, source = "org/mini"): Promise<Error> => {
      server.set(scenario);
      const settings = { cache: false, endpoint: server.hub, network: IMPATIENT, ...options } as LoadOptions;
      const error = await load(source, settings).then(
        () => assert.fail("loaded"),
        (e: Error) => e,
      );
      assert.doesNotMatch(allOf(error), SECRET);
      return error;
    };
    for (const [options, name, pattern, scenario = { token: TOKEN }] of [
      [{}, "NetworkError", /401.*token/],
      [{ token: "hf_SECRET2" }, "NetworkError", /403.*may not read/],
      [{ token: "hf_SECRET2" }, "NetworkError", /403.*may not read/, { echo: true }],
      [{ token: "hf_SECRET\n" }, "InputError", /token: expected printable/],
      [{ token: 5 }, "InputError", /token/],
      [{ endpoint: "https://user:SECRET@example.org" }, "InputError", /without user/],
    ] as const) {
      const error = await refused(options, scenario);
      assert.equal(error.name, name, error.message);
      assert.match(error.message, pattern);
    }
    for (const source of ["https://user:SECRET@example.org/x.gguf", "https://SECRET:x@[bad/x.gguf"])
      assert.equal((await refused({}, {}, source)).name, "InputError");
    server.set({ token: TOKEN });
    await assert.rejects(pull("org/mini", { endpoint: server.hub, token: "hf_SECRET2", cache: { dir: join(root, "pull") } }), (error) => {
      assert.doesNotMatch(allOf(error), SECRET);
      return true;
    });
  });

  it("what users write stands in no error of a call that fails, and in no log", async () => {
    const model = await load(mini);
    const witness = new Witness();
    const chat = model.chat({ system: PROMPT });
    await chat.prompt(PROMPT, { maxTokens: 3 });
    const saved = await chat.save();
    assert.ok(Buffer.from(saved).includes(PROMPT), "who saves a chat has it");
    const spoilt = (at: number): Uint8Array => saved.map((byte, i) => (i === at ? byte ^ 1 : byte));
    const abort = new AbortController();
    const long = PROMPT.repeat(500);
    const user = (content: unknown, more: object = {}): never => [{ role: "user", content, ...more }] as never;
    const calls: Readonly<Record<string, () => Promise<unknown>>> = {
      "a prompt that is too long": () => model.generate(long),
      "a conversation that is too long": () => chat.prompt(long),
      "a text to be scored that is too long": () => model.score(long),
      "a text to be embedded that is too long": () => model.embed([long]),
      "an option of the wrong kind": () => model.generate(PROMPT, { maxTokens: 0 }),
      "a stop string that is too long": () => model.generate(PROMPT, { stop: long }),
      "content that is no text": () => model.generate(user({ text: PROMPT })),
      "a part that is no part": () => model.generate(user([{ type: "text", text: [PROMPT] }])),
      "a value that JSON has not": () => model.generate(user(PROMPT, { more: [PROMPT, 1n] })),
      "nesting that is too deep": () => {
        let deep: unknown = PROMPT;
        for (let i = 0; i < 100; i++) deep = [deep];
        return model.generate(user(PROMPT, { deep }));
      },
      "a processor that gives nothing": () => model.generate(PROMPT, { processors: [() => new Float32Array(3)] }),
      "a signal that fires": () => {
        setTimeout(() => abort.abort(), 5);
        return model.generate(PROMPT, { signal: abort.signal, stopIds: [] });
      },
      "a chat that is damaged": () => model.restore(spoilt(saved.indexOf(PROMPT.charCodeAt(0)))),
      "a chat that is cut": () => model.restore(saved.subarray(0, saved.length - 4)),
      "a note that is no JSON": () => model.restore(withNote(saved, (note) => note.replace("PROMPT", '"PROMPT'))),
      "a note that is a text": () => model.restore(withNote(saved, JSON.stringify)),
      "a note that is null": () => model.restore(withNote(saved, () => "null")),
      "a model that is gone": () => {
        const turns = Promise.all([model.generate(PROMPT, { stopIds: [] }), chat.prompt(PROMPT)]);
        model.dispose();
        return turns;
      },
    };
    for (const [what, call] of Object.entries(calls)) {
      const error = await Promise.resolve()
        .then(call)
        .then(
          () => assert.fail(`${what}: nothing failed`),
          (e: Error) => e,
        );
      assert.match(error.name, /^(Input|Abort|Format|Network)Error$/, `${what}: ${error}`);
      assert.doesNotMatch(allOf(error), SECRET, what);
    }
    assert.doesNotMatch(witness.end(), SECRET);
  });

  it("the handler repeats neither its key nor a message, and tells nobody", async () => {
    const model = await load(mini);
    const witness = new Witness();
    const told: unknown[] = [];
    const handle = createHandler(model, { apiKey: "key-SECRET", onError: (error) => told.push(error) });
    const send = async (body: string, headers: Record<string, string> = {}): Promise<[number, string]> => {
      const all = { "content-type": "application/json", authorization: "Bearer key-SECRET", ...headers };
      const response = await handle(new Request("http://localhost/v1/chat/completions", { method: "POST", body, headers: all }));
      return [response.status, `${await response.text()} ${JSON.stringify([...response.headers])}`];
    };
    const messages = [{ role: "user", content: PROMPT }];
    for (const [status, body, headers] of [
      [400, `{"messages":[{"role":"user","content":"${PROMPT}`],
      [400, `{"messages":[{"role":"user","content":"${PROMPT}"}]} trailing`],
      [400, JSON.stringify({ messages, max_tokens: -1 })],
      [400, JSON.stringify({ messages, stop: PROMPT.repeat(50) })],
      [400, JSON.stringify({ messages: [{ role: "user", content: PROMPT.repeat(500) }] })],
      [400, JSON.stringify({ messages: [{ role: "user", content: { text: PROMPT } }] })],
      [401, JSON.stringify({ messages }), { authorization: "Bearer key-SECRET2" }],
      [403, JSON.stringify({ messages }), { origin: "https://elsewhere.example" }],
      [415, JSON.stringify({ messages }), { "content-type": "text/plain" }],
    ] as const) {
      const [got, text] = await send(body, headers);
      assert.equal(got, status, text);
      assert.doesNotMatch(text, SECRET);
    }
    model.dispose();
    assert.equal((await send(JSON.stringify({ messages })))[0], 503);
    for (const error of told) assert.doesNotMatch(allOf(error), SECRET);
    assert.equal(told.length, 1);
    assert.doesNotMatch(witness.end(), SECRET);
  });
});
