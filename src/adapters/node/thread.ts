// What a helper thread runs: an entry of its own (dist/thread.js), started by threads.ts.
import { parentPort, workerData } from "node:worker_threads";
import { serveThread, type ThreadStart } from "../../kernels/threads.ts";

serveThread(workerData as ThreadStart, () => parentPort?.postMessage("ready"));
