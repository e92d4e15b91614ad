// The reference's tokenizer by its names, over the package's own: what it renders from messages cannot be a user's control token.
import { InputError, inspect, type LoadOptions, type Message, type ModelSource, type Tokenizer, UnsupportedError } from "lfm2-wasm";
import { checkNames } from "../checks.ts";
import type { ChatTemplate } from "../text/chat-template.ts";
import { kindOf } from "../values.ts";

/** Options of `applyChatTemplate`. */
export interface ApplyChatTemplateOptions {
  /** End with the beginning of the assistant's turn; default false. */
  readonly addGenerationPrompt?: boolean | undefined;
  /** Give ids; default true. With false, the text. */
  readonly tokenize?: boolean | undefined;
  /** Tool definitions, as JSON Schema objects. */
  readonly tools?: readonly unknown[] | undefined;
}

/** Options of `encode`. */
export interface EncodeTextOptions {
  /** Begin with the start token; default true. */
  readonly addSpecialTokens?: boolean | undefined;
  /** Read `<|im_end|>` and its like as plain text; default false as in the reference: pass true for text that a stranger wrote. */
  readonly splitSpecialTokens?: boolean | undefined;
}

/** Options of `decode`. */
export interface DecodeTextOptions {
  /** Leave special tokens out; default false. */
  readonly skipSpecialTokens?: boolean | undefined;
}

/** Options of a call of the tokenizer. */
export interface TokenizeOptions extends EncodeTextOptions {
  /** Brings all rows to one length: of the longest (true or `"longest"`), or `maxLength`. Default false, which rows of several lengths cannot be. */
  readonly padding?: boolean | "longest" | "maxLength" | undefined;
  /** Where padding stands; default the tokenizer's `paddingSide`. */
  readonly paddingSide?: "left" | "right" | undefined;
  /** Cuts rows after `maxLength` tokens; default false. */
  readonly truncation?: boolean | undefined;
  /** For `truncation` and `padding: "maxLength"`. */
  readonly maxLength?: number | undefined;
}

/** Texts as `generate` and `forward` take them. */
export interface BatchEncoding {
  /** Token ids (B,T). */
  readonly inputIds: number[][];
  /** 1 at tokens, 0 at padding (B,T). */
  readonly attentionMask: number[][];
}

const TEMPLATE: Readonly<Record<keyof ApplyChatTemplateOptions, 1>> = { addGenerationPrompt: 1, tokenize: 1, tools: 1 };
const ENCODE: Readonly<Record<keyof EncodeTextOptions, 1>> = { addSpecialTokens: 1, splitSpecialTokens: 1 };
const DECODE: Readonly<Record<keyof DecodeTextOptions, 1>> = { skipSpecialTokens: 1 };
const TOKENIZE: Readonly<Record<keyof TokenizeOptions, 1>> = { ...ENCODE, padding: 1, paddingSide: 1, truncation: 1, maxLength: 1 };

/** A tokenizer is a function on a text, or on several. */
export type CallTokenizer = (texts: string | readonly string[], options?: TokenizeOptions) => BatchEncoding;

/** Ids of tokens that mean something of their own. */
interface SpecialIds {
  readonly padTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
}

/** What a class extends whose objects can be called. */
class Callable {
  constructor(call: (...args: never) => unknown) {
    // biome-ignore lint/correctness/noConstructorReturn: the function is the object
    return Object.setPrototypeOf(call, new.target.prototype);
  }
}

/** A checkpoint's tokenizer and chat template. */
export class Lfm2Tokenizer extends Callable {
  static override readonly name = "Lfm2Tokenizer";
  /** What stands at padding. */
  readonly padTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Where padding stands unless a call says otherwise; as in the reference `"right"` at first. Rows are the same either way. */
  paddingSide: "left" | "right" = "right";
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate | undefined;

  /** @internal */
  constructor(tokenizer: Tokenizer, template: ChatTemplate | undefined, { padTokenId, bosTokenId, eosTokenIds }: SpecialIds) {
    const call: CallTokenizer = (texts, options) => this.#encodeAll(texts, options);
    super(call);
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.padTokenId = padTokenId ?? eosTokenIds[0];
    this.bosTokenId = bosTokenId;
    this.eosTokenId = eosTokenIds[0];
  }

