// The command encoder: which commands become one, and that the bits do not depend on it.
import assert from "node:assert/strict";
import { CommandEncoder, descriptorBytes, OP, writeDescriptor } from "../../src/kernels/commands.ts";
import type { Matrix, Rows, Vector } from "../../src/memory/tensor.ts";
import { WebAssembly as Wasm } from "../../src/memory/wasm.ts";
import { instantiate, normal, variants } from "../kernels/harness.ts";

const [T, D, F] = [3, 64, 96];

/** A layer's worth of buffers in a memory of its own, on the kernels of a build. */
function bench(module: WebAssembly.Module, downType: "q4" | "bf16") {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 65536 });
  const kernels = instantiate(module, memory);
  let next = 65536;
  const take = (bytes: number): number => {
    const at = next;
    next += Math.ceil(bytes / 64) * 64;
    return at;
  };
  const floats = (data: Float32Array): number => {
    const at = take(4 * data.length);
    new Float32Array(memory.buffer, at, data.length).set(data);
    return at;
  };
  const rows = (columns: number, seed: number): Rows => ({ address: floats(normal(T * columns, seed)), stride: columns });
  const vector = (length: number, taps: number, seed: number): Vector => ({
    kind: taps > 1 ? "taps" : "vector",
    name: "",
    length,
    taps,
    address: floats(normal(length * taps, seed)),
  });
  const code = { q4: 4, bf16: 2 };
  const matrix = (N: number, K: number, dtype: "q4" | "bf16", seed: number): Matrix => {
    const address = take((N / 8) * (K / 32) * kernels.packed_block_bytes(code[dtype]));
    kernels.pack_rows(address, code[dtype], 0, floats(normal(N * K, seed)), 0, N, K, take(8 * K * 4));
    const m: Matrix = { kind: "matrix", columns: K, segments: [{ name: "", rows: N, dtype, address }], address: take(descriptorBytes(1)) };
    writeDescriptor(memory as never, m);
    return m;
  };
  const words = new Int32Array(memory.buffer, take(32), 8);
  words.set([0, T, 0, 0, take(2 * D * 4)]); // one sequence from position 0; the last is its convolution state
  return {
    memory,
    kernels,
    commands: take(64 * 64),
    scratch: { quantized: take(T * F * 4), slots: 0, slotCount: 0, attention: 0 },
    nowhere: take(T * F * 4),
    table: { address: words.byteOffset, sequences: 1 },
    h: rows(D, 1),
    x: rows(D, 2),
    r: rows(D, 3),
    wide: rows(3 * D, 4),
    act: rows(F, 5),
    gain: vector(D, 1, 6),
    taps: vector(D, 3, 7),
    inProj: matrix(3 * D, D, "q4", 8),
    outProj: matrix(D, D, "q4", 9),
    gateUp: matrix(2 * F, D, "q4", 10),
    down: matrix(D, F, downType, 11),
  };
}

/** One layer; `between` is called after each command. @returns its ops and what it left: every buffer's bits but those of the ffn's own */
function layer(module: WebAssembly.Module, downType: "q4" | "bf16", isApart: boolean): { ops: number[]; left: Uint8Array } {
  const b = bench(module, downType);
  const c = new CommandEncoder(b.memory as never, b.commands, 64, b.scratch, "f16");
  const between = (): void => {
    if (isApart) c.copy(b.nowhere, b.h, 1); // as a tap would
  };
  const wide = { ...b.wide, stride: 2 * F };
  c.add(b.h, b.r, T);
  between();
  c.rmsnorm(b.x, b.h, b.gain, T, 1e-5);
  between();
  c.linear(b.wide, b.x, b.inProj, T);
  c.shortconv(b.x, b.wide, b.table, T, 0, b.taps);
  between();
  c.linear(b.r, b.x, b.outProj, T);
  c.add(b.h, b.r, T);
  between();
  c.rmsnorm(b.x, b.h, b.gain, T, 1e-5);
  between();
  c.linear(wide, b.x, b.gateUp, T);
  c.siluMul(b.act, wide, T, F);
  between();
  c.linear(b.r, b.act, b.down, T);
  b.kernels.run(c.address, c.count, 0, 1);
  const words = new Int32Array(b.memory.buffer, c.address, 16 * c.count);
  // y of silu_mul is for the next command alone, and may have been left out
  for (const { address, stride } of [b.act, b.wide]) new Float32Array(b.memory.buffer, address, T * stride).fill(0);
  const ops = Array.from({ length: c.count }, (_, i) => words[16 * i]!).filter((op) => op !== OP.copy);
  return { ops, left: new Uint8Array(b.memory.buffer).slice(b.h.address) };
}

