// Cloudflare's workerd, through miniflare. Nothing is compiled there: wasm files are imported as modules, and a job's files come as modules too. A bucket of R2 is there as an option, `bucket`.
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { install } from "../package-binary.mjs";

export { install };

/** @returns {string | undefined} miniflare's module, where the workerd of its version is installed too */
export function find() {
  const modules = resolve("tests", "runtimes", "node_modules");
  const path = join(modules, "miniflare", "dist", "src", "index.js");
  return existsSync(path) && existsSync(join(modules, "@cloudflare", `workerd-${process.platform}-64`)) ? path : undefined;
}

const kindOf = (name) => (name.endsWith(".wasm") ? "CompiledWasm" : "Data");
const module = async (path, file) => ({ type: kindOf(path), path, contents: await readFile(file) });

/** @param {import("../index.mjs").Job} job wasm and gguf files beside its module can be imported by it */
export async function run(binary, job, timeoutMs) {
  const { Log, LogLevel, Miniflare } = await import(pathToFileURL(binary).href);
  const folder = dirname(job.module);
  const entry = basename(job.module);
  const beside = (await readdir(folder)).filter((name) => /\.(wasm|gguf)$/.test(name));
  const given = Object.entries(job.files).map(([name, file], i) => ({
    name,
    file,
    path: `given-${i}${name.endsWith(".wasm") ? ".wasm" : ".bin"}`,
  }));
  const main = `
    import { run } from "./${entry}";
    ${given.map(({ path }, i) => `import f${i} from "./${path}";`).join("\n")}
    const bytes = (value) => (value instanceof ArrayBuffer ? new Uint8Array(value) : value);
    const files = { ${given.map(({ name }, i) => `${JSON.stringify(name)}: bytes(f${i})`).join(", ")} };
    export default {
      async fetch(request, { BUCKET: bucket }) {
        try {
          return Response.json(await run(files, { ...${JSON.stringify(job.options)}, bucket }));
        } catch (error) {
          return new Response(String(error?.stack ?? error), { status: 500 });
        }
      },
    };`;
  const modules = [
    { type: "ESModule", path: "main.mjs", contents: main },
    { type: "ESModule", path: entry, contents: await readFile(job.module, "utf8") },
    ...(await Promise.all(beside.map((name) => module(name, join(folder, name))))),
    ...(await Promise.all(given.map(({ path, file }) => module(path, file)))),
  ];
  const worker = new Miniflare({
    modules,
    compatibilityDate: "2026-04-01",
    r2Buckets: ["BUCKET"],
    log: new Log(LogLevel.ERROR),
    cf: false,
  });
  let timer;
  try {
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`workerd: expected an answer within ${timeoutMs / 1000} s, got none`)), timeoutMs);
    });
    const response = await Promise.race([worker.dispatchFetch("http://localhost/"), late]);
    if (!response.ok) throw new Error(`workerd: ${await response.text()}`);
    return await response.json();
  } finally {
    clearTimeout(timer);
    await worker.dispose();
  }
}
