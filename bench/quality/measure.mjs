// What rounding costs: two models' predictions on the same text, token by token. Knows the public API of the package.
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fromFolder, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";

const CLI = join("dist", "cli.js");

/**
 * @typedef {object} Text tokens of a text
 * @property {number[]} ids
 * @property {boolean[]} isReply of each token, whether the model was trained to write it
 */

/**
 * @typedef {object} Divergence over some of the tokens
 * @property {number} tokens
 * @property {number} kl mean Kullback-Leibler divergence Σ p ln(p / q) from the exact model's p, in nats a token
 * @property {number} top1 share of tokens whose most probable successor is the same
 * @property {number} perplexity of the text under q
 */

/**
 * @typedef {object} Row one way to run a model, against the exact one
 * @property {string} name of the weights' type
 * @property {string} kv type of keys and values
 * @property {"f32" | "int8"} activations what meets the weights in a product
 * @property {Divergence | undefined} replies where the text has any
 * @property {Divergence} all
 * @property {{ replies: Divergence | undefined, all: Divergence }} [activationsAlone] from the model with the same rounded weights and exact activations
 */

/** @returns {Float64Array} natural logarithms of the probabilities (T,V) */
function logSoftmax(logits, V) {
  const out = new Float64Array(logits.length);
  for (let row = 0; row < logits.length; row += V) {
    let max = Number.NEGATIVE_INFINITY;
    for (let i = row; i < row + V; i++) if (logits[i] > max) max = logits[i];
    let sum = 0;
    for (let i = row; i < row + V; i++) sum += Math.exp(logits[i] - max);
    const norm = Math.log(sum) + max;
    for (let i = row; i < row + V; i++) out[i] = logits[i] - norm;
  }
  return out;
}

