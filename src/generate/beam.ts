// Beam search: several sequences at once, forks of one session, all of whose next tokens are computed in one step. The reference's algorithm, vectorised there.
import { InputError } from "../errors.ts";
import type { Logits } from "../kernels/logits.ts";
import { nextMacrotask } from "../macrotask.ts";
import { exp, power } from "../math.ts";
import type { LanguageModel } from "../models/language-model.ts";
import type { BeamRequest, CancelCheck, FinishReason, GenerateEvent, GenerateRequest } from "./engine.ts";
import { History } from "./history.ts";
import { LogprobReader, logSum, type TokenLogprob } from "./logprobs.ts";
import { random } from "./philox.ts";
import { rulesOf } from "./processors.ts";
import { cut, noneLeft, process } from "./sampler.ts";
import type { Session } from "./session.ts";
import type { TurnText } from "./turn-text.ts";

/** A sequence that has ended, with its score: Σ ln p / tokens^lengthPenalty, the end token among them. */
export interface BeamSequence {
  /** New ids, the end token included. */
  readonly ids: readonly number[];
  readonly score: number;
  /** With `topLogprobs`, one a token. */
  readonly logprobs: readonly TokenLogprob[] | undefined;
  /** Whether an end token, a stop string or the caller ended it, and not its length. */
  readonly isStop: boolean;
}

/** A sequence that goes on. */
interface Beam {
  readonly session: Session;
  readonly history: History;
  /** Σ ln p of its tokens, after the rules. */
  readonly total: number;
  /** With stop strings: its new text, which none has ended. */
  readonly text: TurnText | undefined;
  /** With `topLogprobs`, of its new tokens. */
  readonly logprobs: readonly TokenLogprob[] | undefined;
}

/** A beam and a token that could follow it. */
interface Continuation {
  readonly beam: Beam;
  readonly id: number;
  readonly total: number;
  readonly text: TurnText | undefined;
  readonly logprob: TokenLogprob | undefined;
  /** Whether it ends here, but for its length. */
  isStop: boolean;
}

/** @throws InputError for more beams than the model computes at a time */
export function checkBeams({ count }: BeamRequest, model: LanguageModel): void {
  if (count > model.logitsRows)
    throw new InputError(`options: numBeams: expected at most ${model.logitsRows} for this model, got ${count}. Use fewer.`);
}

/** Smaller weights are no normal doubles. */
const LEAST_EXPONENT = -690;

/** Draws `count` of `all` without putting any back, each by its share of what is left, e^total. */
function drawn<T extends { readonly total: number }>(all: readonly T[], count: number, uniform: (draw: number) => number): T[] {
  const top = all.reduce((most, { total }) => Math.max(most, total), Number.NEGATIVE_INFINITY);
  const weights = Float64Array.from(all, ({ total }) => exp(Math.max(LEAST_EXPONENT, total - top)));
  const out: T[] = [];
  for (let draw = 0; draw < Math.min(count, all.length); draw++) {
    const mass = uniform(draw) * weights.reduce((a, b) => a + b, 0);
    let chosen = -1;
    let sum = 0;
    for (let i = 0; i < weights.length && !(chosen >= 0 && sum > mass); i++) {
      if (weights[i] === 0) continue; // it was drawn
      chosen = i;
      sum += weights[i]!;
    }
    out.push(all[chosen]!);
    weights[chosen] = 0;
  }
  return out;
}

/** What a search works with. */
export interface BeamWork {
  readonly model: LanguageModel;
  /** Holds the prompt; it stays as it is. */
  readonly session: Session;
  readonly request: GenerateRequest;
  readonly beams: BeamRequest;
  /** Tokens that a sequence may have. */
  readonly limit: number;
  /** Gives what the caller put in the place of what it was shown. */
  readonly takeSupplied: () => Float32Array | undefined;
  /** The prompt's last logits (V,). */
  readonly first: Float32Array;
  /** Of the reply, empty so far; undefined where no text ends it. */
  readonly text: TurnText | undefined;
}

