// Messages to a prompt by the model's own Jinja template. What users, tools and assistants wrote cannot become a control token by it: see guard.ts.
// Must not know BPE or models.
import { InputError } from "../errors.ts";
import { CharacterMask, TokenGuard } from "./guard.ts";
import { JinjaTemplate } from "./jinja.ts";
import { MAX_TEMPLATE_STEPS_PER_ITEM } from "./limits.ts";
import { checkMessages, type Message, mapStrings, type StringMap } from "./messages.ts";
import type { AddedToken, Segment } from "./segments.ts";

export type { Message } from "./messages.ts";
export type { Segment } from "./segments.ts";

/** Texts that a template asks for by name. */
export interface TemplateTokens {
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
}

/** A template before it is read, as plain data: whoever renders reads it. */
export interface TemplateText {
  /** The Jinja text. */
  readonly source: string;
  readonly tokens: TemplateTokens;
  /** The tokenizer's. */
  readonly addedTokens: readonly AddedToken[];
}

/** What a rendering needs besides the messages. */
export interface RenderOptions {
  /** Tool definitions, as JSON Schema objects or as text. */
  readonly tools?: readonly unknown[];
  /** End with the beginning of the assistant's turn; true unless given. */
  readonly addGenerationPrompt?: boolean;
  /** Leave the last message open, for templates that know `continue_final_message`. */
  readonly continueFinalMessage?: boolean;
  /** Further variables of the template, by their names there. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** Keys whose values templates compare with words of their own: only whole tokens are masked there. */
const comparedKeys: ReadonlySet<string> = new Set(["type", "role"]);
/** What an assistant's text may hold of special tokens: they open no turn and end none. */
const callMarks: ReadonlySet<string> = new Set(["<|tool_call_start|>", "<|tool_call_end|>"]);
/** Keys that a template looks up or writes as a name cannot be half a token unless they hold other characters. */
const isPlainName = (key: string): boolean => /^\w+$/.test(key);

/**
 * A model's chat template.
 * @example
 *   const template = new ChatTemplate(source, { bosToken: "<|startoftext|>", eosToken: "<|im_end|>" }, tokenizer.addedTokens);
 *   const ids = tokenizer.encodeSegments(template.render([{ role: "user", content: "Hi" }]));
 */
export class ChatTemplate {
  /** The Jinja text. */
  readonly source: string;
  /** What it knows as `bos_token` and `eos_token`. */
  readonly tokens: TemplateTokens;
  readonly #template: JinjaTemplate;
  readonly #all: TokenGuard;
  /** For what assistants wrote: templates split their text at tokens such as `</think>`, which are not special, and a call that they made stands between its marks. */
  readonly #assistant: TokenGuard;

  /**
   * @param source - the Jinja text
   * @param tokens - what the template knows as `bos_token` and `eos_token`
   * @param guarded - the tokenizer's added tokens
   * @throws FormatError when `source` is not Jinja; UnsupportedError when it needs what the language here does not have.
   */
  constructor(source: string, tokens: TemplateTokens, guarded: readonly AddedToken[]) {
    this.source = source;
    this.tokens = tokens;
    this.#template = new JinjaTemplate(source);
    this.#all = new TokenGuard(guarded);
    this.#assistant = new TokenGuard(guarded.filter((t) => t.special && !callMarks.has(t.content)));
  }

  /** @throws as the constructor */
  static of({ source, tokens, addedTokens }: TemplateText): ChatTemplate {
    return new ChatTemplate(source, tokens, addedTokens);
  }

  /**
   * @param messages - at least one
   * @returns the prompt in segments for `Tokenizer.encodeSegments`; their texts, joined, are what the template gives
   * @throws InputError for bad messages, or when the template refuses them; FormatError when the template fails.
   */
  render(
    messages: readonly Message[],
    { tools, addGenerationPrompt = true, continueFinalMessage, variables = {} }: RenderOptions = {},
  ): Segment[] {
    checkMessages(messages);
    if (tools !== undefined && !Array.isArray(tools))
      throw new InputError("tools: expected a list of tool definitions, got something else.");
    const mask = new CharacterMask(this.#inputsOf(messages, tools, variables));
    const values = new Map<string, unknown>([
      ["messages", messages.map((m, i) => this.#maskMessage(m, mask, `messages[${i}]`))],
      ["tools", tools === undefined ? null : this.#maskValue(tools, this.#all, mask, "tools")],
      ["documents", null],
      ["add_generation_prompt", addGenerationPrompt],
      ["bos_token", this.tokens.bosToken ?? ""],
      ["eos_token", this.tokens.eosToken ?? ""],
      ...(continueFinalMessage === undefined ? [] : [["continue_final_message", continueFinalMessage] as const]),
    ]);
    for (const [name, value] of Object.entries(variables)) values.set(name, this.#maskValue(value, this.#all, mask, `variables.${name}`));
    const items = messages.length + (tools?.length ?? 0);
    return mask.restore(this.#template.render(values, items * MAX_TEMPLATE_STEPS_PER_ITEM));
  }

  #inputsOf(messages: readonly Message[], tools: readonly unknown[] | undefined, variables: Readonly<Record<string, unknown>>): string[] {
    const inputs = [this.source, this.tokens.bosToken ?? "", this.tokens.eosToken ?? ""];
    const note = (text: string): string => {
      inputs.push(text);
      return text;
    };
    for (const [at, value] of Object.entries({ messages, tools: tools ?? [], variables })) mapStrings(value, note, note, at);
    return inputs;
  }

  #maskMessage(message: Message, mask: CharacterMask, at: string): unknown {
    const entries = Object.entries(message).filter(([, value]) => value !== undefined);
    return Object.fromEntries(
      entries.map(([key, value]) => {
        if (key === "role") return [key, value];
        const guard = message.role === "assistant" && key !== "tool_calls" ? this.#assistant : this.#all;
        return [maskKey(key, guard, mask), this.#maskValue(value, guard, mask, `${at}.${key}`, key)];
      }),
    );
  }

  #maskValue(value: unknown, guard: TokenGuard, mask: CharacterMask, at: string, key = ""): unknown {
    const map: StringMap = (text, name) => mask.apply(text, guard.marks(text, !comparedKeys.has(name)));
    return mapStrings(value, map, (name) => maskKey(name, guard, mask), at, key);
  }
}

const maskKey = (key: string, guard: TokenGuard, mask: CharacterMask): string => mask.apply(key, guard.marks(key, !isPlainName(key)));
