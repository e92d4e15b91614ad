// What a disk's refusals mean to whoever keeps models there: StorageErrors that say what to do. Node, Deno and Bun share it.
import { Lfm2Error } from "../../errors.ts";
import { codeOf, refusal } from "./fs-errors.ts";

/** EFBIG is a limit of the process, EDQUOT one of the user. */
const CODES: Readonly<Record<string, string>> = {
  ENOSPC: "storage-full",
  EDQUOT: "storage-full",
  EFBIG: "storage-full",
  EACCES: "not-writable",
  EPERM: "not-writable",
  EROFS: "not-writable",
};
const ADVICE: Readonly<Record<string, string>> = {
  "storage-full": "Free some space, remove a model that is not needed, or name another folder",
  "not-writable": "Name a folder that may be written to (HF_HOME, or `cache: { dir }`)",
};

function refused(what: string, path: string, cause: unknown): Error {
  if (cause instanceof Lfm2Error) return cause;
  const code = CODES[codeOf(cause)];
  return refusal(`cache: expected to ${what} ${JSON.stringify(path)}`, cause, code, ADVICE[code ?? ""] ?? "Check the folder");
}

/** Runs what reads or writes at `path`; whatever it throws comes out as a StorageError. */
export async function doing<T>(what: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    throw refused(what, path, cause);
  }
}
