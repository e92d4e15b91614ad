// The token ids of a sequence, as a value: copies share their ids until one of them goes another way. Knows nothing of what computes.

/** A list of ids that grows and shrinks at its end. A copy costs the same whatever the length. */
export class TokenList {
  /** Shared by copies. Ids below a copy's length never change; who appends where another already has takes a list of its own. */
  #ids: number[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** @returns the id at `index`; undefined behind the end */
  at(index: number): number | undefined {
    return index < this.#length ? this.#ids[index] : undefined;
  }

  push(id: number): void {
    if (this.#ids.length > this.#length) this.#ids = this.#ids.slice(0, this.#length);
    this.#ids.push(id);
    this.#length++;
  }

  /** Drops all but the first `length`. */
  truncate(length: number): void {
    this.#length = Math.min(length, this.#length);
  }

  copy(): TokenList {
    const copy = new TokenList();
    copy.#ids = this.#ids;
    copy.#length = this.#length;
    return copy;
  }

  /** @returns how many ids at the beginning are those of `ids` */
  commonPrefix(ids: ArrayLike<number>): number {
    const end = Math.min(this.#length, ids.length);
    let n = 0;
    while (n < end && this.#ids[n] === ids[n]) n++;
    return n;
  }

  toArray(): Uint32Array {
    return Uint32Array.from({ length: this.#length }, (_, i) => this.#ids[i] ?? 0);
  }
}