describe("command encoder", () => {
  for (const { name, module } of variants) {
    for (const downType of ["q4", "bf16"] as const)
      it(`addition and quantization go into their neighbours, with the same bits as apart (${name}, ${downType})`, () => {
        const [one, apart] = [layer(module, downType, false), layer(module, downType, true)];
        const { add, rmsnorm, quantize, matmul, shortconv, silu_mul } = OP;
        assert.deepEqual(one.ops, [rmsnorm, matmul, shortconv, matmul, rmsnorm, matmul, silu_mul, matmul]);
        const mlp = downType === "q4" ? [silu_mul, quantize, matmul] : [silu_mul, matmul];
        assert.deepEqual(apart.ops, [
          ...[add, rmsnorm, quantize, matmul, shortconv, quantize, matmul],
          ...[add, rmsnorm, quantize, matmul, ...mlp],
        ]);
        assert.ok(Buffer.from(one.left).equals(Buffer.from(apart.left)));
        assert.ok(one.left.some((v) => v !== 0));
      });
  }

  it("only neighbours with the same rows become one", () => {
    const b = bench(variants[0]!.module, "q4");
    const record = (steps: readonly ((c: CommandEncoder) => void)[]): number[] => {
      const c = new CommandEncoder(b.memory as never, b.commands, 64, b.scratch, "f16");
      for (const step of steps) step(c);
      return Array.from({ length: c.count }, (_, i) => new Int32Array(b.memory.buffer, b.commands)[16 * i]!);
    };
    const { add, rmsnorm, quantize, matmul } = OP;
    const other = { address: b.wide.address, stride: D };
    const norm = (c: CommandEncoder, M: number = T, rows = 0): void => c.rmsnorm(b.x, b.h, b.gain, M, 1e-5, rows);
    const sum = (c: CommandEncoder, y = b.h): void => c.add(y, b.r, T);
    const product = (c: CommandEncoder, x = b.x, M = T): void => c.linear(b.r, x, b.outProj, M);
    const cases: [((c: CommandEncoder) => void)[], number[]][] = [
      [
        [norm, product],
        [rmsnorm, matmul],
      ],
      [
        [norm, (c) => product(c, b.x, T - 1)],
        [rmsnorm, quantize, matmul],
      ],
      [
        [norm, (c) => product(c, other)],
        [rmsnorm, quantize, matmul],
      ],
      [
        [norm, (c) => product(c, { ...b.x, stride: 2 * D })],
        [rmsnorm, quantize, matmul],
      ],
      [[sum, norm], [rmsnorm]],
      [
        [sum, (c) => norm(c, T - 1)],
        [add, rmsnorm],
      ],
      [
        [sum, (c) => norm(c, T, b.nowhere)],
        [add, rmsnorm],
      ],
      [
        [(c) => sum(c, b.x), norm],
        [add, rmsnorm],
      ],
      [
        [norm, norm],
        [rmsnorm, rmsnorm],
      ],
    ];
    cases.forEach(([steps, ops], i) => {
      assert.deepEqual(record(steps), ops, `case ${i}`);
    });
  });

  it("a full buffer is an error before anything is written behind it", () => {
    const memory = new Wasm.Memory({ initial: 1, maximum: 1 });
    const c = new CommandEncoder(memory, 1024, 2, { quantized: 0, slots: 0, slotCount: 0, attention: 0 }, "f16");
    const rows = { address: 4096, stride: 16 };
    c.add(rows, rows, 1);
    c.add(rows, rows, 1);
    assert.throws(() => c.add(rows, rows, 1), RangeError);
    assert.ok(new Uint8Array(memory.buffer, 1024 + 128, 128).every((v) => v === 0));
    assert.equal(c.count, 2);
  });
});
