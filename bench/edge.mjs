// docs/edge.md's table: what models take in workerd (linear memory, isolate and process), in Deno with the network alone, in Node and in a page of Chromium. `node bench/edge.mjs` prints it;
// `--only REGEXP` takes some models, `--places deno,node` some of the places, `--contexts 512` other numbers of tokens than 512 and 2,048.
// `--limits`: the times of the table behind it instead, of examples/cloudflare-worker, medians of `--rounds` 7.
// No runtime here enforces a limit, so that what does not fit one is measured, too. Random weights of the shapes, which repeat: a file is made in seconds. Linux, for /proc.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { fromPreset, writeGguf } from "../scripts/checkpoints/make-gguf.mjs";
import { quantize } from "../scripts/checkpoints/quants.mjs";
import { RUNTIMES } from "../tests/runtimes/index.mjs";
import { serveFolders } from "../tests/runtimes/server.mjs";
import { inspect, serveWorker } from "../tests/runtimes/workerd/serve.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const { values } = parseArgs({
  options: {
    only: { type: "string", default: "." },
    places: { type: "string", default: "workerd,deno,node,page" },
    limits: { type: "boolean", default: false },
    rounds: { type: "string", default: "7" },
    contexts: { type: "string", default: "512,2048" },
  },
});
const only = new RegExp(values.only);
const places = values.places.split(",");
/** Tokens in the cache when a row is measured. */
const CONTEXTS = values.contexts.split(",").map(Number);
const TIMEOUT_MS = 1_200_000;

const MODELS = [
  { name: "bundled, as stored" },
  { name: "the same in f32", dtype: "f32" },
  ...["230m", "350m", "700m", "1.2b", "2.6b"].flatMap((shape) => [
    { name: `${shape}, q4`, shape, type: "Q4_0" },
    { name: `${shape}, q8`, shape, type: "Q8_0" },
  ]),
];

const EXAMPLE = join("examples", "cloudflare-worker", "worker.js");
const EMPTY = 'export default { fetch: () => new Response("{}") };';
/** Loads by the first request; by the others computes a prompt of so many tokens, of which it has the beginning. */
const WORKER = `
  import { load } from "lfm2-wasm";
  import { mini } from "lfm2-wasm/mini";
  let model;
  export default {
    async fetch(request) {
      const { address, tokens, ...options } = await request.json();
      model ??= await load(address ?? mini, { ...options, maxMemoryBytes: 4e9 });
      const { weightBytes, parameterCount } = model.info;
      if (tokens) {
        const prompt = Uint32Array.from({ length: tokens - 1 }, (_, i) => 20 + ((i * 7) % 400));
        const { usage } = await model.generate(prompt, { maxTokens: 2, temperature: 0, stopIds: [] });
        if (usage.outputTokens !== 2) throw new Error("expected two tokens, got " + usage.outputTokens);
      }
      return Response.json({ weightBytes, parameterCount, memoryBytes: (await model.status()).memoryBytes });
    },
  };`;

/** Loads, and computes a prompt of so many tokens. @returns the bytes of linear memory, and what a page's server tells of the browser's processes */
const JOB = `
  import { load } from "lfm2-wasm";
  export async function run(_files, { address, tokens, ...options }) {
    const model = await load(address, { ...options, threads: 1, cache: false });
    const prompt = Uint32Array.from({ length: tokens - 1 }, (_, i) => 20 + ((i * 7) % 400));
    const { usage } = await model.generate(prompt, { maxTokens: 2, temperature: 0, stopIds: [] });
    if (usage.outputTokens !== 2) throw new Error("expected two tokens, got " + usage.outputTokens);
    const { memoryBytes } = await model.status();
    const own = globalThis.location ? Number(await (await fetch("/memory")).text()) : 0;
    model.dispose();
    return { memoryBytes, own };
  }`;

