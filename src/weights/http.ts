// Files over HTTP as byte sources: a bounded window of pieces ahead of the reader, brought by range requests, hashed in order. Knows no hub and not what the bytes mean.
import { AbortError, FormatError, throwIfAborted } from "../errors.ts";
import { MAX_CONNECTIONS, MIN_UNSIZED_BYTES, REQUESTS_PER_WINDOW } from "./limits.ts";
import { Piece, Pool } from "./piece.ts";
import { NoLength, NoRanges, RemoteFile } from "./remote-file.ts";
import { type Checksum, type Hash, type Network, type RemoteFileOptions, type RemoteSource, windowBytesOf } from "./request.ts";
import { type ByteSource, readClipped, truncated, unlessAborted } from "./source.ts";

/** Largest piece: small ones stay in the processor's cache on their way. */
const MAX_PIECE_BYTES = 1 << 20;
/**
 * From so many bytes a ms on all connections together one is enough, and its requests last so long: what a request costs, and the memory that others fill
 * meanwhile, would show. Measured on a local server: one connection 0.9 of what one plain `fetch` reaches, four 0.55. One that alone brings less than this
 * share of what several brought has a server that limits each: several again, for good.
 */
const FAST_BYTES_PER_MS = 100_000;
const FAST_REQUEST_MS = 500;
const FAST_SHARE = 0.6;
/** Pieces ahead of the reader then: what comes faster than it is read would only fill new memory, and leave the processor's cache before it is wanted. */
const FAST_AHEAD = 8;

/** Pieces that one request brings, one after the other. */
interface Run {
  /** Index of its first piece, and of the one behind its last. */
  readonly from: number;
  readonly to: number;
  /** Index of the piece that it has yet to begin. */
  at: number;
  /** Where the reader stood when it began. */
  readonly low: number;
  /** How long it has waited for room. */
  pausedMs: number;
}

/** Nobody waits any more for what the request would bring. */
class Unwanted extends Error {}

/** The window has gone past this reader, and others need it where it is. It does not leave this folder. */
export class Behind extends Error {}

/** One of those who read a source together. */
export interface Place {
  /** Piece that it reads. */
  at: number;
}

export const closed = (name: string): AbortError => new AbortError(`${name}: aborted: the source was closed.`);

export function damaged(name: string, { algorithm, hex }: Checksum, got: string | undefined): FormatError {
  return new FormatError(`${name}: expected bytes of ${algorithm} ${hex}, got ${got}: the file came damaged. Load it again.`, {
    code: "checksum",
  });
}

/** @returns a checksum under way over a file of that size; git's counts a head of its own */
export function hashFor(network: Network, { algorithm }: Checksum, sizeBytes: number): Hash {
  const hash = network.createHash(algorithm);
  if (algorithm === "sha1") hash.update(new TextEncoder().encode(`blob ${sizeBytes}\0`));
  return hash;
}

/** Fills `target` from `offset` of what lies in blocks of one length, the last one shorter. */
function copyOf(blocks: readonly Uint8Array[], offset: number, target: Uint8Array): undefined {
  const blockBytes = blocks[0]?.length ?? 0;
  for (let done = 0; done < target.length; ) {
    const at = offset + done;
    const from = at % blockBytes;
    const part = blocks[Math.floor(at / blockBytes)]?.subarray(from, from + target.length - done) ?? new Uint8Array(0);
    target.set(part, done);
    done += part.length;
  }
}

/** How a file is asked for, and by whom. */
export interface HttpSourceOptions extends RemoteFileOptions {
  /** Several may read it, each from a place of its own: they may `enter` as long as a quarter of a window from the front is kept for them. */
  readonly isShared?: boolean | undefined;
}

/** @returns a file that nothing keeps: loads at once share its download where the runtime lets them */
export function openHttp(network: Network, file: RemoteFileOptions, signal: AbortSignal | undefined): RemoteSource {
  return network.share?.(network, file, signal) ?? new HttpSource(network, file, signal);
}

