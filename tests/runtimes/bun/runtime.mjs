// Bun, from the package of its platform.
import { binaryOf, install, runJob } from "../package-binary.mjs";

export { install };
export const find = () => binaryOf("bun", "bin", "bun");
export const run = (binary, job, timeoutMs) => runJob(binary, ["run", "--no-install"], job, timeoutMs);
