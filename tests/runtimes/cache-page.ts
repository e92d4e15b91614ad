// The page of the tests of a browser's cache: built from the packed package, served, opened, and called by name.
import { cpSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";
import { installPacked } from "../tools/packed.ts";
import { type Server, serveFolders } from "./server.mjs";

/** Of puppeteer what is used. */
export interface Page {
  goto(url: string): Promise<unknown>;
  reload(): Promise<unknown>;
  close(): Promise<void>;
  evaluate(code: string): Promise<unknown>;
  evaluateOnNewDocument(code: string): Promise<unknown>;
  waitForFunction(code: string): Promise<unknown>;
  createCDPSession(): Promise<{ send(method: string, parameters: object): Promise<unknown> }>;
}
export interface Context {
  newPage(): Promise<Page>;
  close(): Promise<void>;
}
export interface Browser {
  createBrowserContext(): Promise<Context>;
  newPage(): Promise<Page>;
  process(): { readonly pid?: number | undefined } | null;
  close(): Promise<void>;
}

/** Where a call runs. */
export type Place = "inPage" | "inWorker";

/** What `start` of browser-cache.page.mjs gives. */
export interface Given {
  readonly tokens: readonly number[];
  readonly packedImage: string | undefined;
  readonly phases: readonly string[];
  readonly skipped: string | undefined;
}

/** Builds the page in the folder `project` and serves it. */
export async function serveCachePage(project: string): Promise<Server> {
  const dist = join(installPacked(project), "dist");
  const out = join(project, "public");
  mkdirSync(out);
  await build({
    entryPoints: { module: resolve("tests", "runtimes", "browser-cache.page.mjs") },
    outdir: out,
    ...{ bundle: true, format: "esm", target: "es2022", splitting: true, platform: "browser", tsconfigRaw: {}, logLevel: "warning" },
    nodePaths: [join(project, "node_modules")],
    alias: { "lfm2-wasm": join(dist, "browser.js") },
    define: { LFM2_HASH_WASM: '""' }, // of the stores' own suite, which hashes nothing
  });
  for (const name of ["plain", "relaxed"]) cpSync(join(dist, `kernels.${name}.wasm`), join(out, `kernels.${name}.wasm`));
  cpSync(join(dist, "mini.gguf"), join(out, "mini.gguf"));
  const page = `<!doctype html><title>waits</title><script type="module" src="/module.js"></script>`;
  return serveFolders(
    { "/": out },
    {
      answer: ({ url }, response) => {
        if (url !== "/") return false;
        response.writeHead(200, { "content-type": "text/html" }).end(page);
        return true;
      },
    },
  );
}

export async function openCachePage(page: Page, server: Server): Promise<void> {
  await page.goto(server.url);
  await page.waitForFunction("document.title === 'ready'");
}

/** What a call gives there; its error is thrown. */
export async function call<T = Given>(page: Page, place: Place, name: string, ...args: unknown[]): Promise<T> {
  const { value, error } = (await page.evaluate(`${place}(${JSON.stringify(name)}, ${JSON.stringify(args)})`)) as {
    value: T;
    error?: Error;
  };
  if (error) throw Object.assign(new Error(error.message), error);
  return value;
}
