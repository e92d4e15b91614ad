// Reuse between sessions and steps that sessions share: the tree of closed sessions' pages against a list, random turns on a warm engine against a cold one.
import assert from "node:assert/strict";
import { openPath } from "../../src/adapters/node/files.ts";
import type { GenerateRequest } from "../../src/generate/engine.ts";
import { LocalEngine } from "../../src/generate/local-engine.ts";
import { PrefixTree } from "../../src/generate/prefixes.ts";
import { Arena } from "../../src/memory/arena.ts";
import type { KvDType } from "../../src/memory/dtype.ts";
import { PagePool } from "../../src/memory/pages.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { type LoadModelOptions, loadModel } from "../../src/models/load-model.ts";
import { Random, seedOf } from "../bits/random.ts";
import { checkpointFolder, kernels } from "../golden/support.ts";
import { pick } from "../scale.ts";

async function modelOf(preset: string, options: LoadModelOptions = {}): Promise<LanguageModel> {
  const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
  const { model } = await loadModel(checkpoint, kernels, options);
  await checkpoint.close();
  return model;
}

describe("the tree of prefixes", () => {
  const pool = (): PagePool => new PagePool(new Arena(new WebAssembly.Memory({ initial: 2, maximum: 200 }) as never), 256);
  const common = (a: readonly number[], b: readonly number[]): number => {
    const n = a.findIndex((id, i) => id !== b[i]);
    return n < 0 ? a.length : n;
  };

  it("finds the longest beginning of everything that was put in, on the pages that hold it", () => {
    const pages = pool();
    const tree = new PrefixTree(pages, 256, 1 << 20);
    const r = new Random(5);
    const kept: number[][] = [];
    /** What stands in a page: the ids up to its end. */
    const content = new Map<number, number[]>();
    for (let n = 0; n < 300; n++) {
      const past = kept.length > 0 && r.below(4) > 0 ? kept[r.below(kept.length)]! : [];
      const ids = [...past.slice(0, r.below(past.length + 1)), ...Array.from({ length: r.below(80) }, () => r.below(3))];
      const found = tree.find(ids);
      assert.equal(found.length, Math.max(0, ...kept.map((other) => common(ids, other))), `sequence ${n}`);
      assert.equal(found.pages.length, Math.ceil(found.length / 32));
      for (const [i, page] of found.pages.entries()) {
        const end = Math.min(found.length, 32 * (i + 1));
        assert.deepEqual(content.get(page)?.slice(0, end), ids.slice(0, end));
      }
      if (ids.length === 0) continue;
      const own = Array.from({ length: Math.ceil(ids.length / 32) }, (_, i) => {
        const page = pages.allocate();
        content.set(page, ids.slice(0, 32 * (i + 1)));
        return page;
      });
      tree.insert(ids, ids.length, own);
      for (const page of own) pages.release(page);
      kept.push(ids);
      assert.equal(tree.ownPages, pages.used);
    }
    let evicted = 0;
    while (tree.evict()) evicted++;
    assert.ok(evicted > 100);
    assert.equal(pages.used, 0);
    assert.equal(tree.find(kept[5]!).length, 0);
  });

  it("keeps what was used last within its budget, and never a page whose beginning is gone", () => {
    const pages = pool();
    const tree = new PrefixTree(pages, 256, 6 * 256);
    const put = (ids: number[]): void => {
      const own = Array.from({ length: Math.ceil(ids.length / 32) }, () => pages.allocate());
      tree.insert(ids, ids.length, own);
      for (const page of own) pages.release(page);
    };
    const long = (salt: number): number[] => Array.from({ length: 96 }, (_, i) => 1000 * salt + i);
    put(long(1));
    put(long(2));
    assert.equal(tree.find(long(1)).length, 96); // used
    put(long(3));
    assert.deepEqual(
      [1, 2, 3].map((n) => tree.find(long(n)).length),
      [96, 0, 96],
    );
    tree.find(long(3));
    put([9]);
    assert.deepEqual(
      [1, 3].map((n) => tree.find(long(n)).length),
      [64, 96],
      "its end goes first",
    );
    assert.equal(pages.used, 6);
    put(Array.from({ length: 32 * 9 }, (_, i) => i));
    assert.equal(pages.used, 6, "a sequence that is longer than the budget leaves its beginning");
    assert.equal(tree.find(Array.from({ length: 32 * 9 }, (_, i) => i)).length, 32 * 6);
  });
});

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

async function turn(
  engine: LocalEngine,
  call: number,
  session: number,
  request: GenerateRequest,
): Promise<{ ids: number[]; cached: number }> {
  const out = { ids: [] as number[], cached: 0 };
  for await (const event of engine.generate(call, session, request)) {
    if (event.type === "prefill") out.cached = event.cachedTokens;
    if (event.type === "token") out.ids.push(event.id);
  }
  return out;
}

