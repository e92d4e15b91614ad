// The bytes of a saved session: a header that says whose state it is, the ids, whole pages of keys and values, a checksum. Knows no memory and no model.
//
// 0 "LFM2CHAT" · 8 u32 version · 12 u32 header bytes · 16 header, JSON in UTF-8, zeros up to a multiple of 64
// then ids, u32 each, zeros up to a multiple of 64 · then pages as they lie in memory (assembly/README.md, "Layouts") · last 2 × u32 checksum of all before
// Version 1 had K and V of each head side by side in a page, where now K of all heads stands in front of V of all: its pages are put in order.
// Numbers are little-endian. The convolution's state is not stored, nor are keys and values behind the last whole page: both are computed again.
import { FormatError, MemoryError } from "../errors.ts";
import { type Heads, layerPageBytes, PAGE_POSITIONS } from "../kernels/commands.ts";
import { type KvDType, roundUp } from "../memory/dtype.ts";
import { Hash } from "../memory/hash.ts";
import { isRecord } from "../values.ts";

const MAGIC = "LFM2CHAT";
/** Grows with every change of the format. A later version of this package reads every earlier one (CONTRIBUTING.md). */
export const STATE_VERSION = 2;
const HEADER_AT = 16;
const ALIGNMENT = 64;
const CHECKSUM_BYTES = 8;

/** Whose state it is. */
export interface StateOwner {
  /** Tells weights apart. */
  readonly model: string;
  readonly kvDtype: KvDType;
  /** Bytes of one page. */
  readonly pageBytes: number;
  /** Of its attention layers: not in the header, for the fingerprint covers them. */
  readonly heads: Heads;
}

/** A session taken apart. */
export interface SavedState {
  readonly tokens: Uint32Array;
  /** Pages of the tokens' beginning: views, where they are of the newest version. */
  readonly pages: readonly Uint8Array[];
  /** What the caller wanted to have kept with it. */
  readonly note: string;
}

interface Header extends Omit<StateOwner, "heads"> {
  readonly tokens: number;
  readonly pages: number;
  readonly note: string;
}

/** @returns the bytes of `state` */
export function encodeState({ model, kvDtype, pageBytes }: StateOwner, { tokens, pages, note }: SavedState): Uint8Array {
  const header: Header = { model, kvDtype, pageBytes, tokens: tokens.length, pages: pages.length, note };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const tokensAt = roundUp(HEADER_AT + json.length, ALIGNMENT);
  const pagesAt = roundUp(tokensAt + 4 * tokens.length, ALIGNMENT);
  const end = pagesAt + pageBytes * pages.length;
  const out = room(end + CHECKSUM_BYTES);
  for (let i = 0; i < MAGIC.length; i++) out[i] = MAGIC.charCodeAt(i);
  new Uint32Array(out.buffer, 8, 2).set([STATE_VERSION, json.length]);
  out.set(json, HEADER_AT);
  new Uint32Array(out.buffer, tokensAt, tokens.length).set(tokens);
  for (const [i, page] of pages.entries()) out.set(page, pagesAt + pageBytes * i);
  new Uint32Array(out.buffer, end, 2).set(new Hash().add(new Uint32Array(out.buffer, 0, end / 4)).words);
  return out;
}

/** @throws MemoryError when the host has no room for so many */
function room(bytes: number): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new MemoryError(`save: expected ${bytes} bytes for the state, got less from the host. Save a shorter chat.`, { cause });
  }
}

/**
 * @param owner the model that is to go on with it
 * @throws FormatError when the bytes are no state, damaged, of a later version, or another model's
 */
export function decodeState(bytes: Uint8Array, owner: StateOwner): SavedState {
  const whole = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes); // a Buffer's own slice is a view
  const { version, header, tokensAt } = readHeader(whole);
  checkOwner(header, owner);
  const pagesAt = roundUp(tokensAt + 4 * header.tokens, ALIGNMENT);
  const tokens = new Uint32Array(whole.buffer, whole.byteOffset + tokensAt, header.tokens);
  const pages = Array.from({ length: header.pages }, (_, i) => {
    const at = pagesAt + header.pageBytes * i;
    const page = whole.subarray(at, at + header.pageBytes);
    return version === 1 ? inOrder(page, owner.heads, owner.kvDtype) : page;
  });
  return { tokens: tokens.slice(), pages, note: header.note };
}

