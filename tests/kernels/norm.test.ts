// rmsnorm: golden cases, list of rows, stride, in place, thread shares; with the addition before and the quantization behind it.
import assert from "node:assert/strict";
import { rmsnorm } from "../reference/layers.ts";
import { golden, isQuantized8, quantizedRoom } from "./fixtures.ts";
import { close, columnsOf, normal, spread, suite, up } from "./harness.ts";

suite("rmsnorm", (lab) => {
  lab.it("float64 reference at odd strides and row lists, same bits for any share", () => {
    for (const [rows, D, list] of lab.some([
      [5, 48, [4, 0, 0, 3]],
      [1, 16, [0]],
      [7, 1024, [6]],
      [3, 208, undefined],
    ] as const)) {
      const [x, g, eps] = [normal(rows * D, 1, 3), normal(D, 2), 1e-5];
      const picked = list ?? Array.from({ length: rows }, (_, i) => i);
      const want = picked.flatMap((r) => [...rmsnorm(x.subarray(r * D, r * D + D), g, eps)]);
      for (const [stride, nth] of [
        [D, 1],
        [D + 16, 1],
        [D + 16, 2],
        [D + 48, 3],
      ] as const) {
        const [xAt, gAt, rowsAt] = [lab.put(spread(x, D, stride)), lab.put(g), list ? lab.put(Int32Array.from(list)) : 0];
        const y = lab.floats(picked.length * stride);
        const yq = stride % 32 === 0 ? quantizedRoom(lab, picked.length, stride) : 0;
        lab.run("rmsnorm", [y, yq, xAt, 0, gAt, rowsAt, picked.length, D, stride, { f: eps }], nth);
        const got = lab.read(y, picked.length * stride);
        const values = columnsOf(got, stride, D);
        close(values, want, (i) => 4e-7 * Math.abs(want[i]!) + 1e-9, `${rows}×${D}`);
        assert.ok(
          columnsOf(got, stride, stride - D, D).every((v) => v === 0),
          "the tail is 0",
        );
        lab.agree(`${rows}×${D}`, values);
        if (yq) isQuantized8(lab, yq, y, picked.length, stride);
        lab.check();
        lab.reset();
      }
    }
  });

  lab.it("in place", () => {
    const [M, D] = [3, 64];
    const [x, g] = [normal(M * D, 3), normal(D, 4)];
    const [xAt, gAt, y] = [lab.put(x), lab.put(g), lab.floats(M * D)];
    lab.run("rmsnorm", [y, 0, xAt, 0, gAt, 0, M, D, D, { f: 1e-5 }]);
    lab.run("rmsnorm", [xAt, 0, xAt, 0, gAt, 0, M, D, D, { f: 1e-5 }]);
    assert.deepEqual(lab.read(xAt, M * D), lab.read(y, M * D));
  });

  lab.it("x += r first: the bits of add, rmsnorm and quantize one after the other, for any share", () => {
    for (const [M, D, stride] of lab.some([
      [4, 48, 64],
      [1, 1024, 1024],
      [9, 16, 32],
      [3, 208, 208],
      [5, 2048, 2080],
    ] as const)) {
      const [x, r, g, eps] = [normal(M * D, 7, 3), normal(M * D, 8), normal(D, 9), 1e-5];
      const sum = x.map((v, i) => v + r[i]!);
      const want = Array.from({ length: M }, (_, m) => [...rmsnorm(sum.subarray(m * D, m * D + D), g, eps)]).flat();
      for (const nth of [1, 2, 3]) {
        const [xAt, rAt, gAt] = [lab.put(spread(x, D, stride, 0)), lab.put(spread(r, D, stride, 0)), lab.put(g)];
        const y = lab.floats(M * stride);
        const yq = stride % 32 === 0 ? quantizedRoom(lab, M, stride) : 0;
        lab.run("rmsnorm", [y, yq, xAt, rAt, gAt, 0, M, D, stride, { f: eps }], nth);
        const got = lab.read(y, M * stride);
        close(columnsOf(got, stride, D), want, (i) => 4e-7 * Math.abs(want[i]!) + 1e-9, `${M}×${D}`);
        const apart = lab.put(spread(x, D, stride, 0));
        lab.run("add", [apart, rAt, M * stride]);
        assert.deepEqual(lab.read(xAt, M * stride), lab.read(apart, M * stride));
        lab.run("rmsnorm", [apart, 0, apart, 0, gAt, 0, M, D, stride, { f: eps }]);
        assert.deepEqual(got, lab.read(apart, M * stride));
        if (yq) isQuantized8(lab, yq, y, M, stride);
        lab.check();
        lab.reset();
      }
    }
  });

  lab.it("not-a-number stays not-a-number", () => {
    const x = normal(32, 5);
    x[3] = Number.NaN;
    const [xAt, gAt, y] = [lab.put(x), lab.put(normal(32, 6)), lab.room(128, 0)];
    const yq = quantizedRoom(lab, 1, 32);
    lab.run("rmsnorm", [y, yq, xAt, 0, gAt, 0, 1, 32, 32, { f: 1e-5 }]);
    assert.ok(lab.read(y, 32).every(Number.isNaN));
    isQuantized8(lab, yq, y, 1, 32);
  });

  lab.it("golden rmsnorm", () => {
    const { cases, array } = golden<{ case: number; eps: number }>("rmsnorm");
    for (const { case: c, eps } of cases) {
      const [x, w, y] = [array(`${c}.x`), array(`${c}.w`).data, array(`${c}.y`).data];
      const [M, K] = x.shape as [number, number];
      const D = up(K, 16); // the kernel takes multiples of 16: zeros behind, and sqrt(D/K) keeps the mean
      const factor = Math.sqrt(D / K);
      const xAt = lab.put(
        spread(
          x.data.map((v) => v * factor),
          K,
          D,
          0,
        ),
      );
      const gAt = lab.put(
        spread(
          w.map((v) => v / factor),
          K,
          D,
          0,
        ),
      );
      const out = lab.floats(M * D);
      lab.run("rmsnorm", [out, 0, xAt, 0, gAt, 0, M, D, D, { f: eps }]);
      close(columnsOf(lab.read(out, M * D), D, K), y, (i) => 1e-6 * Math.abs(y[i]!) + 1e-9, `case ${c}`);
      lab.reset();
    }
  });
});
