// The plain build of the kernels with its assertions, which no release has.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** @returns the module, compiled now: seconds, so only the full run asks for it */
export function debugBuild(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "lfm2-debug-"));
  try {
    const file = join(folder, "kernels.wasm");
    execFileSync(process.execPath, [
      "node_modules/assemblyscript/bin/asc.js",
      "--config",
      "asconfig.json",
      "--target",
      "debug",
      "-o",
      file,
    ]);
    return readFileSync(file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
