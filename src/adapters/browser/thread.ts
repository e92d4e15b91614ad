// What a helper thread runs in browsers: an entry of its own (dist/thread.browser.js), started by threads.ts.
import { serveThread, type ThreadStart } from "../../kernels/threads.ts";

declare function addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
declare function postMessage(message: unknown): void;

addEventListener("message", ({ data }) => serveThread(data as ThreadStart, () => postMessage("ready")));
