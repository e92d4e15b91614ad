// Tensors that lie in several files: safetensors shards with their index. Must not know models nor runtimes.
import { FormatError } from "../errors.ts";
import { isRecord, kindOf, quoted } from "../values.ts";
import { parseJsonBytes } from "./json-scan.ts";
import { MAX_INDEX_BYTES, MAX_SHARDS, MAX_TENSORS } from "./limits.ts";
import { duplicate, missing, opening, type ShardedWeights } from "./opened.ts";
import { readSafetensors } from "./safetensors.ts";
import { type ByteSource, type Folder, isPlainPath, readExactly } from "./source.ts";
import type { StoredTensor, WeightFile } from "./tensor.ts";

/** The name of a shard index. */
export const INDEX_NAME = "model.safetensors.index.json";

/** Tensor name → the file that holds it, as the index says. */
function readIndex(bytes: Uint8Array): Map<string, string> {
  const json = parseJsonBytes(bytes, INDEX_NAME, { maxBytes: MAX_INDEX_BYTES });
  const map = isRecord(json) && Object.hasOwn(json, "weight_map") ? json.weight_map : undefined;
  if (!isRecord(map)) {
    const got = map === undefined ? "none" : kindOf(map);
    throw new FormatError(`${INDEX_NAME}: expected "weight_map" to be an object of file names, got ${got}. Download the index again.`);
  }
  const entries = Object.entries(map);
  if (entries.length > MAX_TENSORS) {
    throw new FormatError(
      `${INDEX_NAME}: expected at most ${MAX_TENSORS} tensors, the limit, got ${entries.length}. This is no LFM2 model.`,
    );
  }
  return new Map(entries.map(([tensor, shard]) => [tensor, shardName(tensor, shard)]));
}

function shardName(tensor: string, shard: unknown): string {
  const at = `${INDEX_NAME}: weight_map: ${quoted(tensor)}`;
  if (typeof shard !== "string") throw new FormatError(`${at}: expected a shard's name, got ${kindOf(shard)}. Download the index again.`);
  if (isPlainPath(shard)) return shard;
  throw new FormatError(
    `${at}: expected the name of a shard in the same folder (letters, digits, ".", "_", "-", single "/"), got ${quoted(shard)}. Do not trust this checkpoint.`,
  );
}

/**
 * Reads the headers of a checkpoint in safetensors shards.
 * @param folder - holds the index and, in it or below it, the shards
 * @returns the tensors of all shards by name, as the index lists them; undefined when there is no index
 * @throws FormatError naming the index, or the shard's file
 */
export async function readShards(folder: Folder, signal?: AbortSignal): Promise<ShardedWeights | undefined> {
  const indexSource = await folder.open(INDEX_NAME);
  if (!indexSource) return undefined;
  const places = readIndex(await indexBytes(indexSource, signal));
  const names = [...new Set(places.values())];
  if (names.length > MAX_SHARDS)
    throw new FormatError(`${INDEX_NAME}: expected at most ${MAX_SHARDS} shards, the limit, got ${names.length}. This is no LFM2 model.`);
  return opening(async (opened) => {
    const files = new Map<string, WeightFile>();
    for (const name of names) {
      const source = await folder.open(name);
      if (!source) throw missing(name, `${INDEX_NAME} lists it`);
      opened.push(source);
      files.set(name, await readSafetensors(source, signal));
    }
    return { ...listed(places, files), sources: opened };
  }, signal);
}

async function indexBytes(source: ByteSource, signal: AbortSignal | undefined): Promise<Uint8Array> {
  try {
    if (source.size > MAX_INDEX_BYTES)
      throw new FormatError(`${INDEX_NAME}: expected at most ${MAX_INDEX_BYTES} bytes, the limit, got ${source.size}. This is no index.`);
    const bytes = await readExactly(source, 0, source.size, signal);
    await source.verify?.(signal);
    return bytes;
  } finally {
    await source.close?.();
  }
}

/** The tensors that the index lists, each from the file that it names. Two files with one tensor contradict each other, whatever the index says. */
function listed(places: ReadonlyMap<string, string>, files: ReadonlyMap<string, WeightFile>): WeightFile {
  const owners = new Map<string, string>();
  for (const [file, { tensors, unsupported }] of files) {
    for (const name of [...tensors.keys(), ...unsupported.keys()]) {
      const other = owners.get(name);
      if (other !== undefined) throw duplicate(file, name, other);
      owners.set(name, file);
    }
  }
  const tensors = new Map<string, StoredTensor>();
  const unsupported = new Map<string, string>();
  for (const [name, file] of places) {
    const owner = owners.get(name);
    if (owner !== file) {
      const got = owner === undefined ? "none" : `it in ${owner}`;
      throw new FormatError(
        `${file}: expected tensor ${quoted(name)}, which ${INDEX_NAME} puts here, got ${got}. Download the whole checkpoint.`,
      );
    }
    const tensor = files.get(file)?.tensors.get(name);
    const sentence = files.get(file)?.unsupported.get(name);
    if (tensor) tensors.set(name, tensor);
    if (sentence !== undefined) unsupported.set(name, sentence);
  }
  return { tensors, unsupported };
}
