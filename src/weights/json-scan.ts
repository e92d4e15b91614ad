// Reads JSON that a stranger wrote: what JSON.parse hides (equal keys, depth) is checked on the text first. Must not know what the JSON means.
import { FormatError } from "../errors.ts";
import { quoted } from "../values.ts";
import { MAX_JSON_DEPTH } from "./limits.ts";
import { commonMistake } from "./source.ts";

/** Limits of one JSON text. */
export interface JsonLimits {
  readonly maxBytes: number;
  /** Deepest nesting; 64 unless given. */
  readonly maxDepth?: number;
}

/**
 * Decodes UTF-8 strictly.
 * @param keepBom - by default a byte order mark at the start is dropped
 * @throws FormatError for bytes that are not UTF-8.
 */
export function decodeUtf8(bytes: Uint8Array, where: string, keepBom = false): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: keepBom }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${where}: expected UTF-8 text, got bytes that are not. The file is damaged or no text.`, { cause });
  }
}

/**
 * Parses a file's bytes as JSON: UTF-8, size, depth, equal keys.
 * @throws FormatError
 */
export function parseJsonBytes(bytes: Uint8Array, where: string, limits: JsonLimits): unknown {
  checkSize(bytes.length, where, limits);
  const mistake = commonMistake(bytes);
  if (mistake !== undefined) throw new FormatError(`${where}: expected JSON, got ${mistake}.`);
  return parseJson(decodeUtf8(bytes, where), where, limits);
}

/**
 * Parses JSON text after checking its size, its depth and that no object has the same key twice (JSON.parse would keep the last).
 * @param where - what messages call the text
 * @returns a fresh value; `__proto__` in it is an own key like any other, so read records by `Object.hasOwn` or `Object.entries`
 * @throws FormatError
 */
export function parseJson(text: string, where: string, limits: JsonLimits): unknown {
  checkSize(text.length, where, limits);
  scan(text, where, limits.maxDepth ?? MAX_JSON_DEPTH);
  try {
    return JSON.parse(text);
  } catch (cause) {
    const got = text.trim() === "" ? "an empty text" : "text that is not";
    throw new FormatError(`${where}: expected JSON, got ${got}. The file is damaged: fetch it again.`, { cause });
  }
}

function checkSize(size: number, where: string, { maxBytes }: JsonLimits): void {
  if (size <= maxBytes) return;
  throw new FormatError(`${where}: expected at most ${maxBytes} bytes of JSON, the limit, got ${size}. This is not the right file.`);
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;

/** @returns the index of the quote that ends the string which begins at `start`, or -1. */
function stringEnd(text: string, start: number): number {
  for (let from = start + 1; ; ) {
    const end = text.indexOf('"', from);
    if (end < 0) return -1;
    let slashes = end - 1;
    while (text.charCodeAt(slashes) === BACKSLASH) slashes--;
    if ((end - slashes) % 2 === 1) return end;
    from = end + 1;
  }
}

/** @returns the key between two quotes with its escapes resolved, so that equal keys are found however they are written. */
function keyText(text: string, start: number, end: number): string | undefined {
  const raw = text.slice(start + 1, end);
  if (!raw.includes("\\")) return raw;
  try {
    return JSON.parse(`"${raw}"`) as string;
  } catch {
    return undefined;
  }
}

/** Walks the text once without building anything. What is no JSON at all is left to JSON.parse. */
function scan(text: string, where: string, maxDepth: number): void {
  const open: (Set<string> | undefined)[] = [];
  let isKey = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) {
      const end = stringEnd(text, i);
      if (end < 0) return;
      if (isKey) noteKey(text, i, end, open.at(-1), where);
      isKey = false;
      i = end;
    } else if (c === COMMA) {
      isKey = open.at(-1) !== undefined;
    } else if (c === 0x7b || c === 0x5b) {
      if (open.length >= maxDepth) {
        throw new FormatError(`${where}: expected a nesting depth of at most ${maxDepth}, got more. This is not the right file.`);
      }
      isKey = c === 0x7b;
      open.push(isKey ? new Set() : undefined);
    } else if (c === 0x7d || c === 0x5d) {
      if (open.length === 0) return;
      open.pop();
      isKey = false;
    }
  }
}

function noteKey(text: string, start: number, end: number, keys: Set<string> | undefined, where: string): void {
  const key = keyText(text, start, end);
  if (key === undefined || keys === undefined) return;
  if (keys.has(key)) {
    throw new FormatError(`${where}: expected every key once, got the duplicate key ${quoted(key)}. The file is damaged.`);
  }
  keys.add(key);
}
