// The model as a user sees it: text in, text out. Knows tokenizer and template; what computes is behind the Engine.

import { Chat, type ChatHost, type ChatOptions } from "./chat.ts";
import { checkNames } from "./checks.ts";
import type { Prompt } from "./context.ts";
import { AbortError, InputError, UnsupportedError } from "./errors.ts";
import type { ForwardHost, ForwardInput, ForwardOutput } from "./forward.ts";
import type { Engine, EngineStatus } from "./generate/engine.ts";
import type { SamplingOptions } from "./generate/sampler.ts";
import { callDefaults, missingRule, withDefaults } from "./generation-config.ts";
import type { Variant } from "./kernels/variants.ts";
import type { KvDType, WeightDType } from "./memory/dtype.ts";
import type { Lfm2Config } from "./models/config.ts";
import { part } from "./part.ts";
import { type Lane, Relay, through } from "./relay.ts";
import { type Part, type Reply, ReplyStream } from "./reply.ts";
import type { EmbedOptions, Perplexity, PerplexityOptions, Score, ScoreOptions } from "./score.ts";
import type { ChatTemplate } from "./text/chat-template.ts";
import { checkMessages, type Message } from "./text/messages.ts";
import type { Segment } from "./text/segments.ts";
import type { Tokenizer } from "./text/tokenizer.ts";
import { checkCall, checkContextFull, checkOptions, type GenerateOptions, runTurn, type TurnRequest } from "./turn.ts";
import { kindOf } from "./values.ts";

/** What a turn can start from: a user's text, a conversation, or token ids that are fed as they are. */
export type ModelInput = string | readonly Message[] | Uint32Array;

const SCORE: Readonly<Record<keyof ScoreOptions, 1>> = { signal: 1 };

/** Several prompts, not the messages of one. */
function isBatch(input: ModelInput | readonly ModelInput[]): input is readonly ModelInput[] {
  const isPrompt = (item: unknown): boolean => typeof item === "string" || Array.isArray(item) || item instanceof Uint32Array;
  return Array.isArray(input) && input.some(isPrompt);
}

/** Facts about a loaded model. */
export interface ModelInfo {
  /** What the checkpoint calls itself. */
  readonly name: string;
  readonly format: "safetensors" | "gguf";
  /** As the hub, the file, or the README beside it on this machine tells it. */
  readonly license: string | undefined;
  /** Element types of the matrices, as loaded: one, or the mixture of a GGUF. */
  readonly dtypes: readonly WeightDType[];
  readonly kvDtype: KvDType;
  /** Build of the kernels that this engine runs. */
  readonly variant: Variant;
  /** Threads that compute, the engine's own included. */
  readonly threads: number;
  /** The runtime whose adapter loaded it: "node", "deno", "bun", "browser" or "workerd". */
  readonly runtime: string;
  /** Whether it computes in the thread that loaded it, or in a worker. */
  readonly engine: "here" | "worker";
  readonly parameterCount: number;
  /** Bytes of the packed weights. */
  readonly weightBytes: number;
  /** Bytes of linear memory after the load, scratch included. */
  readonly memoryBytes: number;
  /** Bytes of keys and values that a token adds. */
  readonly kvBytesPerToken: number;
  /** Positions of a session: prompt and reply together may have one token more, for the last is never fed. */
  readonly maxContextTokens: number;
  /** Whether the weights came packed from an earlier start, or were kept so for the next; undefined where neither was so. */
  readonly packedImage: "read" | "written" | undefined;
  /** What could not be as it was wished or would be best, a sentence each with its reason: a page without a worker, or without threads, a file whose checksum its hub does not tell. Empty when all is well. */
  readonly warnings: readonly string[];
  /** Sampling that applies where a call says nothing. */
  readonly sampling: SamplingOptions;
  /** Other options of `generate` that apply where a call says nothing: those that generation_config.json names. */
  readonly generation: GenerateOptions;
  /** Ids that end a reply where a call says nothing: those of generation_config.json, else of config.json. */
  readonly stopIds: readonly number[];
  /** How tokens are guessed where a call says nothing; undefined for not at all. */
  readonly speculate: GenerateOptions["speculate"];
  /** What the draft model calls itself, if there is one. */
  readonly draft: string | undefined;
}

