// Runs the tests. `node scripts/test.mjs` is the gate: build, lint, types, every suite in this Node, and what depends on the engine once more in the newest Node
// of tests/runtimes, which has relaxed SIMD. tests/bits and tests/runtimes themselves run in Deno, Bun, Chromium and those Nodes. `--full` is the same code with bigger counts and the large
// shapes, and every suite in every Node of tests/runtimes. What is not installed is a printed notice, and a failure where CI=true.
// With patterns (substrings of test paths) only those test files run, without lint, types and build.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { installed, NODES } from "../tests/runtimes/index.mjs";
import { ensureBuilt, ensureHash } from "./build.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const args = process.argv.slice(2);
const USAGE = `node scripts/test.mjs [--full] [PATTERN...]

  without words  the gate, less than 10 minutes on two cores: build, lint, types, every test at small counts
  --full         big counts, large shapes, every runtime: hours
  PATTERN        only the test files whose path has it, say unit/cache; neither build nor lint nor types

Set CI=true to make a runtime that is not installed a failure.`;
if (args.includes("--help") || args.includes("-h")) {
  console.log(USAGE);
  process.exit(0);
}
const unknown = args.filter((a) => a.startsWith("-") && a !== "--full");
if (unknown.length) throw new Error(`unknown option ${unknown.join(", ")}\n\n${USAGE}`);
const full = args.includes("--full");
const patterns = args.filter((a) => !a.startsWith("-"));
const seconds = [];
/** Runs with patterns may overlap: each has a folder of its own. */
const out = patterns.length ? `build/tests-${process.pid}` : "build/tests";

/** Times one stage; a failing one fails the run, but the others still tell what they know. */
async function stage(name, run) {
  const start = performance.now();
  try {
    await run();
  } catch (error) {
    console.error(`\n${name} failed: ${error.message ?? error}`);
    process.exitCode = 1;
  }
  seconds.push([name, (performance.now() - start) / 1000]);
}

function testFiles(dir = "tests") {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    if (name === "node_modules") return [];
    if (statSync(path).isDirectory()) return testFiles(path);
    return name.endsWith(".test.ts") ? [path] : [];
  });
}

async function node(script, argv) {
  const child = spawn(process.execPath, [script, ...argv], { stdio: "inherit" });
  const ended = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(code ?? signal));
  });
  if (ended !== 0) throw new Error(`${script} ended with ${ended}`);
}

/** Bundles the test files; what they import from src/ is bundled with them, packages (this one included) stay imports. */
async function bundle(files) {
  const { build } = await import("esbuild");
  rmSync(out, { recursive: true, force: true });
  await build({
    entryPoints: files,
    outbase: "tests",
    outdir: out,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20.19",
    packages: "external",
    sourcemap: "linked",
    logLevel: "warning",
    define: { LFM2_HASH_WASM: JSON.stringify(await ensureHash()) },
    tsconfigRaw: {},
  });
  mkdirSync(out, { recursive: true });
  for (const name of readdirSync("dist")) if (name.endsWith(".wasm")) cpSync(join("dist", name), join(out, name));
}

const suiteOf = (file) => file.split(/[\\/]/)[1];

/** Runs test files with a Node, two at a time; `scale` chooses the counts. */
function mocha(files, { bin = process.execPath, scale = full ? "full" : "gate" } = {}) {
  const flags = ["--expose-gc", "--enable-source-maps", "node_modules/mocha/bin/mocha.js"];
  const limits = scale === "full" ? { test: 3_600_000, run: 14_400_000 } : { test: 120_000, run: 1_200_000 };
  const bundled = files.map((file) => file.replace(/^tests/, out).replace(/\.ts$/, ".mjs"));
  const how = [
    "--parallel",
    "--jobs",
    "2",
    "--require",
    "./tests/worker.mjs",
    "--timeout",
    String(limits.test),
    "--reporter",
    "./tests/reporter.mjs",
  ];
  const run = spawnSync(bin, [...flags, ...how, ...bundled], {
    stdio: "inherit",
    env: { ...process.env, LFM2_TEST_SCALE: scale, HF_HUB_CACHE: join(out, "hub-cache") }, // never the user's own
    timeout: limits.run, // a hang is a failure
    killSignal: "SIGKILL",
  });
  if (run.status !== 0) throw new Error(`mocha ended with ${run.status ?? run.signal}`);
}

