// Text of which some characters may form control tokens and some may not, and how added tokens are found in it. Must not know templates or BPE.

/** A token that stands beside the BPE vocabulary: its text is taken whole, never merged. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Control tokens: not shown when decoding. `<think>` is an added token that is not special. */
  readonly special: boolean;
  /** White space before (after) the token belongs to it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

/** A stretch of a prompt. Added tokens are recognised only where every character of theirs is trusted. */
export interface Segment {
  readonly text: string;
  readonly trusted: boolean;
}

/** A stretch of text, or an added token that was found. */
export type Piece = { readonly text: string } | { readonly token: AddedToken };

/** A step in the tree of all added tokens, character by character. */
interface TreeNode {
  readonly next: Map<string, TreeNode>;
  token?: AddedToken;
}

/** Finds added tokens in text: leftmost first, the longest at each place. */
export class AddedTokenFinder {
  readonly #root: TreeNode = { next: new Map() };

  constructor(tokens: readonly AddedToken[]) {
    for (const token of tokens) {
      let node = this.#root;
      for (const c of token.content.split("")) {
        const next: TreeNode = node.next.get(c) ?? { next: new Map() };
        node.next.set(c, next);
        node = next;
      }
      node.token = token;
    }
  }

  /** @returns the tokens whose text begins at `at`, longest first. */
  at(text: string, at: number): readonly AddedToken[] {
    const found: AddedToken[] = [];
    for (let i = at, node = this.#root.next.get(text[i]!); node; node = node.next.get(text[++i]!)) {
      if (node.token) found.unshift(node.token);
    }
    return found;
  }

  /**
   * Cuts text at its added tokens.
   * @param trusted - (text.length) 1 where a character may be part of a token
   */
  split(text: string, trusted: Uint8Array): Piece[] {
    const pieces: Piece[] = [];
    let from = 0;
    for (let i = 0; i < text.length; ) {
      const token = this.at(text, i).find((t) => isTrusted(trusted, i, t.content.length));
      if (!token) {
        i++;
        continue;
      }
      const before = text.slice(from, i);
      pieces.push({ text: token.lstrip ? before.trimEnd() : before }, { token });
      i += token.content.length;
      if (token.rstrip) while (i < text.length && text[i]!.trim() === "") i++;
      from = i;
    }
    pieces.push({ text: text.slice(from) });
    return pieces.filter((p) => "token" in p || p.text !== "");
  }
}

function isTrusted(trusted: Uint8Array, from: number, length: number): boolean {
  for (let i = from; i < from + length; i++) if (trusted[i] !== 1) return false;
  return true;
}

/** @returns the segments as one string and a flag for each of its characters. */
export function joinSegments(segments: readonly Segment[]): { text: string; trusted: Uint8Array } {
  const text = segments.map((s) => s.text).join("");
  const trusted = new Uint8Array(text.length);
  let at = 0;
  for (const s of segments) {
    if (s.trusted) trusted.fill(1, at, at + s.text.length);
    at += s.text.length;
  }
  return { text, trusted };
}
