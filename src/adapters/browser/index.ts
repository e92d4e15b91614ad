// The package in browsers (page, worker, service worker, extension), and wherever nothing else is known. Its top level touches nothing that a page alone has.
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import { type Inspection, type InspectOptions, inspectWith } from "../../inspect.ts";
import { kernelSource } from "../../kernels/delivery.ts";
import type { KernelBuild } from "../../kernels/variants.ts";
import { type LoadOptions, loadWith, type ModelSource, type Platform } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { createHash } from "../../weights/hash.ts";
import { fetchWasm, openAddress, withBase } from "./files.ts";

export * from "../../index.ts";

/** Beside this module, each named as a whole, so that bundlers see the files; not before they are asked for, for not everywhere a module has an address. */
const builds: Readonly<Record<KernelBuild, URL>> = {
  get plain() {
    return new URL("./kernels.plain.wasm", import.meta.url);
  },
  get relaxed() {
    return new URL("./kernels.relaxed.wasm", import.meta.url);
  },
  get "plain-threads"() {
    return new URL("./kernels.plain-threads.wasm", import.meta.url);
  },
  get "relaxed-threads"() {
    return new URL("./kernels.relaxed-threads.wasm", import.meta.url);
  },
};

const platform: Platform = {
  runtime: "browser",
  open: openAddress,
  network: {
    // the browser's own cache would lock an address for one range at a time, and keep every byte once more
    fetch: (url, init) => fetch(url, { ...init, cache: "no-store" } as RequestInit),
    createHash,
    isCrossOrigin: true,
  },
  store: async (dir) => (await import("./store.ts")).browserStore(dir),
  images: async (dir) => (await import("./images.ts")).browserImages(dir),
  kernels: kernelSource(builds, fetchWasm),
  fetchWasm,
};

/** As everywhere. An address may be relative to the page: `"./model.gguf"`, `"/models/lfm2/"`. */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  return loadWith(platform, withBase(source), options);
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
