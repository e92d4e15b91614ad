// A bar of bytes on a terminal, drawn by a library.
import { progress } from "@clack/prompts";
import type { LoadProgress } from "lfm2-wasm";
import { formatBytes } from "../memory/arena.ts";
import { harmless } from "./terminal.ts";

const STEPS = 1000;

/** Shows how far a download, or the reading of a header, is. It never goes back. */
export class ByteBar {
  readonly #bar: ReturnType<typeof progress>;
  #step = 0;
  isStarted = false;

  /** @param stopped what it says on Ctrl-C */
  constructor(stopped: string) {
    this.#bar = progress({ output: process.stderr, style: "block", max: STEPS, size: 24, withGuide: false, cancelMessage: stopped });
  }

  start({ file }: LoadProgress): void {
    this.#bar.start(harmless(file));
    this.isStarted = true;
    // it has taken the keyboard to itself, Ctrl-C too: that is to be the signal again that ends a call as it should
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
  }

  /** @param isStep whether the event's bytes are those of the bar, and not of something that is waited for */
  show({ phase, file, loadedBytes, totalBytes, bytesPerSecond, etaMs }: LoadProgress, isStep: boolean): void {
    if (!this.isStarted) return;
    const to = isStep && totalBytes > 0 ? Math.max(this.#step, Math.floor((STEPS * loadedBytes) / totalBytes)) : this.#step;
    const left = etaMs === undefined ? "" : `, ${Math.ceil(etaMs / 1000)} s left`;
    const rate = bytesPerSecond > 0 ? `, ${formatBytes(bytesPerSecond)}/s${left}` : "";
    const what = phase === "wait" ? `waiting for another process: ${file}` : file;
    this.#bar.advance(to - this.#step, `${harmless(what)} ${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}${rate}`);
    this.#step = to;
  }

  /** Leaves a line. @param isDone whether it ended well */
  end(isDone: boolean, message: string): void {
    if (isDone) this.#bar.stop(message);
    else this.#bar.error(message);
  }

  /** Leaves nothing. */
  clear(): void {
    if (this.isStarted) this.#bar.clear();
    this.isStarted = false;
  }
}
