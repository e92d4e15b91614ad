// Binaries that npm packages of this folder bring, and a module run by one of them: Node, Deno and Bun share main.mjs.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const install = "npm ci --prefix tests/runtimes";

/** @returns {string | undefined} the path of a file in a package of this folder, where it is installed */
export function binaryOf(...path) {
  const file = resolve("tests", "runtimes", "node_modules", ...path); // tests run in the repository's root, and this may be bundled
  return existsSync(file) ? file : undefined;
}

/** Runs a job by `binary flags… main.mjs job.json`. A runtime that takes longer is killed, which is an error. */
export async function runJob(binary, flags, job, timeoutMs) {
  const dir = await mkdtemp(join(tmpdir(), "lfm2-runtime-"));
  try {
    const path = join(dir, "job.json");
    await writeFile(path, JSON.stringify({ ...job, result: join(dir, "result.json") }));
    const child = spawn(binary, [...flags, resolve("tests", "runtimes", "main.mjs"), path], { stdio: ["ignore", "inherit", "pipe"] });
    const error = [];
    child.stderr.on("data", (bytes) => error.push(bytes));
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    const [code, signal] = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (...how) => resolve(how));
    }).finally(() => clearTimeout(timer));
    if (code !== 0)
      throw new Error(
        `${binary} ended with ${signal === "SIGKILL" ? `SIGKILL, for it may take ${timeoutMs / 1000} s` : (code ?? signal)}:\n${Buffer.concat(error).toString()}`,
      );
    return JSON.parse(await readFile(join(dir, "result.json"), "utf8"));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
