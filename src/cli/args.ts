// The options of all commands, how they are read, and the help that follows from them. Knows no model; what a value may be is the library's business, unless it is no number at all.
import { type ArgsDef, parseArgs } from "citty";

/** The command line itself is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The cache's element type. */
export const KV_DTYPE_ARG: ArgsDef[string] = {
  type: "string",
  valueHint: "TYPE",
  description: "cache of keys and values as f32, f16 or q8 (default: f16)",
};

/** Where downloaded models lie. */
export const CACHE_DIR_ARG: ArgsDef[string] = {
  type: "string",
  valueHint: "DIR",
  description: "folder of downloaded models (default: that of Hugging Face's tools: HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface/hub)",
};

/** For programs that read the answer. */
export const JSON_ARG: ArgsDef[string] = { type: "boolean", description: "print JSON" };

/** Options that choose and load a model. */
export const MODEL_ARGS: ArgsDef = {
  model: {
    type: "string",
    alias: "m",
    valueHint: "MODEL",
    description: "GGUF file, folder, https: address, or org/name[:type] on the Hugging Face hub (default: the small bundled model)",
  },
  "cache-dir": CACHE_DIR_ARG,
  dtype: { type: "string", valueHint: "TYPE", description: "weights as f32, bf16, f16, q8 or q4 (default: as in the file)" },
  "kv-dtype": KV_DTYPE_ARG,
  context: { type: "string", alias: "c", valueHint: "N", description: "longest context in tokens" },
  threads: {
    type: "string",
    alias: "t",
    valueHint: "N",
    description: "threads (default: auto, as many as the machine has cores, at most 8)",
  },
};

/** Options of an answer. */
export const ANSWER_ARGS: ArgsDef = {
  "max-tokens": { type: "string", alias: "n", valueHint: "N", description: "tokens to generate at most" },
  temperature: {
    type: "string",
    alias: "temp",
    valueHint: "X",
    description: "0 takes the likeliest token; sampling defaults are the checkpoint's",
  },
  "top-k": { type: "string", valueHint: "K", description: "keep the K likeliest tokens" },
  "top-p": { type: "string", valueHint: "P", description: "keep the likeliest tokens up to this share of the probability" },
  "min-p": { type: "string", valueHint: "P", description: "drop tokens below this share of the likeliest" },
  "repetition-penalty": { type: "string", valueHint: "X", description: "above 1 makes tokens that occurred less likely" },
  seed: { type: "string", valueHint: "N", description: "the same seed gives the same text" },
  speculate: { type: "boolean", description: "guess tokens from what was said before and check several at once; no token changes" },
  system: { type: "string", valueHint: "TEXT", description: "system message" },
  stats: { type: "boolean", description: "print speed and memory to stderr" },
};

/** Every command explains itself. */
export const HELP_ARG: ArgsDef = { help: { type: "boolean", alias: "h", description: "print this help" } };

/** Options as they came: text, flags, and the words that belong to no option. */
export interface Options {
  readonly words: readonly string[];
  text(name: string): string | undefined;
  flag(name: string): boolean;
  /** @throws UsageError when it is no number */
  number(name: string): number | undefined;
  /** @throws UsageError when it is no whole number */
  integer(name: string): number | undefined;
  /** @throws UsageError when it is none of `choices` */
  choice<T extends string>(name: string, choices: readonly T[]): T | undefined;
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const dashed = (key: string): string => (key.length === 1 ? `-${key}` : `--${key}`);
const camel = (name: string): string => name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
const aliases = (arg: ArgsDef[string]): readonly string[] => ("alias" in arg && arg.alias ? [arg.alias].flat() : []);

/** @throws UsageError when an option is unknown or lacks its value */
export function readOptions(argv: readonly string[], args: ArgsDef): Options {
  const parsed = parseArgs([...argv], args);
  const known = new Set(Object.entries(args).flatMap(([name, arg]) => [name, camel(name), ...aliases(arg)]));
  for (const key of Object.keys(parsed)) {
    if (key !== "_" && !known.has(key)) throw new UsageError(`unknown option ${dashed(key)}`);
  }
  for (const [name, arg] of Object.entries(args)) {
    if (arg.type === "string" && parsed[name] === "") throw new UsageError(`${dashed(name)} expects a value`);
  }
  const text = (name: string): string | undefined => parsed[name] as string | undefined;
  const number = (name: string, kind = "number"): number | undefined => {
    const value = text(name);
    if (value === undefined) return undefined;
    if (NUMBER.test(value) && (kind === "number" || Number.isInteger(Number(value)))) return Number(value);
    throw new UsageError(`${dashed(name)} expects a ${kind}, got ${JSON.stringify(value)}`);
  };
  return {
    words: parsed._,
    text,
    number: (name) => number(name),
    flag: (name) => parsed[name] === true,
    integer: (name) => number(name, "whole number"),
    choice: (name, choices) => {
      const value = text(name);
      const found = choices.find((choice) => choice === value);
      if (value === undefined || found !== undefined) return found;
      throw new UsageError(`${dashed(name)} expects one of ${choices.join(", ")}, got ${JSON.stringify(value)}`);
    },
  };
}

/** @throws UsageError when words are left that the command has no use for */
export function refuseWords(options: Options, command: string): void {
  if (options.words.length) throw new UsageError(`${command} expects options only, got ${JSON.stringify(options.words[0])}`);
}

/** @returns the lines that explain options. */
export function describeArgs(args: ArgsDef): string {
  const rows = Object.entries(args).map(([name, arg]): [string, string] => {
    const names = [...aliases(arg), name]
      .sort((a, b) => a.length - b.length)
      .map(dashed)
      .join(", ");
    const hint = "valueHint" in arg && arg.valueHint ? ` ${arg.valueHint}` : "";
    return [names + hint, arg.description ?? ""];
  });
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join("");
}
