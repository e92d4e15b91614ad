// What a browser's storage says when it is full has no one name; and what is found on a shelf after a tab was closed at any change.
import assert from "node:assert/strict";
import { doing } from "../../src/adapters/browser/storage.ts";
import type { Shelf } from "../../src/weights/shelf.ts";
import { shelfImages } from "../../src/weights/shelf-images.ts";
import { ShelfStore } from "../../src/weights/shelf-store.ts";
import type { StoreFile } from "../../src/weights/store.ts";
import { memoryShelf } from "./memory-shelf.ts";

describe("errors of a browser's storage", () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  after(() => (own ? Object.defineProperty(globalThis, "navigator", own) : Reflect.deleteProperty(globalThis, "navigator")));

  const failing = (estimate: object | undefined, error: unknown, bytes?: number) => {
    const storage = estimate && { estimate: async () => estimate };
    Object.defineProperty(globalThis, "navigator", { value: { storage }, configurable: true });
    return doing("OPFS (x)", "keep a file", () => Promise.reject(error), bytes);
  };

  it("any error of a write that there was no room for means a full storage", async () => {
    const broken = new DOMException("Failed to write data to data pipe", "UnknownError"); // Chromium, whose quota ended in the middle of a write
    const room = { usage: 5_000_000, quota: 12_000_000 };
    await assert.rejects(failing(room, broken, 8_000_000), { name: "StorageError", code: "storage-full", cause: broken });
    await assert.rejects(failing(room, broken, 7_000_000), {
      name: "StorageError",
      code: "storage",
      message: /got an error: Failed to write/,
    });
    await assert.rejects(failing(room, broken), { code: "storage" }, "nothing was to be written");
    await assert.rejects(failing(undefined, broken, 8_000_000), { code: "storage" }, "nobody tells the room");
    await assert.rejects(failing(room, new DOMException("", "QuotaExceededError")), { code: "storage-full" });
  });
});

describe("a shelf whose tab is closed at any change", () => {
  const bytes = Uint8Array.from({ length: 200 }, (_, i) => (i * 7 + (i >> 5)) & 255);
  const file: StoreFile = { repo: "org/name", commit: "a".repeat(40), path: "dir/x.gguf", sizeBytes: bytes.length, blob: "b".repeat(64) };
  const image = "0123456789abcdef";

  /** Runs `act` on copies of `files`, ending at each change in turn with none, half and all of it done; then `check` on what is left. */
  async function atEachChange(
    files: ReadonlyMap<string, Uint8Array>,
    act: (shelf: Shelf) => Promise<unknown>,
    check: (shelf: Shelf) => Promise<void>,
  ): Promise<number> {
    for (let last = 0; ; last++)
      for (const share of [0, 0.5, 1] as const) {
        const left = new Map(files);
        const shelf = memoryShelf(left, last, share);
        const error = await act(shelf).then(
          () => undefined,
          (thrown: unknown) => thrown as Error,
        );
        if (!shelf.hasEnded()) {
          assert.equal(error, undefined);
          return last;
        }
        await check(memoryShelf(left)).catch((cause: unknown) => {
          throw new Error(`after ${share} of change ${last}: ${(cause as Error).message}`, { cause });
        });
      }
  }

  async function download(shelf: Shelf): Promise<void> {
    const store = new ShelfStore(shelf);
    const part = await store.begin(file);
    try {
      const begun = new Uint8Array(part.sizeBytes);
      await part.readInto(0, begun);
      assert.deepEqual(begun, bytes.subarray(0, begun.length), "what is gone on with");
      for (let at = begun.length; at < bytes.length; at += 60) await part.append(bytes.subarray(at, Math.min(at + 60, bytes.length)));
      await part.commit();
    } finally {
      await part.close();
    }
    await store.setRevision(file.repo, "main", file.commit);
  }

  /** The file is there whole or not at all, as it is listed; and it comes then. */
  async function checkModel(shelf: Shelf): Promise<void> {
    const store = new ShelfStore(shelf);
    const listed = await store.files(file.repo, file.commit);
    const source = await store.open(file);
    if (source) assert.deepEqual(await source.read(0, source.size), bytes);
    if (listed.length > 0) assert.ok(source, "what is listed opens");
    assert.ok((await store.partBytes(file)) <= (source ? 0 : bytes.length));
    await store.list();
    if (!source) await download(shelf);
    assert.deepEqual(await (await store.open(file))?.read(0, bytes.length), bytes);
  }

  async function filled(): Promise<Map<string, Uint8Array>> {
    const files = new Map<string, Uint8Array>();
    await download(memoryShelf(files));
    return files;
  }

  it("a download leaves a beginning that is right, or the whole", async () => {
    assert.ok((await atEachChange(new Map(), download, checkModel)) > 10);
  });

  it("a removal leaves all or nothing, and a download can come after", async () => {
    const remove = (shelf: Shelf) => new ShelfStore(shelf).remove(file.repo);
    const changes = await atEachChange(await filled(), remove, async (shelf) => {
      const models = await new ShelfStore(shelf).list();
      assert.ok(models.length === 0 || models[0]?.revisions[0]?.files.length === 1);
      assert.equal((await shelf.list("models")).size > 0, models.length > 0, "what is left goes");
      await checkModel(shelf);
    });
    assert.ok(changes > 2);
  });

  it("a damaged file that is dropped is not found torn", async () => {
    await atEachChange(await filled(), (shelf) => new ShelfStore(shelf).drop(file), checkModel);
  });

  it("packed images are whole or not there, and older ones give way whole", async () => {
    const write = async (shelf: Shelf, name: string): Promise<void> => {
      const sink = (await shelfImages(shelf, 300).create(name, bytes.length)) ?? assert.fail("no sink");
      for (let at = 0; at < bytes.length; at += 60) await sink.write(bytes.subarray(at, at + 60));
      await sink.commit();
    };
    const files = new Map<string, Uint8Array>();
    await write(memoryShelf(files), "older");
    const changes = await atEachChange(
      files,
      (shelf) => write(shelf, image),
      async (shelf) => {
        for (const name of ["older", image]) {
          const found = await shelfImages(shelf).open(name);
          if (found) assert.deepEqual(await found.read(0, found.size), bytes, name);
        }
        await write(shelf, image);
        assert.ok(await shelfImages(shelf).open(image));
        assert.equal(await shelfImages(shelf).open("older"), undefined);
      },
    );
    assert.ok(changes > 10);
  });
});
