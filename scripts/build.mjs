// Builds dist/. `node scripts/build.mjs` builds everything that is older than its sources; `wasm`, `js`, `types`, `mini` name single parts, `--force` builds regardless.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { lanes } from "./lanes.mjs";
import { thinMap } from "./thin-map.mjs";
import { thirdPartyLicenses } from "./third-party.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const at = (...parts) => join(root, ...parts);

/** Newest modification time of the files below the given paths, in ms. */
function newest(paths) {
  let time = 0;
  for (const path of paths) {
    const stat = statSync(at(path), { throwIfNoEntry: false });
    if (!stat) continue;
    time = Math.max(time, stat.mtimeMs);
    if (stat.isDirectory()) time = Math.max(time, newest(readdirSync(at(path)).map((name) => join(path, name))));
  }
  return time;
}

const oldest = (paths) => Math.min(...paths.map((path) => statSync(at(path), { throwIfNoEntry: false })?.mtimeMs ?? 0));

const inLane = lanes(availableParallelism());

/** Runs a script in a process of its own, as many at a time as there are cores. */
const node = (script, args) =>
  inLane(async () => {
    const child = spawn(process.execPath, [at(script), ...args], { cwd: root, stdio: "inherit" });
    const ended = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve(code ?? signal));
    });
    if (ended !== 0) throw new Error(`${script} ${args.join(" ")} ended with ${ended}`);
  });

const asc = (...args) => node("node_modules/assemblyscript/bin/asc.js", args);

/** Builds of the kernels: with and without relaxed SIMD, and each again for threads, on a shared memory. */
const KERNELS = ["plain", "relaxed", "plain-threads", "relaxed-threads"];

const buildWasm = () => Promise.all(KERNELS.map((target) => asc("--config", "asconfig.json", "--target", target)));

/** The probes of the machine's ceilings: benchmarks read them in build/, the CLI carries them. Made where older than their source. @returns their paths */
export async function ensureProbes() {
  const paths = ["plain", "relaxed"].map((name) => `build/probe.${name}.wasm`);
  if (oldest(paths) >= newest(["assembly/probe.ts"])) return paths;
  mkdirSync(at("build"), { recursive: true });
  await Promise.all(
    paths.map((path) =>
      asc(
        ...["probe.ts", "--baseDir", "assembly", "-o", join("..", path)], // a base away from asconfig.json
        ...["--enable", path.includes("relaxed") ? "simd,relaxed-simd" : "simd"],
        ...["--runtime", "stub", "--importMemory", "--noAssert", "-O1"],
      ),
    ),
  );
  return paths;
}

/** The checksum kernel for runtimes without a streaming hash. Made where older than its source. @returns it as base64, for `LFM2_HASH_WASM` */
export async function ensureHash() {
  const path = "build/hash.wasm";
  if (oldest([path]) < newest(["assembly/hash.ts"])) {
    mkdirSync(at("build"), { recursive: true });
    await asc(
      ...["hash.ts", "--baseDir", "assembly", "-o", join("..", path)], // a base away from asconfig.json
      ...["--enable", "simd", "--runtime", "stub", "--noAssert", "-O3", "--converge", "--initialMemory", "1"],
    );
  }
  return readFileSync(at(path), "base64");
}

