// Who may import whom: each folder of src/ has a rank, a file imports from its own folder or a lower rank, and there are no cycles.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, posix } from "node:path";

/** Path prefix → rank; the longest prefix counts. */
const ranks: readonly (readonly [string, number])[] = [
  ["checks.ts", 0],
  ["errors.ts", 0],
  ["macrotask.ts", 0],
  ["math.ts", 0],
  ["part.ts", 0],
  ["progress.ts", 0],
  ["relay.ts", 0],
  ["values.ts", 0],
  ["memory/", 1],
  ["kernels/", 2],
  ["weights/", 3],
  ["text/", 3],
  ["models/", 4],
  ["generate/", 7],
  ["context.ts", 8],
  ["forward.ts", 8],
  ["generation-config.ts", 8],
  ["reply.ts", 8],
  ["score.ts", 8],
  ["turn.ts", 8],
  ["cache-calls.ts", 8],
  ["cache.ts", 8],
  ["chat.ts", 8],
  ["model.ts", 8],
  ["downloads.ts", 8],
  ["draft.ts", 8],
  ["from-network.ts", 8],
  ["header-progress.ts", 8],
  ["lfm2.ts", 8],
  ["planned-threads.ts", 8],
  ["inspect.ts", 8],
  ["index.ts", 8],
  ["mini.ts", 8],
  ["wasm-file.ts", 8],
  ["gguf-file.ts", 8],
  ["quantize/", 9],
  ["remote/", 8.5],
  ["transformers/", 9],
  ["server/", 9],
  ["adapters/node/", 9],
  ["adapters/browser/", 9],
  ["adapters/workerd/", 9],
  ["adapters/inline/", 9],
  // both have Node's modules
  ["adapters/deno/", 10],
  ["adapters/bun/", 10],
  ["cli/", 11],
];

function files(dir: string): string[] {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    if (statSync(path).isDirectory()) return files(path);
    return name.endsWith(".ts") && !name.endsWith(".d.ts") ? [path] : [];
  });
}

const sources = new Map(files("src").map((path) => [path.replaceAll("\\", "/").slice("src/".length), readFileSync(path, "utf8")]));

/** Specifiers of static and dynamic imports, type imports too. */
function imports(text: string): string[] {
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((m) => m[1] ?? "");
}

function rank(path: string): number {
  const found = ranks.find(([prefix]) => (prefix.endsWith("/") ? path.startsWith(prefix) : path === prefix));
  assert.ok(found, `src/${path} stands in no ranked folder`);
  return found[1];
}

const folder = (path: string): string =>
  path.includes("/")
    ? path
        .split("/")
        .slice(0, path.startsWith("adapters/") ? 2 : 1)
        .join("/")
    : "";
const targets = (path: string): string[] =>
  imports(sources.get(path) ?? "")
    .filter((to) => to.startsWith(".") && !/\.(wasm|gguf)$/.test(to)) // files that lie in dist/
    .map((to) => posix.normalize(posix.join(dirname(path), to)));

describe("imports of src/", () => {
  it("found the sources", () => assert.ok(sources.size > 40));

  for (const path of sources.keys()) {
    it(`${path} imports only from its own folder or a lower rank`, () => {
      for (const to of targets(path)) {
        assert.ok(sources.has(to) || to.endsWith(".d.ts"), `${path} imports ${to}, which is not there: relative imports end in .ts`);
        const isAllowed = folder(to) === folder(path) || rank(to) < rank(path);
        assert.ok(isAllowed, `${path} (rank ${rank(path)}) imports ${to} (rank ${rank(to)})`);
      }
    });
  }

  it("has no cycles", () => {
    const done = new Set<string>();
    const visit = (path: string, trail: readonly string[]): void => {
      assert.ok(!trail.includes(path), `cycle: ${[...trail, path].join(" → ")}`);
      if (done.has(path)) return;
      for (const to of targets(path)) visit(to, [...trail, path]);
      done.add(path);
    };
    for (const path of sources.keys()) visit(path, []);
  });

  it("names a runtime only in adapters and the CLI", () => {
    for (const [path, text] of sources) {
      if (path.startsWith("adapters/") || path.startsWith("cli/")) continue;
      const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      assert.ok(!/"node:|\bprocess\.|\bBuffer\b|\bDeno\.|\bBun\.|\bnavigator\.|cloudflare:/.test(code), `src/${path} names a runtime`);
    }
  });

  it("loads parts later by part() alone, and lfm2-wasm/whole brings them all", () => {
    const whole = "adapters/browser/whole.ts";
    const brought = targets(whole).filter((to) => to !== "part.ts");
    const later = new Map<string, string>();
    for (const [path, text] of sources) {
      if (/^(?:cli|adapters\/(?:node|deno|bun))\//.test(path)) continue; // no service worker runs them
      const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "").replace(/typeof import\(/g, "");
      for (const [, name = "", to = ""] of code.matchAll(/part\("([^"]+)", \(\) => import\("([^"]+)"\)\)/g))
        later.set(name, posix.normalize(posix.join(dirname(path), to)));
      assert.equal(code.match(/\bimport\(/g)?.length ?? 0, code.match(/part\("[^"]+", \(\) => import\(/g)?.length ?? 0, path);
    }
    assert.deepEqual([...later.values()].sort(), brought.sort());
    const given = /bring\(\{([^}]+)\}/.exec(sources.get(whole) ?? "")?.[1] ?? "";
    const names = [...given.matchAll(/^ {2}"?([a-z-]+)"?[,:]/gm)].map(([, name]) => name);
    assert.deepEqual(names.sort(), [...later.keys()].sort());
  });

  it("leaves no choice of token to an engine's own mathematics", () => {
    for (const [path, text] of sources) {
      if (path.startsWith("cli/") || path.startsWith("weights/")) continue; // neither chooses a token
      const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      assert.doesNotMatch(
        code,
        /\bMath\s*\.\s*(exp|expm1|log|log2|log10|log1p|pow|sin|cos|tan|tanh|sinh|cosh|atan2?|cbrt|hypot)\b|\*\*(?!\/)/,
        `src/${path}`,
      );
    }
  });

  it("makes no program of a text, and patterns in two places, of its own limit and of JSON's escapes", () => {
    const patterns: string[] = [];
    for (const [path, text] of sources) {
      const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      assert.doesNotMatch(code, /\beval\(|\bFunction\(|set(?:Timeout|Interval)\(\s*["'`]/, `src/${path}`);
      for (const _ of code.matchAll(/\bRegExp\(/g)) patterns.push(path);
    }
    assert.deepEqual(patterns.sort(), ["text/guard.ts", "text/jinja.ts"]);
  });

  it("the model reads like the paper: no word of dtype, thread, platform or sampling in lfm2.ts", () => {
    const code = (sources.get("models/lfm2.ts") ?? "").replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
    const words = code.replace(/^import .*$/gm, "");
    const found = /\b(q4|q8|\w*dtype|thread|worker|sample|temperature|wasm)\b/i.exec(words)?.[0];
    assert.equal(found, undefined);
  });

  it("no file is longer than 600 lines, none of an adapter than 120", () => {
    for (const [path, text] of sources) {
      const most = path.startsWith("adapters/") ? 120 : 600;
      const lines = text.trimEnd().split("\n").length;
      assert.ok(lines <= most, `src/${path} has ${lines} lines; at most ${most}`);
    }
  });

  it("tests/reference imports nothing from src/", () => {
    for (const path of files("tests/reference")) assert.ok(!imports(readFileSync(path, "utf8")).some((to) => to.includes("/src/")), path);
  });
});
