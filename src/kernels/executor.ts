// Submits recorded commands: one call from JavaScript to WebAssembly a step. Knows no layer and no model.
import type { KvDType } from "../memory/dtype.ts";
import { COMMAND_BYTES, CommandEncoder, type KernelScratch } from "./commands.ts";
import type { KernelInstance } from "./variants.ts";

/** Commands that a step may take: 16 a layer for 64 layers. */
export const MAX_COMMANDS = 1024;
/** Bytes of the command buffer. */
export const COMMAND_BUFFER_BYTES: number = MAX_COMMANDS * COMMAND_BYTES;

/** Runs command buffers on one instance of the kernels. */
export class Executor {
  readonly #instance: KernelInstance;
  readonly #commands: number;
  readonly #scratch: KernelScratch;
  readonly #kvDtype: KvDType;
  /** Steps run so far. */
  steps = 0;

  /** @param commands address of `COMMAND_BUFFER_BYTES` bytes */
  constructor(instance: KernelInstance, commands: number, scratch: KernelScratch, kvDtype: KvDType) {
    this.#instance = instance;
    this.#commands = commands;
    this.#scratch = scratch;
    this.#kvDtype = kvDtype;
  }

  /** Records a step and runs it; returns when it has been computed. */
  run(record: (c: CommandEncoder) => void): void {
    const encoder = new CommandEncoder(this.#instance.memory, this.#commands, MAX_COMMANDS, this.#scratch, this.#kvDtype);
    record(encoder);
    this.#instance.kernels.run(encoder.address, encoder.count, 0, 1);
    this.steps++;
  }
}
