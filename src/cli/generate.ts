// `lfm2 generate`: one prompt, one answer, streamed to stdout or told as one JSON object.
import type { ArgsDef } from "citty";
import type { Message, Model, Reply, ReplyStream } from "lfm2-wasm";
import { ANSWER_ARGS, HELP_ARG, MODEL_ARGS, type Options, UsageError } from "./args.ts";
import { answerOptions, describeReply, loadModel, readingBar } from "./model.ts";
import { INTERRUPTED, interruptible, note, readStdin, StatusLine, write } from "./terminal.ts";

/** Options of `lfm2 generate`. */
export const GENERATE_ARGS: ArgsDef = {
  prompt: { type: "string", alias: "p", valueHint: "TEXT", description: "the prompt; plain words, or piped stdin, do as well" },
  raw: { type: "boolean", description: "feed the prompt as it is, without the chat template" },
  json: { type: "boolean", description: "print one JSON object: text, tokens, finishReason, usage, timings" },
  ...ANSWER_ARGS,
  ...MODEL_ARGS,
  ...HELP_ARG,
};

async function promptOf(options: Options): Promise<string> {
  const option = options.text("prompt");
  const words = options.words.join(" ");
  if (option !== undefined && words !== "") throw new UsageError(`expected one prompt, got --prompt and ${JSON.stringify(words)}`);
  const prompt = option ?? (words || (process.stdin.isTTY ? "" : (await readStdin()).toString("utf8").replace(/\r?\n$/, "")));
  if (prompt === "") throw new UsageError("expected a prompt: as words, with --prompt, or on stdin");
  return prompt;
}

function inputOf(prompt: string, options: Options): string | Message[] {
  const system = options.text("system");
  if (system === undefined) return prompt;
  if (options.flag("raw")) throw new UsageError("--system needs the chat template, which --raw leaves out");
  return [
    { role: "system", content: system },
    { role: "user", content: prompt },
  ];
}

/** Hands on an answer's text as it comes. @returns the whole reply */
export async function showAnswer(stream: ReplyStream, show: (text: string) => void = write): Promise<Reply> {
  const status = new StatusLine();
  const progress = readingBar(status);
  try {
    for await (const part of stream) {
      if (part.type === "prefill") progress(part);
      if (part.type === "text-delta") show(part.delta);
    }
  } finally {
    status.clear();
  }
  return await stream.reply;
}

function tellJson(reply: Reply, { info }: Model): void {
  const { text, tokens, finishReason, usage, timings, seed } = reply;
  const model = { name: info.name, dtypes: info.dtypes, kvDtype: info.kvDtype, memoryBytes: info.memoryBytes };
  write(`${JSON.stringify({ text, tokens: Array.from(tokens), finishReason, usage, timings, seed, model })}\n`);
}

/** @returns the exit code */
export async function generate(options: Options): Promise<number> {
  const answer = answerOptions(options);
  const prompt = await promptOf(options);
  const input = inputOf(prompt, options);
  const isJson = options.flag("json");
  return interruptible(async (signal) => {
    const model = await loadModel(options, signal);
    try {
      const stream = model.stream(input, { ...answer, raw: options.flag("raw"), signal, onAbort: "return" });
      const reply = await showAnswer(stream, isJson ? () => {} : write);
      if (isJson) tellJson(reply, model);
      else if (!reply.text.endsWith("\n")) write("\n");
      if (options.flag("stats")) note(await describeReply(reply, model));
      return reply.finishReason === "interrupted" ? INTERRUPTED : 0;
    } finally {
      model.dispose();
    }
  });
}
