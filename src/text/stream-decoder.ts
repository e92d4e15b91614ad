// Turns token ids into text one at a time, never cutting a character. Works from token bytes alone, so that it runs wherever the ids are.
import { InputError } from "../errors.ts";
import { kindOf } from "../values.ts";
import type { TokenBytes } from "./byte-level.ts";

/** How ids become text. */
export interface DecodeOptions {
  /** Leave special tokens out; true unless given. */
  readonly skipSpecialTokens?: boolean;
}

const REPLACEMENT = "\ufffd";

/**
 * A UTF-8 decoder over token ids. All that it returns, joined, is what TextDecoder makes of all bytes at once: a byte that cannot be part of a
 * character becomes U+FFFD at once, the beginning of a character is held back until it is whole.
 */
export class StreamDecoder {
  readonly #tokens: TokenBytes;
  readonly #skipsSpecial: boolean;
  #codePoint = 0;
  #missingBytes = 0;
  /** Where the next continuation byte must lie; narrower than 80–BF after E0, ED, F0 and F4. */
  #lower = 0x80;
  #upper = 0xbf;

  constructor(tokens: TokenBytes, { skipSpecialTokens = true }: DecodeOptions = {}) {
    this.#tokens = tokens;
    this.#skipsSpecial = skipSpecialTokens;
  }

  /** @returns a decoder that stands where this one does */
  fork(): StreamDecoder {
    const copy = new StreamDecoder(this.#tokens, { skipSpecialTokens: this.#skipsSpecial });
    copy.#codePoint = this.#codePoint;
    copy.#missingBytes = this.#missingBytes;
    copy.#lower = this.#lower;
    copy.#upper = this.#upper;
    return copy;
  }

  /**
   * @param id - the next token
   * @returns the text that is complete now, often empty inside a character
   * @throws InputError for an id outside the vocabulary.
   */
  push(id: number): string {
    const { table } = this.#tokens;
    // no call and no view between two steps of a large model, whose weights the caches hold then
    if (table && id >>> 0 === id && id < table.special.length)
      return this.#skipsSpecial && table.special[id] === 1 ? "" : this.pushBytes(table.bytes, table.offsets[id]!, table.offsets[id + 1]!);
    if (this.#skipsSpecial && this.#tokens.isSpecial(id)) return "";
    return this.pushBytes(this.#tokens.tokenBytes(id));
  }

  /** @returns the text that `bytes`, from one index to before another, complete. */
  pushBytes(bytes: Uint8Array, from = 0, to: number = bytes.length): string {
    let text = "";
    for (let i = from; i < to; i++) {
      const byte = bytes[i]!;
      text += byte < 0x80 && this.#missingBytes === 0 ? String.fromCharCode(byte) : this.#pushByte(byte);
    }
    return text;
  }

  /** Ends the text. @returns U+FFFD when a character was left incomplete, else nothing. The decoder can be used again. */
  flush(): string {
    const isOpen = this.#missingBytes > 0;
    this.#missingBytes = 0;
    return isOpen ? REPLACEMENT : "";
  }

  #pushByte(byte: number): string {
    if (this.#missingBytes === 0) return this.#begin(byte);
    if (byte < this.#lower || byte > this.#upper) {
      this.#missingBytes = 0;
      return REPLACEMENT + this.#begin(byte);
    }
    this.#lower = 0x80;
    this.#upper = 0xbf;
    this.#codePoint = (this.#codePoint << 6) | (byte & 0x3f);
    this.#missingBytes--;
    return this.#missingBytes === 0 ? String.fromCodePoint(this.#codePoint) : "";
  }

  #begin(byte: number): string {
    if (byte < 0x80) return String.fromCharCode(byte);
    if (byte < 0xc2 || byte > 0xf4) return REPLACEMENT;
    this.#missingBytes = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    this.#codePoint = byte & (0x3f >> this.#missingBytes);
    this.#lower = byte === 0xe0 ? 0xa0 : byte === 0xf0 ? 0x90 : 0x80;
    this.#upper = byte === 0xed ? 0x9f : byte === 0xf4 ? 0x8f : 0xbf;
    return "";
  }
}

/** @returns the text of all `ids` at once. */
export function decodeIds(tokens: TokenBytes, ids: Iterable<number>, options: DecodeOptions = {}): string {
  if (typeof ids?.[Symbol.iterator] !== "function")
    throw new InputError(`decode: expected token ids to go through, got ${kindOf(ids)}. Pass a list of them.`);
  const decoder = new StreamDecoder(tokens, options);
  const parts: string[] = [];
  for (const id of ids) parts.push(decoder.push(id));
  return parts.join("") + decoder.flush();
}
