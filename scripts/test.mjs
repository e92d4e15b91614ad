// Runs the tests. `node scripts/test.mjs` is the gate: build, lint, types, every suite in this Node, and what depends on the engine once more in the newest Node
// of tests/runtimes, which has relaxed SIMD. tests/bits and tests/runtimes themselves run in Deno, Bun, Chromium and those Nodes. `--full` is the same code with bigger counts and the large
// shapes, and every suite in every Node of tests/runtimes. What is not installed is a printed notice, and a failure where CI=true.
// With patterns (substrings of test paths) only those test files run, without lint, types and build.
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { installed, NODES } from "../tests/runtimes/index.mjs";
import { ensureBuilt, ensureHash } from "./build.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const args = process.argv.slice(2);
const full = args.includes("--full");
const patterns = args.filter((a) => !a.startsWith("--"));
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

const node = (script, argv, options = {}) => execFileSync(process.execPath, [script, ...argv], { stdio: "inherit", ...options });

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
    define: { LFM2_HASH_WASM: JSON.stringify(ensureHash()) },
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
/** Suites that start the other engines themselves. */
const STARTS_ENGINES = ["bits", "runtimes", "bundlers"];

/** The Node versions to test with: all in the full run, the newest in the gate. */
const otherNodes = () => installed(full ? NODES : NODES.slice(-1), "the suites in another Node, newer ones of which have relaxed SIMD");

const all = testFiles();
const files = patterns.length ? all.filter((f) => patterns.some((p) => f.includes(p))) : all;
if (!files.length) throw new Error(`no test file matches ${patterns.join(", ")}`);
if (!patterns.length) {
  await stage("build", () => ensureBuilt());
  await stage("lint", () => node("node_modules/@biomejs/biome/bin/biome", ["check", "--error-on-warnings", "."]));
  await stage("types", () => {
    node("node_modules/typescript/bin/tsc", ["--noEmit"]);
    node("node_modules/typescript/bin/tsc", ["--noEmit", "-p", "src/tsconfig.core.json"]);
  });
}
if (full && !patterns.length)
  await stage("install runtimes", () => {
    for (const folder of ["runtimes", "bundlers/next"]) execFileSync("npm", ["ci"], { cwd: join("tests", folder), stdio: "inherit" });
  });
await stage("bundle tests", () => bundle(files));
// those that start engines take longest, so they go first
const inOrder = [...files].sort((a, b) => Number(STARTS_ENGINES.includes(suiteOf(b))) - Number(STARTS_ENGINES.includes(suiteOf(a))));
if (!process.exitCode) await stage("tests", () => mocha(inOrder));

if (!patterns.length && !process.exitCode) {
  let others = [];
  await stage("find runtimes", () => {
    others = otherNodes();
  });
  for (const { binary, name } of others) {
    const again = files.filter((file) => (full ? !STARTS_ENGINES.includes(suiteOf(file)) : ENGINE_SUITES.includes(suiteOf(file))));
    await stage(`tests, ${name}`, () => mocha(again, { bin: binary, scale: "gate" }));
  }
}
if (patterns.length) rmSync(out, { recursive: true, force: true });

console.log("\nseconds per stage");
for (const [name, s] of seconds) console.log(`${s.toFixed(1).padStart(8)}  ${name}`);
