// The runtimes that tests run in beside the Node that runs them: whether each is installed, and one module run in it. What differs is in a folder each.
import * as bun from "./bun/runtime.mjs";
import * as chromium from "./chromium/runtime.mjs";
import * as deno from "./deno/runtime.mjs";
import * as firefox from "./firefox/runtime.mjs";
import { nodeRuntime } from "./node/runtime.mjs";
import * as workerd from "./workerd/runtime.mjs";

/**
 * @typedef {object} Job a module to run
 * @property {string} module path of an ES module without imports that exports `run(files, options)`, which returns JSON
 * @property {Record<string, string>} files what it is handed, by name: paths, which it receives as Uint8Arrays
 * @property {object} options JSON
 * @property {boolean} [isPackaged] whether its module imports an installed package
 */

const ALL_NODES = ["node20", "node22", "node24", "node26"];
/** Node versions beside the one that runs this, the newest last. */
export const NODES = ALL_NODES.filter((name) => name !== `node${process.versions.node.split(".")[0]}`);

/**
 * Every runtime by name: `find()` gives the path of its binary, or undefined where it is not installed; `run(binary, job, timeoutMs)` gives what the module returned.
 * @type {Record<string, { install: string, find(): string | undefined, run(binary: string, job: Job, timeoutMs: number): Promise<any> }>}
 */
export const RUNTIMES = {
  ...Object.fromEntries(ALL_NODES.map((name) => [name, nodeRuntime(name)])),
  deno,
  bun,
  chromium,
  firefox,
  workerd,
};

/**
 * The runtimes of `names` that are installed, with their binaries. One that is not is an error where CI=true, and a printed notice elsewhere.
 * @param {readonly string[]} names @param {string} what is not tested without them
 */
export function installed(names, what) {
  const found = names.map((name) => ({ name, binary: RUNTIMES[name].find() }));
  const missing = found.filter(({ binary }) => !binary).map(({ name }) => `${name} (${RUNTIMES[name].install})`);
  if (missing.length && process.env.CI === "true") throw new Error(`not installed: ${missing.join(", ")}`);
  if (missing.length) console.error(`\nnot tested: ${what}, for these are not installed: ${missing.join(", ")}`);
  return found.filter(({ binary }) => binary);
}
