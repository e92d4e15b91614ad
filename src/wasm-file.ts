// The type of lfm2-wasm/kernels.*.wasm: what a bundler or runtime makes of such an import, `load`'s `wasm` option takes.
import type { WasmInput } from "./kernels/delivery.ts";

declare const wasm: WasmInput;
export default wasm;
