// A conversation with a cache of its own: each turn renders the history anew and computes only what the cache does not hold.
import { AbortError, InputError } from "./errors.ts";
import { type Part, type Reply, ReplyStream } from "./reply.ts";
import type { Message } from "./text/messages.ts";
import { checkObject, type GenerateOptions, unlessAborted } from "./turn.ts";
import { kindOf } from "./values.ts";

/** How a conversation begins. */
export interface ChatOptions {
  /** The system message. */
  readonly system?: string | undefined;
  /** Messages before the first turn. */
  readonly messages?: readonly Message[] | undefined;
}

/** Options of a turn of a chat: those of `generate`, but `raw`. */
export type ChatTurnOptions = Omit<GenerateOptions, "raw">;

/** What a chat needs of its model. */
export interface ChatHost {
  /** Runs a turn on the whole conversation in session `session`. */
  turn(session: number, messages: readonly Message[], options: GenerateOptions): AsyncIterable<Part>;
  openSession(): Promise<number>;
  closeSession(session: number): void;
  resetSession(session: number): Promise<void>;
}

/** A turn in the order of a chat: those before it, then its own work. Lets go of both when they are over. */
class Turn {
  #before: Turn | undefined;
  #work: Pick<ReplyStream, "drain" | "cancel"> | undefined;
  #settled: Promise<void> | undefined;

  constructor(before: Turn | undefined, work: Pick<ReplyStream, "drain" | "cancel">) {
    this.#before = before;
    this.#work = work;
  }

  /** Reads everything up to here to its end: a reply that nobody reads must not hold up the next one. */
  settle(): Promise<void> {
    this.#settled ??= this.#settle();
    return this.#settled;
  }

  /** Ends everything up to here. */
  cancel(reason: Error): void {
    this.#before?.cancel(reason);
    this.#work?.cancel(reason);
  }

  async #settle(): Promise<void> {
    await this.#before?.settle();
    this.#before = undefined;
    await this.#work?.drain();
    this.#work = undefined;
  }
}

/** A conversation. Turns on one chat run in order; a turn that fails leaves the messages as they were. */
export class Chat {
  readonly #host: ChatHost;
  readonly #start: readonly Message[];
  #messages: readonly Message[];
  #session: Promise<number> | undefined;
  #last: Turn | undefined;
  #isDisposed = false;

  /** @internal */
  constructor(host: ChatHost, options: ChatOptions) {
    const { system, messages = [] } = checkObject("chat", options);
    if (system !== undefined && typeof system !== "string") {
      throw new InputError(`chat: system: expected a text, got ${kindOf(system)}. Pass the system message's text.`);
    }
    if (!Array.isArray(messages))
      throw new InputError(`chat: messages: expected a list of messages, got ${kindOf(messages)}. Leave it out for none.`);
    this.#host = host;
    this.#start = copyMessages([...(system === undefined ? [] : [{ role: "system", content: system } as const]), ...messages]);
    this.#messages = this.#start;
  }

  /** The conversation so far. */
  get messages(): readonly Message[] {
    return this.#messages;
  }

  /**
   * Says something and waits for the whole reply.
   * @param input a user's text, or messages to append
   * @throws InputError, AbortError
   * @example
   * const chat = model.chat({ system: "You are kind." });
   * console.log((await chat.prompt("Hello")).text);
   */
  async prompt(input: string | readonly Message[], options: ChatTurnOptions = {}): Promise<Reply> {
    return this.stream(input, options).reply;
  }

  /** Says something and streams the reply. */
  stream(input: string | readonly Message[], options: ChatTurnOptions = {}): ReplyStream {
    const before = this.#last;
    const stream = new ReplyStream(this.#turn(before, input, options));
    this.#last = new Turn(before, stream);
    return stream;
  }

  /** Forgets the conversation, but for what it began with; after the turns that were started before. */
  async clear(): Promise<void> {
    const before = this.#last;
    const done = this.#clear(before);
    this.#last = new Turn(before, { drain: () => done.catch(() => {}), cancel: () => {} }); // who called clear() gets its error
    await done;
  }

  /** Ends the turns that run and frees the cache. Twice does no harm. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#last?.cancel(
      new AbortError("chat: the chat was disposed while this turn ran. Open a new one with model.chat().", { code: "disposed" }),
    );
    this.#session?.then(
      (session) => this.#host.closeSession(session),
      () => {}, // it never opened
    );
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async *#turn(before: Turn | undefined, input: string | readonly Message[], options: ChatTurnOptions): AsyncGenerator<Part> {
    const { signal, onAbort } = checkObject("options", options);
    try {
      await unlessAborted(before?.settle(), signal);
    } catch (error) {
      if (onAbort !== "return") throw error; // else the turn below finds the signal fired and returns nothing
    }
    const added = typeof input === "string" ? [{ role: "user", content: input } as const] : input;
    if (!Array.isArray(added))
      throw new InputError(`chat: expected a text or a list of messages, got ${kindOf(input)}. Pass what the user says.`);
    const messages = copyMessages([...this.#messages, ...added]);
    const session = await this.#open();
    for await (const part of this.#host.turn(session, messages, options)) {
      if (part.type === "finish" && !(part.reply.finishReason === "interrupted" && part.reply.text === "")) {
        this.#messages = [...messages, { role: "assistant", content: part.reply.text }];
      }
      yield part;
    }
  }

  async #clear(before: Turn | undefined): Promise<void> {
    await before?.settle();
    this.#messages = this.#start;
    if (this.#session) await this.#host.resetSession(await this.#open());
  }

  /** The session, opened on first use; after a failure the next turn tries again. */
  async #open(): Promise<number> {
    if (this.#isDisposed) {
      throw new InputError("chat: expected an open chat, got a disposed one. Open a new one with model.chat().", { code: "disposed" });
    }
    this.#session ??= this.#host.openSession();
    try {
      return await this.#session;
    } catch (error) {
      this.#session = undefined;
      throw error;
    }
  }
}

/** The caller may change its objects later; the history may not change with them. */
function copyMessages(messages: readonly Message[]): readonly Message[] {
  try {
    return structuredClone(messages);
  } catch (cause) {
    throw new InputError(`messages: expected plain data, got something that cannot be copied: ${(cause as Error).message}.`, { cause });
  }
}
