// docs/edge.md's table: what models take in workerd: linear memory, isolate and process, from the packed package. `node bench/edge.mjs` prints it; `--only REGEXP` takes some models.
// workerd here enforces no limit, so that what does not fit an isolate is measured, too. Random weights of the shapes; Linux, for /proc.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { serveFolders } from "../tests/runtimes/server.mjs";
import { serveWorker } from "../tests/runtimes/workerd/serve.mjs";
import { gguf } from "./lib/checkpoints.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const args = process.argv.slice(2);
const only = args.includes("--only") ? new RegExp(args[args.indexOf("--only") + 1]) : /./;

/** What miniflare brings: Node 20 has no WebSocket of its own. */
const WebSocket = createRequire(resolve("tests", "runtimes", "package.json"))("ws");

const MODELS = [
  { name: "bundled, as stored" },
  { name: "the same in f32", dtype: "f32" },
  ...["230m", "350m", "700m", "1.2b"].flatMap((shape) => [
    { name: `${shape}, q4`, shape, type: "Q4_0" },
    { name: `${shape}, q8`, shape, type: "Q8_0" },
  ]),
];
/** Tokens in the cache when a row is measured. */
const CONTEXTS = [512, 2048];

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

/** The worker with the package, and one with nothing, each in a folder. */
async function prepare(project) {
  const modules = join(project, "node_modules");
  const installed = join(modules, "lfm2-wasm");
  mkdirSync(installed, { recursive: true });
  cpSync("package.json", join(installed, "package.json"));
  cpSync("dist", join(installed, "dist"), { recursive: true });
  cpSync(join("node_modules", "@huggingface"), join(modules, "@huggingface"), { recursive: true });
  writeFileSync(join(project, "worker.js"), WORKER);
  const [empty, folder] = [join(project, "empty"), join(project, "out")];
  mkdirSync(empty);
  writeFileSync(join(empty, "worker.js"), EMPTY);
  await build({
    ...{ entryPoints: [join(project, "worker.js")], outdir: folder, absWorkingDir: project, bundle: true, splitting: true },
    ...{ format: "esm", target: "es2022", conditions: ["workerd", "worker", "browser"], external: ["*.wasm", "*.gguf"] },
  });
  for (const name of readdirSync("dist")) if (/\.(wasm|gguf)$/.test(name)) cpSync(join("dist", name), join(folder, name));
  return { empty, folder };
}

/** @returns bytes that a process has to itself, and the most that it has had resident */
function memoryOf(pid) {
  const read = (file, name) =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/${file}`, "utf8"))?.[1]);
  return { own: read("smaps_rollup", "Anonymous"), peak: read("status", "VmHWM") };
}

/** @returns what asks an isolate for its heap and for the buffers that it holds, linear memory not among them, in bytes */
async function heapOf(inspector) {
  const socket = new WebSocket(inspector);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const call = async (id, method) => {
    const answer = new Promise((resolve) => socket.on("message", (text) => JSON.parse(text).id === id && resolve(JSON.parse(text).result)));
    socket.send(JSON.stringify({ id, method }));
    return answer;
  };
  await call(1, "Runtime.enable");
  let id = 2;
  return async () => {
    const { totalSize, backingStorageSize } = await call(id++, "Runtime.getHeapUsage");
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

const MiB = (bytes) => (bytes < 100 * 2 ** 20 ? (bytes / 2 ** 20).toFixed(1) : Math.round(bytes / 2 ** 20).toLocaleString("en"));

const project = mkdtempSync(join(tmpdir(), "lfm2-bench-edge-"));
try {
  const { empty, folder } = await prepare(project);
  const [nothing] = await told(empty, [{}]);
  const rows = [];
  for (const { name, shape, type, dtype } of MODELS.filter((model) => only.test(model.name))) {
    const file = shape ? resolve(await gguf(shape, type)) : undefined;
    const server = await serveFolders({ "/": file ? dirname(file) : project });
    const address = file && new URL(file.slice(dirname(file).length + 1), server.url).href;
    const all = await told(folder, [{ address, dtype }, ...CONTEXTS.map((tokens) => ({ address, dtype, tokens }))]);
    await server.close();
    const [loaded, ...fed] = all;
    const last = all.at(-1);
    console.error(name, loaded.parameterCount, all);
    const pair = (of) => fed.map((row) => MiB(of(row))).join(" / ");
    const columns = [
      MiB(loaded.weightBytes),
      pair(({ memoryBytes }) => memoryBytes),
      pair(({ memoryBytes, heap, buffers }) => memoryBytes + heap + buffers),
      `${MiB(last.own - nothing.own)} / ${MiB(last.peak - nothing.peak)}`,
    ];
    rows.push(`| ${[name, ...columns].join(" | ")} |`);
  }
  const contexts = CONTEXTS.map((n) => n.toLocaleString("en")).join(" / ");
  console.log(`| MiB | weights | linear memory with ${contexts} tokens | isolate | process at the end / at most |`);
  console.log("|---|---|---|---|---|");
  console.log(rows.join("\n"));
  console.log(`\nAn empty worker's process: ${MiB(nothing.own)} MiB of its own, ${MiB(nothing.peak)} MiB resident at most.`);
} finally {
  rmSync(project, { recursive: true, force: true });
}
