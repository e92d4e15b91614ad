// Ranges by node:http, as the Node adapter asks for them: the bytes, what becomes of their memory, and when `fetch` is asked instead.
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { isOrdinary } from "../../src/adapters/node/ordinary-fetch.ts";
import { fetchRanges } from "../../src/adapters/node/ranges.ts";
import type { FetchResponse } from "../../src/weights/request.ts";
import { noise } from "./network.ts";

/** Of the file: more than fits into what lies between a server and its reader. */
const FILE_BYTES = 48 << 20;
/** What a process may keep of what has been read. */
const SPARE_BYTES = 6 << 20;

interface Reader {
  read(): Promise<{ done: boolean; value?: Uint8Array }>;
  cancel(): Promise<void>;
}
const readerOf = (response: FetchResponse): Reader => (response.body as { getReader(): Reader }).getReader();

describe("ranges by node:http", () => {
  const content = noise(FILE_BYTES);
  let server: Server;
  let url: string;
  let answer: (request: IncomingMessage, response: ServerResponse) => void;
  /** Whether each request came from `fetch`, which says so. */
  let byFetch: boolean[];
  const ask = (signal = new AbortController().signal): Promise<FetchResponse> =>
    fetchRanges(url, { headers: { range: `bytes=0-${FILE_BYTES - 1}`, "accept-encoding": "identity" }, redirect: "manual", signal });
  const plainly = (_: IncomingMessage, response: ServerResponse): void => {
    response.writeHead(206, { "content-length": FILE_BYTES, etag: '"one"' }).end(content);
  };

  before(async () => {
    server = createServer((request, response) => {
      byFetch.push(request.headers["sec-fetch-mode"] !== undefined);
      answer(request, response);
    });
    await new Promise<void>((go) => server.listen(0, "127.0.0.1", go));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/file`;
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  beforeEach(() => {
    byFetch = [];
    answer = plainly;
  });

  it("bring all bytes, and keep no memory for those that were read", async () => {
    assert.ok(isOrdinary());
    let response = await ask();
    if (byFetch[0]) {
      await readerOf(response).cancel(); // a busy machine had not let it connect, once
      byFetch = [];
      response = await ask();
    }
    assert.deepEqual([response.status, response.headers.get("etag"), response.headers.get("x-other")], [206, '"one"', null]);
    const reader = readerOf(response);
    const before = process.memoryUsage().arrayBuffers;
    let [at, most] = [0, 0];
    for (let part = await reader.read(); part.value; part = await reader.read()) {
      assert.ok(Buffer.from(content.buffer, at, part.value.length).equals(part.value), `from byte ${at}`);
      at += part.value.length;
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    assert.equal(at, FILE_BYTES);
    assert.deepEqual(byFetch, [false]);
    if ("transfer" in ArrayBuffer.prototype) assert.ok(most < SPARE_BYTES, `${most} bytes`); // Node 20 leaves them to the collector
  });

  it("make the server wait for a reader that waits", async () => {
    let sentBytes = 0;
    answer = (_, response) => {
      response.writeHead(206, { "content-length": FILE_BYTES });
      response.on("error", () => {}); // at the end it is cut off
      const write = (): void => {
        while (sentBytes < FILE_BYTES) {
          const piece = content.subarray(sentBytes, sentBytes + (1 << 16));
          sentBytes += piece.length;
          if (!response.write(piece)) break;
        }
      };
      response.on("drain", write);
      write();
    };
    const reader = readerOf(await ask());
    await reader.read();
    for (let before = -1; before < sentBytes; await sleep(50)) before = sentBytes;
    assert.ok(sentBytes < FILE_BYTES / 2, `${sentBytes} bytes were sent`);
    await reader.cancel();
  });

  it("end with an error where the connection breaks, and at an abort", async () => {
    answer = (_, response) => {
      response
        .writeHead(206, { "content-length": FILE_BYTES })
        .write(content.subarray(0, 1000), () => setTimeout(() => response.destroy(), 10));
    };
    const broken = readerOf(await ask());
    assert.equal((await broken.read()).value?.length, 1000);
    await assert.rejects(broken.read());
    let closed = false;
    answer = (_, response) => {
      response.on("close", () => (closed = true));
      response.writeHead(206, { "content-length": FILE_BYTES }).write(content.subarray(0, 1000));
    };
    const control = new AbortController();
    const reader = readerOf(await ask(control.signal));
    await reader.read();
    const next = reader.read();
    control.abort();
    await assert.rejects(next);
    for (let i = 0; i < 100 && !closed; i++) await sleep(10);
    assert.ok(closed);
  });

  it("are asked for again where the server had closed the connection while it was idle", async () => {
    const used = new WeakSet<object>();
    let resets = 0;
    answer = (request, response) => {
      if (used.has(request.socket)) {
        resets++;
        return void request.socket.destroy();
      }
      used.add(request.socket);
      response.writeHead(206, { "content-length": 4 }).end("four");
    };
    for (let i = 0; i < 2; i++) {
      const reader = readerOf(await ask());
      assert.equal((await reader.read()).value?.length, 4);
      assert.ok((await reader.read()).done);
      await sleep(10);
    }
    assert.equal(resets, 1);
  });

  it("are left to fetch where somebody stands in for it", async () => {
    answer = (_, response) => void response.writeHead(206, { "content-length": 4 }).end("four");
    const { fetch } = globalThis;
    let calls = 0;
    globalThis.fetch = (...all) => {
      calls++;
      return fetch(...all);
    };
    try {
      await ask();
      assert.deepEqual([calls, byFetch], [1, [true]]);
    } finally {
      globalThis.fetch = fetch;
    }
    const key = Symbol.for("undici.globalDispatcher.1");
    const kept = globalThis as { [key]?: object };
    const before = kept[key] as object; // there since the fetch above
    /** As the package undici has one. */
    class ProxyAgent {
      dispatch(...all: unknown[]): unknown {
        return (before as { dispatch(...all: unknown[]): unknown }).dispatch(...all);
      }
    }
    kept[key] = new ProxyAgent();
    try {
      await ask();
      assert.deepEqual(byFetch, [true, true]);
    } finally {
      kept[key] = before;
    }
    /** As a program's own has the same name. */
    class Agent extends ProxyAgent {}
    kept[key] = new Agent();
    try {
      await ask();
      assert.deepEqual(byFetch.splice(0, 1), [true]);
    } finally {
      kept[key] = before;
    }
    process.env.NODE_USE_ENV_PROXY = "1";
    try {
      await ask();
      assert.deepEqual(byFetch, [true, true, true]);
    } finally {
      delete process.env.NODE_USE_ENV_PROXY;
    }
    await ask();
    assert.deepEqual(byFetch, [true, true, true, false]);
  });

  it("are left to fetch where they come compressed, and where the server is not reached", async () => {
    answer = (_, response) => void response.writeHead(206, { "content-encoding": "gzip" }).end(gzipSync("four"));
    assert.equal(Buffer.from((await readerOf(await ask()).read()).value as Uint8Array).toString(), "four");
    assert.deepEqual(byFetch, [false, true]);
    const other = createServer();
    await new Promise<void>((go) => other.listen(0, "127.0.0.1", go));
    const { port } = other.address() as AddressInfo;
    await new Promise((go) => other.close(go));
    const asked = fetchRanges(`http://127.0.0.1:${port}/`, {
      headers: { range: "bytes=0-1" },
      redirect: "manual",
      signal: new AbortController().signal,
    });
    await assert.rejects(asked, { name: "TypeError", message: "fetch failed" });
  });
});
