// What is downloaded and what could be: pull, availability, the list of models in the cache and their removal. Knows no runtime, and loads no model.
import { type CacheUse, storeFor } from "./cache.ts";
import { checkNames } from "./checks.ts";
import { InputError, Lfm2Error, PlatformError, StorageError, throwIfAborted } from "./errors.ts";
import { findModel, openUnlisted } from "./from-network.ts";
import {
  checkContext,
  checkLoadCall,
  hubEvents,
  isAddress,
  isWorthAnother,
  kernelsFor,
  type LoadOptions,
  licenseTold,
  type ModelSource,
  missingBytes,
  openSource,
  type Platform,
  parameterCount,
} from "./lfm2.ts";
import { ADDRESS_SPACE_BYTES } from "./memory/arena.ts";
import { DTYPES, type DType } from "./memory/dtype.ts";
import { type Checkpoint, openCheckpoint } from "./models/checkpoint.ts";
import { type Plan, planModel } from "./models/load-model.ts";
import { checkSameTokens } from "./models/same-tokens.ts";
import { plannedThreads } from "./planned-threads.ts";
import { type LoadProgress, Meter } from "./progress.ts";
import { ChatTemplate } from "./text/chat-template.ts";
import { isRecord, quoted } from "./values.ts";
import type { HubModel } from "./weights/hub.ts";
import { type HubId, parseHubId } from "./weights/hub-id.ts";
import { parseJsonBytes } from "./weights/json-scan.ts";
import { MAX_CONFIG_BYTES } from "./weights/limits.ts";
import { removeImagesOf } from "./weights/packed-image.ts";
import { checkPlan } from "./weights/plan.ts";
import { type ByteSource, type Folder, isFolder, readExactly } from "./weights/source.ts";
import type { Store, StoredModel, StoredModels } from "./weights/store.ts";
import { UnlistedError } from "./weights/unlisted.ts";

/** What the cache calls read: the folder of the cache where it is not the default. */
export interface CacheQuery {
  readonly cacheDir?: string | undefined;
}

const QUERY: Readonly<Record<keyof CacheQuery, 1>> = { cacheDir: 1 };

/** @returns every store there is: a hub's first */
async function storesOf(platform: Platform, cache: LoadOptions["cache"]): Promise<readonly Store[]> {
  const stores = new Map<string, Store>();
  for (const kind of ["hub", "addresses"] as const) {
    const store = await storeFor(platform.store, cache, kind);
    if (store) stores.set(store.place, store);
  }
  if (stores.size > 0) return [...stores.values()];
  throw new PlatformError(
    "cache: expected a place to keep models, got none: this runtime has no store that it may use, or `cache` is false. " +
      "load() needs none: it takes the id, an address, a bucket's object or bytes. To keep files, leave `cache` out, or name a folder that may be read and written.",
    { code: "no-store" },
  );
}

const cacheIn = ({ cacheDir }: CacheQuery): LoadOptions["cache"] => (cacheDir === undefined ? "auto" : { dir: cacheDir });

/** The first key of a GGUF, as a rule; what follows is the value's type and length. */
const ARCHITECTURE = /general\.architecture[\s\S]{12}([a-z0-9]{1,16})/;
const GGUF_HEAD_BYTES = 4096;

/** Whether a model in the store is one of those that this package runs; one that is not there in full may be. */
async function isOurs(store: Store, { id, revisions, partialBytes }: StoredModel): Promise<boolean> {
  for (const { commit, files } of revisions) {
    for (const { path, sizeBytes, blob = "" } of files) {
      const isConfig = path === "config.json" && sizeBytes <= MAX_CONFIG_BYTES;
      if (!isConfig && !path.endsWith(".gguf")) continue;
      const source = await store.open({ repo: id, commit, path, sizeBytes, blob });
      if (!source) continue;
      try {
        const head = await readExactly(source, 0, Math.min(sizeBytes, isConfig ? MAX_CONFIG_BYTES : GGUF_HEAD_BYTES));
        if (isConfig ? isConfigOfOurs(head) : ARCHITECTURE.exec(latin1(head))?.[1] === "lfm2") return true;
      } finally {
        await source.close?.();
      }
    }
  }
  return revisions.length === 0 && partialBytes > 0;
}

