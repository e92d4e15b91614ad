/** See memory.mjs. */
export function contentBytes(pid: number): number;
export function contentCpuMs(pid: number): number;
