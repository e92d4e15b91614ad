// load(): from wherever a checkpoint lives to a Model. Knows the order of things, no runtime: an adapter hands it functions.

import { type CacheOptions, checkCacheOption, imagesFor, type OpenStore } from "./cache.ts";
import { checkNames, checkObject } from "./checks.ts";
import type { DraftModel } from "./draft.ts";
import { FormatError, InputError, Lfm2Error, PlatformError, throwIfAborted, UnsupportedError } from "./errors.ts";
import type { Opened, SourceUse } from "./from-network.ts";
import { recommendedSampling, recommendedStopIds } from "./generate/defaults.ts";
import type { Engine } from "./generate/engine.ts";
import { LocalEngine } from "./generate/local-engine.ts";
import { PAGE_POSITIONS } from "./kernels/commands.ts";
import { checkWasmOption, type FetchWasm, kernelSource, type WasmOption } from "./kernels/delivery.ts";
import type { ThreadOptions, ThreadSource } from "./kernels/threads.ts";
import type { KernelSource, Variant } from "./kernels/variants.ts";
import { DTYPES, type DType, KV_DTYPES, type KvDType } from "./memory/dtype.ts";
import { Model, type ModelParts } from "./model.ts";
import { type Checkpoint, openCheckpoint } from "./models/checkpoint.ts";
import { type LoadedModel, type LoadModelOptions, loadModel } from "./models/load-model.ts";
import { part } from "./part.ts";
import { type LoadProgress, Meter } from "./progress.ts";
import type { ChatTemplate, TemplateText } from "./text/chat-template.ts";
import { checkSpeculate, type GenerateOptions } from "./turn.ts";
import type { HubCache, HubModel } from "./weights/hub.ts";
import { parseHubId } from "./weights/hub-id.ts";
import type { ObjectSource } from "./weights/objects.ts";
import { rightError } from "./weights/opened.ts";
import type { ImageStore } from "./weights/packed-image.ts";
import { checkRemoteOptions, type NetworkPlatform, type RemoteOptions } from "./weights/remote.ts";
import type { ByteSource, Folder } from "./weights/source.ts";

/**
 * Where a checkpoint may be: a path or `file:` URL that the runtime can open, an `https:` address, a hub's id `org/name[@revision][:file or type]`; bytes of a
 * GGUF, a `Blob` or `File`; a list of Files, or a handle of a file or folder (OPFS, a picker); `{ bucket, key }` in R2; anything that reads by ranges, a set of
 * files. What a path and an id could mean is a path where there is one, and an id where the runtime may not look.
 */
export type ModelSource = string | URL | ObjectSource;

