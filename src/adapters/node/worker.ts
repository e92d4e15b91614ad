// What a worker with an engine runs in Node and Bun: an entry of its own (dist/worker.js), started by workers.ts.
import process from "node:process";
import { workerData } from "node:worker_threads";
import type { Runtime } from "../../lfm2.ts";
import { nodePlatform } from "./platform.ts";
import { serveParent } from "./serve.ts";

const { runtime } = workerData as { readonly runtime: Runtime };
serveParent(nodePlatform({ runtime, variable: (name) => process.env[name] }));
