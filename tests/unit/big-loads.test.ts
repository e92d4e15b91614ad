// Loads at the published sizes, in the full run: every shape at 4 and 8 bits runs, and a load's bytes on their way stay within their bound; the gate does it at a small one.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { presetOf } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { configJson, tensorList } from "../../scripts/checkpoints/presets.mjs";
import type { Checkpoint } from "../../src/models/checkpoint.ts";
import { parseConfig } from "../../src/models/config.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { HttpSource } from "../../src/weights/http.ts";
import { Pool } from "../../src/weights/piece.ts";
import type { Fetch } from "../../src/weights/request.ts";
import { type ByteSource, readClipped } from "../../src/weights/source.ts";
import type { StoredTensor } from "../../src/weights/tensor.ts";
import { feed, greedy, kernels, sameBits } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { networkTo } from "./network.ts";

/** Random bf16 weights of deviation 0.02 or so, again and again: a file of any size without a disk. */
const BLOCK = (() => {
  const block = new Uint16Array(1 << 19);
  let x = 7;
  const uniform = (): number => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    return x / 2 ** 32 - 0.5;
  };
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  for (let i = 0; i < block.length; i++) {
    float[0] = (uniform() + uniform() + uniform()) * 0.04;
    block[i] = (bits[0] as number) >>> 16;
  }
  return new Uint8Array(block.buffer);
})();

function fill(target: Uint8Array, offset: number): void {
  for (let done = 0; done < target.length; ) {
    const at = (offset + done) % BLOCK.length;
    const count = Math.min(target.length - done, BLOCK.length - at);
    target.set(BLOCK.subarray(at, at + count), done);
    done += count;
  }
}

/** A bf16 checkpoint of a shape, over sources of the sizes that its shards have. */
async function checkpointOf(
  preset: string,
  open: (size: number, shard: number) => ByteSource | Promise<ByteSource>,
  shards = 1,
): Promise<Checkpoint> {
  const shape = presetOf(preset);
  const all = tensorList(shape);
  const sizes = new Array<number>(shards).fill(0);
  const list = all.map(({ name, shape: dims }, i) => {
    const bytes = 2 * dims.reduce((a, b) => a * b, 1);
    const shard = Math.floor((i * shards) / all.length);
    const offsetBytes = sizes[shard] ?? 0;
    sizes[shard] = offsetBytes + bytes;
    return { name, dims, bytes, shard, offsetBytes };
  });
  const sources = await Promise.all(sizes.map(open));
  const tensors = new Map<string, StoredTensor>(
    list.map(({ name, dims, bytes, shard, offsetBytes }) => [
      name,
      { name, type: "BF16", shape: dims, source: sources[shard] ?? assert.fail(), offsetBytes, bytes },
    ]),
  );
  const texts = { tokenizer: undefined, template: undefined, generationConfig: undefined };
  const config = parseConfig(configJson(shape, "bfloat16"), { intermediateSize: shape.F });
  const verify = async (): Promise<void> => {
    for (const source of sources) await source.verify?.();
  };
  return {
    format: "safetensors",
    names: [preset],
    config,
    tensors,
    unsupported: new Map(),
    ...texts,
    sources,
    verify,
    close: async () => void (await Promise.all(sources.map((source) => source.close?.()))),
  };
}

function generated(size: number): ByteSource {
  const readInto: ByteSource["readInto"] & object = async (offset, target) => fill(target, offset);
  return { name: "generated", size, readInto, read: (offset, length, signal) => readClipped({ size, readInto }, offset, length, signal) };
}

describe("loads at the published sizes", () => {
  for (const preset of pick({ gate: [], full: ["230m", "350m", "700m", "1.2b", "2.6b"] }))
    for (const dtype of ["q4", "q8"] as const)
      it(`${preset} at ${dtype} runs: finite logits, the same bits for any chunking`, async () => {
        const { model } = await loadModel(await checkpointOf(preset, generated), kernels, { dtype });
        const ids = [3, 14, 159, 265, 35];
        const whole = feed(model, ids);
        assert.ok(whole.every(Number.isFinite));
        assert.ok(sameBits(whole, feed(model, ids, [2])));
        assert.equal(greedy(model, ids, 3).length, 3);
        model.dispose();
      }).timeout(600_000);
});

