// A turn on the caller's side: options checked, ids sent, events folded into parts. Speaks to the engine only in plain data.
import { checkNames } from "./checks.ts";
import type { Prompt } from "./context.ts";
import { AbortError, InputError, throwIfAborted } from "./errors.ts";
import type {
  BeamRequest,
  Engine,
  FinishReason,
  GenerateEvent,
  GenerateRequest,
  SpeculationCount,
  SpeculationRequest,
  Timings,
} from "./generate/engine.ts";
import type { TokenLogprob } from "./generate/logprobs.ts";
import { CHECKS, checkProcessors, type ProcessorOptions } from "./generate/processors.ts";
import { RANGES, resolveSampling, type Sampling, type SamplingOptions } from "./generate/sampler.ts";
import { checkStop } from "./generate/stop.ts";
import { type Lane, LEAVE, Relay, through } from "./relay.ts";
import type { Part, PromptProgress, ReplySequence } from "./reply.ts";
import { isRecord, kindOf } from "./values.ts";

/** Where a reply stands when one of the caller's own functions is asked. */
export interface GenerationState {
  /** Ids of prompt and reply so far. */
  readonly tokens: readonly number[];
  /** How many of them are the prompt. */
  readonly promptTokens: number;
}

/**
 * A rule of the caller's own: changes the logits (V,), or returns a Float32Array with others. It comes after all other rules, before temperature and cuts; it sees a copy. What it
 * throws ends the call.
 */
export type LogitsProcessor = (logits: Float32Array, state: GenerationState) => unknown;

/**
 * Asked after each token: true ends the reply, with finishReason `"stop"`; false goes on. With beams it is asked about each sequence that may go on: one that it ends is
 * among the finished ones. It may not be asynchronous. One that is written with a second parameter, neither optional by a default nor a rest (its `length` tells), gets the logits (V,)
 * that the token was chosen from, a copy, as the caller's own processors left them; with beams their log-probabilities.
 */
export type StoppingCriterion = (state: GenerationState, logits: Float32Array) => boolean;

/** How tokens are guessed so that one pass over the weights checks several. They change how fast a reply comes, and no token of it, whether greedy or sampled. */
export interface SpeculateOptions {
  /** Where guesses come from: `"prompt-lookup"` (default) continues as the text did where it last went as it goes now, `"draft"` asks the model that was loaded as `draft`. */
  readonly by?: "prompt-lookup" | "draft" | undefined;
  /** Tokens that must be the same for prompt lookup, at least: 1 to 16, default 1. */
  readonly ngram?: number | undefined;
  /** Tokens that are guessed at a time, at most: 1 to 15, default 15. */
  readonly max?: number | undefined;
  /** Guess fewer, or none, where it does not pay (default); false always guesses `max`. */
  readonly adaptive?: boolean | undefined;
}

