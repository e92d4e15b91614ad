// Helper threads by node:worker_threads, which Node, Deno and Bun share.
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Thread, ThreadSource, ThreadStart } from "../../kernels/threads.ts";

/**
 * A worker that keeps the process alive until it serves, and not afterwards.
 * The parent's options (a debugger's, a loader's) are not for it: it runs one file of our own.
 */
function spawn(file: URL, start: ThreadStart, onEnd: (cause: unknown) => void): Thread {
  const worker = new Worker(file, { workerData: start, execArgv: [], env: {}, name: `lfm2 thread ${start.ith}` });
  let isReady = false;
  let hasEnded = false;
  const ready = new Promise<void>((resolve, reject) => {
    const ended = (cause: unknown): void => {
      if (hasEnded) return;
      hasEnded = true;
      if (isReady) onEnd(cause);
      reject(cause);
    };
    worker.once("message", () => {
      isReady = true;
      worker.unref();
      resolve();
    });
    worker.on("error", ended);
    worker.on("exit", (code) => ended(new Error(`the thread ended with code ${code}`)));
  });
  return {
    ready,
    end: () => {
      if (!hasEnded) void worker.terminate();
      if (isReady) hasEnded = true;
    },
  };
}

/** @param file the thread's module: `thread.ts` of this folder, built */
export function threadsOf(file: URL): ThreadSource {
  return { available: availableParallelism, spawn: (start, onEnd) => spawn(file, start, onEnd) };
}
