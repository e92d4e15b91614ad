// A model in pieces: any layer range loads alone, reads its own tensors only, and a chain of ranges gives the bits of the whole.
import assert from "node:assert/strict";
import { openPath } from "../../src/adapters/node/files.ts";
import { LocalEngine } from "../../src/generate/local-engine.ts";
import type { Cache } from "../../src/models/cache.ts";
import { type Checkpoint, openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import type { LayerRange } from "../../src/models/lfm2.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { checkpointFolder, feed, goldenJson, kernels, sameBits } from "../golden/support.ts";

/** The checkpoint with every tensor outside `allowed` taken away. */
function only(checkpoint: Checkpoint, allowed: (name: string) => boolean): Checkpoint {
  return { ...checkpoint, tensors: new Map([...checkpoint.tensors].filter(([name]) => allowed(name))) };
}

function belongs(range: LayerRange, tied: boolean): (name: string) => boolean {
  return (name) => {
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    if (layer !== undefined) return Number(layer) >= range.from && Number(layer) < range.to;
    if (name === "model.embed_tokens.weight") return range.embedding || (range.head && tied);
    return range.head;
  };
}

for (const [preset, cuts] of [
  ["tiny-deep", [0, 3, 4, 9, 12]],
  ["tiny-attn-first", [0, 1, 4]],
] as const) {
  describe(`layer ranges of ${preset}`, () => {
    it("a chain of ranges gives the bits of the whole, chunk by chunk and token by token", async () => {
      const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
      const { long } = goldenJson<{ long: number[] }>("models", preset, "golden.json");
      const ids = long.slice(0, 40);
      const { model: whole } = await loadModel(checkpoint, kernels, { dtype: "q8" });
      const expected = feed(whole, ids);

      const stages: { model: LanguageModel; cache: Cache }[] = [];
      for (let i = 0; i + 1 < cuts.length; i++) {
        const from = cuts[i] ?? 0;
        const to = cuts[i + 1] ?? 0;
        const range = { from, to, embedding: i === 0, head: i + 2 === cuts.length };
        const part = only(checkpoint, belongs(range, checkpoint.config.tieWordEmbeddings));
        const { model } = await loadModel(part, kernels, { dtype: "q8", range });
        stages.push({ model, cache: model.openCache() });
      }
      const V = checkpoint.config.vocabSize;
      for (let at = 0; at < ids.length; ) {
        const chunk = ids.slice(at, at + (at === 0 ? 33 : 1));
        let hidden = new Float32Array(0);
        stages.forEach(({ model, cache }, i) => {
          const isLast = i + 1 === stages.length;
          const T = model.step([i === 0 ? { cache, ids: chunk } : { cache, hidden }], isLast ? { logitsOf: [chunk.length - 1] } : {});
          hidden = new Float32Array(model.hidden(T));
        });
        at += chunk.length;
        const logits = stages.at(-1)?.model.logits().copy() ?? new Float32Array(0);
        assert.ok(sameBits(logits, expected.slice((at - 1) * V, at * V)), `position ${at - 1}`);
      }
      await checkpoint.close();
    });

    it("a range misses a tensor of its own", async () => {
      const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
      const range = { from: 1, to: 3, embedding: false, head: false };
      const part = only(checkpoint, (name) => !name.startsWith("model.layers.2."));
      await assert.rejects(loadModel(part, kernels, { range }), { name: "FormatError", message: /model\.layers\.2\./ });
      await checkpoint.close();
    });
  });
}

describe("rows that a step computes to the end", () => {
  for (const preset of ["tiny-deep", "tiny-attn-only", "tiny-conv-only"])
    for (const dtype of ["f32", "q4"] as const)
      it(`some, one or none of them: the bits of all, then and later (${preset}, ${dtype})`, async () => {
        const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
        const { long } = goldenJson<{ long: number[] }>("models", preset, "golden.json");
        const ids = long.slice(0, 60);
        const { model } = await loadModel(checkpoint, kernels, { dtype });
        const expected = feed(model, ids);
        const V = model.config.vocabSize;
        const cache = model.openCache();
        let at = 0;
        for (const [T, logitsOf] of [
          [20, []],
          [9, [8]],
          [1, []],
          [12, [0, 4, 5, 11]],
          [1, [0]],
          [7, [0, 1, 2, 3, 4, 5, 6]],
          [5, [1]],
          [5, [4]],
        ] as const) {
          model.step([{ cache, ids: ids.slice(at, at + T) }], { logitsOf });
          logitsOf.forEach((row, i) => {
            const want = expected.slice((at + row) * V, (at + row + 1) * V);
            assert.ok(sameBits(model.logits(i).copy(), want), `row ${row} of ${T} at ${at}`);
          });
          at += T;
        }
        for (const logitsOf of [[1, 1], [2, 1], [3], [-1]])
          assert.throws(() => model.step([{ cache, ids: [1, 2, 3] }], { logitsOf }), {
            name: "RangeError",
            message: /ascending rows below 3/,
          });
        assert.equal(cache.position, at);
        await checkpoint.close();
      });
});

describe("several sequences in a step", () => {
  it("ragged sequences give the bits that each gives alone", async () => {
    const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-deep")));
    const { long } = goldenJson<{ long: number[] }>("models", "tiny-deep", "golden.json");
    const { model } = await loadModel(checkpoint, kernels, { dtype: "q4" });
    const V = model.config.vocabSize;
    const sequences = [long.slice(0, 50), long.slice(50, 57), long.slice(60, 101)];
    const alone = sequences.map((ids) => feed(model, ids));
    const caches = sequences.map(() => model.openCache());
    const fed = sequences.map(() => 0);
    for (const lengths of [
      [20, 1, 40],
      [30, 5, 1],
      [0, 1, 0],
    ]) {
      const inputs = sequences.flatMap((ids, i) =>
        (lengths[i] ?? 0) > 0 ? [{ i, ids: ids.slice(fed[i], (fed[i] ?? 0) + (lengths[i] ?? 0)) }] : [],
      );
      const ends: number[] = [];
      let row = -1;
      for (const { ids } of inputs) ends.push((row += ids.length));
      model.step(
        inputs.map(({ i, ids }) => ({ cache: caches[i] ?? assert.fail(), ids })),
        { logitsOf: ends },
      );
      inputs.forEach(({ i, ids }, n) => {
        fed[i] = (fed[i] ?? 0) + ids.length;
        const at = (fed[i] ?? 0) - 1;
        assert.ok(
          sameBits(model.logits(n).copy(), (alone[i] ?? assert.fail()).slice(at * V, (at + 1) * V)),
          `sequence ${i}, position ${at}`,
        );
      });
    }
    await checkpoint.close();
  });

  it("a turn that comes after close() finds the session closed, and harms no other", async () => {
    const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-deep")));
    const { model } = await loadModel(checkpoint, kernels, { dtype: "f32" });
    const engine = new LocalEngine(model, undefined);
    const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
    const request = { ids: Uint32Array.of(1, 5, 9), maxTokens: 40, stopIds: [], stop: [], sampling };
    const run = async (call: number, session: number): Promise<number[]> => {
      const ids: number[] = [];
      for await (const event of engine.generate(call, session, request)) if (event.type === "token") ids.push(event.id);
      return ids;
    };
    await engine.open(0);
    const running = run(0, 0);
    const closing = engine.close(0);
    await assert.rejects(run(1, 0), { name: "InputError", code: "closed" });
    const expected = await running;
    await closing;
    await engine.open(1);
    assert.deepEqual(await run(2, 1), expected);
    await engine.close(1);
    assert.equal((await engine.status()).usedPages, 0);
    await checkpoint.close();
  });

  it("a closed session leaves no state to the next", async () => {
    const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-conv-first")));
    const { model } = await loadModel(checkpoint, kernels, { dtype: "f32" });
    const ids = [1, 5, 9, 200, 7];
    const first = feed(model, ids);
    feed(model, [300, 301, 302, 303]);
    assert.ok(sameBits(feed(model, ids), first));
    const cache = model.openCache();
    model.step([{ cache, ids: [44, 45, 46] }]);
    cache.reset();
    model.step([{ cache, ids }], { logitsOf: [4] });
    assert.ok(sameBits(model.logits().copy(), first.slice(4 * model.config.vocabSize)));
    await checkpoint.close();
  });
});
