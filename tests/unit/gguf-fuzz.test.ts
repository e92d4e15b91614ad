// Whole GGUF files under mutation, as a load meets them: header, tokenizer, config and template at once. A file ends with one of our errors, or is a checkpoint that can be used.
import assert from "node:assert/strict";
import { type Checkpoint, openCheckpoint } from "../../src/models/checkpoint.ts";
import { MAX_LAYERS } from "../../src/models/config.ts";
import { BYTE_ALPHABET } from "../../src/text/byte-level.ts";
import { ChatTemplate } from "../../src/text/chat-template.ts";
import { bytesSource } from "../../src/weights/source.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";
import { array, f32, ggufBytes, type Key, string, T, type TensorInfo, u32 } from "./gguf-file.ts";

const [NORMAL, CONTROL, USER_DEFINED, UNUSED] = [1, 3, 4, 5];
const MARKS = ["<|pad|>", "<|startoftext|>", "<|im_end|>"];
const TOKENS = [...MARKS, "<think>", ...BYTE_ALPHABET, "th", "the", "[PAD262]"];
const TYPES = TOKENS.map((token, i) => (MARKS.includes(token) ? CONTROL : i === 3 ? USER_DEFINED : i === 262 ? UNUSED : NORMAL));
const TEMPLATE = "{{ bos_token }}{% for m in messages %}<think>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}";
const [V, D, F, HEADS, KV_HEADS, HEAD, TAPS] = [TOKENS.length, 32, 32, 2, 1, 16, 3];

const text = (key: string, value: string): Key => [key, T.string, string(value)];
const count = (key: string, value: number): Key => [key, T.u32, u32(value)];
const number = (key: string, value: number): Key => [key, T.f32, f32(value)];
const texts = (key: string, values: readonly string[]): Key => [key, T.array, array(T.string, values.length, ...values.map(string))];
const ints = (key: string, values: readonly number[]): Key => [key, T.array, array(T.i32, values.length, ...values.map(u32))];

const tokenizer: readonly Key[] = [
  text("tokenizer.ggml.model", "gpt2"),
  text("tokenizer.ggml.pre", "lfm2"),
  texts("tokenizer.ggml.tokens", TOKENS),
  ints("tokenizer.ggml.token_type", TYPES),
  texts("tokenizer.ggml.merges", ["t h", "th e"]),
  count("tokenizer.ggml.bos_token_id", 1),
  count("tokenizer.ggml.eos_token_id", 2),
  ["tokenizer.ggml.add_bos_token", T.bool, Uint8Array.of(1)],
  text("tokenizer.chat_template", TEMPLATE),
];
const shape: readonly Key[] = [
  text("general.architecture", "lfm2"),
  count("lfm2.block_count", 2),
  count("lfm2.embedding_length", D),
  ints("lfm2.attention.head_count_kv", [0, KV_HEADS]),
];
/** With the seeds that have failed once. */
const KINDS: readonly (readonly [what: string, finalNorm: string, keys: readonly Key[], seeds: readonly number[]])[] = [
  [
    "one dialect",
    "token_embd_norm.weight",
    [...shape, count("lfm2.attention.head_count", HEADS), count("lfm2.vocab_size", V), number("lfm2.rope.freq_base", 1e6), ...tokenizer],
    [17_771], // a byte's token marked as a control token: users could not write it
  ],
  [
    "the other",
    "output_norm.weight",
    [
      ...tokenizer,
      ...shape,
      ints("lfm2.attention.head_count", [HEADS, HEADS]),
      count("lfm2.attention.key_length", HEAD),
      count("lfm2.context_length", 1024),
      text("lfm2.rope.scaling.type", "yarn"),
      number("lfm2.rope.scaling.factor", 2),
      count("lfm2.rope.scaling.original_context_length", 512),
      count("general.alignment", 32),
      count("tokenizer.ggml.eot_token_id", 2),
      count("tokenizer.ggml.padding_token_id", 0),
      text("general.license", "other"),
    ],
    [],
  ],
];

