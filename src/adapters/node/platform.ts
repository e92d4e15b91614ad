// What Node, Deno and Bun have in common: files, threads and hashes by node: modules, models on the network by fetch, kernels beside this module.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { compileWasm, type FetchWasm, kernelSource, type WasmInput } from "../../kernels/delivery.ts";
import type { KernelBuild } from "../../kernels/variants.ts";
import type { Platform, Runtime } from "../../lfm2.ts";
import { openPath } from "./files.ts";
import { cacheFolder, ownFolder, tokenPath, type Variable } from "./folders.ts";
import { threadsOf } from "./threads.ts";

/** Beside this module, each named as a whole, so that bundlers see the files. */
const builds: Readonly<Record<KernelBuild, URL>> = {
  plain: new URL("./kernels.plain.wasm", import.meta.url),
  relaxed: new URL("./kernels.relaxed.wasm", import.meta.url),
  "plain-threads": new URL("./kernels.plain-threads.wasm", import.meta.url),
  "relaxed-threads": new URL("./kernels.relaxed-threads.wasm", import.meta.url),
};

/** Files by URL or path, what lies elsewhere by fetch. */
export const fetchWasm: FetchWasm = (address) => {
  const text = String(address);
  if (/^file:/i.test(text)) return readFile(fileURLToPath(text));
  return /^[a-z][a-z0-9+.-]+:/i.test(text) ? fetch(text) : readFile(text);
};

/** What differs between the three. */
export interface NodeLike {
  readonly runtime: Runtime;
  readonly variable: Variable;
  /** Whether files in a folder may be read and written without asking. */
  readonly mayUse?: (folder: string) => boolean;
  /** Whether a file may be read without asking. */
  readonly mayRead?: (path: string) => boolean;
  /** Why a path may not be looked at without asking. */
  readonly unreadable?: Platform["unreadable"];
  /** Another way to a build whose file may not be read. */
  readonly otherwise?: (build: KernelBuild) => Promise<WasmInput | undefined>;
}

export function nodePlatform({ runtime, variable, mayUse = () => true, mayRead = () => true, unreadable, otherwise }: NodeLike): Platform {
  const beside = kernelSource(builds, fetchWasm);
  return {
    runtime,
    open: openPath,
    unreadable,
    network: {
      fetch: async (url, init) => (runtime === "node" ? (await import("./ranges.ts")).fetchRanges(url, init) : fetch(url, init)),
      hasBackpressure: true,
      sharing: () => import("../../weights/shared-source.ts"),
      createHash: (algorithm) => {
        const hash = createHash(algorithm);
        return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") };
      },
      get endpoint() {
        return variable("HF_ENDPOINT")?.trim() || undefined;
      },
      token: async () => (await import("./token.ts")).tokenOf(variable, () => tokenPath(variable), mayRead),
      get isOffline() {
        return /^(?:1|true|yes|on)$/i.test(variable("HF_HUB_OFFLINE")?.trim() ?? "");
      },
    },
    store: async (dir, kind) => {
      const folder = kind === "addresses" ? ownFolder(kind, dir, variable) : (dir ?? cacheFolder(variable));
      return folder !== undefined && mayUse(folder) ? (await import("./store.ts")).diskStore(folder) : undefined;
    },
    images: async (dir) => {
      const folder = ownFolder("packed", dir, variable);
      return folder !== undefined && mayUse(folder) ? (await import("./images.ts")).diskImages(folder) : undefined;
    },
    kernels: async (build) => {
      try {
        return await beside(build);
      } catch (error) {
        const input = await otherwise?.(build).catch(() => undefined); // the first error says more
        if (input === undefined) throw error;
        return compileWasm(input, fetchWasm);
      }
    },
    fetchWasm,
    threads: threadsOf(new URL("./thread.js", import.meta.url)),
  };
}
