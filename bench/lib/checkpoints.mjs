// Random checkpoints in build/, made once: the shapes of the published models, with a tokenizer that every engine accepts.
import { existsSync, mkdirSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { larger } from "../../scripts/checkpoints/larger.mjs";
import { presetOf, writeCheckpoint } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { fromFolder, fromPreset, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";

/** Byte-level BPE of 515 tokens; the vocabulary's others are unused ones. */
const TOKENIZER = "tests/golden/data/text/tokenizer.json";

async function made(path, make) {
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true });
  console.error(`making ${path}`);
  await make(`${path}.part`);
  renameSync(`${path}.part`, path);
  return path;
}

/** @returns the path of a GGUF whose matrices all have that type: Q4_0, Q8_0, Q4_K or Q6_K */
export const gguf = (shape, type) =>
  made(`build/bench/${shape}-${type}.gguf`, (out) => writeGguf(fromPreset(shape, 1), { type, head: type, out, tokenizer: TOKENIZER }));

/** @returns the path of a GGUF of the golden model tiny-quant, as the reference had it: with Q4_0 the embedding has Q8_0 */
export const tinyQuant = (type) =>
  made(`build/bench/golden-tiny-quant-${type}.gguf`, (out) =>
    writeGguf(fromPreset("tiny-quant", 1), { type, out, ...(type === "Q4_0" && { head: "Q8_0" }) }),
  );

/** @returns the path of a folder with bf16 weights, the same as in the GGUF before its rounding */
export const folder = (shape) =>
  made(`build/bench/${shape}-bf16`, (dir) => writeCheckpoint(presetOf(shape), { seed: 1, dtype: "bf16", dir }));

/** @returns the path of a GGUF of a small shape with random weights, so many tokens and no tokenizer: a draft model whose guesses are wrong */
export const stranger = (vocabulary) =>
  made(`build/bench/stranger-${vocabulary}.gguf`, (out) => {
    const source = { ...fromPreset("tiny-quant", 2), shape: { ...presetOf("tiny-quant"), V: vocabulary } };
    return writeGguf(source, { type: "Q4_0", head: "Q4_0", out });
  });

/** Block types of dtypes. */
const TYPES = { q4: "Q4_0", q8: "Q8_0", q4k: "Q4_K", q6k: "Q6_K" };

/** @returns the path of a GGUF of that shape which says what the bundled model says; "mini": the bundled model itself, with as many tokens as the others */
export function likeMini(shape, dtype) {
  const type = TYPES[dtype] ?? "BF16";
  return made(`build/bench/${shape}-like-mini-${type}.gguf`, (out) => {
    const mini = fromFolder("models/lfm2-mini");
    const of = shape === "mini" ? { ...mini.shape, V: presetOf("350m").V } : presetOf(shape);
    return writeGguf(larger(mini, of), { type, head: type, out });
  });
}

/** The checkpoint for a dtype: as a file has it, so that a load moves bytes and does not quantize. */
export function checkpointOf(shape, dtype) {
  if (shape === "mini") return dtype === "q4" ? "dist/mini.gguf" : "models/lfm2-mini";
  return TYPES[dtype] ? gguf(shape, TYPES[dtype]) : folder(shape);
}

export const fileBytes = (path) => statSync(statSync(path).isDirectory() ? `${path}/model.safetensors` : path).size;
