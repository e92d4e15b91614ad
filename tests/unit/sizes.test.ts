// Every published size has a plan within one memory, at 8 and at 4 bits, or says before a byte is read why not.
import assert from "node:assert/strict";
import { presetOf } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { configJson, tensorList } from "../../scripts/checkpoints/presets.mjs";
import { instantiateKernels } from "../../src/kernels/variants.ts";
import { threadOptions } from "../../src/lfm2.ts";
import { ADDRESS_SPACE_BYTES } from "../../src/memory/arena.ts";
import type { Checkpoint } from "../../src/models/checkpoint.ts";
import { parseConfig } from "../../src/models/config.ts";
import { loadModel, planModel } from "../../src/models/load-model.ts";
import type { ByteSource } from "../../src/weights/source.ts";
import type { StoredTensor } from "../../src/weights/tensor.ts";
import { kernels } from "../golden/support.ts";

/** A bf16 checkpoint of a shape whose bytes nobody may read. */
function headerOnly(preset: string, vocabulary?: number): Checkpoint {
  const shape = { ...presetOf(preset), ...(vocabulary ? { V: vocabulary } : {}) };
  const source: ByteSource = { name: preset, size: Number.MAX_SAFE_INTEGER, read: () => assert.fail(`${preset}: read before the plan`) };
  const tensors = new Map<string, StoredTensor>(
    tensorList(shape).map(({ name, shape: dims }) => {
      const bytes = 2 * dims.reduce((a, b) => a * b, 1);
      return [name, { name, type: "BF16", shape: dims, source, offsetBytes: 0, bytes }];
    }),
  );
  const done = (): Promise<void> => Promise.resolve();
  const texts = { tokenizer: undefined, template: undefined, generationConfig: undefined };
  const config = parseConfig(configJson(shape, "bfloat16"), { intermediateSize: shape.F });
  const sources = [source];
  return { format: "safetensors", names: [preset], config, tensors, unsupported: new Map(), ...texts, sources, verify: done, close: done };
}

describe("all sizes", () => {
  // MiB of 4.5 and 8.5 bits a weight
  const sizes = { "230m": 229e6, "350m": 354.5e6, "700m": 742.5e6, "1.2b": 1170.3e6, "2.6b": 2569.3e6 };
  for (const [preset, parameters] of Object.entries(sizes))
    for (const [dtype, bits] of [
      ["q4", 4.5],
      ["q8", 8.5],
    ] as const)
      it(`${preset} at ${dtype} fits one memory, in the bytes that it should take`, async () => {
        const plan = await planModel(headerOnly(preset), kernels, { dtype });
        const weights = plan.items.find(({ what }) => what === "weights")?.bytes ?? assert.fail();
        assert.ok(Math.abs(weights / ((parameters * bits) / 8) - 1) < 0.03, `${weights}`);
        assert.ok(plan.totalBytes <= ADDRESS_SPACE_BYTES, `${plan.totalBytes}`);
      });

  it("2.6B with LFM2.5's vocabulary of 128,000 fits, too", async () => {
    const { totalBytes } = await planModel(headerOnly("2.6b", 128_000), kernels, { dtype: "q8" });
    assert.ok(totalBytes <= ADDRESS_SPACE_BYTES, `${totalBytes}`);
  });

  it("a plan says which kernels and how many threads a load would take, and starts none", async () => {
    const source = { available: () => 3, spawn: () => assert.fail("a thread was started") };
    const threads = threadOptions(source, "auto", 354.5e6);
    const planned = await planModel(headerOnly("350m"), kernels, { threads });
    const { variant } = await instantiateKernels(kernels, new WebAssembly.Memory({ initial: 2, maximum: 65_536 }));
    assert.deepEqual([planned.variant, planned.threads], [variant, 3]);
    const one = await planModel(headerOnly("350m"), async (build) => (build.endsWith("threads") ? undefined : kernels(build)), { threads });
    assert.equal(one.threads, 1, "without a build for threads");
    assert.ok(one.totalBytes <= planned.totalBytes);
  });

  it("what does not fit says so, with what would, before anything is read", async () => {
    await assert.rejects(loadModel(headerOnly("2.6b"), kernels, {}), { name: "MemoryError", message: /Load it with dtype "q8"/ });
    await assert.rejects(loadModel(headerOnly("2.6b"), kernels, { dtype: "q8", maxMemoryBytes: 2 ** 31 }), {
      name: "MemoryError",
      message: /dtype "q4"/,
    });
    await assert.rejects(loadModel(headerOnly("2.6b"), kernels, { dtype: "q4", maxMemoryBytes: 2 ** 29 }), {
      name: "MemoryError",
      message: /No dtype fits/,
    });
  });
});
