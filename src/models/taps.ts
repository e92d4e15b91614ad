// Taps: copies of what a step computes on its way, for whoever wants hidden states or attentions.
import type { CommandEncoder } from "../kernels/commands.ts";
import type { Arena } from "../memory/arena.ts";
import type { Rows } from "../memory/tensor.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import type { Lfm2Config } from "./config.ts";
import { bufferColumns, type LayerRange, rowStride, type Tap } from "./lfm2.ts";

/** What the layers computed, by name; see `Tap`. Each (T, columns) f32 without padding. */
export type Taps = Map<string, Float32Array>;

/** @returns the first T rows, (T, columns) without their padding */
export function readRows(memory: WasmMemory, rows: Rows, T: number, columns: number): Float32Array {
  const out = new Float32Array(T * columns);
  for (let t = 0; t < T; t++) out.set(new Float32Array(memory.buffer, rows.address + 4 * rows.stride * t, columns), t * columns);
  return out;
}

/** Copies what a step computes on its way into memory taken for that step alone. */
export class TapCollector {
  readonly #arena: Arena;
  readonly #mark: number;
  readonly #T: number;
  readonly #taps: { readonly name: string; readonly rows: Rows; readonly columns: number }[] = [];
  #at: number;

  constructor(arena: Arena, T: number, c: Lfm2Config, { from, to }: LayerRange) {
    this.#arena = arena;
    this.#mark = arena.mark;
    this.#T = T;
    const attention = c.layerTypes.slice(from, to).filter((type) => type === "full_attention").length;
    const floats = rowStride(c.hiddenSize) * (1 + 3 * (to - from)) + rowStride(bufferColumns(c).wide) * attention;
    this.#at = arena.alloc(4 * T * floats, "taps");
  }

  readonly record =
    (c: CommandEncoder): Tap =>
    (name, rows, columns) => {
      c.copy(this.#at, rows, this.#T);
      this.#taps.push({ name, rows: { address: this.#at, stride: rows.stride }, columns });
      this.#at += 4 * this.#T * rows.stride;
    };

  read(into: Taps): void {
    for (const { name, rows, columns } of this.#taps) into.set(name, readRows(this.#arena.memory, rows, this.#T, columns));
  }

  release(): void {
    this.#arena.release(this.#mark);
  }
}
