// The package in Node: files by path or file: URL, models on the network through fetch, kernels beside this module.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type Inspection, type InspectOptions, inspectWith } from "../../inspect.ts";
import type { KernelBuild } from "../../kernels/variants.ts";
import { type LoadOptions, loadWith, type ModelSource, type Platform } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { openPath } from "./files.ts";
import { threadsOf } from "./threads.ts";

export * from "../../index.ts";

/** Beside this module, each named as a whole, so that bundlers see the files. */
const builds: Readonly<Record<KernelBuild, URL>> = {
  plain: new URL("./kernels.plain.wasm", import.meta.url),
  relaxed: new URL("./kernels.relaxed.wasm", import.meta.url),
  "plain-threads": new URL("./kernels.plain-threads.wasm", import.meta.url),
  "relaxed-threads": new URL("./kernels.relaxed-threads.wasm", import.meta.url),
};

/** A variable that says something. */
const variable = (name: string): string | undefined => process.env[name]?.trim() || undefined;

const platform: Platform = {
  open: openPath,
  network: {
    fetch: (url, init) => fetch(url, init),
    createHash: (algorithm) => {
      const hash = createHash(algorithm);
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") };
    },
    get endpoint() {
      return variable("HF_ENDPOINT");
    },
    get token() {
      return variable("HF_TOKEN");
    },
  },
  kernels: (build) => readFile(builds[build]),
  threads: threadsOf(new URL("./thread.js", import.meta.url)),
};

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
  return loadWith(platform, source, options);
}

/**
 * Reads what a checkpoint is from its headers: config, tensors, and the memory that each dtype and context would take.
 * @param source as for `load`
 * @throws InputError, FormatError, UnsupportedError, NetworkError, StorageError, AbortError
 */
export function inspect(source: ModelSource, options?: InspectOptions): Promise<Inspection> {
  return inspectWith(platform, source, options);
}
