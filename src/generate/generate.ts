// The generation loop: brings a session to the prompt, then samples token after token. Sees a model only as LanguageModel; each event but those of one step's tokens takes a step.

import { InputError } from "../errors.ts";
import type { Logits } from "../kernels/logits.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { part } from "../part.ts";
import { InOrder } from "../relay.ts";
import type { ByteTable } from "../text/byte-level.ts";
import type { BeamSearch, BeamSequence } from "./beam.ts";
import type { BeamRequest, CancelCheck, FinishReason, GenerateEvent, GenerateRequest, Timings } from "./engine.ts";
import { History } from "./history.ts";
import { LogprobReader, type TokenLogprob } from "./logprobs.ts";
import { type Rules, rulesOf } from "./processors.ts";
import { largestWanted, pickLargest, pickToken, process } from "./sampler.ts";
import type { Job, Outcome, Scheduler, Waiting } from "./scheduler.ts";
import type { Session } from "./session.ts";
import type { Speculation } from "./speculation.ts";
import { TurnText } from "./turn-text.ts";

/** @throws InputError unless `ids` are this model's, and fit the context with one token more: what fails here fails alone, not the step that others share. */
export function checkPrompt({ options, config }: LanguageModel, ids: Uint32Array): void {
  const { maxContextTokens } = options;
  if (ids.length === 0)
    throw new InputError("prompt: expected one token at least, got none. Pass a text or messages.", { code: "empty-prompt" });
  const unknown = ids.findIndex((id) => id >= config.vocabSize);
  if (unknown >= 0) {
    throw new InputError(
      `tokens: expected ids from 0 to ${config.vocabSize - 1}, got ${ids[unknown]} at index ${unknown}. Encode the text with this model's tokenizer.`,
    );
  }
  if (ids.length <= maxContextTokens) return;
  throw new InputError(
    `context: expected a prompt of at most ${maxContextTokens} tokens, got ${ids.length}. Shorten it, or load the model with a larger maxContextTokens.`,
    {
      code: "context-full",
    },
  );
}

const NO_DRAFTS: readonly number[] = [];

/** A token that has been chosen. */
interface Chosen {
  readonly id: number;
  readonly logprob?: TokenLogprob | undefined;
}

/** What a turn runs on. */
export interface TurnPlace {
  readonly session: Session;
  readonly isCancelled: CancelCheck;
  /** Guesses tokens. Each is chosen as it is without; a guess is kept where it is the token that was chosen. */
  readonly speculation?: Speculation | undefined;
  /** Called once, when the turn is over. */
  readonly end: () => void;
}

/** What a turn works with. */
export interface TurnWork {
  readonly scheduler: Scheduler;
  /** Waits for the session; `checkPrompt` has seen the request's ids then. */
  readonly begin: () => Promise<TurnPlace>;
  readonly request: GenerateRequest;
  /** Bytes of the tokens, undefined for a model without tokenizer: its tokens have no text. */
  readonly table: ByteTable | undefined;
  /** Gives the logits that the caller put in the place of those it was shown. */
  readonly takeSupplied: () => Float32Array | undefined;
}

type Result = IteratorResult<GenerateEvent, undefined>;

/** Runs one turn. Its steps are shared with other turns that want one at the same time, so a token is sampled in the same breath as its logits are computed. */
export function generate(work: TurnWork): AsyncIterableIterator<GenerateEvent, undefined> {
  return new Turn(work);
}

/**
 * The events of a turn, from when its session is free until it is let go. No generator: one would be a function to resume, a request in its queue and two
 * promises more for each token, and between two steps of a large model the caches hold its weights, so that all of it is waited for.
 */
