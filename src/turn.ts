// A turn on the caller's side: options checked, ids sent, events folded into parts. Speaks to the engine only in plain data.
import { AbortError, InputError, throwIfAborted } from "./errors.ts";
import type { Engine, FinishReason, GenerateEvent, Timings } from "./generate/engine.ts";
import { resolveSampling, type Sampling, type SamplingOptions } from "./generate/sampler.ts";
import { checkStop } from "./generate/stop.ts";
import type { Part, PromptProgress } from "./reply.ts";
import { isRecord, kindOf } from "./values.ts";

/** Options of every call that generates. What is absent follows the checkpoint's recommendation. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens at most; default as many as the context holds. */
  readonly maxTokens?: number | undefined;
  /** Texts that end the reply; they are cut off. At most 16 of 256 characters. */
  readonly stop?: string | readonly string[] | undefined;
  /** Token ids that end the reply; default the checkpoint's end tokens. */
  readonly stopIds?: readonly number[] | undefined;
  /** Feeds a string as it is, control tokens and all, instead of as a user's message. */
  readonly raw?: boolean | undefined;
  /** Called while the prompt is read, after each chunk of it: at `totalTokens` the first token is there. What it throws ends the call. */
  readonly onProgress?: ((progress: PromptProgress) => void) | undefined;
  /** Ends the call before its next step. */
  readonly signal?: AbortSignal | undefined;
  /** What an abort does: `"throw"` an AbortError (default), or `"return"` what there is, with finishReason `"interrupted"`. */
  readonly onAbort?: "throw" | "return" | undefined;
}

/** Everything that a turn needs, checked. */
export interface TurnRequest {
  readonly ids: Uint32Array;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly stopIds: readonly number[];
  readonly sampling: Sampling;
  readonly onProgress: ((progress: PromptProgress) => void) | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onAbort: "throw" | "return";
}

/** @returns `options`. @throws InputError when they are no object */
export function checkObject<T extends object>(where: string, options: T): T {
  if (isRecord(options)) return options;
  throw new InputError(`${where}: expected an object with options, got ${kindOf(options)}. Leave it out for none.`);
}

/** @throws InputError for an option of the wrong kind or out of range */
export function checkOptions(
  ids: Uint32Array,
  options: GenerateOptions,
  defaults: SamplingOptions,
  endIds: readonly number[],
): TurnRequest {
  const { maxTokens = Number.MAX_SAFE_INTEGER, stopIds = endIds, onProgress, signal, onAbort = "throw" } = options;
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
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new InputError(`options: onProgress: expected a function, got ${kindOf(onProgress)}. Leave it out to hear nothing.`);
  }
  const [stop, sampling] = [checkStop(options.stop), resolveSampling(options, defaults)];
  return { ids, maxTokens, stop, stopIds, sampling, onProgress, signal, onAbort };
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
  cachedTokens = 0;
  timings: Timings = { prefillMs: 0, decodeMs: 0, firstTokenMs: 0 };
  reason: FinishReason = "interrupted";

  /** Takes an event in; returns the part to show, if any. */
  take(event: GenerateEvent): Part | undefined {
    if (event.type === "prefill") {
      const { processedTokens, totalTokens, cachedTokens } = event;
      this.cachedTokens = cachedTokens;
      return { type: "prefill", processedTokens, totalTokens, cachedTokens };
    }
    if (event.type === "token") this.tokens.push(event.id);
    else {
      this.reason = event.reason;
      this.timings = event.timings;
    }
    this.text += event.text;
    return event.text === "" ? undefined : { type: "text-delta", delta: event.text };
  }

  finish(request: TurnRequest): Part {
    const { text, cachedTokens, timings, reason } = this;
    const tokens = Uint32Array.from(this.tokens);
    const usage = { inputTokens: request.ids.length, cachedTokens, outputTokens: tokens.length };
    return { type: "finish", reply: { text, tokens, finishReason: reason, usage, timings, seed: request.sampling.seed } };
  }
}

/** Runs a turn on an open session and yields its parts. */
export async function* runTurn(engine: Engine, call: number, session: number, request: TurnRequest): AsyncGenerator<Part> {
  const { ids, maxTokens, stop, stopIds, sampling, onProgress, signal, onAbort } = request;
  const progress = new Progress();
  const cancel = (): void => {
    engine.cancel(call).catch(() => {}); // an engine that is gone has nothing left to cancel
  };
  try {
    if (signal?.aborted && onAbort === "throw") throwIfAborted(signal);
    if (!signal?.aborted) {
      signal?.addEventListener("abort", cancel, { once: true });
      for await (const event of engine.generate(call, session, { ids, maxTokens, stop, stopIds, sampling })) {
        const part = progress.take(event);
        if (part?.type === "prefill") {
          const { processedTokens, totalTokens, cachedTokens } = part;
          onProgress?.({ processedTokens, totalTokens, cachedTokens });
        }
        if (part) yield part;
      }
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  if (progress.reason === "interrupted" && onAbort === "throw") throw new AbortError(undefined, { cause: signal?.reason });
  yield progress.finish(request);
}
