// Checks a tokenizer.json before anything is built from it: the library under the tokenizer takes whatever ids and merges it is given.
// Must not know where the JSON came from.
import { FormatError, UnsupportedError } from "../errors.ts";
import { isRecord, kindOf, quoted } from "../values.ts";
import { BYTE_ALPHABET } from "./byte-level.ts";
import { MAX_ADDED_CHARACTERS, MAX_AROUND_IDS, MAX_TOKEN_BYTES, MAX_TOKEN_IDS } from "./limits.ts";
import type { AddedToken } from "./segments.ts";

/** The split pattern of LFM2 and Llama 3. Patterns are an allow-list: a stranger's could take for ever, and JavaScript cannot stop one. */
export const LFM2_SPLIT_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** A tokenizer.json that has been checked. */
export interface CheckedTokenizer {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly merges: readonly (readonly [string, string])[];
  readonly ignoreMerges: boolean;
  readonly addedTokens: readonly AddedToken[];
  /** Ids that the post-processor puts before and after a text. */
  readonly prefixIds: readonly number[];
  readonly suffixIds: readonly number[];
  /** One more than the largest id, or the embedding's rows when they were given. */
  readonly vocabularySize: number;
}

const FILE = "tokenizer.json";

/**
 * @param json - the parsed file
 * @param rows - the embedding's rows: every id must be below
 * @throws FormatError naming the place; UnsupportedError for another kind of tokenizer.
 */
export function checkTokenizer(json: unknown, rows: number | undefined): CheckedTokenizer {
  if (!isRecord(json)) throw new FormatError(`${FILE}: expected an object, got ${kindOf(json)}. The file is damaged.`);
  const model = checkModel(json.model);
  checkPipeline(json);
  const limit = rows === undefined ? undefined : Math.min(rows, MAX_TOKEN_IDS); // tables are made by it, and a file may claim any number of rows
  const ids = new IdCheck(limit);
  const vocabulary = readVocabulary(model.vocab, ids);
  const addedTokens = readAddedTokens(json.added_tokens ?? [], vocabulary, ids);
  const merges = readMerges(model.merges ?? [], vocabulary);
  checkMeanings(addedTokens, merges);
  const around = readPostProcessor(json.post_processor ?? null, ids);
  return { vocabulary, merges, ignoreMerges: model.ignore_merges === true, addedTokens, ...around, vocabularySize: limit ?? ids.next };
}

/** Every id once, in range. */
class IdCheck {
  readonly #owners = new Map<number, string>();
  readonly #rows: number | undefined;
  next = 0;

  constructor(rows: number | undefined) {
    this.#rows = rows;
  }

  take(id: unknown, token: string, at: string): number {
    const limit = this.#rows ?? MAX_TOKEN_IDS;
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= limit) {
      const rows = this.#rows === undefined ? "" : " (the embedding's rows)";
      const got = typeof id === "number" ? `${id}` : kindOf(id);
      throw new FormatError(
        `${at}: expected a whole id from 0 to ${limit - 1}${rows} for ${quoted(token)}, got ${got}. The file is damaged.`,
      );
    }
    const owner = this.#owners.get(id as number);
    if (owner !== undefined && owner !== token) {
      throw new FormatError(`${at}: expected every id once, got the duplicate id ${id} of ${quoted(owner)} and ${quoted(token)}.`);
    }
    this.#owners.set(id as number, token);
    this.next = Math.max(this.next, (id as number) + 1);
    return id as number;
  }

  has(id: unknown): id is number {
    return this.#owners.has(id as number);
  }
}

function checkModel(model: unknown): Record<string, unknown> {
  const at = `${FILE}: model`;
  if (!isRecord(model)) throw new FormatError(`${at}: expected an object, got ${kindOf(model)}. The file is damaged.`);
  const type = model.type ?? "BPE"; // older files leave it out
  if (type !== "BPE")
    throw new UnsupportedError(`${at}.type: expected BPE, got ${quoted(String(type))}. LFM2 has a byte-level BPE tokenizer.`);
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[key]) throw new UnsupportedError(`${at}.${key}: expected none, got one. LFM2 has a byte-level BPE tokenizer.`);
  }
  for (const key of ["byte_fallback", "dropout"]) {
    if (model[key]) throw new UnsupportedError(`${at}.${key}: expected it to be off, got ${quoted(String(model[key]))}.`);
  }
  return model;
}

