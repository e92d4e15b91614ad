// Objects in a bucket of R2, Cloudflare's store, as sources. A bucket answers like a server that knows ranges and versions, so windows, retries and pinning are those of HTTP.
import { FormatError, StorageError } from "../errors.ts";
import { quoted } from "../values.ts";
import { HttpSource } from "./http.ts";
import { Pool } from "./piece.ts";
import type { FetchResponse, Network } from "./request.ts";
import { type ByteSource, type Folder, isFolderFile, isPlainPath } from "./source.ts";

/** Of an object's description what is used. */
interface R2Head {
  readonly size: number;
  /** In quotes, as HTTP writes it. */
  readonly httpEtag: string;
}

/** Of an `R2Bucket` what is used. */
export interface R2BucketLike {
  head(key: string): Promise<R2Head | null>;
  get(key: string, options: { range: { offset: number; length: number } }): Promise<(R2Head & { readonly body?: object | null }) | null>;
  list?(options: { prefix: string; delimiter: string }): Promise<{ readonly objects: readonly { readonly key: string }[] }>;
}

/** A GGUF in a bucket, or a folder: a prefix that ends in a slash, or the key of model.safetensors or the shards' index. */
export interface R2Address {
  readonly bucket: R2BucketLike;
  readonly key: string;
}

export const isR2Address = (value: object): value is R2Address => "bucket" in value && "key" in value && typeof value.key === "string";

/** Buckets are read in Workers, where memory is short. */
const R2_WINDOW_BYTES = 4 << 20;

const headersOf = (values: Record<string, string>): FetchResponse["headers"] => ({ get: (name) => values[name] ?? null });

/** Sends ranges to the bucket. Whatever it answers is told as a range of the size that was asked about; whether it is of the same version shows by its tag. */
function networkOf(bucket: R2BucketLike, key: string, { size }: R2Head, pool: Pool): Network {
  return {
    endpoint: "",
    hasBackpressure: true,
    options: { windowBytes: R2_WINDOW_BYTES },
    pool,
    createHash: () => {
      throw new Error("no checksum is known here");
    },
    fetch: async (url, { headers }) => {
      const [from = 0, last = size - 1] = headers.range?.match(/\d+/g)?.map(Number) ?? [];
      const object = await bucket.get(key, { range: { offset: from, length: last + 1 - from } });
      if (!object) return { status: 404, url, headers: headersOf({}), body: null };
      const range = headersOf({ etag: object.httpEtag, "content-range": `bytes ${from}-${last}/${size}` });
      return { status: 206, url, headers: range, body: object.body ?? null };
    },
  };
}

async function openFile(
  { bucket, key }: R2Address,
  name: string,
  pool: Pool,
  signal: AbortSignal | undefined,
): Promise<ByteSource | undefined> {
  let head: R2Head | null;
  try {
    head = await bucket.head(key);
  } catch (cause) {
    throw new StorageError(`${name}: expected the bucket to answer, got an error: ${(cause as Error).message}. Try again.`, { cause });
  }
  if (!head) return undefined;
  const sibling = async (path: string): Promise<ByteSource | undefined> =>
    openFile({ bucket, key: besides(key, path) }, path, pool, signal);
  const url = `https://r2/${encodeURIComponent(name)}`; // goes nowhere
  return new HttpSource(networkOf(bucket, key, head, pool), { name, url, sizeBytes: head.size, version: head.httpEtag, sibling }, signal);
}

const folderOf = (key: string): string => key.slice(0, key.lastIndexOf("/") + 1);
const nameOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1);

function besides(key: string, path: string): string {
  if (isPlainPath(path)) return folderOf(key) + path;
  throw new FormatError(`load: expected the name of a file in the folder, got ${quoted(path)}.`);
}

function openFolder(bucket: R2BucketLike, prefix: string, signal: AbortSignal | undefined): Folder {
  const pool = new Pool();
  return {
    name: nameOf(prefix.slice(0, -1)) || "bucket",
    open: async (path) => openFile({ bucket, key: besides(prefix, path) }, path, pool, signal),
    ...(bucket.list && {
      list: async () => (await bucket.list?.({ prefix, delimiter: "/" }))?.objects.map(({ key }) => nameOf(key)) ?? [],
    }),
  };
}

/**
 * @param signal ends whatever the source or the folder's files do
 * @throws StorageError when nothing is there
 */
export async function openR2({ bucket, key }: R2Address, signal?: AbortSignal): Promise<ByteSource | Folder> {
  if (key === "" || key.endsWith("/") || isFolderFile(nameOf(key))) return openFolder(bucket, folderOf(key), signal);
  const source = await openFile({ bucket, key }, nameOf(key), new Pool(), signal);
  if (source) return source;
  throw new StorageError(`load: expected an object ${quoted(key)} in the bucket, got none. Check the key; a folder's ends in a slash.`, {
    code: "not-found",
  });
}
