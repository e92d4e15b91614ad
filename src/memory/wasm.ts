// The part of the WebAssembly JavaScript interface that is used here. TypeScript ships its types with the DOM's only, which neither the core nor every user has.

/** A linear memory. A growth detaches every view on it, or, where threads share it, leaves the view as short as it was: hold addresses, make views when they are used. */
export interface WasmMemory {
  /** A SharedArrayBuffer where threads share the memory: what goes out of this package is a copy. */
  readonly buffer: ArrayBuffer;
  /** @returns the pages it had before */
  grow(pages: number): number;
}

/** Words of a region that keeps its place, for who looks at it often: making a view takes longer than a few reads. */
export class Words {
  readonly #memory: WasmMemory;
  readonly #address: number;
  readonly #length: number;
  #view: Uint32Array<ArrayBuffer> | undefined;

  /** @param length of the region, in words */
  constructor(memory: WasmMemory, address: number, length: number) {
    this.#memory = memory;
    this.#address = address;
    this.#length = length;
  }

  /** @returns a view, valid until the memory grows; made anew where a growth has detached the one before */
  get view(): Uint32Array<ArrayBuffer> {
    if (!this.#view?.length) this.#view = new Uint32Array(this.#memory.buffer, this.#address, this.#length);
    return this.#view;
  }
}

/** A compiled module; opaque. */
export type WasmModule = object;

/** The global of that name. */
export const WebAssembly: {
  readonly Memory: new (descriptor: { readonly initial: number; readonly maximum?: number; readonly shared?: boolean }) => WasmMemory;
  /** Compiles at once: for small modules only, where a runtime compiles at all. */
  readonly Module: new (
    bytes: Uint8Array,
  ) => WasmModule;
  readonly Instance: new (module: WasmModule, imports: object) => { readonly exports: object };
  validate(bytes: Uint8Array): boolean;
  compile(bytes: Uint8Array): Promise<WasmModule>;
  /** Takes a `Response`; not everywhere. */
  readonly compileStreaming?: (response: object) => Promise<WasmModule>;
} = (globalThis as unknown as { readonly WebAssembly: typeof WebAssembly }).WebAssembly;
