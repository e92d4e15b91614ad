// load(): here, or in a worker that an adapter starts. What only a worker needs comes when it is needed.
import { PlatformError } from "../errors.ts";
import { checkLoadOptions, type LoadOptions, loadWith, type ModelSource, type Platform } from "../lfm2.ts";
import type { Model } from "../model.ts";
import type { EngineWorkers } from "./workers.ts";

/** The worker never answered. */
class NoStart extends PlatformError {}

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
  checkLoadOptions(options);
  const { engine = "auto" } = options;
  if (engine === "here" || (engine === "auto" && !workers?.isDefault)) return loadWith(platform, source, options);
  if (!workers) throw cannotStart(new Error("this runtime has no workers"));
  const { loadInWorker } = await import("./in-worker.ts");
  try {
    return await loadInWorker(workers, source, options, cannotStart);
  } catch (error) {
    if (engine === "worker" || !(error instanceof NoStart)) throw error; // else a worker is only the better place
    return loadWith(platform, source, options);
  }
}

function cannotStart(cause: unknown): PlatformError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new NoStart(`engine: expected to start a worker, got: ${reason}. Pass engine: "here" to compute in this thread.`, {
    code: "no-worker",
    cause,
  });
}
