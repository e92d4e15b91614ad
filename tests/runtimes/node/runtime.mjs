// Another Node.
import { binaryOf, install, runJob } from "../package-binary.mjs";

/** @param {string} name the package's name in ../package.json */
export function nodeRuntime(name) {
  return {
    install,
    find: () => binaryOf(name, "bin", "node"),
    run: (binary, job, timeoutMs) => runJob(binary, ["--expose-gc"], job, timeoutMs),
  };
}
