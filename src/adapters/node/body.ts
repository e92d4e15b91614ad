// The body of an answer of node:http, whose memory is given back at once.
import type { IncomingMessage } from "node:http";

/** Parts that lie here, not yet read, before the server has to wait. */
const MOST_PARTS = 16;

interface Part {
  readonly done: boolean;
  readonly value?: Uint8Array;
}

interface Waiter {
  readonly resolve: (part: Part) => void;
  readonly reject: (error: Error) => void;
}

/** A body as `ReadableStream` would give it. Its bytes hold until the next read. */
export class Body {
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
