// lfm2-wasm, as a worker of the benchmarks.
import { load } from "lfm2-wasm";
import { greedy } from "../lib/stepper.mjs";
import { serve } from "./worker.mjs";

let model;

serve({
  async load({ path, threads, contextTokens, ...options }) {
    model = await load(path, { threads, maxContextTokens: contextTokens, prefixCacheBytes: 0, ...options });
    const { variant, threads: count, weightBytes, memoryBytes, kvBytesPerToken, dtypes, packedImage } = model.info;
    return { variant, threads: count, weightBytes, memoryBytes, kvBytesPerToken, dtypes, packedImage };
  },
  generator: (ids) => greedy(model, ids),
});
