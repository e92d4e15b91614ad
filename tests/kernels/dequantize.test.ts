// GGUF's block formats beside Q8_0 and Q4_0: to f32 with ggml's bits, and what the packed layout loses.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { packedBlockBytes, type WeightDType } from "../../src/memory/dtype.ts";
import { STORED_TYPES, type StoredType } from "../../src/weights/tensor.ts";
import { BLOCK_TYPES, type BlockType, decodeBlocks } from "../reference/blocks.ts";
import { dequantize, f32Bits, quantizeQ4, quantizeQ8 } from "../reference/convert.ts";
import { codeOf, describeMatrix, golden } from "./fixtures.ts";
import { columnsOf, normal, type Sandbox, suite, up } from "./harness.ts";

const TYPES = Object.keys(BLOCK_TYPES) as BlockType[];
const bits = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

/** Fails where a bit differs. */
function equalBits(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.equal(actual.length, expected.length, what);
  if (bits(actual).equals(bits(expected))) return;
  const i = actual.findIndex((v, n) => f32Bits(v) !== f32Bits(expected[n]!));
  assert.fail(`${what} [${i}]: ${actual[i]}, expected ${expected[i]}`);
}
/** From ggml itself: three K formats among the shared goldens, the others made by makers/dequantize_ggml.py. */
const goldens = [golden<{ type: string }>("dequantize"), golden<{ type: string }>("dequantize_ggml")];
function goldenOf(type: BlockType): (key: string) => { bytes: Uint8Array; data: Float32Array } {
  const file = goldens.find(({ cases }) => cases.some((c) => c.type === type)) ?? assert.fail(`no golden for ${type}`);
  return (key) => file.array(`${type}.${key}`);
}

/** Rows as decode_rows gives them, from an odd address. */
function decoded(lab: Sandbox, type: BlockType, raw: Uint8Array, rows: number, K: number, stride = K): Float32Array {
  const src = lab.room(raw.length + 1) + 1;
  lab.bytes(src, raw.length).set(raw);
  const out = lab.floats(rows * stride);
  lab.kernels.decode_rows(out, stride, src, BLOCK_TYPES[type].code, rows, K);
  return lab.read(out, rows * stride);
}

/** What a block type is packed as. */
type Packed = "q8" | "q4" | "q4k" | "q6k";

/** Rows packed and read back by gather. */
function repacked(
  lab: Sandbox,
  type: BlockType,
  dtype: Packed,
  raw: Uint8Array,
  N: number,
  K: number,
): { fine: number; values: Float32Array } {
  const src = lab.room(raw.length + 1) + 1;
  lab.bytes(src, raw.length).set(raw);
  const [at, scratch] = [lab.room((up(N, 8) / 8) * (K / 32) * lab.kernels.packed_block_bytes(codeOf(dtype))), lab.room(32 * K)];
  const fine = lab.kernels.pack_rows(at, codeOf(dtype), 0, src, BLOCK_TYPES[type].code, N, K, scratch);
  const matrix = describeMatrix(lab, K, [{ dtype, N, address: at }]);
  const [ids, out] = [lab.put(Int32Array.from({ length: N }, (_, i) => i)), lab.floats(N * K)];
  lab.run("gather", [out, ids, matrix, N, K]);
  return { fine, values: lab.read(out, N * K) };
}

/** Root mean square of the differences over that of the values, and the largest difference over the largest value of its 32. */
function loss(values: Float32Array, from: Float32Array): { rms: number; max: number } {
  let [error, size, max] = [0, 0, 0];
  for (let b = 0; b < from.length; b += 32) {
    const top = from.subarray(b, b + 32).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    for (let i = b; i < b + 32; i++) {
      const e = Math.abs(values[i]! - from[i]!);
      error += e * e;
      size += from[i]! * from[i]!;
      if (top > 0) max = Math.max(max, e / top);
    }
  }
  return { rms: Math.sqrt(error / size), max };
}

/** What docs/architecture.md states of a type of a file. */
interface Stated {
  readonly dtype: string;
  /** Bytes in memory against the file's, as they are written there. */
  readonly bytes: string;
  readonly rms: number;
  readonly max: number;
}

