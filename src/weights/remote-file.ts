// One file at an address: ranges of it, brought in order however often the connection breaks, all of one version. Knows neither windows nor what the bytes mean.
import { FormatError, NetworkError, throwIfAborted } from "../errors.ts";
import {
  type Answer,
  Attempt,
  ask,
  Body,
  type Checksum,
  dropped,
  type FetchResponse,
  Interrupted,
  type Network,
  type RemoteFileOptions,
  refusal,
  stallMsOf,
} from "./request.ts";
import { Retries } from "./retry.ts";
import { commonMistake } from "./source.ts";

/** The server does not serve the range: the file must be taken from its start in one go. */
export class NoRanges extends Error {}
/** The server does not say how long the file is. */
export class NoLength extends Error {}

/** Takes the bytes that lie at `at`; they hold only until it returns or resolves. */
export type Sink = (bytes: Uint8Array, at: number) => Promise<void> | undefined;

const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/;

/** A file on a server, pinned to the version of the first answer. */
export class RemoteFile {
  readonly name: string;
  /** Undefined until the first answer, where nobody knew it before. */
  sizeBytes: number | undefined;
  checksum: Checksum | undefined;
  readonly #network: Network;
  readonly #url: string;
  readonly #where: string;
  readonly #commit: string | undefined;
  /** Where the address led to: asked directly while it works. */
  #location: string | undefined;
  /** ETag or date of the first answer; undefined before, "" when it had neither. */
  #version: string | undefined;
  #takesRanges = true;

  constructor(network: Network, { name, url, sizeBytes, checksum, commit, version }: RemoteFileOptions) {
    this.#network = network;
    this.name = name;
    this.#url = url;
    this.#where = `${name} from ${new URL(url).host}`;
    this.sizeBytes = sizeBytes;
    this.checksum = checksum;
    this.#commit = commit;
    this.#version = version;
  }

  /** ETag or date of the version that all bytes are of; "" where the server tells neither, undefined before the first answer. */
  get version(): string | undefined {
    return this.#version;
  }

