// Opens a checkpoint: what it is, its config, tensors, tokenizer and template, from a folder in Hugging Face's form or from one GGUF. Reads headers only, no weights.
import { part } from "../part.ts";
import { type ByteSource, type Folder, isFolder } from "../weights/source.ts";
import { type Checkpoint, closedOnError } from "./checkpoint-common.ts";
import { openFile } from "./checkpoint-file.ts";

export type { Checkpoint } from "./checkpoint-common.ts";

/**
 * @param source a GGUF file (any part of a split one), a folder that holds one, or a folder with config.json, model.safetensors (or shards and their index) and tokenizer.json
 * @throws FormatError, UnsupportedError; AbortError when the signal fires
 */
export async function openCheckpoint(source: ByteSource | Folder, signal?: AbortSignal): Promise<Checkpoint> {
  if (isFolder(source)) return (await part("folder", () => import("./folder-checkpoint.ts"))).openFolder(source, signal);
  return closedOnError(source, () => openFile(source, signal), signal);
}