/**
 * A file on a server. Bytes come in order through a window of `windowBytes`; what a reader skips is loaded too where a checksum has to be proved.
 * Until `close` it holds connections and a listener on the signal.
 */
export class HttpSource implements RemoteSource {
  readonly name: string;
  readonly sibling?: ByteSource["sibling"] & object;
  readonly #file: RemoteFile;
  readonly #network: Network;
  readonly #caller: AbortSignal | undefined;
  readonly #pieceBytes: number;
  /** Pieces of an ordinary request, and of the window. */
  readonly #requestPieces: number;
  readonly #windowPieces: number;
  readonly #pieces = new Map<number, Piece>();
  readonly #pool: Pool;
  readonly #tasks = new Set<Promise<void>>();
  /** Ends the requests of the way in which bytes come now: by ranges, or in one stream. */
  #current = new AbortController();
  /** All the rest of the file, where ranges are not served. */
  #streaming: Run | undefined;
  /** Requests under way, and how many of them wait for nothing but the server. */
  readonly #runs = new Set<Run>();
  #running = 0;
  /** Of all requests together, as the last one that ended tells. */
  #bytesPerMs = 0;
  /** What several brought when one was found to be enough. */
  #severalBytesPerMs = 0;
  #mustBeSeveral = false;
  /** Those who wait for room in the window. */
  #rooms: (() => void)[] = [];
  /** Those who read, and the one who reads by itself. */
  readonly #places = new Set<Place>();
  #single: Place | undefined;
  /** Piece of the foremost read under way, and the first that is kept. */
  #low = 0;
  #floor = 0;
  #ahead = 0;
  /** All of a file whose length its server does not tell, piece by piece. */
  #whole: readonly Uint8Array[] | undefined;
  /** Why no more bytes come. */
  #error: Error | undefined;
  #hash: Hash | undefined;
  #hashed = 0;
  readonly #isProvedByReader: boolean;
  /** Where the first piece begins: nothing before it is ever read. */
  readonly #fromBytes: number;
  #digest: string | Promise<string> | undefined;
  /** Whether another may begin to read: everything is here from the front, and right as far as anybody knows. */
  mayEnter: boolean;

