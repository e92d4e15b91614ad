// What a browser says of an origin's storage: how much room there is, and what its errors mean.
import { Lfm2Error, StorageError } from "../../errors.ts";
import { megabytes } from "../../weights/shelf.ts";

/** What a browser tells of the storage of an origin. */
interface Estimate {
  readonly usage?: number;
  readonly quota?: number;
}

/** Of `navigator` what is used here. */
interface StorageNavigator {
  readonly storage?: { getDirectory?(): Promise<unknown>; estimate?(): Promise<Estimate> };
  readonly locks?: unknown;
}

/** @returns `navigator`, in a page or a worker */
export const storageNavigator = (): StorageNavigator => (globalThis as { readonly navigator?: StorageNavigator }).navigator ?? {};

const nameOf = (error: unknown): string => (error as Error | undefined)?.name ?? "";

const isMissing = (error: unknown): boolean => ["NotFoundError", "TypeMismatchError"].includes(nameOf(error));

/** @returns undefined where a browser means that there is no such file */
export async function unlessMissing<T>(run: () => Promise<T>): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (isMissing(error) || isMissing((error as Error | undefined)?.cause)) return undefined;
    throw error;
  }
}

const CODES: Readonly<Record<string, string>> = {
  QuotaExceededError: "storage-full",
  NoModificationAllowedError: "in-use",
  NotAllowedError: "not-writable",
  SecurityError: "not-writable",
};
const ADVICE: Readonly<Record<string, string>> = {
  "storage-full":
    "Remove a model that is not needed (listModels, removeModel), free space on the disk, or ask for more by navigator.storage.persist()",
  "in-use": "Close what uses it, in other tabs too",
  "not-writable": "Allow the site to keep data, or pass cache: false",
};

/** @returns what the browser tells of the origin's storage */
async function estimate(): Promise<Estimate> {
  const asked = storageNavigator().storage?.estimate?.();
  return (await asked?.catch(() => undefined)) ?? {};
}

/** @returns bytes that the origin may still take; undefined where the browser does not tell */
export async function freeBytes(): Promise<number | undefined> {
  const { usage, quota } = await estimate();
  return usage === undefined || quota === undefined ? undefined : Math.max(0, quota - usage);
}

/** @returns how much the origin has used and may use, as text; "" where the browser does not tell */
async function room(): Promise<string> {
  const { usage, quota } = await estimate();
  return usage === undefined || quota === undefined ? "" : ` ${megabytes(usage)} of ${megabytes(quota)} are used.`;
}

/** Says that there is no room for so many bytes. */
export async function full(place: string, what: string, cause?: unknown): Promise<StorageError> {
  return new StorageError(
    `cache: expected room in ${place} for ${what}, got a full storage.${await room()} ${ADVICE["storage-full"]}.`,
    cause === undefined ? { code: "storage-full" } : { code: "storage-full", cause },
  );
}

/**
 * Runs what reads or writes; whatever it throws comes out as a StorageError.
 * @param bytes that it writes: an error of another name for which there is no room means that
 */
export async function doing<T>(place: string, what: string, run: () => Promise<T>, bytes = 0): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    if (cause instanceof Lfm2Error) throw cause;
    const code = CODES[nameOf(cause)];
    const isFull = code === "storage-full" || (code === undefined && bytes > ((await freeBytes()) ?? bytes));
    if (isFull) throw await full(place, "more", cause);
    const said = cause instanceof Error ? cause.message : String(cause);
    const options = code === undefined ? { cause } : { cause, code };
    throw new StorageError(
      `cache: expected to ${what} in ${place}, got an error: ${said} ${ADVICE[code ?? ""] ?? "Load it again"}.`,
      options,
    );
  }
}
