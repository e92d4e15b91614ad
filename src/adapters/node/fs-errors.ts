// What node:fs says when it refuses, and of a file that is not there, and how that is told. Node, Deno and Bun share it.
import { StorageError } from "../../errors.ts";

export const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? "";
export const isMissing = (error: unknown): boolean => ["ENOENT", "ENOTDIR"].includes(codeOf(error));

/** @returns what `run` gives; undefined where the file that it is about is not there */
export async function orUndefined<T>(run: () => Promise<T>): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** @param expected what was to be done, and to which file. @param advice a sentence behind it */
export function refusal(expected: string, cause: unknown, code?: string, advice = ""): StorageError {
  const message = `${expected}, got an error of the file system: ${(cause as Error).message}.${advice && ` ${advice}.`}`;
  return new StorageError(message, { cause, ...(code === undefined ? {} : { code }) });
}
