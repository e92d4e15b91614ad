// `lfm2 perplexity`: how well a model predicts a text, so that a quantization can be judged by a text of one's own. The figures are the answer, so they go to stdout.
import { readFile } from "node:fs/promises";
import type { ArgsDef } from "citty";
import { HELP_ARG, MODEL_ARGS, type Options, UsageError } from "./args.ts";
import { loadModel, readingBar } from "./model.ts";
import { formatCount, harmless, interruptible, readStdin, StatusLine, table, write } from "./terminal.ts";

/** Options of `lfm2 perplexity`. */
export const PERPLEXITY_ARGS: ArgsDef = {
  window: { type: "string", valueHint: "N", description: "tokens that are read together (default: 2,048, at most the context)" },
  stride: { type: "string", valueHint: "N", description: "tokens from one window to the next (default: half a window)" },
  json: { type: "boolean", description: "print one JSON object" },
  ...MODEL_ARGS,
  ...HELP_ARG,
};

/** @returns what the file, or stdin for `-`, holds. @throws UsageError when it cannot be read, or is no UTF-8 */
async function textOf(path: string): Promise<string> {
  const bytes = await (path === "-" ? readStdin() : readFile(path)).catch((error: Error) => {
    throw new UsageError(`perplexity expects a file of text, got ${JSON.stringify(path)}: ${error.message}`);
  });
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError(`perplexity expects text in UTF-8, got other bytes in ${JSON.stringify(path)}`);
  }
}

/** @returns the exit code */
export async function perplexity(options: Options): Promise<number> {
  const [path, ...rest] = options.words;
  if (path === undefined || rest.length) throw new UsageError(`perplexity expects one file, or - for stdin, got ${options.words.length}`);
  const windows = { contextTokens: options.integer("window"), stride: options.integer("stride") };
  const text = await textOf(path);
  return interruptible(async (signal) => {
    const model = await loadModel(options, signal);
    const status = new StatusLine();
    try {
      const onProgress = readingBar(status);
      const result = await model.perplexity(text, { ...windows, signal, onProgress });
      status.clear();
      const { name, dtypes, kvDtype } = model.info;
      if (options.flag("json")) {
        write(`${JSON.stringify({ ...result, model: { name, dtypes, kvDtype } })}\n`);
        return 0;
      }
      const rows = [
        ["perplexity", result.perplexity.toFixed(4)],
        ["loss", `${result.loss.toFixed(5)} nats a token`],
        ["tokens", formatCount(result.tokens)],
        ["model", `${harmless(name)}, ${dtypes.join("+")} weights, ${kvDtype} cache`],
      ];
      write(table(rows));
      return 0;
    } finally {
      status.clear();
      model.dispose();
    }
  });
}
