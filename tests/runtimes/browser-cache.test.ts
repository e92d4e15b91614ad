// The cache of a browser, in Chromium from the packed package: OPFS in a worker and in a page, the Cache API; reloads in the middle, two tabs, a full quota.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { build } from "esbuild";
import type { pull, StoredModel } from "lfm2-wasm";
import { Random, seedOf } from "../bits/random.ts";
import { openBrowser } from "../bundlers/browser.mjs";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { noise } from "../unit/network.ts";
import { type Browser, type Context, call, openCachePage, type Page, serveCachePage } from "./cache-page.ts";
import { installed, RUNTIMES } from "./index.mjs";
import type { Server } from "./server.mjs";

const mini = readFileSync("dist/mini.gguf");
/** A worker writes as bytes come; a page holds back 8 MiB. */
const SIZES = { opfsInWorker: 3_000_001, middle: 9_000_001, large: 24_000_001 };
const isFull = pick({ gate: false, full: true });
/** Aborts anywhere in a download of a megabyte, each followed by another, beside those at its edges; fewer of a larger one. */
const ABORTS = 24;
const TIMEOUT_MS = pick({ gate: 240_000, full: 1_200_000 });
const network = { backoffMs: 2, maxRetries: 3, windowBytes: 1 << 22 };

const WORKER = ["OPFS in a worker", "inWorker", "opfs"] as const;
const PLACES = pick({
  gate: [WORKER],
  full: [WORKER, ["OPFS in a page", "inPage", "opfs"], ["the Cache API", "inPage", "caches"]] as const,
});

/** Where a download is aborted, and after how many more bytes once more: around the pieces that a page writes, and anywhere. */
function abortsOf(what: string, sizeBytes: number): (readonly [number, number])[] {
  if (!isFull) return [[1_500_001, 700_003]];
  const random = new Random(seedOf(what));
  const piece = 8 << 20;
  const edges = [0, 1, piece - 1, piece, piece + 1, sizeBytes - 2].filter((at) => at < sizeBytes - 1);
  const anywhere = Array.from({ length: sizeBytes > piece ? ABORTS / 8 : ABORTS }, () => random.below(sizeBytes - 2));
  return [...edges, ...anywhere].map((at) => [at, 1 + random.below(sizeBytes - at - 1)] as const);
}

