// How far a load is: never backwards, never past the total, at a pace, with a rate and the time that is left.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { type LoadProgress, load } from "lfm2-wasm";
import { Meter, type Progress } from "../../src/progress.ts";
import { random } from "./fuzz.ts";

describe("the progress of a load", () => {
  const seen: LoadProgress[] = [];
  let now = 0;
  let meter: Meter;
  const at = (ms: number, loadedBytes: number, more: Partial<Progress> = {}): void => {
    now = ms;
    meter.report({ phase: "read", file: "a", loadedBytes, totalBytes: 10_000, ...more });
  };
  beforeEach(() => {
    seen.length = 0;
    meter = new Meter(
      (p) => seen.push(p),
      () => now,
    );
  });

  it("is told at most ten times a second, beside a new phase, a new file and the end", () => {
    for (let ms = 0; ms <= 1000; ms++) at(ms, ms);
    assert.equal(seen.length, 11);
    at(1001, 1001, { file: "b" });
    assert.deepEqual([seen.length, seen.at(-1)?.file], [12, "b"]);
    at(1002, 10_000, { file: "b" });
    meter.ready();
    assert.deepEqual([seen.length, seen.at(-1)?.phase, seen.at(-1)?.loadedBytes, seen.at(-1)?.etaMs], [13, "ready", 10_000, 0]);
  });

  it("has the rate of the last seconds, and the time that is left at it", () => {
    at(0, 0);
    assert.deepEqual([seen[0]?.bytesPerSecond, seen[0]?.etaMs], [0, undefined]);
    at(1000, 1000);
    assert.deepEqual([seen[1]?.bytesPerSecond, seen[1]?.etaMs], [1000, 9000]);
    for (let ms = 1100; ms <= 6000; ms += 100) at(ms, 1000 + (ms - 1000) / 10);
    assert.ok(Math.abs((seen.at(-1)?.bytesPerSecond ?? 0) - 100) < 1, "the fast start is forgotten");
  });

  it("is silent while a load that started over catches up", () => {
    at(0, 5000);
    at(500, 100, { phase: "open" });
    at(1000, 4000);
    assert.equal(seen.length, 1);
    at(2000, 6000);
    assert.deepEqual([seen.length, seen.at(-1)?.loadedBytes], [2, 6000]);
  });

  it("keeps its promises whatever is reported", () => {
    const next = random(7);
    for (let i = 0, ms = 0; i < 2000; i++)
      at((ms += next() % 50), next() % 10_001, { file: "ab"[next() % 2]!, phase: next() % 9 ? "read" : "open" });
    assert.ok(seen.length > 2);
    for (const [i, p] of seen.entries()) {
      assert.ok(p.loadedBytes <= p.totalBytes && p.loadedBytes >= (seen[i - 1]?.loadedBytes ?? 0));
      assert.ok(Number.isFinite(p.bytesPerSecond) && p.bytesPerSecond >= 0 && (p.etaMs ?? 0) >= 0);
    }
  });

  it("comes with a load: every field, the total before the first byte, ready once all is proved", async () => {
    const bytes = readFileSync("dist/mini.gguf");
    const order: string[] = [];
    const source = {
      name: "slow.gguf",
      size: bytes.length,
      read: async (offset: number, length: number) => {
        await new Promise((resolve) => setTimeout(resolve, 15));
        return new Uint8Array(bytes.subarray(offset, offset + length));
      },
      verify: async () => void order.push("verify"),
    };
    const model = await load(source, {
      onProgress: (p) => {
        seen.push(p);
        order.push(p.phase);
      },
    });
    model.dispose();
    assert.ok(seen.length > 3 && seen.every((p) => p.totalBytes === seen[0]?.totalBytes && p.file === "slow.gguf"));
    assert.ok((seen.at(-1)?.bytesPerSecond ?? 0) > 0);
    assert.deepEqual(order.slice(-2), ["verify", "ready"]);
    let isCalled = false;
    const failing = { ...source, verify: async () => Promise.reject(new Error("damaged")) };
    await assert.rejects(load(failing, { onProgress: ({ phase }) => (isCalled ||= phase === "ready") }), { message: "damaged" });
    assert.equal(isCalled, false);
  });
});
