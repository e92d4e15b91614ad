// Reads numbers and strings off the front of a file by growing ranges, so that a header costs little more than its own bytes. Must not know what they mean.
import { FormatError } from "../errors.ts";
import { MAX_GGUF_HEADER_BYTES, MAX_HEADER_WINDOW_BYTES, MIN_HEADER_WINDOW_BYTES } from "./limits.ts";
import { type ByteSource, fill } from "./source.ts";

/** Longest text that `shortText` takes: tokens and merges are shorter, and a text that is put together letter by letter has to be short. */
const MAX_SHORT_BYTES = 64;

/**
 * A cursor over the beginning of a file. What it reads must have been asked for by `need`, which is asynchronous only when the window is used up:
 * a vocabulary is read without a promise for each token.
 */
export class HeaderReader {
  readonly #source: ByteSource;
  readonly #signal: AbortSignal | undefined;
  readonly #text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Memory of the windows, one after the other. */
  #room = new Uint8Array(0);
  #bytes = this.#room;
  #view = new DataView(new ArrayBuffer(0));
  #windowStart = 0;
  #at = 0;
  #nextWindowBytes = MIN_HEADER_WINDOW_BYTES;

  constructor(source: ByteSource, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#signal = signal;
  }

  /** Absolute offset of the next byte. */
  get position(): number {
    return this.#windowStart + this.#at;
  }

  /** Bytes from here to the end of the file. */
  get remaining(): number {
    return this.#source.size - this.position;
  }

  /** @returns whether `count` bytes can be read without waiting. */
  has(count: number): boolean {
    return this.#at + count <= this.#bytes.length;
  }

  /**
   * Makes `count` bytes readable.
   * @param what - names them in the error
   * @throws FormatError when the file or the limit of a header ends before.
   */
  async need(count: number, what: string): Promise<void> {
    if (this.has(count)) return;
    if (count > this.remaining) {
      throw new FormatError(
        `${this.#source.name}: truncated: expected ${count} bytes for ${what} at ${this.position}, got ${this.remaining}. Fetch the file again.`,
      );
    }
    if (this.position + count > MAX_GGUF_HEADER_BYTES) {
      throw new FormatError(
        `${this.#source.name}: expected a header of at most ${MAX_GGUF_HEADER_BYTES} bytes, the limit, got more at ${what}. This is no LFM2 file.`,
      );
    }
    const start = this.position;
    const length = Math.min(this.remaining, MAX_GGUF_HEADER_BYTES - start, Math.max(count, this.#nextWindowBytes));
    if (this.#room.length < length) this.#room = new Uint8Array(length);
    const bytes = this.#room.subarray(0, length);
    await fill(this.#source, start, bytes, this.#signal);
    this.#bytes = bytes;
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    this.#windowStart = start;
    this.#at = 0;
    this.#nextWindowBytes = Math.min(this.#nextWindowBytes * 2, MAX_HEADER_WINDOW_BYTES);
  }

  /** @returns the next `count` bytes; they are the reader's until the next `need`. */
  bytes(count: number): Uint8Array {
    return this.#bytes.subarray(this.#at, (this.#at += count));
  }

  /** @returns the next `count` bytes as text. @throws FormatError when they are not UTF-8. */
  text(count: number, what: string): string {
    try {
      return this.#text.decode(this.bytes(count));
    } catch (cause) {
      throw new FormatError(`${this.#source.name}: ${what}: expected UTF-8 text, got bytes that are not. The file is damaged.`, { cause });
    }
  }

  /**
   * A string with its length before it, the fast way: of a vocabulary's 65,000 each costs a tenth of what `TextDecoder` and a promise would.
   * @returns the text, where all of it has been read and it is short and of characters below U+0800, as byte-level tokens are; else undefined, and nothing is passed
   */
  shortText(): string | undefined {
    if (!this.has(8)) return undefined;
    const start = this.#at + 8;
    const length = this.#view.getUint32(this.#at, true);
    const end = start + length;
    if (length > MAX_SHORT_BYTES || this.#view.getUint32(this.#at + 4, true) !== 0 || end > this.#bytes.length) return undefined;
    let text = "";
    for (let at = start; at < end; at++) {
      let code = this.#bytes[at]!;
      if (code > 0x7f) {
        const next = at + 1 < end ? this.#bytes[++at]! : 0;
        if (code < 0xc2 || code > 0xdf || (next & 0xc0) !== 0x80) return undefined; // a longer character, or no UTF-8
        code = ((code & 0x1f) << 6) | (next & 0x3f);
      }
      text += String.fromCharCode(code);
    }
    this.#at = end;
    return text;
  }

  u8(): number {
    return this.#view.getUint8(this.#at++);
  }

  i8(): number {
    return this.#view.getInt8(this.#at++);
  }

  u16(): number {
    return this.#view.getUint16((this.#at += 2) - 2, true);
  }

  i16(): number {
    return this.#view.getInt16((this.#at += 2) - 2, true);
  }

  u32(): number {
    return this.#view.getUint32((this.#at += 4) - 4, true);
  }

  i32(): number {
    return this.#view.getInt32((this.#at += 4) - 4, true);
  }

  f32(): number {
    return this.#view.getFloat32((this.#at += 4) - 4, true);
  }

  f64(): number {
    return this.#view.getFloat64((this.#at += 8) - 8, true);
  }

  u64(): bigint {
    return this.#view.getBigUint64((this.#at += 8) - 8, true);
  }

  i64(): bigint {
    return this.#view.getBigInt64((this.#at += 8) - 8, true);
  }
}
