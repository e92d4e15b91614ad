// The package, packed and installed, in every runtime: one suite (tests/conformance/everywhere.ts), and the same tokens for the same seeds.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { build } from "esbuild";
import { lanes } from "../../scripts/lanes.mjs";
import type { Answer, Everywhere } from "../conformance/everywhere.ts";
import { sourceFiles } from "../conformance/source.ts";
import { pick } from "../scale.ts";
import { installPacked } from "../tools/packed.ts";
import { installed, RUNTIMES } from "./index.mjs";
import { type Server, serveFolders } from "./server.mjs";

/** A runtime, and where in it the suite runs. */
interface Where {
  readonly binary: string;
  /** How the package gets there: its own imports resolved by the runtime, or bundled with the conditions of a browser or of an edge worker; "parts": as a browser's, in a file for each part that comes later, and with `lfm2-wasm/whole`; "denied": installed, where Node's module of threads has none to give. */
  readonly way: "installed" | "denied" | "browser" | "parts" | "workerd";
  readonly place?: string;
  readonly options: Pick<Everywhere, "runtime" | "threads" | "engine" | "forced" | "compiles" | "hasRelaxed" | "hasFiles" | "hasWorkers">;
}

/** The slowest first. */
const GATE = ["bun", "chromium", "deno", "node20", "node26", "workerd"];
const FULL = ["firefox", "bun", "chromium", "deno", "node20", "node22", "node24", "node26", "workerd"];
/** Of these those that are named in the environment, where any are: for one at a time. */
const NAMES = pick({ gate: GATE, full: FULL }).filter((name) => process.env.LFM2_TEST_RUNTIMES?.split(",").includes(name) ?? true);
/** A browser runs the suite in these: "page" is cross-origin isolated, the others are not; in "page, here" the engine stays in the page's thread. */
const PLACES: Readonly<Record<string, readonly string[]>> = {
  chromium: pick({ gate: ["page", "worker", "service, in parts"], full: ["page", "page, here", "worker", "service", "service, in parts"] }),
  firefox: ["page", "worker", "service"],
};
/** Where the suite of byte sources runs. */
const SOURCES: RegExp = pick({ gate: /^workerd$/, full: /./ });
/** Where idle threads are watched; tests/unit/threads.test.ts does it in this Node. */
const WATCHED: RegExp = pick({ gate: /^(deno|bun)$/, full: /./ });
const TIMEOUT_MS = pick({ gate: 180_000, full: 900_000 });
const LANES = 2;
const SCALE = {
  testMs: pick({ gate: 60_000, full: 300_000 }),
  cycles: pick({ gate: 6, full: 100 }),
  idleMs: pick({ gate: 200, full: 1000 }),
  programs: pick({ gate: 2, full: 40 }),
  replyTokens: pick({ gate: 16, full: 64 }),
};

function inBrowser(place: string): Pick<Everywhere, "runtime" | "threads" | "engine" | "forced" | "hasWorkers"> {
  if (place === "page") return { runtime: "browser", threads: "two", engine: "worker", hasWorkers: true };
  const hasWorkers = !place.startsWith("service");
  return { runtime: "browser", threads: "one", engine: "here", hasWorkers, ...(place.startsWith("page") ? { forced: "here" } : {}) };
}

function places(): Map<string, Where> {
  const out = new Map<string, Where>();
  for (const { name, binary } of installed(NAMES, "the package in every runtime")) {
    const runtime = name.startsWith("node") ? "node" : name;
    const has = { compiles: true, hasRelaxed: name !== "node20", hasFiles: true, hasWorkers: true };
    const base = { runtime, threads: "two", engine: "here", ...has } as const;
    if (name === "workerd")
      out.set(name, { binary, way: "workerd", options: { ...base, threads: "refused", compiles: false, hasWorkers: false } });
    else if (name in PLACES)
      for (const place of PLACES[name] ?? [])
        out.set(`${name}, ${place}`, {
          binary,
          way: place.endsWith("in parts") ? "parts" : "browser",
          place: place.split(",")[0] ?? "",
          options: { ...base, ...inBrowser(place), ...(name === "firefox" && place === "worker" ? { hasWorkers: false } : {}) },
        });
    else out.set(name, { binary, way: "installed", options: base });
    if (name === "deno" && pick({ gate: false, full: true }))
      out.set("deno without files and threads", {
        binary,
        way: "denied",
        place: "net",
        options: { ...base, threads: "refused", hasFiles: false, hasWorkers: false },
      });
  }
  return out;
}

