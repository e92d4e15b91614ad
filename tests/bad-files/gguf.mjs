// Wrong GGUF files.
import { arr, concat, DIM, GGML, gg, ggufFile, ggufParts, kv, setKv, T, tensor, u32, u64, utf8, validSafetensors } from "./valid.mjs";
import { F, LFS, OK, U } from "./words.mjs";

const G = (change) => () => gg(change);
export const GGUF = [
  ["gg-empty-file", F, "magic|GGUF|empty", "0 bytes", () => new Uint8Array(0)],
  [
    "gg-magic",
    F,
    "magic|GGUF",
    "magic GGUX",
    G((p) => {
      p.magic = "GGUX";
    }),
  ],
  [
    "gg-magic-reversed",
    F,
    "magic|GGUF",
    "magic FUGG",
    G((p) => {
      p.magic = "FUGG";
    }),
  ],
  ["gg-git-lfs-pointer", F, "LFS|pointer|magic", "a Git LFS pointer", () => utf8(LFS)],
  ["gg-is-safetensors", F, "magic|GGUF", "a safetensors file under the name .gguf", () => validSafetensors()],
  [
    "gg-version-0",
    F,
    "version",
    "version 0",
    G((p) => {
      p.version = 0;
    }),
  ],
  [
    "gg-version-1",
    U,
    "version",
    "version 1 (32-bit lengths)",
    G((p) => {
      p.version = 1;
    }),
  ],
  [
    "gg-version-2",
    OK,
    "",
    "version 2: same layout as 3",
    G((p) => {
      p.version = 2;
    }),
  ],
  [
    "gg-version-99",
    U,
    "version",
    "version 99",
    G((p) => {
      p.version = 99;
    }),
  ],
  [
    "gg-big-endian",
    U,
    "endian|version",
    "version written big-endian",
    G((p) => {
      p.versionBytes = Uint8Array.of(0, 0, 0, 3);
    }),
  ],
  [
    "gg-n-tensors-2p63",
    F,
    "tensor",
    "tensor count 2^63",
    G((p) => {
      p.nTensors = 2n ** 63n;
    }),
  ],
  [
    "gg-n-tensors-2p64",
    F,
    "tensor",
    "tensor count 2^64 - 1",
    G((p) => {
      p.nTensors = -1n;
    }),
  ],
  [
    "gg-n-tensors-2p32",
    F,
    "tensor",
    "tensor count 2^32 + the right one",
    G((p) => {
      p.nTensors = 2n ** 32n + BigInt(p.tensors.length);
    }),
  ],
  [
    "gg-n-tensors-million",
    F,
    "tensor",
    "tensor count 1,000,000 in a short file: nothing may be allocated by it",
    G((p) => {
      p.nTensors = 1_000_000;
    }),
  ],
  [
    "gg-n-tensors-one-more",
    F,
    "tensor",
    "one more tensor than there is",
    G((p) => {
      p.nTensors = p.tensors.length + 1;
    }),
  ],
  [
    "gg-n-tensors-one-less",
    F,
    "tensor|missing|trailing|offset",
    "one tensor less than there is",
    G((p) => {
      p.nTensors = p.tensors.length - 1;
    }),
  ],
  [
    "gg-n-tensors-zero",
    F,
    "tensor|missing|token_embd",
    "no tensor",
    G((p) => {
      p.tensors = [];
    }),
  ],
  [
    "gg-n-kv-2p64",
    F,
    "metadata|key|kv",
    "key count 2^64 - 1",
    G((p) => {
      p.nKv = -1n;
    }),
  ],
  [
    "gg-n-kv-million",
    F,
    "metadata|key|kv",
    "key count 1,000,000",
    G((p) => {
      p.nKv = 1_000_000;
    }),
  ],
  [
    "gg-n-kv-one-less",
    F,
    "",
    "one key less than there is: tensor infos begin inside the metadata",
    G((p) => {
      p.nKv = p.kv.length - 1;
    }),
  ],
  [
    "gg-n-kv-zero",
    F,
    "",
    "no keys",
    G((p) => {
      p.kv = [];
    }),
  ],
  [
    "gg-key-length-2p64",
    F,
    "key|string|length",
    "key length 2^64 - 1",
    G((p) => {
      p.kv[1][3] = { keyLength: -1n };
    }),
  ],
  [
    "gg-key-length-2p53",
    F,
    "key|string|length",
    "key length 2^53 + 1",
    G((p) => {
      p.kv[1][3] = { keyLength: 2n ** 53n + 1n };
    }),
  ],
  [
    "gg-key-empty",
    F,
    "key",
    "an empty key",
    G((p) => {
      p.kv[1][0] = "";
    }),
  ],
  [
    "gg-key-duplicate",
    F,
    "duplicate|general.name|general.architecture",
    "general.architecture twice: lfm2, then llama",
    G((p) => {
      p.kv.push(["general.architecture", T.str, "llama"]);
    }),
  ],
  [
    "gg-key-invalid-utf8",
    F,
    "key|UTF-8",
    "byte 0xff in a key",
    G((p) => {
      p.kv[1][0] = Uint8Array.of(0x61, 0xff, 0x62);
    }),
  ],
  [
    "gg-key-70000-bytes",
    F,
    "key|length",
    "a key of 70,000 bytes; the format allows 65,535",
    G((p) => {
      p.kv[1][0] = "k".repeat(70000);
    }),
  ],
  [
    "gg-key-proto",
    OK,
    "",
    "a key called __proto__",
    G((p) => {
      p.kv.push(["__proto__", T.str, "polluted"]);
    }),
  ],
  [
    "gg-value-type-13",
    F,
    "type|general.name",
    "value type 13",
    G((p) => {
      p.kv[1][3] = { type: 13 };
    }),
  ],
  [
    "gg-value-type-2p32",
    F,
    "type|general.name",
    "value type 2^32 - 1",
    G((p) => {
      p.kv[1][3] = { type: 0xffffffff };
    }),
  ],
  [
    "gg-string-over-file",
    F,
    "general.name|string|length",
    "string length beyond the file",
    G((p) => {
      p.kv[1][2] = concat(u64(2 ** 40), "tiny");
    }),
  ],
  [
    "gg-string-2p63",
    F,
    "general.name|string|length",
    "string length 2^63",
    G((p) => {
      p.kv[1][2] = concat(u64(2n ** 63n), "tiny");
    }),
  ],
  [
    "gg-string-invalid-utf8",
    F,
    "general.architecture|UTF-8",
    "architecture with byte 0xff",
    G((p) => {
      p.kv[0][2] = Uint8Array.from([...u64(4), 0x6c, 0x66, 0xff, 0x32]);
    }),
  ],
  [
    "gg-bool-2",
    F,
    "add_bos_token|bool",
    "a bool byte of 2",
    G((p) => {
      setKv(p, "tokenizer.ggml.add_bos_token", 2);
    }),
  ],
  [
    "gg-array-of-arrays",
    F,
    "array|nest",
    "an array of arrays",
    G((p) => {
      p.kv.push(["x", T.arr, arr(T.arr, [concat(u32(T.u8), u64(1), Uint8Array.of(1))])]);
    }),
  ],
  [
    "gg-array-nested-100000",
    F,
    "array|nest",
    "arrays nested 100,000 deep: no recursion by the file's will",
    G((p) => {
      p.kv.push(["x", T.arr, concat(...Array.from({ length: 100000 }, () => concat(u32(T.arr), u64(1))), u32(T.u8), u64(0))]);
    }),
  ],
  [
    "gg-array-length-2p64",
    F,
    "tokens|array|length",
    "array length 2^64 - 1",
    G((p) => {
      kv(p, "tokenizer.ggml.tokens")[3] = { arrayLength: -1n };
    }),
  ],
  [
    "gg-array-length-2p61",
    F,
    "token_type|array|length",
    "array length 2^61 + n: × 8 wraps",
    G((p) => {
      kv(p, "tokenizer.ggml.token_type")[3] = { arrayLength: 2n ** 61n + BigInt(DIM.V) };
    }),
  ],
  [
    "gg-array-length-4e9",
    F,
    "token_type|array|length",
    "array length 4e9 in a short file",
    G((p) => {
      kv(p, "tokenizer.ggml.token_type")[3] = { arrayLength: 4_000_000_000 };
    }),
  ],
  [
    "gg-array-type-bad",
    F,
    "type|array|token_type",
    "array of type 99",
    G((p) => {
      kv(p, "tokenizer.ggml.token_type")[3] = { arrayType: 99 };
    }),
  ],
  [
    "gg-alignment-0",
    F,
    "alignment",
    "alignment 0: a division",
    G((p) => {
      setKv(p, "general.alignment", 0);
    }),
  ],
  [
    "gg-alignment-13",
    F,
    "alignment",
    "alignment 13",
    G((p) => {
      setKv(p, "general.alignment", 13);
    }),
  ],
  [
    "gg-alignment-2p31",
    F,
    "alignment",
    "alignment 2^31",
    G((p) => {
      setKv(p, "general.alignment", 2 ** 31);
    }),
  ],
  [
    "gg-alignment-wrong-type",
    F,
    "alignment",
    "alignment stored as a string",
    G((p) => {
      setKv(p, "general.alignment", "32", T.str);
    }),
  ],
  [
    "gg-alignment-64",
    OK,
    "",
    "alignment 64, data laid out for it",
    G((p) => {
      setKv(p, "general.alignment", 64);
      p.align = 64;
    }),
  ],
  [
    "gg-name-length-2p64",
    F,
    "name|string|length",
    "tensor name length 2^64 - 1",
    G((p) => {
      p.tensors[1].nameLength = -1n;
    }),
  ],
  [
    "gg-name-long",
    F,
    "name",
    "a tensor name of 300 bytes",
    G((p) => {
      p.tensors[1].name = "n".repeat(300);
    }),
  ],
  [
    "gg-name-duplicate",
    F,
    "duplicate|token_embd",
    "two tensors called token_embd.weight",
    G((p) => {
      p.tensors[2].name = "token_embd.weight";
    }),
  ],
  [
    "gg-n-dims-5",
    F,
    "dim",
    "five dimensions",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").dims.push(1, 1, 1);
    }),
  ],
  [
    "gg-n-dims-2p32",
    F,
    "dim",
    "n_dims 2^32 - 1",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").nDims = 0xffffffff;
    }),
  ],
  [
    "gg-n-dims-0",
    F,
    "dim|attn|offset",
    "a needed weight with no dimensions",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").dims = [];
    }),
  ],
  [
    "gg-dim-zero",
    F,
    "dim|attn_q",
    "a dimension of 0",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").dims[1] = 0;
    }),
  ],
  [
    "gg-dim-negative",
    F,
    "dim|attn_q",
    "a dimension of 2^63 (negative as int64)",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").dims[1] = 2n ** 63n;
    }),
  ],
  [
    "gg-dim-product-wraps",
    F,
    "dim|overflow|attn_q",
    "128 × (2^57 + 128): right modulo 2^64",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").dims[1] = 2n ** 57n + 128n;
    }),
  ],
  [
    "gg-dim-product-zero",
    F,
    "dim|overflow|attn_q",
    "2^32 × 2^32: 0 modulo 2^64",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").dims = [2 ** 32, 2 ** 32];
    }),
  ],
  [
    "gg-dim-int64-max",
    F,
    "dim|overflow",
    "two tensors of about 2^63 bytes each: their sum wraps",
    G((p) => {
      for (const n of ["x", "y"]) p.tensors.push({ name: n, dims: [0x7fffffffffffffc0n], type: 24, data: new Uint8Array(0) });
    }),
  ],
  [
    "gg-row-not-whole-blocks",
    F,
    "block|ffn_gate|row",
    "a Q8_0 row of 100 elements",
    G((p) => {
      tensor(p, "blk.0.ffn_gate.weight").dims[0] = 100;
    }),
  ],
  [
    "gg-type-200",
    U,
    "type|200|attn_q",
    "tensor type 200",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").type = 200;
    }),
  ],
  [
    "gg-type-minus-1",
    U,
    "type|attn_q",
    "tensor type -1",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").type = 0xffffffff;
    }),
  ],
  [
    "gg-type-removed",
    U,
    "type|attn_q",
    "tensor type 4, removed from the format: its size in a table is 0",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").type = GGML.Q4_2;
    }),
  ],
  [
    "gg-type-iq2-xs",
    U,
    "IQ2_XS|17",
    "a needed weight of type IQ2_XS",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").type = GGML.IQ2_XS;
    }),
  ],
  [
    "gg-offset-misaligned",
    F,
    "offset|align",
    "offset + 1",
    G((p) => {
      tensor(p, "blk.1.attn_q.weight").offset = 81921 + 0;
    }),
  ],
  [
    "gg-offset-past-end",
    F,
    "offset|end|truncat",
    "offset beyond the file",
    G((p) => {
      p.tensors.at(-1).offset = 2 ** 30;
    }),
  ],
  [
    "gg-offset-2p64",
    F,
    "offset",
    "offset 2^64 - 32: wraps into the header",
    G((p) => {
      p.tensors.at(-1).offset = -32n;
    }),
  ],
  [
    "gg-offset-overlap",
    F,
    "overlap|offset",
    "all tensors at offset 0",
    G((p) => {
      for (const t of p.tensors) t.offset = 0;
    }),
  ],
  [
    "gg-padding-non-zero",
    OK,
    "",
    "padding bytes are 0xff",
    () => {
      const m = [],
        b = ggufFile(ggufParts(), m),
        end = m.find(([l]) => l === "padding")[1],
        start = m.filter(([l]) => l === "offset").at(-1)[1];
      b.fill(0xff, start, end);
      return b;
    },
  ],
  [
    "gg-trailing-bytes",
    F,
    "trailing|size|end",
    "1,024 bytes after the last tensor",
    G((p) => {
      p.tail = new Uint8Array(1024).fill(1);
    }),
  ],
  [
    "gg-architecture-other",
    U,
    "llama",
    "architecture llama",
    G((p) => {
      setKv(p, "general.architecture", "llama");
    }),
  ],
  [
    "gg-architecture-missing",
    F,
    "general.architecture",
    "no architecture",
    G((p) => {
      p.kv.shift();
    }),
  ],
  [
    "gg-architecture-number",
    F,
    "general.architecture",
    "architecture is a u32",
    G((p) => {
      setKv(p, "general.architecture", 5, T.u32);
    }),
  ],
  [
    "gg-architecture-proto",
    U,
    "__proto__",
    "architecture __proto__",
    G((p) => {
      setKv(p, "general.architecture", "__proto__");
    }),
  ],
  [
    "gg-blocks-zero",
    F,
    "block_count",
    "block_count 0",
    G((p) => {
      setKv(p, "lfm2.block_count", 0);
    }),
  ],
  [
    "gg-blocks-one-more",
    F,
    "block_count|blk.2|head_count_kv",
    "block_count 3, two blocks present",
    G((p) => {
      setKv(p, "lfm2.block_count", 3);
    }),
  ],
  [
    "gg-blocks-2p32",
    F,
    "block_count",
    "block_count 2^32 - 1: nothing may loop by it",
    G((p) => {
      setKv(p, "lfm2.block_count", 0xffffffff);
    }),
  ],
  [
    "gg-blocks-string",
    F,
    "block_count",
    "block_count is a string",
    G((p) => {
      setKv(p, "lfm2.block_count", "2", T.str);
    }),
  ],
  [
    "gg-heads-zero",
    F,
    "head_count",
    "head_count 0",
    G((p) => {
      setKv(p, "lfm2.attention.head_count", 0);
    }),
  ],
  [
    "gg-kv-heads-wrong-length",
    F,
    "head_count_kv",
    "head_count_kv has three entries",
    G((p) => {
      setKv(p, "lfm2.attention.head_count_kv", arr(T.i32, [0, 1, 0]));
    }),
  ],
  [
    "gg-kv-heads-negative",
    F,
    "head_count_kv",
    "head_count_kv [0, -1]",
    G((p) => {
      setKv(p, "lfm2.attention.head_count_kv", arr(T.i32, [0, -1]));
    }),
  ],
  [
    "gg-eps-nan",
    F,
    "epsilon",
    "rms epsilon NaN",
    G((p) => {
      setKv(p, "lfm2.attention.layer_norm_rms_epsilon", NaN);
    }),
  ],
  [
    "gg-rope-infinity",
    F,
    "rope|freq_base",
    "rope base Infinity",
    G((p) => {
      setKv(p, "lfm2.rope.freq_base", Infinity);
    }),
  ],
  [
    "gg-embedding-length",
    F,
    "embedding_length|token_embd",
    "embedding_length 256, tensors 128",
    G((p) => {
      setKv(p, "lfm2.embedding_length", 256);
    }),
  ],
  [
    "gg-tokens-too-many",
    F,
    "tokens|token_embd|vocab",
    "one token more than embedding rows",
    G((p) => {
      kv(p, "tokenizer.ggml.tokens")[2].items.push("extra");
      kv(p, "tokenizer.ggml.token_type")[2].items.push(1);
    }),
  ],
  [
    "gg-token-type-short",
    F,
    "token_type",
    "token_type shorter than tokens",
    G((p) => {
      kv(p, "tokenizer.ggml.token_type")[2].items.pop();
    }),
  ],
  [
    "gg-token-duplicate",
    F,
    "duplicate|tokens",
    "two tokens with the same text",
    G((p) => {
      kv(p, "tokenizer.ggml.tokens")[2].items[100] = "the";
    }),
  ],
  [
    "gg-merge-unknown",
    F,
    "merge",
    "a merge names unknown tokens",
    G((p) => {
      kv(p, "tokenizer.ggml.merges")[2].items.push("zz qq");
    }),
  ],
  [
    "gg-merge-no-space",
    F,
    "merge",
    "a merge without a space",
    G((p) => {
      kv(p, "tokenizer.ggml.merges")[2].items.push("the");
    }),
  ],
  [
    "gg-eos-out-of-range",
    F,
    "eos",
    "eos_token_id 2^32 - 1",
    G((p) => {
      setKv(p, "tokenizer.ggml.eos_token_id", 0xffffffff);
    }),
  ],
  [
    "gg-tokenizer-llama",
    U,
    "tokenizer.ggml.model|llama",
    "tokenizer model llama (SentencePiece)",
    G((p) => {
      setKv(p, "tokenizer.ggml.model", "llama");
    }),
  ],
  [
    "gg-pre-unknown",
    U,
    "tokenizer.ggml.pre",
    "unknown pre-tokenizer name",
    G((p) => {
      setKv(p, "tokenizer.ggml.pre", "evil");
    }),
  ],
  [
    "gg-split-file",
    U,
    "split",
    "first of two split files",
    G((p) => {
      p.kv.push(["split.no", T.u16, 0], ["split.count", T.u16, 2], ["split.tensors.count", T.i32, 40]);
    }),
  ],
  [
    "gg-template-range",
    F,
    "template",
    "chat template loops over range(1e9)",
    G((p) => {
      setKv(p, "tokenizer.chat_template", "{% for i in range(1000000000) %}x{% endfor %}");
    }),
    "chat",
  ],
  [
    "gg-missing-tensor",
    F,
    "attn_q",
    "attn_q missing",
    G((p) => {
      p.tensors = p.tensors.filter((t) => t.name !== "blk.1.attn_q.weight");
    }),
  ],
  [
    "gg-extra-tensor",
    OK,
    "",
    "an unknown extra tensor",
    G((p) => {
      p.tensors.push({ name: "extra", dims: [8], type: GGML.F32, data: new Uint8Array(32) });
    }),
  ],
  [
    "gg-rope-factors",
    U,
    "rope_factors_long.weight.*config\\.json",
    "divisors of the rotary frequencies (longrope), which the metadata do not tell",
    G((p) => {
      for (const name of ["rope_factors_long.weight", "rope_factors_short.weight"])
        p.tensors.push({ name, dims: [8], type: GGML.F32, data: new Uint8Array(32) });
    }),
  ],
  [
    "gg-dims-transposed",
    F,
    "ffn_gate",
    "ffn_gate as (64, 128)",
    G((p) => {
      tensor(p, "blk.0.ffn_gate.weight").dims.reverse();
    }),
  ],
  [
    "gg-final-norm-other-name",
    OK,
    "",
    "the final norm under its newer name output_norm",
    G((p) => {
      tensor(p, "token_embd_norm.weight").name = "output_norm.weight";
    }),
  ],
  [
    "gg-scale-nan",
    F,
    "finite|NaN",
    "every Q8_0 scale is NaN: loads, but no token can be chosen",
    G((p) => {
      for (const t of p.tensors)
        if (t.type === GGML.Q8_0)
          for (let i = 0; i < t.data.length; i += 34) {
            t.data[i] = 0;
            t.data[i + 1] = 0x7e;
          }
    }),
    "generate",
  ],
];
/** One truncation per kind of structural boundary: exactly at its end, and one byte before. */
export function* truncations() {
  const marks = [],
    whole = ggufFile(ggufParts(), marks),
    seen = new Set();
  for (const [label, at] of marks) {
    if (seen.has(label) || at >= whole.length || label === "tail") continue;
    seen.add(label);
    const slug = label.replaceAll(/[ _]/g, "-");
    yield [`gg-cut-after-${slug}`, F, "", `file ends after the first ${label} (byte ${at})`, () => whole.slice(0, at)];
    yield [`gg-cut-in-${slug}`, F, "", `file ends one byte before the end of the first ${label}`, () => whole.slice(0, at - 1)];
  }
  yield [
    "gg-cut-last-data-byte",
    F,
    "truncat|end|size",
    "last byte of the last tensor missing (not padding)",
    () => {
      const p = ggufParts(),
        t = p.tensors.at(-1);
      return whole.slice(0, whole.length - ((p.align - (t.data.length % p.align)) % p.align) - 1);
    },
  ];
}
