// Text to token ids and back. BPE itself is @huggingface/tokenizers'; what is here keeps a user's text from becoming control tokens.
// Must not know templates, models or threads.
import { Tokenizer as Bpe } from "@huggingface/tokenizers";
import { checkNames } from "../checks.ts";
import { InputError } from "../errors.ts";
import { BYTE_ALPHABET, type ByteTable, packByteTable, type TokenBytes, tokensOfTable, vocabularyBytes } from "./byte-level.ts";
import { type AddedToken, AddedTokenFinder, joinSegments, type Segment } from "./segments.ts";
import { type DecodeOptions, decodeIds } from "./stream-decoder.ts";
import { type CheckedTokenizer, checkTokenizer, LFM2_SPLIT_PATTERN } from "./tokenizer-json.ts";

export type { AddedToken } from "./segments.ts";

/** What the tokenizer.json does not say. */
export interface TokenizerConfig {
  /** Rows of the embedding (V): ids must be below, and ids that no token has decode to nothing. One more than the largest id unless given. */
  readonly vocabularySize?: number;
}

/** How text becomes ids. */
export interface EncodeOptions {
  /** Put the start token (whatever the post-processor says) around the text; false unless given: templates write it themselves. */
  readonly addSpecialTokens?: boolean;
  /** Let `<|im_end|>` and its like in the text become control tokens; false unless given. */
  readonly controlTokens?: boolean;
}

const ENCODE: Readonly<Record<keyof EncodeOptions, 1>> = { addSpecialTokens: 1, controlTokens: 1 };
const DECODE: Readonly<Record<keyof DecodeOptions, 1>> = { skipSpecialTokens: 1 };

/**
 * A byte-level BPE tokenizer as LFM2 has it.
 * @example
 *   const tokenizer = Tokenizer.fromJson(JSON.parse(text));
 *   tokenizer.decode(tokenizer.encode("Hello")); // "Hello"
 */
export class Tokenizer implements TokenBytes {
  static readonly name = "Tokenizer";
  /** V: ids are 0 to V - 1. */
  readonly vocabularySize: number;
  /** Tokens that are taken whole, never merged: control tokens, and others such as `<think>`. */
  readonly addedTokens: readonly AddedToken[];
  readonly #bpe: Bpe;
  readonly #finder: AddedTokenFinder;
  readonly #checked: CheckedTokenizer;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #texts: readonly (string | undefined)[];
  readonly #table: ByteTable;
  readonly #bytes: TokenBytes;

  private constructor(checked: CheckedTokenizer) {
    this.#checked = checked;
    this.vocabularySize = checked.vocabularySize;
    this.addedTokens = checked.addedTokens;
    this.#bpe = new Bpe(plainTokenizer(checked), {});
    this.#finder = new AddedTokenFinder(checked.addedTokens);
    this.#ids = new Map([...checked.vocabulary, ...checked.addedTokens.map((t) => [t.content, t.id] as const)]);
    this.#texts = textsById(this.#ids, checked.vocabularySize);
    this.#table = tableOf(checked);
    this.#bytes = tokensOfTable(this.#table);
  }

  /**
   * Builds a tokenizer from the content of a tokenizer.json.
   * @param json - the parsed file; see `parseJson` for one from a stranger
   * @throws FormatError naming the place; UnsupportedError for anything but LFM2's kind of byte-level BPE.
   */
  static fromJson(json: unknown, { vocabularySize }: TokenizerConfig = {}): Tokenizer {
    return new Tokenizer(checkTokenizer(json, vocabularySize));
  }

