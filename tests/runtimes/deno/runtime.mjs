// Deno, from the package of its platform.
import { spawn } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { basename, dirname, join } from "node:path";
import { binaryOf, install, runJob } from "../package-binary.mjs";

export { install };
export const find = () => binaryOf("deno", "deno");

const RUN = ["run", "--quiet", "--no-lock", "--v8-flags=--expose-gc"];

/**
 * @param {import("../index.mjs").Job} job
 * @param {string} [place] "net": with the network and nothing else, as in Deno Deploy: no files, no Worker, hence no threads
 */
export const run = (binary, job, timeoutMs, place) =>
  place === "net"
    ? runDenied(binary, job, timeoutMs)
    : runJob(binary, [...RUN, ...(job.isPackaged ? [] : ["--no-config", "--no-npm"]), "-A"], job, timeoutMs);

/** A program beside the job's module, of static imports; its answer comes by HTTP, and it must end by itself. */
async function runDenied(binary, { module, options }, timeoutMs) {
  let answer;
  const server = createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    answer = JSON.parse(Buffer.concat(pieces).toString());
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const main = join(dirname(module), "denied.mjs");
  const first = join(dirname(module), "no-worker.mjs"); // a module of its own, for imports come first
  await writeFile(first, "delete globalThis.Worker;");
  await writeFile(
    main,
    `import "./no-worker.mjs";
     import { run } from "./${basename(module)}";
     const body = JSON.stringify(await run({}, ${JSON.stringify(options)}));
     await fetch("http://127.0.0.1:${server.address().port}/", { method: "POST", body });`,
  );
  try {
    const child = spawn(binary, [...RUN, "--no-prompt", "--allow-net", main], {
      cwd: dirname(module),
      stdio: ["ignore", "inherit", "pipe"],
    });
    const said = [];
    child.stderr.on("data", (bytes) => said.push(bytes));
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    const code = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve(code ?? signal));
    }).finally(() => clearTimeout(timer));
    // it has ended by itself: nothing held its event loop open
    if (code !== 0 || answer === undefined) throw new Error(`${binary} ended with ${code}:\n${Buffer.concat(said)}`);
    return answer;
  } finally {
    server.closeAllConnections();
    server.close();
    await Promise.all([rm(main), rm(first)]);
  }
}
