// What a checkpoint is once its headers have been read, and what both formats do to get there.
import type { TemplateText } from "../text/chat-template.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { opening } from "../weights/opened.ts";
import type { ByteSource } from "../weights/source.ts";
import type { StoredTensor, WeightFile } from "../weights/tensor.ts";
import type { Lfm2Config } from "./config.ts";

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
  readonly template: TemplateText | undefined;
  /** As a GGUF's metadata tell it. */
  readonly license?: string | undefined;
  /** The licence that the README beside it tells, of a checkpoint in a folder: one more file to read. */
  card?(signal?: AbortSignal): Promise<string | undefined>;
  /** generation_config.json, parsed. */
  readonly generationConfig: unknown;
  /** The files of weights: one, all parts of a split one, or all shards. */
  readonly sources: readonly ByteSource[];
  /** Proves the file of weights by its checksum, where it has one. @throws FormatError */
  verify(signal?: AbortSignal): Promise<void>;
  /** Releases the files. */
  close(): Promise<void>;
}

const W1 = /^model\.layers\.\d+\.feed_forward\.w1\.weight$/;

/** Rows of any w1: the config may leave the ffn size to them. */
export function ffnRows(tensors: ReadonlyMap<string, StoredTensor>): number | undefined {
  for (const [name, tensor] of tensors) if (W1.test(name)) return tensor.shape[0];
  return undefined;
}

/** A file that turns out to be no model is not held open. */
export function closedOnError<T>(source: ByteSource, use: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return opening((opened) => {
    opened.push(source);
    return use();
  }, signal);
}

/** `value` in a list if it is a text that says something. */
export const textOf = (value: unknown): string[] => (typeof value === "string" && value !== "" ? [value] : []);

export function templateOf(source: string, tokenizer: Tokenizer, config: Lfm2Config): TemplateText {
  const token = (id: number | undefined): string => (id === undefined ? "" : (tokenizer.idToToken(id) ?? ""));
  const tokens = { bosToken: token(config.bosTokenId), eosToken: token(config.eosTokenIds[0]) };
  return { source, tokens, addedTokens: tokenizer.addedTokens };
}
