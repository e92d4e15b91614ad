// Workers for a whole engine by node:worker_threads, which Node, Deno and Bun share.
import { Worker } from "node:worker_threads";
import type { Runtime } from "../../lfm2.ts";
import type { EngineWorkers } from "../../remote/workers.ts";

/** So long a worker may take to end by itself. */
const MOST_END_MS = 10_000;

/** @param file the worker's module, built: `worker.ts` of this folder, or a runtime's own */
export function workersOf(file: URL, runtime: Runtime): EngineWorkers {
  return {
    isDefault: false,
    start: (onMessage, onEnd) => {
      // the parent's options (a debugger's, a loader's) are not for it
      const worker = new Worker(file, { workerData: { runtime }, execArgv: [], name: "lfm2 engine" });
      let hasEnded = false;
      const end = (cause: unknown): void => {
        if (hasEnded) return;
        hasEnded = true;
        onEnd(cause);
      };
      worker.on("message", onMessage);
      worker.on("messageerror", end);
      worker.on("error", end);
      worker.on("exit", (code) => end(new Error(`it ended with code ${code}`)));
      return {
        post: (message, transfer) => worker.postMessage(message, transfer as ArrayBuffer[]),
        hold: (isAwaited) => (isAwaited ? worker.ref() : worker.unref()),
        end: () => {
          if (hasEnded) return;
          hasEnded = true;
          if (runtime !== "deno") return void worker.terminate();
          // Deno (2.9) would leave its helper threads asleep, with the model's memory: they go when the worker, which has been told, disposes of the model
          worker.unref();
          const late = setTimeout(() => void worker.terminate(), MOST_END_MS).unref();
          worker.once("exit", () => clearTimeout(late));
        },
      };
    },
  };
}
