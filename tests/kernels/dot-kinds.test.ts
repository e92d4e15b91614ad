// int8 weights on processors that are not here: the module asks the dot, packs as it answers, and gives what the dot gives byte by byte.
import assert from "node:assert/strict";
import { encodeQ8, quantizeQ8 } from "../reference/convert.ts";
import { matmulBytes, placeOf } from "../reference/dot.ts";
import { codeOf, describeMatrix, quantizedRoom } from "./fixtures.ts";
import { dotKinds, normal, Sandbox } from "./harness.ts";

const [N, K] = [24, 96];
const Q8 = codeOf("q8");

/** Weights as a file stores them, -128 among them, which packing from floats never makes. */
function storedRows(): Uint8Array {
  const data = encodeQ8(quantizeQ8(normal(N * K, 3)));
  for (let b = 0; b < data.length; b += 34) data.set([0x80, 0x7f, 0x80, 0x80, 0x81], b + 2 + (b % 27));
  return data;
}

for (const { kind, variant } of dotKinds)
  describe(`qb8w where the dot's kind is ${kind}`, () => {
    const lab = new Sandbox(`dot kind ${kind}`, variant, "low");
    const data = storedRows();
    const pack = (): number => {
      const at = lab.room((N / 8) * (K / 32) * lab.kernels.packed_block_bytes(Q8));
      assert.equal(lab.kernels.pack_rows(at, Q8, 0, lab.put(data), Q8, N, K, lab.room(32 * K)), 1);
      return at;
    };

    lab.it("the module answers it, and packs each byte as this dot reads it", () => {
      assert.equal(lab.kernels.dot_operand_kind(), kind);
      assert.equal(lab.kernels.q8_flip(), kind < 0 ? 0 : 0x80);
      const at = pack();
      for (let n = 0; n < N; n++)
        for (let k = 0; k < K; k++) {
          const [block, i] = [k >> 5, k & 31];
          const stored = data[(n * (K / 32) + block) * 34 + 2 + i] ?? 0;
          const packed = lab.bytes(at + (Math.floor(n / 8) * (K / 32) + block) * 272 + placeOf(n % 8, i), 1)[0];
          assert.equal(packed, kind < 0 ? stored : stored ^ 0x80, `row ${n}, value ${k}`);
        }
    });

    lab.it("a product has the bits of the emulation, for every number of rows in a tile and with the largest integers", () => {
      for (const [M, fill] of [[1], [2], [3], [4], [7], [5, 1], [5, -1]] as const) {
        const x = fill ? new Float32Array(M * K).fill(fill) : normal(M * K, M);
        const at = pack();
        const matrix = describeMatrix(lab, K, [{ dtype: "q8", N, address: at }]);
        const [xAt, xq, y] = [lab.put(x), quantizedRoom(lab, M, K), lab.floats(M * N)];
        lab.run("quantize", [xq, xAt, M, K, K]);
        lab.run("matmul", [y, 0, xq, matrix, M, N, K, 0]);
        const packed = lab.bytes(at, (N / 8) * (K / 32) * 272).slice();
        assert.deepEqual(lab.read(y, M * N), matmulBytes(x, packed, kind < 0, M, N, K), `${M} rows, ${fill ?? "random"}`);
        lab.check();
        lab.reset();
      }
    });
  });
