// lfm2-wasm/inline: the package with the kernels within it, for where files beside a module are awkward: bundles in one file, programs in one file. One thread.
import {
  type Availability,
  availability as availabilityBeside,
  type Inspection,
  inspect as inspectBeside,
  type LoadOptions,
  load as loadBeside,
  type Model,
  type ModelSource,
} from "lfm2-wasm";

export * from "lfm2-wasm";

/** Put in by the build: each build gzipped, base64. */
declare const LFM2_KERNELS: { readonly plain: string; readonly relaxed: string };

async function unpack(text: string): Promise<ArrayBuffer> {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

let unpacked: Promise<{ readonly plain: ArrayBuffer; readonly relaxed: ArrayBuffer }> | undefined;

/** What is no options object is for the package to refuse. */
async function withKernels<O extends LoadOptions>(options: O | undefined): Promise<O | undefined> {
  if (options !== undefined && (typeof options !== "object" || options === null || options.wasm !== undefined)) return options;
  unpacked ??= Promise.all([unpack(LFM2_KERNELS.plain), unpack(LFM2_KERNELS.relaxed)]).then(([plain, relaxed]) => ({ plain, relaxed }));
  return { ...options, wasm: await unpacked } as O;
}

/** `load` of `lfm2-wasm`, with the kernels within. */
export async function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  return loadBeside(source, await withKernels(options));
}

/** `inspect` of `lfm2-wasm`, with the kernels within. */
export async function inspect(source: ModelSource, options?: Parameters<typeof inspectBeside>[1]): Promise<Inspection> {
  return inspectBeside(source, await withKernels(options));
}

/** `availability` of `lfm2-wasm`, with the kernels within. */
export async function availability(source: ModelSource, options?: LoadOptions): Promise<Availability> {
  return availabilityBeside(source, await withKernels(options));
}
