// `lfm2 quantize`: a checkpoint as a GGUF of fewer bits. What was written is the answer, so it goes to stdout.
import type { ArgsDef } from "citty";
import { formatBytes } from "../memory/arena.ts";
import { HELP_ARG, type Options, UsageError } from "./args.ts";
import { progressBar } from "./model.ts";
import { formatCount, harmless, interruptible, StatusLine, write } from "./terminal.ts";

const TYPES = ["q4", "q8"] as const;

/** Options of `lfm2 quantize`. */
export const QUANTIZE_ARGS: ArgsDef = {
  dtype: { type: "string", valueHint: "TYPE", description: "matrices as q4 (GGUF's Q4_0, the default) or q8 (Q8_0)" },
  embedding: { type: "string", valueHint: "TYPE", description: "embedding as q4 or q8 (default: as the others)" },
  force: { type: "boolean", alias: "f", description: "replace a file of that name" },
  json: { type: "boolean", description: "print one JSON object" },
  ...HELP_ARG,
};

/** @returns the exit code */
export async function quantize(options: Options): Promise<number> {
  const [source, out, ...rest] = options.words;
  if (source === undefined || out === undefined || rest.length)
    throw new UsageError(`quantize expects a model and the name of a file, got ${options.words.length} words`);
  if (!/\.gguf$/i.test(out)) throw new UsageError(`quantize expects a file name that ends in .gguf, got ${JSON.stringify(out)}`);
  const dtype = options.choice("dtype", TYPES) ?? "q4";
  const embedding = options.choice("embedding", TYPES);
  const { createFile, platform, quantizeTo } = await import("./quantize-file.ts");
  const status = new StatusLine();
  try {
    const result = await interruptible(async (signal) => {
      const sink = await createFile(out, { overwrite: options.flag("force") });
      return quantizeTo(platform, source, sink, { dtype, embedding, signal, onProgress: progressBar(status) });
    });
    status.clear();
    const { name, parameterCount, sourceBytes, bytes, tensors } = result;
    if (options.flag("json")) write(`${JSON.stringify({ file: out, ...result }, null, 2)}\n`);
    else {
      const kinds = Object.entries(tensors).map(([type, n]) => `${n} ${type}`);
      write(
        `${harmless(out)}: ${harmless(name)}, ${formatCount(parameterCount)} parameters, ${formatBytes(bytes)} from ${formatBytes(sourceBytes)}; tensors: ${kinds.join(", ")}\n`,
      );
    }
    return 0;
  } finally {
    status.clear();
  }
}
