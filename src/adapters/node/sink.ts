// A file that appears at once, written beside its place under another name. Node, Deno and Bun share it.
import { randomUUID } from "node:crypto";
import { type FileHandle, link, open, rename, rm, stat } from "node:fs/promises";
import { StorageError } from "../../errors.ts";
import type { FileSink } from "../../weights/sink.ts";
import { codeOf, refusal } from "./fs-errors.ts";

function refused(what: string, path: string, cause: unknown): StorageError {
  if (cause instanceof StorageError) return cause;
  const isFull = ["ENOSPC", "EDQUOT", "EFBIG"].includes(codeOf(cause));
  const advice = isFull ? "Free some space, or name a place on another disk" : "Check the path";
  return refusal(`${path}: expected to ${what} the file`, cause, isFull ? "storage-full" : undefined, advice);
}

const exists = (path: string): StorageError =>
  new StorageError(`${path}: expected no file of this name, got one. Name another, or ask for it to be replaced (--force).`, {
    code: "exists",
  });

const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

class NodeSink implements FileSink {
  readonly #path: string;
  readonly #temporary: string;
  readonly #handle: FileHandle;
  readonly #overwrite: boolean;
  #isOpen = true;
  #isDone = false;

  constructor(path: string, temporary: string, handle: FileHandle, overwrite: boolean) {
    this.#path = path;
    this.#temporary = temporary;
    this.#handle = handle;
    this.#overwrite = overwrite;
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; ) done += (await this.#handle.write(bytes, done)).bytesWritten;
    } catch (cause) {
      throw refused("write", this.#path, cause);
    }
  }

  async commit(): Promise<void> {
    try {
      await this.#handle.sync();
      await this.#close();
      await this.#show();
      this.#isDone = true;
    } catch (cause) {
      throw refused("finish", this.#path, cause);
    }
  }

  /** Without `overwrite` a link, which never replaces; where there are none, a rename to a name that is free. */
  async #show(): Promise<void> {
    if (this.#overwrite) return rename(this.#temporary, this.#path);
    try {
      await link(this.#temporary, this.#path);
      await rm(this.#temporary, { force: true });
    } catch (error) {
      if (codeOf(error) === "EEXIST" || (await isThere(this.#path))) throw exists(this.#path);
      await rename(this.#temporary, this.#path);
    }
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#handle.close();
  }

  async discard(): Promise<void> {
    if (this.#isDone) return;
    this.#isDone = true;
    await this.#close().catch(() => {}); // it is thrown away
    await rm(this.#temporary, { force: true });
  }
}

/**
 * @param overwrite whether a file of that name may be replaced
 * @throws StorageError, code `"exists"` where there is one that may not
 */
export async function createFile(path: string, { overwrite = false }: { readonly overwrite?: boolean } = {}): Promise<FileSink> {
  if (!overwrite && (await isThere(path))) throw exists(path);
  const temporary = `${path}.${randomUUID()}.partial`;
  try {
    return new NodeSink(path, temporary, await open(temporary, "wx"), overwrite);
  } catch (cause) {
    throw refused("create", path, cause);
  }
}
