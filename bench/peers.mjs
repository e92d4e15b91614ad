// npm run bench:peers: the same weights in lfm2-wasm, in native llama.cpp (node-llama-cpp), in llama.cpp as wasm (wllama, in a browser) and in onnxruntime-web, in turns, against the goals.
// What the peers need is installed into a scratch folder outside this repository. bench/README.md lists the options.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "../scripts/build.mjs";
import { presetOf } from "../scripts/checkpoints/make-checkpoint.mjs";
import { measureCeilings } from "./lib/ceilings.mjs";
import { fileBytes, folder, gguf } from "./lib/checkpoints.mjs";
import { CheckFailed, check, median } from "./lib/measure.mjs";
import { readOptions } from "./lib/options.mjs";
import { machine } from "./lib/report.mjs";
import { readTogether } from "./lib/shared-read.mjs";
import { prompt } from "./lib/stepper.mjs";
import { Engines, earlierCells, PEERS, VERSIONS } from "./peers/engines.mjs";
import { cross, goalsOf, report } from "./peers/goals.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const WARM_UP_STEPS = 16;
const DECODE_TOKENS = 32;
const FIRST_PROMPT = 128;
const FIRST_CONTEXT = 1024;
const CHECKED_PROMPTS = 8;
/** Whose ONNX graph is checked with float weights, id by id. */
const GRAPH_SHAPE = "mid";
const GRAPH_TOKENS = 4;
const MARKS = ["<!-- bench:peers -->", "<!-- /bench:peers -->"];

const { options } = readOptions({
  json: "bench/results/peers.json",
  write: false,
  resume: false,
  quick: false,
  full: false,
  rounds: 5,
  "slow-rounds": 5,
  models: ["350m", "1.2b"],
  types: ["Q4_0", "Q8_0"],
  threads: availableParallelism() > 1 ? [1, 2] : [1],
  prefills: [128, 512, 2048],
  contexts: [0, 512, 4096],
  peers: PEERS,
  parts: ["quantized", "graph", "warm", "speed", "start"],
  seconds: 240,
  scratch: join(tmpdir(), "lfm2-wasm-peers"),
});
if (options.quick) {
  options.models = options.models.slice(0, 1);
  options.rounds = Math.min(options.rounds, 2);
  options.prefills = options.prefills.filter((n) => n <= 512);
  options.contexts = options.contexts.filter((n) => n <= 512);
}
options.slowRounds = Math.min(options.rounds, options["slow-rounds"]);
const timeoutMs = 1000 * options.seconds;
const note = (line) => console.error(line);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130)); // "exit" ends the browser

const engines = new Engines(options, note);

// ---- cells: what each engine took, in ms, one number a round ----

/** The commit that is measured, where this is a clone. */
function commitOf() {
  try {
    return execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return undefined;
  }
}

const about = { ...machine(), versions: VERSIONS, commit: commitOf() };
/** Finished cells by key; written after each, so that a run that was cut off goes on with --resume. */
const cells = options.resume ? earlierCells(options.json, about) : {};

function writeResults(more = {}) {
  mkdirSync(dirname(options.json), { recursive: true });
  writeFileSync(`${options.json}.part`, `${JSON.stringify({ ...about, cells, ...more }, null, 1)}\n`);
  renameSync(`${options.json}.part`, options.json);
}

function keep(key, cell) {
  cells[key] = cell;
  writeResults();
  const figures = Object.entries(cell.ms ?? {}).map(
    ([engine, ms]) =>
      `${engine} ${(cell.tokens * 1000) / median(ms) >= 10 ? ((cell.tokens * 1000) / median(ms)).toFixed(1) : ((cell.tokens * 1000) / median(ms)).toFixed(2)}`,
  );
  note(`${key}: ${cell.note ?? `${figures.join(", ")} ${cell.tokens === 1 ? "a second" : "tokens/s"}`}`);
}

/** The engines of a cell, one process each, started when first asked for. */
class Workers {
  #open = new Map();
  #failed = new Map();

  /** @param weights gives the path for an engine */
  constructor(weights, loadOptions, vocabulary) {
    this.weights = weights;
    this.loadOptions = loadOptions;
    this.vocabulary = vocabulary;
  }

