// load(): here, or in a worker that an adapter starts. What only a worker needs comes when it is needed.

import { PlatformError } from "../errors.ts";
import { checkLoadCall, type LoadOptions, loadParts, loadWith, type ModelSource, type Platform, readHere } from "../lfm2.ts";
import { Model } from "../model.ts";
import { part } from "../part.ts";
import type { EngineWorkers } from "./workers.ts";

/** The worker never answered. */
class NoStart extends PlatformError {
  readonly reason: string;

  constructor(cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(`engine: expected to start a worker, got: ${reason}. Pass engine: "here" to compute in this thread.`, {
      code: "no-worker",
      cause,
    });
    this.reason = reason;
  }
}

/**
 * Loads a checkpoint where `options.engine` says.
 * @throws as `loadWith`; PlatformError `"no-worker"` when a worker is asked for and cannot start, `"worker-ended"` when it ends before the model is loaded
 */
export async function loadModelWith(
  platform: Platform,
  workers: EngineWorkers | undefined,
  source: ModelSource,
  options: LoadOptions = {},
): Promise<Model> {
  checkLoadCall(options);
  const { engine = "auto" } = options;
  if (engine === "here" || (engine === "auto" && !workers?.isDefault)) return loadWith(platform, source, options);
  if (!workers) throw new NoStart(new Error("this runtime has no workers"));
  const { loadInWorker } = await part("in-worker", () => import("./in-worker.ts"));
  try {
    return await loadInWorker(workers, source, options, (cause) => new NoStart(cause));
  } catch (error) {
    if (engine === "worker" || !(error instanceof NoStart)) throw error; // else a worker is only the better place
    const parts = await loadParts(platform, source, options, readHere);
    const warning = `engine: it computes on this thread, for no worker started: ${error.reason}.`;
    return new Model({ ...parts, info: { ...parts.info, warnings: [...parts.info.warnings, warning] } });
  }
}