/** Options of every call that generates. What is absent follows the checkpoint's recommendation. */
export interface GenerateOptions extends SamplingOptions, ProcessorOptions {
  /** Tokens at most; default as many as the context holds. */
  readonly maxTokens?: number | undefined;
  /** Tokens of prompt and reply together at most; the lesser of the two limits counts. */
  readonly maxLength?: number | undefined;
  /** Tells with the reply, and with each of its `sequences`, how likely each token was, under the model's own distribution. */
  readonly logprobs?: boolean | undefined;
  /** Also the so many likeliest tokens at each place, at most 20; asks for `logprobs`. */
  readonly topLogprobs?: number | undefined;
  /** Tells with the reply how likely each token of the prompt was, as `logprobs` would have; reads the prompt once more for it. */
  readonly promptLogprobs?: boolean | undefined;
  /** Beams of beam search, which looks for the likeliest whole reply; temperature and cuts do not count then, unless `sampleBeams`. 1 (default) is no search. */
  readonly numBeams?: number | undefined;
  /** Draws the beams' continuations with temperature, cuts and seed, in the place of taking the likeliest; default false. */
  readonly sampleBeams?: boolean | undefined;
  /** A sequence's score is Σ ln p / tokens^lengthPenalty; default 1, above favours longer ones. */
  readonly lengthPenalty?: number | undefined;
  /** When the search ends: `false` (default) once no beam can win at its present length, `true` with as many ended ones as there are beams, `"never"` once none can win at any length. */
  readonly earlyStopping?: boolean | "never" | undefined;
  /** Replies to give back, as `reply.sequences`: of beam search the best ones, else so many samples, one after the other, with the seeds that follow `seed`. Default 1. */
  readonly numReturnSequences?: number | undefined;
  /** Functions on the logits before each token. Each costs a copy of the logits, and a message where the engine is elsewhere. */
  readonly processors?: readonly LogitsProcessor[] | undefined;
  /** Functions that may end the reply; with beams, each sequence. With a second parameter each costs what a processor does. */
  readonly stoppingCriteria?: readonly StoppingCriterion[] | undefined;
  /**
   * Guesses tokens and checks several in one pass, which changes none of them: see `SpeculateOptions`. `"prompt-lookup"` helps where a reply repeats what was
   * said, `"draft"` where the model was loaded with a smaller one. Default: as the model was loaded. Beams do without.
   */
  readonly speculate?: boolean | "prompt-lookup" | "draft" | SpeculateOptions | undefined;
  /** Texts that end the reply, or a beam; they are cut off. At most 16 of 256 characters. */
  readonly stop?: string | readonly string[] | undefined;
  /** Token ids that end the reply; default the checkpoint's end tokens. */
  readonly stopIds?: readonly number[] | undefined;
  /**
   * What a conversation that has outgrown the context does: `"error"` (default) throws an InputError (`code: "context-full"`) before anything is computed;
   * `"drop-oldest"` leaves out the oldest whole turns, keeping the system message, and tells in `usage.droppedMessages`. It drops them when less than a quarter of
   * the context (or maxTokens) would be left for the reply, and then down to half of it.
   */
  readonly onContextFull?: "error" | "drop-oldest" | undefined;
  /** Ids that the rules take for an end; default the checkpoint's. @internal */
  readonly endIds?: readonly number[] | undefined;
  /** Feeds a string as it is, control tokens and all, instead of as a user's message. */
  readonly raw?: boolean | undefined;
  /** Called while the prompt is read, after each chunk of it: at `totalTokens` the first token is there. What it throws ends the call. */
  readonly onProgress?: ((progress: PromptProgress) => void) | undefined;
  /** Ends the call before its next step. */
  readonly signal?: AbortSignal | undefined;
  /** What an abort does: `"throw"` an AbortError (default), or `"return"` what there is, with finishReason `"interrupted"`. */
  readonly onAbort?: "throw" | "return" | undefined;
}

/** The options that are neither sampling's nor the rules'; the compiler misses none. */
const KEYS: Readonly<Record<Exclude<keyof GenerateOptions, keyof SamplingOptions | keyof ProcessorOptions>, 1>> = {
  maxTokens: 1,
  maxLength: 1,
  logprobs: 1,
  topLogprobs: 1,
  promptLogprobs: 1,
  numBeams: 1,
  sampleBeams: 1,
  lengthPenalty: 1,
  earlyStopping: 1,
  numReturnSequences: 1,
  processors: 1,
  stoppingCriteria: 1,
  speculate: 1,
  stop: 1,
  stopIds: 1,
  onContextFull: 1,
  endIds: 1,
  raw: 1,
  onProgress: 1,
  signal: 1,
  onAbort: 1,
};

/** @returns `options`. @throws InputError when they are no object, or say what there is not */
export function checkCall(options: GenerateOptions): GenerateOptions {
  return checkNames("options", options, "GenerateOptions", KEYS, RANGES, CHECKS);
}

/** Everything that a turn needs, checked. */
export interface TurnRequest {
  readonly ids: Uint32Array;
  readonly droppedMessages: number;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly stopIds: readonly number[];
  readonly sampling: Sampling;
  readonly processing: ProcessorOptions;
  readonly endIds: readonly number[];
  readonly topLogprobs: number | undefined;
  readonly asksForPrompt: boolean;
  readonly beams: BeamRequest | undefined;
  readonly speculation: SpeculationRequest | undefined;
  /** Samples beside the first. */
  readonly moreSamples: number;
  readonly processors: readonly LogitsProcessor[];
  readonly stoppingCriteria: readonly StoppingCriterion[];
  readonly onProgress: ((progress: PromptProgress) => void) | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onAbort: "throw" | "return";
}

/** @throws InputError for another word than `onContextFull` may be */
export function checkContextFull(onContextFull: GenerateOptions["onContextFull"]): void {
  if (onContextFull !== undefined && onContextFull !== "error" && onContextFull !== "drop-oldest")
    throw new InputError(`options: onContextFull: expected "error" or "drop-oldest", got ${JSON.stringify(onContextFull)}.`);
}

