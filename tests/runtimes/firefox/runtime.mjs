// Firefox ESR of the system, driven by WebDriver BiDi.
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { findBrowser, runInBrowser } from "../browser.mjs";

export const install = "apt-get install firefox-esr, or name one in FIREFOX";

export const find = () => findBrowser("FIREFOX", ["firefox-esr", "firefox"]);

/** @param {import("../index.mjs").Job} job */
export function run(binary, job, timeoutMs, place = "worker") {
  return runInBrowser("firefox", (url, profile) => start(binary, url, profile, timeoutMs), job, timeoutMs, place);
}

/** A service worker's event may take as long as the suite does. */
const PREFERENCES = { "dom.serviceWorkers.idle_timeout": 3_600_000, "dom.serviceWorkers.idle_extended_timeout": 3_600_000 };

async function start(executablePath, url, userDataDir, timeout) {
  const entry = resolve("tests", "runtimes", "node_modules", "puppeteer-core", "lib", "esm", "puppeteer", "puppeteer-core.js");
  const { default: puppeteer } = await import(pathToFileURL(entry).href);
  const browser = await puppeteer.launch({
    browser: "firefox",
    executablePath,
    userDataDir,
    headless: true,
    timeout,
    extraPrefsFirefox: PREFERENCES,
  });
  const ended = new Promise((_, reject) => {
    browser.once("disconnected", () => reject(new Error(`${executablePath} ended before the page was done`)));
  });
  ended.catch(() => {}); // it does when it is stopped, too
  const page = await browser.newPage();
  await page.goto(url);
  return { pid: browser.process().pid, ended, stop: () => browser.close() };
}
