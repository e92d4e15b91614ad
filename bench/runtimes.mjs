// README's table of runtimes: one program in each that is installed, from the packed package. `npm run bench:runtimes` prints the table; `-- --write` puts it into README.
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { RUNTIMES } from "../tests/runtimes/index.mjs";
import { serveFolders } from "../tests/runtimes/server.mjs";
import { findWorkerd } from "../tests/runtimes/workerd/serve.mjs";
import { gguf } from "./lib/checkpoints.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const TIMEOUT_MS = 120_000;
const JOB = resolve("bench", "lib", "in-runtime.mjs");
const MARKS = ["<!-- bench:runtimes -->", "<!-- /bench:runtimes -->"];
const args = process.argv.slice(2);
const only = args.includes("--only") ? new RegExp(args[args.indexOf("--only") + 1]) : /./;
const rounds = args.includes("--rounds") ? Number(args[args.indexOf("--rounds") + 1]) : 5;

/** What a place has and lacks, as one reads it in a table. */
const PLACES = [
  ...["node20", "node22", "node24", "node26"].map((name) => ({ name, title: "Node", has: 'files, cache, threads, `engine: "worker"`' })),
  { name: "deno", title: "Deno", has: "as in Node" },
  { name: "deno", place: "net", title: "Deno, as in Deno Deploy", has: "network; no files, one thread" },
  { name: "bun", title: "Bun", has: "as in Node" },
  { name: "chromium", place: "page", title: "Chromium, page", has: "network, Files, OPFS; threads where isolated" },
  { name: "chromium", place: "worker", title: "Chromium, worker", has: "as in its page" },
  { name: "chromium", place: "service", title: "Chromium, service worker", has: "network, OPFS; one thread, no worker" },
  { name: "firefox", place: "page", title: "Firefox ESR, page", has: "as in Chromium's page" },
  { name: "firefox", place: "worker", title: "Firefox ESR, worker", has: "network, Files, OPFS; one thread, no worker" },
  { name: "firefox", place: "service", title: "Firefox ESR, service worker", has: "as in Chromium's" },
  { name: "workerd", title: "workerd", has: "modules, R2, network; one thread, 85 MB" },
];

/** The package beside its dependencies, and the job as an installed program has it, a page, an edge worker. */
async function prepare(project) {
  const installed = join(project, "node_modules", "lfm2-wasm");
  mkdirSync(installed, { recursive: true });
  cpSync("package.json", join(installed, "package.json"));
  cpSync("dist", join(installed, "dist"), { recursive: true });
  cpSync(join("node_modules", "@huggingface"), join(project, "node_modules", "@huggingface"), { recursive: true });
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  const job = join(project, "job.mjs");
  cpSync(JOB, job);
  const common = { entryPoints: [job], bundle: true, format: "esm", target: "es2022", absWorkingDir: project, logLevel: "warning" };
  const out = { installed: job, browser: join(project, "browser", "job.mjs"), workerd: join(project, "workerd", "job.mjs") };
  await build({ ...common, outfile: out.browser, platform: "browser" });
  await build({ ...common, outfile: out.workerd, conditions: ["workerd", "worker", "browser"], external: ["*.wasm", "*.gguf"] });
  for (const name of readdirSync("dist").filter((name) => /\.(wasm|gguf)$/.test(name)))
    for (const way of [out.browser, out.workerd]) cpSync(join("dist", name), join(dirname(way), name));
  return out;
}

/** A browser's processes wait for each other: they run at normal priority, whatever this program's is. */
function atNormalPriority(binary, project) {
  const path = join(project, "browser.sh");
  writeFileSync(
    path,
    `#!/bin/sh\ncommand -v chrt >/dev/null && exec chrt -o 0 ${JSON.stringify(binary)} "$@"\nexec ${JSON.stringify(binary)} "$@"\n`,
  );
  chmodSync(path, 0o755);
  return path;
}

const versionOf = (name, binary) =>
  /\d+(?:[.-]\d+)+/.exec(execFileSync(name === "workerd" ? findWorkerd() : binary, ["--version"], { encoding: "utf8" }))?.[0] ?? "";

const number = (value) => (value === undefined ? "–" : value >= 100 ? String(Math.round(value)) : value.toFixed(1));

const project = mkdtempSync(join(tmpdir(), "lfm2-bench-runtimes-"));
try {
  const jobs = await prepare(project);
  const large = resolve(await gguf("350m", "Q4_0"));
  const server = await serveFolders({ "/": dirname(large), "/dist/": resolve("dist") });
  const rows = [];
  for (const { name, place, title, has } of PLACES) {
    const binary = RUNTIMES[name].find();
    if (!only.test(`${name} ${place ?? ""}`)) continue;
    if (!binary) {
      console.error(`${name} is not installed: ${RUNTIMES[name].install}`);
      continue;
    }
    const isBrowser = name === "chromium" || name === "firefox";
    const way = isBrowser ? "browser" : name === "workerd" ? "workerd" : "installed";
    const options = {
      files: { large },
      network: { mini: `${server.url}dist/mini.gguf`, large: server.url + basename(large) },
      modules: {},
    }[way === "workerd" ? "modules" : place ? "network" : "files"];
    const told = await RUNTIMES[name].run(
      way === "browser" ? atNormalPriority(binary, project) : binary,
      { module: jobs[way], files: {}, options: { ...options, rounds }, isPackaged: way === "installed" },
      TIMEOUT_MS,
      place,
    );
    console.error(name, place ?? "", told);
    const speed = told.large === undefined ? "does not fit" : number(told.large);
    rows.push(
      `| ${title} | ${versionOf(name, binary)} | ${told.variant} | ${has} | ${number(told.mini)} | ${speed} | ${Math.round(told.firstTokenMs)} |`,
    );
  }
  await server.close();
  const table = [
    "| runtime | version | kernels | what works | bundled model, tokens/s | 350M q4, tokens/s | import to first token, ms |",
    "|---|---|---|---|---|---|---|",
    ...rows,
    "",
    `\`npm run bench:runtimes\`, ${new Date().toISOString().slice(0, 10)}, ${cpus()[0]?.model.trim()}, ${cpus().length} cores, Linux x64. Measured with one thread; the time to the first token is from before the import, in browsers and workerd, where the package is within the program's one file, from when that has been read; nothing is cached but files.`,
  ].join("\n");
  console.log(table);
  if (args.includes("--write")) {
    const readme = readFileSync("README.md", "utf8");
    const [before, rest] = readme.split(MARKS[0]);
    const after = rest?.split(MARKS[1])[1];
    if (after === undefined) throw new Error(`README.md has no ${MARKS.join(" … ")}`);
    writeFileSync("README.md", `${before}${MARKS[0]}\n${table}\n${MARKS[1]}${after}`);
  }
} finally {
  rmSync(project, { recursive: true, force: true });
}
