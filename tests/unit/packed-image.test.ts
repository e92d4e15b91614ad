// Packed images: a second start with the same bits and without the source's; what is damaged, stale or of another engine is never misread, and whatever the store does, the load succeeds.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import { presetOf, writeCheckpoint } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { diskImages } from "../../src/adapters/node/images.ts";
import { AbortError, StorageError } from "../../src/errors.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { type LoadModelOptions as CoreOptions, loadModel } from "../../src/models/load-model.ts";
import type { ImageStore } from "../../src/weights/packed-image.ts";
import { isWorthAnImage, resolveWeights, WeightList } from "../../src/weights/plan.ts";
import { type ByteSource, bytesSource, type Folder } from "../../src/weights/source.ts";
import type { StoredTensor } from "../../src/weights/tensor.ts";
import { feed, kernels, miniGguf, sameBits, variants } from "../golden/support.ts";
import { imageChecksum } from "../reference/checksum.ts";
import { pick } from "../scale.ts";

/** A shape whose image has some kilobytes: the committed ones are of it. */
const MICRO = {
  ...presetOf("tiny-attn-only"),
  D: 32,
  H: 2,
  G: 1,
  F: 64,
  V: 64,
  layers: "cA",
  ff: { ff: 64, auto: false, multiplier: 1, multipleOf: 32 },
};
const FIXTURES = join("tests", "unit", "data");
const IDS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32];

/** Images in memory, and what was asked of them. */
class MemoryImages implements ImageStore {
  readonly files: Map<string, Uint8Array> = new Map();
  readonly calls: string[] = [];
  /** Throws before an operation. */
  fault: (what: string) => void = () => {};

  open(name: string): Promise<ByteSource | undefined> {
    return this.#at("open", () => {
      const bytes = this.files.get(name);
      return bytes && this.#watched(bytesSource(bytes, name));
    });
  }

  #watched(source: ByteSource): ByteSource {
    const { name, size } = source;
    return { name, size, read: (offset, length) => this.#at("read", () => source.read(offset, length)) };
  }

  async names(): Promise<string[]> {
    return [...this.files.keys()];
  }

  create(name: string, sizeBytes: number) {
    return this.#at("create", () => {
      const parts: Uint8Array[] = [];
      return {
        write: (bytes: Uint8Array) => this.#at("write", () => void parts.push(bytes.slice())),
        commit: () =>
          this.#at("commit", () => {
            const whole = Buffer.concat(parts);
            assert.equal(whole.length, sizeBytes);
            this.files.set(name, new Uint8Array(whole));
          }),
        discard: () => this.#at("discard", () => {}),
      };
    });
  }

  remove(name: string): Promise<void> {
    return this.#at("remove", () => void this.files.delete(name));
  }

  async #at<T>(what: string, run: () => T | Promise<T>): Promise<T> {
    this.calls.push(what);
    this.fault(what);
    return run();
  }

  get only(): [name: string, bytes: Uint8Array] {
    assert.equal(this.files.size, 1);
    return [...this.files][0]!;
  }
}

/** A folder whose weights are known by a text that does not change with the machine. */
function identified(folder: Folder, identity: string | undefined, onRead: () => void = () => {}): Folder {
  return {
    name: folder.name,
    open: async (path) => {
      const source = await folder.open(path);
      if (!source) return undefined;
      const read: ByteSource["read"] = (...range) => {
        if (range[0] > 0 && path.endsWith(".safetensors")) onRead();
        return source.read(...range);
      };
      return {
        name: source.name,
        size: source.size,
        identity: path.endsWith(".safetensors") ? identity : undefined,
        read,
        close: () => source.close?.() ?? Promise.resolve(),
      };
    },
  };
}

type LoadModelOptions = Omit<CoreOptions, "images"> & { readonly images?: ImageStore };

interface Loaded {
  readonly logits: Float32Array;
  readonly packedImage: "read" | "written" | undefined;
  /** Reads of weights from the source. */
  readonly reads: number;
}

