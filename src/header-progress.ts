// How far the headers of a checkpoint have been read: counts the bytes that its files bring. A part of the package that comes when somebody listens. Knows no format.
import type { Meter } from "./progress.ts";
import { type ByteSource, type Folder, isFolder } from "./weights/source.ts";

/** Of these only the header is read, which ends where it says itself. */
const WEIGHTS = /\.(?:gguf|safetensors)$/i;

/** @returns the source, which tells the meter what has been read of it, and of all that is known to be read so far */
export function countingHeaders<T extends ByteSource | Folder>(source: T, meter: Meter): ByteSource | Folder {
  let [loadedBytes, totalBytes] = [0, 0];
  const watched = (file: ByteSource, isWhole: boolean): ByteSource => {
    const { name, size, readInto, verify, sibling } = file;
    if (isWhole) totalBytes += size;
    const count = async <R>(bytes: number, run: () => Promise<R>): Promise<R> => {
      if (!isWhole) totalBytes += bytes;
      meter.report({ phase: "read", file: name, loadedBytes, totalBytes });
      const result = await run();
      loadedBytes = Math.min(loadedBytes + bytes, totalBytes);
      meter.report({ phase: "read", file: name, loadedBytes, totalBytes });
      return result;
    };
    return {
      ...{ name, size, identity: file.identity, missingBytes: file.missingBytes, isDownloading: file.isDownloading },
      read: (offset, length, signal) => count(Math.max(0, Math.min(length, size - offset)), () => file.read(offset, length, signal)),
      ...(readInto && { readInto: (offset, target, signal) => count(target.length, () => readInto.call(file, offset, target, signal)) }),
      ...(verify && { verify: (signal) => verify.call(file, signal) }),
      ...(sibling && { sibling: async (other) => opened(await sibling.call(file, other), other) }),
      close: async () => file.close?.(),
    };
  };
  const opened = (file: ByteSource | undefined, path: string): ByteSource | undefined => file && watched(file, !WEIGHTS.test(path));
  if (!isFolder(source)) return watched(source, false);
  const { list } = source;
  return {
    name: source.name,
    open: async (path) => opened(await source.open(path), path),
    ...(list && { list: () => list.call(source) }),
  };
}
