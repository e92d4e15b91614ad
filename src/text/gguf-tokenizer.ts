// Makes a tokenizer.json out of a GGUF's metadata, so that both formats share one tokenizer. Must not know the file's format.
import { FormatError, UnsupportedError } from "../errors.ts";
import { isRecord, kindOf, quoted } from "../values.ts";
import { MAX_TOKEN_IDS } from "./limits.ts";
import { LFM2_SPLIT_PATTERN } from "./tokenizer-json.ts";

/** The content of a tokenizer.json, as far as it is needed. */
export interface TokenizerJson {
  readonly added_tokens: readonly { readonly id: number; readonly content: string; readonly special: boolean }[];
  readonly model: { readonly type: "BPE"; readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly string[] } & Record<
    string,
    unknown
  >;
  readonly [key: string]: unknown;
}

/** What a GGUF says about text. */
export interface GgufTokenizer {
  readonly tokenizer: TokenizerJson;
  /** Tokens in the list: V of the tokenizer. */
  readonly tokenCount: number;
  readonly chatTemplate: string | undefined;
  readonly bosId: number | undefined;
  readonly eosIds: readonly number[];
  readonly padId: number | undefined;
  /** Texts of those tokens, as a template wants them. */
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
}

/** Token types of GGUF. */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

type Metadata = ReadonlyMap<string, unknown>;
const PREFIX = "tokenizer.ggml.";

/**
 * @param metadata - of a GGUF, by key
 * @returns a tokenizer.json for `Tokenizer.fromJson`, the template and the ids of the marks
 * @throws FormatError naming the key; UnsupportedError for another kind of tokenizer.
 */
export function tokenizerFromGguf(metadata: Metadata): GgufTokenizer {
  checkKind(metadata);
  const tokens = stringList(metadata, "tokens");
  if (tokens.length > MAX_TOKEN_IDS)
    throw new FormatError(`${PREFIX}tokens: expected at most ${MAX_TOKEN_IDS}, the limit, got ${tokens.length}.`);
  const types = readTypes(metadata, tokens.length);
  const bosId = readId(metadata, "bos_token_id", tokens.length);
  const eosId = readId(metadata, "eos_token_id", tokens.length);
  const addsBos = readFlag(metadata, "add_bos_token") ? bosId : undefined;
  const addsEos = readFlag(metadata, "add_eos_token") ? eosId : undefined;
  return {
    tokenizer: {
      added_tokens: addedTokens(tokens, types),
      normalizer: null,
      pre_tokenizer: preTokenizer,
      post_processor: postProcessor(tokens, addsBos, addsEos),
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", ignore_merges: true, vocab: vocabulary(tokens, types), merges: stringList(metadata, "merges") },
    },
    tokenCount: tokens.length,
    chatTemplate: readTemplate(metadata),
    bosId,
    eosIds: eosIds(metadata, eosId, tokens.length),
    padId: readId(metadata, "padding_token_id", tokens.length),
    bosToken: bosId === undefined ? undefined : tokens[bosId],
    eosToken: eosId === undefined ? undefined : tokens[eosId],
  };
}

/** The end of a turn and, where a file names it apart, the end of a text. */
function eosIds(metadata: Metadata, eosId: number | undefined, count: number): number[] {
  const eotId = readId(metadata, "eot_token_id", count);
  return [...new Set([eosId, eotId].filter((id) => id !== undefined))];
}

const preTokenizer = {
  type: "Sequence",
  pretokenizers: [
    { type: "Split", pattern: { Regex: LFM2_SPLIT_PATTERN }, behavior: "Isolated", invert: false },
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
  ],
};

