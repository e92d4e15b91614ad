// The generation loop: brings a session to the prompt, then samples token after token. Sees a model only as LanguageModel; each resumption computes one step.

import { InputError } from "../errors.ts";
import type { Logits } from "../kernels/logits.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { part } from "../part.ts";
import { InOrder } from "../relay.ts";
import { type ByteTable, tokensOfTable } from "../text/byte-level.ts";
import { StreamDecoder } from "../text/stream-decoder.ts";
import type { BeamSearch, BeamSequence } from "./beam.ts";
import type { CancelCheck, FinishReason, GenerateEvent, GenerateRequest, Timings } from "./engine.ts";
import { History } from "./history.ts";
import { LogprobReader, type TokenLogprob } from "./logprobs.ts";
import { rulesOf } from "./processors.ts";
import { pickToken, process } from "./sampler.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Session } from "./session.ts";
import type { Speculation } from "./speculation.ts";
import { StopFinder } from "./stop.ts";

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

/** A token that has been chosen, and not told yet. */
interface Chosen {
  readonly id: number;
  readonly logprob?: TokenLogprob;
}

/** Text of a turn: bytes to characters, characters to what no stop string claims. */
class TurnText {
  readonly #decoder: StreamDecoder | undefined;
  readonly #finder: StopFinder;

  constructor(table: ByteTable | undefined, stop: readonly string[]) {
    this.#decoder = table && new StreamDecoder(tokensOfTable(table));
    this.#finder = new StopFinder(stop);
  }

  push(id: number): string {
    return this.#finder.push(this.#decoder?.push(id) ?? "");
  }

  /** What was held back, unless a stop string was found. */
  end(): string {
    const text = this.#finder.push(this.#decoder?.flush() ?? "");
    return text + this.#finder.flush();
  }

