// `lfm2 inspect`: what a checkpoint is, from its headers alone. The description is the answer, so it goes to stdout.
import type { ArgsDef } from "citty";
import { type Inspection, inspect as inspectSource, type LoadProgress } from "lfm2-wasm";
import { formatBytes } from "../memory/arena.ts";
import { DTYPES, KV_DTYPES } from "../memory/dtype.ts";
import { CACHE_DIR_ARG, HELP_ARG, JSON_ARG, KV_DTYPE_ARG, type Options, UsageError } from "./args.ts";
import { ByteBar } from "./byte-bar.ts";
import { cacheOption } from "./model.ts";
import { formatCount, harmless, interruptible, type Row, StatusLine, table, write } from "./terminal.ts";

/** Options of `lfm2 inspect`. */
export const INSPECT_ARGS: ArgsDef = {
  json: JSON_ARG,
  dtype: { type: "string", valueHint: "TYPE", description: "of a model on the hub take the file that suits f32, bf16, f16, q8 or q4 best" },
  "cache-dir": CACHE_DIR_ARG,
  "kv-dtype": KV_DTYPE_ARG,
  ...HELP_ARG,
};

function valueText(value: unknown): string {
  if (Array.isArray(value)) return value.map(valueText).join(" ");
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

const fields = (object: object): Row[] =>
  Object.entries(object)
    .filter(([, value]) => value !== undefined && typeof value !== "function")
    .map(([name, value]) => [name, valueText(value)]);

function memoryRows(memory: Inspection["memory"]): Row[] {
  const contexts = memory[0]?.byContext ?? [];
  const head = ["dtype", "weights", ...contexts.map(({ tokens }) => `${formatCount(tokens)} tokens`)];
  return [
    head,
    ...memory.map(({ dtype, weightBytes, byContext }) => [
      dtype,
      ...[weightBytes, ...byContext.map(({ bytes }) => bytes)].map(formatBytes),
    ]),
  ];
}

/** Types that memory holds as they are, and what they are called there. */
const SAME: Readonly<Record<string, string>> = { F32: "f32", F16: "f16", BF16: "bf16", Q8_0: "q8", Q4_0: "q4", Q4_K: "q4k", Q6_K: "q6k" };

/** A tensor's type, and what it becomes in memory where that is another. */
function typeText({ dtype, memoryDtype }: Inspection["tensors"][number]): string {
  return memoryDtype === undefined || SAME[dtype] === memoryDtype ? dtype : `${dtype} → ${memoryDtype}`;
}

/** Why tensors do not take the dtype that is asked for, and how many of them. */
function keptRows(tensors: Inspection["tensors"]): Row[] {
  const counts = new Map<string, number>();
  for (const { keeps } of tensors) {
    if (keeps) counts.set(`${keeps.dtype}: ${keeps.why}`, (counts.get(`${keeps.dtype}: ${keeps.why}`) ?? 0) + 1);
  }
  return [...counts].map(([why, count]) => [formatCount(count), why]);
}

const given = (has: boolean): string => (has ? "there" : "missing");

function describe(inspection: Inspection): string {
  const {
    format,
    name,
    file,
    downloadBytes,
    license,
    config,
    tensors,
    unsupported,
    tensorBytes,
    parameterCount,
    memory,
    kernels,
    hasTokenizer,
    hasChatTemplate,
  } = inspection;
  const rows = tensors.map((tensor) => [
    tensor.name,
    typeText(tensor),
    tensor.shape.join(" × "),
    formatBytes(tensor.bytes),
    tensor.keeps ? `keeps ${tensor.keeps.dtype}` : "",
  ]);
  const kept = keptRows(tensors);
  return [
    `${name}: ${format}, ${formatCount(parameterCount)} parameters, ${formatBytes(tensorBytes)}, tokenizer ${given(hasTokenizer)}, chat template ${given(hasChatTemplate)}, licence ${license ?? "not told"}\n`,
    ...(file === undefined
      ? []
      : [`on the hub: ${file}, ${downloadBytes === 0 ? "all of it is here" : `${formatBytes(downloadBytes ?? 0)} to download`}\n`]),
    ...(kernels
      ? [`here it would run on the ${kernels.variant} kernels with ${kernels.threads} ${kernels.threads === 1 ? "thread" : "threads"}\n`]
      : []),
    `config\n${table(fields(config))}`,
    ...(memory.length ? [`memory by dtype and context\n${table(memoryRows(memory), [1, 2, 3, 4, 5, 6, 7, 8])}`] : []),
    ...(unsupported.length
      ? [`${unsupported.length} tensors that cannot be loaded\n${table(unsupported.map((sentence) => [sentence]))}`]
      : []),
    ...(kept.length ? [`tensors that keep more bits, whatever dtype is asked for\n${table(kept, [0])}`] : []),
    `${tensors.length} tensors\n${table(rows, [3])}`,
  ].join("\n");
}

/** A header that has been read sooner shows no bar. */
const BAR_AFTER_MS = 300;

/** On a terminal what is read, and, where that takes a while, how far it is; gone before the answer. */
function reading(path: string): { show(event: LoadProgress): void; clear(): void } {
  const start = performance.now();
  const status = new StatusLine();
  let bar: ByteBar | undefined;
  status.show(`reading the header of ${harmless(path)}`);
  return {
    show: (event) => {
      if (event.phase !== "read" || !process.stderr.isTTY || performance.now() < start + BAR_AFTER_MS) return;
      if (!bar) {
        status.clear();
        bar = new ByteBar("stopped");
        bar.start(event);
      }
      bar.show(event, true);
    },
    clear: () => {
      status.clear();
      bar?.clear();
    },
  };
}

/** @returns the exit code */
export async function inspect(options: Options): Promise<number> {
  const [path, ...rest] = options.words;
  if (path === undefined || rest.length) throw new UsageError(`inspect expects one model, got ${options.words.length}`);
  const shown = reading(path);
  const inspection = await interruptible((signal) =>
    inspectSource(path, {
      signal,
      kvDtype: options.choice("kv-dtype", KV_DTYPES),
      dtype: options.choice("dtype", DTYPES),
      cache: cacheOption(options),
      onProgress: shown.show,
    }),
  ).finally(() => shown.clear());
  write(options.flag("json") ? `${JSON.stringify(inspection, null, 2)}\n` : harmless(describe(inspection)));
  return 0;
}