describe("bytes on their way in a load over HTTP", () => {
  const preset = pick({ gate: "mid", full: "230m" });

  /** A file with a checksum is read whole, and its pieces wait for those before; shards have windows of their own. */
  const forms: readonly (readonly [what: string, shards: number, hasChecksum: boolean])[] = [
    ["one file", 1, false],
    ["a file with a checksum", 1, true],
    ["three shards with checksums", 3, true],
  ];
  const sha256Of = (size: number): string => {
    const hash = createHash("sha256");
    for (let at = 0; at < size; at += BLOCK.length) hash.update(BLOCK.subarray(0, Math.min(BLOCK.length, size - at)));
    return hash.digest("hex");
  };

  for (const [where, windowBytes, bound] of [
    ["in workerd's window", 4 << 20, 8 << 20],
    ["elsewhere", 32 << 20, 64 << 20],
  ] as const)
    for (const hasBackpressure of [true, false])
      for (const [what, shards, hasChecksum] of hasBackpressure || windowBytes > 4 << 20
        ? pick({ gate: forms.slice(0, 1), full: forms })
        : forms)
        it(`are at most ${bound >> 20} MiB ${where}, at every moment (${preset}, ${what}${hasBackpressure ? ", one fast connection" : ""})`, async () => {
          const sizes: number[] = [];
          let [handed, consumed, most] = [0, 0, 0];
          /** A network that is as fast as whoever reads it: what it has handed over and nobody has taken is held. */
          const fetch: Fetch = async (url, init) => {
            const size = sizes[Number(url.slice(url.lastIndexOf("/") + 1))] ?? assert.fail(url);
            const [, a = "", b = ""] = /^bytes=(\d+)-(\d+)$/.exec(init.headers.range ?? "") ?? [];
            let at = Number(a);
            const to = Math.min(size, Number(b) + 1);
            const headers = new Map([
              ["etag", '"one"'],
              ["content-length", String(to - at)],
              ["content-range", `bytes ${at}-${to - 1}/${size}`],
            ]);
            const read = async (): Promise<{ done: boolean; value?: Uint8Array }> => {
              await new Promise(setImmediate);
              if (at >= to) return { done: true };
              const value = new Uint8Array(Math.min(1 << 16, to - at));
              fill(value, at);
              at += value.length;
              handed += value.length;
              most = Math.max(most, handed - consumed);
              return { done: false, value };
            };
            const body = { getReader: () => ({ read, cancel: async () => {} }), cancel: async () => {} };
            return { status: 206, url, headers: { get: (name) => headers.get(name) ?? null }, body };
          };
          const network = networkTo("http://example.test", { windowBytes }, { fetch, hasBackpressure, pool: new Pool() });
          let proofs = 0;
          const open = async (size: number, shard: number): Promise<ByteSource> => {
            sizes[shard] = size;
            const source = new HttpSource(network, {
              ...{ name: `${shard}`, url: `http://example.test/${shard}` },
              ...(hasChecksum ? { checksum: { algorithm: "sha256", hex: sha256Of(size) } } : {}),
            });
            await source.begin();
            const readInto: ByteSource["readInto"] & object = async (offset, target, signal) => {
              await source.readInto(offset, target, signal);
              consumed += target.length;
            };
            const verify = async (signal?: AbortSignal): Promise<void> => {
              await source.verify(signal);
              proofs++;
            };
            return {
              ...{ name: `${shard}`, size, readInto, verify, close: () => source.close() },
              read: (offset, length, signal) => readClipped({ size, readInto }, offset, length, signal),
            };
          };
          const checkpoint = await checkpointOf(preset, open, shards);
          const { model, plan } = await loadModel(checkpoint, kernels, { dtype: "q4" });
          await checkpoint.verify();
          const size = sizes.reduce((a, b) => a + b, 0);
          assert.deepEqual([consumed, proofs], [size, shards], "every byte once, and proved");
          const held = most + plan.windowBytes; // which lies in linear memory, where scratch will lie
          assert.ok(held <= bound, `${held} bytes, ${plan.windowBytes} of them the window in linear memory`);
          const least = hasBackpressure ? 1 << 16 : windowBytes / 4; // one fast connection is read as it comes: a piece of the network's at a time
          assert.ok(most >= least, `${most} bytes: that cannot be all`);
          model.dispose();
          await checkpoint.close();
        }).timeout(120_000);
});
