// The package in Bun, which has Node's modules.
import process from "node:process";
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { loadModelWith } from "../../remote/load.ts";
import { nodePlatform } from "../node/platform.ts";
import { workersOf } from "../node/workers.ts";

export * from "../../index.ts";

const workers = workersOf(new URL("./worker.js", import.meta.url), "bun");
const platform = nodePlatform({ runtime: "bun", variable: (name) => process.env[name] });

/** As in Node. */
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
