// The examples, built from the packed package as their users would, and run: pages in Chromium without a word on the console, the others in their runtimes.
import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, execFile, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { installed } from "../runtimes/index.mjs";
import { ISOLATED, serveFolders } from "../runtimes/server.mjs";
import { pick } from "../scale.ts";
import { installPacked } from "../tools/packed.ts";
import { type Browser, listen, openBrowser, visit } from "./browser.mjs";

/** What is used of miniflare's worker. */
interface Worker {
  dispatchFetch(url: string, init?: RequestInit): Promise<Response>;
  dispose(): Promise<void>;
}

const TIMEOUT_MS = 60_000;
/** A bundler that takes longer hangs: webpack's takes a minute on a busy machine. */
const BUILD_MS = 600_000;
const ANSWER = "3 + 4 = 7";
const execute = promisify(execFile);

/** Examples with a page, and the pages. */
const PAGES: Readonly<Record<string, readonly string[]>> = pick<Readonly<Record<string, readonly string[]>>>({
  gate: { esbuild: ["out/", "out/single.html"], vite: ["dist/"] },
  full: {
    esbuild: ["out/", "out/single.html"],
    vite: ["dist/"],
    webpack: ["out/"],
    rollup: ["out/"],
    "import-map": [""],
    "strict-csp": ["out/"],
  },
});
const isFull = pick({ gate: false, full: true });
const BUNDLERS = resolve("tests", "bundlers", "node_modules");
const NEXT = resolve("tests", "bundlers", "next", "node_modules");
const nextIsMissing = isFull && !existsSync(NEXT) ? "Next.js (npm ci --prefix tests/bundlers/next)" : undefined;
if (nextIsMissing && process.env.CI === "true") throw new Error(`not installed: ${nextIsMissing}`);
if (nextIsMissing) console.error(`\nnot tested: the example of Next.js, for this is not installed: ${nextIsMissing}`);
const bundlersAreThere = existsSync(join(BUNDLERS, "vite"));
if (!bundlersAreThere && process.env.CI === "true") throw new Error("not installed: the bundlers (npm ci --prefix tests/bundlers)");
if (!bundlersAreThere) console.error("\nnot tested: the examples, for the bundlers are not installed (npm ci --prefix tests/bundlers)");

/** @returns the address that a server says first */
function addressOf(server: ChildProcessWithoutNullStreams): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    const hear = (bytes: Buffer): void => {
      said += bytes;
      const found = /http:\/\/[\d.]+:\d+/.exec(said)?.[0];
      if (found) resolve(found);
    };
    server.stdout.on("data", hear);
    server.stderr.on("data", hear);
    server.once("close", (code) => reject(new Error(`the server ended with ${code}: ${said}`)));
  });
}

/** @returns the text that a server sends in parts */
async function streamed(url: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: "What is 3 + 4?" }], stream: true }),
  });
  const events = (await response.text()).split("\n\n").filter((event) => event.startsWith("data: {"));
  assert.ok(events.length > 3, `${events.length} parts`);
  const parts = events.map((event) => JSON.parse(event.slice("data: ".length)) as { choices: { delta: { content?: string } }[] });
  return parts.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
}

/** Next.js and what it needs, laid into the example's own folder: Turbopack reads nothing outside of it, not even by a link. */
function installNext(folder: string, modules: string): void {
  const own = join(folder, "node_modules");
  for (const name of ["lfm2-wasm", "@huggingface"]) cpSync(join(modules, name), join(own, name), { recursive: true });
  const copy = (name: string): void => {
    if (existsSync(join(own, name))) return;
    cpSync(join(NEXT, name), join(own, name), { recursive: true });
    const { dependencies = {} } = JSON.parse(readFileSync(join(own, name, "package.json"), "utf8")) as { dependencies?: object };
    Object.keys(dependencies).forEach(copy);
  };
  const compilers = readdirSync(join(NEXT, "@next")).filter((name) => name.startsWith("swc-"));
  for (const name of ["next", "react", "react-dom", ...compilers.map((name) => `@next/${name}`)]) copy(name);
  mkdirSync(join(own, ".bin"));
  symlinkSync(join("..", "next", "dist", "bin", "next"), join(own, ".bin", "next"));
}

