// decode_rows, pack_rows and gather: every pair of dtypes, layouts byte by byte, exact round trips of Q8_0 and Q4_0.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  bf16FromBits,
  decodeQ4,
  decodeQ8,
  dequantize,
  f16FromBits,
  f16ToBits,
  f32Bits,
  f32FromBits,
  quantizeQ4,
  quantizeQ8,
  toF16,
} from "../reference/convert.ts";
import { codeOf, DTYPES, type DType, describeMatrix, golden, isQuantized, packMatrix, rounded, type Segment, stored } from "./fixtures.ts";
import { columnsOf, normal, type Sandbox, suite, up } from "./harness.ts";

const bits = (values: Float32Array): number[] => Array.from(values, f32Bits);

/** A value of a packed segment, read as assembly/README.md describes the layout: row n, column k, Kp padded columns. */
function packedValue(
  lab: Sandbox,
  at: number,
  dtype: DType,
  Kp: number,
  n: number,
  k: number,
): { value: number; q?: number; scale?: number } {
  const view = new DataView(lab.memory.buffer);
  const [lane, b, i] = [n % 8, k >> 5, k & 31];
  const block = at + (Math.floor(n / 8) * (Kp / 32) + b) * lab.kernels.packed_block_bytes(codeOf(dtype));
  if (dtype === "f32") return { value: view.getFloat32(block + 32 * i + 4 * lane, true) };
  if (dtype === "f16") return { value: f16FromBits(view.getUint16(block + 32 * (i >> 1) + 4 * lane + 2 * (i & 1), true)) };
  if (dtype === "bf16") return { value: bf16FromBits(view.getUint16(block + 32 * (i >> 1) + 4 * lane + 2 * (i & 1), true)) };
  const scale = view.getUint16(block + 2 * lane, true);
  const half = lane >> 2;
  let q: number;
  if (dtype === "q8") {
    const flip = lab.variant.name === "relaxed" && lab.kernels.dot_operand_kind() >= 0 ? 0x80 : 0;
    q = ((view.getUint8(block + 16 + 128 * half + 16 * (i >> 2) + 4 * (lane & 3) + (i & 3)) ^ flip) << 24) >> 24;
  } else {
    const byte = view.getUint8(block + 16 + 64 * half + 16 * ((i & 15) >> 2) + 4 * (lane & 3) + (i & 3));
    q = (i & 16 ? byte >> 4 : byte & 15) - 8;
  }
  return { value: Math.fround(q * f16FromBits(scale)), q, scale };
}

/** Packs stored rows. @returns address, bytes and what pack_rows said */
function pack(lab: Sandbox, dst: DType, src: DType, data: Uint8Array, N: number, K: number): { at: number; bytes: number; fine: number } {
  const Kp = up(K, 32);
  const bytes = (up(N, 8) / 8) * (Kp / 32) * lab.kernels.packed_block_bytes(codeOf(dst));
  const [at, from, scratch] = [lab.room(bytes), lab.room(data.length + 1) + 1, lab.room(32 * Kp)];
  lab.bytes(from, data.length).set(data); // at an odd address: files promise no alignment
  return { at, bytes, fine: lab.kernels.pack_rows(at, codeOf(dst), 0, from, codeOf(src), N, K, scratch) };
}

/** Rows 0..N of a packed segment through gather. */
function gatherAll(lab: Sandbox, at: number, dtype: DType, N: number, K: number): Float32Array {
  const matrix = describeMatrix(lab, K, [{ dtype, N, address: at }]);
  const [ids, out] = [lab.put(Int32Array.from({ length: N }, (_, i) => i)), lab.floats(N * K)];
  lab.run("gather", [out, ids, matrix, N, K]);
  return lab.read(out, N * K);
}