  get isStopped(): boolean {
    return this.#finder.hit !== undefined;
  }
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

/** How the next token of a turn comes where nothing is to be done but one step: without the generator, which stands at its last `yield` meanwhile. */
interface Lane {
  /** A token that has been chosen already: guesses that were right come several at a time. */
  chosen: (() => GenerateEvent | undefined) | undefined;
  /** Enters the step. @returns false where the generator has to go on */
  enter: (() => boolean) | undefined;
  /** Called when it has ended. */
  onEnd: (event: GenerateEvent | undefined, error?: { readonly reason: unknown }) => void;
}

type Result = IteratorResult<GenerateEvent, undefined>;

/**
 * The events of a turn. Most are a token of a reply under way: a generator would be a function to resume, a request in its queue and two promises more for each,
 * and so would be every generator around it; between two steps of a large model the caches hold its weights, and all of that is waited for.
 */
class Events extends InOrder implements AsyncIterableIterator<GenerateEvent, undefined> {
  readonly #others: AsyncGenerator<GenerateEvent, undefined>;
  readonly #lane: Lane;
  /** Tells the token under way to who waits for it. */
  #resolve: (result: Result | Promise<Result>) => void = () => {};
  readonly #executor = (resolve: (result: Result | Promise<Result>) => void): void => {
    this.#resolve = resolve;
  };
  readonly #step = (): Promise<Result> => {
    const value = this.#lane.chosen?.();
    if (value) {
      this.over();
      return Promise.resolve({ done: false, value });
    }
    return this.#lane.enter?.() ? new Promise(this.#executor) : this.ends(this.#others.next());
  };

  constructor(others: AsyncGenerator<GenerateEvent, undefined>, lane: Lane) {
    super();
    this.#others = others;
    this.#lane = lane;
    lane.onEnd = (value, error) => {
      if (!value) return this.#resolve(this.ends(error ? others.throw(error.reason) : others.next()));
      this.over();
      this.#resolve({ done: false, value });
    };
  }

  next(): Promise<Result> {
    return this.call(this.#step);
  }

  return(): Promise<Result> {
    return this.call(() => this.ends(this.#others.return(undefined)));
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
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

/** Runs one turn. Its steps are shared with other turns that want one at the same time, so a token is sampled in the same breath as its logits are computed. */
export function generate(work: TurnWork): AsyncIterableIterator<GenerateEvent, undefined> {
  const lane: Lane = { chosen: undefined, enter: undefined, onEnd: () => {} };
  return new Events(run(lane, work), lane);
}

async function* run(lane: Lane, { scheduler, begin, request, table, takeSupplied }: TurnWork): AsyncGenerator<GenerateEvent, undefined> {
  const { session, isCancelled, speculation, end } = await begin();
  let trim = (): void => {};
  try {
    const start = performance.now();
    const { ids, sampling } = request;
    const beam = request.beams && (await part("beam", () => import("./beam.ts")));
    if (request.beams) beam?.checkBeams(request.beams, scheduler.model, request);
    const { maxContextTokens } = scheduler.model.options;
    // the last token of a full context needs no place of its own: it is not fed any more
    const limit = Math.min(request.maxTokens, maxContextTokens - ids.length + 1);
    const history = new History(ids);
    const rules = rulesOf(request.processing ?? {}, history, {
      endIds: request.endIds ?? request.stopIds,
      maxLength: ids.length + limit,
    });
    const reader = request.topLogprobs === undefined ? undefined : new LogprobReader(request.topLogprobs);
    const stopIds = new Set(request.stopIds);
    const chosen: Chosen[] = [];
    let told = 0;
    let search: BeamSearch | undefined;
    /** Guesses of the last step, and copies of its rows of logits that the caller has not been asked about. */
    let drafts: readonly number[] = [];
    let rows: Float32Array[] = [];
    const prepare = (logits: Logits): void => {
      reader?.read(logits);
      process(logits, sampling, history, rules);
    };
    /** Chooses the next token. @returns whether there is more to choose: guess number `i` is it, and ends nothing */
    const choose = (logits: Logits, i: number): boolean => {
      const id = pickToken(logits, sampling, history.ids.length);
      history.push(id);
      chosen.push(reader ? { id, logprob: reader.of(id) } : { id });
      const isRight = id === drafts[i];
      if (isRight && !stopIds.has(id)) return true;
      speculation?.count(drafts.length, isRight ? i + 1 : i);
      return false;
    };
    /** Lets guesses go that were wrong: the session holds all but the last token that was chosen. */
    const settle = (): void => {
      if (rows.length > 0) rows = [];
      if (session.tokens.length >= history.ids.length) session.rewind(history.ids.length - 1);
    };
    const onLogits = (first: number, drafted: number): void => {
      if (drafted < drafts.length) drafts = drafts.slice(0, drafted);
      const { model } = scheduler;
      if (request.beams && beam) {
        search = new beam.BeamSearch(scheduler.model, session, request, request.beams, limit, takeSupplied, model.logits(first).copy());
      } else if (request.asksForLogits) {
        for (let i = 0; i <= drafted; i++) rows.push(model.logits(first + i).copy()); // while the caller looks at one, another step may overwrite the others
      } else {
        for (let i = 0, goesOn = true; goesOn; i++) {
          const logits = model.logits(first + i);
          prepare(logits);
          goesOn = choose(logits, i);
        }
        settle();
      }
    };
    /** Computes ids, the last `drafts.length` of them guesses. @returns why the turn ends instead, if it does */
    const compute = (next: ArrayLike<number>): Promise<FinishReason | undefined> =>
      scheduler.step({ session, ids: next, drafted: drafts.length, onLogits, isCancelled });
    /** Asks the caller about the next row of logits, and chooses a token. */
    async function* ask(): AsyncGenerator<GenerateEvent> {
      const [row] = rows.splice(0, 1);
      const logits = scheduler.model.logits(); // any row will do: what stood there has been used
      logits.replace(row);
      prepare(logits);
      yield { type: "logits", logits: logits.copy() };
      isCancelled(); // throws where the engine has gone meanwhile
      const changed = scheduler.model.logits();
      changed.replace(takeSupplied());
      if (!choose(changed, drafts.length - rows.length)) settle();
    }

    let reason: FinishReason | undefined;
    /** The last token is never fed, and what nobody was told has not been said. */
    trim = (): void => {
      const most = ids.length + told - (reason === "stop" || reason === "length" ? 1 : 0);
      if (told > 0 && session.tokens.length > most) session.rewind(most);
    };
    const cachedTokens = session.keep(ids);
    let prefilled = start;
    while (session.tokens.length < ids.length) {
      reason = await compute(ids.subarray(session.cache.statePosition)); // after a rewind that is before the kept tokens' end: those replay
      if (rows.length > 0) yield* ask();
      if (reason) break;
      prefilled = performance.now();
      yield { type: "prefill", processedTokens: session.tokens.length, totalTokens: ids.length, cachedTokens };
    }

    const text = new TurnText(table, request.stop);
    const textOf = (sequence: BeamSequence): BeamSequence & { readonly text: string } => {
      const own = new TurnText(table, []);
      const shown = sequence.ids.filter((id) => !stopIds.has(id)).map((id) => own.push(id));
      return { ...sequence, text: shown.join("") + own.end() };
    };
    if (search && reason === undefined) {
      reason = yield* search.run(isCancelled);
      for (const id of search.best[0]?.ids ?? []) yield { type: "token", id, text: stopIds.has(id) ? "" : text.push(id) };
    }
    let isStop = false;
    const tell = (id: number): GenerateEvent => {
      told++;
      isStop = stopIds.has(id);
      return { type: "token", id, text: isStop ? "" : text.push(id) };
    };
    /** Guesses that take time, as a draft model's do. */
    let drafting: Promise<readonly number[]> | undefined;
    if (!reader && !request.asksForLogits && !request.beams) {
      const next = [0];
      const isOver = (): boolean => isStop || text.isStopped || told >= limit || told === 0;
      let event: GenerateEvent | undefined;
      const onToken = (first: number, drafted: number): void => {
        if (speculation) {
          onLogits(first, drafted);
          event = tell(chosen.shift()!.id);
          return;
        }
        const logits = scheduler.model.logits(first);
        process(logits, sampling, history, rules);
        const id = pickToken(logits, sampling, history.ids.length);
        history.push(id);
        event = tell(id);
      };
      const job = { session, ids: next, drafted: 0, onLogits: onToken, isCancelled };
      const waiting = scheduler.waiting(job, (outcome) => {
        if ("error" in outcome) lane.onEnd(undefined, { reason: outcome.error });
        else {
          reason = outcome.reason;
          lane.onEnd(reason ? undefined : event);
        }
      });
      lane.enter = () => {
        const last = history.ids.length - 1;
        if (isOver() || chosen.length > 0 || session.cache.statePosition !== last) return false;
        next.length = 1;
        next[0] = history.ids[last]!;
        if (speculation) {
          const drafted = speculation.draft(history, limit - told - 1);
          if (drafted instanceof Promise) {
            drafting = drafted;
            return false;
          }
          drafts = drafted;
          job.drafted = drafts.length;
          for (const id of drafts) next.push(id);
        }
        scheduler.enter(waiting);
        return true;
      };
      if (speculation)
        lane.chosen = () => {
          if (chosen.length === 0 || isOver()) return undefined;
          try {
            if (isCancelled()) return undefined;
          } catch {
            return undefined; // the generator is told too
          }
          return tell(chosen.shift()!.id);
        };
    }
    while (reason === undefined) {
      reason = isCancelled();
      const next = chosen.shift();
      if (reason || !next) break;
      const event = tell(next.id);
      yield next.logprob ? ({ ...event, logprob: next.logprob } as GenerateEvent) : event;
      if (reason) break; // the lane's step was not computed
      if (isStop || text.isStopped) reason = "stop";
      else if (told >= limit) reason = "length";
      else if (chosen.length === 0) {
        if (rows.length === 0) {
          const ids = history.ids.slice(session.cache.statePosition);
          if (speculation) {
            const drafted = drafting ?? speculation.draft(history, limit - told - 1);
            drafting = undefined;
            drafts = drafted instanceof Promise ? await drafted : drafted;
          }
          reason = await compute(drafts.length > 0 ? ids.concat(drafts) : ids);
        }
        if (rows.length > 0) yield* ask();
      }
    }
    trim();
    const timings: Timings = { prefillMs: prefilled - start, decodeMs: performance.now() - prefilled, firstTokenMs: prefilled - start };
    yield {
      type: "finish",
      reason: reason ?? "length",
      text: text.end(),
      timings,
      ...(speculation && { speculation: speculation.counts }),
      ...(search && { sequences: search.best.map(textOf) }),
    };
  } finally {
    lane.enter = undefined;
    lane.chosen = undefined;
    try {
      trim();
      speculation?.end();
    } finally {
      end();
    }
  }
}
