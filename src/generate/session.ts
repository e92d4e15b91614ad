// A session on the engine's side: a sequence of ids and the cache that has computed them, or the beginning of them. Knows no sampling and no text.
import { InputError } from "../errors.ts";
import type { Cache } from "../models/cache.ts";
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
