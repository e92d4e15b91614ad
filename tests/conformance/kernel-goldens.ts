// The kernels against the reference's golden arrays in whatever runtime this is: a compiled build and tests/golden/data/kernels by URL. Odd shapes, shares, builds and the other
// element types are tests/kernels' and tests/bits'.
import assert from "node:assert/strict";
import { codeOf, type DType, Lab, up } from "../bits/lab.ts";
import { Ledger } from "../bits/ledger.ts";
import { descriptor } from "../bits/matmul.ts";
import { rowTable } from "../bits/rows.ts";
import { BLOCK_TYPES, type BlockType } from "../reference/blocks.ts";
import { bf16FromBits, f16FromBits, f32FromBits } from "../reference/convert.ts";

interface Golden {
  readonly shape: readonly number[];
  readonly bytes: ArrayBuffer;
  readonly data: Float32Array;
}
type Case = Readonly<Record<string, number>> & { readonly inputs: readonly string[] };
type Arrays = (name: string) => Golden;
type Check = (lab: Lab, c: Case, array: Arrays) => void;

/** Fails where |got - want| exceeds the bound, or is NaN. @param row values of a row of `want`, of which `got` has one every `stride` */
function close(got: Float32Array, want: Float32Array, bound: (want: number) => number, row: number = 1, stride: number = row): void {
  want.forEach((v, i) => {
    const value = got[Math.floor(i / row) * stride + (i % row)] ?? Number.NaN;
    assert.ok(Math.abs(value - v) <= bound(v), `[${i}]: ${value}, expected ${v} ± ${bound(v)}`);
  });
}

/** Rows of `columns` values laid out `stride` apart. */
function spread(data: Float32Array, columns: number, stride: number): Float32Array {
  const out = new Float32Array((data.length / columns) * stride);
  for (let r = 0; r * columns < data.length; r++) out.set(data.subarray(r * columns, (r + 1) * columns), r * stride);
  return out;
}

/** A matrix of segments (N,K) of f32, packed in a dtype. @returns its descriptor */
function matrix(lab: Lab, dtype: DType, K: number, weights: readonly Float32Array[]): number {
  const code = dtype === "f32" ? 0 : 2;
  const segments = weights.map((w) => {
    const rows = w.length / K;
    const address = lab.room((up(rows, 8) / 8) * (up(K, 32) / 32) * lab.kernels.packed_block_bytes(code));
    lab.kernels.pack_rows(address, code, 0, lab.put(w), 0, rows, K, lab.room(32 * up(K, 32)));
    return { dtype, rows, address };
  });
  return descriptor(lab, K, segments);
}

/** x (M,K) times a matrix of N padded columns. @returns y's address */
function product(lab: Lab, x: number, w: number, M: number, N: number, Kp: number): number {
  const y = lab.floats(M * N);
  lab.run("matmul", [y, x, 0, w, M, N, Kp, 0]);
  return y;
}

const matmul: Check = (lab, { M = 0, N = 0, K = 0 }, array) => {
  const w = Float32Array.from(new Uint16Array(array("w_bf16").bytes), (b) => new Float32Array(Uint32Array.of(b << 16).buffer)[0] ?? 0);
  const [x, want, Kp, Np] = [array("x").data, array("y").data, up(K, 32), up(N, 8)];
  const at = lab.put(spread(x, K, Kp));
  const top = K * Math.max(...x.map(Math.abs)) * Math.max(...w.map(Math.abs)); // what may be added up
  for (const dtype of ["bf16", "f32"] as const) {
    const y = product(lab, at, matrix(lab, dtype, K, [w]), M, Np, Kp);
    close(lab.read(y, M * Np), want, (v) => 2 ** -22 * top + 2 ** -24 * Math.abs(v), N, Np);
  }
};

const rmsnorm: Check = (lab, { eps = 0 }, array) => {
  const x = array("x");
  const [M = 0, K = 0] = x.shape;
  const D = up(K, 16); // the kernel takes multiples of 16: zeros behind, and sqrt(D/K) keeps the mean
  const factor = Math.sqrt(D / K);
  const at = lab.put(
    spread(
      x.data.map((v) => v * factor),
      K,
      D,
    ),
  );
  const g = lab.put(
    spread(
      array("w").data.map((v) => v / factor),
      K,
      D,
    ),
  );
  const y = lab.floats(M * D);
  lab.run("rmsnorm", [y, 0, at, 0, g, 0, M, D, D, { f: eps }]);
  close(lab.read(y, M * D), array("y").data, (v) => 1e-6 * Math.abs(v) + 1e-9, K, D);
};

