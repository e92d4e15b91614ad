// A model in a process of its own whose calls into the kernels are watched: what a decode step takes outside of them. Started by suites/steps.mjs: node between.mjs PATH OPTIONS.
import { median } from "./measure.mjs";
import { greedy, prompt, take } from "./stepper.mjs";

const WARM_UP_STEPS = 64;
const STEPS = 200;
const NOP_RUNS = 2000;

/** ms since the last run of commands: in other kernels (the sampler's), in the event loop's turn. */
const since = { end: 0, kernels: 0, loop: 0 };
/** Of each step, in ms. */
const steps = [];
let model;

const { Instance } = WebAssembly;
const { setImmediate: immediate } = globalThis;

function watch(name, call) {
  if (name !== "run" && name !== "run_all")
    return (...args) => {
      const start = performance.now();
      try {
        return call(...args);
      } finally {
        since.kernels += performance.now() - start;
      }
    };
  return (...args) => {
    const start = performance.now();
    const { end, kernels, loop } = since;
    const result = call(...args);
    since.end = performance.now();
    steps.push({ commands: args[1], run: since.end - start, javascript: start - end - kernels - loop, kernels, loop });
    since.kernels = 0;
    since.loop = 0;
    return result;
  };
}

// before the package is imported, which keeps both
WebAssembly.Instance = class {
  constructor(module, imports) {
    const { exports } = new Instance(module, imports);
    model = { exports, memory: imports.env.memory };
    this.exports = Object.fromEntries(Object.entries(exports).map(([name, e]) => [name, typeof e === "function" ? watch(name, e) : e]));
  }
};
globalThis.setImmediate = (resume) => {
  const start = performance.now();
  return immediate(() => {
    since.loop += performance.now() - start;
    resume();
  });
};

/** ms of a step's commands that do nothing: the switch, and the threads' barriers. */
function emptyStep(count, threads) {
  const { exports, memory } = model;
  const address = 65536 * memory.grow(Math.ceil((64 * count) / 65536)); // zeros are nops
  const run = threads > 1 ? () => exports.run_all(address, count, threads) : () => exports.run(address, count, 0, 1);
  for (let i = 0; i < NOP_RUNS; i++) run();
  const start = performance.now();
  for (let i = 0; i < NOP_RUNS; i++) run();
  return (performance.now() - start) / NOP_RUNS;
}

const [path, options] = process.argv.slice(2);
const { load } = await import("lfm2-wasm");
const loaded = await load(path, JSON.parse(options));
const { config, info } = loaded;
const generator = greedy(loaded, prompt(1, 3, config.vocabSize));
await take(generator, WARM_UP_STEPS);
steps.length = 0;
const { ms } = await take(generator, STEPS);
const of = (name) => median(steps.map((step) => step[name]));
const { commands } = steps[0];
const result = { step: ms / STEPS, run: of("run"), javascript: of("javascript"), sampling: of("kernels"), loop: of("loop"), commands };
console.log(JSON.stringify({ ...result, empty: emptyStep(commands, info.threads), variant: info.variant, threads: info.threads }));
await generator.return();
loaded.dispose();