async function buildJs() {
  const [probes, hash] = await Promise.all([ensureProbes(), ensureHash()]);
  const [plain, relaxed] = probes.map((path) => readFileSync(at(path), "base64"));
  const { build: bundle } = await import("esbuild");
  const metafiles = [];
  const build = async (options) => {
    const result = await bundle({ ...options, metafile: true });
    metafiles.push(result.metafile);
    return result;
  };
  for (const name of readdirSync(at("dist"))) if (/^core-.*\.js/.test(name)) rmSync(at("dist", name));
  const common = {
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20.19",
    outdir: at("dist"),
    sourcemap: true,
    sourcesContent: false, // lines; the text itself is in the repository
    legalComments: "none", // licences are in a file of their own
    absWorkingDir: root,
    tsconfigRaw: {},
  };
  // wasm and gguf are imported as modules by the runtimes that can, and lie in dist/ as well
  const external = ["@huggingface/jinja", "@huggingface/tokenizers", "lfm2-wasm", "lfm2-wasm/mini", "*.wasm", "*.gguf"];
  const version = JSON.stringify(JSON.parse(readFileSync(at("package.json"), "utf8")).version);
  const adapter = (name) => `src/adapters/${name}/index.ts`;
  await build({
    ...common,
    minify: true,
    entryPoints: { "thread.browser": "src/adapters/browser/thread.ts" },
    platform: "neutral",
    target: "es2022",
  });
  const define = {
    LFM2_HASH_WASM: JSON.stringify(hash),
    LFM2_THREAD: JSON.stringify(readFileSync(at("dist/thread.browser.js"), "utf8").split("//# sourceMappingURL=")[0].trim()),
  };
  const { metafile } = await build({
    ...common,
    minify: true,
    entryPoints: {
      index: adapter("node"),
      quantize: "src/cli/quantize-file.ts",
      ...Object.fromEntries(["deno", "bun", "browser", "workerd"].map((name) => [name, adapter(name)])),
      worker: "src/adapters/node/worker.ts",
      "worker.deno": "src/adapters/deno/worker.ts",
      transformers: "src/transformers/index.ts",
      server: "src/server/index.ts",
      part: "src/part.ts",
    },
    external,
    define,
    splitting: true, // they share the core
    chunkNames: "core-[hash]",
    target: "es2022",
    supported: { "import-source": true }, // in a chunk that Deno alone asks for
  });
  await writeWhole(metafile);
  await build({
    ...common,
    minify: true,
    entryPoints: { thread: "src/adapters/node/thread.ts", mini: "src/mini.ts", "mini.workerd": "src/adapters/workerd/mini.ts" },
    external,
  });
  await build({
    ...common,
    minify: true, // names would be 21 KB, and nobody prints what lives there
    entryPoints: { "worker.browser": "src/adapters/browser/worker.ts" },
    define,
    platform: "browser", // with its dependencies: a worker has no import map, and a file that is copied alone finds no chunk
    target: "es2022",
    sourcemap: "external", // and not packed, for its size
    // a bucket cannot cross into a worker: the page reads from it, and serves what it has read
    plugins: [
      {
        name: "no buckets",
        setup: ({ onLoad }) =>
          onLoad({ filter: /[\\/]weights[\\/]r2\.ts$/ }, () => ({
            contents: "export const isR2Address = () => false, openR2 = isR2Address;",
          })),
      },
    ],
  });
  const kernels = (name) => gzipSync(readFileSync(at("dist", `kernels.${name}.wasm`)), { level: 9 }).toString("base64");
  await build({
    ...common,
    minify: true,
    entryPoints: { inline: adapter("inline") },
    external,
    platform: "neutral",
    target: "es2022",
    define: { LFM2_KERNELS: JSON.stringify({ plain: kernels("plain"), relaxed: kernels("relaxed") }) },
  });
  await build({
    ...common,
    entryPoints: { cli: "src/cli/main.ts" },
    external,
    minify: true,
    // what few commands need is a file of its own, which shares the core
    plugins: [
      {
        name: "quantize",
        setup: ({ onResolve }) => onResolve({ filter: /quantize-file\.ts$/ }, () => ({ path: "./quantize.js", external: true })),
      },
    ],
    define: { LFM2_VERSION: version, LFM2_PROBES: JSON.stringify({ plain, relaxed }) },
  });
  for (const name of readdirSync(at("dist")))
    if (name.endsWith(".js.map")) writeFileSync(at("dist", name), thinMap(readFileSync(at("dist", name), "utf8")));
  writeFileSync(at("dist/THIRD-PARTY-LICENSES.txt"), thirdPartyLicenses(root, metafiles));
}

/**
 * dist/whole.js: src/adapters/browser/whole.ts over the files that the parts have become. As an entry of the build itself it would be a reason to split each of them once more.
 * @param {import("esbuild").Metafile} metafile
 */
async function writeWhole({ outputs }) {
  const source = "src/adapters/browser/whole.ts";
  const fileOf = (path) => {
    const entry = join(source, "..", path);
    const [file] = Object.entries(outputs).find(([, { entryPoint }]) => entryPoint === entry) ?? [];
    if (!file) throw new Error(`${source}: expected ${entry} to be a file of the build, got none`);
    return `./${file.slice("dist/".length)}`;
  };
  const text = readFileSync(at(source), "utf8").replace(/from "([^"]+)"/g, (_, path) => `from "${fileOf(path)}"`);
  const { transform } = await import("esbuild");
  writeFileSync(at("dist/whole.js"), (await transform(text, { minify: true, format: "esm" })).code);
}

