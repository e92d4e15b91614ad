// A thread of the package's that dies while a call waits for it, in each kind of runtime: the call ends with a PlatformError, and so does the next one. The package is the
// packed one but for the file of its threads or of its worker, which dies by itself in the middle of a reply. tests/unit/threads and worker have the cases of Node.
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { pick } from "../scale.ts";
import { installPacked } from "../tools/packed.ts";
import { installed, RUNTIMES } from "./index.mjs";

/** A thread takes part in some steps and dies at the beginning of the next; its instance's words are those of assembly/lib/threads.ts. */
const DYING_THREAD = `{
  const { Instance } = WebAssembly;
  WebAssembly.Instance = function (module, imports) {
    const { exports } = new Instance(module, imports);
    const words = new Int32Array(imports.env.memory.buffer);
    const [step, commands, count] = [384 / 4, 388 / 4, 392 / 4];
    const die = () => { throw new Error("the test's own crash"); };
    const until = (seen) => { while (Atomics.wait(words, step, seen, 1) === "timed-out"); }; // it is none of the sleepers that are woken
    const serve = (seen, ith, nth) => {
      for (let steps = 0; steps < 5; steps++) {
        until(seen);
        seen = Atomics.load(words, step);
        exports.run(words[commands], words[count], ith, nth);
      }
      until(seen);
      die();
    };
    return { exports: { ...exports, serve, fail: die } };
  };
}
`;
/** A worker dies between two steps of a reply. */
const DYING_WORKER = `{
  const { Instance } = WebAssembly;
  let steps = 0;
  WebAssembly.Instance = function (module, imports) {
    const { exports } = new Instance(module, imports);
    const run = (...args) => {
      if (++steps === 20) setTimeout(() => { throw new Error("the test's own crash"); }, 0);
      return exports.run(...args);
    };
    return { exports: { ...exports, run } };
  };
}
`;
const CRASHES = {
  thread: { text: DYING_THREAD, files: ["thread.js", "thread.browser.js"], error: "PlatformError thread-stopped" },
  worker: { text: DYING_WORKER, files: ["worker.js", "worker.deno.js", "worker.browser.js"], error: "PlatformError worker-ended" },
};
const TIMEOUT_MS = 120_000;

describe("a thread that dies while a call waits for it", function () {
  if (pick({ gate: true, full: false })) return; // thread 0 waits 3 s for one that does not come
  this.timeout(4 * TIMEOUT_MS);
  const found = installed(["node26", "deno", "bun", "chromium", "firefox"], "what becomes of a call when a thread dies");
  let project: string;
  before(() => {
    project = mkdtempSync(join(tmpdir(), "lfm2-crash-"));
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  for (const [what, { text, files, error }] of Object.entries(CRASHES))
    describe(what === "thread" ? "one that computes" : "the engine's worker", () => {
      const folder = (): string => join(project, what);
      before(async () => {
        const job = join(folder(), "job.mjs");
        const dist = join(installPacked(folder()), "dist");
        for (const name of files) writeFileSync(join(dist, name), text + readFileSync(join(dist, name), "utf8"));
        cpSync(join("tests", "runtimes", "crash.page.mjs"), job);
        const outfile = join(dist, "job.mjs"); // beside the package's files, for browsers
        const common = { bundle: true, format: "esm", platform: "browser", target: "es2022", absWorkingDir: folder() } as const;
        await build({ ...common, entryPoints: [job], outfile });
      });
      for (const { name, binary } of found)
        it(name, async () => {
          const isBrowser = name === "chromium" || name === "firefox";
          const module = isBrowser ? join(folder(), "node_modules", "lfm2-wasm", "dist", "job.mjs") : join(folder(), "job.mjs");
          const job = { module, files: {}, options: { what }, isPackaged: true };
          const told = await RUNTIMES[name]?.run(binary, job, TIMEOUT_MS, "page");
          const [threads, engine] = [what === "thread" ? 2 : 1, isBrowser || what === "worker" ? "worker" : "here"];
          assert.deepEqual(told, { threads, engine, pending: error, later: error });
        });
    });
});
