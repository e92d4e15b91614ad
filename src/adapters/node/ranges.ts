// Ranges of large files by node:http, where nobody has changed what `fetch` does. What it has brought is given back at once, and not left to the collector of garbage, which
// else marks the whole heap for every few MB of a download, and finds new memory for them.
import type { Agent, ClientRequest, IncomingMessage } from "node:http";
import process from "node:process";
import type { Fetch, FetchInit } from "../../weights/request.ts";

/** Parts that lie here, not yet read, before the server has to wait. */
const MOST_PARTS = 16;
/** How long a connection is kept for another request, ms: as Node's own agents. */
const IDLE_MS = 5000;

/** Where `fetch` of Node, and the package undici, keep what sends requests. */
const DISPATCHERS = ["undici.globalDispatcher.1", "undici.globalDispatcher.2"].map((name) => Symbol.for(name));
/** Those that were found to be Node's own. */
const own = new WeakSet<object>();

/** Whether a dispatcher is what Node makes where nobody has set one: its class says where it comes from when it refuses what it is given. */
function isOwn(dispatcher: object | undefined): boolean {
  if (dispatcher === undefined || own.has(dispatcher)) return true;
  const { constructor: Kind, dispatch } = dispatcher as { constructor: new (options: object) => object; dispatch: unknown };
  if (!/^(?:Agent|Dispatcher1Wrapper)$/.test(Kind.name) || dispatch !== Kind.prototype.dispatch) return false;
  try {
    new Kind({ factory: "none" });
  } catch (error) {
    if (!(error as Error).stack?.includes("node:internal/")) return false;
    own.add(dispatcher);
    return true;
  }
  return false;
}

/** Whether `fetch` is Node's and does what it does where nothing is set: no proxy, no recorder. Another function, or a Node whose `fetch` is written otherwise, is left alone. */
function isOrdinary(): boolean {
  const kept = globalThis as { readonly [key: symbol]: object | undefined };
  const flags = [...process.execArgv, process.env.NODE_OPTIONS ?? "", process.env.NODE_USE_ENV_PROXY ? "--use-env-proxy" : ""];
  return (
    Function.prototype.toString.call(globalThis.fetch).includes("fetchImpl") &&
    DISPATCHERS.every((key) => isOwn(kept[key])) &&
    !flags.some((flag) => flag.includes("--use-env-proxy"))
  );
}

interface Part {
  readonly done: boolean;
  readonly value?: Uint8Array;
}

interface Waiter {
  readonly resolve: (part: Part) => void;
  readonly reject: (error: Error) => void;
}

/** A body as `ReadableStream` would give it. Its bytes hold until the next read. */
class Body {
  /** Whether Node makes a part a copy of what its socket read, which nobody wants any more then; known once a part has come from what was read. */
  #isCopied: boolean | undefined;
  /** The part that came of what the socket has just read. */
  #newest: Uint8Array | undefined;
  readonly #response: IncomingMessage;
  readonly #parts: Uint8Array[] = [];
  #last: Uint8Array | undefined;
  #waiting: Waiter | undefined;
  #error: Error | undefined;
  #isOver = false;