/** What holds where a call says nothing. */
export interface CallDefaults {
  readonly sampling: SamplingOptions;
  readonly speculate: GenerateOptions["speculate"];
  /** V */
  readonly vocabSize: number;
  /** Whether there is a draft model. */
  readonly hasDraft: boolean;
}

/** @throws InputError for an option of the wrong kind or out of range */
export function checkOptions(
  { ids, droppedMessages }: Prompt,
  options: GenerateOptions,
  { sampling, speculate, vocabSize, hasDraft }: CallDefaults,
  endIds: readonly number[],
): TurnRequest {
  const { maxTokens = Number.MAX_SAFE_INTEGER, maxLength, stopIds = endIds, onProgress, signal, onAbort = "throw" } = options;
  if (!Array.isArray(stopIds) || !stopIds.every((id) => Number.isSafeInteger(id) && id >= 0)) {
    throw new InputError(
      `options: stopIds: expected a list of token ids, got ${Array.isArray(stopIds) ? JSON.stringify(stopIds) : kindOf(stopIds)}. Pass [] for none.`,
    );
  }
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) {
    throw new InputError(
      `options: maxTokens: expected a whole number of at least 1, got ${String(maxTokens)}. Leave it out to generate up to the end of the context.`,
    );
  }
  if (onAbort !== "throw" && onAbort !== "return") {
    throw new InputError(`options: onAbort: expected "throw" or "return", got ${JSON.stringify(onAbort)}.`);
  }
  if (maxLength !== undefined && !(Number.isSafeInteger(maxLength) && maxLength > ids.length)) {
    throw new InputError(
      `options: maxLength: expected a whole number above the prompt's ${ids.length} tokens, got ${String(maxLength)}. It counts the prompt; maxTokens does not.`,
    );
  }
  return {
    ids,
    droppedMessages,
    maxTokens: Math.min(maxTokens, (maxLength ?? Number.MAX_SAFE_INTEGER) - ids.length),
    stop: checkStop(options.stop),
    stopIds,
    sampling: resolveSampling(options, sampling),
    processing: checkProcessors(options, vocabSize),
    endIds: options.endIds ?? endIds,
    topLogprobs: checkLogprobs(options),
    asksForPrompt: options.promptLogprobs ?? false,
    ...checkSequences(options, sampling),
    speculation: checkSpeculate(options.speculate ?? speculate, hasDraft),
    processors: checkFunctions("processors", options.processors),
    stoppingCriteria: checkFunctions("stoppingCriteria", options.stoppingCriteria),
    onProgress,
    signal,
    onAbort,
  };
}

/** Likeliest tokens that a place tells at most: as many as the usual interfaces. */
const MOST_LOGPROBS = 20;

function checkLogprobs({ logprobs, topLogprobs, promptLogprobs }: GenerateOptions): number | undefined {
  for (const [name, value] of Object.entries({ logprobs, promptLogprobs }))
    if (value !== undefined && typeof value !== "boolean")
      throw new InputError(`options: ${name}: expected true or false, got ${kindOf(value)}. Ask for more by topLogprobs.`);
  if (topLogprobs === undefined) return logprobs ? 0 : undefined;
  if (Number.isSafeInteger(topLogprobs) && topLogprobs >= 0 && topLogprobs <= MOST_LOGPROBS && logprobs !== false) return topLogprobs;
  throw new InputError(
    `options: topLogprobs: expected a whole number from 0 to ${MOST_LOGPROBS} and logprobs not false, got ${String(topLogprobs)}. Leave it out for none.`,
  );
}

/** Replies and beams that can be asked for: a bound against mistakes. */
const MOST_SEQUENCES = 128;

