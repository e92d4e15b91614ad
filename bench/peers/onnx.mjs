// onnxruntime-web (WebAssembly, in Node), as a worker of peers.mjs. Runs from a copy in the scratch folder, where the package is. Caches leave and enter as tensors at every step, as transformers.js does it.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import * as ort from "onnxruntime-web";
import { serve } from "./worker.mjs";

let session;

/** Empty caches, by the names of the session's inputs. */
const emptyCaches = () =>
  Object.fromEntries(
    session.inputMetadata
      .filter(({ name }) => name.startsWith("past_"))
      .map(({ name, shape }) => {
        const dims = shape.map((d) => (typeof d === "number" ? d : 0));
        return [name, new ort.Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims)];
      }),
  );

/** The `count` likeliest ids, likeliest first. */
function likeliest(logits, count) {
  const best = [];
  for (const [id, logit] of logits.entries()) {
    if (best.length === count && logit <= logits[best[count - 1]]) continue;
    const at = best.findIndex((other) => logits[other] < logit);
    best.splice(at < 0 ? best.length : at, 0, id);
    best.length = Math.min(best.length, count);
  }
  return best;
}

/** Logits after `next`, behind `past` tokens whose caches are given; and the caches then. */
async function step(next, past, caches) {
  const length = past + next.length;
  const outputs = await session.run({
    ...caches,
    input_ids: new ort.Tensor("int64", BigInt64Array.from(next, BigInt), [1, next.length]),
    seqlens_k: new ort.Tensor("int32", Int32Array.of(length - 1), [1]),
    total_sequence_length: new ort.Tensor("int32", Int32Array.of(length), []),
  });
  const after = Object.fromEntries(Object.keys(caches).map((name) => [name, outputs[name.replace("past", "present")]]));
  return { logits: outputs.logits.data, caches: after };
}

serve({
  async load({ path, threads }) {
    ort.env.wasm.numThreads = threads;
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(readFileSync(path), {
      executionProviders: ["wasm"],
      externalData: [{ path: `${basename(path)}_data`, data: readFileSync(`${path}_data`) }],
    });
    return { threads: ort.env.wasm.numThreads };
  },
  async *generator(ids) {
    let caches = emptyCaches();
    let logits;
    for (let next = ids, past = 0; ; ) {
      ({ logits, caches } = await step(next, past, caches));
      past += next.length;
      next = likeliest(logits, 1);
      yield next[0];
    }
  },
  likeliest: async (ids, count) => likeliest((await step(ids, 0, emptyCaches())).logits, count),
});
