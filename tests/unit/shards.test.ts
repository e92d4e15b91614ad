// Checkpoints in several files: what an index may say, how the parts of a split GGUF find each other, and what a path to one of them means.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect, load } from "lfm2-wasm";
import { fromPreset, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { ggufPart } from "../../src/weights/gguf-name.ts";
import { INDEX_NAME, readShards } from "../../src/weights/shards.ts";
import { bytesSource, type Folder, isPlainPath } from "../../src/weights/source.ts";
import { type Files, validGguf, validRepo, validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { PART_NAMES, SHARD_NAMES, writeFiles } from "../bad-files/write.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";

/** A folder in memory, without a list of its files. */
const folderOf = (files: Files): Folder => ({
  name: "folder",
  open: async (path) => {
    const bytes = Object.hasOwn(files, path) ? files[path] : undefined;
    return bytes instanceof Uint8Array ? bytesSource(bytes, path) : undefined;
  },
});
const text = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

describe("paths inside a folder", () => {
  it("are plain names, one below the other", () => {
    for (const path of ["a", "model-00001-of-00002.safetensors", "a/b.c/d", "..a", "a..", "-", "_.-"]) assert.ok(isPlainPath(path), path);
    const bad = [
      "",
      ".",
      "..",
      "a/..",
      "../a",
      "a//b",
      "/a",
      "a/",
      "a\\b",
      "c:a",
      "http://a",
      "a?b",
      "a#b",
      "a%2eb",
      "a b",
      "a\0b",
      "ä",
      "a\n",
    ];
    for (const path of [...bad, "x".repeat(1025)]) assert.ok(!isPlainPath(path), path);
  });
});

describe("shards", () => {
  it("give the tensors that the index lists, each with its file, and nothing else", async () => {
    const files = validSharded();
    const weights = await readShards(folderOf(files));
    assert.equal(weights?.tensors.size, 21);
    assert.deepEqual(
      weights?.sources.map((s) => s.name),
      SHARD_NAMES,
    );
    const one = await openCheckpoint(folderOf(validRepo()));
    for (const [name, tensor] of one.tensors) {
      const got = weights?.tensors.get(name);
      assert.deepEqual([got?.type, got?.shape, got?.bytes], [tensor.type, tensor.shape, tensor.bytes]);
      assert.ok(SHARD_NAMES.includes(got?.source.name ?? ""));
    }
    const index = JSON.parse(new TextDecoder().decode(files[INDEX_NAME] as Uint8Array)) as { weight_map: Record<string, string> };
    delete index.weight_map["model.embedding_norm.weight"];
    const fewer = await readShards(folderOf({ ...files, [INDEX_NAME]: text(index) }));
    assert.equal(fewer?.tensors.size, 20);
    assert.equal(await readShards(folderOf(validRepo())), undefined);
  });

  it("name the shard in a sentence about a dtype", async () => {
    const files = validSharded();
    const second = files[SHARD_NAMES[1]] as Uint8Array;
    for (const dtype of ["F8_E4M3", "F8_E5M2", "I8", "U8"]) {
      const end = 8 + Number(Buffer.from(second).readBigUInt64LE(0));
      const json = JSON.parse(Buffer.from(second.subarray(8, end)).toString()) as Record<string, { dtype: string; shape: number[] }>;
      const [name, entry] = Object.entries(json).find(([n]) => n.includes("q_proj")) ?? assert.fail();
      entry.dtype = dtype;
      entry.shape[0]! *= 2; // the same bytes
      const bytes = Buffer.from(JSON.stringify(json).padEnd(end - 8));
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(bytes.length));
      const folder = folderOf({ ...files, [SHARD_NAMES[1]]: Buffer.concat([size, bytes, second.subarray(end)]) });
      await assert.rejects(load(folder), {
        name: "UnsupportedError",
        message: `[lfm2] ${SHARD_NAMES[1]}: tensor "${name}" has dtype "${dtype}"; expected one of F32, F16, BF16. Use the bf16 checkpoint or a GGUF.`,
      });
    }
  });

  it("are read ahead: the next tensor is on its way while one is packed", async () => {
    const files = validSharded();
    const ahead: number[] = [];
    let begun = 0;
    const folder: Folder = {
      name: "folder",
      open: async (path) => {
        const source = await folderOf(files).open(path);
        if (!source) return undefined;
        const read: typeof source.read = async (offset, length) => {
          const number = ++begun;
          const bytes = await source.read(offset, length);
          // before the turn of the event loop that follows a read, and the packing behind it
          if (path.startsWith("model-") && offset > 0) setImmediate(() => ahead.push(begun - number));
          return bytes;
        };
        return { name: source.name, size: source.size, read };
      },
    };
    (await load(folder)).dispose();
    assert.deepEqual(ahead, [...Array<number>(20).fill(1), 0]);
  });

  it("are read file after file, each from front to back, and load to the same model", async () => {
    const reads: [string, number][] = [];
    const files = validSharded();
    const folder: Folder = {
      name: "folder",
      open: async (path) => {
        const source = await folderOf(files).open(path);
        if (!source) return undefined;
        const read: typeof source.read = (offset, length) => {
          reads.push([path, offset]);
          return source.read(offset, length);
        };
        return { name: source.name, size: source.size, read };
      },
    };
    const seen: string[] = [];
    const model = await load(folder, { onProgress: ({ file }) => seen.push(file) });
    model.dispose();
    const data = reads.filter(([path, offset]) => path.startsWith("model-") && offset > 0);
    const order = data.map(([path, offset]) => (path === SHARD_NAMES[0] ? 0 : 2 ** 40) + offset);
    assert.deepEqual(
      order,
      [...order].sort((a, b) => a - b),
    );
    assert.equal(data.length, 21);
    assert.deepEqual([...new Set(seen)], SHARD_NAMES);
  });

  it("an index under mutation ends with one of our errors, or with shards of the folder", async () => {
    const files = validSharded();
    const valid = files[INDEX_NAME] as Uint8Array;
    const opened: string[] = [];
    const seen = await fuzz(valid, valid.length, pick({ gate: 20_000, full: 2_000_000 }), (bytes) => {
      const folder = folderOf({ ...files, [INDEX_NAME]: bytes });
      return readShards({
        name: "folder",
        open: (path) => {
          opened.push(path);
          return folder.open(path);
        },
      });
    });
    assert.ok(opened.every(isPlainPath));
    assert.ok(seen.accepted > 5 && seen.refused > 1000, JSON.stringify(seen));
  });
});

describe("a split GGUF", () => {
  it("is known by its name", () => {
    assert.deepEqual(ggufPart("LFM2-1.2B-F16-00002-of-00003.gguf"), { stem: "LFM2-1.2B-F16", part: 2, parts: 3 });
    assert.deepEqual(ggufPart("https://host/org/model/resolve/main/m-00001-of-00002.gguf"), { stem: "m", part: 1, parts: 2 });
    assert.deepEqual(ggufPart("C:\\models\\m-00001-of-00002.gguf"), { stem: "m", part: 1, parts: 2 });
    for (const name of ["m.gguf", "m-1-of-2.gguf", "-00001-of-00002.gguf", "m-00001-of-00002.safetensors", "m-00001-of-00002.gguf.part"])
      assert.equal(ggufPart(name), undefined, name);
  });

  it("needs a way to its other parts", async () => {
    for (const [i, name] of PART_NAMES.entries()) {
      const part = bytesSource(validSplit()[name] as Uint8Array, name);
      await assert.rejects(
        load(part),
        { name: "UnsupportedError", code: "split", message: /2 files.*one of them alone.*gguf-split/ },
        `${i}`,
      );
      await assert.rejects(load({ ...part, name: "model.gguf" }), { name: "UnsupportedError", message: /NAME-00001-of-00002\.gguf/ });
      const model = await load({ ...part, sibling: (beside) => folderOf(validSplit()).open(beside) });
      assert.equal(model.info.name, "tiny");
      model.dispose();
    }
  });
});

describe("a path", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-shards-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("of any shard, of the index, or of the folder means the checkpoint", async () => {
    const to = writeFiles(join(dir, "sharded"), validSharded());
    const want = JSON.stringify(await inspect(to));
    for (const name of [...SHARD_NAMES, INDEX_NAME]) assert.equal(JSON.stringify(await inspect(join(to, name))), want, name);
    const one = writeFiles(join(dir, "one"), validRepo());
    assert.equal((await inspect(join(one, "model.safetensors"))).tensors.length, 21);
    writeFileSync(join(one, "adapter.safetensors"), "");
    await assert.rejects(inspect(join(one, "adapter.safetensors")), {
      name: "UnsupportedError",
      message: /"adapter\.safetensors".*pass the folder/,
    });
  });

  it("of any part, or of the folder, means the whole split GGUF", async () => {
    const to = writeFiles(join(dir, "split"), { ...validSplit(), "mmproj-model.gguf": new Uint8Array(3), "README.md": new Uint8Array(3) });
    for (const path of [to, ...PART_NAMES.map((name) => join(to, name))]) {
      const { format, tensors, name, hasTokenizer, hasChatTemplate } = await inspect(path);
      assert.deepEqual([format, tensors.length, name, hasTokenizer, hasChatTemplate], ["gguf", 21, "tiny", true, true], path);
    }
  });

  it("of a folder means its only GGUF; several are for the caller to choose from", async () => {
    const to = writeFiles(join(dir, "ggufs"), { "config.json": text({ model_type: "lfm2" }), "a-Q8_0.GGUF": validGguf() });
    assert.equal((await inspect(to)).format, "gguf", "also beside a config.json without weights");
    writeFiles(to, { "a-Q8_0.gguf": validGguf(), "b.gguf": validGguf() });
    await assert.rejects(inspect(to), {
      name: "InputError",
      code: "several-models",
      message: /got 2: a-Q8_0\.gguf, b\.gguf\. Pass the path/,
    });
    const empty = writeFiles(join(dir, "empty"), { "README.md": new Uint8Array(1) });
    await assert.rejects(inspect(empty), { name: "FormatError", code: "missing-file", message: /got none/ });
    await assert.rejects(inspect(folderOf({})), { name: "FormatError", code: "missing-file" });
    writeFiles(empty, { "config.json": text({ model_type: "lfm2" }) });
    await assert.rejects(inspect(empty), { name: "FormatError", code: "missing-file", message: /a config\.json alone/ });
    writeFiles(empty, { "config.json": text({ model_type: "mistral" }) });
    await assert.rejects(inspect(empty), { name: "UnsupportedError", code: "model-type", message: /expected "lfm2", got "mistral"/ });
  });

  it("of a GGUF with the final norm under its newer name gives the same tensors", async () => {
    const [older, newer] = ["token_embd_norm", "output_norm"].map((finalNorm) => {
      const out = join(dir, `${finalNorm}.gguf`);
      writeGguf(fromPreset("tiny-deep", 1), { type: "Q8_0", out, finalNorm });
      return out;
    });
    const tensors = async (path = ""): Promise<unknown> => {
      const checkpoint = await openCheckpoint(await openPath(path));
      await checkpoint.close();
      return [...checkpoint.tensors].map(([name, t]) => [name, t.type, t.shape, t.bytes]);
    };
    assert.deepEqual(await tensors(newer), await tensors(older));
  });
});
