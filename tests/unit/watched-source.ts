// A folder or file under watch: counts what is opened, read and closed, and lets a test act at every operation. Passes the real bytes on.
import assert from "node:assert/strict";
import type { ByteSource, Folder } from "../../src/weights/source.ts";

/** Called at operation number `n` (from 1) before it begins; what it throws, the operation throws. Returns what is to be done once it has its answer. */
export type Fault = (n: number) => (() => void) | undefined;

/** Watches what one load does with its sources. */
export class Watch {
  /** Opens and reads so far. */
  operations = 0;
  reads = 0;
  /** Sources that were handed out, and how often each was closed. */
  readonly closed: Map<string, number> = new Map();
  #files = 0;
  readonly #fault: Fault;

  constructor(fault: Fault = () => undefined) {
    this.#fault = fault;
  }

  /** How many sources were handed out and not closed. */
  get open(): number {
    return [...this.closed.values()].filter((times) => times === 0).length;
  }

  /** The same folder or file, watched. */
  wrap(source: ByteSource | Folder): ByteSource | Folder {
    return "open" in source ? this.folder(source) : this.file(source);
  }

  folder(folder: Folder): Folder {
    return {
      name: folder.name,
      open: (path) =>
        this.#at(async () => {
          const source = await folder.open(path);
          return source && this.file(source);
        }),
      list: () => this.#at(async () => (await folder.list?.()) ?? []),
    };
  }

  file(source: ByteSource): ByteSource {
    const id = `${source.name} (${this.#files++})`;
    this.closed.set(id, 0);
    const use = <T>(run: () => Promise<T>): Promise<T> => {
      assert.equal(this.closed.get(id), 0, `${id} is read after it was closed`);
      this.reads++;
      return this.#at(run);
    };
    const { readInto, sibling } = source;
    return {
      name: source.name,
      size: source.size,
      read: (offset, length, signal) => use(() => source.read(offset, length, signal)),
      ...(readInto && { readInto: (offset, target, signal) => use(() => readInto.call(source, offset, target, signal)) }),
      ...(sibling && {
        sibling: (name) =>
          this.#at(async () => {
            const beside = await sibling.call(source, name);
            return beside && this.file(beside);
          }),
      }),
      close: async () => {
        this.closed.set(id, (this.closed.get(id) ?? 0) + 1);
        await source.close?.();
      },
    };
  }

  async #at<T>(run: () => Promise<T>): Promise<T> {
    const after = this.#fault(++this.operations);
    try {
      return await run();
    } finally {
      after?.();
    }
  }
}
