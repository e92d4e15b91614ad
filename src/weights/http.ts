// Files over HTTP as byte sources: a bounded window of pieces ahead of the reader, each a range request, hashed in order. Knows no hub and not what the bytes mean.
import { AbortError, FormatError, throwIfAborted } from "../errors.ts";
import { MAX_CONNECTIONS, MAX_UNSIZED_BYTES, NETWORK_WINDOW_PIECES } from "./limits.ts";
import { Piece } from "./piece.ts";
import { NoLength, NoRanges, RemoteFile, type RemoteFileOptions } from "./remote-file.ts";
import { type Hash, type Network, windowBytes } from "./request.ts";
import { type ByteSource, readClipped, truncated, unlessAborted } from "./source.ts";

/** Pieces ahead of the reader at most; with the one or two that are being read they fill the window. */
const MOST_AHEAD = NETWORK_WINDOW_PIECES - 2;

/** How a file is asked for, and how the files beside it are opened. */
export interface HttpSourceOptions extends RemoteFileOptions {
  readonly sibling?: ByteSource["sibling"] | undefined;
}

/**
 * A file on a server. Bytes come in order through a window of `windowBytes`; what a reader skips is loaded too where a checksum has to be proved.
 * Until `close` it holds connections and a listener on the signal.
 */
export class HttpSource implements ByteSource {
  readonly name: string;
  readonly sibling?: ByteSource["sibling"] & object;
  readonly #file: RemoteFile;
  readonly #network: Network;
  readonly #caller: AbortSignal | undefined;
  readonly #pieceBytes: number;
  readonly #pieces = new Map<number, Piece>();
  /** Memory of pieces that are gone: new arrays would have to be zeroed, and collected. */
  readonly #spare: Uint8Array[] = [];
  readonly #tasks = new Set<Promise<void>>();
  /** Ends the requests of the way in which bytes come now: by ranges, or in one stream. */
  #current = new AbortController();
  /** Index of the first piece that the one stream has yet to begin; undefined while ranges are asked for. */
  #streamAt: number | undefined;
  #room: (() => void) | undefined;
  #running = 0;
  /** First piece of the read under way: those before are not kept. */
  #low = 0;
  #ahead = 0;
  /** All of a file whose length its server does not tell. */
  #whole: Uint8Array | undefined;
  /** Why no more bytes come. */
  #error: Error | undefined;
  #hash: Hash | undefined;
  #hashed = 0;
  readonly #isProvedByReader: boolean;
  /** Where the first piece begins: nothing before it is ever read. */
  readonly #fromBytes: number;
  #isProved = false;