/** One search. Its `best` stand when `run` has ended. */
export class BeamSearch {
  readonly #model: LanguageModel;
  readonly #request: GenerateRequest;
  readonly #beams: BeamRequest;
  readonly #limit: number;
  readonly #takeSupplied: () => Float32Array | undefined;
  readonly #session: Session;
  readonly #text: TurnText | undefined;
  readonly #logprobs: LogprobReader | undefined;
  /** The prompt's logits: other sessions may step before the search begins. */
  #first: Float32Array | undefined;
  #running: Beam[] = [];
  #finished: BeamSequence[] = [];
  #isOpen = true;
  #length: number;

  constructor({ model, session, request, beams, limit, takeSupplied, first, text }: BeamWork) {
    this.#model = model;
    this.#request = request;
    this.#beams = beams;
    this.#limit = request.ids.length + limit;
    this.#length = request.ids.length;
    this.#takeSupplied = takeSupplied;
    this.#session = session;
    this.#first = first;
    this.#text = text;
    this.#logprobs = request.topLogprobs === undefined ? undefined : new LogprobReader(request.topLogprobs);
  }

  /** Lets the running beams go, forks of the session: before anybody else has it. */
  close(): void {
    for (const { session } of this.#running) session.cache.dispose();
  }

  /** What was found, best first; where the search was cut short, its leading sequence. */
  get best(): readonly BeamSequence[] {
    if (this.#finished.length > 0) return this.#finished.slice(0, this.#beams.returned);
    return this.#running.slice(0, 1).map(({ history, total: score, logprobs }) => ({
      ids: history.ids.slice(history.promptTokens),
      score,
      isStop: false,
      logprobs,
    }));
  }

  /** Computes step after step. */
  async *run(isCancelled: CancelCheck): AsyncGenerator<GenerateEvent, FinishReason> {
    try {
      const [history, logprobs] = [new History(this.#request.ids), this.#logprobs && []];
      this.#running = [{ session: this.#session.fork(), history, total: 0, text: this.#text, logprobs }];
      for (;;) {
        const reason = isCancelled();
        if (reason) return reason;
        const top = yield* this.#continuations(isCancelled);
        if (this.#request.asksForEnds) {
          yield { type: "candidates", sequences: top.map(({ beam, id }) => Uint32Array.from([...beam.history.ids, id])) };
          isCancelled(); // throws where the engine has gone meanwhile
          this.#takeSupplied()?.forEach((isEnd, i) => {
            top[i]!.isStop ||= isEnd === 1;
          });
        }
        this.#advance(top);
        if (this.#running.length === 0 || this.#isDecided()) break;
        await nextMacrotask();
        if (isCancelled()) continue;
        this.#step();
      }
      return this.#finished[0]?.isStop ? "stop" : "length";
    } finally {
      this.close();
    }
  }

  /** The best continuations of all beams, or the ones that were drawn, in that order: enough that as many go on as there are beams, whatever ends. */
  async *#continuations(isCancelled: CancelCheck): AsyncGenerator<GenerateEvent, Continuation[]> {
    const { stopIds, asksForLogits, sampling } = this.#request;
    const { count, isSampled } = this.#beams;
    const wanted = Math.max(2, 1 + stopIds.length) * count;
    // while the caller looks at one row, another session's step may overwrite the others
    const copies = asksForLogits ? this.#running.map((_, i) => this.#model.logits(i).copy()) : [];
    const rows = this.#first ? [this.#first] : copies;
    this.#first = undefined;
    const all: Pick<Continuation, "beam" | "id" | "total" | "logprob">[] = [];
    for (const [i, beam] of this.#running.entries()) {
      const logits = this.#model.logits(rows[i] ? 0 : i);
      if (rows[i]) logits.replace(rows[i]);
      this.#logprobs?.read(logits);
      this.#score(logits, beam);
      if (asksForLogits) {
        yield { type: "logits", logits: logits.copy(), tokens: Uint32Array.from(beam.history.ids) };
        isCancelled(); // throws where the engine has gone meanwhile
        logits.replace(this.#takeSupplied());
      }
      const scores = logits.view();
      if (!(scores[logits.argmax()]! > Number.NEGATIVE_INFINITY)) continue; // the rules leave nothing
      const { ids } = isSampled ? cut(logits, sampling, stopIds.length + 1) : logits.topK(Math.min(wanted, logits.size));
      for (const id of ids)
        if (scores[id]! > Number.NEGATIVE_INFINITY)
          all.push({ beam, id, total: beam.total + scores[id]!, logprob: this.#logprobs?.of(id) });
    }
    if (all.length === 0 && this.#finished.length === 0) throw noneLeft();
    const top = isSampled
      ? drawn(all, wanted, (draw) => random(sampling.seed ?? 0, this.#length, draw))
      : all.sort((a, b) => b.total - a.total).slice(0, wanted); // stable: ties by beam, then as the kernel orders them, by id
    return top.map((c) => {
      const isEnd = stopIds.includes(c.id);
      const text = isEnd ? undefined : c.beam.text?.fork();
      text?.push(c.id);
      return { ...c, text, isStop: isEnd || !!text?.isStopped };
    });
  }

  /** Turns logits into log-probabilities, and applies the rules to these, as the reference does. */
  #score(logits: Logits, { history }: Beam): void {
    const sum = logSum(logits);
    const row = logits.view();
    for (let id = 0; id < row.length; id++) row[id] = row[id]! - sum;
    const rules = rulesOf(this.#request.processing ?? {}, history, {
      endIds: this.#request.endIds ?? this.#request.stopIds,
      maxLength: this.#limit,
    });
    process(logits, this.#request.sampling, history, rules);
  }

  /** Ends what ends, keeps the best of the rest running. */
  #advance(top: readonly Continuation[]): void {
    const { count, lengthPenalty, earlyStopping } = this.#beams;
    const { ids } = this.#request;
    this.#length++;
    const isEnd = (c: Continuation): boolean => c.isStop || this.#length === this.#limit;
    const tokens = this.#length - ids.length;
    if (this.#isOpen && !(this.#finished.length === count && earlyStopping === true)) {
      const ended = top.slice(0, count).filter(isEnd);
      const found = ended.map(({ beam, id, total, logprob, isStop }) => ({
        ids: [...beam.history.ids.slice(ids.length), id],
        score: total / power(tokens, lengthPenalty),
        isStop,
        logprobs: logprob && [...(beam.logprobs ?? []), logprob],
      }));
      this.#finished = [...this.#finished, ...found].sort((a, b) => b.score - a.score).slice(0, count);
    }
    const others = top.filter((c) => !isEnd(c)).sort((a, b) => b.total - a.total); // drawn ones come in another order
    this.#keep(others.slice(0, count));
  }

  /** Makes these the running beams: a parent's session goes to its first child, forks of it to the others. */
  #keep(next: readonly Continuation[]): void {
    const before = this.#running;
    const heirs = new Set<Beam>();
    const running: Beam[] = [];
    this.#running = running; // from here on `finally` finds every session that is open
    try {
      for (const { beam, id, total, text, logprob } of next) {
        const isFirst = !heirs.has(beam);
        heirs.add(beam);
        const history = isFirst && next.filter((c) => c.beam === beam).length === 1 ? beam.history : beam.history.fork();
        const session = isFirst ? beam.session : beam.session.fork();
        running.push({ session, history, total, text, logprobs: logprob && [...(beam.logprobs ?? []), logprob] });
        history.push(id);
      }
    } finally {
      for (const beam of before) if (!heirs.has(beam)) beam.session.cache.dispose();
    }
  }

  /** Whether no running beam can still beat the worst finished one. */
  #isDecided(): boolean {
    const { count, lengthPenalty, earlyStopping } = this.#beams;
    const { length: prompt } = this.#request.ids;
    const isFull = this.#finished.length === count;
    const longest = earlyStopping === "never" && lengthPenalty > 0 ? this.#limit - prompt : this.#length - prompt;
    const possible = this.#running[0]!.total / power(longest, lengthPenalty);
    const worst = isFull ? this.#finished[count - 1]!.score : Number.NEGATIVE_INFINITY;
    this.#isOpen &&= possible > worst;
    return !this.#isOpen || (earlyStopping === true && isFull);
  }

  /** Computes the logits of all running beams in one step. */
  #step(): void {
    const inputs = this.#running.map(({ session, history }) => ({ cache: session.cache, ids: history.ids.slice(-1) }));
    this.#model.step(inputs, { logitsOf: inputs.map((_, i) => i) });
    for (const [i, { session }] of this.#running.entries()) session.follow(session.tokens.length, inputs[i]!.ids);
  }
}
