// A conversation with a cache of its own: each turn renders the history anew and computes only what the cache does not hold.
import { checkNames } from "./checks.ts";
import { AbortError, FormatError, InputError } from "./errors.ts";
import { type Lane, Relay, through } from "./relay.ts";
import { type Part, type Reply, ReplyStream } from "./reply.ts";
import type { Message } from "./text/messages.ts";
import { checkCall, checkContextFull, type GenerateOptions, unlessAborted } from "./turn.ts";
import { isRecord, kindOf } from "./values.ts";

/** How a conversation begins. */
export interface ChatOptions {
  /** The system message. */
  readonly system?: string | undefined;
  /** Messages before the first turn. */
  readonly messages?: readonly Message[] | undefined;
  /** What the chat's turns do when they have outgrown the context, unless their own options say otherwise; default `"error"`. */
  readonly onContextFull?: GenerateOptions["onContextFull"];
}

const KEYS: Readonly<Record<keyof ChatOptions, 1>> = { system: 1, messages: 1, onContextFull: 1 };

/** Options of a turn of a chat: those of `generate`, but `raw`. */
export type ChatTurnOptions = Omit<GenerateOptions, "raw">;

/** What a chat needs of its model. */
export interface ChatHost {
  /** Runs a turn on the whole conversation in session `session`; `droppedMessages` are no longer fed. */
  turn(session: number, messages: readonly Message[], options: GenerateOptions, droppedMessages: number): AsyncIterator<Part>;
  openSession(): Promise<number>;
  closeSession(session: number): void;
  /** Opens a session with what `session` holds. */
  forkSession(session: number): Promise<number>;
  rewindSession(session: number, position: number): Promise<void>;
  saveSession(session: number, note: string): Promise<Uint8Array>;
  /** The ids that a session holds. */
  tokensOf(session: number): Promise<Uint32Array>;
}

/** The end of a turn: how many messages there were then, and how many of them were not fed any more. */
interface Mark {
  /** Tokens that the cache still holds of those that it held then. */
  readonly position: number;
  /** `chat.position` then, where that was another one. */
  readonly at?: number;
  readonly messages: number;
  readonly droppedMessages: number;
}

/** A conversation as a value. */
interface State {
  readonly messages: readonly Message[];
  /** The start, at position 0, then the end of every turn. */
  readonly marks: readonly Mark[];
  readonly tokens: Uint32Array;
}

