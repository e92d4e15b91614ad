// What a path or a file: URL names: a file or a folder. Node, Deno and Bun share it.
import { stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { UnsupportedError } from "../../errors.ts";
import { type ByteSource, type Folder, isFolderFile } from "../../weights/source.ts";
import { cannotOpen, folder, openFile } from "./file-source.ts";

/**
 * @param source a path, or a file: URL
 * @returns the file; the folder, also for the path of model.safetensors, of a shard or of the shards' index in it
 * @throws StorageError when nothing is there or it cannot be read; UnsupportedError for a URL of another kind
 */
export async function openPath(source: string | URL): Promise<ByteSource | Folder> {
  const text = String(source);
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme !== undefined && scheme !== "file") {
    throw new UnsupportedError(
      `load: expected a path, a file: URL or an https: address, got ${JSON.stringify(text)}. Download the file and pass its path.`,
      {
        code: "scheme",
      },
    );
  }
  const path = scheme === "file" ? fileURLToPath(text) : text;
  try {
    if ((await stat(path)).isDirectory()) return folder(path);
    if (isFolderFile(basename(path))) return folder(dirname(path));
    if (!path.endsWith(".safetensors")) return await openFile(path);
  } catch (cause) {
    throw cannotOpen(path, cause);
  }
  throw new UnsupportedError(
    `load: expected a folder, model.safetensors in it or a GGUF file, got ${JSON.stringify(basename(path))}. A file of another name cannot be loaded alone: pass the folder.`,
  );
}
