// Models that are loaded and disposed of, over and over, in whatever runtime this runs, and what its process holds after some of the cycles: cycles.test.ts.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";

/** How long a runtime may take to end threads and to collect what nobody holds: half of it as long as memories are alive, half for the system to get them back. */
const SETTLE_MS = 20_000;
/** Between two looks, ms. */
const PAUSE_MS = 250;
/** So often in a row nothing less is held: then it is for good. */
const STILL = 6;

/** Linear memories that were made in this thread. */
const made = [];
/** Models that are never disposed of: the leak that a test must find. */
const kept = [];

function watch() {
  if (made.length) return;
  WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
    construct: (target, args) => {
      const memory = Reflect.construct(target, args);
      made.push(new WeakRef(memory));
      return memory;
    },
  });
}

/**
 * @param {number} index of the cycle @param {{ ways: readonly object[], keepFrom: number, keepEvery: number }} options of load(), by turns; from which cycle on one model in how many is kept
 * @returns the bytes of the model's linear memory
 */
export async function cycle(index, { ways, keepFrom, keepEvery }) {
  const model = await load(mini, ways[index % ways.length]);
  await model.generate("Hello", { maxTokens: 2 });
  const { memoryBytes } = await model.status();
  if (index >= keepFrom && index % keepEvery === 0) kept.push(model);
  else model.dispose();
  return memoryBytes;
}

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
const alive = () => made.reduce((count, memory) => count + (memory.deref() ? 1 : 0), 0);

async function collect() {
  await pause(); // a reference that was followed lives until the event loop's next turn
  for (let i = 0; i < 2; i++) {
    globalThis.gc?.();
    globalThis.Bun?.gc(true);
  }
}

/** What whoever started a browser sees of its processes (browser.mjs), or the process itself. */
const bytesHeld = async () =>
  globalThis.process?.memoryUsage?.().rss ?? Number(await (await fetch(`${globalThis.location.origin}/memory`)).text());

/** @returns linear memories of this thread that are alive, and the least that the process holds once it holds no less any more */
async function settled() {
  const end = performance.now() + SETTLE_MS;
  const isOver = () => performance.now() > end - SETTLE_MS / 2;
  do await collect();
  while (globalThis.gc && alive() > 0 && kept.length === 0 && !isOver()); // else nobody can be told to collect
  let [bytes, still] = [Number.POSITIVE_INFINITY, 0];
  while (still < STILL && performance.now() < end) {
    const held = await bytesHeld();
    if (!(held > 1e6)) throw new Error(`a process of ${held} bytes`); // what tells nothing would find no leak
    still = held < 0.995 * bytes ? 0 : still + 1;
    bytes = Math.min(bytes, held);
    await collect();
  }
  return { alive: alive(), bytes };
}

/** @returns of each of `marks`, a number of cycles, what there is after it */
export async function run(_files, { marks, ...options }) {
  watch();
  const told = [];
  let memoryBytes = 0;
  let cycles = 0;
  for (const mark of marks) {
    for (; cycles < mark; cycles++) memoryBytes = await cycle(cycles, options);
    told.push({ cycles, ...(await settled()) });
  }
  return { memoryBytes, made: made.length, marks: told };
}
