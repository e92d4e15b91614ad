// How large a template's values are, and what a filter, a method, a slice or an addition would make of them, before it is made. Must not know the interpreter.
import type { Interpreter } from "@huggingface/jinja";
import { FormatError, UnsupportedError } from "../errors.ts";
import { MAX_TEMPLATE_BUILT, MAX_TEMPLATE_CHARACTERS, MAX_TEMPLATE_ITEMS, MAX_TEMPLATE_NODES, MAX_TEMPLATE_PARTS } from "./limits.ts";

export const WHERE = "chat template";
export type Value = ReturnType<Interpreter["evaluate"]>;

export const overBudget = (limit: string, got: string): FormatError =>
  new FormatError(`${WHERE}: expected at most ${limit}, the limit, got ${got}. Use the model's own template.`);

/** What a value would be if all that it holds, shared or not, were written out. */
interface Weight {
  readonly nodes: number;
  readonly characters: number;
  /** Levels of lists and objects. */
  readonly depth: number;
}

const SCALAR: Weight = { nodes: 1, characters: 0, depth: 0 };

function checkCharacters(count: number): void {
  if (count > MAX_TEMPLATE_CHARACTERS) throw overBudget(`${MAX_TEMPLATE_CHARACTERS} characters of output`, `${count}`);
}

function checkParts(count: number): void {
  if (count > MAX_TEMPLATE_PARTS) throw overBudget(`${MAX_TEMPLATE_PARTS} parts of a text`, `${Math.ceil(count)}`);
}

/** @returns how often `part` occurs, or one more than `most` */
function occurrences(text: string, part: string, most: number): number {
  if (part === "") return text.length + 1;
  let count = 0;
  for (let at = text.indexOf(part); at >= 0 && count <= most; at = text.indexOf(part, at + part.length)) count++;
  return count;
}

function checkReplace(text: string, from: unknown, to: unknown): void {
  if (typeof from !== "string" || typeof to !== "string") return;
  const count = occurrences(text, from, MAX_TEMPLATE_PARTS);
  checkParts(count);
  checkCharacters(text.length + count * Math.max(0, to.length - from.length));
}

function checkSplit(text: string, separator: unknown): void {
  let count = 1;
  if (typeof separator === "string") count += occurrences(text, separator, MAX_TEMPLATE_ITEMS);
  else for (const _ of text.matchAll(/\S+/g)) if (count++ > MAX_TEMPLATE_ITEMS) break;
  if (count > MAX_TEMPLATE_ITEMS + 1) throw overBudget(`${MAX_TEMPLATE_ITEMS} items`, "more");
}

function checkIndent(text: string, width: unknown): void {
  const lines = occurrences(text, "\n", MAX_TEMPLATE_PARTS) + 1;
  checkParts(lines);
  checkCharacters(text.length + lines * (typeof width === "number" ? width : 0));
}

/** A namespace may hold itself, and changes after it was measured. */
export const notWritten = (): UnsupportedError =>
  new UnsupportedError(
    `${WHERE}: expected a namespace to be read by its names, got one within a value or as text. Use the model's own template.`,
  );

/** Measures the values of one rendering. */
export class TemplateSizes {
  readonly #weights = new WeakMap<object, Weight>();
  #built = 0;

  /** @returns the items of a list or an object, 0 for other values. @throws FormatError when the value is too large */
  check(value: Value): number {
    const content: unknown = value.value;
    if (typeof content === "string") checkCharacters(content.length);
    const items = Array.isArray(content) ? content.length : content instanceof Map ? content.size : 0;
    if (items > MAX_TEMPLATE_ITEMS) throw overBudget(`${MAX_TEMPLATE_ITEMS} items`, `${items}`);
    const { nodes, characters } = this.#weigh(value);
    if (nodes > MAX_TEMPLATE_NODES) throw overBudget(`${MAX_TEMPLATE_NODES} nested items`, `${nodes}`);
    checkCharacters(characters);
    return items;
  }

  /** Counts a text that was made anew. @throws FormatError when all of them together are too much */
  note({ value }: Value): void {
    if (typeof value !== "string") return;
    this.#built += value.length;
    if (this.#built > MAX_TEMPLATE_BUILT) throw overBudget(`${MAX_TEMPLATE_BUILT} characters of texts made by filters and calls`, "more");
  }

  /** @throws FormatError when `name`, as a filter or a method of `operand`, would make too much of it */
  checkCall(name: string, operand: Value, args: readonly Value[], named: ReadonlyMap<string, Value>): void {
    const text: unknown = operand.value;
    const given = (at: number, key: string): unknown => (args[at] ?? named.get(key))?.value;
    if (name === "tojson" && operand.type === "NamespaceValue") throw notWritten();
    if (name === "tojson") this.#checkJson(operand, named);
    else if (name === "join") this.#checkJoin(operand, given(0, "separator"));
    else if (typeof text !== "string") return;
    else if (name === "replace") checkReplace(text, given(0, ""), given(1, ""));
    else if (name === "split") checkSplit(text, given(0, ""));
    else if (name === "indent") checkIndent(text, given(0, "width") ?? 4);
    else if (name === "title") checkParts(text.length / 2);
  }

  /** @throws FormatError when a slice would take too long a text apart */
  checkSlice({ value }: Value): void {
    if (typeof value === "string") checkParts(value.length);
  }

  #checkJoin(operand: Value, separator: unknown): void {
    const content: unknown = operand.value;
    const length = typeof content === "string" || Array.isArray(content) ? content.length : 0;
    if (typeof content === "string") checkParts(length);
    checkCharacters(this.#weigh(operand).characters + length * (typeof separator === "string" ? separator.length : 0));
  }

  #checkJson(operand: Value, named: ReadonlyMap<string, Value>): void {
    const { nodes, characters, depth } = this.#weigh(operand);
    const indent: unknown = named.get("indent")?.value;
    const separators: unknown = named.get("separators")?.value;
    let around = 4 + (typeof indent === "number" ? (depth + 1) * (indent + 1) : 0);
    for (const { value } of Array.isArray(separators) ? (separators as Value[]) : [])
      around += typeof value === "string" ? value.length : 0;
    checkCharacters(characters + nodes * around);
  }

  /** A list of itself twice, again and again, doubles it. */
  #weigh(value: Value): Weight {
    const content: unknown = value.value;
    if (typeof content === "string") return { nodes: 1, characters: content.length, depth: 0 };
    if (value.type === "NamespaceValue" || !(Array.isArray(content) || content instanceof Map)) return SCALAR;
    const known = this.#weights.get(content);
    if (known !== undefined) return known;
    let [nodes, characters, depth] = [1, 0, 0];
    if (content instanceof Map) for (const key of content.keys()) characters += (key as string).length;
    for (const item of content.values() as Iterable<Value>) {
      if (item.type === "NamespaceValue") throw notWritten();
      const weight = this.#weigh(item);
      nodes += weight.nodes;
      characters += weight.characters;
      depth = Math.max(depth, weight.depth);
    }
    const weight = { nodes, characters, depth: depth + 1 };
    this.#weights.set(content, weight);
    return weight;
  }
}
