// A session as bytes, and back: a part of the package that most programs do without.
import { FormatError, InputError } from "../errors.ts";
import { PAGE_POSITIONS } from "../kernels/commands.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { decodeState, encodeState, type StateOwner } from "../models/saved-state.ts";
import { Session } from "./session.ts";
import { TokenList } from "./tokens.ts";

/** @returns the session as bytes, with `note`: what `restoreSession` takes. @throws MemoryError when the host has no room for them */
export function saveSession({ cache, tokens }: Session, model: LanguageModel, note: string): Uint8Array {
  const whole = Math.floor(cache.position / PAGE_POSITIONS);
  const pages = cache.pages.slice(0, whole).map((page) => model.caches.contentOf(page));
  return encodeState(ownerOf(model), { tokens: tokens.toArray(), pages, note });
}

/**
 * @returns the session that was saved, and its note. What was not stored of its end is computed with the next step.
 * @throws FormatError when the bytes are no state of this model; InputError when it is longer than this model's context; MemoryError
 */
export function restoreSession(model: LanguageModel, bytes: Uint8Array): { readonly session: Session; readonly note: string } {
  const { tokens, pages, note } = decodeState(bytes, ownerOf(model));
  checkTokens(model, tokens, pages.length);
  const list = new TokenList();
  for (const id of tokens) list.push(id);
  // without attention there are no pages, and the ids are enough
  const position = model.caches.size.pageBytes === 0 ? tokens.length : PAGE_POSITIONS * pages.length;
  return { session: new Session(model.caches.restore(pages, position), list), note };
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
