// What is measured, as data: matrices of the published models, rows, contexts. A suite's options narrow it.

/** Products of a step, (N, K). The head's M is the rows whose logits are wanted. */
export const matrices = {
  "350m": [
    { name: "conv in", N: 3072, K: 1024 },
    { name: "out", N: 1024, K: 1024 },
    { name: "attention qkv", N: 2048, K: 1024 },
    { name: "ffn gate and up", N: 9216, K: 1024 },
    { name: "ffn down", N: 1024, K: 4608 },
    { name: "head", N: 65536, K: 1024, rows: [1] },
  ],
  "1.2b": [
    { name: "conv in", N: 6144, K: 2048 },
    { name: "out", N: 2048, K: 2048 },
    { name: "attention qkv", N: 3072, K: 2048 },
    { name: "ffn gate and up", N: 16384, K: 2048 },
    { name: "ffn down", N: 2048, K: 8192 },
    { name: "head", N: 65536, K: 2048, rows: [1] },
  ],
};

/** Rows of a product: tokens of a step. */
export const rows = [1, 2, 3, 4, 16, 128];
export const dtypes = ["q4", "q4k", "q6k", "q8", "bf16", "f16", "f32"];

/** Attention: query heads, kv heads, head dim; T new tokens, the last at position S-1. */
export const heads = { "350m": { H: 16, G: 8, hd: 64 }, "1.2b": { H: 32, G: 8, hd: 64 } };
export const attention = [
  { T: 1, S: 512 },
  { T: 1, S: 4096 },
  { T: 1, S: 32768 },
  { T: 128, S: 128 },
  { T: 128, S: 2048 },
  { T: 128, S: 4096 },
];
export const kvDtypes = ["f16", "f32", "q8"];

/** Everything else: hidden, ffn, vocabulary. */
export const widths = { "350m": { D: 1024, F: 4608, V: 65536 }, "1.2b": { D: 2048, F: 8192, V: 65536 } };

/** `generate`. */
export const prefills = [128, 512, 2048];
export const contexts = [0, 512, 4096];
/** Room for the steps that are measured behind it, in a model of 32,768. */
export const longContext = 32512;
/** Tokens that are computed for it; the rest of its pages repeat theirs. */
export const longBeginning = 1024;
export const generateDtypes = ["q4", "q8", "bf16"];
/** Rows of a prefill step. */
export const chunkTokens = [64, 128, 256, 512];
/**
 * Tokens/s of the prototypes' plain kernels, 350M int4, by threads: a whole step on random weights without tokenizer and sampler, decode behind some 70 tokens (KERNELS.md §8, a Zen 5 of 2
 * cores). The goal is a tenth more.
 */
export const plainPrototype = [
  { node: 20, tps: { 1: { "decode at 0": 64, "prefill 512": 70 }, 2: { "decode at 0": 115, "prefill 512": 161 } } },
  { node: 24, tps: { 1: { "decode at 0": 67, "prefill 512": 88 }, 2: { "decode at 0": 115, "prefill 512": 211 } } },
];
