// The same bits everywhere: in this Node any build, tile, chunking and number of threads, and then every other engine against this one.
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { build } from "esbuild";
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { lanes } from "../../scripts/lanes.mjs";
import { checkpointFolder } from "../golden/support.ts";
import { installed, NODES, RUNTIMES } from "../runtimes/index.mjs";
import { pick } from "../scale.ts";
import type { Report } from "./driver.ts";
import { Ledger } from "./ledger.ts";
import { MINI, replies, replyTokens } from "./model.ts";

/** The engines beside this one, the slowest first; in the gate the oldest Node and the newest. */
const ENGINES = [
  "bun",
  ...NODES.filter((name) => pick({ gate: ["node20", "node26"], full: NODES }).includes(name)),
  "deno",
  "chromium",
  ...pick({ gate: [], full: ["workerd"] }),
];
/** Those that run the builds with threads, too, which are the same code. workerd has no threads, and refuses to wait for any. */
const WITH_THREADS: readonly string[] = [...NODES, ...pick({ gate: [], full: ["bun", "deno", "chromium"] })];
/** Tiny models that vary what matters: head sizes, groups of heads, taps, a bias, odd sizes. */
const MODELS = pick({
  gate: ["tiny-deep", "tiny-attn-first"],
  full: ["tiny-deep", "tiny-attn-first", "tiny-conv-first", "tiny-conv-only", "tiny-attn-only", "tiny-gqa3"],
});
/** Ops that only whole models run, each with the reason why no case of its own does. */
const WITHIN_MODELS: Readonly<Record<string, string>> = {};
const TOKENS = replyTokens(pick({ gate: false, full: true }));
const options = { scale: pick({ gate: "gate", full: "full" }) };

/** What every engine is handed, by name. */
function filesOf(): Record<string, string> {
  const files: Record<string, string> = { "mini.gguf": resolve("dist", "mini.gguf") };
  for (const name of readdirSync("dist")) if (/^kernels\..+\.wasm$/.test(name)) files[name] = resolve("dist", name);
  for (const model of MODELS)
    for (const name of readdirSync(checkpointFolder(model))) files[`${model}/${name}`] = resolve(checkpointFolder(model), name);
  return files;
}

/** Bundles the driver for no runtime in particular. @returns its path */
async function bundle(): Promise<string> {
  const outfile = resolve("build", `bits-${process.pid}`, "driver.mjs");
  mkdirSync(dirname(outfile), { recursive: true });
  const entryPoints = [join("tests", "bits", "driver.ts")];
  await build({
    entryPoints,
    outfile,
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    logLevel: "warning",
    tsconfigRaw: {},
  });
  return outfile;
}

/** An engine that takes longer hangs; below mocha's own limit, so that its process is ended. */
const TIMEOUT_MS = pick({ gate: 110_000, full: 1_100_000 });
/** Engines at a time: the machines that run the gate have two cores. */
const LANES = 2;

describe("same bits", () => {
  const found = installed(ENGINES, "that every engine gives the same bits");
  const there = new Map<string, Promise<Report>>();
  let folder: string;
  let here: Report;
  before(async () => {
    const module = await bundle();
    folder = dirname(module);
    const job = { module, files: filesOf(), options };
    const single = Object.fromEntries(Object.entries(job.files).filter(([path]) => !path.endsWith("-threads.wasm")));
    const jobOf = (name: string) => (WITH_THREADS.includes(name) ? job : { ...job, files: single });
    const inLane = lanes(LANES);
    for (const { name, binary } of found) {
      const report = inLane(() => RUNTIMES[name]?.run(binary, jobOf(name), TIMEOUT_MS) as Promise<Report>);
      report.catch(() => {}); // told by its test
      there.set(name, report);
    }
    const bytes = await Promise.all(Object.entries(job.files).map(async ([name, path]) => [name, new Uint8Array(await readFile(path))]));
    const { run } = (await import(module)) as { run(files: unknown, options: unknown): Promise<Report> };
    here = await run(Object.fromEntries(bytes), options);
  });
  after(async () => {
    await Promise.allSettled(there.values());
    rmSync(folder, { recursive: true, force: true });
  });

  function check(report: Report): void {
    assert.deepEqual(report.differences, []);
    assert.ok(report.comparisons > 100_000 * report.builds.length, `only ${report.comparisons} comparisons`);
    assert.deepEqual(
      report.unused.filter((op) => !(op in WITHIN_MODELS)),
      [],
      "ops that no case of tests/bits runs",
    );
  }

  it("this Node: every build, tile, chunking and number of threads", () => {
    assert.ok(here.builds.includes("plain"));
    check(here);
  });

  for (const { name } of found) {
    it(`${name}: the same within it, and the same as in Node ${process.versions.node}`, async () => {
      const report = await (there.get(name) as Promise<Report>);
      assert.equal(report.builds.includes("relaxed"), name !== "node20", `builds: ${report.builds}`);
      check(report);
      const other = Object.keys(here.hashes).filter((key) => here.hashes[key] !== report.hashes[key]);
      assert.deepEqual(other, []);
      assert.deepEqual(Object.keys(report.hashes).sort(), Object.keys(here.hashes).sort()); // without threads the order is another
    });
  }

  it("the package, with one to three threads in every build, gives the replies of the core", async () => {
    const seen = new Map<string, Buffer>();
    for (const variant of ["plain", "relaxed"] as const) {
      if (!here.builds.includes(variant)) continue;
      for (const threads of [1, 2, 3]) {
        using model = await load(mini, { variant, threads });
        assert.deepEqual([model.info.variant, model.info.threads], [variant, threads]);
        await replies(model, TOKENS, (part, data) => {
          const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
          assert.ok((seen.get(part) ?? bytes).equals(bytes), `${part} with ${variant}, ${threads} threads`);
          seen.set(part, bytes);
        });
      }
    }
    // in the form of the driver, so that it is compared with every engine
    const ledger = new Ledger();
    for (const [part, bytes] of seen) ledger.agree(MINI, part, "package", new Uint8Array(bytes));
    assert.equal(seen.size, 6);
    assert.equal(ledger.hashes()[MINI], here.hashes[MINI]);
  });
});
