// The whole comparison as one function of bytes, the same file in every engine: bundled for none in particular, so an import of a runtime's module does not build.
import { attentionCases } from "./attention.ts";
import { Lab } from "./lab.ts";
import { Ledger } from "./ledger.ts";
import { matmulCases } from "./matmul.ts";
import { type Files, modelCases } from "./model.ts";
import { rowCases } from "./rows.ts";

/** What an engine found. */
export interface Report {
  /** Builds that this engine runs. */
  readonly builds: readonly string[];
  /** A hash for each kernel and input, to be compared with another engine's. */
  readonly hashes: Readonly<Record<string, string>>;
  /** What differed within this engine, sentence by sentence. */
  readonly differences: readonly string[];
  /** Rows and values that were compared within this engine. */
  readonly comparisons: number;
  /** Ops of the module that no case runs. */
  readonly unused: readonly string[];
  /** Milliseconds by part. */
  readonly ms: Readonly<Record<string, number>>;
}

/** Where nothing compiles, the builds come compiled. */
const isModule = (file: unknown): file is WebAssembly.Module => Object.prototype.toString.call(file) === "[object WebAssembly.Module]";

/**
 * @param files builds as kernels.NAME.wasm, tiny checkpoints as FOLDER/NAME, the bundled model as mini.gguf
 * @param options.scale as of tests/scale.ts
 */
export async function run(files: Files, options: { readonly scale: string }): Promise<Report> {
  const full = options.scale === "full";
  const ledger = new Ledger();
  const modules = new Map<string, WebAssembly.Module>();
  for (const [path, bytes] of Object.entries(files)) {
    const name = /^kernels\.(.+)\.wasm$/.exec(path)?.[1];
    if (name && isModule(bytes)) modules.set(name, bytes);
    else if (name && WebAssembly.validate(bytes)) modules.set(name, await WebAssembly.compile(bytes));
  }
  const ms: Record<string, number> = {};
  const timed = async (name: string, part: () => void | Promise<void>): Promise<void> => {
    const start = performance.now();
    await part();
    ms[name] = (ms[name] ?? 0) + performance.now() - start;
  };
  const unused = new Set<string>();
  for (const [name, module] of modules) {
    const lab = new Lab({ name, module }, ledger, full);
    await timed("matmul", () => matmulCases(lab));
    await timed("rows", () => rowCases(lab));
    await timed("attention", () => attentionCases(lab));
    for (const op of lab.ops.keys()) if (op !== "nop" && !lab.used.has(op)) unused.add(op);
  }
  await timed("models", () => modelCases(ledger, full, files, modules));
  return {
    builds: [...modules.keys()],
    hashes: ledger.hashes(),
    differences: ledger.differences,
    comparisons: ledger.comparisons,
    unused: [...unused],
    ms,
  };
}
