// A checkpoint in a folder in Hugging Face's form: config.json, safetensors in one file or shards, tokenizer.json, a template. A folder may also hold a GGUF.
import { AbortError, FormatError, InputError, Lfm2Error } from "../errors.ts";
import { MAX_TEMPLATE_BYTES } from "../text/limits.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { isRecord } from "../values.ts";
import { ggufPart } from "../weights/gguf-name.ts";
import { decodeUtf8, parseJsonBytes } from "../weights/json-scan.ts";
import { licenseOfCard } from "../weights/license.ts";
import { MAX_CARD_BYTES, MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES } from "../weights/limits.ts";
import { closeAll, rightError, type ShardedWeights, verifyAll } from "../weights/opened.ts";
import { readSafetensors } from "../weights/safetensors.ts";
import { readShards } from "../weights/shards.ts";
import { type ByteSource, type Folder, readExactly } from "../weights/source.ts";
import { type Checkpoint, closedOnError, ffnRows, templateOf, textOf } from "./checkpoint-common.ts";
import { openFile } from "./checkpoint-file.ts";
import { checkModelType, parseConfig } from "./config.ts";

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

/** What the model's card says, where it lies in the folder and can be had: a model is none the worse without. */
async function licenseIn(folder: Folder, signal?: AbortSignal): Promise<string | undefined> {
  let card: ByteSource | undefined;
  try {
    card = await folder.open("README.md");
    if (!card) return undefined;
    const bytes = await readExactly(card, 0, Math.min(card.size, MAX_CARD_BYTES), signal);
    if (bytes.length === card.size) await card.verify?.(signal);
    return licenseOfCard(new TextDecoder().decode(bytes));
  } catch (error) {
    if (error instanceof Lfm2Error && !(error instanceof AbortError)) return undefined;
    throw error;
  } finally {
    await card?.close?.().catch(() => {});
  }
}

/** @throws FormatError, UnsupportedError, InputError */
export async function openFolder(folder: Folder, signal?: AbortSignal): Promise<Checkpoint> {
  return { ...(await openWithin(folder, signal)), card: (signal) => licenseIn(folder, signal) };
}

async function openWithin(folder: Folder, signal?: AbortSignal): Promise<Checkpoint> {
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
    sources,
    verify: (signal) => verifyAll(sources, signal),
    close: () => closeAll(sources),
  };
}

/** The folder's only GGUF; of a split one the first part. A picture encoder beside the model (mmproj) does not count. */
export async function onlyGguf(folder: Folder): Promise<ByteSource | undefined> {
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

export function noWeights(folder: Folder, hasConfig: boolean): Error {
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

/** @returns tokenizer.json, and the template, as they are */
export async function folderTexts(
  folder: Folder,
  signal?: AbortSignal,
): Promise<{ readonly tokenizer: unknown; readonly template: string | undefined }> {
  const tokenizer = await jsonOf(folder, "tokenizer.json", signal, MAX_TOKENIZER_BYTES);
  return { tokenizer, template: tokenizer === undefined ? undefined : await chatTemplate(folder, signal) };
}
