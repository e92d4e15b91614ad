// Rollup leaves new URL("./file", import.meta.url) alone, so the files that the package names so go beside the bundle.
import { cpSync, readdirSync } from "node:fs";
import { nodeResolve } from "@rollup/plugin-node-resolve";

const copy = {
  name: "copy",
  writeBundle() {
    const dist = new URL(".", import.meta.resolve("lfm2-wasm"));
    for (const name of readdirSync(dist)) if (/\.(wasm|gguf|browser\.js)$/.test(name)) cpSync(new URL(name, dist), `out/${name}`);
    cpSync("index.html", "out/index.html");
  },
};

export default {
  input: "main.js",
  output: { dir: "out", format: "es" },
  plugins: [nodeResolve({ browser: true }), copy],
};
