// Loads at once of what nothing keeps: one download for all, whoever leaves, in the memory of one window; who falls behind goes on alone; never bytes that are not proved.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type LoadOptions, load, type Model } from "lfm2-wasm";
import { NetworkError } from "../../src/errors.ts";
import { Pool } from "../../src/weights/piece.ts";
import type { Network, RemoteFileOptions, RemoteSource } from "../../src/weights/request.ts";
import { share } from "../../src/weights/shared-source.ts";
import { checkpointFolder } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { IMPATIENT, networkTo, noise, readToEnd, untilQuiet, WatchedFetch } from "./network.ts";
import { Plain } from "./plain-server.ts";

const folder = checkpointFolder("tiny-gqa3");
const weights = readFileSync(join(folder, "model.safetensors"));
const config = readFileSync(join(folder, "config.json"));
const tokensOf = async (loading: Promise<Model>): Promise<readonly number[]> => {
  const model = await loading;
  const { tokens } = await model.generate(Uint32Array.of(3, 14, 15), { maxTokens: 4, temperature: 0 });
  model.dispose();
  return [...tokens];
};

describe("loads at once of what nothing keeps", () => {
  const plain = new Plain();
  let hub: BadServer;
  let base: string;
  let right: readonly number[];
  const options = (more: LoadOptions = {}): LoadOptions => ({
    ...{ network: { ...IMPATIENT, windowBytes: 1 << 20 }, cache: false, endpoint: hub.hub },
    ...more,
  });
  const both = (...loads: (() => Promise<Model>)[]): Promise<readonly (readonly number[])[]> =>
    Promise.all(loads.map((start) => tokensOf(start())));
  const byAddress = (more?: LoadOptions) => (): Promise<Model> => load(`${base}/`, options(more));
  const byId = (more?: LoadOptions) => (): Promise<Model> => load("org/tiny", options(more));
  /** Requests for the weights that the hub answered, and what it sent. */
  const hubAsked = (): typeof hub.log => hub.log.filter(({ host }) => host === "cdn");
  const hubSent = (): number => hubAsked().reduce((sum, r) => sum + r.sentBytes, 0);

  before(async () => {
    base = await plain.start();
    hub = await serve({ "org/tiny": { "config.json": config, "model.safetensors": weights } });
    right = await tokensOf(load(folder, { cache: false }));
  });
  after(() => Promise.all([plain.close(), hub.close()]));
  beforeEach(() => {
    for (const [name, bytes] of Object.entries({ config, weights }))
      plain.files.set(`/${name === "config" ? "config.json" : "model.safetensors"}`, { bytes, etag: '"one"' });
    Object.assign(plain, { sentBytes: 0, requests: 0, drip: 0 });
    hub.set({});
    hub.log.length = 0;
  });

  it("take each byte once, of an address as of a hub's id, whatever they make of them", async () => {
    const [one] = await both(byAddress(), byAddress({ dtype: "f32" }));
    assert.deepEqual(one, right);
    assert.equal(plain.sentBytes, weights.length + config.length);
    const cache = { dir: join(folder, "config.json") }; // a file: it cannot be written there
    assert.deepEqual(await both(byId({ cache }), byId({ cache })), [right, right]);
    assert.equal(hubSent(), weights.length);
  });

  it("do not end with one of them, and end with the last", async () => {
    hub.set({ drip: [32_768, 1] });
    const begun = async (): Promise<void> => {
      while (hubSent() < 200_000) await new Promise((go) => setTimeout(go, 1));
    };
    const one = new AbortController();
    const stays = tokensOf(byId()());
    const leaves = byId({ signal: one.signal })();
    await begun();
    one.abort(new Error("enough"));
    await assert.rejects(leaves, (e: Error) => e.name === "AbortError" && (e.cause as Error).message === "enough");
    assert.deepEqual(await stays, right);
    assert.equal(hubSent(), weights.length);

    hub.log.length = 0;
    const [first, last] = [new AbortController(), new AbortController()];
    const ended = [first, last].map(({ signal }) => byId({ signal })());
    await begun();
    first.abort();
    await assert.rejects(ended[0] ?? stays, { name: "AbortError" });
    assert.ok(hub.busy > 0, "the other goes on");
    last.abort();
    await assert.rejects(ended[1] ?? stays, { name: "AbortError" });
    await untilQuiet(hub);
    assert.ok(hubSent() < weights.length);
    for (const { signal } of [one, first, last]) assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  describe("one after the other in the file", () => {
    const size = pick({ gate: 1_500_001, full: 20_000_003 });
    const bytes = noise(size);
    /** Counts what pieces take. */
    class Counted extends Pool {
      held = 0;
      most = 0;
      override take(length: number): Uint8Array {
        this.held += length;
        this.most = Math.max(this.most, this.held);
        return super.take(length);
      }
      override give(memory: Uint8Array): void {
        this.held -= memory.length;
        super.give(memory);
      }
    }
    const WINDOW = 1 << 19;
    const open = async (network: Network, file: Partial<RemoteFileOptions> = {}, signal?: AbortSignal): Promise<RemoteSource> => {
      const source = share(network, { name: "x", url: `${base}/x`, ...file }, signal);
      await source.begin();
      return source;
    };
    beforeEach(() => void plain.files.set("/x", { bytes, etag: '"x"' }));

    const readBoth = async (...networks: Network[]): Promise<void> => {
      const sources = await Promise.all(networks.map((network) => open(network)));
      for (const got of await Promise.all(sources.map((source) => readToEnd(source)))) assert.ok(Buffer.from(got).equals(bytes));
    };

    it("they ask no more than one does, where the server tells no version, too, and nothing is kept", async () => {
      const network = networkTo(base, { windowBytes: WINDOW });
      plain.files.set("/x", { bytes, etag: undefined });
      await readBoth(network, network, network);
      assert.equal(plain.requests, 2, "a range, and then the whole");
      await readBoth(network);
      assert.equal(plain.requests, 4);
    });

    it("they stay apart where they ask with another token, another fetch, or another patience", async () => {
      const watch = new WatchedFetch();
      const network = networkTo(base, { windowBytes: WINDOW });
      for (const other of [{ token: "hf_OTHER" }, { fetch: watch.fetch }, { options: { ...network.options, maxRetries: 9 } }]) {
        plain.sentBytes = 0;
        await readBoth(network, { ...network, ...other });
        assert.equal(plain.sentBytes, 2 * size);
      }
      assert.ok(watch.operations > 0);
    });

    it("all are told of damage, and nobody joins them any more", async () => {
      const checksum = { algorithm: "sha256", hex: "0".repeat(64) } as const;
      const network = networkTo(base, { windowBytes: 4 << 20 });
      const small = bytes.subarray(0, 300_000);
      plain.files.set("/x", { bytes: small, etag: '"x"' });
      const [one, two] = [await open(network, { checksum }), await open(network, { checksum })];
      for (const source of [one, two]) await assert.rejects(async () => source.verify?.(), { name: "FormatError", code: "checksum" });
      assert.equal(plain.sentBytes, small.length);
      const three = await open(network, { checksum });
      await assert.rejects(readToEnd(three), { code: "checksum" });
      assert.equal(plain.sentBytes, 2 * small.length, "of bytes of its own");
      await Promise.all([one.close(), two.close()]);
    });

    it("who stands still holds nobody up and takes no memory; who is near still gains", async () => {
      const pool = new Counted();
      const network = networkTo(base, { windowBytes: WINDOW }, { pool });
      const [fast, near, still] = [await open(network), await open(network), await open(network)];
      await still.read(0, 1000);
      for (let at = 0; at < size; at += 40_000) {
        assert.ok(Buffer.from(await fast.read(at, 40_000)).equals(bytes.subarray(at, at + 40_000)), `${at}`);
        const behind = at - 160_000;
        if (behind >= 0) assert.ok(Buffer.from(await near.read(behind, 40_000)).equals(bytes.subarray(behind, behind + 40_000)));
      }
      assert.ok(plain.sentBytes <= size + WINDOW, `${plain.sentBytes}`);
      assert.ok(pool.most <= WINDOW + (WINDOW >> 3) && pool.most > WINDOW >> 2, `${pool.most} bytes of pieces`);
      const sent = plain.sentBytes;
      assert.ok(Buffer.from(await readToEnd(still)).equals(bytes));
      assert.ok(plain.sentBytes - sent >= size - 200_000, "by a download of its own");
      await Promise.all([fast.close(), near.close()]);
    });

    it("who comes later than a part of the window begins by itself, and the next one with it", async () => {
      const network = networkTo(base, { windowBytes: WINDOW });
      const first = await open(network);
      for (let at = 0; at < 400_000; at += 40_000) await first.read(at, 40_000);
      const [second, third] = [await open(network), await open(network)];
      await first.close();
      const before = plain.sentBytes; // a request of the first may ask for all the rest, which the server then counts
      for (let at = 0; at < size; at += 40_000) {
        const length = Math.min(40_000, size - at);
        const parts = await Promise.all([second, third].map((source) => source.read(at, length))); // in step: who falls half a window behind goes on alone
        for (const got of parts) assert.ok(Buffer.from(got).equals(bytes.subarray(at, at + length)));
      }
      await Promise.all([second, third].map((source) => source.close()));
      const sent = plain.sentBytes - before;
      assert.ok(sent <= size, `${sent}`);
    });

    it("who fell behind is proved by both downloads, and goes on with the one that is left to it", async () => {
      const network = networkTo(base, { windowBytes: WINDOW });
      const { createHash } = await import("node:crypto");
      const checksum = { algorithm: "sha256", hex: createHash("sha256").update(bytes).digest("hex") } as const;
      for (const isFinished of [true, false]) {
        const [fast, slow] = [await open(network, { checksum }), await open(network, { checksum })];
        await slow.read(0, 1000);
        for (let at = 0; at < (isFinished ? size : 900_000); at += 40_000) await fast.read(at, 40_000);
        await slow.read(100_000, 1000);
        if (isFinished) await fast.verify?.();
        await fast.close();
        if (isFinished) await slow.verify?.();
        else
          await assert.rejects(
            async () => slow.verify?.(),
            (e) => e instanceof NetworkError && e.code === "not-resumable" && e.retryable,
          );
        await slow.close();
      }
      const [fast, slow] = [await open(network, { checksum }), await open(network, { checksum })];
      await slow.read(0, 1000);
      for (let at = 0; at < 900_000; at += 40_000) await fast.read(at, 40_000);
      await fast.close();
      assert.ok(Buffer.from(await readToEnd(slow)).equals(bytes), "nobody is left whom that could hold up");
    });

    it("a version is never mixed with another: who fell behind asks for the same, or begins anew where nothing tells them apart", async () => {
      for (const [etag, code] of [
        ['"x"', "file-changed"],
        [undefined, "not-resumable"],
      ] as const) {
        plain.files.set("/x", { bytes, etag });
        const network = networkTo(base, { windowBytes: WINDOW });
        const [fast, slow] = [await open(network), await open(network)];
        await slow.read(0, 1000);
        for (let at = 0; at < 900_000; at += 40_000) await fast.read(at, 40_000);
        plain.files.set("/x", { bytes: noise(size, 2), etag: etag && '"y"' });
        await assert.rejects(slow.read(1000, 1000), (e) => e instanceof NetworkError && e.code === code && e.retryable);
        await Promise.all([fast.close(), slow.close()]);
      }
    });

    it("a closed one reads no more, and the others do", async () => {
      const control = new AbortController();
      const network = networkTo(base, { windowBytes: WINDOW });
      const [one, two] = [await open(network, {}, control.signal), await open(network)];
      plain.drip = 1;
      const reading = one.read(300_000, 200_000);
      const other = two.read(300_000, 200_000);
      await one.close();
      await assert.rejects(reading, { name: "AbortError", message: /closed/ });
      await assert.rejects(one.read(0, 10), { name: "AbortError" });
      assert.ok(Buffer.from(await other).equals(bytes.subarray(300_000, 500_000)));
      assert.equal(getEventListeners(control.signal, "abort").length, 0);
      await two.close();
    });
  });
});
