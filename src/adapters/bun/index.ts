// The package in Bun, which has Node's modules.
import process from "node:process";
import { type Inspection, type InspectOptions, inspectWith } from "../../inspect.ts";
import { type LoadOptions, loadWith, type ModelSource } from "../../lfm2.ts";
import type { Model } from "../../model.ts";
import { nodePlatform } from "../node/platform.ts";

export * from "../../index.ts";

const platform = nodePlatform({ runtime: "bun", variable: (name) => process.env[name] });

/** As in Node. */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model> {
  return loadWith(platform, source, options);
}

/** As in Node. */
export function inspect(source: ModelSource, options?: InspectOptions): Promise<Inspection> {
  return inspectWith(platform, source, options);
}
