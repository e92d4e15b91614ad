// One row of logits in linear memory with the kernels that sampling needs on it. Knows no sampling option and no random number.
import { InputError } from "../errors.ts";
import { roundUp } from "../memory/dtype.ts";

/** The exports of the module that work on logits. */
export interface SamplingKernels {
  penalize_f32(x: number, ids: number, count: number, penalty: number): void;
  divide_f32(x: number, n: number, by: number): void;
  softmax_f32(p: number, x: number, n: number): number;
  all_finite_f32(x: number, n: number): number;
  argmax_f32(x: number, n: number): number;
  topk_f32(values: number, indices: number, x: number, n: number, k: number): void;
}

/** The linear memory that holds the row; it may grow, and its buffer then changes. */
export interface LogitsMemory {
  readonly buffer: ArrayBufferLike;
}

/** The largest logits with their ids, largest first, ties by id; copies. */
export interface TopLogits {
  readonly values: Float32Array;
  readonly ids: Uint32Array;
}

/** The most of a row's largest logits that a step keeps without the row. */
export const MOST_LARGEST = 64;

/** A row's largest logits, largest first, ties by id. The first is NaN where a logit of the row is NaN or +Infinity; of places that nothing above -Infinity took the id is -1. */
export interface LargestLogits {
  readonly values: Float32Array;
  readonly ids: Int32Array;
}

/** A view on one row of logits (V,) f32. It owns no memory: its holder gives the row and the scratch, and both must stay in place. */
export class Logits {
  /** V, the number of logits. */
  readonly size: number;
  readonly #kernels: SamplingKernels;
  readonly #memory: LogitsMemory;
  readonly #address: number;
  /** (V,) f32: exponentials. */
  readonly #weights: number;
  /** (V,) f32: values gathered for the kernels, or written by them. */
  readonly #values: number;
  /** (V,) u32: ids for the kernels, or written by them. */
  readonly #ids: number;
  /** Of the row; a view is made once and again after a growth, which detaches it. */
  #view: Float32Array | undefined;

  /**
   * @param address of the row, V f32, 16-byte aligned
   * @param scratchAddress of `Logits.scratchBytes(size)` bytes, 16-byte aligned
   * @param size V
   */
  constructor(kernels: SamplingKernels, memory: LogitsMemory, address: number, scratchAddress: number, size: number) {
    const part = roundUp(size * 4, 16);
    this.size = size;
    this.#kernels = kernels;
    this.#memory = memory;
    this.#address = address;
    this.#weights = scratchAddress;
    this.#values = scratchAddress + part;
    this.#ids = scratchAddress + 2 * part;
  }

  /** @returns bytes of scratch that a row of `size` logits needs. */
  static scratchBytes(size: number): number {
    return 3 * roundUp(size * 4, 16);
  }

  /** @returns the logits (V,) where they lie; valid until the memory grows. */
  view(): Float32Array {
    if (!this.#view?.length) this.#view = this.#floats(this.#address, this.size);
    return this.#view;
  }

  /** @returns a copy of the logits (V,). */
  copy(): Float32Array {
    return this.view().slice();
  }

  /** Puts other values (V,) into the row. @throws InputError when there are none, or not so many */
  replace(values: Float32Array | undefined): void {
    if (values?.length !== this.size)
      throw new InputError(
        `logits: expected ${this.size} values from the processor, got ${values?.length ?? "none"}. Change the array that you are given.`,
      );
    this.view().set(values);
  }

  /** @returns false when a logit is NaN or +Infinity. -Infinity is a token that was ruled out, and is well. */
  isFinite(): boolean {
    return this.#kernels.all_finite_f32(this.#address, this.size) !== 0;
  }

  /** @returns the id of the largest logit, the lowest of several. */
  argmax(): number {
    return this.#kernels.argmax_f32(this.#address, this.size);
  }

  /**
   * Repetition penalty, in place: a logit below zero is multiplied, another divided.
   * @param ids each id once; those outside the row are passed over
   */
  penalize(ids: Iterable<number>, penalty: number): void {
    let list = this.#idView();
    let count = 0;
    for (const id of ids) {
      if (!(id >= 0 && id < this.size)) continue;
      if (count === this.size) {
        this.#kernels.penalize_f32(this.#address, this.#ids, count, penalty);
        list = this.#idView();
        count = 0;
      }
      list[count++] = id;
    }
    if (count > 0) this.#kernels.penalize_f32(this.#address, this.#ids, count, penalty);
  }

  /** Divides every logit, in place: the temperature. */
  divide(by: number): void {
    this.#kernels.divide_f32(this.#address, this.size, by);
  }

  /** Computes exp(logit - largest) of every logit into the scratch, see `probabilities()`. @returns their sum. */
  softmax(): number {
    return this.#kernels.softmax_f32(this.#weights, this.#address, this.size);
  }

  /** @returns what the last `softmax()` computed (V,), not normalised; valid until the next `softmax()` or `weigh()`. */
  probabilities(): Float32Array {
    return this.#floats(this.#weights, this.size);
  }

  /** @param k 1 to V */
  topK(k: number): TopLogits {
    this.#kernels.topk_f32(this.#values, this.#ids, this.#address, this.size, k);
    return { values: this.#floats(this.#values, k).slice(), ids: this.#idView().slice(0, k) };
  }

  /**
   * @param values some of the logits (n,), n ≤ V
   * @returns exp(value - largest of them) of each (n,): the bits that `softmax()` gives when the largest logit is among them
   */
  weigh(values: Float32Array): Float32Array {
    this.#floats(this.#values, values.length).set(values);
    this.#kernels.softmax_f32(this.#weights, this.#values, values.length);
    return this.#floats(this.#weights, values.length).slice();
  }

  #floats(address: number, length: number): Float32Array {
    return new Float32Array(this.#memory.buffer, address >>> 0, length);
  }

  #idView(): Uint32Array {
    return new Uint32Array(this.#memory.buffer, this.#ids >>> 0, this.size);
  }
}
