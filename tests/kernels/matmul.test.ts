// matmul and quantize: every dtype, odd shapes, any split of the rows, mixed segments, bias.
import assert from "node:assert/strict";
import { BLOCK_TYPES, type BlockType, decodeBlocks } from "../reference/blocks.ts";
import { matmul, matmulQuantized, sumsRounding } from "../reference/matmul.ts";
import { pick } from "../scale.ts";
import {
  codeOf,
  DTYPES,
  type DType,
  describeMatrix,
  golden,
  isKDType,
  isQuantized,
  K_DTYPES,
  type KDType,
  packMatrix,
  packSegment,
  rounded,
  type Segment,
} from "./fixtures.ts";
import { close, columnsOf, normal, type Sandbox, spread, suite, up } from "./harness.ts";

const shapes = pick({
  gate: [
    [5, 13, 33],
    [1, 1, 1],
    [7, 24, 224],
    [2, 8, 32],
    [3, 9, 208],
    [11, 40, 512],
  ],
  full: [
    [5, 13, 33],
    [1, 1, 1],
    [7, 24, 224],
    [2, 8, 32],
    [3, 9, 208],
    [11, 40, 512],
    [1, 17, 31],
    [13, 40, 4608],
    [6, 101, 1024],
    [64, 64, 64],
    [37, 8, 1999],
  ],
}) as [number, number, number][];

/** Ways to cut M rows. */
const splits = (M: number): number[][] =>
  [[M], Array(M).fill(1), [1, M - 1], [2, M - 2], [3, M - 3], [4, M - 4], [M - 1, 1]].filter((s) => s.every((n) => n > 0));

interface Problem {
  readonly M: number;
  readonly K: number;
  readonly x: Float32Array;
  readonly segments: readonly Segment[];
  readonly bias?: Float32Array;
}

/** Runs a product with rows cut as `split` says, on `nth` threads. @returns (M, Σ padded rows) */
function product(lab: Sandbox, problem: Problem, split: readonly number[], nth: number): Float32Array {
  const { M, K, x, segments, bias } = problem;
  const [Kp, total] = [up(K, 32), segments.reduce((sum, s) => sum + up(s.N, 8), 0)];
  const [xStride, yStride] = [Kp + 4, total + 4];
  const padded = spread(spread(x, K, Kp, 0), Kp, xStride); // what lies behind column Kp is NaN and must not be read
  const xAt = lab.put(padded);
  const matrix = packMatrix(lab, K, segments);
  const xq = lab.room(M * lab.kernels.qd8_row_bytes(Kp));
  const biasAt = bias ? lab.put(bias) : 0;
  const y = lab.floats(M * yStride);
  let row = 0;
  for (const m of split) {
    const [xm, ym] = [xAt + 4 * row * xStride, y + 4 * row * yStride];
    lab.run("quantize", [xq, xm, m, Kp, xStride], nth);
    lab.run("matmul", [ym, xm, xq, matrix, m, yStride, xStride, biasAt], nth);
    row += m;
  }
  const out = lab.read(y, M * yStride);
  assert.ok(columnsOf(out, yStride, 4, total).every(Number.isNaN), "columns behind the last segment were written");
  lab.check();
  lab.reset();
  return columnsOf(out, yStride, total);
}

/** What a segment's product must be. */
function expected(
  dtype: DType,
  x: Float32Array,
  w: Float32Array,
  M: number,
  N: number,
  K: number,
): { y: Float64Array; size: Float64Array } {
  const values = rounded(w, N, K, dtype);
  if (!isQuantized(dtype)) return matmul(x, values, M, N, K);
  const Kp = up(K, 32);
  return matmulQuantized(spread(x, K, Kp, 0), spread(values, K, Kp, 0), M, N, Kp);
}

/** Activations: each block's first value fixes its scale at 1; 120 = 16·8 - 8 and 8 = 16·1 - 8 have the largest halves. */
const patterns: ((i: number) => number)[] = [
  (i) => ((i >> 3) % 2 ? 127 : -127),
  ...[127, -127, 120, -120, 8, -8, 119].map((v) => (i: number) => (i % 32 ? v : Math.sign(v) * 127)),
];

