// Chromium killed with all its processes at random moments of a download, of a removal and of an eviction, and started again on the same profile: what is found is whole, or not there.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StoredModel } from "lfm2-wasm";
import { Random, seedOf } from "../bits/random.ts";
import { openBrowser } from "../bundlers/browser.mjs";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { type Browser, call, openCachePage, type Page, serveCachePage } from "./cache-page.ts";
import { installed } from "./index.mjs";
import type { Server } from "./server.mjs";

const mini = readFileSync("dist/mini.gguf");
/** Kills of each of three kinds in each of three storages: 198 in all. */
const KILLS = pick({ gate: 0, full: 22 });
const TIMEOUT_MS = 1_200_000;
const network = { backoffMs: 2, maxRetries: 3, windowBytes: 1 << 22 };
const IMAGE_BYTES = 3_000_001;
/** Room for two images. */
const MOST_BYTES = 7_000_000;

const PLACES = [
  ["OPFS in a worker", "inWorker", undefined],
  ["OPFS in a page", "inPage", undefined],
  ["the Cache API", "inPage", "delete StorageManager.prototype.getDirectory"],
] as const;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

for (const { binary } of KILLS > 0 ? installed(["chromium"], "a browser's cache and kills") : [])
  for (const [what, place, before_] of PLACES)
    describe(`a browser that is killed: ${what}`, function () {
      this.timeout(TIMEOUT_MS);
      const random = new Random(seedOf(what));
      let project: string;
      let server: Server;
      let hub: BadServer;
      let browser: Browser | undefined;
      let page: Page;

      before(async () => {
        project = mkdtempSync(join(tmpdir(), "lfm2-browser-kill-"));
        server = await serveCachePage(project);
        hub = await serve({ "org/mini": { "mini.gguf": mini } });
        await restart();
      });
      after(async () => {
        await kill();
        await server?.close();
        await hub?.close();
        rmSync(project, { recursive: true, force: true, maxRetries: 5 });
      });

      /** The same profile in a new browser. */
      async function restart(): Promise<void> {
        browser = (await openBrowser(binary, [], join(project, "profile"))) as unknown as Browser;
        page = await browser.newPage();
        if (before_ !== undefined) await page.evaluateOnNewDocument(before_);
        await openCachePage(page, server);
      }
      /** The browser and every process that it has started. */
      async function kill(): Promise<void> {
        const child = browser?.process() as { readonly pid: number; readonly exitCode: number | null; readonly signalCode: string | null };
        browser = undefined;
        if (!child || child.exitCode !== null || child.signalCode !== null) return;
        const over = once(child as never, "exit");
        process.kill(-child.pid, "SIGKILL");
        await over;
      }
      /** Begins something, and kills the browser a moment later; what the call would have given went with it. */
      async function killDuring(begin: () => Promise<unknown>, ms: number): Promise<void> {
        const going = begin().catch(() => {});
        await sleep(ms);
        await kill();
        await Promise.race([going, sleep(1000)]);
        await restart();
      }
      /** How long something takes here, in ms, so that kills hit the middle of it. */
      async function timed(run: () => Promise<unknown>): Promise<number> {
        const start = performance.now();
        await run();
        return performance.now() - start;
      }
      const options = (more: object = {}): object => ({ endpoint: hub.hub, network, ...more });
      const sent = (): number => hub.log.filter((r) => r.host === "cdn").reduce((sum, r) => sum + r.sentBytes, 0);
      const start = () => call(page, place, "start", "org/mini", options({ cache: { packed: true } }));
      const list = () => call<readonly StoredModel[]>(page, place, "listModels");
      const moment = (ms: number): number => (random.below(1000) / 1000) * ms;

      it("a model whose removal was cut off is there whole, or not at all", async () => {
        const first = await start();
        const ms = await timed(() => call(page, place, "removeModel", "org/mini"));
        await start();
        const states = new Map<string, number>();
        for (let i = 0; i < KILLS; i++) {
          await killDuring(() => call(page, place, "removeModel", "org/mini"), moment(1.2 * ms));
          const there = await list();
          assert.ok(there.length <= 1 && (there[0]?.partialBytes ?? 0) === 0, `kill ${i}: ${JSON.stringify(there)}`);
          hub.log.length = 0;
          const again = await start();
          assert.deepEqual(again.tokens, first.tokens, `kill ${i}`);
          assert.equal(sent(), there.length === 1 ? 0 : mini.length, `kill ${i}`);
          assert.equal(again.skipped, undefined, `kill ${i}`);
          const state = `${there.length} ${again.packedImage}`;
          states.set(state, (states.get(state) ?? 0) + 1);
        }
        assert.ok(KILLS < 20 || states.size > 1, `all kills came at one moment: ${[...states]}`);
        assert.equal((await call<StoredModel>(page, place, "removeModel", "org/mini")).partialBytes, 0);
        assert.deepEqual(await list(), []);
      });

      it("of images, one of which gives way to another, each is whole or not found", async () => {
        const put = (number: number) => call<boolean>(page, place, "putImage", number, IMAGE_BYTES, MOST_BYTES);
        const whole = () => call<readonly number[]>(page, place, "wholeImages", IMAGE_BYTES);
        for (const number of [1, 2]) assert.ok(await put(number));
        const ms = await timed(() => put(3));
        assert.deepEqual(await whole(), [2, 3], "the oldest gave way");
        const states = new Set<string>();
        for (let i = 0; i < KILLS; i++) {
          const number = 4 + i;
          const had = await whole();
          await killDuring(() => put(number), moment(1.2 * ms));
          const has = await whole();
          states.add(`${has.length} ${has.includes(number)}`);
          assert.ok(
            has.every((n) => n === number || had.includes(n)),
            `kill ${i}: ${has} after ${had}`,
          );
          assert.ok(has.length <= 2, `kill ${i}: ${has}`);
          assert.ok(await put(number), `kill ${i}: no room for image ${number}`);
          assert.ok((await whole()).includes(number));
        }
        assert.ok(KILLS < 20 || states.size > 1, `all kills came at one moment: ${[...states]}`);
      });

      it("a download goes on from what was kept, and gives the right bytes", async () => {
        hub.set({ drip: [1 << 16, 2] });
        const first = await start();
        const ms = await timed(async () => {
          await call(page, place, "removeModel", "org/mini");
          await start();
        });
        let resumed = 0;
        for (let i = 0; i < KILLS; i++) {
          await call(page, place, "removeModel", "org/mini");
          await killDuring(start, moment(1.1 * ms));
          const [model] = await list();
          const kept = model?.partialBytes ?? 0;
          if (kept > 0) resumed++;
          hub.log.length = 0;
          const again = await start();
          assert.deepEqual(again.tokens, first.tokens, `kill ${i}`);
          // with no part the file may be whole, though nothing shows it yet: then the right tokens come without a byte
          if (kept > 0 || sent() > 0) assert.equal(sent(), mini.length - kept, `kill ${i}: ${kept} bytes were kept`);
        }
        if (place === "inWorker" && KILLS >= 20) assert.ok(resumed >= KILLS / 4, `only ${resumed} kills left a part`); // a page holds back 8 MiB, the whole file here
      });
    });
