// What Node, Deno and Bun start with: reads a job (see index.mjs), hands its files to its module, writes what that returns.
import { readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { pathToFileURL } from "node:url";

const { module, files, options, result } = JSON.parse(await readFile(process.argv.at(-1), "utf8"));
const entries = await Promise.all(Object.entries(files).map(async ([name, path]) => [name, new Uint8Array(await readFile(path))]));
const { run } = await import(pathToFileURL(module).href);
await writeFile(result, JSON.stringify(await run(Object.fromEntries(entries), options)));
process.exit(0); // whatever still holds the event loop open (a MessageChannel does in Deno) is no part of the job
