// The sampler on the real kernels: against a slow one, against its own distribution, and on logits and options that are wrong.
import assert from "node:assert/strict";
import { FormatError, InputError } from "../../src/errors.ts";
import { History } from "../../src/generate/history.ts";
import { random } from "../../src/generate/philox.ts";
import { checkProcessors, type ProcessorOptions, rulesOf } from "../../src/generate/processors.ts";
import {
  candidates,
  checkSampling,
  cut,
  isGreedy,
  largestWanted,
  pickLargest,
  process,
  resolveSampling,
  type SamplingOptions,
  sample,
} from "../../src/generate/sampler.ts";
import type { KernelInstance } from "../../src/kernels/variants.ts";
import { biasedScores, probabilitiesOf } from "../reference/logit-bias.ts";
import { pick } from "../scale.ts";
import { instances, logitsOf } from "../tools/sampling-kernels.ts";

const OUT = Number.NEGATIVE_INFINITY;
const total = (weights: Float32Array): number => weights.reduce((a, b) => a + b, 0);

/** Random logits about 0, the same for the same seed. */
function randomLogits(size: number, seed: number, scale: number): Float32Array {
  return Float32Array.from(
    { length: size },
    (_, i) => scale * (random(seed, 3 * i) + random(seed, 3 * i + 1) + random(seed, 3 * i + 2) - 1.5),
  );
}

/** Ids that the definition keeps, in float64. Every border is moved by `slack`: kept sets in f32 lie between those of a slack above and one below 0. */
function reference(logits: Float32Array, options: SamplingOptions, context: ReadonlySet<number>, slack: number): Set<number> {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty: r = 1 } = options;
  const scores = Array.from(logits, (x, id) => (context.has(id) ? (x < 0 ? x * r : x / r) : x) / temperature);
  const order = scores.map((_, id) => id).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const largest = scores[order[0]!]!;
  const border = topK > 0 && topK < order.length ? scores[order[topK - 1]!]! : OUT;
  const likely = order.filter((id, i) => i === 0 || scores[id]! >= border - slack * Math.max(1, Math.abs(border)));
  const weight = (id: number) => Math.exp(scores[id]! - largest);
  const mass = topP * likely.reduce((sum, id) => sum + weight(id), 0);
  let before = 0;
  const nucleus = likely.filter((id, i) => {
    const stays = i === 0 || topP >= 1 || before < mass * (1 + slack);
    before += weight(id);
    return stays;
  });
  return new Set(nucleus.filter((id, i) => i === 0 || weight(id) >= minP * (1 - slack)));
}

function assertKept(logits: Float32Array, options: SamplingOptions, context: ReadonlySet<number>, ids: Uint32Array): void {
  const what = `V ${logits.length}, ${JSON.stringify(options)}`;
  const kept = new Set(ids);
  assert.equal(kept.size, ids.length, `${what}: an id twice`);
  const most = reference(logits, options, context, 5e-5);
  for (const id of kept) assert.ok(most.has(id), `${what}: ${id} is kept`);
  for (const id of reference(logits, options, context, -5e-5)) assert.ok(kept.has(id), `${what}: ${id} is missing`);
}

const settings: readonly SamplingOptions[] = [
  {},
  { temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05 },
  { temperature: 0.1, topK: 50, repetitionPenalty: 1.05 },
  { topK: 1 },
  { topK: 7, topP: 0.5 },
  { topP: 0.9 },
  { topP: 0.1, temperature: 2 },
  { topP: 0 },
  { minP: 0.001 },
  { minP: 1 },
  { topP: 0.95, minP: 0.05, temperature: 1.5, repetitionPenalty: 1.3 },
  { topK: 1000, topP: 0.99, minP: 0.0001, temperature: 3, repetitionPenalty: 0.7 },
  { topK: 201 },
  { topK: 4000, temperature: 0.2, repetitionPenalty: 1.1 },
  { temperature: 100 },
  { temperature: 0.001 },
];