  constructor(network: Network, options: HttpSourceOptions, signal?: AbortSignal) {
    this.name = options.name;
    if (options.sibling) this.sibling = options.sibling;
    this.#network = network;
    this.#file = new RemoteFile(network, options);
    this.#isProvedByReader = options.isProvedByReader ?? false;
    this.#fromBytes = options.fromBytes ?? 0;
    this.#pieceBytes = Math.floor(windowBytes(network) / NETWORK_WINDOW_PIECES);
    this.#caller = signal;
    if (signal?.aborted) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get size(): number {
    return this.#file.sizeBytes ?? 0;
  }

  /** Waits for the first answer, where the size was not known before. */
  async begin(): Promise<void> {
    if (this.#file.sizeBytes === undefined) await this.#until(this.#want(0), 1);
  }

  readonly #onAbort = (): void => this.#stop(new AbortError(undefined, { cause: this.#caller?.reason }));

  #stop(error: Error): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#current.abort(error.cause ?? error);
    for (const piece of this.#pieces.values()) piece.fail(error);
    this.#room?.();
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readClipped(this, offset, length, signal);
  }

  async readInto(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (target.length === 0) return;
    if (offset + target.length > this.size) {
      throw truncated(this.name, offset, target.length, `a file of ${this.size}`);
    }
    if (this.#whole) {
      throwIfAborted(signal);
      return target.set(this.#whole.subarray(offset, offset + target.length));
    }
    this.#moveTo(this.#indexAt(offset));
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const index = this.#indexAt(at);
      if (index - this.#low > 1) this.#moveTo(index - 1); // a read longer than the window: the next one begins where it ends
      const piece = this.#want(index);
      const from = at - piece.at;
      const count = Math.min(piece.lengthBytes - from, target.length - done);
      piece.users++;
      try {
        await this.#until(piece, from + count, signal);
        target.set(piece.bytes.subarray(from, from + count), done);
      } finally {
        piece.users--;
      }
      done += count;
    }
  }

  /**
   * Loads what nobody has read, and proves the whole by its checksum; nothing happens where none is known.
   * @throws FormatError `"checksum"` when the bytes are others
   */
  async verify(signal?: AbortSignal): Promise<void> {
    const { checksum } = this.#file;
    if (checksum === undefined || this.#isProved || this.#isProvedByReader) return;
    while (this.#hashed < this.#count) {
      this.#moveTo(this.#hashed);
      const piece = this.#want(this.#hashed);
      await this.#until(piece, piece.lengthBytes, signal);
    }
    const got = await this.#hashOf(checksum).digest();
    throwIfAborted(signal);
    if (got !== checksum.hex) {
      throw new FormatError(
        `${this.name}: expected bytes of ${checksum.algorithm} ${checksum.hex}, got ${got}: the file came damaged. Load it again.`,
        { code: "checksum" },
      );
    }
    this.#isProved = true;
  }

  /** Closes its connections. Reads that wait end with AbortError. */
  async close(): Promise<void> {
    this.#caller?.removeEventListener("abort", this.#onAbort);
    this.#stop(new AbortError(`${this.name}: aborted: the source was closed.`));
    this.#pieces.clear();
    this.#spare.length = 0;
    await Promise.allSettled(this.#tasks);
  }

  get #count(): number {
    return Math.ceil((this.size - this.#fromBytes) / this.#pieceBytes);
  }

  #indexAt(offset: number): number {
    return Math.floor((offset - this.#fromBytes) / this.#pieceBytes);
  }

  #startOf(index: number): number {
    return this.#fromBytes + index * this.#pieceBytes;
  }

  /** Whether pieces must still pass through the hash in order. */
  get #isHashing(): boolean {
    return this.#file.checksum !== undefined && !this.#isProvedByReader && this.#hashed < this.#count;
  }

  async #until(piece: Piece, bytes: number, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const ready = piece.until(bytes);
    this.#pump();
    this.#room?.();
    return signal === this.#caller ? ready : unlessAborted(ready, signal);
  }

  /** The reader stands at `index`: what lies before goes, and the further it reads on the more is fetched ahead. */
  #moveTo(index: number): void {
    if (index > this.#low) this.#ahead = Math.min(MOST_AHEAD, Math.max(1, this.#ahead * 2));
    this.#low = index;
    this.#drop();
    this.#room?.();
  }

  #drop(): void {
    for (const [index, piece] of this.#pieces) {
      const isDone = piece.isWhole ? !this.#isHashing || index < this.#hashed : !piece.isStarted && !this.#isHashing;
      if (index >= this.#low || !isDone || piece.isAwaited || piece.users > 0) continue;
      this.#pieces.delete(index);
      const memory = piece.release();
      if (memory) this.#spare.push(memory);
    }
  }

  #want(index: number): Piece {
    let piece = this.#pieces.get(index);
    if (piece === undefined) {
      const at = this.#startOf(index);
      piece = new Piece(index, at, Math.min(this.#pieceBytes, (this.#file.sizeBytes ?? Number.POSITIVE_INFINITY) - at));
      if (this.#error) piece.fail(this.#error);
      else this.#pieces.set(index, piece);
      // a stream only goes forward: for what it has left behind it begins again
      if (this.#streamAt !== undefined && index < this.#streamAt) this.#stream(index);
    }
    return piece;
  }

  /** Starts as many requests as there may be, in the order in which their bytes are needed. */
  #pump(): void {
    while (this.#streamAt === undefined && this.#running < MAX_CONNECTIONS && !this.#error) {
      const piece = this.#next();
      if (piece === undefined) return;
      this.#start(piece);
    }
  }

  #next(): Piece | undefined {
    const last = Math.min(this.#low + this.#ahead, Math.max(this.#count - 1, 0));
    // a piece that is waited for while one before it has to be hashed comes when its turn comes
    for (let index = this.#isHashing ? Math.min(this.#low, this.#hashed) : this.#low; index <= Math.max(last, this.#low + 1); index++) {
      const piece = this.#pieces.get(index);
      if (piece && !piece.isStarted && !piece.isWhole) return piece;
      if (!piece && index <= last && this.#mayAdd(index)) return this.#want(index);
    }
    // several reads at once: one may wait far from where the last one stands
    for (const piece of this.#pieces.values()) if (piece.isAwaited && !piece.isStarted) return piece;
    return undefined;
  }

  /** A piece behind the reader is fetched again for the hash only. */
  #mayAdd(index: number): boolean {
    return this.#pieces.size < NETWORK_WINDOW_PIECES && (index >= this.#low || index >= this.#hashed);
  }

  #track(task: Promise<void>): void {
    const tracked = task.finally(() => this.#tasks.delete(tracked));
    this.#tasks.add(tracked);
  }

  #start(piece: Piece): void {
    piece.isStarted = true;
    this.#running++;
    const { signal } = this.#current;
    const to = piece.at + piece.lengthBytes;
    const download = this.#file.download(piece.at, to, (bytes, at) => this.#put(piece, bytes, at), signal, "range");
    const done = async (): Promise<void> => {
      try {
        await download;
        this.#fit(piece);
      } catch (error) {
        if (!signal.aborted) await this.#fell(piece, error);
      } finally {
        this.#running--;
        this.#drop();
        this.#pump();
      }
    };
    this.#track(done());
  }

  /** The size may have become known since. */
  #fit(piece: Piece): void {
    piece.lengthBytes = Math.min(piece.lengthBytes, this.size - piece.at);
    piece.wake();
  }

  #put(piece: Piece, bytes: Uint8Array, at: number): undefined {
    piece.isStarted = true;
    this.#fit(piece);
    piece.put(bytes, at, () => this.#spare.pop() ?? new Uint8Array(Math.min(this.#pieceBytes, this.size)));
    if (piece.isWhole && this.#isHashing) this.#hashOn();
    if (piece.isWhole) this.#drop();
  }

  #hashOn(): void {
    const { checksum } = this.#file;
    if (!checksum) return;
    for (let piece = this.#pieces.get(this.#hashed); piece?.isWhole; piece = this.#pieces.get(this.#hashed)) {
      this.#hashOf(checksum).update(piece.bytes);
      this.#hashed++;
    }
  }

  #hashOf({ algorithm }: { readonly algorithm: "sha1" | "sha256" }): Hash {
    if (this.#hash === undefined) {
      this.#hash = this.#network.createHash(algorithm);
      if (algorithm === "sha1") this.#hash.update(new TextEncoder().encode(`blob ${this.size}\0`)); // as git counts
    }
    return this.#hash;
  }

  async #fell(piece: Piece, error: unknown): Promise<void> {
    if (error instanceof NoRanges && this.#file.sizeBytes === 0) this.#fit(piece);
    else if (error instanceof NoRanges) this.#stream(this.#isHashing ? Math.min(this.#low, this.#hashed) : this.#low);
    else if (error instanceof NoLength) await this.#keepWhole();
    else piece.fail(error);
  }

  /** From now on one request brings everything from `index` on. */
  #stream(index: number): void {
    if (this.#error) return;
    this.#current.abort();
    this.#current = new AbortController();
    this.#room?.();
    for (const piece of this.#pieces.values()) if (!piece.isWhole) piece.restart();
    this.#streamAt = index;
    const { signal } = this.#current;
    const sink = (bytes: Uint8Array, at: number): Promise<void> | undefined => this.#pour(bytes, at, signal);
    const to = this.#file.sizeBytes ?? Number.POSITIVE_INFINITY;
    const download = this.#file.download(this.#startOf(index), to, sink, signal, "rest").catch(async (error) => {
      if (signal.aborted) return;
      if (error instanceof NoLength) await this.#keepWhole();
      else this.#stop(error);
    });
    this.#track(download);
  }

  /** Spreads bytes of the stream over pieces; waits while the window is full. */
  #pour(bytes: Uint8Array, at: number, signal: AbortSignal): Promise<void> | undefined {
    for (let done = 0; done < bytes.length; ) {
      const from = at + done;
      const index = this.#indexAt(from);
      const start = this.#startOf(index);
      // a piece that was there when its first bytes came by, and has gone since, is not wanted
      const piece = from === start ? this.#want(index) : this.#pieces.get(index);
      this.#streamAt = index + 1;
      const count = Math.min(start + this.#pieceBytes - from, bytes.length - done);
      if (piece && !piece.isWhole) this.#put(piece, bytes.subarray(done, done + count), from);
      done += count;
    }
    return this.#isFull ? this.#untilRoom(signal) : undefined;
  }

  get #isFull(): boolean {
    if ((this.#streamAt ?? 0) <= this.#low + MOST_AHEAD + 1) return false;
    for (const piece of this.#pieces.values()) if (piece.isAwaited) return false;
    return true;
  }

  async #untilRoom(signal: AbortSignal): Promise<void> {
    while (this.#isFull && !signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#room = resolve;
      });
    }
    this.#room = undefined;
  }

  /** A server that tells no length: all of it is taken, up to a limit, to learn where it ends. */
  async #keepWhole(): Promise<void> {
    try {
      this.#whole = await this.#file.whole(MAX_UNSIZED_BYTES, this.#current.signal);
      for (const piece of this.#pieces.values()) {
        piece.restart();
        this.#fit(piece);
        if (!piece.isWhole) this.#put(piece, this.#whole.subarray(piece.at, piece.at + piece.lengthBytes), piece.at);
      }
    } catch (error) {
      this.#stop(error as Error);
    }
  }
}
