// Load time, prefill and decode of the bundled model and of the 350M shape with random weights, at every dtype. Each figure follows a check of the result in the same run.
//
//   npm run bench                     everything, writes bench/RESULTS.md
//   npm run bench -- mini             the bundled model alone; printed only
//
// A quiet machine matters more than anything else: `chrt -f 50 npm run bench` keeps other processes out where that is allowed.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "../scripts/build.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
await ensureBuilt();
const { load } = await import("lfm2-wasm");

const ROUNDS = 5;
const PREFILL_TOKENS = 512;
const DECODE_TOKENS = 64;
const examples = JSON.parse(readFileSync("models/lfm2-mini/examples.json", "utf8")).examples;
const golden = JSON.parse(readFileSync("tests/golden/data/big/350m.json", "utf8"));

const GREEDY = { temperature: 0, repetitionPenalty: 1, stopIds: [] };

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Makes a checkpoint in build/ unless it is there. */
async function made(path, make) {
  if (existsSync(path)) return path;
  mkdirSync(join(path, ".."), { recursive: true });
  console.error(`making ${path}`);
  await make(`${path}.part`);
  renameSync(`${path}.part`, path);
  return path;
}

async function bigFolder() {
  const { presetOf, writeCheckpoint } = await import("../scripts/checkpoints/make-checkpoint.mjs");
  return made("build/checkpoints/350m-bf16", (dir) => writeCheckpoint(presetOf("350m"), { seed: 1, dtype: "bf16", dir }));
}

async function bigGguf(type) {
  const { fromPreset, writeGguf } = await import("../scripts/checkpoints/make-gguf.mjs");
  return made(`build/checkpoints/350m-${type}-${type}.gguf`, (out) => writeGguf(fromPreset("350m", 1), { type, head: type, out }));
}

class CheckFailed extends Error {}
const expect = (ok, what) => {
  if (!ok) throw new CheckFailed(what);
};
const same = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);

/** The examples word for word; with quantized weights those whose choices no rounding can turn. */
async function checkMini(model, isExact) {
  const some = examples.filter((e) => isExact || (e.min_margin > 4 && !e.tools));
  for (const e of some) {
    const { tokens } = await model.generate(Uint32Array.from(e.prompt_ids), { maxTokens: e.output_ids.length });
    expect(same([...tokens], e.output_ids), `example ${JSON.stringify(e.prompt)}`);
  }
  return `${some.length} examples give their ids`;
}

/** Logits of the last position of each golden prompt. */
async function lastLogits(model) {
  const out = [];
  for (const { ids } of golden.prompts) out.push((await model.forward({ inputIds: ids, logits: "last" })).logits.data);
  return out;
}

/** The reference's best ten logits and greedy ids. */
async function checkBig(model) {
  const logits = await lastLogits(model);
  const worst = Math.max(...golden.prompts.flatMap(({ top10 }, i) => top10.map(([id, value]) => Math.abs(logits[i][id] - value))));
  expect(worst < 2e-4, `best logits: off by ${worst}`);
  const { prompt, ids } = golden.greedy;
  const { tokens } = await model.generate(Uint32Array.from(prompt), { ...GREEDY, maxTokens: ids.length });
  expect(same([...tokens], ids), "greedy ids");
  return `best logits within ${worst.toExponential(1)} of the reference, ${ids.length} greedy ids equal`;
}

/**
 * The same quantized weights widened to f32, with f32 activations: what is left is the rounding of activations to 8 bits, which random weights carry to
 * the end (their gates multiply it).
 */
const wide = new Map();
async function checkQuantized(model, type) {
  if (!wide.has(type)) {
    const exact = await load(await bigGguf(type), { dtype: "f32", kvDtype: "f32" });
    wide.set(type, await lastLogits(exact));
    exact.dispose();
  }
  const logits = await lastLogits(model);
  const errors = wide.get(type).map((x, i) => {
    const sum = (f) => x.reduce((a, v, j) => a + f(v, logits[i][j]), 0);
    return Math.sqrt(sum((v, w) => (v - w) ** 2) / sum((v) => v * v));
  });
  const worst = Math.max(...errors);
  expect(worst < 0.2, `logits: off by ${worst} of their rms`);
  return `logits within ${(100 * worst).toFixed(0)} % (rms) of the same weights with f32 activations`;
}

