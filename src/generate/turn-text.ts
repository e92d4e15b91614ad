// Text of a turn: bytes to characters, characters to what no stop string claims. Knows no model; ids that end a turn are the caller's business.
import { type ByteTable, tokensOfTable } from "../text/byte-level.ts";
import { StreamDecoder } from "../text/stream-decoder.ts";
import { StopFinder } from "./stop.ts";

/** What ids become, one at a time. */
export class TurnText {
  readonly #decoder: StreamDecoder | undefined;
  readonly #finder: StopFinder;

  constructor(decoder: StreamDecoder | undefined, finder: StopFinder) {
    this.#decoder = decoder;
    this.#finder = finder;
  }

  /** @param table undefined for a model without tokenizer: its tokens have no text @param stop as `checkStop` returned them */
  static of(table: ByteTable | undefined, stop: readonly string[]): TurnText {
    return new TurnText(table && new StreamDecoder(tokensOfTable(table)), new StopFinder(stop));
  }

  /** @returns one that goes its own way from here */
  fork(): TurnText {
    return new TurnText(this.#decoder?.fork(), this.#finder.fork());
  }

  push(id: number): string {
    return this.#finder.push(this.#decoder?.push(id) ?? "");
  }

  /** What was held back, unless a stop string was found. */
  end(): string {
    const text = this.#finder.push(this.#decoder?.flush() ?? "");
    return text + this.#finder.flush();
  }

  get isStopped(): boolean {
    return this.#finder.hit !== undefined;
  }
}
