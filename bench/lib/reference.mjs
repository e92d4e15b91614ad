// The reference's own numbers, before anything is timed: a small golden model with the dtype, the cache, the build and the threads that are to be measured, against logits that the float64
// reference computed of the same file (tests/golden/data).
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { load } from "lfm2-wasm";
import { tinyQuant } from "./checkpoints.mjs";
import { check } from "./measure.mjs";

const json = (name) => JSON.parse(readFileSync(`tests/golden/data/models/tiny-quant/${name}.json`, "utf8"));

/** By dtype: the golden file's type, and how far logits (deviation 1.6) may be from the reference; on random weights 8 bits of activations carry through. As tests/golden/models.test.ts has it. */
const FILES = {
  f32: ["F32", 1e-4],
  f16: ["F16", 1e-4],
  bf16: ["BF16", 1e-4],
  q8: ["Q8_0", 0.3],
  q4: ["Q4_0", 0.4],
  q4k: ["Q4_K_M", 0.3],
  q6k: ["Q6_K", 0.31],
};
/** What keys and values of a type add. */
const CACHES = { f32: 0, f16: 1e-2, q8: 0.25 };

/**
 * @param ways each { name, variant, threads, kvDtype }
 * @returns for each way { name, far }: the largest distance of a logit from the reference's
 * @throws CheckFailed where one is too far, or the file is another than the reference's
 */
export async function againstReference(dtype, ways) {
  const [type, bound] = FILES[dtype] ?? [];
  if (!type) throw new Error(`bench: expected one of ${Object.keys(FILES).join(", ")}, got ${JSON.stringify(dtype)}`);
  const { prompt, ...entries } = json("golden");
  const golden = type === "Q4_0" ? json("q4_0-head-q8_0") : entries[type];
  const path = await tinyQuant(type);
  const hash = createHash("sha256").update(readFileSync(path)).digest("hex");
  check(
    hash === golden.sha256,
    `${path}: expected the SHA-256 ${golden.sha256} of the reference's file, got ${hash}. Delete it: it is made again`,
  );
  const results = [];
  for (const { name, variant, threads, kvDtype } of ways) {
    const model = await load(path, { variant, threads, kvDtype, prefixCacheBytes: 0 });
    try {
      const { info, config } = model;
      const got = `${info.variant}, ${info.threads} threads, ${info.kvDtype} cache`;
      check(got === `${variant}, ${threads} threads, ${kvDtype} cache`, `the golden model runs as ${got}, not as ${name}`);
      const { logits } = await model.forward({ inputIds: prompt });
      const far = golden.prompt_top.map((top, row) =>
        Math.max(...top.map(([id, value]) => Math.abs(logits.data[row * config.vocabSize + id] - value))),
      );
      const most = Math.max(...far);
      const limit = bound + CACHES[kvDtype];
      check(most <= limit, `${name}: logits of the golden model (${type}) are ${most} from the reference's, at most ${limit} expected`);
      results.push({ name, far: most });
    } finally {
      model.dispose();
    }
  }
  return results;
}