/** The table of docs/architecture.md, by type; where a dtype is asked for by both, as in `F32 q8`. */
const STATED: ReadonlyMap<string, Stated> = new Map(
  readFileSync("docs/architecture.md", "utf8")
    .split("\n| in the file |")[1]!
    .split("\n\n")[0]!
    .split("\n")
    .slice(2)
    .flatMap((line) => {
      const [, file = "", memory = "", bytes = "", rms = "", max = ""] = line.split("|");
      const asked = /`dtype: "(\w+)"`/.exec(file)?.[1];
      const dtypes = memory.match(/\b(?:b?f16|f32|q\d\w*)\b/g) ?? [];
      const ratios = bytes.match(/[\d.]+/g) ?? [];
      const types = file.match(/\b(?:B?F16|F32|I?Q\d_\w+)\b/g) ?? [];
      return types.map((type, i): [string, Stated] => [
        asked === undefined ? type : `${type} ${asked}`,
        { dtype: dtypes[i] ?? dtypes[0]!, bytes: ratios[i] ?? ratios[0]!, rms: Number.parseFloat(rms), max: Number.parseFloat(max) },
      ]);
    }),
);

/**
 * What repacking loses beside the file's own rounding, measured on normal numbers that ggml quantized: rms over the weights' rms, largest difference over the
 * largest weight of its block of 32. Scales are those of the least squared error: the largest weights of a block may be cut by somewhat more than half a step.
 */
function statedOf(type: BlockType): { readonly dtype: Packed; readonly rms: number; readonly max: number } {
  const { dtype, ...stated } = STATED.get(type) ?? assert.fail(`no ${type} in docs/architecture.md`);
  return { ...stated, dtype: dtype as Packed };
}

/** Where the halves of a block lie. */
const HALVES: Readonly<Record<BlockType, readonly number[]>> = {
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
  IQ4_NL: [0],
};

const flipped = new Map<BlockType, { readonly data: Uint8Array; readonly want: Float32Array }>();

/** One block again and again, each time with another bit flipped, and its values. */
function flippedBlocks(type: BlockType): { readonly data: Uint8Array; readonly want: Float32Array } {
  const { bytes } = BLOCK_TYPES[type];
  let made = flipped.get(type);
  if (!made) {
    const block = Uint8Array.from({ length: bytes }, (_, i) => (i * 73 + 29) & 255);
    for (const [i, at] of HALVES[type].entries()) block.set([0, 0x2c - 4 * i], at); // 2^-4, 2^-5
    const data = new Uint8Array(8 * bytes * bytes);
    for (let n = 0; n < 8 * bytes; n++) {
      data.set(block, n * bytes);
      data[n * bytes + (n >> 3)]! ^= 1 << (n & 7);
    }
    made = { data, want: decodeBlocks(type, data) };
    flipped.set(type, made);
  }
  return made;
}

describe("what a load makes of a file's types, as docs/architecture.md has it", () => {
  it("every type that loads, what it becomes, and how many bytes that takes of the file's", () => {
    for (const type of Object.keys(STORED_TYPES)) assert.ok(STATED.has(type), type);
    for (const [what, { dtype, bytes }] of STATED) {
      const [type, asked] = what.split(" ");
      const stored = STORED_TYPES[type as StoredType];
      assert.equal(dtype, asked ?? stored.dtype, what);
      const ratio = packedBlockBytes[dtype as WeightDType] / (8 * 32) / (stored.bytes / stored.values);
      assert.equal(Number(ratio.toFixed(2)), Number(bytes), what);
    }
  });

  // the kernels give the reference's bits (pack.test.ts)
  for (const [name, quantize] of [
    ["q8", quantizeQ8],
    ["q4", quantizeQ4],
  ] as const)
    it(`quantizing to ${name}: of normal weights no more than is stated, and not much less`, () => {
      const { rms, max } = STATED.get(`F32 ${name}`) ?? assert.fail();
      const weights = normal(1 << 15, 7);
      const lost = loss(dequantize(quantize(weights)), weights);
      assert.ok(lost.rms <= rms && lost.max <= max, `rms ${lost.rms}, max ${lost.max}`);
      assert.ok(lost.rms > 0.9 * rms && lost.max > max / 2, `rms ${lost.rms}, max ${lost.max}`);
    });
});