describe("examples", () => {
  if (!bundlersAreThere) return;
  const chromium = installed(["chromium"], "the examples with a page")[0]?.binary;
  let project: string;
  let browser: Browser | undefined;
  before(async () => {
    if (chromium) browser = await openBrowser(chromium);
    project = mkdtempSync(join(tmpdir(), "lfm2-examples-"));
    installPacked(project);
    const modules = join(project, "node_modules");
    for (const name of ["vite", "webpack", "rollup", "@rollup", "wrangler", ".bin"]) symlinkSync(join(BUNDLERS, name), join(modules, name));
    symlinkSync(resolve("node_modules", "esbuild"), join(modules, "esbuild"));
  });
  after(async () => {
    await browser?.close();
    rmSync(project, { recursive: true, force: true });
  });

  /** Opens pages of a folder, each with `headers`. @returns what they tell, and what was asked for and not there */
  async function visited(folder: string, pages: readonly string[], headers: Record<string, string> = {}, timeoutMs: number = TIMEOUT_MS) {
    // without a bundler a page asks for the modules themselves
    const server = await serveFolders({ "/": folder, "/node_modules/": join(project, "node_modules") }, { headers });
    try {
      const told = [];
      for (const page of pages) told.push(await visit(browser as Browser, server.url + page, timeoutMs));
      return { told, missing: server.missing };
    } finally {
      await server.close();
    }
  }

  /** A copy of the example, built where it has something to build; `prepare` may put more into it. @returns its folder */
  async function built(name: string, prepare?: (folder: string) => void): Promise<string> {
    const folder = join(project, name);
    cpSync(join("examples", name), folder, { recursive: true });
    prepare?.(folder);
    const { scripts = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { scripts?: Record<string, string> };
    if (scripts.build) {
      mkdirSync(join(folder, "out"), { recursive: true });
      const env = { ...process.env, WRANGLER_SEND_METRICS: "false", NEXT_TELEMETRY_DISABLED: "1", NO_COLOR: "1" };
      const { stdout, stderr } = await execute("npm", ["run", "build"], { cwd: folder, env, timeout: BUILD_MS });
      assert.doesNotMatch(stdout + stderr, /warn/i, name);
    }
    return folder;
  }

  it("the packed package's types resolve for every entry, as @arethetypeswrong/cli says", async () => {
    const attw = join(BUNDLERS, "@arethetypeswrong", "cli", "dist", "index.js");
    const tarball = readdirSync(project).find((name) => name.endsWith(".tgz")) ?? assert.fail("no tarball");
    const { stdout } = await execute(process.execPath, [attw, join(project, tarball), "--profile", "esm-only"], { timeout: TIMEOUT_MS });
    assert.match(stdout, /lfm2-wasm\/inline/);
  });

  for (const [name, pages] of Object.entries(PAGES))
    it(`${name}: builds, and its page answers without a word on the console`, async () => {
      if (!chromium) return;
      const folder = await built(name);
      const given = join(folder, "headers.json");
      const headers = existsSync(given) ? (JSON.parse(readFileSync(given, "utf8")) as Record<string, string>) : {};
      const expected = pages.map(() => ({ text: ANSWER, said: [], workers: 1 }));
      assert.deepEqual(await visited(folder, pages, headers), { told: expected, missing: [] });
    });

  if (!isFull) return;

  it("extension: its page answers", async () => {
    if (!chromium) return;
    const folder = join(await built("extension"), "out");
    const browser = await openBrowser(chromium, [folder]);
    try {
      const id = await browser.installExtension?.(folder);
      assert.deepEqual(await visit(browser, `chrome-extension://${id}/index.html`, TIMEOUT_MS), { text: ANSWER, said: [], workers: 1 });
    } finally {
      await browser.close();
    }
  });

  it("browser-chat: answers, stops, shows errors, and says nothing on the console", async function () {
    this.timeout(3 * TIMEOUT_MS);
    if (!chromium) return;
    const folder = await built("browser-chat");
    const server = await serveFolders({ "/": folder, "/node_modules/": join(project, "node_modules") }, { headers: ISOLATED });
    const page = await (browser as Browser).newPage();
    const said = listen(page);
    const textOf = (selector: string): Promise<string> => page.evaluate(`document.querySelector("${selector}").textContent`);
    const ask = async (text: string): Promise<void> => {
      await page.type("#input", text);
      await page.click("#send");
    };
    try {
      await page.setViewport({ width: 800, height: 700 });
      await page.goto(server.url);
      await page.waitForFunction(`!document.querySelector("#send").disabled`, { timeout: TIMEOUT_MS });
      assert.match(await textOf("#info"), /^lfm2-mini · q8\+q4 · [\d.]+ MB · 1 thread in a worker$/);
      await ask("What is 3 + 4?");
      await page.waitForFunction(`document.querySelectorAll(".note").length === 1`, { timeout: TIMEOUT_MS });
      assert.equal(await textOf(".assistant"), ANSWER);
      // as soon as there is text: the story is told in a twentieth of a second
      await page.evaluate(`new MutationObserver((_, watch) => {
        if (!document.querySelectorAll(".assistant")[1]?.textContent) return;
        watch.disconnect();
        document.querySelector("#stop").click();
      }).observe(document.querySelector("#messages"), { subtree: true, childList: true, characterData: true })`);
      await ask("Tell me a story about a fox and a bear.");
      await page.waitForFunction(`document.querySelectorAll(".note").length === 2`, { timeout: TIMEOUT_MS });
      assert.match(await textOf(".note:last-child"), /interrupted$/);
      if (process.env.LFM2_SCREENSHOT) await page.screenshot({ path: process.env.LFM2_SCREENSHOT });
      assert.deepEqual([said, server.missing], [[], []]);
      await page.goto(`${server.url}?model=nothing`);
      await page.waitForFunction(`!document.querySelector("#error").hidden`, { timeout: TIMEOUT_MS });
      assert.match(await textOf("#error"), /load: expected an address or a hub's id org\/name, got "nothing"/);
    } finally {
      await page.close();
      await server.close();
    }
  });

  it("a page whose policy forbids to compile says what to allow", async () => {
    if (!chromium) return;
    const folder = await built("strict-csp");
    const headers = { "content-security-policy": "default-src 'self'; img-src data:" };
    const { told } = await visited(folder, ["out/"], headers, 5000);
    assert.match(told[0]?.said.join("\n") ?? "", /PlatformError.*allow 'wasm-unsafe-eval' in script-src/s);
  });

  it("a bundle without the wasm files says which are missing and what to do", async () => {
    if (!chromium) return;
    const folder = await built("esbuild");
    for (const name of readdirSync(join(folder, "out"))) if (name.endsWith(".wasm")) rmSync(join(folder, "out", name));
    const { told, missing } = await visited(folder, ["out/"], {}, 5000);
    assert.match(
      told[0]?.said.join("\n") ?? "",
      /expected a WebAssembly file at .*kernels\.relaxed\.wasm, got status 404\. Copy the \.wasm files/,
    );
    assert.deepEqual(missing, ["/out/kernels.relaxed.wasm"]);
  });

  it("deno: the program answers, from the npm specifier", async () => {
    const deno = installed(["deno"], "the example of Deno")[0]?.binary;
    if (!deno) return;
    const folder = await built("deno");
    const { stdout } = await execute(deno, ["run", "--quiet", "--no-lock", "--no-prompt", "--allow-read", join(folder, "main.ts")], {
      cwd: folder,
    });
    assert.equal(stdout.trim(), ANSWER);
  });

  it("deno: its server answers in parts", async () => {
    const deno = installed(["deno"], "the example of Deno")[0]?.binary;
    if (!deno) return;
    const folder = await built("deno");
    const flags = ["--no-lock", "--no-prompt", "--allow-read", "--allow-net"];
    const server = spawn(deno, ["run", ...flags, join(folder, "serve.ts"), "0"], { cwd: folder, env: { ...process.env, NO_COLOR: "1" } });
    try {
      assert.equal(await streamed(await addressOf(server)), ANSWER);
    } finally {
      server.kill("SIGKILL");
    }
  });

  it("next: its page answers, and its server in parts", async function () {
    this.timeout(2 * BUILD_MS);
    if (nextIsMissing || !chromium) return;
    const folder = await built("next", (folder) => installNext(folder, join(project, "node_modules")));
    const command = [join(folder, "node_modules", "next", "dist", "bin", "next"), "start", "-p", "0", "-H", "127.0.0.1"];
    const server = spawn(process.execPath, command, { cwd: folder, env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NO_COLOR: "1" } });
    try {
      const url = await addressOf(server);
      assert.equal(await streamed(url), ANSWER);
      assert.deepEqual(await visit(browser as Browser, url, TIMEOUT_MS), { text: ANSWER, said: [], workers: 1 });
    } finally {
      server.kill("SIGKILL");
    }
  });

  it("cloudflare-worker: wrangler's bundle fits, and its worker answers", async () => {
    const folder = await built("cloudflare-worker");
    const out = readdirSync(join(folder, "out"));
    assert.ok(out.some((name) => name.endsWith(".wasm")) && out.some((name) => name.endsWith(".gguf")), out.join());
    const binary = installed(["workerd"], "the worker that wrangler bundled")[0]?.binary;
    if (!binary) return;
    const { Miniflare } = (await import(pathToFileURL(binary).href)) as { Miniflare: new (options: object) => Worker };
    const kinds = { ".wasm": "CompiledWasm", ".gguf": "Data" } as const;
    const files = out.filter((name) => extname(name) in kinds);
    const modules = [
      { type: "ESModule", path: "worker.js", contents: readFileSync(join(folder, "out", "worker.js")) },
      ...files.map((path) => ({ type: kinds[extname(path) as ".wasm"], path, contents: readFileSync(join(folder, "out", path)) })),
    ];
    const bytes = modules.map(({ contents }) => gzipSync(contents).length).reduce((a, b) => a + b, 0);
    assert.ok(bytes < 3 << 20, `${bytes} bytes compressed: more than the free plan takes`);
    const worker = new Miniflare({ modules, compatibilityDate: "2026-04-01", cf: false });
    try {
      const response = await worker.dispatchFetch("http://localhost/v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ messages: [{ role: "user", content: "What is 3 + 4?" }] }),
      });
      const { choices } = (await response.json()) as { readonly choices: readonly { readonly message: { readonly content: string } }[] };
      assert.equal(choices[0]?.message.content, ANSWER);
    } finally {
      await worker.dispose();
    }
  });
});