suite("decode_rows", (lab) => {
  lab.it("every stored type at an odd address, tail zeroed", () => {
    for (const dtype of DTYPES) {
      const [rows, K] = isQuantized(dtype) ? [3, 64] : [3, 37];
      const w = normal(rows * K, 1);
      const data = stored(w, dtype);
      const [stride, src] = [K + 5, lab.room(data.length + 1) + 1];
      lab.bytes(src, data.length).set(data);
      const out = lab.floats(rows * stride);
      lab.kernels.decode_rows(out, stride, src, codeOf(dtype), rows, K);
      const got = lab.read(out, rows * stride);
      assert.deepEqual(bits(columnsOf(got, stride, K)), bits(rounded(w, rows, K, dtype)), dtype);
      assert.ok(columnsOf(got, stride, 5, K).every((v) => Object.is(v, 0)));
      lab.check();
      lab.reset();
    }
  });

  lab.it("golden convert: f16 to f32", () => {
    const { f16_to_f32: table } = JSON.parse(readFileSync("tests/golden/data/kernels/convert.json", "utf8")) as {
      f16_to_f32: { rows: [number, number | "nan"][] };
    };
    const rows = table.rows;
    const src = lab.put(Uint16Array.from(rows, (r) => r[0]));
    const out = lab.floats(rows.length);
    lab.kernels.decode_rows(out, rows.length, src, codeOf("f16"), 1, rows.length);
    bits(lab.read(out, rows.length)).forEach((b, i) => {
      const want = rows[i]![1];
      if (want === "nan" || Number.isNaN(f32FromBits(want))) assert.ok(Number.isNaN(f32FromBits(b)), `row ${i}`);
      else assert.equal(b, want, `row ${i}`);
    });
  });
});