/** The worker with the package, one with nothing, each in a folder; and the job for programs and pages. */
async function prepare(project) {
  const modules = join(project, "node_modules");
  const installed = join(modules, "lfm2-wasm");
  mkdirSync(installed, { recursive: true });
  cpSync("package.json", join(installed, "package.json"));
  cpSync("dist", join(installed, "dist"), { recursive: true });
  cpSync(join("node_modules", "@huggingface"), join(modules, "@huggingface"), { recursive: true });
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  writeFileSync(join(project, "worker.js"), WORKER);
  writeFileSync(join(project, "job.mjs"), JOB);
  cpSync(EXAMPLE, join(project, "example.js"));
  const [empty, folder] = [join(project, "empty"), join(project, "out")];
  mkdirSync(empty);
  writeFileSync(join(empty, "worker.js"), EMPTY);
  await build({
    ...{
      entryPoints: ["worker.js", "example.js"].map((name) => join(project, name)),
      outdir: folder,
      absWorkingDir: project,
      bundle: true,
      splitting: true,
    },
    ...{ format: "esm", target: "es2022", conditions: ["workerd", "worker", "browser"], external: ["*.wasm", "*.gguf"] },
  });
  const page = join(project, "page", "job.mjs");
  await build({
    entryPoints: [join(project, "job.mjs")],
    outfile: page,
    absWorkingDir: project,
    bundle: true,
    format: "esm",
    platform: "browser",
  });
  for (const name of readdirSync("dist")) {
    if (/\.(wasm|gguf)$/.test(name)) cpSync(join("dist", name), join(folder, name));
    if (/\.wasm$|\.browser\.js$/.test(name)) cpSync(join("dist", name), join(dirname(page), name));
  }
  return { empty, folder, page };
}

/** Writes a file of the shape, in which tensors of one kind begin with the same weights. @returns its path */
function made(project, shape, type) {
  const out = join(project, "weights", `${shape}-${type}.gguf`);
  mkdirSync(dirname(out), { recursive: true });
  const source = fromPreset(shape, 1);
  const known = new Map();
  const once = (key, make) => known.get(key) ?? known.set(key, make()).get(key);
  const read = (tensor, start, count) => once(`${tensor.std} ${tensor.centre} ${count}`, () => source.read(tensor, start, count));
  const encoders = { [type]: (values) => once(values, () => quantize(values, type)) };
  writeGguf({ ...source, read }, { type, head: type, out, tokenizer: "tests/golden/data/text/tokenizer.json", encoders });
  return out;
}

/** Runs the job as a program, in Deno with the network alone. @returns the most that its process has had resident, and its linear memory, in bytes */
async function inProcess(name, project, options) {
  const main = join(project, `${name}.mjs`);
  const job = pathToFileURL(join(project, "job.mjs"));
  writeFileSync(
    main,
    `import { run } from "${job}"; console.log(JSON.stringify(await run({}, ${JSON.stringify(options)}))); setInterval(() => {}, 1e6);`,
  );
  const [binary, args] =
    name === "node" ? [process.execPath, []] : [RUNTIMES.deno.find(), ["run", "--quiet", "--no-lock", "--no-prompt", "--allow-net"]];
  const child = spawn(binary, [...args, main], { cwd: project, stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "close").then(([code]) => Promise.reject(new Error(`${name} ended with ${code}`)));
  try {
    const [said] = await Promise.race([once(child.stdout, "data"), ended]);
    return { ...JSON.parse(said), peak: memoryOf(child.pid).peak };
  } finally {
    child.kill("SIGKILL");
    await ended.catch(() => {});
  }
}

/** @returns bytes that a process has to itself, and the most that it has had resident */
function memoryOf(pid) {
  const read = (file, name) =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/${file}`, "utf8"))?.[1]);
  return { own: read("smaps_rollup", "Anonymous"), peak: read("status", "VmHWM") };
}

/** @returns what asks an isolate for its heap and for the buffers that it holds, linear memory not among them, in bytes */
async function heapOf(inspector) {
  const call = await inspect(inspector);
  return async () => {
    const { totalSize, backingStorageSize } = await call("Runtime.getHeapUsage");
    return { heap: totalSize, buffers: backingStorageSize };
  };
}

/** Runs a worker. @returns what it tells of each request, with its isolate's and its process's memory behind it */
async function told(folder, requests) {
  const { port, pid, inspector, close } = await serveWorker(folder, "worker.js", { isInspected: true });
  try {
    const ask = await heapOf(inspector);
    const out = [];
    for (const body of requests) {
      const response = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body: JSON.stringify(body) });
      if (!response.ok) throw new Error(await response.text());
      out.push({ ...(await response.json()), ...(await ask()), ...memoryOf(pid) });
    }
    return out;
  } finally {
    await close();
  }
}

/** @returns milliseconds from before the start of workerd with a worker to its answer to a request that loads nothing */
async function startUp(folder, main) {
  const start = performance.now();
  const { port, close } = await serveWorker(folder, main);
  await (await fetch(`http://127.0.0.1:${port}/nothing`)).text();
  const ms = performance.now() - start;
  await close();
  return ms;
}

/** @returns of the request that loads the example's model: milliseconds to the first piece of its text, and from there to the last of 50 tokens */
async function firstRequest(folder) {
  const { port, close } = await serveWorker(folder, "example.js");
  try {
    const messages = [{ role: "user", content: "Tell me a story about a fox." }];
    const start = performance.now();
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ messages, stream: true, stream_options: { include_usage: true }, max_tokens: 50, temperature: 0 }),
    });
    let [text, first] = ["", 0];
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      text += piece;
      if (/"content":"[^"]/.test(text)) first ||= performance.now();
    }
    const end = performance.now();
    const tokens = Number(/"completion_tokens":(\d+)/.exec(text)?.[1]);
    if (tokens !== 50 || first === 0) throw new Error(`expected 50 tokens, got ${tokens}: ${text}`);
    return { load: first - start, tokens: end - first };
  } finally {
    await close();
  }
}

