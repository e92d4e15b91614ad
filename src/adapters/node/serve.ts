// The worker's end of node:worker_threads.
import { parentPort } from "node:worker_threads";
import type { Platform } from "../../lfm2.ts";
import { serveEngine } from "../../remote/host.ts";

/** Serves the thread that started this one. */
export function serveParent(platform: Platform): void {
  const receive = serveEngine(
    () => platform,
    (message, transfer) => parentPort?.postMessage(message, transfer as ArrayBuffer[]),
  );
  parentPort?.on("message", receive);
}
