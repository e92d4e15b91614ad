// Calls and streams over a channel that clones what it carries: a worker's messages, a port. Both sides are alike: each may call what the other handles.
// Knows neither engines nor runtimes.
import { AbortError, type ErrorMessage, PlatformError, packError, unpackError } from "../errors.ts";

/** Sends a message to the other side; what `transfer` lists moves instead of being copied. @throws when the message cannot be cloned */
export type Post = (message: unknown, transfer: readonly object[]) => void;

/** What one side does for the other: gives a value, or what a stream iterates over. The signal fires when the caller has gone. Results are the caller's to keep. */
export type Handler = (args: readonly unknown[], signal: AbortSignal) => unknown;

/** How a channel behaves on this side. */
export interface ChannelOptions {
  /** Items of a stream that come within so many ms travel together, the first at once, and so one that took as long to make; default 0: each by itself. */
  readonly batchMs?: number | undefined;
  /** Is told when the first answer is awaited and when none is any more. */
  readonly onBusy?: ((isBusy: boolean) => void) | undefined;
}

/** Items of a stream that may be on their way or unread: the other side works so far ahead and no further. */
const WINDOW = 16;

type Message =
  | { readonly kind: "call"; readonly id: number; readonly name: string; readonly args: readonly unknown[] }
  | { readonly kind: "stream"; readonly id: number; readonly name: string; readonly args: readonly unknown[]; readonly window: number }
  | { readonly kind: "tell"; readonly name: string; readonly args: readonly unknown[] }
  /** The end of a call or stream, from the one that handles it. */
  | { readonly kind: "result"; readonly id: number; readonly value?: unknown; readonly error?: ErrorMessage }
  | { readonly kind: "items"; readonly id: number; readonly items: readonly unknown[] }
  /** From the one that called: so many items more, or no more at all. */
  | { readonly kind: "pull"; readonly id: number; readonly count: number }
  | { readonly kind: "leave"; readonly id: number };

type Result = Extract<Message, { kind: "result" }>;

/** A call or stream that this side waits for. */
interface Waiting {
  readonly items: unknown[];
  end: Result | Error | undefined;
  /** Called when something came. */
  wake: () => void;
}

/** A call or stream that this side works on. */
interface Serving {
  readonly control: AbortController;
  credit: number;
  wake: () => void;
}

/** Objects within objects in which buffers are looked for: as deep as the hidden states of a row of a result among items. */
const MOST_NESTED = 5;

/** Buffers that a result owns: they move. A view on a part of one is copied. */
function owned(value: unknown, depth: number = 0): ArrayBuffer[] {
  if (ArrayBuffer.isView(value)) {
    const { buffer, byteLength } = value;
    return buffer instanceof ArrayBuffer && byteLength === buffer.byteLength ? [buffer] : [];
  }
  if (typeof value !== "object" || value === null || depth > MOST_NESTED) return [];
  return Object.values(value).flatMap((part) => owned(part, depth + 1));
}

/** One side of a channel. */
export class Channel {
  readonly #post: Post;
  readonly #handlers: ReadonlyMap<string, Handler>;
  readonly #options: ChannelOptions;
  readonly #waiting = new Map<number, Waiting>();
  readonly #serving = new Map<number, Serving>();
  #ids = 0;
  #busy = 0;
  #error: Error | undefined;

  constructor(post: Post, handlers: Readonly<Record<string, Handler>>, options: ChannelOptions = {}) {
    this.#post = post;
    this.#handlers = new Map(Object.entries(handlers));
    this.#options = options;
  }

  /**
   * Has the other side do something.
   * @param signal fires the handler's signal there; the answer is awaited nevertheless
   * @param transfer of `args`: what moves instead of being copied
   * @throws what the handler throws, of the same class where it is one of ours
   */
  async call(name: string, args: readonly unknown[], signal?: AbortSignal, transfer?: readonly object[]): Promise<unknown> {
    const { id, waiting } = this.#begin((id) => ({ kind: "call", id, name, args }), transfer);
    const leave = (): void => this.#send({ kind: "leave", id });
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return (await this.#end(waiting)).value;
    } finally {
      signal?.removeEventListener("abort", leave);
      this.#waiting.delete(id);
    }
  }

  /**
   * Iterates over what the other side yields. It begins with the first `next`; leaving early waits until the other side has left too.
   * @param window items that the other side may be ahead; 1: it makes one when one is asked for
   */
  async *stream(name: string, args: readonly unknown[], window: number = WINDOW): AsyncGenerator<unknown> {
    const { id, waiting } = this.#begin((id) => ({ kind: "stream", id, name, args, window }));
    let taken = 0;
    try {
      for (;;) {
        for (let item = waiting.items.shift(); item !== undefined; item = waiting.items.shift()) {
          yield item;
          if (++taken < window / 2) continue;
          this.#send({ kind: "pull", id, count: taken });
          taken = 0;
        }
        if (waiting.end) break;
        await this.#wake(waiting);
      }
      await this.#end(waiting);
    } finally {
      if (!waiting.end) {
        this.#send({ kind: "leave", id });
        while (!waiting.end) await this.#wake(waiting);
      }
      this.#waiting.delete(id);
    }
  }

