// The conformance suite of byte sources over the real things of a runtime: its Blobs and buffers, its fetch, OPFS, a worker's channel, a bucket of R2. Asks for describe and it as globals.
import { Channel, type Handler } from "../../src/remote/channel.ts";
import { ServedSources, unpackSource } from "../../src/remote/sources.ts";
import { openDirectly, openUrl } from "../../src/weights/address.ts";
import { type FileHandleLike, type ObjectSource, openObject } from "../../src/weights/objects.ts";
import type { R2BucketLike } from "../../src/weights/r2.ts";
import type { Fetch, Network } from "../../src/weights/request.ts";
import type { ByteSource, Folder } from "../../src/weights/source.ts";
import { type SourceDriver, sourceChecks } from "./source.ts";

/** What there is beside what every runtime has. */
export interface RealSources {
  readonly isBrowser: boolean;
  /** Address of a folder with `N.bin` for each length N of the suite, and `other.gguf`; see `sourceFiles`. */
  readonly base: string;
  readonly bucket?: (R2BucketLike & { put(key: string, bytes: Uint8Array): Promise<unknown> }) | undefined;
}

async function file(opened: Promise<ByteSource | Folder> | ByteSource | Folder): Promise<ByteSource> {
  const source = await opened;
  if ("read" in source) return source;
  throw new Error("expected a file, got a folder");
}
const object = (what: ObjectSource, signal?: AbortSignal): Promise<ByteSource> => file(openObject(what, signal));
const plain = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => bytes as Uint8Array<ArrayBuffer>;

interface WritableHandle extends FileHandleLike {
  createWritable(): Promise<{ write(bytes: Uint8Array): Promise<void>; close(): Promise<void> }>;
}
interface Directory {
  getFileHandle(name: string, options: { create: true }): Promise<WritableHandle>;
  removeEntry(name: string): Promise<void>;
}
/** Of a browser what is used. */
const browser = globalThis as unknown as {
  readonly navigator: { readonly storage: { getDirectory(): Promise<Directory> } };
  readonly Worker?: new (url: string) => { postMessage(message: unknown, transfer: readonly object[]): void; terminate(): void };
};

/** Files of OPFS, each written anew: by a handle that reads at once in a dedicated worker, as a File elsewhere. */
function inOpfs(names: string[]): SourceDriver {
  return {
    open: async (bytes) => {
      const root = await browser.navigator.storage.getDirectory();
      const name = `source-${names.length}.bin`;
      names.push(name);
      const handle = await root.getFileHandle(name, { create: true });
      const writable = await handle.createWritable();
      await writable.write(plain(bytes));
      await writable.close();
      return object(handle);
    },
  };
}

/** Of a MessageChannel what is used. */
interface Ports {
  readonly port1: {
    onmessage: ((event: { readonly data: { readonly message: unknown } }) => void) | null;
    postMessage(message: unknown, transfer: readonly object[]): void;
    close(): void;
  };
  readonly port2: object;
}

/** In a worker: passes on what comes, both ways. */
const RELAY = `onmessage = ({ ports: [a, b] }) => {
  a.onmessage = ({ data }) => b.postMessage(data, data.transfer);
  b.onmessage = ({ data }) => a.postMessage(data, data.transfer);
};`;

/** A source on the far side of a channel whose messages all go through a worker. @param ends - what ends it */
function overChannel(ends: (() => void)[]): SourceDriver {
  const open = async (source: ObjectSource): Promise<ByteSource> => {
    const { Worker: Relay } = browser;
    if (!Relay) throw new Error("expected workers");
    const url = URL.createObjectURL(new Blob([RELAY], { type: "text/javascript" }));
    const worker = new Relay(url);
    const [near, far] = [new MessageChannel(), new MessageChannel()] as unknown as readonly [Ports, Ports];
    worker.postMessage(undefined, [near.port2, far.port2]);
    ends.push(() => {
      worker.terminate();
      URL.revokeObjectURL(url);
      for (const { port1 } of [near, far]) port1.close();
    });
    const side = ({ port1 }: Ports, handlers: Readonly<Record<string, Handler>>): Channel => {
      const channel = new Channel((message, transfer) => port1.postMessage({ message, transfer }, transfer), handlers);
      port1.onmessage = ({ data }) => channel.receive(data.message);
      return channel;
    };
    const served = new ServedSources();
    side(far, served.handlers);
    return file(unpackSource(side(near, {}), await served.pack(source, () => false)) as ByteSource);
  };
  const reads = (bytes: Uint8Array): ByteSource => ({
    name: "x.gguf",
    size: bytes.length,
    read: async (offset, length) => bytes.slice(offset, offset + length),
  });
  return {
    open: (bytes) => open(reads(bytes)),
    openBeside: (bytes, beside) => {
      const sibling = async (name: string): Promise<ByteSource | undefined> => {
        const other = Object.hasOwn(beside, name) ? beside[name] : undefined;
        return other && reads(other);
      };
      return open({ ...reads(bytes), sibling });
    },
    openShort: (bytes, there) =>
      open({ ...reads(bytes), read: async (offset, length) => bytes.slice(offset, Math.min(there, offset + length)) }),
  };
}

function overHttp(base: string, isBrowser: boolean): SourceDriver {
  const network: Network = {
    fetch: ((url, init) => fetch(url, { ...init, ...(isBrowser ? { cache: "no-store" } : {}) } as RequestInit)) as Fetch,
    createHash: () => {
      throw new Error("no checksum is known here");
    },
    ...{ endpoint: "", hasBackpressure: !isBrowser, isCrossOrigin: isBrowser, options: { windowBytes: 1 << 18 } },
  };
  const open = (bytes: Uint8Array, signal?: AbortSignal): Promise<ByteSource> =>
    file(openUrl(openDirectly(network), `${base}${bytes.length}.bin`, signal));
  return { open, openBeside: (bytes) => open(bytes) };
}

function inBucket(bucket: RealSources["bucket"] & object): SourceDriver {
  return {
    open: async (bytes, signal) => {
      const key = `a/${bytes.length}.gguf`;
      await bucket.put(key, bytes);
      return object({ bucket, key }, signal);
    },
    openBeside: async (bytes, beside) => {
      for (const [name, other] of Object.entries(beside)) await bucket.put(`a/${name}`, other);
      await bucket.put("a/x.gguf", bytes);
      return object({ bucket, key: "a/x.gguf" });
    },
  };
}

/** Registers the checks. */
export function realSources({ isBrowser, base, bucket }: RealSources): void {
  const suite = (kind: string, driver: SourceDriver): void => {
    describe(`a byte source: ${kind}`, () => {
      for (const { name, run } of sourceChecks(driver)) it(name, run);
    });
  };
  suite("ArrayBuffer", { open: (bytes) => object(plain(bytes).slice().buffer) });
  suite("Blob", { open: (bytes) => object(new Blob([plain(bytes)])) });
  suite("File", { open: (bytes) => object(new File([plain(bytes)], "x.gguf")) });
  suite("an HTTP address", overHttp(base, isBrowser));
  if (bucket) suite("an object in R2", inBucket(bucket));
  if (!isBrowser) return;

  const names: string[] = [];
  const ends: (() => void)[] = [];
  suite("a file of OPFS", inOpfs(names));
  if (browser.Worker) suite("over a worker's channel", overChannel(ends)); // a service worker starts none
  describe("byte sources", () => {
    it("leave nothing behind", async () => {
      for (const end of ends) end();
      const root = await browser.navigator.storage.getDirectory();
      for (const name of names) await root.removeEntry(name);
    });
  });
}
