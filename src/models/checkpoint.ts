// Opens a checkpoint: what it is, its config, tensors, tokenizer and template, from a folder in Hugging Face's form or from one GGUF. Reads headers only, no weights.
import { FormatError, InputError } from "../errors.ts";
import { ChatTemplate } from "../text/chat-template.ts";
import { tokenizerFromGguf } from "../text/gguf-tokenizer.ts";
import { MAX_TEMPLATE_BYTES } from "../text/limits.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { isRecord } from "../values.ts";
import { decodeUtf8, parseJsonBytes } from "../weights/json-scan.ts";
import { licenseOf } from "../weights/license.ts";
import { MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES } from "../weights/limits.ts";
import { readSafetensors } from "../weights/safetensors.ts";
import {
  closeAll,
  type GgufParts,
  ggufPart,
  opening,
  readGgufParts,
  readShards,
  rightError,
  type ShardedWeights,
  verifyAll,
} from "../weights/shards.ts";
import { type ByteSource, commonMistake, type Folder, readExactly } from "../weights/source.ts";
import type { StoredTensor, WeightFile } from "../weights/tensor.ts";
import { checkModelType, type Lfm2Config, parseConfig } from "./config.ts";
import { checkArchitecture, checkRopeTensors, configFromGguf, hfNames } from "./names.ts";

/** A checkpoint whose headers have been read. */
export interface Checkpoint extends WeightFile {
  readonly format: "safetensors" | "gguf";
  /** What it calls itself, then the file's or folder's name; one at least. */
  readonly names: readonly string[];
  readonly config: Lfm2Config;
  /** By Hugging Face's names, as are the unsupported ones. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Undefined where the checkpoint has none: token ids work, text does not. */
  readonly tokenizer: Tokenizer | undefined;
  readonly template: ChatTemplate | undefined;
  /** As a GGUF's metadata tell it. */
  readonly license?: string | undefined;
  /** generation_config.json, parsed. */
  readonly generationConfig: unknown;
  /** Proves the file of weights by its checksum, where it has one. @throws FormatError */
  verify(signal?: AbortSignal): Promise<void>;
  /** Releases the files. */
  close(): Promise<void>;
}

function isFolder(source: ByteSource | Folder): source is Folder {
  return "open" in source && !("read" in source);
}

const EMBEDDING = "model.embed_tokens.weight";
const W1 = /^model\.layers\.\d+\.feed_forward\.w1\.weight$/;

/** Rows of any w1: the config may leave the ffn size to them. */
function ffnRows(tensors: ReadonlyMap<string, StoredTensor>): number | undefined {
  for (const [name, tensor] of tensors) if (W1.test(name)) return tensor.shape[0];
  return undefined;
}

/**
 * @param source a GGUF file (any part of a split one), a folder that holds one, or a folder with config.json, model.safetensors (or shards and their index) and tokenizer.json
 * @throws FormatError, UnsupportedError; AbortError when the signal fires
 */
export async function openCheckpoint(source: ByteSource | Folder, signal?: AbortSignal): Promise<Checkpoint> {
  if (isFolder(source)) return openFolder(source, signal);
  return closedOnError(source, () => openFile(source, signal), signal);
}

/** A file that turns out to be no model is not held open. */
function closedOnError<T>(source: ByteSource, use: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return opening((opened) => {
    opened.push(source);
    return use();
  }, signal);
}

async function openFile(source: ByteSource, signal?: AbortSignal, sibling?: ByteSource["sibling"]): Promise<Checkpoint> {
  const head = await readExactly(source, 0, Math.min(64, source.size), signal);
  const magic = new TextDecoder().decode(head.subarray(0, 4));
  if (magic !== "GGUF") {
    const got = commonMistake(head) ?? `one that begins with ${JSON.stringify(magic)}`;
    throw new FormatError(
      `${source.name}: expected a GGUF file, got ${got}. Pass a .gguf file, or the folder that holds config.json and model.safetensors.`,
    );
  }
  const file = await readGgufParts(source, signal, sibling);
  try {
    return gguf(source, file);
  } catch (error) {
    const others = file.sources.filter((part) => part !== source); // `source` is closed by whoever gave it
    const right = await rightError(error, others, signal);
    await closeAll(others).catch(() => {});
    throw right;
  }
}

