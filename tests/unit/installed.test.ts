// Which runtimes there are to test with: one that is missing is a failure where CI=true, for a gate that tests less than it says would be green; elsewhere it is a notice.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { RUNTIMES } from "../runtimes/index.mjs";

/** By runtime: how many were found, or the error's message. */
type Found = Readonly<Record<string, string>>;

/** Asks for each runtime where none of them is, in an empty folder and with nothing on PATH: where CI=true, and elsewhere, with what is said there. */
function askWithout(): { readonly inCI: Found; readonly elsewhere: Found; readonly said: string } {
  const folder = mkdtempSync(join(tmpdir(), "lfm2-nothing-"));
  try {
    const program = `import { installed, RUNTIMES } from ${JSON.stringify(pathToFileURL(resolve("tests", "runtimes", "index.mjs")))};
      const ask = (name) => { try { return installed([name], "what is tested with it").length + " found"; } catch (error) { return error.message; } };
      const all = (CI) => { process.env.CI = CI; return Object.fromEntries(Object.keys(RUNTIMES).map((name) => [name, ask(name)])); };
      console.log(JSON.stringify({ inCI: all("true"), elsewhere: all("") }));`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      cwd: folder,
      env: { PATH: folder },
      encoding: "utf8",
    });
    return { ...(JSON.parse(stdout || assert.fail(stderr)) as { inCI: Found; elsewhere: Found }), said: stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const NAMES = ["node20", "node22", "node24", "node26", "deno", "bun", "chromium", "firefox", "workerd"];

describe("a runtime that is not installed", () => {
  it("is a failure where CI=true, which says how to install it; elsewhere a notice, which says what is not tested", () => {
    const { inCI, elsewhere, said } = askWithout();
    assert.deepEqual(Object.keys(inCI), NAMES);
    for (const name of NAMES) {
      assert.equal(inCI[name], `not installed: ${name} (${RUNTIMES[name]?.install})`);
      assert.equal(elsewhere[name], "0 found");
      assert.ok(said.includes(`not tested: what is tested with it, for these are not installed: ${name} (`), said);
    }
  });
});
