// The sampler against the reference's own logits processors: the same ids kept, the same probabilities, in both builds of the kernels.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { candidates, type SamplingOptions, sample } from "../../src/generate/sampler.ts";
import { instances, logitsOf } from "../tools/sampling-kernels.ts";

interface Case {
  readonly name: string;
  readonly params: Readonly<Record<string, number>>;
  readonly context: readonly number[];
  readonly logits: readonly (number | string | null)[];
  readonly kept: readonly number[];
  readonly probs: readonly number[];
  readonly argmax_after_penalty: number;
}

const NAMES: Readonly<Record<string, keyof SamplingOptions>> = {
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
};
const cases = JSON.parse(readFileSync("tests/golden/data/sampling/cases.json", "utf8")) as Case[];

function options(params: Case["params"]): SamplingOptions {
  return Object.fromEntries(
    Object.entries(params).map(([key, value]) => {
      assert.ok(NAMES[key], `unknown parameter ${key} in the goldens`);
      return [NAMES[key], value];
    }),
  );
}

describe("sampling goldens", () => {
  it("has cases", () => assert.equal(cases.length, 29));

  for (const test of cases) {
    it(test.name, async () => {
      const values = test.logits.map((v) => (typeof v === "number" ? v : Number.NEGATIVE_INFINITY));
      for (const instance of await instances(3)) {
        const { ids, weights } = candidates(logitsOf(instance, values), options(test.params), new Set(test.context));
        const total = weights.reduce((a, b) => a + b, 0);
        const probability = new Map(Array.from(ids, (id, i) => [id, weights[i]! / total]));
        assert.deepEqual(
          [...ids].sort((a, b) => a - b),
          test.kept,
          instance.variant,
        );
        for (const [i, id] of test.kept.entries())
          assert.ok(Math.abs(probability.get(id)! - test.probs[i]!) < 1e-5, `${instance.variant}: probability of ${id}`);
        for (let i = 1; i < weights.length; i++) assert.ok(weights[i]! <= weights[i - 1]!, "weights fall");
        const greedy = { ...options(test.params), temperature: 0 };
        assert.equal(sample(logitsOf(instance, values), greedy, new Set(test.context), 0), test.argmax_after_penalty, instance.variant);
      }
    });
  }
});
