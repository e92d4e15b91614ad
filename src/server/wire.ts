// OpenAI's chat completions on the wire: a body becomes messages and options, a reply becomes their objects. Knows no HTTP.
import { InputError, UnsupportedError } from "../errors.ts";
import type { Reply } from "../reply.ts";
import type { Message } from "../text/messages.ts";
import type { GenerateOptions } from "../turn.ts";
import { isRecord, kindOf, quoted } from "../values.ts";

/** What a request asks for. */
export interface ChatRequest {
  readonly messages: readonly Message[];
  readonly options: GenerateOptions;
  readonly isStreamed: boolean;
  /** A last chunk of a stream with the tokens that were used. */
  readonly includesUsage: boolean;
}

/** Fields that pass a number on, under its name here. */
const NUMBERS: Readonly<Record<string, keyof GenerateOptions>> = {
  max_tokens: "maxTokens",
  max_completion_tokens: "maxTokens",
  temperature: "temperature",
  top_p: "topP",
  top_k: "topK",
  min_p: "minP",
  seed: "seed",
  repetition_penalty: "repetitionPenalty",
  repeat_penalty: "repetitionPenalty",
  presence_penalty: "presencePenalty",
  frequency_penalty: "frequencyPenalty",
};

/** Fields that would change the reply and are not there yet, with the values that change nothing. */
const ABSENT: Readonly<Record<string, (value: unknown) => boolean>> = {
  n: (value) => value === 1,
  tools: (value) => Array.isArray(value) && value.length === 0,
  functions: (value) => Array.isArray(value) && value.length === 0,
  tool_choice: (value) => value === "none" || value === "auto",
  response_format: (value) => isRecord(value) && value.type === "text",
  logprobs: (value) => value === false,
  top_logprobs: (value) => value === 0,
  modalities: (value) => Array.isArray(value) && value.every((kind) => kind === "text"),
  audio: () => false,
};

/**
 * @param body - the parsed JSON
 * @throws InputError naming the field; UnsupportedError for a field that cannot be honoured: nothing is ignored that would change the reply
 */
export function parseChatRequest(body: unknown): ChatRequest {
  if (!isRecord(body)) throw new InputError(`body: expected a JSON object, got ${kindOf(body)}.`);
  const value = (name: string): unknown => (Object.hasOwn(body, name) ? (body[name] ?? undefined) : undefined); // null is as good as nothing
  for (const [name, isHarmless] of Object.entries(ABSENT)) {
    if (value(name) === undefined || isHarmless(value(name))) continue;
    throw new UnsupportedError(
      `${name}: expected no such field, got ${quoted(JSON.stringify(value(name)))}. Leave it out: replies are text.`,
    );
  }
  const options: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(NUMBERS)) {
    const given = value(name);
    if (given === undefined) continue;
    if (typeof given !== "number") throw new InputError(`${name}: expected a number, got ${kindOf(given)}.`);
    options[option] = given;
  }
  if (value("logit_bias") !== undefined) options.logitBias = value("logit_bias");
  if (value("stop") !== undefined) options.stop = value("stop");
  const streamOptions = value("stream_options") ?? {};
  if (!isRecord(streamOptions)) throw new InputError(`stream_options: expected an object, got ${kindOf(streamOptions)}.`);
  return {
    messages: textMessages(value("messages")),
    options: options as GenerateOptions,
    isStreamed: isTrue(value("stream"), "stream"),
    includesUsage: isTrue(streamOptions.include_usage, "stream_options.include_usage"),
  };
}

function isTrue(value: unknown, name: string): boolean {
  if (value === undefined || value === null || typeof value === "boolean") return value === true;
  throw new InputError(`${name}: expected true or false, got ${kindOf(value)}.`);
}

/** OpenAI's newer name of a role. */
const ROLES: Readonly<Record<string, string>> = { developer: "system" };

/** Messages whose parts are text; the model's own checks follow when they are rendered. */
function textMessages(messages: unknown): readonly Message[] {
  if (!Array.isArray(messages) || messages.length === 0)
    throw new InputError(
      `messages: expected a list with one message at least, got ${Array.isArray(messages) ? "none" : kindOf(messages)}.`,
    );
  return messages.map((message: unknown, i) => {
    if (!isRecord(message)) throw new InputError(`messages[${i}]: expected an object with role and content, got ${kindOf(message)}.`);
    const { role, content } = message;
    if (message.tool_calls !== undefined || role === "tool" || role === "function")
      throw new UnsupportedError(`messages[${i}]: expected text, got a tool's call or result. Leave tools out.`);
    return { role: ROLES[String(role)] ?? role, content: textOf(content, `messages[${i}].content`) } as Message;
  });
}

function textOf(content: unknown, at: string): unknown {
  if (!Array.isArray(content)) return content;
  return content
    .map((part: unknown, i) => {
      if (isRecord(part) && part.type === "text" && typeof part.text === "string") return part.text;
      const got = isRecord(part) ? `one of type ${quoted(String(part.type))}` : kindOf(part);
      throw new UnsupportedError(`${at}[${i}]: expected a part of type "text", got ${got}. The model reads text only.`);
    })
    .join("");
}

/** What is the same in every object of one answer. */
export interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

function usageOf({ usage }: Reply): object {
  const { inputTokens, cachedTokens, outputTokens } = usage;
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** As llama-server tells them. */
function timingsOf({ usage, timings }: Reply): object {
  return {
    cache_n: usage.cachedTokens,
    prompt_n: usage.inputTokens - usage.cachedTokens,
    prompt_ms: timings.prefillMs,
    predicted_n: usage.outputTokens,
    predicted_ms: timings.decodeMs,
  };
}

/** @returns a whole answer */
export function completion(head: Head, reply: Reply): object {
  const message = { role: "assistant", content: reply.text, refusal: null };
  const choice = { index: 0, message, logprobs: null, finish_reason: reply.finishReason };
  return { ...head, object: "chat.completion", choices: [choice], usage: usageOf(reply), timings: timingsOf(reply) };
}

/** @returns a piece of a streamed answer */
export function chunk(head: Head, delta: object, finishReason: string | null = null): object {
  return { ...head, object: "chat.completion.chunk", choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }] };
}

/** @returns the last pieces of a streamed answer */
export function lastChunks(head: Head, reply: Reply, includesUsage: boolean): object[] {
  const last = { ...chunk(head, {}, reply.finishReason), timings: timingsOf(reply) };
  return includesUsage ? [last, { ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(reply) }] : [last];
}