function checkKind(metadata: Metadata): void {
  for (const [key, expected] of [
    ["model", "gpt2"],
    ["pre", "lfm2"],
  ] as const) {
    const value = metadata.get(PREFIX + key);
    if (value === undefined) throw new FormatError(`${PREFIX}${key}: expected "${expected}", got none. Use a GGUF with a tokenizer.`);
    if (typeof value !== "string") throw new FormatError(`${PREFIX}${key}: expected a string, got ${kindOf(value)}. The file is damaged.`);
    if (value !== expected) {
      throw new UnsupportedError(`${PREFIX}${key}: expected "${expected}", got ${quoted(value)}. Use a GGUF of an LFM2 model.`);
    }
  }
}

function stringList(metadata: Metadata, key: string): readonly string[] {
  const value = metadata.get(PREFIX + key);
  if (Array.isArray(value) && value.length > 0 && value.every((v) => typeof v === "string")) return value as string[];
  throw new FormatError(
    `${PREFIX}${key}: expected a list of strings, got ${value === undefined ? "none" : kindOf(value)}. The file is damaged.`,
  );
}

function readTypes(metadata: Metadata, count: number): readonly number[] {
  const value = metadata.get(`${PREFIX}token_type`);
  if (value === undefined) return new Array<number>(count).fill(NORMAL);
  if (!Array.isArray(value) || value.length !== count) {
    const got = Array.isArray(value) ? `${value.length}` : kindOf(value);
    throw new FormatError(`${PREFIX}token_type: expected ${count} types, one for each token, got ${got}. The file is damaged.`);
  }
  const strange = value.find((t) => ![NORMAL, CONTROL, USER_DEFINED, UNUSED].includes(t as number)) as unknown;
  if (strange === undefined) return value as number[];
  throw new UnsupportedError(
    `${PREFIX}token_type: expected 1 (normal), 3 (control), 4 (user-defined) or 5 (unused), got ${quoted(String(strange))}.`,
  );
}

function vocabulary(tokens: readonly string[], types: readonly number[]): Record<string, number> {
  const seen = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (types[id] === UNUSED) return;
    if (seen.has(token)) throw new FormatError(`${PREFIX}tokens: expected every token once, got the duplicate ${quoted(token)}.`);
    seen.set(token, id);
  });
  return Object.fromEntries(seen);
}

function addedTokens(tokens: readonly string[], types: readonly number[]): { id: number; content: string; special: boolean }[] {
  return tokens.flatMap((content, id) =>
    types[id] === CONTROL || types[id] === USER_DEFINED ? [{ id, content, special: types[id] === CONTROL }] : [],
  );
}

function postProcessor(tokens: readonly string[], bos: number | undefined, eos: number | undefined): object | null {
  if (bos === undefined && eos === undefined) return null;
  const special = (id: number | undefined): object[] => (id === undefined ? [] : [{ SpecialToken: { id: tokens[id]!, type_id: 0 } }]);
  const entries = [bos, eos].flatMap((id) =>
    id === undefined ? [] : [[tokens[id]!, { id: tokens[id]!, ids: [id], tokens: [tokens[id]!] }] as const],
  );
  return {
    type: "TemplateProcessing",
    single: [...special(bos), { Sequence: { id: "A", type_id: 0 } }, ...special(eos)],
    special_tokens: Object.fromEntries(entries),
  };
}

function readId(metadata: Metadata, key: string, count: number): number | undefined {
  const id = metadata.get(PREFIX + key);
  if (id === undefined) return undefined;
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < count) return id;
  throw new FormatError(`${PREFIX}${key}: expected an id from 0 to ${count - 1}, got ${quoted(String(id))}. The file is damaged.`);
}

function readFlag(metadata: Metadata, key: string): boolean {
  const flag = metadata.get(PREFIX + key) ?? false;
  if (typeof flag === "boolean") return flag;
  throw new FormatError(`${PREFIX}${key}: expected a bool, got ${kindOf(flag)}. The file is damaged.`);
}

function readTemplate(metadata: Metadata): string | undefined {
  const template = metadata.get("tokenizer.chat_template");
  if (template === undefined || typeof template === "string") return template;
  throw new FormatError(`tokenizer.chat_template: expected a string, got ${isRecord(template) ? "an object" : kindOf(template)}.`);
}
