// Log-probabilities of tokens under the model's own distribution: before penalties, temperature and cuts.
import type { Logits } from "../kernels/logits.ts";
import { ln } from "../math.ts";

/** How likely a token was. */
export interface TokenLogprob {
  readonly id: number;
  /** Natural logarithm of its probability. */
  readonly logprob: number;
  /** The likeliest tokens at this place, best first, as many as were asked for. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** @returns ln Σ e^logit, with the largest logit taken out: what every logit less this is, is a log-probability */
export function logSum(logits: Logits): number {
  const total = logits.softmax();
  return logits.view()[logits.argmax()]! + ln(total);
}

/** Keeps one row's log-probabilities until its token has been chosen. */
export class LogprobReader {
  readonly #count: number;
  #scores: Float32Array = new Float32Array(0);
  #sum = 0;
  #top: TokenLogprob["top"] = [];

  /** @param count of the likeliest tokens to tell beside the chosen one */
  constructor(count: number) {
    this.#count = count;
  }

  /** Takes in a row before anything changes it. */
  read(logits: Logits): void {
    this.#sum = logSum(logits);
    this.#scores = logits.copy();
    const { ids, values } = this.#count > 0 ? logits.topK(Math.min(this.#count, logits.size)) : { ids: [], values: [] };
    this.#top = Array.from(ids, (id, i) => ({ id, logprob: values[i]! - this.#sum }));
  }

  /** @returns what the last row says of `id` */
  of(id: number): TokenLogprob {
    return { id, logprob: this.#scores[id]! - this.#sum, top: this.#top };
  }
}
