// Tensors that lie in several files: safetensors shards with their index, and the parts of a split GGUF. Must not know models nor runtimes.
import { AbortError, FormatError, UnsupportedError } from "../errors.ts";
import { isRecord, kindOf, quoted } from "../values.ts";
import { type GgufFile, readGguf } from "./gguf.ts";
import { parseJsonBytes } from "./json-scan.ts";
import { MAX_INDEX_BYTES, MAX_PROOF_BYTES, MAX_SHARDS, MAX_TENSORS } from "./limits.ts";
import { readSafetensors } from "./safetensors.ts";
import { type ByteSource, type Folder, isPlainPath, readExactly } from "./source.ts";
import type { StoredTensor, WeightFile } from "./tensor.ts";

/** The name of a shard index. */
export const INDEX_NAME = "model.safetensors.index.json";

/** What several files hold together, and what holds them open. */
export interface ShardedWeights extends WeightFile {
  readonly sources: readonly ByteSource[];
}

/** Closes every source; the first failure is thrown after all have been closed. */
export async function closeAll(sources: readonly ByteSource[]): Promise<void> {
  const ends = await Promise.allSettled(sources.map(async (source) => source.close?.()));
  const failed = ends.find((end) => end.status === "rejected");
  if (failed) throw failed.reason;
}

/** Proves every source by its checksum, where it has one. @throws FormatError */
export async function verifyAll(sources: readonly ByteSource[], signal?: AbortSignal): Promise<void> {
  for (const source of sources) await source.verify?.(signal);
}

/**
 * What is wrong with bytes that a parser refused: where they came damaged, that, whatever the parser took them for. A file of up to `MAX_PROOF_BYTES` is
 * brought to its end for that; of a larger one the parser's word stands, and a load hears it twice, of bytes that were fetched twice.
 * @returns the checksum's FormatError, with `error` as its cause; AbortError; else `error`
 */
export async function rightError(error: unknown, sources: readonly ByteSource[], signal: AbortSignal | undefined): Promise<unknown> {
  const isRefusal =
    error instanceof UnsupportedError || (error instanceof FormatError && !["checksum", "missing-file"].includes(error.code));
  if (!isRefusal) return error;
  for (const source of sources) {
    if (source.size > MAX_PROOF_BYTES) continue;
    try {
      await source.verify?.(signal);
    } catch (proof) {
      if (proof instanceof AbortError) return proof;
      if (proof instanceof FormatError) return new FormatError(proof.message, { code: proof.code, cause: error });
    }
  }
  return error;
}

/** Runs `use` with a list for what it opens, which is closed when it fails. @throws what `rightError` makes of the failure */
export async function opening<T>(use: (opened: ByteSource[]) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const opened: ByteSource[] = [];
  try {
    return await use(opened);
  } catch (error) {
    const right = await rightError(error, opened, signal);
    await closeAll(opened).catch(() => {}); // the first error is the one that helps
    throw right;
  }
}

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

