// A bucket with R2's form over bytes in memory. Knows no runtime.
import type { R2BucketLike } from "../../src/weights/r2.ts";

/** @returns a bucket that holds these objects; `requests` counts its calls */
export function bucketOf(
  objects: Readonly<Record<string, Uint8Array>>,
): R2BucketLike & { requests: number; replace(key: string, bytes: Uint8Array): void } {
  const all = new Map(Object.entries(objects).map(([key, bytes]) => [key, { bytes, httpEtag: '"1"' }]));
  let version = 1;
  const bucket = {
    requests: 0,
    replace: (key: string, bytes: Uint8Array): void => void all.set(key, { bytes, httpEtag: `"${++version}"` }),
    head: async (key: string) => {
      bucket.requests++;
      const object = all.get(key);
      return object ? { size: object.bytes.length, httpEtag: object.httpEtag } : null;
    },
    get: async (key: string, { range: { offset, length } }: { range: { offset: number; length: number } }) => {
      bucket.requests++;
      const object = all.get(key);
      if (!object) return null;
      if (offset >= object.bytes.length) throw new Error("get: The requested range is not satisfiable (10039)");
      const part = object.bytes.slice(offset, offset + length);
      return { size: object.bytes.length, httpEtag: object.httpEtag, body: new Blob([part]).stream() };
    },
    list: async ({ prefix }: { prefix: string }) => ({
      objects: [...all.keys()].filter((key) => key.startsWith(prefix)).map((key) => ({ key })),
    }),
  };
  return bucket;
}