class Turn extends InOrder implements AsyncIterableIterator<GenerateEvent, undefined> {
  readonly #work: TurnWork;
  #reply: Reply | undefined;
  #isOver = false;
  /** Of the call under way, where its event comes later. */
  #resolve: (result: Result) => void = () => {};
  #reject: (reason: unknown) => void = () => {};
  readonly #executor = (resolve: (result: Result) => void, reject: (reason: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };
  readonly #step = (): Promise<Result> => {
    if (this.#isOver) return Promise.resolve(this.#done());
    const later = new Promise(this.#executor);
    if (this.#reply) this.#goOn(this.#reply);
    else void this.#begin();
    return later;
  };
  readonly #tell: Tell = {
    event: (event) => {
      if (event.type === "finish") this.#close();
      this.over();
      this.#resolve({ done: false, value: event });
    },
    error: (reason) => {
      this.#close();
      this.over();
      this.#reject(reason);
    },
  };

  constructor(work: TurnWork) {
    super();
    this.#work = work;
  }

  next(): Promise<Result> {
    return this.call(this.#step);
  }

  return(): Promise<Result> {
    return this.call(async () => {
      this.#close();
      return this.#done();
    });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #begin(): Promise<void> {
    try {
      const place = await this.#work.begin();
      try {
        this.#reply = new Reply(this.#work, place, this.#tell);
      } catch (error) {
        place.end();
        throw error;
      }
      await this.#reply.open();
      this.#goOn(this.#reply);
    } catch (error) {
      this.#tell.error(error);
    }
  }

  #goOn(reply: Reply): void {
    try {
      reply.next();
    } catch (error) {
      this.#tell.error(error);
    }
  }

  #close(): void {
    this.#isOver = true;
    const reply = this.#reply;
    this.#reply = undefined;
    reply?.close();
  }

  #done(): Result {
    this.over();
    return { done: true, value: undefined };
  }
}

/** Whom a reply tells what comes next, once for each time that it is asked: at once or later. */
interface Tell {
  readonly event: (event: GenerateEvent) => void;
  readonly error: (reason: unknown) => void;
}

/** A turn that has its session: reads the prompt, then says a token at a time. */
class Reply {
  readonly #work: TurnWork;
  readonly #place: TurnPlace;
  readonly #tell: Tell;
  readonly #start = performance.now();
  #prefilled = this.#start;
  readonly #cachedTokens: number;
  /** Tokens that it may have. */
  readonly #limit: number;
  readonly #history: History;
  readonly #rules: Rules | undefined;
  readonly #logprobs: LogprobReader | undefined;
  readonly #stopIds: ReadonlySet<number>;
  readonly #text: TurnText;
  #reason: FinishReason | undefined;
  /** Tokens that have been chosen, and not told yet. */
  readonly #chosen: Chosen[] = [];
  #told = 0;
  #isStop = false;
  /** Guesses of the step under way, or of the last. */
  #drafts: readonly number[] = NO_DRAFTS;
  /** Copies of the last step's rows of logits that the caller has not been asked about. */
  readonly #rows: Float32Array[] = [];
  #isAsked = false;
  #beam: typeof import("./beam.ts") | undefined;
  /** What a search by beams tells, once the prompt has been read. */
  #search: AsyncGenerator<GenerateEvent, undefined> | undefined;
  #beams: BeamSearch | undefined;
  /** Ids of a step behind the prompt. */
  readonly #ids: number[] = [];
  readonly #job: { -readonly [K in keyof Job]: Job[K] };
  readonly #waiting: Waiting;