describe("an engine that reuses and shares", () => {
  /** Turns of random programs. */
  const TURNS = pick({ gate: 120, full: 800 });

  for (const [preset, kvDtype] of [
    ["tiny-deep", "f16"],
    ["tiny-attn-first", "q8"],
    ["tiny-gqa3", "f32"],
    ["tiny-conv-only", "f16"],
  ] as const satisfies readonly (readonly [string, KvDType])[])
    it(`${preset}, kv ${kvDtype}: random turns, several at a time, give what each gives alone on a cold engine`, async () => {
      const model = await modelOf(preset, { kvDtype });
      const warm = new LocalEngine(model, undefined, { prefixCacheBytes: 40 * (model.caches.size.pageBytes || 1) });
      const cold = new LocalEngine(await modelOf(preset, { kvDtype }), undefined, { prefixCacheBytes: 0 });
      const r = new Random(seedOf(preset));
      const V = model.config.vocabSize;
      let calls = 0;
      const pasts: number[][] = [[1]];
      const open: number[] = [];
      const results: { request: GenerateRequest; got: Promise<{ ids: number[]; cached: number }> }[] = [];
      for (let n = 0; n < TURNS / 4; n++) {
        if (open.length === 0 || (open.length < 5 && r.below(3) === 0)) {
          open.push(calls);
          await warm.open(calls++);
        }
        const together = open.filter(() => r.below(2) === 0);
        for (const session of together.length > 0 ? together : open.slice(0, 1)) {
          const past = pasts[r.below(pasts.length)]!;
          const ids = [...past.slice(0, 1 + r.below(past.length)), ...Array.from({ length: 1 + r.below(50) }, () => r.below(V))].slice(
            0,
            300,
          );
          const sampling = r.below(2) ? GREEDY : { ...GREEDY, temperature: 1.2, seed: r.below(1000), topK: 20, repetitionPenalty: 1.1 };
          const request = { ids: Uint32Array.from(ids), maxTokens: 1 + r.below(12), stopIds: [r.below(V)], stop: [], sampling };
          results.push({ request, got: turn(warm, calls++, session, request) });
          pasts.push(ids);
        }
        if (r.below(2) === 0) await Promise.all(results.map(({ got }) => got));
        if (open.length > 2 && r.below(3) === 0) await warm.close(open.splice(r.below(open.length), 1)[0]!);
      }
      for (const { request, got } of results) {
        const session = calls++;
        await cold.open(session);
        const alone = await turn(cold, calls++, session, request);
        await cold.close(session);
        assert.deepEqual((await got).ids, alone.ids);
        assert.equal(alone.cached, 0);
      }
      const { reuse, cachedPages } = await warm.status();
      assert.equal(reuse.prompts, results.length);
      if (model.caches.size.pageBytes > 0)
        assert.ok(reuse.cachedTokens > reuse.promptTokens / 5 && cachedPages <= 40, JSON.stringify(reuse));
      for (const session of open) await warm.close(session);
      assert.equal((await warm.status()).usedPages, 0);
      await Promise.all([warm.dispose(), cold.dispose()]);
    });

  it("computes what sessions want at the same time in one step, and lets rows end and join at any", async () => {
    const model = await modelOf("tiny-deep");
    const rows: number[][] = [];
    const step = model.step.bind(model);
    model.step = (inputs, options) => {
      rows.push(inputs.map(({ ids }) => ids?.length ?? 0));
      return step(inputs, options);
    };
    const { size } = model.caches;
    const { pageBytes } = size;
    Object.assign(size, { pageBytes: 16 << 20 }); // as if a page were of 16 MiB
    const engine = new LocalEngine(model, undefined);
    Object.assign(size, { pageBytes });
    const request = (length: number, maxTokens: number): GenerateRequest => ({
      ids: Uint32Array.from({ length }, (_, i) => (i * 31 + length) % 500),
      maxTokens,
      stopIds: [],
      stop: [],
      sampling: GREEDY,
    });
    for (let session = 0; session < 4; session++) await engine.open(session);
    const all = [turn(engine, 10, 0, request(5, 8)), turn(engine, 11, 1, request(6, 3)), turn(engine, 12, 2, request(7, 8))];
    await all[1]; // a row has ended
    all.push(turn(engine, 13, 3, request(200, 2))); // one joins, with a prompt of two chunks
    await Promise.all(all);
    assert.deepEqual(rows[0], [5, 6, 7]);
    assert.deepEqual(rows.slice(1, 3), [
      [1, 1, 1],
      [1, 1, 1],
    ]);
    assert.ok(rows.length <= 10, `${rows.length} steps`);
    const joined = rows.filter((step) => step.some((n) => n > 20));
    assert.ok(
      joined.length === 2 && joined.every((step) => step.length === 3 && step.reduce((a, b) => a + b) <= model.options.chunkTokens),
      JSON.stringify(rows),
    );
    for (let session = 0; session < 4; session++) await engine.close(session);
    assert.equal((await engine.status()).cachedPages, 4, "closed ones keep 64 MiB by default");
    await engine.dispose();
  });

  it("a turn that fails fails alone: another's step goes on", async () => {
    const probe = await modelOf("tiny-attn-only", { kvDtype: "f32" });
    const model = await modelOf("tiny-attn-only", { kvDtype: "f32", maxMemoryBytes: probe.memoryBytes + (1 << 20) });
    probe.dispose();
    const engine = new LocalEngine(model, undefined);
    const request = (length: number): GenerateRequest => ({
      ids: Uint32Array.from({ length }, (_, i) => (i * 17) % 300),
      maxTokens: 25, // within a page: memory that has ended ends every turn that needs more
      stopIds: [],
      stop: [],
      sampling: GREEDY,
    });
    await engine.open(0);
    await engine.open(1);
    await engine.open(2);
    const small = turn(engine, 10, 0, request(3));
    await assert.rejects(turn(engine, 11, 1, request(2000)), { name: "MemoryError" });
    const { ids } = await small;
    assert.equal(ids.length, 25);
    const before = await engine.tokens(1);
    assert.ok(before.length > 0 && before.length < 2000, "what there was room for is held");
    await engine.close(1);
    // the pages that the closed session left give way
    assert.deepEqual(
      (await turn(engine, 12, 2, { ...request(3), ids: request(3).ids.map((id) => id + 1), maxTokens: before.length - 40 })).ids.length,
      before.length - 40,
    );
    await assert.rejects(turn(engine, 13, 0, { ...request(2), ids: Uint32Array.of(1, 331) }), {
      name: "InputError",
      message: /got 331 at index 1/,
    });
    assert.equal((await engine.tokens(0)).length, 27, "untouched");
    await engine.dispose();
  });
});
