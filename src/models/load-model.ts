// From an opened checkpoint to a model that runs: kernels, plan, places, weights. The only file that knows the order of these.
import { Lfm2Error, throwIfAborted } from "../errors.ts";
import { COMMAND_BYTES } from "../kernels/commands.ts";
import { cannotStart, type ThreadOptions, Threads } from "../kernels/threads.ts";
import { instantiateKernels, type KernelInstance, type KernelSource, type Variant } from "../kernels/variants.ts";
import { Arena, HEAP_START } from "../memory/arena.ts";
import { type DType, type KvDType, WEIGHT_DTYPES, type WeightDType } from "../memory/dtype.ts";
import { type WasmMemory, WebAssembly } from "../memory/wasm.ts";
import { part } from "../part.ts";
import { loadWeights, type WeightProgress, type Window, windowFor, writeDescriptors } from "../weights/load.ts";
import type { ImageStore } from "../weights/packed-image.ts";
import { checkPlan, isWorthAnImage, type PlanItem, placeWeights, resolveWeights, WeightList, weightBytes } from "../weights/plan.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { LanguageModel, type RunOptions, runPlan } from "./language-model.ts";
import { type LayerRange, type Lfm2Weights, nameWeights } from "./lfm2.ts";

/** Rows of a prefill step: larger ones gain nothing, and an abort waits for one. */
const CHUNK_TOKENS = 128;
/** LFM2's trained context; longer ones can be asked for. */
const DEFAULT_CONTEXT_TOKENS = 32_768;

/** How a checkpoint is loaded. */
export interface LoadModelOptions {
  /** Element type of the matrices; as stored when undefined. */
  readonly dtype?: DType | undefined;
  /** Element type of the KV cache; default "f16". */
  readonly kvDtype?: KvDType | undefined;
  /** Positions that a session may reach; default the model's own limit, at most 32,768. Reserves nothing. */
  readonly maxContextTokens?: number | undefined;
  /** Linear memory that the model may take; default the 4 GiB that addresses reach. */
  readonly maxMemoryBytes?: number | undefined;
  /** Tells what another model now takes of `maxMemoryBytes`; default nothing. */
  readonly otherBytes?: (() => number) | undefined;
  /** Rows of a prefill step; default 128. */
  readonly chunkTokens?: number | undefined;
  /** Build of the kernels; default the best that the engine runs. */
  readonly variant?: Variant | undefined;
  /** Helper threads; default none. */
  readonly threads?: ThreadOptions | undefined;
  /** Layers to load; default the whole model. */
  readonly range?: LayerRange | undefined;
  /** Where packed weights are kept for the next start; default nowhere. */
  readonly images?: (() => Promise<ImageStore | undefined>) | undefined;
  /** Keeps them whatever they gain; default where the weights are converted on the way and are not small. */
  readonly packed?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: WeightProgress) => void) | undefined;
}

/** A loaded model with what is worth telling about it. */
export interface LoadedModel {
  readonly model: LanguageModel;
  readonly variant: Variant;
  readonly plan: Plan;
  /** Element types that its matrices have, most bits first. */
  readonly dtypes: readonly WeightDType[];
  /** Whether the weights came from an image of theirs, or were kept as one. */
  readonly packedImage: "read" | "written" | undefined;
}

/** A model that nobody holds any more, and nobody disposed of, takes its threads with it. */
const dropped: FinalizationRegistry<Threads> = new FinalizationRegistry((threads) => threads.end());

/** Every byte of linear memory that a model takes before its first token. */
export interface Plan {
  readonly items: readonly PlanItem[];
  readonly totalBytes: number;
  /** The window of the load, which scratch and pages use later. */
  readonly windowBytes: number;
  /** What each tensor becomes in memory, by its name. */
  readonly dtypes: ReadonlyMap<string, WeightDType>;
}

interface Draft {
  readonly list: WeightList;
  readonly weights: Lfm2Weights;
  readonly window: Window;
  readonly plan: Plan;
}

/** @returns the whole model as a range */
export function wholeModel(checkpoint: Checkpoint): LayerRange {
  return { from: 0, to: checkpoint.config.numHiddenLayers, embedding: true, head: true };
}

function runOptions(checkpoint: Checkpoint, o: LoadModelOptions): RunOptions {
  return {
    kvDtype: o.kvDtype ?? "f16",
    maxContextTokens: o.maxContextTokens ?? Math.min(checkpoint.config.maxPositionEmbeddings, DEFAULT_CONTEXT_TOKENS),
    chunkTokens: o.chunkTokens ?? CHUNK_TOKENS,
    threads: o.threads?.count ?? 1,
  };
}

function draft(checkpoint: Checkpoint, instance: KernelInstance, dtype: DType | undefined, run: RunOptions, range: LayerRange): Draft {
  const list = new WeightList();
  const weights = nameWeights(list, checkpoint.config, range);
  resolveWeights(list, checkpoint, dtype);
  const window = windowFor(list, checkpoint.tensors);
  const windowBytes = window.bytes + window.groupBytes;
  const after = runPlan(checkpoint.config, instance, run, range);
  // the window lies where scratch and pages will lie: it counts only by what it is larger
  const spare = Math.max(0, windowBytes - after.reduce((sum, item) => sum + item.bytes, 0));
  const items = [
    { what: "the module", bytes: HEAP_START },
    { what: "weights", bytes: weightBytes(list) },
    ...after,
    ...(spare > 0 ? [{ what: "the load's window", bytes: spare }] : []),
  ];
  const segments = list.matrices.flatMap((m) => m.segments.map((s) => [s.name, s.dtype] as const));
  const dtypes = new Map<string, WeightDType>([...segments, ...list.vectors.map((v) => [v.name, "f32"] as const)]);
  return { list, weights, window, plan: { items, totalBytes: items.reduce((sum, item) => sum + item.bytes, 0), windowBytes, dtypes } };
}