  /** @returns everything that it is made of, as a text for another thread */
  pack(): string {
    return JSON.stringify({ ...this.#checked, vocabulary: [...this.#checked.vocabulary] });
  }

  /** @param packed - what `pack` gave: it is not checked again */
  static unpack(packed: string): Tokenizer {
    const { vocabulary, ...checked } = JSON.parse(packed) as CheckedTokenizer & {
      readonly vocabulary: Iterable<readonly [string, number]>;
    };
    return new Tokenizer({ ...checked, vocabulary: new Map(vocabulary) });
  }

  /**
   * @param text - any text; what looks like a control token in it is plain text unless `controlTokens` says otherwise
   * @returns ids (T,)
   */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const { addSpecialTokens = false, controlTokens = false } = checkNames("encode", options, "EncodeOptions", ENCODE);
    if (typeof text !== "string") throw new InputError(`encode: expected a string, got ${typeof text}.`);
    const ids = this.encodeSegments([{ text, trusted: controlTokens }]);
    return addSpecialTokens ? [...this.#checked.prefixIds, ...ids, ...this.#checked.suffixIds] : ids;
  }

  /**
   * Encodes a rendered prompt. Added tokens are recognised only where all their characters are trusted; the text between them is encoded as one
   * piece each, so that the ids are those of the whole prompt unless it holds a control token that is not trusted.
   * @returns ids (T,), without a start token of its own
   */
  encodeSegments(segments: readonly Segment[]): number[] {
    const { text, trusted } = joinSegments(segments);
    return this.#finder.split(text, trusted).flatMap((p) => ("token" in p ? [p.token.id] : this.#plainIds(p.text)));
  }

  /**
   * @param ids - any iterable of ids, empty and typed arrays included
   * @returns their text; bytes that are no UTF-8 become U+FFFD
   * @throws InputError for an id outside the vocabulary.
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    return decodeIds(this.#bytes, ids, checkNames("decode", options, "DecodeOptions", DECODE));
  }

  /** @returns the bytes of a token; none for an id below V that no token has. @throws InputError for an id outside the vocabulary. */
  tokenBytes(id: number): Uint8Array {
    return this.#bytes.tokenBytes(id);
  }

  /** @returns whether decoding leaves the token out. @throws InputError for an id outside the vocabulary. */
  isSpecial(id: number): boolean {
    return this.#bytes.isSpecial(id);
  }

  /** @param text - as the vocabulary spells it @returns the id of the token, or undefined. */
  tokenId(text: string): number | undefined {
    return this.#ids.get(text);
  }

  /** @returns the token as the vocabulary spells it (bytes as printable characters), or undefined for an id that no token has. */
  idToToken(id: number): string | undefined {
    return this.#texts[id];
  }

  /** @returns the bytes of all tokens: with `tokensOfTable` a StreamDecoder works from it in any thread. Not a copy. */
  byteTable(): ByteTable {
    return this.#table;
  }

  #plainIds(text: string): number[] {
    return this.#bpe.encode(text, { add_special_tokens: false }).ids;
  }
}

/**
 * The tokenizer.json of the library's instance: BPE alone, no added tokens. Their texts leave the vocabulary too, for with `ignore_merges` a word
 * that is an entry is taken as it stands. A special token that merges could build loses those merges.
 */
function plainTokenizer({ vocabulary, merges, ignoreMerges, addedTokens }: CheckedTokenizer): object {
  const kept = new Set([...BYTE_ALPHABET, ...merges.map(([a, b]) => a + b)]);
  const special = new Set(addedTokens.filter((t) => t.special).map((t) => t.content));
  const dropped = new Set(addedTokens.map((t) => t.content).filter((c) => special.has(c) || !kept.has(c)));
  const isPlain = ([a, b]: readonly [string, string]): boolean => !special.has(a) && !special.has(b) && !special.has(a + b);
  return {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: LFM2_SPLIT_PATTERN }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    model: {
      type: "BPE",
      unk_token: null,
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries([...vocabulary].filter(([token]) => !dropped.has(token))),
      merges: merges.filter(isPlain),
    },
    post_processor: null,
    decoder: null,
  };
}

function textsById(ids: ReadonlyMap<string, number>, size: number): (string | undefined)[] {
  const texts = new Array<string | undefined>(size).fill(undefined);
  for (const [text, id] of ids) texts[id] = text;
  return texts;
}

function tableOf({ vocabulary, addedTokens, vocabularySize }: CheckedTokenizer): ByteTable {
  const tokens = new Array<{ bytes: Uint8Array; special: boolean } | undefined>(vocabularySize).fill(undefined);
  const utf8 = new TextEncoder();
  for (const [token, id] of vocabulary) tokens[id] = { bytes: vocabularyBytes(token), special: false };
  for (const { content, id, special } of addedTokens) tokens[id] = { bytes: utf8.encode(content), special };
  return packByteTable(tokens);
}
