// The model behind an address, as OpenAI's API has it: (Request) => Promise<Response>, for whatever calls fetch handlers. Closed by default: no page of another
// origin may ask, bodies and the queue have a limit, and a client that leaves ends its reply.
import { checkNames } from "../checks.ts";
import { AbortError } from "../errors.ts";
import type { Model } from "../model.ts";
import type { Part } from "../reply.ts";
import { parseJsonBytes } from "../weights/json-scan.ts";
import { type Failure, failure, Refusal } from "./refusal.ts";
import { type ChatRequest, chunk, completion, type Head, lastChunks, parseChatRequest } from "./wire.ts";

/** Bytes of a body: 128,000 tokens are about half a MiB of text. */
const MAX_BODY_BYTES = 1 << 20;
/** Requests at once, those that wait for their turn included. */
const MAX_REQUESTS = 64;
/** How long a body may take to arrive. */
const BODY_MS = 30_000;

/** Options of `createHandler`. */
export interface HandlerOptions {
  /** What `/v1/models` calls the model; default its own name. A request may name any other: there is only this one. */
  readonly name?: string | undefined;
  /** A key that every request must bear (`authorization: Bearer …`); default none is asked for. `/health` needs none. */
  readonly apiKey?: string | undefined;
  /** Origins whose pages may ask, or `"*"`; default those of the handler's own address only. */
  readonly origins?: readonly string[] | "*" | undefined;
  /** Bytes of a body at most; default 1 MiB. A larger one gets 413. */
  readonly maxBodyBytes?: number | undefined;
  /** Requests at once, those that wait included; default 64. One more gets 429. */
  readonly maxRequests?: number | undefined;
  /** Told what went wrong wherever a client is told 5xx, for its answer says nothing about the server. */
  readonly onError?: ((error: unknown) => void) | undefined;
}

const KEYS: Readonly<Record<keyof HandlerOptions, 1>> = { name: 1, apiKey: 1, origins: 1, maxBodyBytes: 1, maxRequests: 1, onError: 1 };

/** A model, or what gives one: loading may wait for the first request. */
export type ModelProvider = Model | (() => Model | Promise<Model>);

/** Keeps a request's work alive where the runtime would end it with the request. */
type Keep = (work: Promise<unknown>) => void;

type Route = (request: Request, keep: Keep) => Promise<Response> | Response;

/** What is behind an address: a `fetch` of a worker, a handler of `Deno.serve` and `Bun.serve`. */
export type Handle = (request: Request, environment?: unknown, context?: unknown) => Promise<Response>;

/**
 * Serves a model as OpenAI's API: `POST /v1/chat/completions` (text, plain and streamed), `GET /v1/models`, `GET /health`. Errors are OpenAI's error objects with
 * their status. What would change a reply and cannot be honoured (tools, images, `n`) is refused, not ignored.
 * @throws InputError for an option that there is not: a key by another name would guard nothing
 * @example
 * import { load } from "lfm2-wasm";
 * import { createHandler } from "lfm2-wasm/server";
 * export default { fetch: createHandler(() => load("LiquidAI/LFM2-350M")) };
 */
export function createHandler(model: ModelProvider, options: HandlerOptions = {}): Handle {
  checkNames("createHandler", options, "HandlerOptions", KEYS);
  return new Handler(model, options).handle;
}

class Handler {
  readonly #options: HandlerOptions;
  readonly #model: () => Promise<Model>;
  readonly #routes: Readonly<Record<string, Readonly<Record<string, Route>>>>;
  #running = 0;

