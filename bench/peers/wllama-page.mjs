// wllama in a page, as a worker of peers.mjs: fetches its calls from the server that sent the page, and posts what comes of them.
import { Wllama } from "./wllama/index.js";
import { callsOf } from "./worker.mjs";

let w;

async function* generator(ids) {
  await w.kvClear();
  for (let next = ids; ; ) {
    await w.decode(next, {});
    const { token } = await w.samplingSample();
    next = [token];
    yield token;
  }
}

const calls = callsOf({
  generator,
  async load({ threads, contextTokens }) {
    const builds = {
      "single-thread/wllama.wasm": "/wllama/single-thread/wllama.wasm",
      "multi-thread/wllama.wasm": "/wllama/multi-thread/wllama.wasm",
    };
    w = new Wllama(builds, { suppressNativeLog: true });
    const model = await (await fetch("/model")).blob();
    await w.loadModel([model], { n_ctx: contextTokens, n_threads: threads, n_batch: 512 });
    await w.samplingInit({ temp: 0 });
    return { threads: w.getNumThreads(), isMultithread: w.isMultithread() };
  },
});

const post = (path, body) => fetch(path, { method: "POST", body: JSON.stringify(body) });
await post("/result", { ready: true, isolated: self.crossOriginIsolated });
for (;;) {
  const { call, id, args } = await (await post("/next", {})).json();
  try {
    await post("/result", { id, result: (await calls[call](args)) ?? null });
  } catch (error) {
    await post("/result", { id, error: String(error?.stack ?? error) });
  }
}
