// The messages of a chat, checked at the door. Must not know templates or tokens.
import { InputError } from "../errors.ts";
import { isRecord, kindOf, quoted } from "../values.ts";
import { MAX_VALUE_DEPTH } from "./limits.ts";

/** Who speaks. */
export type Role = "system" | "user" | "assistant" | "tool";

/** A part of a message's content; templates know `text`, what else they do with is their own. */
export interface ContentPart {
  readonly type: string;
  readonly text?: string;
  readonly [key: string]: unknown;
}

/** A call that an assistant made. */
export interface ToolCall {
  readonly id?: string;
  readonly type?: "function";
  readonly function: { readonly name: string; readonly arguments: Readonly<Record<string, unknown>> };
}

/** One message. Further keys are passed to the template as they are. */
export interface Message {
  readonly role: Role;
  /** Text, parts, or for a tool any JSON value; may be absent beside `tool_calls`. */
  readonly content?: unknown;
  readonly tool_calls?: readonly ToolCall[];
  readonly [key: string]: unknown;
}

const roles: readonly string[] = ["system", "user", "assistant", "tool"];

/** @throws InputError naming the message and what is wrong with it. */
export function checkMessages(messages: readonly Message[]): void {
  if (!Array.isArray(messages)) throw new InputError(`messages: expected a list of messages, got ${kindOf(messages)}.`);
  if (messages.length === 0) throw new InputError("messages: expected at least one message, got none. Pass what the user says.");
  messages.forEach((message: unknown, i) => {
    const at = `messages[${i}]`;
    if (!isRecord(message)) throw new InputError(`${at}: expected an object with role and content, got ${kindOf(message)}.`);
    const { role, content } = message;
    if (typeof role !== "string" || !roles.includes(role)) {
      const got = typeof role === "string" ? quoted(role) : kindOf(role);
      throw new InputError(`${at}.role: expected one of ${roles.join(", ")}, got ${got}.`);
    }
    checkContent(content, role, message.tool_calls, `${at}.content`);
  });
}

function checkContent(content: unknown, role: string, toolCalls: unknown, at: string): void {
  if (typeof content === "string") return;
  if (content === undefined || content === null) {
    if (role === "assistant" && Array.isArray(toolCalls) && toolCalls.length) return;
    throw new InputError(`${at}: expected a string or a list of parts, got ${kindOf(content)}.`);
  }
  if (role === "tool") return; // a result is whatever JSON the tool gave
  if (!Array.isArray(content)) throw new InputError(`${at}: expected a string or a list of parts, got ${kindOf(content)}.`);
  content.forEach((part: unknown, i) => {
    if (!isRecord(part) || typeof part.type !== "string")
      throw new InputError(`${at}[${i}]: expected a part with a type, got ${kindOf(part)}.`);
    if (part.type === "text" && typeof part.text !== "string") {
      throw new InputError(`${at}[${i}].text: expected a string, got ${kindOf(part.text)}.`);
    }
  });
}

/** How a string is to be changed; `key` is the name under which it stands. */
export type StringMap = (text: string, key: string) => string;

/**
 * Copies a JSON value with every string changed; keys go through `mapKey`. Undefined members are left out.
 * @throws InputError for what JSON does not have, and for too deep a nesting.
 */
export function mapStrings(value: unknown, map: StringMap, mapKey: (key: string) => string, at: string, key = "", depth = 0): unknown {
  if (depth > MAX_VALUE_DEPTH) throw new InputError(`${at}: expected a nesting depth of at most ${MAX_VALUE_DEPTH}, got more.`);
  if (typeof value === "string") return map(value, key);
  if (value === null || typeof value === "boolean" || (typeof value === "number" && Number.isFinite(value))) return value;
  if (Array.isArray(value)) return value.map((v: unknown) => mapStrings(v, map, mapKey, at, key, depth + 1));
  if (isRecord(value) && Object.prototype.toString.call(value) === "[object Object]") {
    const entries = Object.entries(value).filter(([, v]) => v !== undefined);
    return Object.fromEntries(entries.map(([k, v]) => [mapKey(k), mapStrings(v, map, mapKey, at, k, depth + 1)]));
  }
  throw new InputError(
    `${at}: expected values that JSON can hold, got ${typeof value === "number" ? `${value}` : kindOf(value)} for ${quoted(key)}.`,
  );
}
