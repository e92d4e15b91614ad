// Lines from whoever talks: a person at a terminal, who can edit them, or a pipe. Knows no chat.
import { createInterface, type Interface } from "node:readline";
import { INTERRUPTED } from "./terminal.ts";

/** Where a chat's lines come from. */
export interface LineReader {
  /** @returns the next line, or undefined at the end. Ctrl-C while it waits ends the program. */
  read(prompt: string): Promise<string | undefined>;
  close(): void;
}

/** @returns a reader for stdin. */
export function openLines(): LineReader {
  return process.stdin.isTTY && process.stderr.isTTY ? terminalLines() : pipedLines();
}

/** An interface lives only while a line is edited: between two, the terminal is as it was, and Ctrl-C is a signal again. */
function terminalLines(): LineReader {
  let history: string[] = [];
  let current: Interface | undefined;
  const read = (prompt: string): Promise<string | undefined> =>
    new Promise((resolve) => {
      const editor = createInterface({ input: process.stdin, output: process.stderr, history, removeHistoryDuplicates: true });
      current = editor;
      let answer: string | undefined;
      editor.on("history", (lines) => {
        history = lines;
      });
      editor.on("SIGINT", () => {
        process.stderr.write("\n");
        if (editor.line === "") process.exit(INTERRUPTED);
        editor.write(null, { ctrl: true, name: "u" });
      });
      editor.on("close", () => {
        current = undefined;
        if (answer === undefined) process.stderr.write("\n");
        resolve(answer);
      });
      editor.question(prompt, (line) => {
        answer = line;
        editor.close();
      });
    });
  return { read, close: () => current?.close() };
}

function pipedLines(): LineReader {
  const source = createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY });
  const lines = source[Symbol.asyncIterator]();
  const leave = (): void => process.exit(INTERRUPTED);
  const read = async (): Promise<string | undefined> => {
    process.on("SIGINT", leave);
    try {
      const { value, done } = await lines.next();
      return done ? undefined : value;
    } finally {
      process.off("SIGINT", leave);
    }
  };
  return { read, close: () => source.close() };
}
