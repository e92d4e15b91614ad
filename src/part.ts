// Parts of the package that come when they are first needed, each a file of its own. Where import() is forbidden they must have been brought before.
import { PlatformError } from "./errors.ts";

const brought = new Map<string, object>();

/** Hands parts over that are there already: `lfm2-wasm/whole` has them all. */
export function bring(parts: Readonly<Record<string, object>>): void {
  for (const [name, one] of Object.entries(parts)) brought.set(name, one);
}

/**
 * @param name as in `adapters/browser/whole.ts`
 * @param load imports it; written out where it is used, so that bundlers see it
 * @throws PlatformError `"no-part"` where it cannot come
 */
export async function part<T extends object>(name: string, load: () => Promise<T>): Promise<T> {
  const there = brought.get(name) as T | undefined;
  if (there) return there;
  try {
    return await load();
  } catch (cause) {
    throw new PlatformError(
      `package: expected to load its part ${JSON.stringify(name)}, got an error: ${(cause as Error).message}. ` +
        'In a service worker, which loads nothing later, import "lfm2-wasm/whole" beside it; elsewhere serve all files of the bundle.',
      { code: "no-part", cause },
    );
  }
}
