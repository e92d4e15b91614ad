// How likely the model finds a text, and what it makes of it: log-probabilities, perplexity, embeddings. Rows for the engine and what comes of them.
import { checkNames } from "./checks.ts";
import { InputError } from "./errors.ts";
import { type ForwardHost, type ReadProgress, runForward } from "./forward.ts";
import { exp } from "./math.ts";

/** Log-probabilities of a text's tokens. */
export interface Score {
  /** The text's ids, the start token among them. */
  readonly tokens: Uint32Array;
  /** ln p of each token but the first, given those before: one fewer than `tokens`. */
  readonly logprobs: Float64Array;
}

/** How well the model predicts a text. */
export interface Perplexity {
  /** e to the mean of -ln p over the scored tokens. */
  readonly perplexity: number;
  /** That mean, in nats. */
  readonly loss: number;
  /** Tokens that were scored: all but the first of the text. */
  readonly tokens: number;
}

/** Options of `score`. */
export interface ScoreOptions {
  /** Ends the call before its next chunk. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of `perplexity`. */
export interface PerplexityOptions {
  /** Tokens of a window; default 2,048, at most the context. */
  readonly contextTokens?: number | undefined;
  /** Tokens from one window to the next; default half of one. Tokens that two windows share are scored once, by the first. */
  readonly stride?: number | undefined;
  /** Called after each chunk of a window: tokens of the text, of which a window shares some with the one before. What it throws ends the call. */
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined;
  /** Ends the call before its next chunk. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of `embed`. */
export interface EmbedOptions {
  /** What becomes of a text's rows: their mean (default), the last one, or all of them. */
  readonly pooling?: "mean" | "last" | "none" | undefined;
  readonly signal?: AbortSignal | undefined;
}

const PERPLEXITY: Readonly<Record<keyof PerplexityOptions, 1>> = { contextTokens: 1, stride: 1, onProgress: 1, signal: 1 };
const EMBED: Readonly<Record<keyof EmbedOptions, 1>> = { pooling: 1, signal: 1 };

/** A window's default tokens. */
const WINDOW_TOKENS = 2048;

/** @returns ln p of ids[from…] given everything before each of them in `ids`. @throws InputError for fewer than two ids */
async function logprobsOf(
  host: ForwardHost,
  ids: Uint32Array,
  from: number,
  options: Pick<PerplexityOptions, "signal" | "onProgress">,
  ropeLength?: number,
): Promise<Float64Array> {
  const targets = Int32Array.from(ids, (_, i) => (i + 1 >= from ? (ids[i + 1] ?? -1) : -1));
  const [row] = await runForward(host, { rows: [{ ids, targets }], logits: [[]], ropeLength }, options);
  return row?.logprobs?.slice(from - 1, ids.length - 1) ?? new Float64Array(0);
}

function checkLength(name: string, ids: Uint32Array, most: number): void {
  if (ids.length < 2)
    throw new InputError(`${name}: expected a text of two tokens at least, got ${ids.length}. The first is never scored.`);
  if (ids.length > most) {
    throw new InputError(
      `${name}: expected at most ${most} tokens, got ${ids.length}. Use perplexity() with windows, or a larger maxContextTokens.`,
      {
        code: "context-full",
      },
    );
  }
}

/** @param ropeLength as in `ForwardRequest` @throws InputError; AbortError @internal */
export async function score(host: ForwardHost, tokens: Uint32Array, signal: AbortSignal | undefined, ropeLength?: number): Promise<Score> {
  checkLength("score", tokens, host.maxContextTokens);
  return { tokens, logprobs: await logprobsOf(host, tokens, 1, { signal }, ropeLength) };
}

function whole(name: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new InputError(`perplexity: ${name}: expected a whole number from ${least} to ${most}, got ${String(value)}.`);
}

/** Slides a window over the text. @throws InputError; AbortError @internal */
export async function perplexity(host: ForwardHost, tokens: Uint32Array, options: PerplexityOptions): Promise<Perplexity> {
  const {
    contextTokens = Math.min(WINDOW_TOKENS, host.maxContextTokens),
    onProgress,
    signal,
  } = checkNames("perplexity", options, "PerplexityOptions", PERPLEXITY);
  checkLength("perplexity", tokens, Number.MAX_SAFE_INTEGER);
  const window = whole("contextTokens", contextTokens, 2, host.maxContextTokens);
  const stride = whole("stride", options.stride ?? Math.ceil(window / 2), 1, window - 1);
  const N = tokens.length;
  let sum = 0;
  let scored = 0;
  for (let begin = 0, end = 1; end < N; begin += stride) {
    const next = Math.min(begin + window, N);
    const before = end;
    const within = ({ processedTokens, totalTokens }: ReadProgress): void =>
      onProgress?.({ processedTokens: before + Math.floor(((next - before) * processedTokens) / totalTokens), totalTokens: N });
    const part = await logprobsOf(host, tokens.subarray(begin, next), end - begin, { signal, onProgress: within });
    for (const logprob of part) sum -= logprob;
    scored += part.length;
    end = next;
  }
  return { perplexity: exp(sum / scored), loss: sum / scored, tokens: scored };
}

/** @returns for each text the final norm's output: (D,) pooled, or (T,D) for "none". @throws InputError; AbortError @internal */
export async function embed(host: ForwardHost, texts: readonly Uint32Array[], options: EmbedOptions): Promise<Float32Array[]> {
  const { pooling = "mean", signal } = checkNames("embed", options, "EmbedOptions", EMBED);
  if (pooling !== "mean" && pooling !== "last" && pooling !== "none")
    throw new InputError(`embed: pooling: expected "mean", "last" or "none", got ${JSON.stringify(pooling)}.`);
  const empty = texts.findIndex((ids) => ids.length === 0 || ids.length > host.maxContextTokens);
  if (empty >= 0)
    throw new InputError(`embed: expected 1 to ${host.maxContextTokens} tokens, got ${texts[empty]?.length} at index ${empty}.`);
  const rows = texts.map((ids) => ({ ids }));
  const results = await runForward(host, { rows, logits: texts.map(() => []), hiddenStates: "last" }, { signal });
  return results.map(({ hiddenStates = [] }) => pool(hiddenStates[0] ?? new Float32Array(0), host.config.hiddenSize, pooling));
}

/** @param rows (T,D) */
function pool(rows: Float32Array, D: number, pooling: "mean" | "last" | "none"): Float32Array {
  if (pooling === "none") return rows;
  if (pooling === "last") return rows.slice(-D);
  const T = rows.length / D;
  return Float32Array.from({ length: D }, (_, i) => {
    let sum = 0;
    for (let t = 0; t < T; t++) sum += rows[t * D + i] ?? 0;
    return sum / T;
  });
}
