// Models on a hub by name: takes the file that suits from a repository at one commit, from a cache where it is there, and checks what comes against the hub's own checksums. Knows no format.
import { FormatError, NetworkError, StorageError, throwIfAborted } from "../errors.ts";
import type { DType } from "../memory/dtype.ts";
import { quoted } from "../values.ts";
import { Keeper, type KeepOptions, missingIn, renamed } from "./cached-file.ts";
import { openHttp } from "./http.ts";
import { chooseFile, type HubChoice, type HubFile, type HubWish, hasGguf } from "./hub-choice.ts";
import type { HubId } from "./hub-id.ts";
import { isHex, isNotOffered, type Listing, listRepository } from "./hub-listing.ts";
import { type Checksum, hurried, isUnreachable, type Network, type RemoteFileOptions } from "./request.ts";
import { type ByteSource, type Folder, isPlainPath } from "./source.ts";
import type { Store, StoreFile } from "./store.ts";
import { UnlistedError } from "./unlisted.ts";

/** Where files are kept, and how a load uses it. */
export interface HubCache extends Omit<KeepOptions, "network" | "signal"> {
  readonly store: Store;
}

/** How a model is looked for. */
export interface HubOptions {
  /** What `load` was asked for: the file that suits it best is taken, small ones first where nothing was asked for. */
  readonly dtype?: DType | undefined;
  readonly cache?: HubCache | undefined;
  /** Only the cache may answer. */
  readonly isOffline?: boolean | undefined;
}

/** What was found for an id. */
export interface HubModel {
  readonly repo: string;
  readonly commit: string;
  /** The file that holds the weights. */
  readonly file: string;
  /** All that a load reads. */
  readonly files: readonly StoreFile[];
  /** What of it is still to be downloaded. */
  readonly downloadBytes: number;
  readonly license: string | undefined;
  /** Opens the model: its GGUF, or its folder. */
  source(): Promise<ByteSource | Folder>;
  /** Opens one of the files. */
  open(file: StoreFile): Promise<ByteSource>;
  /** The files are there: the cache answers for the revision from now on. */
  keep(): Promise<void>;
}

interface Found {
  readonly place: Place;
  readonly choice: HubChoice;
}

interface Place extends Listing {
  /** Whether the cache answered in the hub's place. */
  readonly isLocal: boolean;
}

const isNotThere = (error: unknown): boolean => error instanceof NetworkError && [401, 403, 404].includes(error.status);

function checksumOf({ sha256, oid }: HubFile): Checksum | undefined {
  if (sha256 !== undefined) return { algorithm: "sha256", hex: sha256 };
  return oid === undefined ? undefined : { algorithm: "sha1", hex: oid };
}

/** One search: which repositories were asked, and whether the hub answers at all. */
class Search {
  readonly #network: Network;
  readonly #id: HubId;
  readonly #options: HubOptions;
  readonly #signal: AbortSignal;
  #isOffline: boolean;

  constructor(network: Network, id: HubId, options: HubOptions, signal: AbortSignal) {
    this.#network = network;
    this.#id = id;
    this.#options = options;
    this.#signal = signal;
    this.#isOffline = options.isOffline ?? false;
  }

