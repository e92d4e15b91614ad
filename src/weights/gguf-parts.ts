// A GGUF in one file or in the parts of a split one. Must not know models nor runtimes.
import { FormatError, UnsupportedError } from "../errors.ts";
import { quoted } from "../values.ts";
import { type GgufFile, readGguf } from "./gguf.ts";
import { ggufPart } from "./gguf-name.ts";
import { MAX_SHARDS } from "./limits.ts";
import { duplicate, missing, opening, type ShardedWeights } from "./opened.ts";
import type { ByteSource } from "./source.ts";
import type { WeightFile } from "./tensor.ts";

/** A GGUF in one or several files; version and metadata are those of the first. */
export interface GgufParts extends GgufFile, ShardedWeights {}

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
