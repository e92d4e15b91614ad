// Turns on an engine where it goes, or is left, at any moment.
import assert from "node:assert/strict";
import { load } from "lfm2-wasm";
import { AbortError } from "../../src/errors.ts";
import type { GenerateEvent, GenerateRequest } from "../../src/generate/engine.ts";
import { LocalEngine } from "../../src/generate/local-engine.ts";
import { checkpointFolder, modelOf } from "../golden/support.ts";

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const request = (more: Partial<GenerateRequest>): GenerateRequest =>
  ({ ids: Uint32Array.of(1, 5, 9), maxTokens: 12, stopIds: [], stop: [], sampling: GREEDY, ...more }) as GenerateRequest;

describe("turns", () => {
  it("that share a step all end with an error where the model goes between two of them", async () => {
    for (let at = 1; at <= 8; at++) {
      const model = await modelOf("tiny-deep");
      const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0 });
      let shown = 0;
      const run = async (call: number): Promise<void> => {
        await engine.open(call);
        for await (const event of engine.generate(call, call, request({ asksForLogits: "to-change" }))) {
          if (event.type !== "logits") continue;
          if (++shown === at) await engine.dispose();
          else await engine.supply(call, event.logits);
        }
      };
      const ended = await Promise.allSettled([run(1), run(2)]);
      for (const one of ended) assert.ok(one.status === "rejected" && one.reason instanceof AbortError, `${at}: ${one.status}`);
    }
  });

  it("whose caller may change the logits are that caller's fault when none is left, those that are only seen the model's", async () => {
    const engine = new LocalEngine(await modelOf("tiny-deep"), undefined, { prefixCacheBytes: 0 });
    for (const [i, [asksForLogits, name]] of (
      [
        ["to-change", "InputError"],
        ["to-see", "FormatError"],
      ] as const
    ).entries()) {
      const run = async (): Promise<void> => {
        await engine.open(i);
        for await (const event of engine.generate(i, i, request({ asksForLogits })))
          if (event.type === "logits") await engine.supply(i, event.logits.fill(Number.NaN));
      };
      await assert.rejects(run, { name });
    }
    await engine.dispose();
  });

  it("with beams that are left give their pages back before the call that leaves them ends", async () => {
    const model = await modelOf("tiny-deep");
    const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0 });
    const beams = { count: 3, lengthPenalty: 1, earlyStopping: false, returned: 1, isSampled: false };
    for (const leaveAt of [1, 2, 7]) {
      await engine.open(1);
      const turn = engine.generate(1, 1, request({ beams, asksForLogits: "to-change" }));
      for (let shown = 0; shown < leaveAt; ) {
        const { value } = (await turn.next()) as { value: GenerateEvent };
        if (value.type !== "logits") continue;
        shown++;
        await engine.supply(1, value.logits);
      }
      await turn.return?.();
      const { pages } = model.caches;
      assert.equal(pages.used, 1, `left at ${leaveAt}: the prompt's alone`);
      await engine.close(1);
      assert.equal(pages.used, 0);
    }
    await engine.dispose();
  });

  it("that want no more than the largest logits have no others computed, alone, beside each other and with guesses, and say the same", async () => {
    const model = await modelOf("tiny-deep");
    const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0 });
    let call = 0;
    const run = async (more: Partial<GenerateRequest>): Promise<number[]> => {
      const own = call++;
      await engine.open(own);
      const ids: number[] = [];
      for await (const event of engine.generate(own, own, request(more))) if (event.type === "token") ids.push(event.id);
      await engine.close(own);
      return ids;
    };
    /** What ran the head meanwhile. */
    const heads = async (work: () => Promise<unknown>): Promise<Set<string>> => {
      const step = model.step.bind(model);
      const seen = new Set<string>();
      model.step = (inputs, options = {}) => {
        if (options.logitsOf?.length) seen.add(`${options.largest ?? 0}`);
        return step(inputs, options);
      };
      await work();
      model.step = step;
      return seen;
    };
    const speculation = { by: "prompt-lookup", ngram: 1, max: 3, isAdaptive: false } as const;
    const some = Array.from({ length: 6 }, (_, seed) => ({
      ...GREEDY,
      temperature: 0.5 + 0.4 * seed,
      topK: 1 + 7 * seed,
      topP: 0.9,
      seed,
    }));
    for (const [sampling, k] of [[GREEDY, 1], ...some.map((each) => [each, each.topK + 1] as const)] as const) {
      let all: number[] = [];
      assert.deepEqual(
        await heads(async () => void (all = await run({ sampling, topLogprobs: 0 }))),
        new Set(["0"]),
        "log-probabilities need all",
      );
      const ways = [{ sampling }, { sampling, speculation }];
      assert.deepEqual(await heads(async () => assert.deepEqual(await run({ sampling }), all)), new Set([`${k}`]));
      assert.deepEqual(await Promise.all(ways.map((way) => run(way))), [all, all]);
      assert.deepEqual(await Promise.all([run({ sampling }), run({ sampling, topLogprobs: 0 })]), [all, all], "beside one that needs all");
    }
    for (const sampling of [
      { ...GREEDY, repetitionPenalty: 1.1 },
      { ...GREEDY, temperature: 1 },
      { ...GREEDY, temperature: 1, topK: 64 },
    ])
      assert.deepEqual(await heads(() => run({ sampling })), new Set(["0"]), JSON.stringify(sampling));
    assert.deepEqual(await heads(() => run({ processing: { minTokens: 3 } })), new Set(["0"]), "a rule");
    await engine.dispose();
  });

  it("on more threads than the vocabulary has groups of columns end, and say the same", async () => {
    const ids: Uint32Array[] = [];
    for (const threads of [1, 37]) {
      const model = await load(checkpointFolder("tiny-gqa3"), { threads, cache: false });
      assert.equal(model.info.threads, threads);
      ids.push((await model.generate(Uint32Array.of(1, 5, 9), { maxTokens: 4, temperature: 0, repetitionPenalty: 1 })).tokens);
      model.dispose();
    }
    assert.deepEqual(ids[1], ids[0]);
  });
});
