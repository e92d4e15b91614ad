// npm run bench:peers: the same weights in lfm2-wasm, in native llama.cpp (node-llama-cpp) and in llama.cpp as wasm (wllama, in a browser), in turns, against the goals.
// What the peers need is installed into a scratch folder outside this repository. bench/README.md lists the options.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "../scripts/build.mjs";
import { presetOf } from "../scripts/checkpoints/make-checkpoint.mjs";
import { measureCeilings } from "./lib/ceilings.mjs";
import { fileBytes, folder, gguf } from "./lib/checkpoints.mjs";
import { Lab } from "./lib/lab.mjs";
import { CheckFailed, check, median } from "./lib/measure.mjs";
import { readOptions } from "./lib/options.mjs";
import { machine, table } from "./lib/report.mjs";
import { prompt } from "./lib/stepper.mjs";
import { findBrowser, startNode, startPage } from "./peers/remote.mjs";
import { tileRate } from "./suites/kernels.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const VERSIONS = { "node-llama-cpp": "3.22.1", "@wllama/wllama": "2.4.0" };
const WARM_UP_STEPS = 16;
const DECODE_TOKENS = 32;
/** wllama reads a prompt as slowly as it writes: these cells only. */
const WLLAMA_PREFILLS = [128];
const WLLAMA_CONTEXTS = [0, 512];
const FIRST_PROMPT = 128;
const FIRST_CONTEXT = 1024;
const CHECKED_PROMPTS = 8;
/** The time to the first token from a packed image, against native's from its file, at most. */
const WARM_START = 1.5;

const { options } = readOptions({
  json: "bench/results/peers.json",
  resume: false,
  quick: false,
  full: false,
  rounds: 5,
  models: ["350m", "1.2b"],
  types: ["Q4_0", "Q8_0"],
  threads: availableParallelism() > 1 ? [1, 2] : [1],
  prefills: [128, 512, 2048],
  contexts: [0, 512, 4096],
  peers: ["native", "wllama"],
  parts: ["quantized", "warm", "speed", "start"],
  seconds: 240,
  scratch: join(tmpdir(), "lfm2-wasm-peers"),
});
if (options.quick) {
  options.models = options.models.slice(0, 1);
  options.rounds = Math.min(options.rounds, 2);
  options.prefills = options.prefills.filter((n) => n <= 512);
  options.contexts = options.contexts.filter((n) => n <= 512);
}
const timeoutMs = 1000 * options.seconds;
const note = (line) => console.error(line);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130)); // "exit" ends the browser

// ---- what the peers need ----

function npm(...args) {
  note(`npm ${args.join(" ")}`);
  execFileSync("npm", args, { cwd: options.scratch, stdio: ["ignore", "ignore", "inherit"] });
}

/** Installs the peers, once; brings the workers beside them. @returns the names of those that can run */
function install() {
  const { scratch } = options;
  const has = (name) => existsSync(join(scratch, "node_modules", name, "package.json"));
  mkdirSync(scratch, { recursive: true });
  if (!existsSync(join(scratch, "package.json"))) writeFileSync(join(scratch, "package.json"), '{ "type": "module", "private": true }\n');
  const native = `@node-llama-cpp/${{ win32: "win", darwin: "mac" }[process.platform] ?? "linux"}-${process.arch}`;
  const packages = {
    native: { "node-llama-cpp": VERSIONS["node-llama-cpp"], [native]: VERSIONS["node-llama-cpp"] }, // without its script, which would fetch a GPU build
    wllama: { "@wllama/wllama": VERSIONS["@wllama/wllama"] },
  };
  const found = [];
  for (const peer of options.peers) {
    try {
      if (!packages[peer]) throw new Error("expected native or wllama");
      if (peer === "wllama" && !findBrowser()) throw new Error("no Chromium on PATH; install one, or name it with CHROME_PATH");
      const missing = Object.entries(packages[peer]).filter(([name]) => !has(name));
      if (missing.length)
        npm("install", "--ignore-scripts", "--omit=optional", "--save-exact", ...missing.map(([name, version]) => `${name}@${version}`));
      found.push(peer);
    } catch (error) {
      note(`left out: ${peer}: ${error.message.split("\n")[0]}`);
    }
  }
  const link = join(scratch, "wllama");
  if (found.includes("wllama") && !existsSync(link)) symlinkSync(join(scratch, "node_modules/@wllama/wllama/esm"), link, "junction");
  for (const name of ["worker.mjs", "native.mjs", "wllama-page.mjs"]) copyFileSync(join("bench/peers", name), join(scratch, name));
  return found;
}

