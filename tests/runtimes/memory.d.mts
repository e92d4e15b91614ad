/** See memory.mjs. */
export function contentBytes(pid: number): number;
