// The Cache API as a shelf, where a browser has no file system for an origin: a file is an answer under an address that nobody serves.
import { type BlobLike, blobSource } from "../../weights/blob.ts";
import { collected } from "../../weights/collected.ts";
import type { Appender, Shelf, ShelfHost } from "../../weights/shelf.ts";
import type { ByteSource } from "../../weights/source.ts";
import { hostOf } from "./host.ts";
import { doing } from "./storage.ts";

interface StoredAnswer {
  readonly url: string;
  readonly headers: { get(name: string): string | null };
  blob(): Promise<BlobLike>;
}
interface Cache {
  keys(): Promise<readonly { readonly url: string }[]>;
  match(address: string): Promise<StoredAnswer | undefined>;
  put(address: string, answer: unknown): Promise<void>;
  delete(address: string): Promise<boolean>;
}
interface Globals {
  readonly caches?: { open(name: string): Promise<Cache> };
  readonly Response: new (body: Uint8Array, init: { headers: Readonly<Record<string, string>> }) => unknown;
}

const BASE = "https://lfm2-wasm.invalid/";
const SIZE = "x-size-bytes";

class CacheShelf implements Shelf {
  readonly place: string;
  readonly host: ShelfHost;
  readonly #cache: Cache;

  constructor(cache: Cache, name: string) {
    this.#cache = cache;
    this.place = `the Cache API (${name})`;
    this.host = hostOf(this.place);
  }

  list(folder: string): Promise<ReadonlyMap<string, number>> {
    return doing(this.place, "list files", async () => {
      const prefix = `${BASE}${folder}/`;
      const out = new Map<string, number>();
      for (const { url } of await this.#cache.keys()) {
        if (!url.startsWith(prefix)) continue;
        const answer = await this.#cache.match(url);
        if (answer) out.set(url.slice(prefix.length), Number(answer.headers.get(SIZE)));
      }
      return out;
    });
  }

  open(path: string): Promise<ByteSource | undefined> {
    return doing(this.place, "open a file", async () => {
      const answer = await this.#cache.match(BASE + path);
      return answer && blobSource(await answer.blob(), path);
    });
  }

  write(path: string, bytes: Uint8Array): Promise<void> {
    const { Response } = globalThis as unknown as Globals;
    const about = { [SIZE]: String(bytes.length), "content-type": "application/octet-stream" };
    return doing(this.place, "keep a file", () => this.#cache.put(BASE + path, new Response(bytes, { headers: about })));
  }

  async create(path: string): Promise<Appender> {
    return collected(this, path);
  }

  remove(path: string): Promise<void> {
    return doing(this.place, "remove a file", async () => {
      if (await this.#cache.delete(BASE + path)) return;
      for (const below of (await this.list(path)).keys()) await this.#cache.delete(`${BASE}${path}/${below}`);
    });
  }
}

/** @returns undefined where the browser has no such thing, or not for this origin */
export async function cacheStorage(name: string): Promise<Shelf | undefined> {
  try {
    const cache = await (globalThis as unknown as Globals).caches?.open(name);
    return cache && new CacheShelf(cache, name);
  } catch {
    return undefined;
  }
}
