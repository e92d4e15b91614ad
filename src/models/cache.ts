// The hybrid cache as a value: a session's KV pages and its convolution state. Owns bytes in linear memory; knows neither tokens nor text.
// docs/cache.md draws it: pages shared and copied on write, the convolution state brought back by replaying a few rows over kept keys and values.
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
  /**
   * Tokens before a position that its convolution state depends on: each convolution sees Kc-1 rows back, the stacked ones (Kc-1) · their number.
   * Counted over the whole model, for a layer range gets its rows from those before it.
   */
  readonly replayTokens: number;
  /** Bytes of the kept gates of a session that asks for them (`keepStates`); 0 without convolutions. */
  readonly keptBytes: number;
  /** Bytes of a gate of one layer. */
  readonly rowBytes: number;
  /** Kc-1: gates of a layer's state. */
  readonly stateRows: number;
}

/** Rows behind which the convolution state can be kept: what a pass over drafted tokens takes, or a draft model's way there. */
export const KEPT_ROWS = 20;

/** @returns sizes for the layers `types` of a model, with room for `maxContextTokens` in the page table */
export function cacheSize(c: Lfm2Config, types: readonly LayerType[], kvDtype: KvDType, maxContextTokens: number): CacheSize {
  const attention = countOf(types, "full_attention");
  const heads = { query: c.numAttentionHeads, kv: c.numKeyValueHeads, dim: c.headDim };
  const stateBytes = countOf(types, "conv") * layerStateBytes(c.hiddenSize, c.convLCache);
  const rowBytes = 4 * c.hiddenSize;
  const stateRows = c.convLCache - 1;
  const tableBytes = attention ? 4 * Math.ceil(maxContextTokens / PAGE_POSITIONS) : 0;
  return {
    pageBytes: attention * layerPageBytes(heads, kvDtype),
    stateBytes,
    blockBytes: Math.max(64, roundUp(stateBytes + tableBytes, 64)),
    replayTokens: countOf(c.layerTypes, "conv") * (c.convLCache - 1),
    keptBytes: countOf(types, "conv") * (stateRows + KEPT_ROWS) * rowBytes,
    rowBytes,
    stateRows,
  };
}

/** Where a cache stood. */
export interface CacheMark {
  readonly position: number;
  readonly state: Uint8Array;
}

/** Opens caches on one arena. Nothing is taken for a context before its tokens come. */
export class CachePool {
  readonly pages: PagePool;
  readonly blocks: BlockPool;
  readonly kept: BlockPool;
  readonly size: CacheSize;
  readonly memory: WasmMemory;

  constructor(arena: Arena, size: CacheSize) {
    this.size = size;
    this.memory = arena.memory;
    this.pages = new PagePool(arena, size.pageBytes);
    this.blocks = new BlockPool(arena, size.blockBytes, "a session");
    this.kept = new BlockPool(arena, size.keptBytes, "kept convolution states");
  }

  /** @returns an empty cache at position 0 */
  open(): Cache {
    return new Cache(this);
  }

  /**
   * @param contents bytes of whole pages, as `contentOf` gave them
   * @param position where the cache then stands, at most their end
   * @returns a cache that holds copies of them
   * @throws MemoryError
   */
  restore(contents: readonly Uint8Array[], position: number): Cache {
    const taken: number[] = [];
    try {
      for (const content of contents) {
        const id = this.pages.allocate();
        taken.push(id);
        new Uint8Array(this.memory.buffer, this.pages.addressOf(id), content.length).set(content);
      }
      const cache = this.open();
      cache.adopt(taken, position);
      return cache;
    } finally {
      for (const id of taken) this.pages.release(id); // the cache holds them now
    }
  }

  /** @returns the bytes of a page, a view */
  contentOf(page: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.pages.addressOf(page), this.size.pageBytes);
  }
}

/** Pages of one cache or, until one of them changes it, of several: a page counts each list once. */
class PageList {
  readonly ids: number[];
  holders = 1;

  constructor(ids: number[] = []) {
    this.ids = ids;
  }
}

/** One session's cache. */
export class Cache {
  readonly #pool: CachePool;
  readonly #block: number;
  #list: PageList = new PageList();
  /** Whether the page table has the list's addresses. */
  #hasTable = true;
  #position = 0;
  #statePosition = 0;
  #isOpen = true;
  /** Kept gates, 0 for none: behind the state at `#keptFrom` one for each row up to `#keptTo`, which is below `#keptFrom` where they mean nothing. */
  #kept = 0;
  #keptFrom = 0;
  #keptTo = -1;
  /** From where on they give the state: after a rewind the rows before are those of a replay. */
  #exactFrom = 0;