const latin1 = (bytes: Uint8Array): string => Array.from(bytes, (b) => String.fromCharCode(b)).join("");

function isConfigOfOurs(bytes: Uint8Array): boolean {
  try {
    const json = parseJsonBytes(bytes, "config.json", { maxBytes: MAX_CONFIG_BYTES });
    return isRecord(json) && Object.hasOwn(json, "model_type") && json.model_type === "lfm2";
  } catch {
    return false; // another program's business
  }
}

/** @throws FormatError, UnsupportedError for a template that a load would refuse */
function checkTemplate({ template }: Checkpoint): void {
  if (template) ChatTemplate.of(template);
}

/** The models in the cache that this package runs, also those that other programs put there. */
export async function listModelsWith(platform: Platform, query: CacheQuery = {}): Promise<StoredModels> {
  checkNames("listModels", query, "CacheQuery", QUERY);
  const models: StoredModel[] = [];
  const stores = await storesOf(platform, cacheIn(query));
  for (const store of stores) for (const model of await store.list()) if (await isOurs(store, model)) models.push(model);
  // beside the list, not in it: whoever prints or compares it sees models
  return Object.defineProperty(models, "freeBytes", { value: await stores[0]?.freeBytes() }) as unknown as StoredModels;
}

/** Removes a model from the cache, unfinished downloads too. */
export async function removeModelWith(platform: Platform, id: string, query: CacheQuery = {}): Promise<StoredModel | undefined> {
  checkNames("removeModel", query, "CacheQuery", QUERY);
  if (parseHubId(id)?.repo !== id && !isAddress(id))
    throw new InputError(`removeModel: expected the id of a model in the cache, org/name, got ${quoted(String(id))}. See listModels().`);
  let removed: StoredModel | undefined;
  for (const store of await storesOf(platform, cacheIn(query))) removed ??= await store.remove(id);
  if (removed) await removeImages(platform, removed, query);
  return removed;
}

/** What was packed from a model's files goes with them. */
async function removeImages(platform: Platform, { revisions }: StoredModel, query: CacheQuery): Promise<void> {
  const blobs = new Set(revisions.flatMap(({ files }) => files.flatMap(({ blob }) => (blob === undefined ? [] : [blob]))));
  const images = await platform.images?.(query.cacheDir).catch(() => undefined);
  if (images && blobs.size > 0) await removeImagesOf(images, blobs);
}

/** What `pull` brought. */
export interface Pulled {
  /** `org/name` of the repository that was chosen; of an address its folder's. It is the model's id in `listModels`. */
  readonly id: string;
  /** Of an address the name of the version that its server told. */
  readonly commit: string;
  /** The file of weights that was chosen. */
  readonly file: string;
  readonly license: string | undefined;
  /** All files that a load reads, and what of them had to be downloaded. */
  readonly sizeBytes: number;
  readonly downloadedBytes: number;
  /** What could not be as it should: a file whose checksum its hub does not tell. Empty when all is well. */
  readonly warnings: readonly string[];
}

/** Downloads all that a load of the model would read into the cache. */
export async function pullWith(platform: Platform, id: string, options: LoadOptions = {}): Promise<Pulled> {
  checkLoadCall(options);
  throwIfAborted(options.signal);
  await storesOf(platform, options.cache);
  const { draft, onProgress } = options;
  const isBoth = draft !== undefined && (await isRemote(platform, draft, options)); // a wrong one is told before a download
  const first = onProgress && new Meter((p) => (isBoth && p.phase === "ready" ? undefined : onProgress(p)));
  const own = await pullOne(platform, id, options, first);
  if (!isBoth) return own;
  // its bytes are counted behind the first ones
  const behind = (p: LoadProgress): LoadProgress =>
    p.phase === "download" || p.phase === "ready"
      ? { ...p, loadedBytes: own.sizeBytes + p.loadedBytes, totalBytes: own.sizeBytes + p.totalBytes }
      : p;
  const its = await pullOne(platform, String(draft), options, onProgress && new Meter((p) => onProgress(behind(p))));
  return {
    ...own,
    sizeBytes: own.sizeBytes + its.sizeBytes,
    downloadedBytes: own.downloadedBytes + its.downloadedBytes,
    warnings: [...own.warnings, ...its.warnings],
  };
}