  /** What the cache has of a revision. A cache that cannot be read has nothing. */
  async #local(repo: string, revision = "main"): Promise<Place | undefined> {
    const store = this.#options.cache?.store;
    if (!store) return undefined;
    try {
      const commit = isHex(revision, 40) ? revision : await store.revision(repo, revision);
      const stored = commit === undefined ? [] : await store.files(repo, commit);
      if (commit === undefined || stored.length === 0) return undefined;
      const files = stored
        .filter(({ path }) => isPlainPath(path))
        .map(({ path, sizeBytes, blob }) => ({
          ...{ path, sizeBytes },
          oid: blob?.length === 40 ? blob : undefined,
          sha256: blob?.length === 64 ? blob : undefined,
        }));
      return { repo, commit, files, isLocal: true };
    } catch (error) {
      if (error instanceof StorageError) return undefined;
      throw error;
    }
  }

  /** The hub's listing; where the hub is out of reach, the cache's. */
  async #list(repo: string, revision: string | undefined): Promise<Place> {
    const local = await this.#local(repo, revision);
    if (this.#isOffline) {
      if (local) return local;
      throw notCached(repo, revision);
    }
    try {
      const network = local ? hurried(this.#network) : this.#network;
      return { ...(await listRepository(network, repo, revision, this.#signal)), isLocal: false };
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      this.#isOffline = true;
      if (local) return local;
      throw error;
    }
  }

  /** Many publish the quantized files in a repository beside the original one. */
  async #besideIt(): Promise<Place | undefined> {
    try {
      return await this.#list(`${this.#id.repo}-GGUF`, undefined);
    } catch (error) {
      if (isNotThere(error) || this.#isOffline) return undefined;
      throw error;
    }
  }

  /** What the cache alone has of the commit. */
  async #kept(wish: HubWish): Promise<Found | undefined> {
    const place = await this.#local(this.#id.repo, this.#id.revision);
    const choice = place && chooseFile(place.files, wish);
    return place && choice && { place, choice };
  }

  /** Without a listing a type tells no file's name. */
  #unlisted({ message, status }: NetworkError): NetworkError {
    const { repo, revision, file = "", type } = this.#id;
    if (type === undefined) return new UnlistedError(message, `${this.#network.endpoint}/${repo}/resolve/${revision}/${file}`, { status });
    return new NetworkError(`${message} To load what is not listed, name the file in place of ${quoted(type)}: FILE.gguf.`, { status });
  }

  async find(): Promise<Found> {
    const { repo, revision, file, type } = this.#id;
    const wish = { file, type, dtype: this.#id.dtype ?? this.#options.dtype };
    const isPinned = isHex(revision, 40);
    if (isPinned && (file ?? type) !== undefined) {
      const kept = await this.#kept(wish); // nothing that the hub could say would change it
      if (kept?.choice.kind === "gguf") return kept;
    }
    let place: Place | undefined;
    let failure: unknown;
    try {
      place = await this.#list(repo, revision);
    } catch (error) {
      if (isPinned && isNotOffered(error)) {
        const kept = await this.#kept(wish);
        if (kept) return kept;
        throw this.#unlisted(error);
      }
      if (!this.#isOffline) throw error;
      failure = error; // the repository beside it may be in the cache
    }
    const isSmall = file === undefined && (wish.dtype === undefined || wish.dtype === "q4" || wish.dtype === "q8");
    if (isSmall && revision === undefined && !(place && hasGguf(place.files))) {
      const beside = await this.#besideIt();
      const choice = beside && chooseFile(beside.files, wish);
      if (beside && choice?.kind === "gguf") return { place: beside, choice };
    }
    if (!place) throw failure;
    const choice = chooseFile(place.files, wish);
    if (choice) return { place, choice };
    throw this.#noSuchFile(place);
  }

  #noSuchFile({ repo, files, isLocal }: Place): FormatError {
    const wanted = this.#id.file ?? this.#id.type;
    const there = files.map((f) => f.path).filter((p) => /\.(?:gguf|safetensors)$/i.test(p));
    const got = there.length > 0 ? there.slice(0, 8).map(quoted).join(", ") : "none";
    const where = isLocal ? "in the cache, while the hub is out of reach" : "on the hub";
    return new FormatError(
      `${repo} ${where}: expected ${wanted === undefined ? "a GGUF file or config.json and model.safetensors" : quoted(wanted)}, got ${got}. Name a file that is there.`,
      { code: "missing-file" },
    );
  }

  get isOffline(): boolean {
    return this.#isOffline;
  }
}

function notCached(repo: string, revision: string | undefined): NetworkError {
  const what = revision === undefined ? repo : `${repo}@${revision}`;
  return new NetworkError(
    `${what}: expected it in the cache, for the hub may not be asked (HF_HUB_OFFLINE), got none of it. Pull it first, or unset HF_HUB_OFFLINE.`,
    { code: "offline" },
  );
}

/** The files of a place, each by its own way: cache, or network by way of the cache, or network. */
class Opener {
  readonly #network: Network;
  readonly #place: Place;
  readonly #keeper: Keeper | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #isOffline: boolean;
  /** Whether a file could not be kept. */
  isIncomplete = false;

  constructor(network: Network, place: Place, cache: HubCache | undefined, isOffline: boolean, signal: AbortSignal | undefined) {
    this.#network = network;
    this.#place = place;
    this.#signal = signal;
    this.#isOffline = isOffline;
    const onSkip: KeepOptions["onSkip"] = (error) => {
      this.isIncomplete = true;
      cache?.onSkip(error);
    };
    this.#keeper = cache && new Keeper(cache.store, { ...cache, onSkip, network, signal });
  }

  /** A file without a checksum has no name in a store: it is found there by its path only. */
  entry({ path, sizeBytes, sha256, oid }: HubFile): StoreFile {
    const { repo, commit } = this.#place;
    return { repo, commit, path, sizeBytes, blob: sha256 ?? oid ?? "" };
  }

  async open(file: StoreFile): Promise<ByteSource> {
    const { repo, commit, path, sizeBytes } = file;
    const url = `${this.#network.endpoint}/${repo}/resolve/${commit}/${path}`;
    const hub = this.#place.files.find((f) => f.path === path);
    const source = await this.#open(file, { name: path, url, sizeBytes, checksum: hub && checksumOf(hub), commit });
    return renamed(source, {
      name: path,
      identity: file.blob === "" ? undefined : file.blob, // the content's hash: the same wherever it comes from
      sibling: (name) => this.openPath(path.slice(0, path.lastIndexOf("/") + 1) + name), // parts of a split one
    });
  }

  async #open(file: StoreFile, remote: RemoteFileOptions): Promise<ByteSource> {
    const { checksum } = remote;
    const whole = this.#place.isLocal ? await this.#keeper?.whole(file, checksum) : undefined;
    if (whole) return whole;
    if (this.#isOffline) throw notCached(this.#place.repo, undefined);
    if (this.#keeper && checksum) return this.#keeper.open(file, { ...remote, checksum });
    return openHttp(this.#network, remote, this.#signal);
  }

  openPath = async (path: string): Promise<ByteSource | undefined> => {
    const file = this.#place.files.find((f) => f.path === path);
    return file && this.open(this.entry(file));
  };

  folder(): Folder {
    const { repo } = this.#place;
    return { name: repo.slice(repo.indexOf("/") + 1), open: this.openPath };
  }
}

/**
 * Finds the model of an id; of its files only the listing is read, and nothing is opened.
 * @param signal ends whatever the source or the folder's files do, too
 * @throws NetworkError when the hub does not answer, or not to this token, and the cache has nothing, an UnlistedError where the files may be there all the same;
 * FormatError when it has no such file; AbortError
 */
export async function findHub(network: Network, id: HubId, options: HubOptions = {}, signal?: AbortSignal): Promise<HubModel> {
  throwIfAborted(signal);
  const search = new Search(network, id, options, signal ?? new AbortController().signal);
  const { place, choice } = await search.find();
  const opener = new Opener(network, place, options.cache, search.isOffline, signal);
  const files = choice.files.map((file) => opener.entry(file));
  let downloadBytes = 0;
  for (const file of files) downloadBytes += options.cache ? await missingIn(options.cache.store, file) : file.sizeBytes;
  const { repo, commit, license, isLocal } = place;
  const revision = repo === id.repo ? (id.revision ?? "main") : "main";
  return {
    ...{ repo, commit, file: choice.file.path, files, downloadBytes, license },
    source: async () => (choice.kind === "gguf" ? opener.open(opener.entry(choice.file)) : opener.folder()),
    open: (file) => opener.open(file),
    keep: async () => {
      if (!options.cache || isLocal || opener.isIncomplete || isHex(revision, 40)) return;
      try {
        await options.cache.store.setRevision(repo, revision, commit);
      } catch (error) {
        if (!(error instanceof StorageError)) throw error;
        options.cache.onSkip(error);
      }
    },
  };
}