/** What a Model is made of. */
export interface ModelParts {
  readonly engine: Engine;
  readonly config: Lfm2Config;
  /** All but what generation_config.json says to it. */
  readonly info: Omit<ModelInfo, "generation">;
  readonly tokenizer: Tokenizer | undefined;
  readonly template: ChatTemplate | undefined;
  /** generation_config.json, parsed. */
  readonly generationConfig: unknown;
  /** Ids (T,) of a prompt, from a tokenizer that lives elsewhere; by default `tokenizer` makes them. */
  readonly encode?: (segments: readonly Segment[]) => Promise<readonly number[]>;
}

/** A loaded model. Calls may overlap: they take turns step by step. */
export class Model {
  static readonly name = "Model";
  readonly config: Lfm2Config;
  readonly info: ModelInfo;
  readonly #parts: ModelParts;
  #calls = 0;
  #sessions = 0;
  #isDisposed = false;

  /** Takes over the engine, whatever comes of it. @throws FormatError for a generation_config.json with values of the wrong kind @internal */
  constructor(parts: ModelParts) {
    const { engine, info, config, generationConfig } = parts;
    this.#parts = parts;
    this.config = config;
    try {
      const missing = missingRule(generationConfig);
      const warnings = missing === undefined ? info.warnings : [...info.warnings, missing];
      this.info = { ...info, warnings, generation: callDefaults(generationConfig) };
    } catch (error) {
      engine.dispose().catch(() => {}); // who called has the error
      throw error;
    }
  }

  /** What computes, for benchmarks: a turn step by step, times of single kernels. @internal */
  get engine(): Engine {
    return this.#parts.engine;
  }

  /** generation_config.json, parsed. @internal */
  get generationConfig(): unknown {
    return this.#parts.generationConfig;
  }

  /** The tokenizer. @throws UnsupportedError when the checkpoint has none */
  get tokenizer(): Tokenizer {
    const { tokenizer } = this.#parts;
    if (tokenizer) return tokenizer;
    throw new UnsupportedError(
      "model: expected a checkpoint with a tokenizer, got one without. Add tokenizer.json, or pass token ids instead of text.",
    );
  }

  /**
   * Generates a reply.
   * @param input a user's text (through the chat template), messages, or token ids (as they are)
   * @throws InputError for bad input or a prompt that does not fit; AbortError when the signal fires
   * @example
   * const { text } = await model.generate("Tell me a story about a fox.", { maxTokens: 100 });
   */
  async generate(input: ModelInput, options?: GenerateOptions): Promise<Reply>;
  /**
   * Generates replies to several prompts at once: each step decodes all that are not done yet, and reads the weights once for them. Each reply is what it would
   * be alone.
   * @param inputs prompts of any kind
   * @param options for all, or one for each
   * @throws what the first that fails throws; the others are ended
   * @example
   * const [fox, owl] = await model.generate(["A story about a fox.", "A story about an owl."], { maxTokens: 100 });
   */
  async generate(inputs: readonly ModelInput[], options?: GenerateOptions | readonly GenerateOptions[]): Promise<Reply[]>;
  async generate(
    input: ModelInput | readonly ModelInput[],
    options: GenerateOptions | readonly GenerateOptions[] = {},
  ): Promise<Reply | Reply[]> {
    return isBatch(input) ? this.#batch(input, options) : this.stream(input, options as GenerateOptions).reply;
  }