function gguf(source: ByteSource, file: GgufParts): Checkpoint {
  const { metadata } = file;
  checkArchitecture(metadata);
  checkRopeTensors(file);
  const { tensors, unsupported, nameInFile } = hfNames(file);
  const kind = metadata.get("tokenizer.ggml.model");
  const text = kind === undefined || kind === "none" ? undefined : tokenizerFromGguf(metadata);
  const config = configFromGguf(metadata, text ?? {}, {
    intermediateSize: ffnRows(tensors),
    vocabSize: tensors.get(EMBEDDING)?.shape[0] ?? text?.tokenCount,
    tied: !tensors.has("lm_head.weight") && !unsupported.has("lm_head.weight"),
  });
  const tokenizer = text && Tokenizer.fromJson(text.tokenizer, { vocabularySize: config.vocabSize });
  return {
    format: "gguf",
    names: [...textOf(metadata.get("general.name")), source.name],
    config,
    tensors,
    unsupported,
    nameInFile,
    tokenizer,
    template: tokenizer && text?.chatTemplate !== undefined ? templateOf(text.chatTemplate, tokenizer, config) : undefined,
    generationConfig: undefined,
    license: licenseOf({ license: metadata.get("general.license"), name: metadata.get("general.license.name") }),
    verify: (signal) => verifyAll(file.sources, signal),
    close: () => closeAll(file.sources),
  };
}

/** `value` in a list if it is a text that says something. */
const textOf = (value: unknown): string[] => (typeof value === "string" && value !== "" ? [value] : []);

function templateOf(source: string, tokenizer: Tokenizer, config: Lfm2Config): ChatTemplate {
  const token = (id: number | undefined): string => (id === undefined ? "" : (tokenizer.idToToken(id) ?? ""));
  return new ChatTemplate(source, { bosToken: token(config.bosTokenId), eosToken: token(config.eosTokenIds[0]) }, tokenizer.addedTokens);
}

async function bytesOf(folder: Folder, path: string, maxBytes: number, signal?: AbortSignal): Promise<Uint8Array | undefined> {
  const source = await folder.open(path);
  if (!source) return undefined;
  try {
    if (source.size > maxBytes) {
      throw new FormatError(
        `${path}: expected at most ${maxBytes} bytes, the limit, got ${source.size}. Use the file that came with the weights.`,
      );
    }
    const bytes = await readExactly(source, 0, source.size, signal);
    await source.verify?.(signal);
    return bytes;
  } finally {
    await source.close?.();
  }
}

async function jsonOf(folder: Folder, path: string, signal?: AbortSignal, maxBytes = MAX_CONFIG_BYTES): Promise<unknown> {
  const bytes = await bytesOf(folder, path, maxBytes, signal);
  return bytes && parseJsonBytes(bytes, path, { maxBytes });
}

function field(json: unknown, key: string): unknown {
  return isRecord(json) && Object.hasOwn(json, key) ? json[key] : undefined;
}

async function openFolder(folder: Folder, signal?: AbortSignal): Promise<Checkpoint> {
  const json = await jsonOf(folder, "config.json", signal);
  if (json !== undefined) checkModelType(json);
  const weights = json === undefined ? undefined : await openWeights(folder, signal);
  if (!weights) {
    const source = await onlyGguf(folder);
    if (source) return closedOnError(source, () => openFile(source, signal, (name) => folder.open(name)), signal);
    throw noWeights(folder, json !== undefined);
  }
  try {
    return await hfCheckpoint(folder, json, weights, signal);
  } catch (error) {
    const right = await rightError(error, weights.sources, signal);
    await closeAll(weights.sources).catch(() => {}); // the first error is the one that helps
    throw right;
  }
}

