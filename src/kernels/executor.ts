// Submits recorded commands: one call from JavaScript to WebAssembly a step. Knows no layer and no model.
import type { KvDType } from "../memory/dtype.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import { COMMAND_BYTES, CommandEncoder, type KernelScratch } from "./commands.ts";
import type { CommandTimer } from "./profile.ts";
import type { Threads } from "./threads.ts";

/** Where commands are recorded. */
export interface CommandBuffer {
  readonly address: number;
  /** Commands of the longest step. */
  readonly capacity: number;
  /** The buffer has room for so many of them. */
  readonly steps: number;
}

/** A step that has been recorded. */
interface Recorded {
  readonly address: number;
  readonly count: number;
}

/** Runs command buffers on the threads of one model. */
export class Executor {
  readonly #threads: Threads;
  readonly #memory: WasmMemory;
  readonly #buffer: CommandBuffer;
  readonly #scratch: KernelScratch;
  readonly #kvDtype: KvDType;
  /** Steps that the buffer holds, by their key, and where the next one goes. */
  readonly #held = new Map<number, Recorded>();
  /** The one that ran last: mostly it is the next one too. */
  #last: Recorded | undefined;
  #lastKey: number | undefined;
  #next = 0;
  /** Runs the commands of the next steps one by one, with a clock around each. */
  timer: CommandTimer | undefined;

  constructor(threads: Threads, memory: WasmMemory, buffer: CommandBuffer, scratch: KernelScratch, kvDtype: KvDType) {
    this.#threads = threads;
    this.#memory = memory;
    this.#buffer = buffer;
    this.#scratch = scratch;
    this.#kvDtype = kvDtype;
  }

  /**
   * Runs a step that has been recorded: a decode step's commands are the same from token to token, and between two steps the processor's caches are full of
   * weights, which makes recording them 30 µs. Replies that come and go, and guesses, make steps of a few kinds in turns.
   * @returns whether there is one of this key; if not, nothing has been run
   * @throws PlatformError as `run`
   */
  rerun(key: number): boolean {
    const step = key === this.#lastKey ? this.#last : this.#held.get(key);
    if (!step) return false;
    this.#last = step;
    this.#lastKey = key;
    this.#threads.wake();
    this.#submit(step, key);
    return true;
  }

  /**
   * Records a step and runs it; returns when it has been computed.
   * @param key under which it is held for `rerun`; without one nobody asks for it again
   * @throws PlatformError when the kernels trap or a thread has stopped: what the step was to write is then half written
   */
  run(record: (c: CommandEncoder) => void, key?: number): void {
    this.#threads.wake();
    const { address, capacity, steps } = this.#buffer;
    if (this.#next > capacity * (steps - 1)) {
      this.#held.clear();
      this.#lastKey = undefined;
      this.#next = 0;
    }
    const encoder = new CommandEncoder(this.#memory, address + COMMAND_BYTES * this.#next, capacity, this.#scratch, this.#kvDtype);
    record(encoder);
    const step = { address: encoder.address, count: encoder.count };
    if (key !== undefined) {
      this.#held.set(key, step);
      this.#next += step.count;
    }
    this.#submit(step, key);
  }

  #submit({ address, count }: Recorded, key?: number): void {
    if (this.timer) this.timer.run(address, count, (command) => this.#threads.run(command, 1));
    else this.#threads.run(address, count, key);
  }
}
