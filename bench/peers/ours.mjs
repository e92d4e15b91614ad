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
  /**
   * Aborts a load.
   * @param afterMs when, from its start
   * @returns ms from that moment to its error, whatever kept the thread busy between; undefined where the load was over before
   */
  async abort({ path, threads, afterMs, ...options }) {
    const control = new AbortController();
    const start = performance.now();
    const timer = setTimeout(() => control.abort(), afterMs);
    try {
      (await load(path, { threads, signal: control.signal, ...options })).dispose();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      return { lateMs: performance.now() - start - afterMs };
    } finally {
      clearTimeout(timer);
    }
    return {};
  },
  generator: (ids) => greedy(model, ids),
});
