// Faults at every call of the store: it is aborted there, or fails there. A load goes on without the cache, a pull fails with that error, nothing stays open, the next start works.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { cpSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { diskStore } from "../../src/adapters/node/store.ts";
import { StorageError } from "../../src/errors.ts";
import { findHub } from "../../src/weights/hub.ts";
import { parseHubId } from "../../src/weights/hub-id.ts";
import type { Store, StoreLock, StorePart } from "../../src/weights/store.ts";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { networkTo, noise, readToEnd, untilQuiet } from "./network.ts";

const content = noise(1_300_003);

/** A store under watch: counts calls, lets a test act before each, counts what is held. */
class WatchedStore {
  calls = 0;
  held = 0;
  readonly store: Store;
  readonly #fault: (n: number) => void;

  constructor(inner: Store, fault: (n: number) => void = () => {}) {
    this.#fault = fault;
    const at = this.#at;
    this.store = {
      place: inner.place,
      revision: (...a) => at(() => inner.revision(...a)),
      setRevision: (...a) => at(() => inner.setRevision(...a)),
      files: (...a) => at(() => inner.files(...a)),
      open: (file) => at(() => inner.open(file)),
      drop: (file) => at(() => inner.drop(file)),
      partBytes: (file) => at(() => inner.partBytes(file)),
      isLocked: (file) => at(() => inner.isLocked(file)),
      list: () => at(() => inner.list()),
      freeBytes: () => at(() => inner.freeBytes()),
      remove: (repo) => at(() => inner.remove(repo)),
      lock: async (file, options) => this.#lock(await at(() => inner.lock(file, options))),
      begin: async (file) => this.#part(await at(() => inner.begin(file))),
    };
  }

  readonly #at = async <T>(run: () => Promise<T>): Promise<T> => {
    this.#fault(++this.calls);
    return run();
  };

  #lock(lock: StoreLock): StoreLock {
    this.held++;
    return {
      isHeld: () => this.#at(() => lock.isHeld()),
      release: async () => {
        this.held--;
        await lock.release(); // ends whatever happens
      },
    };
  }

  #part(part: StorePart): StorePart {
    this.held++;
    const at = this.#at;
    return {
      get sizeBytes() {
        return part.sizeBytes;
      },
      readInto: (offset, target) => at(() => part.readInto(offset, target)),
      append: (bytes) => at(() => part.append(bytes)),
      clear: () => at(() => part.clear()),
      commit: () => at(() => part.commit()),
      discard: () => at(() => part.discard()),
      close: async () => {
        this.held--;
        await part.close();
      },
    };
  }
}

describe("faults of the cache", () => {
  let server: BadServer;
  let root: string;
  let count = 0;
  before(async () => {
    root = mkdtempSync(join(tmpdir(), "lfm2-faults-"));
    server = await serve({ "org/model": { "x.gguf": content } });
  });
  after(async () => {
    await server.close();
    rmSync(root, { recursive: true });
  });

  let part: string | undefined;
  /** A store with the first 700,000 bytes of a download, as an aborted load left it once. */
  async function begun(): Promise<string> {
    if (part === undefined) {
      part = join(root, "part");
      const source = await open(diskStore(part), () => {});
      await source.read(0, 700_000);
      await source.close?.();
    }
    const dir = join(root, `${count++}`);
    cpSync(part, dir, { recursive: true, verbatimSymlinks: true });
    return dir;
  }

  async function open(store: Store, onSkip: (error: Error) => void, signal?: AbortSignal) {
    const hub = await findHub(
      networkTo(server.hub),
      parseHubId("org/model:x.gguf")!,
      { cache: { store, onWait: assert.fail, onSkip } },
      signal,
    );
    const source = await hub.source();
    return "read" in source ? Object.assign(source, { keep: hub.keep }) : assert.fail();
  }

  async function load(store: Store, onSkip: (error: Error) => void, signal?: AbortSignal): Promise<Uint8Array> {
    const source = await open(store, onSkip, signal);
    const bytes = await readToEnd(source, 200_000, signal);
    await source.keep();
    return bytes;
  }

  const calls = async (): Promise<number> => {
    const watch = new WatchedStore(diskStore(await begun()));
    assert.deepEqual(await load(watch.store, assert.fail), content);
    assert.equal(watch.held, 0);
    return watch.calls;
  };
  const positions = (n: number): number[] => {
    const most = Math.min(n, pick({ gate: 40, full: 1000 }));
    return Array.from({ length: most }, (_, i) => 1 + Math.round((i * (n - 1)) / Math.max(1, most - 1)));
  };

  it("a load goes on without it wherever it fails, and what it keeps is right", async () => {
    const n = await calls();
    assert.ok(n > 15, `only ${n} calls`);
    for (const position of positions(n)) {
      const dir = await begun();
      const skipped: Error[] = [];
      const watch = new WatchedStore(diskStore(dir), (i) => {
        if (i >= position) throw new StorageError(`call ${position} failed`, { code: "storage-full" });
      });
      assert.deepEqual(await load(watch.store, (error) => skipped.push(error)), content, `from call ${position} of ${n}`);
      assert.equal(watch.held, 0, `from call ${position} of ${n}`);
      assert.ok(skipped.every((error) => error.name === "StorageError"));
      const blobs = join(dir, "models--org--model", "blobs");
      for (const name of readdirSync(blobs)) assert.ok(name.endsWith(".incomplete") || name.length === 64);
      assert.deepEqual(await load(diskStore(dir), assert.fail), content, `after call ${position}`);
      assert.deepEqual(
        readdirSync(blobs).map((name) => name.length),
        [64],
      );
    }
    await untilQuiet(server);
  });

  it("an abort ends it wherever the signal fires, and gives everything back", async () => {
    const n = await calls();
    const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
    await untilQuiet(server);
    const before = timers();
    for (const position of positions(n - 1)) {
      const dir = await begun();
      const control = new AbortController();
      const watch = new WatchedStore(diskStore(dir), (i) => {
        if (i === position) control.abort(new Error(`at ${position}`));
      });
      const result = await load(watch.store, assert.fail, control.signal).then(
        (bytes) => bytes.length,
        (error: Error) => error.name,
      );
      assert.ok(result === "AbortError" || (result === content.length && position >= n - 4), `at call ${position} of ${n}: ${result}`);
      await untilQuiet(server);
      const left = [watch.held, getEventListeners(control.signal, "abort").length, timers() - before];
      assert.deepEqual(left, [0, 0, 0], `at call ${position} of ${n}`);
      assert.deepEqual(await load(diskStore(dir), assert.fail), content);
    }
  });
});
