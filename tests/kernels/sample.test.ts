// argmax, topk, softmax and all_finite; the largest of a product's rows; the error of exp.
import assert from "node:assert/strict";
import { argmax, order, softmax } from "../reference/sampling.ts";
import { pick } from "../scale.ts";
import { packMatrix } from "./fixtures.ts";
import { close, normal, random, spread, suite, up } from "./harness.ts";

const lengths = [1, 2, 3, 5, 15, 16, 17, 64, 515, 1999];

/** Logits with ties, -Infinity and NaN among them; NaN behind column N in every row. */
const tricky = (n: number, seed: number): Float32Array => {
  const r = random(seed);
  return normal(n, seed).map((v) => {
    const u = r();
    return u < 0.05 ? Number.NaN : u < 0.15 ? Number.NEGATIVE_INFINITY : u < 0.5 ? Math.round(v) : v;
  });
};

suite("sample", (lab) => {
  lab.it("argmax: lowest index wins, NaN never, padding columns neither", () => {
    for (const n of lengths)
      for (let seed = 1; seed < 12; seed++) {
        const M = 3;
        const rows = Array.from({ length: M }, (_, m) => tricky(n, 100 * seed + m));
        const stride = n + 5;
        const x = lab.put(
          spread(
            rows.flatMap((r) => [...r]),
            n,
            stride,
            1e30,
          ),
        ); // larger than all: it must not be read
        for (const [m, r] of rows.entries()) assert.equal(lab.kernels.argmax_f32(x + 4 * m * stride, n), argmax(r));
        lab.check();
        lab.reset();
      }
    for (const value of [Number.NaN, Number.NEGATIVE_INFINITY])
      assert.equal(lab.kernels.argmax_f32(lab.put(new Float32Array(20).fill(value)), 20), 0);
  });

  lab.it("argmax finds the largest beside a NaN in every lane", () => {
    for (let i = 0; i < 64; i++) {
      const x = new Float32Array(64).fill(Number.NaN);
      x[i] = -3;
      assert.equal(lab.kernels.argmax_f32(lab.put(x), 64), i);
      lab.reset();
    }
  });

  lab.it("topk: largest first, ties by index, what is -Infinity or NaN last", () => {
    for (const n of lengths)
      for (const k of new Set([1, Math.min(n, 7), n])) {
        if (k > 600) continue;
        const row = tricky(n, 10 * n);
        const [x, values, indices] = [lab.put(spread(row, n, n + 3, 1e30)), lab.floats(k), lab.room(4 * k)];
        lab.kernels.topk_f32(values, indices, x, n, k);
        const want = order(row).slice(0, k);
        assert.deepEqual([...lab.readInts(indices, k)], want, `n ${n} k ${k}`);
        const expected = want.map((i) => (Number.isNaN(row[i]!) ? Number.NEGATIVE_INFINITY : row[i]!));
        assert.deepEqual([...lab.read(values, k)], expected);
        lab.check();
        lab.reset();
      }
  });

  lab.it("largest: the first k of each row of a product, ties by index, in pieces of any size and over threads", () => {
    for (const dtype of ["f32", "q4"] as const)
      for (const [M, N, K] of [
        [1, 203, 64],
        [3, 37, 64],
        [5, 24, 32],
      ] as const) {
        const rows = normal(N * K, N).map((v, i, all) => (i >= 8 * K ? v : (all[i % K] ?? 0))); // the first eight are one: ties
        const x = normal(M * K, M);
        if (M > 1) x[K + 5] = Number.NaN;
        if (M > 3) {
          x.fill(0, 3 * K, 4 * K); // only ties
          x.fill(3e38, 4 * K); // overflows, in f32 to infinities of both signs
        }
        const matrix = packMatrix(lab, K, [{ dtype, N, w: rows }]);
        const stride = up(N, 8);
        const [xAt, xq, y] = [lab.put(x), lab.room(M * lab.kernels.qd8_row_bytes(K)), lab.floats(M * stride)];
        lab.run("quantize", [xq, xAt, M, K, K]);
        lab.run("matmul", [y, xAt, xq, matrix, M, stride, K, 0]);
        const logits = Array.from({ length: M }, (_, m) => lab.read(y + 4 * m * stride, N));
        for (const k of pick({ gate: [1, 40], full: [1, 7, 40] }))
          for (const columns of pick({ gate: [24], full: [8, 24, stride] }))
            for (const nth of lab.variant.threads > 1 ? [1, lab.variant.threads] : [1, 2, 3]) {
              const what = `${dtype} ${M}×${N}×${K}, k ${k}, ${columns} columns, ${nth} threads`;
              const [lists, room] = [lab.floats(2 * nth * M * k), lab.floats(nth * M * columns)];
              lab.run("largest", [lists, room, columns, xAt, xq, matrix, M, K, N, k], nth);
              if (nth > 1) lab.run("merge_largest", [lists, M, k], nth);
              const [values, ids] = [lab.read(lists, M * k), lab.readInts(lists + 4 * M * k, M * k)];
              for (const [m, row] of logits.entries()) {
                const own = values.subarray(m * k, m * k + k);
                if (row.some((v) => !(v < Number.POSITIVE_INFINITY))) {
                  assert.ok(Number.isNaN(own[0]), `${what}: row ${m} is told to have no finite logits`);
                  continue;
                }
                const want = order(row).slice(0, k);
                const wanted = [...want, ...Array<number>(Math.max(0, k - N)).fill(-1)];
                assert.deepEqual([...ids.subarray(m * k, m * k + k)], wanted, `${what}: row ${m}`);
                assert.deepEqual(
                  [...own],
                  wanted.map((i) => row[i] ?? Number.NEGATIVE_INFINITY),
                  what,
                );
                lab.agree(`largest ${dtype} ${M}×${N}×${K}, k ${k}, row ${m}`, own);
              }
            }
        lab.check();
        lab.reset();
      }
    const matrix = packMatrix(lab, 32, [{ dtype: "f32", N: 9, w: new Float32Array(9 * 32).fill(10) }]);
    const [x, lists, room] = [lab.put(new Float32Array(32).fill(-3e38)), lab.floats(4), lab.floats(16)];
    lab.run("largest", [lists, room, 16, x, 0, matrix, 1, 32, 9, 2]);
    assert.deepEqual([...lab.read(lists, 2), ...lab.readInts(lists + 8, 2)], [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, -1]);
  });

  lab.it("softmax: float64 reference, in place too, -Infinity gives 0, sum in f64", () => {
    for (const n of lengths) {
      const x = normal(n, n, 5).map((v, i) => (i % 7 === 3 ? Number.NEGATIVE_INFINITY : v));
      const want = softmax(x);
      const [xAt, p] = [lab.put(x), lab.floats(n)];
      const sum = lab.kernels.softmax_f32(p, xAt, n);
      const got = lab.read(p, n);
      const top = Math.max(...x);
      close(got, want.p, (i) => (want.p[i]! > 0 ? (2.5e-7 + 6e-8 * (top - x[i]!)) * want.p[i]! : 0), `n ${n}`); // x - max is rounded to f32 first
      close([sum], [want.sum], 1e-6 * want.sum);
      close([sum], [got.reduce((a, v) => a + v, 0)], 1e-13 * sum);
      assert.equal(lab.kernels.softmax_f32(xAt, xAt, n), sum);
      assert.deepEqual(lab.read(xAt, n), got);
      lab.agree(`n ${n}`, got);
      lab.agree(`n ${n} sum`, Float32Array.of(sum));
      lab.check();
      lab.reset();
    }
    const none = lab.put(new Float32Array(6).fill(Number.NEGATIVE_INFINITY));
    assert.equal(lab.kernels.softmax_f32(none, none, 6), 0);
  });

  lab.it("exp has an error below 1 ulp from 0 to -87.3, and is 0 below", () => {
    const n = pick({ gate: 1 << 16, full: 1 << 20 });
    // the numbers themselves, evenly: 0, then every so-manieth float from -2^-24 on
    const [from, to] = new Uint32Array(Float32Array.of(-(2 ** -24), -87.33).buffer) as unknown as [number, number];
    const x = new Float32Array(Uint32Array.from({ length: n }, (_, i) => (i ? from + Math.floor(((to - from) / n) * i) : 0)).buffer);
    const [xAt, p] = [lab.put(x), lab.floats(n)];
    lab.kernels.softmax_f32(p, xAt, n);
    const got = lab.read(p, n);
    let worst = 0;
    for (let i = 0; i < n; i++) {
      const exact = Math.exp(x[i]!);
      const ulp = 2 ** (Math.floor(Math.log2(exact)) - 23);
      worst = Math.max(worst, Math.abs(got[i]! - exact) / ulp);
    }
    assert.ok(worst < 1, `error ${worst} ulp`);
    lab.agree("exp", got);
    lab.reset();
    const tail = Float32Array.of(0, -87.34, -100, -1e30, Number.NEGATIVE_INFINITY);
    const at = lab.put(tail);
    lab.kernels.softmax_f32(at, at, 5);
    assert.deepEqual([...lab.read(at, 5)], [1, 0, 0, 0, 0]);
  });

  lab.it("all_finite: NaN and +Infinity are found at every place, -Infinity is a masked logit", () => {
    for (const n of [1, 3, 4, 5, 17, 64])
      for (let i = 0; i < n; i++)
        for (const [value, want] of [
          [Number.NaN, 0],
          [Number.POSITIVE_INFINITY, 0],
          [Number.NEGATIVE_INFINITY, 1],
          [3e38, 1],
        ] as const) {
          const x = normal(n, n);
          x[i] = value;
          assert.equal(lab.kernels.all_finite_f32(lab.put(x), n), want);
          lab.reset();
        }
  });
});
