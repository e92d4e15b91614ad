// The metadata of a GGUF that is written: a model's shape, tokenizer and template in llama.cpp's keys. Knows no weights.
import { UnsupportedError } from "../errors.ts";
import type { DType } from "../memory/dtype.ts";
import type { Lfm2Config } from "../models/config.ts";
import { checkTokenizer } from "../text/tokenizer-json.ts";
import { GGUF_TYPE, type GgufEntry } from "../weights/gguf-writer.ts";

/** What llama.cpp calls a file whose matrices are mostly of this type. */
const FILE_TYPES: Readonly<Partial<Record<DType, number>>> = { q4: 2, q8: 7 };

const u32 = (key: string, value: number): GgufEntry => [key, GGUF_TYPE.u32, value];
const f32 = (key: string, value: number): GgufEntry => [key, GGUF_TYPE.f32, value];
const text = (key: string, value: string): GgufEntry => [key, GGUF_TYPE.string, value];
const bool = (key: string, value: boolean): GgufEntry => [key, GGUF_TYPE.bool, value];

/** What the quantizer itself decides. */
export function quantizationEntries(dtype: DType): GgufEntry[] {
  return [u32("general.file_type", FILE_TYPES[dtype] ?? 0), u32("general.quantization_version", 2)];
}

/**
 * @returns the keys of a config, as `configFromGguf` reads them
 * @throws UnsupportedError for what the format has no place for
 */
export function configEntries(c: Lfm2Config, name: string): GgufEntry[] {
  if (c.convBias)
    throw new UnsupportedError(
      'quantize: expected a model without "conv_bias", got one with it: GGUF has no place for it. Load it with a dtype instead.',
    );
  const heads = c.layerTypes.map((type) => (type === "conv" ? 0 : c.numKeyValueHeads));
  const entries = [
    text("general.architecture", "lfm2"),
    text("general.type", "model"),
    text("general.name", name),
    u32("lfm2.block_count", c.numHiddenLayers),
    u32("lfm2.context_length", c.maxPositionEmbeddings),
    u32("lfm2.embedding_length", c.hiddenSize),
    u32("lfm2.feed_forward_length", c.intermediateSize),
    u32("lfm2.attention.head_count", c.numAttentionHeads),
    ["lfm2.attention.head_count_kv", GGUF_TYPE.i32, heads] as const,
    f32("lfm2.attention.layer_norm_rms_epsilon", c.normEps),
    f32("lfm2.rope.freq_base", c.ropeTheta),
    u32("lfm2.vocab_size", c.vocabSize),
    u32("lfm2.shortconv.l_cache", c.convLCache),
  ];
  if (c.headDim * c.numAttentionHeads !== c.hiddenSize)
    entries.push(u32("lfm2.attention.key_length", c.headDim), u32("lfm2.attention.value_length", c.headDim));
  return entries;
}

/** Token types of GGUF. */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

/**
 * @param json a parsed tokenizer.json
 * @returns the keys from which `tokenizerFromGguf` makes the same tokenizer
 * @throws FormatError, UnsupportedError as when it is loaded
 */
export function tokenizerEntries(json: unknown, c: Lfm2Config): GgufEntry[] {
  const checked = checkTokenizer(json, c.vocabSize);
  const tokens = Array.from({ length: c.vocabSize }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(c.vocabSize).fill(UNUSED);
  for (const [token, id] of checked.vocabulary) [tokens[id], types[id]] = [token, NORMAL];
  for (const { id, content, special } of checked.addedTokens) [tokens[id], types[id]] = [content, special ? CONTROL : USER_DEFINED];
  const [bos] = checked.prefixIds;
  const [eos] = checked.suffixIds;
  return [
    text("tokenizer.ggml.model", "gpt2"),
    text("tokenizer.ggml.pre", "lfm2"),
    ["tokenizer.ggml.tokens", GGUF_TYPE.string, tokens],
    ["tokenizer.ggml.token_type", GGUF_TYPE.i32, types],
    ["tokenizer.ggml.merges", GGUF_TYPE.string, checked.merges.map((pair) => pair.join(" "))],
    ...ids(c, bos, eos),
    bool("tokenizer.ggml.add_bos_token", bos !== undefined),
    bool("tokenizer.ggml.add_eos_token", eos !== undefined),
  ];
}

/** Ids of the marks: what the tokenizer puts around a text, else what the config says. */
function ids(c: Lfm2Config, bos: number | undefined, eos: number | undefined): GgufEntry[] {
  const [first, second] = c.eosTokenIds;
  return [
    ["bos", bos ?? c.bosTokenId] as const,
    ["eos", eos ?? first] as const,
    ["eot", second] as const,
    ["padding", c.padTokenId] as const,
  ].flatMap(([name, id]) => (id === undefined ? [] : [u32(`tokenizer.ggml.${name}_token_id`, id)]));
}

/** @returns the key of a chat template, or none */
export const templateEntries = (source: string | undefined): GgufEntry[] =>
  source === undefined ? [] : [text("tokenizer.chat_template", source)];
