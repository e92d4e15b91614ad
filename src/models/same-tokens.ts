// Whether ids mean the same in two models.
import { UnsupportedError } from "../errors.ts";
import type { Checkpoint } from "./checkpoint.ts";

type Tokens = Pick<Checkpoint, "config" | "tokenizer">;

const isSame = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.prototype.every.call(a, (x, i) => x === b[i]);

/** @throws UnsupportedError when a draft model's guesses would mean something else to the model that it guesses for */
export function checkSameTokens(draft: Tokens, target: Tokens): void {
  const [own, wanted] = [draft.config.vocabSize, target.config.vocabSize];
  const [mine, theirs] = [draft.tokenizer?.byteTable(), target.tokenizer?.byteTable()];
  if (own === wanted && (!mine || !theirs || (isSame(mine.offsets, theirs.offsets) && isSame(mine.bytes, theirs.bytes)))) return;
  const got = own === wanted ? "one whose ids mean other texts" : `one of ${own} tokens beside ${wanted}`;
  throw new UnsupportedError(`draft: expected a model with the same tokens, got ${got}. Take a smaller one of the same family.`, {
    code: "other-tokens",
  });
}