const NONE = new Float32Array();
/** (M, N, K), K in whole blocks of 256. */
const superShapes: [number, number, number][] = pick({
  gate: [
    [5, 13, 512],
    [7, 8, 256],
    [3, 9, 768],
  ],
  full: [
    [5, 13, 512],
    [7, 8, 256],
    [3, 9, 768],
    [13, 40, 4608],
    [37, 24, 1024],
    [64, 8, 2048],
  ],
});

/** Where a block's f16 lie: the second one is Q4_K's scale of minima. */
const HALVES: Readonly<Record<KDType, readonly number[]>> = { q4k: [0, 2], q6k: [208] };

/** Random blocks of Q4_K or Q6_K, or blocks of one byte, with scales of either sign about 2^-7. */
function superBlocks(dtype: KDType, count: number, seed: number, fill?: number): Uint8Array {
  const { bytes } = BLOCK_TYPES[K_DTYPES[dtype]];
  let state = seed * 2654435769 + 1;
  const out = Uint8Array.from({ length: count * bytes }, () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return fill ?? state >>> 24;
  });
  for (let b = 0; b < count; b++)
    for (const at of HALVES[dtype]) out.set([(b * 37 + at) & 255, 0x1c | (b & 3) | (b % 5 ? 0 : 0x80)], b * bytes + at);
  return out;
}

/** Blocks with one of their f16 set to 0: what is left of the values. */
function without(dtype: KDType, raw: Uint8Array, half: number): Uint8Array {
  const { bytes } = BLOCK_TYPES[K_DTYPES[dtype]];
  const out = raw.slice();
  for (let b = 0; b < out.length; b += bytes) out.set([0, 0], b + half);
  return out;
}

/** Weights for products of many groups, made once for all builds. */
const LONG = new Map<DType | KDType, Pick<Segment, "w" | "raw">>();
function longWeights(dtype: DType | KDType, count: number): Pick<Segment, "w" | "raw"> {
  const part = normal(4099, 8, 1 / 32); // a prime: no row is like another
  const made =
    LONG.get(dtype) ??
    (isKDType(dtype)
      ? { w: NONE, raw: superBlocks(dtype, count / 256, 9) }
      : { w: Float32Array.from({ length: count }, (_, i) => part[i % part.length]!) });
  LONG.set(dtype, made);
  return made;
}

/** Fails unless y is x times the values of the blocks, within the rounding of f32 of all that is added, values and minima apart, and of the sums of x that meet the minima. */
function checkSuper(
  y: Float32Array,
  type: BlockType,
  raw: Uint8Array,
  x: Float32Array,
  M: number,
  N: number,
  K: number,
  what: string,
): void {
  const ref = matmulQuantized(x, decodeBlocks(type, raw), M, N, K);
  const parts = type === "Q4_K" ? [without("q4k", raw, 0), without("q4k", raw, 2)] : [raw];
  const sizes = parts.map((part) => matmulQuantized(x, decodeBlocks(type, part), M, N, K).size);
  const sums = type === "Q4_K" ? sumsRounding(x, decodeBlocks(type, parts[0]!), M, N, K) : new Float64Array(M * N);
  close(columnsOf(y, up(N, 8), N), ref.y, (i) => 2 ** -22 * sizes.reduce((sum, size) => sum + size[i]!, 0) + sums[i]!, what);
}

