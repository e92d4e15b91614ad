// The package in Deno, which has Node's modules and asks for permissions: none is needed but for what a caller names.
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";
import { useTurn } from "../../macrotask.ts";
import type { Model } from "../../model.ts";
import { loadModelWith } from "../../remote/load.ts";
import { workersOf } from "../node/workers.ts";
import { denoTurn, here, platform } from "./platform.ts";

export * from "../../index.ts";

const workers = workersOf(new URL("./worker.deno.js", import.meta.url), "deno");

/** As in Node. */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  useTurn(denoTurn);
  return loadModelWith(here(), workers, source, options);
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