describe("packed images", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-images-"));
    writeCheckpoint(MICRO, { seed: 1, dtype: "bf16", dir: join(dir, "micro") });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  async function run(options: LoadModelOptions, identity: string | undefined = "micro 1", path = join(dir, "micro")): Promise<Loaded> {
    let reads = 0;
    const checkpoint = await openCheckpoint(identified((await openPath(path)) as Folder, identity, () => reads++));
    try {
      const { model, packedImage } = await loadModel(checkpoint, kernels, {
        packed: true,
        ...options,
        images: options.images && (() => Promise.resolve(options.images)),
      });
      try {
        return { logits: feed(model, IDS), packedImage, reads };
      } finally {
        model.dispose();
      }
    } finally {
      await checkpoint.close();
    }
  }

  for (const dtype of ["q4", "q8", "f16", undefined] as const)
    it(`${dtype ?? "as stored"}: the second load reads the image alone, and gives the same bits`, async () => {
      const images = new MemoryImages();
      const plain = await run({ dtype });
      assert.equal(plain.packedImage, undefined);
      const first = await run({ dtype, images });
      assert.equal(first.packedImage, "written");
      const second = await run({ dtype, images });
      assert.equal(second.packedImage, "read");
      assert.ok(first.reads > 10 && second.reads === 0, `${first.reads}, ${second.reads}`);
      assert.ok(sameBits(plain.logits, first.logits) && sameBits(plain.logits, second.logits));
    });

  it("of a GGUF with Q4_K and Q6_K: the second load reads the image alone, and gives the same bits", async () => {
    const path = miniGguf("Q4_K_M");
    const images = new MemoryImages();
    const results = [];
    for (const packed of [false, true, true]) {
      let reads = 0;
      const source = (await openPath(path)) as ByteSource;
      const read: ByteSource["read"] = (...range) => {
        if (range[0] > 2 ** 20) reads++; // behind the header
        return source.read(...range);
      };
      const checkpoint = await openCheckpoint({ name: source.name, size: source.size, identity: "k 1", read });
      const { model, packedImage } = await loadModel(checkpoint, kernels, { packed, images: async () => images });
      results.push({ packedImage, isRead: reads > 0, logits: feed(model, IDS) });
      model.dispose();
      await checkpoint.close();
      await source.close?.();
    }
    assert.deepEqual(
      results.map(({ packedImage, isRead }) => [packedImage, isRead]),
      [
        [undefined, true],
        ["written", true],
        ["read", false],
      ],
    );
    for (const { logits } of results) assert.ok(sameBits(logits, results[0]!.logits));
    const header = new TextDecoder("latin1").decode(images.only[1].subarray(0, 1 << 16));
    assert.ok(header.includes("q4k") && header.includes("q6k"));
  });

  it("is kept by default only where it pays: not for so small a model", async () => {
    const images = new MemoryImages();
    assert.equal((await run({ dtype: "q4", images, packed: undefined })).packedImage, undefined);
    assert.deepEqual(images.calls, []);
    assert.equal((await run({ dtype: "q4", images, packed: false })).packedImage, undefined);
    assert.deepEqual(images.calls, []);
  });

  it("is worth its place from 16 MiB on that were converted, and not of what moves as it is", () => {
    const source = bytesSource(new Uint8Array(0), "x");
    const isWorth = (rows: number, type: StoredTensor["type"], dtype: "q4" | "q8"): boolean => {
      const list = new WeightList();
      list.matrix(1024, ["w", rows]);
      const shape = [rows, 1024];
      const tensors = new Map([["w", { name: "w", type, shape, source, offsetBytes: 0, bytes: 0 }]]);
      resolveWeights(list, { tensors, unsupported: new Map() }, dtype);
      return isWorthAnImage(list, tensors);
    };
    const rows = (bytes: number): number => Math.ceil(bytes / 144 / 32) * 8; // 144 bytes a block of 8 rows
    assert.deepEqual([isWorth(rows(16 << 20), "BF16", "q4"), isWorth(rows(16 << 20) - 8, "BF16", "q4")], [true, false]);
    assert.deepEqual([isWorth(rows(64 << 20), "Q4_0", "q4"), isWorth(rows(64 << 20), "Q4_0", "q8")], [false, true]);
  });

  it("belongs to its source, its dtype and its layers: another has another, a source that knows nothing of itself has none", async () => {
    const images = new MemoryImages();
    assert.equal((await run({ dtype: "q4", images })).packedImage, "written");
    assert.equal((await run({ dtype: "q4", images }, "micro 2")).packedImage, "written");
    assert.equal((await run({ dtype: "q8", images })).packedImage, "written");
    assert.equal(images.files.size, 3);
    const before = images.calls.length;
    const checkpoint = await openCheckpoint((await openPath(join(dir, "micro"))) as Folder);
    const unknown = {
      ...checkpoint,
      tensors: new Map(
        [...checkpoint.tensors].map(
          ([k, t]) =>
            [
              k,
              {
                ...t,
                source: { ...t.source, name: t.source.name, size: t.source.size, identity: undefined, read: t.source.read.bind(t.source) },
              },
            ] as const,
        ),
      ),
    };
    const { model, packedImage } = await loadModel(unknown, kernels, { dtype: "q4", images: () => Promise.resolve(images), packed: true });
    model.dispose();
    await checkpoint.close();
    assert.equal(packedImage, undefined);
    assert.equal(images.calls.length, before);
  });

  it("an image under the right name but of other sources is replaced", async () => {
    const images = new MemoryImages();
    await run({ dtype: "q4", images });
    const [name, bytes] = images.only;
    await run({ dtype: "q4", images }, "micro 2");
    for (const other of images.files.keys()) if (other !== name) images.files.set(other, bytes);
    const { packedImage, logits } = await run({ dtype: "q4", images }, "micro 2");
    assert.equal(packedImage, "written");
    assert.ok(sameBits(logits, (await run({ dtype: "q4" })).logits));
  });

  it("a damaged image is removed and made again: every kind of damage, never a wrong bit", async () => {
    const images = new MemoryImages();
    const { logits } = await run({ dtype: "q8", images });
    const [name, whole] = images.only;
    const damages: [string, Uint8Array][] = [
      ["empty", new Uint8Array()],
      ["cut", whole.slice(0, -1)],
      ["half", whole.slice(0, whole.length >> 1)],
      ["longer", new Uint8Array([...whole, 0])],
      ["another file", new TextEncoder().encode("<html>not found</html>")],
    ];
    const step = Math.floor(whole.length / pick({ gate: 60, full: 4000 }));
    for (let at = 0; at < whole.length; at += step) {
      const flipped = whole.slice();
      flipped[at]! ^= 1 << (at % 8);
      damages.push([`byte ${at}`, flipped]);
    }
    for (const [what, bytes] of damages) {
      images.files.set(name, bytes);
      const got = await run({ dtype: "q8", images });
      // a space among those that pad the header may well be another: such a header is the same
      const isSame = got.packedImage === "read";
      assert.ok(!isSame || /^byte/.test(what), what);
      assert.ok(sameBits(got.logits, logits), what);
      assert.deepEqual(images.only[1].subarray(0, 8), whole.subarray(0, 8), what);
    }
  });

  /** An image taken apart. */
  function parts(bytes: Uint8Array): {
    header: Record<string, { shape: number[]; data_offsets: [number, number] }> & { __metadata__: Record<string, string> };
    data: Uint8Array;
  } {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    return { header: JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))), data: bytes.subarray(8 + length) };
  }

  it("is a safetensors file as docs/loading.md draws it, with the checksum of the reference", async () => {
    const images = new MemoryImages();
    await run({ dtype: "q4", images });
    const { header, data } = parts(images.only[1]);
    const { __metadata__: about, ...tensors } = header;
    assert.equal((images.only[1].length - data.length) % 64, 0);
    const entries = Object.entries(tensors);
    const { checksum, dtypes, ...rest } = about;
    assert.deepEqual(rest, { format: "lfm2-wasm packed image", version: "1", layout: "1", operand: rest.operand, sources: '["micro 1"]' });
    assert.equal(dtypes, entries.map(([, { shape }]) => (shape.length === 3 ? "q4" : "f32")).join(" "));
    assert.equal(
      checksum,
      imageChecksum(
        entries.map(
          ([
            ,
            {
              data_offsets: [from, to],
            },
          ]) => data.subarray(from, to),
        ),
      ),
    );
    assert.deepEqual(header["model.embed_tokens.weight"]?.shape, [8, 1, 144]);
    assert.deepEqual(header["model.layers.0.conv.conv.weight"]?.shape, [3, 32]);
  });

  /** The image as the other reading of int8 has it. */
  function otherOperand(bytes: Uint8Array): Uint8Array {
    const { header, data } = parts(bytes);
    const { __metadata__: about, ...tensors } = header;
    const turned = data.slice();
    const regions = Object.values(tensors).map(({ shape, data_offsets: [from, to] }) => {
      const region = turned.subarray(from, to);
      if (shape.length === 3) for (let i = 0; i < region.length; i++) if (i % 272 >= 16) region[i]! ^= 0x80;
      return region;
    });
    about.operand = about.operand === "signed" ? "unsigned" : "signed";
    about.checksum = imageChecksum(regions);
    const json = new TextEncoder().encode(JSON.stringify(header));
    const out = new Uint8Array(8 + json.length + turned.length);
    new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
    out.set(json, 8);
    out.set(turned, 8 + json.length);
    return out;
  }

  it("of an engine whose dot reads int8 otherwise is converted while it is read", async () => {
    const images = new MemoryImages();
    const { logits } = await run({ dtype: "q8", images });
    const [name, bytes] = images.only;
    images.files.set(name, otherOperand(bytes));
    const got = await run({ dtype: "q8", images });
    assert.equal(got.packedImage, "read");
    assert.ok(sameBits(got.logits, logits));
    const { header } = parts(bytes);
    header.__metadata__.operand = "sideways";
    images.files.set(
      name,
      Buffer.from(
        Buffer.from(bytes)
          .toString("latin1")
          .replace(/"operand":"(?:un)?signed"/, '"operand":"sideways"'),
        "latin1",
      ),
    );
    assert.equal((await run({ dtype: "q8", images })).packedImage, "written", "of a kind that nobody knows");
  });

  it("one build's image is read by the others", async () => {
    for (const dtype of ["q4", "q8"] as const) {
      const images = new MemoryImages();
      const { logits } = await run({ dtype, images, variant: "plain" });
      for (const variant of variants) {
        const got = await run({ dtype, images, variant });
        assert.equal(got.packedImage, "read");
        assert.ok(sameBits(got.logits, logits), `${dtype} ${variant}`);
      }
    }
  });

  it("a store that fails costs the image, never the load", async () => {
    const { logits } = await run({ dtype: "q4" });
    const images = new MemoryImages();
    await run({ dtype: "q4", images });
    const [name, bytes] = images.only;
    for (const what of ["open", "read", "create", "write", "commit", "remove", "discard"])
      for (const isThere of [true, false]) {
        images.files.clear();
        if (isThere) images.files.set(name, bytes);
        images.calls.length = 0;
        images.fault = (call) => {
          if (call === what || (what === "remove" && call === "read") || (what === "discard" && call === "write"))
            throw new StorageError(`no ${what}`, { code: "storage-full" });
        };
        const got = await run({ dtype: "q4", images });
        assert.ok(sameBits(got.logits, logits), what);
        if (["write", "commit"].includes(what) && !isThere) {
          assert.equal(got.packedImage, undefined);
          assert.ok(images.calls.includes("discard"));
        }
      }
    images.fault = () => {};
    images.create = () => Promise.resolve(undefined) as never;
    images.files.clear();
    assert.equal((await run({ dtype: "q4", images })).packedImage, undefined, "no room");
  });

  it("what is still being read when an image fails comes to its end before the weights are read in another way", async () => {
    const images = new MemoryImages();
    const { logits } = await run({ dtype: "q4", images });
    const [name, bytes] = images.only;
    const events: string[] = [];
    let reads = 0;
    images.open = async () => ({
      name,
      size: bytes.length,
      async read(offset, length) {
        if (offset === 0) return bytes.slice(offset, length);
        if (reads++ === 0) throw new StorageError("no more of it");
        await new Promise((resolve) => setTimeout(resolve, 20));
        events.push("image");
        return new Uint8Array(length).fill(0xff);
      },
    });
    const folder = identified((await openPath(join(dir, "micro"))) as Folder, "micro 1", () => events.push("source"));
    const checkpoint = await openCheckpoint(folder);
    const { model } = await loadModel(checkpoint, kernels, { dtype: "q4", packed: true, images: () => Promise.resolve(images) });
    assert.equal(reads, 2);
    assert.deepEqual(events.slice(0, 2), ["image", "source"]);
    assert.ok(sameBits(feed(model, IDS), logits));
    model.dispose();
    await checkpoint.close();
  });

  it("an abort while it is read or written ends the load, and leaves nothing half-written", async () => {
    for (const what of ["open", "read", "create", "write", "commit"]) {
      const images = new MemoryImages();
      if (what === "read") await run({ dtype: "q4", images });
      const controller = new AbortController();
      images.fault = (call) => {
        if (call === what) controller.abort();
      };
      const ends = await run({ dtype: "q4", images, signal: controller.signal }).then(
        () => "loaded",
        (error) => (error instanceof AbortError ? "aborted" : error),
      );
      assert.equal(ends, "aborted", what);
      assert.equal(images.files.size, what === "read" || what === "commit" ? 1 : 0, what);
      if (what === "write" || what === "create") assert.equal(images.calls.at(-1), "discard", what);
    }
  });

  describe("on a disk", () => {
    const folder = (): string => join(dir, "cache", "lfm2-wasm", "packed");
    beforeEach(() => rmSync(join(dir, "cache"), { recursive: true, force: true }));
    const image = (name: string, bytes: number, ageS: number): void => {
      mkdirSync(folder(), { recursive: true });
      writeFileSync(join(folder(), name), new Uint8Array(bytes));
      utimesSync(join(folder(), name), Date.now() / 1000 - ageS, Date.now() / 1000 - ageS);
    };

    async function local(images: ImageStore, path: string): Promise<Loaded["packedImage"]> {
      const checkpoint = await openCheckpoint(await openPath(path));
      try {
        const { model, packedImage } = await loadModel(checkpoint, kernels, {
          dtype: "q8",
          images: () => Promise.resolve(images),
          packed: true,
        });
        model.dispose();
        return packedImage;
      } finally {
        await checkpoint.close();
      }
    }

    it("a file that changed has another image, also where size and name are the same", async () => {
      const images = diskImages(folder());
      const path = join(dir, "changing");
      writeCheckpoint(MICRO, { seed: 1, dtype: "bf16", dir: path });
      assert.equal(await local(images, path), "written");
      assert.equal(await local(images, path), "read");
      const weights = join(path, "model.safetensors");
      const { size } = statSync(weights);
      writeCheckpoint(MICRO, { seed: 2, dtype: "bf16", dir: path });
      assert.equal(statSync(weights).size, size);
      assert.equal(await local(images, path), "written");
      assert.equal(readdirSync(folder()).length, 2);
      assert.ok(readdirSync(folder()).every((name) => /^[0-9a-f]{16}\.safetensors$/.test(name)));
    });

    it("keeps within its bound, the longest unused going first; removes what a writer that died left, and nothing else", async () => {
      image("0000000000000001.safetensors", 40_000, 300);
      image("0000000000000002.safetensors", 40_000, 200);
      image("0000000000000003.safetensors", 40_000, 100);
      image("0000000000000004.safetensors.1b4e28ba-2fa1-11d2-883f-0016d3cca427.partial", 10, 7200);
      image("0000000000000005.safetensors.1b4e28ba-2fa1-11d2-883f-0016d3cca427.partial", 10, 60);
      image("precious.txt", 10, 9000);
      const images = diskImages(folder(), 100_000);
      await (await images.open("0000000000000001"))?.close?.(); // used again
      const sink = await images.create("0000000000000006", 30_000);
      await sink?.write(new Uint8Array(30_000));
      await sink?.commit();
      assert.deepEqual(
        readdirSync(folder()).sort(),
        [
          "0000000000000001.safetensors",
          "0000000000000005.safetensors.1b4e28ba-2fa1-11d2-883f-0016d3cca427.partial",
          "0000000000000006.safetensors",
          "precious.txt",
        ]
          .concat(existsSync(join(folder(), "0000000000000003.safetensors")) ? ["0000000000000003.safetensors"] : [])
          .sort(),
      );
      assert.ok(!existsSync(join(folder(), "0000000000000002.safetensors")));
      assert.equal(await images.create("0000000000000007", 100_001), undefined, "larger than the bound");
      assert.equal(await images.open("00000000000000aa"), undefined);
      const left = await images.create("0000000000000008", 10);
      await left?.write(new Uint8Array(10));
      await left?.discard();
      assert.ok(!readdirSync(folder()).some((name) => name.startsWith("0000000000000008")));
    });
  });

  it("load(): in the cache's folder when asked, never without a cache; info tells", async () => {
    const cache = { dir: join(dir, "named"), packed: true };
    const texts: string[] = [];
    for (const expected of ["written", "read"] as const) {
      using model = await load("models/lfm2-mini", { dtype: "q4", cache });
      assert.equal(model.info.packedImage, expected);
      texts.push((await model.generate("Once upon a time", { maxTokens: 16, temperature: 0 })).text);
    }
    assert.equal(texts[0], texts[1]);
    assert.equal(readdirSync(join(dir, "named", ".lfm2-wasm", "packed")).length, 1);
    for (const none of [false, "auto", { dir: cache.dir, packed: false }] as const) {
      using model = await load("models/lfm2-mini", { dtype: "q4", cache: none });
      assert.equal(model.info.packedImage, undefined);
    }
    await assert.rejects(load("models/lfm2-mini", { cache: { packed: 1 as never } }), { name: "InputError", message: /cache: expected/ });
  });

  // Written in version 1 of the format, and committed: every later version reads them. They are never made anew.
  for (const dtype of ["f32", "bf16", "f16", "q8", "q4"] as const)
    it(`the committed image of version 1, ${dtype}, is read`, async () => {
      const images = new MemoryImages();
      const bytes = new Uint8Array(readFileSync(join(FIXTURES, `packed-image-1-${dtype}.safetensors`)));
      await run({ dtype, images }, "fixture");
      const [name] = images.only;
      images.files.set(name, bytes);
      const got = await run({ dtype, images }, "fixture");
      assert.equal(got.packedImage, "read");
      assert.ok(sameBits(got.logits, (await run({ dtype })).logits));
    });
});
