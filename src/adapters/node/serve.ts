// The worker's end of node:worker_threads.
import { parentPort } from "node:worker_threads";
import type { Platform } from "../../lfm2.ts";
import { serveEngine } from "../../remote/host.ts";

/** Serves the thread that started this one. @param onEnd see serveEngine */
export function serveParent(platform: Platform, onEnd?: () => void): void {
  const receive = serveEngine(
    () => platform,
    (message, transfer) => parentPort?.postMessage(message, transfer as ArrayBuffer[]),
    0,
    onEnd,
  );
  parentPort?.on("message", receive);
}
