// An abort acts within one step of an engine in a worker, in each kind of runtime: of the package as it is packed the worker's file counts as well. The steps that begin once the message
// of the abort is on its way are counted, at random places of each kind of call. tests/unit/worker and runtimes/page do some of it in the gate.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { pick } from "../scale.ts";
import { installPacked } from "../tools/packed.ts";
import { type AbortsTold, checkAborts } from "./abort.page.mjs";
import { WORKER_FILES, withCount } from "./count-steps.mjs";
import { installed, RUNTIMES } from "./index.mjs";

/** Of each kind of call. */
const ABORTS = 40;
const TIMEOUT_MS = 600_000;

describe("an abort, with the engine in a worker", function () {
  if (pick({ gate: true, full: false })) return;
  this.timeout(2 * TIMEOUT_MS);
  const found = installed(["node20", "node26", "deno", "bun", "chromium", "firefox"], "how soon an abort acts");
  let project: string;
  let dist: string;
  before(async () => {
    project = mkdtempSync(join(tmpdir(), "lfm2-abort-"));
    dist = join(installPacked(project), "dist");
    for (const name of WORKER_FILES) writeFileSync(join(dist, name), withCount(name, readFileSync(join(dist, name), "utf8")));
    for (const name of ["abort.page.mjs", "count-steps.mjs"]) cpSync(join("tests", "runtimes", name), join(project, name));
    const common = { bundle: true, format: "esm", platform: "browser", target: "es2022", absWorkingDir: project } as const;
    await build({ ...common, entryPoints: [join(project, "abort.page.mjs")], outfile: join(dist, "job.mjs") }); // beside the package's files, for browsers
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  for (const { name, binary } of found)
    it(name, async () => {
      const module = name === "chromium" || name === "firefox" ? join(dist, "job.mjs") : join(project, "abort.page.mjs");
      const job = { module, files: {}, options: { aborts: ABORTS, seed: 1 }, isPackaged: true };
      checkAborts((await RUNTIMES[name]?.run(binary, job, TIMEOUT_MS, "page")) as AbortsTold, ABORTS);
    });
});
