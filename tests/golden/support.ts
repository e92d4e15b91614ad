// What the golden suites share: checkpoints made on the spot from the presets, goldens read back, models loaded as the tests want them.
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { presetOf, writeCheckpoint } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { fromFolder, fromPreset, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { threadsOf } from "../../src/adapters/node/threads.ts";
import type { ThreadOptions } from "../../src/kernels/threads.ts";
import type { KernelSource, Variant } from "../../src/kernels/variants.ts";
import { type Checkpoint, openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { type LoadModelOptions, loadModel } from "../../src/models/load-model.ts";
import type { Taps } from "../../src/models/taps.ts";
import { encodeQ4, encodeQ8, quantizeQ4, quantizeQ8 } from "../reference/convert.ts";
import { isAgain } from "../scale.ts";

const data = join("tests", "golden", "data");

/** The kernels of this build. */
export const kernels: KernelSource = (variant) => readFile(join("dist", `kernels.${variant}.wasm`));

/** Builds of the kernels that this engine runs. */
export const variants: readonly Variant[] = (["plain", "relaxed"] as const).filter((v) =>
  WebAssembly.validate(readFileSync(join("dist", `kernels.${v}.wasm`))),
);

/** Of these the ones that are tried in every way: in the gate's second Node the plain one only gives what the relaxed one is compared with. */
export const tried: readonly Variant[] = isAgain ? variants.filter((v) => v !== "plain") : variants;

/** `count` threads, or an error. */
export const threads = (count: number): ThreadOptions => ({
  count,
  source: threadsOf(pathToFileURL(join("dist", "thread.js"))),
  isRequired: true,
});

export function goldenJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(data, ...path), "utf8")) as T;
}

/** Arrays of a safetensors file, as numbers; BF16 is not among the goldens. */
export function goldenArrays(...path: string[]): Map<string, Float32Array> {
  const bytes = readFileSync(join(data, ...path));
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const out = new Map<string, Float32Array>();
  for (const [name, info] of Object.entries(header)) {
    if (name === "__metadata__" || info.dtype !== "F32") continue;
    const [from, to] = info.data_offsets;
    out.set(name, new Float32Array(new Uint8Array(bytes.subarray(8 + headerBytes + from, 8 + headerBytes + to)).buffer));
  }
  return out;
}

