// A prompt in pieces of a size: what the package's own option for it does not reach, since it has none.
import { readFile } from "node:fs/promises";
import { build } from "esbuild";

// no part of the package; Node 20 runs no TypeScript
const source = new URL("../../src/", import.meta.url).pathname;
const { outputFiles } = await build({
  stdin: {
    contents: `export { openPath } from "./adapters/node/files.ts";
export { openCheckpoint } from "./models/checkpoint.ts";
export { loadModel } from "./models/load-model.ts";`,
    resolveDir: source,
  },
  bundle: true,
  platform: "node",
  format: "esm",
  write: false,
});
const { openPath, openCheckpoint, loadModel } = await import(
  `data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`
);

const kernels = (variant) => readFile(new URL(`../../dist/kernels.${variant}.wasm`, import.meta.url));

/** @returns a model of one thread whose steps take up to `chunkTokens` rows */
export async function open(path, chunkTokens) {
  const checkpoint = await openCheckpoint(await openPath(path));
  try {
    return (await loadModel(checkpoint, kernels, { chunkTokens })).model;
  } finally {
    await checkpoint.close();
  }
}

/**
 * Computes `ids` from an empty cache, `chunkTokens` a step; the last step has the last row's logits.
 * @returns ms of all steps and of the slowest, and a copy of the logits
 */
export function prefill(model, ids, chunkTokens) {
  const cache = model.openCache();
  let [ms, slowestMs] = [0, 0];
  for (let at = 0; at < ids.length; at += chunkTokens) {
    const chunk = ids.slice(at, at + chunkTokens);
    const start = performance.now();
    model.step([{ cache, ids: chunk }], at + chunk.length === ids.length ? { logitsOf: [chunk.length - 1] } : {});
    const took = performance.now() - start;
    ms += took;
    slowestMs = Math.max(slowestMs, took);
  }
  const logits = model.logits(0).view().slice();
  cache.dispose();
  return { ms, slowestMs, logits };
}