  constructor(model: ModelProvider, options: HandlerOptions) {
    this.#options = options;
    let loaded: Promise<Model> | undefined;
    this.#model = () => {
      if (typeof model !== "function") return Promise.resolve(model);
      loaded ??= Promise.resolve()
        .then(model)
        .catch((error: unknown) => {
          loaded = undefined; // the next request tries again
          throw new LoadFailure(error);
        });
      return loaded;
    };
    this.#routes = {
      "/health": { GET: () => json({ status: "ok" }) },
      "/v1/models": { GET: async () => json({ object: "list", data: [await this.#entry()] }) },
      "/v1/chat/completions": { POST: (request, keep) => this.#chat(request, keep) },
    };
  }

  readonly handle: Handle = (request, _environment, context) => {
    const keep = keeper(context);
    const answer = this.#answer(request, keep);
    keep(answer);
    return answer;
  };

  async #answer(request: Request, keep: Keep): Promise<Response> {
    const cors = this.#cors(request);
    let response: Response;
    try {
      if (!cors) throw new Refusal(403, "origin: expected a page of this origin, got another. Name it in the handler's origins.", "origin");
      response = await this.#route(request, keep);
    } catch (error) {
      const { status, body, headers } = this.#failure(error);
      response = json(body, status, headers);
    }
    for (const [name, value] of cors ?? []) response.headers.set(name, value);
    return response;
  }

  /** A failed load is the server's fault, whatever class its error has. */
  #failure(error: unknown): Failure {
    const told = failure(error);
    if (told.status >= 500) this.#options.onError?.(error instanceof LoadFailure ? error.cause : error);
    return told;
  }

  async #route(request: Request, keep: Keep): Promise<Response> {
    const { pathname } = new URL(request.url);
    const path = pathname.length > 1 ? pathname.replace(/\/+$/, "") : pathname;
    if (request.method === "OPTIONS" && request.headers.has("access-control-request-method")) return new Response(null, { status: 204 });
    if (path !== "/health") this.#checkKey(request); // first: who has none learns no name and loads nothing
    const methods = Object.hasOwn(this.#routes, path) ? this.#routes[path] : await this.#namedModel(path);
    if (!methods) throw new Refusal(404, `path: expected one of ${Object.keys(this.#routes).join(", ")}, got another.`, "not_found");
    const route = Object.hasOwn(methods, request.method) ? methods[request.method] : undefined;
    if (!route) {
      const allow = Object.keys(methods).join(", ");
      throw new Refusal(405, `method: expected ${allow}, got ${request.method}.`, "method_not_allowed", { allow });
    }
    return route(request, keep);
  }

  /** `/v1/models/NAME`, for the one that there is. */
  async #namedModel(path: string): Promise<Readonly<Record<string, Route>> | undefined> {
    if (!path.startsWith("/v1/models/")) return undefined;
    const entry = await this.#entry();
    return path === `/v1/models/${encodeURIComponent(entry.id)}` || path === `/v1/models/${entry.id}`
      ? { GET: () => json(entry) }
      : undefined;
  }

  async #entry(): Promise<{ readonly id: string; readonly object: "model"; readonly created: number; readonly owned_by: string }> {
    return { id: this.#options.name ?? (await this.#model()).info.name, object: "model", created: 0, owned_by: "lfm2-wasm" };
  }

  /** @returns headers for the page that asks, or undefined when it may not */
  #cors(request: Request): readonly (readonly [string, string])[] | undefined {
    const origin = request.headers.get("origin");
    // by host: behind a proxy that speaks TLS, the address that arrives has another scheme
    if (origin === null || origin.replace(/^https?:\/\//, "") === new URL(request.url).host) return [];
    const { origins = [] } = this.#options;
    if (origins !== "*" && !origins.includes(origin)) return undefined;
    return [
      ["access-control-allow-origin", origins === "*" ? "*" : origin],
      ["access-control-allow-headers", "authorization, content-type"],
      ["access-control-allow-methods", "GET, POST"],
      ["vary", "origin"],
    ];
  }

  #checkKey(request: Request): void {
    const { apiKey } = this.#options;
    if (apiKey === undefined || isSame(request.headers.get("authorization") ?? "", `Bearer ${apiKey}`)) return;
    throw new Refusal(401, "authorization: expected the server's key, got none or another.", "invalid_api_key", {
      "www-authenticate": "Bearer",
    });
  }