// a folder that nothing names any more would hide a broken example
it("every example is listed in examples/README.md", () => {
  const listed = readFileSync(join("examples", "README.md"), "utf8");
  for (const name of readdirSync("examples")) if (!name.includes(".")) assert.ok(listed.includes(`\`${name}\``), name);
});

it("the Cloudflare example's settings stay JSON with any of those that it has in comments", () => {
  const lines = readFileSync(join("examples", "cloudflare-worker", "wrangler.jsonc"), "utf8").split("\n");
  const isSetting = (line: string): boolean => /^ *\/\/ "/.test(line);
  const settings = lines.filter(isSetting);
  assert.deepEqual(
    settings.map((line) => /"(\w+)"/.exec(line)?.[1]),
    ["vars", "r2_buckets", "assets"],
  );
  for (let chosen = 0; chosen < 1 << settings.length; chosen++) {
    const isChosen = (line: string): boolean => ((chosen >> settings.indexOf(line)) & 1) === 1;
    const text = lines
      .map((line) => (isSetting(line) && isChosen(line) ? line.replace("//", "") : line.replace(/^ *\/\/.*/, "")))
      .join("\n");
    const { name, rules, ...rest } = JSON.parse(text) as Record<string, unknown>;
    assert.ok(name && rules);
    assert.equal(Object.keys(rest).length, 3 + settings.filter(isChosen).length);
  }
});