  constructor(network: Network, options: HttpSourceOptions, signal?: AbortSignal) {
    this.name = options.name;
    if (options.sibling) this.sibling = options.sibling;
    this.#network = network;
    this.#pool = network.pool ?? new Pool();
    this.#file = new RemoteFile(network, options);
    this.#isProvedByReader = options.isProvedByReader ?? false;
    this.#fromBytes = options.fromBytes ?? 0;
    const requestBytes = Math.floor(windowBytesOf(network) / REQUESTS_PER_WINDOW);
    this.#pieceBytes = Math.min(MAX_PIECE_BYTES, requestBytes);
    this.#requestPieces = Math.floor(requestBytes / this.#pieceBytes);
    this.#windowPieces = this.#requestPieces * REQUESTS_PER_WINDOW;
    this.mayEnter = options.isShared ?? false;
    this.#caller = signal;
    if (signal?.aborted) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get size(): number {
    return this.#file.sizeBytes ?? 0;
  }

  /** ETag or date of the version; "" where the server tells neither, undefined before its first answer. */
  get version(): string | undefined {
    return this.#file.version;
  }

  get isUnproved(): boolean {
    return this.checksum === undefined;
  }

  /** What the bytes must add up to, where that is known. */
  get checksum(): Checksum | undefined {
    return this.#file.checksum;
  }

  /** Waits for the first answer, where the size was not known before. */
  async begin(place?: Place): Promise<void> {
    if (this.#file.sizeBytes === undefined) await this.#until(this.#want(0), 1, undefined, place);
  }

  /** One more who reads, from the front on. */
  enter(): Place {
    const place = { at: 0 };
    this.#places.add(place);
    return place;
  }

  /** One less. @param error for what it waits for */
  leave(place: Place, error: Error): void {
    this.#places.delete(place);
    for (const piece of this.#pieces.values()) piece.abandon(place, error);
    this.#settle();
  }

  readonly #onAbort = (): void => this.#stop(new AbortError(undefined, { cause: this.#caller?.reason }));

  #stop(error: Error): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.mayEnter = false;
    this.#current.abort(error.cause ?? error);
    for (const piece of this.#pieces.values()) piece.fail(error);
    this.#makeRoom();
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readClipped(this, offset, length, signal);
  }

  /** @throws Behind where the window has gone past `place` and others read on */
  async readInto(offset: number, target: Uint8Array, signal?: AbortSignal, place: Place = this.#alone()): Promise<void> {
    if (target.length === 0) return;
    if (offset + target.length > this.size) {
      throw truncated(this.name, offset, target.length, `a file of ${this.size}`);
    }
    if (this.#whole) {
      throwIfAborted(signal);
      return copyOf(this.#whole, offset, target);
    }
    this.#moveTo(this.#indexAt(offset), place);
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const index = this.#indexAt(at);
      if (index - place.at > 1) this.#moveTo(index - 1, place); // a read longer than the window: the next one begins where it ends
      if (this.#isBehind(index, place)) throw new Behind();
      const piece = this.#want(index);
      const from = at - piece.at;
      const count = Math.min(piece.lengthBytes - from, target.length - done);
      piece.users++;
      try {
        await this.#until(piece, from + count, signal, place);
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
  async verify(signal?: AbortSignal, place: Place = this.#alone()): Promise<void> {
    const { checksum } = this.#file;
    if (checksum === undefined || this.#isProvedByReader) return;
    while (this.#hashed < this.#count) {
      this.#moveTo(this.#hashed, place);
      const piece = this.#want(this.#hashed);
      await this.#until(piece, piece.lengthBytes, signal, place);
    }
    this.#digest ??= this.#hashOf(checksum).digest();
    const got = await this.#digest;
    throwIfAborted(signal);
    if (got !== checksum.hex) {
      this.mayEnter = false;
      throw damaged(this.name, checksum, got);
    }
  }

  /** Closes its connections. Reads that wait end with AbortError. */
  async close(): Promise<void> {
    this.#caller?.removeEventListener("abort", this.#onAbort);
    this.#stop(closed(this.name));
    this.#pieces.clear();
    if (this.#whole) this.#pool.wholeBytes -= this.size;
    this.#whole = undefined;
    await Promise.allSettled(this.#tasks);
  }

  get #count(): number {
    return Math.ceil((this.size - this.#fromBytes) / this.#pieceBytes);
  }

  /** Pieces ahead of the reader at most; with the one or two that are being read they fill the window. */
  get #mostAhead(): number {
    return Math.min(this.#windowPieces - 2, this.#isFast ? FAST_AHEAD : Number.POSITIVE_INFINITY);
  }

  get #isFast(): boolean {
    return this.#network.hasBackpressure === true && this.#bytesPerMs >= FAST_BYTES_PER_MS && !this.#mustBeSeveral;
  }

  /** Takes a request's rate for that of all that ran beside it. */
  #measure(bytes: number, ms: number, beside: number): void {
    const wasFast = this.#isFast;
    this.#bytesPerMs = (bytes / Math.max(1, ms)) * beside;
    if (!wasFast) this.#severalBytesPerMs = this.#bytesPerMs;
    else if (beside === 1 && this.#bytesPerMs < FAST_SHARE * this.#severalBytesPerMs) this.#mustBeSeveral = true;
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

  async #until(piece: Piece, bytes: number, signal?: AbortSignal, place?: Place): Promise<void> {
    throwIfAborted(signal);
    const wait = {};
    const ready = piece.until(bytes, place, wait);
    this.#pump();
    this.#makeRoom();
    if (signal === this.#caller) return ready;
    return unlessAborted(ready, signal).finally(() => piece.abandon(wait, undefined)); // or it would be fetched for nobody
  }

  /** The place of the only reader, where nobody shares the source. */
  #alone(): Place {
    this.#single ??= this.enter();
    return this.#single;
  }

  /** The reader stands at `index`: what lies before all of them goes, and the further the foremost reads on the more is fetched ahead. */
  #moveTo(index: number, place: Place): void {
    place.at = index;
    const low = this.#low;
    this.#settle();
    if (this.#low > low) this.#ahead = Math.min(this.#mostAhead, Math.max(1, this.#ahead * 2));
    this.#makeRoom();
  }

  /** Half a window is kept for those who are behind the foremost: who is further behind reads no longer with it. */
  #settle(): void {
    if (this.#places.size === 0) return;
    const all = [...this.#places].map(({ at }) => at);
    this.#low = Math.max(...all);
    if (this.#low > this.#windowPieces / 4) this.mayEnter = false;
    for (const place of this.#places) if (this.#low - place.at > this.#windowPieces / 2) this.#places.delete(place);
    this.#floor = all.length > 1 ? Math.max(Math.min(...all), this.#low - this.#windowPieces / 2) - 1 : this.#low;
    if (this.mayEnter) this.#floor = 0;
    this.#drop();
  }

  /** Whether the piece has gone by, and fetching it again would hold the foremost up. */
  #isBehind(index: number, place: Place): boolean {
    return !this.#places.has(place) || (index < this.#low && this.#places.size > 1 && !this.#pieces.has(index));
  }

  #makeRoom(): void {
    for (const go of this.#rooms.splice(0)) go();
  }

  #drop(): void {
    for (const [index, piece] of this.#pieces) {
      const isDone = piece.isWhole ? !this.#isHashing || index < this.#hashed : !piece.isStarted && !this.#isHashing;
      if (index >= this.#floor || !isDone || piece.isAwaited || piece.users > 0) continue;
      this.#pieces.delete(index);
      const memory = piece.release();
      if (memory) this.#pool.give(memory);
      this.#makeRoom();
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
      if (this.#streaming !== undefined && index < this.#streaming.at) this.#stream(index);
    }
    return piece;
  }

  /** Starts as many requests as there may be, in the order in which their bytes are needed. */
  #pump(): void {
    while (!this.#streaming && this.#running < (this.#isFast ? 1 : MAX_CONNECTIONS) && !this.#error) {
      const index = this.#next();
      if (index === undefined) return;
      this.#start(index);
    }
  }

  #next(): number | undefined {
    const last = Math.min(this.#low + this.#ahead, Math.max(this.#count - 1, 0));
    // a piece that is waited for while one before it has to be hashed comes when its turn comes
    for (let index = this.#isHashing ? Math.min(this.#low, this.#hashed) : this.#low; index <= Math.max(last, this.#low + 1); index++) {
      const piece = this.#pieces.get(index);
      if (this.#isComing(index)) continue;
      if (piece && !piece.isStarted && !piece.isWhole) return index;
      if (!piece && index <= last && this.#mayAdd(index)) return index;
    }
    // several reads at once: one may wait far from where the last one stands
    for (const [index, piece] of this.#pieces) if (piece.isAwaited && !piece.isStarted && !this.#isComing(index)) return index;
    return undefined;
  }

  /** Whether a request that is under way will bring the piece. */
  #isComing(index: number): boolean {
    for (const run of this.#runs) if (index >= run.at && index < run.to) return true;
    return false;
  }

  /** A piece behind the reader is fetched again for the hash only. */
  #mayAdd(index: number): boolean {
    return this.#pieces.size < this.#windowPieces && (index >= this.#low || index >= this.#hashed);
  }

  /** Behind the last piece of a request that begins at `index`: it ends before what is here or coming. */
  #endOf(index: number): number {
    const ordinary = Math.min(index + this.#requestPieces, this.#low + this.#ahead + 1);
    const most = this.#isFast ? index + Math.ceil((this.#bytesPerMs * FAST_REQUEST_MS) / this.#pieceBytes) : ordinary;
    let end = index + 1;
    while (end < Math.min(most, this.#count) && !this.#pieces.has(end) && !this.#isComing(end)) end++;
    return end;
  }

  #track(task: Promise<void>): void {
    const tracked = task.finally(() => this.#tasks.delete(tracked));
    this.#tasks.add(tracked);
  }

  #start(index: number): void {
    const piece = this.#want(index);
    piece.isStarted = true;
    const run: Run = { from: index, to: this.#endOf(index), at: index, low: this.#low, pausedMs: 0 };
    this.#runs.add(run);
    this.#running++;
    const { signal } = this.#current;
    const from = piece.at;
    const to = Math.min(this.#startOf(run.to), this.#file.sizeBytes ?? Number.POSITIVE_INFINITY);
    const began = performance.now();
    const beside = this.#running;
    const bring = async (): Promise<void> => {
      try {
        await this.#file.download(from, to, (bytes, at) => this.#pour(run, bytes, at, signal), signal, "range");
        this.#fit(piece);
        this.#measure(Math.min(to, this.size) - from, performance.now() - began - run.pausedMs, (beside + this.#running) / 2);
      } catch (error) {
        if (!signal.aborted) await this.#fell(run, error);
      } finally {
        this.#runs.delete(run);
        this.#running--;
        this.#drop();
        this.#pump();
      }
    };
    this.#track(bring());
  }

  /** The size may have become known since. */
  #fit(piece: Piece): void {
    piece.lengthBytes = Math.min(piece.lengthBytes, this.size - piece.at);
    piece.wake();
  }

  #put(piece: Piece, bytes: Uint8Array, at: number): undefined {
    piece.isStarted = true;
    this.#fit(piece);
    piece.put(bytes, at, () => this.#pool.take(Math.min(this.#pieceBytes, this.size)));
    if (!piece.isWhole) return;
    if (this.#isHashing) this.#hashOn();
    this.#drop();
  }

  #hashOn(): void {
    const { checksum } = this.#file;
    if (!checksum) return;
    for (let piece = this.#pieces.get(this.#hashed); piece?.isWhole; piece = this.#pieces.get(this.#hashed)) {
      this.#hashOf(checksum).update(piece.bytes);
      this.#hashed++;
    }
  }

  #hashOf(checksum: Checksum): Hash {
    this.#hash ??= hashFor(this.#network, checksum, this.size);
    return this.#hash;
  }

  async #fell(run: Run, error: unknown): Promise<void> {
    this.#runs.delete(run);
    const first = this.#want(run.at > run.from && !this.#pieces.get(run.at - 1)?.isWhole ? run.at - 1 : run.at);
    if (error instanceof NoRanges && this.#file.sizeBytes === 0) this.#fit(first);
    else if (error instanceof NoRanges) this.#stream(this.#isHashing ? Math.min(this.#low, this.#hashed) : this.#low);
    else if (error instanceof NoLength) await this.#keepWhole();
    else if (error instanceof Unwanted) this.#forget(run);
    else {
      this.#forget(run);
      this.mayEnter = false;
      first.isStarted = true; // not again
      first.fail(error);
    }
  }

  /** What a request has not brought may be asked for by another. */
  #forget(run: Run): void {
    for (let index = run.from; index < run.to; index++) {
      const piece = this.#pieces.get(index);
      if (piece && !piece.isWhole) piece.restart();
    }
  }

  /** From now on one request brings everything from `index` on. */
  #stream(index: number): void {
    if (this.#error) return;
    this.#current.abort();
    this.#current = new AbortController();
    this.#makeRoom();
    for (const piece of this.#pieces.values()) if (!piece.isWhole) piece.restart();
    const run: Run = { from: index, to: Number.POSITIVE_INFINITY, at: index, low: this.#low, pausedMs: 0 };
    this.#streaming = run;
    const { signal } = this.#current;
    const sink = (bytes: Uint8Array, at: number): Promise<void> | undefined => this.#pour(run, bytes, at, signal);
    const to = this.#file.sizeBytes ?? Number.POSITIVE_INFINITY;
    const download = async (): Promise<void> => {
      try {
        await this.#file.download(this.#startOf(index), to, sink, signal, "rest");
        for (const piece of this.#pieces.values()) this.#fit(piece); // a file may turn out to end before one
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof NoLength) await this.#keepWhole();
        else this.#stop(error as Error);
      }
    };
    this.#track(download());
  }

  /** Spreads the bytes of a request over pieces; waits while the window is full. @throws Unwanted */
  #pour(run: Run, bytes: Uint8Array, at: number, signal: AbortSignal): Promise<void> | undefined {
    for (let done = 0; done < bytes.length; ) {
      const from = at + done;
      const index = this.#indexAt(from);
      const start = this.#startOf(index);
      if (from === start && this.#isUnwanted(run)) throw new Unwanted();
      // a piece that was there when its first bytes came by, and has gone since, is not wanted
      const piece = from === start ? this.#want(index) : this.#pieces.get(index);
      run.at = index + 1;
      const count = Math.min(start + this.#pieceBytes - from, bytes.length - done);
      if (piece && !piece.isWhole) this.#put(piece, bytes.subarray(done, done + count), from);
      done += count;
    }
    return this.#isFull(run) ? this.#untilRoom(run, signal) : undefined;
  }

  /** Whether a read waits for a piece that the request is to bring. */
  #isAwaited(run: Run): boolean {
    for (const [index, piece] of this.#pieces) if (index >= run.at - 1 && index < run.to && piece.isAwaited) return true;
    return false;
  }

  /** Whether the reader has gone elsewhere. A stream is all there is. */
  #isUnwanted(run: Run): boolean {
    if (run === this.#streaming || this.#isAwaited(run)) return false;
    if (this.#low < run.low) return run.at > this.#low + this.#mostAhead + 1;
    return this.#low >= run.to && !(this.#isHashing && this.#hashed < run.to);
  }

  #isFull(run: Run): boolean {
    const isAhead =
      run.at > this.#low + this.#mostAhead + 1 || (this.#pieces.size >= this.#windowPieces && run.at > this.#low + 1 && run.at < run.to);
    return isAhead && !this.#isAwaited(run);
  }

  async #untilRoom(run: Run, signal: AbortSignal): Promise<void> {
    const began = performance.now();
    this.#running--;
    try {
      while (this.#isFull(run) && !signal.aborted) {
        if (this.#isUnwanted(run)) throw new Unwanted();
        this.#pump();
        await new Promise<void>((resolve) => this.#rooms.push(resolve));
      }
    } finally {
      this.#running++;
      run.pausedMs += performance.now() - began;
    }
  }

  /** A server that tells no length: all of it is taken, up to a limit, to learn where it ends. */
  async #keepWhole(): Promise<void> {
    try {
      const mostBytes = Math.max(windowBytesOf(this.#network), MIN_UNSIZED_BYTES) - this.#pool.wholeBytes;
      const whole = await this.#file.whole(mostBytes, this.#pieceBytes, this.#current.signal);
      if (this.#error) return; // closed meanwhile
      this.#whole = whole;
      this.#pool.wholeBytes += this.size;
      if (this.#isHashing) for (const block of whole) this.#hashOf(this.#file.checksum as Checksum).update(block);
      this.#hashed = this.#count;
      for (const piece of this.#pieces.values()) {
        piece.restart();
        this.#fit(piece);
        const bytes = new Uint8Array(piece.isWhole ? 0 : piece.lengthBytes);
        copyOf(whole, piece.at, bytes);
        if (bytes.length > 0) this.#put(piece, bytes, piece.at);
      }
    } catch (error) {
      this.#stop(error as Error);
    }
  }
}