  async #chat(request: Request, keep: Keep): Promise<Response> {
    const { signal } = request;
    const type = request.headers.get("content-type") ?? "none";
    if (!/^application\/json\s*(?:;|$)/i.test(type))
      throw new Refusal(415, "content-type: expected application/json, got another or none.", "unsupported_media_type");
    const { maxRequests = MAX_REQUESTS, maxBodyBytes = MAX_BODY_BYTES } = this.#options;
    if (this.#running >= maxRequests)
      throw new Refusal(429, `queue: expected at most ${maxRequests} requests at once, got one more. Try again later.`, "queue_full", {
        "retry-after": "1",
      });
    this.#running++;
    let isCounted = true;
    const countOut = (): void => {
      if (isCounted) this.#running--;
      isCounted = false;
    };
    let isStreaming = false;
    try {
      const asked = parseChatRequest(parseBody(await readBody(request, maxBodyBytes)));
      const head: Head = { id: `chatcmpl-${crypto.randomUUID()}`, created: Math.floor(Date.now() / 1000), model: (await this.#entry()).id };
      const model = await this.#model();
      if (!asked.isStreamed) return json(completion(head, await model.generate(asked.messages, { ...asked.options, signal })));
      const response = await stream(model, asked, head, signal, { onEnd: countOut, tell: (error) => this.#failure(error), keep });
      isStreaming = true;
      return response;
    } finally {
      if (!isStreaming) countOut();
    }
  }
}

const encoder = new TextEncoder();
const events = (objects: readonly object[]): Uint8Array => encoder.encode(objects.map((o) => `data: ${JSON.stringify(o)}\n\n`).join(""));

interface StreamHost {
  /** Called when nothing more is computed for this request. */
  readonly onEnd: () => void;
  readonly tell: (error: unknown) => Failure;
  readonly keep: Keep;
}

/**
 * An edge worker takes a request's timers and promises along when its client leaves, and tells nobody, unless its context is kept until the work is done: then
 * the body's `cancel` is called, and the session can close.
 */
function keeper(context: unknown): Keep {
  const { waitUntil } = (context ?? {}) as { readonly waitUntil?: unknown };
  if (typeof waitUntil !== "function") return (work) => void work.catch(ignore);
  return (work) => waitUntil.call(context, work.then(ignore, ignore));
}

const ignore = (): void => {};

/** Bytes that go out as they come in. */
interface Passage {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
}
const { IdentityTransformStream } = globalThis as { readonly IdentityTransformStream?: new () => Passage };

/**
 * A body whose `cancel` is called when its client leaves: of those that are its
 * own streams, an edge worker (workerd 2026-04-26) forgot one in ten, of piped ones none (measured).
 */
function watched(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  return IdentityTransformStream ? body.pipeThrough(new IdentityTransformStream()) : body;
}

/** One event a part that is pulled: a slow reader slows the model down, one that leaves ends the reply before its next step. */
async function stream(
  model: Model,
  asked: ChatRequest,
  head: Head,
  signal: AbortSignal,
  { onEnd, tell, keep }: StreamHost,
): Promise<Response> {
  const abort = new AbortController();
  const parts = model.stream(asked.messages, { ...asked.options, signal: abort.signal })[Symbol.asyncIterator]();
  let hasEnded = false;
  let release = (): void => {};
  keep(
    new Promise<void>((resolve) => {
      release = resolve;
    }),
  );
  const end = (): void => {
    if (hasEnded) return;
    hasEnded = true;
    release();
    signal.removeEventListener("abort", leave);
    onEnd();
  };
  const leave = (): void => {
    abort.abort();
    keep(Promise.resolve(parts.return?.())); // nobody is there to hear of it
    end();
  };
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  let next: Promise<IteratorResult<Part>> | undefined = parts.next();
  try {
    await next; // what is wrong with the request is said by a status, before anything is sent
  } catch (error) {
    end();
    throw error;
  }
  if (signal.aborted) throw new AbortError();
  /** @returns the next events; undefined after the last */
  const read = async (): Promise<Uint8Array | undefined> => {
    for (;;) {
      const { done, value } = await (next ?? parts.next());
      next = undefined;
      if (done) return undefined;
      if (value.type === "text-delta") return events([chunk(head, { content: value.delta })]);
      if (value.type === "finish") return events(lastChunks(head, value.reply, asked.includesUsage));
    }
  };
  let isFirst = true;
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (isFirst) {
          isFirst = false;
          controller.enqueue(events([chunk(head, { role: "assistant", content: "" })]));
          return;
        }
        let last: Uint8Array;
        try {
          const bytes = await read();
          if (bytes && !hasEnded) return controller.enqueue(bytes);
          last = encoder.encode("data: [DONE]\n\n");
        } catch (error) {
          last = events([tell(error).body]); // too late for a status
        }
        if (isCancelled) return; // closed already
        if (!hasEnded) controller.enqueue(last);
        controller.close();
        end();
      },
      async cancel() {
        isCancelled = true;
        leave();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(watched(body), { headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store" } });
}

/** What giving the model failed with. */
class LoadFailure extends Error {
  override readonly name = "LoadFailure";
  constructor(cause: unknown) {
    super("the model could not be loaded", { cause });
  }
}

/** @throws Refusal 400 for what is no JSON */
function parseBody(bytes: Uint8Array): unknown {
  try {
    return parseJsonBytes(bytes, "body", { maxBytes: bytes.length });
  } catch (error) {
    const [what = ""] = (error as Error).message.replace(/^\[lfm2\] /, "").split(/\.(?= |$)/); // what to do is said there of files
    throw new Refusal(400, `${what}. Send one JSON object.`, "invalid_json");
  }
}

/** @throws Refusal 413 for more than `maxBytes`, 408 for one that does not end in time */
async function readBody(request: Request, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = (): Refusal => new Refusal(413, `body: expected at most ${maxBytes} bytes, got more.`, "body_too_large");
  if (Number(request.headers.get("content-length") ?? 0) > maxBytes) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let length = 0;
  if (request.body) {
    const reader = request.body.getReader();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Refusal(408, `body: expected all of it within ${BODY_MS / 1000} s, got less.`, "timeout")),
        BODY_MS,
      );
    });
    try {
      for (;;) {
        const { done, value } = await Promise.race([reader.read(), late]);
        if (done) break;
        length += value.length;
        if (length > maxBytes) throw tooLarge();
        pieces.push(value);
      }
    } catch (error) {
      reader.cancel().catch(() => {}); // it has gone already
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Takes as long for a wrong key as for the right one. */
function isSame(given: string, expected: string): boolean {
  const [a, b] = [encoder.encode(given), encoder.encode(expected)];
  let difference = a.length ^ b.length;
  for (let i = 0; i < b.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0);
  return difference === 0;
}

function json(body: object, status = 200, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store", ...headers },
  });
}
