// The package in Node: files by path or file: URL, kernels beside this module.
import { readFile } from "node:fs/promises";
import { type Inspection, inspectWith } from "../../inspect.ts";
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

const platform: Platform = {
  open: openPath,
  kernels: (build) => readFile(builds[build]),
  threads: threadsOf(new URL("./thread.js", import.meta.url)),
};

/**
 * Loads an LFM2 checkpoint.
 * @param source path or file: URL of a GGUF file or of a folder in Hugging Face's form; bytes of a GGUF; an object that reads by ranges
 * @throws InputError, FormatError, UnsupportedError, MemoryError, StorageError, PlatformError, AbortError
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
 * @throws InputError, FormatError, UnsupportedError, StorageError, AbortError
 */
export function inspect(source: ModelSource, options?: Pick<LoadOptions, "kvDtype" | "signal">): Promise<Inspection> {
  return inspectWith(platform, source, options);
}
