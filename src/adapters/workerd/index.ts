// The package in Cloudflare's workerd and what is like it: no files, no threads, and no bytes are compiled, so the kernels are imported as modules.

import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import { PlatformError, StorageError, UnsupportedError } from "../../errors.ts";
import { type LoadOptions, loadWith, type ModelSource, type Platform } from "../../lfm2.ts";
import { useTurn } from "../../macrotask.ts";
import type { Model } from "../../model.ts";
import { quoted } from "../../values.ts";
import { createHash } from "./hash.ts";
import plain from "./kernels.plain.wasm";
import relaxed from "./kernels.relaxed.wasm";

export * from "../../index.ts";

/**
 * Of the 128 MB that an isolate has, what is left for linear memory beside its objects and its program: with a vocabulary of 65,536 they take up to 40 MiB (docs/edge.md). Nothing
 * else guards it: locally there is no limit.
 */
const MEMORY_BUDGET_BYTES = 85_000_000;

/** Bytes of a file on their way: with the window of a load they stay below 8 MiB. */
const WINDOW_BYTES = 4 << 20;

/** A name without a scheme may still be a hub's id. */
function noFile(address: string): Error {
  const where = `load: expected an https: address, a hub's id org/name, bytes or an object that reads by ranges, got ${quoted(address)}`;
  if (!/^[a-z][a-z0-9+.-]+:/i.test(address)) return new StorageError(`${where}; there are no files here.`, { code: "not-found" });
  const instead = "Download it and pass its bytes, serve it by https:, or put it into a bucket and pass { bucket, key }.";
  if (/^file:/i.test(address)) return new PlatformError(`${where}; there are no files here. ${instead}`, { code: "no-files" });
  return new UnsupportedError(`${where}. ${instead}`, { code: "scheme" });
}

const platform: Platform = {
  runtime: "workerd",
  open: (source) => Promise.reject(noFile(String(source))),
  network: {
    fetch: (url, init) => fetch(url, init),
    hasBackpressure: true,
    windowBytes: WINDOW_BYTES,
    createHash,
  },
  kernels: (build) => Promise.resolve({ plain, relaxed, "plain-threads": undefined, "relaxed-threads": undefined }[build]),
  memoryBudgetBytes: MEMORY_BUDGET_BYTES,
};

/** A message comes here before the event loop's turn: timers, other requests and what a stream has sent would wait for the end of all work. */
const timerTurn = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 0));

/** As everywhere; one thread, no worker, and at most 85 MB unless `maxMemoryBytes` says otherwise. */
export async function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  if (options?.engine === "worker")
    throw new PlatformError(
      'engine: expected to start a worker, got: this runtime has no workers. Leave engine out, or pass engine: "here" to compute in this thread.',
      { code: "no-worker" },
    );
  useTurn(timerTurn);
  return loadWith(platform, source, options);
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
