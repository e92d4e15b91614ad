// How often an engine in a worker calls its kernels, as seen from outside: in a word that both sides share, so that nobody waits for a message to know.

/** Goes before the text of a worker's file. A call is counted as it begins, from when the word is there. */
const COUNTING = `{
  const { Instance } = WebAssembly;
  let word = new Int32Array(1);
  countedFrom((message) => { if (message?.countedCalls) word = message.countedCalls; });
  WebAssembly.Instance = function (module, imports) {
    const { exports } = new Instance(module, imports);
    const counted = (name) => [name, (...args) => (Atomics.add(word, 0, 1), exports[name](...args))];
    const names = ["run", "run_all"].filter((name) => name in exports);
    return { exports: { ...exports, ...Object.fromEntries(names.map(counted)) } };
  };
}
`;

/** The package's files that start a worker with an engine. */
export const WORKER_FILES = ["worker.js", "worker.deno.js", "worker.browser.js"];

/** @param {string} name of WORKER_FILES @param {string} text of a module @returns the text of one that counts first */
export function withCount(name, text) {
  const listen = name.includes("browser")
    ? 'const countedFrom = (take) => addEventListener("message", ({ data }) => take(data));'
    : 'import { parentPort as countedPort } from "node:worker_threads"; const countedFrom = (take) => countedPort.on("message", take);';
  return `${listen}\n${COUNTING}${text}`;
}

/** Hands a word to every worker that is posted something from now on. @returns what reads it, and what ends that */
export async function shareCount() {
  const word = new Int32Array(new SharedArrayBuffer(4));
  const node = "node:worker_threads"; // not for a bundler to see
  const { prototype } = ("document" in globalThis ? globalThis : await import(node)).Worker;
  const { postMessage } = prototype;
  const told = new WeakSet();
  prototype.postMessage = function (...args) {
    if (!told.has(this)) postMessage.call(this, { countedCalls: word });
    told.add(this);
    return postMessage.apply(this, args);
  };
  return {
    count: () => Atomics.load(word, 0),
    end: () => {
      prototype.postMessage = postMessage;
    },
  };
}
