// The conformance suite over every kind of source that Node has, and over stand-ins for those of browsers and workers.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { openPath } from "../../src/adapters/node/files.ts";
import { diskStore } from "../../src/adapters/node/store.ts";
import { openDirectly, openUrl } from "../../src/weights/address.ts";
import { findHub } from "../../src/weights/hub.ts";
import { parseHubId } from "../../src/weights/hub-id.ts";
import { type DirectoryHandleLike, type FileHandleLike, type ObjectSource, openObject } from "../../src/weights/objects.ts";
import { share } from "../../src/weights/shared-source.ts";
import type { ByteSource, Folder } from "../../src/weights/source.ts";
import type { Store } from "../../src/weights/store.ts";
import { serve } from "../tools/bad-server.ts";
import { networkTo } from "../unit/network.ts";
import { bucketOf } from "./r2-bucket.ts";
import { type SourceDriver, sourceChecks } from "./source.ts";

function suite(kind: string, driver: SourceDriver): void {
  describe(`a byte source: ${kind}`, () => {
    for (const { name, run } of sourceChecks(driver)) it(name, run);
  });
}

async function file(opened: Promise<ByteSource | Folder>): Promise<ByteSource> {
  const source = await opened;
  if ("read" in source) return source;
  throw new Error("expected a file, got a folder");
}
const object = (what: ObjectSource, signal?: AbortSignal): Promise<ByteSource> => file(openObject(what, signal));

suite("Uint8Array", { open: (bytes) => object(bytes) });
suite("ArrayBuffer", { open: (bytes) => object(bytes.slice().buffer) });
suite("SharedArrayBuffer", {
  open: (bytes) => {
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    return object(shared);
  },
});
suite("a view on a part of a buffer", {
  open: (bytes) => {
    const larger = new Uint8Array(bytes.length + 20);
    larger.set(bytes, 12);
    return object(new DataView(larger.buffer, 12, bytes.length));
  },
});
suite("Blob", { open: (bytes) => object(new Blob([bytes as Uint8Array<ArrayBuffer>])) });
suite("File", { open: (bytes) => object(new File([bytes as Uint8Array<ArrayBuffer>], "x.gguf")) });

suite("an object that reads by ranges", {
  open: (bytes) => object({ size: bytes.length, read: async (at, length) => bytes.slice(at, at + length) }),
  openBeside: (bytes, beside) =>
    object({
      size: bytes.length,
      read: async (at, length) => bytes.slice(at, at + length),
      sibling: async (name) => {
        const other = Object.hasOwn(beside, name) ? beside[name] : undefined;
        return other && object(other);
      },
    }),
  openShort: (bytes, there) => object({ size: bytes.length, read: async (at, length) => bytes.slice(at, Math.min(there, at + length)) }),
});
suite("an object that brings a little at a time, and heeds no signal", {
  open: (bytes) =>
    object({
      size: bytes.length,
      read: async (at, length) => {
        await new Promise((resolve) => setImmediate(resolve));
        return bytes.slice(at, at + Math.min(length, 10_007));
      },
    }),
});
suite("an object that fills a target", {
  open: (bytes) =>
    object({
      size: bytes.length,
      read: async (at, length) => bytes.slice(at, at + length),
      readInto: async (at, target) => target.set(bytes.subarray(at, at + target.length)),
    }),
});

describe("files of a file system", () => {
  const dir = mkdtempSync(join(tmpdir(), "lfm2-source-"));
  after(() => rmSync(dir, { recursive: true }));
  let count = 0;
  const written = (bytes: Uint8Array, beside: Readonly<Record<string, Uint8Array>> = {}): string => {
    for (const [name, other] of Object.entries(beside)) writeFileSync(join(dir, name), other);
    const path = join(dir, `${count++}.gguf`);
    writeFileSync(path, bytes);
    return path;
  };
  suite("path", {
    open: (bytes) => file(openPath(written(bytes))),
    openBeside: (bytes, beside) => file(openPath(written(bytes, beside))),
    openShort: async (bytes, there) => {
      const path = written(bytes);
      const source = await file(openPath(path));
      truncateSync(path, there);
      return source;
    },
  });
  suite("file: URL", { open: (bytes) => file(openPath(pathToFileURL(written(bytes)))) });
});

/** OPFS as browsers have it, over bytes: in a worker with handles that read at once, elsewhere with Files. */
function handleOf(name: string, bytes: Uint8Array, isWorker: boolean, there = bytes.length): FileHandleLike {
  let isOpen = false;
  return {
    kind: "file",
    name,
    getFile: async () => new File([bytes as Uint8Array<ArrayBuffer>], name),
    ...(isWorker && {
      createSyncAccessHandle: async () => {
        if (isOpen) throw new DOMException("locked", "NoModificationAllowedError");
        isOpen = true;
        return {
          read: (target: Uint8Array, { at = 0 } = {}) => {
            if (!isOpen) throw new DOMException("closed", "InvalidStateError");
            const part = bytes.subarray(at, Math.min(there, at + target.length));
            target.set(part);
            return part.length;
          },
          getSize: () => bytes.length,
          close: () => {
            isOpen = false;
          },
        };
      },
    }),
  };
}