interface SetUp {
  readonly instance: KernelInstance;
  readonly run: RunOptions;
  readonly range: LayerRange;
  readonly draft: Draft;
}

/** @param isShared whether threads share the memory */
const emptyMemory = (isShared: boolean): WasmMemory =>
  new WebAssembly.Memory({ initial: 2, maximum: 65_536, ...(isShared ? { shared: true } : {}) });

async function setUp(checkpoint: Checkpoint, source: KernelSource, options: LoadModelOptions, isShared: boolean): Promise<SetUp> {
  const run = runOptions(checkpoint, options);
  const range = options.range ?? wholeModel(checkpoint);
  const memory = emptyMemory(isShared);
  const instance = await instantiateKernels(source, memory, options.variant, isShared);
  return { instance, run, range, draft: draft(checkpoint, instance, options.dtype, run, range) };
}

/** As `setUp` for the threads that are asked for; for one where the runtime cannot share memory and none are required. */
async function setUpThreads(checkpoint: Checkpoint, source: KernelSource, options: LoadModelOptions): Promise<SetUp> {
  const { threads } = options;
  try {
    if (threads) return await setUp(checkpoint, source, options, true);
  } catch (error) {
    if (threads?.isRequired) throw error instanceof Lfm2Error ? error : cannotStart(error);
    // any other error comes again
  }
  return setUp(checkpoint, source, { ...options, threads: undefined }, false);
}

/** What a load would do. */
export interface PlannedModel extends Plan {
  readonly variant: Variant;
  readonly threads: number;
}

/** @returns what a load with these options would do, without loading anything or starting a thread */
export async function planModel(checkpoint: Checkpoint, source: KernelSource, options: LoadModelOptions = {}): Promise<PlannedModel> {
  const { instance, run, draft } = await setUpThreads(checkpoint, source, options);
  return { ...draft.plan, variant: instance.variant, threads: run.threads };
}

/** Brings the weights into the places that they have: from their image, or from the checkpoint and then, where it pays, into an image. */
async function fill(
  { tensors, verify }: Checkpoint,
  { list, window, plan }: Draft,
  { kernels, memory }: KernelInstance,
  windowAddress: number,
  options: LoadModelOptions,
): Promise<LoadedModel["packedImage"]> {
  const { packed = isWorthAnImage(list, tensors), signal } = options;
  const image = options.images && packed ? await part("packed-image", () => import("../weights/packed-image.ts")) : undefined;
  const key = image?.imageKey(list, tensors);
  const images = key && (await options.images?.().catch(() => undefined)); // without a place for them nothing is kept
  const target = { kernels, memory, scratch: windowAddress };
  // the model takes zeros; what it never writes, such as the logits of more rows than one, then never becomes resident
  const clear = (bytes: number): unknown => new Uint8Array(memory.buffer, windowAddress, bytes).fill(0);
  if (image && images && key && (await image.readImage(images, key, list, target, options))) {
    writeDescriptors(list, memory);
    clear(image.IMAGE_SCRATCH_BYTES);
    return "read";
  }
  await loadWeights(list, tensors, { kernels, memory, windowAddress, window }, options);
  if (images && key) await verify(signal);
  const isWritten = image && images && key && (await image.writeImage(images, key, list, target, options));
  clear(plan.windowBytes);
  return isWritten ? "written" : undefined;
}

/**
 * @param checkpoint whose tensors of the range are read, and no others
 * @param source where the kernels come from
 * @throws FormatError for a missing tensor or a wrong shape; MemoryError before anything is read; PlatformError without the threads that are required; AbortError
 */
export async function loadModel(checkpoint: Checkpoint, source: KernelSource, options: LoadModelOptions = {}): Promise<LoadedModel> {
  const { instance, run, range, draft: current } = await setUpThreads(checkpoint, source, options);
  const { memory } = instance;
  const { list, weights, plan } = current;
  const arena = new Arena(memory, options.maxMemoryBytes, options.otherBytes);
  checkPlan(plan.items, arena.limitBytes, options.dtype, (dtype) => draft(checkpoint, instance, dtype, run, range).plan.totalBytes);
  arena.reserve(plan.totalBytes - HEAP_START, "the model");
  const threads = new Threads(instance, run.threads > 1 ? options.threads : undefined); // they start while the weights are read
  try {
    placeWeights(list, arena);
    const mark = arena.mark;
    const windowAddress = arena.alloc(plan.windowBytes, "the load's window");
    const packedImage = await fill(checkpoint, current, instance, windowAddress, options);
    new Uint8Array(memory.buffer, windowAddress, COMMAND_BYTES).fill(0);
    await threads.ready(windowAddress);
    arena.release(mark);
    throwIfAborted(options.signal);
    const used = new Set(list.matrices.flatMap((m) => m.segments.map((s) => s.dtype)));
    const model = new LanguageModel(checkpoint.config, weights, instance, threads, arena, run, range);
    dropped.register(model, threads);
    return { model, variant: instance.variant, plan, dtypes: WEIGHT_DTYPES.filter((d) => used.has(d)), packedImage };
  } catch (error) {
    threads.end();
    throw error;
  }
}