/** Options of `load`. */
export interface LoadOptions extends RemoteOptions {
  /** Element type of the matrices: `"f32"`, `"bf16"`, `"f16"`, `"q8"` or `"q4"`; default as the file stores them. */
  readonly dtype?: DType | undefined;
  /** Element type of keys and values in the cache: `"f32"`, `"f16"` or `"q8"`; default `"f16"`. `"q8"` takes half the memory of it and is faster at long contexts. */
  readonly kvDtype?: KvDType | undefined;
  /** Positions of a session, so many tokens of prompt and reply together and the last token of a reply; default the model's limit, at most 32,768. Reserves no memory. */
  readonly maxContextTokens?: number | undefined;
  /**
   * Bytes of keys and values that are kept when a session closes, for prompts that begin as it did; the oldest go first, and all before memory runs out. Default
   * 64 MiB. 0: every session computes its whole prompt itself, also what another open one holds.
   */
  readonly prefixCacheBytes?: number | undefined;
  /** Linear memory that the model may take, cache included; default 4 GiB, in workerd 85 MB. */
  readonly maxMemoryBytes?: number | undefined;
  /**
   * Threads to compute with. `"auto"` (default): one a core that this process may use, at most 8, fewer for a model too small to share, one where the
   * runtime has no threads. A number: that many, or a PlatformError; in a page that is not cross-origin isolated, and so shares no memory, one, which
   * `info.warnings` tells. They change no bit of a result.
   */
  readonly threads?: number | "auto" | undefined;
  /** Build of the kernels; default the best one that the engine runs. */
  readonly variant?: Variant | undefined;
  /**
   * The kernels, where they do not lie beside this module: one build (`lfm2-wasm/kernels.relaxed.wasm` or `…plain.wasm`) as a module, URL, `Response` or bytes, which
   * computes in one thread; or an object of several by name (`plain`, `relaxed`, `plain-threads`, `relaxed-threads`), of which the best is taken.
   */
  readonly wasm?: WasmOption | undefined;
  /**
   * Where files of a hub and of plain addresses are kept. `"auto"` (default): the runtime's store, in Node the folder that Hugging Face's tools share, in a browser the
   * origin's file system; `{ dir }` another folder; false: nowhere.
   * A file that is there is not downloaded again, one that came in part goes on from where it was; a full disk costs the next start, not this one.
   */
  readonly cache?: "auto" | false | CacheOptions | undefined;
  /**
   * Where the engine lives: `"here"`, in this thread; `"worker"`, in a worker of its own, so that this thread never waits for a step; `"auto"` (default): in a
   * page a worker where one starts, and else here with a word in `info.warnings`; elsewhere here. Without workers (service worker, edge) `"worker"` is a PlatformError.
   */
  readonly engine?: "here" | "worker" | "auto" | undefined;
  /**
   * A smaller model with the same tokens, LFM2-350M beside LFM2-2.6B say, that guesses what this one will say; see `speculate`. It is loaded as its file stores
   * it, into a memory of its own; both together stay within a `maxMemoryBytes` that is given.
   */
  readonly draft?: ModelSource | undefined;
  /** How calls guess tokens that do not say it themselves; default `"draft"` with a draft model, else not at all. It changes no token. */
  readonly speculate?: GenerateOptions["speculate"];
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Where the package runs, by the adapter that was chosen. */
export type Runtime = "node" | "deno" | "bun" | "browser" | "workerd";

/** What a runtime gives to the core. */
export interface Platform {
  readonly runtime: Runtime;
  /** Opens what a path or URL names. */
  open(source: string | URL): Promise<ByteSource | Folder>;
  /** Why a path may not be looked at without asking somebody; undefined where it may, left out where nobody is asked. */
  readonly unreadable?: ((path: string) => string | undefined) | undefined;
  /** The way to models on the network, where there is one. */
  readonly network?: NetworkPlatform | undefined;
  /** Opens the store of downloaded models; left out where a runtime has none. */
  readonly store?: OpenStore | undefined;
  /** Hands over a build of the kernels. */
  readonly kernels: KernelSource;
  /** Gets a build from an address that the caller gives; left out where modules are imported only. */
  readonly fetchWasm?: FetchWasm | undefined;
  /** Stands in where `maxMemoryBytes` is left out; left out where nothing but addresses limits a memory. */
  readonly memoryBudgetBytes?: number | undefined;
  /** Opens the place of packed weights, of the cache in `dir` where that is named; left out where a runtime has no place for them. */
  readonly images?: ((dir: string | undefined) => Promise<ImageStore | undefined>) | undefined;
  /** Starts threads; left out where a runtime has none. */
  readonly threads?: ThreadSource | undefined;
  /** Of the worker that `engine: "auto"` means, where that is elsewhere. */
  readonly workerThreads?: ThreadSource | undefined;
  /** Why there are no threads, where a number of them is a wish that may fail: one thread then does, and `info.warnings` tells. */
  readonly noThreads?: string | undefined;
  /** Puts an engine elsewhere: in a worker, or behind whatever carries messages. */
  readonly placeEngine?: (engine: Engine) => Engine;
}

/** Threads that can be asked for: a bound against mistakes. */
const MOST_THREADS = 256;
/** Threads that "auto" takes at most: decoding waits for memory by then. */
const AUTO_THREADS = 8;
/**
 * A thread more for each so many parameters. A step has some hundred barriers. Where other processes want the cores, each may wait for a thread that is
 * not running: milliseconds a token, whatever the model (measured, both cores busy: 4 M parameters 10 times slower with two threads than with one, 350 M
 * not slower).
 */
const PARAMETERS_PER_THREAD = 32e6;

/** An entry of this package, which looks like a hub's id: nobody there is asked for it. */
const BUNDLED = "lfm2-wasm/mini";

function isUrl(source: ModelSource): source is URL {
  return typeof source === "object" && source !== null && "href" in source && "protocol" in source;
}

const network = (): Promise<typeof import("./from-network.ts")> => part("network", () => import("./from-network.ts"));

export const isAddress = (source: unknown): boolean => /^https?:/i.test(String(source));

async function openNamed(platform: Platform, source: string | URL, options: LoadOptions, use: SourceUse): Promise<Opened> {
  if (isAddress(source)) return (await network()).openAt(platform, source, options, use);
  const id = parseHubId(String(source));
  const why = id && platform.unreadable?.(String(source));
  if (id && why !== undefined) return (await network()).openUnseen(platform, id, why, options, use);
  try {
    return { source: await platform.open(source) };
  } catch (error) {
    if (id && error instanceof Lfm2Error && error.code === "not-found") return (await network()).openId(platform, id, options, use);
    throw error;
  }
}

/**
 * @param use how the cache is used, where not as a load does
 * @returns the file or folder that `source` means
 */
export async function openSource(platform: Platform, source: ModelSource, options: LoadOptions = {}, use: SourceUse = {}): Promise<Opened> {
  if (typeof source === "string" || isUrl(source)) {
    if (source === "") throw new InputError("load: expected a path, a URL, a hub's id, bytes or a source, got an empty text.");
    if (source === BUNDLED)
      throw new InputError(
        `load: expected a model, got "${BUNDLED}", which is what to import the bundled one from: import { mini } from "${BUNDLED}". A folder's path may begin with "./".`,
      );
    return openNamed(platform, source, options, use);
  }
  const { openObject } = await part("objects", () => import("./weights/objects.ts"));
  return { source: await openObject(source, options.signal) };
}

function checkLoadOptions(options: LoadOptions): void {
  const { dtype, kvDtype, maxContextTokens, maxMemoryBytes, prefixCacheBytes, threads, variant, engine } = checkObject("load", options);
  const one = (name: string, value: unknown, allowed: readonly unknown[]): void => {
    if (value === undefined || allowed.includes(value)) return;
    throw new InputError(
      `load: ${name}: expected one of ${allowed.map((a) => JSON.stringify(a)).join(", ")}, got ${JSON.stringify(value) ?? String(value)}.`,
    );
  };
  one("dtype", dtype, DTYPES);
  one("kvDtype", kvDtype, KV_DTYPES);
  one("variant", variant, ["relaxed", "plain"]);
  one("engine", engine, ["here", "worker", "auto"]);
  for (const [name, value] of Object.entries({ maxContextTokens, maxMemoryBytes })) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1))
      throw new InputError(`load: ${name}: expected a whole number of at least 1, got ${String(value)}.`);
  }
  if (prefixCacheBytes !== undefined && !(Number.isSafeInteger(prefixCacheBytes) && prefixCacheBytes >= 0))
    throw new InputError(
      `load: prefixCacheBytes: expected a whole number of bytes, got ${String(prefixCacheBytes)}. Leave it out for 64 MiB; 0 is off.`,
    );
  checkRemoteOptions(options);
  checkSpeculate(options.speculate, options.draft !== undefined);
  checkWasmOption(options.wasm);
  checkCacheOption(options.cache);
  if (threads !== undefined && threads !== "auto" && !(Number.isSafeInteger(threads) && threads >= 1 && threads <= MOST_THREADS))
    throw new InputError(`load: threads: expected "auto" or a whole number from 1 to ${MOST_THREADS}, got ${String(threads)}.`);
}

