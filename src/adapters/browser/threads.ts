// Helper threads on Web Workers, where memory can be shared: in workers of a page that is cross-origin isolated.
import type { ThreadSource } from "../../kernels/threads.ts";
import { part } from "../../part.ts";
import { startWorker, type WebWorker } from "./start.ts";

declare const Worker: new (address: URL, options: { readonly type: "module" }) => WebWorker;

/** As it stands: Vite and webpack build the file that this names. */
const fromFile = (): WebWorker => new Worker(new URL("./thread.browser.js", import.meta.url), { type: "module" });

/** Without a number: the processors of the oldest machines that browsers still run on. */
const FEW = 2;

export const available: ThreadSource["available"] = () =>
  (globalThis as { readonly navigator?: { readonly hardwareConcurrency?: number } }).navigator?.hardwareConcurrency || FEW;

export const threads: ThreadSource = {
  available,
  spawn: (start, onEnd) => {
    let isReady = false;
    let end = (): void => {};
    const ready = new Promise<void>((resolve, reject) => {
      const worker = startWorker({
        fromFile,
        texts: [async () => (await part("thread-text", () => import("./thread-text.ts"))).threadText],
        first: start,
        onMessage: () => {
          isReady = true;
          resolve();
        },
        onEnd: (cause) => (isReady ? onEnd(cause) : reject(cause)),
      });
      end = worker.end;
    });
    return { ready, end: () => end() };
  },
};

/** @returns why there are no threads here, or, of a page, in a worker of it; undefined where there are */
export function noThreads(isHere: boolean = true): string | undefined {
  if (isHere && "document" in globalThis) return 'a page\'s own thread cannot wait for others: leave engine: "here" out';
  if (!("Worker" in globalThis)) return "a service worker starts no workers";
  if ((globalThis as { readonly crossOriginIsolated?: boolean }).crossOriginIsolated === true) return undefined;
  return (
    "this page is not cross-origin isolated: serve it with the headers Cross-Origin-Opener-Policy: same-origin and " +
    "Cross-Origin-Embedder-Policy: require-corp"
  );
}
