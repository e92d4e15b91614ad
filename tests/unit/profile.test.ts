// Times of single kernels: they change no bit of what is computed, and what a command touches is read from the arguments that it really has.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { load, type Model } from "lfm2-wasm";
import type { Engine } from "../../src/generate/engine.ts";
import { OP } from "../../src/kernels/commands.ts";
import { ARGUMENTS, type KernelTime } from "../../src/kernels/profile.ts";

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

async function greedy(engine: Engine, session: number, prompt: number, tokens: number): Promise<number[]> {
  await engine.open(session);
  const ids = Uint32Array.from({ length: prompt }, (_, i) => 5 + 3 * i);
  const out: number[] = [];
  for await (const event of engine.generate(session, session, { ids, maxTokens: tokens, stopIds: [], stop: [], sampling: GREEDY }))
    if (event.type === "token") out.push(event.id);
  await engine.close(session);
  return out;
}

const total = (times: readonly KernelTime[], what: "bytes" | "macs" | "ms" | "calls", kernel = ""): number =>
  times.filter((t) => t.kernel.startsWith(kernel)).reduce((sum, t) => sum + t[what], 0);

describe("the profile of a step", () => {
  let model: Model;
  before(async () => {
    model = await load("models/lfm2-mini", { dtype: "q4", threads: 1 });
  });
  after(() => model.dispose());

  it("knows the arguments of every op as assembly/README.md has them", () => {
    const rows = readFileSync("assembly/README.md", "utf8").matchAll(/^\| [\d, ]+ \| ([a-z0-9_, ]+) \| ([^|]*) \|/gm);
    const listed = new Map<string, string>();
    for (const [, ops = "", args = ""] of rows) {
      const [first = "", ...others] = ops.split(", "); // "attention_f32, _f16" are two
      for (const op of [first, ...others.map((name) => (name.startsWith("_") ? first.replace(/_[a-z0-9]+$/, name) : name))])
        listed.set(op, args);
    }
    for (const op of Object.keys(OP).filter((name) => name !== "nop")) assert.ok(listed.has(op), op);
    for (const [op, args] of Object.entries(ARGUMENTS)) assert.equal(args, listed.get(op), op);
  });

  it("changes no token, and ends when it is turned off", async () => {
    const plain = await greedy(model.engine, 1, 40, 12);
    await model.engine.profile(true);
    assert.deepEqual(await greedy(model.engine, 2, 40, 12), plain);
    const times = await model.engine.profile(false);
    assert.ok(total(times, "ms") > 0);
    assert.deepEqual(await greedy(model.engine, 3, 40, 12), plain);
    assert.deepEqual(await model.engine.profile(false), []);
  });

  it("starts from zero when it is turned on again", async () => {
    await model.engine.profile(true);
    await greedy(model.engine, 4, 8, 3);
    await model.engine.profile(true);
    await greedy(model.engine, 5, 8, 1);
    const times = await model.engine.profile(false);
    assert.equal(times.find((t) => t.kernel === "gather")?.calls, 1);
  });

  it("sends one row of a prompt of any length through the head: the last", async () => {
    const { hiddenSize: D, vocabSize: V } = model.config;
    for (const [i, prompt] of [1, 40, 300].entries()) {
      await model.engine.profile(true);
      await greedy(model.engine, 10 + i, prompt, 1);
      const heads = (await model.engine.profile(false)).filter((t) => t.part.startsWith("head"));
      assert.deepEqual(
        heads.map(({ calls, macs }) => ({ calls, macs })),
        [{ calls: 1, macs: V * D }],
        `a prompt of ${prompt}`,
      );
    }
  });

  it("counts every weight once a token, every product, and the keys and values that attention reads", async () => {
    const {
      hiddenSize: D,
      intermediateSize: F,
      vocabSize: V,
      layerTypes,
      numAttentionHeads: H,
      numKeyValueHeads: G,
      headDim: hd,
    } = model.config;
    const steps = 41; // of one row each: of a longer prompt, the last layer need not compute every row to its end
    await model.engine.profile(true);
    await greedy(model.engine, 6, 1, steps);
    const times = await model.engine.profile(false);
    const products = layerTypes.flatMap((type) => [
      ...(type === "conv" ? [[3 * D, D] as const] : [[(H + 2 * G) * hd, D] as const]),
      [D, D] as const,
      [2 * F, D] as const,
      [D, F] as const,
    ]);
    const sum = (cost: (N: number, K: number) => number): number => products.reduce((all, [N, K]) => all + cost(N, K), 0);
    assert.equal(total(times, "macs", "matmul"), steps * (sum((N, K) => N * K) + V * D));
    const parts = times.filter((t) => t.kernel.startsWith("matmul"));
    assert.ok(parts.every((t) => t.kernel === "matmul q4"));
    // N and K are multiples of 8 and 32 here: 4.5 bits a weight; rows go in with 1.5 bytes a value and come out with 4
    const weights = (steps * (sum((N, K) => N * K) + V * D) * 4.5) / 8;
    const rows = steps * (sum((N, K) => 1.5 * K + 4 * N) + 1.5 * D + 8); // of the head the largest alone, with its id
    assert.equal(total(times, "bytes", "matmul"), weights + rows);
    const attentions = layerTypes.filter((type) => type !== "conv").length;
    const pairs = (steps * (steps + 1)) / 2;
    assert.equal(total(times, "macs", "attention"), attentions * 2 * pairs * H * hd);
    assert.equal(total(times, "bytes", "attention"), attentions * (2 * pairs * G * hd * 2 + 8 * steps * H * hd));
    assert.equal(parts.find((t) => t.part.startsWith("head"))?.part, `head (${V}, ${D})`);
    assert.equal(total(times, "calls", "matmul"), steps * (4 * layerTypes.length + 1));
  });
});
