// An engine without WebAssembly SIMD: a child process whose `WebAssembly.validate` refuses every module with a vector type, as an old engine does, and which must not fetch kernels.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

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
