// Large files on a shelf: pieces 0, 1, 2 … in a folder, and `whole`, which is written last and makes a file of them. Pieces without it are the beginning of one.
import { type Shelf, textOf, writeText } from "./shelf.ts";
import { type ByteSource, fill, readClipped, sourceOf, truncated } from "./source.ts";

const recordOf = (folder: string): string => `${folder}/whole`;
const pieceName = (index: number): string => String(index).padStart(5, "0");

/** @returns where a piece lies */
export const piecePath = (folder: string, index: number): string => `${folder}/${pieceName(index)}`;

/** @returns all pieces together */
export const sumOf = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);

/** @returns what `whole` says: the bytes of each piece; undefined where it is not there, or torn */
async function recordedSizes(shelf: Shelf, folder: string): Promise<number[] | undefined> {
  const text = await textOf(shelf, recordOf(folder));
  if (text === undefined || !/^\d{1,15}(?: \d{1,15})*\n$/.test(text)) return undefined;
  return text.trim().split(" ").map(Number);
}

/** Makes a file of the pieces that are there. @param sizes of each */
export function recordSizes(shelf: Shelf, folder: string, sizes: readonly number[]): Promise<void> {
  return writeText(shelf, recordOf(folder), `${sizes.join(" ") || 0}\n`);
}

/** Makes no file of the pieces any more. */
export const forgetSizes = (shelf: Shelf, folder: string): Promise<void> => shelf.remove(recordOf(folder));

/** Makes nothing of a file be found, and then removes it: pieces that are open somewhere may stay until the next time. */
export async function removePile(shelf: Shelf, folder: string): Promise<void> {
  await forgetSizes(shelf, folder);
  await shelf.remove(folder);
}

/** @returns bytes of a whole file; undefined where there is none */
export async function wholeBytes(shelf: Shelf, folder: string): Promise<number | undefined> {
  const sizes = await recordedSizes(shelf, folder);
  return sizes && sumOf(sizes);
}

/** @returns sizes of the pieces of a beginning, up to the first that is missing */
export async function piecesOf(shelf: Shelf, folder: string): Promise<number[]> {
  const files = await shelf.list(folder);
  const sizes: number[] = [];
  for (let size = files.get(pieceName(0)); size !== undefined; size = files.get(pieceName(sizes.length))) sizes.push(size);
  return sizes;
}

/** @returns how much of a file that is not whole is there */
export async function beginningBytes(shelf: Shelf, folder: string): Promise<number> {
  return (await wholeBytes(shelf, folder)) === undefined ? sumOf(await piecesOf(shelf, folder)) : 0;
}

/**
 * @param name what errors call it
 * @returns the file; undefined where it is not there whole, with the sizes that were recorded
 */
export async function openPile(shelf: Shelf, folder: string, name: string): Promise<ByteSource | undefined> {
  const sizes = await recordedSizes(shelf, folder);
  if (!sizes) return undefined;
  const pieces: ByteSource[] = [];
  const close = async (): Promise<void> => {
    for (const piece of pieces) await piece.close?.();
  };
  for (const [index, size] of sizes.entries()) {
    const piece = await shelf.open(piecePath(folder, index));
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
      await fill(piece, at - begin, part, signal);
      done += part.length;
    }
  };
  // a read of nothing looks at its signal all the same
  const empty = sourceOf(name, 0, async () => new Uint8Array(0));
  const read: ByteSource["read"] = (offset, length, signal) =>
    size === 0 ? empty.read(offset, length, signal) : readClipped({ size, readInto }, offset, length, signal);
  return { name, size, readInto, read, close };
}
