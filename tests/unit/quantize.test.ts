// Writing a quantized GGUF: the bits that a load packs, everything that the source says, and no trace of what did not come to its end.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import { presetOf, writeCheckpoint } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { openPath } from "../../src/adapters/node/files.ts";
import { createFile } from "../../src/adapters/node/sink.ts";
import { Lfm2Error, StorageError } from "../../src/errors.ts";
import type { Platform } from "../../src/lfm2.ts";
import { nextMacrotask } from "../../src/macrotask.ts";
import { type QuantizedDType, type QuantizeOptions, quantizeTo } from "../../src/quantize/quantize.ts";
import { type GgufValue, readGguf } from "../../src/weights/gguf.ts";
import { GGUF_TYPE, type GgufEntry, ggufHeader } from "../../src/weights/gguf-writer.ts";
import type { FileSink } from "../../src/weights/sink.ts";
import { bytesSource } from "../../src/weights/source.ts";
import { checkpointFolder, feed, ggufFile, kernels, sameBits, withModel } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { Watch } from "./watched-source.ts";

const platform: Platform = { runtime: "node", open: openPath, kernels };
const IDS = Array.from({ length: 24 }, (_, i) => (i * 37 + 5) % 290);

/** Logits of a model, as they are or loaded with a dtype. */
const logits = (path: string, dtype?: QuantizedDType): Promise<Float32Array> =>
  withModel(path, { dtype, chunkTokens: 64 }, (model) => feed(model, IDS));

const run = (...args: string[]) => spawnSync(process.execPath, ["dist/cli.js", "quantize", ...args], { encoding: "utf8" });

