// One HTTP request: redirects followed by hand, the token kept to its origin, an end to silence, every failure an error of ours. Knows no ranges, no files, no runtime.

import { AbortError, NetworkError } from "../errors.ts";
import { quoted } from "../values.ts";
import { isHttp } from "./address-check.ts";
import { MAX_REDIRECTS, MAX_RETRIES, NETWORK_WINDOW_BYTES, STALL_MS, UNREACHABLE_MS } from "./limits.ts";
import type { Pool } from "./piece.ts";
import type { ByteSource } from "./source.ts";

/** What is used of a `Response`. */
export interface FetchResponse {
  readonly status: number;
  readonly type?: string;
  readonly url: string;
  readonly headers: { get(name: string): string | null };
  /** A `ReadableStream` of bytes. */
  readonly body: object | null;
}

/** What is passed to `fetch`. */
export interface FetchInit {
  readonly headers: Record<string, string>;
  readonly redirect: "manual" | "follow";
  readonly signal: AbortSignal;
}

/** `fetch`, or what stands in for it: a proxy, a recorder, a service binding. */
export type Fetch = (url: string, init: FetchInit) => Promise<FetchResponse>;

/** A checksum under way. */
export interface Hash {
  /** Takes bytes that hold only until it returns. */
  update(bytes: Uint8Array): void;
  /** @returns lower-case hexadecimal */
  digest(): string | Promise<string>;
}

/** How patient transfers are, and how much of a file they hold. */
export interface NetworkOptions {
  /** Silence in ms after which a connection counts as dead; default 30,000. */
  readonly stallMs?: number | undefined;
  /** Retries in a row that gain nothing; default 5. */
  readonly maxRetries?: number | undefined;
  /** First wait in ms before a retry, doubled each time; default 500. */
  readonly backoffMs?: number | undefined;
  /** Bytes of a file in memory at a time; default 32 MiB, in Workers 4 MiB; 64 KiB at least. */
  readonly windowBytes?: number | undefined;
}

/** What is known of a file before its first byte. */
export interface RemoteFileOptions {
  readonly name: string;
  readonly url: string;
  readonly sizeBytes?: number | undefined;
  readonly checksum?: Checksum | undefined;
  /** Whoever reads proves the checksum: bytes come from where they are asked for, and none for the proof alone. */
  readonly isProvedByReader?: boolean | undefined;
  /** The first byte that will be asked for; default 0. */
  readonly fromBytes?: number | undefined;
  /** The commit that a hub must say it answers from. */
  readonly commit?: string | undefined;
  /** ETag of the version to take, where it is known: any other is an error. */
  readonly version?: string | undefined;
  /** Opens the file of a name beside it. */
  readonly sibling?: ByteSource["sibling"] | undefined;
}

/** What the bytes must add up to: git's sha1 of a blob, or the sha256 of the content. */
export interface Checksum {
  readonly algorithm: "sha1" | "sha256";
  readonly hex: string;
}

/** A file on the network, open. */
export interface RemoteSource extends ByteSource {
  /** Waits for the first answer, where the size was not known before. */
  begin(): Promise<void>;
  close(): Promise<void>;
}

/** What an adapter gives and a caller's options change: the way to the network. */
export interface Network {
  readonly fetch: Fetch;
  readonly createHash: (algorithm: "sha1" | "sha256") => Hash;
  /** Address of the hub, without a slash at its end. */
  readonly endpoint: string;
  /** A secret, sent to `tokenOrigin` and nowhere else. */
  readonly token?: string | undefined;
  readonly tokenOrigin?: string | undefined;
  readonly options?: NetworkOptions | undefined;
  /** Memory that the files of one load share. */
  readonly pool?: Pool | undefined;
  /** Whether a reader that waits makes the server wait: then a request may be for more than fits into the window. Else what is in flight is what was asked for. */
  readonly hasBackpressure?: boolean | undefined;
  /** Whether a header that is not plain makes a browser ask the other origin first (CORS), which many a CDN refuses: versions are then told apart by their ETags alone. */
  readonly isCrossOrigin?: boolean | undefined;
  /** Opens what nothing keeps, so that loads at once share a download; left out where they cannot. */
  readonly share?: ((network: Network, file: RemoteFileOptions, signal?: AbortSignal) => RemoteSource) | undefined;
}

/** A failure that another attempt may mend; it does not leave this folder. */
export class Interrupted extends Error {
  /** What a caller gets when no attempt is left. */
  readonly error: NetworkError;
  readonly isStall: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(error: NetworkError, { isStall = false, retryAfterMs }: { isStall?: boolean; retryAfterMs?: number | undefined } = {}) {
    super(error.message);
    this.error = error;
    this.isStall = isStall;
    this.retryAfterMs = retryAfterMs;
  }
}

