// Whole models in any engine: logits for any chunking and company, greedy and sampled replies of the bundled one. The core alone: bytes in, bits out.
import type { KernelSource, Variant } from "../../src/kernels/variants.ts";
import { loadWith, type Platform } from "../../src/lfm2.ts";
import type { DType, KvDType } from "../../src/memory/dtype.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { bytesSource, type Folder } from "../../src/weights/source.ts";
import type { Ledger } from "./ledger.ts";
import { Random, seedOf } from "./random.ts";

/** Files by name; a folder's as FOLDER/NAME. */
export type Files = Readonly<Record<string, Uint8Array>>;

function folder(files: Files, name: string): Folder {
  return {
    name,
    open: (path) => {
      const bytes = files[`${name}/${path}`];
      return Promise.resolve(bytes && bytesSource(bytes, path));
    },
  };
}

/** Logits (T,V) of `ids`, fed in steps of `sizes` to an empty cache. */
function feed(model: LanguageModel, ids: readonly number[], sizes: readonly number[]): Float32Array[] {
  const rows: Float32Array[] = [];
  const cache = model.openCache();
  for (let at = 0, i = 0; at < ids.length; i++) {
    const T = Math.min(ids.length - at, sizes[i % sizes.length] ?? 1);
    model.step([{ cache, ids: ids.slice(at, at + T) }]);
    for (let row = 0; row < T; row += model.logitsRows) {
      const numbers = Array.from({ length: Math.min(model.logitsRows, T - row) }, (_, j) => row + j);
      model.head(numbers);
      for (const j of numbers.keys()) rows.push(model.logits(j).copy());
    }
    at += T;
  }
  cache.dispose();
  return rows;
}

/** Two sequences in every step, of which the second is `behind` tokens behind. */
function feedTwo(model: LanguageModel, ids: readonly number[], behind: number): Float32Array[] {
  const caches = [model.openCache(), model.openCache()] as const;
  const rows: Float32Array[] = [];
  for (let at = 0; at < ids.length + behind; at++) {
    const inputs = [
      { cache: caches[0], ids: ids.slice(at, at + 1) },
      { cache: caches[1], ids: at < behind ? [] : ids.slice(at - behind, at - behind + 1) },
    ].filter((input) => input.ids.length > 0);
    model.step(inputs, { logitsOf: inputs.map((_, i) => i) });
    if (at >= behind) rows.push(model.logits(inputs.length - 1).copy());
  }
  for (const cache of caches) cache.dispose();
  return rows;
}

interface Run {
  readonly ledger: Ledger;
  readonly full: boolean;
  readonly files: Files;
  readonly kernels: KernelSource;
  readonly variants: readonly Variant[];
}

async function tinyModel({ ledger, full, files, kernels, variants }: Run, name: string): Promise<void> {
  const dtypes: readonly DType[] = ["f32", "f16", "bf16", "q8", "q4"];
  for (const dtype of dtypes) {
    for (const kvDtype of ["f32", "f16", "q8"] as const satisfies readonly KvDType[]) {
      for (const variant of variants) {
        const checkpoint = await openCheckpoint(folder(files, name));
        const { model } = await loadModel(checkpoint, kernels, { dtype, kvDtype, variant, chunkTokens: 256 });
        const r = new Random(seedOf(name));
        const ids = Array.from({ length: full ? 200 : 45 }, () => r.below(model.config.vocabSize));
        const group = `${name} ${dtype}, kv ${kvDtype}`;
        for (const sizes of [[ids.length], [1], [2], [3], [7, 1], [33]]) {
          feed(model, ids, sizes).forEach((row, t) => {
            ledger.agree(group, t, `${variant}, steps of ${sizes}`, row);
          });
        }
        feedTwo(model, ids, 5).forEach((row, t) => {
          ledger.agree(group, t, `${variant}, behind another sequence`, row);
        });
        await checkpoint.close();
      }
    }
  }
}

/** The bundled model's group in the ledger. */
export const MINI = "lfm2-mini";
/** @returns tokens of each reply */
export const replyTokens = (full: boolean): number => (full ? 120 : 32);
const PROMPTS = ["Tell me a story about a fox.", "What is 7 plus 5?"];

/** The bundled model through the public API, on a platform of bytes. */
async function bundledModel({ ledger, full, files, kernels, variants }: Run): Promise<void> {
  const platform: Platform = { runtime: "node", open: () => Promise.reject(new Error("only bytes here")), kernels };
  const gguf = files["mini.gguf"];
  if (!gguf) throw new Error("mini.gguf is missing");
  for (const variant of variants) {
    const model = await loadWith(platform, gguf, { variant });
    await replies(model, replyTokens(full), (part, data) => {
      ledger.agree(MINI, part, variant, data);
    });
    model.dispose();
  }
}

/** What a reply is read from. */
export interface Replying {
  generate(input: string, options: object): Promise<{ readonly tokens: Uint32Array }>;
  forward(input: { inputIds: ArrayLike<number>; logitsToKeep: 1 }): Promise<{ logits: { data: Float32Array } }>;
}

/** Greedy and sampled ids of every prompt, and the logits behind the whole reply. */
export async function replies(
  model: Replying,
  maxTokens: number,
  tell: (part: string, data: Uint32Array | Float32Array) => void,
): Promise<void> {
  for (const prompt of PROMPTS) {
    const greedy = await model.generate(prompt, { maxTokens, temperature: 0 });
    tell(`greedy: ${prompt}`, greedy.tokens);
    const sampled = await model.generate(prompt, { maxTokens, temperature: 1.2, topK: 40, topP: 0.95, repetitionPenalty: 1.05, seed: 42 });
    tell(`sampled: ${prompt}`, sampled.tokens);
    const { logits } = await model.forward({ inputIds: [...greedy.tokens, ...sampled.tokens], logitsToKeep: 1 });
    tell(`last logits: ${prompt}`, logits.data);
  }
}

/** @param modules compiled builds by name; those that the host's own list does not name are left out */
export async function modelCases(
  ledger: Ledger,
  full: boolean,
  files: Files,
  modules: ReadonlyMap<string, WebAssembly.Module>,
): Promise<void> {
  const variants = (["plain", "relaxed"] as const).filter((name) => modules.has(name));
  const kernels: KernelSource = (variant) => Promise.resolve(modules.get(variant) as object);
  const run: Run = { ledger, full, files, kernels, variants };
  const names = Object.keys(files).flatMap((path) => (path.endsWith("/config.json") ? [path.slice(0, -"/config.json".length)] : []));
  for (const name of names) await tinyModel(run, name);
  await bundledModel(run);
}
