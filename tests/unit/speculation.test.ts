// Guessed tokens by their parts: what is guessed, how many guesses are worth their rows, and that what comes out has the model's own distribution.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Chat, type Folder, type GenerateOptions, inspect, load, type Model } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { larger } from "../../scripts/checkpoints/larger.mjs";
import { fromPreset, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { MemoryError } from "../../src/errors.ts";
import { Acceptance, DraftBudget, type Place } from "../../src/generate/draft-budget.ts";
import { KIND, PromptLookup } from "../../src/generate/drafters.ts";
import type { GenerateRequest, SpeculationRequest } from "../../src/generate/engine.ts";
import { History } from "../../src/generate/history.ts";
import { LocalEngine } from "../../src/generate/local-engine.ts";
import { random } from "../../src/generate/philox.ts";
import { StepCosts } from "../../src/generate/step-costs.ts";
import { bytesSource } from "../../src/weights/source.ts";
import { Random, seedOf } from "../bits/random.ts";
import { checkpointFolder, feed, modelOf } from "../golden/support.ts";
import { pick } from "../scale.ts";

const GREEDY = { temperature: 0 };
const NEVER: readonly number[] = [];
let calls = 0;

/** Tokens of a turn in a session of its own, and how many guesses were right. */
async function turn(
  engine: LocalEngine,
  request: Pick<GenerateRequest, "ids" | "maxTokens" | "sampling" | "processing" | "speculation">,
): Promise<{ ids: number[]; drafted: number; accepted: number; error: unknown }> {
  const call = calls++;
  await engine.open(call);
  const out = { ids: [] as number[], drafted: 0, accepted: 0, error: undefined as unknown };
  try {
    for await (const event of engine.generate(call, call, { stopIds: NEVER, stop: [], ...request })) {
      if (event.type === "token") out.ids.push(event.id);
      if (event.type === "finish") Object.assign(out, event.speculation);
    }
  } catch (error) {
    out.error = error;
  }
  await engine.close(call);
  return out;
}

const given = (ids: readonly number[], max = 15): SpeculationRequest => ({
  by: "given",
  ngram: 1,
  max,
  isAdaptive: false,
  ids: Uint32Array.from(ids),
});

describe("prompt lookup", () => {
  const look = (ids: readonly number[], ngram = 2, count = 4): readonly number[] =>
    new PromptLookup(ngram).draft(new History(ids), () => count).ids;

  it("goes on as the longest match did, the latest of several", () => {
    assert.deepEqual(look([1, 2, 3, 4, 5, 9, 1, 2], 2, 3), [3, 4, 5]);
    assert.deepEqual(look([1, 2, 3, 7, 7, 1, 2, 4, 7, 7, 1, 2], 2, 2), [4, 7], "both match [7 7] 1 2, no: the second has more before it");
    assert.deepEqual(look([5, 1, 2, 3, 6, 1, 2, 4, 5, 1, 2], 2, 1), [3], "5 1 2 is longer than 1 2");
    assert.deepEqual(look([1, 2, 8, 1, 2, 9, 1, 2], 2, 1), [9]);
    assert.deepEqual(look([1, 2, 3, 4, 5, 6]), [], "nothing has come before");
    assert.deepEqual(look([1, 2, 3, 1], 2), []);
    assert.deepEqual(look([1, 2, 3, 1], 1, 2), [2, 3]);
    assert.deepEqual(look([1], 1), []);
  });

  it("finds a long match that only a pair leads to, where a single token stands at more places than are looked at", () => {
    const often = Array.from({ length: 40 }, (_, i) => [2, 100 + i]).flat();
    assert.deepEqual(look([7, 1, 2, 3, 4, ...often, 7, 1, 2], 1, 2), [3, 4]);
  });

  it("goes round a loop as often as it takes", () => {
    assert.deepEqual(look([7, 8, 9, 7, 8, 9, 7, 8, 9], 2, 7), [7, 8, 9, 7, 8, 9, 7]);
    assert.deepEqual(look([4, 4, 4], 1, 5), [4, 4, 4, 4, 4]);
  });

  it("is what a search of everything finds, as the sequence grows", () => {
    const r = new Random(seedOf("prompt lookup"));
    for (let n = 0; n < 20; n++) {
      const history = new History([]);
      const ngram = 1 + r.below(3);
      const lookup = new PromptLookup(ngram);
      for (let t = 0; t < 60; t++) {
        history.push(r.below(3 + 4 * (n % 3)));
        const { ids } = history;
        let best = { at: 0, length: ngram - 1 };
        for (let at = ids.length - 1; at > 0; at--) {
          let length = 0;
          while (length < at && ids[at - 1 - length] === ids[ids.length - 1 - length]) length++;
          if (length > best.length) best = { at, length };
        }
        const [guess] = lookup.draft(history, () => 1).ids;
        // of very many places only the latest are looked at: then what is found may be shorter
        if (best.at === 0) assert.equal(guess, undefined);
        else if (ids.length < 33) assert.equal(guess, ids[best.at]);
        else assert.ok(guess !== undefined);
      }
    }
  });
});

describe("how many guesses are worth while", () => {
  /** Of guesses that are only looked up. */
  const FREE = { msPerToken: 0, msBefore: 0, msOfPrompt: 0 };
  /** A machine where a row more costs so much of a step. */
  const machine = (slope: number): StepCosts => {
    const costs = new StepCosts();
    for (let rows = 1; rows <= 64; rows++) costs.count(rows, 10 * (1 + slope * (rows - 1)));
    return costs;
  };
  /** Plays turns in which a guess is right with a probability. @returns times of `tokens` tokens, with and without guesses in steps */
  const play = (slope: number, rate: (token: number) => number, tokens: number, others = 0): number => {
    const costs = machine(slope);
    const budget = new DraftBudget(costs);
    const place: Place = { acceptance: new Acceptance(), kind: 0, others, ...FREE };
    const r = new Random(seedOf(`${slope} ${tokens}`));
    let ms = 0;
    for (let token = 0; token < tokens; ) {
      const n = budget.most(place, Math.min(15, tokens - token - 1));
      let right = 0;
      while (right < n && r.below(10_000) < 10_000 * rate(token + right)) right++;
      if (n > 0) budget.count(place, n, right);
      else budget.pass(1);
      ms += costs.ms(1 + others + n);
      token += 1 + right;
    }
    return (tokens * costs.ms(1 + others)) / ms; // speed against no guesses, where the others' tokens do not count
  };

  it("loses at most 2 % where all are wrong, in a short reply too", () => {
    for (const slope of [0.05, 0.3, 0.6, 1])
      for (const tokens of [96, 256, 2000])
        assert.ok(play(slope, () => 0, tokens) >= 0.98, `${slope} ${tokens}: ${play(slope, () => 0, tokens)}`);
  });

  it("carries over to the next turn what guesses have gained, and no more than that", () => {
    const costs = machine(0.5);
    const most = (budget: DraftBudget): number => {
      budget.begin();
      const acceptance = new Acceptance();
      acceptance.count(0, 100, 100);
      return budget.most({ acceptance, kind: 0, others: 0, ...FREE }, 15);
    };
    const gained = new DraftBudget(costs);
    const place: Place = { acceptance: new Acceptance(), kind: 0, others: 0, ...FREE };
    for (let n = 0; n < 20; n++) gained.count(place, 4, 4);
    gained.pass(1);
    assert.equal(most(new DraftBudget(costs)), 2, "one step at first");
    assert.equal(most(gained), 12, "6 steps at most");
  });

  it("begins a session at the rate of all of them, and follows its own outcomes from there", () => {
    const all = new Acceptance();
    for (let n = 0; n < 50; n++) new Acceptance(all).count(0, 4, 4);
    const session = new Acceptance(all);
    assert.ok(session.rate(0) > 0.95, `${session.rate(0)}`);
    assert.equal(session.rate(1), 0.75, "of another kind nothing is known");
    for (let n = 0; n < 3; n++) session.count(0, 4, 0);
    assert.ok(session.rate(0) < 0.5, `${session.rate(0)}`);
  });

  it("guesses behind single tokens while they are right, never at a loss to find out, and what follows as behind pairs", () => {
    const budget = new DraftBudget(machine(0.3));
    const acceptance = new Acceptance(budget.acceptance);
    const place = (kind: number): Place => ({ acceptance, kind, others: 0, ...FREE });
    const [usual, single] = [place(KIND.usual), place(KIND.single)];
    for (let n = 0; n < 4; n++) budget.count(single, 4, 4);
    budget.pass(1);
    assert.ok(acceptance.rate(KIND.usual) > 0.9, `${acceptance.rate(KIND.usual)}`);
    assert.ok(budget.most(single, 15) > 4);
    budget.count(single, 4, 1);
    assert.ok(acceptance.rate(KIND.single) > 0.85, "the pair behind it was wrong");
    let tries = 0;
    for (let n = 0; n < 1000; n++) {
      const guesses = budget.most(single, 15);
      if (guesses > 0) {
        tries++;
        budget.count(single, guesses, 0);
      } else budget.pass(1);
    }
    assert.ok(tries > 0 && tries < 10, `${tries} tries`);
    assert.ok(budget.most(usual, 15) > 1, "others go on");
    assert.equal(new Acceptance(budget.acceptance).rate(KIND.single), 0.6, "another session begins anew");
  });

  it("goes without soon, and then once in a while, for what that takes is what rows are measured against", () => {
    const budget = new DraftBudget(machine(0.3));
    const place: Place = { acceptance: new Acceptance(), kind: KIND.usual, others: 0, ...FREE };
    let without = 0;
    for (let n = 0; n < 330; n++) {
      const guesses = budget.most(place, 15);
      if (guesses > 0) {
        budget.count(place, guesses, guesses);
        continue;
      }
      without++;
      budget.pass(1);
    }
    assert.equal(without, 4 + 8, "after 2, 4, 8 and 16 of them, then after 32 each time");
  });

  it("asks a draft model as long as it pays, with all that it reads; one that was given up once more after 32 turns", () => {
    const tokens = 96;
    /** Turns in which a guess is right with a probability and takes a fifth of a step, a token that is read a twentieth. @returns speed against no guesses, turn by turn */
    const speeds = (turns: number, rate: (turn: number) => number, msPerToken = 2, prompt = 50): number[] => {
      const [costs, r] = [machine(0.3), new Random(seedOf(`draft ${msPerToken}`))];
      const budget = new DraftBudget(costs);
      return Array.from({ length: turns }, (_, turn) => {
        budget.begin();
        const acceptance = new Acceptance(budget.acceptance);
        const place: Place = { acceptance, kind: 0, others: 0, msPerToken, msBefore: 0, msOfPrompt: 0.5 * prompt };
        let ms = 0;
        for (let token = 0; token < tokens; ) {
          const n = budget.wait(place) > 0 ? 0 : budget.most(place, Math.min(15, tokens - token - 1));
          let right = 0;
          while (right < n && r.below(10_000) < 10_000 * rate(turn)) right++;
          ms += costs.ms(1 + n) + (n > 0 ? place.msOfPrompt + place.msBefore + n * msPerToken : 0);
          if (n > 0) {
            budget.count(place, n, right);
            Object.assign(place, { msBefore: 0, msOfPrompt: 0 });
          } else {
            budget.pass(1);
            place.msBefore += 0.5;
          }
          token += 1 + right;
        }
        return (tokens * costs.ms(1)) / ms;
      });
    };
    const mean = (list: readonly number[]): number => list.length / list.reduce((sum, speed) => sum + 1 / speed, 0);
    const wrong = speeds(32, () => 0);
    assert.ok(mean(wrong) >= 0.98 && wrong.every((speed) => speed > 0.96), `wrong: ${mean(wrong)}, ${wrong}`);
    const right = speeds(8, () => 0.9);
    assert.ok(
      right.every((speed) => speed > 1.15),
      `right: ${right}`,
    );
    const later = speeds(48, (turn) => (turn < 8 ? 0 : 0.9));
    assert.ok(
      later.slice(-4).every((speed) => speed > 1.1),
      `at first wrong: ${later}`,
    );
    const long = speeds(36, (turn) => (turn < 1 ? 0 : 0.9), 2, 1000);
    assert.equal(
      long.findIndex((speed, turn) => turn > 0 && speed !== 1),
      33,
      "a long prompt is not read on the chance",
    );
    const dear = speeds(8, () => 1, 10);
    assert.ok(mean(dear) >= 0.99, `right, and as dear as a step: ${dear}`);
  });

  it("looks for none where nothing can be paid", () => {
    const budget = new DraftBudget(machine(0.6));
    const place: Place = { acceptance: new Acceptance(), kind: KIND.usual, others: 0, ...FREE };
    assert.equal(budget.wait(place), 0);
    for (let n = 0; n < 20 && budget.wait(place) === 0; n++) budget.count(place, budget.most(place, 15), 0);
    assert.equal(budget.most(place, 15), 0);
    let tokens = 0;
    for (let wait = budget.wait(place); wait > 0; wait = budget.wait(place)) {
      budget.pass(wait - 1);
      assert.equal(budget.most(place, 15), 0, `after ${tokens} tokens and ${wait - 1}`);
      budget.pass(1);
      tokens += wait;
    }
    assert.ok(budget.most(place, 15) > 0 && tokens > 10, `after ${tokens} tokens`);
  });

  it("tries again, some steps later, rows that were taken for too dear: by what other rows cost, where that is known", () => {
    for (const pair of [undefined, 1.25]) {
      const costs = new StepCosts();
      for (let n = 0; n < 6; n++) costs.count(4, 30);
      for (let n = 0; n < 20; n++) costs.count(1, 1);
      assert.equal(costs.ms(4), 4);
      for (let n = 0; n < 64; n++) costs.count(pair ? 2 : 1, pair ?? 1);
      assert.equal(costs.ms(4), pair ? 1 + 3 * (pair - 1) : 2.5);
      for (let n = 0; n < 64; n++) costs.count(1, 1);
      assert.equal(costs.ms(4), 2.5, "nothing that is still true: a guess");
    }
  });

  it("takes the time of steps whose code was not compiled yet for no price of their rows", () => {
    const costs = new StepCosts();
    for (let n = 0; n < 20; n++) costs.count(1, 1);
    for (let n = 0; n < 6; n++) costs.count(2, 30);
    for (const rows of [2, 3, 8]) assert.ok(costs.ms(rows) <= rows, `${rows} rows: ${costs.ms(rows)} steps`);
    for (let n = 0; n < 20; n++) costs.count(2, 1.25);
    assert.ok(Math.abs(costs.ms(2) - 1.25) < 0.01, `${costs.ms(2)}`);
  });

  it("comes near to what can be had where all are right, and does better than nothing where most are", () => {
    for (const slope of [0.1, 0.3, 0.5]) {
      const most = 16 / (1 + 15 * slope);
      assert.ok(play(slope, () => 1, 400) >= 0.85 * most, `${slope}: ${play(slope, () => 1, 400)} of ${most}`);
      assert.ok(play(slope, () => 0.75, 400) > 1, `${slope}`);
    }
  });

  it("follows a text that changes", () => {
    const speed = play(0.3, (token) => (token % 400 < 200 ? 1 : 0), 2000);
    assert.ok(speed > 1.2, `${speed}`);
  });

  it("takes fewer where other turns share the step, for their rows fill it", () => {
    const costs = machine(0.8);
    const most = (others: number): number => new DraftBudget(costs).most({ acceptance: new Acceptance(), kind: 0, others, ...FREE }, 15);
    assert.ok(most(0) >= most(7));
  });

  it("knows times by what is nearest, and no outlier turns it over", () => {
    const costs = new StepCosts();
    assert.deepEqual([costs.ms(1), costs.ms(3)], [1, 2]);
    costs.count(1, 8);
    assert.deepEqual([costs.ms(1), costs.ms(3)], [8, 16]);
    costs.count(1, 8000);
    assert.ok(costs.ms(1) <= 9.01);
    costs.count(1, 0); // a clock that stands still
    assert.ok(costs.ms(1) > 8);
    const busy = new StepCosts();
    for (let n = 0; n < 20; n++) busy.count(2, n % 2 ? 10 : 16);
    assert.ok(busy.ms(2) < 11, "every other step is slowed by others: what it takes alone counts");
  });
});

describe("speculation in the engine", () => {
  it("right guesses save steps, wrong ones cost none beyond their own, and a session takes no memory for them when it is done", async () => {
    const model = await modelOf("tiny-deep");
    const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0 });
    const ids = Uint32Array.from({ length: 40 }, (_, i) => (i * 31 + 3) % model.config.vocabSize);
    let steps = 0;
    const step = model.step.bind(model);
    model.step = (...args) => {
      steps++;
      return step(...args);
    };
    const request = { ids, maxTokens: 49, sampling: GREEDY };
    const plain = await turn(engine, request);
    assert.equal(steps, 49);
    for (const [max, want] of [
      [15, 1 + 3],
      [3, 1 + 12],
      [1, 1 + 24],
    ] as const) {
      steps = 0;
      const { drafted, accepted, ids: got } = await turn(engine, { ...request, speculation: given(plain.ids, max) });
      assert.deepEqual(got, plain.ids);
      assert.deepEqual([steps, accepted], [want, drafted]);
    }
    steps = 0;
    const wrong = plain.ids.map((id) => (id + 1) % model.config.vocabSize);
    const failed = await turn(engine, { ...request, speculation: given(wrong, 4) });
    assert.deepEqual([failed.ids, steps, failed.accepted], [plain.ids, 49, 0]);
    const { pages, blocks, kept } = model.caches;
    assert.deepEqual([pages.used, blocks.used, kept.used], [0, 0, 0]);
    await engine.dispose();
  });

  it("ends between two tokens that were guessed together as between any: cancelled, left, or its engine gone", async () => {
    const model = await modelOf("tiny-deep");
    const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0 });
    const ids = Uint32Array.from({ length: 12 }, (_, i) => (i * 5 + 1) % model.config.vocabSize);
    const request = { ids, maxTokens: 20, sampling: GREEDY, stopIds: NEVER, stop: [] };
    const plain = await turn(engine, request);
    type End = (call: number) => Promise<boolean>;
    const ends: readonly End[] = [async (call) => engine.cancel(call).then(() => false), async () => true];
    for (const end of ends)
      for (const at of [1, 2, 5, 9]) {
        const held: number[] = [];
        for (const speculation of [undefined, given(plain.ids, 7)]) {
          const call = calls++;
          await engine.open(call);
          const got: number[] = [];
          for await (const event of engine.generate(call, call, { ...request, speculation })) {
            if (event.type === "finish") assert.equal(event.reason, "interrupted");
            if (event.type !== "token") continue;
            got.push(event.id);
            if (got.length === at && (await end(call))) break;
          }
          assert.deepEqual(got, plain.ids.slice(0, at));
          held.push((await engine.tokens(call)).length);
          const next = { ...request, ids: Uint32Array.from([...ids, ...got, 3]), maxTokens: 4, speculation: undefined };
          const more: number[] = [];
          for await (const event of engine.generate(call, call, next)) if (event.type === "token") more.push(event.id);
          assert.deepEqual(more, (await turn(engine, next)).ids, "the session goes on as if it had never guessed");
          await engine.close(call);
        }
        assert.ok(held[1]! <= ids.length + at && held[1]! >= held[0]!, `${held}`);
      }
    const { kept, blocks } = model.caches;
    assert.deepEqual([kept.used, blocks.used], [0, 0]);
    const call = calls++;
    await engine.open(call);
    let told = 0;
    await assert.rejects(
      async () => {
        for await (const event of engine.generate(call, call, { ...request, speculation: given(plain.ids, 7) }))
          if (event.type === "token" && ++told === 3) await engine.dispose();
      },
      { name: "AbortError" },
    );
    assert.equal(told, 3);
  });

  it("a draft model computes no more once its turn is cancelled, while it reads the prompt and between two guesses", async () => {
    for (const at of [1, 2, 6]) {
      const [model, draftModel] = [await modelOf("tiny-deep"), await modelOf("tiny-deep", { chunkTokens: 16 })];
      const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0, draftModel });
      const call = calls;
      let steps = 0;
      let after = 0;
      for (const each of [model, draftModel]) {
        const step = each.step.bind(each);
        each.step = (...args) => {
          if (steps >= at) after++;
          if (each === draftModel && ++steps === at) void engine.cancel(call);
          return step(...args);
        };
      }
      const ids = Uint32Array.from({ length: 40 }, (_, i) => (i * 31 + 3) % model.config.vocabSize);
      const speculation = { by: "draft", ngram: 1, max: 15, isAdaptive: false } as const;
      const { error } = await turn(engine, { ids, maxTokens: 30, sampling: GREEDY, speculation });
      assert.deepEqual([steps, after, error], [at, 0, undefined]);
      await engine.dispose();
    }
  });

  it("goes on without guesses where the draft model has no memory for a session", async () => {
    const model = await modelOf("tiny-deep");
    const { memoryBytes: maxMemoryBytes } = model;
    const draftModel = await modelOf("tiny-deep", { maxMemoryBytes });
    const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0, draftModel });
    assert.throws(() => {
      for (;;) draftModel.openCache();
    }, MemoryError);
    const request = { ids: Uint32Array.of(1, 2, 3), maxTokens: 9, sampling: GREEDY };
    const plain = await turn(engine, request);
    assert.deepEqual(await turn(engine, { ...request, speculation: { by: "draft", ngram: 1, max: 4, isAdaptive: false } }), plain);
    await engine.dispose();
  });

  it("several replies with guesses share steps, and none waits for another's", async () => {
    const model = await modelOf("tiny-attn-first");
    const engine = new LocalEngine(model, undefined, { prefixCacheBytes: 0 });
    const prompts = Array.from({ length: 12 }, (_, n) => Uint32Array.from({ length: 9 }, (_, i) => (i * 7 + n) % model.config.vocabSize));
    const request = (ids: Uint32Array) => ({ ids, maxTokens: 30, sampling: GREEDY });
    const want: number[][] = [];
    for (const ids of prompts) want.push((await turn(engine, request(ids))).ids);
    let steps = 0;
    const step = model.step.bind(model);
    model.step = (...args) => {
      steps++;
      return step(...args);
    };
    const got = await Promise.all(prompts.map((ids, n) => turn(engine, { ...request(ids), speculation: given(want[n]!) })));
    assert.deepEqual(
      got.map(({ ids }) => ids),
      want,
    );
    assert.ok(steps <= 12, `${steps} steps: 128 rows hold 9 guesses for each of 12 replies`);
    await engine.dispose();
  });

  it("ends where memory ends, at the very token, and no earlier", async () => {
    const preset = "tiny-attn-first";
    const { memoryBytes } = await modelOf(preset);
    const free = await modelOf(preset, { maxMemoryBytes: memoryBytes });
    const ids = Uint32Array.from({ length: 20 }, (_, i) => i);
    const request = { ids, maxTokens: 5000, sampling: GREEDY };
    const engine = new LocalEngine(free, undefined, { prefixCacheBytes: 0 });
    const plain = await turn(engine, request);
    assert.ok(plain.error instanceof MemoryError, `${plain.error}`);
    const speculated = await turn(engine, { ...request, speculation: given(plain.ids) });
    assert.ok(speculated.error instanceof MemoryError);
    // kept states take a page's room or two
    assert.ok(speculated.ids.length >= plain.ids.length - 64, `${speculated.ids.length} of ${plain.ids.length}`);
    assert.deepEqual(speculated.ids, plain.ids.slice(0, speculated.ids.length));
    assert.equal(free.caches.kept.used, 0);
    await engine.dispose();
  });

  /** Σ (count - expected)² / expected over pairs of tokens. */
  const chiSquare = (counts: Map<string, number>, expected: Map<string, number>, total: number): number => {
    let sum = 0;
    for (const [key, p] of expected) sum += ((counts.get(key) ?? 0) - total * p) ** 2 / (total * p);
    const outside = [...counts.keys()].filter((key) => !expected.has(key));
    return outside.length > 0 ? Number.POSITIVE_INFINITY : sum;
  };

  it("has the model's own distribution where guesses are right now and then; other rules have not", async () => {
    const model = await modelOf("tiny-attn-first");
    const engine = new LocalEngine(model, undefined);
    const sampling = { temperature: 1.5, topK: 4 };
    const ids = [3, 14]; // the second is forced: guesses begin behind the first token of a reply
    const V = model.config.vocabSize;
    /** The four likeliest tokens behind `tokens`, with their probabilities. */
    const top = (tokens: readonly number[]): [number, number][] => {
      const logits = [...feed(model, tokens).subarray((tokens.length - 1) * V)].map((x, id) => [id, x / sampling.temperature] as const);
      const four = logits.sort((a, b) => b[1] - a[1]).slice(0, 4);
      const weights = four.map(([, x]) => Math.exp(x - four[0]![1]));
      const total = weights.reduce((a, b) => a + b, 0);
      return four.map(([id], i) => [id, weights[i]! / total]);
    };
    const expected = new Map<string, number>();
    const first = top(ids);
    const second = new Map(first.map(([a]) => [a, top([...ids, a])]));
    for (const [a, p] of first) for (const [b, q] of second.get(a)!) expected.set(`${a} ${b}`, p * q);
    // the second likeliest everywhere: right, wrong, and wrong after right, each often
    const guess = [14, first[1]![0], second.get(first[1]![0])![1]![0]];
    const SEEDS = pick({ gate: 1500, full: 20_000 });
    const counts = new Map<string, number>();
    const add = (to: Map<string, number>, key: string): unknown => to.set(key, (to.get(key) ?? 0) + 1);
    let accepted = 0;
    for (let seed = 0; seed < SEEDS; seed++) {
      const got = await turn(engine, {
        ids: Uint32Array.of(3),
        maxTokens: 4,
        processing: { forcedBosTokenId: 14 },
        sampling: { ...sampling, seed },
        speculation: given(guess),
      });
      add(counts, got.ids.slice(1, 3).join(" "));
      accepted += got.accepted;
    }
    assert.ok(accepted > SEEDS / 50, `${accepted} of ${SEEDS} were right`);
    const LIMIT = 45; // one in 10,000 is above, with 15 degrees of freedom
    const found = chiSquare(counts, expected, SEEDS);
    assert.ok(found < LIMIT, `χ² ${found}`);

    /** Tokens by a rule of its own: `accepts` a guess of probability p, else draws anew from what `rest` leaves of the others. */
    const wrong = (accepts: (p: number, u: number) => boolean, leavesOut: boolean): number => {
      const got = new Map<string, number>();
      for (let seed = 0; seed < SEEDS; seed++) {
        const choose = (from: readonly [number, number][], guessed: number, at: number): number => {
          const p = from.find(([id]) => id === guessed)?.[1] ?? 0;
          if (accepts(p, random(seed, 1000 + at))) return guessed;
          const rest = leavesOut ? from.filter(([id]) => id !== guessed) : from;
          let u = random(seed, at) * rest.reduce((sum, [, q]) => sum + q, 0);
          return (rest.find(([, q]) => (u -= q) < 0) ?? rest.at(-1)!)[0];
        };
        const a = choose(first, guess[1]!, 1);
        add(got, `${a} ${choose(second.get(a)!, guess[2]!, 2)}`);
      }
      return chiSquare(got, expected, SEEDS);
    };
    assert.ok(wrong((p, u) => u < p, true) < LIMIT, "rejection sampling is right");
    assert.ok(wrong((p, u) => u < p, false) > LIMIT, "drawing from all again after a rejection is wrong");
    assert.ok(wrong((p) => p > 0.15, true) > LIMIT, "taking every guess that is likely enough is wrong");
    await engine.dispose();
  });

  it("the draft model reads along, and never again what it has read; its memory counts", async () => {
    const model = await load(mini, { draft: mini, speculate: { by: "draft", adaptive: false, max: 4 } });
    const maxMemoryBytes = Math.ceil(1.5 * model.info.memoryBytes);
    await assert.rejects(load(mini, { draft: mini, maxMemoryBytes }), { name: "MemoryError" });
    (await load(mini, { maxMemoryBytes })).dispose();
    using chat = model.chat();
    for (const text of ["Tell me a story about a fox.", "What is 3 + 4?", "And a story about an owl."]) {
      const { usage } = await chat.prompt(text, { maxTokens: 40 });
      assert.equal(usage.acceptedTokens, usage.draftedTokens);
      assert.ok(usage.draftedTokens! > 0.7 * (usage.outputTokens - 1), `${usage.draftedTokens} of ${usage.outputTokens}`);
    }
    model.dispose();
  });

  it("a model and its draft stay within maxMemoryBytes together, also as they grow", async () => {
    const memories = new Set<WebAssembly.Memory>();
    const { prototype } = WebAssembly.Memory;
    const { grow } = prototype;
    prototype.grow = function (pages) {
      memories.add(this);
      return grow.call(this, pages);
    };
    try {
      const options = { kvDtype: "f32", prefixCacheBytes: 0, threads: 1, maxContextTokens: 512 } as const;
      const alone = await load(mini, options);
      const { memoryBytes } = alone.info;
      alone.dispose();
      const loadBoth = (spareBytes: number): Promise<Model> => {
        memories.clear();
        const maxMemoryBytes = 2 * memoryBytes + spareBytes;
        return load(mini, { ...options, draft: mini, speculate: { by: "draft", adaptive: false, max: 2 }, maxMemoryBytes });
      };
      const tight = await loadBoth(512 * 3072); // keys and values of one session of 512 tokens
      await tight.generate("fox", { maxTokens: 4 });
      await tight.generate("fox ".repeat(400), { maxTokens: 4 }); // the draft has left it the room
      assert.ok([...memories].some(({ buffer }) => buffer.byteLength <= memoryBytes));
      tight.dispose();
      const maxMemoryBytes = 2 * memoryBytes + (5 << 19);
      const model = await loadBoth(5 << 19);
      const chats: Chat[] = [];
      await assert.rejects(
        async () => {
          while (chats.length < 50) await chats[chats.push(model.chat()) - 1]?.prompt("fox ".repeat(400), { maxTokens: 4 });
        },
        { name: "MemoryError" },
      );
      const bytes = [...memories].map(({ buffer }) => buffer.byteLength);
      assert.equal(bytes.length, 2);
      assert.ok(Math.min(...bytes) > memoryBytes, `${bytes}: both have grown`);
      assert.ok(bytes[0]! + bytes[1]! <= maxMemoryBytes + 65_536, `${bytes} of ${maxMemoryBytes}`);
      model.dispose();
    } finally {
      prototype.grow = grow;
    }
  });
});

