// The build's judgement of what is stale, on a copy of the project, and what a bundler takes along of the package.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type BuildResult, build } from "esbuild";
import { pick } from "../scale.ts";

interface Builder {
  ensureBuilt(names?: readonly string[], options?: { force?: boolean; log?: (line: string) => void }): Promise<void>;
}

/** A file that each part is made of, deep inside where it can be, and what the part makes. */
const parts: Readonly<Record<string, { readonly sources: readonly string[]; readonly outputs: readonly string[] }>> = {
  wasm: { sources: ["assembly/lib/threads.ts", "asconfig.json"], outputs: ["kernels.plain.wasm", "kernels.relaxed-threads.wasm"] },
  js: {
    sources: ["src/adapters/node/files.ts", "package.json"],
    outputs: ["index.js", "browser.js", "workerd.js", "inline.js", "worker.js", "thread.js", "mini.js", "cli.js"],
  },
  types: { sources: ["src/adapters/node/files.ts", "tsconfig.json"], outputs: ["types/adapters/node/index.d.ts"] },
  mini: { sources: ["models/lfm2-mini/chat_template.jinja", "scripts/checkpoints/quants.mjs"], outputs: ["mini.gguf"] },
};
const names = Object.keys(parts);
const of = (name: string) => parts[name] ?? assert.fail(name);

// hours, so that no clock and no rounding matters
const HOUR = 3600;
const OLD = 1_700_000_000;
const LATER = OLD + 5 * HOUR;

function age(path: string, seconds: number): void {
  if (statSync(path).isDirectory()) for (const name of readdirSync(path)) age(join(path, name), seconds);
  utimesSync(path, seconds, seconds);
}

describe("ensureBuilt", () => {
  let root: string;
  let builder: Builder;
  const output = (name: string): string => join(root, "dist", name);
  /** Everything is as after a build: the sources of one hour, the outputs of the next. Each output says "stale", so that whatever is made anew shows. */
  function settle(): void {
    for (const name of readdirSync(root)) if (name !== "node_modules" && name !== "dist") age(join(root, name), OLD);
    for (const name of names)
      for (const file of of(name).outputs) {
        mkdirSync(dirname(output(file)), { recursive: true });
        writeFileSync(output(file), "stale");
      }
    age(join(root, "dist"), OLD + HOUR);
  }
  /** Parts that are built on a call, by what they make; the log must say the same. */
  async function built(wanted?: readonly string[], options: { force?: boolean } = {}): Promise<string[]> {
    const lines: string[] = [];
    await builder.ensureBuilt(wanted, { ...options, log: (line) => lines.push(line) });
    const made = names.filter((name) => of(name).outputs.every((file) => readFileSync(output(file), "utf8") !== "stale"));
    const untouched = names.filter((name) => of(name).outputs.every((file) => statSync(output(file)).mtimeMs === (OLD + HOUR) * 1000));
    assert.deepEqual(
      lines.map((line) => line.split(" ")[1]),
      made,
      lines.join("\n"),
    );
    assert.deepEqual([...made, ...untouched].sort(), [...names].sort());
    return made;
  }

  before(async () => {
    root = mkdtempSync(join(tmpdir(), "lfm2-build-"));
    for (const path of ["assembly", "models", "scripts", "src", "dist"]) cpSync(path, join(root, path), { recursive: true });
    cpSync(join("tests", "tools"), join(root, "tests", "tools"), { recursive: true });
    // what no test changes the sources of
    for (const name of ["hash.wasm", "probe.plain.wasm", "probe.relaxed.wasm"]) cpSync(join("build", name), join(root, "build", name));
    for (const path of ["asconfig.json", "package.json", "tsconfig.json", "tsconfig.build.json"]) cpSync(path, join(root, path));
    symlinkSync(resolve("node_modules"), join(root, "node_modules"), "junction");
    builder = (await import(pathToFileURL(join(root, "scripts", "build.mjs")).href)) as Builder;
  });
  after(() => rmSync(root, { recursive: true, force: true }));

  it("leaves alone what is newer than its sources", async () => {
    settle();
    assert.deepEqual(await built(), []);
  });

  // the slow ones only in the full run
  for (const name of pick({ gate: ["mini"], full: names })) {
    it(`builds ${name} anew when a source is newer than its oldest output, and nothing else`, async () => {
      for (const source of of(name).sources) {
        settle();
        utimesSync(join(root, source), LATER, LATER);
        // the JavaScript holds the kernels once more, in inline.js
        const others = names.filter((n) => n !== name && !of(n).sources.includes(source) && !(name === "wasm" && n === "js"));
        assert.deepEqual(await built([...others, name].sort(byOrder)), [name], source);
        // what is made is newer than the source only by the real clock: it counts as fresh now
        assert.ok(of(name).outputs.every((file) => statSync(output(file)).mtimeMs > LATER * 1000));
        const lines: string[] = [];
        await builder.ensureBuilt([name], { log: (line) => lines.push(line) });
        assert.deepEqual(lines, [], "a second time");
      }
    });

    it(`builds ${name} anew when one of its outputs is missing or old`, async () => {
      const [first = "", ...others] = of(name).outputs;
      settle();
      rmSync(output(first));
      assert.deepEqual(await built([name]), [name], "missing");
      settle();
      for (const file of others) utimesSync(output(file), LATER, LATER);
      utimesSync(output(first), OLD - HOUR, OLD - HOUR);
      assert.deepEqual(await built([name]), [name], "older than the rest");
    });
  }

  it("notices a file that went away, and builds what is named with force", async () => {
    settle();
    const gone = join("models", "lfm2-mini", "README.md");
    rmSync(join(root, gone));
    assert.deepEqual(await built(["mini"]), ["mini"]);
    cpSync(gone, join(root, gone));
    settle();
    const name = pick({ gate: "mini", full: "js" });
    assert.deepEqual(await built([name], { force: true }), [name]);
  });

  it("`npm start` runs what the sources say now, not what was built before", () => {
    settle();
    for (const name of readdirSync("dist"))
      if (/^(index|mini|core-.*)\.js$|^kernels\..*\.wasm$|\.gguf$/.test(name)) cpSync(join("dist", name), output(name));
    writeFileSync(output("cli.js"), 'console.log("an old program");\n');
    age(join(root, "dist"), OLD + HOUR);
    const start = () => spawnSync(process.execPath, [join(root, "scripts", "start.mjs"), "--version"], { encoding: "utf8" });
    assert.equal(start().stdout, "an old program\n");
    utimesSync(join(root, "src", "cli", "args.ts"), LATER, LATER);
    const { stdout, stderr } = start();
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
    assert.match(stderr, /^built js in [\d.]+ s\n$/);
  });
});