const KEYS: Readonly<Record<keyof LoadOptions, 1>> = {
  endpoint: 1,
  token: 1,
  fetch: 1,
  network: 1,
  dtype: 1,
  kvDtype: 1,
  maxContextTokens: 1,
  prefixCacheBytes: 1,
  maxMemoryBytes: 1,
  threads: 1,
  variant: 1,
  wasm: 1,
  cache: 1,
  engine: 1,
  draft: 1,
  speculate: 1,
  onProgress: 1,
  signal: 1,
};

/** As `checkLoadOptions`, and by name: what a caller says, where a worker's load is told what has been checked. */
export function checkLoadCall(options: LoadOptions): void {
  checkLoadOptions(options);
  checkNames("load", options, "LoadOptions", KEYS);
}

/** @returns how `threads` is to be met for a checkpoint of that many parameters; undefined for one thread */
export function threadOptions(
  source: ThreadSource | undefined,
  threads: number | "auto" = "auto",
  parameters: number = Number.POSITIVE_INFINITY,
): ThreadOptions | undefined {
  if (threads === 1) return undefined;
  if (threads !== "auto") {
    if (source) return { count: threads, source, isRequired: true };
    throw new PlatformError(
      `threads: expected a runtime with threads for threads: ${threads}, got one without. Pass threads: 1 or "auto".`,
      {
        code: "no-threads",
      },
    );
  }
  const count = Math.floor(Math.min(source?.available() ?? 1, AUTO_THREADS, parameters / PARAMETERS_PER_THREAD));
  return source && count > 1 ? { count, source, isRequired: false } : undefined;
}

