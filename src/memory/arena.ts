// Hands out addresses in one linear memory and grows it. Knows no kernel, no file and no model; what lies where is its callers' business.
import { MemoryError } from "../errors.ts";
import { roundUp } from "./dtype.ts";
import type { WasmMemory } from "./wasm.ts";

/** Bytes of a page of linear memory. */
export const WASM_PAGE_BYTES = 65_536;
/** The end of the address space is never handed out, so that an end address always fits 32 bits. */
export const ADDRESS_SPACE_BYTES: number = 65_536 * WASM_PAGE_BYTES - WASM_PAGE_BYTES;
/** Below this address lie the module's own data and the words that threads share. */
export const HEAP_START: number = WASM_PAGE_BYTES;
/** Linear memory grows by at least this much: a growth costs up to milliseconds in older engines. */
const GROWTH_BYTES = 1 << 20;

/** @returns bytes with a unit, for messages: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  let value = bytes;
  for (; value >= 1024 && unit < 3; unit++) value /= 1024;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A bump allocator with a mark: what was taken after it can be given back at once. */
export class Arena {
  readonly memory: WasmMemory;
  readonly #limitBytes: number;
  readonly #otherBytes: () => number;
  #next: number = HEAP_START;

  /**
   * @param memory the linear memory to hand out
   * @param limitBytes addresses stay below it; at most the 4 GiB that 32 bits reach
   * @param otherBytes what another memory now takes of `limitBytes`
   */
  constructor(memory: WasmMemory, limitBytes: number = Number.POSITIVE_INFINITY, otherBytes: () => number = () => 0) {
    this.memory = memory;
    this.#limitBytes = limitBytes;
    this.#otherBytes = otherBytes;
  }

  /** Addresses stay below it. */
  get limitBytes(): number {
    return Math.max(0, Math.min(this.#limitBytes - this.#otherBytes(), ADDRESS_SPACE_BYTES));
  }

  /** The address that the next allocation gets, before alignment. */
  get mark(): number {
    return this.#next;
  }

  /** Gives back everything taken since `mark` was read. */
  release(mark: number): void {
    this.#next = mark;
  }

  /**
   * @returns the address of `bytes` bytes, aligned to 64
   * @throws MemoryError when the memory cannot grow to hold them
   */
  alloc(bytes: number, what: string): number {
    const address = roundUp(this.#next, 64);
    const end = address + bytes;
    if (end > this.limitBytes) throw outOfMemory(what, bytes, this.limitBytes - address);
    this.#grow(end, what, bytes);
    this.#next = end;
    return address;
  }

  /** Grows the memory so that the next `bytes` bytes need no further growth. */
  reserve(bytes: number, what: string): void {
    this.#grow(this.#next + bytes, what, bytes);
  }

  #grow(end: number, what: string, bytes: number): void {
    const have = this.memory.buffer.byteLength;
    if (end <= have) return;
    const least = Math.ceil((end - have) / WASM_PAGE_BYTES);
    const most = Math.floor((this.limitBytes - have) / WASM_PAGE_BYTES);
    try {
      this.memory.grow(Math.max(least, Math.min(most, GROWTH_BYTES / WASM_PAGE_BYTES)));
    } catch (cause) {
      throw outOfMemory(what, bytes, Math.max(0, have - this.#next), cause);
    }
  }
}

function outOfMemory(what: string, bytes: number, left: number, cause?: unknown): MemoryError {
  return new MemoryError(
    `memory: expected ${formatBytes(bytes)} for ${what}, got ${formatBytes(Math.max(0, left))} that are left. Close sessions, shorten the context or load a smaller dtype.`,
    cause === undefined ? {} : { cause },
  );
}
