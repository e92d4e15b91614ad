// Submits recorded commands: one call from JavaScript to WebAssembly a step. Knows no layer and no model.
import type { KvDType } from "../memory/dtype.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import { CommandEncoder, type KernelScratch } from "./commands.ts";
import type { CommandTimer } from "./profile.ts";
import type { Threads } from "./threads.ts";

/** Where a command buffer lies, and how many commands it holds. */
export interface CommandBuffer {
  readonly address: number;
  readonly capacity: number;
}

/** Runs command buffers on the threads of one model. */
export class Executor {
  readonly #threads: Threads;
  readonly #memory: WasmMemory;
  readonly #buffer: CommandBuffer;
  readonly #scratch: KernelScratch;
  readonly #kvDtype: KvDType;
  /** The step that the buffer holds, and how many commands it has. */
  #held = "";
  #count = 0;
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
   * Records a step and runs it; returns when it has been computed.
   * @param name of the step. Where the buffer still holds a step of this name, that is what runs: a decode step's commands are the same from token to
   *   token, and between two steps the processor's caches are full of weights, which makes recording them 30 µs. Without a name it is recorded each time.
   * @throws PlatformError when the kernels trap or a thread has stopped: what the step was to write is then half written
   */
  run(record: (c: CommandEncoder) => void, name = ""): void {
    this.#threads.wake();
    const { address, capacity } = this.#buffer;
    if (name === "" || name !== this.#held) {
      this.#held = "";
      const encoder = new CommandEncoder(this.#memory, address, capacity, this.#scratch, this.#kvDtype);
      record(encoder);
      this.#count = encoder.count;
      this.#held = name;
    }
    if (this.timer) this.timer.run(address, this.#count, (command) => this.#threads.run(command, 1));
    else this.#threads.run(address, this.#count);
  }
}
