// Submits recorded commands: one call from JavaScript to WebAssembly a step. Knows no layer and no model.
import { PlatformError } from "../errors.ts";
import type { KvDType } from "../memory/dtype.ts";
import { CommandEncoder, type KernelScratch } from "./commands.ts";
import type { KernelInstance } from "./variants.ts";

/** Where a command buffer lies, and how many commands it holds. */
export interface CommandBuffer {
  readonly address: number;
  readonly capacity: number;
}

/** Runs command buffers on one instance of the kernels. */
export class Executor {
  readonly #instance: KernelInstance;
  readonly #buffer: CommandBuffer;
  readonly #scratch: KernelScratch;
  readonly #kvDtype: KvDType;

  constructor(instance: KernelInstance, buffer: CommandBuffer, scratch: KernelScratch, kvDtype: KvDType) {
    this.#instance = instance;
    this.#buffer = buffer;
    this.#scratch = scratch;
    this.#kvDtype = kvDtype;
  }

  /**
   * Records a step and runs it; returns when it has been computed.
   * @throws PlatformError when the kernels trap: what the step was to write is then half written
   */
  run(record: (c: CommandEncoder) => void): void {
    const { address, capacity } = this.#buffer;
    const encoder = new CommandEncoder(this.#instance.memory, address, capacity, this.#scratch, this.#kvDtype);
    record(encoder);
    try {
      this.#instance.kernels.run(encoder.address, encoder.count, 0, 1);
    } catch (cause) {
      throw new PlatformError(
        "engine: expected the kernels to finish the step, got a trap. The session was emptied; report this with the model's name.",
        {
          code: "trap",
          cause,
        },
      );
    }
  }
}