/** The cosines and sines of rows at positions. @returns their address and the rows' table */
function angles(lab: Lab, positions: Int32Array, theta: number, hd: number): number {
  const frequencies = lab.room(4 * hd);
  lab.kernels.rope_frequencies(frequencies, theta, hd);
  const table = lab.floats(positions.length * hd);
  const rows = rowTable(
    lab,
    Array.from(positions, (position, first) => ({ first, count: 1, position })),
  );
  lab.run("rope_table", [table, rows, positions.length, frequencies, hd, { f: 1 }]);
  return table;
}

const pages = (lab: Lab, positions: number, bytes: number): number =>
  lab.put(Uint32Array.from({ length: Math.ceil(positions / 32) }, () => lab.room(bytes)));

const rope: Check = (lab, { theta = 0, hd = 0 }, array) => {
  const x = array("x");
  const [T = 0, heads = 0] = x.shape;
  const stride = (heads + 2) * hd;
  const at = lab.put(spread(x.data, heads * hd, stride));
  const table = angles(lab, new Int32Array(array("positions").bytes), theta, hd);
  // a norm that changes nothing: an eps that drowns the mean square, and a gain that undoes it
  const gain = lab.put(new Float32Array(hd).fill(2 ** 30));
  const rows = rowTable(lab, [{ first: 0, count: T, position: 0, pages: pages(lab, T, 2 * 32 * hd * 4) }]);
  lab.run("norm_rope_append_f32", [at, stride, gain, gain, table, rows, 1, 0, heads, 1, hd, { f: 2 ** 60 }]);
  close(lab.read(at, T * stride), array("y").data, () => 1e-6, heads * hd, stride);
};

const swiglu: Check = (lab, { inputs }, array) => {
  const want = array("y").data;
  if (inputs[0] === "a") {
    const [a, b] = [array("a"), array("b")];
    const F = a.shape.at(-1) ?? 0;
    const [T, F8] = [a.data.length / F, up(F, 8)];
    const ab = spread(a.data, F, 2 * F8);
    for (let t = 0; t < T; t++) ab.set(b.data.subarray(t * F, (t + 1) * F), t * 2 * F8 + F8);
    const y = lab.floats(T * F8);
    lab.run("silu_mul", [y, F8, 0, lab.put(ab), 2 * F8, T, F8]);
    return close(lab.read(y, T * F8), want, (v) => 1e-6 * Math.abs(v) + 1e-9, F, F8);
  }
  const [n, w1, w3, w2] = [array("n"), array("w1"), array("w3"), array("w2")];
  const [T = 0, D = 0] = n.shape;
  const F = w1.shape[0] ?? 0;
  const [Dp, D8, F8, Fp] = [up(D, 32), up(D, 8), up(F, 8), up(F, 32)];
  const ab = product(lab, lab.put(spread(n.data, D, Dp)), matrix(lab, "f32", D, [w1.data, w3.data]), T, 2 * F8, Dp);
  const act = lab.floats(T * Fp);
  lab.run("silu_mul", [act, Fp, 0, ab, 2 * F8, T, F8]);
  const y = product(lab, act, matrix(lab, "f32", F, [w2.data]), T, D8, Fp);
  close(lab.read(y, T * D8), want, (v) => 1e-5 * (1 + Math.abs(v)), D, D8);
};

const shortconv: Check = (lab, { T = 0, D = 0, Kc = 0, inputs }, array) => {
  const W = up(D, 4); // the kernel takes multiples of 4: zero columns behind
  const bcu = new Float32Array(T * 3 * W);
  for (const [i, name] of ["B", "C", "u"].entries())
    for (let t = 0; t < T; t++) bcu.set(array(name).data.subarray(t * D, (t + 1) * D), (3 * t + i) * W);
  const columns = array("taps").data; // (D, Kc)
  const taps = Float32Array.from({ length: Kc * W }, (_, i) => (i % W < D ? (columns[(i % W) * Kc + Math.floor(i / W)] ?? 0) : 0));
  const state = lab.put(spread(array("state").data, D, W));
  const bias = inputs.includes("bias") ? lab.put(spread(array("bias").data, D, W)) : 0;
  const [x, tapsAt, y] = [lab.put(bcu), lab.put(taps), lab.floats(T * W)];
  lab.run("shortconv", [y, W, 0, x, 3 * W, rowTable(lab, [{ first: 0, count: T, position: 0, state }]), 1, 0, tapsAt, bias, W, Kc]);
  close(lab.read(y, T * W), array("y").data, (v) => 1e-6 * (1 + Math.abs(v)), D, W);
  close(lab.read(state, (Kc - 1) * W), array("state_after").data, (v) => 2e-7 * Math.abs(v), D, W);
};

