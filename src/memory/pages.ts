// Pools of equal blocks in linear memory: the KV pages, which sessions share by reference count, and the sessions' own blocks. Knows no layout.
import type { Arena } from "./arena.ts";

/** Blocks of one size, taken from the arena as needed and used again once freed. */
export class BlockPool {
  readonly blockBytes: number;
  readonly #arena: Arena;
  readonly #what: string;
  readonly #free: number[] = [];
  #made = 0;

  /** @param what names the blocks in a MemoryError */
  constructor(arena: Arena, blockBytes: number, what: string) {
    this.#arena = arena;
    this.blockBytes = blockBytes;
    this.#what = what;
  }

  /** Blocks taken from the arena so far, in use or free. */
  get made(): number {
    return this.#made;
  }

  /** Blocks in use. */
  get used(): number {
    return this.#made - this.#free.length;
  }

  /**
   * @returns the address of a block with unspecified content
   * @throws MemoryError when the memory is full
   */
  allocate(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const address = this.#arena.alloc(this.blockBytes, this.#what);
    this.#made++;
    return address;
  }

  /** Gives a block back. */
  free(address: number): void {
    this.#free.push(address);
  }
}

/** KV pages by id. A page holds 32 positions of every attention layer; whoever keeps an id holds one reference. */
export class PagePool {
  readonly #blocks: BlockPool;
  readonly #address: number[] = [];
  readonly #references: number[] = [];
  readonly #freeIds: number[] = [];
  /** Asked when the memory is full: lets a page go that is kept for later only. @returns whether there was one */
  reclaim: () => boolean = () => false;

  constructor(arena: Arena, pageBytes: number) {
    this.#blocks = new BlockPool(arena, pageBytes, "a page of keys and values");
  }

  /** Pages in use. */
  get used(): number {
    return this.#blocks.used;
  }

  /**
   * @returns the id of a page with one reference
   * @throws MemoryError when the memory is full
   */
  allocate(): number {
    const address = this.#block();
    const id = this.#freeIds.pop() ?? this.#address.length;
    this.#address[id] = address;
    this.#references[id] = 1;
    return id;
  }

  #block(): number {
    for (;;) {
      try {
        return this.#blocks.allocate();
      } catch (error) {
        if (!this.reclaim()) throw error;
      }
    }
  }

  /** Adds a reference. */
  retain(id: number): void {
    this.#references[id] = this.references(id) + 1;
  }

  /** Drops a reference; the last one frees the page. */
  release(id: number): void {
    const left = this.references(id) - 1;
    this.#references[id] = left;
    if (left > 0) return;
    this.#blocks.free(this.addressOf(id));
    this.#freeIds.push(id);
  }

  /** @returns how many hold the page */
  references(id: number): number {
    return this.#references[id] ?? 0;
  }

  /** @returns the page's address in linear memory */
  addressOf(id: number): number {
    return this.#address[id] ?? 0;
  }
}
