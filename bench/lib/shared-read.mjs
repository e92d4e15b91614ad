// The read bandwidth of several threads at once, from WebAssembly: each reads its part of a working set, again and again. This file is its own worker.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { ensureProbes } from "../../scripts/build.mjs";
import { readProbe } from "./ceilings.mjs";

/** The machine is shared: the best of so many rounds is the ceiling. */
const ROUNDS = 20;
/** Bytes that a round reads, all threads together: some 10 ms. */
const ROUND_BYTES = 1 << 28;

const now = () => performance.timeOrigin + performance.now(); // the same clock in every thread

/** @param ready counts the threads that wait for the round */
function readRounds({ path, partBytes, threads, order, ready }) {
  const arrived = new Int32Array(ready);
  const { [order]: read } = readProbe(path, partBytes);
  const repeats = Math.max(1, Math.round(ROUND_BYTES / threads / partBytes));
  const rounds = [];
  for (let round = -2; round < ROUNDS; round++) {
    Atomics.add(arrived, 0, 1);
    while (Atomics.load(arrived, 0) < threads * (round + 3)); // together, to the microsecond
    const start = now();
    for (let i = 0; i < repeats; i++) read();
    if (round >= 0) rounds.push({ start, end: now() });
  }
  return { rounds, bytes: repeats * partBytes };
}

/**
 * @param bytes of the working set, all threads together
 * @returns GB/s that so many threads read of it in the faster of two orders, from the first one's start to the last one's end: the best round
 */
export async function readTogether(bytes, threads) {
  return Math.max(await readInOrder("read", bytes, threads), await readInOrder("readRuns", bytes, threads));
}

async function readInOrder(order, bytes, threads) {
  const [path] = await ensureProbes();
  const ready = new SharedArrayBuffer(4);
  const partBytes = Math.floor(bytes / threads / 256) * 256;
  const one = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { path, partBytes, threads, order, ready } });
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  const parts = await Promise.all(Array.from({ length: threads }, one));
  const total = parts.reduce((sum, part) => sum + part.bytes, 0);
  const took = parts[0].rounds.map(
    (_, r) => Math.max(...parts.map((p) => p.rounds[r].end)) - Math.min(...parts.map((p) => p.rounds[r].start)),
  );
  return total / Math.min(...took) / 1e6;
}

if (!isMainThread && workerData?.ready) parentPort.postMessage(readRounds(workerData));
