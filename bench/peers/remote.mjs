// Workers of peers.mjs as the parent sees them: start, call, stop, and how much memory the processes took at most.
import { execFileSync, fork, spawn } from "node:child_process";
import { createReadStream, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SAMPLE_MS = 50;

/** Resident bytes of a process and its children, shared pages counted in parts; undefined where there is no /proc. */
function residentBytes(pid) {
  const parents = new Map();
  try {
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      try {
        const parent = Number(/\) \S (\d+)/.exec(readFileSync(`/proc/${name}/stat`, "utf8"))?.[1]);
        parents.set(parent, [...(parents.get(parent) ?? []), Number(name)]);
      } catch {} // it has ended
    }
  } catch {
    return undefined;
  }
  let bytes = 0;
  const todo = [pid];
  while (todo.length) {
    const each = todo.pop();
    todo.push(...(parents.get(each) ?? []));
    try {
      bytes += 1024 * Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${each}/smaps_rollup`, "utf8"))?.[1] ?? 0);
    } catch {}
  }
  return bytes;
}

/** Calls that wait for their answers. */
class Pending {
  #next = 0;
  #waiting = new Map();

  /** @returns the message, and its answer */
  open(call, args, timeoutMs) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id)?.reject(new Error(`${call}: no answer in ${timeoutMs / 1000} s`)), timeoutMs);
      this.#waiting.set(id, { resolve, reject, timer });
    });
    return { message: { call, id, args }, answer };
  }

  #settle(id) {
    const found = this.#waiting.get(id);
    clearTimeout(found?.timer);
    this.#waiting.delete(id);
    return found;
  }

  take({ id, result, error }) {
    const found = this.#settle(id);
    if (error === undefined) found?.resolve(result);
    else found?.reject(new Error(error));
  }

  fail(error) {
    for (const id of [...this.#waiting.keys()]) this.#settle(id).reject(error);
  }
}

/** A worker: `call(name, args, timeoutMs)`, `stop()`, `peak` in bytes since the start. */
class Remote {
  peak = 0;
  #pending = new Pending();
  #sampler;

  constructor(pid, send, end, { sampled }) {
    this.send = send;
    this.end = end;
    const sample = () => {
      this.peak = Math.max(this.peak, residentBytes(pid) ?? 0);
    };
    if (sampled) this.#sampler = setInterval(sample, SAMPLE_MS);
    this.sample = sample;
  }

  async call(name, args, timeoutMs = 120_000) {
    const { message, answer } = this.#pending.open(name, args, timeoutMs);
    this.send(message);
    return answer;
  }

  take(message) {
    this.#pending.take(message);
  }

  fail(error) {
    this.#pending.fail(error);
  }

  async stop() {
    clearInterval(this.#sampler);
    await this.end();
  }
}

/** Binds a process, and the threads that it will start, to one core, where there is a way. */
function bindTo(core, pid) {
  try {
    execFileSync("taskset", ["-a", "-c", "-p", String(core), String(pid)], { stdio: "ignore" });
  } catch {} // no Linux, or no right: it runs where it is put
}

/**
 * Starts `script` in a Node of its own.
 * @param core the only one that it may use; default any
 */
export async function startNode(script, { execPath = process.execPath, sampled = false, core, env } = {}) {
  const child = fork(script, { execPath, execArgv: [], stdio: ["ignore", "ignore", "inherit", "ipc"], env: { ...process.env, ...env } });
  const ended = new Promise((resolve) => {
    child.once("exit", resolve);
  });
  const end = async () => {
    if (child.connected) child.disconnect();
    const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(timer);
  };
  const remote = new Remote(child.pid, (message) => child.send(message), end, { sampled });
  const ready = new Promise((resolve, reject) => {
    child.on("message", (message) => (message.ready ? resolve() : remote.take(message)));
    ended.then((code) => {
      const error = new Error(`${script}: ended with ${code}`);
      remote.fail(error);
      reject(error);
    });
  });
  await ready;
  if (core !== undefined) bindTo(core, child.pid);
  return remote;
}

const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/** @returns the path of a Chromium: `CHROMIUM` or `CHROME_PATH`, or the first found on PATH; undefined without one */
export function findBrowser() {
  const named = process.env.CHROMIUM || process.env.CHROME_PATH;
  if (named) return named;
  const dirs = (process.env.PATH ?? "").split(":");
  return BROWSERS.flatMap((name) => dirs.map((dir) => join(dir, name))).find((path) => existsSync(path));
}

/** Whether this process runs at a real-time priority (Linux: policy FIFO or round robin). */
function isRealTime() {
  try {
    const fields = readFileSync("/proc/self/stat", "utf8")
      .replace(/^.*\) /, "")
      .split(" ");
    return ["1", "2"].includes(fields[38]);
  } catch {
    return false;
  }
}

const TYPES = { ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

/** Starts `page` (a module below `files`) in a browser of its own. Paths of `files` and `model` are served; the page is isolated, for threads. */
export async function startPage(page, { files, model, browser = findBrowser(), sampled = false }) {
  const queue = [];
  let asking;
  let remote;
  let isReady;
  const ready = new Promise((resolve, reject) => {
    isReady = { resolve, reject };
  });
  const hand = () => {
    if (!asking || !queue.length) return;
    asking.end(JSON.stringify(queue.shift()));
    asking = undefined;
  };
  const receive = async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    response.setHeader("content-type", "application/json");
    if (request.url === "/next") {
      asking = response;
      return hand();
    }
    const message = JSON.parse(body);
    if (message.ready) isReady.resolve();
    else remote.take(message);
    response.end("{}");
  };
  const server = createServer((request, response) => {
    response.setHeader("cross-origin-opener-policy", "same-origin");
    response.setHeader("cross-origin-embedder-policy", "require-corp");
    if (request.method === "POST") return receive(request, response);
    if (request.url === "/") {
      response.setHeader("content-type", "text/html");
      return response.end(`<!doctype html><title>bench</title><script type="module" src="/${page}"></script>`);
    }
    const path = request.url === "/model" ? model : join(files, decodeURIComponent(request.url));
    const stat = path && statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile() || request.url.includes("..")) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[/\.\w+$/.exec(path)?.[0]] ?? "application/octet-stream", "content-length": stat.size });
    createReadStream(path, { highWaterMark: 1 << 20 }).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const profile = mkdtempSync(join(tmpdir(), "lfm2-bench-browser-"));
  const flags = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    `--user-data-dir=${profile}`,
    "--remote-debugging-pipe",
  ];
  // its many processes wait for each other by spinning: with the real-time priority that a benchmark may run at, they would stand still
  const [command, ...before] = [...(isRealTime() ? ["chrt", "-o", "0"] : []), browser];
  // the browser ends when the pipes at 3 and 4 close, however this process ends
  const stdio = ["ignore", "ignore", "ignore", "pipe", "pipe"];
  const child = spawn(command, [...before, ...flags, `http://127.0.0.1:${server.address().port}/`], { stdio, detached: true });
  const kill = () => {
    try {
      process.kill(-child.pid, "SIGKILL"); // its own group: the browser and its processes
    } catch {} // ended already
  };
  process.once("exit", kill);
  const ended = new Promise((resolve) => {
    child.once("exit", resolve);
    child.once("error", resolve);
  });
  const end = async () => {
    kill();
    process.off("exit", kill);
    await ended;
    server.closeAllConnections();
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  const send = (message) => {
    queue.push(message);
    hand();
  };
  remote = new Remote(child.pid, send, end, { sampled });
  ended.then((code) => {
    const error = new Error(`${browser}: ended with ${code}`);
    remote.fail(error);
    isReady.reject(error);
  });
  const timer = setTimeout(() => isReady.reject(new Error(`${browser}: the page did not start in 60 s`)), 60_000);
  try {
    await ready;
  } catch (error) {
    await end();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return remote;
}