describe("the largest logits alone", () => {
  it("give the token that all of them give, or say that they do not tell", async () => {
    const [instance] = await instances();
    const V = 200;
    let told = 0;
    let asked = 0;
    for (let seed = 0; seed < pick({ gate: 60, full: 2000 }); seed++) {
      const values = randomLogits(V, seed, [1, 8, 1e-30, 1e38][seed % 4]!).map((x, i) => (seed % 3 ? x : i % 5 ? Math.round(x) : OUT));
      if (seed % 7 === 0) values.fill(OUT, 3);
      for (const topK of [1, 2, 40])
        for (const options of [
          { topK, seed },
          { topK, topP: 0.7, minP: 0.1, temperature: [0.2, 0.7, 1e-3][seed % 3], seed },
          { temperature: 0 },
        ]) {
          const k = largestWanted(options, 64);
          assert.equal(k, "topK" in options ? topK + 1 : 1);
          const ids = [...values.keys()].filter((id) => values[id]! > OUT).sort((a, b) => values[b]! - values[a]! || a - b);
          const list = Int32Array.from({ length: k + 2 }, (_, i) => ids[i] ?? -1); // more than was wanted: somebody else wants them
          const largest = { values: Float32Array.from(list, (id) => values[id] ?? OUT), ids: list };
          const row = logitsOf(instance!, values);
          let all = 0;
          const got = pickLargest({ largest: () => largest, logits: () => row, logitsAfterAll: () => all++ }, 0, options, 9);
          asked++;
          assert.equal(all, got === undefined ? 1 : 0);
          if (got === undefined) continue;
          told++;
          assert.equal(got, sample(row, options, new Set(), 9), `${seed} ${JSON.stringify(options)}`);
        }
    }
    assert.ok(told > asked / 3 && told < asked, `${told} of ${asked}`);
    const row = logitsOf(instance!, new Float32Array(V));
    const bad = (value: number, id: number) => () => {
      const largest = { values: Float32Array.of(value), ids: Int32Array.of(id) };
      pickLargest({ largest: () => largest, logits: () => row, logitsAfterAll: assert.fail }, 0, { temperature: 0 }, 0);
    };
    assert.throws(bad(Number.NaN, 3), { name: "FormatError", message: /got NaN or Infinity/ });
    assert.throws(bad(OUT, -1), { name: "FormatError", message: /got -Infinity for all/ });
  });
});

