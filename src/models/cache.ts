// The hybrid cache as a value: a session's KV pages and its convolution state. Owns bytes in linear memory; knows neither tokens nor text.
import { layerPageBytes, layerStateBytes, PAGE_POSITIONS } from "../kernels/commands.ts";
import type { Arena } from "../memory/arena.ts";
import { type KvDType, roundUp } from "../memory/dtype.ts";
import { BlockPool, PagePool } from "../memory/pages.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import type { LayerType, Lfm2Config } from "./config.ts";

const countOf = (types: readonly LayerType[], type: LayerType): number => types.filter((t) => t === type).length;

/** What a session of `tokens` tokens takes. */
export interface CacheSize {
  /** Bytes of one page of 32 positions, all attention layers together; 0 without any. */
  readonly pageBytes: number;
  /** Bytes of the convolution state, all layers together. */
  readonly stateBytes: number;
  /** Bytes of a session's own block: the convolution state, then the page table. */
  readonly blockBytes: number;
}

/** @returns sizes for the layers `types` of a model, with room for `maxContextTokens` in the page table */
export function cacheSize(c: Lfm2Config, types: readonly LayerType[], kvDtype: KvDType, maxContextTokens: number): CacheSize {
  const attention = countOf(types, "full_attention");
  const heads = { query: c.numAttentionHeads, kv: c.numKeyValueHeads, dim: c.headDim };
  const stateBytes = countOf(types, "conv") * layerStateBytes(c.hiddenSize, c.convLCache);
  const tableBytes = attention ? 4 * Math.ceil(maxContextTokens / PAGE_POSITIONS) : 0;
  return {
    pageBytes: attention * layerPageBytes(heads, kvDtype),
    stateBytes,
    blockBytes: Math.max(64, roundUp(stateBytes + tableBytes, 64)),
  };
}

/** Opens caches on one arena. Nothing is taken for a context before its tokens come. */
export class CachePool {
  readonly pages: PagePool;
  readonly blocks: BlockPool;
  readonly size: CacheSize;
  readonly memory: WasmMemory;

  constructor(arena: Arena, size: CacheSize) {
    this.size = size;
    this.memory = arena.memory;
    this.pages = new PagePool(arena, size.pageBytes);
    this.blocks = new BlockPool(arena, size.blockBytes, "a session");
  }

  /** @returns an empty cache at position 0 */
  open(): Cache {
    return new Cache(this);
  }
}

/** One session's cache. */
export class Cache {
  readonly #pool: CachePool;
  readonly #block: number;
  readonly #pages: number[] = [];
  #position = 0;
  #open = true;

  constructor(pool: CachePool) {
    this.#pool = pool;
    this.#block = pool.blocks.allocate();
    this.#clearState();
  }

  /** Tokens that it holds; the position of the next one. */
  get position(): number {
    return this.#position;
  }

  /** Address of the convolution state, zero at position 0. */
  get convState(): number {
    return this.#block;
  }

  /** Address of the table of page addresses, one u32 a page. */
  get pageTable(): number {
    return this.#block + this.#pool.size.stateBytes;
  }

  /**
   * Makes room for `tokens` more.
   * @throws MemoryError when there is no memory for the pages; the cache stays as it was
   */
  reserve(tokens: number): void {
    const { pages, size, memory } = this.#pool;
    if (size.pageBytes === 0) return;
    const want = Math.ceil((this.#position + tokens) / PAGE_POSITIONS);
    while (this.#pages.length < want) {
      const id = pages.allocate();
      new Uint32Array(memory.buffer, this.pageTable, this.#pages.length + 1)[this.#pages.length] = pages.addressOf(id);
      this.#pages.push(id);
    }
  }

  /** Counts `tokens` that a step has written. */
  advance(tokens: number): void {
    this.#position += tokens;
  }

  /** Back to position 0, with a zero convolution state; the pages are given back. */
  reset(): void {
    for (const id of this.#pages.splice(0)) this.#pool.pages.release(id);
    this.#position = 0;
    this.#clearState();
  }

  /** Gives everything back. Twice does no harm. */
  dispose(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const id of this.#pages.splice(0)) this.#pool.pages.release(id);
    this.#pool.blocks.free(this.#block);
  }

  #clearState(): void {
    new Uint8Array(this.#pool.memory.buffer, this.#block, this.#pool.size.stateBytes).fill(0);
  }
}