  constructor(response: IncomingMessage) {
    this.#response = response;
    response.on("error", (error) => this.#fail(error));
    response.on("close", () => this.#fail(new Error("the connection was closed")));
  }

  getReader(): this {
    this.#response.on("data", (part: Uint8Array) => this.#put(part));
    this.#response.on("end", () => this.#end());
    const { socket } = this.#response;
    const before = (): void => (this.#newest = undefined);
    const behind = (bytes: Uint8Array): void => this.#passed(bytes); // Node's own listener has taken what is in it
    socket.prependListener("data", before).on("data", behind);
    this.#response.once("close", () => socket.off("data", before).off("data", behind));
    return this;
  }

  read(): Promise<Part> {
    if (this.#response.listenerCount("data") === 1) free(this.#last); // nobody else has it
    this.#last = this.#parts.shift();
    if (this.#parts.length === 0 && this.#response.isPaused()) this.#response.resume();
    if (this.#last) return Promise.resolve({ done: false, value: this.#last });
    if (this.#isOver) return Promise.resolve({ done: true });
    if (this.#error) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  async cancel(): Promise<void> {
    if (!this.#isOver) this.#response.destroy();
  }

  #take(): Waiter | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    return waiting;
  }

  #passed(bytes: Uint8Array): void {
    if (this.#newest) this.#isCopied ??= this.#newest.buffer !== bytes.buffer;
    if (this.#isCopied && this.#response.socket.listenerCount("data") === 3) free(bytes); // Node's and the two of ours
  }

  #put(part: Uint8Array): void {
    this.#newest = part;
    const waiting = this.#take();
    if (waiting) {
      this.#last = part;
      waiting.resolve({ done: false, value: part });
    } else if (this.#parts.push(part) >= MOST_PARTS) this.#response.pause();
  }

  #end(): void {
    this.#isOver = true;
    this.#take()?.resolve({ done: true });
  }

  #fail(error: Error): void {
    this.#error ??= error;
    if (!this.#isOver) this.#take()?.reject(error);
  }
}

/** Gives memory back: of bytes that have a buffer of their own. Node 20 cannot. */
function free(part: Uint8Array | undefined): void {
  if (part?.byteOffset !== 0 || part.length !== part.buffer.byteLength) return;
  (part.buffer as ArrayBuffer & { transfer?: (bytes: number) => unknown }).transfer?.(0);
}

/** A server was not reached: it may be that only `fetch` knows the way, by a certificate or a name service of its own. */
class NotReached extends Error {}

/** Connections of our own: a program may let its global agents have few, and a reader that waits holds one. */
const agents = new Map<string, Agent>();

/**
 * Sends one request. A connection that the server had closed while it was idle counts for nothing.
 * @throws NotReached
 */
async function send(url: URL, { headers, signal }: FetchInit): Promise<IncomingMessage> {
  const isSecure = url.protocol === "https:";
  const { Agent, request } = isSecure ? await import("node:https") : await import("node:http");
  const agent = agents.get(url.protocol) ?? new Agent({ keepAlive: true, scheduling: "lifo", timeout: IDLE_MS });
  agents.set(url.protocol, agent);
  const options = { agent, signal, headers: { accept: "*/*", "user-agent": "node", ...headers } };
  for (;;) {
    let isReached = false;
    let sent: ClientRequest | undefined;
    try {
      return await new Promise((resolve, reject) => {
        sent = request(url, options, resolve).on("error", reject);
        sent.on("socket", (socket) => {
          if (socket.connecting) socket.once(isSecure ? "secureConnect" : "connect", () => (isReached = true));
          else isReached = true;
        });
        sent.end();
      });
    } catch (error) {
      if (signal.aborted) throw error;
      if (!isReached) throw new NotReached(undefined, { cause: error });
      if (!sent?.reusedSocket || !/^(?:ECONNRESET|EPIPE)$/.test((error as { code?: string }).code ?? "")) throw error;
    }
  }
}

/** `fetch` as a load uses it. */
export const fetchRanges: Fetch = async (url, init) => {
  if (init.headers.range === undefined || !isOrdinary()) return fetch(url, init);
  let response: IncomingMessage;
  try {
    response = await send(new URL(url), init);
  } catch (error) {
    if (error instanceof NotReached) return fetch(url, init);
    throw error;
  }
  const { headers, statusCode: status = 0 } = response;
  if (!/^(?:identity)?$/i.test(headers["content-encoding"] ?? "")) {
    response.destroy();
    return fetch(url, init); // which unpacks it
  }
  return { status, url, headers: { get: (name) => headers[name]?.toString() ?? null }, body: new Body(response) };
};