/** Suites whose result may depend on the engine; the packed package's own suite runs in every Node by tests/runtimes. */
const ENGINE_SUITES = ["kernels", "golden"];
/** But not: how far quantization takes a reply, when every engine gives the same bits (tests/bits). */
const ONCE = /quality/;
/** Suites that start the other engines themselves. */
const STARTS_ENGINES = ["bits", "runtimes", "bundlers"];

/**
 * What takes longest goes first, so that no lane is left alone at the end (the run tells its slowest files). The two that have processes in lanes of their own are kept apart: beside one
 * of them a test that waits leaves no core idle, and both at once would make everything late.
 */
const LONGEST = [
  ...(full ? ["unit/template-fuzz", "runtimes/browser-kill", "unit/limits", "unit/memory"] : []), // by their counts
  ...[
    "runtimes/runtimes",
    "golden/models",
    "conformance/api",
    "unit/cache-kill",
    "bits/bits",
    "unit/cli.",
    "runtimes/page",
    "runtimes/browser-cache",
  ],
  ...[
    "kernels/attention",
    "bundlers/bundlers",
    "runtimes/edge",
    "unit/cli-loading",
    "unit/http",
    "unit/cache.",
    "unit/threads",
    "golden/quality",
  ],
  ...[
    "unit/cli-models",
    "unit/build",
    "unit/package",
    "unit/tokenizer",
    "unit/bad-files",
    "unit/cli-bench",
    "kernels/matmul",
    "runtimes/crash",
  ],
];
const place = (file) => {
  const at = LONGEST.findIndex((name) => file.replaceAll("\\", "/").startsWith(`tests/${name}`));
  return at < 0 ? LONGEST.length : at;
};

/** The Node versions to test with: all in the full run, the newest in the gate. */
const otherNodes = () => installed(full ? NODES : NODES.slice(-1), "the suites in another Node, newer ones of which have relaxed SIMD");

const all = testFiles();
const files = patterns.length ? all.filter((f) => patterns.some((p) => f.includes(p))) : all;
if (!files.length) throw new Error(`no test file matches ${patterns.join(", ")}`);
if (!patterns.length) {
  await Promise.all([
    stage("build", () => ensureBuilt()),
    stage("lint", () => node("node_modules/@biomejs/biome/bin/biome", ["check", "--error-on-warnings", "."])),
    stage("types", async () => {
      await node("node_modules/typescript/bin/tsc", ["--noEmit"]);
      await node("node_modules/typescript/bin/tsc", ["--noEmit", "-p", "src/tsconfig.core.json"]);
    }),
  ]);
}
if (full && !patterns.length)
  await stage("install runtimes", () => {
    for (const folder of ["runtimes", "bundlers", "bundlers/next"])
      execFileSync("npm", ["ci"], { cwd: join("tests", folder), stdio: "inherit" });
  });
await stage("bundle tests", () => bundle(files));
const inOrder = [...files].sort((a, b) => place(a) - place(b));
if (!process.exitCode) await stage("tests", () => mocha(inOrder));

if (!patterns.length && !process.exitCode) {
  let others = [];
  await stage("find runtimes", () => {
    others = otherNodes();
  });
  for (const { binary, name } of others) {
    const isAgain = (file) => (full ? !STARTS_ENGINES.includes(suiteOf(file)) : ENGINE_SUITES.includes(suiteOf(file)) && !ONCE.test(file));
    const again = inOrder.filter(isAgain);
    await stage(`tests, ${name}`, () => mocha(again, { bin: binary, scale: full ? "gate" : "again" }));
  }
}
if (patterns.length) rmSync(out, { recursive: true, force: true });

console.log("\nseconds per stage");
for (const [name, s] of seconds) console.log(`${s.toFixed(1).padStart(8)}  ${name}`);
