/** See serve.mjs. */
export function findWorkerd(): string | undefined;
export function serveWorker(
  folder: string,
  main: string,
  options?: { readonly flags?: readonly string[]; readonly env?: Readonly<Record<string, string>> },
): Promise<{ readonly port: number; readonly pid: number; close(): Promise<void> }>;
