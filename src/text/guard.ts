// Keeps what a user writes from forming control tokens inside a rendered prompt: characters are masked before a template runs and found again
// after. Must not know templates.
import { InputError } from "../errors.ts";
import { type AddedToken, AddedTokenFinder, type Segment } from "./segments.ts";

/** Characters that JSON writes as they are, so that a masked one comes out of `tojson` in the right spelling. */
const isJsonSafe = (c: string): boolean => c >= " " && c !== '"' && c !== "\\" && !/\p{Surrogate}/u.test(c);

const isPair = (text: string, i: number): boolean => /^[\ud800-\udbff][\udc00-\udfff]$/.test(text.slice(Math.max(0, i), i + 2));

/** Tokens that a mask protects: all control tokens, and the others unless they are white space or would suffer in `tojson`. */
function isGuarded({ special, content }: AddedToken): boolean {
  return special || (content.trim() !== "" && [...content].every(isJsonSafe));
}

/**
 * The characters of a string that must not be part of an added token. One is marked in every full occurrence of a token. At the string's edges one
 * is marked where the template could complete a token: an end that begins one, a start that ends one, a string that lies wholly inside one.
 * White space inside does not hide a token. What a template could make by changing letters (`lower`, `replace`) is not looked for.
 */
export class TokenGuard {
  readonly #finder: AddedTokenFinder;
  readonly #contents: readonly string[];
  readonly #prefixes = new Set<string>();
  readonly #suffixes = new Set<string>();
  #longest = 0;

  constructor(tokens: readonly AddedToken[]) {
    const guarded = tokens.filter(isGuarded);
    this.#finder = new AddedTokenFinder(guarded);
    this.#contents = guarded.map((t) => t.content);
    for (const content of this.#contents) {
      this.#longest = Math.max(this.#longest, content.length);
      for (let n = 1; n < content.length; n++) {
        this.#prefixes.add(content.slice(0, n));
        this.#suffixes.add(content.slice(n));
      }
    }
  }

  /**
   * @param edges - false leaves the string's edges alone: for words that templates compare
   * @returns the indices to mask, in any order
   */
  marks(text: string, edges: boolean): Set<number> {
    const marks = new Set<number>();
    this.#mark(text, edges, (i) => marks.add(i));
    if (/\s/.test(text)) {
      // a template may trim, or drop line ends: tokens that white space cuts are found too
      const places: number[] = [];
      for (let i = 0; i < text.length; i++) if (text[i]!.trim() !== "") places.push(i);
      this.#mark(text.replace(/\s+/g, ""), edges, (i) => marks.add(places[i]!));
    }
    for (const i of marks) {
      // both halves of a surrogate pair, or JSON would escape the one that is left
      if (isPair(text, i)) marks.add(i + 1);
      if (isPair(text, i - 1)) marks.add(i - 1);
    }
    return marks;
  }

  #mark(text: string, edges: boolean, mark: (index: number) => void): void {
    for (let i = 0; i < text.length; i++) {
      for (const { content } of this.#finder.at(text, i)) mark(i + Math.max(0, content.split("").findIndex(isJsonSafe)));
    }
    if (!edges || text === "") return;
    const room = Math.min(text.length, this.#longest - 1);
    for (let n = 1; n <= room; n++) {
      if (this.#prefixes.has(text.slice(-n))) mark(text.length - 1);
      if (this.#suffixes.has(text.slice(0, n))) mark(0);
    }
    if (text.length < this.#longest && this.#contents.some((c) => c.includes(text))) mark(0);
  }
}

const FIRST_PRIVATE = 0xe000;
const LAST_PRIVATE = 0xf8ff;
const escapeOf = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** Stands private-use characters in for masked ones, one for each character that is masked somewhere, none that the input holds. */
export class CharacterMask {
  readonly #inputs: readonly string[];
  readonly #stand = new Map<string, string>();
  #next = FIRST_PRIVATE;

  /** @param inputs - every string that may come out of the rendering */
  constructor(inputs: readonly string[]) {
    this.#inputs = inputs;
  }

  /** @returns `text` with the characters at `marks` replaced. */
  apply(text: string, marks: ReadonlySet<number>): string {
    if (marks.size === 0) return text;
    const units = text.split("");
    for (const i of marks) units[i] = this.#standIn(units[i]!);
    return units.join("");
  }

  #standIn(original: string): string {
    const known = this.#stand.get(original);
    if (known !== undefined) return known;
    for (; this.#next <= LAST_PRIVATE; this.#next++) {
      const c = String.fromCharCode(this.#next);
      const escaped = escapeOf(c);
      if (this.#inputs.some((s) => s.includes(c) || s.includes(escaped))) continue;
      this.#next++;
      this.#stand.set(original, c);
      return c;
    }
    throw new InputError(
      "messages: expected text that leaves some private-use characters (U+E000 to U+F8FF) free, got all of them. Remove some.",
    );
  }

  /** @returns the output in segments: masked characters, back as they were, are not trusted; all else is. */
  restore(output: string): Segment[] {
    if (this.#stand.size === 0) return output === "" ? [] : [{ text: output, trusted: true }];
    const original = new Map<string, string>();
    for (const [from, to] of this.#stand) {
      original.set(to, from);
      original.set(escapeOf(to), from < "\x7f" ? from : escapeOf(from)); // tojson(ensure_ascii=true)
    }
    const pattern = new RegExp(`(${[...original.keys()].map((k) => k.replace("\\", "\\\\")).join("|")})`);
    const segments: { text: string; trusted: boolean }[] = [];
    for (const part of output.split(pattern)) {
      if (part === "") continue;
      const text = original.get(part);
      const last = segments.at(-1);
      const trusted = text === undefined;
      if (last?.trusted === trusted) last.text += text ?? part;
      else segments.push({ text: text ?? part, trusted });
    }
    return segments;
  }
}