/** The steps around the model: exactly those of LFM2, for nothing else is tested. */
function checkPipeline(json: Record<string, unknown>): void {
  const normalizer = json.normalizer ?? null;
  if (normalizer !== null)
    throw new UnsupportedError(`${FILE}: normalizer: expected none, got ${typeName(normalizer)}. Use an LFM2 tokenizer.`);
  const at = `${FILE}: pre_tokenizer`;
  const [split, bytes, ...more] = steps(json.pre_tokenizer, "pretokenizers");
  if (!isRecord(split) || split.type !== "Split" || !isRecord(bytes) || bytes.type !== "ByteLevel" || more.length) {
    throw new UnsupportedError(
      `${at}: expected a Sequence of Split and ByteLevel, got ${typeName(json.pre_tokenizer)}. Use an LFM2 tokenizer.`,
    );
  }
  const pattern = isRecord(split.pattern) ? split.pattern.Regex : undefined;
  if (pattern !== LFM2_SPLIT_PATTERN || split.behavior !== "Isolated" || (split.invert ?? false) !== false) {
    throw new UnsupportedError(`${at}: expected the split pattern (regex) of LFM2, got ${quoted(String(pattern))}. Use an LFM2 tokenizer.`);
  }
  if (bytes.use_regex !== false || (bytes.add_prefix_space ?? false) !== false) {
    throw new UnsupportedError(`${at}: expected ByteLevel without regex and prefix space, got another. Use an LFM2 tokenizer.`);
  }
  if (!isRecord(json.decoder) || json.decoder.type !== "ByteLevel") {
    throw new UnsupportedError(`${FILE}: decoder: expected ByteLevel, got ${typeName(json.decoder)}. Use an LFM2 tokenizer.`);
  }
}

const typeName = (value: unknown): string => (isRecord(value) ? quoted(String(value.type)) : kindOf(value));

/** @returns the steps of a Sequence, or the one step itself. */
function steps(value: unknown, key: string): readonly unknown[] {
  if (value === null || value === undefined) return [];
  if (!isRecord(value) || value.type !== "Sequence") return [value];
  return Array.isArray(value[key]) ? value[key] : [];
}

const utf8 = new TextEncoder();

function checkText(text: unknown, at: string): string {
  if (typeof text !== "string" || text === "") {
    const got = text === "" ? "an empty one" : kindOf(text);
    throw new FormatError(`${at}: expected the text of a token, got ${got}. The file is damaged.`);
  }
  if (text.length * 3 > MAX_TOKEN_BYTES && utf8.encode(text).length > MAX_TOKEN_BYTES) {
    throw new FormatError(
      `${at}: expected a token of at most ${MAX_TOKEN_BYTES} bytes, the limit, got ${quoted(text)}. The file is damaged.`,
    );
  }
  return text;
}

/** Bytes that never occur in UTF-8: a vocabulary may lack them. */
const isInText = (byte: number): boolean => byte !== 0xc0 && byte !== 0xc1 && byte < 0xf5;

function readVocabulary(value: unknown, ids: IdCheck): Map<string, number> {
  const at = `${FILE}: model.vocab`;
  if (!isRecord(value)) throw new FormatError(`${at}: expected an object, got ${kindOf(value)}. The file is damaged.`);
  const vocabulary = new Map<string, number>();
  for (const [token, id] of Object.entries(value)) vocabulary.set(checkText(token, at), ids.take(id, token, at));
  const missing = BYTE_ALPHABET.findIndex((c, byte) => isInText(byte) && !vocabulary.has(c));
  if (missing >= 0) throw new FormatError(`${at}: expected a token for every byte, got none for byte ${missing}: its text would vanish.`);
  return vocabulary;
}

function readMerges(value: unknown, vocabulary: ReadonlyMap<string, number>): [string, string][] {
  const at = `${FILE}: model.merges`;
  if (!Array.isArray(value)) throw new FormatError(`${at}: expected a list, got ${kindOf(value)}. The file is damaged.`);
  return value.map((merge: unknown, i) => {
    const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(parts) || parts.length !== 2 || !parts.every((p) => typeof p === "string")) {
      const got = typeof merge === "string" ? quoted(merge) : kindOf(merge);
      throw new FormatError(`${at}: expected merge ${i} to be two tokens, got ${got}. The file is damaged.`);
    }
    const [a, b] = parts as [string, string];
    for (const token of [a, b, a + b]) {
      if (!vocabulary.has(token))
        throw new FormatError(`${at}: expected the tokens of merge ${i} in the vocabulary, got none for ${quoted(token)}.`);
    }
    return [a, b];
  });
}

