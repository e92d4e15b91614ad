// What an adapter gives that can put an engine into a worker.
import type { StartThread } from "./threads.ts";

/** A worker that runs `serveEngine`, as the one that started it sees it. */
export interface EngineWorker {
  post(message: unknown, transfer: readonly object[]): void;
  /** Whether an answer is awaited: only then may it keep the process alive. Left out where nothing does. */
  hold?(isAwaited: boolean): void;
  /** Ends it, whatever it does. Twice does no harm. */
  end(): void;
}

/** The way to workers. */
export interface EngineWorkers {
  /** Whether `engine: "auto"` means a worker. */
  readonly isDefault: boolean;
  /** Starts the helper threads of an engine in a worker; left out where that does it itself. */
  readonly startThread?: StartThread;
  /** Whether an object reaches a worker by reference, as a page's File does; everything else is read over the channel. Left out: none does. */
  readonly crosses?: (source: object) => boolean;
  /**
   * Starts a worker.
   * @param onMessage is called with what it posts
   * @param onEnd is called when it could not start, or has ended for another reason than `end()`
   * @throws whatever the runtime throws when it has no workers after all
   */
  start(onMessage: (message: unknown) => void, onEnd: (cause: unknown) => void): EngineWorker;
}