/** Goes before the text of dist/thread.js: a line in a file for each thread that starts, and for each module that one compiles. */
const watchedThread = (log: string): string => `import { appendFileSync as tellWatcher } from "node:fs";
{
  const runtime = globalThis.Bun ? "bun" : globalThis.Deno ? "deno" : "node" + process.versions.node.split(".")[0];
  const tell = (what) => tellWatcher(${JSON.stringify(log)}, runtime + " " + what + "\\n");
  tell("start");
  for (const name of ["compile", "compileStreaming", "instantiate", "instantiateStreaming", "Module"]) {
    const told = (call) => (target, ...args) => {
      const isMade = name === "instantiate" && args.at(-1)[0] instanceof WebAssembly.Module;
      if (!isMade) tell(name);
      return call(target, ...args);
    };
    if (WebAssembly[name]) WebAssembly[name] = new Proxy(WebAssembly[name], { apply: told(Reflect.apply), construct: told(Reflect.construct) });
  }
}
`;

/** Copies the program to where no runtime gives workers, as in Deno Deploy: Deno has no permission that would refuse them. */
async function withoutWorkers(project: string, folder: string): Promise<void> {
  mkdirSync(folder);
  for (const name of ["everywhere.mjs", "package.json", "node_modules"])
    cpSync(join(project, name), join(folder, name), { recursive: true });
  const dist = join(folder, "node_modules", "lfm2-wasm", "dist");
  const refused = "class Worker { constructor() { throw new Error('there are no workers here'); } }";
  writeFileSync(join(dist, "no-threads.js"), `export ${refused}\nexport const parentPort = null, workerData = undefined;\n`);
  let count = 0;
  for (const name of readdirSync(dist).filter((name) => name.endsWith(".js"))) {
    const text = readFileSync(join(dist, name), "utf8");
    const replaced = text.replaceAll('"node:worker_threads"', '"./no-threads.js"');
    if (replaced === text) continue;
    count++;
    writeFileSync(join(dist, name), replaced);
  }
  assert.ok(count > 0);
}

/** The suite as an installed program has it, and bundled from there as users bundle. @returns the module by way */
async function bundles(project: string): Promise<Record<Where["way"], string>> {
  const common = { bundle: true, format: "esm", target: "es2022", absWorkingDir: project, tsconfigRaw: {}, logLevel: "warning" } as const;
  const everywhere = join(project, "everywhere.mjs");
  await build({
    ...common,
    entryPoints: [resolve("tests", "conformance", "everywhere.ts")],
    outfile: everywhere,
    platform: "neutral",
    external: ["lfm2-wasm", "lfm2-wasm/*"],
    alias: { "node:assert/strict": resolve("tests", "conformance", "assert.ts") },
  });
  const out = {
    installed: everywhere,
    denied: join(project, "denied", "everywhere.mjs"),
    browser: join(project, "browser", "module.mjs"),
    parts: join(project, "parts", "module.mjs"),
    workerd: join(project, "workerd", "module.mjs"),
  };
  if (pick({ gate: false, full: true })) await withoutWorkers(project, dirname(out.denied));
  const entryPoints = [everywhere];
  await build({ ...common, entryPoints, outfile: out.browser, platform: "browser" });
  const inParts = join(project, "in-parts.mjs");
  writeFileSync(inParts, 'import "lfm2-wasm/whole";\nexport * from "./everywhere.mjs";\n');
  const split = { splitting: true, outdir: dirname(out.parts), outExtension: { ".js": ".mjs" } };
  await build({ ...common, ...split, entryPoints: { module: inParts }, platform: "browser" });
  await build({
    ...common,
    entryPoints,
    outfile: out.workerd,
    conditions: ["workerd", "worker", "browser"],
    external: ["*.wasm", "*.gguf"],
  });
  const dist = join(project, "node_modules", "lfm2-wasm", "dist");
  for (const name of readdirSync(dist))
    for (const [way, pattern] of [
      ["browser", /\.(wasm|gguf)$|\.browser\.js$/],
      ["parts", /\.(wasm|gguf)$/],
      ["workerd", /\.(wasm|gguf)$/],
    ] as const)
      if (pattern.test(name)) cpSync(join(dist, name), join(project, way, name));
  return out;
}

