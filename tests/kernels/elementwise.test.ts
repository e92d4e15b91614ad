// silu_mul, add, copy, penalize and divide.
import assert from "node:assert/strict";
import { siluMul } from "../reference/layers.ts";
import { penalize } from "../reference/sampling.ts";
import { pick } from "../scale.ts";
import { golden, isQuantized8, packMatrix, quantizedRoom } from "./fixtures.ts";
import { close, columnsOf, normal, type Sandbox, spread, suite, up } from "./harness.ts";

/** Runs silu_mul on a, b (T,F), also quantizing when the stride allows it, with and without y. @returns (T,F) */
function silu(lab: Sandbox, a: Float32Array, b: Float32Array, T: number, nth: number, yStride = up(a.length / T, 8) + 12): Float32Array {
  const F = a.length / T;
  const F8 = up(F, 8);
  const abStride = 2 * F8 + 4;
  const ab = Float32Array.from({ length: T * 2 * F8 }, (_, i) => {
    const [t, column] = [Math.floor(i / (2 * F8)), i % F8];
    return column < F ? (i % (2 * F8) < F8 ? a : b)[t * F + column]! : 0;
  });
  const [y, abAt] = [lab.floats(T * yStride), lab.put(spread(ab, 2 * F8, abStride))];
  const yq = yStride % 32 === 0 ? quantizedRoom(lab, T, yStride) : 0;
  lab.run("silu_mul", [y, yStride, yq, abAt, abStride, T, F8], nth);
  const got = lab.read(y, T * yStride);
  assert.ok(
    columnsOf(got, yStride, yStride - F, F).every((v) => v === 0),
    "columns behind F are 0",
  );
  if (yq) {
    isQuantized8(lab, yq, y, T, yStride);
    if (F8 === yStride) {
      const alone = quantizedRoom(lab, T, yStride);
      lab.run("silu_mul", [0, yStride, alone, abAt, abStride, T, F8], nth);
      isQuantized8(lab, alone, y, T, yStride);
    }
  }
  lab.check();
  lab.reset();
  return columnsOf(got, yStride, F);
}

suite("silu_mul", (lab) => {
  lab.it("float64 reference, same bits for any share", () => {
    for (const [T, F] of [
      [3, 40],
      [1, 1],
      [2, 101],
      [5, 8],
      [2, 803],
      [3, 64],
      [2, 800],
    ] as const) {
      const [a, b] = [normal(T * F, 1, 8), normal(T * F, 2)];
      const want = Float64Array.from(a, (v, i) => siluMul(v, b[i]!));
      for (const nth of [1, 2, 3, 7])
        for (const yStride of [up(F, 8) + 12, up(F, 32), up(F, 32) + 96]) {
          const got = silu(lab, a, b, T, nth, yStride);
          close(got, want, (i) => 5e-7 * Math.abs(want[i]!) + 1e-36, `${T}×${F}`);
          lab.agree(`${T}×${F}`, got);
        }
    }
  });

  lab.it("silu has an error below 2.5 ulp from -87 to 88", () => {
    const n = pick({ gate: 1 << 14, full: 1 << 19 });
    const [from, to] = new Uint32Array(Float32Array.of(2 ** -24, 87).buffer) as unknown as [number, number];
    const size = new Float32Array(Uint32Array.from({ length: n }, (_, i) => from + Math.floor(((to - from) / n) * i)).buffer);
    for (const sign of [1, -1]) {
      const a = size.map((v) => sign * v);
      const got = silu(lab, a, new Float32Array(n).fill(1), 1, 1);
      a.forEach((v, i) => {
        const exact = v / (1 + Math.exp(-v));
        const ulp = 2 ** (Math.floor(Math.log2(Math.abs(exact))) - 23);
        assert.ok(Math.abs(got[i]! - exact) < 2.5 * ulp, `silu(${v}): ${got[i]}, expected ${exact}`);
      });
      lab.agree(`sign ${sign}`, got);
    }
  });

  lab.it("extremes: nothing overflows, not-a-number stays", () => {
    const a = Float32Array.of(-1e30, -200, -89, -88, -87, 0, -0, 88, 1e30, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN);
    const got = silu(lab, a, new Float32Array(a.length).fill(1), 1, 1);
    const want = Float64Array.from(a, (v) => (v < -80 ? 0 : siluMul(v, 1)));
    close(got.subarray(0, 9), want.subarray(0, 9), (i) => 1e-6 * Math.abs(want[i]!) + 1e-8);
    assert.ok(got[10] === Number.POSITIVE_INFINITY && Number.isNaN(got[11]!) && !(got[9]! > 0));
  });

  lab.it("golden swiglu", () => {
    const { cases, array } = golden<{ case: number; inputs: string[] }>("swiglu");
    for (const { case: c, inputs } of cases) {
      const y = array(`${c}.y`).data;
      if (inputs[0] === "a") {
        const a = array(`${c}.a`);
        const T = a.shape.length === 2 ? a.shape[0]! : 1;
        close(silu(lab, a.data, array(`${c}.b`).data, T, 1), y, (i) => 1e-6 * Math.abs(y[i]!) + 1e-9, `case ${c}`);
        continue;
      }
      const [n, w1] = [array(`${c}.n`), array(`${c}.w1`)];
      const [T, D, F] = [n.shape[0]!, n.shape[1]!, w1.shape[0]!];
      const [Dp, F8, Fp] = [up(D, 32), up(F, 8), up(F, 32)];
      const w13 = packMatrix(lab, D, [
        { dtype: "f32", N: F, w: w1.data },
        { dtype: "f32", N: F, w: array(`${c}.w3`).data },
      ]);
      const w2 = packMatrix(lab, F, [{ dtype: "f32", N: D, w: array(`${c}.w2`).data }]);
      const [x, ab, act, out] = [lab.put(spread(n.data, D, Dp, 0)), lab.floats(T * 2 * F8), lab.floats(T * Fp), lab.floats(T * up(D, 8))];
      lab.run("matmul", [ab, x, 0, w13, T, 2 * F8, Dp, 0]);
      lab.run("silu_mul", [act, Fp, 0, ab, 2 * F8, T, F8]);
      lab.run("matmul", [out, act, 0, w2, T, up(D, 8), Fp, 0]);
      close(columnsOf(lab.read(out, T * up(D, 8)), up(D, 8), D), y, (i) => 1e-5 * (1 + Math.abs(y[i]!)), `case ${c}`);
      lab.check();
      lab.reset();
    }
  });
});