suite(
  "matmul",
  (lab) => {
    for (const dtype of DTYPES)
      lab.it(`${dtype}: float64 reference, same bits for every split, thread share and build`, () => {
        for (const [M, N, K] of lab.some(shapes, 2)) {
          const [x, w] = [normal(M * K, 1), normal(N * K, 2, K ** -0.5)];
          const problem = { M, K, x, segments: [{ dtype, N, w }] };
          const y = product(lab, problem, [M], 1);
          const ref = expected(dtype, x, w, M, N, K);
          close(columnsOf(y, up(N, 8), N), ref.y, (i) => 2 ** -22 * ref.size[i]!, `${M}×${N}×${K}`);
          assert.ok(
            columnsOf(y, up(N, 8), up(N, 8) - N, N).every((v) => v === 0),
            "padding columns are 0",
          );
          for (const split of splits(M)) lab.agree(`${M}×${N}×${K}`, product(lab, problem, split, 1));
          for (const nth of [2, 3]) lab.agree(`${M}×${N}×${K}`, product(lab, problem, [M], nth));
        }
      });
    for (const [dtype, type] of Object.entries(K_DTYPES) as [KDType, BlockType][]) {
      lab.it(`${dtype}: float64 reference on stored blocks, same bits for every split, thread share and build`, () => {
        for (const [M, N, K] of lab.some(superShapes, 2)) {
          const [x, raw] = [normal(M * K, 1), superBlocks(dtype, (N * K) / 256, K + N)];
          const problem = { M, K, x, segments: [{ dtype, N, w: NONE, raw }] };
          const y = product(lab, problem, [M], 1);
          checkSuper(y, type, raw, x, M, N, K, `${M}×${N}×${K}`);
          assert.ok(
            columnsOf(y, up(N, 8), up(N, 8) - N, N).every((v) => v === 0),
            "padding columns are 0",
          );
          for (const split of splits(M)) lab.agree(`${M}×${N}×${K}`, product(lab, problem, split, 1));
          for (const nth of [2, 3]) lab.agree(`${M}×${N}×${K}`, product(lab, problem, [M], nth));
        }
      });

      lab.it(`${dtype}: extreme integers, and activations that are not finite or count as zero`, () => {
        const [M, N, K] = [5, 8, 512];
        for (const fill of lab.some([0x00, 0xff, 0x80, 0x7f, 0xf0, 0x0f], 2)) {
          const raw = superBlocks(dtype, (N * K) / 256, 5, fill);
          for (const [p, pattern] of lab.some([...patterns.entries()], 2)) {
            const x = Float32Array.from({ length: M * K }, (_, i) => pattern(i));
            const y = product(lab, { M, K, x, segments: [{ dtype, N, w: NONE, raw }] }, [M], 1);
            checkSuper(y, type, raw, x, M, N, K, `bytes ${fill}, pattern ${p}`);
            lab.agree(`${fill} ${p}`, y);
          }
        }
        const raw = superBlocks(dtype, (N * K) / 256, 6);
        const segments = [{ dtype, N, w: NONE, raw }];
        for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          const x = normal(K, 7);
          x[37] = value;
          assert.ok(product(lab, { M: 1, K, x, segments }, [1], 1).every(Number.isNaN), `${value}`);
        }
        assert.ok(product(lab, { M: 1, K, x: normal(K, 7, 1e-32), segments }, [1], 1).every((v) => v === 0));
      });
    }

    // 247 groups of at least 4,608 bytes: one thread reads four runs of them at a time, or two of a K format, and three groups that are left; each of two threads does so with its half
    if (lab.variant.name === "relaxed")
      for (const dtype of ["q8", "q4", "q4k", "q6k"] as const)
        lab.it(`${dtype}: a row alone, which reads long weights in several runs, has the bits that it has beside another`, () => {
          const [M, N, K] = [2, 1973, 1024];
          const segments = [{ dtype, N, ...longWeights(dtype, N * K) }];
          const problem = { M, K, x: normal(M * K, 3), segments, bias: normal(up(N, 8), 4) };
          const y = product(lab, problem, [2], 1);
          assert.ok(columnsOf(y, up(N, 8), N).every((v) => v !== 0));
          lab.agree(dtype, y);
          for (const nth of [1, 2]) lab.agree(dtype, product(lab, problem, [1, 1], nth));
        });

    lab.it("segments of every dtype side by side, with bias, equal each alone", () => {
      const [M, K] = [5, 256];
      const x = normal(M * K, 3);
      const segments = (["q4", "f32", "q4k", "q8", "bf16", "q6k", "f16", "q4", "q4k"] as const).map((dtype, i): Segment => {
        const N = [8, 3, 12, 17, 1, 9, 9, 30, 8][i]!;
        return isKDType(dtype) ? { dtype, N, w: NONE, raw: superBlocks(dtype, N, i) } : { dtype, N, w: normal(N * K, 10 + i) };
      });
      const total = segments.reduce((sum, s) => sum + up(s.N, 8), 0);
      const bias = normal(total, 5);
      const whole = product(lab, { M, K, x, segments, bias }, [M], 1);
      let at = 0;
      for (const segment of segments) {
        const alone = product(lab, { M, K, x, segments: [segment] }, [M], 1);
        const width = up(segment.N, 8);
        const sum = alone.map((v, i) => Math.fround(v + bias[at + (i % width)]!));
        assert.deepEqual(columnsOf(whole, total, width, at), sum, segment.dtype);
        at += width;
      }
      for (const nth of [1, 2, 3, 5, 16]) lab.agree("mixed", product(lab, { M, K, x, segments, bias }, [2, 3], nth));
    });

    lab.it("golden matmul_bf16", () => {
      const { cases, array } = golden<{ case: number; M: number; N: number; K: number }>("matmul_bf16");
      for (const { case: c, M, N, K } of lab.some(cases)) {
        const [x, bits, y] = [array(`${c}.x`).data, new Uint16Array(array(`${c}.w_bf16`).bytes.buffer), array(`${c}.y`).data];
        const w = Float32Array.from(bits, (b) => new Float32Array(Uint32Array.of(b << 16).buffer)[0]!);
        for (const dtype of ["bf16", "f32"] as const) {
          const got = product(lab, { M, K, x, segments: [{ dtype, N, w }] }, [M], 1);
          const { size } = matmul(x, w, M, N, K);
          close(columnsOf(got, up(N, 8), N), y, (i) => 2 ** -22 * size[i]! + 2 ** -24 * Math.abs(y[i]!), `case ${c}`);
        }
      }
    });

    lab.it("q8 and q4: not-a-number and infinite activations reach the result", () => {
      const [N, K] = [8, 64];
      for (const dtype of ["q8", "q4"] as const)
        for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          const x = normal(K, 7);
          x[37] = value;
          const y = product(lab, { M: 1, K, x, segments: [{ dtype, N, w: normal(N * K, 8) }] }, [1], 1);
          assert.ok(!y.some(Number.isFinite), `${dtype} with ${value}: ${y}`);
        }
    });

    lab.it("q8 and q4: a block of activations below 2^-100 counts as zero", () => {
      const [N, K] = [8, 64];
      for (const dtype of ["q8", "q4"] as const)
        for (const scale of [1e-31, 1e-37, 1e-41]) {
          const x = normal(K, 7, scale / 8);
          x.fill(0, 40);
          const y = product(lab, { M: 1, K, x, segments: [{ dtype, N, w: normal(N * K, 8) }] }, [1], 1);
          assert.ok(
            y.every((v) => v === 0),
            `${dtype} at ${scale}: ${y}`,
          );
        }
    });

    lab.it("extreme integers: a stored q8 of -128, which packing from floats never makes", () => {
      const [M, N, K] = [5, 8, 64];
      for (const v of [127, -127, 120, -8]) {
        const x = Float32Array.from({ length: M * K }, (_, i) => (i % 32 ? v : Math.sign(v) * 127));
        const data = new Uint8Array((N * K * 34) / 32);
        for (let b = 0; b < data.length; b += 34) data.set([0, 0x3c, ...Array(32).fill(b % 68 ? 0x80 : 0x7f)], b); // scale 1; -128, or 127
        const blocks = lab.kernels.packed_block_bytes(codeOf("q8")) * (K / 32);
        const [dst, src] = [lab.room(blocks), lab.put(data)];
        assert.equal(lab.kernels.pack_rows(dst, codeOf("q8"), 0, src, codeOf("q8"), N, K, lab.room(32 * K)), 1);
        const matrix = describeMatrix(lab, K, [{ dtype: "q8", N, address: dst }]);
        const [xAt, xq, y] = [lab.put(x), lab.room(M * lab.kernels.qd8_row_bytes(K)), lab.floats(M * N)];
        lab.run("quantize", [xq, xAt, M, K, K]);
        lab.run("matmul", [y, 0, xq, matrix, M, N, K, 0]);
        const sum = (w: number): number => w * (Math.sign(v) * 127 + 31 * v);
        assert.ok(
          lab.read(y, M * N).every((got) => got === sum(127) + sum(-128)),
          `x = ${v}`,
        );
        lab.check();
        lab.reset();
      }
    });

    lab.it("extreme integers: sums of activations and weights at the ends of their ranges", () => {
      const [M, N, K] = [5, 8, 128];
      for (const dtype of ["q8", "q4"] as const)
        for (const [p, pattern] of lab.some([...patterns.entries()], 2)) {
          const x = Float32Array.from({ length: M * K }, (_, i) => pattern(i));
          const w = Float32Array.from({ length: N * K }, (_, i) => (Math.floor(i / K) % 2 ? 1 : -1) * (dtype === "q8" ? 127 : 8));
          const ref = expected(dtype, x, w, M, N, K);
          const y = product(lab, { M, K, x, segments: [{ dtype, N, w }] }, [M], 1);
          close(y, ref.y, (i) => 2 ** -22 * ref.size[i]!, `${dtype}, pattern ${p}`);
          lab.agree(`${dtype} ${p}`, y);
        }
    });

    lab.it("an infinite activation gives the same in every build: nothing finite, NaN alone", () => {
      const [M, N, K] = [5, 8, 64];
      for (const dtype of ["q8", "q4"] as const) {
        const x = normal(M * K, 7);
        x[37] = Number.POSITIVE_INFINITY;
        x[K + 3] = Number.NEGATIVE_INFINITY;
        const y = product(lab, { M, K, x, segments: [{ dtype, N, w: normal(N * K, 8) }] }, [M], 1);
        assert.deepEqual(
          Array.from(y, Number.isNaN),
          Array.from(y, (_, i) => i < 2 * N),
        );
      }
    });
  },
  true,
);

