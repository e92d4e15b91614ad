// What a checkpoint says about text, as it says it: for whoever writes it anew.
import { type GgufParts, readGgufParts } from "../weights/gguf-parts.ts";
import { closeAll } from "../weights/opened.ts";
import { type ByteSource, type Folder, isFolder } from "../weights/source.ts";
import type { Checkpoint } from "./checkpoint-common.ts";
import { folderTexts, noWeights, onlyGguf } from "./folder-checkpoint.ts";

/** What a checkpoint says about text and, in a GGUF, about itself, as it says it: for whoever writes it anew. */
export type Texts =
  | ({ readonly format: "gguf" } & Pick<GgufParts, "metadata" | "types">)
  | { readonly format: "safetensors"; readonly tokenizer: unknown; readonly template: string | undefined };

/** @param source of a checkpoint that `openCheckpoint` opened and found to be of that format */
export async function readTexts(source: ByteSource | Folder, format: Checkpoint["format"], signal?: AbortSignal): Promise<Texts> {
  if (!isFolder(source)) return ggufTexts(source, signal);
  if (format === "safetensors") return { format, ...(await folderTexts(source, signal)) };
  const file = await onlyGguf(source);
  if (!file) throw noWeights(source, false);
  try {
    return await ggufTexts(file, signal, (name) => source.open(name));
  } finally {
    await file.close?.();
  }
}

async function ggufTexts(source: ByteSource, signal?: AbortSignal, sibling?: ByteSource["sibling"]): Promise<Texts> {
  const { metadata, types, sources } = await readGgufParts(source, signal, sibling);
  await closeAll(sources.filter((part) => part !== source));
  return { format: "gguf", metadata, types };
}