  constructor(work: TurnWork, place: TurnPlace, tell: Tell) {
    const { scheduler, request, table } = work;
    const { session, isCancelled } = place;
    this.#work = work;
    this.#place = place;
    this.#tell = tell;
    const promptTokens = request.ids.length;
    // the last token of a full context needs no place of its own: it is not fed any more
    this.#limit = Math.min(request.maxTokens, scheduler.model.options.maxContextTokens - promptTokens + 1);
    this.#history = new History(request.ids);
    this.#rules = rulesOf(request.processing ?? {}, this.#history, {
      endIds: request.endIds ?? request.stopIds,
      maxLength: promptTokens + this.#limit,
    });
    this.#logprobs = request.topLogprobs === undefined ? undefined : new LogprobReader(request.topLogprobs);
    this.#stopIds = new Set(request.stopIds);
    this.#text = TurnText.of(table, request.stop);
    this.#cachedTokens = session.keep(request.ids);
    const asksForAll = request.beams || request.asksForLogits || this.#rules || this.#logprobs;
    const largest = asksForAll ? 0 : largestWanted(request.sampling, scheduler.model.mostLargest);
    this.#job = { session, ids: this.#ids, drafted: 0, largest, onLogits: this.#onLogits, isCancelled };
    this.#waiting = scheduler.waiting(this.#job, this.#onStep);
  }

  /** Fetches what only some replies need. @throws InputError when the model cannot do what is asked */
  async open(): Promise<void> {
    const { scheduler, request } = this.#work;
    if (!request.beams) return;
    this.#beam = await part("beam", () => import("./beam.ts"));
    this.#beam.checkBeams(request.beams, scheduler.model);
  }

  /**
   * Has the next event told: of the prompt until that is read; then of the search, where beams are searched; else the next token that has been chosen, or the logits that
   * the caller is to see before, or what a step gives; and why it is over. @throws AbortError when the engine has gone
   */
  next(): void {
    if (this.#place.session.tokens.length < this.#work.request.ids.length) void this.#prefill();
    else if (this.#search) void this.#goOnSearching(this.#search);
    else {
      if (this.#isAsked) this.#takeAnswer();
      this.#reason ??= this.#whyOver();
      const isReady = this.#reason !== undefined || this.#chosen.length > 0 || this.#rows.length > 0;
      if (isReady) {
        this.#reason ??= this.#place.isCancelled();
        this.#tellNext();
      } else this.#decode(); // which asks whether it is cancelled
    }
  }

  /** Why nothing comes behind the last token that was told. */
  #whyOver(): FinishReason | undefined {
    if (this.#told === 0) return undefined;
    if (this.#isStop || this.#text.isStopped) return "stop";
    return this.#told >= this.#limit ? "length" : undefined;
  }

  /** Gives back what the turn had: of its session, too, what nobody has been told. */
  close(): void {
    const { speculation, end } = this.#place;
    this.#beams?.close();
    try {
      this.#trim();
      speculation?.end();
    } finally {
      end();
    }
  }

  /** The last token is never fed, and what nobody was told has not been said. */
  #trim(): void {
    const { session } = this.#place;
    const isWhole = this.#reason === "stop" || this.#reason === "length";
    const most = this.#work.request.ids.length + this.#told - (isWhole ? 1 : 0);
    if (this.#told > 0 && session.tokens.length > most) session.rewind(most);
  }

  /** Reads as much of the prompt as has room in a step. */
  async #prefill(): Promise<void> {
    const { session, isCancelled } = this.#place;
    const { ids } = this.#work.request;
    try {
      const rest = ids.subarray(session.cache.statePosition); // after a rewind that is before the kept tokens' end: those replay
      const { largest = 0, onLogits } = this.#job;
      this.#reason = await this.#work.scheduler.step({ session, ids: rest, largest, onLogits, isCancelled });
      if (this.#reason) {
        this.#tellNext();
        return;
      }
      this.#prefilled = performance.now();
      this.#tell.event({
        type: "prefill",
        processedTokens: session.tokens.length,
        totalTokens: ids.length,
        cachedTokens: this.#cachedTokens,
      });
    } catch (error) {
      this.#tell.error(error);
    }
  }

  /** A step behind the prompt: the last token, and guesses at what follows it. */
  #decode(): void {
    const drafts = this.#place.speculation?.draft(this.#history, this.#limit - this.#told - 1) ?? NO_DRAFTS;
    if (drafts instanceof Promise) drafts.then(this.#compute).catch(this.#tell.error);
    else this.#compute(drafts);
  }

  readonly #compute = (drafts: readonly number[]): void => {
    const ids = this.#ids;
    const all = this.#history.ids;
    ids.length = 0;
    for (let i = this.#place.session.cache.statePosition; i < all.length; i++) ids.push(all[i]!);
    for (const id of drafts) ids.push(id);
    this.#drafts = drafts;
    this.#job.drafted = drafts.length;
    this.#work.scheduler.enter(this.#waiting);
  };

  readonly #onStep = (outcome: Outcome): void => {
    try {
      if ("error" in outcome) throw outcome.error;
      this.#reason = outcome.reason;
      this.#tellNext();
    } catch (error) {
      this.#tell.error(error);
    }
  };

  /** Tells what is there to be told. */
  #tellNext(): void {
    const next = this.#reason === undefined ? this.#chosen.shift() : undefined;
    if (next) this.#tell.event(this.#token(next));
    else this.#tell.event(this.#reason === undefined && this.#rows.length > 0 ? this.#ask() : this.#finish());
  }

  #token({ id, logprob }: Chosen): GenerateEvent {
    this.#told++;
    this.#isStop = this.#stopIds.has(id);
    const text = this.#isStop ? "" : this.#text.push(id);
    return logprob ? { type: "token", id, text, logprob } : { type: "token", id, text };
  }

  #finish(sequences?: readonly BeamSequence[]): GenerateEvent {
    const { speculation } = this.#place;
    this.#trim();
    const [start, prefilled] = [this.#start, this.#prefilled];
    const timings: Timings = { prefillMs: prefilled - start, decodeMs: performance.now() - prefilled, firstTokenMs: prefilled - start };
    return {
      type: "finish",
      reason: this.#reason ?? "length",
      text: this.#text.end(),
      timings,
      ...(speculation && { speculation: speculation.counts }),
      ...(sequences && { sequences: sequences.map((sequence) => this.#withText(sequence)) }),
    };
  }

  /** Chooses tokens in the step that computed their logits: as many as there are guesses that were right, and one more. */
  readonly #onLogits = (first: number, drafted: number, areLargest: boolean): void => {
    const { model } = this.#work.scheduler;
    const { request } = this.#work;
    if (drafted < this.#drafts.length) this.#drafts = this.#drafts.slice(0, drafted);
    if (request.beams) {
      this.#search = this.#searching(model.logits(first).copy(), request.beams);
    } else if (request.asksForLogits) {
      for (let i = 0; i <= drafted; i++) this.#rows.push(model.logits(first + i).copy()); // while the caller looks at one, another step may overwrite the others
    } else {
      for (let i = 0, goesOn = true; goesOn; i++) goesOn = this.#take(this.#pick(first + i, areLargest), i);
    }
  };

  #pick(row: number, areLargest: boolean): number {
    const { model } = this.#work.scheduler;
    const id = areLargest ? pickLargest(model, row, this.#work.request.sampling, this.#history.ids.length) : undefined;
    if (id !== undefined) return id;
    const logits = model.logits(row);
    this.#prepare(logits);
    return this.#choose(logits);
  }

  #prepare(logits: Logits): void {
    this.#logprobs?.read(logits);
    process(logits, this.#work.request.sampling, this.#history, this.#rules);
  }

  #choose(logits: Logits): number {
    const { sampling, asksForLogits } = this.#work.request;
    return pickToken(logits, sampling, this.#history.ids.length, asksForLogits === "to-change" || this.#rules !== undefined);
  }

  /** Takes the next token. @returns whether there is more to choose: guess number `i` is it, and ends nothing. Otherwise the guesses that were wrong are let go */
  #take(id: number, i: number): boolean {
    const { session, speculation } = this.#place;
    const history = this.#history;
    history.push(id);
    this.#chosen.push(this.#logprobs ? { id, logprob: this.#logprobs.of(id) } : { id });
    if (!speculation) return false;
    const isRight = id === this.#drafts[i];
    if (isRight && !this.#stopIds.has(id)) return true;
    speculation.count(this.#drafts.length, isRight ? i + 1 : i);
    this.#rows.length = 0;
    if (session.tokens.length >= history.ids.length) session.rewind(history.ids.length - 1); // it holds all but the last token that was chosen
    return false;
  }

  /** Asks the caller about the next row of logits. */
  #ask(): GenerateEvent {
    const logits = this.#work.scheduler.model.logits(); // any row will do: what stood there has been used
    logits.replace(this.#rows.shift());
    this.#prepare(logits);
    this.#isAsked = true;
    return { type: "logits", logits: logits.copy() };
  }

  /** Chooses by what the caller has made of the logits. @throws InputError when that is nothing, AbortError */
  #takeAnswer(): void {
    this.#isAsked = false;
    this.#place.isCancelled(); // throws where the engine has gone meanwhile
    const logits = this.#work.scheduler.model.logits();
    logits.replace(this.#work.takeSupplied());
    this.#take(this.#choose(logits), this.#drafts.length - this.#rows.length);
  }

  async #goOnSearching(events: AsyncGenerator<GenerateEvent, undefined>): Promise<void> {
    try {
      const { value } = await events.next();
      this.#tell.event(value ?? this.#finish());
    } catch (error) {
      this.#tell.error(error);
    }
  }

  async *#searching(first: Float32Array, beams: BeamRequest): AsyncGenerator<GenerateEvent, undefined> {
    const { scheduler, request, takeSupplied } = this.#work;
    const { session, isCancelled } = this.#place;
    const text = request.stop.length > 0 ? this.#text.fork() : undefined;
    const limit = this.#limit;
    const search = new this.#beam!.BeamSearch({ model: scheduler.model, session, request, beams, limit, takeSupplied, first, text });
    this.#beams = search;
    this.#reason = yield* search.run(isCancelled);
    const { ids = [], logprobs } = search.best[0] ?? {};
    for (const [i, id] of ids.entries()) yield this.#token({ id, logprob: logprobs?.[i] });
    yield this.#finish(search.best);
  }

  #withText({ isStop: _, ...sequence }: BeamSequence): Omit<BeamSequence, "isStop"> & { readonly text: string } {
    const text = TurnText.of(this.#work.table, this.#work.request.stop);
    const shown = sequence.ids.filter((id) => !this.#stopIds.has(id)).map((id) => text.push(id));
    return { ...sequence, text: shown.join("") + text.end() };
  }
}