/** @returns what is told of threads that would have been of use, where there are none and that is no error */
function threadWarning({ noThreads }: Platform, threads: number | "auto" = "auto", parameters: number): string | undefined {
  const wished = threads === "auto" ? parameters / PARAMETERS_PER_THREAD : threads;
  return noThreads === undefined || wished < 2 ? undefined : `threads: one computes, for ${noThreads}.`;
}

/**
 * Loads a checkpoint in this thread, with what `platform` provides.
 * @throws as `loadParts`
 */
export async function loadWith(platform: Platform, source: ModelSource, options: LoadOptions = {}): Promise<Model> {
  checkLoadCall(options);
  return new Model(await loadParts(platform, source, options, readHere));
}

/** Reads a template, or has it read where the model's prompts are rendered. @throws FormatError, UnsupportedError */
export type ReadTemplate = (text: TemplateText) => Promise<ChatTemplate | undefined>;

/** Reads it in this thread. */
export const readHere: ReadTemplate = async (text) =>
  (await part("chat-template", () => import("./text/chat-template.ts"))).ChatTemplate.of(text);

/**
 * Loads the parts of a model with what `platform` provides. What came damaged over the network, or of two versions, is loaded once more from the start.
 * @throws InputError, FormatError, UnsupportedError, MemoryError, NetworkError, StorageError, PlatformError, AbortError
 */
export async function loadParts(
  platform: Platform,
  source: ModelSource,
  options: LoadOptions,
  readTemplate: ReadTemplate,
): Promise<ModelParts> {
  checkLoadOptions(options);
  throwIfAborted(options.signal);
  const trial: Trial = { isFromHub: false, isDoubtful: false };
  const meter = options.onProgress && new Meter(options.onProgress);
  try {
    return await loadOnce(platform, source, options, readTemplate, trial, meter);
  } catch (error) {
    if (options.signal?.aborted || !isWorthAnother(error, trial.isFromHub)) throw error;
    trial.isDoubtful = true; // what lies in the cache may have been damaged since
    return loadOnce(platform, source, options, readTemplate, trial, meter);
  }
}

/** What is known of a load when it fails. */
interface Trial {
  /** Or from a cache. */
  isFromHub: boolean;
  isDoubtful: boolean;
}

const AGAIN: ReadonlySet<string> = new Set(["checksum", "file-changed", "not-resumable"]);

/** A bit that flipped on the way may show as any fault of the format, before the checksum has had its say. */
export function isWorthAnother(error: unknown, isFromHub: boolean): boolean {
  if (!(error instanceof Lfm2Error)) return false;
  const isFault = error instanceof FormatError || error instanceof UnsupportedError;
  return AGAIN.has(error.code) || (isFromHub && isFault && error.code !== "missing-file" && error.code !== "other-tokens");
}

type HubEvents = Pick<HubCache, "onWait" | "onSkip"> & { onFound(found: Pick<HubModel, "file" | "downloadBytes" | "license">): void };

/** What a meter is told of the file and of the cache: which was chosen, that a load waits, and, once, that it does without. */
export function hubEvents(meter: Meter | undefined): HubEvents {
  let isSkipped = false;
  return {
    onFound: ({ file, downloadBytes, license }) =>
      meter?.report({ phase: "open", file, loadedBytes: 0, totalBytes: downloadBytes, license }),
    onWait: ({ path, sizeBytes }, partBytes) => meter?.tell({ phase: "wait", file: path, loadedBytes: partBytes, totalBytes: sizeBytes }),
    onSkip: ({ message }) => {
      if (!isSkipped) meter?.tell({ phase: "cache-skipped", file: "", loadedBytes: 0, totalBytes: 0, reason: message });
      isSkipped = true;
    },
  };
}

