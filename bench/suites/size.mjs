// What a user downloads: files of dist/ raw, gzip and brotli, the tarball, what it unpacks to with its dependencies, and how long the wasm takes to compile.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { instantiateSync } from "@assemblyscript/loader";
import { check, median } from "../lib/measure.mjs";

function treeBytes(path) {
  const stat = statSync(path);
  return stat.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + treeBytes(join(path, name)), 0) : stat.size;
}

function packed() {
  const dir = mkdtempSync(join(tmpdir(), "lfm2-size-"));
  try {
    const [{ filename }] = JSON.parse(
      execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", dir], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      }),
    );
    execFileSync("tar", ["xzf", join(dir, filename), "-C", dir]);
    const names = readdirSync(join(dir, "package", "dist"));
    return { tarball: statSync(join(dir, filename)).size, unpacked: treeBytes(join(dir, "package")), names };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The threads' builds import a shared memory. */
const memoryFor = (name) => new WebAssembly.Memory({ initial: 2, maximum: 65536, shared: name.includes("threads") });

export async function size({ options, note }) {
  const rows = [];
  const add = (key, bytes, more = {}) => {
    rows.push({ key, bytes, ...more, value: 1 / bytes });
    const also = more.gzip ? `, gzip ${(more.gzip / 1e3).toFixed(1)}, brotli ${(more.brotli / 1e3).toFixed(1)}` : "";
    note(`${key}: ${(bytes / 1e3).toFixed(1)} kB${also}`);
  };
  const { tarball, unpacked, names } = packed();
  const files = readdirSync("dist").filter((name) => /\.(js|wasm|gguf)$/.test(name));
  check(
    files.every((name) => names.includes(name)),
    "the tarball has every file of dist/",
  );
  for (const name of files) {
    const bytes = readFileSync(join("dist", name));
    add(`dist/${name}`, bytes.length, { gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotliCompressSync(bytes).length });
  }
  add("tarball", tarball);
  add("unpacked", unpacked);
  const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
  add(
    "installed with dependencies",
    unpacked + Object.keys(dependencies).reduce((sum, name) => sum + treeBytes(join("node_modules", name)), 0),
  );
  for (const name of files.filter((f) => f.endsWith(".wasm"))) {
    const bytes = readFileSync(join("dist", name));
    if (!WebAssembly.validate(bytes)) continue;
    const times = Array.from({ length: Math.max(5, options.rounds) }, () => {
      // a section of no meaning: V8 keeps the modules that it has compiled, by their bytes
      const fresh = Buffer.concat([bytes, Buffer.from([0, 9, 8]), Buffer.from(randomBytes(4).toString("hex"))]);
      const start = performance.now();
      const module = new WebAssembly.Module(fresh);
      instantiateSync(module, { env: { memory: memoryFor(name) } });
      return performance.now() - start;
    });
    rows.push({ key: `compile ${name}`, ms: median(times), value: 1 / median(times) });
    note(`compile ${name}: ${median(times).toFixed(2)} ms`);
  }
  return { rows };
}
