// The numbers that both sides hold: ops, dtype codes, block sizes, the names that every build exports.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { COMMAND_BYTES, OP, ROW_TABLE_ENTRY_BYTES, SEGMENT_POSITIONS } from "../../src/kernels/commands.ts";
import { instantiateKernels } from "../../src/kernels/variants.ts";
import { BLOCK, DTYPE_CODE, GROUP_ROWS, packedBytes, WEIGHT_DTYPES } from "../../src/memory/dtype.ts";
import { STORED_TYPES, type StoredType, storedBytes } from "../../src/weights/tensor.ts";
import { BLOCK_TYPES } from "../reference/blocks.ts";
import { instantiate, type Kernels, threaded, variants } from "./harness.ts";

/** What the host calls. */
const FUNCTIONS = [
  "run",
  "run_all",
  "serve",
  "ready",
  "wake",
  "dismiss",
  "fail",
  "recover",
  "sleeps",
  "dot_operand_kind",
  "qd8_row_bytes",
  "attention_scratch_bytes",
  "attention_slot_bytes",
  "packed_block_bytes",
  "stored_row_bytes",
  "decode_rows",
  "pack_rows",
  "rope_frequencies",
  "penalize_f32",
  "divide_f32",
  "softmax_f32",
  "all_finite_f32",
  "argmax_f32",
  "topk_f32",
];

const number = (kernels: Kernels, name: string): number => Number(kernels[name]);

describe("kernel ABI", () => {
  it("the plain build validates everywhere, and every build that does exports the same names", () => {
    assert.equal(variants[0]?.name, "plain");
    const names = [...variants, ...threaded].map((v) => WebAssembly.Module.exports(v.module).map((e) => `${e.kind} ${e.name}`));
    for (const list of names) assert.deepEqual(list, names[0]);
    for (const name of FUNCTIONS) assert.ok(names[0]?.includes(`function ${name}`), name);
  });

  it("builds import the memory and nothing that a host would have to write", () => {
    for (const { module } of [...variants, ...threaded])
      for (const i of WebAssembly.Module.imports(module)) assert.ok(["memory", "abort"].includes(i.name) && i.module === "env", i.name);
  });

  it("a build whose relaxed dot is not exact is passed over, and refused where it is the only one", async () => {
    // (module (func (export "dot_operand_kind") (result i32) i32.const 2))
    const name = [...new TextEncoder().encode("dot_operand_kind")];
    const code = [1, 5, 1, 0x60, 0, 1, 0x7f, 3, 2, 1, 0, 7, name.length + 4, 1, name.length, ...name, 0, 0, 10, 6, 1, 4, 0, 0x41, 2, 0x0b];
    const inexact = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...code);
    const source = async (file: string): Promise<Uint8Array> => (file === "relaxed" ? inexact : readFileSync("dist/kernels.plain.wasm"));
    const memory = () => new WebAssembly.Memory({ initial: 1, maximum: 65536 });
    assert.equal((await instantiateKernels(source, memory())).variant, "plain");
    await assert.rejects(instantiateKernels(source, memory(), "relaxed"), { name: "PlatformError" });
  });

  it("wasm files are small (those of a set are less than half of what the core may weigh)", () => {
    for (const name of ["plain", "relaxed", "plain-threads", "relaxed-threads"])
      assert.ok(readFileSync(`dist/kernels.${name}.wasm`).length < 108 * 1024, name);
  });

  for (const { name, module } of variants)
    it(`${name}: ops, codes and sizes equal those of src`, () => {
      const kernels = instantiate(module, new WebAssembly.Memory({ initial: 1, maximum: 65536 }));
      const ops = Object.fromEntries(Object.entries(kernels.Op).map(([op, code]) => [op, Number(code)]));
      assert.deepEqual(ops, { ...OP });
      assert.equal(number(kernels, "COMMAND_BYTES"), COMMAND_BYTES);
      assert.equal(number(kernels, "ROW_ENTRY_BYTES"), ROW_TABLE_ENTRY_BYTES);
      assert.equal(number(kernels, "PAGE"), 32);
      for (const dtype of WEIGHT_DTYPES) {
        const code = DTYPE_CODE[dtype];
        assert.equal(number(kernels, { q4k: "Q4_K", q6k: "Q6_K" }[dtype as string] ?? dtype.toUpperCase()), code);
        assert.equal(kernels.packed_block_bytes(code), packedBytes(dtype, GROUP_ROWS, BLOCK));
      }
      for (const [type, { code, values, bytes, dtype }] of Object.entries(STORED_TYPES)) {
        const isDtype = type in BLOCK_TYPES === false || dtype === "q4k" || dtype === "q6k"; // the others exist in files only
        assert.equal(code, isDtype ? DTYPE_CODE[dtype] : number(kernels, type), type);
        assert.equal(kernels.stored_row_bytes(code, 4 * values), 4 * bytes, type);
        assert.equal(storedBytes(type as StoredType, 4 * values), 4 * bytes, type);
      }
      const qd8Bytes = name !== "relaxed" ? 160 : kernels.dot_operand_kind() === 0 ? 128 : 48;
      for (const K of [32, 224, 256, 288, 4608]) assert.equal(kernels.qd8_row_bytes(K), (K / 32) * qd8Bytes + Math.floor(K / 256) * 32);
      assert.equal(number(kernels, "SEGMENT"), SEGMENT_POSITIONS);
      assert.equal(kernels.attention_slot_bytes(64), 16 + 64 * 4);
      for (const [H, G, heads] of [
        [16, 8, 64],
        [80, 1, 80],
      ] as const)
        assert.equal(kernels.attention_scratch_bytes(H, G, 64), heads * (2 * 64 * 4 + 32 * 4 + 32) + 2 * 32 * 64 * 4);
    });
});
