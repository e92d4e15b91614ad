// What callers pass, checked at the door. Must not know what a call does with it.
import { InputError } from "./errors.ts";
import { isRecord, kindOf } from "./values.ts";

/** @returns `options`, whose `signal` and `onProgress`, if any, are what such a thing is. @throws InputError when they are not, or are no object */
export function checkObject<T extends object>(where: string, options: T): T {
  if (!isRecord(options)) throw new InputError(`${where}: expected an object with options, got ${kindOf(options)}. Leave it out for none.`);
  const { signal, onProgress } = options as { readonly signal?: Partial<AbortSignal> | null; readonly onProgress?: unknown };
  if (signal !== undefined && typeof signal?.addEventListener !== "function")
    throw new InputError(`${where}: signal: expected an AbortSignal, got ${kindOf(signal)}. Pass the signal of an AbortController.`);
  if (onProgress !== undefined && typeof onProgress !== "function")
    throw new InputError(`${where}: onProgress: expected a function, got ${kindOf(onProgress)}. Leave it out to hear nothing.`);
  return options;
}