export const stallMsOf = ({ options }: Network): number => options?.stallMs ?? STALL_MS;
export const maxRetriesOf = ({ options }: Network): number => options?.maxRetries ?? MAX_RETRIES;
export const windowBytesOf = ({ options }: Network): number => Math.max(1 << 16, options?.windowBytes ?? NETWORK_WINDOW_BYTES);

/** With something to fall back to, patience only costs time. */
export const hurried = (network: Network): Network => ({
  ...network,
  options: {
    ...network.options,
    maxRetries: Math.min(1, maxRetriesOf(network)),
    stallMs: Math.min(UNREACHABLE_MS, stallMsOf(network)),
  },
});

/** Whether the server did not answer, or with an error of its own. */
export const isUnreachable = (error: unknown): boolean => error instanceof NetworkError && (error.status === 0 || error.retryable);

/** One attempt at one request: ends with the caller's signal, or when nothing comes for a while. */
export class Attempt {
  readonly #parent: AbortSignal;
  readonly #stallMs: number;
  readonly #where: string;
  readonly #control = new AbortController();
  /** One timer for all waits: a body comes in thousands of pieces. */
  #timer: ReturnType<typeof setTimeout>;
  /** Since when something is waited for. */
  #since: number | undefined;
  #fail: ((error: unknown) => void) | undefined;
  #error: unknown;

  constructor(parent: AbortSignal, stallMs: number, where: string) {
    this.#parent = parent;
    this.#stallMs = stallMs;
    this.#where = where;
    this.#timer = setTimeout(this.#look, stallMs);
    if (parent.aborted) this.#onAbort();
    else parent.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#control.signal;
  }

  readonly #onAbort = (): void => this.#stop(new AbortError(undefined, { cause: this.#parent.reason }));

  readonly #look = (): void => {
    const silentMs = this.#since === undefined ? 0 : performance.now() - this.#since;
    if (silentMs >= this.#stallMs) this.#stop(stalled(this.#where, this.#stallMs));
    else this.#timer = setTimeout(this.#look, Math.max(1, this.#stallMs - silentMs));
  };

  #stop(error: unknown): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    clearTimeout(this.#timer);
    this.#control.abort(error);
    this.#fail?.(error);
  }

  /**
   * @param late gets what the promise gives after the attempt is over
   * @param broken makes an error of ours of what the promise rejects with
   * @returns what the promise gives, but no later than the signal or the limit of silence, whether the promise heeds them or not
   */
  wait<T>(promise: Promise<T>, late?: (value: T) => void, broken = (cause: unknown): unknown => cause): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#since = performance.now();
      if (this.#error !== undefined) reject(this.#error);
      promise.then(
        (value) => {
          this.#since = undefined;
          if (this.#error === undefined) resolve(value);
          else late?.(value);
        },
        (cause) => {
          this.#since = undefined;
          reject(this.#error ?? broken(cause));
        },
      );
    });
  }

  /** Ends the attempt: what is still open is closed. */
  end(): void {
    clearTimeout(this.#timer);
    this.#parent.removeEventListener("abort", this.#onAbort);
    this.#control.abort();
  }
}

function stalled(where: string, ms: number): Interrupted {
  const message = `${where}: expected bytes, got none for ${ms / 1000} s: the connection has stalled. Try again.`;
  return new Interrupted(new NetworkError(message, { code: "stalled", retryable: true }), { isStall: true });
}

/** A connection broke, or there was none. */
export function dropped(where: string, got: string, cause?: unknown): Interrupted {
  const message = `${where}: expected an answer in full, got ${got}. Check the connection and try again.`;
  return new Interrupted(new NetworkError(message, { code: "dropped", retryable: true, ...(cause === undefined ? {} : { cause }) }));
}

interface Chunk {
  readonly done: boolean;
  readonly value?: Uint8Array | undefined;
}
interface StreamReader {
  read(): Promise<Chunk>;
  cancel(): Promise<void>;
}
interface Stream {
  getReader(): StreamReader;
  cancel(): Promise<void>;
}

/** The body of an answer, read piece by piece. */
export class Body {
  readonly #reader: StreamReader | undefined;
  readonly #attempt: Attempt;
  readonly #broken: (cause: unknown) => Interrupted;

  constructor(body: object | null, attempt: Attempt, where: string) {
    this.#attempt = attempt;
    this.#broken = (cause) => dropped(where, "a broken connection", cause);
    if (body === null) return;
    this.#reader = (body as Stream).getReader();
  }