/** The times that docs/edge.md sets against the platform's limits. */
async function limits({ empty, folder }) {
  const rounds = Number(values.rounds);
  const told = { startUp: [], load: [], tokens: [] };
  for (let i = 0; i < rounds; i++) {
    told.startUp.push((await startUp(folder, "example.js")) - (await startUp(empty, "worker.js")));
    const { load, tokens } = await firstRequest(folder);
    told.load.push(load);
    told.tokens.push(tokens);
  }
  const median = (all) => `${Math.round(all.sort((a, b) => a - b)[Math.floor(rounds / 2)])} ms`;
  console.log(`start-up: ${median(told.startUp)} above an empty worker, process start included`);
  console.log(`first request: ${median(told.load)} to its first part; then 50 tokens in ${median(told.tokens)}`);
}

const MiB = (bytes) => (bytes < 100 * 2 ** 20 ? (bytes / 2 ** 20).toFixed(1) : Math.round(bytes / 2 ** 20).toLocaleString("en"));

/** The table of models. */
async function table(project, { empty, folder, page }) {
  const isInWorkerd = places.includes("workerd");
  const [nothing] = isInWorkerd ? await told(empty, [{}]) : [];
  const rows = [];
  for (const { name, shape, type, dtype } of MODELS.filter((model) => only.test(model.name))) {
    const file = shape ? made(project, shape, type) : resolve("dist", "mini.gguf");
    const server = await serveFolders({ "/": dirname(file) });
    const address = new URL(basename(file), server.url).href;
    const columns = [];
    if (isInWorkerd) {
      const given = { dtype, ...(shape ? { address } : {}) };
      const all = await told(folder, [given, ...CONTEXTS.map((tokens) => ({ ...given, tokens }))]);
      const [loaded, ...fed] = all;
      const last = all.at(-1);
      console.error(name, loaded.parameterCount, all);
      const pair = (of) => fed.map((row) => MiB(of(row))).join(" / ");
      columns.push(
        MiB(loaded.weightBytes),
        pair(({ memoryBytes }) => memoryBytes),
        pair(({ memoryBytes, heap, buffers }) => memoryBytes + heap + buffers),
        `${MiB(last.own - nothing.own)} / ${MiB(last.peak - nothing.peak)}`,
      );
    }
    const options = { address, dtype, tokens: CONTEXTS[0] };
    for (const place of places.filter((place) => place !== "workerd")) {
      const inPage = () => RUNTIMES.chromium.run(RUNTIMES.chromium.find(), { module: page, files: {}, options }, TIMEOUT_MS, "page");
      const { memoryBytes, own, peak } = await (place === "page" ? inPage() : inProcess(place, project, options));
      console.error(name, place, { memoryBytes, own, peak });
      columns.push(MiB(place === "page" ? own : peak));
    }
    await server.close();
    if (shape) rmSync(file);
    rows.push(`| ${[name, ...columns].join(" | ")} |`);
  }
  const contexts = CONTEXTS.map((n) => n.toLocaleString("en")).join(" / ");
  const titles = {
    workerd: ["weights", `linear memory with ${contexts} tokens`, "isolate", "process at the end / at most"],
    deno: ["Deno with the network alone, at most"],
    node: ["Node, at most"],
    page: ["a page's processes of Chromium"],
  };
  const head = ["MiB", ...places.flatMap((place) => titles[place])];
  console.log([head, head.map(() => "---")].map((cells) => `| ${cells.join(" | ")} |`).join("\n"));
  console.log(rows.join("\n"));
  if (nothing) console.log(`\nAn empty worker's process: ${MiB(nothing.own)} MiB of its own, ${MiB(nothing.peak)} MiB resident at most.`);
}

const project = mkdtempSync(join(tmpdir(), "lfm2-bench-edge-"));
try {
  const folders = await prepare(project);
  await (values.limits ? limits(folders) : table(project, folders));
} finally {
  rmSync(project, { recursive: true, force: true });
}
