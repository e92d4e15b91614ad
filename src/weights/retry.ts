// When to try again, and when to give up. Knows failures by kind, nothing of what is transferred.
import { AbortError, NetworkError } from "../errors.ts";
import { BACKOFF_MS, MAX_BACKOFF_MS, MAX_RETRY_AFTER_MS } from "./limits.ts";
import { Interrupted, maxRetriesOf, type Network } from "./request.ts";

/** From so many bytes on a connection was worth having: the next one need not wait. */
const WORTHWHILE_BYTES = 1 << 14;
/** A stalled connection costs the whole limit of silence: only so many bytes between two of them make up for it. */
const STALL_WORTHWHILE_BYTES = 1 << 20;

/** @throws AbortError at once when the signal fires */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(new AbortError(undefined, { cause: signal.reason }));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

/** The attempts of one transfer. */
export class Retries {
  readonly #max: number;
  readonly #backoffMs: number;
  #failures = 0;
  #sinceStall = 0;

  constructor(network: Network) {
    this.#max = maxRetriesOf(network);
    this.#backoffMs = network.options?.backoffMs ?? BACKOFF_MS;
  }

  /**
   * Waits for the next attempt's time.
   * @param gainedBytes what the failed attempt brought
   * @throws the failure itself when it is not worth another attempt; AbortError
   */
  async next(failure: unknown, gainedBytes: number, signal: AbortSignal): Promise<void> {
    if (!(failure instanceof Interrupted)) throw failure;
    this.#sinceStall += gainedBytes;
    if (gainedBytes > 0 && (!failure.isStall || this.#sinceStall >= STALL_WORTHWHILE_BYTES)) this.#failures = 0;
    if (failure.isStall) this.#sinceStall = 0;
    if (++this.#failures > this.#max) throw failure.error;
    await sleep(this.#delay(failure, gainedBytes), signal);
  }

  #delay({ error, retryAfterMs }: Interrupted, gainedBytes: number): number {
    if (retryAfterMs !== undefined && retryAfterMs > MAX_RETRY_AFTER_MS) {
      const seconds = Math.ceil(retryAfterMs / 1000);
      throw new NetworkError(
        `${error.message} It asks to wait ${seconds} s; ${MAX_RETRY_AFTER_MS / 1000} s is the most that is waited. Try again later.`,
        {
          status: error.status,
          retryable: true,
          code: "retry-after",
        },
      );
    }
    if (gainedBytes >= WORTHWHILE_BYTES) return 0;
    const backoff = Math.min(MAX_BACKOFF_MS, this.#backoffMs * 2 ** (this.#failures - 1));
    return Math.max(retryAfterMs ?? 0, backoff * (0.5 + Math.random() / 2)); // spread, lest all who were cut off come back at once
  }
}