/** model.safetensors, or the shards that an index lists. */
async function openWeights(folder: Folder, signal?: AbortSignal): Promise<ShardedWeights | undefined> {
  const one = await folder.open("model.safetensors");
  if (!one) return readShards(folder, signal);
  return closedOnError(one, async () => ({ ...(await readSafetensors(one, signal)), sources: [one] }), signal);
}

async function hfCheckpoint(folder: Folder, json: unknown, weights: ShardedWeights, signal?: AbortSignal): Promise<Checkpoint> {
  const { tensors, unsupported, sources } = weights;
  const config = parseConfig(json, { intermediateSize: ffnRows(tensors) });
  const tokenizerJson = await jsonOf(folder, "tokenizer.json", signal, MAX_TOKENIZER_BYTES);
  const tokenizer = tokenizerJson === undefined ? undefined : Tokenizer.fromJson(tokenizerJson, { vocabularySize: config.vocabSize });
  const source = tokenizer && (await chatTemplate(folder, signal));
  return {
    format: "safetensors",
    names: [...textOf(field(json, "_name_or_path")), folder.name],
    config,
    tensors,
    unsupported,
    tokenizer,
    template: tokenizer && source !== undefined ? templateOf(source, tokenizer, config) : undefined,
    generationConfig: await jsonOf(folder, "generation_config.json", signal),
    verify: (signal) => verifyAll(sources, signal),
    close: () => closeAll(sources),
  };
}

/** What a checkpoint says about text and, in a GGUF, about itself, as it says it: for whoever writes it anew. */
export type Texts =
  | ({ readonly format: "gguf" } & Pick<GgufParts, "metadata" | "types">)
  | { readonly format: "safetensors"; readonly tokenizer: unknown; readonly template: string | undefined };

/** @param source of a checkpoint that `openCheckpoint` opened and found to be of that format */
export async function readTexts(source: ByteSource | Folder, format: Checkpoint["format"], signal?: AbortSignal): Promise<Texts> {
  if (!isFolder(source)) return ggufTexts(source, signal);
  if (format === "safetensors") {
    const tokenizer = await jsonOf(source, "tokenizer.json", signal, MAX_TOKENIZER_BYTES);
    return { format, tokenizer, template: tokenizer === undefined ? undefined : await chatTemplate(source, signal) };
  }
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

/** The folder's only GGUF; of a split one the first part. A picture encoder beside the model (mmproj) does not count. */
async function onlyGguf(folder: Folder): Promise<ByteSource | undefined> {
  const names = ((await folder.list?.()) ?? []).filter((name) => /\.gguf$/i.test(name) && !/^mmproj/i.test(name));
  const models = names.filter((name) => (ggufPart(name)?.part ?? 1) === 1).sort();
  const [name, ...others] = models;
  if (name === undefined) return undefined;
  if (others.length)
    throw new InputError(
      `${folder.name}: expected one .gguf file, got ${models.length}: ${models.slice(0, 6).join(", ")}. Pass the path of the one to load.`,
      { code: "several-models" },
    );
  return folder.open(name);
}

function noWeights(folder: Folder, hasConfig: boolean): Error {
  const got = hasConfig ? "a config.json alone" : "none";
  return new FormatError(
    `${folder.name}: expected a config.json with a model.safetensors or its shards, or one .gguf file, got ${got}. Download the checkpoint again.`,
    { code: "missing-file" },
  );
}

/** chat_template.jinja, or the template inside tokenizer_config.json (a text, or a list in which "default" counts). */
async function chatTemplate(folder: Folder, signal?: AbortSignal): Promise<string | undefined> {
  const file = await bytesOf(folder, "chat_template.jinja", MAX_TEMPLATE_BYTES, signal);
  if (file !== undefined) return decodeUtf8(file, "chat_template.jinja");
  const value = field(await jsonOf(folder, "tokenizer_config.json", signal), "chat_template");
  if (typeof value === "string") return value;
  const named = Array.isArray(value) ? value.find((t) => field(t, "name") === "default") : undefined;
  const template = field(named, "template");
  return typeof template === "string" ? template : undefined;
}