suite(
  "pack_rows",
  (lab) => {
    lab.it("every stored type to every packed one: the layout holds the rounded values, padding is 0", () => {
      for (const src of DTYPES)
        for (const dst of DTYPES) {
          const [N, K] = isQuantized(src) ? [11, 64] : [11, 50];
          const Kp = up(K, 32);
          const source = rounded(normal(N * K, 2), N, K, src);
          const want = rounded(source, N, K, dst);
          const { at, fine } = pack(lab, dst, src, stored(source, src), N, K);
          assert.equal(fine, 1);
          for (let n = 0; n < up(N, 8); n++)
            for (let k = 0; k < Kp; k++) {
              const inside = n < N && k < K;
              const { value } = packedValue(lab, at, dst, Kp, n, k);
              assert.ok(value === (inside ? want[n * K + k] : 0), `${src} → ${dst} [${n},${k}]: ${value}, expected ${want[n * K + k]}`);
            }
          lab.check();
          lab.reset();
        }
    });

    lab.it("f32 to q8 and q4: values at and next to ties, small and large blocks round as the reference rounds", () => {
      const [N, K] = [16, 96];
      for (const dtype of ["q8", "q4"] as const)
        for (const scale of [1, 1 / 3, 0.0123, 3e-6, 2 ** -27, 1e-33]) {
          const most = dtype === "q8" ? 127 : -8;
          const w = Float32Array.from({ length: N * K }, (_, i) => {
            const tie = (i % 16) - 8 + 0.5; // both dtypes have these between their integers
            return i % 32 ? scale * tie * (1 + (((i * 7) % 9) - 4) * 2 ** -24) : scale * most;
          });
          const direct = pack(lab, dtype, "f32", stored(w, "f32"), N, K);
          const moved = pack(lab, dtype, dtype, stored(w, dtype), N, K);
          assert.deepEqual(lab.bytes(direct.at, direct.bytes), lab.bytes(moved.at, moved.bytes), `${dtype} at ${scale}`);
          lab.check();
          lab.reset();
        }
    });

    lab.it("floats that are not finite are reported, where bits are moved and where they are not", () => {
      for (const dtype of ["f32", "f16", "bf16"] as const)
        for (const [N, K] of [
          [8, 64],
          [16, 64],
          [8, 33],
          [3, 64],
        ] as const)
          for (const at of [0, N * K - 1, K >> 1]) {
            const w = normal(N * K, 5);
            assert.equal(pack(lab, dtype, dtype, stored(w, dtype), N, K).fine, 1);
            for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
              w[at] = value;
              assert.equal(pack(lab, dtype, dtype, stored(w, dtype), N, K).fine, 0, `${dtype} ${N}×${K} [${at}] ${value}`);
            }
            lab.reset();
          }
    });

    lab.it("f32 to q8 and q4 gives the blocks that the reference quantizes to", () => {
      const [N, K] = [9, 96];
      for (const dtype of ["q8", "q4"] as const)
        for (const scale of [1, 1e-3, 300]) {
          const w = normal(N * K, 3, scale);
          w.fill(0, 32, 64); // a block of zeros
          for (let i = 64; i < 96; i++) w[i] = i % 3 ? -500 : 500; // ties for the largest value: the first decides the sign
          for (let i = 160; i < 192; i++) w[i] = i % 2 ? 500 : -500;
          const direct = pack(lab, dtype, "f32", stored(w, "f32"), N, K);
          const moved = pack(lab, dtype, dtype, stored(w, dtype), N, K);
          // padding rows are 0 either way, but a direct row of zeros may have another scale: compare values and the true rows' bytes
          for (let n = 0; n < N; n++)
            for (let k = 0; k < K; k++)
              assert.deepEqual(
                packedValue(lab, direct.at, dtype, K, n, k),
                packedValue(lab, moved.at, dtype, K, n, k),
                `${dtype} [${n},${k}]`,
              );
          lab.reset();
        }
    });

    lab.it("golden convert: f32 to bf16 and f16", () => {
      const { f32_to } = JSON.parse(readFileSync("tests/golden/data/kernels/convert.json", "utf8")) as {
        f32_to: { rows: [number, number | "nan", number | "nan"][] };
      };
      const rows = f32_to.rows;
      const data = new Uint8Array(Uint32Array.from(rows, (r) => r[0]).buffer);
      const Kp = up(rows.length, 32);
      for (const [dtype, column, decode] of [
        ["bf16", 1, bf16FromBits],
        ["f16", 2, f16FromBits],
      ] as const) {
        const { at } = pack(lab, dtype, "f32", data, 1, rows.length);
        rows.forEach((row, k) => {
          const want = row[column];
          const { value } = packedValue(lab, at, dtype, Kp, 0, k);
          if (want === "nan") assert.ok(Number.isNaN(value));
          else assert.ok(Object.is(value, decode(want)), `${dtype} of ${row[0].toString(16)}: ${value}`);
        });
        lab.reset();
      }
    });

    lab.it("golden dequantize: Q8_0 and Q4_0 keep integers and scales, and come back bit for bit", () => {
      const { cases, array } = golden<{ type: string }>("dequantize");
      const known = cases.filter((c) => c.type === "Q8_0" || c.type === "Q4_0");
      assert.equal(known.length, 2);
      for (const { type } of known) {
        const dtype = type === "Q8_0" ? "q8" : "q4";
        for (const [raw, values] of [
          ["raw", "y"],
          ["x_quantized_by_ggml", "x_dequantized"],
        ] as const) {
          const data = array(`${type}.${raw}`).bytes;
          const want = bits(array(`${type}.${values}`).data);
          const blocks = want.length / 32;
          const decoded = dtype === "q8" ? decodeQ8(data) : decodeQ4(data);
          assert.deepEqual(bits(dequantize(decoded)), want, "the reference decoder");
          // as decode_rows reads it
          const [src, out] = [lab.put(data), lab.floats(want.length)];
          lab.kernels.decode_rows(out, want.length, src, codeOf(dtype), 1, want.length);
          assert.deepEqual(bits(lab.read(out, want.length)), want, "decode_rows");
          // as a matrix of rows of 4 blocks
          const [N, K] = [blocks / 4, 128];
          const { at, fine } = pack(lab, dtype, dtype, data, N, K);
          assert.equal(fine, 1);
          assert.deepEqual(bits(gatherAll(lab, at, dtype, N, K)), want, "pack_rows, gather");
          for (let i = 0; i < want.length; i++) {
            const { q, scale } = packedValue(lab, at, dtype, K, Math.floor(i / K), i % K);
            assert.equal(q, decoded.q[i]);
            assert.ok(f16FromBits(scale!) === decoded.d[i >> 5]);
          }
          lab.check();
          lab.reset();
        }
      }
    });

    lab.it("says when a value is not finite in the packed dtype", () => {
      const [N, K] = [9, 32];
      const limits = {
        f32: [Number.NaN, Number.POSITIVE_INFINITY],
        f16: [Number.NaN, 65520, -1e9],
        bf16: [Number.NaN, 3.4e38],
        q8: [Number.NaN, -1e7],
        q4: [Number.NaN, 1e6],
      };
      for (const dtype of DTYPES) {
        for (const bad of limits[dtype]) {
          const w = normal(N * K, 4);
          assert.equal(pack(lab, dtype, "f32", stored(w, "f32"), N, K).fine, 1);
          w[N * K - 3] = bad;
          assert.equal(pack(lab, dtype, "f32", stored(w, "f32"), N, K).fine, 0, `${dtype} with ${bad}`);
          lab.reset();
        }
      }
      for (const [dtype, size] of [
        ["q8", 34],
        ["q4", 18],
      ] as const) {
        const data = stored(normal(N * K, 5), dtype);
        new DataView(data.buffer).setUint16(size * 3, f16ToBits(Number.NEGATIVE_INFINITY), true);
        assert.equal(pack(lab, dtype, dtype, data, N, K).fine, 0);
        lab.reset();
      }
    });

    lab.it("not-a-number in a quantized block makes its scale not-a-number", () => {
      for (const dtype of ["q8", "q4"] as const) {
        const w = normal(64, 6);
        w[40] = Number.NaN;
        const { at } = pack(lab, dtype, "f32", stored(w, "f32"), 1, 64);
        const got = gatherAll(lab, at, dtype, 1, 64);
        assert.ok(got.subarray(0, 32).every(Number.isFinite) && got.subarray(32).every(Number.isNaN), dtype);
        lab.reset();
      }
    });
  },
  true,
);

