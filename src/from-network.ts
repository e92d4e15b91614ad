// What a name or an address means on the network: a hub's model, a file or folder at an address. A part of the package that comes when one is asked for.
import { type CacheOptions, type CacheUse, type OpenStore, storeFor } from "./cache.ts";
import { InputError, NetworkError } from "./errors.ts";
import type { DType } from "./memory/dtype.ts";
import { quoted } from "./values.ts";
import type { HubCache, HubModel } from "./weights/hub.ts";
import type { HubId } from "./weights/hub-id.ts";
import type { NetworkPlatform, RemoteOptions } from "./weights/remote.ts";
import { type ByteSource, type Folder, isFolder } from "./weights/source.ts";
import type { Store } from "./weights/store.ts";
import { UnlistedError } from "./weights/unlisted.ts";
import { findRemote, openAddress } from "./weights/ways.ts";

/** What is used of a runtime. */
interface Runtime {
  readonly network?: NetworkPlatform | undefined;
  readonly store?: OpenStore | undefined;
}

/** What is used of a load's options. */
interface Options extends RemoteOptions {
  readonly dtype?: DType | undefined;
  readonly cache?: "auto" | false | CacheOptions | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a source means. */
export interface Opened {
  readonly source: ByteSource | Folder;
  /** What a hub had to offer; undefined for anything else. */
  readonly hub?: HubModel | undefined;
  /** Whether it lies at an address: what is to be downloaded, its headers tell. */
  readonly isAtAddress?: boolean;
  /** Of a hub's model: what is told of a file whose checksum the hub does not tell, once all are open. */
  readonly unproved?: (sources: readonly ByteSource[]) => string | undefined;
  /** What the id asks for. */
  readonly dtype?: DType | undefined;
  /** What the caller should know of how it was found. */
  readonly warning?: string;
}

/** How a caller uses a hub and its cache. */
export interface SourceUse extends CacheUse {
  /** Called before anything is opened. */
  readonly onFound?: ((hub: HubModel) => void) | undefined;
}

function unproved(sources: readonly ByteSource[]): string | undefined {
  const file = sources.find(({ isUnproved }) => isUnproved);
  return (
    file &&
    `load: ${file.name}: the hub tells no checksum of it, so its bytes are not proved, only that their length and version are right.`
  );
}

const cacheIn = (store: Store | undefined, use: CacheUse): HubCache | undefined =>
  store && { store, onWait: () => {}, onSkip: () => {}, ...use };

/** Finds a hub's model, by way of the cache where there is one. @throws UnlistedError: see `openUnlisted` */
export async function findModel(runtime: Runtime, id: HubId, options: Options, use: CacheUse = {}): Promise<HubModel> {
  const { dtype, signal } = options;
  if (dtype !== undefined && id.dtype !== undefined && dtype !== id.dtype)
    throw new InputError(`load: dtype: expected ${JSON.stringify(id.dtype)} as in the id, got ${JSON.stringify(dtype)}. Name one of them.`);
  const store = await storeFor(runtime.store, options.cache);
  return findRemote(runtime.network, id, options, { dtype, cache: cacheIn(store, use) }, signal);
}

/** Opens the model of a hub's id. */
export async function openId(runtime: Runtime, id: HubId, options: Options, { onFound, ...use }: SourceUse): Promise<Opened> {
  let hub: HubModel;
  try {
    hub = await findModel(runtime, id, options, use);
  } catch (error) {
    if (!(error instanceof UnlistedError)) throw error;
    return { ...(await openUnlisted(runtime, error, options, use)), dtype: id.dtype };
  }
  onFound?.(hub);
  return { hub, source: await hub.source(), unproved, dtype: id.dtype };
}

/** Opens the file or folder at an address. */
export async function openAt(runtime: Runtime, address: string | URL, options: Options, use: CacheUse): Promise<Opened> {
  const store = await storeFor(runtime.store, options.cache, "addresses");
  const source = await openAddress(runtime.network, address, options, cacheIn(store, use), options.signal);
  return { source, isAtAddress: true };
}

/** Opens files of a commit that the hub does not list. @throws what it refused with, where they are not there either */
export async function openUnlisted(runtime: Runtime, error: UnlistedError, options: Options, use: CacheUse): Promise<Opened> {
  const opened = { ...(await openAt(runtime, error.address, options, use)), unproved };
  if (!isFolder(opened.source)) return opened;
  const config = await opened.source.open("config.json");
  if (!config) throw error;
  await config.close?.();
  return opened;
}

/**
 * Opens what could be a path or an id and may not be looked at: nobody is asked for a permission that a model on a hub does not need.
 * @param why it may not
 */
export async function openUnseen(runtime: Runtime, id: HubId, why: string, options: Options, use: SourceUse): Promise<Opened> {
  const seen = `${quoted(id.repo)} was taken for a model on a hub: ${why}.`;
  try {
    const isKept = options.cache === false || (await storeFor(runtime.store, options.cache)) !== undefined;
    return { ...(await openId(runtime, id, options, use)), warning: `load: ${seen}${isKept ? "" : " What is downloaded is not kept."}` };
  } catch (error) {
    if (!(error instanceof NetworkError) || ![401, 404].includes(error.status)) throw error;
    const { message, status, code } = error;
    throw new NetworkError(`${message} ${seen}`, { status, code, cause: error });
  }
}