for (const { binary } of installed(["chromium"], "the cache of a browser"))
  describe("the cache of a browser", function () {
    this.timeout(TIMEOUT_MS);
    let project: string;
    let server: Server;
    let hub: BadServer;
    let browser: Browser;
    let context: Context;

    before(async () => {
      project = mkdtempSync(join(tmpdir(), "lfm2-browser-cache-"));
      server = await serveCachePage(project);
      hub = await serve({
        "org/mini": { "mini.gguf": mini },
        "org/middle": { "x.gguf": noise(SIZES.middle) },
        "org/large": { "x.gguf": noise(SIZES.large) },
        "org/small": { "x.gguf": noise(SIZES.opfsInWorker) },
      });
      browser = (await openBrowser(binary)) as unknown as Browser;
    });
    after(async () => {
      await browser?.close();
      await server?.close();
      await hub?.close();
      rmSync(project, { recursive: true, force: true });
    });
    beforeEach(async () => {
      hub.set({});
      hub.log.length = 0;
      context = await browser.createBrowserContext(); // a storage of its own
    });
    afterEach(() => context.close());

    async function tab(before?: string): Promise<Page> {
      const page = await context.newPage();
      if (before !== undefined) await page.evaluateOnNewDocument(before);
      await open(page);
      return page;
    }
    const open = (page: Page): Promise<void> => openCachePage(page, server);
    const options = (more: object = {}): object => ({ endpoint: hub.hub, network, ...more });
    /** Bytes of files that were sent. */
    const sent = (): number => hub.log.filter((r) => r.host === "cdn").reduce((sum, r) => sum + r.sentBytes, 0);
    const partBytes = async (page: Page): Promise<number> =>
      (await call<readonly StoredModel[]>(page, "inPage", "listModels"))[0]?.partialBytes ?? 0;

    for (const [what, place, kind] of PLACES) {
      const without = kind === "caches" ? "delete StorageManager.prototype.getDirectory" : undefined;

      const [repo, bytes, seen] = place === "inWorker" ? ["org/small", SIZES.opfsInWorker, 500_000] : ["org/large", SIZES.large, 8_000_000];
      const drip = place === "inWorker" ? ([1 << 16, 25] as const) : ([1 << 18, 40] as const);
      /** Waits until so many bytes are kept; no longer than the download lasts. */
      const untilKept = async (page: Page, going: Promise<unknown>): Promise<void> => {
        let isOver = false;
        void going.finally(() => {
          isOver = true;
        });
        while (!isOver && (await partBytes(page)) < seen) await new Promise((go) => setTimeout(go, 50));
      };

      it(`${what} is a store`, async () => {
        assert.deepEqual(await call(await tab(), place, "conformance", kind, place === "inWorker" ? 700_001 : 9_000_001), []);
      });

      it(`${what}: the second start asks for no byte of the file, and reads the packed image`, async () => {
        const page = await tab(without);
        const first = await call(page, place, "start", "org/mini", options({ cache: { packed: true } }));
        assert.deepEqual([first.packedImage, first.skipped, sent()], ["written", undefined, mini.length]);
        await open(page);
        hub.log.length = 0;
        const second = await call(page, place, "start", "org/mini", options({ cache: { packed: true } }));
        assert.deepEqual([second.tokens, second.packedImage, sent()], [first.tokens, "read", 0]);
        const [model, ...others] = await call<readonly StoredModel[]>(page, place, "listModels");
        assert.ok(model);
        assert.deepEqual([model.id, others.length, model.partialBytes], ["org/mini", 0, 0]);
        assert.ok(model.sizeBytes >= mini.length && model.sizeBytes < mini.length + 1000, `${model.sizeBytes}`);
        assert.equal((await call<StoredModel>(page, place, "removeModel", "org/mini")).sizeBytes, model.sizeBytes);
        assert.deepEqual(await call(page, place, "listModels"), []);
        await call(page, place, "start", "org/mini", options());
        assert.equal(sent(), mini.length, "it is downloaded again");
      });

      it(`${what}: a download that a reload cut off goes on from where it was`, async () => {
        const page = await tab(without);
        hub.set({ drip });
        const going = call(page, place, "pull", repo, options()).catch(() => {});
        await untilKept(page, going);
        await page.reload();
        await going;
        await page.waitForFunction("document.title === 'ready'");
        const kept = await partBytes(page);
        assert.ok(kept >= seen && kept < bytes, `${kept} bytes were kept`);
        await untilOver();
        hub.set({});
        hub.log.length = 0;
        const { downloadedBytes } = await call<Awaited<ReturnType<typeof pull>>>(page, place, "pull", repo, options());
        assert.deepEqual([downloadedBytes, sent()], [bytes - kept, bytes - kept]);
        const again = await call<Awaited<ReturnType<typeof pull>>>(page, place, "pull", repo, options());
        assert.equal(again.downloadedBytes, 0);
      });

      it(`${what}: a download that a signal ended at any byte goes on from what was kept, and gives the right bytes`, async () => {
        const page = await tab(without);
        const [repo, bytes] = place === "inWorker" ? ["org/small", SIZES.opfsInWorker] : ["org/middle", SIZES.middle];
        const right = createHash("sha256").update(noise(bytes)).digest("hex");
        let most = 0;
        const firsts = (): number[] =>
          hub.log.flatMap(({ host, range }) => (host === "cdn" && range ? [Number(/=(\d+)-/.exec(range)?.[1])] : []));
        for (const [at, more] of abortsOf(what, bytes)) {
          const where = `at ${at}, then after ${more}`;
          const kept = [0];
          for (const count of [at, more]) {
            hub.log.length = 0;
            const { ended, came } = await call<{ ended: string; came: number }>(page, place, "abortedAt", count, "pull", repo, options());
            assert.deepEqual([ended, came], ["AbortError", count], where);
            await untilOver();
            const had = kept.at(-1) ?? 0;
            assert.ok(Math.min(...firsts()) >= had, `${where}: asked for ${firsts()} with ${had} bytes there`);
            kept.push(await partBytes(page));
            assert.ok((kept.at(-1) ?? 0) >= had, `${where}: ${kept}`);
            assert.ok((kept.at(-1) ?? 0) <= had + count, `${where}: ${kept}`);
          }
          hub.log.length = 0;
          const { downloadedBytes } = await call<Awaited<ReturnType<typeof pull>>>(page, place, "pull", repo, options());
          const left = bytes - (kept.at(-1) ?? 0);
          assert.deepEqual([downloadedBytes, sent()], [left, left], `${where}: ${kept} bytes were kept`);
          assert.deepEqual(await call(page, place, "hashes", kind, repo), [right], where);
          await call(page, place, "removeModel", repo);
          most = Math.max(most, kept.at(-1) ?? 0);
        }
        assert.ok(most > pick({ gate: 0, full: seen }), `no more than ${most} bytes were ever kept`);
      });

      if (isFull)
        it(`${what}: a load that a signal ended at any byte of the file goes on when it is called again`, async () => {
          const page = await tab(without);
          const { tokens } = await call(page, place, "start", "org/mini", options());
          for (const [at] of abortsOf(`${what}, load`, mini.length).slice(0, place === "inWorker" ? 12 : 4)) {
            await call(page, place, "removeModel", "org/mini");
            const { ended } = await call<{ ended: string }>(page, place, "abortedAt", at, "start", "org/mini", options());
            assert.equal(ended, "AbortError", `at ${at}`);
            await untilOver();
            const kept = await partBytes(page);
            hub.log.length = 0;
            const again = await call(page, place, "start", "org/mini", options());
            assert.deepEqual([again.tokens, sent()], [tokens, mini.length - kept], `at ${at}: ${kept} bytes were kept`);
          }
        });

      if (isFull)
        it(`${what}: two tabs download once, with two loads in one of them; the second waits`, async () => {
          const [one, other] = [await tab(without), await tab(without)];
          hub.set({ drip: [1 << 16, 25] });
          const all = await Promise.all([one, one, other].map((page) => call(page, place, "start", "org/mini", options())));
          for (const { tokens } of all) assert.deepEqual(tokens, all[0]?.tokens);
          assert.equal(sent(), mini.length);
          assert.ok(all.some(({ phases }) => phases.includes("wait")));
        });

      if (isFull)
        it(`${what}: bytes that came damaged are a FormatError, and none of them is kept`, async () => {
          const page = await tab(without);
          hub.set({ flip: 1_000_000, match: "cdn" });
          const pulling = call(page, place, "pull", repo, options());
          await assert.rejects(pulling, { name: "FormatError", code: "checksum", message: /expected bytes of sha256 [0-9a-f]{64}, got / });
          assert.deepEqual([await call(page, place, "hashes", kind, repo), await partBytes(page)], [[], 0]);
        });

      if (isFull)
        it(`${what}: a tab takes over from one that is closed; nobody removes what is being downloaded`, async () => {
          const [first, second] = [await tab(without), await tab(without)];
          hub.set({ drip });
          const lost = call(first, place, "pull", repo, options()).catch(() => {});
          await untilKept(second, lost);
          await assert.rejects(call(second, place, "removeModel", repo), { name: "StorageError", code: "in-use" });
          const takes = call(second, place, "pull", repo, options());
          await new Promise((go) => setTimeout(go, 200));
          await first.close();
          await lost;
          await takes;
          assert.ok(sent() < 1.9 * bytes, `${sent()} bytes in all`);
        });
    }

    if (isFull)
      it("a quota that is too small costs the cache, not the load, and leaves nothing", async () => {
        const page = await tab();
        const session = await page.createCDPSession();
        await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize: 1_000_000 });
        for (const place of ["inWorker", "inPage"] as const) {
          const { tokens, skipped } = await call(page, place, "start", "org/mini", options());
          assert.equal(tokens.length, 4);
          assert.match(
            skipped ?? "",
            /cache: expected room in OPFS \(lfm2-wasm\) for more, got a full storage\. [\d.]+ MB of \d+ MB are used\. Remove a model/,
          );
          await assert.rejects(call(page, place, "pull", "org/mini", options()), { name: "StorageError", code: "storage-full" });
          assert.deepEqual(await call(page, place, "files"), []);
        }
      });

    if (isFull)
      it("a quota that runs out in the middle leaves nothing half-written", async () => {
        const page = await tab();
        const session = await page.createCDPSession();
        const quota = (quotaSize: number): Promise<unknown> =>
          session.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize });
        for (const place of ["inWorker", "inPage"] as const) {
          await quota(100_000_000);
          hub.set({ drip: [1 << 18, 3] });
          const pulling = assert.rejects(call(page, place, "pull", "org/large", options()), {
            name: "StorageError",
            message: /full storage/,
            code: "storage-full",
          });
          while (sent() < 5_000_000) await new Promise((go) => setTimeout(go, 20));
          await quota(12_000_000);
          await pulling;
          assert.deepEqual(await call(page, place, "files"), []);
          await untilOver();
          hub.log.length = 0;
        }
      });

    if (isFull)
      it("inspect, availability and pull take an address relative to the page", async () => {
        const page = await tab();
        const whole = await call<readonly unknown[]>(page, "inPage", "ask", new URL("mini.gguf", server.url).href);
        assert.deepEqual(await call(page, "inPage", "ask", "./mini.gguf"), whole);
        assert.equal(whole[2], mini.length);
        assert.match(String(whole[3]), /ETag/); // the server tells no version: nothing is kept
      });

    if (isFull)
      it("a handle of a file in OPFS is a source, in a page and in a worker", async () => {
        const page = await tab();
        const right = await call(page, "inPage", "start", new URL("mini.gguf", server.url).href, {});
        for (const place of ["inPage", "inWorker"] as const) {
          const { tokens } = await call(page, place, "startHandle", new URL("mini.gguf", server.url).href, {});
          assert.deepEqual(tokens, right.tokens);
        }
      });

    /** Waits until no answer is under way. */
    async function untilOver(): Promise<void> {
      for (let i = 0; i < 300 && hub.busy > 0; i++) await new Promise((go) => setTimeout(go, 10));
      assert.equal(hub.busy, 0);
    }
  });

for (const { binary } of installed(pick({ gate: [], full: ["firefox"] }), "the stores of Firefox"))
  describe("the stores of Firefox", function () {
    this.timeout(TIMEOUT_MS);
    const dir = mkdtempSync(join(tmpdir(), "lfm2-browser-stores-"));
    const module = join(dir, "module.mjs");
    before(() =>
      build({
        entryPoints: [resolve("tests", "runtimes", "browser-stores.mjs")],
        outfile: module,
        ...{ bundle: true, format: "esm", target: "es2022", tsconfigRaw: {}, logLevel: "warning" },
        define: { LFM2_HASH_WASM: '""' },
      }),
    );
    after(() => rmSync(dir, { recursive: true, force: true }));
    for (const [what, place, kind] of PLACES)
      it(`${what} is a store`, async () => {
        const job = { module, files: {}, options: { kind, sizeBytes: place === "inWorker" ? 700_001 : 9_000_001 } };
        const failed = await RUNTIMES.firefox?.run(binary, job, TIMEOUT_MS, place === "inWorker" ? "worker" : "page");
        assert.deepEqual(failed, []);
      });
  });