  #encodeAll(texts: string | readonly string[], options: TokenizeOptions = {}): BatchEncoding {
    const list: readonly unknown[] = typeof texts === "string" ? [texts] : texts;
    if (!Array.isArray(list) || list.length === 0 || !list.every((text): text is string => typeof text === "string"))
      throw new InputError(`tokenizer: expected a text or a list of texts, got ${kindOf(texts)}. Pass a string, or several in a list.`);
    const {
      padding = false,
      paddingSide = this.paddingSide,
      truncation = false,
      maxLength,
      ...encode
    } = checkNames("tokenizer", options, "TokenizeOptions", TOKENIZE);
    if (![true, false, "longest", "maxLength"].includes(padding))
      throw new InputError(`tokenizer: padding: expected true, false, "longest" or "maxLength", got ${JSON.stringify(padding)}.`);
    if (paddingSide !== "left" && paddingSide !== "right")
      throw new InputError(`tokenizer: paddingSide: expected "left" or "right", got ${JSON.stringify(paddingSide)}.`);
    if ((truncation || padding === "maxLength") && !(Number.isSafeInteger(maxLength) && Number(maxLength) >= 1))
      throw new InputError(`tokenizer: maxLength: expected a whole number of at least 1 to cut or pad to, got ${String(maxLength)}.`);
    const rows = list.map((text) => this.encode(text, encode).slice(0, truncation ? maxLength : undefined));
    const longest = Math.max(...rows.map((row) => row.length), padding === "maxLength" ? Number(maxLength) : 0);
    if (!padding && rows.some((row) => row.length !== longest))
      throw new InputError(
        `tokenizer: expected texts of one length, got ${rows.map((row) => row.length).join(", ")} tokens. Pass padding: true.`,
      );
    const fill = (row: readonly number[], value: number): number[] => {
      const missing = new Array<number>(longest - row.length).fill(value);
      return paddingSide === "left" ? [...missing, ...row] : [...row, ...missing];
    };
    const pad = this.padTokenId ?? 0;
    return {
      inputIds: rows.map((row) => fill(row, pad)),
      attentionMask: rows.map((row) =>
        fill(
          row.map(() => 1),
          0,
        ),
      ),
    };
  }

  /** @returns ids (T,), or the text with `tokenize: false`. @throws InputError for bad messages; UnsupportedError without a chat template */
  applyChatTemplate(messages: readonly Message[], options?: ApplyChatTemplateOptions & { readonly tokenize?: true | undefined }): number[];
  applyChatTemplate(messages: readonly Message[], options: ApplyChatTemplateOptions & { readonly tokenize: false }): string;
  applyChatTemplate(messages: readonly Message[], options?: ApplyChatTemplateOptions): number[] | string;
  applyChatTemplate(messages: readonly Message[], options: ApplyChatTemplateOptions = {}): number[] | string {
    const {
      addGenerationPrompt = false,
      tokenize = true,
      tools,
    } = checkNames("applyChatTemplate", options, "ApplyChatTemplateOptions", TEMPLATE);
    if (!this.#template)
      throw new UnsupportedError("applyChatTemplate: expected a checkpoint with a chat template, got one without. Encode a text instead.");
    const segments = this.#template.render(messages, { addGenerationPrompt, ...(tools && { tools }) });
    return tokenize ? this.#tokenizer.encodeSegments(segments) : segments.map((segment) => segment.text).join("");
  }

  /** @returns ids (T,) */
  encode(text: string, options: EncodeTextOptions = {}): number[] {
    const { addSpecialTokens = true, splitSpecialTokens = false } = checkNames("encode", options, "EncodeTextOptions", ENCODE);
    return this.#tokenizer.encode(text, { addSpecialTokens, controlTokens: !splitSpecialTokens });
  }

  /** @throws InputError for an id outside the vocabulary */
  decode(ids: Iterable<number>, options: DecodeTextOptions = {}): string {
    const { skipSpecialTokens = false } = checkNames("decode", options, "DecodeTextOptions", DECODE);
    return this.#tokenizer.decode(ids, { skipSpecialTokens });
  }

  /** @returns a text for each row */
  batchDecode(rows: readonly Iterable<number>[], options: DecodeTextOptions = {}): string[] {
    if (!Array.isArray(rows)) throw new InputError(`batchDecode: expected rows of ids, got ${kindOf(rows)}. Pass [ids].`);
    checkNames("batchDecode", options, "DecodeTextOptions", DECODE);
    return rows.map((ids) => this.decode(ids, options));
  }
}

/** Opens tokenizers. */
export class AutoTokenizer {
  static readonly name = "AutoTokenizer";
  /**
   * Reads a checkpoint's tokenizer and chat template, and no weights.
   * @returns a function: `tokenizer(texts, { padding: true })` gives `inputIds` and `attentionMask`, and has `encode`, `decode`, `applyChatTemplate`
   * @throws as `inspect`; UnsupportedError for a checkpoint without a tokenizer
   */
  static async fromPretrained(source: ModelSource, options: LoadOptions = {}): Promise<Lfm2Tokenizer & CallTokenizer> {
    const { tokenizer, template, config } = await inspect(source, options);
    if (tokenizer) return new Lfm2Tokenizer(tokenizer, template, config) as Lfm2Tokenizer & CallTokenizer;
    throw new UnsupportedError("AutoTokenizer: expected a checkpoint with a tokenizer, got one without. Add tokenizer.json.");
  }
}
