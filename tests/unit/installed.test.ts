// Which runtimes there are to test with: one that is missing is a failure where CI=true, for a gate that tests less than it says would be green; elsewhere it is a notice.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { RUNTIMES } from "../runtimes/index.mjs";

interface Told {
  /** By runtime: what came, or the error's message. */
  readonly found: Readonly<Record<string, string>>;
  readonly said: string;
}

/** Asks for each runtime where none of them is: in an empty folder, with nothing on PATH. */
function askWithout(CI: string): Told {
  const folder = mkdtempSync(join(tmpdir(), "lfm2-nothing-"));
  try {
    const program = `import { installed, RUNTIMES } from ${JSON.stringify(pathToFileURL(resolve("tests", "runtimes", "index.mjs")))};
      const ask = (name) => { try { return installed([name], "what is tested with it").length + " found"; } catch (error) { return error.message; } };
      console.log(JSON.stringify(Object.fromEntries(Object.keys(RUNTIMES).map((name) => [name, ask(name)]))));`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      cwd: folder,
      env: { CI, PATH: folder },
      encoding: "utf8",
    });
    return { found: JSON.parse(stdout || assert.fail(stderr)) as Told["found"], said: stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const NAMES = ["node20", "node22", "node24", "node26", "deno", "bun", "chromium", "firefox", "workerd"];

describe("a runtime that is not installed", () => {
  it("is a failure where CI=true, which says how to install it", () => {
    const { found } = askWithout("true");
    assert.deepEqual(Object.keys(found), NAMES);
    for (const [name, told] of Object.entries(found)) assert.equal(told, `not installed: ${name} (${RUNTIMES[name]?.install})`);
  });

  it("is a notice elsewhere, which says what is not tested", () => {
    const { found, said } = askWithout("");
    for (const name of NAMES) {
      assert.equal(found[name], "0 found");
      assert.ok(said.includes(`not tested: what is tested with it, for these are not installed: ${name} (`), said);
    }
  });
});
