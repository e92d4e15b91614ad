// A job in a browser: a page from a local server runs it itself or in a worker that it starts; the answer comes as a request. How a browser starts is in the folder of each.
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, extname, join } from "node:path";
import { contentBytes, contentCpuMs } from "./memory.mjs";
import { ISOLATED } from "./server.mjs";

/** @returns {string | undefined} the path of the first of `names` that is on PATH, or what the variable names */
export function findBrowser(variable, names) {
  const named = process.env[variable];
  const folders = (process.env.PATH ?? "").split(delimiter);
  const paths = named ? [named] : names.flatMap((name) => folders.map((folder) => join(folder, name)));
  return paths.find((path) => existsSync(path));
}

/** Runs the job where `run` has been imported, and tells what came of it. */
const MAIN = `
  const tell = (path, body) => fetch(path, { method: "POST", body });
  const bytes = async (name) => [name, new Uint8Array(await (await fetch("/file?" + encodeURIComponent(name))).arrayBuffer())];
  async function main(load) {
    try {
      const { files, options } = await (await fetch("/job")).json();
      const { run } = await load();
      await tell("/result", JSON.stringify(await run(Object.fromEntries(await Promise.all(files.map(bytes))), options, (what) => void tell("/doing", what))));
    } catch (error) {
      await tell("/failed", String(error?.stack ?? error));
    }
  }`;
const IMPORTED = `${MAIN}\n main(() => import("/module.mjs"));`;
/** In a page, a dedicated worker, a service worker (which may not import later, and lives as long as an event is waited for). */
const PLACES = {
  page: { page: IMPORTED },
  worker: {
    page: `${MAIN}
      const worker = new Worker("/worker.mjs", { type: "module" });
      worker.onerror = (e) => tell("/failed", e.message + " at " + e.filename + ":" + e.lineno);`,
    script: IMPORTED,
  },
  service: {
    page: `${MAIN}
      navigator.serviceWorker.register("/worker.mjs", { type: "module" }).then(async () => {
        (await navigator.serviceWorker.ready).active.postMessage("go");
      }).catch((error) => tell("/failed", String(error)));`,
    script: `import * as module from "/module.mjs"; ${MAIN}\n self.onmessage = (e) => e.waitUntil(main(() => module));`,
  },
};

const TYPES = { ".wasm": "application/wasm", ".js": "text/javascript", ".mjs": "text/javascript" };

/**
 * @param {string} name for messages
 * @param {(url: string, profile: string) => Promise<{ pid: number, ended: Promise<never>, stop(): Promise<void> }>} start opens the page; `ended` rejects when the browser does
 * @param {import("./index.mjs").Job} job files beside its module are served beside it, and what the browser has in memory and how long it has computed as `/memory` and `/cpu`
 * @param {number} timeoutMs @param {string} place of PLACES
 */
export async function runInBrowser(name, start, job, timeoutMs, place) {
  const { page, script } = PLACES[place];
  const answers = {
    "/": () => [`<!doctype html><link rel="icon" href="data:,"><script type="module">${page}</script>`, "text/html"],
    "/worker.mjs": () => [script, "text/javascript"],
    "/module.mjs": async () => [await readFile(job.module), "text/javascript"],
    "/job": () => [JSON.stringify({ files: Object.keys(job.files), options: job.options }), "application/json"],
    "/memory": () => [String(contentBytes(browser.pid)), "text/plain"],
    "/cpu": () => [String(contentCpuMs(browser.pid)), "text/plain"],
    "/file": async (query) => [await readFile(job.files[decodeURIComponent(query)]), "application/octet-stream"],
  };
  const profile = await mkdtemp(join(tmpdir(), `lfm2-${name}-`));
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  let browser;
  let timer;
  let doing = "nothing";
  try {
    const told = new Promise((resolve, reject) => {
      server.on("request", async (request, response) => {
        const [path, query = ""] = request.url.split("?");
        if (request.method === "POST") {
          const body = await text(request);
          response.end();
          if (path === "/doing") doing = body;
          else if (path === "/result") resolve(JSON.parse(body));
          else reject(new Error(`${name}: ${body}`));
          return;
        }
        const answer = answers[path] ?? beside(job, path);
        if (!answer) return response.writeHead(404).end();
        const [body, type] = await answer(query);
        response.writeHead(200, { "content-type": type, ...(place === "page" ? ISOLATED : {}) }).end(body);
      });
      timer = setTimeout(
        () => reject(new Error(`${name}: expected an answer within ${timeoutMs / 1000} s, got none; the last that began: ${doing}`)),
        timeoutMs,
      );
    });
    told.catch(() => {}); // it may fail while the browser starts
    browser = await start(`http://127.0.0.1:${server.address().port}/`, profile);
    return await Promise.race([told, browser.ended]);
  } finally {
    clearTimeout(timer);
    await browser?.stop();
    server.closeAllConnections();
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** A file in the folder of the job's module. */
function beside({ module }, path) {
  const file = join(dirname(module), basename(path));
  if (!existsSync(file)) return undefined;
  return async () => [await readFile(file), TYPES[extname(file)] ?? "application/octet-stream"];
}

async function text(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}
