// webpack finds what new URL("./file", import.meta.url) names and copies it.
import { cpSync } from "node:fs";
import webpack from "webpack";

const compiler = webpack({
  mode: "production",
  entry: "./main.js",
  output: { filename: "main.js", path: `${import.meta.dirname}/out`, module: true },
  experiments: { outputModule: true },
  performance: { hints: false }, // the model is larger than webpack likes a page to be
});
compiler.run((error, stats) => {
  if (error || stats.hasErrors() || stats.hasWarnings()) {
    console.error(error ?? stats.toString());
    process.exitCode = 1;
  }
});
cpSync("index.html", "out/index.html");
