// Deno, from the package of its platform.
import { binaryOf, install, runJob } from "../package-binary.mjs";

export { install };
export const find = () => binaryOf("deno", "deno");
export const run = (binary, job, timeoutMs) =>
  runJob(
    binary,
    ["run", "--quiet", "--no-lock", "--v8-flags=--expose-gc", ...(job.isPackaged ? [] : ["--no-config", "--no-npm"]), "-A"],
    job,
    timeoutMs,
  );
