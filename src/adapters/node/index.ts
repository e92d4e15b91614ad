// The package in Node.
import process from "node:process";
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { loadModelWith } from "../../remote/load.ts";
import { nodePlatform } from "./platform.ts";
import { workersOf } from "./workers.ts";

export * from "../../index.ts";

const workers = workersOf(new URL("./worker.js", import.meta.url), "node");
const platform = nodePlatform({ runtime: "node", variable: (name) => process.env[name] });

/**
 * Loads an LFM2 checkpoint.
 * @param source path, file: URL or https: address of a GGUF file or of a folder in Hugging Face's form; a hub's id `org/name[@revision][:file or type]`, for
 * example `LiquidAI/LFM2-350M` or `LiquidAI/LFM2-350M-GGUF:Q8_0`; bytes of a GGUF; an object that reads by ranges
 * @throws InputError, FormatError, UnsupportedError, MemoryError, NetworkError, StorageError, PlatformError, AbortError
 * @example
 * import { load } from "lfm2-wasm";
 * import { mini } from "lfm2-wasm/mini";
 * const model = await load(mini);
 * for await (const text of model.stream("Tell me a story about a fox.").textStream) process.stdout.write(text);
 */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  return loadModelWith(platform, workers, source, options);
}

const calls = cacheCalls(platform);
/** @see CacheCalls */
export const inspect: CacheCalls["inspect"] = calls.inspect;
/** @see CacheCalls */
export const availability: CacheCalls["availability"] = calls.availability;
/** @see CacheCalls */
export const pull: CacheCalls["pull"] = calls.pull;
/** @see CacheCalls */
export const listModels: CacheCalls["listModels"] = calls.listModels;
/** @see CacheCalls */
export const removeModel: CacheCalls["removeModel"] = calls.removeModel;
