// What a helper thread runs in browsers: an entry of its own (dist/thread.browser.js), started by threads.ts.
import { serveThread, type ThreadStart } from "../../kernels/threads.ts";

declare function addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
declare function postMessage(message: unknown): void;

const serve = (data: unknown): void => serveThread(data as ThreadStart, () => postMessage("ready"));
/** Its work, or a port by which that comes. */
addEventListener("message", ({ data }) => {
  if (!(data instanceof MessagePort)) return serve(data);
  (data as unknown as { onmessage: (event: { readonly data: unknown }) => void }).onmessage = (event) => serve(event.data);
});
postMessage("up");