async function loadOnce(
  platform: Platform,
  source: ModelSource,
  options: LoadOptions,
  readTemplate: ReadTemplate,
  trial: Trial,
  meter: Meter | undefined,
): Promise<ModelParts> {
  const events = hubEvents(meter);
  const onFound = (hub: HubModel): void => {
    trial.isFromHub = true;
    events.onFound(hub);
  };
  const onKept = (): void => {
    trial.isFromHub = true;
  };
  const use: SourceUse = { ...events, onFound, onKept, isDoubtful: trial.isDoubtful };
  const opened = await openSource(platform, source, options, use);
  const checkpoint = await openCheckpoint(opened.source, options.signal);
  let draft: DraftModel | undefined;
  try {
    checkContext(checkpoint, options.maxContextTokens);
    const template = checkpoint.template && (await readTemplate(checkpoint.template));
    const license = await foundAt(checkpoint, opened, events, options.signal);
    const { dtype = opened.dtype, maxMemoryBytes = platform.memoryBudgetBytes } = options;
    let targetBytes = (): number => 0;
    let [before, after] = [0, 0];
    for (const { bytes } of checkpoint.tensors.values()) after += bytes; // the draft is read first
    const onProgress: LoadModelOptions["onProgress"] =
      meter &&
      (({ file, loadedBytes, totalBytes }) =>
        meter.report({ phase: "read", file, loadedBytes: before + loadedBytes, totalBytes: before + totalBytes + after }));
    const kernels = kernelsFor(platform, options);
    if (options.draft !== undefined) {
      const { loadDraft } = await part("draft", () => import("./draft.ts"));
      const its = await openSource(platform, options.draft, options, use);
      draft = await loadDraft(its, checkpoint, kernels, options, async (smaller, maxContextTokens) => {
        await foundAt(smaller, its, events, options.signal);
        return modelOptions(
          platform,
          smaller,
          { ...options, dtype: its.dtype, maxContextTokens, maxMemoryBytes },
          { otherBytes: () => targetBytes(), onProgress },
        );
      });
    }
    [before, after] = [draft?.bytes ?? 0, 0];
    const otherBytes = (): number => draft?.model.memoryBytes ?? 0;
    const own = modelOptions(platform, checkpoint, { ...options, dtype, maxMemoryBytes }, { otherBytes, onProgress });
    const loaded = await loadModel(checkpoint, kernels, own);
    const { model } = loaded;
    const { size } = model.caches;
    // with one session of the longest context: so much the draft leaves it
    const fullBytes =
      model.memoryBytes + size.blockBytes + size.keptBytes + size.pageBytes * (1 + model.options.maxContextTokens / PAGE_POSITIONS);
    targetBytes = () => Math.max(fullBytes, model.memoryBytes);
    await proved(checkpoint, loaded, options.signal, meter, opened.hub);
    const { prefixCacheBytes, speculate = draft ? "draft" : undefined } = options;
    const engine = new LocalEngine(model, checkpoint.tokenizer?.byteTable(), { prefixCacheBytes, draftModel: draft?.model });
    return {
      engine: platform.placeEngine?.(engine) ?? engine,
      config: checkpoint.config,
      info: {
        ...modelInfo(checkpoint, loaded),
        license,
        runtime: platform.runtime,
        warnings: [
          opened.warning,
          opened.unproved?.(checkpoint.sources),
          threadWarning(platform, options.threads, parameterCount(checkpoint)),
          ...(draft?.warnings ?? []),
        ].filter((w) => w !== undefined),
        speculate,
        draft: draft?.name,
      },
      tokenizer: checkpoint.tokenizer,
      template,
      generationConfig: checkpoint.generationConfig,
    };
  } catch (error) {
    draft?.model.dispose();
    throw await rightError(error, checkpoint.sources, options.signal);
  } finally {
    await checkpoint.close().catch(() => {}); // all has been read, or a better error is on its way
  }
}

/** Tells of an address what is to be downloaded, which its headers know. @returns the licence */
async function foundAt(checkpoint: Checkpoint, opened: Opened, events: HubEvents, signal?: AbortSignal): Promise<string | undefined> {
  const downloadBytes = opened.isAtAddress ? missingBytes(checkpoint.sources) : 0;
  const license = opened.hub?.license ?? (await licenseTold(checkpoint, opened, downloadBytes, signal));
  if (opened.isAtAddress) events.onFound({ file: checkpoint.sources[0]?.name ?? "", downloadBytes, license });
  return license;
}

