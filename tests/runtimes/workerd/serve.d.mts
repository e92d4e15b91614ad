/** See serve.mjs. */
export function findWorkerd(): string | undefined;
export function inspect(address: string): Promise<(method: string) => Promise<unknown>>;
export function serveWorker(
  folder: string,
  main: string,
  options?: { readonly flags?: readonly string[]; readonly env?: Readonly<Record<string, string>>; readonly isInspected?: boolean },
): Promise<{ readonly port: number; readonly pid: number; readonly inspector?: string | undefined; close(): Promise<void> }>;