  /**
   * Brings the bytes from `from` up to `to`, or to the end of the file.
   * @param sink gets them in order, each once
   * @param way `"range"` asks for the range and takes nothing else; `"rest"` asks for all from `from` on, to the file's end, and skips where the server starts earlier
   * @throws NoRanges, NoLength; NetworkError, FormatError; AbortError
   */
  async download(from: number, to: number, sink: Sink, signal: AbortSignal, way: "range" | "rest"): Promise<void> {
    const retries = new Retries(this.#network);
    let at = from;
    const take: Sink = (bytes, start) => {
      at = start + bytes.length;
      return sink(bytes, start);
    };
    for (let refusals = 0; ; ) {
      if (at > 0 && this.#version === "" && this.checksum === undefined) throw this.#notResumable();
      const before = at;
      const attempt = new Attempt(signal, stallMsOf(this.#network), this.#where);
      try {
        return await this.#attempt(attempt, at, to, take, way);
      } catch (error) {
        throwIfAborted(signal);
        if (way === "rest" && error instanceof NoRanges) {
          if (refusals++ > 0) throw this.#noSense();
          continue; // once more, without a range
        }
        await retries.next(error, at - before, signal);
      } finally {
        attempt.end();
      }
    }
  }

  /**
   * Brings the whole of a file whose length the server does not tell.
   * @returns blocks of `blockBytes`, the last one shorter: an array that grows would be there twice
   * @throws NetworkError `"no-length"` when it is longer than `maxBytes`
   */
  async whole(maxBytes: number, blockBytes: number, signal: AbortSignal): Promise<readonly Uint8Array[]> {
    const { blocks } = await fetchBlocks(this.#network, this.#location ?? this.#url, this.#where, maxBytes, blockBytes, signal);
    if (!blocks) throw this.#tooLong(maxBytes);
    this.sizeBytes = blocks.reduce((sum, block) => sum + block.length, 0);
    return blocks;
  }

  #tooLong(maxBytes: number): NetworkError {
    return new NetworkError(
      `${this.#where}: expected at most ${maxBytes} bytes from a server that tells no length, for they are kept in memory, got more. Download the file first, or pass a larger network.windowBytes.`,
      { code: "no-length" },
    );
  }

  #noSense(): NetworkError {
    return new NetworkError(`${this.#where}: expected the whole file, got an answer about ranges. Download the file and pass its path.`, {
      code: "ranges",
    });
  }

  #notResumable(): NetworkError {
    return new NetworkError(`${this.#where}: expected an ETag or a date to go on by after a break, got neither. Load it again.`, {
      code: "not-resumable",
      retryable: true,
    });
  }

  async #attempt(attempt: Attempt, from: number, to: number, take: Sink, way: "range" | "rest"): Promise<void> {
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (way === "range" || (from > 0 && this.#takesRanges)) {
      headers.range = `bytes=${from}-${way === "range" ? to - 1 : ""}`;
      if (this.#version?.startsWith('"') && !this.#network.isCrossOrigin) headers["if-range"] = this.#version;
    }
    const asked = this.#location ?? this.#url;
    const answer = await ask(this.#network, attempt, this.#where, asked, headers);
    const { status } = answer.response;
    if (status !== 200 && status !== 206) throw this.#refusal(answer, from, asked);
    const body = new Body(answer.response.body, attempt, this.#where);
    try {
      const start = status === 206 ? this.#checkRange(answer, from, to, way) : await this.#checkWhole(answer, body, way);
      if (answer.url !== asked) this.#location = answer.url;
      await this.#take(body, start, from, Math.min(to, this.sizeBytes ?? to), take);
      // the end that follows lets the connection serve again
      if (contentLength(answer) !== undefined) await body.read().catch(() => {});
    } finally {
      body.cancel();
    }
  }

  #refusal(answer: Answer, from: number, asked: string): Error {
    const { status, headers } = answer.response;
    if (status === 416) {
      const total = /^bytes \*\/(\d{1,15})$/.exec(headers.get("content-range") ?? "")?.[1];
      if (total !== undefined && this.sizeBytes !== undefined && Number(total) !== this.sizeBytes) return this.#changed("another length");
      if (total === "0" && from === 0) this.sizeBytes = 0;
      this.#takesRanges = false;
      return new NoRanges();
    }
    const error = refusal(answer, this.#where, this.#network);
    if (answer.url !== this.#url && error instanceof NetworkError && status >= 400) {
      if (this.#location === asked) this.#location = undefined; // such links live for an hour; the address gives a new one
      return new Interrupted(error);
    }
    return error;
  }

  /** A 206 is taken only with exactly the range that was asked for. @returns where its bytes begin */
  #checkRange(answer: Answer, from: number, to: number, way: "range" | "rest"): number {
    const { headers } = answer.response;
    const match = CONTENT_RANGE.exec(headers.get("content-range") ?? "");
    const [start, last, total] = (match?.slice(1) ?? []).map(Number) as [number?, number?, number?];
    const end = Math.min(way === "range" ? to : Number.POSITIVE_INFINITY, total ?? 0);
    if (start !== from || last !== end - 1 || (this.sizeBytes ?? total) !== total) {
      this.#takesRanges = false; // a server that answers another question than it was asked: no more ranges from it
      throw new NoRanges();
    }
    this.#checkVersion(answer);
    if (this.#version === "" && this.checksum === undefined) throw new NoRanges(); // nothing would tell a range of another version
    this.sizeBytes = total;
    const length = contentLength(answer);
    if (length !== undefined && length !== end - from)
      throw dropped(this.#where, `a length of ${length} bytes for a range of ${end - from}`);
    return from;
  }

  /** A 200 is the whole file, from its start. @returns 0 */
  async #checkWhole(answer: Answer, body: Body, way: "range" | "rest"): Promise<number> {
    const length = contentLength(answer);
    if (this.sizeBytes !== undefined && length !== undefined && length !== this.sizeBytes) {
      const mistake = commonMistake((await body.read()) ?? new Uint8Array(0));
      if (mistake !== undefined) throw new FormatError(`${this.#where}: expected the file, got ${mistake}.`);
      this.#checkVersion(answer);
      throw dropped(this.#where, `a length of ${length} bytes for a file of ${this.sizeBytes}`);
    }
    this.#checkVersion(answer);
    this.sizeBytes ??= length;
    if (this.sizeBytes === undefined) throw new NoLength();
    if (way === "range") throw new NoRanges();
    return 0;
  }

  /** Pins the version by the first answer, and holds every later one to it. */
  #checkVersion({ response: { headers }, passed }: Answer): void {
    for (const linked of [...passed, headers]) this.#checkLinked(linked);
    const version = headers.get("etag") ?? headers.get("last-modified") ?? "";
    if (this.#version !== undefined && version !== this.#version) throw this.#changed("another version");
    this.#version = version;
  }

  /** What a hub tells on the way to the file: its sha256, its size, its commit. */
  #checkLinked(headers: Answer["response"]["headers"]): void {
    const hex = /^(?:W\/)?"([0-9a-f]{64})"$/.exec(headers.get("x-linked-etag") ?? "")?.[1];
    if (hex !== undefined) {
      if (this.checksum?.algorithm === "sha256" && this.checksum.hex !== hex) throw this.#changed("another sha256");
      this.checksum ??= { algorithm: "sha256", hex };
    }
    const size = /^\d{1,15}$/.exec(headers.get("x-linked-size") ?? "")?.[0];
    if (size !== undefined && this.sizeBytes !== undefined && Number(size) !== this.sizeBytes) throw this.#changed("another length");
    const commit = headers.get("x-repo-commit");
    if (commit !== null && this.#commit !== undefined && commit !== this.#commit) throw this.#changed("another commit");
  }

  #changed(got: string): NetworkError {
    return new NetworkError(`${this.#where}: expected the version of the first answer, got ${got}: the file has changed. Load it again.`, {
      code: "file-changed",
      retryable: true,
    });
  }

  /** Hands on the bytes from `from` to `to` of a body that begins at `start`. */
  async #take(body: Body, start: number, from: number, to: number, take: Sink): Promise<void> {
    let at = start;
    while (at < to) {
      const bytes = await body.read();
      if (bytes === undefined) throw dropped(this.#where, `${at - start} bytes`);
      const part = bytes.subarray(Math.max(0, from - at), Math.max(0, to - at));
      const partAt = Math.max(at, from);
      at += bytes.length;
      const taken = part.length > 0 ? take(part, partAt) : undefined;
      if (taken) await taken; // a body comes in thousands of parts
    }
  }
}

/** Bytes of a block of a small answer. */
const SMALL_BLOCK_BYTES = 1 << 16;

/**
 * Brings a small answer as a whole, whatever its length.
 * @param what names it in errors
 * @throws NetworkError when it does not come or is longer than `maxBytes`; AbortError
 */
export async function fetchSmall(
  network: Network,
  url: string,
  what: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<{ readonly bytes: Uint8Array; readonly headers: FetchResponse["headers"] }> {
  const where = `${what} (${new URL(url).host})`;
  const { blocks, headers } = await fetchBlocks(network, url, where, maxBytes, SMALL_BLOCK_BYTES, signal);
  if (!blocks)
    throw new NetworkError(`${where}: expected at most ${maxBytes} bytes, the limit, got more. Check the endpoint.`, { code: "too-long" });
  const bytes = new Uint8Array(blocks.reduce((sum, block) => sum + block.length, 0));
  for (const [i, block] of blocks.entries()) bytes.set(block, i * SMALL_BLOCK_BYTES);
  return { bytes, headers };
}

/** @returns all of an answer in blocks, the last one shorter; no blocks where it is longer than `maxBytes` */
async function fetchBlocks(
  network: Network,
  url: string,
  where: string,
  maxBytes: number,
  blockBytes: number,
  signal: AbortSignal,
): Promise<{ readonly blocks: readonly Uint8Array[] | undefined; readonly headers: FetchResponse["headers"] }> {
  const retries = new Retries(network);
  for (;;) {
    const attempt = new Attempt(signal, stallMsOf(network), where);
    try {
      const answer = await ask(network, attempt, where, url, { "accept-encoding": "identity" });
      if (answer.response.status !== 200) throw refusal(answer, where, network);
      const blocks = await readBlocks(new Body(answer.response.body, attempt, where), maxBytes, blockBytes);
      const length = contentLength(answer);
      const got = blocks?.reduce((sum, block) => sum + block.length, 0) ?? length;
      if (length !== undefined && length !== got) throw dropped(where, `${got} bytes of ${length}`);
      return { blocks, headers: answer.response.headers };
    } catch (error) {
      throwIfAborted(signal);
      await retries.next(error, 0, signal);
    } finally {
      attempt.end();
    }
  }
}

/** @returns the body in blocks; undefined when it is longer than `maxBytes` */
async function readBlocks(body: Body, maxBytes: number, blockBytes: number): Promise<Uint8Array[] | undefined> {
  const blocks: Uint8Array[] = [];
  let length = 0;
  try {
    for (let bytes = await body.read(); bytes; bytes = await body.read()) {
      if (length + bytes.length > maxBytes) return undefined;
      for (let done = 0; done < bytes.length; ) {
        const at = length % blockBytes;
        if (at === 0) blocks.push(new Uint8Array(blockBytes));
        const part = bytes.subarray(done, done + blockBytes - at);
        blocks.at(-1)?.set(part, at);
        done += part.length;
        length += part.length;
      }
    }
  } finally {
    body.cancel();
  }
  const last = length % blockBytes;
  if (last > 0) blocks.push((blocks.pop() as Uint8Array).slice(0, last));
  return blocks;
}

/** Bytes that the body will have; a compressed one is longer than its header says. */
function contentLength({ response: { headers } }: Answer): number | undefined {
  const encoding = headers.get("content-encoding") ?? "identity";
  const text = /^\d{1,15}$/.exec(headers.get("content-length") ?? "")?.[0];
  return text === undefined || encoding !== "identity" ? undefined : Number(text);
}
