// The bundled model as the mixtures of K-quants that people download: as stored against the same values in f32, on a trained model, whose choices are not ties.
import assert from "node:assert/strict";
import { openPath } from "../../src/adapters/node/files.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { pick } from "../scale.ts";
import { divergence, feed, greedy, miniGguf, tried, withModel } from "./support.ts";

const PROMPTS = ["What is the capital of France?", "Hello! Who are you?", "Add 12 and 30."];

/**
 * Divergence in nats of the worst row of a prompt. Where nothing is quantized again it comes from int8 activations alone (measured: 0.0024; Q4_0's is 0.0014); in Q5_K_M
 * from q8 as well (0.0025); Q3_K and Q2_K are requantized to q4 (0.085 and 0.26).
 */
const TYPES = pick<[type: string, bound: number, dtypes: readonly string[]][]>({
  gate: [
    ["Q4_K_M", 0.005, ["q4k", "q6k"]],
    ["Q5_K_M", 0.005, ["q8", "q6k"]],
    ["Q6_K", 0.005, ["q6k"]],
    ["Q3_K", 0.15, ["q4", "q6k"]],
  ],
  full: [
    ["Q4_K_M", 0.005, ["q4k", "q6k"]],
    ["Q5_K_M", 0.005, ["q8", "q6k"]],
    ["Q6_K", 0.005, ["q6k"]],
    ["Q3_K", 0.15, ["q4", "q6k"]],
    ["Q2_K", 0.4, ["q4", "q6k"]],
  ],
});

async function prompts(): Promise<number[][]> {
  const checkpoint = await openCheckpoint(await openPath("models/lfm2-mini"));
  const text = (words: string): string => `<|startoftext|><|im_start|>user\n${words}<|im_end|>\n<|im_start|>assistant\n`;
  const ids = PROMPTS.map((words) => checkpoint.tokenizer?.encode(text(words), { controlTokens: true }) ?? []);
  await checkpoint.close();
  return ids;
}

for (const [type, bound, dtypes] of TYPES) {
  describe(`lfm2-mini as ${type}`, () => {
    for (const variant of tried) {
      it(`divergence from its f32 below ${bound} nats in every row, the same greedy ids (${variant})`, async () => {
        const path = miniGguf(type);
        const [ids, count] = [await prompts(), type === "Q2_K" ? 8 : 16];
        const run = (dtype: "f32" | undefined) =>
          withModel(path, { dtype, kvDtype: "f32", variant }, (model, checkpoint) => ({
            rows: ids.map((prompt) => feed(model, prompt)),
            replies: ids.map((prompt) => greedy(model, prompt, count)),
            types: new Set([...checkpoint.tensors.values()].map((t) => t.type)),
            V: model.config.vocabSize,
          }));
        const [wide, stored] = [await run("f32"), await run(undefined)];
        for (const [i, rows] of stored.rows.entries()) {
          const far = divergence(wide.rows[i] ?? rows, rows, stored.V);
          assert.ok(far > 0 && far < bound, `${PROMPTS[i]}: ${far}`);
        }
        assert.deepEqual(stored.replies, wide.replies);
        assert.ok(stored.types.has(type.slice(0, 4) as "Q4_K"), [...stored.types].join());
      });
    }

    it(`runs in ${dtypes.join(" and ")}`, async () => {
      const { load } = await import("lfm2-wasm");
      const model = await load(miniGguf(type), { threads: 1 });
      assert.deepEqual(new Set(model.info.dtypes), new Set(dtypes));
      await model.dispose();
    });
  });
}
