// Pages of sequences that nobody has open any more, found again by their ids: a radix tree, a page of ids an edge. Knows no session and computes nothing.
import { PAGE_POSITIONS } from "../kernels/commands.ts";
import type { PagePool } from "../memory/pages.ts";

interface Node {
  readonly parent: Node | undefined;
  /** Ids of the page's positions: 32, or fewer where a sequence ended. */
  ids: readonly number[];
  page: number;
  readonly children: Node[];
}

/** The beginning of a sequence that is held somewhere. */
export interface Prefix {
  readonly length: number;
  /** Pages that hold it; of the last one perhaps only the first positions. */
  readonly pages: readonly number[];
}

/** @returns how many ids from the beginning are those of `ids` from `at` on */
function common(own: readonly number[], ids: ArrayLike<number>, at: number): number {
  const end = Math.min(own.length, ids.length - at);
  let n = 0;
  while (n < end && own[n] === ids[at + n]) n++;
  return n;
}

/** Keeps pages within a number of bytes; those that were used longest ago go first. */
export class PrefixTree {
  readonly #pages: PagePool;
  readonly #most: number;
  readonly #root: Node = { parent: undefined, ids: [], page: -1, children: [] };
  /** Every node, the one that was used longest ago first. A use counts for those above too, and last: so the first is always a leaf. */
  readonly #order = new Set<Node>();

  /** @param budgetBytes that its pages may take, `pageBytes` each */
  constructor(pages: PagePool, pageBytes: number, budgetBytes: number) {
    this.#pages = pages;
    this.#most = pageBytes > 0 ? Math.floor(budgetBytes / pageBytes) : 0;
  }

  /** Pages that nobody else holds. */
  get ownPages(): number {
    let count = 0;
    for (const { page } of this.#order) if (this.#pages.references(page) === 1) count++;
    return count;
  }

  /** Keeps `pages`, which hold the first `length` of `ids`. They must not be written to any more, but by who has made a copy. */
  insert(ids: ArrayLike<number>, length: number, pages: readonly number[]): void {
    if (this.#most === 0) return;
    let node = this.#root;
    for (const [i, page] of pages.entries()) {
      const at = PAGE_POSITIONS * i;
      const count = Math.min(PAGE_POSITIONS, length - at);
      if (count <= 0) break;
      node = this.#child(node, Array.prototype.slice.call(ids, at, at + count), page);
      if (node.ids.length < PAGE_POSITIONS) break;
    }
    this.#touch(node);
    while (this.#order.size > this.#most) this.evict();
  }

  /** @returns the longest beginning of `ids` that it holds. The pages are the tree's until they are retained. */
  find(ids: ArrayLike<number>): Prefix {
    const pages: number[] = [];
    let node = this.#root;
    let length = 0;
    while (length === PAGE_POSITIONS * pages.length) {
      const [child, count] = this.#nearest(node, ids, length);
      if (!child) break;
      pages.push(child.page);
      length += count;
      node = child;
    }
    this.#touch(node);
    return { length, pages };
  }

  /** Lets the page go that was used longest ago. @returns whether there was one */
  evict(): boolean {
    const [oldest] = this.#order;
    if (!oldest) return false;
    this.#order.delete(oldest);
    const siblings = oldest.parent?.children;
    siblings?.splice(siblings.indexOf(oldest), 1);
    this.#pages.release(oldest.page);
    return true;
  }

  /** The child that holds `ids`, made where there is none. */
  #child(parent: Node, ids: readonly number[], page: number): Node {
    const [nearest, count] = this.#nearest(parent, ids, 0);
    if (nearest && count === ids.length) return nearest;
    this.#pages.retain(page);
    if (nearest && count === nearest.ids.length) {
      this.#pages.release(nearest.page); // the beginning of what comes now
      nearest.ids = ids;
      nearest.page = page;
      return nearest;
    }
    const node = { parent, ids, page, children: [] };
    parent.children.push(node);
    this.#order.add(node);
    return node;
  }

  /** The child that shares most with `ids` from `at` on, and how much; none when that is nothing. */
  #nearest(parent: Node, ids: ArrayLike<number>, at: number): [Node | undefined, number] {
    let best: Node | undefined;
    let most = 0;
    for (const child of parent.children) {
      const count = common(child.ids, ids, at);
      if (count > most) [best, most] = [child, count];
    }
    return [best, most];
  }

  #touch(node: Node): void {
    for (let n: Node | undefined = node; n && n !== this.#root; n = n.parent) {
      this.#order.delete(n);
      this.#order.add(n);
    }
  }
}
