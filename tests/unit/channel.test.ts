// The channel between two sides: how many messages go, how far a stream works ahead, what leaving and failing do.
import assert from "node:assert/strict";
import { FormatError, PlatformError } from "../../src/errors.ts";
import { Channel, type ChannelOptions, type Handler } from "../../src/remote/channel.ts";

interface Pair {
  readonly near: Channel;
  readonly far: Channel;
  /** Kinds of the messages that `far` has sent. */
  readonly sent: string[];
  readonly moved: object[];
  /** What `far` has sent of streams, by message. */
  readonly items: unknown[][];
}

/** Two sides that clone what they send, a turn of the event loop apart. */
function pair(handlers: Record<string, Handler>, options: ChannelOptions = {}, nearOptions: ChannelOptions = {}): Pair {
  const sent: string[] = [];
  const moved: object[] = [];
  const items: unknown[][] = [];
  const far: Channel = new Channel(
    (message, transfer) => {
      sent.push((message as { kind: string }).kind);
      moved.push(...transfer);
      const { items: own } = message as { items?: unknown[] };
      if (own) items.push(own);
      const copy = structuredClone(message, { transfer: transfer as ArrayBuffer[] });
      setImmediate(() => near.receive(copy));
    },
    handlers,
    options,
  );
  const near: Channel = new Channel(
    (message) => {
      const copy = structuredClone(message);
      setImmediate(() => far.receive(copy));
    },
    {},
    nearOptions,
  );
  return { near, far, sent, moved, items };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/** Counts up, and notes how far it got and whether it was left. */
function counter(end: number): { handler: Handler; state: { made: number; isLeft: boolean } } {
  const state = { made: 0, isLeft: false };
  const handler: Handler = async function* () {
    try {
      while (state.made < end) yield state.made++;
    } finally {
      state.isLeft = true;
    }
  };
  return { handler, state };
}

describe("channel", () => {
  it("calls and answers; buffers that a result owns move, views on parts are copied", async () => {
    const { near, moved } = pair({
      whole: () => ({ data: new Float32Array([1, 2, 3]) }),
      part: () => new Uint8Array([1, 2, 3, 4]).subarray(1, 3),
      add: ([a, b]) => (a as number) + (b as number),
    });
    assert.equal(await near.call("add", [2, 3]), 5);
    assert.deepEqual(await near.call("whole", []), { data: new Float32Array([1, 2, 3]) });
    assert.equal(moved.length, 1);
    assert.deepEqual(await near.call("part", []), new Uint8Array([2, 3]));
    assert.equal(moved.length, 1);
  });

  it("errors cross with class, code and cause; so does a value that cannot be cloned", async () => {
    const { near } = pair({
      fail: () => {
        throw new FormatError("x: expected y, got z.", { code: "odd", cause: new TypeError("because") });
      },
      function: () => () => {},
    });
    await assert.rejects(near.call("fail", []), (e: FormatError) => {
      assert.ok(e instanceof FormatError);
      assert.deepEqual([e.code, e.message, (e.cause as Error).message], ["odd", "[lfm2] x: expected y, got z.", "because"]);
      return true;
    });
    await assert.rejects(near.call("function", []), /clone/);
    await assert.rejects(near.call("other", []), { name: "PlatformError", message: /expected a call that it knows, got other/ });
    await assert.rejects(near.call("fail", [() => {}]), /clone/);
  });

  it("a stream works a few items ahead, and on as they are taken", async () => {
    const { handler, state } = counter(100);
    const { near } = pair({ count: handler });
    const stream = near.stream("count", []);
    await turns(5);
    assert.equal(state.made, 0, "nothing before the first item is asked for");
    await stream.next();
    await turns(50);
    assert.ok(state.made > 1 && state.made <= 17, `${state.made} items ahead`);
    const rest: unknown[] = [];
    for await (const item of stream) rest.push(item);
    assert.deepEqual(
      rest,
      Array.from({ length: 99 }, (_, i) => i + 1),
    );
    assert.ok(state.isLeft);
  });

  it("leaving a stream waits until the other side has left", async () => {
    const { handler, state } = counter(1000);
    const { near } = pair({ count: handler });
    for await (const item of near.stream("count", [])) if (item === 20) break;
    assert.ok(state.isLeft && state.made < 60, JSON.stringify(state));
    const fresh = counter(3);
    const again = pair({ count: fresh.handler }).near.stream("count", []);
    await again.return(undefined);
    assert.equal(fresh.state.made, 0);
  });

  it("items of a frame travel together, the first alone", async () => {
    const { handler } = counter(64);
    const one = pair({ count: handler });
    for await (const _ of one.near.stream("count", []));
    assert.equal(one.sent.filter((kind) => kind === "items").length, 64);
    const batched = pair({ count: counter(64).handler }, { batchMs: 10_000 });
    const items: unknown[] = [];
    for await (const item of batched.near.stream("count", [])) items.push(item);
    assert.equal(items.length, 64);
    // one at first, then as often as the window is full
    const messages = batched.sent.filter((kind) => kind === "items").length;
    assert.ok(messages >= 2 && messages <= 12, `${messages} messages`);
  });

  it("one that comes alone is sent when its frame is over, though none follows", async () => {
    let release = (): void => {};
    const handler: Handler = async function* () {
      yield 1;
      yield 2;
      await new Promise<void>((resolve) => {
        release = resolve;
      });
    };
    for (const [batchMs, isSent] of [
      [30, true],
      [100_000, false],
    ] as const) {
      const { near } = pair({ two: handler }, { batchMs });
      const stream = near.stream("two", []);
      assert.equal((await stream.next()).value, 1);
      const second = stream.next();
      const came = await Promise.race([
        second.then(() => true),
        new Promise((resolve) => setTimeout(resolve, isSent ? 20_000 : 200, false)),
      ]);
      assert.equal(came, isSent);
      release();
      assert.equal((await second).value, 2);
      assert.ok((await stream.next()).done);
    }
  });

  it("one that took a frame to make is not held back, nor what follows it at once", async () => {
    let now = 0;
    const { performance } = globalThis;
    const handler: Handler = async function* () {
      for (const ms of [0, 0, 50, 0, 0, 50]) {
        now += ms;
        yield ms;
      }
    };
    Object.defineProperty(globalThis, "performance", { value: { now: () => now }, configurable: true });
    try {
      const { near, items } = pair({ steps: handler }, { batchMs: 16 });
      for await (const _ of near.stream("steps", []));
      assert.deepEqual(items, [[0], [0, 50], [0], [0, 50]]);
    } finally {
      Object.defineProperty(globalThis, "performance", { value: performance, configurable: true });
    }
  });

  it("a call's signal fires on the other side", async () => {
    const { near } = pair({
      wait: (_, signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
    });
    const control = new AbortController();
    const call = near.call("wait", [], control.signal);
    control.abort();
    await assert.rejects(call, { name: "AbortError" });
    await assert.rejects(near.call("wait", [], AbortSignal.abort()), { name: "AbortError" });
  });

  it("a failure ends all that waits here, all that comes later, and what is worked on for the other", async () => {
    let isTold = false;
    const busy: boolean[] = [];
    const { near, far } = pair(
      {
        wait: (_, signal) => new Promise(() => signal.addEventListener("abort", () => (isTold = true))),
        count: counter(1e9).handler,
      },
      {},
      { onBusy: (is) => busy.push(is) },
    );
    const call = near.call("wait", []);
    const stream = (async () => {
      for await (const _ of near.stream("count", []));
    })();
    await turns(3);
    const error = new PlatformError("gone: expected x, got y.");
    near.fail(error);
    await assert.rejects(call, error);
    await assert.rejects(stream, error);
    await assert.rejects(near.call("wait", []), error);
    assert.equal(busy.at(-1), false);
    far.fail(error);
    assert.ok(isTold);
  });
});
