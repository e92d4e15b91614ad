// Tests on a terminal need one: Python's pty makes it. Where there is no Python they are skipped, but never on CI.
import { spawnSync } from "node:child_process";

/** Whether there is a Python with pty. Skips the test when there is none. @throws Error on CI, where it must be installed */
export function needPython(context: { skip(): never }): void {
  if (spawnSync("python3", ["-c", "import pty"]).status === 0) return;
  if (process.env.CI === "true") throw new Error("python3 with pty is not installed: the tests on a terminal cannot run");
  context.skip();
}