/** One dtype of one model: checked, then timed. */
async function measure({ name, source, dtype, kvDtype, check, rounds = ROUNDS }) {
  const loads = [];
  let model;
  for (let i = 0; i < Math.min(rounds, 3); i++) {
    model?.dispose();
    const start = performance.now();
    model = await load(source, { dtype, kvDtype });
    loads.push(performance.now() - start);
  }
  const verified = await check(model);
  const { vocabSize, maxPositionEmbeddings } = model.config;
  const prompt = Uint32Array.from(
    { length: Math.min(PREFILL_TOKENS, maxPositionEmbeddings / 2) },
    (_, i) => 20 + ((i * 7919) % (vocabSize - 20)),
  );
  const options = { ...GREEDY, maxTokens: DECODE_TOKENS };
  const prefill = [];
  const decodeShort = [];
  const decodeLong = [];
  const cpu = process.cpuUsage();
  const wall = performance.now();
  for (let i = 0; i < rounds; i++) {
    const short = await model.generate(prompt.slice(0, 4), options);
    decodeShort.push((1000 * (DECODE_TOKENS - 1)) / short.timings.decodeMs);
    const long = await model.generate(prompt, options);
    prefill.push((1000 * prompt.length) / long.timings.prefillMs);
    decodeLong.push((1000 * (DECODE_TOKENS - 1)) / long.timings.decodeMs);
  }
  const { user, system } = process.cpuUsage(cpu);
  const busy = (user + system) / 1000 / (performance.now() - wall);
  const { memoryBytes } = await model.status();
  const { variant, weightBytes, dtypes } = model.info;
  model.dispose();
  const row = {
    model: name,
    weights: dtypes.join("+"),
    kernels: variant,
    weightMB: weightBytes / 1e6,
    memoryMB: memoryBytes / 1e6,
    loadMs: median(loads),
    prefill: median(prefill),
    decode: median(decodeShort),
    decodeLong: median(decodeLong),
    cpuShare: busy,
    checked: verified,
  };
  console.error(
    `${row.model} ${row.weights}: load ${row.loadMs.toFixed(0)} ms, prefill ${row.prefill.toFixed(0)}, decode ${row.decode.toFixed(0)} tokens/s (${verified})`,
  );
  return row;
}

const EXACT = { kvDtype: "f32" };

async function rows(which) {
  const out = [];
  if (which.includes("mini")) {
    const model = { name: "lfm2-mini", source: "models/lfm2-mini" };
    for (const dtype of ["f32", "bf16"]) out.push(await measure({ ...model, ...EXACT, dtype, check: (m) => checkMini(m, true) }));
    for (const dtype of ["q8", "q4"]) out.push(await measure({ ...model, dtype, check: (m) => checkMini(m, false) }));
    out.push(await measure({ name: "lfm2-mini, bundled GGUF", source: "dist/mini.gguf", check: (m) => checkMini(m, false) }));
  }
  if (which.includes("350m")) {
    const model = { name: "350M shape, random", source: await bigFolder() };
    for (const dtype of ["f32", "bf16"]) out.push(await measure({ ...model, ...EXACT, dtype, check: checkBig, rounds: 3 }));
    for (const [dtype, type] of [
      ["q8", "Q8_0"],
      ["q4", "Q4_0"],
    ]) {
      const check = (m) => checkQuantized(m, type);
      out.push(await measure({ ...model, dtype, check }));
      out.push(await measure({ name: `350M shape, GGUF ${type}`, source: await bigGguf(type), check }));
    }
  }
  return out;
}

function table(results) {
  const head = [
    "model",
    "weights",
    "kernels",
    "weights MB",
    "memory MB",
    "load ms",
    "prefill 512",
    "decode at 4",
    "decode at 512",
    "CPU / wall",
    "checked in the same run",
  ];
  const cells = results.map((r) => [
    r.model,
    r.weights,
    r.kernels,
    r.weightMB.toFixed(1),
    r.memoryMB.toFixed(1),
    r.loadMs.toFixed(0),
    r.prefill.toFixed(0),
    r.decode.toFixed(r.decode < 100 ? 1 : 0),
    r.decodeLong.toFixed(r.decodeLong < 100 ? 1 : 0),
    r.cpuShare.toFixed(2),
    r.checked,
  ]);
  return [head, head.map(() => "---"), ...cells].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

const revision = () => execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
const wanted = process.argv.slice(2);
const results = await rows(wanted.length ? wanted : ["mini", "350m"]);
const text = table(results);
console.log(text);
if (!wanted.length) {
  const date = new Date().toISOString().slice(0, 10);
  const about = `${date}, ${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.version} (V8 ${process.versions.v8}), at ${revision()}; command: \`npm run bench\`.`;
  const path = "bench/RESULTS.md";
  const section = `## Node ${process.versions.node.split(".")[0]}\n\n${about}\n\n${text}\n`;
  const head = `# Results\n\nTokens/s (prefill of ${PREFILL_TOKENS} tokens; decode of ${DECODE_TOKENS} tokens at an empty context and after those ${PREFILL_TOKENS}) and load times with the file in the page cache,\none thread, medians of ${ROUNDS} rounds (3 for f32 and bf16 of the 350M shape, and for loads). The machine is shared: compare within one run.\n"CPU / wall" near 1 means that nothing else ran in between. Memory is the linear memory after the runs.\n`;
  const old = existsSync(path)
    ? readFileSync(path, "utf8")
        .split(/^(?=## )/m)
        .slice(1)
    : [];
  const kept = old.filter((s) => !s.startsWith(section.split("\n")[0] ?? ""));
  writeFileSync(path, [head, ...[...kept, section].toSorted().map((s) => `\n${s.trim()}\n`)].join(""));
}