/** Makes a file or folder once a run of the tests, whole or not at all; the first of two processes that make the same wins. */
function made(path: string, make: (temporary: string) => void): string {
  if (existsSync(path)) return path;
  mkdirSync(join(path, ".."), { recursive: true });
  const temporary = `${path}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  make(temporary);
  if (existsSync(path)) rmSync(temporary, { recursive: true });
  else renameSync(temporary, path);
  return path;
}

/** The folder of a preset's bf16 checkpoint, seed 1. */
export function checkpointFolder(preset: string, dtype: "bf16" | "f16" | "f32" = "bf16"): string {
  return made(join("build", "checkpoints", `${preset}-${dtype}`), (dir) => writeCheckpoint(presetOf(preset), { seed: 1, dtype, dir }));
}

/** Q8_0 and Q4_0 with the scales of the least squared error. */
const searched = {
  Q8_0: (values: Float32Array) => encodeQ8(quantizeQ8(values)),
  Q4_0: (values: Float32Array) => encodeQ4(quantizeQ4(values)),
};

/** A GGUF of a preset's weights, seed 1; `isSearched`: quantized as a load quantizes, not as simply as can be. */
export function ggufFile(
  preset: string,
  type: string,
  { isSearched = false, ...options }: { head?: string; tokenizer?: string; template?: string; isSearched?: boolean } = {},
): string {
  const name = [preset, type, options.head ?? "", options.tokenizer ? "text" : "", isSearched ? "searched" : ""].filter(Boolean).join("-");
  const encoders = isSearched ? searched : {};
  return made(join("build", "checkpoints", `${name}.gguf`), (out) => writeGguf(fromPreset(preset, 1), { type, out, encoders, ...options }));
}

/** The bundled model as a GGUF of a type. */
export function miniGguf(type: string): string {
  return made(join("build", "checkpoints", `mini-${type}.gguf`), (out) => writeGguf(fromFolder("models/lfm2-mini"), { type, out }));
}

export async function withModel<T>(
  path: string,
  options: LoadModelOptions,
  use: (model: LanguageModel, checkpoint: Checkpoint) => Promise<T> | T,
): Promise<T> {
  const checkpoint = await openCheckpoint(await openPath(path));
  try {
    const { model } = await loadModel(checkpoint, kernels, options);
    try {
      return await use(model, checkpoint);
    } finally {
      model.dispose();
    }
  } finally {
    await checkpoint.close();
  }
}

/** Logits (T,V) of `ids`, fed in `chunks` (one after the other, repeated as needed) to an empty cache. */
export function feed(model: LanguageModel, ids: readonly number[], chunks: readonly number[] = [ids.length], taps?: Taps): Float32Array {
  const V = model.config.vocabSize;
  const logits = new Float32Array(ids.length * V);
  const cache = model.openCache();
  for (let at = 0, i = 0; at < ids.length; i++) {
    const T = Math.min(ids.length - at, chunks[i % chunks.length] ?? 1);
    model.step([{ cache, ids: ids.slice(at, at + T) }], { taps });
    for (let row = 0; row < T; row += model.logitsRows) {
      const rows = Array.from({ length: Math.min(model.logitsRows, T - row) }, (_, j) => row + j);
      model.head(rows);
      rows.forEach((r, j) => {
        logits.set(model.logits(j).view(), (at + r) * V);
      });
      if (taps) taps.set(`final_norm.${at + row}`, model.normed(rows.length));
    }
    at += T;
  }
  cache.dispose();
  return logits;
}

/** `count` ids by argmax, with the repetition penalty over prompt and generated ids. */
export function greedy(model: LanguageModel, prompt: readonly number[], count: number, penalty = 1): number[] {
  const cache = model.openCache();
  const out: number[] = [];
  let next = [...prompt];
  for (let n = 0; n < count; n++) {
    model.step([{ cache, ids: next }], { logitsOf: [next.length - 1] });
    const logits = model.logits();
    if (penalty !== 1) logits.penalize(new Set([...prompt, ...out]), penalty);
    next = [logits.argmax()];
    out.push(...next);
  }
  cache.dispose();
  return out;
}

/** The largest absolute difference; NaN anywhere gives NaN. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let max = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs((a[i] ?? 0) - (b[i] ?? 0));
    if (!(d <= max)) max = d;
  }
  return max;
}

/** Whether two arrays have the same bits. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.byteLength), Buffer.from(b.buffer, b.byteOffset, b.byteLength)) === 0;
}

/** @returns the largest KL divergence, in nats, of a row of `logits` (T,V) from the same row of `reference` */
export function divergence(reference: Float32Array, logits: Float32Array, V: number): number {
  const logSoftmax = (row: Float32Array): Float64Array => {
    const top = row.reduce((a, v) => Math.max(a, v), Number.NEGATIVE_INFINITY);
    const sum = row.reduce((a, v) => a + Math.exp(v - top), 0);
    return Float64Array.from(row, (v) => v - top - Math.log(sum));
  };
  const rows = Array.from({ length: logits.length / V }, (_, r) => {
    const [p, q] = [reference, logits].map((x) => logSoftmax(x.subarray(r * V, (r + 1) * V))) as [Float64Array, Float64Array];
    return p.reduce((sum, lp, i) => sum + Math.exp(lp) * (lp - (q[i] ?? 0)), 0);
  });
  return Math.max(...rows);
}

/** @returns a golden model */
export async function modelOf(preset: string, options: Parameters<typeof loadModel>[2] = {}): Promise<LanguageModel> {
  const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
  const { model } = await loadModel(checkpoint, kernels, options);
  await checkpoint.close();
  return model;
}
