// Wrong sets of split GGUF files.
import { arr, kv, PARTS, setKv, T, validSplit } from "./valid.mjs";
import { F, OK, U } from "./words.mjs";

/** [id, expect, field, what is wrong, () => the files] */
export const SPLIT = [
  ["sp-valid", OK, "", "two parts, as they should be", () => validSplit()],
  [
    "sp-part-missing",
    F,
    "00002-of-00002",
    "the second part is not there",
    () => {
      const { [PARTS[1]]: _, ...files } = validSplit();
      return files;
    },
  ],
  ["sp-no-wrong", F, "00002.*split.no", "the second part says that it is the first", () => validSplit((_, b) => setKv(b, "split.no", 0))],
  ["sp-no-missing", F, "00002.*split.no", "the second part does not say which it is", () => validSplit((_, b) => b.kv.shift())],
  ["sp-no-string", F, "split.no", "split.no is a string", () => validSplit((a) => setKv(a, "split.no", "0", T.str))],
  ["sp-no-array", F, "split.no", "split.no is an array", () => validSplit((a) => setKv(a, "split.no", arr(T.u16, [0]), T.arr))],
  ["sp-count-differs", F, "00002.*split.count", "the second part is one of three", () => validSplit((_, b) => setKv(b, "split.count", 3))],
  ["sp-count-not-in-name", U, "split", "the files are two, their keys say three", () => validSplit((a) => setKv(a, "split.count", 3))],
  ["sp-count-negative", F, "split.count", "split.count -2", () => validSplit((a) => setKv(a, "split.count", -2, T.i16))],
  ["sp-count-65535", F, "split.count|limit", "65,535 parts: none may be opened", () => validSplit((a) => setKv(a, "split.count", 65_535))],
  [
    "sp-count-one-of-two",
    F,
    "missing|ffn|embed|attn",
    "the first part says that it is whole",
    () => validSplit((a) => setKv(a, "split.count", 1)),
  ],
  [
    "sp-tensors-count",
    F,
    "split.tensors.count",
    "one tensor more than there are",
    () => validSplit((a) => setKv(a, "split.tensors.count", kv(a, "split.tensors.count")[2] + 1)),
  ],
  [
    "sp-tensors-count-second",
    F,
    "00002.*split.tensors.count",
    "the second part counts others",
    () => validSplit((_, b) => setKv(b, "split.tensors.count", 1)),
  ],
  ["sp-tensor-in-both", F, "00002.*duplicate", "both parts hold one tensor", () => validSplit((a, b) => b.tensors.push(a.tensors.at(-1)))],
  [
    "sp-second-is-first",
    F,
    "00002",
    "the second file is a copy of the first",
    () => {
      const files = validSplit();
      return { ...files, [PARTS[1]]: files[PARTS[0]] };
    },
  ],
  [
    "sp-second-cut",
    F,
    "00002.*truncated",
    "the second part is one byte short",
    () => {
      const files = validSplit();
      return { ...files, [PARTS[1]]: files[PARTS[1]].slice(0, -33) };
    },
  ],
  ["sp-second-empty", F, "00002", "the second part has no bytes", () => ({ ...validSplit(), [PARTS[1]]: new Uint8Array(0) })],
];
