// The beginning of a large file on a shelf, growing by pieces until it is whole (pile.ts).
import { StorageError } from "../errors.ts";
import { forgetSizes, piecePath, piecesOf, recordSizes, removePile, sumOf } from "./pile.ts";
import type { Appender, Shelf } from "./shelf.ts";
import type { ByteSource } from "./source.ts";
import type { StorePart } from "./store.ts";

/** A beginning that grows. */
export class PileWriter implements StorePart {
  readonly #shelf: Shelf;
  readonly #folder: string;
  readonly #sizes: number[];
  readonly #committed: (() => Promise<void>) | undefined;
  /** Of pieces that grow no more, as far as they have been read. */
  readonly #opened = new Map<number, ByteSource>();
  #tail: Appender | undefined;
  #isOver = false;
  #mustRemove = false;

  private constructor(shelf: Shelf, folder: string, sizes: number[], committed: (() => Promise<void>) | undefined) {
    this.#shelf = shelf;
    this.#folder = folder;
    this.#sizes = sizes;
    this.#committed = committed;
  }

  /** Goes on with what is there. @param committed is called, and waited for, when all is there */
  static async begin(shelf: Shelf, folder: string, committed?: () => Promise<void>): Promise<PileWriter> {
    await forgetSizes(shelf, folder); // of pieces that are not there any more
    return new PileWriter(shelf, folder, await piecesOf(shelf, folder), committed);
  }

  get sizeBytes(): number {
    return sumOf(this.#sizes) + (this.#tail?.sizeBytes ?? 0);
  }

  async append(bytes: Uint8Array): Promise<void> {
    if (this.#tail?.isFull) await this.#endTail();
    this.#tail ??= await this.#shelf.create(piecePath(this.#folder, this.#sizes.length));
    await this.#tail.append(bytes);
  }

  async #endTail(): Promise<void> {
    const tail = this.#tail;
    if (!tail) return;
    try {
      await tail.flush();
      this.#sizes.push(tail.sizeBytes);
    } finally {
      this.#tail = undefined;
      await tail.close();
    }
  }

  async readInto(offset: number, target: Uint8Array): Promise<void> {
    let begin = 0;
    let done = 0;
    for (const [index, size] of this.#sizes.entries()) {
      const count = Math.min(target.length - done, begin + size - offset - done);
      if (count > 0) await (await this.#piece(index)).readInto?.(offset + done - begin, target.subarray(done, done + count));
      done += Math.max(0, count);
      begin += size;
    }
    if (done < target.length) await this.#tail?.readInto(offset + done - begin, target.subarray(done));
  }

  async #piece(index: number): Promise<ByteSource> {
    const path = piecePath(this.#folder, index);
    const piece = this.#opened.get(index) ?? (await this.#shelf.open(path));
    if (piece?.size !== this.#sizes[index])
      throw new StorageError(`cache: expected ${this.#sizes[index]} bytes in ${path}, got ${piece?.size ?? "no file"}.`);
    this.#opened.set(index, piece as ByteSource);
    return piece as ByteSource;
  }

  async clear(): Promise<void> {
    await this.#closeAll();
    await removePile(this.#shelf, this.#folder);
    this.#sizes.length = 0;
  }

  /** All is there: makes a file of it. */
  async commit(): Promise<void> {
    await this.#endTail();
    await recordSizes(this.#shelf, this.#folder, this.#sizes);
    this.#isOver = true;
    await this.#committed?.();
  }

  /** Removes what was written as soon as nobody reads it: with `close`. */
  async discard(): Promise<void> {
    this.#mustRemove = true;
  }

  async #closeAll(): Promise<void> {
    for (const piece of this.#opened.values()) await piece.close?.();
    this.#opened.clear();
    await this.#tail?.close();
    this.#tail = undefined;
  }

  /** Gives back what is open; what is neither committed nor discarded stays. */
  async close(): Promise<void> {
    if (!this.#mustRemove && !this.#isOver) await this.#endTail().catch(() => {}); // it is gone on with from where it could be written
    await this.#closeAll();
    if (this.#mustRemove) await removePile(this.#shelf, this.#folder);
  }
}