/** What a checkpoint tells of its licence. A card on the network is one more question, which is asked before a download alone. */
export async function licenseTold(
  checkpoint: Checkpoint,
  { hub, isAtAddress }: Pick<Opened, "hub" | "isAtAddress">,
  downloadBytes: number,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const isAsked = isAtAddress ? downloadBytes > 0 : !hub;
  return checkpoint.license ?? (isAsked ? checkpoint.card?.(signal) : undefined);
}

/** @returns bytes of the files that are still to be downloaded; one that no cache can hold comes as a whole each time */
export function missingBytes(files: readonly ByteSource[]): number {
  return files.reduce((sum, file) => sum + (file.missingBytes ?? file.size), 0);
}

/** What of a load's options depends on the other of a model and its draft. */
type Beside = Pick<LoadModelOptions, "onProgress"> & { readonly otherBytes: () => number };

/** @returns the kernels that the caller hands over, else the package's own */
export function kernelsFor({ kernels, fetchWasm = noAddress }: Platform, { wasm }: Pick<LoadOptions, "wasm">): KernelSource {
  return wasm === undefined ? kernels : kernelSource(wasm, fetchWasm);
}

const noAddress: FetchWasm = () => Promise.reject(new Error("this runtime fetches no kernels: import the module"));

/** Dynamic scaling is for contexts beyond `max_position_embeddings`: it has no end. */
export function checkContext({ config }: Checkpoint, maxContextTokens: number | undefined): void {
  if (maxContextTokens === undefined || maxContextTokens <= config.maxPositionEmbeddings || config.ropeScaling.type === "dynamic") return;
  throw new InputError(`load: maxContextTokens: expected at most the model's ${config.maxPositionEmbeddings}, got ${maxContextTokens}.`);
}

/** Of a `maxMemoryBytes` a model and its draft take their parts; what addresses reach, each has for itself. */
function modelOptions(
  platform: Platform,
  checkpoint: Checkpoint,
  { dtype, kvDtype, maxContextTokens, maxMemoryBytes, variant, signal, cache, threads }: LoadOptions,
  beside: Beside,
): LoadModelOptions {
  const parameters = parameterCount(checkpoint);
  return {
    ...{ dtype, kvDtype, maxContextTokens, maxMemoryBytes, variant, signal, ...beside },
    images: imagesFor(platform.images, cache),
    packed: typeof cache === "object" ? cache.packed : undefined,
    threads: threadOptions(platform.threads, threadWarning(platform, threads, parameters) === undefined ? threads : 1, parameters),
  };
}

/** The last that can fail: what was loaded is given back if it does. */
async function proved(checkpoint: Checkpoint, { model }: LoadedModel, signal?: AbortSignal, meter?: Meter, hub?: HubModel): Promise<void> {
  try {
    await checkpoint.verify(signal);
    await hub?.keep();
    meter?.ready();
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** @returns how many parameters the checkpoint's tensors hold */
export function parameterCount({ tensors }: Checkpoint): number {
  let count = 0;
  for (const { shape } of tensors.values()) count += shape.reduce((a, b) => a * b, 1);
  return count;
}

function modelInfo(
  checkpoint: Checkpoint,
  { model, variant, plan, dtypes, packedImage }: LoadedModel,
): Omit<ModelParts["info"], "license" | "runtime" | "warnings" | "speculate" | "draft"> {
  return {
    name: checkpoint.names[0] ?? "",
    format: checkpoint.format,
    dtypes,
    kvDtype: model.options.kvDtype,
    variant,
    threads: model.threads,
    engine: "here",
    parameterCount: parameterCount(checkpoint),
    weightBytes: plan.items.find((item) => item.what === "weights")?.bytes ?? 0,
    memoryBytes: model.memoryBytes,
    kvBytesPerToken: model.caches.size.pageBytes / PAGE_POSITIONS,
    maxContextTokens: model.options.maxContextTokens,
    packedImage,
    sampling: recommendedSampling(checkpoint.names, checkpoint.generationConfig),
    stopIds: recommendedStopIds(checkpoint.config.eosTokenIds, checkpoint.generationConfig),
  };
}
