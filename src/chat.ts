// A conversation with a cache of its own: each turn renders the history anew and computes only what the cache does not hold.
import { InputError } from "./errors.ts";
import { type Part, type Reply, ReplyStream } from "./reply.ts";
import type { Message } from "./text/messages.ts";
import { type GenerateOptions, unlessAborted } from "./turn.ts";

/** How a conversation begins. */
export interface ChatOptions {
  /** The system message. */
  readonly system?: string | undefined;
  /** Messages before the first turn. */
  readonly messages?: readonly Message[] | undefined;
}

/** What a chat needs of its model. */
export interface ChatHost {
  /** Runs a turn on the whole conversation in session `session`. */
  turn(session: number, messages: readonly Message[], options: GenerateOptions): AsyncIterable<Part>;
  openSession(): Promise<number>;
  closeSession(session: number): void;
  resetSession(session: number): Promise<void>;
}

/** A conversation. Turns on one chat run in order; a turn that fails leaves the messages as they were. */
export class Chat {
  readonly #host: ChatHost;
  readonly #start: readonly Message[];
  #messages: Message[];
  #session: Promise<number> | undefined;
  /** Reads every turn so far to its end. */
  #drain: () => Promise<void> = async () => {};
  #isDisposed = false;

  /** @internal */
  constructor(host: ChatHost, { system, messages = [] }: ChatOptions) {
    if (system !== undefined && typeof system !== "string") throw new InputError(`chat: system: expected a text, got ${typeof system}.`);
    this.#host = host;
    this.#start = system === undefined ? [...messages] : [{ role: "system", content: system }, ...messages];
    this.#messages = [...this.#start];
  }

  /** The conversation so far. */
  get messages(): readonly Message[] {
    return [...this.#messages];
  }

  /**
   * Says something and waits for the whole reply.
   * @param input a user's text, or messages to append
   * @throws InputError, AbortError
   * @example
   * const chat = model.chat({ system: "You are kind." });
   * console.log((await chat.prompt("Hello")).text);
   */
  async prompt(input: string | readonly Message[], options: GenerateOptions = {}): Promise<Reply> {
    return this.stream(input, options).reply;
  }

  /** Says something and streams the reply. */
  stream(input: string | readonly Message[], options: GenerateOptions = {}): ReplyStream {
    const before = this.#drain;
    const stream = new ReplyStream(this.#turn(before, input, options));
    this.#drain = async () => {
      await before();
      await stream.drain();
    };
    return stream;
  }

  /** Forgets the conversation, but for what it began with. */
  async clear(): Promise<void> {
    await this.#drain();
    this.#messages = [...this.#start];
    if (this.#session) await this.#host.resetSession(await this.#session);
  }

  /** Frees the cache. Twice does no harm. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#session?.then(
      (session) => this.#host.closeSession(session),
      () => {}, // it never opened
    );
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async *#turn(before: () => Promise<void>, input: string | readonly Message[], options: GenerateOptions): AsyncGenerator<Part> {
    await unlessAborted(before(), options.signal); // reads them on: a reply that nobody reads must not hold up this one
    if (this.#isDisposed)
      throw new InputError("chat: expected an open chat, got a disposed one. Open a new one with model.chat().", { code: "disposed" });
    const added: readonly Message[] = typeof input === "string" ? [{ role: "user", content: input }] : input;
    const messages = [...this.#messages, ...added];
    this.#session ??= this.#host.openSession();
    for await (const part of this.#host.turn(await this.#session, messages, options)) {
      if (part.type === "finish") this.#messages = [...messages, { role: "assistant", content: part.reply.text }];
      yield part;
    }
  }
}