/** Declaration files; relative `.ts` specifiers become `.js`, which every TypeScript resolves to the `.d.ts` beside it, and indents tabs, which are a twentieth of the bytes less. */
async function buildTypes() {
  rmSync(at("dist/types"), { recursive: true, force: true });
  await node("node_modules/typescript/bin/tsc", ["-p", "tsconfig.build.json"]);
  const rewrite = (dir) => {
    for (const name of readdirSync(dir)) {
      const path = join(dir, name);
      if (statSync(path).isDirectory()) rewrite(path);
      else if (name.endsWith(".d.ts"))
        writeFileSync(
          path,
          readFileSync(path, "utf8")
            .replace(/(from |import\()"(\.{1,2}\/[^"]+)\.ts"/g, '$1"$2.js"')
            .replace(/^(?: {4})+/gm, (spaces) => "\t".repeat(spaces.length / 4)),
        );
    }
  };
  rewrite(at("dist/types"));
  await prune();
}

/** Removes declarations that no entry of the package reaches, which are half of all. */
async function prune() {
  const typesOf = (value) => (typeof value === "string" ? (value.endsWith(".d.ts") ? [value] : []) : Object.values(value).flatMap(typesOf));
  const entries = typesOf(JSON.parse(readFileSync(at("package.json"), "utf8")).exports);
  const { pruneTypes } = await import("./prune-types.mjs"); // with it comes the compiler
  pruneTypes(
    at("dist/types"),
    [...new Set(entries)].map((path) => at(path)),
  );
}

const buildMini = () => node("scripts/make-mini.mjs", ["dist/mini.gguf"]);

/** Each part with its sources, what it makes, and the part that is to be made before. */
const parts = {
  wasm: { run: buildWasm, from: ["assembly", "asconfig.json"], to: KERNELS.map((name) => `dist/kernels.${name}.wasm`) },
  js: {
    run: buildJs,
    after: "wasm",
    from: [
      "src",
      "package.json",
      "scripts/build.mjs",
      "scripts/third-party.mjs",
      "scripts/thin-map.mjs",
      "assembly/probe.ts",
      "assembly/hash.ts",
      "dist/kernels.plain.wasm",
      "dist/kernels.relaxed.wasm",
    ],
    to: [
      "index",
      "deno",
      "bun",
      "browser",
      "workerd",
      "worker",
      "worker.deno",
      "worker.browser",
      "thread",
      "thread.browser",
      "mini",
      "mini.workerd",
      "inline",
      "transformers",
      "cli",
      "quantize",
      "server",
      "whole",
    ]
      .map((name) => `dist/${name}.js`)
      .concat("dist/THIRD-PARTY-LICENSES.txt", "dist/worker.browser.js.map"),
  },
  types: {
    run: buildTypes,
    from: ["src", "tsconfig.json", "tsconfig.build.json", "scripts/build.mjs", "scripts/prune-types.mjs"],
    to: ["dist/types/adapters/node/index.d.ts"],
  },
  mini: { run: buildMini, from: ["models/lfm2-mini", "scripts/make-mini.mjs", "scripts/checkpoints"], to: ["dist/mini.gguf"] },
};

/** Builds the named parts (all without names) where an output is missing or older than a source, side by side where they can be. */
export async function ensureBuilt(names = Object.keys(parts), { force = false, log = (line) => console.error(line) } = {}) {
  mkdirSync(at("dist"), { recursive: true });
  const building = new Map();
  const ensure = async (name) => {
    const part = parts[name];
    await building.get(part.after);
    if (!force && part.to.every((path) => existsSync(at(path))) && oldest(part.to) >= newest(part.from)) return;
    const start = performance.now();
    await part.run();
    log(`built ${name} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  };
  for (const name of Object.keys(parts)) if (names.includes(name)) building.set(name, ensure(name)); // in order: what others wait for comes first
  const failed = (await Promise.allSettled(building.values())).find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  const names = args.filter((a) => !a.startsWith("--"));
  const unknown = names.filter((n) => !(n in parts));
  if (unknown.length) throw new Error(`unknown part ${unknown.join(", ")}; expected some of ${Object.keys(parts).join(", ")}`);
  await ensureBuilt(names.length ? names : undefined, { force: args.includes("--force") });
}