/** What is saved beside the cache. */
type Note = Omit<State, "tokens"> & Pick<ChatOptions, "onContextFull">;

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
    // the oldest begins: each asking the one before it would be a stack as deep as the queue is long
    const open = this.#upToHere((turn) => turn.#settled === undefined);
    for (const turn of open) turn.#settled = turn.#settle();
    return this.#settled ?? Promise.resolve();
  }

  /** Ends everything up to here. */
  cancel(reason: Error): void {
    for (const turn of this.#upToHere(() => true)) turn.#work?.cancel(reason);
  }

  /** This turn and those before it, back to the first that `isWanted` refuses; the oldest first. */
  #upToHere(isWanted: (turn: Turn) => boolean): Turn[] {
    const turns: Turn[] = [];
    for (let turn: Turn | undefined = this; turn && isWanted(turn); turn = turn.#before) turns.push(turn);
    return turns.reverse();
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
  static readonly name = "Chat";
  readonly #host: ChatHost;
  readonly #onContextFull: GenerateOptions["onContextFull"];
  #state: State;
  #session: Promise<number> | undefined;
  #last: Turn | undefined;
  #isDisposed = false;

  /** @internal */
  constructor(host: ChatHost, options: ChatOptions) {
    const { system, messages = [], onContextFull } = checkNames("chat", options, "ChatOptions", KEYS);
    if (system !== undefined && typeof system !== "string") {
      throw new InputError(`chat: system: expected a text, got ${kindOf(system)}. Pass the system message's text.`);
    }
    if (!Array.isArray(messages))
      throw new InputError(`chat: messages: expected a list of messages, got ${kindOf(messages)}. Leave it out for none.`);
    checkContextFull(onContextFull);
    this.#host = host;
    this.#onContextFull = onContextFull;
    const start = copyMessages([...(system === undefined ? [] : [{ role: "system", content: system } as const]), ...messages]);
    this.#state = { messages: start, marks: [{ position: 0, messages: start.length, droppedMessages: 0 }], tokens: new Uint32Array(0) };
  }

  /** The conversation so far. */
  get messages(): readonly Message[] {
    return this.#state.messages;
  }

  /**
   * Ids of the tokens that the cache holds, prompts and replies as they were fed. The last token of a reply is not among them: it is fed with the next turn.
   * Up to date when no turn runs.
   */
  get tokens(): Uint32Array {
    return this.#state.tokens.slice();
  }

  /**
   * Number of `tokens`: what `rewind` takes, read before the turn that may have to be undone. At the end of a turn it stays what it was then, where the cache was
   * filled anew since and holds fewer.
   */
  get position(): number {
    const { tokens, marks } = this.#state;
    const last = marks.at(-1);
    return last?.position === tokens.length ? atOf(last) : tokens.length;
  }

  /** `position` at the end of each turn, the start (0) first: `chat.rewind(chat.marks.at(-2))` undoes the last turn. */
  get marks(): readonly number[] {
    return this.#state.marks.map(atOf);
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
    const stream = new ReplyStream(new Relay((lane: Lane<Part, Part>) => this.#turn(lane, before, input, options)));
    this.#last = new Turn(before, stream);
    return stream;
  }

  /** Forgets the conversation, but for what it began with; after the turns that were started before. */
  async clear(): Promise<void> {
    await this.#queue(() => this.#rewind(0));
  }

  /**
   * Goes back to `position`, after the turns that were started before. The cache keeps its first `position` tokens, and what comes next is what would have come
   * had nothing followed them, to the last bit. The messages of turns of which the cache holds more are forgotten. Costs nothing now and, with the next turn, the
   * computation of a few tokens (20 for most LFM2 models).
   * @param position tokens to keep, at most `chat.position`; one of `chat.marks` is the end of that turn, even where the cache was filled anew since and holds less of it
   * @throws InputError for any other number
   * @example
   * const mark = chat.position;
   * await chat.prompt("A question that I shall take back");
   * await chat.rewind(mark);
   */
  async rewind(position: number): Promise<void> {
    await this.#queue(() => this.#rewind(position));
  }

  /**
   * A second conversation that has the same past; from here on each goes its own way. It shares what the cache holds: no key or value is computed or copied, only the convolution
   * state and, of each page of 32 tokens, id, address and count of holders: some 12 KB at 32,768 tokens, whatever the model. A page is copied once one of the two writes to it.
   * It begins after the turns that were started before, and has to be disposed of by itself.
   * @throws InputError when this chat is disposed
   */
  fork(): Chat {
    this.#checkOpen();
    const fork = new Chat(this.#host, { onContextFull: this.#onContextFull });
    fork.#state = this.#state;
    const done = this.#queue(() => fork.#become(this));
    done.catch(() => {}); // #become does not throw
    fork.#last = new Turn(undefined, { drain: () => done, cancel: () => {} });
    return fork;
  }

  /**
   * The conversation and its cache as bytes, after the turns that were started before: `model.restore(bytes)` goes on where this chat stands, here or in
   * another process, in any runtime and build. About `model.info.kvBytesPerToken` a token.
   * @throws InputError when this chat is disposed; MemoryError when the host has no room for the bytes
   */
  async save(): Promise<Uint8Array> {
    return this.#queue(async () => this.#host.saveSession(await this.#open(), noteOf(this.#state, this.#onContextFull)));
  }

  /** @internal @param session that holds `tokens` @param note as `save` wrote it */
  static restore(host: ChatHost, session: number, tokens: Uint32Array, note: string): Chat {
    const { messages, marks, onContextFull } = noted(note);
    const chat = new Chat(host, { onContextFull });
    chat.#state = { messages, marks, tokens };
    chat.#session = Promise.resolve(session);
    return chat;
  }

  /** Ends the turns that run and frees the cache. Twice does no harm. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#last?.cancel(
      new AbortError("chat: the chat was disposed while this turn ran. Open a new one with model.chat().", { code: "disposed" }),
    );
    this.#closeSession();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #closeSession(): void {
    this.#session?.then(
      (session) => this.#host.closeSession(session),
      () => {}, // it never opened
    );
  }

  async *#turn(
    lane: Lane<Part, Part>,
    before: Turn | undefined,
    input: string | readonly Message[],
    options: ChatTurnOptions,
  ): AsyncGenerator<Part, undefined, IteratorResult<Part> | undefined> {
    const { signal, onAbort } = checkCall(options);
    try {
      await unlessAborted(before?.settle(), signal);
    } catch (error) {
      if (onAbort !== "return") throw error; // else the turn below finds the signal fired and returns nothing
    }
    const added = typeof input === "string" ? [{ role: "user", content: input } as const] : input;
    if (!Array.isArray(added))
      throw new InputError(`chat: expected a text or a list of messages, got ${kindOf(input)}. Pass what the user says.`);
    const messages = copyMessages([...this.messages, ...added]);
    const session = await this.#open();
    let isFinished = false;
    try {
      const dropped = this.#state.marks.at(-1)?.droppedMessages ?? 0;
      const parts = this.#host.turn(session, messages, { onContextFull: this.#onContextFull, ...options }, dropped);
      lane.take = (part) => (part.type === "finish" ? undefined : part);
      yield* through(lane, parts, async (part) => {
        if (part.type === "finish") {
          const { text, finishReason, usage } = part.reply;
          const isNothing = finishReason === "interrupted" && text === "";
          const said = isNothing ? undefined : [...messages, { role: "assistant", content: text } as const];
          await this.#follow(session, said, usage.droppedMessages);
          isFinished = true;
        }
        return part;
      });
    } finally {
      if (!isFinished) await this.#follow(session, undefined);
    }
  }

  /** Takes in what a turn has left in the cache and, unless it came to nothing, what has been said. */
  async #follow(session: number, messages: readonly Message[] | undefined, droppedMessages = 0): Promise<void> {
    const tokens = await this.#host.tokensOf(session).catch(() => undefined); // an engine that is gone has its own error for the caller
    if (!tokens) return;
    const position = tokens.length;
    const shared = sharedLength(this.#state.tokens, tokens);
    const marks = this.#state.marks.map((mark) => shortened(mark, shared)); // a turn may have read its past anew
    if (messages)
      this.#state = { ...this.#state, messages, marks: [...marks, { position, messages: messages.length, droppedMessages }], tokens };
    else this.#state = { ...this.#state, marks, tokens };
  }

  /** Runs `work` after the turns that were started before; those that come later wait for it. */
  #queue<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const done = (async () => {
      await before?.settle();
      return work();
    })();
    const settled = done.then(
      () => {},
      () => {}, // who called gets its error
    );
    this.#last = new Turn(before, { drain: () => settled, cancel: () => {} });
    return done;
  }

  async #rewind(position: number): Promise<void> {
    const { tokens, marks, messages } = this.#state;
    let last = marks.findLastIndex((mark) => atOf(mark) === position);
    if (last > 0 && last === marks.length - 1 && atOf(marks[last - 1]!) === position) last--; // both turns filled the context: back is the earlier
    let end: Partial<Mark> = {};
    if (last >= 0) position = marks[last]!.position;
    else {
      if (!(Number.isSafeInteger(position) && position >= 0 && position <= tokens.length)) {
        throw new InputError(
          `rewind: expected a position from 0 to ${tokens.length}, got ${typeof position === "number" ? position : kindOf(position)}. Take one that chat.position gave.`,
        );
      }
      last = marks.findLastIndex((mark) => mark.position <= position);
      if (marks[last]!.position === position) end = { at: position }; // it ends where it was asked to
    }
    if (this.#session) await this.#host.rewindSession(await this.#open(), position);
    else this.#checkOpen();
    this.#state = {
      messages: messages.slice(0, marks[last]!.messages),
      marks: [...marks.slice(0, last), { ...marks[last]!, ...end }],
      tokens: tokens.slice(0, position),
    };
  }

  /** Takes over what `origin` holds, sharing its cache; where that cannot be, the first turn computes it again. */
  async #become(origin: Chat): Promise<void> {
    this.#state = origin.#state;
    if (!origin.#session) return;
    this.#session = origin.#session.then((session) => this.#host.forkSession(session));
    await this.#session.catch(() => {
      this.#session = undefined;
      const marks = this.#state.marks.map((mark) => shortened(mark, 0));
      this.#state = { ...this.#state, marks, tokens: new Uint32Array(0) };
    });
    if (this.#isDisposed) this.#closeSession();
  }

  #checkOpen(): void {
    if (this.#isDisposed)
      throw new InputError("chat: expected an open chat, got a disposed one. Open a new one with model.chat().", { code: "disposed" });
  }

  /** The session, opened on first use; after a failure the next turn tries again. */
  async #open(): Promise<number> {
    this.#checkOpen();
    this.#session ??= this.#host.openSession();
    try {
      return await this.#session;
    } catch (error) {
      this.#session = undefined;
      throw error;
    }
  }
}

