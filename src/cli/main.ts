#!/usr/bin/env node
// The command `lfm2`: finds the command, runs it, turns errors into a sentence and an exit code.
import type { ArgsDef } from "citty";
import type { Lfm2Error } from "lfm2-wasm";
import { describeArgs, type Options, readOptions, UsageError } from "./args.ts";
import { BENCH_ARGS, bench } from "./bench.ts";
import { CHAT_ARGS, chat } from "./chat.ts";
import { GENERATE_ARGS, generate } from "./generate.ts";
import { INSPECT_ARGS, inspect } from "./inspect.ts";
import { CACHE_ARGS, list, PULL_ARGS, pull, remove } from "./models.ts";
import { PERPLEXITY_ARGS, perplexity } from "./perplexity.ts";
import { QUANTIZE_ARGS, quantize } from "./quantize.ts";
import { endQuietlyWhenUnread, harmless, INTERRUPTED, note, write } from "./terminal.ts";

/** Put in by the build. */
declare const LFM2_VERSION: string;

interface Command {
  readonly usage: string;
  readonly about: string;
  readonly args: ArgsDef;
  run(options: Options): Promise<number>;
}

const commands: Readonly<Record<string, Command>> = {
  chat: { usage: "chat [options]", about: "talk with a model", args: CHAT_ARGS, run: chat },
  generate: { usage: "generate [options] [words]", about: "answer one prompt", args: GENERATE_ARGS, run: generate },
  inspect: {
    usage: "inspect [options] MODEL",
    about: "tell what a checkpoint is, without loading it",
    args: INSPECT_ARGS,
    run: inspect,
  },
  quantize: {
    usage: "quantize [options] MODEL FILE.gguf",
    about: "write a checkpoint as a GGUF with 4 or 8 bits a weight",
    args: QUANTIZE_ARGS,
    run: quantize,
  },
  perplexity: {
    usage: "perplexity [options] FILE",
    about: "tell how well a model predicts a text, - for stdin",
    args: PERPLEXITY_ARGS,
    run: perplexity,
  },
  pull: { usage: "pull [options] ORG/NAME[:TYPE]", about: "download a model from the hub, or the rest of it", args: PULL_ARGS, run: pull },
  list: { usage: "list [options]", about: "list the models on this disk", args: CACHE_ARGS, run: list },
  remove: { usage: "remove [options] ORG/NAME", about: "remove a model from this disk", args: CACHE_ARGS, run: remove },
  bench: { usage: "bench [options]", about: "measure how fast a model runs here", args: BENCH_ARGS, run: bench },
};

const OVERVIEW = `lfm2 runs LFM2 language models on this machine's CPU.

${Object.values(commands)
  .map(({ usage, about }) => `  lfm2 ${usage.padEnd(37)}${about}\n`)
  .join("")}
Words without a command are a prompt, nothing at all opens the chat. Without --model the small bundled model answers.
lfm2 COMMAND --help lists a command's options.
`;

/** A line without a command: a prompt, where there is one, else a conversation. */
function implied(argv: readonly string[]): string {
  const options = readOptions(argv, GENERATE_ARGS);
  const isPrompt = options.words.length > 0 || options.text("prompt") !== undefined || options.flag("json") || options.flag("raw");
  return isPrompt ? "generate" : "chat";
}

async function run(argv: readonly string[]): Promise<number> {
  const [first] = argv;
  if (first === "--version" || first === "-v") {
    write(`${LFM2_VERSION}\n`);
    return 0;
  }
  if (first === "--help" || first === "-h" || first === "help") {
    write(OVERVIEW);
    return 0;
  }
  const isNamed = first !== undefined && Object.hasOwn(commands, first);
  const command = commands[isNamed ? first : implied(argv)]!;
  const options = readOptions(isNamed ? argv.slice(1) : argv, command.args);
  if (options.flag("help")) {
    write(isNamed ? `lfm2 ${command.usage}: ${command.about}\n\n${describeArgs(command.args)}` : OVERVIEW);
    return 0;
  }
  return command.run(options);
}

/** An error of the package. By its message: a command that brings parts of the package along has classes of its own. */
const isOurs = (error: unknown): error is Lfm2Error => error instanceof Error && error.message.startsWith("[lfm2] ");

/** Says what went wrong. @returns the exit code */
function report(error: unknown): number {
  if (isOurs(error) && error.code === "abort") return INTERRUPTED;
  if (error instanceof UsageError) {
    note(`lfm2: ${harmless(error.message)}. See lfm2 --help.`);
    return 2;
  }
  note(isOurs(error) ? harmless(error.message) : String(error instanceof Error ? (error.stack ?? error) : error));
  return 1;
}

endQuietlyWhenUnread();
process.exitCode = await run(process.argv.slice(2)).catch(report);
