// rope_frequencies, rope_table and norm_rope.
import assert from "node:assert/strict";
import { rmsnorm, rope, ropeFrequencies } from "../reference/layers.ts";
import { golden, rowTable } from "./fixtures.ts";
import { close, columnsOf, normal, type Sandbox, spread, suite } from "./harness.ts";

/** Runs rope_frequencies. @returns the address of hd/2 f64 */
function frequencies(lab: Sandbox, theta: number, hd: number): number {
  const at = lab.room(4 * hd);
  lab.kernels.rope_frequencies(at, theta, hd);
  return at;
}

suite("rope", (lab) => {
  lab.it("frequencies within 1e-14 of theta^(-2i/hd)", () => {
    for (const [theta, hd] of [
      [1e6, 64],
      [1e4, 32],
      [500000.5, 80],
      [1e6, 16],
    ] as const) {
      const at = frequencies(lab, theta, hd);
      const want = ropeFrequencies(theta, hd);
      close(new Float64Array(lab.memory.buffer, at, hd / 2), want, (i) => 1e-14 * want[i]!);
      lab.check();
      lab.reset();
    }
  });

  lab.it("table of several ragged sequences, any share, factor", () => {
    const hd = 32;
    const sequences = [
      { first: 4, count: 3, position: 127_990 },
      { first: 0, count: 4, position: 0 },
      { first: 7, count: 1, position: 32_767 },
    ];
    for (const [factor, nth] of [
      [1, 1],
      [1, 2],
      [1, 3],
      [1, 8],
      [1.25, 1],
    ] as const) {
      const freq = frequencies(lab, 1e4, hd);
      const [rows, table] = [rowTable(lab, sequences), lab.floats(8 * hd)];
      lab.run("rope_table", [table, rows, 3, freq, hd, { f: factor }], nth);
      const got = lab.read(table, 8 * hd);
      for (const s of sequences)
        for (let t = 0; t < s.count; t++) {
          const unit = Float64Array.from({ length: hd }, (_, i) => (i < hd / 2 ? 1 : 0)); // rotating (1, 0) pairs gives cos and sin
          close(
            got.subarray((s.first + t) * hd, (s.first + t + 1) * hd),
            rope(unit, s.position + t, ropeFrequencies(1e4, hd), factor),
            1e-7,
            `position ${s.position + t}`,
          );
        }
      if (factor === 1) lab.agree("table", got);
      lab.check();
      lab.reset();
    }
  });

  lab.it("norm_rope: every head normalized and rotated in place, neighbours untouched", () => {
    for (const [T, heads, hd] of lab.some([
      [5, 3, 64],
      [1, 1, 16],
      [3, 2, 80],
      [4, 5, 48],
    ] as const)) {
      const [x, g, P] = [normal(T * heads * hd, 1, 2), normal(hd, 2), 1000];
      const freq = ropeFrequencies(1e6, hd);
      const want = Array.from({ length: T * heads }, (_, j) => [
        ...rope(rmsnorm(x.subarray(j * hd, j * hd + hd), g, 1e-5), P + Math.floor(j / heads), freq),
      ]).flat();
      for (const nth of [1, 2, 3]) {
        const stride = heads * hd + 20;
        const freqAt = frequencies(lab, 1e6, hd);
        const [rows, table, xAt, gAt] = [
          rowTable(lab, [{ first: 0, count: T, position: P }]),
          lab.floats(T * hd),
          lab.put(spread(x, heads * hd, stride)),
          lab.put(g),
        ];
        lab.run("rope_table", [table, rows, 1, freqAt, hd, { f: 1 }]);
        lab.run("norm_rope", [xAt, stride, gAt, table, T, heads, hd, { f: 1e-5 }], nth);
        const got = lab.read(xAt, T * stride);
        const values = columnsOf(got, stride, heads * hd);
        close(values, want, (i) => 1e-6 * (1 + Math.abs(want[i]!)), `${T}×${heads}×${hd}`);
        assert.ok(columnsOf(got, stride, 20, heads * hd).every(Number.isNaN));
        lab.agree(`${T}×${heads}×${hd}`, values);
        lab.check();
        lab.reset();
      }
    }
  });

  lab.it("golden rope: a rotation is linear, so normalizing first divides the result by the row's rms", () => {
    const { cases, array } = golden<{ case: number; theta: number; hd: number }>("rope");
    for (const { case: c, theta, hd } of cases) {
      const [x, y] = [array(`${c}.x`), array(`${c}.y`).data];
      const positions = new Int32Array(array(`${c}.positions`).bytes.buffer);
      const [T, heads] = x.shape as [number, number, number];
      const freq = frequencies(lab, theta, hd);
      const sequences = Array.from(positions, (position, t) => ({ first: t, count: 1, position }));
      const [rows, table, xAt, gAt] = [
        rowTable(lab, sequences),
        lab.floats(T * hd),
        lab.put(x.data),
        lab.put(new Float32Array(hd).fill(1)),
      ];
      lab.run("rope_table", [table, rows, T, freq, hd, { f: 1 }]);
      lab.run("norm_rope", [xAt, heads * hd, gAt, table, T, heads, hd, { f: 0 }]);
      const rms = Array.from({ length: T * heads }, (_, j) =>
        Math.sqrt(x.data.subarray(j * hd, j * hd + hd).reduce((a, v) => a + v * v, 0) / hd),
      );
      close(
        lab.read(xAt, T * heads * hd).map((v, i) => v * rms[Math.floor(i / hd)]!),
        y,
        1e-6,
        `case ${c}`,
      );
      lab.reset();
    }
  });
});
