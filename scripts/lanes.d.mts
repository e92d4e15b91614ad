/** See lanes.mjs. */
export function lanes(count: number): <T>(run: () => Promise<T>) => Promise<T>;