const attention: Check = (lab, { T = 0, P = 0, H = 0, G = 0, hd = 0 }, array) => {
  const [q, k, v] = [array("q").data, array("k").data, array("v").data];
  const [S, stride] = [P + T, (H + 2 * G) * hd];
  const qkv = new Float32Array(S * stride);
  for (let t = 0; t < S; t++) {
    qkv.set(k.subarray(t * G * hd, (t + 1) * G * hd), t * stride + H * hd);
    qkv.set(v.subarray(t * G * hd, (t + 1) * G * hd), t * stride + (H + G) * hd);
  }
  const unturned = Float32Array.from({ length: S * hd }, (_, i) => (i % hd < hd / 2 ? 1 : 0)); // cosines, then sines
  const [at, turns, gain] = [lab.put(qkv), lab.put(unturned), lab.put(new Float32Array(hd).fill(2 ** 30))];
  const cache = pages(lab, S, G * 2 * 32 * hd * 4);
  const whole = rowTable(lab, [{ first: 0, count: S, position: 0, pages: cache }]);
  lab.run("norm_rope_append_f32", [at, stride, gain, gain, turns, whole, 1, 0, H, G, hd, { f: 2 ** 60 }]);
  const rows = rowTable(lab, [{ first: 0, count: T, position: P, pages: cache }]);
  const [y, queries, scratch] = [lab.floats(T * H * hd), lab.put(q), lab.room(lab.kernels.attention_scratch_bytes(H, G, hd))];
  const scale = { f: Math.fround(hd ** -0.5) };
  lab.run("attention_f32", [y, H * hd, queries, H * hd, rows, 1, 0, 0, 0, scratch, H, G, hd, scale]);
  const scores = Math.max(...q.map(Math.abs)) * Math.max(...k.map(Math.abs)); // large scores lose absolute accuracy in f32
  close(lab.read(y, T * H * hd), array("y").data, () => 4e-6 * Math.max(1, scores / 4));
};

/** Fails where a bit differs; any NaN is as good as another. */
function same(got: Float32Array, want: ArrayLike<number>, what: string): void {
  assert.equal(got.length, want.length, what);
  const wrong = got.findIndex((v, i) => !Object.is(v, want[i]));
  assert.equal(wrong, -1, `${what} [${wrong}]: ${got[wrong]}, expected ${want[wrong]}`);
}

/** Stored rows (N,K) packed as `dtype`, and read out of the packed layout. */
function repacked(lab: Lab, dtype: DType, src: number, srcType: number, N: number, K: number): Float32Array {
  const [code, stride] = [codeOf(dtype), up(K, 32)];
  const address = lab.room((up(N, 8) / 8) * (stride / 32) * lab.kernels.packed_block_bytes(code));
  lab.kernels.pack_rows(address, code, 0, src, srcType, N, K, lab.room(32 * stride));
  const w = descriptor(lab, K, [{ dtype, rows: N, address }]);
  const [ids, out] = [lab.put(Int32Array.from({ length: N }, (_, i) => i)), lab.floats(N * stride)];
  lab.run("gather", [out, ids, w, N, stride]);
  return lab.read(out, N * stride);
}

/** GGUF's types that are packed as the blocks that they are. */
const KEPT: Readonly<Record<string, DType>> = { Q4_0: "q4", Q8_0: "q8", Q4_K: "q4k", Q6_K: "q6k" };