function checkSequences(options: GenerateOptions, { temperature }: SamplingOptions): Pick<TurnRequest, "beams" | "moreSamples"> {
  const { numBeams = 1, lengthPenalty = 1, earlyStopping = false, numReturnSequences = 1, sampleBeams = false } = options;
  for (const [name, value] of Object.entries({ numBeams, numReturnSequences })) {
    if (!(Number.isSafeInteger(value) && value >= 1 && value <= MOST_SEQUENCES))
      throw new InputError(
        `options: ${name}: expected a whole number from 1 to ${MOST_SEQUENCES}, got ${String(value)}. Leave it out for one.`,
      );
  }
  if (typeof lengthPenalty !== "number" || !(Math.abs(lengthPenalty) <= 100))
    throw new InputError(`options: lengthPenalty: expected a number from -100 to 100, got ${String(lengthPenalty)}. 1 is usual.`);
  if (typeof earlyStopping !== "boolean" && earlyStopping !== "never")
    throw new InputError(`options: earlyStopping: expected true, false or "never", got ${JSON.stringify(earlyStopping)}.`);
  if (typeof sampleBeams !== "boolean" || (sampleBeams && (numBeams === 1 || !((options.temperature ?? temperature ?? 1) > 0))))
    throw new InputError(
      `options: sampleBeams: expected true or false, and for true numBeams above 1 and a temperature above 0, got ${JSON.stringify(sampleBeams)} with numBeams ${numBeams}.`,
    );
  if (numBeams === 1) return { beams: undefined, moreSamples: numReturnSequences - 1 };
  if (numReturnSequences > numBeams)
    throw new InputError(
      `options: numReturnSequences: expected at most numBeams, ${numBeams}, got ${numReturnSequences}. Search with more beams.`,
    );
  return { beams: { count: numBeams, lengthPenalty, earlyStopping, returned: numReturnSequences, isSampled: sampleBeams }, moreSamples: 0 };
}

/** Tokens that are guessed at a time, at most. */
const MOST_DRAFTED = 15;
const MOST_NGRAM = 16;
const SPECULATE: Readonly<Record<keyof SpeculateOptions, 1>> = { by: 1, ngram: 1, max: 1, adaptive: 1 };

/**
 * @param hasDraft whether "draft" can be asked for
 * @returns how tokens are guessed, if they are
 * @throws InputError
 */
export function checkSpeculate(speculate: GenerateOptions["speculate"], hasDraft: boolean): SpeculationRequest | undefined {
  if (speculate === undefined || speculate === false) return undefined;
  const options =
    speculate === true ? { by: hasDraft ? ("draft" as const) : undefined } : typeof speculate === "string" ? { by: speculate } : speculate;
  if (!isRecord(options))
    throw new InputError(`options: speculate: expected true, false, "prompt-lookup", "draft" or an object, got ${kindOf(speculate)}.`);
  const {
    by = "prompt-lookup",
    ngram = 1,
    max = MOST_DRAFTED,
    adaptive = true,
  } = checkNames("options: speculate", options as SpeculateOptions, "SpeculateOptions", SPECULATE);
  if (by !== "prompt-lookup" && by !== "draft")
    throw new InputError(`options: speculate: expected "prompt-lookup" or "draft", got ${JSON.stringify(by)}.`);
  if (by === "draft" && !hasDraft)
    throw new InputError(
      'options: speculate: expected a model with a draft model for "draft", got one without. Load it with the option draft.',
    );
  for (const [name, value, most] of [
    ["ngram", ngram, MOST_NGRAM],
    ["max", max, MOST_DRAFTED],
  ] as const)
    if (!(Number.isSafeInteger(value) && value >= 1 && value <= most))
      throw new InputError(`options: speculate: ${name}: expected a whole number from 1 to ${most}, got ${String(value)}. Leave it out.`);
  if (typeof adaptive !== "boolean") throw new InputError(`options: speculate: adaptive: expected true or false, got ${kindOf(adaptive)}.`);
  return { by, ngram, max, isAdaptive: adaptive };
}

function checkFunctions<T>(name: string, list: readonly T[] = []): readonly T[] {
  if (Array.isArray(list) && list.every((item) => typeof item === "function")) return list;
  throw new InputError(
    `options: ${name}: expected a list of functions, got ${Array.isArray(list) ? "others in it" : kindOf(list)}. Pass [] for none.`,
  );
}

