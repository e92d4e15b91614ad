// One file of the origin private file system being written: at once, or growing under a synchronous handle, which browsers give to dedicated workers.
import { StorageError } from "../../errors.ts";
import type { FileHandleLike } from "../../weights/objects.ts";
import type { Appender } from "../../weights/shelf.ts";
import { doing, full } from "./storage.ts";

interface SyncHandle {
  read(target: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  getSize(): number;
  flush(): void;
  truncate(sizeBytes: number): void;
  close(): void;
}
interface Writable {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
  abort(): Promise<void>;
}

/** Of a `FileSystemFileHandle` what is used. */
export interface FileHandle extends FileHandleLike {
  createWritable?(): Promise<Writable>;
  createSyncAccessHandle?(options?: { mode?: string }): Promise<SyncHandle>;
}

/** A file under a synchronous handle. */
class SyncAppender implements Appender {
  readonly isFull = false;
  readonly #handle: SyncHandle;
  readonly #place: string;
  sizeBytes = 0;

  constructor(handle: SyncHandle, place: string) {
    this.#handle = handle;
    this.#place = place;
  }

  append(bytes: Uint8Array): Promise<void> {
    return doing(this.#place, "keep a file", async () => {
      for (let done = 0; done < bytes.length; ) {
        const count = this.#handle.write(bytes.subarray(done), { at: this.sizeBytes });
        if (count === 0) throw await full(this.#place, "a file");
        done += count;
        this.sizeBytes += count;
      }
    });
  }

  readInto(offset: number, target: Uint8Array): Promise<void> {
    return doing(this.#place, "read a file", async () => {
      for (let done = 0; done < target.length; ) {
        const count = this.#handle.read(target.subarray(done), { at: offset + done });
        if (count === 0) throw new StorageError(`cache: expected ${target.length} bytes at ${offset}, got ${done}: the file was cut.`);
        done += count;
      }
    });
  }

  flush(): Promise<void> {
    return doing(this.#place, "keep a file", async () => this.#handle.flush());
  }

  async close(): Promise<void> {
    this.#handle.close();
  }
}

/** Begins a file anew, to grow. @param place the shelf's */
export async function growFile(file: FileHandle, place: string): Promise<Appender> {
  const handle = await file.createSyncAccessHandle?.();
  if (!handle)
    throw new StorageError(`cache: expected a browser that writes files of ${place} here, got one that does so in workers only.`, {
      code: "not-writable",
    });
  handle.truncate(0);
  return new SyncAppender(handle, place);
}

/** Writes a file whole. @param place the shelf's */
export async function writeWhole(file: FileHandle, bytes: Uint8Array, place: string): Promise<void> {
  const writable = await file.createWritable?.();
  if (writable) {
    const write = async (): Promise<void> => {
      await writable.write(bytes);
      await writable.close(); // it appears now, or not at all
    };
    try {
      return await doing(place, "keep a file", write, bytes.length); // within: once it is aborted there may be room again
    } catch (error) {
      await writable.abort().catch(() => {});
      throw error;
    }
  }
  const appender = await growFile(file, place);
  try {
    await appender.append(bytes);
    await appender.flush();
  } finally {
    await appender.close();
  }
}