  /**
   * Generates a reply and streams it.
   * @example
   * for await (const text of model.stream("Hello").textStream) process.stdout.write(text);
   */
  stream(input: ModelInput, options: GenerateOptions = {}): ReplyStream {
    return new ReplyStream(new Relay((lane: Lane<Part, Part>) => this.#once(lane, input, options)));
  }

  /** Opens a conversation, which keeps its cache from turn to turn. */
  chat(options: ChatOptions = {}): Chat {
    return new Chat(this.#chatHost(), options);
  }

  /**
   * Opens a conversation that `chat.save()` put away. What comes next is what would have come without the pause, to the last bit.
   * @throws FormatError when the bytes are damaged, or were saved with other weights, another dtype or kvDtype; InputError when it exceeds the context; MemoryError
   * @example
   * const bytes = await chat.save();
   * const again = await model.restore(bytes);
   */
  async restore(bytes: Uint8Array): Promise<Chat> {
    if (!(bytes instanceof Uint8Array)) {
      throw new InputError(`restore: expected the bytes (Uint8Array) that chat.save() gave, got ${kindOf(bytes)}. Pass them whole.`);
    }
    const session = this.#sessions++;
    const { tokens, note } = await this.#parts.engine.restore(session, bytes);
    try {
      return Chat.restore(this.#chatHost(), session, tokens, note);
    } catch (error) {
      this.#close(session);
      throw error;
    }
  }

  /**
   * One forward pass over a batch, as in the reference: padding, positions, labels, hidden states, attention; from an empty cache or on from one.
   * @throws InputError for shapes that do not fit, ids outside the vocabulary, a context that is full; AbortError
   * @example
   * const { logits } = await model.forward({ inputIds: [1, 2, 3], logitsToKeep: 1 });   // (1, 1, V)
   */
  async forward(input: ForwardInput): Promise<ForwardOutput> {
    const { forward } = await part("forward", () => import("./forward.ts"));
    return forward(this.#host(), input);
  }

  /** @returns memory and sessions in use */
  async status(): Promise<EngineStatus> {
    return this.#parts.engine.status();
  }

  /** Ends every call with an AbortError and frees the memory. Twice does no harm. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#parts.engine.dispose().catch(() => {}); // it is gone already
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #batch(inputs: readonly ModelInput[], options: GenerateOptions | readonly GenerateOptions[]): Promise<Reply[]> {
    const each = Array.isArray(options) ? (options as readonly GenerateOptions[]) : inputs.map(() => options as GenerateOptions);
    if (each.length !== inputs.length) {
      throw new InputError(
        `generate: expected options for each of ${inputs.length} prompts, got ${each.length}. Pass one object for all, or as many.`,
      );
    }
    const streams = inputs.map((input, i) => this.stream(input, each[i]));
    try {
      return await Promise.all(streams.map((stream) => stream.reply));
    } catch (error) {
      for (const stream of streams) stream.cancel(new AbortError("generate: another prompt of this batch failed.", { cause: error }));
      throw error;
    }
  }

  #chatHost(): ChatHost {
    const { engine } = this.#parts;
    return {
      turn: (session, messages, options, droppedMessages) => this.#turn(session, messages, options, droppedMessages),
      openSession: () => this.#open(),
      closeSession: (session) => this.#close(session),
      forkSession: (session) => this.#fork(session),
      rewindSession: (session, position) => engine.rewind(session, position),
      saveSession: (session, note) => engine.save(session, note),
      tokensOf: (session) => engine.tokens(session),
    };
  }

  /**
   * How likely the model finds a text, token by token: what one `forward()` over it gives. Dynamic and longrope scaling go by the text's own length then, by
   * `maxContextTokens` in replies (their `logprobs` and `promptLogprobs`).
   * @param text as it is, control tokens and all, after the start token; or token ids
   * @throws InputError for fewer than two tokens, or more than the context; AbortError
   */
  async score(text: string | Uint32Array, options: ScoreOptions = {}): Promise<Score> {
    const { signal } = checkNames("score", options, "ScoreOptions", SCORE);
    return this.#score(await this.#encodeText(text), signal);
  }

  async #score(ids: Uint32Array, signal: AbortSignal | undefined, ropeLength?: number): Promise<Score> {
    const { score } = await part("score", () => import("./score.ts"));
    return score(this.#host(), ids, signal, ropeLength);
  }

  /**
   * How well the model predicts a text of any length, by a window that slides over it.
   * @throws InputError; AbortError
   * @example
   * const { perplexity } = await model.perplexity(await readFile("own.txt", "utf8"));
   */
  async perplexity(text: string | Uint32Array, options: PerplexityOptions = {}): Promise<Perplexity> {
    const { perplexity } = await part("score", () => import("./score.ts"));
    return perplexity(this.#host(), await this.#encodeText(text), options);
  }

  /**
   * What the model makes of texts: the final norm's output, pooled.
   * @returns (D,) for each text; (T,D) with pooling "none"
   * @throws InputError; AbortError
   */
  async embed(texts: readonly (string | Uint32Array)[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    if (!Array.isArray(texts)) throw new InputError(`embed: expected a list of texts, got ${kindOf(texts)}. Pass [text].`);
    const rows = await Promise.all(texts.map((text) => this.#encodeText(text)));
    const { embed } = await part("score", () => import("./score.ts"));
    return embed(this.#host(), rows, options);
  }

  async #encodeText(text: string | Uint32Array): Promise<Uint32Array> {
    if (text instanceof Uint32Array) return this.#checkIds(text);
    if (typeof text === "string") return this.#encodeRaw(text);
    throw new InputError(`tokens: expected a text or a Uint32Array of token ids, got ${kindOf(text)}.`);
  }

  #host(): ForwardHost {
    return {
      engine: this.#parts.engine,
      config: this.config,
      maxContextTokens: this.info.maxContextTokens,
      nextCall: () => this.#calls++,
      open: () => this.#open(),
      close: (session) => this.#close(session),
    };
  }

  async *#once(
    lane: Lane<Part, Part>,
    input: ModelInput,
    options: GenerateOptions,
  ): AsyncGenerator<Part, undefined, IteratorResult<Part> | undefined> {
    checkCall(options);
    const session = await this.#open();
    lane.take = (part) => part;
    try {
      yield* through(lane, this.#turn(session, input, options), async (part) => part);
    } finally {
      this.#close(session);
    }
  }

  /** @param droppedMessages that were left out before and stay so */
  #turn(session: number, input: ModelInput, options: GenerateOptions, droppedMessages = 0): AsyncIterableIterator<Part, undefined> {
    return runTurn(this.#parts.engine, session, async () => {
      const { sampling, generation, speculate, draft, stopIds } = this.info;
      const all = withDefaults(options, generation, sampling.temperature);
      const prompt = await this.#prompt(input, all, droppedMessages);
      const request = checkOptions(
        prompt,
        all,
        { sampling, speculate, vocabSize: this.config.vocabSize, hasDraft: draft !== undefined },
        stopIds,
      );
      const promptLogprobs = request.asksForPrompt ? await this.#promptLogprobs(request) : undefined;
      return { call: this.#calls++, request, promptLogprobs };
    });
  }

  /** What a turn tells of its prompt; a prompt that is too long is for the turn to refuse. */
  async #promptLogprobs({ ids, signal, onAbort }: TurnRequest): Promise<Float64Array | undefined> {
    if (ids.length < 2 || ids.length > this.info.maxContextTokens) return new Float64Array(0);
    try {
      return (await this.#score(ids, signal, this.info.maxContextTokens)).logprobs;
    } catch (error) {
      if (onAbort === "return" && signal?.aborted) return undefined;
      throw error;
    }
  }

  async #prompt(input: ModelInput, { raw, onContextFull = "error", maxTokens }: GenerateOptions, droppedMessages: number): Promise<Prompt> {
    checkContextFull(onContextFull);
    if (onContextFull === "error" || !Array.isArray(input)) return { ids: await this.#encode(input, raw), droppedMessages: 0 };
    checkMessages(input);
    const room = { maxContextTokens: this.info.maxContextTokens, maxTokens: maxTokens ?? Number.POSITIVE_INFINITY, droppedMessages };
    const { dropOldest } = await part("context", () => import("./context.ts"));
    return dropOldest(input, (messages) => this.#encode(messages, raw), room);
  }

  async #open(): Promise<number> {
    const session = this.#sessions++;
    await this.#parts.engine.open(session);
    return session;
  }

  async #fork(session: number): Promise<number> {
    const copy = this.#sessions++;
    await this.#parts.engine.fork(session, copy);
    return copy;
  }

  #close(session: number): void {
    this.#parts.engine.close(session).catch(() => {}); // a disposed engine has closed it already
  }

  async #encode(input: ModelInput, raw = false): Promise<Uint32Array> {
    if (input instanceof Uint32Array) return this.#checkIds(input);
    if (raw && typeof input === "string") return this.#encodeRaw(input);
    if (raw) throw new InputError(`options: raw: expected a text to feed as it is, got ${kindOf(input)}. Leave raw out for messages.`);
    const messages: readonly Message[] = typeof input === "string" ? [{ role: "user", content: input }] : input;
    const { template } = this.#parts;
    if (!template) {
      throw new UnsupportedError(
        "model: expected a checkpoint with a chat template, got one without. Pass { raw: true } with a text, or token ids.",
      );
    }
    return Uint32Array.from(await this.#ids(template.render(messages, { addGenerationPrompt: true })));
  }

  async #encodeRaw(text: string): Promise<Uint32Array> {
    const ids = await this.#ids([{ text, trusted: true }]);
    const { bosTokenId } = this.config;
    return Uint32Array.from(bosTokenId === undefined || ids[0] === bosTokenId ? ids : [bosTokenId, ...ids]);
  }

  async #ids(segments: readonly Segment[]): Promise<readonly number[]> {
    return this.#parts.encode?.(segments) ?? this.tokenizer.encodeSegments(segments);
  }

  #checkIds(ids: ArrayLike<number>): Uint32Array {
    const { vocabSize } = this.config;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] ?? -1;
      if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
      throw new InputError(
        `tokens: expected ids from 0 to ${vocabSize - 1}, got ${id} at index ${i}. Encode the text with this model's tokenizer.`,
      );
    }
    return Uint32Array.from(ids);
  }
}