const [F32, F16, Q8_0] = [0, 1, 8];
const tensor = (name: string, type: number, ...dims: number[]): TensorInfo => {
  const values = dims.reduce((a, b) => a * b, 1);
  return { name, dims, type, bytes: type === F32 ? 4 * values : type === F16 ? 2 * values : (values / 32) * 34 };
};
const block = (i: number): TensorInfo[] => [
  tensor(`blk.${i}.attn_norm.weight`, F32, D),
  tensor(`blk.${i}.ffn_norm.weight`, F32, D),
  tensor(`blk.${i}.ffn_gate.weight`, Q8_0, D, F),
  tensor(`blk.${i}.ffn_down.weight`, Q8_0, F, D),
  tensor(`blk.${i}.ffn_up.weight`, Q8_0, D, F),
];
const tensors = (finalNorm: string): TensorInfo[] => [
  tensor("token_embd.weight", Q8_0, D, V),
  tensor(finalNorm, F32, D),
  ...block(0),
  tensor("blk.0.shortconv.in_proj.weight", F16, D, 3 * D),
  tensor("blk.0.shortconv.conv.weight", F32, TAPS, D),
  tensor("blk.0.shortconv.out_proj.weight", F16, D, D),
  ...block(1),
  tensor("blk.1.attn_q.weight", F16, D, HEADS * HEAD),
  tensor("blk.1.attn_k.weight", F16, D, KV_HEADS * HEAD),
  tensor("blk.1.attn_v.weight", F16, D, KV_HEADS * HEAD),
  tensor("blk.1.attn_output.weight", F16, HEADS * HEAD, D),
  tensor("blk.1.attn_q_norm.weight", F32, HEAD),
  tensor("blk.1.attn_k_norm.weight", F32, HEAD),
];

const SAID = "the <|im_end|> théâtre";

function check({ config, tensors, unsupported, tokenizer, template }: Checkpoint, file: Uint8Array): void {
  const sizes = [config.hiddenSize, config.intermediateSize, config.numAttentionHeads, config.numKeyValueHeads, config.headDim];
  assert.ok([...sizes, config.vocabSize].every((n) => Number.isSafeInteger(n) && n >= 1));
  assert.equal(config.layerTypes.length, config.numHiddenLayers);
  assert.ok(config.numHiddenLayers <= MAX_LAYERS);
  for (const { offsetBytes, bytes } of tensors.values()) assert.ok(offsetBytes >= 24 && offsetBytes + bytes <= file.length);
  assert.equal(BigInt(tensors.size + unsupported.size), new DataView(file.buffer).getBigUint64(8, true), "none is lost by its name");
  if (!tokenizer) return;
  assert.ok(config.eosTokenIds.every((id) => id < tokenizer.vocabularySize));
  const ids = tokenizer.encode(SAID);
  assert.ok(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.vocabularySize));
  assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), SAID);
  const rendered = template && ChatTemplate.of(template).render([{ role: "user", content: SAID }], { addGenerationPrompt: true });
  if (rendered) assert.ok(tokenizer.encodeSegments(rendered).every((id) => id >= 0 && id < tokenizer.vocabularySize));
}

describe("a whole GGUF under mutation", () => {
  for (const [what, finalNorm, keys, seeds] of KINDS)
    it(`ends with one of our errors, or is a checkpoint that can be used: ${what}`, async () => {
      const list = tensors(finalNorm);
      const { bytes, dataStart } = ggufBytes({
        ...{ magic: "GGUF", version: u32(3), alignment: 32, tail: 0, cut: 0 },
        ...{ keys: [...keys], tensors: list },
      });
      const open = (file: Uint8Array): Promise<Checkpoint> => openCheckpoint(bytesSource(file, "m.gguf"));
      const clean = Object.getOwnPropertyNames(Object.prototype);
      check(await open(bytes), bytes);
      const seen = await fuzz(bytes, dataStart, pick({ gate: 1500, full: 1_000_000 }), open, check, { seeds });
      assert.deepEqual(Object.getOwnPropertyNames(Object.prototype), clean);
      assert.ok(seen.accepted > 20 && seen.refused > 500, JSON.stringify(seen));
    });
});
