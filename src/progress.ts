// How far a load is, told at a pace that a page can draw: never backwards, never past the total, with a rate and the time that is left. Knows nothing of what is loaded.

/** How far a load is. */
export interface LoadProgress {
  /**
   * `"open"` once where a hub's file was chosen, or the header at an address was read, its total what is still to be downloaded, with the licence; `"read"` while weights stream in, of a pull `"download"`; `"ready"` once at
   * the end. Beside these, with counts of their own: `"wait"` while another process downloads a file, with how much of it that has; `"cache-skipped"` once where the
   * cache cannot keep what comes, and the load goes on without.
   */
  readonly phase: "open" | "wait" | "download" | "read" | "ready" | "cache-skipped";
  /** The file that is read now. */
  readonly file: string;
  /** Bytes of all files so far; never falls, never exceeds the total. */
  readonly loadedBytes: number;
  readonly totalBytes: number;
  /** Over the last seconds; 0 before there is anything to measure. */
  readonly bytesPerSecond: number;
  /** Time that the rest takes at this rate; undefined while there is none. */
  readonly etaMs: number | undefined;
  /** Of phase `"open"`: the licence as the hub or the file tells it, before its weights are downloaded. */
  readonly license?: string | undefined;
  /** Why the cache was skipped. */
  readonly reason?: string;
}

/** What is counted: the rest follows from the clock. */
export type Progress = Omit<LoadProgress, "bytesPerSecond" | "etaMs">;

/** At most ten reports a second, beside those of a new phase or file. */
const EVERY_MS = 100;
/** The rate is that of so long. */
const RATE_MS = 3000;

/** Passes on what is new: a load that starts over is silent until it has caught up. */
export class Meter {
  readonly #listener: (progress: LoadProgress) => void;
  readonly #now: () => number;
  /** When how many bytes were there: one a report, the oldest of them `RATE_MS` ago. */
  readonly #marks: { readonly ms: number; readonly bytes: number }[] = [];
  #last: Progress | undefined;
  #lastMs = 0;

  constructor(listener: (progress: LoadProgress) => void, now: () => number = () => performance.now()) {
    this.#listener = listener;
    this.#now = now;
  }

  report(progress: Progress): void {
    const now = this.#now();
    const last = this.#last;
    if (last && progress.loadedBytes < last.loadedBytes) return;
    const isSame = last?.phase === progress.phase && last.file === progress.file;
    if (last && isSame && (progress.loadedBytes === last.loadedBytes || now - this.#lastMs < EVERY_MS)) return;
    this.#last = progress;
    this.#lastMs = now;
    const bytesPerSecond = this.#rate(now, progress.loadedBytes);
    const left = progress.totalBytes - progress.loadedBytes;
    this.#listener({
      ...progress,
      bytesPerSecond,
      etaMs: bytesPerSecond > 0 ? (left / bytesPerSecond) * 1000 : left === 0 ? 0 : undefined,
    });
  }

  /** Tells what is no step of this load. */
  tell(progress: Progress): void {
    this.#listener({ ...progress, bytesPerSecond: 0, etaMs: undefined });
  }

  /** All is there, and proved. */
  ready(): void {
    if (this.#last) this.report({ ...this.#last, phase: "ready", loadedBytes: this.#last.totalBytes });
  }

  #rate(now: number, bytes: number): number {
    const marks = this.#marks;
    marks.push({ ms: now, bytes });
    while (marks.length > 2 && now - (marks[1]?.ms ?? now) >= RATE_MS) marks.shift();
    const [first] = marks;
    return first && now > first.ms ? ((bytes - first.bytes) / (now - first.ms)) * 1000 : 0;
  }
}
