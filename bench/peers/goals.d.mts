/** What the engines took in one cell, ms a round by engine, and what else was measured there. */
export interface Cell {
  readonly tokens?: number;
  readonly ms?: Readonly<Record<string, readonly number[]>>;
  readonly peak?: Readonly<Record<string, number>>;
  readonly load?: Readonly<Record<string, number>>;
  readonly fileBytes?: number;
  readonly kvBytes?: number;
  readonly same?: Readonly<Record<string, number>>;
  readonly note?: string;
}
export interface Options {
  readonly models: readonly string[];
  readonly types: readonly string[];
  readonly threads: readonly number[];
  readonly prefills: readonly number[];
  readonly contexts: readonly number[];
  readonly peers: readonly string[];
  readonly rounds: number;
  readonly slowRounds: number;
}
export interface Goal {
  readonly what: string;
  readonly against: string;
  readonly goal: number;
  readonly values: readonly { readonly value: number; readonly name: string }[];
  readonly missing: readonly string[];
  readonly isReached: boolean | undefined;
}
export interface Machine {
  tile(): number;
  weightBytes(shape: string, type: string): number | undefined;
}
export interface Run {
  readonly cells: Readonly<Record<string, Cell>>;
  readonly options: Options;
  readonly ceilings: { read(bytes: number): number; readonly together?: Readonly<Record<number, number>> };
  readonly firstPrompt: number;
  readonly asks?: (peer: string, shape: string, type: string, what: string) => boolean;
}
export interface About {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly runtime: string;
  readonly build: string;
  readonly commit?: string;
  readonly versions: Readonly<Record<string, string>>;
}
export function cross(...lists: readonly (readonly unknown[])[]): unknown[][];
export function goalsOf(run: Run, machine?: Machine): Goal[];
export function report(run: Omit<Run, "ceilings"> & { about: About; goals: readonly Goal[]; command: string }): string;