  /** @returns the answer, or undefined when the engine fails or takes too long: it is left out from then on */
  async call(engine, name, args) {
    if (this.#failed.has(engine)) return undefined;
    try {
      return await (await this.#worker(engine)).call(name, args, timeoutMs);
    } catch (error) {
      await this.drop(engine, error);
      return undefined;
    }
  }

  async #worker(engine) {
    const open = this.#open.get(engine);
    if (open) return open;
    const path = await this.weights(engine);
    const worker = await engines.start(engine, path);
    this.#open.set(engine, worker);
    // wllama takes longer for a context that it does not need
    const contextTokens = engine === "wllama" ? FIRST_CONTEXT : this.loadOptions.contextTokens;
    const more = engine === "ours" ? this.loadOptions.ours : {};
    await worker.call("load", { threads: this.loadOptions.threads, contextTokens, path, ...more }, timeoutMs);
    await worker.call("start", { ids: prompt(64, 90, this.vocabulary), count: WARM_UP_STEPS }, timeoutMs);
    return worker;
  }

  async drop(engine, error) {
    note(`${engine} left out of the rest: ${error.message.split("\n")[0]}`);
    this.#failed.set(engine, error.message);
    await this.#open.get(engine)?.stop();
    this.#open.delete(engine);
  }

  async stop() {
    for (const worker of this.#open.values()) await worker.stop();
    this.#open.clear();
  }
}

const roundsOf = (engine) => (engines.isSlow(engine) ? options.slowRounds : options.rounds);

/** Each engine in turn, as often as it has rounds. @returns ms by engine, of those that answered every time */
async function inTurns(list, work) {
  const ms = Object.fromEntries(list.map((engine) => [engine, []]));
  for (let round = 0; round < options.rounds; round++)
    for (const engine of list.filter((e) => round < roundsOf(e))) {
      const took = await work(engine, round);
      if (took !== undefined) ms[engine].push(took);
    }
  return Object.fromEntries(Object.entries(ms).filter(([engine, values]) => values.length === roundsOf(engine)));
}

const sum = (list) => list.reduce((a, b) => a + b, 0);

/** The first greedy id after each of some prompts, of every engine: the same weights give nearly the same logits. */
async function agree(workers, list, key, vocabulary) {
  if (cells[key]) return;
  const same = Object.fromEntries(list.slice(1).map((engine) => [engine, 0]));
  for (let i = 0; i < CHECKED_PROMPTS; i++) {
    const ids = prompt(24 + 5 * i, 50 + i, vocabulary);
    const first = await workers.call("ours", "start", { ids, count: 1 });
    for (const engine of list.slice(1)) {
      const count = engines.likely(engine);
      const likely =
        count > 1 ? await workers.call(engine, "likeliest", { ids, count }) : (await workers.call(engine, "start", { ids, count }))?.ids;
      if (!likely) same[engine] = undefined;
      else if (first && likely.includes(first.ids[0])) same[engine]++;
    }
  }
  const told = Object.entries(same).filter(([, n]) => n !== undefined);
  const line = told.map(([engine, n]) => {
    const count = engines.likely(engine);
    return `the first id ${count > 1 ? `among the ${count} likeliest of ${engine}` : `as ${engine}'s`} after ${n} of ${CHECKED_PROMPTS} prompts`;
  });
  for (const [engine, n] of told) check(2 * n > CHECKED_PROMPTS, `${key}: ${engine} agrees on ${n} of ${CHECKED_PROMPTS} first ids only`);
  keep(key, { same, of: CHECKED_PROMPTS, note: line.join(", ") });
}

/** The ONNX graph is LFM2: with float weights its greedy ids are ours, token by token. */
async function graph() {
  const key = "ONNX graph with f32 weights agreement";
  if (cells[key]) return;
  const loads = { threads: 1, contextTokens: 256, ours: { dtype: "f32", kvDtype: "f32", cache: false } };
  const { V } = presetOf(GRAPH_SHAPE);
  const workers = new Workers(
    (engine) => (engine === "ours" ? folder(GRAPH_SHAPE) : engines.onnx(GRAPH_SHAPE, { isFloat: true })),
    loads,
    V,
  );
  try {
    for (let i = 0; i < CHECKED_PROMPTS; i++) {
      const each = { ids: prompt(24 + 5 * i, 50 + i, V), count: GRAPH_TOKENS };
      const [ours, theirs] = [await workers.call("ours", "start", each), await workers.call("onnxruntime-web", "start", each)];
      check(ours && String(ours.ids) === String(theirs?.ids), `${key}: prompt ${i}: ids ${theirs?.ids}, ours ${ours?.ids}`);
    }
  } finally {
    await workers.stop();
  }
  const same = { "onnxruntime-web": CHECKED_PROMPTS };
  keep(key, {
    same,
    of: CHECKED_PROMPTS,
    note: `${GRAPH_TOKENS} ids each as onnxruntime-web's after ${CHECKED_PROMPTS} of ${CHECKED_PROMPTS} prompts`,
  });
}

/** What `lfm2 quantize` writes, of real weights and with a real tokenizer, is read by llama.cpp, and gives the same first ids, but for near ties. */
async function quantized() {
  const { vocab_size: vocabulary } = JSON.parse(readFileSync("models/lfm2-mini/config.json", "utf8"));
  mkdirSync("build/bench", { recursive: true });
  for (const dtype of ["q4", "q8"]) {
    const path = `build/bench/lfm2-mini-${dtype}.gguf`;
    execFileSync(process.execPath, ["dist/cli.js", "quantize", "models/lfm2-mini", path, "--dtype", dtype, "--force"], { stdio: "ignore" });
    const workers = new Workers(() => path, { threads: 1, contextTokens: 256 }, vocabulary);
    const key = `lfm2 quantize, ${dtype} agreement`;
    try {
      await agree(workers, ["ours", "native"], key, vocabulary);
      check(
        cells[key]?.same.native >= CHECKED_PROMPTS - 2,
        `${key}: native agrees on ${cells[key]?.same.native} of ${CHECKED_PROMPTS} first ids`,
      );
    } finally {
      await workers.stop();
    }
  }
}

const DTYPES = { Q4_0: "q4", Q8_0: "q8" };

/** What is measured of ours gives the reference's logits: a golden model of the type, in the same build and with as many threads. */
async function reference(type, threads) {
  const key = `the reference's logits, ${type} ${threads}t agreement`;
  if (cells[key]) return;
  const { againstReference } = await import("./lib/reference.mjs"); // of what has been built by now
  const [{ far }] = await againstReference(DTYPES[type], [{ name: key, variant: about.build, threads, kvDtype: "f16" }]);
  keep(key, { far, note: `ours of a golden model at most ${far.toFixed(2)} from them (deviation 1.6)` });
}

async function speed(shape, type, threads) {
  const title = `${shape} ${type} ${threads}t`;
  const contextTokens = Math.max(...options.contexts, ...options.prefills) + DECODE_TOKENS * (options.rounds + 2);
  const workers = new Workers((engine) => engines.weights(engine, shape, type), { threads, contextTokens });
  const all = engines.names.filter((engine) => engines.runs(engine, shape, type));
  try {
    await agree(workers, all, `${title} agreement`);
    for (const tokens of options.prefills) {
      const key = `${title} prefill ${tokens}`;
      if (cells[key]) continue;
      const ms = await inTurns(
        all.filter((engine) => engines.measures(engine, "prefills", tokens)),
        async (engine, round) => (await workers.call(engine, "start", { ids: prompt(tokens, round), count: 1 }))?.ms[0],
      );
      keep(key, { tokens, ms });
    }
    for (const context of options.contexts) {
      const key = `${title} decode ${context}`;
      if (cells[key]) continue;
      const list = all.filter((engine) => engines.measures(engine, "contexts", context));
      const begin = (engine, count) => workers.call(engine, "start", { ids: prompt(Math.max(1, context), 3), count });
      for (const engine of list) await begin(engine, 1 + WARM_UP_STEPS);
      const ms = await inTurns(list, async (engine) => {
        if (context === 0) await begin(engine, 1); // an empty context again
        const count = engines.decodeTokens(engine, DECODE_TOKENS);
        const more = await workers.call(engine, "more", { count });
        return more && sum(more.ms) / count;
      });
      keep(key, { tokens: 1, ms });
    }
  } finally {
    await workers.stop();
  }
}

/** Start of the process, load, first token of a prompt, with what is read in the page cache: ours reads the packed image that an earlier load of the file left, native maps the file. */
async function warmStart(shape, type, threads) {
  const key = `${shape} ${type} ${threads}t warm start`;
  if (cells[key]) return;
  const path = await gguf(shape, type);
  const loads = { ours: { path, cache: { dir: join(options.scratch, "cache"), packed: true } }, native: { path } };
  const once = async (engine) => {
    const from = performance.now();
    const worker = await engines.start(engine, path);
    try {
      const loaded = await worker.call("load", { ...loads[engine], threads, contextTokens: FIRST_CONTEXT }, timeoutMs);
      await worker.call("start", { ids: prompt(FIRST_PROMPT, 7), count: 1 }, timeoutMs);
      return { took: performance.now() - from, loaded };
    } finally {
      await worker.stop();
    }
  };
  await once("ours"); // makes the image, where there is none
  await once("native");
  const ms = await inTurns(["ours", "native"], async (engine) => {
    const { took, loaded } = await once(engine);
    check(engine !== "ours" || loaded.packedImage === "read", `${key}: expected the packed image to be read, got ${loaded.packedImage}`);
    return took;
  });
  const [ours, native] = [median(ms.ours), median(ms.native)];
  keep(key, {
    tokens: 1,
    ms,
    note: `ours from the packed image ${Math.round(ours)} ms from start to first token, native from the file ${Math.round(native)}`,
  });
}

/** Start of the process, load, first token of a prompt; and how much memory that took at most. */
async function startUp(shape, type, threads) {
  const key = `${shape} ${type} ${threads}t start`;
  if (cells[key]) return;
  const list = engines.names.filter((engine) => engines.runs(engine, shape, type));
  const peaks = Object.fromEntries(list.map((engine) => [engine, []]));
  const loads = Object.fromEntries(list.map((engine) => [engine, []]));
  const [baselines, paths] = [{}, {}];
  let kvBytes = 0;
  const peakOf = async (engine, worker) => {
    if (!engines.isPage(engine)) return worker.call("peakBytes", undefined, timeoutMs);
    worker.sample();
    return worker.peak;
  };
  for (const engine of list) {
    paths[engine] = await engines.weights(engine, shape, type);
    const idle = await engines.startIdle(engine, paths[engine]);
    await new Promise((resolve) => setTimeout(resolve, engines.isPage(engine) ? 2000 : 200));
    baselines[engine] = await peakOf(engine, idle);
    await idle.stop();
  }
  const failed = new Set();
  const ms = await inTurns(list, async (engine) => {
    if (failed.has(engine)) return undefined;
    const from = performance.now();
    const worker = await engines.start(engine, paths[engine], { sampled: engines.isPage(engine) });
    try {
      const loaded = await worker.call("load", { path: paths[engine], threads, contextTokens: FIRST_CONTEXT }, timeoutMs);
      await worker.call("start", { ids: prompt(FIRST_PROMPT, 7), count: 1 }, timeoutMs);
      const took = performance.now() - from;
      if (loaded.kvBytesPerToken) kvBytes = loaded.kvBytesPerToken * FIRST_PROMPT;
      loads[engine].push(loaded.ms);
      peaks[engine].push((await peakOf(engine, worker)) - baselines[engine]);
      return took;
    } catch (error) {
      note(`${engine} left out: ${error.message.split("\n")[0]}`);
      failed.add(engine);
      return undefined;
    } finally {
      await worker.stop();
    }
  });
  const medians = (lists) => Object.fromEntries(Object.keys(ms).map((engine) => [engine, median(lists[engine])]));
  keep(key, { tokens: 1, ms, peak: medians(peaks), load: medians(loads), fileBytes: fileBytes(paths.ours), kvBytes });
}

/** The report between its marks in RESULTS.md. */
function writeReport(text) {
  const path = "bench/RESULTS.md";
  const [before, rest] = readFileSync(path, "utf8").split(MARKS[0]);
  const after = rest?.split(MARKS[1])[1];
  if (after === undefined) throw new Error(`${path} has no ${MARKS.join(" … ")}`);
  writeFileSync(path, `${before}${MARKS[0]}\n${text}\n${MARKS[1]}${after}`);
}

await ensureBuilt();
about.build = WebAssembly.validate(readFileSync("dist/kernels.relaxed.wasm")) ? "relaxed" : "plain";
const ceilings = await measureCeilings();
/** Bytes that no cache holds, as weights. */
const FAR_BYTES = 1 << 28;
ceilings.together = {};
for (const n of options.threads.filter((count) => count > 1)) ceilings.together[n] = await readTogether(FAR_BYTES, n);
const has = (part, peer) => options.parts.includes(part) && (!peer || engines.names.includes(peer));
try {
  if (has("quantized", "native")) await quantized();
  if (has("graph", "onnxruntime-web")) await graph();
  for (const [shape, type, threads] of cross(options.models, options.types, options.threads)) {
    if (has("warm", "native")) await warmStart(shape, type, threads);
    if (has("speed")) {
      await reference(type, threads);
      await speed(shape, type, threads);
    }
    if (has("start")) await startUp(shape, type, threads);
  }
} catch (error) {
  if (!(error instanceof CheckFailed)) throw error;
  note(error.message);
  process.exitCode = 1;
}
const goals = goalsOf({ cells, options, ceilings, firstPrompt: FIRST_PROMPT, asks: (...cell) => engines.asks(...cell) });
writeResults({ ceilings, goals });
/** What was asked for, without where things lie on this machine. */
const words = process.argv
  .slice(2)
  .filter(
    (word, i, all) =>
      !["--write", "--resume"].includes(word) && !/^--(json|scratch)/.test(word) && !["--json", "--scratch"].includes(all[i - 1]),
  );
const command = ["npm run bench:peers", ...(words.length ? ["--", ...words] : [])].join(" ");
const text = report({ about, cells, goals, options, firstPrompt: FIRST_PROMPT, command });
console.log(text);
if (options.write) writeReport(text);
for (const { what, against, missing } of goals.filter((goal) => goal.missing.length))
  note(`NOT MEASURED: ${what}, against ${against}: ${missing.join("; ")}`);
if (goals.some((goal) => goal.isReached === false || goal.missing.length)) process.exitCode = 1;
process.exit();
