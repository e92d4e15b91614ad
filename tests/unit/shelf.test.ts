// What a browser's storage says when it is full has no one name.
import assert from "node:assert/strict";
import { doing } from "../../src/adapters/browser/storage.ts";

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
