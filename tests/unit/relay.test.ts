// Values that pass a generator by come as they would through it: in order, whoever asks how often, to the end, an error or a return.
import assert from "node:assert/strict";
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { type Lane, LEAVE, Relay, through } from "../../src/relay.ts";

/** 0 to n-1, then the end or an error; each a macrotask later. Counts calls of return. */
function numbers(n: number, error?: Error): AsyncIterator<number> & { returns: number } {
  let next = 0;
  return {
    returns: 0,
    next: () =>
      new Promise((resolve, reject) => {
        setTimeout(() => {
          if (next < n) resolve({ done: false, value: next++ });
          else if (error) reject(error);
          else resolve({ done: true, value: undefined });
        });
      }),
    return() {
      this.returns++;
      return Promise.resolve({ done: true, value: undefined });
    },
  };
}

/** Texts of odd numbers, nothing for even ones; those from `kept` on are seen by the generator, and it ends with a word of its own. */
function relay(source: AsyncIterator<number>, kept: number, seen: number[], leaveAt = Number.POSITIVE_INFINITY): Relay<number, string> {
  const text = (n: number): string | undefined => (n % 2 ? `${n}` : undefined);
  async function* generate(lane: Lane<number, string>): AsyncGenerator<string, undefined, IteratorResult<number> | undefined> {
    lane.take = (n) => (n < kept ? (text(n) ?? null) : undefined);
    try {
      yield* through(lane, source, async (n) => {
        seen.push(n);
        return n >= leaveAt ? LEAVE : text(n);
      });
      yield "end";
    } finally {
      seen.push(-1);
    }
  }
  return new Relay(generate);
}

async function all<T>(values: AsyncIterator<T>): Promise<T[]> {
  const list: T[] = [];
  for (let next = await values.next(); !next.done; next = await values.next()) list.push(next.value);
  return list;
}

describe("a relay", () => {
  it("passes what it can, and leaves the rest to the generator", async () => {
    const seen: number[] = [];
    const source = numbers(10);
    assert.deepEqual(await all(relay(source, 6, seen)), ["1", "3", "5", "7", "9", "end"]);
    assert.deepEqual([seen, source.returns], [[0, 1, 6, 7, 8, 9, -1], 0]);
  });

  it("answers calls in order, however many come at once", async () => {
    const values = relay(numbers(10), 6, []);
    const results = await Promise.all(Array.from({ length: 9 }, () => values.next()));
    assert.deepEqual(
      results.map(({ value }) => value),
      ["1", "3", "5", "7", "9", "end", undefined, undefined, undefined],
    );
  });

  it("answers calls in order at whichever moment they come", async () => {
    const microtasks = async (n: number): Promise<void> => {
      for (let i = 0; i < n; i++) await undefined;
    };
    for (let k = 0; k < 12; k++) {
      let next = 0;
      const source = { next: () => Promise.resolve({ done: false, value: next++ }) } as AsyncIterator<number>;
      const values = new Relay<number, number>((lane) => {
        lane.take = (value) => value;
        return through(lane, source, async (value) => value);
      });
      const calls = [values.next(), values.next()];
      for (const n of [k, 1, 2]) {
        await microtasks(n);
        calls.push(values.next());
      }
      const results = await Promise.all(calls);
      assert.deepEqual(
        results.map(({ value }) => value),
        [0, 1, 2, 3, 4],
        `${k} microtasks`,
      );
    }
  });

  it("ends with the source's error, through the generator", async () => {
    for (const kept of [0, 6]) {
      const seen: number[] = [];
      const error = new Error("source");
      await assert.rejects(all(relay(numbers(4, error), kept, seen)), error);
      assert.equal(seen.at(-1), -1);
    }
  });

  it("leaves its source once where it is left, by whichever side, and a call under way ends first", async () => {
    const source = numbers(10);
    assert.deepEqual(await all(relay(source, 4, [], 7)), ["1", "3", "5", "end"]);
    assert.equal(source.returns, 1);
    const other = numbers(10);
    const values = relay(other, 6, []);
    await values.next();
    const [next, left] = await Promise.all([values.next(), values.return()]);
    assert.deepEqual([next, left.done, other.returns], [{ done: false, value: "3" }, true, 1]);
    assert.equal((await values.next()).done, true);
  });
});

describe("parts that are asked for at once", () => {
  it("are those that come one after the other, and a return waits for the one under way", async () => {
    const model = await load(mini);
    const options = { seed: 5, maxTokens: 12, stopIds: [] };
    const ask = () => model.stream("Tell me of a fox.", options)[Symbol.asyncIterator]();
    const expected = (await all(ask())).map((part) => (part.type === "text-delta" ? part.delta : part.type));
    const parts = ask();
    const results = await Promise.all(expected.map(() => parts.next()));
    assert.equal((await parts.next()).done, true);
    assert.deepEqual(
      results.map(({ value }) => (value.type === "text-delta" ? value.delta : value.type)),
      expected,
    );
    const left = ask();
    await left.next();
    const under = [left.next(), left.next(), left.next()];
    await left.return?.();
    assert.deepEqual((await under[0])?.done, false);
    assert.equal((await model.status()).openSessions, 0);
    model.dispose();
  });
});
