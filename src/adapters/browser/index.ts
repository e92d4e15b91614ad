// The package in browsers (page, worker, service worker, extension), and wherever nothing else is known. Its top level touches nothing that a page alone has.
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import { type Inspection, type InspectOptions, inspectWith } from "../../inspect.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { loadModelWith } from "../../remote/load.ts";
import { withBase, withBases } from "./files.ts";
import { platform } from "./platform.ts";
import { workers } from "./workers.ts";

export * from "../../index.ts";

/** As everywhere; in a page the engine lives in a worker. An address may be relative to the page: `"./model.gguf"`, `"/models/lfm2/"`. */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  return loadModelWith(platform, workers, withBase(source), withBases(options));
}

/** As everywhere. */
export function inspect(source: ModelSource, options?: InspectOptions): Promise<Inspection> {
  return inspectWith(platform, withBase(source), options);
}

const calls = cacheCalls(platform);
/** @see CacheCalls */
export const availability: CacheCalls["availability"] = calls.availability;
/** @see CacheCalls */
export const pull: CacheCalls["pull"] = calls.pull;
/** @see CacheCalls */
export const listModels: CacheCalls["listModels"] = calls.listModels;
/** @see CacheCalls */
export const removeModel: CacheCalls["removeModel"] = calls.removeModel;