const atOf = ({ at, position }: Mark): number => at ?? position;

/** The mark where the cache holds no more than `length` of those tokens. */
const shortened = (mark: Mark, length: number): Mark => (mark.position > length ? { ...mark, at: atOf(mark), position: length } : mark);

function sharedLength(a: Uint32Array, b: Uint32Array): number {
  const end = Math.min(a.length, b.length);
  let n = 0;
  while (n < end && a[n] === b[n]) n++;
  return n;
}

/** @throws InputError when a message holds what JSON has no word for */
function noteOf({ messages, marks }: State, onContextFull: ChatOptions["onContextFull"]): string {
  try {
    return JSON.stringify({ messages, marks, onContextFull } satisfies Note);
  } catch (cause) {
    throw new InputError("save: expected messages that JSON can hold, got others.", { cause });
  }
}

/** @throws FormatError when the note is not one that `noteOf` wrote. It repeats nothing of it, as the parser's own error would. */
function noted(note: string): Note {
  let state: Partial<Note> | null = null;
  try {
    state = JSON.parse(note);
  } catch {} // told below
  const { messages, marks, onContextFull } = state ?? {};
  const isMark = (mark: unknown): boolean =>
    isRecord(mark) &&
    [mark.position, mark.at ?? 0, mark.messages, mark.droppedMessages].every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
  const isList = (list: unknown, isItem: (item: unknown) => boolean): boolean => Array.isArray(list) && list.every(isItem);
  const isRule = [undefined, "error", "drop-oldest"].includes(onContextFull);
  if (isList(messages, isRecord) && isList(marks, isMark) && marks?.[0]?.position === 0 && isRule) return state as Note;
  throw new FormatError("restore: expected the messages of a chat in the state, got others. The state was not made by chat.save().");
}

/** The caller may change its objects later; the history may not change with them. */
function copyMessages(messages: readonly Message[]): readonly Message[] {
  try {
    return structuredClone(messages);
  } catch (cause) {
    throw new InputError("messages: expected plain data, got something that cannot be copied.", { cause });
  }
}