/** Whether a load takes `source` from the network or its cache. */
async function isRemote(platform: Platform, source: ModelSource, options: LoadOptions): Promise<boolean> {
  if (typeof source !== "string" && !(source instanceof URL)) return false;
  const opened = await openSource(platform, source, options, { isReadOnly: true });
  if (!isFolder(opened.source)) await opened.source.close?.();
  return opened.isAtAddress === true || opened.hub !== undefined;
}

async function pullOne(platform: Platform, id: string, options: LoadOptions, meter?: Meter): Promise<Pulled> {
  const parsed = isAddress(id) ? id : parseHubId(String(id));
  if (!parsed)
    throw new InputError(
      `pull: expected a hub's id, org/name[@revision][:file or type], or an https: address, got ${quoted(String(id))}. A path is on this machine already.`,
    );
  const once = (isDoubtful: boolean): Promise<Pulled> =>
    typeof parsed === "string"
      ? pullAddress(platform, parsed, options, isDoubtful, meter)
      : pullOnce(platform, parsed, options, isDoubtful, meter);
  try {
    return await once(false);
  } catch (error) {
    if (options.signal?.aborted || !isWorthAnother(error, true)) throw error;
    return once(true);
  }
}

/** Which files a load would read, only the checkpoint's headers tell. */
async function pullAddress(
  platform: Platform,
  at: string | UnlistedError,
  options: LoadOptions,
  isDoubtful: boolean,
  meter?: Meter,
): Promise<Pulled> {
  const { signal } = options;
  const address = typeof at === "string" ? at : at.address;
  const events = hubEvents(meter);
  let [before, totalBytes, now] = [0, 0, ""];
  const use: CacheUse = {
    ...{ isDoubtful, onWait: events.onWait },
    onBytes: ({ path }, bytes) => {
      if (path === now) meter?.report({ phase: "download", file: path, loadedBytes: before + bytes, totalBytes });
    },
    onSkip: (error) => {
      throw error;
    },
  };
  const opened = typeof at === "string" ? await openSource(platform, at, options, use) : await openUnlisted(platform, at, options, use);
  const watched = watch(opened.source);
  const checkpoint = await openCheckpoint(watched.source, signal);
  try {
    checkTemplate(checkpoint);
    const { sources } = checkpoint;
    const [file] = sources;
    const files = watched.filesOf(checkpoint);
    const unknown = files.find((each) => each.missingBytes === undefined);
    if (!file || unknown) throw noVersion(unknown?.name ?? address);
    totalBytes = files.reduce((sum, each) => sum + each.size, 0);
    before = totalBytes - sources.reduce((sum, each) => sum + each.size, 0); // the texts have come
    const downloadedBytes = missingBytes(files);
    const license = await licenseTold(checkpoint, opened, downloadedBytes, signal);
    events.onFound({ file: file.name, downloadBytes: downloadedBytes, license });
    for (const each of sources) {
      now = each.name;
      await each.verify?.(signal);
      before += each.size;
      meter?.report({ phase: "download", file: now, loadedBytes: before, totalBytes });
    }
    meter?.ready();
    const commit = file.identity?.slice(0, 40) ?? "";
    const warnings = [opened.unproved?.(sources)].filter((w) => w !== undefined);
    return { id: new URL(".", address).href, commit, file: file.name, license, sizeBytes: totalBytes, downloadedBytes, warnings };
  } finally {
    await checkpoint.close().catch(() => {}); // all is there, or a better error is on its way
  }
}

function noVersion(name: string, expected = "an ETag or a date"): StorageError {
  return new StorageError(
    `pull: ${name}: expected a server that tells ${expected}, by which the cache would know the file, got none. Download it, and pass its path.`,
    { code: "no-version" },
  );
}