suite("dequantize", (lab) => {
  for (const type of TYPES) {
    const { values, bytes, code } = BLOCK_TYPES[type];

    lab.it(`${type}: ggml's bits, in the reference and in decode_rows`, () => {
      const array = goldenOf(type);
      assert.equal(lab.kernels.stored_row_bytes(code, 4 * values), 4 * bytes);
      for (const [raw, y] of [
        ["raw", "y"],
        ["x_quantized_by_ggml", "x_dequantized"],
      ] as const) {
        const data = array(raw).bytes;
        const want = array(y).data;
        assert.ok(new Set(want).size > 100, "values of all kinds");
        equalBits(decodeBlocks(type, data), want, "the reference");
        equalBits(decoded(lab, type, data, 1, want.length), want, "one row");
        const K = 2 * values;
        const rows = decoded(lab, type, data, want.length / K, K, K + 8);
        equalBits(columnsOf(rows, K + 8, K), want, "rows");
        assert.ok(rows.filter((_, i) => i % (K + 8) >= K).every((v) => Object.is(v, 0)));
        lab.check();
        lab.reset();
      }
    });

    lab.it(`${type}: every bit of a block counts as the reference counts it`, () => {
      const { data, want } = flippedBlocks(type);
      equalBits(decoded(lab, type, data, 8 * bytes, values), want, "block");
      const { dtype } = statedOf(type);
      if (dtype === "q4k" || dtype === "q6k") equalBits(repacked(lab, type, dtype, data, 8 * bytes, values).values, want, "packed");
    });

    lab.it(`${type}: repacked as ${statedOf(type).dtype} it loses no more than is stated`, () => {
      const { dtype, rms, max } = statedOf(type);
      const data = goldenOf(type)("x_quantized_by_ggml").bytes;
      const want = decodeBlocks(type, data);
      const K = 2 * values;
      const { fine, values: got } = repacked(lab, type, dtype, data, want.length / K, K);
      assert.equal(fine, 1);
      const lost = loss(got, want);
      assert.ok(lost.rms <= rms && lost.max <= max, `rms ${lost.rms}, max ${lost.max}`);
      if (rms > 0) {
        equalBits(got, dequantize(dtype === "q8" ? quantizeQ8(want) : quantizeQ4(want)), "as the reference quantizes");
        assert.ok(lost.rms > rms / 2 && lost.max > max / 2, `a bound far from what is measured: rms ${lost.rms}, max ${lost.max}`);
      }
      lab.check();
    });

    lab.it(`${type}: packs a part of a group, and says when a scale is not finite`, () => {
      const [N, K] = [11, values];
      const data = goldenOf(type)("x_quantized_by_ggml").bytes.slice(0, N * bytes);
      const want = decodeBlocks(type, data);
      const { dtype } = statedOf(type);
      for (const to of ["q8", "q4"] as const) {
        const { fine, values: got } = repacked(lab, type, to, data, N, K);
        assert.equal(fine, 1);
        const { rms } = loss(got, want);
        assert.ok(rms <= (to === "q8" ? 0.006 : 0.13), `${to}: ${rms}`);
        lab.reset();
      }
      const at = HALVES[type][0]!;
      for (const bad of [0x7c00, 0xfc00, 0x7e00]) {
        const broken = data.slice();
        broken.set([bad & 255, bad >> 8], 9 * bytes + at);
        assert.equal(repacked(lab, type, dtype, broken, N, K).fine, 0, `${bad.toString(16)}`);
        const row = decoded(lab, type, broken, N, K).subarray(9 * K, 10 * K);
        const reference = decodeBlocks(type, broken).subarray(9 * K, 10 * K);
        row.forEach((v, i) => {
          assert.ok(Object.is(v, reference[i]) || v === reference[i], `${i}: ${v}, expected ${reference[i]}`);
        });
        lab.reset();
      }
    });
  }

  lab.it("a type that does not exist stops the kernel", () => {
    const [out, src] = [lab.floats(256), lab.room(512)];
    for (const code of [25, 99, -1]) {
      assert.throws(() => lab.kernels.decode_rows(out, 256, src, code, 1, 256), WebAssembly.RuntimeError);
      assert.throws(() => lab.kernels.pack_rows(out, codeOf("q8"), 0, src, code, 1, 256, out), WebAssembly.RuntimeError);
    }
    lab.check();
  });
});