  constructor(pool: CachePool) {
    this.#pool = pool;
    this.#block = pool.blocks.allocate();
    this.#clearState();
  }

  /** Tokens whose keys and values it holds; the position of the next one. */
  get position(): number {
    return this.#position;
  }

  /**
   * Where the rows of the next step begin: at `position`, or after a rewind up to `replayTokens` before it. Rows below `position` replay: they bring the
   * convolution state back and write no keys and values.
   */
  get statePosition(): number {
    return this.#statePosition;
  }

  /** Ids of the pages, in order; the last one may be partly filled. */
  get pages(): readonly number[] {
    return this.#list.ids;
  }

  /** Address of the convolution state, zero at position 0. */
  get convState(): number {
    return this.#block;
  }

  /** Address of the table of page addresses, one u32 a page. */
  get pageTable(): number {
    const address = this.#block + this.#pool.size.stateBytes;
    if (!this.#hasTable) {
      const { ids } = this.#list;
      new Uint32Array(this.#pool.memory.buffer, address, ids.length).set(ids.map((id) => this.#pool.pages.addressOf(id)));
      this.#hasTable = true;
    }
    return address;
  }

  /**
   * Makes room for a step of `tokens` rows from `statePosition` on; a page that others hold too is copied before the step writes to it.
   * @throws MemoryError when there is no memory for the pages; the cache stays as it was
   */
  reserve(tokens: number): void {
    const end = this.#statePosition + tokens;
    if (this.#pool.size.pageBytes === 0 || end <= this.#position) return;
    if (this.#position % PAGE_POSITIONS !== 0) this.#own(Math.floor(this.#position / PAGE_POSITIONS));
    const want = Math.ceil(end / PAGE_POSITIONS);
    while (this.pages.length < want) this.#put(this.pages.length, this.#pool.pages.allocate());
  }

  /**
   * Keeps the convolution state after each of the next rows, `KEPT_ROWS` at most: until then a rewind to any position from here on needs no replay.
   * @throws MemoryError when there is no memory for them; the cache stays as it was
   */
  keepStates(): void {
    const { kept, size } = this.#pool;
    if (size.keptBytes === 0) return;
    this.#kept ||= kept.allocate();
    this.#keptFrom = this.#statePosition;
    this.#keptTo = this.#statePosition;
    this.#exactFrom = this.#position;
  }

  /** Gives back what `keepStates` took. */
  dropStates(): void {
    if (this.#kept) this.#pool.kept.free(this.#kept);
    this.#kept = 0;
    this.#keptTo = -1;
  }

  /** Where the gates of a step of `tokens` rows are to go, the state before it first; 0 for nowhere. */
  keptGates(tokens: number): number {
    const at = this.#keptTo - this.#keptFrom;
    if (this.#kept === 0 || this.#keptTo !== this.#statePosition || at + tokens > KEPT_ROWS) return 0;
    return this.#kept + at * this.#pool.size.rowBytes;
  }

  /** Counts `tokens` that a step has taken in. */
  advance(tokens: number): void {
    if (this.keptGates(tokens) !== 0) this.#keptTo += tokens;
    this.#statePosition += tokens;
    this.#position = Math.max(this.#position, this.#statePosition);
  }

  /**
   * Back to `position`, at most the present one. Keys and values up to there stay; the next step begins `replayTokens` earlier, or at 0, from a zero state.
   * The rows in front of the replay's end differ from the first run's, but none of that reaches the state at `position` or a key that is kept.
   * Where the state at `position` has been kept, it is put back instead.
   */
  rewind(position: number): void {
    if (position >= this.#position) return;
    this.#truncate(Math.ceil(position / PAGE_POSITIONS));
    if (position >= this.#exactFrom && position <= this.#keptTo) this.#takeState(position);
    else this.#settle(position);
  }

  /** Back to position 0, with a zero convolution state; the pages are given back. */
  reset(): void {
    this.#truncate(0);
    this.#settle(0);
  }

  /**
   * @returns another cache with the same content, in a time that does not depend on the length. No key, no value and no list of pages is copied: both hold them, and who first
   * writes takes a list of its own and copies the one page.
   * @throws MemoryError when there is no memory for its own block
   */
  fork(): Cache {
    const copy = new Cache(this.#pool);
    this.#list.holders++;
    copy.#hold(this.#list);
    copy.#position = this.#position;
    const { buffer } = this.#pool.memory;
    new Uint8Array(buffer).copyWithin(copy.#block, this.#block, this.#block + this.#pool.size.stateBytes);
    copy.#statePosition = this.#statePosition;
    return copy;
  }

  /** Takes over the first `position` positions of `pages`, which stay shared, in place of its own content. */
  adopt(pages: readonly number[], position: number): void {
    const count = this.#pool.size.pageBytes === 0 ? 0 : Math.ceil(position / PAGE_POSITIONS);
    const taken = pages.slice(0, count);
    for (const id of taken) this.#pool.pages.retain(id); // first: they may be its own
    this.#hold(new PageList(taken));
    this.#settle(position);
  }

  /** @returns where it stands, for `putBack`. It has not been rewound: its state is there too */
  mark(): CacheMark {
    return { position: this.#position, state: this.#state().slice() };
  }

  /** Back to where it stood, without a replay, unless a trap has cut it shorter since. */
  putBack({ position, state }: CacheMark): void {
    if (this.#position < position) return;
    this.#truncate(Math.ceil(position / PAGE_POSITIONS));
    this.#settle(position);
    this.#statePosition = position;
    this.#state().set(state);
  }

  /** Drops keys and values and begins at position 0 again, but keeps the convolution state: a packed sequence, whose attention ends at its border. */
  forgetKeys(): void {
    this.#truncate(0);
    this.#position = 0;
    this.#statePosition = 0;
    this.#keptTo = -1;
  }

  /** Gives everything back. Twice does no harm. */
  dispose(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#hold(new PageList());
    this.dropStates();
    this.#pool.blocks.free(this.#block);
  }

  /** Takes a list that counts it already in place of its own. */
  #hold(list: PageList): void {
    const { ids } = this.#list;
    if (--this.#list.holders === 0) for (const id of ids) this.#pool.pages.release(id);
    this.#list = list;
    this.#hasTable = list.ids.length === 0;
  }

  /** Gives it a list of its own, if others hold the list too, with the first `count` pages. */
  #ownList(count: number): void {
    if (this.#list.holders === 1) return;
    const ids = this.#list.ids.slice(0, count);
    for (const id of ids) this.#pool.pages.retain(id);
    this.#list.holders--;
    this.#list = new PageList(ids);
  }

  /** Makes page `index` its own, if others hold it too. */
  #own(index: number): void {
    this.#ownList(this.pages.length);
    const { pages, size, memory } = this.#pool;
    const shared = this.pages[index];
    if (shared === undefined || pages.references(shared) === 1) return;
    const own = pages.allocate();
    const from = pages.addressOf(shared);
    new Uint8Array(memory.buffer).copyWithin(pages.addressOf(own), from, from + size.pageBytes);
    pages.release(shared);
    this.#put(index, own);
  }

  #put(index: number, id: number): void {
    this.#ownList(this.pages.length);
    new Uint32Array(this.#pool.memory.buffer, this.pageTable, index + 1)[index] = this.#pool.pages.addressOf(id);
    this.#list.ids[index] = id;
  }

  #truncate(count: number): void {
    if (count >= this.pages.length) return;
    this.#ownList(count);
    for (const id of this.#list.ids.splice(count)) this.#pool.pages.release(id);
  }

  /** At `position`, with the state still to be brought there. */
  #settle(position: number): void {
    this.#position = position;
    this.#statePosition = Math.max(0, position - this.#pool.size.replayTokens);
    this.#keptTo = -1;
    this.#clearState();
  }

  /** At `position`, with the state that has been kept. */
  #takeState(position: number): void {
    this.#position = position;
    this.#statePosition = position;
    this.#keptTo = position;
    const rows = position - this.#keptFrom;
    const { stateBytes, rowBytes, stateRows } = this.#pool.size;
    const bytes = new Uint8Array(this.#pool.memory.buffer);
    const layerBytes = stateRows * rowBytes;
    for (let to = 0, from = rows * rowBytes; to < stateBytes; to += layerBytes, from += (stateRows + KEPT_ROWS) * rowBytes)
      bytes.copyWithin(this.#block + to, this.#kept + from, this.#kept + from + layerBytes);
  }

  #clearState(): void {
    this.#state().fill(0);
  }

  #state(): Uint8Array {
    return new Uint8Array(this.#pool.memory.buffer, this.#block, this.#pool.size.stateBytes);
  }
}
