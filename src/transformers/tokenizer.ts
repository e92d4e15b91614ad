// The reference's tokenizer by its names, over the package's own: what it renders from messages cannot be a user's control token.
import { InputError, inspect, type LoadOptions, type Message, type ModelSource, type Tokenizer, UnsupportedError } from "lfm2-wasm";
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

/** A checkpoint's tokenizer and chat template. */
export class Lfm2Tokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate | undefined;

  /** @internal */
  constructor(tokenizer: Tokenizer, template: ChatTemplate | undefined) {
    this.#tokenizer = tokenizer;
    this.#template = template;
  }

  /** @returns ids (T,), or the text with `tokenize: false`. @throws InputError for bad messages; UnsupportedError without a chat template */
  applyChatTemplate(messages: readonly Message[], options?: ApplyChatTemplateOptions & { readonly tokenize?: true | undefined }): number[];
  applyChatTemplate(messages: readonly Message[], options: ApplyChatTemplateOptions & { readonly tokenize: false }): string;
  applyChatTemplate(messages: readonly Message[], options?: ApplyChatTemplateOptions): number[] | string;
  applyChatTemplate(
    messages: readonly Message[],
    { addGenerationPrompt = false, tokenize = true, tools }: ApplyChatTemplateOptions = {},
  ): number[] | string {
    if (!this.#template)
      throw new UnsupportedError("applyChatTemplate: expected a checkpoint with a chat template, got one without. Encode a text instead.");
    const segments = this.#template.render(messages, { addGenerationPrompt, ...(tools && { tools }) });
    return tokenize ? this.#tokenizer.encodeSegments(segments) : segments.map((segment) => segment.text).join("");
  }

  /** @returns ids (T,) */
  encode(text: string, { addSpecialTokens = true, splitSpecialTokens = false }: EncodeTextOptions = {}): number[] {
    return this.#tokenizer.encode(text, { addSpecialTokens, controlTokens: !splitSpecialTokens });
  }

  /** @throws InputError for an id outside the vocabulary */
  decode(ids: Iterable<number>, { skipSpecialTokens = false }: DecodeTextOptions = {}): string {
    return this.#tokenizer.decode(ids, { skipSpecialTokens });
  }

  /** @returns a text for each row */
  batchDecode(rows: readonly Iterable<number>[], options: DecodeTextOptions = {}): string[] {
    if (!Array.isArray(rows)) throw new InputError(`batchDecode: expected rows of ids, got ${kindOf(rows)}. Pass [ids].`);
    return rows.map((ids) => this.decode(ids, options));
  }
}

/** Opens tokenizers. */
export class AutoTokenizer {
  /**
   * Reads a checkpoint's tokenizer and chat template, and no weights.
   * @throws as `inspect`; UnsupportedError for a checkpoint without a tokenizer
   */
  static async fromPretrained(source: ModelSource, options: LoadOptions = {}): Promise<Lfm2Tokenizer> {
    const { tokenizer, template } = await inspect(source, options);
    if (tokenizer) return new Lfm2Tokenizer(tokenizer, template);
    throw new UnsupportedError("AutoTokenizer: expected a checkpoint with a tokenizer, got one without. Add tokenizer.json.");
  }
}
