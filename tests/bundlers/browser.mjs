// A page of an example in Chromium, and what it says when something goes wrong.
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** @param {string} binary Chromium's @param {string[]} extensions folders of extensions to load @param {string} [userDataDir] a profile that stays; else one for this browser alone */
export async function openBrowser(binary, extensions = [], userDataDir = undefined) {
  const entry = resolve("tests", "runtimes", "node_modules", "puppeteer-core", "lib", "esm", "puppeteer", "puppeteer-core.js");
  const { default: puppeteer } = await import(pathToFileURL(entry).href);
  const args = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
  ];
  return puppeteer.launch({
    executablePath: binary,
    headless: true,
    timeout: 120_000, // with every core busy a start takes half a minute
    protocolTimeout: 900_000, // and a program in a page minutes: whoever runs it has a limit of its own
    args,
    ...(userDataDir ? { userDataDir } : {}),
    ...(extensions.length ? { pipe: true, enableExtensions: extensions } : {}),
  });
}

/** @returns {string[]} what the page says on the console, what fails in it and what it cannot fetch; the list grows */
export function listen(page) {
  const said = [];
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  page.on("requestfailed", (request) => {
    const why = request.failure()?.errorText; // a download that the package ends itself, having read what it wants, is no failure
    if (why !== "net::ERR_ABORTED") said.push(`failed: ${request.url()} ${why}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) said.push(`${response.status()}: ${response.url()}`);
  });
  return said;
}

/**
 * Opens a page and waits until its title is "done".
 * @returns {Promise<{ text: string, said: string[], workers: number }>} the text of #out; what was said on the console, failed, or could not be fetched; workers that run
 */
export async function visit(browser, url, timeoutMs) {
  const page = await browser.newPage();
  const said = listen(page);
  try {
    await page.goto(url, { timeout: timeoutMs });
    await page.waitForFunction(() => document.title === "done", { timeout: timeoutMs }).catch((error) => said.push(error.message));
    return { text: await page.$eval("#out", (out) => out.textContent), said, workers: page.workers().length };
  } finally {
    await page.close();
  }
}