describe("the packed package in every runtime", () => {
  const all = places();
  const running = new Map<string, Promise<Answer>>();
  let project: string;
  let server: Server;
  before(async () => {
    project = mkdtempSync(join(tmpdir(), "lfm2-runtimes-"));
    const dist = join(installPacked(project), "dist");
    const thread = join(dist, "thread.js");
    writeFileSync(thread, watchedThread(join(project, "threads.log")) + readFileSync(thread, "utf8"));
    mkdirSync(join(project, "public"));
    cpSync(join(dist, "mini.gguf"), join(project, "public", "mini.gguf"));
    mkdirSync(join(project, "public", "source"));
    for (const [name, bytes] of Object.entries(sourceFiles())) writeFileSync(join(project, "public", "source", name), bytes);
    const golden = resolve("tests", "golden", "data", "kernels");
    const folders = { "/": join(project, "public"), "/dist/": dist, "/model/": resolve("models", "lfm2-mini"), "/golden/": golden };
    server = await serveFolders(folders, { versioned: "/source/" });
    const modules = await bundles(project);
    const start = (name: string, { binary, way, place, options }: Where): Promise<Answer> => {
      const everywhere: Everywhere = {
        ...options,
        ...SCALE,
        ...(WATCHED.test(name) ? {} : { idleMs: 0 }),
        base: server.url,
        hasSources: SOURCES.test(name),
      };
      const builds = options.compiles ? [] : ["kernels.plain.wasm", "kernels.relaxed.wasm"]; // imported as modules
      const files = Object.fromEntries(builds.map((name) => [name, join(dist, name)]));
      const job = { module: modules[way], files, options: everywhere, isPackaged: true };
      return RUNTIMES[name.split(/[, ]/)[0] ?? ""]?.run(binary, job, TIMEOUT_MS, place) as Promise<Answer>;
    };
    const inLane = lanes(LANES);
    for (const [name, where] of all) {
      const answer = inLane(() => start(name, where));
      answer.catch(() => {}); // told by its test
      running.set(name, answer);
    }
  });
  after(async () => {
    await Promise.allSettled(running.values());
    await server.close();
    rmSync(project, { recursive: true, force: true });
  });

  let first: Answer | undefined;
  for (const name of all.keys())
    it(`${name}: passes the suite, with the same tokens as the first`, async () => {
      const answer = await (running.get(name) as Promise<Answer>);
      if (process.env.LFM2_TEST_TIMES) console.log(name, answer.passed, answer.firstTokenMs, answer.ms);
      assert.deepEqual(answer.failed, []);
      assert.ok(answer.passed > 75, `only ${answer.passed} tests`);
      assert.equal(Object.keys(answer.replies).length, 60 + 7);
      first ??= answer;
      assert.deepEqual(answer.names, first.names);
      const other = Object.keys(first.replies).filter((key) => `${first?.replies[key]}` !== `${answer.replies[key]}`);
      assert.deepEqual(other, []);
    }).timeout(2 * TIMEOUT_MS); // the runtime's own limit comes first

  it("no helper thread compiles: each is handed the module that the model's own thread has compiled", () => {
    const starts = [...all].filter(([, { way, options }]) => way === "installed" && options.threads === "two").map(([name]) => name);
    if (starts.length === 0) return; // none of these is to be tested
    const lines = readFileSync(join(project, "threads.log"), "utf8").trim().split("\n");
    for (const name of starts) {
      const own = lines.filter((line) => line.startsWith(`${name} `));
      assert.ok(own.length >= 5, `${name}: ${own.length} threads`);
      assert.deepEqual([...new Set(own)], [`${name} start`]);
    }
  });

  it("the tokens are of many texts, from the package as it is installed, also in parts", async () => {
    const ids = Object.values((first as Answer).replies).map((reply) => `${reply}`);
    assert.ok(new Set(ids).size > 25, `${new Set(ids).size} texts`);
    assert.ok(readFileSync(join(project, "everywhere.mjs"), "utf8").includes('from "lfm2-wasm"'));
    assert.ok(readdirSync(join(project, "parts")).length > 20, "no parts");
  });
});