function readAddedTokens(value: unknown, vocabulary: ReadonlyMap<string, number>, ids: IdCheck): AddedToken[] {
  const at = `${FILE}: added_tokens`;
  if (!Array.isArray(value)) throw new FormatError(`${at}: expected a list, got ${kindOf(value)}. The file is damaged.`);
  const seen = new Set<string>();
  let characters = 0;
  return value.map((entry: unknown, i) => {
    const here = `${at}[${i}]`;
    if (!isRecord(entry)) throw new FormatError(`${here}: expected an object, got ${kindOf(entry)}. The file is damaged.`);
    const content = checkText(entry.content, here);
    if (seen.has(content)) throw new FormatError(`${here}: expected every token once, got the duplicate ${quoted(content)}.`);
    seen.add(content);
    checkCount((characters += content.length), MAX_ADDED_CHARACTERS, at, "characters");
    const known = vocabulary.get(content);
    if (known !== undefined && known !== entry.id) {
      throw new FormatError(`${here}: expected id ${known} for ${quoted(content)} as in the vocabulary, got ${quoted(String(entry.id))}.`);
    }
    if (entry.single_word === true) throw new UnsupportedError(`${here}: expected single_word to be off, got it for ${quoted(content)}.`);
    const id = ids.take(entry.id, content, here);
    return { id, content, special: entry.special === true, lstrip: entry.lstrip === true, rstrip: entry.rstrip === true };
  });
}

/** Bytes are spelled as characters in the vocabulary, added tokens stand as they are: what is both must mean the same text, and no byte may be left without a token that users can write. */
function checkMeanings(addedTokens: readonly AddedToken[], merges: readonly (readonly [string, string])[]): void {
  for (const { content, special } of addedTokens) {
    const isByte = BYTE_ALPHABET.includes(content);
    const isSpelledAlike = /^[!-~]*$/.test(content);
    const changes = isByte ? special || !isSpelledAlike : !special && !isSpelledAlike && merges.some(([a, b]) => a + b === content);
    if (!changes) continue;
    const what = isByte ? "a byte's token" : "one that merges make";
    throw new FormatError(
      `${FILE}: added_tokens: expected tokens of their own, got ${what}, ${quoted(content)}: texts with it would change. The file is damaged.`,
    );
  }
}

function readPostProcessor(value: unknown, ids: IdCheck): { prefixIds: number[]; suffixIds: number[] } {
  const at = `${FILE}: post_processor`;
  const prefixIds: number[] = [];
  const suffixIds: number[] = [];
  for (const step of steps(value, "processors")) {
    if (isRecord(step) && step.type === "ByteLevel") continue; // only trims offsets, which nobody asks for
    if (!isRecord(step) || step.type !== "TemplateProcessing") {
      throw new UnsupportedError(`${at}: expected TemplateProcessing or ByteLevel, got ${typeName(step)}. Use an LFM2 tokenizer.`);
    }
    const { before, after } = readTemplate(step, ids, at);
    prefixIds.unshift(...before);
    suffixIds.push(...after);
    checkCount(prefixIds.length + suffixIds.length, MAX_AROUND_IDS, at);
  }
  return { prefixIds, suffixIds };
}

function readTemplate(step: Record<string, unknown>, ids: IdCheck, at: string): { before: number[]; after: number[] } {
  if (!Array.isArray(step.single))
    throw new FormatError(`${at}: expected single to be a list, got ${kindOf(step.single)}. The file is damaged.`);
  const before: number[] = [];
  const after: number[] = [];
  let hasText = false;
  for (const item of step.single as unknown[]) {
    if (isRecord(item) && isRecord(item.Sequence)) hasText = true;
    else (hasText ? after : before).push(...specialIds(item, step.special_tokens, ids, at));
    checkCount(before.length + after.length, MAX_AROUND_IDS, at);
  }
  if (!hasText) throw new FormatError(`${at}: expected single to hold the text, got none. The file is damaged.`);
  return { before, after };
}

function checkCount(count: number, most: number, at: string, what = "special tokens"): void {
  if (count > most) throw new FormatError(`${at}: expected at most ${most} ${what}, the limit, got more. The file is damaged.`);
}

function specialIds(item: unknown, tokens: unknown, ids: IdCheck, at: string): number[] {
  const name = isRecord(item) && isRecord(item.SpecialToken) ? item.SpecialToken.id : undefined;
  const entry = typeof name === "string" && isRecord(tokens) && Object.hasOwn(tokens, name) ? tokens[name] : undefined;
  const found = isRecord(entry) ? entry.ids : undefined;
  if (Array.isArray(found) && found.length <= MAX_AROUND_IDS && found.every((id) => ids.has(id))) return found as number[];
  throw new FormatError(`${at}: expected special tokens that exist, got ${quoted(String(name))}. The file is damaged.`);
}