async function pullOnce(platform: Platform, id: HubId, options: LoadOptions, isDoubtful: boolean, meter?: Meter): Promise<Pulled> {
  let before = 0;
  let totalBytes = 0;
  const use: CacheUse = {
    ...{ isDoubtful, onWait: hubEvents(meter).onWait },
    onBytes: ({ path }, bytes) => meter?.report({ phase: "download", file: path, loadedBytes: before + bytes, totalBytes }),
    onSkip: (error) => {
      throw error;
    },
  };
  let hub: HubModel;
  try {
    hub = await findModel(platform, id, options, use);
  } catch (error) {
    if (error instanceof UnlistedError) return pullAddress(platform, error, options, isDoubtful, meter);
    throw error;
  }
  const { repo, commit, license, file, files, downloadBytes } = hub;
  totalBytes = files.reduce((sum, f) => sum + f.sizeBytes, 0);
  hubEvents(meter).onFound(hub);
  for (const each of files) {
    await fetchFile(hub, each, options.signal);
    before += each.sizeBytes;
    meter?.report({ phase: "download", file: each.path, loadedBytes: before, totalBytes });
  }
  await hub.keep();
  meter?.ready();
  return { id: repo, commit, file, license, sizeBytes: totalBytes, downloadedBytes: downloadBytes, warnings: [] };
}

async function fetchFile(hub: HubModel, file: HubModel["files"][number], signal: AbortSignal | undefined): Promise<void> {
  const source = await hub.open(file);
  try {
    if (source.isUnproved) throw noVersion(source.name, "its checksum");
    await source.verify?.(signal);
  } finally {
    await source.close?.();
  }
}

/** Whether a model can run here, and what it takes. */
export interface Availability {
  /**
   * `"available"`: all of it is here. `"downloadable"`: some of it must be downloaded, and it would run. `"downloading"`: that is under way, here or in another
   * process. `"unavailable"`: `reason` says why it would not load.
   */
  readonly status: "available" | "downloadable" | "downloading" | "unavailable";
  /** What must still be downloaded; 0 where that is not known. */
  readonly downloadBytes: number;
  /** Linear memory that the model would take before its first token, with its draft; 0 where that is not known. */
  readonly memoryBytes: number;
  /** As the hub, the file or the README beside it tells it. */
  readonly license: string | undefined;
  readonly reason?: string;
}

/** From the best: of a model and its draft the worse one tells. */
const STATUS = ["available", "downloadable", "downloading", "unavailable"] as const;

/** Reads headers and the cache, no weights. */
export async function availabilityWith(platform: Platform, source: ModelSource, options: LoadOptions = {}): Promise<Availability> {
  checkLoadCall(options);
  throwIfAborted(options.signal);
  const { draft, maxMemoryBytes: limit = platform.memoryBudgetBytes } = options;
  if (draft === undefined) return availabilityOf(platform, source, options, limit);
  let smaller: Checkpoint | undefined;
  const keep = (checkpoint: Checkpoint): void => {
    smaller = checkpoint;
  };
  const its = await availabilityOf(platform, draft, options, limit, { isDraft: true, onOpened: keep });
  const onOpened = (checkpoint: Checkpoint): void => {
    if (smaller) checkSameTokens(smaller, checkpoint);
  };
  const own = await availabilityOf(platform, source, options, limit && Math.max(1, limit - its.memoryBytes), { onOpened });
  return {
    ...its,
    ...own,
    status: STATUS[Math.max(STATUS.indexOf(own.status), STATUS.indexOf(its.status))] ?? own.status,
    downloadBytes: own.downloadBytes + its.downloadBytes,
    memoryBytes: own.memoryBytes + its.memoryBytes,
  };
}

/**
 * @param isDraft it is loaded as its file stores it, for contexts of its own length at most
 * @param onOpened what it throws is the reason why the model would not load
 */