suite(
  "quantize",
  (lab) => {
    lab.it("blocks, strides and shares: bytes do not depend on the thread count", () => {
      for (const [M, Kp] of lab.some([
        [3, 96],
        [1, 32],
        [3, 512],
      ] as const)) {
        const stride = Kp + 12;
        const x = spread(normal(M * Kp, 9), Kp, stride);
        const results = [1, 2, 3].map((nth) => {
          const bytes = M * lab.kernels.qd8_row_bytes(Kp);
          const [out, at] = [lab.room(bytes, 0), lab.put(x)];
          lab.run("quantize", [out, at, M, Kp, stride], nth);
          const got = lab.bytes(out, bytes).slice();
          lab.check();
          lab.reset();
          return got;
        });
        assert.deepEqual(results[1], results[0]);
        assert.deepEqual(results[2], results[0]);
      }
    });

    lab.it("a segment packs the same whole or in pieces of 8 rows", () => {
      const [N, K] = [21, 64];
      for (const dtype of DTYPES) {
        const w = normal(N * K, 12);
        const whole = packSegment(lab, { dtype, N, w }, K);
        const bytes = 3 * 2 * lab.kernels.packed_block_bytes(DTYPES.indexOf(dtype));
        const [dst, src, scratch] = [lab.room(bytes), lab.put(w), lab.room(8 * K * 4)];
        for (const [row0, rows] of [
          [0, 8],
          [8, 8],
          [16, 5],
        ] as const)
          assert.equal(lab.kernels.pack_rows(dst, DTYPES.indexOf(dtype), row0, src + 4 * row0 * K, 0, rows, K, scratch), 1);
        assert.deepEqual(lab.bytes(dst, bytes), lab.bytes(whole, bytes));
        lab.reset();
      }
    });
  },
  true,
);
