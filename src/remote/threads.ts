// Helper threads of an engine in a worker, started by whoever started that worker. For Firefox: there `new Worker` in a worker may wait for ever (ESR 153: a quarter of the times that
// seven are started, of which a thread of two takes part in one of 200), never in a page.
import type { Thread, ThreadSource, ThreadStart } from "../kernels/threads.ts";
import type { Channel, Handler } from "./channel.ts";

/** The threads that were started for the other side. */
export interface ServedThreads {
  /** What the other side needs to start some. */
  readonly handlers: Readonly<Record<string, Handler>>;
  /** Ends them all: they do not end with the worker that they serve. */
  end(): void;
}

/** @param source starts them here */
export function serveThreads(source: ThreadSource): ServedThreads {
  const running = new Map<unknown, { readonly thread: Thread; readonly ended: Promise<string> }>();
  return {
    handlers: {
      thread: ([id, start]) => {
        let say = (_: string): void => {};
        const ended = new Promise<string>((resolve) => {
          say = resolve;
        });
        const thread = source.spawn(start as ThreadStart, (cause) => say(cause instanceof Error ? cause.message : String(cause)));
        running.set(id, { thread, ended });
        return thread.ready;
      },
      "thread.ended": ([id]) => running.get(id)?.ended,
      "thread.end": ([id]) => running.get(id)?.thread.end(),
    },
    end: () => {
      for (const { thread } of running.values()) thread.end();
    },
  };
}

/** @returns threads that the other side of `channel` starts */
export function remoteThreads(channel: Channel, available: ThreadSource["available"]): ThreadSource {
  let ids = 0;
  return {
    available,
    spawn: (start, onEnd) => {
      const id = ids++;
      const ready = channel.call("thread", [id, start]).then(() => {});
      ready.then(() => channel.call("thread.ended", [id])).then(onEnd, () => {}); // who waits for `ready` hears why there is none
      return { ready, end: () => channel.tell("thread.end", [id]) };
    },
  };
}