describe("sampler", () => {
  let kernels: KernelInstance[];
  before(async () => {
    kernels = await instances();
  });

  it("keeps what the definition keeps, on random rows of every size", () => {
    for (const size of [1, 2, 3, 5, 17, 257, 2048, pick({ gate: 5003, full: 65_536 })]) {
      for (const [round, options] of settings.entries()) {
        for (const scale of [0.5, 4, 30]) {
          const logits = randomLogits(size, round, scale);
          const context = new Set(Array.from({ length: 20 }, (_, i) => Math.floor(random(9, i) * size)));
          const results = kernels.map((instance) => candidates(logitsOf(instance, logits), options, context));
          assertKept(logits, options, context, results[0]!.ids);
          for (const result of results) assert.deepEqual(result, results[0], "all builds give the same bits");
        }
      }
    }
  });

  it("orders candidates by falling logit, ties by id, zeros of both signs alike", () => {
    for (const instance of kernels) {
      const { ids, weights } = candidates(logitsOf(instance, [-1, -0, 0, 3, -1, 3, OUT, -20, 1e-40, -1e-40]), {}, []);
      assert.deepEqual([...ids], [3, 5, 8, 1, 2, 9, 0, 4, 7]);
      assert.equal(weights[0], 1);
    }
  });

  it("keeps all ties at the border of top-k and no token that was ruled out", () => {
    const keeps = (instance: KernelInstance, values: number[], options: SamplingOptions) => [
      ...candidates(logitsOf(instance, values), options, []).ids,
    ];
    for (const instance of kernels) {
      assert.deepEqual(keeps(instance, [2, 1, 2, 2, 0], { topK: 1 }), [0, 2, 3]);
      for (const options of [{ topK: 4 }, {}, { topP: 0.99 }, { minP: 0.01 }])
        assert.deepEqual(keeps(instance, [OUT, 1, OUT, 2, OUT], options), [3, 1]);
      // The same by way of the buckets that a large k goes: 300 tokens in groups of equals, every seventh ruled out.
      const many = Array.from({ length: 350 }, (_, i) => (i % 7 === 0 ? OUT : -Math.floor(i / 30)));
      const open = keeps(instance, many, {});
      assert.equal(open.length, 300);
      assert.deepEqual(
        keeps(instance, many, { topK: 220 }),
        open.filter((id) => id < 270),
      );
      assert.deepEqual(keeps(instance, many, { topK: 349 }), open);
    }
  });

  it("adds a bias to a logit, before the repetition penalty, as float64 has it", () => {
    const seen = [0, 1, 2];
    /** Scores behind all rules, and each token's probability. */
    const behind = (instance: KernelInstance, logits: number[], options: ProcessorOptions, repetitionPenalty: number): number[][] => {
      const history = new History(seen);
      const rules = rulesOf(checkProcessors(options), history, { endIds: [], maxLength: 100 });
      const row = logitsOf(instance, logits);
      process(row, { repetitionPenalty }, history, rules);
      const scores = [...row.copy()];
      const { ids, weights } = cut(row, {}, 1);
      return [scores, scores.map((_, id) => (ids.includes(id) ? weights[ids.indexOf(id)]! / total(weights) : 0))];
    };
    for (const instance of kernels) {
      // 1 + 2 = 3, of it a half; -2 + 1.5 = -0.5, doubled; 0.5 - 1 = -0.5, doubled; nothing on 3; 0.25 + 0.5 that is not seen
      const scores = (options: ProcessorOptions): number[] => behind(instance, [1, -2, 0.5, 3, 0.25], options, 2)[0]!;
      const logitBias = { 0: 2, 1: 1.5, 2: -1, 4: 0.5, 77: 9 };
      assert.deepEqual(scores({ logitBias }), [1.5, -1, -1, 3, 0.75]);
      // what is named twice has both; a bias of -Infinity rules out
      assert.deepEqual(scores({ logitBias, sequenceBias: [[[0], 3]] }), [3, -1, -1, 3, 0.75]);
      assert.deepEqual(scores({ logitBias: { 3: OUT } }), [0.5, -4, 0.25, OUT, 0.25]);
      for (let seed = 0; seed < 20; seed++) {
        const logits = [...randomLogits(30, seed, 6)];
        const biases = Array.from({ length: 12 }, (_, i): [number, number] => [(7 * i) % 30, 8 * random(seed, 100 + i) - 4]);
        const [got = [], shares = []] = behind(instance, logits, { logitBias: Object.fromEntries(biases) }, 1.3);
        const want = biasedScores(logits, biases, seen, 1.3);
        probabilitiesOf(want).forEach((share, id) => {
          assert.ok(Math.abs(got[id]! - want[id]!) < 1e-5, `${instance.variant}, seed ${seed}: ${id} has ${got[id]}, expected ${want[id]}`);
          assert.ok(Math.abs(shares[id]! - share) < 1e-5, `${instance.variant}, seed ${seed}: ${id}: ${shares[id]}, expected ${share}`);
        });
      }
    }
  });

  it("decides at the very border of top-p and min-p", () => {
    const keeps = (instance: KernelInstance, values: number[], options: SamplingOptions) => [
      ...candidates(logitsOf(instance, values), options, []).ids,
    ];
    for (const instance of kernels) {
      // What is removed holds at most 1 - topP: half of four equals goes, and so does half of two.
      assert.deepEqual(keeps(instance, [1, 1, 1, 1], { topP: 0.5 }), [0, 1]);
      assert.deepEqual(keeps(instance, [1, 1, 1, 1], { topP: 0.51 }), [0, 1, 2]);
      assert.deepEqual(keeps(instance, [1, 1, 0], { topK: 2, topP: 0.5 }), [0]);
      // e^-2 is 0.135335: around it a whole-numbered distance must be rounded up.
      assert.deepEqual(keeps(instance, [0, -2.0002, -2.0004], { minP: 0.1353 }), [0, 1]);
      assert.deepEqual(keeps(instance, [0, -1.9999, -2.0001], { minP: 0.13533 }), [0, 1]);
    }
  });

  it("draws each token as often as its probability says", () => {
    const logits = randomLogits(40, 3, 4);
    const draws = pick({ gate: 20_000, full: 400_000 });
    for (const options of [
      { temperature: 0.8 },
      { topK: 12 },
      { topP: 0.9 },
      { minP: 0.05 },
      { temperature: 1.3, topK: 30, topP: 0.95, minP: 0.01 },
    ]) {
      const { ids, weights } = candidates(logitsOf(kernels[0]!, logits), options, []);
      const counts = new Map<number, number>();
      for (let i = 0; i < draws; i++) {
        const id = sample(logitsOf(kernels[0]!, logits), { ...options, seed: 77 }, [], i);
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
      let chiSquare = 0;
      for (const [i, id] of ids.entries()) {
        const expected = (draws * weights[i]!) / total(weights);
        chiSquare += ((counts.get(id) ?? 0) - expected) ** 2 / expected;
        counts.delete(id);
      }
      assert.equal(counts.size, 0, "nothing but candidates is drawn");
      const freedom = ids.length - 1;
      // The mean and four deviations: the draws are fixed by the seed, so the bound holds or does not, once and for all.
      assert.ok(
        chiSquare < freedom + 4 * Math.sqrt(2 * freedom),
        `${JSON.stringify(options)}: chi-square ${chiSquare}, ${freedom} degrees of freedom`,
      );
    }
  });

  it("draws the same with nothing filtered as from a sorted list of all", () => {
    for (const [seed, scale] of [
      [1, 0.01],
      [2, 5],
      [3, 60],
    ] as const) {
      const logits = randomLogits(3001, seed, scale);
      const { ids, weights } = candidates(logitsOf(kernels.at(-1)!, logits), {}, []);
      for (let position = 0; position < 200; position++) {
        const mass = random(seed, position) * total(weights);
        let before = 0;
        const at = weights.findIndex((weight) => (before += weight) > mass);
        assert.equal(sample(logitsOf(kernels.at(-1)!, logits), { seed }, [], position), ids[at]);
      }
    }
  });

  it("depends on logits, options, seed and position alone", () => {
    const logits = randomLogits(500, 4, 6);
    const positions = Array.from({ length: 60 }, (_, i) => i);
    const run = (instance: KernelInstance, order: readonly number[], seed: number) => {
      const drawn = order.map((position): [number, number] => [
        position,
        sample(logitsOf(instance, logits), { temperature: 1.2, topP: 0.97, seed }, [1, 2], position),
      ]);
      return drawn.sort((a, b) => a[0] - b[0]);
    };
    const once = run(kernels[0]!, positions, 12);
    assert.deepEqual(run(kernels.at(-1)!, positions.toReversed(), 12), once);
    assert.notDeepEqual(run(kernels[0]!, positions, 13), once);
    assert.notDeepEqual(run(kernels[0]!, positions, 12 + 2 ** 32), once);
  });

  it("is greedy at temperature 0, after the penalty, the lowest id of equals", () => {
    for (const instance of kernels) {
      assert.equal(sample(logitsOf(instance, [1, 3, 3, 2]), { temperature: 0, seed: 5 }, [], 9), 1);
      assert.equal(sample(logitsOf(instance, [1, 3, 3, 2]), { temperature: 0, repetitionPenalty: 1.4 }, [1, 1000, -1], 9), 2);
      assert.deepEqual([...candidates(logitsOf(instance, [1, 3, 3, 2]), { temperature: 0 }, []).ids], [1]);
    }
    assert.ok(isGreedy({ temperature: 0 }) && isGreedy({ temperature: 1e-9 }) && !isGreedy({}) && !isGreedy({ topK: 1 }));
  });

  it("throws on logits that are no numbers", () => {
    for (const instance of kernels) {
      for (const options of [{ temperature: 0 }, {}, { topK: 1 }, { topP: 0.5 }, { minP: 0.1 }]) {
        for (const values of [[1, Number.NaN, 2], [1, Number.POSITIVE_INFINITY], [OUT, OUT], [Number.NaN]]) {
          const isRight = (error: unknown) => error instanceof FormatError && /^\[lfm2\] logits: expected .*\.$/.test(error.message);
          assert.throws(() => sample(logitsOf(instance, values), options, [], 0), isRight, `${values}`);
        }
      }
    }
  });

  it("takes the likeliest where options make f32 overflow", () => {
    for (const instance of kernels) {
      for (const options of [{}, { topK: 2 }, { topP: 0.9 }, { minP: 0.5 }]) {
        assert.equal(sample(logitsOf(instance, [-3e38, 3e38, 1]), { temperature: 0.0001, ...options }, [], 0), 1);
        assert.equal(sample(logitsOf(instance, [3e38, 1]), { repetitionPenalty: 0.01, ...options }, [0], 0), 0);
      }
    }
  });

  it("works above 2 GiB and writes nothing but its row and scratch", async () => {
    const address = 2 ** 31 + 65_536;
    for (const instance of await instances(32_768 + 16)) {
      for (const options of settings) {
        const logits = randomLogits(1001, 5, 4);
        const id = sample(logitsOf(instance, logits, address), { ...options, seed: 1 }, [3, 4], 2);
        assert.equal(id, sample(logitsOf(kernels[0]!, logits), { ...options, seed: 1 }, [3, 4], 2));
        // The row takes 4004 bytes, ends in a gap of 64 and more, then three parts of 4016 bytes are scratch.
        for (const gap of [address - 64, address + 4032, address + 4032 + 64 + 3 * 4016]) {
          assert.ok(new Float32Array(instance.memory.buffer, gap, 16).every(Number.isNaN), `bytes at ${gap}`);
        }
      }
    }
  });

  it("penalizes ids of the row only, and lists the largest", () => {
    const logits = logitsOf(kernels[0]!, [1, -1, 2]);
    logits.penalize([0, 7, -3, 2], 2);
    assert.deepEqual([...logits.copy()], [0.5, -1, 1]);
    assert.deepEqual(logits.topK(2), { values: Float32Array.of(1, 0.5), ids: Uint32Array.of(2, 0) });
  });

  it("checks options at the door", () => {
    const wrong: Readonly<Record<string, readonly unknown[]>> = {
      temperature: [Number.NaN, -0.1, Number.POSITIVE_INFINITY, "0.5", null, {}],
      topK: [1.5, -1, Number.NaN],
      topP: [1.01, -0.01, Number.NaN],
      minP: [2, -1, Number.NaN],
      repetitionPenalty: [0, -1, Number.NaN],
      seed: [-1, 0.5, 2 ** 53, 1n, Number.NaN],
    };
    for (const [name, values] of Object.entries(wrong)) {
      for (const value of values) {
        const isRight = (error: unknown) =>
          error instanceof InputError && error.message.startsWith(`[lfm2] sampling: expected ${name} to be `);
        assert.throws(() => resolveSampling({ [name]: value } as SamplingOptions), isRight, `${name} ${String(value)}`);
      }
    }
    checkSampling({ temperature: 0, topK: 0, topP: 0, minP: 0, repetitionPenalty: 1, seed: 0 });
  });

  it("fills in what a call leaves open", () => {
    const sampling = resolveSampling({ topK: 3, seed: 8 }, { temperature: 0.3, topK: 50, repetitionPenalty: 1.05 });
    const off = { topP: 1, minP: 0, typicalP: 1, epsilonCutoff: 0, etaCutoff: 0, topNSigma: 0 };
    assert.deepEqual(sampling, { ...off, temperature: 0.3, topK: 3, repetitionPenalty: 1.05, seed: 8 });
    const seeds = new Set(Array.from({ length: 50 }, () => resolveSampling({}).seed));
    assert.ok(seeds.size > 40);
    for (const seed of seeds) checkSampling({ seed });
  });
});
