// The threads that a load would compute with, for the calls that load nothing.
import type { ThreadOptions } from "./kernels/threads.ts";
import { type LoadOptions, type Platform, threadOptions } from "./lfm2.ts";

/** @returns the threads that a load from here would compute with, in the worker that it starts where there is one */
export function plannedThreads(
  { threads: own, workerThreads, noThreads }: Platform,
  { engine, threads }: LoadOptions,
  parameters: number,
): ThreadOptions | undefined {
  const source = (engine === "here" ? undefined : workerThreads) ?? own;
  return threadOptions(source, source || noThreads === undefined ? threads : 1, parameters);
}
