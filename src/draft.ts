// A smaller model beside a larger one: loaded by the same means, and only with the same tokens, for its guesses are ids.
import type { Opened } from "./from-network.ts";
import type { KernelSource } from "./kernels/variants.ts";
import { type Checkpoint, openCheckpoint } from "./models/checkpoint.ts";
import type { LanguageModel } from "./models/language-model.ts";
import { type LoadModelOptions, loadModel } from "./models/load-model.ts";
import { checkSameTokens } from "./models/same-tokens.ts";
import { rightError } from "./weights/opened.ts";

/** A model that guesses for another. */
export interface DraftModel {
  readonly model: LanguageModel;
  readonly name: string;
  /** Of its tensors, as stored. */
  readonly bytes: number;
  readonly warnings: readonly (string | undefined)[];
}

/**
 * @param target that it is to guess for
 * @param optionsFor how a checkpoint is loaded, for so long contexts
 * @throws UnsupportedError when its tokens are others; else as `loadModel`
 */
export async function loadDraft(
  { source, hub, warning, unproved }: Opened,
  target: Checkpoint,
  kernels: KernelSource,
  { maxContextTokens, signal }: { readonly maxContextTokens?: number | undefined; readonly signal?: AbortSignal | undefined },
  optionsFor: (checkpoint: Checkpoint, maxContextTokens: number | undefined) => Promise<LoadModelOptions>,
): Promise<DraftModel> {
  const checkpoint = await openCheckpoint(source, signal);
  const { config, names, sources, tensors } = checkpoint;
  let model: LanguageModel | undefined;
  try {
    checkSameTokens(checkpoint, target);
    const most = maxContextTokens && Math.min(maxContextTokens, config.maxPositionEmbeddings);
    const loaded = await loadModel(checkpoint, kernels, await optionsFor(checkpoint, most));
    model = loaded.model;
    await checkpoint.verify(signal);
    await hub?.keep();
    const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes, 0);
    return { model, name: names[0] ?? "", bytes, warnings: [warning, unproved?.(sources)] };
  } catch (error) {
    model?.dispose();
    throw await rightError(error, sources, signal);
  } finally {
    await checkpoint.close().catch(() => {}); // all has been read, or a better error is on its way
  }
}
