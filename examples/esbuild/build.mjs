// esbuild leaves new URL("./file", import.meta.url) alone, so the files that the package names so go beside the bundle.
import { cpSync, readdirSync } from "node:fs";
import { build } from "esbuild";

await build({ entryPoints: ["main.js", "single.js"], outdir: "out", bundle: true, format: "esm", minify: true });

const dist = new URL(".", import.meta.resolve("lfm2-wasm"));
for (const name of readdirSync(dist)) if (/\.(wasm|gguf|browser\.js)$/.test(name)) cpSync(new URL(name, dist), `out/${name}`);
for (const page of ["index.html", "single.html"]) cpSync(page, `out/${page}`);
