// What a checkpoint is, from its headers alone: config, tensors, and the memory that each dtype and context would take.
import { UnsupportedError } from "./errors.ts";
import { PAGE_POSITIONS } from "./kernels/commands.ts";
import type { KernelSource, Variant } from "./kernels/variants.ts";
import {
  checkLoadCall,
  hubEvents,
  kernelsFor,
  type LoadOptions,
  type ModelSource,
  openSource,
  type Platform,
  parameterCount,
} from "./lfm2.ts";
import type { DType, WeightDType } from "./memory/dtype.ts";
import { DTYPES } from "./memory/dtype.ts";
import { cacheSize } from "./models/cache.ts";
import { type Checkpoint, openCheckpoint } from "./models/checkpoint.ts";
import type { Lfm2Config } from "./models/config.ts";
import { type LoadModelOptions, type PlannedModel, planModel } from "./models/load-model.ts";
import { part } from "./part.ts";
import { plannedThreads } from "./planned-threads.ts";
import { Meter } from "./progress.ts";
import { ChatTemplate } from "./text/chat-template.ts";
import type { Tokenizer } from "./text/tokenizer.ts";
import type { ByteSource, Folder } from "./weights/source.ts";
import type { StoredType } from "./weights/tensor.ts";

/** A tensor as its file stores it. */
export interface TensorInfo {
  /** Hugging Face's name. */
  readonly name: string;
  readonly dtype: StoredType;
  /** What it becomes in memory when no dtype is asked for: the same, or the nearest that a kernel multiplies by. Undefined for a tensor that the model does not use. */
  readonly memoryDtype: WeightDType | undefined;
  /** What it keeps in memory whatever dtype is asked for, and why. Undefined for what follows the dtype. */
  readonly keeps: { readonly dtype: WeightDType; readonly why: string } | undefined;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** Memory that a model takes with one element type. */
export interface MemoryEstimate {
  /** `"as stored"` or the dtype to load with. */
  readonly dtype: DType | "as stored";
  readonly weightBytes: number;
  /** Linear memory in all, for one session that has reached so many tokens. */
  readonly byContext: readonly { readonly tokens: number; readonly bytes: number }[];
}

/** What `inspect` tells. */
export interface Inspection {
  readonly format: "safetensors" | "gguf";
  readonly name: string;
  /** Of a hub's model: the file of weights that was chosen, and what of all that a load reads is still to be downloaded. */
  readonly file: string | undefined;
  readonly downloadBytes: number | undefined;
  /** As the hub, the file or the README beside it tells it. */
  readonly license: string | undefined;
  readonly config: Lfm2Config;
  readonly parameterCount: number;
  readonly tensors: readonly TensorInfo[];
  /** A sentence for each tensor whose type cannot be loaded. */
  readonly unsupported: readonly string[];
  /** Bytes of all tensors as stored. */
  readonly tensorBytes: number;
  /** Empty where a tensor that the model needs cannot be loaded. */
  readonly memory: readonly MemoryEstimate[];
  /** What a load would compute with here: the build of the kernels, and threads with `threads: "auto"`. Undefined where it could not load. */
  readonly kernels: { readonly variant: Variant; readonly threads: number } | undefined;
  readonly hasTokenizer: boolean;
  readonly hasChatTemplate: boolean;
  /** Not to be listed. @internal */
  readonly tokenizer?: Tokenizer | undefined;
  /** Not to be listed. @internal */
  readonly template?: ChatTemplate | undefined;
}

/**
 * Options of `inspect`, each as for `load`; `dtype` chooses among a hub's files. `onProgress` is told `"open"` where a hub's file was chosen, `"read"` while the headers
 * and the texts beside them come, of a total that grows with what they tell, and `"ready"`.
 */
export type InspectOptions = Pick<
  LoadOptions,
  "dtype" | "kvDtype" | "signal" | "endpoint" | "token" | "fetch" | "network" | "cache" | "wasm" | "onProgress"
>;

/** What a tensor does not become when this is asked for, it becomes with no dtype. */
const SMALLEST: DType = "q4";

/** Contexts of the table, as far as the model goes. */
const CONTEXTS = [512, 2048, 8192, 32_768];

/** The plan, or undefined where a tensor that the model needs has a type that cannot be loaded. */
async function planIfLoadable(checkpoint: Checkpoint, kernels: KernelSource, options: LoadModelOptions): Promise<PlannedModel | undefined> {
  try {
    return await planModel(checkpoint, kernels, options);
  } catch (error) {
    if (error instanceof UnsupportedError && checkpoint.unsupported.size > 0) return undefined;
    throw error;
  }
}

/** Why a tensor that the plan for q4 leaves at more bits is left so; docs/loading.md, "What keeps more bits". */
function whyKept(name: string): string {
  if (name.endsWith(".bias")) return "biases are added once, not multiplied";
  if (name.endsWith(".conv.conv.weight")) return "a few taps a channel make no block to share a scale";
  return "each weight of a norm scales a whole column of activations: its rounding would reach every product behind it";
}

const counting = async (source: ByteSource | Folder, meter: Meter): Promise<ByteSource | Folder> =>
  (await part("header-progress", () => import("./header-progress.ts"))).countingHeaders(source, meter);

/** Reads a checkpoint's headers with what `platform` provides. */
export async function inspectWith(platform: Platform, source: ModelSource, options: InspectOptions = {}): Promise<Inspection> {
  checkLoadCall(options);
  const { kvDtype = "f16", signal, onProgress } = options;
  const meter = onProgress && new Meter(onProgress);
  const opened = await openSource(platform, source, options, { isReadOnly: true, onFound: hubEvents(meter).onFound });
  const checkpoint = await openCheckpoint(meter ? await counting(opened.source, meter) : opened.source, signal);
  try {
    const { config, format, names, unsupported } = checkpoint;
    const template = checkpoint.template && ChatTemplate.of(checkpoint.template);
    const contexts = CONTEXTS.filter((tokens) => tokens <= config.maxPositionEmbeddings);
    const memory: MemoryEstimate[] = [];
    let dtypes: ReadonlyMap<string, WeightDType> = new Map();
    let smallest: ReadonlyMap<string, WeightDType> = new Map();
    let kernels: Inspection["kernels"];
    const threads = plannedThreads(platform, {}, parameterCount(checkpoint));
    for (const dtype of [undefined, ...DTYPES]) {
      const planned = await planIfLoadable(checkpoint, kernelsFor(platform, options), { dtype, kvDtype, threads });
      if (!planned) break;
      const { items, totalBytes } = planned;
      if (dtype === undefined) {
        dtypes = planned.dtypes;
        kernels = { variant: planned.variant, threads: planned.threads };
      }
      if (dtype === SMALLEST) smallest = planned.dtypes;
      const { pageBytes } = cacheSize(config, config.layerTypes, kvDtype, 0);
      // the plan holds one page already
      const byContext = contexts.map((tokens) => ({ tokens, bytes: totalBytes + (Math.ceil(tokens / PAGE_POSITIONS) - 1) * pageBytes }));
      memory.push({ dtype: dtype ?? "as stored", weightBytes: items.find((i) => i.what === "weights")?.bytes ?? 0, byContext });
    }
    const keeps = (name: string): TensorInfo["keeps"] => {
      const dtype = smallest.get(name);
      return dtype === undefined || dtype === SMALLEST ? undefined : { dtype, why: whyKept(name) };
    };
    const tensors = [...checkpoint.tensors].map(([as, t]) => ({
      name: as,
      dtype: t.type,
      memoryDtype: dtypes.get(as),
      keeps: keeps(as),
      shape: t.shape,
      bytes: t.bytes,
    }));
    const inspection: Inspection = {
      format,
      name: names[0] ?? "",
      file: opened.hub?.file,
      downloadBytes: opened.hub?.downloadBytes,
      license: opened.hub?.license ?? checkpoint.license ?? (await checkpoint.card?.(signal)),
      config,
      parameterCount: parameterCount(checkpoint),
      tensors,
      unsupported: [...unsupported.values()],
      tensorBytes: tensors.reduce((sum, t) => sum + t.bytes, 0),
      memory,
      kernels,
      hasTokenizer: checkpoint.tokenizer !== undefined,
      hasChatTemplate: template !== undefined,
    };
    meter?.ready();
    return Object.defineProperties(inspection, { tokenizer: { value: checkpoint.tokenizer }, template: { value: template } });
  } finally {
    await checkpoint.close().catch(() => {}); // all has been read, or a better error is on its way
  }
}
