// The generation loop: brings a session to the prompt, then samples token after token. Sees a model only as LanguageModel; each resumption computes one step.
import { InputError } from "../errors.ts";
import { nextMacrotask } from "../macrotask.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { type ByteTable, tokensOfTable } from "../text/byte-level.ts";
import { StreamDecoder } from "../text/stream-decoder.ts";
import { BeamSearch, type BeamSequence, checkBeams } from "./beam.ts";
import type { CancelCheck, FinishReason, GenerateEvent, GenerateRequest, Timings } from "./engine.ts";
import { History } from "./history.ts";
import { LogprobReader } from "./logprobs.ts";
import { rulesOf } from "./processors.ts";
import { pickToken, process } from "./sampler.ts";
import type { Session } from "./session.ts";
import { StopFinder } from "./stop.ts";

/** Throws unless `ids` and one token more fit the context. */
function checkPrompt(model: LanguageModel, ids: ArrayLike<number>): void {
  const { maxContextTokens } = model.options;
  if (ids.length === 0)
    throw new InputError("prompt: expected one token at least, got none. Pass a text or messages.", { code: "empty-prompt" });
  if (ids.length <= maxContextTokens) return;
  throw new InputError(
    `context: expected a prompt of at most ${maxContextTokens} tokens, got ${ids.length}. Shorten it, or load the model with a larger maxContextTokens.`,
    {
      code: "context-full",
    },
  );
}

/** Gives `ids`, from the position where the session's rows begin, to a step; leaves the logits of the last one when `wantsLogits`. */
function step(model: LanguageModel, session: Session, ids: ArrayLike<number>, wantsLogits: boolean): void {
  const { cache } = session;
  const from = cache.statePosition;
  try {
    model.step([{ cache, ids }], { logitsOf: wantsLogits ? [ids.length - 1] : [] });
  } finally {
    session.follow(from, ids);
  }
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

/**
 * Runs one turn. Steps of other sessions may come between two of its own, so a token is sampled in the same breath as its logits are computed.
 * @param table bytes of the tokens, undefined for a model without tokenizer: its tokens have no text
 * @param takeSupplied gives the logits that the caller put in the place of those it was shown
 */
export async function* generate(
  model: LanguageModel,
  session: Session,
  request: GenerateRequest,
  table: ByteTable | undefined,
  isCancelled: CancelCheck,
  takeSupplied: () => Float32Array | undefined,
): AsyncGenerator<GenerateEvent> {
  const start = performance.now();
  const { ids, sampling } = request;
  checkPrompt(model, ids);
  if (request.beams) checkBeams(request.beams, model, request);
  const { maxContextTokens, chunkTokens } = model.options;
  // the last token of a full context needs no place of its own: it is not fed any more
  const limit = Math.min(request.maxTokens, maxContextTokens - ids.length + 1);
  const history = new History(ids);
  const rules = rulesOf(request.processing ?? {}, history, {
    endIds: request.endIds ?? request.stopIds,
    maxLength: ids.length + limit,
  });
  const reader = request.topLogprobs === undefined ? undefined : new LogprobReader(request.topLogprobs);
  /** The token that follows what the model was fed last. Between its two halves the caller may change the logits. */
  async function* next(): AsyncGenerator<GenerateEvent, number> {
    const logits = model.logits();
    reader?.read(logits);
    process(logits, sampling, history, rules);
    if (request.asksForLogits) {
      yield { type: "logits", logits: logits.copy() };
      isCancelled(); // throws where the engine has gone meanwhile
      logits.replace(takeSupplied());
    }
    return pickToken(logits, sampling, session.tokens.length);
  }

  const cachedTokens = session.keep(ids);
  let reason: FinishReason | undefined;
  let id = -1;
  let search: BeamSearch | undefined;
  let prefilled = start;
  while (session.tokens.length < ids.length) {
    reason = isCancelled();
    if (reason) break;
    const at = session.cache.statePosition; // after a rewind before the kept tokens' end: those rows replay
    const end = Math.min(ids.length, at + chunkTokens);
    step(model, session, ids.subarray(at, end), end === ids.length);
    if (end === ids.length && request.beams) search = new BeamSearch(model, session, request, request.beams, limit, takeSupplied);
    else if (end === ids.length) id = yield* next();
    prefilled = performance.now();
    yield { type: "prefill", processedTokens: session.tokens.length, totalTokens: ids.length, cachedTokens };
    await nextMacrotask();
  }

  const text = new TurnText(table, request.stop);
  const textOf = (sequence: BeamSequence): BeamSequence & { readonly text: string } => {
    const own = new TurnText(table, []);
    const shown = sequence.ids.filter((id) => !request.stopIds.includes(id)).map((id) => own.push(id));
    return { ...sequence, text: shown.join("") + own.end() };
  };
  if (search && reason === undefined) {
    reason = yield* search.run(isCancelled);
    for (const id of search.best[0]?.ids ?? []) yield { type: "token", id, text: request.stopIds.includes(id) ? "" : text.push(id) };
  }
  const stopIds = new Set(request.stopIds);
  for (let n = 1; reason === undefined; n++) {
    reason = isCancelled();
    if (reason) break;
    history.push(id);
    const isStop = stopIds.has(id);
    yield { type: "token", id, text: isStop ? "" : text.push(id), ...(reader && { logprob: reader.of(id) }) };
    if (isStop || text.isStopped) reason = "stop";
    else if (n >= limit) reason = "length";
    else {
      await nextMacrotask();
      if (isCancelled()) continue;
      step(model, session, [id], true);
      id = yield* next();
    }
  }
  const timings: Timings = { prefillMs: prefilled - start, decodeMs: performance.now() - prefilled, firstTokenMs: prefilled - start };
  yield { type: "finish", reason: reason ?? "length", text: text.end(), timings, ...(search && { sequences: search.best.map(textOf) }) };
}
