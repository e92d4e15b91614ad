// What a worker with an engine runs in Deno: an entry of its own (dist/worker.deno.js).
import { useTurn } from "../../macrotask.ts";
import { serveParent } from "../node/serve.ts";
import { denoWorkerTurn, here } from "./platform.ts";

/** Ends this worker. */
declare function close(): void;

useTurn(denoWorkerTurn);
serveParent(here(), () => close());
