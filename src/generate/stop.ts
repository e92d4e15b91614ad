// Stop strings over text that arrives in pieces: what cannot become one is let through at once. Knows text only; stop tokens are the engine's business.
import { InputError } from "../errors.ts";

/** More strings, or longer ones, would make every piece slow; nobody has needed them. */
export const MAX_STOP_STRINGS = 16;
/** UTF-16 units of a stop string; so much text may be held back. */
export const MAX_STOP_LENGTH = 256;

/**
 * @param stop the option as a caller gave it: a string, a list of strings, or nothing
 * @returns the list
 * @throws InputError when it is something else, or a string is empty, too long or half of a character
 */
export function checkStop(stop: unknown): readonly string[] {
  if (stop === undefined) return [];
  const list: readonly unknown[] = typeof stop === "string" ? [stop] : Array.isArray(stop) ? stop : [stop];
  if (list.length > MAX_STOP_STRINGS) {
    throw new InputError(`stop: expected at most ${MAX_STOP_STRINGS} strings, got ${list.length}. Keep the ones that matter.`);
  }
  return list.map(checkString);
}

function checkString(text: unknown): string {
  if (typeof text !== "string")
    throw new InputError(`stop: expected a string or a list of strings, got ${typeof text}. Pass text, for example stop: ["\\n\\n"].`);
  if (text === "")
    throw new InputError("stop: expected non-empty strings, got an empty one. Leave it out: it would stop before the first token.");
  if (text.length > MAX_STOP_LENGTH) {
    throw new InputError(
      `stop: expected strings of at most ${MAX_STOP_LENGTH} characters, got one of ${text.length}. Its first words are enough.`,
    );
  }
  if (/\p{Surrogate}/u.test(text))
    throw new InputError("stop: expected well-formed text, got half of a surrogate pair. Pass whole characters.");
  return text;
}

/**
 * Looks for stop strings in streamed text. The first to be complete wins, of several that end at the same place the longest; so the outcome does not
 * depend on where the text was cut into pieces.
 */
export class StopFinder {
  readonly #stops: readonly string[];
  /** A proper beginning of a stop string, not let through yet. */
  #held = "";
  #hit: string | undefined;

  /** @param stops as `checkStop` returned them */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** @returns a finder that stands where this one does */
  fork(): StopFinder {
    const copy = new StopFinder(this.#stops);
    copy.#held = this.#held;
    copy.#hit = this.#hit;
    return copy;
  }

  /** The stop string that was found. Nothing comes after it. */
  get hit(): string | undefined {
    return this.#hit;
  }

  /** @returns the text that may be shown now: before a stop string, and without an end that may still become one. */
  push(piece: string): string {
    if (this.#stops.length === 0) return piece;
    if (this.#hit !== undefined || piece === "") return "";
    const text = this.#held + piece;
    const found = this.#find(text);
    if (found) {
      this.#hit = found.stop;
      this.#held = "";
      return text.slice(0, found.start);
    }
    const kept = this.#tailLength(text);
    this.#held = text.slice(text.length - kept);
    return text.slice(0, text.length - kept);
  }

  /** @returns what was held back; call it when the text ends without a stop string. */
  flush(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  #find(text: string): { stop: string; start: number } | undefined {
    let best: { stop: string; start: number } | undefined;
    let bestEnd = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      const end = start + stop.length;
      if (start < 0 || end > bestEnd || (end === bestEnd && best && start >= best.start)) continue;
      best = { stop, start };
      bestEnd = end;
    }
    return best;
  }

  /** Length of the longest end of `text` that is a proper beginning of a stop string. */
  #tailLength(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