const here = (name) => fileURLToPath(new URL(`./peers/${name}.mjs`, import.meta.url));

function start(engine, model, more = {}) {
  if (engine === "wllama") return startPage("wllama-page.mjs", { files: options.scratch, model, ...more });
  return startNode(engine === "native" ? join(options.scratch, "native.mjs") : here("ours"), more);
}

// ---- cells: what each engine took, in ms, one number a round ----

/** Finished cells by key; written after each, so that a run that was cut off goes on with --resume. */
const cells = options.resume && existsSync(options.json) ? JSON.parse(readFileSync(options.json, "utf8")).cells : {};
const about = { ...machine(), versions: VERSIONS };

function keep(key, cell) {
  cells[key] = cell;
  mkdirSync(dirname(options.json), { recursive: true });
  writeFileSync(`${options.json}.part`, `${JSON.stringify({ ...about, cells }, null, 1)}\n`);
  renameSync(`${options.json}.part`, options.json);
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

  constructor(model, loadOptions, vocabulary) {
    this.model = model;
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
    const worker = await start(engine, this.model);
    this.#open.set(engine, worker);
    // wllama takes longer for a context that it does not need
    const contextTokens = engine === "wllama" ? FIRST_CONTEXT : this.loadOptions.contextTokens;
    await worker.call("load", { ...this.loadOptions, path: this.model, contextTokens }, timeoutMs);
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

/** `rounds` times each engine in turn. @returns ms by engine, of those that answered every time */
async function inTurns(engines, work) {
  const ms = Object.fromEntries(engines.map((engine) => [engine, []]));
  for (let round = 0; round < options.rounds; round++)
    for (const engine of engines) {
      const took = await work(engine, round);
      if (took !== undefined) ms[engine].push(took);
    }
  return Object.fromEntries(Object.entries(ms).filter(([, list]) => list.length === options.rounds));
}

const sum = (list) => list.reduce((a, b) => a + b, 0);

/** The first greedy id after each of some prompts, of every engine: the same weights give nearly the same logits. */
async function agree(workers, engines, key, vocabulary) {
  if (cells[key]) return;
  const ids = Object.fromEntries(engines.map((engine) => [engine, []]));
  for (let i = 0; i < CHECKED_PROMPTS; i++)
    for (const engine of engines)
      ids[engine].push((await workers.call(engine, "start", { ids: prompt(24 + 5 * i, 50 + i, vocabulary), count: 1 }))?.ids[0]);
  const same = {};
  for (const engine of engines.slice(1)) same[engine] = ids[engine].filter((id, i) => id === ids.ours[i]).length;
  const line = Object.entries(same).map(([engine, n]) => `the first id as ${engine}'s after ${n} of ${CHECKED_PROMPTS} prompts`);
  for (const [engine, n] of Object.entries(same))
    if (ids[engine].every((id) => id !== undefined))
      check(2 * n > CHECKED_PROMPTS, `${key}: ${engine} agrees on ${n} of ${CHECKED_PROMPTS} first ids only`);
  keep(key, { same, of: CHECKED_PROMPTS, note: line.join(", ") });
}

/** What `lfm2 quantize` writes, of real weights and with a real tokenizer, is read by llama.cpp, and gives the same first ids, but for near ties. */
async function quantized(engines) {
  const { vocab_size: vocabulary } = JSON.parse(readFileSync("models/lfm2-mini/config.json", "utf8"));
  mkdirSync("build/bench", { recursive: true });
  for (const dtype of ["q4", "q8"]) {
    const path = `build/bench/lfm2-mini-${dtype}.gguf`;
    execFileSync(process.execPath, ["dist/cli.js", "quantize", "models/lfm2-mini", path, "--dtype", dtype, "--force"], { stdio: "ignore" });
    const workers = new Workers(path, { threads: 1, contextTokens: 256 }, vocabulary);
    const key = `lfm2 quantize, ${dtype} agreement`;
    try {
      await agree(workers, engines, key, vocabulary);
      check(
        cells[key]?.same.native >= CHECKED_PROMPTS - 2,
        `${key}: native agrees on ${cells[key]?.same.native} of ${CHECKED_PROMPTS} first ids`,
      );
    } finally {
      await workers.stop();
    }
  }
}

async function speed(engines, shape, type, threads) {
  const title = `${shape} ${type} ${threads}t`;
  const contextTokens = Math.max(...options.contexts, ...options.prefills) + DECODE_TOKENS * (options.rounds + 2);
  const workers = new Workers(await gguf(shape, type), { threads, contextTokens });
  const runsWllama = shape === "350m" || options.full;
  const of = (list, n) => engines.filter((engine) => engine !== "wllama" || (runsWllama && list.includes(n)));
  try {
    await agree(workers, of([0], 0), `${title} agreement`);
    for (const tokens of options.prefills) {
      const key = `${title} prefill ${tokens}`;
      if (cells[key]) continue;
      const ms = await inTurns(
        of(WLLAMA_PREFILLS, tokens),
        async (engine, round) => (await workers.call(engine, "start", { ids: prompt(tokens, round), count: 1 }))?.ms[0],
      );
      keep(key, { tokens, ms });
    }
    for (const context of options.contexts) {
      const key = `${title} decode ${context}`;
      if (cells[key]) continue;
      const list = of(WLLAMA_CONTEXTS, context);
      const begin = (engine) => workers.call(engine, "start", { ids: prompt(Math.max(1, context), 3), count: 1 + WARM_UP_STEPS });
      for (const engine of list) await begin(engine);
      const ms = await inTurns(list, async (engine) => {
        if (context === 0) await begin(engine); // an empty context again
        const more = await workers.call(engine, "more", { count: DECODE_TOKENS });
        return more && sum(more.ms) / DECODE_TOKENS;
      });
      keep(key, { tokens: 1, ms });
    }
  } finally {
    await workers.stop();
  }
}

/** Ours from the packed image of bf16 weights, native from its GGUF: start of the process, load, first token of a prompt, with both files in the page cache. */
async function warmStart(shape, threads) {
  const key = `${shape} q4 ${threads}t warm start`;
  if (cells[key]) return;
  const [path, original] = [await gguf(shape, "Q4_0"), await folder(shape)];
  const cache = { dir: join(options.scratch, "cache"), packed: true };
  const loads = { ours: { path: original, dtype: "q4", cache }, native: { path } };
  const once = async (engine) => {
    const from = performance.now();
    const worker = await start(engine, path);
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
  keep(key, { tokens: 1, ms, note: `ours ${Math.round(ours)} ms, native ${Math.round(native)} ms from start to first token` });
  check(ours <= WARM_START * native, `${key}: ${(ours / native).toFixed(2)} × native's, goal at most ${WARM_START}`);
}

/** Start of the process, load, first token of a prompt; and how much memory that took at most. */
async function startUp(engines, shape, type, threads) {
  const key = `${shape} ${type} ${threads}t start`;
  if (cells[key]) return;
  const path = await gguf(shape, type);
  const list = engines.filter((engine) => engine !== "wllama" || shape === "350m" || options.full);
  const peaks = Object.fromEntries(list.map((engine) => [engine, []]));
  const loads = Object.fromEntries(list.map((engine) => [engine, []]));
  const baselines = {};
  let kvBytes = 0;
  const isPage = (engine) => engine === "wllama";
  const peakOf = async (engine, worker) => {
    if (!isPage(engine)) return worker.call("peakBytes", undefined, timeoutMs);
    worker.sample();
    return worker.peak;
  };
  for (const engine of list) {
    const idle = isPage(engine) ? await start(engine, path, { sampled: true }) : await startNode(here("nothing"));
    await new Promise((resolve) => setTimeout(resolve, isPage(engine) ? 2000 : 200));
    baselines[engine] = await peakOf(engine, idle);
    await idle.stop();
  }
  const failed = new Set();
  const ms = await inTurns(list, async (engine) => {
    if (failed.has(engine)) return undefined;
    const from = performance.now();
    const worker = await start(engine, path, { sampled: isPage(engine) });
    try {
      const loaded = await worker.call("load", { path, threads, contextTokens: FIRST_CONTEXT }, timeoutMs);
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
  keep(key, { tokens: 1, ms, peak: medians(peaks), load: medians(loads), fileBytes: fileBytes(path), kvBytes });
}

// ---- the goals of issue 4 ----

/** How many times faster ours is than `peer`, the median of the rounds' pairs; undefined where the cell was not measured. */
function ratio(key, peer) {
  const { ms } = cells[key] ?? {};
  if (!ms?.ours || !ms[peer]) return undefined;
  return median(ms.ours.map((mine, i) => ms[peer][i] / mine));
}

const cross = (...lists) => lists.reduce((all, list) => all.flatMap((head) => list.map((item) => [...head, item])), [[]]);

/** All ratios of a goal's cells, with what they are of. */
function ratios(peer, type, whats) {
  return cross(options.models, options.threads, whats).flatMap(([shape, threads, what]) => {
    const value = ratio(`${shape} ${type} ${threads}t ${what}`, peer);
    return value === undefined ? [] : [{ value, name: `${shape}, ${threads} thread${threads > 1 ? "s" : ""}, ${what}` }];
  });
}

const prefillNames = options.prefills.map((n) => `prefill ${n}`);
const near = options.contexts.filter((n) => n <= 512).map((n) => `decode ${n}`);
const everyDecode = options.contexts.map((n) => `decode ${n}`);

const times = (x) => `${x.toFixed(2)}×`;

/** One goal: a row of the table. `isMost`: the measured value is to stay below. */
function goalRow([what, against, goal, list, { isMost = false, show = times } = {}]) {
  if (!list.length) return [what, against, `${isMost ? "≤" : "≥"} ${show(goal)}`, "not measured", ""];
  const sorted = list.toSorted((a, b) => (isMost ? b.value - a.value : a.value - b.value));
  const [worst] = sorted;
  const isReached = isMost ? worst.value <= goal : worst.value >= goal;
  const range =
    sorted.length > 1 ? `${show(worst.value)} (${worst.name}) to ${show(sorted.at(-1).value)}` : `${show(worst.value)} (${worst.name})`;
  return [what, against, `${isMost ? "≤" : "≥"} ${show(goal)}`, range, isReached ? "reached" : "not reached"];
}

/** Multiply-adds of a token in the layers. */
function macsPerToken(shape) {
  const { D, H, G, F, layers } = presetOf(shape);
  const hd = D / H;
  return sum([...layers].map((kind) => (kind === "c" ? 4 * D * D : (2 * H + 2 * G) * hd * D) + 3 * D * F));
}

/** The whole step of a prompt against the tile by itself, one thread. */
function ofTile() {
  const variant = WebAssembly.validate(readFileSync("dist/kernels.relaxed.wasm")) ? "relaxed" : "plain";
  const tile = tileRate(new Lab(variant), "q4");
  return cross(options.models, options.prefills).flatMap(([shape, tokens]) => {
    const { ms } = cells[`${shape} Q4_0 1t prefill ${tokens}`] ?? {};
    if (!ms?.ours) return [];
    return [
      {
        value: (macsPerToken(shape) * tokens) / median(ms.ours) / 1e6 / tile,
        name: `${shape}, prefill ${tokens}, tile ${tile.toFixed(1)} GMAC/s`,
      },
    ];
  });
}

/** Weights that a decode step at an empty context streams, as a share of what one thread reads. */
function ofRead(ceilings) {
  return cross(options.models, options.types).flatMap(([shape, type]) => {
    const { ms } = cells[`${shape} ${type} 1t decode 0`] ?? {};
    const path = `build/bench/${shape}-${type}.gguf`;
    if (!ms?.ours || !existsSync(path)) return [];
    const bytes = fileBytes(path);
    return [{ value: bytes / median(ms.ours) / 1e6 / ceilings.read(bytes), name: `${shape} ${type}` }];
  });
}

function scaling(whats) {
  return cross(options.models, options.types, whats).flatMap(([shape, type, what]) => {
    const [one, two] = [1, 2].map((n) => cells[`${shape} ${type} ${n}t ${what}`]?.ms?.ours);
    return one && two ? [{ value: median(one) / median(two), name: `${shape} ${type}, ${what}` }] : [];
  });
}

function starts(peer) {
  return options.types.flatMap((type) => ratios(peer, type, ["start"]).map((r) => ({ ...r, name: `${type}, ${r.name}` })));
}

function memory() {
  return cross(options.models, options.types, options.threads).flatMap(([shape, type, threads]) => {
    const { peak, fileBytes: file, kvBytes } = cells[`${shape} ${type} ${threads}t start`] ?? {};
    return peak?.ours
      ? [{ value: peak.ours / (file + kvBytes), name: `${shape} ${type}, ${threads} thread${threads > 1 ? "s" : ""}` }]
      : [];
  });
}

function report(ceilings) {
  const share = { show: (x) => `${Math.round(100 * x)} %` };
  const goals = [
    ["decode q4, context 0–512", "native", 1.3, ratios("native", "Q4_0", near)],
    ["decode q4, context 0–512", "wllama", 8, ratios("wllama", "Q4_0", near)],
    ["decode q4, context 4096", "native", 2, ratios("native", "Q4_0", ["decode 4096"])],
    ["decode q8", "native", 1.5, ratios("native", "Q8_0", everyDecode)],
    ["decode q8", "wllama", 6, ratios("wllama", "Q8_0", everyDecode)],
    ["prefill q4", "native", 0.7, ratios("native", "Q4_0", prefillNames)],
    ["prefill q4", "wllama", 15, ratios("wllama", "Q4_0", prefillNames)],
    ["prefill q4, whole step", "its tile", 0.75, ofTile(), share],
    ["prefill q8", "native", 1.5, ratios("native", "Q8_0", prefillNames)],
    ["prefill q8", "wllama", 15, ratios("wllama", "Q8_0", prefillNames)],
    ["prefill q8", "onnxruntime-web", 2, []],
    [`start to first token after ${FIRST_PROMPT}`, "native", 1.5, starts("native")],
    [`start to first token after ${FIRST_PROMPT}`, "wllama", 8, starts("wllama")],
    ["peak memory above the runtime's", "file + KV", 1.1, memory(), { isMost: true }],
    ["weights streamed by decode at 0", "read bandwidth", 0.8, ofRead(ceilings), share],
    ["prefill, two threads", "one", 1.85, scaling(prefillNames)],
    ["decode, two threads", "one", 1.7, scaling(everyDecode)],
  ];
  const lines = [
    `${about.date}, ${about.cpu}, ${about.cores} cores, ${about.runtime}; node-llama-cpp ${VERSIONS["node-llama-cpp"]}, wllama ${VERSIONS["@wllama/wllama"]}; medians of ${options.rounds} rounds in turns.`,
  ];
  lines.push("", table(["what", "against", "goal", "measured: worst to best", ""], goals.map(goalRow)));
  lines.push("", "onnxruntime-web is not measured: it needs an ONNX export of these weights, whose tools are not on npm.", "");
  const engines = ["ours", ...options.peers];
  const speeds = Object.entries(cells).filter(([, cell]) => cell.ms && !cell.peak);
  const tps = (cell, engine) => (cell.ms[engine] ? ((1000 * cell.tokens) / median(cell.ms[engine])).toFixed(1) : "–");
  const over = (key, peer) => (ratio(key, peer) === undefined ? "–" : times(ratio(key, peer)));
  lines.push("Tokens/s:", "");
  lines.push(
    table(
      ["cell", ...engines, ...options.peers.map((p) => `ours / ${p}`)],
      speeds.map(([key, cell]) => [key, ...engines.map((e) => tps(cell, e)), ...options.peers.map((p) => over(key, p))]),
    ),
  );
  const started = Object.entries(cells).filter(([, cell]) => cell.peak);
  if (started.length) {
    const of = (cell, name, unit) =>
      engines.map((e) => (cell[name][e] === undefined ? "–" : (cell[name][e] / unit).toFixed(unit === 1 ? 0 : 1))).join(" / ");
    const ms = (cell) => engines.map((e) => (cell.ms[e] ? median(cell.ms[e]).toFixed(0) : "–")).join(" / ");
    lines.push("", `Start, load and first token after ${FIRST_PROMPT} tokens: ${engines.join(" / ")}:`, "");
    lines.push(
      table(
        ["cell", "start to first token, ms", "load, ms", "peak above the runtime's, MB", "file, MB"],
        started.map(([key, cell]) => [key, ms(cell), of(cell, "load", 1), of(cell, "peak", 1e6), (cell.fileBytes / 1e6).toFixed(1)]),
      ),
    );
  }
  const agreements = Object.entries(cells).filter(([, cell]) => cell.same);
  if (agreements.length)
    lines.push("", `The same weights: ${agreements.map(([key, cell]) => `${key.replace(" agreement", "")}: ${cell.note}`).join("; ")}.`);
  return lines.join("\n");
}

await ensureBuilt();
const ceilings = measureCeilings();
const engines = ["ours", ...install()];
try {
  if (options.parts.includes("quantized") && engines.includes("native")) await quantized(["ours", "native"]);
  for (const [shape, type, threads] of cross(options.models, options.types, options.threads)) {
    if (options.parts.includes("warm") && engines.includes("native") && type === "Q4_0") await warmStart(shape, threads);
    if (options.parts.includes("speed")) await speed(engines, shape, type, threads);
    if (options.parts.includes("start")) await startUp(engines, shape, type, threads);
  }
} catch (error) {
  if (!(error instanceof CheckFailed)) throw error;
  note(error.message);
  process.exitCode = 1;
}
console.log(report(ceilings));
process.exit();
