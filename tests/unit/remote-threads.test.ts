// Threads that the other side of a channel starts: what either side hears of their start and end, and that nothing is awaited for ever.
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import type { MessagePort } from "node:worker_threads";
import { Channel } from "../../src/remote/channel.ts";
import { remoteThreads, serveThreads } from "../../src/remote/threads.ts";

interface Started {
  readonly port: MessagePort;
  readonly onEnd: (cause: unknown) => void;
  readonly serve: () => void;
  readonly fail: (cause: Error) => void;
  isRunning: boolean;
}

/** @returns both sides, with the threads that were started, and how many calls wait */
function sides() {
  const threads: Started[] = [];
  let open = 0;
  const served = serveThreads((port, onEnd) => {
    let [serve, fail] = [(): void => {}, (_: Error): void => {}];
    const ready = new Promise<void>((resolve, reject) => {
      [serve, fail] = [resolve, reject];
    });
    const thread: Started = { port: port as MessagePort, onEnd, serve, fail, isRunning: true };
    threads.push(thread);
    return {
      ready,
      end: () => {
        thread.isRunning = false;
      },
    };
  });
  const page: Channel = new Channel((message) => {
    open--; // it only answers
    engine.receive(message);
  }, served.handlers);
  const engine: Channel = new Channel((message) => {
    if ((message as { kind: string }).kind === "call") open++;
    page.receive(message);
  }, {});
  return { threads, served, source: remoteThreads(engine, () => 4), waiting: () => open };
}

const never = (cause: unknown): never => assert.fail(String(cause));
const START = { module: {}, memory: {}, ith: 1, nth: 2 } as never;

describe("threads that the other side starts", () => {
  it("hear of their work by a port, are ready, and end", async () => {
    const { threads, source, waiting } = sides();
    let ended = 0;
    const thread = source.spawn(START, () => ended++);
    const heard = new Promise((resolve) => threads[0]?.port.on("message", resolve));
    assert.deepEqual(await heard, START);
    threads[0]?.serve();
    await thread.ready;
    thread.end();
    await delay(1);
    assert.deepEqual([threads[0]?.isRunning, ended, waiting()], [false, 0, 0]);
    threads[0]?.port.close();
  });

  it("tell when they end by themselves, and why", async () => {
    const { threads, source } = sides();
    const cause = new Promise((resolve) => {
      const thread = source.spawn(START, resolve);
      threads[0]?.serve();
      void thread.ready.then(() => threads[0]?.onEnd(new Error("a trap")));
    });
    assert.equal(await cause, "a trap");
    threads[0]?.port.close();
  });

  it("that do not start say why", async () => {
    const { threads, source } = sides();
    const thread = source.spawn(START, never);
    threads[0]?.fail(new Error("a policy"));
    await assert.rejects(thread.ready, /a policy/);
    thread.end();
  });

  it("that end before they are ready, or as they die, leave no call waiting and say no more", async () => {
    const { threads, source, waiting } = sides();
    const [early, dying] = [source.spawn(START, never), source.spawn(START, never)];
    early.end();
    threads[1]?.serve();
    await dying.ready;
    dying.end();
    threads[1]?.onEnd(new Error("a trap"));
    await delay(1);
    assert.deepEqual([threads.map(({ isRunning }) => isRunning), waiting()], [[false, false], 0]);
  });

  it("end all with the worker that they serve", () => {
    const { threads, served, source } = sides();
    for (let i = 0; i < 3; i++) source.spawn(START, never);
    served.end();
    assert.deepEqual(
      threads.map(({ isRunning }) => isRunning),
      [false, false, false],
    );
    for (const { port } of threads) port.close();
  });
});
