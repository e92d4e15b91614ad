// The package in browsers (page, worker, service worker, extension), and wherever nothing else is known. Its top level touches nothing that a page alone has.
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { part } from "../../part.ts";
import { loadModelWith } from "../../remote/load.ts";
import { withBase, withBases } from "./files.ts";
import { browserPlatform } from "./platform.ts";
import { threads } from "./threads.ts";
import { workers } from "./workers.ts";

export * from "../../index.ts";

const platform = browserPlatform(threads, true, () => part("shared-source", () => import("../../weights/shared-source.ts")));

/** As everywhere; in a page the engine lives in a worker. An address may be relative to the page: `"./model.gguf"`, `"/models/lfm2/"`. */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  return loadModelWith(platform, workers, withBase(source), withBases(options));
}

// an address may be relative to the page in these, too
const calls = cacheCalls(platform);
/** @see CacheCalls */
export const inspect: CacheCalls["inspect"] = (source, options) => calls.inspect(withBase(source), options);
/** @see CacheCalls */
export const availability: CacheCalls["availability"] = (source, options) => calls.availability(withBase(source), withBases(options));
/** @see CacheCalls */
export const pull: CacheCalls["pull"] = (id, options) => calls.pull(String(withBase(id)), withBases(options));
/** @see CacheCalls */
export const listModels: CacheCalls["listModels"] = calls.listModels;
/** @see CacheCalls */
export const removeModel: CacheCalls["removeModel"] = calls.removeModel;
