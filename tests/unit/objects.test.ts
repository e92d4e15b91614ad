// load() from objects: what a page, a worker or a caller's own store hands over, and addresses whose checkpoint lies in several files. The same tokens from each.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { load, type Model, type ModelSource } from "lfm2-wasm";
import { validGguf, validRepo, validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { PART_NAMES, SHARD_NAMES } from "../bad-files/write.ts";
import { bucketOf } from "../conformance/r2-bucket.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { IMPATIENT } from "./network.ts";

const mini = new Uint8Array(readFileSync("dist/mini.gguf"));
type Bytes = Uint8Array<ArrayBuffer>;
const file = (bytes: Uint8Array, name: string): File => new File([bytes as Bytes], name);
const filesOf = (files: object): Record<string, Uint8Array> => files as Record<string, Uint8Array>;

async function tokens(model: Model, prompt: string): Promise<readonly number[]> {
  const reply = await model.generate(prompt, { maxTokens: 6, temperature: 0, repetitionPenalty: 1 });
  model.dispose();
  return [...reply.tokens];
}

describe("load() takes", () => {
  let right: readonly number[];
  let small: { gguf: readonly number[]; folder: readonly number[] };
  const same = async (source: ModelSource): Promise<void> =>
    assert.deepEqual(await tokens(await load(source), "Tell me a story about a fox."), right);
  const folderOf = (files: Readonly<Record<string, Uint8Array>>): ModelSource => ({
    name: "folder",
    open: async (path) => {
      const bytes = files[path];
      return bytes && { name: path, size: bytes.length, read: async (at: number, length: number) => bytes.slice(at, at + length) };
    },
    list: async () => Object.keys(files),
  });
  const smallTokens = async (source: ModelSource, options = {}): Promise<readonly number[]> =>
    tokens(await load(source, options), "the cat");
  before(async () => {
    right = await tokens(await load(mini), "Tell me a story about a fox.");
    small = { gguf: await smallTokens(validGguf()), folder: await smallTokens(folderOf(filesOf(validRepo()))) };
  });

  it("bytes in any form", async () => {
    await same(mini.slice().buffer);
    await same(new DataView(mini.slice().buffer));
    const shared = new Uint8Array(new SharedArrayBuffer(mini.length));
    shared.set(mini);
    await same(shared.buffer);
  });

  it("a Blob, a File, a list of one", async () => {
    await same(new Blob([mini as Bytes]));
    await same(file(mini, "x.gguf"));
    await same([file(mini, "x.gguf")]);
  });

  it("a list of Files, chosen one by one or as a folder", async () => {
    const files = Object.entries(filesOf(validSharded())).map(([name, bytes]) => file(bytes, name));
    assert.deepEqual(await smallTokens(files), small.folder);
    assert.deepEqual(await smallTokens(Object.assign({ length: files.length }, files) as unknown as readonly File[]), small.folder);
    for (const one of files) Object.defineProperty(one, "webkitRelativePath", { value: `chosen/${one.name}` });
    assert.deepEqual(await smallTokens(files), small.folder);
    const parts = Object.entries(filesOf(validSplit())).map(([name, bytes]) => file(bytes, name));
    assert.deepEqual(await smallTokens(parts), small.gguf);
  });

  it("handles of a file and of a folder", async () => {
    const handle = (name: string, bytes: Uint8Array) => ({ kind: "file" as const, name, getFile: async () => file(bytes, name) });
    await same(handle("x.gguf", mini));
    const files = filesOf(validSharded());
    const missing = (): never => {
      throw new DOMException("none", "NotFoundError");
    };
    const folder = {
      kind: "directory" as const,
      name: "models",
      getFileHandle: async (name: string) => handle(name, files[name] ?? missing()),
      getDirectoryHandle: async () => missing(),
      keys: async function* () {
        yield* Object.keys(files);
      },
    };
    assert.deepEqual(await smallTokens(folder), small.folder);
    await assert.rejects(load({ ...folder, getFileHandle: async () => Promise.reject(new DOMException("no", "NotAllowedError")) }), {
      name: "StorageError",
    });
  });

  it("{ bucket, key }: a file, a part of a split one, a folder", async () => {
    await same({ bucket: bucketOf({ "a/b/x.gguf": mini }), key: "a/b/x.gguf" });
    const under = (files: Readonly<Record<string, Uint8Array>>): Record<string, Uint8Array> =>
      Object.fromEntries(Object.entries(files).map(([name, bytes]) => [`m/${name}`, bytes]));
    const split = bucketOf(under(filesOf(validSplit())));
    for (const key of [`m/${PART_NAMES[1]}`, "m/"]) assert.deepEqual(await smallTokens({ bucket: split, key }), small.gguf);
    const shards = bucketOf(under(filesOf(validSharded())));
    for (const key of ["m/", `m/${SHARD_NAMES[0]}`, "m/model.safetensors.index.json"])
      assert.deepEqual(await smallTokens({ bucket: shards, key }), small.folder);
    await assert.rejects(load({ bucket: shards, key: "m/none.gguf" }), { name: "StorageError", code: "not-found" });
  });

  it("an object of a bucket that is replaced meanwhile only once more from the start", async () => {
    const bucket = bucketOf({ "x.gguf": mini });
    const other = mini.slice();
    let seen = 0;
    const get = bucket.get.bind(bucket);
    bucket.get = async (key, options) => {
      if (++seen === 1) bucket.replace("x.gguf", other);
      return get(key, options);
    };
    await same({ bucket, key: "x.gguf" });
    let version = 0;
    bucket.get = async (key, options) => ({ ...(await get(key, options))!, httpEtag: `"x${++version}"` });
    await assert.rejects(load({ bucket, key: "x.gguf" }), { name: "NetworkError", code: "file-changed" });
  });

  it("{ size, read }, however little a read brings, and says so when it brings something else", async () => {
    await same({ size: mini.length, read: async (at, length) => mini.slice(at, at + Math.min(length, 70_001)) });
    const bad = (source: object, name: string, message: RegExp): Promise<void> =>
      assert.rejects(load(source as ModelSource), { name, message });
    const read = async (at: number, length: number): Promise<Uint8Array> => mini.slice(at, at + length);
    for (const size of [-1, 0.5, Number.NaN, "5", undefined, 2n]) await bad({ size, read }, "InputError", /size: expected a whole number/);
    for (const got of [undefined, null, "bytes", [1, 2], new ArrayBuffer(4)])
      await bad({ size: 1000, read: async () => got }, "InputError", /read: expected a Uint8Array/);
    await bad({ size: 1000, read: async () => new Uint8Array(2000) }, "InputError", /at most 64 bytes, got 2000/);
    await bad({ size: mini.length + 10 ** 6, read }, "FormatError", /./);
    await bad({ name: "x", size: 1000, read: async () => new Uint8Array(0) }, "FormatError", /x: truncated/);
    for (const other of [null, 5, true, {}, [], [1], [{}], () => {}, Symbol("x"), { size: 5 }, { bucket: 1 }, new Map(), new Date()])
      await bad(other as object, "InputError", /expected a path, a URL/);
  });

  it("an object whose read never ends, until the signal fires", async () => {
    for (const source of [
      { size: 1000, read: () => new Promise<Uint8Array>(() => {}) },
      { size: mini.length, read: async (at: number, n: number) => mini.slice(at, at + n), readInto: () => new Promise<void>(() => {}) },
    ]) {
      const control = new AbortController();
      const loading = load(source, { signal: control.signal });
      setTimeout(() => control.abort("enough"), 20);
      await assert.rejects(loading, { name: "AbortError", cause: "enough" });
    }
  });

  describe("an address", () => {
    let server: BadServer;
    const options = { network: IMPATIENT };
    const at = (repo: string, name: string): string => `${server.hub}/org/${repo}/resolve/main/${name}`;
    before(async () => {
      server = await serve({ "org/split": filesOf(validSplit()), "org/shards": filesOf(validSharded()) });
    });
    after(() => server.close());

    it("of any part of a split GGUF", async () => {
      for (const name of PART_NAMES) assert.deepEqual(await smallTokens(at("split", name), options), small.gguf);
      const token = "hf_SECRET";
      server.set({ token });
      server.log.length = 0;
      assert.deepEqual(await smallTokens(`${at("split", PART_NAMES[0])}?x=1`, { ...options, token }), small.gguf);
      const asked = server.log.filter((r) => r.host === "hub");
      assert.ok(asked.length >= 2 && asked.every((r) => r.url.endsWith("?x=1") && r.authorization === `Bearer ${token}`));
      server.set({});
    });

    it("of a folder with shards, of one of them, of their index", async () => {
      for (const name of ["", SHARD_NAMES[1], "model.safetensors.index.json"])
        assert.deepEqual(await smallTokens(at("shards", name), options), small.folder);
    });

    it("and asks for nothing outside its folder, whatever an index or a name says", async () => {
      const index = (shard: string): Uint8Array =>
        new TextEncoder().encode(JSON.stringify({ weight_map: { "model.embedding_norm.weight": shard } }));
      for (const shard of [
        "../x.safetensors",
        "/x.safetensors",
        "//evil/x.safetensors",
        `${server.cdn}/x.safetensors`,
        "a//b",
        ".",
        "x?y",
        "x%2fy",
      ]) {
        server.replace("org/shards", "model.safetensors.index.json", index(shard));
        server.log.length = 0;
        await assert.rejects(load(at("shards", ""), options), { name: "FormatError", message: /name of a shard in the same folder/ });
        const asked = server.log.map((r) => r.url.slice("/org/shards/resolve/main/".length));
        const mayAsk = new Set(["config.json", "model.safetensors", "model.safetensors.index.json"]);
        assert.ok(asked.length > 0 && asked.every((path) => mayAsk.has(path)), `${shard}: ${asked}`);
      }
    });
  });
});
