// What the CLI writes and how it is interrupted: stdout carries the answer, everything else goes to stderr. Knows no model.

const isTerminal = process.stderr.isTTY === true;
const isColoured = isTerminal && !process.env.NO_COLOR && process.env.TERM !== "dumb";
/** Exit code of a program that Ctrl-C ended. */
export const INTERRUPTED = 130;

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** @returns text that a terminal only shows: models and files may hold sequences that would move its cursor or worse. */
export function harmless(text: string): string {
  return text.replace(CONTROLS, "\ufffd");
}

/** Writes a part of the answer: as it is, but to a terminal without its control characters. */
export function write(text: string): void {
  process.stdout.write(process.stdout.isTTY ? harmless(text) : text);
}

/** Writes a line of everything that is no answer. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** @returns text in a weaker shade, where a terminal shows it. */
export function dim(text: string): string {
  return isColoured ? `\u001b[2m${text}\u001b[22m` : text;
}

/** Whoever reads the answer may stop reading, as `head` does: that is no error. */
export function endQuietlyWhenUnread(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
      process.exit(0);
    });
  }
}

/** @returns all that comes on stdin */
export async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** A line on the terminal that is written over; without a terminal it is silent. */
export class StatusLine {
  #isShown = false;

  show(text: string): void {
    if (!isTerminal) return;
    const columns = process.stderr.columns || 80;
    process.stderr.write(`\r\u001b[2K${dim(text.slice(0, columns - 1))}`);
    this.#isShown = true;
  }

  clear(): void {
    if (this.#isShown) process.stderr.write("\r\u001b[2K");
    this.#isShown = false;
  }
}

const BAR_WIDTH = 24;

/** @returns a bar of 24 characters, `done` of `total` of it full. */
export function bar(done: number, total: number): string {
  const filled = Math.round((BAR_WIDTH * done) / total);
  return "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled);
}

/** @returns whole numbers with separators: `65,536`. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Cells of a line. */
export type Row = readonly string[];

/** Columns as wide as their widest cell; those in `right` end there. */
export function table(rows: readonly Row[], right: readonly number[] = []): string {
  const width = (column: number): number => Math.max(...rows.map((row) => (row[column] ?? "").length));
  const cell = (text: string, column: number): string =>
    right.includes(column) ? text.padStart(width(column)) : text.padEnd(width(column));
  return rows.map((row) => `  ${row.map(cell).join("  ").trimEnd()}\n`).join("");
}

/** Runs work whose signal Ctrl-C fires. A second Ctrl-C, while the work has not ended yet, ends the program. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = (): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    controller.abort();
  };
  process.on("SIGINT", interrupt);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", interrupt);
  }
}
