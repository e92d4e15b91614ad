// What a browser gives to the core, in a page and in workers: the network, a store, kernels beside this module, threads where memory can be shared.

import { kernelSource } from "../../kernels/delivery.ts";
import type { ThreadSource } from "../../kernels/threads.ts";
import type { KernelBuild } from "../../kernels/variants.ts";
import type { Platform } from "../../lfm2.ts";
import { part } from "../../part.ts";
import { createHash } from "../../weights/hash.ts";
import type { NetworkPlatform } from "../../weights/remote.ts";
import { fetchWasm } from "./files.ts";
import { noThreads } from "./threads.ts";

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

/** @param threads for where memory can be shared @param startsThem whether this thread does so itself @param sharing where several loads may run in one thread */
export const browserPlatform = (threads: ThreadSource, startsThem: boolean, sharing?: NetworkPlatform["sharing"]): Platform => ({
  runtime: "browser",
  open: async (source) => (await part("browser-schemes", () => import("./schemes.ts"))).openAddress(source),
  network: {
    // the browser's own cache would lock an address for one range at a time, and keep every byte once more
    fetch: (url, init) => fetch(url, { ...init, cache: "no-store" } as RequestInit),
    createHash,
    isCrossOrigin: true,
    sharing,
  },
  store: async (dir) => (await part("browser-store", () => import("./store.ts"))).browserStore(dir),
  images: async (dir) => (await part("browser-images", () => import("./images.ts"))).browserImages(dir),
  kernels: kernelSource(builds, fetchWasm),
  fetchWasm,
  get threads() {
    return noThreads(startsThem) === undefined ? threads : undefined;
  },
  get workerThreads() {
    return noThreads(false) === undefined ? threads : undefined;
  },
  get noThreads() {
    return noThreads(startsThem);
  },
});
