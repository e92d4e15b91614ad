// lfm2-wasm/mini where there are neither files nor addresses of modules: the bundled checkpoint as a Data module. wrangler wants a rule for it:
// { "type": "Data", "globs": ["**/*.gguf"], "fallthrough": true }.
import bytes from "./mini.gguf";

/** lfm2-mini, a GGUF of 4.27 M parameters (Q4_0): short stories, small sums, facts of a small world. */
export const mini: ArrayBuffer = bytes;
