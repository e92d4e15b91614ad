// What callers pass, checked at the door. Must not know what a call does with it.
import { InputError } from "./errors.ts";
import { isRecord, kindOf, quoted } from "./values.ts";

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

/** What names that mean the same have in common: neither case nor underscores count, and the reference's maxNewTokens is maxTokens here. */
const core = (name: string): string => name.toLowerCase().replace(/new|[^a-z\d]/g, "");

/**
 * @param type whose documentation lists the options
 * @param known objects that have them for keys
 * @returns `options`, checked by `checkObject`, too
 * @throws InputError for an option that is none of them, undefined ones aside
 */
export function checkNames<T extends object>(where: string, options: T, type: string, ...known: readonly object[]): T {
  const names = known.flatMap(Object.keys);
  const strange = Object.entries(checkObject(where, options)).find(([name, value]) => value !== undefined && !names.includes(name))?.[0];
  if (strange === undefined) return options;
  const meant = names.find((name) => core(name) === core(strange));
  throw new InputError(
    `${where}: expected names that ${type} lists, got ${quoted(strange)}. ${meant === undefined ? "Leave it out" : `Write ${meant}`}.`,
  );
}