async function availabilityOf(
  platform: Platform,
  source: ModelSource,
  options: LoadOptions,
  limitBytes: number = ADDRESS_SPACE_BYTES,
  { isDraft = false, onOpened }: { readonly isDraft?: boolean; readonly onOpened?: (checkpoint: Checkpoint) => void } = {},
): Promise<Availability> {
  let downloadBytes = 0;
  let memoryBytes = 0;
  let license: string | undefined;
  try {
    const opened = await openSource(platform, source, options, { isReadOnly: true });
    downloadBytes = opened.hub?.downloadBytes ?? 0;
    const watched = watch(opened.source);
    const checkpoint = await openCheckpoint(watched.source, options.signal);
    const files = watched.filesOf(checkpoint);
    if (opened.isAtAddress) downloadBytes = missingBytes(files);
    try {
      license = opened.hub?.license ?? checkpoint.license ?? (await checkpoint.card?.(options.signal));
      const { maxContextTokens: most } = options;
      const maxContextTokens = isDraft && most ? Math.min(most, checkpoint.config.maxPositionEmbeddings) : most;
      checkContext(checkpoint, maxContextTokens);
      checkTemplate(checkpoint);
      const dtype = isDraft ? opened.dtype : (options.dtype ?? opened.dtype);
      const planFor = plansOf(checkpoint, platform, { ...options, maxContextTokens });
      const plan = await planFor(dtype);
      memoryBytes = plan.totalBytes;
      onOpened?.(checkpoint);
      await checkFits(plan, dtype, limitBytes, planFor);
    } finally {
      await checkpoint.close().catch(() => {}); // all has been read, or a better error is on its way
    }
    if (downloadBytes === 0) return { status: "available", downloadBytes, memoryBytes, license };
    const isUnderWay = opened.hub ? await isDownloading(platform, opened.hub, options) : files.some((file) => file.isDownloading);
    return { status: isUnderWay ? "downloading" : "downloadable", downloadBytes, memoryBytes, license };
  } catch (error) {
    const isReason = error instanceof Lfm2Error && !(error instanceof InputError) && !options.signal?.aborted;
    if (!isReason) throw error;
    return { status: "unavailable", downloadBytes, memoryBytes, license, reason: error.message };
  }
}

type PlanFor = (dtype: DType | undefined) => Promise<Plan>;

function plansOf(checkpoint: Checkpoint, platform: Platform, options: LoadOptions): PlanFor {
  const { kvDtype, maxContextTokens, variant } = options;
  const threads = plannedThreads(platform, options, parameterCount(checkpoint));
  return (dtype) => planModel(checkpoint, kernelsFor(platform, options), { dtype, kvDtype, maxContextTokens, variant, threads });
}

/** @throws MemoryError that names a dtype that would fit */
async function checkFits({ items, totalBytes }: Plan, dtype: DType | undefined, limitBytes: number, plan: PlanFor): Promise<void> {
  if (totalBytes <= limitBytes) return;
  const others = new Map<DType, number>();
  for (const other of DTYPES) others.set(other, (await plan(other)).totalBytes);
  checkPlan(items, limitBytes, dtype, (other) => others.get(other) ?? totalBytes);
}

/** @returns the source, and what tells which of its files a load reads, once it has been opened as a checkpoint: those of weights, and of a folder the texts beside them */
function watch(source: ByteSource | Folder): { source: ByteSource | Folder; filesOf(checkpoint: Checkpoint): readonly ByteSource[] } {
  const opened = new Set<ByteSource>();
  const open = async (folder: Folder, path: string): Promise<ByteSource | undefined> => {
    const file = await folder.open(path);
    if (file) opened.add(file);
    return file;
  };
  return {
    source: isFolder(source) ? { name: source.name, open: (path) => open(source, path), ...listOf(source) } : source,
    filesOf: ({ sources }) => [...new Set([...opened, ...sources])],
  };
}

const listOf = (folder: Folder): Pick<Folder, "list"> => (folder.list && { list: folder.list.bind(folder) }) ?? {};

async function isDownloading(platform: Platform, { files }: HubModel, { cache }: LoadOptions): Promise<boolean> {
  const store = await storeFor(platform.store, cache);
  if (!store) return false;
  for (const file of files) if (file.blob !== "" && (await store.isLocked(file))) return true;
  return false;
}
