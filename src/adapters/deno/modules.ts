// Kernels as modules of Deno's graph, which are read without a permission. A file of its own: older Denos and everybody else do not know the syntax.
import type { WasmModule } from "../../memory/wasm.ts";

export const modules: Readonly<Record<string, () => Promise<WasmModule>>> = {
  // @ts-expect-error TypeScript does not know it either
  plain: () => import.source("./kernels.plain.wasm"),
  // @ts-expect-error
  relaxed: () => import.source("./kernels.relaxed.wasm"),
};