suite("elementwise", (lab) => {
  lab.it("add", () => {
    for (const n of [4, 8, 12, 52, 1024])
      for (const nth of [1, 2, 3]) {
        const [a, b] = [normal(n, 1), normal(n, 2)];
        const [y, x] = [lab.put(a), lab.put(b)];
        lab.run("add", [y, x, n], nth);
        assert.deepEqual(
          lab.read(y, n),
          a.map((v, i) => v + b[i]!),
        );
        lab.check();
        lab.reset();
      }
  });

  lab.it("copy", () => {
    for (const n of [1, 5, 16, 1003])
      for (const nth of [1, 2, 3]) {
        const bytes = Uint8Array.from({ length: n }, (_, i) => i * 7);
        const [src, dst] = [lab.put(bytes), lab.room(n)];
        lab.run("copy", [dst, src, n], nth);
        assert.deepEqual(lab.bytes(dst, n).slice(), bytes);
        lab.check();
        lab.reset();
      }
  });

  lab.it("nop", () => lab.run("nop", []));

  lab.it("an unknown op traps", () => {
    const at = lab.put(Int32Array.of(99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert.throws(() => lab.kernels.run(at, 1, 0, 1), WebAssembly.RuntimeError);
  });

  lab.it("penalize_f32 and divide_f32", () => {
    for (const n of [1, 7, 50]) {
      const x = normal(n, 3);
      x[0] = -0;
      const ids = Int32Array.from({ length: Math.ceil(n / 3) }, (_, i) => (i * 3) % n);
      const [at, idsAt] = [lab.put(x), lab.put(ids)];
      lab.kernels.penalize_f32(at, idsAt, ids.length, 1.3);
      const penalty = Math.fround(1.3);
      const want = x.map((v, i) => (ids.includes(i) ? penalize(v, penalty) : v));
      assert.deepEqual(lab.read(at, n), want);
      lab.kernels.divide_f32(at, n, 0.7);
      assert.deepEqual(
        lab.read(at, n),
        want.map((v) => v / Math.fround(0.7)),
      );
      lab.check();
      lab.reset();
    }
  });
});
