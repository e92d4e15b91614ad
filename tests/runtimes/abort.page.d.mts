/** See abort.page.mjs. */
export interface Aborts {
  /** Calls of the kernels that a step makes. */
  readonly callsPerStep: number;
  /** Of each abort: calls of the kernels that were begun after it. */
  readonly after: readonly number[];
  /** How often a call ended how; "over" before the abort came. */
  readonly outcomes: Readonly<Record<string, number>>;
}
export interface AbortsTold {
  readonly calls: Readonly<Record<string, Aborts>>;
  /** Sessions and pages that stay. */
  readonly left: readonly number[];
}
export function run(
  files: unknown,
  options: { readonly aborts: number; readonly seed: number; readonly names?: readonly string[] | undefined },
): Promise<AbortsTold>;
export function checkAborts(told: AbortsTold, aborts: number): void;
