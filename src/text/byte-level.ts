// The alphabet of byte-level BPE, and the bytes of every token as one table. Must not know files, merges or text.
import { InputError } from "../errors.ts";

const isPrintable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;

/** Byte → the printable character that stands for it in a vocabulary: itself where it can be seen, else the next one from U+0100 on. */
export const BYTE_ALPHABET: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(isPrintable(b) ? b : next++));
})();

const byteOf: ReadonlyMap<string, number> = new Map(BYTE_ALPHABET.map((c, b) => [c, b]));
const utf8 = new TextEncoder();

/** @returns the bytes that a vocabulary entry stands for; an entry with a character outside the alphabet stands for its own UTF-8. */
export function vocabularyBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOf.get(token[i]!);
    if (byte === undefined) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** The bytes of every token: enough to decode, small enough to send to another thread. */
export interface ByteTable {
  /** All tokens' bytes, one after the other. */
  readonly bytes: Uint8Array;
  /** (V+1) where each token begins; the last is the end. An id without a token has no bytes. */
  readonly offsets: Uint32Array;
  /** (V) 1 for special tokens. */
  readonly special: Uint8Array;
}

/** What a decoder asks of a tokenizer. */
export interface TokenBytes {
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  /** Both answers, for who asks at every token. */
  readonly table?: ByteTable;
}

/**
 * Packs tokens into a table.
 * @param tokens - by id: bytes and whether special; holes are ids without a token
 */
export function packByteTable(tokens: readonly ({ readonly bytes: Uint8Array; readonly special: boolean } | undefined)[]): ByteTable {
  const total = tokens.reduce((sum, t) => sum + (t?.bytes.length ?? 0), 0);
  const table = { bytes: new Uint8Array(total), offsets: new Uint32Array(tokens.length + 1), special: new Uint8Array(tokens.length) };
  let at = 0;
  for (let id = 0; id < tokens.length; id++) {
    const token = tokens[id];
    table.offsets[id] = at;
    if (!token) continue;
    table.bytes.set(token.bytes, at);
    table.special[id] = token.special ? 1 : 0;
    at += token.bytes.length;
  }
  table.offsets[tokens.length] = at;
  return table;
}

/** @returns the two questions of a decoder, answered from a table alone. Ids outside the table are an InputError. */
export function tokensOfTable(table: ByteTable): TokenBytes {
  const { bytes, offsets, special } = table;
  const check = (id: number): number => {
    if (Number.isInteger(id) && id >= 0 && id < special.length) return id;
    throw new InputError(
      `token id: expected a whole number from 0 to ${special.length - 1}, got ${id}. Pass ids of this model's vocabulary.`,
    );
  };
  return {
    table,
    tokenBytes: (id) => bytes.subarray(offsets[check(id)], offsets[id + 1]),
    isSpecial: (id) => special[check(id)] === 1,
  };
}