/** @returns what `promise` gives, unless the signal fires first. @throws AbortError */
export async function unlessAborted<T>(promise: Promise<T> | undefined, signal: AbortSignal | undefined): Promise<T | undefined> {
  if (!signal) return promise;
  let stop = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(new AbortError(undefined, { cause: signal.reason }));
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** What has come of a turn. */
class Progress {
  text = "";
  readonly tokens: number[] = [];
  readonly logprobs: TokenLogprob[] = [];
  sequences: readonly ReplySequence[] | undefined;
  cachedTokens = 0;
  speculation: SpeculationCount | undefined;
  timings: Timings = { prefillMs: 0, decodeMs: 0, firstTokenMs: 0 };
  reason: FinishReason = "interrupted";

  /** Takes an event in; returns the part to show, if any. */
  take(event: GenerateEvent): Part | undefined {
    if (event.type === "prefill") {
      const { processedTokens, totalTokens, cachedTokens } = event;
      this.cachedTokens = cachedTokens;
      return { type: "prefill", processedTokens, totalTokens, cachedTokens };
    }
    if (event.type === "logits" || event.type === "candidates") return undefined;
    if (event.type === "token") {
      this.tokens.push(event.id);
      if (event.logprob) this.logprobs.push(event.logprob);
    } else {
      this.reason = event.reason;
      this.timings = event.timings;
      this.speculation = event.speculation;
      this.sequences = event.sequences?.map(({ ids, logprobs, ...rest }) => ({
        ...rest,
        tokens: Uint32Array.from(ids),
        ...(logprobs && { logprobs }),
      }));
    }
    this.text += event.text;
    return event.text === "" ? undefined : { type: "text-delta", delta: event.text };
  }

  /** @param more samples beside this one @param promptLogprobs of the prompt, where they were asked for */
  finish(request: TurnRequest, more: readonly ReplySequence[], promptLogprobs: Float64Array | undefined): Part {
    const { cachedTokens, timings, reason } = this;
    const { ids, droppedMessages } = request;
    const dropped = droppedMessages > 0 ? { droppedMessages } : {};
    const { drafted: draftedTokens, accepted: acceptedTokens } = this.speculation ?? {};
    const guessed = draftedTokens === undefined || acceptedTokens === undefined ? {} : { draftedTokens, acceptedTokens };
    const usage = { inputTokens: ids.length, cachedTokens, outputTokens: this.tokens.length, ...dropped, ...guessed };
    const sequences = this.sequences ?? (request.moreSamples > 0 ? [this.sample(request, request.sampling.seed), ...more] : undefined);
    const reply = { ...this.sample(request, request.sampling.seed), finishReason: reason, usage, timings };
    return { type: "finish", reply: { ...reply, ...(promptLogprobs && { promptLogprobs }), ...(sequences && { sequences }) } };
  }

  /** What it is as one of several. */
  sample({ topLogprobs }: TurnRequest, seed: number): ReplySequence & { readonly seed: number } {
    const { text, logprobs } = this;
    return { text, tokens: Uint32Array.from(this.tokens), seed, ...(topLogprobs !== undefined && { logprobs }) };
  }
}

/** Asks the caller's own processors, one after the other. */
function processed(processors: readonly LogitsProcessor[], logits: Float32Array, state: GenerationState): Float32Array {
  return processors.reduce<Float32Array>((values, processor) => {
    const returned: unknown = processor(values, state);
    if (returned === undefined) return values;
    if (returned instanceof Float32Array) return returned;
    throw new InputError(
      `options: processors: expected a function that returns a Float32Array or nothing, got ${kindOf(returned)}. It may not be asynchronous.`,
    );
  }, logits);
}

/** Whether a criterion is to see the logits. */
const takesLogits = (criterion: StoppingCriterion): boolean => criterion.length > 1;

/** Asks the caller's own criteria. @param logits are there if one of them takes them */
function isOver(criteria: readonly StoppingCriterion[], state: GenerationState, logits: Float32Array | undefined): boolean {
  return criteria.some((criterion) => {
    const seen = takesLogits(criterion) ? logits?.slice() : undefined; // what one does to them is nothing to the others
    const returned: unknown = criterion(state, seen as Float32Array);
    if (typeof returned === "boolean") return returned;
    throw new InputError(
      `options: stoppingCriteria: expected functions that return true or false, got ${kindOf(returned)}. They may not be asynchronous.`,
    );
  });
}

/** What a turn is to do. */
export interface TurnStart {
  /** Number of the call. */
  readonly call: number;
  readonly request: TurnRequest;
  /** Of the prompt, where they were asked for. */
  readonly promptLogprobs: Float64Array | undefined;
}

/**
 * Runs a turn on an open session.
 * @param begin is called when the first part is asked for
 * @returns its parts
 */
export function runTurn(engine: Engine, session: number, begin: () => Promise<TurnStart>): AsyncIterableIterator<Part, undefined> {
  return new Relay<GenerateEvent, Part>((lane) => run(lane, engine, session, begin));
}

async function* run(
  lane: Lane<GenerateEvent, Part>,
  engine: Engine,
  session: number,
  begin: () => Promise<TurnStart>,
): AsyncGenerator<Part, undefined, IteratorResult<GenerateEvent> | undefined> {
  const { call, request, promptLogprobs } = await begin();
  const { signal, onAbort, onProgress, sampling, moreSamples, stoppingCriteria } = request;
  const progress = new Progress();
  const cancel = (): void => {
    engine.cancel(call).catch(() => {}); // an engine that is gone has nothing left to cancel
  };
  const more: ReplySequence[] = [];
  if (signal?.aborted && onAbort === "throw") throwIfAborted(signal);
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (let n = 0; n <= moreSamples && !signal?.aborted; n++) {
      const seed = n === 0 ? sampling.seed : (sampling.seed + n) % Number.MAX_SAFE_INTEGER;
      const own = n === 0 ? progress : new Progress();
      /** For criteria, of the step that is under way, by the reply that they follow; without beams there is one. */
      const logits = new Map<string, Float32Array>();
      const see = async (event: GenerateEvent): Promise<Part | undefined | typeof LEAVE> => {
        if (signal?.aborted && onAbort === "throw" && event.type !== "finish") return LEAVE; // an engine that lives elsewhere may have worked ahead
        if (event.type === "logits") {
          const left = changed(event, request, own);
          if (stoppingCriteria.some(takesLogits)) logits.set(replyOf(event.tokens, request), left.slice()); // a processor may return the same array again
          await engine.supply(call, left);
        }
        if (event.type === "candidates") {
          await engine.supply(call, ended(event, request, logits));
          logits.clear();
        }
        const part = own.take(event);
        if (part?.type === "prefill" && onProgress) tell(onProgress, part);
        if (event.type === "token" && stoppingCriteria.length > 0 && !request.beams) {
          if (isOver(stoppingCriteria, stateOf(request, own), logits.get(""))) await engine.cancel(call, "stop");
        }
        return n === 0 ? part : undefined; // nobody sees those of the others
      };
      if (stoppingCriteria.length === 0)
        lane.take = (event) => (event.type === "token" && !signal?.aborted ? (own.take(event) ?? null) : undefined);
      yield* through(lane, engine.generate(call, session, asked(request, seed))[Symbol.asyncIterator](), see);
      if (own.reason === "interrupted") break;
      if (n > 0) more.push(own.sample(request, seed));
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  if (more.length < moreSamples) progress.reason = "interrupted"; // though the first may be whole
  if (progress.reason === "interrupted" && onAbort === "throw") throw new AbortError(undefined, { cause: signal?.reason });
  yield progress.finish(request, more, promptLogprobs);
}

/** What the engine is asked for one sequence of a turn. */
function asked(request: TurnRequest, seed: number): GenerateRequest {
  const { ids, maxTokens, stop, stopIds, processing, endIds, topLogprobs, beams, speculation } = request;
  const sampling = { ...request.sampling, seed };
  const hasCriteria = request.stoppingCriteria.length > 0;
  const asksForLogits = request.processors.length > 0 ? "to-change" : request.stoppingCriteria.some(takesLogits) ? "to-see" : undefined;
  const asks = { asksForLogits, asksForEnds: beams && hasCriteria, inStep: hasCriteria || asksForLogits !== undefined } as const;
  return { ids, maxTokens, stop, stopIds, sampling, processing, endIds, ...asks, topLogprobs, beams, speculation };
}

function stateOf({ ids }: TurnRequest, { tokens }: Progress): GenerationState {
  return { tokens: [...ids, ...tokens], promptTokens: ids.length };
}

/** The logits as the caller's own processors leave them. */
function changed(event: GenerateEvent & { readonly type: "logits" }, request: TurnRequest, progress: Progress): Float32Array {
  const { processors, ids } = request;
  const now = event.tokens ? { tokens: Array.from(event.tokens), promptTokens: ids.length } : stateOf(request, progress);
  return processed(processors, event.logits, now);
}

/** A key for the reply of a beam, which stands behind the prompt that all have. */
const replyOf = (tokens: Uint32Array | undefined, { ids }: TurnRequest): string => String(tokens?.subarray(ids.length) ?? "");

/** Which sequences the caller's own criteria end. */
function ended(
  { sequences }: GenerateEvent & { readonly type: "candidates" },
  request: TurnRequest,
  logits: ReadonlyMap<string, Float32Array>,
): Float32Array {
  return Float32Array.from(sequences, (tokens) => {
    const state = { tokens: Array.from(tokens), promptTokens: request.ids.length };
    const seen = logits.size > 0 ? logits.get(replyOf(tokens.subarray(0, -1), request)) : undefined;
    return isOver(request.stoppingCriteria, state, seen) ? 1 : 0;
  });
}

function tell(onProgress: (progress: PromptProgress) => void, { processedTokens, totalTokens, cachedTokens }: PromptProgress): void {
  onProgress({ processedTokens, totalTokens, cachedTokens });
}
