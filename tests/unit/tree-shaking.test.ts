// What a program that imports `load` alone carries: neither server nor tools, grammar, command line, quantizer or the reference's names, whoever bundles it.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { pick } from "../scale.ts";

const FOREIGN = /(?:^|\/)src\/(?:server|cli|quantize|transformers)\/|(?:^|\/)(?:grammars?|tools?)(?:\/|[.-])/;
/** Entries that `load` must not reach. */
const ENTRIES = ["server.js", "cli.js", "quantize.js", "transformers.js", "inline.js", "whole.js"];

/** Words that only the code of another entry says, by the entry that says it. */
const MARKS = {
  "server.js": "chat.completion.chunk",
  "cli.js": "lfm2 pull",
  "quantize.js": "general.quantization_version",
  "transformers.js": "AutoTokenizer",
};

/** @returns the source files that a packed file was made of, by its own map */
function sourcesOf(file: string): string[] {
  const map = resolve("dist", `${file}.map`);
  if (!existsSync(map)) return [];
  const { sources } = JSON.parse(readFileSync(map, "utf8")) as { sources: string[] };
  return sources.map((source) => source.replace(/^(?:\.\.\/)+/, ""));
}

const ADAPTERS = pick({ gate: ["browser", "node"], full: ["browser", "node", "deno", "bun", "workerd"] });

/** Of Rollup what is used. */
interface Rollup {
  rollup(options: object): Promise<{
    generate(
      options: object,
    ): Promise<{ readonly output: readonly { readonly modules?: Readonly<Record<string, { readonly renderedLength: number }>> }[] }>;
  }>;
}

const options = {
  bundle: true,
  splitting: true,
  format: "esm",
  write: false,
  metafile: true,
  packages: "external",
  platform: "browser",
  logLevel: "error",
} as const;

describe("a bundle that imports load alone", () => {
  it("from the sources: no file of another entry's, on demand or not", async () => {
    for (const adapter of ADAPTERS) {
      const { metafile } = await build({
        stdin: { contents: `import { load } from "./src/adapters/${adapter}/index.ts"; load("model.gguf");`, resolveDir: resolve(".") },
        bundle: true,
        splitting: true,
        format: "esm",
        outdir: "out",
        write: false,
        metafile: true,
        packages: "external",
        external: ["*.wasm", "*.gguf"],
        platform: adapter === "browser" || adapter === "workerd" ? "browser" : "node",
        supported: { "import-source": true },
        define: { LFM2_HASH_WASM: '""' },
        tsconfigRaw: {},
        logLevel: "error",
      });
      const files = Object.values(metafile.outputs).flatMap(({ inputs }) =>
        Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0),
      );
      const names = files.map(([name]) => name);
      assert.ok(names.includes("src/lfm2.ts") && names.length > 60, `${names.length} files`);
      assert.deepEqual(
        names.filter((name) => FOREIGN.test(name)),
        [],
        adapter,
      );
    }
  });

  describe("from what is packed", () => {
    let folder: string;
    let entry: string;
    before(() => {
      folder = mkdtempSync(join(tmpdir(), "lfm2-shaken-"));
      entry = join(folder, "main.js");
      writeFileSync(entry, `import { load } from ${JSON.stringify(resolve("dist", "browser.js"))};\nload("model.gguf");\n`);
    });
    after(() => rmSync(folder, { recursive: true, force: true }));

    it("by esbuild", async () => {
      const { metafile } = await build({ ...options, entryPoints: [entry], outdir: join(folder, "out") });
      const names = Object.keys(metafile.inputs).map((name) => basename(name));
      assert.ok(names.includes("browser.js"));
      assert.deepEqual(
        names.filter((name) => ENTRIES.includes(name)),
        [],
      );
    });

    it("by esbuild: of every chunk, on demand or not, the sources by its map, and its bytes", async () => {
      for (const adapter of ADAPTERS) {
        const file = adapter === "node" ? "index.js" : `${adapter}.js`;
        const { metafile, outputFiles } = await build({
          ...options,
          stdin: { contents: `import { load } from "./dist/${file}"; load("model.gguf");`, resolveDir: resolve(".") },
          platform: adapter === "browser" || adapter === "workerd" ? "browser" : "node",
          external: ["*.wasm", "*.gguf"],
          supported: { "import-source": true },
          outdir: "out",
        });
        const kept = Object.values(metafile.outputs).flatMap(({ inputs }) =>
          Object.entries(inputs).flatMap(([name, { bytesInOutput }]) => (bytesInOutput > 0 ? [basename(name)] : [])),
        );
        const sources = kept.flatMap(sourcesOf);
        assert.ok(sources.includes("src/lfm2.ts") && sources.length > 60, `${sources.length} sources`);
        assert.deepEqual(
          sources.filter((name) => FOREIGN.test(name)),
          [],
          adapter,
        );
        const text = outputFiles.map(({ text }) => text).join("\n");
        for (const [entry, mark] of Object.entries(MARKS)) assert.ok(!text.includes(mark), `${adapter}: ${mark} of ${entry}`);
      }
    });

    it("(which other entries have, chunks included)", async () => {
      for (const [entry, mark] of Object.entries(MARKS).slice(0, pick({ gate: 1, full: undefined }))) {
        const { metafile, outputFiles } = await build({
          ...options,
          entryPoints: [resolve("dist", entry)],
          platform: "node",
          external: ["*.wasm", "*.gguf"],
          outdir: "out",
        });
        assert.ok(
          outputFiles.some(({ text }) => text.includes(mark)),
          `${entry}: ${mark}`,
        );
        const sources = Object.keys(metafile.inputs).flatMap((name) => sourcesOf(basename(name)));
        assert.ok(
          sources.some((name) => FOREIGN.test(name)),
          entry,
        );
      }
    });

    it("and whole for its effect: it is kept, other entries that are imported for nothing are not", async () => {
      const names = ENTRIES.filter((name) => name !== "cli.js"); // which only runs
      const file = join(folder, "effects.js");
      writeFileSync(file, names.map((name) => `import ${JSON.stringify(resolve("dist", name))};\n`).join(""));
      const { metafile } = await build({ ...options, entryPoints: [file], outdir: join(folder, "out") });
      const [out] = Object.values(metafile.outputs).filter(({ entryPoint }) => basename(entryPoint ?? "") === "effects.js");
      const kept = Object.keys(out?.inputs ?? {}).map((name) => basename(name));
      assert.deepEqual(
        names.filter((name) => kept.includes(name)),
        ["whole.js"], // package.json's sideEffects: all that it names, and nothing else
      );
      const { sideEffects } = JSON.parse(readFileSync("package.json", "utf8")) as { sideEffects: string[] };
      assert.deepEqual(sideEffects, ["./dist/whole.js"]);
    });

    it("by Rollup", async () => {
      const path = resolve("tests", "bundlers", "node_modules", "rollup", "dist", "es", "rollup.js");
      if (!pick({ gate: false, full: true }) || !existsSync(path)) return;
      const { rollup } = (await import(pathToFileURL(path).href)) as Rollup;
      const bundle = await rollup({ input: entry, external: [/^@huggingface/], logLevel: "silent" });
      const { output } = await bundle.generate({ format: "es" });
      const names = output.flatMap(({ modules = {} }) => Object.keys(modules).filter((name) => (modules[name]?.renderedLength ?? 0) > 0));
      assert.ok(names.some((name) => basename(name) === "browser.js"));
      assert.deepEqual(
        names.filter((name) => ENTRIES.includes(basename(name))),
        [],
      );
    });
  });
});