const byOrder = (a: string, b: string): number => names.indexOf(a) - names.indexOf(b);

describe("a bundle of a program", () => {
  /** Bundles `program` as somebody would who depends on the package. */
  async function bundle(program: string): Promise<{ inputs: string[]; text: string }> {
    const { metafile, outputFiles }: BuildResult<{ metafile: true; write: false }> = await build({
      stdin: { contents: program, resolveDir: process.cwd() },
      bundle: true,
      write: false,
      metafile: true,
      platform: "node",
      format: "esm",
      outdir: "build/bundle",
      tsconfigRaw: {}, // no path from the package's name to its sources: dist/ is meant
      loader: { ".gguf": "file", ".wasm": "file" },
      logLevel: "silent",
    });
    const inputs = Object.entries(metafile.inputs).flatMap(([path, { imports }]) => [path, ...imports.map((i) => i.path)]);
    return { inputs, text: outputFiles.map((file) => file.text).join("") };
  }
  const isMini = (path: string): boolean => /^mini\.(workerd\.)?(gguf|js|ts)$/.test(basename(path)) || path === "lfm2-wasm/mini";

  it("that asks for the core carries no bundled model", async () => {
    for (const program of [
      'import { load } from "lfm2-wasm"; console.log(load);',
      'import * as all from "lfm2-wasm"; console.log(all);',
      'import * as all from "./src/adapters/node/index.ts"; console.log(all);',
    ]) {
      const { inputs, text } = await bundle(program);
      assert.ok(
        inputs.some((path) => /dist\/index\.js$|src\/lfm2\.ts$/.test(path)) && text.includes("kernels.plain.wasm"),
        inputs.join(" "),
      );
      assert.deepEqual(inputs.filter(isMini), [], program);
      assert.ok(!text.includes("mini.gguf"), program);
    }
  });

  it("that asks for the model has it", async () => {
    const { inputs, text } = await bundle('import { mini } from "lfm2-wasm/mini"; console.log(mini);');
    assert.ok(inputs.some(isMini) && text.includes("mini.gguf"), inputs.join(" "));
  });
});
