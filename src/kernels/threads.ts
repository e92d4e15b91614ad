// Helper threads that compute with this one on a shared memory: started, watched, ended. Knows no runtime: an adapter hands it a function that starts a thread,
// and the file that such a thread runs is little more than `serveThread`. How threads meet within a step is in assembly/lib/threads.ts.
import { PlatformError } from "../errors.ts";
import type { WasmMemory, WasmModule } from "../memory/wasm.ts";
import { Crowding } from "./crowding.ts";
import { instantiate, type KernelInstance, type Kernels } from "./variants.ts";

/** What a helper thread needs; survives the clone into it. */
export interface ThreadStart {
  readonly module: WasmModule;
  /** Shared. */
  readonly memory: WasmMemory;
  /** Number of the thread, 1 to nth - 1; 0 is the one that starts the others. */
  readonly ith: number;
  readonly nth: number;
}

/** A helper thread, as the one that started it sees it. */
export interface Thread {
  /** Resolves when the thread serves, and from then on keeps no process alive; rejects when it cannot start. */
  readonly ready: Promise<void>;
  /** Ends it, whatever it does. Twice does no harm. */
  end(): void;
}

/** Starts threads: what a runtime gives that has them. */
export interface ThreadSource {
  /** @returns how many threads this process should use at most */
  readonly available: () => number;
  /**
   * Starts a thread that calls `serveThread` with `start`.
   * @param onEnd is called when the thread has ended for another reason than `end()`
   * @throws whatever the runtime throws when it has no threads after all
   */
  readonly spawn: (start: ThreadStart, onEnd: (cause: unknown) => void) => Thread;
}

/** How a model is to use threads. */
export interface ThreadOptions {
  /** Threads in all, 2 or more. */
  readonly count: number;
  readonly source: ThreadSource;
  /** Whether fewer would be an error, or are as well. */
  readonly isRequired: boolean;
}

/**
 * A helper thread's whole life, until it is dismissed.
 * @param announce tells the other side that the thread serves
 */
export function serveThread({ module, memory, ith, nth }: ThreadStart, announce: () => void): void {
  const kernels = instantiate(module, memory);
  let seen = kernels.ready();
  announce();
  for (;;) {
    try {
      kernels.serve(seen, ith, nth);
      return;
    } catch {
      kernels.fail(); // whoever waits at the barrier leaves the step; what the trap was, a share of thread 0 usually tells too
      seen = kernels.ready();
    }
  }
}

/** @returns the error of a model that is to have threads and cannot */
export function cannotStart(cause: unknown): PlatformError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PlatformError(`threads: expected to start a thread, got: ${reason}. Pass threads: 1 to compute without.`, {
    code: "no-threads",
    cause,
  });
}

function stopped(cause: unknown): PlatformError {
  return new PlatformError("threads: expected every compute thread to go on, got one that stopped. Load the model again.", {
    code: "thread-stopped",
    cause,
  });
}

function trapped(cause: unknown): PlatformError {
  return new PlatformError(
    "engine: expected the kernels to finish the step, got a trap. The session was emptied; report this with the model's name.",
    { code: "trap", cause },
  );
}

/** This thread and its helpers, or this one alone. */
export class Threads {
  readonly #kernels: Kernels;
  readonly #helpers: Thread[] = [];
  readonly #crowding = new Crowding();
  #isRequired = false;
  /** Steps that were left. */
  #failures = 0;
  #broken: PlatformError | undefined;
  #hasEnded = false;

  /**
   * Begins to start the helpers that `options` ask for; without options there is this thread only.
   * @throws PlatformError when that cannot even begin and they are required
   */
  constructor({ kernels, module, memory }: KernelInstance, options?: ThreadOptions) {
    this.#kernels = kernels;
    if (!options) return;
    const { count, source } = options;
    this.#isRequired = options.isRequired;
    try {
      for (let ith = 1; ith < count; ith++) {
        const helper = source.spawn({ module, memory, ith, nth: count }, (cause) => this.#break(cause));
        helper.ready.catch(() => {}); // `ready()` tells, if it comes to that
        this.#helpers.push(helper);
      }
    } catch (cause) {
      this.#drop(cause);
    }
  }

  /** Threads that compute, this one included. */
  get count(): number {
    return this.#helpers.length + 1;
  }

  /**
   * Waits until all helpers serve, and has them do a first step of nothing: where others want the cores, one may begin so late that a step would take it for ended.
   * Where one cannot start and none are required, this thread goes on alone.
   * @param nothing address of a command of zeros
   * @throws PlatformError
   */
  async ready(nothing: number): Promise<void> {
    try {
      await Promise.all(this.#helpers.map((helper) => helper.ready));
      if (this.#helpers.length > 0 && this.#kernels.run_all(nothing, 1, this.count)) throw new Error("one that did not begin");
    } catch (cause) {
      this.#drop(cause);
    }
  }

  /** Says that a step comes soon: waking takes about as long as recording it. */
  wake(): void {
    if (this.#helpers.length && !this.#crowding.isAlone) this.#kernels.wake();
  }

  /**
   * Runs a step's commands; returns when all of them have been computed. Where others want the cores so much that threads only wait for each other, this one computes alone.
   * @param kind of the step, to compare it with others; without one all threads compute it
   * @throws PlatformError when the kernels trap in any thread, or a thread has stopped: what the step was to write is then half written
   */
  run(commands: number, count: number, kind?: number): void {
    if (this.#broken) throw this.#broken;
    if (this.#helpers.length === 0 || kind === undefined) {
      this.#run(commands, count, this.count);
      return;
    }
    const [start, sleeps] = [performance.now(), this.#kernels.sleeps()];
    this.#run(commands, count, this.#crowding.next(kind) ? 1 : this.count);
    this.#crowding.took(performance.now() - start, (this.#kernels.sleeps() - sleeps) | 0);
  }

  #run(commands: number, count: number, nth: number): void {
    let cause: unknown;
    try {
      const failed = nth === 1 ? this.#kernels.run(commands, count, 0, 1) : this.#kernels.run_all(commands, count, nth);
      if (!failed) return;
    } catch (trap) {
      cause = trap;
      if (nth === 1) throw trapped(trap);
      this.#kernels.fail();
    }
    this.#failures++;
    if (this.#kernels.recover((this.count - 1) * (this.#failures + 1))) throw trapped(cause);
    this.#break(cause);
    throw this.#broken;
  }

  /** Ends the helpers. Twice does no harm. */
  end(): void {
    this.#hasEnded = true;
    if (this.#helpers.length) this.#kernels.dismiss(); // Deno (2.9) never ends a worker that sleeps: it would keep thread and memory
    for (const helper of this.#helpers) helper.end();
  }

  #break(cause: unknown): void {
    if (this.#hasEnded) return;
    this.#broken ??= stopped(cause);
    this.end();
  }

  /** Goes on without helpers, if that will do. */
  #drop(cause: unknown): void {
    if (this.#helpers.length) this.#kernels.dismiss();
    for (const helper of this.#helpers.splice(0)) helper.end();
    if (this.#isRequired) throw cannotStart(cause);
  }
}
