// Files at plain addresses, kept like a hub's: known by address and version (ETag or date), so that another version is another file. A part of the package that comes when an address is loaded with a cache.
import { StorageError } from "../errors.ts";
import type { AddressOptions } from "./address.ts";
import { Keeper, missingIn, renamed } from "./cached-file.ts";
import { HttpSource, openHttp } from "./http.ts";
import type { HubCache } from "./hub.ts";
import { hurried, isUnreachable, type Network, type RemoteSource } from "./request.ts";
import { type ByteSource, isPlainPath, unlessAborted } from "./source.ts";
import type { StoreFile } from "./store.ts";

/** @returns 64 hexadecimal digits that name a text */
async function digestOf(network: Network, text: string): Promise<string> {
  const hash = network.createHash("sha256");
  hash.update(new TextEncoder().encode(text));
  return hash.digest();
}

/** Where a file at an address is kept: what follows `?` may be a secret, and is told by its hash alone. */
interface Place {
  /** The folder's address. */
  readonly repo: string;
  /** The file's name in it. */
  readonly path: string;
  /** Under which the version is noted. */
  readonly ref: string;
}

async function placeOf(network: Network, { url, name }: AddressOptions): Promise<Place> {
  const { origin, pathname, search } = new URL(url);
  const path = isPlainPath(name) && !name.includes("/") ? name : encodeURIComponent(name);
  const ref = search === "" ? path : `${path}-${(await digestOf(network, search)).slice(0, 16)}`;
  return { repo: origin + pathname.slice(0, pathname.lastIndexOf("/") + 1), path, ref };
}

/** Opens files at addresses by way of a store. */
export class AddressCache {
  readonly #network: Network;
  readonly #cache: HubCache;
  readonly #keeper: Keeper;
  readonly #signal: AbortSignal | undefined;

  constructor(network: Network, cache: HubCache, signal: AbortSignal | undefined) {
    this.#network = network;
    this.#cache = cache;
    this.#signal = signal;
    this.#keeper = new Keeper(cache.store, { ...cache, network, signal });
  }

  /**
   * @returns the file: from the store where its version is there, else from the network by way of the store; where the server tells no version from the network alone
   * @throws NetworkError, FormatError, AbortError
   */
  async open(options: AddressOptions): Promise<ByteSource> {
    const { store } = this.#cache;
    const place = await placeOf(this.#network, options);
    const names = { name: options.name, ...(options.sibling && { sibling: options.sibling }) };
    const known = await orNothing(() => store.revision(place.repo, place.ref));
    const last = known === undefined ? undefined : await orNothing(() => this.#fileOf(place, known));
    let begun: HttpSource;
    try {
      begun = await this.#begin(options, last !== undefined);
    } catch (error) {
      const kept = last && isUnreachable(error) ? await orNothing(() => store.open(last)) : undefined;
      if (!kept) throw error;
      this.#cache.onKept?.();
      return renamed(kept, { ...names, identity: last?.blob, missingBytes: 0 });
    }
    const { version = "", checksum, size } = begun;
    if (version === "" && checksum === undefined) {
      await begun.close();
      return this.#begun(openHttp(this.#network, options, this.#signal));
    }
    const blob = checksum?.algorithm === "sha256" ? checksum.hex : await digestOf(this.#network, [options.url, version, size].join("\n"));
    const file: StoreFile = { repo: place.repo, commit: blob.slice(0, 40), path: place.path, sizeBytes: size, blob };
    const missingBytes = await missingIn(store, file);
    const isDownloading = this.#cache.isReadOnly && missingBytes > 0 ? await orNothing(() => store.isLocked(file)) : undefined;
    const source = await this.#keeper.open(file, { name: options.name, url: options.url, sizeBytes: size, checksum, version, begun });
    const verify = async (signal?: AbortSignal): Promise<void> => {
      await source.verify?.(signal);
      await this.#keep(place, file);
    };
    return renamed(source, { ...names, identity: blob, verify, missingBytes, isDownloading, isUnproved: !checksum });
  }

  /** The first answer of the server. With a version to fall back to, patience only costs time. */
  async #begin(options: AddressOptions, hasLast: boolean): Promise<HttpSource> {
    const network = hasLast ? hurried(this.#network) : this.#network;
    return this.#begun(new HttpSource(network, { ...options, isProvedByReader: true }));
  }

  async #begun<T extends RemoteSource>(source: T): Promise<T> {
    try {
      await unlessAborted(source.begin(), this.#signal);
      return source;
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  async #fileOf({ repo, path }: Place, commit: string): Promise<StoreFile | undefined> {
    const found = (await this.#cache.store.files(repo, commit)).find((file) => file.path === path);
    return found?.blob === undefined ? undefined : { ...found, blob: found.blob, repo, commit };
  }

  /** The file is there, if it could be kept: notes the version, and removes the one before. */
  async #keep(place: Place, file: StoreFile): Promise<void> {
    const { store, onSkip } = this.#cache;
    try {
      const known = await store.revision(place.repo, place.ref);
      if (known === file.commit || !(await this.#fileOf(place, file.commit))) return;
      const old = known === undefined ? undefined : await this.#fileOf(place, known);
      await store.setRevision(place.repo, place.ref, file.commit);
      if (old) await store.drop(old);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      onSkip(error);
    }
  }
}

/** A store that cannot be read has nothing. */
async function orNothing<T>(run: () => Promise<T>): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof StorageError) return undefined;
    throw error;
  }
}
