// Helper threads on Web Workers, where memory can be shared: for workers of a page that is cross-origin isolated.
import type { Thread, ThreadSource } from "../../kernels/threads.ts";
import { part } from "../../part.ts";
import type { StartThread } from "../../remote/threads.ts";
import { startWorker, type WebWorker } from "./start.ts";

declare const Worker: new (address: URL, options: { readonly type: "module" }) => WebWorker;

/** As it stands: Vite and webpack build the file that this names. */
const fromFile = (): WebWorker => new Worker(new URL("./thread.browser.js", import.meta.url), { type: "module" });

/** Without a number: the processors of the oldest machines that browsers still run on. */
const FEW = 2;

export const available: ThreadSource["available"] = () =>
  (globalThis as { readonly navigator?: { readonly hardwareConcurrency?: number } }).navigator?.hardwareConcurrency || FEW;

/** @param first what the thread is told: its work, or a port by which that comes. It is told once, when one of the two ways to start it has worked */
function start(first: object, transfer: readonly object[], onEnd: (cause: unknown) => void): Thread {
  let isReady = false;
  let end = (): void => {};
  const ready = new Promise<void>((resolve, reject) => {
    const worker = startWorker({
      fromFile,
      texts: [async () => (await part("thread-text", () => import("./thread-text.ts"))).threadText],
      onMessage: (message) => {
        if (message !== "ready") return worker.post(first, transfer);
        isReady = true;
        resolve();
      },
      onEnd: (cause) => (isReady ? onEnd(cause) : reject(cause)),
    });
    end = worker.end;
  });
  return { ready, end: () => end() };
}

export const threads: ThreadSource = { available, spawn: (work, onEnd) => start(work, [], onEnd) };

export const startThread: StartThread = (port, onEnd) => start(port, [port], onEnd);

/** Why a worker of Firefox starts none. */
export const MAY_HANG = "in Firefox a worker that starts workers may hang";

/** @returns whether this thread can start workers without a risk to hang in it (seen in ESR 153, before the new worker runs a line) */
export const nestsSafely = (): boolean =>
  "document" in globalThis ||
  !(globalThis as { readonly navigator?: { readonly userAgent?: string } }).navigator?.userAgent?.includes("Firefox/");

/** @returns why there are no threads here, or, of a page, in a worker of it; undefined where there are */
export function noThreads(isHere: boolean = true): string | undefined {
  if (isHere && "document" in globalThis) return 'a page\'s own thread cannot wait for others: leave engine: "here" out';
  if (!("Worker" in globalThis)) return "a service worker starts no workers";
  if (isHere && !nestsSafely()) return MAY_HANG;
  if ((globalThis as { readonly crossOriginIsolated?: boolean }).crossOriginIsolated === true) return undefined;
  return (
    "this page is not cross-origin isolated: serve it with the headers Cross-Origin-Opener-Policy: same-origin and " +
    "Cross-Origin-Embedder-Policy: require-corp"
  );
}
