// What a worker with an engine runs in Deno: an entry of its own (dist/worker.deno.js).
import { useTurn } from "../../macrotask.ts";
import { serveParent } from "../node/serve.ts";
import { denoTurn, here } from "./platform.ts";

useTurn(denoTurn);
serveParent(here());
