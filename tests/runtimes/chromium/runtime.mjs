// Chromium of the system.
import { spawn } from "node:child_process";
import { findBrowser, runInBrowser } from "../browser.mjs";

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
  "--js-flags=--expose-gc",
];

export const find = () => findBrowser("CHROMIUM", ["chromium", "chromium-browser"]);

/** @param {import("../index.mjs").Job} job */
export function run(binary, job, timeoutMs, place = "worker") {
  return runInBrowser("chromium", (url, profile) => start(binary, url, profile), job, timeoutMs, place);
}

async function start(binary, url, profile) {
  const child = spawn(binary, [...FLAGS, `--user-data-dir=${profile}`, url], { stdio: ["ignore", "ignore", "pipe"], detached: true });
  const said = [];
  child.stderr.on("data", (bytes) => said.push(bytes));
  const ended = new Promise((_, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) =>
      reject(new Error(`${binary} ended with ${code ?? signal} before the page was done:\n${Buffer.concat(said)}`)),
    );
  });
  ended.catch(() => {}); // it does when it is stopped, too
  return { pid: child.pid, ended, stop: () => stop(child) };
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
