// Chromium of the system: a page from a local server starts a worker, which runs the job and posts what it returned.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

export const install = "apt-get install chromium, or name one in CHROMIUM";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** @returns {string | undefined} */
export function find() {
  const named = process.env.CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter);
  const paths = named ? [named] : ["chromium", "chromium-browser"].flatMap((name) => folders.map((folder) => join(folder, name)));
  return paths.find((path) => existsSync(path));
}

const PAGE = `<!doctype html><script type="module">
  const tell = (path, body) => fetch(path, { method: "POST", body });
  const worker = new Worker("/worker.mjs", { type: "module" });
  worker.onerror = (e) => tell("/failed", e.message + " at " + e.filename + ":" + e.lineno);
  worker.onmessage = (e) => tell(e.data.path, e.data.body);
</script>`;
const WORKER = `
  try {
    const { files, options } = await (await fetch("/job")).json();
    const bytes = async (name) => [name, new Uint8Array(await (await fetch("/file?" + encodeURIComponent(name))).arrayBuffer())];
    const all = Object.fromEntries(await Promise.all(files.map(bytes)));
    const { run } = await import("/module.mjs");
    postMessage({ path: "/result", body: JSON.stringify(await run(all, options)) });
  } catch (error) {
    postMessage({ path: "/failed", body: String(error?.stack ?? error) });
  }`;

/** @param {import("../index.mjs").Job} job */
export async function run(binary, job, timeoutMs) {
  const answers = {
    "/": () => [PAGE, "text/html"],
    "/worker.mjs": () => [WORKER, "text/javascript"],
    "/module.mjs": async () => [await readFile(job.module), "text/javascript"],
    "/job": () => [JSON.stringify({ files: Object.keys(job.files), options: job.options }), "application/json"],
    "/file": async (query) => [await readFile(job.files[decodeURIComponent(query)]), "application/octet-stream"],
  };
  const profile = await mkdtemp(join(tmpdir(), "lfm2-chromium-"));
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}/`;
  let child;
  let timer;
  const ended = new Promise((resolve, reject) => {
    server.on("request", async (request, response) => {
      const [path, query = ""] = request.url.split("?");
      if (request.method === "POST") {
        const body = await text(request);
        response.end();
        if (path === "/result") resolve(JSON.parse(body));
        else reject(new Error(`chromium: ${body}`));
        return;
      }
      const answer = answers[path];
      if (!answer) return response.writeHead(404).end();
      const [body, type] = await answer(query);
      response.writeHead(200, { "content-type": type }).end(body);
    });
    child = spawn(binary, [...FLAGS, `--user-data-dir=${profile}`, url], { stdio: ["ignore", "ignore", "pipe"], detached: true });
    const said = [];
    child.stderr.on("data", (bytes) => said.push(bytes));
    child.on("error", reject);
    child.on("close", (code, signal) =>
      reject(new Error(`${binary} ended with ${code ?? signal} before the page was done:\n${Buffer.concat(said)}`)),
    );
    timer = setTimeout(() => reject(new Error(`chromium: expected an answer within ${timeoutMs / 1000} s, got none`)), timeoutMs);
  });
  try {
    return await ended;
  } finally {
    clearTimeout(timer);
    await stop(child);
    server.closeAllConnections();
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** Ends the browser with the processes that it started: it leads a group of its own. */
async function stop(child) {
  if (!child || child.pid === undefined) return;
  const gone = child.exitCode === null && child.signalCode === null ? new Promise((resolve) => child.once("close", resolve)) : undefined;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // it has gone already
  }
  await gone;
}

async function text(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}