/** @returns a page of version 1 as it lies in memory now */
function inOrder(page: Uint8Array, heads: Heads, kvDtype: KvDType): Uint8Array {
  const out = new Uint8Array(page.length);
  const layerBytes = layerPageBytes(heads, kvDtype);
  const headBytes = layerBytes / (2 * heads.kv); // of K, or of V
  const scaleBytes = kvDtype === "q8" ? 4 * PAGE_POSITIONS : 0;
  const tileBytes = headBytes - scaleBytes;
  for (let layer = 0; layer < page.length; layer += layerBytes)
    for (let g = 0; g < heads.kv; g++)
      for (const half of [0, 1]) {
        const from = page.subarray(layer + (2 * g + half) * headBytes);
        const to = layer + half * heads.kv * headBytes;
        out.set(from.subarray(0, scaleBytes), to + g * scaleBytes);
        out.set(from.subarray(scaleBytes, headBytes), to + heads.kv * scaleBytes + g * tileBytes);
      }
  return out;
}

function readHeader(bytes: Uint8Array): { version: number; header: Header; tokensAt: number } {
  const isState = bytes.length >= ALIGNMENT && [...MAGIC].every((c, i) => bytes[i] === c.charCodeAt(0));
  if (!isState)
    throw new FormatError(`restore: expected bytes that chat.save() gave, got ${bytes.length} others. Pass them whole.`, NOT_A_STATE);
  const [version = 0, headerBytes = 0] = new Uint32Array(bytes.buffer, bytes.byteOffset + 8, 2);
  if (version > STATE_VERSION || version === 0) {
    throw new FormatError(
      `restore: expected a state of version 1 to ${STATE_VERSION}, got version ${version}. Update lfm2-wasm, or save the chat again.`,
      { code: "state-version" },
    );
  }
  const damaged = (what: string): FormatError =>
    new FormatError(`restore: expected ${what}. The state is damaged: take another copy of it, or start the chat anew.`, {
      code: "checksum",
    });
  const end = bytes.length - CHECKSUM_BYTES;
  if (end % 4 !== 0) throw damaged(`whole words, got ${bytes.length} bytes`);
  const stored = new Uint32Array(bytes.buffer, bytes.byteOffset + end, 2);
  const { words } = new Hash().add(new Uint32Array(bytes.buffer, bytes.byteOffset, end / 4));
  if (words[0] !== stored[0] || words[1] !== stored[1]) throw damaged("the checksum that is written at the end, got another");
  const header = parse(bytes.subarray(HEADER_AT, Math.min(end, HEADER_AT + headerBytes)));
  const tokensAt = roundUp(HEADER_AT + headerBytes, ALIGNMENT);
  const bytesOf = header && roundUp(tokensAt + 4 * header.tokens, ALIGNMENT) + header.pageBytes * header.pages;
  if (!header || bytesOf !== end) throw damaged(`a header that accounts for ${end} bytes, got ${bytesOf ?? "none"}`);
  return { version, header, tokensAt };
}

const NOT_A_STATE = { code: "not-a-state" };

function parse(json: Uint8Array): Header | undefined {
  try {
    const header: unknown = JSON.parse(new TextDecoder().decode(json));
    if (!isRecord(header)) return undefined;
    const { model, kvDtype, pageBytes, tokens, pages, note } = header;
    const counts = [pageBytes, tokens, pages].every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
    return counts && [model, kvDtype, note].every((text) => typeof text === "string") ? (header as unknown as Header) : undefined;
  } catch {
    return undefined; // its caller says so
  }
}

function checkOwner(header: Header, owner: StateOwner): void {
  if (header.model !== owner.model) {
    throw new FormatError(
      `restore: expected a state of this model (${owner.model}), got one of another model or of other weights (${header.model}). Load the checkpoint and dtype that it was saved with.`,
      { code: "other-model" },
    );
  }
  if (header.kvDtype !== owner.kvDtype || header.pageBytes !== owner.pageBytes) {
    throw new FormatError(
      `restore: expected keys and values in ${owner.kvDtype}, as this model keeps them, got ${header.kvDtype}. Load the model with kvDtype: "${header.kvDtype}".`,
      { code: "other-dtype" },
    );
  }
}
