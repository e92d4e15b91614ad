// An engine without WebAssembly SIMD: a child process whose `WebAssembly.validate` refuses every module with a vector type, as an old engine does, and which must not fetch kernels.
// And the versions that the error names: what a browser loads calls nothing that came after them.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Loads the bundled model and tells its error. A module with SIMD has the byte of v128 in a function's type. */
const PROGRAM = `
  import { load, UnsupportedError } from "lfm2-wasm";
  import { mini } from "lfm2-wasm/mini";
  const { validate } = WebAssembly;
  let asked = 0;
  WebAssembly.validate = (bytes) => {
    asked++;
    return !bytes.includes(0x7b) && validate(bytes);
  };
  WebAssembly.compile = () => Promise.reject(new Error("compiled"));
  const error = await load(mini, process.argv[1] === "wasm" ? { wasm: new URL("file:///nothing.wasm") } : {}).catch((error) => error);
  console.log(JSON.stringify({ asked, isUnsupported: error instanceof UnsupportedError, code: error.code, message: error.message }));`;

describe("an engine without SIMD", () => {
  for (const how of ["its own kernels", "wasm"])
    it(`is an UnsupportedError that names the versions which have it (${how})`, () => {
      const told = execFileSync(process.execPath, ["--input-type=module", "-e", PROGRAM, "--", how], { encoding: "utf8" });
      const { asked, isUnsupported, code, message } = JSON.parse(told) as Record<string, unknown>;
      assert.ok((asked as number) > 0);
      assert.deepEqual([isUnsupported, code], [true, "no-simd"]);
      for (const version of ["Chrome or Edge 110", "Firefox 115", "Safari 16.4", "Node 20.19", "Deno 2", "Bun 1"])
        assert.ok((message as string).includes(version), version);
    });
});

describe("the oldest browsers that are named", () => {
  /** What came to Chrome after 110, to Firefox after 115 or to Safari after 16.4, by names that nothing of ours has. */
  const YOUNGER = new RegExp(
    [
      String.raw`\bURL\.(?:canParse|parse)\b`,
      String.raw`\b(?:Promise\.(?:withResolvers|try)|Array\.fromAsync|(?:Object|Map)\.groupBy|AbortSignal\.any|RegExp\.escape|Iterator\.from|ReadableStream\.from)\b`,
      String.raw`\b(?:Atomics\.(?:waitAsync|pause)|Float16Array|fromBase64|fromHex|scheduler\.(?:yield|postTask))\b`,
      String.raw`\.(?:isWellFormed|toWellFormed|isSubsetOf|isSupersetOf|symmetricDifference|toBase64|toHex|toResizableBuffer|transferToFixedLength)\(`,
      String.raw`\.bytes\(\)`,
      String.raw`\.(?:keys|values|entries)\(\)\.(?:map|filter|flatMap|take|drop|some|every|find|reduce|forEach|toArray)\(`,
    ].join("|"),
  );

  /** A file of dist/, and those that it imports, at once or later. */
  function reached(name: string, texts: Map<string, string> = new Map()): Map<string, string> {
    if (texts.has(name)) return texts;
    const text = readFileSync(join("dist", name), "utf8");
    texts.set(name, text);
    for (const [, to = ""] of text.matchAll(/"\.\/(core-[A-Z0-9]{8}\.js)"/g)) reached(to, texts);
    return texts;
  }

  it("have all that a page, its worker and its threads call", () => {
    for (const call of ["URL.canParse(a,b)", "await response.bytes()", "[...map.values().map(f)]", "Promise.withResolvers()"])
      assert.match(call, YOUNGER);
    const texts = reached("browser.js");
    for (const name of ["mini.js", "inline.js", "server.js", "transformers.js", "worker.browser.js"]) reached(name, texts);
    assert.ok(texts.size > 25 && [...texts.values()].join("").length > 500_000, `${texts.size} files`);
    for (const [name, text] of texts) {
      if (/from ?"node:/.test(text)) continue; // no browser's
      const at = text.search(YOUNGER);
      assert.equal(at, -1, `${name}: ${text.slice(Math.max(0, at - 60), at + 60)}`);
    }
  });
});
