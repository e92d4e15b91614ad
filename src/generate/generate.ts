// The generation loop: brings a session to the prompt, then samples token after token. Sees a model only as LanguageModel; each resumption computes one step.
import { InputError } from "../errors.ts";
import type { Logits } from "../kernels/logits.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { type ByteTable, tokensOfTable } from "../text/byte-level.ts";
import { StreamDecoder } from "../text/stream-decoder.ts";
import { BeamSearch, type BeamSequence, checkBeams } from "./beam.ts";
import type { CancelCheck, FinishReason, GenerateEvent, GenerateRequest, Timings } from "./engine.ts";
import { History } from "./history.ts";
import { LogprobReader } from "./logprobs.ts";
import { rulesOf } from "./processors.ts";
import { pickToken, process } from "./sampler.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Session } from "./session.ts";
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
 * Runs one turn. Its steps are shared with other turns that want one at the same time, so a token is sampled in the same breath as its logits are computed.
 * @param request whose ids `checkPrompt` has seen
 * @param table bytes of the tokens, undefined for a model without tokenizer: its tokens have no text
 * @param takeSupplied gives the logits that the caller put in the place of those it was shown
 */
export async function* generate(
  scheduler: Scheduler,
  session: Session,
  request: GenerateRequest,
  table: ByteTable | undefined,
  isCancelled: CancelCheck,
  takeSupplied: () => Float32Array | undefined,
): AsyncGenerator<GenerateEvent> {
  const start = performance.now();
  const { ids, sampling } = request;
  if (request.beams) checkBeams(request.beams, scheduler.model, request);
  const { maxContextTokens } = scheduler.model.options;
  // the last token of a full context needs no place of its own: it is not fed any more
  const limit = Math.min(request.maxTokens, maxContextTokens - ids.length + 1);
  const history = new History(ids);
  const rules = rulesOf(request.processing ?? {}, history, {
    endIds: request.endIds ?? request.stopIds,
    maxLength: ids.length + limit,
  });
  const reader = request.topLogprobs === undefined ? undefined : new LogprobReader(request.topLogprobs);
  let id = -1;
  let shown: Float32Array | undefined;
  let search: BeamSearch | undefined;
  const onLogits = (logits: Logits): void => {
    if (request.beams) {
      search = new BeamSearch(scheduler.model, session, request, request.beams, limit, takeSupplied, logits.copy());
      return;
    }
    reader?.read(logits);
    process(logits, sampling, history, rules);
    if (request.asksForLogits) shown = logits.copy();
    else id = pickToken(logits, sampling, session.tokens.length);
  };
  /** Computes ids, and behind the last one chooses what follows. @returns why the turn ends instead, if it does */
  async function* compute(next: ArrayLike<number>): AsyncGenerator<GenerateEvent, FinishReason | undefined> {
    const reason = await scheduler.step({ session, ids: next, onLogits, isCancelled });
    if (!shown) return reason;
    yield { type: "logits", logits: shown };
    isCancelled(); // throws where the engine has gone meanwhile
    const logits = scheduler.model.logits(); // any row will do: what stood there has been used
    logits.replace(takeSupplied());
    id = pickToken(logits, sampling, session.tokens.length);
    shown = undefined;
    return reason;
  }

  const cachedTokens = session.keep(ids);
  let reason: FinishReason | undefined;
  let prefilled = start;
  while (session.tokens.length < ids.length) {
    reason = yield* compute(ids.subarray(session.cache.statePosition)); // after a rewind that is before the kept tokens' end: those replay
    if (reason) break;
    prefilled = performance.now();
    yield { type: "prefill", processedTokens: session.tokens.length, totalTokens: ids.length, cachedTokens };
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
    else reason = yield* compute([id]);
  }
  const timings: Timings = { prefillMs: prefilled - start, decodeMs: performance.now() - prefilled, firstTokenMs: prefilled - start };
  yield { type: "finish", reason: reason ?? "length", text: text.end(), timings, ...(search && { sequences: search.best.map(textOf) }) };
}
