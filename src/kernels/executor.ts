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
   * @throws PlatformError when the kernels trap or a thread has stopped: what the step was to write is then half written
   */
  run(record: (c: CommandEncoder) => void): void {
    this.#threads.wake();
    const { address, capacity } = this.#buffer;
    const encoder = new CommandEncoder(this.#memory, address, capacity, this.#scratch, this.#kvDtype);
    record(encoder);
    const submit = (from: number, count: number): void => this.#threads.run(from, count);
    if (this.timer) this.timer.run(encoder.address, encoder.count, (command) => submit(command, 1));
    else submit(encoder.address, encoder.count);
  }
}
