// The 350M shape, in the full run: best ten logits of five prompts and 32 greedy ids of the float64 reference.
import assert from "node:assert/strict";
import { pick } from "../scale.ts";
import { checkpointFolder, feed, goldenJson, greedy, variants, withModel } from "./support.ts";

interface BigGolden {
  readonly prompts: readonly { ids: number[]; top10: [number, number][] }[];
  readonly greedy: { prompt: number[]; ids: number[] };
}

const golden = goldenJson<BigGolden>("big", "350m.json");

for (const dtype of pick({ gate: [], full: ["bf16", "f32"] as const })) {
  for (const variant of variants) {
    describe(`golden model 350m, ${dtype} (${variant})`, () => {
      it("best ten logits within 2e-4, in order where the gap allows; 32 greedy ids", () =>
        withModel(checkpointFolder("350m"), { dtype, kvDtype: "f32", variant }, (model) => {
          const V = model.config.vocabSize;
          for (const { ids, top10 } of golden.prompts) {
            const logits = feed(model, ids, [128]).subarray(-V);
            for (const [id, value] of top10) assert.ok(Math.abs((logits[id] ?? 0) - value) < 2e-4, `id ${id}: ${logits[id]} for ${value}`);
            const tenth = top10.at(-1)?.[1] ?? 0;
            const better = logits.reduce((n, v) => n + (v > tenth + 4e-4 ? 1 : 0), 0);
            assert.ok(better <= 10, `${better} logits above the tenth best`);
          }
          assert.deepEqual(greedy(model, golden.greedy.prompt, golden.greedy.ids.length), golden.greedy.ids);
        }));
    });
  }
}