  /** Tells the other side something, without an answer. */
  tell(name: string, args: readonly unknown[]): void {
    this.#send({ kind: "tell", name, args });
  }

  /** Ends everything that waits, and whatever comes later, with `error`; what this side works on for the other is told to stop. */
  fail(error: Error): void {
    if (this.#error) return;
    this.#error = error;
    for (const waiting of this.#waiting.values()) {
      waiting.end ??= error;
      waiting.wake();
    }
    for (const { control, wake } of this.#serving.values()) {
      control.abort(error);
      wake();
    }
  }

  /** Takes what came from the other side. */
  receive(message: unknown): void {
    const m = message as Message;
    if (this.#error) return;
    if (m.kind === "call" || m.kind === "stream") void this.#serve(m);
    else if (m.kind === "tell") void this.#handlers.get(m.name)?.(m.args, new AbortController().signal);
    else if (m.kind === "result" || m.kind === "items") {
      const waiting = this.#waiting.get(m.id);
      if (!waiting) return;
      if (m.kind === "items") waiting.items.push(...m.items);
      else waiting.end = m;
      waiting.wake();
    } else {
      const serving = this.#serving.get(m.id);
      if (!serving) return; // it has ended already
      if (m.kind === "pull") serving.credit += m.count;
      else serving.control.abort(new AbortError());
      serving.wake();
    }
  }

  #send(message: Message, transfer: readonly object[] = []): void {
    if (!this.#error) this.#post(message, transfer);
  }

  #begin(message: (id: number) => Message, transfer?: readonly object[]): { id: number; waiting: Waiting } {
    if (this.#error) throw this.#error;
    const id = this.#ids++;
    const waiting: Waiting = { items: [], end: undefined, wake: () => {} };
    this.#send(message(id), transfer);
    this.#waiting.set(id, waiting);
    return { id, waiting };
  }

  /** Waits for whatever comes next. */
  async #wake(waiting: Waiting): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      waiting.wake = resolve;
    });
    if (this.#busy++ === 0) this.#options.onBusy?.(true);
    await woken;
    if (--this.#busy === 0) this.#options.onBusy?.(false);
  }

  async #end(waiting: Waiting): Promise<Result> {
    while (!waiting.end) await this.#wake(waiting);
    if (waiting.end instanceof Error) throw waiting.end;
    if (waiting.end.error) throw unpackError(waiting.end.error);
    return waiting.end;
  }

  async #serve(message: Extract<Message, { kind: "call" | "stream" }>): Promise<void> {
    const { id, name, args } = message;
    const serving: Serving = { control: new AbortController(), credit: message.kind === "stream" ? message.window : 0, wake: () => {} };
    this.#serving.set(id, serving);
    try {
      const handler = this.#handlers.get(name);
      if (!handler)
        throw new PlatformError(`worker: expected a call that it knows, got ${name}. Serve all files of the package from one version.`);
      const result = handler(args, serving.control.signal);
      const value = message.kind === "call" ? await result : await this.#pump(id, serving, result as AsyncIterable<unknown>);
      this.#send({ kind: "result", id, value }, owned(value));
    } catch (error) {
      this.#send({ kind: "result", id, error: packError(error) });
    } finally {
      this.#serving.delete(id);
    }
  }

  /** Sends what `source` yields, as far as the other side wants it. */
  async #pump(id: number, serving: Serving, source: AsyncIterable<unknown>): Promise<void> {
    const { signal } = serving.control;
    const { batchMs = 0 } = this.#options;
    const batch = new Batch((items) => this.#send({ kind: "items", id, items }, owned(items)), batchMs);
    let tookMs = 0;
    const iterator = source[Symbol.asyncIterator]();
    try {
      while (!signal.aborted) {
        if (serving.credit === 0) {
          batch.flush();
          await new Promise<void>((resolve) => {
            serving.wake = resolve;
          });
          continue;
        }
        const [start, before] = [performance.now(), tookMs];
        const { done, value } = await iterator.next();
        if (done) return;
        serving.credit--;
        batch.push(value);
        tookMs = performance.now() - start;
        // the next one may keep this thread so long that no timer is heard; what follows a slow one at once is a prompt's first token
        if (Math.max(tookMs, before) >= batchMs) batch.flush();
      }
      await iterator.return?.();
    } finally {
      batch.flush();
    }
  }
}

/** Collects items for as long as a frame takes. */
class Batch {
  readonly #send: (items: readonly unknown[]) => void;
  readonly #ms: number;
  #items: unknown[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #sentAt = Number.NEGATIVE_INFINITY;

  constructor(send: (items: readonly unknown[]) => void, ms: number) {
    this.#send = send;
    this.#ms = ms;
  }

  push(item: unknown): void {
    this.#items.push(item);
    const left = this.#sentAt + this.#ms - performance.now();
    if (left <= 0) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), left);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#items.length === 0) return;
    const items = this.#items;
    this.#items = [];
    this.#sentAt = performance.now();
    this.#send(items);
  }
}
