// The model behind an address: what a client of OpenAI's API sends and gets, every status, and that one who leaves takes nothing along.
import assert from "node:assert/strict";
import { load, type Model } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { createHandler, type HandlerOptions } from "../../src/server/index.ts";

const ADDRESS = "http://localhost:8080";
const messages = [{ role: "user", content: "Tell me a story about a fox." }];
const greedy = { messages, temperature: 0, max_tokens: 24 };
const MAX_BODY_BYTES = 1 << 20;
const QUEUE = 64;

// biome-ignore lint/suspicious/noExplicitAny: what came over the wire
type Json = Record<string, any>;

function post(body: unknown, init: RequestInit = {}): Request {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return new Request(`${ADDRESS}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: text,
    ...init,
  });
}

/** The objects of a stream whose last event is [DONE]. */
function objectsOf(text: string): Json[] {
  const events = text.split("\n\n");
  assert.equal(events.pop(), "");
  assert.equal(events.pop(), "data: [DONE]");
  return events.map((event) => JSON.parse(event.slice("data: ".length)));
}

describe("createHandler", () => {
  let model: Model;
  before(async () => {
    model = await load(mini);
  });
  after(() => model.dispose());
  const handler = (options?: HandlerOptions) => createHandler(model, options);
  /** A session closes with the step that runs. */
  async function allClosed(): Promise<void> {
    const open = async (): Promise<number> => (await model.status()).openSessions;
    for (let i = 0; i < 1000 && (await open()) > 0; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await open(), 0);
  }

  it("a whole answer is model.generate's", async () => {
    await model.generate(messages as never, { maxTokens: 1 }); // so that both below find the prompt's beginning kept
    const response = await handler()(post({ ...greedy, model: "any" }));
    const expected = await model.generate(messages as never, { temperature: 0, maxTokens: 24 });
    assert.equal(response.status, 200);
    const answer = (await response.json()) as Json;
    assert.match(answer.id, /^chatcmpl-/);
    assert.deepEqual([answer.object, answer.model], ["chat.completion", model.info.name]);
    assert.deepEqual(answer.choices, [
      { index: 0, message: { role: "assistant", content: expected.text, refusal: null }, logprobs: null, finish_reason: "length" },
    ]);
    const { inputTokens, outputTokens, cachedTokens } = expected.usage;
    const { prompt_tokens_details, ...usage } = answer.usage;
    assert.deepEqual(usage, { prompt_tokens: inputTokens, completion_tokens: outputTokens, total_tokens: inputTokens + outputTokens });
    assert.ok(cachedTokens > 0);
    assert.deepEqual(prompt_tokens_details, { cached_tokens: cachedTokens });
    await allClosed();
  });

  it("a streamed answer is the same text, then usage, then [DONE]", async () => {
    const whole = (await (await handler()(post(greedy))).json()) as Json;
    const response = await handler()(post({ ...greedy, stream: true, stream_options: { include_usage: true } }));
    assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
    const objects = objectsOf(await response.text());
    assert.ok(objects.length > 10);
    assert.ok(objects.every(({ object, id }) => object === "chat.completion.chunk" && id === objects[0]!.id));
    assert.deepEqual(objects[0]!.choices[0].delta, { role: "assistant", content: "" });
    const { usage, choices } = objects.pop()!;
    assert.deepEqual([usage, choices], [whole.usage, []]);
    assert.equal(objects.at(-1)!.choices[0].finish_reason, "length");
    assert.equal(objects.map((o) => o.choices[0].delta.content ?? "").join(""), whole.choices[0].message.content);
    const bare = objectsOf(await (await handler()(post({ ...greedy, stream: true }))).text());
    assert.ok(bare.every((o) => o.usage === undefined));
  });

  it("every field of sampling arrives, and parts of text are text", async () => {
    const expected = await model.generate(messages as never, {
      ...{ temperature: 1.5, topP: 0.9, topK: 30, minP: 0.01, repetitionPenalty: 1.2, presencePenalty: 0.5, frequencyPenalty: 0.25 },
      ...{ seed: 7, logitBias: { 300: -5 }, stop: ["zebra", "."], maxTokens: 24 },
    });
    const sampled = {
      ...{ temperature: 1.5, top_p: 0.9, top_k: 30, min_p: 0.01, repetition_penalty: 1.2, presence_penalty: 0.5, frequency_penalty: 0.25 },
      ...{
        seed: 7,
        logit_bias: { 300: -5 },
        stop: ["zebra", "."],
        max_completion_tokens: 24,
        n: 1,
        tools: [],
        user: "u",
        top_logprobs: null,
      },
    };
    const parts = [
      {
        role: "user",
        content: [
          { type: "text", text: "Tell me a story " },
          { type: "text", text: "about a fox." },
        ],
      },
    ];
    const answer = (await (await handler()(post({ ...sampled, messages: parts }))).json()) as Json;
    assert.equal(answer.choices[0].message.content, expected.text);
    assert.equal(answer.usage.completion_tokens, expected.usage.outputTokens);
  });

  it("what it cannot do or read is a 400 that names the field", async () => {
    const wrong: readonly (readonly [body: unknown, param: string | null, code: string])[] = [
      [{ messages, tools: [{ type: "function" }] }, "tools", "unsupported_value"],
      [{ messages, n: 2 }, "n", "unsupported_value"],
      [{ messages, response_format: { type: "json_object" } }, "response_format", "unsupported_value"],
      [{ messages, logprobs: true }, "logprobs", "unsupported_value"],
      [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages", "unsupported_value"],
      [{ messages: [{ role: "tool", content: "4" }] }, "messages", "unsupported_value"],
      [{ messages: [{ role: "wizard", content: "4" }] }, "messages", "invalid_value"],
      [{ messages: [] }, "messages", "invalid_value"],
      [{}, "messages", "invalid_value"],
      [{ messages, top_p: 7 }, "top_p", "invalid_value"],
      [{ messages, max_tokens: 0 }, "max_tokens", "invalid_value"],
      [{ messages, max_completion_tokens: "9" }, "max_completion_tokens", "invalid_value"],
      [{ messages, stop: [""] }, "stop", "invalid_value"],
      [{ messages, logit_bias: { x: 1 } }, "logit_bias", "invalid_value"],
      [{ messages, logit_bias: [1, 2] }, "logit_bias", "invalid_value"],
      [{ messages, stream: "yes" }, "stream", "invalid_value"],
      [{ messages, stream_options: 1 }, "stream_options", "invalid_value"],
      [{ messages, stream: true, top_p: 7 }, "top_p", "invalid_value"],
      [[], null, "invalid_value"],
      ['{"messages":', null, "invalid_json"],
      ["", null, "invalid_json"],
    ];
    for (const [body, param, code] of wrong) {
      const response = await handler()(post(body));
      const { error } = (await response.json()) as Json;
      const at = JSON.stringify(body);
      assert.equal(response.status, 400, at);
      assert.deepEqual([error.type, error.param, error.code], ["invalid_request_error", param, code], `${at}: ${error.message}`);
      assert.match(error.message, /expected .*got/, at);
    }
    const long = await handler()(post({ messages: [{ role: "user", content: "fox ".repeat(200_000) }] }));
    assert.deepEqual([long.status, ((await long.json()) as Json).error.code], [400, "context_length_exceeded"]);
    await allClosed();
  });

  it("routes and their statuses", async () => {
    const handle = handler({ apiKey: "secret", name: "own", origins: ["https://page.test"] });
    assert.throws(() => handler({ apikey: "secret" } as object), { name: "InputError", message: /"apikey"\. Write apiKey\./ });
    const ask = (path: string, init: RequestInit = {}) => handle(new Request(ADDRESS + path, init));
    const authorization = "Bearer secret";
    assert.deepEqual(await (await ask("/health")).json(), { status: "ok" });
    const { data } = (await (await ask("/v1/models", { headers: { authorization } })).json()) as Json;
    assert.deepEqual(data, [{ id: "own", object: "model", created: 0, owned_by: "lfm2-wasm" }]);
    assert.deepEqual(await (await ask("/v1/models/own", { headers: { authorization } })).json(), data[0]);
    const form = { method: "POST", body: "a", headers: { authorization, "content-type": "text/plain" } };
    const statuses: readonly (readonly [number, Promise<Response>])[] = [
      [401, ask("/v1/models")],
      [401, ask("/v1/models/own")],
      [401, ask("/v1/models/other")],
      [401, ask("/v1/models", { headers: { authorization: "Bearer secreT" } })],
      [403, ask("/health", { headers: { origin: "https://other.test" } })],
      [404, ask("/v1/nothing", { headers: { authorization } })],
      [404, ask("/__proto__", { headers: { authorization } })],
      [405, ask("/v1/chat/completions", { headers: { authorization } })],
      [415, ask("/v1/chat/completions", form)],
    ];
    for (const [status, asked] of statuses) {
      const response = await asked;
      assert.equal(response.status, status);
      assert.equal(typeof ((await response.json()) as Json).error.message, "string");
    }
    assert.equal((await ask("/v1/chat/completions", { headers: { authorization } })).headers.get("allow"), "POST");
    const preflight = { method: "OPTIONS", headers: { origin: "https://page.test", "access-control-request-method": "POST" } };
    const allowed = await ask("/v1/chat/completions", preflight);
    assert.deepEqual([allowed.status, allowed.headers.get("access-control-allow-origin")], [204, "https://page.test"]);
    assert.equal((await ask("/health", { headers: { origin: "https://localhost:8080" } })).status, 200, "a proxy's own page");
  });

  it("loads nothing for who has no key", async () => {
    let loads = 0;
    const handle = createHandler(
      () => {
        loads++;
        return Promise.resolve(model);
      },
      { apiKey: "secret" },
    );
    for (const path of ["/v1/models", "/v1/models/x", "/v1/chat/completions", "/v1/nothing"])
      assert.equal((await handle(new Request(ADDRESS + path))).status, 401);
    assert.equal(loads, 0);
    const headers = { authorization: "Bearer secret" };
    assert.equal((await handle(new Request(`${ADDRESS}/v1/models/${model.info.name}`, { headers }))).status, 200);
    assert.equal(loads, 1);
  });

  it("a body beyond the limit is a 413, told or streamed, and is not read on", async () => {
    assert.equal((await handler()(post(" ".repeat(MAX_BODY_BYTES + 1)))).status, 413);
    let pulled = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        pulled += 1 << 16;
        controller.enqueue(new Uint8Array(1 << 16).fill(0x20));
      },
    });
    assert.equal((await handler()(post("", { body: endless, duplex: "half" } as RequestInit))).status, 413);
    assert.ok(pulled < 2 * MAX_BODY_BYTES, `${pulled} bytes`);
    const exact = JSON.stringify(greedy).padEnd(MAX_BODY_BYTES);
    assert.equal((await handler()(post(exact))).status, 200);
  });

  it("a full queue is a 429 that says when to come back; whoever leaves makes room, once", async () => {
    const handle = handler();
    const streams = await Promise.all(Array.from({ length: QUEUE }, () => handle(post({ messages, stream: true }))));
    const full = await handle(post(greedy));
    assert.deepEqual([full.status, full.headers.get("retry-after")], [429, "1"]);
    assert.equal(((await full.json()) as Json).error.type, "rate_limit_error");
    await streams[0]!.body!.cancel();
    const next = await handle(post({ messages, stream: true }));
    assert.equal(next.status, 200);
    assert.equal((await handle(post(greedy))).status, 429);
    await Promise.all([...streams.slice(1), next].map((r) => r.body!.cancel()));
    assert.equal((await handle(post(greedy))).status, 200);
    await allClosed();
  });

  it("one that leaves before its first part is counted out once", async () => {
    const handle = handler({ maxRequests: 1 });
    const abort = new AbortController();
    const asked = handle(post({ messages, stream: true }, { signal: abort.signal }));
    abort.abort();
    assert.equal((await asked).status, 499);
    const next = await handle(post({ messages, stream: true }));
    assert.deepEqual([next.status, (await handle(post(greedy))).status], [200, 429]);
    await next.body!.cancel();
    await allClosed();
  });

  it("a client that leaves ends its reply within a step and frees the session", async () => {
    let steps = 0;
    const counted = Object.create(model, {
      stream: {
        value: (input: never, options: object) => model.stream(input, { ...options, stopIds: [], stoppingCriteria: [() => ++steps < 0] }),
      },
      info: { value: model.info },
    }) as Model;
    const handle = createHandler(counted);
    const body = { ...greedy, max_tokens: 400, stream: true };
    const abort = new AbortController();
    const left = await handle(post(body, { signal: abort.signal }));
    const leaving = left.body!.getReader();
    for (let i = 0; i < 5; i++) await leaving.read();
    const atAbort = steps;
    abort.abort();
    assert.equal((await leaving.read()).done, true, "nobody waits for ever");
    await allClosed();
    assert.ok(atAbort > 0 && steps <= atAbort + 1, `${steps - atAbort} steps after it left`);
    const response = await handle(post(body));
    const reader = response.body!.getReader();
    for (let i = 0; i < 5; i++) await reader.read();
    const before = steps;
    const pending = reader.read();
    await reader.cancel();
    assert.equal((await pending).done, true);
    await allClosed();
    assert.ok(steps <= before + 1, `${steps - before} steps after it left`);
    // text that may become a stop string is held back: the read that waits for it is given up too
    const [letter = 0] = model.tokenizer.encode("a").slice(-1);
    const held = await handle(post({ ...body, logit_bias: { [letter]: 100 }, stop: "a".repeat(256), max_tokens: 250 }));
    const waiting = held.body!.getReader();
    await waiting.read();
    const atStart = steps;
    const never = waiting.read();
    while (steps < atStart + 5) await new Promise((resolve) => setImmediate(resolve));
    const atCancel = steps;
    await waiting.cancel();
    assert.equal((await never).done, true);
    await allClosed();
    assert.ok(steps <= atCancel + 1, `${steps - atCancel} steps after it left`);
  });

  it("tells nothing of the server: neither stack nor message; its owner is told", async () => {
    const told: unknown[] = [];
    let loads = 0;
    const broken = new Error("the-owner/model.gguf");
    const handle = createHandler(
      () => {
        if (loads++ === 0) throw broken;
        return model;
      },
      { onError: (error) => told.push(error) },
    );
    const response = await handle(post(greedy));
    const text = await response.text();
    assert.equal(response.status, 500);
    assert.doesNotMatch(text, /owner|stack|\.ts|at /);
    assert.deepEqual(told, [broken]);
    assert.equal((await handle(post(greedy))).status, 200, "the next request loads again");
    const gone = await load(mini);
    gone.dispose();
    const disposed = await createHandler(gone)(post(greedy));
    assert.deepEqual([disposed.status, disposed.headers.get("retry-after")], [503, "1"]);
  });
});
