// `lfm2 chat`: a conversation, line by line. Ctrl-C stops an answer, not the program.
import type { ArgsDef } from "citty";
import { type Chat, type GenerateOptions, InputError, type Model, type Reply } from "lfm2-wasm";
import { ANSWER_ARGS, HELP_ARG, MODEL_ARGS, type Options, refuseWords } from "./args.ts";
import { showAnswer } from "./generate.ts";
import { type LineReader, openLines } from "./lines.ts";
import { answerOptions, describeReply, loadModel } from "./model.ts";
import { dim, formatCount, harmless, interruptible, note, write } from "./terminal.ts";

/** Options of `lfm2 chat`. */
export const CHAT_ARGS: ArgsDef = { ...ANSWER_ARGS, ...MODEL_ARGS, ...HELP_ARG };

const QUOTES = '"""';
const HELP = `/clear   forget the conversation
/stats   speed and memory of the last answer
/help    these lines
/exit    leave, as Ctrl-D does
${QUOTES}      begins and ends a message of several lines, which may also begin with a slash
Ctrl-C   stops an answer; at the prompt it leaves`;

/** A conversation with everything that a line may do to it. */
class Conversation {
  readonly #model: Model;
  readonly #chat: Chat;
  readonly #options: Options;
  readonly #answer: GenerateOptions;
  #last: Reply | undefined;
  #turns = 0;
  /** A message was refused. */
  hasFailed = false;

  constructor(model: Model, options: Options) {
    const system = options.text("system");
    this.#model = model;
    this.#options = options;
    this.#answer = answerOptions(options);
    this.#chat = model.chat(system === undefined ? {} : { system });
  }

  /** Carries out a line that begins with a slash. @returns whether the conversation goes on */
  async command(line: string): Promise<boolean> {
    const name = line.trim().toLowerCase();
    if (name === "/exit" || name === "/quit") return false;
    if (name === "/help") note(HELP);
    else if (name === "/stats") note(this.#last ? await describeReply(this.#last, this.#model) : "Nothing has been said yet.");
    else if (name === "/clear") {
      await this.#chat.clear();
      note("Forgotten.");
    } else note(`${harmless(line.trim())} is no command. /help names them; for a message that begins with a slash use ${QUOTES}.`);
    return true;
  }

  /** Answers a message. */
  async say(text: string): Promise<void> {
    try {
      const reply = await interruptible((signal) => showAnswer(this.#chat.stream(text, { ...this.#answer, signal, onAbort: "return" })));
      if (!reply.text.endsWith("\n")) write("\n");
      if (reply.finishReason === "interrupted") note(dim("(stopped)"));
      if (this.#options.flag("stats")) note(await describeReply(reply, this.#model));
      this.#last = reply;
      this.#turns++;
    } catch (error) {
      // A message that does not fit ends nothing: the conversation can be cleared.
      if (!(error instanceof InputError)) throw error;
      note(`${harmless(error.message)}${this.#turns ? "\n/clear forgets the conversation." : ""}`);
      this.hasFailed = true;
    }
  }

  dispose(): void {
    this.#chat.dispose();
  }
}

/** Reads on until the closing quotes. @returns the message */
async function readQuoted(lines: LineReader, first: string): Promise<string> {
  let text = first.slice(QUOTES.length);
  while (!text.trimEnd().endsWith(QUOTES)) {
    const line = await lines.read("... ");
    if (line === undefined) return text;
    text += `${text === "" ? "" : "\n"}${line}`;
  }
  return text.trimEnd().slice(0, -QUOTES.length).replace(/\n$/, "");
}

async function converse(conversation: Conversation, lines: LineReader): Promise<void> {
  for (;;) {
    const line = await lines.read("> ");
    if (line === undefined) return;
    const isQuoted = line.trimStart().startsWith(QUOTES);
    const text = isQuoted ? await readQuoted(lines, line.trimStart()) : line.trim();
    if (text === "") continue;
    if (!isQuoted && text.startsWith("/")) {
      if (!(await conversation.command(text))) return;
    } else await conversation.say(text);
  }
}

/** @returns the exit code: 1 when a message was refused and nobody was there to see it */
export async function chat(options: Options): Promise<number> {
  refuseWords(options, "chat");
  answerOptions(options);
  const model = await interruptible((signal) => loadModel(options, signal));
  const lines = openLines();
  const conversation = new Conversation(model, options);
  try {
    const { name, dtypes, maxContextTokens } = model.info;
    if (process.stdin.isTTY)
      note(
        dim(`${name}, ${dtypes.join("+")}, up to ${formatCount(maxContextTokens)} tokens. /help lists commands, Ctrl-C stops an answer.`),
      );
    await converse(conversation, lines);
    return conversation.hasFailed && !process.stdin.isTTY ? 1 : 0;
  } finally {
    lines.close();
    conversation.dispose();
    model.dispose();
  }
}