  /**
   * @returns the next bytes, which hold until the next call, or undefined at the end
   * @throws Interrupted when the connection breaks or stalls; AbortError
   */
  async read(): Promise<Uint8Array | undefined> {
    if (!this.#reader) return undefined;
    const { done, value } = await this.#attempt.wait(this.#reader.read(), undefined, this.#broken);
    return done ? undefined : value;
  }

  /** Closes the connection if there is more to come. */
  cancel(): void {
    this.#reader?.cancel().catch(() => {});
  }
}

/** An answer after all redirects. */
export interface Answer {
  readonly response: FetchResponse;
  /** Where it came from. */
  readonly url: string;
  readonly hops: number;
  /** Headers of the redirects, first hop first: a hub tells there what the file is. */
  readonly passed: readonly FetchResponse["headers"][];
}

function cancelBody({ body }: FetchResponse): void {
  (body as Stream | null)?.cancel().catch(() => {});
}

function nextAddress(response: FetchResponse, from: string, where: string): string {
  const refuse = (got: string): NetworkError =>
    new NetworkError(`${where}: expected a redirect to an https: address, got ${got}. Check the address.`, {
      status: response.status,
      code: "redirect",
    });
  let to: URL;
  try {
    to = new URL(response.headers.get("location") ?? "", from);
  } catch {
    throw refuse("one to no address");
  }
  if (!isHttp(to)) throw refuse(`one to ${quoted(to.protocol)}`);
  if (to.username !== "" || to.password !== "") throw refuse("one with user and password");
  if (to.protocol === "http:" && new URL(from).protocol === "https:") throw refuse("one from https: to http:");
  return to.href;
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * Sends a GET and follows redirects.
 * @throws Interrupted when no answer came; NetworkError for a redirect that leads nowhere; AbortError
 */
export async function ask(
  network: Network,
  attempt: Attempt,
  where: string,
  address: string,
  headers: Record<string, string>,
): Promise<Answer> {
  const passed: FetchResponse["headers"][] = [];
  let redirect: FetchInit["redirect"] = "manual";
  for (let url = address, hops = 0; ; ) {
    const secret: Record<string, string> =
      network.token !== undefined && new URL(url).origin === network.tokenOrigin ? { authorization: `Bearer ${network.token}` } : {};
    const init: FetchInit = { headers: { ...headers, ...secret }, redirect, signal: attempt.signal };
    let response: FetchResponse;
    try {
      response = await attempt.wait(Promise.resolve(network.fetch(url, init)), cancelBody);
    } catch (cause) {
      if (cause instanceof Interrupted || cause instanceof AbortError) throw cause;
      throw dropped(where, "no answer", cause);
    }
    if (response.type === "opaqueredirect" && redirect === "manual") {
      redirect = "follow"; // a page may not see where it is sent; its browser drops the token on another origin by itself
      continue;
    }
    if (!REDIRECTS.has(response.status)) return { response, url: redirect === "follow" ? response.url || url : url, hops, passed };
    cancelBody(response);
    if (++hops > MAX_REDIRECTS)
      throw new NetworkError(`${where}: expected at most ${MAX_REDIRECTS} redirects, got more. Check the address.`, {
        status: response.status,
        code: "redirect",
      });
    passed.push(response.headers);
    url = nextAddress(response, url, where);
  }
}

/** @returns ms to wait as the header says, or undefined when it says nothing. */
export function retryAfter(header: string | null, now: number = Date.now()): number | undefined {
  if (header === null) return undefined;
  const ms = /^\s*\d+\s*$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

const RETRYABLE: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What to do about a status that is no success. */
function advice(status: number, hasToken: boolean): string {
  if (status === 401 && hasToken)
    return "It does not exist, or the token is not, or no longer, valid: check the name and the token (`token`, else HF_TOKEN, else that of `hf auth login`)";
  if (status === 401)
    return "It does not exist, or needs a token: check the name; for a gated or private model pass `token` (in Node HF_TOKEN, or `hf auth login`)";
  if (status === 403) return "The token may not read it: ask for access on the model's page, or check the token";
  if (status === 404 || status === 410) return "Check the name and the revision";
  return RETRYABLE.has(status) ? "The server is busy or broken: try again later" : "Check the address";
}

/** @returns the error for a status other than 200 and 206: an `Interrupted` where another attempt may help. A server may repeat the token that it was sent: the error does not. */
export function refusal({ response: { status, headers } }: Answer, where: string, { token }: Network): Interrupted | NetworkError {
  const said = headers.get("x-error-message")?.replaceAll(token ?? "\0", "…");
  const message = `${where}: expected status 200, got ${status}${said ? ` (${quoted(said)})` : ""}. ${advice(status, token !== undefined)}.`;
  if (!RETRYABLE.has(status)) return new NetworkError(message, { status });
  return new Interrupted(new NetworkError(message, { status, retryable: true }), { retryAfterMs: retryAfter(headers.get("retry-after")) });
}