/** ggml's bits of a type of blocks: decoded from an odd address and, where the blocks are kept, out of the packed layout. */
function dequantize(lab: Lab, type: string, array: Arrays): void {
  const dtype = KEPT[type];
  const code = dtype ? codeOf(dtype) : BLOCK_TYPES[type as BlockType].code;
  for (const [raw, values] of [
    ["raw", "y"],
    ["x_quantized_by_ggml", "x_dequantized"],
  ] as const) {
    const [bytes, want] = [new Uint8Array(array(raw).bytes), array(values).data];
    const src = lab.room(bytes.length + 1) + 1;
    lab.write(src, bytes);
    const out = lab.floats(want.length);
    lab.kernels.decode_rows(out, want.length, src, code, 1, want.length);
    same(lab.read(out, want.length), want, `${type}, decoded`);
    const K = 512;
    if (dtype) same(repacked(lab, dtype, src, code, want.length / K, K), want, `${type}, packed`);
  }
}

type Conversions = Readonly<Record<"f32_to" | "f16_to_f32", { readonly rows: readonly (readonly (number | "nan")[])[] }>>;

/** Bits to bits: halves to f32, f32 to halves and to bf16. */
function convert(lab: Lab, { f32_to, f16_to_f32 }: Conversions): void {
  const column = (of: Conversions["f32_to"], i: number, decode: (bits: number) => number): number[] =>
    of.rows.map((row) => (row[i] === "nan" ? Number.NaN : decode(row[i] as number)));
  const halves = lab.put(Uint16Array.from(column(f16_to_f32, 0, Number)));
  const n = f16_to_f32.rows.length;
  const out = lab.floats(n);
  lab.kernels.decode_rows(out, n, halves, codeOf("f16"), 1, n);
  same(lab.read(out, n), column(f16_to_f32, 1, f32FromBits), "f16 to f32");
  const floats = lab.put(Uint32Array.from(column(f32_to, 0, Number)));
  for (const [i, dtype, decode] of [
    [1, "bf16", bf16FromBits],
    [2, "f16", f16FromBits],
  ] as const) {
    const got = repacked(lab, dtype, floats, codeOf("f32"), 1, f32_to.rows.length);
    same(got.subarray(0, f32_to.rows.length), column(f32_to, i, decode), `f32 to ${dtype}`);
  }
}

const CHECKS: Readonly<Record<string, Check>> = { matmul_bf16: matmul, rmsnorm, rope, swiglu, shortconv, attention };

const read = async <T>(base: string, name: string): Promise<T> => (await fetch(`${base}golden/${name}.json`)).json() as Promise<T>;

async function load<C>(base: string, name: string): Promise<{ cases: readonly C[]; array(c: number | string): Arrays }> {
  const cases = await read<C[]>(base, name);
  const file = await (await fetch(`${base}golden/${name}.safetensors`)).arrayBuffer();
  const start = 8 + Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.slice(8, start))) as Record<
    string,
    { shape: number[]; data_offsets: [number, number] }
  >;
  return {
    cases,
    array: (c) => (key) => {
      const { shape, data_offsets } = header[`${c}.${key}`] ?? assert.fail(`no array ${c}.${key} in ${name}`);
      const bytes = file.slice(start + data_offsets[0], start + data_offsets[1]);
      return { shape, bytes, data: bytes.byteLength % 4 ? new Float32Array() : new Float32Array(bytes) };
    },
  };
}

/**
 * @param base where `golden/` is
 * @param moduleOf gives a build: compiled here, or imported
 */
export function kernelGoldens(base: string, builds: readonly string[], moduleOf: (build: string) => Promise<WebAssembly.Module>): void {
  for (const build of builds)
    describe(`kernel goldens, ${build}`, () => {
      let lab: Lab;
      before(async () => {
        lab = new Lab({ name: build, module: await moduleOf(build) }, new Ledger(), false);
      });
      for (const [name, check] of Object.entries(CHECKS))
        it(name, async () => {
          const { cases, array } = await load<Case>(base, name);
          assert.ok(cases.length > 4);
          for (const c of cases) {
            lab.reset();
            check(lab, c, array(c.case ?? 0));
          }
        });
      for (const name of ["dequantize", "dequantize_ggml"])
        it(name, async () => {
          const { cases, array } = await load<{ readonly type: string }>(base, name);
          assert.ok(cases.length > 4);
          for (const { type } of cases) {
            lab.reset();
            dequantize(lab, type, array(type));
          }
        });
      it("convert", async () => {
        lab.reset();
        convert(lab, await read<Conversions>(base, "convert"));
      });
    });
}
