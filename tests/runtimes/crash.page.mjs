// What crash.test.ts runs in every runtime: a call that waits when a thread of the model's dies, and the next one.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";

const HANG_MS = 30_000;

/** @param {unknown} _files @param {{ what: "thread" | "worker" }} options whether the package's threads crash, or the worker that its engine is in */
export async function run(_files, { what }) {
  const model = await load(mini, what === "thread" ? { threads: 2 } : { engine: "worker" });
  const { threads, engine } = model.info;
  const call = async () => {
    let timer;
    const hang = new Promise((resolve) => {
      timer = setTimeout(resolve, HANG_MS, "hangs");
    });
    const reply = model.generate("Tell me a story about a fox.", { temperature: 0, stopIds: [], maxTokens: 1000 });
    const outcome = reply.then(
      ({ tokens }) => `${tokens.length} tokens`,
      ({ name, code }) => `${name} ${code}`,
    );
    return Promise.race([outcome, hang]).finally(() => clearTimeout(timer));
  };
  const out = { threads, engine, pending: await call(), later: await call() };
  model.dispose();
  return out;
}
