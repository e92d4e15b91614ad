// Files of one checkpoint that are open together.
import { AbortError, FormatError, UnsupportedError } from "../errors.ts";
import { quoted } from "../values.ts";
import { MAX_PROOF_BYTES } from "./limits.ts";
import type { ByteSource } from "./source.ts";
import type { WeightFile } from "./tensor.ts";

/** What several files hold together, and what holds them open. */
export interface ShardedWeights extends WeightFile {
  readonly sources: readonly ByteSource[];
}

/** Closes every source; the first failure is thrown after all have been closed. */
export async function closeAll(sources: readonly ByteSource[]): Promise<void> {
  const ends = await Promise.allSettled(sources.map(async (source) => source.close?.()));
  const failed = ends.find((end) => end.status === "rejected");
  if (failed) throw failed.reason;
}

/** Proves every source by its checksum, where it has one. @throws FormatError */
export async function verifyAll(sources: readonly ByteSource[], signal?: AbortSignal): Promise<void> {
  for (const source of sources) await source.verify?.(signal);
}

/**
 * What is wrong with bytes that a parser refused: where they came damaged, that, whatever the parser took them for. A file of up to `MAX_PROOF_BYTES` is
 * brought to its end for that; of a larger one the parser's word stands, and a load hears it twice, of bytes that were fetched twice.
 * @returns the checksum's FormatError, with `error` as its cause; AbortError; else `error`
 */
export async function rightError(error: unknown, sources: readonly ByteSource[], signal: AbortSignal | undefined): Promise<unknown> {
  const isRefusal =
    error instanceof UnsupportedError || (error instanceof FormatError && !["checksum", "missing-file"].includes(error.code));
  if (!isRefusal) return error;
  for (const source of sources) {
    if (source.size > MAX_PROOF_BYTES) continue;
    try {
      await source.verify?.(signal);
    } catch (proof) {
      if (proof instanceof AbortError) return proof;
      if (proof instanceof FormatError) return new FormatError(proof.message, { code: proof.code, cause: error });
    }
  }
  return error;
}

/** Runs `use` with a list for what it opens, which is closed when it fails. @throws what `rightError` makes of the failure */
export async function opening<T>(use: (opened: ByteSource[]) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const opened: ByteSource[] = [];
  try {
    return await use(opened);
  } catch (error) {
    const right = await rightError(error, opened, signal);
    await closeAll(opened).catch(() => {}); // the first error is the one that helps
    throw right;
  }
}

export function missing(name: string, why: string): FormatError {
  return new FormatError(`${name}: expected this file, for ${why}, got none. Download the whole checkpoint.`, { code: "missing-file" });
}

export function duplicate(file: string, tensor: string, other: string): FormatError {
  return new FormatError(
    `${file}: tensor ${quoted(tensor)}: expected every tensor once, got a duplicate of the one in ${other}. Download the whole checkpoint.`,
  );
}
