/** See index.mjs. */
export interface Job {
  readonly module: string;
  readonly files: Readonly<Record<string, string>>;
  readonly options: object;
  /** Whether its module imports an installed package. */
  readonly isPackaged?: boolean;
}
export const NODES: readonly string[];
export const RUNTIMES: Readonly<
  Record<
    string,
    {
      readonly install: string;
      find(): string | undefined;
      run(binary: string, job: Job, timeoutMs: number, place?: string): Promise<unknown>;
    }
  >
>;
export function installed(names: readonly string[], what: string): { readonly name: string; readonly binary: string }[];
