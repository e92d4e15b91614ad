// A piece of a remote file: bytes that fill up from the front while readers wait for as many as they need. Knows no network.

interface Waiter {
  readonly bytes: number;
  /** Whom it is for, and the wait itself: who leaves names either. */
  readonly by: readonly (object | undefined)[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Memory of pieces that are gone, for those to come: new arrays would have to be zeroed, and collected. The files of one load share it, or each would keep a
 * window's worth.
 */
export class Pool {
  /** Of files that are in memory as a whole. */
  wholeBytes = 0;
  readonly #spare: Uint8Array[] = [];

  take(bytes: number): Uint8Array {
    const at = this.#spare.findLastIndex((spare) => spare.length === bytes);
    return at < 0 ? new Uint8Array(bytes) : (this.#spare.splice(at, 1)[0] as Uint8Array);
  }

  give(bytes: Uint8Array): void {
    this.#spare.push(bytes);
  }
}

/** Bytes of a file from `at` on. */
export class Piece {
  readonly index: number;
  readonly at: number;
  /** How long it is in the end; the last piece turns out shorter where the file's size was not known. */
  lengthBytes: number;
  /** Whether something is under way to fill it. */
  isStarted = false;
  filledBytes = 0;
  /** Reads that are about to copy from it: its memory must not serve another piece yet. */
  users = 0;
  #bytes: Uint8Array | undefined;
  #error: { readonly error: unknown } | undefined;
  #waiting: Waiter[] = [];

  constructor(index: number, at: number, lengthBytes: number) {
    this.index = index;
    this.at = at;
    this.lengthBytes = lengthBytes;
  }

  get isWhole(): boolean {
    return this.filledBytes >= this.lengthBytes;
  }

  /** The bytes so far; they hold as long as the piece has a user. */
  get bytes(): Uint8Array {
    return (this.#bytes ?? new Uint8Array(0)).subarray(0, this.filledBytes);
  }

  get isAwaited(): boolean {
    return this.#waiting.length > 0;
  }

  /**
   * Appends a copy of the bytes that lie at `at`: those that follow, or somebody mixes up pieces.
   * @param memory gives what the copy goes into
   */
  put(bytes: Uint8Array, at: number, memory: () => Uint8Array): void {
    if (at !== this.at + this.filledBytes)
      throw new Error(`piece ${this.index}: expected bytes at ${this.at + this.filledBytes}, got ${at}`);
    this.#bytes ??= memory();
    this.#bytes.set(bytes, this.filledBytes);
    this.filledBytes += bytes.length;
    this.wake();
  }

  /** @returns the memory, for another piece; this one is over. */
  release(): Uint8Array | undefined {
    const bytes = this.#bytes;
    this.#bytes = undefined;
    return bytes;
  }

  /** Lets those go on who have enough. */
  wake(): void {
    if (this.#waiting.length === 0) return;
    const enough = (w: Waiter): boolean => this.filledBytes >= Math.min(w.bytes, this.lengthBytes);
    for (const waiter of this.#waiting.filter(enough)) waiter.resolve();
    this.#waiting = this.#waiting.filter((w) => !enough(w));
  }

  /** Begins anew; who waits goes on waiting. */
  restart(): void {
    this.filledBytes = 0;
    this.isStarted = false;
  }

  /** Whoever waits, or comes later for bytes that are not there, gets the error. */
  fail(error: unknown): void {
    this.#error ??= { error };
    for (const waiter of this.#waiting) waiter.reject(error);
    this.#waiting = [];
  }

  /** Those who wait by that name get the error. */
  abandon(by: object, error: unknown): void {
    for (const waiter of this.#waiting) if (waiter.by.includes(by)) waiter.reject(error);
    this.#waiting = this.#waiting.filter((waiter) => !waiter.by.includes(by));
  }

  /** Resolves once so many bytes are there, or the piece is whole. @param by names under which it can be abandoned */
  until(bytes: number, ...by: (object | undefined)[]): Promise<void> {
    if (this.filledBytes >= Math.min(bytes, this.lengthBytes)) return Promise.resolve();
    if (this.#error) return Promise.reject(this.#error.error);
    return new Promise((resolve, reject) => this.#waiting.push({ bytes, by, resolve, reject }));
  }
}
