// Helper threads of an engine in a worker, started by the page that started that worker: Firefox (ESR 153) may never return from `new Worker` in a worker, one time in four where seven
// are started. The page passes on a port by which the thread hears of its work, and never has the model's memory itself: it would keep it until its next garbage collection.
import type { Thread, ThreadSource } from "../kernels/threads.ts";
import type { Channel, Handler } from "./channel.ts";

/**
 * Starts a thread that calls `serveThread` with what comes by `port`.
 * @param onEnd is called when the thread has ended for another reason than `end()`
 */
export type StartThread = (port: object, onEnd: (cause: unknown) => void) => Thread;

/** What is used of a port; runtimes type it differently. */
interface Port {
  postMessage(message: unknown): void;
  close(): void;
}

/** The threads that were started for the other side. */
export interface ServedThreads {
  /** What the other side needs to start some. */
  readonly handlers: Readonly<Record<string, Handler>>;
  /** Ends them all: they do not end with the worker that they serve. */
  end(): void;
}

export function serveThreads(start: StartThread): ServedThreads {
  const running = new Map<unknown, { readonly ended: Promise<string>; readonly end: () => void }>();
  return {
    handlers: {
      thread: ([id, port]) => {
        let say = (_: string): void => {};
        const ended = new Promise<string>((resolve) => {
          say = resolve;
        });
        const thread = start(port as object, (cause) => say(cause instanceof Error ? cause.message : String(cause)));
        const end = (): void => {
          thread.end();
          say("");
        };
        running.set(id, { ended, end });
        return Promise.race([thread.ready, ended]);
      },
      "thread.ended": ([id]) => running.get(id)?.ended,
      "thread.end": ([id]) => {
        running.get(id)?.end();
        running.delete(id);
      },
    },
    end: () => {
      for (const { end } of running.values()) end();
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
      const { port1, port2 } = new MessageChannel() as unknown as Readonly<Record<"port1" | "port2", Port>>;
      port1.postMessage(start);
      let told: typeof onEnd | undefined = onEnd;
      const ready = channel.call("thread", [id, port2], undefined, [port2]).then(() => {});
      ready
        .then(() => channel.call("thread.ended", [id]))
        .then(
          (cause) => told?.(cause),
          () => {}, // who waits for `ready` hears why there is none
        );
      const end = (): void => {
        told = undefined; // it may hold a model
        port1.close();
        channel.tell("thread.end", [id]);
      };
      return { ready, end };
    },
  };
}
