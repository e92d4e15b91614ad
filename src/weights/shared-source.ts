// A download that nothing keeps, shared by the loads that want it at once: one window over the file, and everybody in it. Knows no store, no runtime and not what the bytes mean.
import { AbortError, NetworkError } from "../errors.ts";
import { Behind, closed, HttpSource, type Place } from "./http.ts";
import type { Network, RemoteFileOptions, RemoteSource } from "./request.ts";
import { readClipped } from "./source.ts";

/** A download and those who read it. */
interface Download {
  readonly network: Network;
  readonly file: RemoteFileOptions;
  readonly source: HttpSource;
  readonly readers: Set<Reader>;
}

/** Of this thread. */
const downloads = new Set<Download>();

/** Whether both would send the same requests, as patiently, and take the same bytes for right. */
function isSame(download: Download, network: Network, file: RemoteFileOptions): boolean {
  const asked = (n: Network): unknown[] => [n.fetch, n.token, n.tokenOrigin, n.isCrossOrigin, JSON.stringify(n.options)];
  const wanted = (f: RemoteFileOptions): unknown[] => [
    f.url,
    f.fromBytes,
    f.sizeBytes,
    f.checksum?.hex,
    f.commit,
    f.version,
    f.isProvedByReader,
  ];
  const mine = [...asked(network), ...wanted(file)];
  return [...asked(download.network), ...wanted(download.file)].every((value, i) => value === mine[i]);
}

/** One reader's view of a download. It never waits for another: whoever falls half a window behind goes on by a download of its own. */
class Reader implements RemoteSource {
  readonly name: string;
  readonly sibling?: RemoteSource["sibling"] & object;
  readonly #download: Download;
  readonly #network: Network;
  readonly #caller: AbortSignal | undefined;
  #place: Place;
  #own: HttpSource | undefined;
  #error: AbortError | undefined;
  #closing: Promise<void> | undefined;

  constructor(download: Download, network: Network, { name, sibling }: RemoteFileOptions, signal: AbortSignal | undefined) {
    this.name = name;
    if (sibling) this.sibling = sibling;
    this.#download = download;
    this.#network = network;
    this.#caller = signal;
    this.#place = download.source.enter();
    download.readers.add(this);
    if (signal?.aborted) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get size(): number {
    return this.#download.source.size;
  }

  get isUnproved(): boolean {
    return this.#download.source.isUnproved;
  }

  begin(): Promise<void> {
    return this.#use((source) => source.begin(this.#place));
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readClipped(this, offset, length, signal);
  }

  async readInto(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const other = signal === this.#caller ? undefined : signal;
    if (!this.#own) {
      try {
        return await this.#use((source) => source.readInto(offset, target, other, this.#place));
      } catch (error) {
        const hasLeft = this.#own && !this.#error && !other?.aborted; // by another read of this reader
        if (!(error instanceof Behind) && !hasLeft) throw error;
      }
      const { source, readers } = this.#download;
      if (!this.#own && readers.size === 1) {
        source.leave(this.#place, new Behind());
        this.#place = source.enter(); // the others have left: it is this one's now
        return this.readInto(offset, target, signal);
      }
    }
    await this.#use(() => this.#goAlone().readInto(offset, target, signal));
  }

  /** What came from each of the two downloads is proved by its own. */
  async verify(signal?: AbortSignal): Promise<void> {
    const other = signal === this.#caller ? undefined : signal;
    await this.#use(async (source) => {
      try {
        await source.verify(other, this.#place);
      } catch (error) {
        // those who were to bring the rest have left
        throw this.#own && error instanceof AbortError && !this.#error && !other?.aborted
          ? this.#notResumable("part of its bytes unproved")
          : error;
      }
      await this.#own?.verify(signal);
    });
  }

  close(): Promise<void> {
    this.#caller?.removeEventListener("abort", this.#onAbort);
    this.#end(closed(this.name));
    this.#closing ??= Promise.all([this.#own?.close(), this.#leave()]).then(() => {});
    return this.#closing;
  }

  readonly #onAbort = (): void => {
    this.#end(new AbortError(undefined, { cause: this.#caller?.reason }));
    void this.#leave();
  };

  #end(error: AbortError): void {
    this.#error ??= error;
    this.#download.source.leave(this.#place, this.#error);
  }

  /** The last one who leaves closes the connections. */
  async #leave(): Promise<void> {
    const { source, readers } = this.#download;
    readers.delete(this);
    source.leave(this.#place, new Behind());
    if (readers.size > 0) return;
    downloads.delete(this.#download);
    await source.close();
  }

  async #use<T>(run: (source: HttpSource) => Promise<T>): Promise<T> {
    if (this.#error) throw this.#error;
    try {
      return await run(this.#download.source);
    } catch (error) {
      throw this.#error ?? error;
    }
  }

  /** @returns a download of this reader alone, of the same version */
  #goAlone(): HttpSource {
    if (this.#own) return this.#own;
    const { file, source } = this.#download;
    const { version, checksum, size } = source;
    if (!version && !checksum) throw this.#notResumable("neither ETag nor date to go on by");
    this.#own = new HttpSource(this.#network, { ...file, name: this.name, version, checksum, sizeBytes: size }, this.#caller);
    void this.#leave();
    return this.#own;
  }

  #notResumable(got: string): NetworkError {
    return new NetworkError(`${this.name}: expected to keep up with a load that shares its download, got ${got}. Load it again.`, {
      code: "not-resumable",
      retryable: true,
    });
  }
}

/**
 * Opens a file, by way of a download that is under way where there is one that still has its beginning.
 * @param signal ends what this reader waits for, and the download where nobody else reads it
 */
export function share(network: Network, file: RemoteFileOptions, signal?: AbortSignal): RemoteSource {
  for (const download of downloads)
    if (download.source.mayEnter && isSame(download, network, file)) return new Reader(download, network, file, signal);
  const download: Download = { network, file, source: new HttpSource(network, { ...file, isShared: true }), readers: new Set() };
  downloads.add(download);
  return new Reader(download, network, file, signal);
}