function missing(name: string, why: string): FormatError {
  return new FormatError(`${name}: expected this file, for ${why}, got none. Download the whole checkpoint.`, { code: "missing-file" });
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

function duplicate(file: string, tensor: string, other: string): FormatError {
  return new FormatError(
    `${file}: tensor ${quoted(tensor)}: expected every tensor once, got a duplicate of the one in ${other}. Download the whole checkpoint.`,
  );
}

/** A GGUF in one or several files; version and metadata are those of the first. */
export interface GgufParts extends GgufFile, ShardedWeights {}

/** What a part of a split GGUF is called: `model-00001-of-00003.gguf`. */
const PART_NAME = /^(?:.*[/\\])?([^/\\]+)-(\d{5})-of-(\d{5})\.gguf$/s;

/** @returns whether a file name is that of a part of a split GGUF, and which (from 1) */
export function ggufPart(name: string): { stem: string; part: number; parts: number } | undefined {
  const [, stem, part, parts] = PART_NAME.exec(name) ?? [];
  return stem === undefined ? undefined : { stem, part: Number(part), parts: Number(parts) };
}

/**
 * Reads the header of a GGUF; of a split one, given any of its parts, the headers of all.
 * @param source - the file. What is opened beside it is closed on failure; `source` itself is the caller's until this returns.
 * @param sibling - opens a file beside it; `source.sibling` unless given
 * @throws FormatError naming the part; UnsupportedError where the others cannot be reached
 */
export async function readGgufParts(
  source: ByteSource,
  signal?: AbortSignal,
  sibling: ByteSource["sibling"] = source.sibling?.bind(source),
): Promise<GgufParts> {
  const given = await readGguf(source, signal);
  const count = splitCount(given, source.name);
  if (count === 1) return { ...given, sources: [source] };
  const names = partNames(source.name, count);
  if (!sibling) throw cannotJoin(source.name, count, "one of them alone");
  return opening(async (opened) => {
    const parts: { file: GgufFile; source: ByteSource }[] = [];
    for (const [i, name] of names.entries()) {
      let part = { file: given, source };
      if (name !== undefined) {
        const other = await sibling(name);
        if (!other) throw missing(name, `${quoted(source.name)} is a part of the same model`);
        opened.push(other);
        part = { file: await readGguf(other, signal), source: other };
      }
      checkPart(part.file, part.source.name, i, count);
      parts.push(part);
    }
    const joined = joinParts(parts);
    checkTensorCount(joined, parts);
    return { ...parts[0]!.file, ...joined, sources: parts.map((part) => part.source) };
  }, signal);
}

/** A key of the split, a whole number of at least `least`. */
function splitNumber({ metadata }: GgufFile, key: string, least: number, file: string): number {
  const value = metadata.get(key);
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= least) return value;
  throw new FormatError(
    `${file}: ${quoted(key)}: expected a whole number of at least ${least}, got ${value === undefined ? "none" : quoted(String(value))}. The file is damaged.`,
  );
}

function splitCount(file: GgufFile, name: string): number {
  if (!file.metadata.has("split.count")) return 1;
  const count = splitNumber(file, "split.count", 0, name);
  if (count > MAX_SHARDS) throw new FormatError(`${name}: "split.count": expected at most ${MAX_SHARDS}, the limit, got ${count}.`);
  return Math.max(1, count); // a whole file may say 0
}

/** Names of all parts in order, undefined for the one that is there. */
function partNames(name: string, count: number): (string | undefined)[] {
  const place = ggufPart(name);
  if (!place || place.parts !== count || place.part < 1 || place.part > count) throw cannotJoin(name, count, "one of another name");
  return Array.from({ length: count }, (_, i) =>
    i + 1 === place.part ? undefined : `${place.stem}-${five(i + 1)}-of-${five(count)}.gguf`,
  );
}

function cannotJoin(name: string, count: number, got: string): UnsupportedError {
  return new UnsupportedError(
    `${name}: expected the ${count} files of a split GGUF side by side, called NAME-00001-of-${five(count)}.gguf and so on, got ${got}. Pass the path of one that lies beside the others, or merge them with llama.cpp's gguf-split.`,
    { code: "split" },
  );
}

const five = (n: number): string => String(n).padStart(5, "0");

function checkPart(file: GgufFile, name: string, index: number, count: number): void {
  const parts = splitNumber(file, "split.count", 1, name);
  const part = splitNumber(file, "split.no", 0, name);
  if (parts === count && part === index) return;
  throw new FormatError(
    `${name}: expected "split.no" ${index} and "split.count" ${count}, as its name says, got ${part} and ${parts}. The files belong to different models.`,
  );
}

function joinParts(parts: readonly { file: GgufFile; source: ByteSource }[]): WeightFile {
  const owners = new Map<string, string>();
  for (const { file, source } of parts) {
    for (const name of [...file.tensors.keys(), ...file.unsupported.keys()]) {
      const other = owners.get(name);
      if (other !== undefined) throw duplicate(source.name, name, other);
      owners.set(name, source.name);
    }
  }
  return {
    tensors: new Map(parts.flatMap(({ file }) => [...file.tensors])),
    unsupported: new Map(parts.flatMap(({ file }) => [...file.unsupported])),
  };
}

function checkTensorCount({ tensors, unsupported }: WeightFile, parts: readonly { file: GgufFile; source: ByteSource }[]): void {
  const count = tensors.size + unsupported.size;
  for (const { file, source } of parts) {
    const claimed = splitNumber(file, "split.tensors.count", 0, source.name);
    if (claimed === count) continue;
    throw new FormatError(
      `${source.name}: "split.tensors.count": expected ${count}, the tensors of all ${parts.length} files, got ${claimed}. The files belong to different models.`,
    );
  }
}
