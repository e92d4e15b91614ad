// Large files on a shelf: pieces 0, 1, 2 … in a folder, and `whole`, which is written last and makes a file of them. Pieces without it are the beginning of one.
import { StorageError } from "../../errors.ts";
import { type ByteSource, readClipped, readExactly, sourceOf, truncated } from "../../weights/source.ts";
import type { Appender, Shelf } from "./shelf.ts";

/** Longest record: sizes of a thousand pieces take some 10 KB. */
const MAX_RECORD_BYTES = 1 << 20;

const WHOLE = "whole";
const pieceName = (index: number): string => String(index).padStart(5, "0");

/** @returns the text of a small file; undefined where there is none */
export async function textOf(shelf: Shelf, path: string): Promise<string | undefined> {
  const source = await shelf.open(path);
  if (!source) return undefined;
  try {
    return source.size > MAX_RECORD_BYTES ? undefined : new TextDecoder().decode(await readExactly(source, 0, source.size));
  } finally {
    await source.close?.();
  }
}

/** Writes a small text. */
export const writeText = (shelf: Shelf, path: string, text: string): Promise<void> => shelf.write(path, new TextEncoder().encode(text));

/** What `whole` says: the bytes of each piece. A record that is torn is none. */
function sizesOf(text: string | undefined): number[] | undefined {
  if (text === undefined || !/^\d{1,15}(?: \d{1,15})*\n$/.test(text)) return undefined;
  return text.trim().split(" ").map(Number);
}

const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);

/** @returns bytes of a whole file; undefined where there is none */
export async function wholeBytes(shelf: Shelf, folder: string): Promise<number | undefined> {
  const sizes = sizesOf(await textOf(shelf, `${folder}/${WHOLE}`));
  return sizes && sum(sizes);
}

/** @returns sizes of the pieces of a beginning, up to the first that is missing */
async function piecesOf(shelf: Shelf, folder: string): Promise<number[]> {
  const files = await shelf.list(folder);
  const sizes: number[] = [];
  for (let size = files.get(pieceName(0)); size !== undefined; size = files.get(pieceName(sizes.length))) sizes.push(size);
  return sizes;
}

/** @returns how much of a file that is not whole is there */
export async function beginningBytes(shelf: Shelf, folder: string): Promise<number> {
  return (await wholeBytes(shelf, folder)) === undefined ? sum(await piecesOf(shelf, folder)) : 0;
}

/**
 * @param name what errors call it
 * @returns the file; undefined where it is not there whole, with the sizes that were recorded
 */
export async function openPile(shelf: Shelf, folder: string, name: string): Promise<ByteSource | undefined> {
  const sizes = sizesOf(await textOf(shelf, `${folder}/${WHOLE}`));
  if (!sizes) return undefined;
  const pieces: ByteSource[] = [];
  const close = async (): Promise<void> => {
    for (const piece of pieces) await piece.close?.();
  };
  for (const [index, size] of sizes.entries()) {
    const piece = await shelf.open(`${folder}/${pieceName(index)}`);
    if (piece) pieces.push(piece);
    if (piece?.size === size) continue;
    await close();
    return undefined;
  }
  return joined(name, pieces, close);
}

/** @returns sources one after the other as one */
function joined(name: string, pieces: readonly ByteSource[], close: () => Promise<void>): ByteSource {
  const ends: number[] = [];
  for (const { size } of pieces) ends.push((ends.at(-1) ?? 0) + size);
  const size = ends.at(-1) ?? 0;
  const readInto: ByteSource["readInto"] & object = async (offset, target, signal) => {
    if (offset < 0 || offset + target.length > size) throw truncated(name, offset, target.length, `a file of ${size}`);
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const index = ends.findIndex((end) => at < end);
      const piece = pieces[index] as ByteSource;
      const begin = (ends[index] ?? 0) - piece.size;
      const part = target.subarray(done, done + Math.min(target.length - done, begin + piece.size - at));
      if (piece.readInto) await piece.readInto(at - begin, part, signal);
      else part.set(await readExactly(piece, at - begin, part.length, signal));
      done += part.length;
    }
  };
  // a read of nothing looks at its signal all the same
  const empty = sourceOf(name, 0, async () => new Uint8Array(0));
  const read: ByteSource["read"] = (offset, length, signal) =>
    size === 0 ? empty.read(offset, length, signal) : readClipped({ size, readInto }, offset, length, signal);
  return { name, size, readInto, read, close };
}

/** Makes nothing of a file be found, and then removes it: pieces that are open somewhere may stay until the next time. */
export async function removePile(shelf: Shelf, folder: string): Promise<void> {
  await shelf.remove(`${folder}/${WHOLE}`);
  await shelf.remove(folder);
}

/** A beginning that grows. */
export class PileWriter {
  readonly #shelf: Shelf;
  readonly #folder: string;
  readonly #sizes: number[];
  /** Of pieces that grow no more, as far as they have been read. */
  readonly #opened = new Map<number, ByteSource>();
  #tail: Appender | undefined;
  #isOver = false;
  #mustRemove = false;

  private constructor(shelf: Shelf, folder: string, sizes: number[]) {
    this.#shelf = shelf;
    this.#folder = folder;
    this.#sizes = sizes;
  }

  /** Goes on with what is there. */
  static async begin(shelf: Shelf, folder: string): Promise<PileWriter> {
    await shelf.remove(`${folder}/${WHOLE}`); // of pieces that are not there any more
    return new PileWriter(shelf, folder, await piecesOf(shelf, folder));
  }

  get sizeBytes(): number {
    return sum(this.#sizes) + (this.#tail?.sizeBytes ?? 0);
  }

  #path(index: number): string {
    return `${this.#folder}/${pieceName(index)}`;
  }

  async append(bytes: Uint8Array): Promise<void> {
    if (this.#tail?.isFull) await this.#endTail();
    this.#tail ??= await this.#shelf.create(this.#path(this.#sizes.length));
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
    const piece = this.#opened.get(index) ?? (await this.#shelf.open(this.#path(index)));
    if (piece?.size !== this.#sizes[index])
      throw new StorageError(`cache: expected ${this.#sizes[index]} bytes in ${this.#path(index)}, got ${piece?.size ?? "no file"}.`);
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
    await writeText(this.#shelf, `${this.#folder}/${WHOLE}`, `${(this.#sizes.length > 0 ? this.#sizes : [0]).join(" ")}\n`);
    this.#isOver = true;
  }

  /** Removes what was written as soon as nobody reads it: with `close`. */
  discard(): void {
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