suite(
  "gather",
  (lab) => {
    lab.it("rows of every dtype and segment, in any order, tail zeroed, any number of threads", () => {
      for (const K of [51, 64, 16]) {
        const segments: Segment[] = DTYPES.map((dtype, i) => ({ dtype, N: 5 + 3 * i, w: normal((5 + 3 * i) * K, 20 + i) }));
        const values = segments.flatMap((s) => [...rounded(s.w, s.N, K, s.dtype)]);
        const total = segments.reduce((sum, s) => sum + s.N, 0);
        const ids = Int32Array.from({ length: total + 4 }, (_, i) => (i * 17 + 3) % total);
        for (const [stride, nth] of [
          [K, 1],
          [K + 7, 2],
          [up(K, 32), 3],
        ] as const) {
          const matrix = packMatrix(lab, K, segments);
          const [idsAt, out] = [lab.put(ids), lab.floats(ids.length * stride)];
          lab.run("gather", [out, idsAt, matrix, ids.length, stride], nth);
          const got = lab.read(out, ids.length * stride);
          const want = Float32Array.from({ length: ids.length * K }, (_, i) => values[ids[Math.floor(i / K)]! * K + (i % K)]!);
          assert.deepEqual(bits(columnsOf(got, stride, K)), bits(want), `K ${K}`);
          if (stride > K) assert.ok(columnsOf(got, stride, stride - K, K).every((v) => Object.is(v, 0)));
          lab.check();
          lab.reset();
        }
      }
    });

    lab.it("gives exactly the values that the reference quantizers give", () => {
      const [N, K] = [8, 64];
      const w = normal(N * K, 30);
      for (const [dtype, quantize] of [
        ["q8", quantizeQ8],
        ["q4", quantizeQ4],
      ] as const) {
        const { at } = pack(lab, dtype, "f32", stored(w, "f32"), N, K);
        assert.deepEqual(bits(gatherAll(lab, at, dtype, N, K)), bits(dequantize(quantize(w))));
        lab.reset();
      }
    });
  },
  true,
);

describe("the scale of a quantized block", () => {
  /** Squared error of a block with the scale d, the best integers in range. */
  function squaredError(block: Float32Array, d: number, low: number, high: number): number {
    return block.reduce((sum, v) => sum + (v - d * Math.min(high, Math.max(low, Math.round(v / d)))) ** 2, 0);
  }

  for (const [dtype, quantize, low, high, gain, slack] of [
    ["q4", quantizeQ4, -8, 7, 0.91, 1.004],
    ["q8", quantizeQ8, -127, 127, 0.82, 1.08],
  ] as const) {
    it(`${dtype}: has ${gain} of the squared error that the largest value's scale has, and ${slack} of what the finest search finds`, () => {
      const x = normal(32 * 300, 7);
      const values = dequantize(quantize(x));
      let [error, plain, least] = [0, 0, 0];
      for (let b = 0; b < x.length; b += 32) {
        const block = x.subarray(b, b + 32);
        const top = block.reduce((a, v) => (Math.abs(v) > Math.abs(a) ? v : a), 0);
        const at = (steps: number): number => squaredError(block, toF16(top / steps), low, high);
        error += block.reduce((sum, v, i) => sum + (v - values[b + i]!) ** 2, 0);
        plain += at(dtype === "q4" ? -8 : 127);
        least += Math.min(...Array.from({ length: 1200 }, (_, i) => at(dtype === "q4" ? -5.5 - i / 300 : 115 + i / 90)));
      }
      assert.ok(error < gain * plain && error > 0.9 * gain * plain, `${error / plain} of the plain scale's`);
      assert.ok(error < slack * least && error >= least * 0.999, `${error / least} of the least`);
    });
  }
});
