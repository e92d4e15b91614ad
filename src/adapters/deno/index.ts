// The package in Deno, which has Node's modules and asks for permissions: none is needed but for what a caller names.
import { type CacheCalls, cacheCalls } from "../../cache-calls.ts";
import { type Inspection, type InspectOptions, inspectWith } from "../../inspect.ts";
import { type LoadOptions, loadWith, type ModelSource, type Platform } from "../../lfm2.ts";
import { useTurn } from "../../macrotask.ts";
import type { Model } from "../../model.ts";
import { nodePlatform } from "../node/platform.ts";

export * from "../../index.ts";

/** What is used of Deno's own. */
declare const Deno: {
  readonly permissions: {
    querySync(
      what: { readonly name: "env"; readonly variable: string } | { readonly name: "read" | "write"; readonly path: URL | string },
    ): {
      readonly state: string;
    };
  };
  readonly env: { get(name: string): string | undefined };
};

const platform = nodePlatform({
  runtime: "deno",
  // without asking: nobody should have to answer for a variable that he never heard of
  variable: (name) => (Deno.permissions.querySync({ name: "env", variable: name }).state === "granted" ? Deno.env.get(name) : undefined),
  mayUse: (folder) => (["read", "write"] as const).every((name) => Deno.permissions.querySync({ name, path: folder }).state === "granted"),
  otherwise: async (build) => (await import("./modules.ts")).modules[build]?.(),
});

/** A thread is a file that is started, which takes the permission to read it. */
function here(): Platform {
  const { state } = Deno.permissions.querySync({ name: "read", path: new URL(".", import.meta.url) });
  return state === "granted" ? platform : { ...platform, threads: undefined };
}

/** How long sockets may wait. */
const BREATH_MS = 4;
let lastBreath = 0;

/**
 * Deno looks at its sockets after every 61 turns, or when it has nothing to do (measured: an answer took 200 ms among steps of 1 ms). So now and then a
 * step is followed by a timer, which lets it have nothing to do for a millisecond.
 */
function denoTurn(): Promise<void> {
  const now = performance.now();
  const isDue = now - lastBreath > BREATH_MS;
  if (isDue) lastBreath = now;
  return new Promise((resolve) => void (isDue ? setTimeout(resolve, 0) : setImmediate(resolve)));
}

/** As in Node. */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  useTurn(denoTurn);
  return loadWith(here(), source, options);
}

/** As in Node. */
export function inspect(source: ModelSource, options?: InspectOptions): Promise<Inspection> {
  return inspectWith(platform, source, options);
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