describe("quantizing to a file", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-quantize-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const out = (name = "out.gguf"): string => join(dir, name);
  const left = (): string[] => readdirSync(dir);

  async function write(source: string, options: QuantizeOptions, path = out()) {
    return quantizeTo(platform, source, await createFile(path), options);
  }

  for (const dtype of ["q4", "q8"] as const) {
    it(`lfm2 quantize: the bundled model's original in ${dtype} has the logits of a load with that dtype, and its text, template and settings`, async () => {
      const { stdout, stderr, status } = run("models/lfm2-mini", out(), "--dtype", dtype, "--json");
      assert.equal(status, 0, stderr);
      const { name, tensors, bytes, parameterCount } = JSON.parse(stdout) as Record<string, unknown>;
      assert.deepEqual(
        { name, tensors, bytes },
        {
          name: "lfm2-mini",
          tensors: { [dtype === "q4" ? "Q4_0" : "Q8_0"]: 37, F32: 22 },
          bytes: statSync(out()).size,
        },
      );
      assert.deepEqual(left(), ["out.gguf"]);
      using asked = await load("models/lfm2-mini", { dtype });
      using written = await load(out());
      assert.equal(written.info.parameterCount, parameterCount);
      assert.deepEqual(written.info.dtypes, [dtype]);
      const [a, b] = [await asked.forward({ inputIds: IDS }), await written.forward({ inputIds: IDS })];
      assert.ok(sameBits(a.logits.data as Float32Array, b.logits.data as Float32Array));
      for (const text of ["Once upon a time, 42 <|im_end|> wörld\n\n  x", "<think>"])
        for (const controlTokens of [false, true])
          assert.deepEqual(
            written.tokenizer.encode(text, { controlTokens, addSpecialTokens: true }),
            asked.tokenizer.encode(text, { controlTokens, addSpecialTokens: true }),
          );
      assert.deepEqual(written.info.sampling, asked.info.sampling);
      const ask = [{ role: "user", content: "What is 3 + 4?" }] as const;
      assert.equal((await written.generate(ask, { maxTokens: 12 })).text, (await asked.generate(ask, { maxTokens: 12 })).text);
      const { normEps: _, ...config } = asked.config; // an f32 in the file
      assert.deepEqual({ ...written.config, normEps: undefined }, { ...config, normEps: undefined });
      assert.ok(Math.abs(written.config.normEps / asked.config.normEps - 1) < 1e-7);
    });
  }

  it("shards, an f16 original, a GGUF of other types, of old names: all as they are loaded", async () => {
    const shards = join(dir, "shards");
    writeCheckpoint(presetOf("tiny-quant"), { seed: 1, dtype: "bf16", dir: shards, maxShardBytes: 300_000 });
    assert.ok(readdirSync(shards).length > 4);
    for (const [i, source] of [
      shards,
      checkpointFolder("tiny-quant", "f16"),
      ggufFile("tiny-quant", "MIXED"),
      ggufFile("tiny-quant", "Q5_K_M"),
    ].entries())
      for (const dtype of ["q8", "q4"] as const) {
        const path = out(`${i}-${dtype}.gguf`);
        await write(source, { dtype }, path);
        assert.ok(sameBits(await logits(path), await logits(source, dtype)), `${source} ${dtype}`);
      }
  });

  it("embedding: stays at 8 bits when asked", async () => {
    const { tensors } = await write(checkpointFolder("tiny-quant"), { dtype: "q4", embedding: "q8" });
    assert.equal(tensors.Q8_0, 1);
    const { tensors: stored } = await readGguf(bytesSource(readFileSync(out()), "out"));
    assert.equal(stored.get("token_embd.weight")?.type, "Q8_0");
    assert.equal(stored.get("blk.0.ffn_norm.weight")?.type, "F32");
    assert.equal(stored.get("blk.0.ffn_down.weight")?.type, "Q4_0");
  });

  it("keeps a GGUF's metadata, each value with its type, but for what it changes", async () => {
    const source = ggufFile("tiny-quant", "BF16", { tokenizer: "tests/golden/data/text/tokenizer.json" });
    await write(source, { dtype: "q8" });
    const [from, to] = [await readGguf(bytesSource(readFileSync(source), "in")), await readGguf(bytesSource(readFileSync(out()), "out"))];
    assert.ok(from.metadata.size > 20);
    for (const [key, value] of from.metadata) {
      if (key === "general.file_type") continue;
      assert.deepEqual(to.metadata.get(key), value, key);
      assert.equal(to.types.get(key), from.types.get(key), key);
    }
    assert.equal(to.metadata.get("general.file_type"), 7);
    assert.equal(to.metadata.size, from.metadata.size);
  });

  it("a header: every type of value comes back as it went", async () => {
    const entries: GgufEntry[] = [
      ["general.alignment", GGUF_TYPE.u32, 32],
      ["u8", GGUF_TYPE.u8, 255],
      ["i8", GGUF_TYPE.i8, -128],
      ["u16", GGUF_TYPE.u16, 65_535],
      ["i16", GGUF_TYPE.i16, -2],
      ["i32", GGUF_TYPE.i32, -3],
      ["f32", GGUF_TYPE.f32, Math.fround(0.1)],
      ["bool", GGUF_TYPE.bool, true],
      ["string", GGUF_TYPE.string, "wörld\u0000"],
      ["u64", GGUF_TYPE.u64, 2n ** 64n - 1n],
      ["i64", GGUF_TYPE.i64, -(2n ** 63n)],
      ["f64", GGUF_TYPE.f64, Math.PI],
      ["strings", GGUF_TYPE.string, Array.from({ length: 20_000 }, (_, i) => `token ${i}`)],
      ["floats", GGUF_TYPE.f32, [1.5, -0.25]],
      ["bools", GGUF_TYPE.bool, [true, false]],
    ];
    const header = ggufHeader(entries, [{ name: "x", type: "F32", shape: [2, 3], bytes: 24 }]);
    const file = new Uint8Array(header.length + 32);
    file.set(header);
    const { metadata, types, tensors } = await readGguf(bytesSource(file, "header"));
    assert.deepEqual(
      [...metadata],
      entries.map(([key, , value]): [string, GgufValue] => [key, value]),
    );
    assert.deepEqual(
      [...types],
      entries.map(([key, type]) => [key, type]),
    );
    assert.deepEqual(tensors.get("x")?.shape, [2, 3]);
  });

  it("reads no more than a window at a time, each byte of a tensor once", async () => {
    const folder = await openPath(checkpointFolder("tiny-quant"));
    let [most, sum] = [0, 0];
    const watched = {
      name: folder.name,
      open: async (path: string) => {
        const file = "open" in folder ? await folder.open(path) : undefined;
        if (!file || !path.endsWith(".safetensors")) return file;
        return {
          name: file.name,
          size: file.size,
          close: () => file.close?.() ?? Promise.resolve(),
          read: (offset: number, length: number) => {
            if (offset > 20_000) [most, sum] = [Math.max(most, length), sum + length];
            return file.read(offset, length);
          },
        };
      },
    };
    const { sourceBytes } = await quantizeTo(platform, watched, await createFile(out()), { dtype: "q4" });
    assert.ok(most <= 1 << 20 && sum <= sourceBytes && sum > 0.9 * sourceBytes, `${most}, ${sum} of ${sourceBytes}`);
  });

  it("does not replace a file unless told to, and leaves it alone when it fails", async () => {
    writeFileSync(out(), "precious");
    const { status, stderr } = run("models/lfm2-mini", out());
    assert.equal(status, 1);
    assert.match(stderr, /^\[lfm2\] .*expected no file of this name, got one\. .*--force/);
    assert.equal(readFileSync(out(), "utf8"), "precious");
    assert.equal(run(join(dir, "nowhere"), out(), "--force").status, 1);
    assert.equal(readFileSync(out(), "utf8"), "precious");
    assert.deepEqual(left(), ["out.gguf"]);
    assert.equal(run("models/lfm2-mini", out(), "--force").status, 0);
    assert.equal(readFileSync(out(), "latin1").slice(0, 4), "GGUF");
    assert.deepEqual(left(), ["out.gguf"]);
  });

  it("a file that appears meanwhile is not replaced", async () => {
    const sink = await createFile(out());
    writeFileSync(out(), "precious");
    await assert.rejects(quantizeTo(platform, checkpointFolder("tiny-quant"), sink, { dtype: "q4" }), {
      name: "StorageError",
      code: "exists",
    });
    assert.equal(readFileSync(out(), "utf8"), "precious");
    assert.deepEqual(left(), ["out.gguf"]);
  });

  it("refuses words that it has no use for, and other names", () => {
    for (const args of [[], ["models/lfm2-mini"], ["models/lfm2-mini", out("x.bin")], ["a", out(), "b"], ["a", out(), "--dtype", "q5"]]) {
      const { status, stderr } = run(...args);
      assert.equal(status, 2, stderr);
      assert.match(stderr, /^lfm2: /);
    }
    assert.deepEqual(left(), []);
  });

  it("what has no form in the file is refused, and nothing is left", async () => {
    await assert.rejects(write(checkpointFolder("tiny-conv-only"), { dtype: "q4" }), { name: "UnsupportedError", message: /conv_bias/ });
    await assert.rejects(write(checkpointFolder("tiny-attn-first"), { dtype: "q4" }), {
      name: "UnsupportedError",
      message: /multiple of 32 values, got 208/,
    });
    await assert.rejects(write(checkpointFolder("tiny-quant"), { dtype: "q5" as QuantizedDType }), {
      name: "InputError",
      message: /"q4" or "q8", got "q5"/,
    });
    assert.deepEqual(left(), []);
  });

  /** A sink that acts before its n-th operation, on a real file. */
  function watchedSink(sink: FileSink, act: (n: number) => void): FileSink {
    let n = 0;
    return {
      write: async (bytes) => {
        act(++n);
        await sink.write(bytes);
      },
      commit: async () => {
        act(++n);
        await sink.commit();
      },
      discard: () => sink.discard(),
    };
  }

  it("aborted or failing at any operation, it leaves no file and nothing open", async () => {
    const source = checkpointFolder("tiny-quant");
    const count = async (): Promise<[number, number]> => {
      const watch = new Watch();
      let writes = 0;
      const sink = watchedSink(await createFile(out()), () => writes++);
      await quantizeTo(platform, watch.wrap(await openPath(source)), sink, { dtype: "q4" });
      rmSync(out());
      return [watch.operations, writes];
    };
    const [reads, writes] = await count();
    assert.ok(reads > 30 && writes > 50, `${reads}, ${writes}`);
    const step = pick({ gate: 9, full: 1 });
    const attempt = async (at: number, isRead: boolean, isAbort: boolean): Promise<void> => {
      const controller = new AbortController();
      const fault = new StorageError("a fault of the test");
      const act = (n: number): undefined => {
        if (n !== at) return;
        if (!isAbort) throw fault;
        controller.abort();
      };
      const watch = new Watch((n) => (isRead ? act(n) : undefined));
      const sink = watchedSink(await createFile(out()), (n) => (isRead ? undefined : act(n)));
      const what = `${isAbort ? "abort" : "fault"} at ${isRead ? "read" : "write"} ${at}`;
      const error: unknown = await quantizeTo(platform, watch.wrap(await openPath(source)), sink, {
        dtype: "q4",
        signal: controller.signal,
      }).then(
        () => assert.fail(what),
        (e) => e,
      );
      assert.ok(error instanceof Lfm2Error, what);
      assert.equal(error.name, isAbort ? "AbortError" : "StorageError", what);
      await nextMacrotask();
      assert.equal(watch.open, 0, what);
      assert.deepEqual(left(), [], what);
    };
    for (let at = 1; at <= reads; at += step) for (const isAbort of [true, false]) await attempt(at, true, isAbort);
    for (let at = 1; at < writes; at += 2 * step) for (const isAbort of [true, false]) await attempt(at, false, isAbort);
    await attempt(writes, false, false); // the commit itself
  });
});
