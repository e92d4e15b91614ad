// A session on the engine's side: a sequence of ids and the cache that has computed them, or the beginning of them. Knows no sampling and no text.
import { FormatError, InputError } from "../errors.ts";
import { PAGE_POSITIONS } from "../kernels/commands.ts";
import type { Cache } from "../models/cache.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { decodeState, encodeState, type StateOwner } from "../models/saved-state.ts";
import { TokenList } from "./tokens.ts";

/** A sequence that can be continued, cut short and copied. */
export class Session {
  readonly cache: Cache;
  /** The sequence. The cache holds as many of its ids as it has positions; behind them stand ids that a restored session has yet to compute. */
  readonly tokens: TokenList;

  constructor(cache: Cache, tokens: TokenList = new TokenList()) {
    this.cache = cache;
    this.tokens = tokens;
  }

  /**
   * Cuts the sequence to its first `position` ids.
   * @throws InputError when it has not so many
   */
  rewind(position: number): void {
    if (!(Number.isSafeInteger(position) && position >= 0 && position <= this.tokens.length)) {
      throw new InputError(
        `rewind: expected a position from 0 to ${this.tokens.length}, the tokens that the session holds, got ${String(position)}. Take one that chat.position gave.`,
      );
    }
    this.tokens.truncate(position);
    this.cache.rewind(position);
  }

  /** @returns a session of its own with the same content. @throws MemoryError */
  fork(): Session {
    return new Session(this.cache.fork(), this.tokens.copy());
  }

  /** @returns the session as bytes, with `note`: what `restore` takes. @throws MemoryError when the host has no room for them */
  save(model: LanguageModel, note: string): Uint8Array {
    const whole = Math.floor(this.cache.position / PAGE_POSITIONS);
    const pages = this.cache.pages.slice(0, whole).map((page) => model.caches.contentOf(page));
    return encodeState(ownerOf(model), { tokens: this.tokens.toArray(), pages, note });
  }

  /**
   * @returns the session that was saved, and its note. What was not stored of its end is computed with the next step.
   * @throws FormatError when the bytes are no state of this model; InputError when it is longer than this model's context; MemoryError
   */
  static restore(model: LanguageModel, bytes: Uint8Array): { readonly session: Session; readonly note: string } {
    const { tokens, pages, note } = decodeState(bytes, ownerOf(model));
    checkTokens(model, tokens, pages.length);
    const list = new TokenList();
    for (const id of tokens) list.push(id);
    // without attention there are no pages, and the ids are enough
    const position = model.caches.size.pageBytes === 0 ? tokens.length : PAGE_POSITIONS * pages.length;
    return { session: new Session(model.caches.restore(pages, position), list), note };
  }

  /** @returns how many ids from the beginning of `ids` have been computed here */
  heldOf(ids: ArrayLike<number>): number {
    return Math.min(this.tokens.commonPrefix(ids), this.cache.position);
  }

  /** Takes over the first `length` of `ids`, which `pages` of another session hold, in place of its own. */
  adopt(ids: ArrayLike<number>, length: number, pages: readonly number[]): void {
    this.cache.adopt(pages, length);
    this.tokens.truncate(0);
    for (let i = 0; i < length; i++) this.tokens.push(ids[i] ?? 0);
  }

  /**
   * Prepares to continue `ids`: keeps what the cache holds of them, leaving one at least to compute, whose logits say what comes next.
   * @returns how many are kept
   */
  keep(ids: ArrayLike<number>): number {
    this.tokens.truncate(Math.min(this.heldOf(ids), ids.length - 1));
    this.cache.rewind(this.tokens.length);
    return this.tokens.length;
  }

  /** Takes in a step that was given `ids` from position `from` on; after a trap the cache is empty. */
  follow(from: number, ids: ArrayLike<number>): void {
    for (let i = this.tokens.length; i < this.cache.position; i++) this.tokens.push(ids[i - from] ?? 0);
    this.tokens.truncate(this.cache.position);
  }
}

const ownerOf = (model: LanguageModel): StateOwner => ({
  model: model.fingerprint,
  kvDtype: model.options.kvDtype,
  pageBytes: model.caches.size.pageBytes,
  heads: { query: model.config.numAttentionHeads, kv: model.config.numKeyValueHeads, dim: model.config.headDim },
});

function checkTokens({ options, config }: LanguageModel, tokens: Uint32Array, pages: number): void {
  const { maxContextTokens } = options;
  if (tokens.length > maxContextTokens) {
    throw new InputError(
      `restore: expected at most ${maxContextTokens} tokens, the model's context, got ${tokens.length}. Load the model with a larger maxContextTokens.`,
      { code: "context-full" },
    );
  }
  if (pages * PAGE_POSITIONS <= tokens.length && tokens.every((id) => id < config.vocabSize)) return;
  throw new FormatError(
    "restore: expected ids of this model's vocabulary and pages for them, got others. The state was not made by chat.save().",
  );
}