function largest(values, from, to) {
  let best = from;
  for (let i = from + 1; i < to; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Sums over tokens. */
class Sums {
  tokens = 0;
  #kl = 0;
  #same = 0;
  #surprise = 0;

  add(kl, same, surprise) {
    this.tokens++;
    this.#kl += kl;
    this.#same += same;
    this.#surprise += surprise;
  }

  /** @returns {Divergence} */
  mean() {
    const { tokens } = this;
    return { tokens, kl: this.#kl / tokens, top1: this.#same / tokens, perplexity: Math.exp(this.#surprise / tokens) };
  }
}

/** How far one model is from another. */
class Comparison {
  #replies = new Sums();
  #all = new Sums();

  /** @param {Text} text @param p logarithms of the probabilities (T,V), and q the other model's */
  add({ ids, isReply }, p, q) {
    const V = p.length / ids.length;
    for (let t = 0; t + 1 < ids.length; t++) {
      let kl = 0;
      for (let i = t * V; i < (t + 1) * V; i++) kl += Math.exp(p[i]) * (p[i] - q[i]);
      const same = largest(p, t * V, (t + 1) * V) === largest(q, t * V, (t + 1) * V) ? 1 : 0;
      const surprise = -q[t * V + ids[t + 1]];
      this.#all.add(kl, same, surprise);
      if (isReply[t + 1]) this.#replies.add(kl, same, surprise);
    }
  }

  mean() {
    return { replies: this.#replies.tokens ? this.#replies.mean() : undefined, all: this.#all.mean() };
  }
}

/**
 * Encodes documents that are lists of [text, is it a reply].
 * @param {{ encode(text: string, options: { controlTokens: boolean }): ArrayLike<number> }} tokenizer
 * @param {readonly (readonly [string, boolean])[][]} documents
 * @returns {Text[]}
 */
export function encodeDocuments(tokenizer, documents) {
  return documents.map((parts) => {
    const encoded = parts.map(([text, isReply]) => ({ ids: [...tokenizer.encode(text, { controlTokens: true })], isReply }));
    return { ids: encoded.flatMap(({ ids }) => ids), isReply: encoded.flatMap(({ ids, isReply }) => ids.map(() => isReply)) };
  });
}

/** Element types of the cache that the package takes beside f32. */
async function cacheTypes(load, path) {
  const types = [];
  for (const kvDtype of ["f16", "q8"]) {
    try {
      (await load(path, { kvDtype })).dispose();
      types.push(kvDtype);
    } catch (error) {
      if (error?.name !== "InputError") throw error;
    }
  }
  return types;
}

/** GGUF types of the matrices and of the embedding. */
const QUANTIZED = [
  { name: "q8", type: "Q8_0", head: "Q8_0" },
  { name: "q4", type: "Q4_0", head: "Q4_0" },
  { name: "q4, embedding q8", type: "Q4_0", head: "Q8_0" },
];

/**
 * What is measured, the exact model first. A quantized file that is loaded as f32 has the rounded weights and exact activations: what is added when
 * the kernels take them as stored is the activations' part.
 */
function subjects(caches) {
  const float = { type: "BF16", head: "BF16" };
  const exact = { dtype: "f32", kvDtype: "f32" };
  return [
    { name: "f32", kv: "f32", activations: "f32", file: float, options: exact },
    ...caches.map((kv) => ({ name: "f32", kv, activations: "f32", file: float, options: { dtype: "f32", kvDtype: kv } })),
    { name: "bf16", kv: "f32", activations: "f32", file: float, options: { kvDtype: "f32" } },
    ...QUANTIZED.flatMap(({ name, ...file }) => [
      { name, kv: "f32", activations: "f32", file, options: exact },
      ...["f32", ...caches].map((kv) => ({ name, kv, activations: "int8", file, options: { kvDtype: kv } })),
    ]),
  ];
}

/** As `subjects`, of a folder whose matrices a load quantizes: what rounded weights alone cost is not among it. */
function subjectsByDtype(caches) {
  return [
    ...["f32", ...caches].map((kv) => ({ name: "f32", kv, activations: "f32", options: { dtype: "f32", kvDtype: kv } })),
    { name: "bf16", kv: "f32", activations: "f32", options: { dtype: "bf16", kvDtype: "f32" } },
    ...["q8", "q4"].flatMap((dtype) =>
      ["f32", ...caches].map((kv) => ({ name: dtype, kv, activations: "int8", options: { dtype, kvDtype: kv } })),
    ),
  ];
}

/** Writes the folder's checkpoint as a GGUF: BF16 as it is, Q8_0 and Q4_0 as a load quantizes, by the package's own command. */
export function quantizedFile(folder, type, head, out) {
  if (type === "BF16")
    return writeGguf(fromFolder(folder), { type, head, out, name: "lfm2-mini", tokenizer: join(folder, "tokenizer.json") });
  const name = { Q4_0: "q4", Q8_0: "q8" };
  execFileSync(process.execPath, [CLI, "quantize", folder, out, "--dtype", name[type], "--embedding", name[head], "--force"], {
    stdio: "pipe",
  });
}

/**
 * Measures every type of weights and cache for one model.
 * @param {object} o
 * @param {(source: any, options: any) => Promise<any>} o.load the package's
 * @param {(type: string, head: string) => string} [o.file] the path of a GGUF with these types of matrices and embedding
 * @param {string} [o.folder] in place of `file`: a checkpoint that a load quantizes
 * @param {(model: any) => Text[]} o.texts what to read
 * @returns {Promise<Row[]>} the exact model first
 */
export async function measure({ load, file, folder, texts }) {
  const caches = await cacheTypes(load, folder ?? file("BF16", "BF16"));
  const list = folder === undefined ? subjects(caches) : subjectsByDtype(caches);
  const models = [];
  try {
    for (const s of list) models.push(await load(folder ?? file(s.file.type, s.file.head), { ...s.options, threads: 1 }));
    const results = list.map(() => ({ total: new Comparison(), activations: new Comparison() }));
    for (const text of texts(models[0])) {
      let exact;
      let weights; // of the model with the same rounded weights and exact activations, which comes before
      for (const [i, { activations, kv }] of list.entries()) {
        const { logits } = await models[i].forward({ inputIds: text.ids });
        const q = logSoftmax(logits.data, logits.dims[2]);
        exact ??= q;
        if (activations === "f32") weights = q;
        else if (kv === "f32" && folder === undefined) results[i].activations.add(text, weights, q);
        results[i].total.add(text, exact, q);
      }
    }
    return list.map(({ name, kv, activations }, i) => ({
      name,
      kv,
      activations,
      ...results[i].total.mean(),
      ...(activations === "int8" && kv === "f32" && folder === undefined ? { activationsAlone: results[i].activations.mean() } : {}),
    }));
  } finally {
    for (const model of models) model.dispose();
  }
}
