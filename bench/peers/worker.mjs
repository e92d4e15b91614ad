// What the workers have in common, in Node and in a page: named calls on one engine, and a clock around each token.

/** The next `count` tokens of a generator, each with its duration in ms. */
async function take(generator, count) {
  const ids = [];
  const ms = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const { value, done } = await generator.next();
    if (done) throw new Error(`expected ${count} tokens, got ${i}`);
    ms.push(performance.now() - start);
    ids.push(value);
  }
  return { ids, ms };
}

/**
 * @param engine `load(options)`, and `generator(ids)`: greedy ids after `ids` from an empty cache, computed as they are pulled; some have `likeliest(ids, count)`, ours `abort(options)`
 * @returns the calls that a worker answers
 */
export function callsOf(engine) {
  let open;
  const close = async () => {
    await open?.return?.();
    open = undefined;
  };
  return {
    async load(options) {
      const start = performance.now();
      return { ...(await engine.load(options)), ms: performance.now() - start };
    },
    /** Feeds `ids` and takes `count` tokens; the first one's time is the prompt's. The generator stays open for `more`. */
    async start({ ids, count }) {
      await close();
      open = await engine.generator(ids);
      return take(open, count);
    },
    more: ({ count }) => take(open, count),
    /** The `count` likeliest ids after `ids`, of an engine that tells. */
    likeliest: ({ ids, count }) => engine.likeliest(ids, count),
    /** A load that is aborted, by an engine that can. */
    abort: (args) => engine.abort(args),
    close,
  };
}

/** Peak of this process's resident memory. `maxRSS` would begin with what the parent had. */
async function peakBytes() {
  try {
    const { readFileSync } = await import("node:fs");
    return 1024 * Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  } catch {
    return 1024 * process.resourceUsage().maxRSS; // no Linux
  }
}

/** What this machine's memory comes in. */
const PAGE_BYTES = 4096;

/** @returns ms that one thread takes to write into every page of so much new memory */
function firstTouchMs({ bytes }) {
  const fresh = new Uint8Array(new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) }).buffer);
  const start = performance.now();
  for (let at = 0; at < bytes; at += PAGE_BYTES) fresh[at] = 1;
  return performance.now() - start;
}

/** Answers the parent process until it goes. */
export function serve(engine) {
  const calls = { ...callsOf(engine), peakBytes, firstTouchMs };
  process.on("message", async ({ call, id, args }) => {
    try {
      process.send({ id, result: (await calls[call](args)) ?? null });
    } catch (error) {
      process.send({ id, error: String(error?.stack ?? error) });
    }
  });
  process.on("disconnect", () => process.exit());
  process.send({ ready: true });
}
