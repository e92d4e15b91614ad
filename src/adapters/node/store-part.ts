// The unfinished beginning of a file on a disk, growing at its end. Node, Deno and Bun share it.
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { StorageError } from "../../errors.ts";
import type { StorePart } from "../../weights/store.ts";
import { show } from "./at-once.ts";
import { doing } from "./doing.ts";

/** Where a file grows, where it lies once it is whole, and where a link shows it then. */
export interface PartPaths {
  readonly part: string;
  readonly blob: string;
  readonly shown: string;
}

class DiskPart implements StorePart {
  readonly #handle: FileHandle;
  readonly #paths: PartPaths;
  sizeBytes: number;

  constructor(handle: FileHandle, sizeBytes: number, paths: PartPaths) {
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
    this.#paths = paths;
  }

  #doing(what: string, run: () => Promise<void>): Promise<void> {
    return doing(what, this.#paths.part, run);
  }

  readInto(offset: number, target: Uint8Array): Promise<void> {
    return this.#doing("read", async () => {
      for (let done = 0; done < target.length; ) {
        const { bytesRead } = await this.#handle.read(target, done, target.length - done, offset + done);
        if (bytesRead === 0)
          throw new StorageError(`${basename(this.#paths.part)}: truncated: expected ${target.length} bytes at ${offset}, got ${done}.`);
        done += bytesRead;
      }
    });
  }

  append(bytes: Uint8Array): Promise<void> {
    return this.#doing("write", async () => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.sizeBytes);
        done += bytesWritten;
        this.sizeBytes += bytesWritten;
      }
    });
  }

  clear(): Promise<void> {
    return this.#doing("cut", async () => {
      await this.#handle.truncate(0);
      this.sizeBytes = 0;
    });
  }

  commit(): Promise<void> {
    const { part, blob, shown } = this.#paths;
    return doing("keep", blob, async () => {
      await this.#handle.datasync(); // a name must not outlive its bytes when the machine stops
      await rename(part, blob);
      await show(blob, shown);
    });
  }

  discard(): Promise<void> {
    return this.#doing("remove", () => rm(this.#paths.part, { force: true }));
  }

  close(): Promise<void> {
    return this.#doing("close", () => this.#handle.close());
  }
}

/** Opens what an earlier process left, or begins with nothing. @throws StorageError */
export function openPart(paths: PartPaths): Promise<StorePart> {
  return doing("write", paths.part, async () => {
    await mkdir(dirname(paths.part), { recursive: true });
    const handle = await open(paths.part, constants.O_RDWR | constants.O_CREAT, 0o644);
    return new DiskPart(handle, (await handle.stat()).size, paths);
  });
}
