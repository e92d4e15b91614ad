// rope_frequencies, rope_table and norm_rope_append.
import assert from "node:assert/strict";
import { rmsnorm, rope, ropeFrequencies } from "../reference/layers.ts";
import { golden, pages, rowTable } from "./fixtures.ts";
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

  lab.it("norm_rope_append: every head of q and k normalized and rotated in place, k and v in the page, neighbours untouched", () => {
    for (const [T, H, G, hd] of lab.some([
      [5, 3, 3, 64],
      [1, 1, 1, 16],
      [3, 4, 2, 80],
      [4, 5, 1, 48],
    ] as const)) {
      const [columns, P] = [(H + G) * hd, 1000];
      const [x, gq, gk] = [normal(T * (columns + G * hd), 1, 2), normal(hd, 2), normal(hd, 3)];
      const freq = ropeFrequencies(1e6, hd);
      const row = (t: number, h: number): Float32Array => x.subarray(t * (columns + G * hd) + h * hd).subarray(0, hd);
      const want = Array.from({ length: T * (H + G) }, (_, j) => {
        const [t, h] = [Math.floor(j / (H + G)), j % (H + G)];
        return [...rope(rmsnorm(row(t, h), h < H ? gq : gk, 1e-5), P + t, freq)];
      }).flat();
      for (const nth of [1, 2, 3]) {
        const stride = columns + G * hd + 20;
        const freqAt = frequencies(lab, 1e6, hd);
        const layer = G * 2 * 32 * hd * 4;
        const table = pages(lab, P + T, layer);
        const [rows, cosines, xAt, gqAt, gkAt] = [
          rowTable(lab, [{ first: 0, count: T, position: P, pages: table }]),
          lab.floats(T * hd),
          lab.put(spread(x, columns + G * hd, stride)),
          lab.put(gq),
          lab.put(gk),
        ];
        lab.run("rope_table", [cosines, rows, 1, freqAt, hd, { f: 1 }]);
        lab.run("norm_rope_append_f32", [xAt, stride, gqAt, gkAt, cosines, rows, 1, 0, H, G, hd, { f: 1e-5 }], nth);
        const got = lab.read(xAt, T * stride);
        const values = columnsOf(got, stride, columns);
        close(values, want, (i) => 1e-6 * (1 + Math.abs(want[i]!)), `${T}×${H}/${G}×${hd}`);
        assert.deepEqual(columnsOf(got, stride, G * hd, columns), columnsOf(x, columns + G * hd, G * hd, columns), "v changed");
        assert.ok(columnsOf(got, stride, 20, columns + G * hd).every(Number.isNaN));
        for (let t = 0; t < T; t++)
          for (let g = 0; g < G; g++)
            for (let i = 0; i < hd; i++) {
              const [page, j] = [new Uint32Array(lab.memory.buffer, table + 4 * ((P + t) >> 5), 1)[0]! / 4, (P + t) & 31];
              const [k, v] = [page + g * 32 * hd, page + (G + g) * 32 * hd]; // K of all heads, then V of all
              const memory = new Float32Array(lab.memory.buffer);
              assert.equal(memory[k + ((j >> 4) * hd + i) * 16 + (j & 15)], values[t * columns + (H + g) * hd + i]);
              assert.equal(memory[v + (i >> 4) * 512 + j * 16 + (i & 15)], row(t, H + G + g)[i]);
            }
        lab.agree(`${T}×${H}/${G}×${hd}`, values);
        lab.check();
        lab.reset();
      }
    }
  });

  lab.it("norm_rope_append: keys and values of positions that are kept stay as they are", () => {
    const [T, H, G, hd, P] = [7, 2, 2, 32, 29];
    const stride = (H + 2 * G) * hd;
    for (const kv of ["f32", "f16", "q8"] as const)
      for (const nth of [1, 3]) {
        const layer = 2 * G * { f32: 32 * hd * 4, f16: 32 * hd * 2, q8: 32 * hd + 128 }[kv];
        /** The pages after all rows have been written, or those from position `kept` on; before it the canary's bytes. */
        const run = (kept: number): Uint8Array => {
          const freq = frequencies(lab, 1e6, hd);
          const table = pages(lab, P + T, layer);
          const rows = rowTable(lab, [{ first: 0, count: T, position: P, pages: table, kept }]);
          const [cosines, x, g] = [lab.floats(T * hd), lab.put(normal(T * stride, 1, 2)), lab.put(normal(hd, 2))];
          for (const page of new Uint32Array(lab.memory.buffer, table, 2)) new Uint8Array(lab.memory.buffer, page, layer).fill(0);
          lab.run("rope_table", [cosines, rows, 1, freq, hd, { f: 1 }]);
          lab.run(`norm_rope_append_${kv}`, [x, stride, g, g, cosines, rows, 1, 0, H, G, hd, { f: 1e-5 }], nth);
          const out = Array.from(new Uint32Array(lab.memory.buffer, table, 2), (page) => [
            ...new Uint8Array(lab.memory.buffer, page, layer),
          ]);
          lab.check();
          lab.reset();
          return Uint8Array.from(out.flat());
        };
        const all = run(0);
        const none = run(P + T);
        assert.ok(none.every((byte) => byte === 0));
        for (const kept of [P, P + 2, P + 3, P + 5]) {
          const some = run(kept);
          assert.ok(some.every((byte, i) => byte === 0 || byte === all[i]));
          const written = (bytes: Uint8Array): number => bytes.reduce((n, byte) => n + (byte === 0 ? 0 : 1), 0);
          const share = written(some) / written(all);
          assert.ok(Math.abs(share - (P + T - kept) / T) < 0.05, `${share} of the bytes from ${kept} on`);
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
        lab.put(spread(x.data, heads * hd, (heads + 2) * hd, 1)),
        lab.put(new Float32Array(hd).fill(1)),
      ];
      lab.run("rope_table", [table, rows, T, freq, hd, { f: 1 }]);
      const cache = pages(lab, 1, 2 * 32 * hd * 4);
      const first = rowTable(lab, [{ first: 0, count: T, position: 0, pages: cache }]); // where k and v go is not the point here
      lab.run("norm_rope_append_f32", [xAt, (heads + 2) * hd, gAt, gAt, table, first, 1, 0, heads, 1, hd, { f: 0 }]);
      const rms = Array.from({ length: T * heads }, (_, j) =>
        Math.sqrt(x.data.subarray(j * hd, j * hd + hd).reduce((a, v) => a + v * v, 0) / hd),
      );
      close(
        columnsOf(lab.read(xAt, T * (heads + 2) * hd), (heads + 2) * hd, heads * hd).map((v, i) => v * rms[Math.floor(i / hd)]!),
        y,
        1e-6,
        `case ${c}`,
      );
      lab.reset();
    }
  });
});