describe("a draft model that is another one", () => {
  /** The bundled checkpoint with one of its files changed. */
  async function changed(name: string, change: (bytes: Uint8Array) => Uint8Array): Promise<Folder> {
    const folder = await openPath("models/lfm2-mini");
    assert.ok("open" in folder);
    const open: Folder["open"] = async (path) => {
      const source = await folder.open(path);
      if (path !== name || !source) return source;
      const bytes = change((await source.read(0, source.size)).slice());
      await source.close?.();
      return bytesSource(bytes, path);
    };
    return { name: folder.name, open };
  }
  /** bf16 weights with two bits of their fractions. */
  const coarse = (bytes: Uint8Array): Uint8Array => {
    const from = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    for (let i = from; i < bytes.length; i += 2) bytes[i]! &= 0xe0;
    return bytes;
  };

  const STORIES = ["Tell me a story about a bear and a bird.", "Tell me a story about a fox.", "Tell me a story about an owl."];

  it("changes no token, greedy or sampled, where its guesses are right now and then", async () => {
    const model = await load(mini, { prefixCacheBytes: 0 });
    const guessed = await load(mini, { prefixCacheBytes: 0, draft: await changed("model.safetensors", coarse) });
    const all = { drafted: 0, accepted: 0 };
    for (const sampling of [
      { temperature: 0 },
      { temperature: 1.3, seed: 7 },
      { temperature: 0.8, seed: 8, topK: 40, topP: 0.95, repetitionPenalty: 1.1 },
    ] satisfies GenerateOptions[]) {
      const count = { drafted: 0, accepted: 0 };
      for (const text of STORIES.slice(0, pick({ gate: 1, full: 3 })))
        for (const adaptive of [true, false]) {
          const want = await model.generate(text, { ...sampling, maxTokens: 40 });
          const got = await guessed.generate(text, { ...sampling, maxTokens: 40, speculate: { by: "draft", max: 5, adaptive } });
          assert.deepEqual([got.text, [...got.tokens], got.finishReason], [want.text, [...want.tokens], want.finishReason]);
          count.drafted += got.usage.draftedTokens ?? 0;
          count.accepted += got.usage.acceptedTokens ?? 0;
        }
      const { drafted, accepted } = count;
      assert.ok(accepted > 5 && drafted > accepted + 5, `${JSON.stringify(sampling)}: ${accepted} of ${drafted} were right`);
      all.drafted += drafted;
      all.accepted += accepted;
    }
    const { speculation, openSessions } = await guessed.status();
    assert.deepEqual([speculation, openSessions], [all, 0]);
    for (const each of [model, guessed]) each.dispose();
  });

  it("is smaller, of another shape, and right wherever it says the same", async function () {
    if (!pick({ gate: false, full: true })) return this.skip();
    const dir = mkdtempSync(join(tmpdir(), "lfm2-draft-"));
    const small = fromPreset("tiny-conv-first", 1);
    const write = (name: string, source: typeof small): string => {
      const out = join(dir, name);
      writeGguf(source, { type: "Q4_0", head: "Q4_0", out });
      return out;
    };
    const draft = write("small.gguf", small);
    const path = write("large.gguf", larger(small, { ...small.shape, D: 512, H: 8, G: 4, F: 320, layers: "cAccAAcA" }));
    const [model, guessed, alone] = [await load(path), await load(path, { draft }), await load(draft)];
    const prompt = Uint32Array.from({ length: 9 }, (_, i) => (37 * i + 5) % small.shape.V);
    for (const sampling of [{ temperature: 0 }, { temperature: 1, seed: 3 }] satisfies GenerateOptions[]) {
      const options = { ...sampling, maxTokens: 60, stopIds: [] };
      const want = await model.generate(prompt, options);
      const { tokens, usage } = await guessed.generate(prompt, { ...options, speculate: { by: "draft", max: 5, adaptive: false } });
      assert.deepEqual([[...tokens], [...(await alone.generate(prompt, options)).tokens]], [[...want.tokens], [...want.tokens]]);
      assert.ok(usage.draftedTokens! >= 40 && usage.acceptedTokens === usage.draftedTokens, JSON.stringify(usage));
    }
    for (const each of [model, guessed, alone]) each.dispose();
    rmSync(dir, { recursive: true });
  });

  it("is refused with other tokens: more or fewer of them, or as many of which one means another text", async () => {
    const refused = async (draft: string | Folder, message: RegExp): Promise<void> =>
      assert.rejects(load(mini, { draft }), (error: Error) => error.name === "UnsupportedError" && message.test(error.message));
    const tiny = checkpointFolder("tiny-deep");
    const { vocabSize } = (await inspect(tiny)).config;
    await refused(tiny, new RegExp(`draft: expected a model with the same tokens, got one of ${vocabSize} tokens beside 2048\\. Take`));
    const swapped = await changed("tokenizer.json", (bytes) => {
      const json = JSON.parse(new TextDecoder().decode(bytes)) as { model: { vocab: Record<string, number> } };
      const { vocab } = json.model;
      [vocab.a, vocab.b] = [vocab.b!, vocab.a!];
      return new TextEncoder().encode(JSON.stringify(json));
    });
    await refused(swapped, /expected a model with the same tokens, got one whose ids mean other texts\. Take/);
  });
});
