// Growing files where a storage writes whole ones only: bytes are collected, and written once there are enough.
import type { Appender, Shelf } from "./shelf.ts";

/** What a reload may cost, and what is held in memory. */
const MOST_BYTES = 8 << 20;

class Collected implements Appender {
  readonly #shelf: Shelf;
  readonly #path: string;
  #bytes: Uint8Array = new Uint8Array(1 << 18);
  #written = 0;
  sizeBytes = 0;

  constructor(shelf: Shelf, path: string) {
    this.#shelf = shelf;
    this.#path = path;
  }

  get isFull(): boolean {
    return this.sizeBytes >= MOST_BYTES;
  }

  async append(bytes: Uint8Array): Promise<void> {
    const sizeBytes = this.sizeBytes + bytes.length;
    if (sizeBytes > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(sizeBytes, Math.min(2 * this.#bytes.length, MOST_BYTES)));
      larger.set(this.#bytes.subarray(0, this.sizeBytes));
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.sizeBytes);
    this.sizeBytes = sizeBytes;
    if (this.isFull) await this.flush();
  }

  async readInto(offset: number, target: Uint8Array): Promise<void> {
    target.set(this.#bytes.subarray(offset, offset + target.length));
  }

  async flush(): Promise<void> {
    if (this.#written === this.sizeBytes) return;
    await this.#shelf.write(this.#path, this.#bytes.subarray(0, this.sizeBytes));
    this.#written = this.sizeBytes;
  }

  async close(): Promise<void> {}
}

/** @returns a file of the shelf that is written when it is full, and by `flush` */
export const collected = (shelf: Shelf, path: string): Appender => new Collected(shelf, path);
