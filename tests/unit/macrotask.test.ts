// Long work gives way: timers, signals and I/O act while it goes on.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { nextMacrotask } from "../../src/macrotask.ts";

describe("nextMacrotask", () => {
  it("lets a timer fire within a few turns", async () => {
    let fired = false;
    setTimeout(() => {
      fired = true;
    }, 1);
    const start = performance.now();
    let late = 0;
    while (!fired && late < 1000) {
      await nextMacrotask();
      if (performance.now() - start > 2) late++;
    }
    assert.ok(fired && late < 50, `${late} turns after it was due`);
  });

  it("resolves many that wait at once, in order", async () => {
    const order: number[] = [];
    await Promise.all(Array.from({ length: 50 }, (_, i) => nextMacrotask().then(() => order.push(i))));
    assert.equal(order.length, 50);
    const even = order.filter((i) => i % 2 === 0);
    assert.deepEqual(
      even,
      even.toSorted((a, b) => a - b),
    );
  });
});

describe("a generation", () => {
  it("lets timers run, and acts on an abort from one within a step", async () => {
    const model = await load(mini);
    const control = new AbortController();
    let tokens = 0;
    let ticks = 0;
    const timer = setInterval(() => {
      if (++ticks === 3) control.abort();
    }, 1);
    let atAbort = -1;
    control.signal.addEventListener("abort", () => {
      atAbort = tokens;
    });
    const run = (async () => {
      const options = { temperature: 1, seed: 1, stopIds: [], maxTokens: 1500, signal: control.signal };
      for await (const part of model.stream("Tell me a story about a fox.", options)) if (part.type === "text-delta") tokens++;
    })();
    await assert.rejects(run, { name: "AbortError" });
    clearInterval(timer);
    assert.ok(ticks >= 3 && tokens - atAbort <= 1, `${ticks} ticks, ${tokens - atAbort} tokens after the abort`);
    model.dispose();
  });

  it("leaves room for other work", async () => {
    const model = await load(mini);
    let done = false;
    const work = model.generate("Tell me a story about a fox.", { stopIds: [], maxTokens: 800 }).then(() => {
      done = true;
    });
    await sleep(1);
    assert.equal(done, false);
    await work;
    model.dispose();
  });
});

describe("maxContextTokens", () => {
  it("reserves nothing but four bytes a page", async () => {
    const [small, large] = await Promise.all([64, 2048].map((maxContextTokens) => load(mini, { maxContextTokens })));
    assert.ok(small && large);
    assert.equal(large.info.memoryBytes, small.info.memoryBytes);
    await large.generate("Hello");
    const { memoryBytes } = await large.status();
    assert.ok(memoryBytes - large.info.memoryBytes <= 1 << 20);
    small.dispose();
    large.dispose();
  });
});
