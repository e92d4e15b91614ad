// Wrong model.safetensors files.
import { Buffer } from "node:buffer";
import { concat, extra, rawJson, safetensorsFile, stData, stRaw, stWith, u64, utf8, validSafetensors } from "./valid.mjs";
import { E0, F, HTML, LFS, N0, OK, Q, U } from "./words.mjs";

/** [id, expect, field, what is wrong, () => bytes of model.safetensors, stage] */
export const SAFETENSORS = [
  ["st-empty-file", F, "header|8 bytes|empty", "0 bytes", () => new Uint8Array(0)],
  ["st-seven-bytes", F, "header|8 bytes", "7 bytes: the length field itself is cut", () => new Uint8Array(7)],
  ["st-length-only", F, "header", "8 bytes and nothing else", () => validSafetensors().slice(0, 8)],
  ["st-header-length-zero", F, "header", "declared header length 0", () => stWith(() => {}, { length: 0 })],
  ["st-header-length-one", F, "header", "declared header length 1: the text is {", () => stWith(() => {}, { length: 1 })],
  [
    "st-header-length-over-file",
    F,
    "header",
    "declared header length is the file's size + 1",
    () => {
      const b = validSafetensors();
      return concat(u64(b.length + 1), b.slice(8));
    },
  ],
  [
    "st-header-length-over-limit",
    F,
    "header.*100000001|limit",
    "declared header length 100,000,001 in a short file",
    () => stWith(() => {}, { length: 100_000_001 }),
  ],
  ["st-header-length-2p31", F, "header", "declared length 2^31: negative as an int32", () => stWith(() => {}, { length: 2n ** 31n })],
  [
    "st-header-length-2p32",
    F,
    "header",
    "declared length 2^32 + the right one: the low word looks right",
    () => {
      const b = validSafetensors();
      const n = Buffer.from(b).readUInt32LE(0);
      return concat(u64(2n ** 32n + BigInt(n)), b.slice(8));
    },
  ],
  ["st-header-length-2p53", F, "header", "declared length 2^53 + 1: not a double", () => stWith(() => {}, { length: 2n ** 53n + 1n })],
  ["st-header-length-2p63", F, "header", "declared length 2^63: negative as an int64", () => stWith(() => {}, { length: 2n ** 63n })],
  ["st-header-length-2p64", F, "header", "declared length 2^64 - 1; + 8 wraps to 7", () => stWith(() => {}, { length: 2n ** 64n - 1n })],
  ["st-header-leading-space", F, "header|\\{", "the header begins with a space, not {", () => stRaw((h) => ` ${JSON.stringify(h)}`)],
  ["st-header-bom", F, "header|\\{", "UTF-8 byte order mark before {", () => stRaw((h) => `\ufeff${JSON.stringify(h)}`)],
  ["st-header-padding-nul", F, "header|JSON", "padded with NUL instead of spaces", () => stRaw((h) => `${JSON.stringify(h)}\0\0\0\0`)],
  ["st-header-padding-long", OK, "", "4,096 spaces of padding", () => stRaw((h) => JSON.stringify(h) + " ".repeat(4096))],
  ["st-header-second-object", F, "header|JSON", "a second JSON object after the first", () => stRaw((h) => `${JSON.stringify(h)}{}`)],
  ["st-header-array", F, "header", "the header is an array", () => safetensorsFile("[]", new Uint8Array(0))],
  ["st-header-null", F, "header", "the header is null", () => safetensorsFile("null", new Uint8Array(0))],
  ["st-header-empty-object", F, "embed_tokens|missing", "no tensor at all", () => safetensorsFile("{}", new Uint8Array(0))],
  [
    "st-header-invalid-utf8",
    F,
    "header|UTF-8",
    "byte 0xff inside a tensor name",
    () =>
      stRaw((h) => {
        const b = utf8(JSON.stringify(h));
        b[4] = 0xff;
        return b;
      }),
  ],
  [
    "st-header-overlong-utf8",
    F,
    "header|UTF-8",
    "overlong encoding c0 af of / inside a name",
    () =>
      stRaw((h) => {
        const b = utf8(JSON.stringify(h));
        b[4] = 0xc0;
        b[5] = 0xaf;
        return b;
      }),
  ],
  [
    "st-header-deep-nesting",
    F,
    "header|nest|depth",
    "100,000 nested arrays in an entry",
    () => safetensorsFile(`{"a":${"[".repeat(100000)}${"]".repeat(100000)}}`, new Uint8Array(0)),
  ],
  [
    "st-header-cut-json",
    F,
    "header|JSON",
    "header text cut in the middle, length adjusted",
    () => stRaw((h) => JSON.stringify(h).slice(0, 401), { pad: false }),
  ],
  ["st-header-trailing-comma", F, "header|JSON", "trailing comma (JSON5)", () => stRaw((h) => JSON.stringify(h).replace(/}$/, ",}"))],
  [
    "st-header-nan",
    F,
    "header|JSON|shape",
    "shape [NaN]",
    () =>
      stRaw((h) => {
        h[N0].shape = ["@"];
        return rawJson(h, { "@": "NaN" });
      }),
  ],
  [
    "st-duplicate-name",
    F,
    `duplicate|${N0}`,
    "the same tensor name twice, other offsets; JSON.parse keeps the last silently",
    () => stRaw((h) => JSON.stringify(h).replace(/}$/, `,${JSON.stringify(N0)}:${JSON.stringify(h[N0])}}`)),
  ],
  [
    "st-duplicate-field",
    F,
    `duplicate|${N0}|dtype`,
    "dtype twice in one entry: F32, then BF16",
    () => stRaw((h) => JSON.stringify(h).replace(`${JSON.stringify(N0)}:{`, `${JSON.stringify(N0)}:{"dtype":"F32",`)),
  ],
  ["st-name-proto", OK, "", "an extra tensor is called __proto__: a name is only a name", () => stWith((h, e) => extra(h, e, "__proto__"))],
  ["st-name-constructor", OK, "", "an extra tensor is called constructor", () => stWith((h, e) => extra(h, e, "constructor"))],
  [
    "st-name-lone-surrogate",
    F,
    `name|UTF|surrogate|${N0}`,
    "a name with an unpaired surrogate escape",
    () => stRaw((h) => JSON.stringify(h).replace(N0, "\\ud800")),
  ],
  ["st-name-one-mebibyte", F, "name", "a tensor name of 1 MiB", () => stWith((h, e) => extra(h, e, "n".repeat(2 ** 20)))],
  [
    "st-too-many-tensors",
    F,
    "tensors|limit",
    "70,000 entries of no bytes",
    () =>
      stWith((h, e) => {
        const at = e.at(-1)[1].data_offsets[1];
        for (let i = 0; i < 70000; i++) h[`x${i}`] = { dtype: "U8", shape: [0], data_offsets: [at, at] };
      }),
  ],
  [
    "st-metadata-not-string",
    F,
    "__metadata__",
    "a metadata value is a number",
    () =>
      stWith((h) => {
        h.__metadata__ = { format: 1 };
      }),
  ],
  [
    "st-metadata-array",
    F,
    "__metadata__",
    "__metadata__ is an array",
    () =>
      stWith((h) => {
        h.__metadata__ = ["pt"];
      }),
  ],
  [
    "st-metadata-proto",
    F,
    "__metadata__",
    "__metadata__ holds __proto__: {polluted: …}",
    () => stRaw((h) => `{"__metadata__":{"__proto__":{"polluted":"yes"}},${JSON.stringify(h).slice(1)}`),
  ],
  [
    "st-entry-null",
    F,
    N0,
    "an entry is null",
    () =>
      stWith((h) => {
        h[N0] = null;
      }),
  ],
  [
    "st-entry-number",
    F,
    N0,
    "an entry is a number",
    () =>
      stWith((h) => {
        h[N0] = 7;
      }),
  ],
  [
    "st-offsets-missing",
    F,
    N0,
    "no data_offsets",
    () =>
      stWith((h) => {
        delete h[N0].data_offsets;
      }),
  ],
  [
    "st-offsets-three",
    F,
    N0,
    "three numbers in data_offsets",
    () =>
      stWith((h) => {
        h[N0].data_offsets.push(0);
      }),
  ],
  [
    "st-offsets-negative",
    F,
    N0,
    "begin is -256",
    () =>
      stWith((h) => {
        h[N0].data_offsets[0] = -256;
      }),
  ],
  [
    "st-offsets-swapped",
    F,
    N0,
    "end before begin",
    () =>
      stWith((h) => {
        h[N0].data_offsets.reverse();
      }),
  ],
  [
    "st-offsets-fraction",
    F,
    N0,
    "begin + 0.5",
    () =>
      stWith((h) => {
        h[N0].data_offsets[0] += 0.5;
      }),
  ],
  [
    "st-offsets-string",
    F,
    N0,
    "numbers as strings",
    () =>
      stWith((h) => {
        h[N0].data_offsets = h[N0].data_offsets.map(String);
      }),
  ],
  [
    "st-offsets-2p53",
    F,
    N0,
    "end is 2^53 + 1",
    () =>
      stRaw((h) => {
        h[N0].data_offsets[1] = "@";
        return rawJson(h, { "@": "9007199254740993" });
      }),
  ],
  [
    "st-offsets-2p64",
    F,
    N0,
    "begin is 2^64 + begin: right modulo 2^64",
    () =>
      stRaw((h) => {
        const b = h[N0].data_offsets[0];
        h[N0].data_offsets[0] = "@";
        return rawJson(h, { "@": String(2n ** 64n + BigInt(b)) });
      }),
  ],
  [
    "st-offsets-1e400",
    F,
    N0,
    "end is 1e400",
    () =>
      stRaw((h) => {
        h[N0].data_offsets[1] = "@";
        return rawJson(h, { "@": "1e400" });
      }),
  ],
  [
    "st-offsets-past-end",
    F,
    "tail|truncat|size|end",
    "the last tensor ends one byte after the file, shape grown to match",
    () =>
      stWith((h, e) => {
        extra(h, e, "tail", {}, 9);
        return concat(stData(e), new Uint8Array(8));
      }),
  ],
  [
    "st-offsets-overlap",
    F,
    "overlap|offset",
    "a tensor begins 2 bytes inside its neighbour",
    () =>
      stWith((h) => {
        h[N0].data_offsets = h[N0].data_offsets.map((v) => v - 2);
      }),
  ],
  [
    "st-offsets-alias",
    F,
    "overlap|offset",
    "two tensors of equal shape share the same bytes",
    () =>
      stWith((h) => {
        h["model.layers.0.ffn_norm.weight"].data_offsets = [...h[N0].data_offsets];
      }),
  ],
  [
    "st-offsets-hole",
    F,
    "hole|gap|offset|cover",
    "16 bytes between two tensors belong to nobody",
    () =>
      stWith((h, e) => {
        const cut = h[N0].data_offsets[0];
        for (const [, i] of Object.entries(h)) if (i.data_offsets?.[0] >= cut) i.data_offsets = i.data_offsets.map((v) => v + 16);
        const d = stData(e);
        return concat(d.slice(0, cut), new Uint8Array(16), d.slice(cut));
      }),
  ],
  [
    "st-offsets-start-hole",
    F,
    "hole|gap|offset|cover",
    "the first tensor begins at 16",
    () =>
      stWith((h, e) => {
        for (const i of Object.values(h)) if (i.data_offsets) i.data_offsets = i.data_offsets.map((v) => v + 16);
        return concat(new Uint8Array(16), stData(e));
      }),
  ],
  [
    "st-header-order",
    OK,
    "",
    "header entries in reverse order of their offsets",
    () => stRaw((h) => JSON.stringify(Object.fromEntries(Object.entries(h).reverse()))),
  ],
  [
    "st-data-at-odd-offset",
    OK,
    "",
    "header length is odd, so that every tensor lies at an odd file offset",
    () =>
      stRaw(
        (h) => {
          const s = JSON.stringify(h);
          return s + " ".repeat(s.length % 2 ? 2 : 1);
        },
        { pad: false },
      ),
  ],
  [
    "st-trailing-bytes",
    F,
    "trailing|cover|size",
    "64 bytes after the last tensor (polyglot)",
    () => concat(validSafetensors(), new Uint8Array(64)),
  ],
  [
    "st-trailing-zip",
    F,
    "trailing|cover|size",
    "a ZIP end record after the last tensor",
    () => concat(validSafetensors(), "PK\x05\x06", new Uint8Array(18)),
  ],
  ["st-truncated-one-byte", F, "truncat|size|end", "last byte missing", () => validSafetensors().slice(0, -1)],
  [
    "st-truncated-half",
    F,
    "truncat|size|end",
    "half of the data missing",
    () => {
      const b = validSafetensors();
      return b.slice(0, b.length >> 1);
    },
  ],
  [
    "st-truncated-no-data",
    F,
    "truncat|size|end",
    "header only",
    () => {
      const b = validSafetensors();
      return b.slice(0, 8 + Buffer.from(b).readUInt32LE(0));
    },
  ],
  ["st-truncated-in-header", F, "header", "file ends inside the header", () => validSafetensors().slice(0, 300)],
  [
    "st-shape-size-mismatch",
    F,
    Q,
    "shape says half as many bytes as the offsets",
    () =>
      stWith((h) => {
        h[Q].shape[0] /= 2;
      }),
  ],
  [
    "st-shape-negative",
    F,
    Q,
    "shape [-128, -128]: the product is right",
    () =>
      stWith((h) => {
        h[Q].shape = h[Q].shape.map((v) => -v);
      }),
  ],
  [
    "st-shape-fraction",
    F,
    Q,
    "shape [64.5, …]",
    () =>
      stWith((h) => {
        h[Q].shape[0] = 64.5;
      }),
  ],
  [
    "st-shape-string",
    F,
    Q,
    "shape is a string",
    () =>
      stWith((h) => {
        h[Q].shape = "128,128";
      }),
  ],
  [
    "st-shape-array-like",
    F,
    Q,
    "shape is an object with length",
    () =>
      stWith((h) => {
        h[Q].shape = { 0: 128, 1: 128, length: 2 };
      }),
  ],
  [
    "st-shape-null-dim",
    F,
    Q,
    "a dimension is null",
    () =>
      stWith((h) => {
        h[Q].shape[0] = null;
      }),
  ],
  [
    "st-shape-product-2p64",
    F,
    '"x"|shape|overflow|offset',
    "shape [2^32, 2^32] with no bytes: the product is 0 modulo 2^64",
    () => stWith((h, e) => extra(h, e, "x", { shape: [2 ** 32, 2 ** 32] }, 0)),
  ],
  [
    "st-shape-product-2p53",
    F,
    '"x"|shape|overflow|offset',
    "shape [2^27, 2^27, 3]: beyond 2^53",
    () => stWith((h, e) => extra(h, e, "x", { shape: [2 ** 27, 2 ** 27, 3] }, 0)),
  ],
  [
    "st-shape-zero-dim-extra",
    OK,
    "",
    "an extra tensor of shape [0, 4] and no bytes",
    () => stWith((h, e) => extra(h, e, "x", { shape: [0, 4] }, 0)),
  ],
  [
    "st-shape-zero-dim-weight",
    F,
    N0,
    "a needed weight has shape [0]",
    () =>
      stWith((h, e) => {
        const i = e.findIndex((x) => x[0] === N0),
          n = e[i][2].length;
        h[N0].shape = [0];
        h[N0].data_offsets[1] -= n;
        for (const [k, v] of e.slice(i + 1)) h[k].data_offsets = v.data_offsets.map((x) => x - n);
        return stData(e.filter((x) => x[0] !== N0));
      }),
  ],
  [
    "st-shape-rank-huge",
    F,
    '"x"|rank|dimension',
    "an extra tensor with 100,000 dimensions of 1",
    () => stWith((h, e) => extra(h, e, "x", { shape: new Array(100000).fill(1) }, 1)),
  ],
  [
    "st-shape-scalar-weight",
    F,
    N0,
    "a norm weight is a scalar, shape []",
    () =>
      stWith((h, e) => {
        const i = e.findIndex((x) => x[0] === N0);
        h[N0].shape = [];
        h[N0].data_offsets[1] = h[N0].data_offsets[0] + 2;
        for (const [k, v] of e.slice(i + 1)) h[k].data_offsets = v.data_offsets.map((x) => x - 254);
        return concat(...e.map((x) => (x[0] === N0 ? x[2].slice(0, 2) : x[2])));
      }),
  ],
  [
    "st-shape-transposed",
    F,
    "model.layers.0.conv.in_proj.weight",
    "in_proj as (D, 3D)",
    () =>
      stWith((h) => {
        h["model.layers.0.conv.in_proj.weight"].shape.reverse();
      }),
  ],
  [
    "st-dtype-unknown",
    U,
    `${Q}.*XF7|XF7`,
    "dtype XF7",
    () =>
      stWith((h) => {
        h[Q].dtype = "XF7";
      }),
  ],
  [
    "st-dtype-lowercase",
    U,
    "bf16",
    "dtype bf16 in lower case",
    () =>
      stWith((h) => {
        h[Q].dtype = "bf16";
      }),
  ],
  [
    "st-dtype-prototype-key",
    U,
    "constructor",
    "dtype constructor: found on every plain object",
    () =>
      stWith((h) => {
        h[Q].dtype = "constructor";
      }),
  ],
  [
    "st-dtype-i16-weight",
    U,
    Q,
    "a needed weight stored as I16 (same size as BF16)",
    () =>
      stWith((h) => {
        h[Q].dtype = "I16";
      }),
  ],
  [
    "st-dtype-i8",
    U,
    "I8",
    "a needed weight stored as I8",
    () =>
      stWith((h) => {
        h[Q].dtype = "I8";
        h[Q].shape[0] *= 2;
      }),
  ],
  [
    "st-dtype-f8",
    U,
    "F8_E4M3",
    "a needed weight stored as F8_E4M3",
    () =>
      stWith((h) => {
        h[Q].dtype = "F8_E4M3";
        h[Q].shape[0] *= 2;
      }),
  ],
  [
    "st-dtype-null",
    F,
    Q,
    "dtype null",
    () =>
      stWith((h) => {
        h[Q].dtype = null;
      }),
  ],
  [
    "st-missing-tensor",
    F,
    Q,
    "q_proj renamed: a needed weight is missing",
    () => stRaw((h) => JSON.stringify(h).replace(Q, Q.replace("q_proj", "q_porj"))),
  ],
  [
    "st-missing-final-norm",
    F,
    "embedding_norm",
    "the final norm is missing",
    () => stRaw((h) => JSON.stringify(h).replace("model.embedding_norm.weight", "model.norm.weight")),
  ],
  ["st-extra-tensor", OK, "", "an unknown extra tensor: skipped, not downloaded", () => stWith((h, e) => extra(h, e, "model.extra.bias"))],
  [
    "st-embedding-fewer-rows",
    F,
    "embed_tokens|vocab",
    "embedding has one row less than the tokenizer has ids",
    () =>
      stWith((h, e) => {
        h[E0].shape[0] -= 1;
        h[E0].data_offsets[1] -= 256;
        for (const [k, v] of e.slice(1)) h[k].data_offsets = v.data_offsets.map((x) => x - 256);
        return concat(e[0][2].slice(0, -256), ...e.slice(1).map((x) => x[2]));
      }),
  ],
  ["st-git-lfs-pointer", F, "LFS|pointer|header", "the file is a Git LFS pointer", () => utf8(LFS)],
  ["st-html-page", F, "HTML|header", "the file is an HTML error page", () => utf8(HTML)],
  [
    "st-weights-nan",
    F,
    "finite|NaN",
    "every value of the final norm is NaN: loads, but no token can be chosen",
    () =>
      stWith((_h, e) => {
        for (const x of e) if (x[0] === "model.embedding_norm.weight") new Uint16Array(x[2].buffer).fill(0x7fc0);
        return stData(e);
      }),
    "generate",
  ],
];
