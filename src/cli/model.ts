// From options to a loaded model, to the options of an answer, and to the figures printed after it.
import { type GenerateOptions, type LoadOptions, type LoadProgress, load, type Model, type PromptProgress, type Reply } from "lfm2-wasm";
import { formatBytes } from "../memory/arena.ts";
import { KV_DTYPES } from "../memory/dtype.ts";
import type { Options } from "./args.ts";
import { bar, formatCount, harmless, note, StatusLine } from "./terminal.ts";

/** Loading that is over sooner shows no bar. */
const BAR_AFTER_MS = 300;

/** @returns what is told of a model before it is downloaded */
export function foundText({ file, totalBytes, license }: LoadProgress): string {
  return harmless(`${file}: ${formatBytes(totalBytes)} to download, licence ${license ?? "not told"}`);
}

/** Tells what could not be as it should. */
export function warn({ warnings }: { readonly warnings: readonly string[] }): void {
  for (const warning of warnings) note(`lfm2: ${harmless(warning)}`);
}

/** Draws how far loading is, with the rate; what is to be downloaded, and under which licence, it tells before. */
export function progressBar(status: StatusLine): (progress: LoadProgress) => void {
  const start = performance.now();
  return (progress) => {
    const { phase, loadedBytes, totalBytes, file, bytesPerSecond, reason } = progress;
    if (phase === "open" && totalBytes > 0) {
      status.clear();
      note(foundText(progress));
    }
    if (phase === "cache-skipped") {
      status.clear();
      note(`lfm2: the model is not kept for the next start: ${harmless(reason ?? "")}`);
    }
    if (phase === "ready" || performance.now() < start + BAR_AFTER_MS || totalBytes === 0) return;
    status.show(
      `${phase === "wait" ? "waiting for another process: " : ""}${harmless(file)} ${bar(loadedBytes, totalBytes)} ${Math.floor((100 * loadedBytes) / totalBytes)} % of ${formatBytes(totalBytes)}${bytesPerSecond > 0 ? `, ${formatBytes(bytesPerSecond)}/s` : ""}`,
    );
  };
}

/** What takes longer to read, by the pace so far, shows how far it has been read. */
const BAR_FROM_MS = 500;

/** @returns what shows how far a prompt or a text has been read, with the rate, or clears the line when it is short or has been read */
export function readingBar(status: StatusLine): (progress: Omit<PromptProgress, "cachedTokens"> & Partial<PromptProgress>) => void {
  const start = performance.now();
  let isLong = false;
  return ({ processedTokens, totalTokens, cachedTokens = 0 }) => {
    if (processedTokens === totalTokens) return status.clear();
    const perMs = (processedTokens - cachedTokens) / (performance.now() - start);
    isLong ||= totalTokens - cachedTokens > perMs * BAR_FROM_MS;
    if (!isLong) return;
    const counts = `${formatCount(processedTokens)} of ${formatCount(totalTokens)} tokens`;
    status.show(`reading ${bar(processedTokens, totalTokens)} ${counts}, ${(1000 * perMs).toFixed(0)} tokens/s`);
  };
}

/** @returns what `load` is told of the cache */
export function cacheOption(options: Options): LoadOptions["cache"] {
  const dir = options.text("cache-dir");
  return dir === undefined ? "auto" : { dir };
}

/** Loads the model that the options name, or the bundled one; `more` goes before what they say. */
export async function loadModel(options: Options, signal: AbortSignal, more: LoadOptions = {}): Promise<Model> {
  const source = options.text("model") ?? (await import("lfm2-wasm/mini")).mini;
  const status = new StatusLine();
  try {
    const model = await load(source, {
      signal,
      onProgress: progressBar(status),
      dtype: options.choice("dtype", ["f32", "bf16", "f16", "q8", "q4"]),
      kvDtype: options.choice("kv-dtype", KV_DTYPES),
      maxContextTokens: options.integer("context"),
      threads: options.text("threads") === "auto" ? "auto" : options.integer("threads"),
      cache: cacheOption(options),
      ...more,
    });
    status.clear();
    warn(model.info);
    return model;
  } finally {
    status.clear();
  }
}

/** @returns what the options say about an answer. */
export function answerOptions(options: Options): GenerateOptions {
  return {
    maxTokens: options.integer("max-tokens"),
    temperature: options.number("temperature"),
    topK: options.integer("top-k"),
    topP: options.number("top-p"),
    minP: options.number("min-p"),
    repetitionPenalty: options.number("repetition-penalty"),
    seed: options.integer("seed"),
    speculate: options.flag("speculate") ? "prompt-lookup" : undefined,
  };
}

const perSecond = (tokens: number, ms: number): string => (tokens > 0 && ms > 0 ? `${((tokens / ms) * 1000).toFixed(1)} tokens/s` : "–");

/** @returns the lines of `--stats` and `/stats`. */
export async function describeReply({ usage, timings, seed }: Reply, model: Model): Promise<string> {
  const { info } = model;
  const { memoryBytes, reuse } = await model.status();
  const computed = usage.inputTokens - usage.cachedTokens;
  // The first token comes out of the prompt's last step: decoding computes one step less than there are tokens.
  const decoded = usage.outputTokens - 1;
  return [
    `prefill  ${perSecond(computed, timings.prefillMs)}, ${usage.inputTokens} tokens in ${Math.round(timings.prefillMs)} ms${usage.cachedTokens ? `, ${usage.cachedTokens} of them from the cache` : ""}`,
    `decode   ${perSecond(decoded, timings.decodeMs)}, ${usage.outputTokens} tokens in ${Math.round(timings.decodeMs)} ms`,
    ...(usage.draftedTokens === undefined ? [] : [`guessed  ${usage.draftedTokens} tokens, ${usage.acceptedTokens} of them right`]),
    `reused   ${reuse.cachedTokens} of ${reuse.promptTokens} prompt tokens so far; ${reuse.hits} of ${reuse.prompts} prompts began as one before, ${Math.floor((100 * reuse.hits) / Math.max(1, reuse.prompts))} %`,
    `first    ${Math.round(timings.firstTokenMs)} ms to the first token`,
    `memory   ${formatBytes(memoryBytes)}, weights ${formatBytes(info.weightBytes)}`,
    `model    ${harmless(info.name)}, ${info.dtypes.join("+")} weights, ${info.kvDtype} cache, ${info.variant} kernels, ${info.threads} ${info.threads === 1 ? "thread" : "threads"}, seed ${seed}`,
  ].join("\n");
}
