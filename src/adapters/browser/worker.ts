// What a worker with an engine runs in browsers: an entry of its own (dist/worker.browser.js) with everything in it, for a worker has no import map.
import { serveEngine } from "../../remote/host.ts";
import { remoteThreads } from "../../remote/threads.ts";
import { browserPlatform } from "./platform.ts";
import { available } from "./threads.ts";

declare function addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
declare function postMessage(message: unknown, transfer: readonly object[]): void;

/** A frame at 60 a second: parts of a reply that come within it are shown together. */
const FRAME_MS = 16;

const receive = serveEngine(
  (channel) => browserPlatform(remoteThreads(channel, available), false),
  (message, transfer) => postMessage(message, transfer),
  FRAME_MS,
);
addEventListener("message", ({ data }) => receive(data));