function directoryOf(files: Readonly<Record<string, Uint8Array>>): DirectoryHandleLike {
  const missing = (): never => {
    throw new DOMException("none", "NotFoundError");
  };
  return {
    kind: "directory",
    name: "models",
    getFileHandle: async (name) => handleOf(name, files[name] ?? missing(), false),
    getDirectoryHandle: async () => missing(),
  };
}

suite("a file's handle, in a page", { open: (bytes) => object(handleOf("x.gguf", bytes, false)) });
suite("a file's handle, in a worker", {
  open: (bytes) => object(handleOf("x.gguf", bytes, true)),
  openShort: (bytes, there) => object(handleOf("x.gguf", bytes, true, there)),
});
suite("a file in a folder's handle", {
  open: async (bytes) => {
    const folder = (await openObject(directoryOf({ "x.gguf": bytes }))) as Folder;
    return (await folder.open("x.gguf")) as ByteSource;
  },
});

suite("an object in a bucket", {
  open: (bytes, signal) => object({ bucket: bucketOf({ "a/x.gguf": bytes }), key: "a/x.gguf" }, signal),
  openBeside: (bytes, beside) =>
    object({
      bucket: bucketOf({ "a/x.gguf": bytes, ...Object.fromEntries(Object.entries(beside).map(([k, v]) => [`a/${k}`, v])) }),
      key: "a/x.gguf",
    }),
});

describe("over HTTP", () => {
  let plain: Server;
  let files: Readonly<Record<string, Uint8Array>> = {};
  let address = "";
  before(async () => {
    plain = createServer((req, res) => {
      const bytes = files[(req.url ?? "").slice(1)];
      if (bytes) res.writeHead(200, { "content-length": bytes.length, etag: '"1"' }).end(bytes);
      else res.writeHead(404).end();
    });
    await new Promise<void>((resolve) => void plain.listen(0, "127.0.0.1", resolve));
    address = `http://127.0.0.1:${(plain.address() as AddressInfo).port}`;
  });
  after(() => {
    plain.closeAllConnections();
    plain.close();
  });
  const onPlain = (bytes: Uint8Array, beside: Readonly<Record<string, Uint8Array>> = {}, signal?: AbortSignal): Promise<ByteSource> => {
    files = { "x.gguf": bytes, ...beside };
    return file(openUrl(openDirectly(networkTo(address)), `${address}/x.gguf`, signal));
  };
  suite("a server without ranges", {
    open: (bytes, signal) => onPlain(bytes, {}, signal),
    openBeside: onPlain,
  });

  type Opens = (hub: string, signal?: AbortSignal) => Promise<ByteSource>;
  const withRanges = (how: Opens): SourceDriver => {
    const openOn = async (files: Readonly<Record<string, Uint8Array>>, signal?: AbortSignal): Promise<ByteSource> => {
      const server = await serve({ "org/model": files });
      servers.push(server);
      return how(server.hub, signal);
    };
    return {
      open: (bytes, signal) => openOn({ "x.gguf": bytes }, signal),
      openBeside: (bytes, beside) => openOn({ "x.gguf": bytes, ...beside }),
    };
  };
  const servers: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    await Promise.all(servers.splice(0).map((server) => server.close()));
  });
  suite(
    "a server with ranges",
    withRanges((hub, signal) => file(openUrl(openDirectly(networkTo(hub)), `${hub}/org/model/resolve/main/x.gguf`, signal))),
  );
  suite(
    "a server with ranges, whose file another load reads too",
    withRanges(async (hub, signal) => {
      const open = openDirectly({ ...networkTo(hub), share });
      const at = `${hub}/org/model/resolve/main/x.gguf`;
      await openUrl(open, at); // until the server is closed
      return file(openUrl(open, at, signal));
    }),
  );
  const hubFile = (hub: string, store: Store | undefined, signal?: AbortSignal): Promise<ByteSource> => {
    const cache = store && { store, onWait: assert.fail, onSkip: assert.fail };
    return file(findHub(networkTo(hub), parseHubId("org/model:x.gguf")!, { cache }, signal).then((model) => model.source()));
  };
  suite(
    "a hub's file",
    withRanges((hub, signal) => hubFile(hub, undefined, signal)),
  );
  const dirs: string[] = [];
  const emptyStore = (): Store => {
    const dir = mkdtempSync(join(tmpdir(), "lfm2-source-"));
    dirs.push(dir);
    return diskStore(dir);
  };
  after(() => {
    for (const dir of dirs) rmSync(dir, { recursive: true });
  });
  suite(
    "a hub's file by way of a cache",
    withRanges((hub, signal) => hubFile(hub, emptyStore(), signal)),
  );
  suite(
    "a hub's file from a cache",
    withRanges(async (hub, signal) => {
      const store = emptyStore();
      const source = await hubFile(hub, store);
      await source.verify?.();
      await source.close?.();
      return hubFile(hub, store, signal);
    }),
  );
});
