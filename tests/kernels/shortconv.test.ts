// shortconv: 2 to 4 taps, bias, carried state, any chunking, ragged sequences, its output also quantized.
import assert from "node:assert/strict";
import { type ShortConv, shortConv } from "../reference/layers.ts";
import { golden, isQuantized8, quantizedRoom, rowTable } from "./fixtures.ts";
import { close, columnsOf, normal, type Sandbox, spread, suite, up } from "./harness.ts";

/** One sequence: its rows of B|C|u (count, 3·D) and its state (Kc-1, D), which the run replaces. */
interface Sequence {
  readonly bcu: Float32Array;
  state: Float32Array;
}

/** Runs one command over the sequences; rows stand in order, the table lists them backwards. @returns each one's y (count, D) */
function step(lab: Sandbox, conv: ShortConv, sequences: readonly Sequence[], nth: number, yStride = conv.D + 8): Float32Array[] {
  const { D, Kc } = conv;
  const [layerOffset, stride] = [64, 3 * D + 4];
  const all = Float32Array.from(sequences.flatMap((s) => [...s.bcu]));
  const total = all.length / (3 * D);
  const states = sequences.map((s) => lab.put(Float32Array.from([...new Float32Array(layerOffset / 4).fill(7), ...s.state])));
  let first = 0;
  const entries = sequences.map((s, i) => {
    const count = s.bcu.length / (3 * D);
    first += count;
    return { first: first - count, count, position: 0, state: states[i]! };
  });
  const rows = rowTable(lab, [...entries].reverse());
  const [x, taps, bias, y] = [
    lab.put(spread(all, 3 * D, stride)),
    lab.put(Float32Array.from(conv.taps)),
    conv.bias ? lab.put(Float32Array.from(conv.bias)) : 0,
    lab.floats(total * yStride),
  ];
  const yq = yStride % 32 === 0 ? quantizedRoom(lab, total, yStride) : 0;
  lab.run("shortconv", [y, yStride, yq, x, stride, rows, entries.length, layerOffset, taps, bias, D, Kc], nth);
  const got = lab.read(y, total * yStride);
  assert.ok(
    columnsOf(got, yStride, yStride - D, D).every((v) => v === 0),
    "columns behind D are 0",
  );
  if (yq) isQuantized8(lab, yq, y, total, yStride);
  const values = columnsOf(got, yStride, D);
  sequences.forEach((s, i) => {
    assert.ok(
      lab.read(states[i]!, layerOffset / 4).every((v) => v === 7),
      "another layer's state was written",
    );
    s.state = lab.read(states[i]! + layerOffset, (Kc - 1) * D);
  });
  lab.check();
  lab.reset();
  return entries.map((e) => values.slice(e.first * D, (e.first + e.count) * D));
}

const setUp = (
  D: number,
  Kc: number,
  T: number,
  withBias: boolean,
  seed = 1,
): { conv: ShortConv; bcu: Float32Array; state: Float32Array } => ({
  conv: { D, Kc, taps: normal(Kc * D, seed), bias: withBias ? normal(D, seed + 1) : undefined },
  bcu: normal(T * 3 * D, seed + 2),
  state: normal((Kc - 1) * D, seed + 3),
});

suite("shortconv", (lab) => {
  lab.it("float64 reference, same bits for every chunking and share, state carried", () => {
    for (const [D, Kc, T] of lab.some([
      [36, 3, 7],
      [4, 2, 5],
      [64, 4, 8],
      [132, 3, 2],
      [20, 4, 3],
      [1024, 3, 5],
    ] as const))
      for (const withBias of [false, true]) {
        const { conv, bcu, state } = setUp(D, Kc, T, withBias);
        const want = shortConv(conv, bcu, state);
        const key = `${D} ${Kc} ${T} ${withBias}`;
        for (const [chunks, nth, yStride] of [
          [[T], 1, D + 8],
          [Array(T).fill(1), 1, up(D, 32)],
          [[1, T - 1], 2, D + 8],
          [[T - 1, 1], 3, up(D, 32)],
          [[T], 5, up(D, 32) + 64],
        ] as [number[], number, number][]) {
          const sequence = { bcu, state };
          let row = 0;
          const y = chunks.flatMap((count) => {
            const part = { bcu: bcu.subarray(row * 3 * D, (row + count) * 3 * D), state: sequence.state };
            const [rows] = step(lab, conv, [part], nth, yStride);
            sequence.state = part.state;
            row += count;
            return [...rows!];
          });
          close(y, want.y, (i) => 1e-6 * (1 + Math.abs(want.y[i]!)), key);
          close(sequence.state, want.state, (i) => 1e-7 * Math.abs(want.state[i]!), key);
          lab.agree(`${key} y`, Float32Array.from(y));
          lab.agree(`${key} state`, sequence.state);
        }
      }
  });

  lab.it("three ragged sequences, one without rows, equal each alone", () => {
    const D = 24;
    for (const Kc of [2, 3, 4]) {
      const { conv } = setUp(D, Kc, 1, true);
      const make = (): Sequence[] => [5, 0, 2, 1].map((T, i) => ({ bcu: normal(T * 3 * D, 30 + i), state: normal((Kc - 1) * D, 40 + i) }));
      const alone = make();
      const rows = alone.map((s) => step(lab, conv, [s], 1)[0]!);
      for (const [nth, yStride] of [
        [1, 32],
        [2, 64],
        [3, 24],
      ] as const) {
        const together = make();
        assert.deepEqual(step(lab, conv, together, nth, yStride), rows);
        assert.deepEqual(
          together.map((s) => s.state),
          alone.map((s) => s.state),
        );
      }
    }
  });

  lab.it("keeps the state after every row, of one layer beside another, and changes no bit by it", () => {
    const [T, rows] = [5, 9];
    for (const Kc of [2, 3, 4])
      for (const [D, nth] of [
        [36, 1],
        [100, 3],
      ] as const) {
        const { conv, bcu, state } = setUp(D, Kc, T, true);
        const plain = { bcu, state };
        const [want] = step(lab, conv, [plain], 1);
        const states = Array.from({ length: T + 1 }, (_, t) => {
          const begun = { bcu: bcu.subarray(0, t * 3 * D), state };
          if (t > 0) step(lab, conv, [begun], 1);
          return begun.state;
        });
        const layer = (Kc - 1) * D * 4; // the second of two layers
        const at = lab.put(Float32Array.from([...new Float32Array(layer / 4).fill(7), ...state]));
        const gates = lab.put(new Float32Array(2 * rows * D).fill(7));
        const [x, taps, bias, y] = [
          lab.put(bcu),
          lab.put(Float32Array.from(conv.taps)),
          lab.put(Float32Array.from(conv.bias!)),
          lab.floats(T * D),
        ];
        const table = rowTable(lab, [{ first: 0, count: T, position: 0, state: at, gates: [gates + 4 * D, rows] }]); // from the second row on
        lab.run("shortconv", [y, D, 0, x, 3 * D, table, 1, layer, taps, bias, D, Kc], nth);
        assert.deepEqual(lab.read(y, T * D), want);
        assert.deepEqual(lab.read(at + layer, (Kc - 1) * D), plain.state);
        const kept = lab.read(gates, 2 * rows * D);
        states.forEach((s, t) => {
          assert.deepEqual(kept.slice((rows + 1 + t) * D, (rows + t + Kc) * D), s, `Kc ${Kc}, after ${t} rows`);
        });
        const own = [(rows + 1) * D, (rows + T + Kc) * D] as const;
        assert.ok(
          kept.every((v, i) => v === 7 || (i >= own[0] && i < own[1])),
          "another layer's gates were written",
        );
        lab.check();
        lab.reset();
      }
  });

  lab.it("golden shortconv", () => {
    const { cases, array } = golden<{ case: number; T: number; D: number; Kc: number; inputs: string[] }>("shortconv");
    for (const { case: c, T, D, Kc, inputs } of cases) {
      const W = up(D, 4); // the kernel takes multiples of 4: zero columns behind
      const rows = (name: string): Float32Array => spread(array(`${c}.${name}`).data, D, W, 0);
      const [B, C, u] = [rows("B"), rows("C"), rows("u")];
      const bcu = Float32Array.from(
        { length: T * 3 * W },
        (_, i) => [B, C, u][Math.floor((i % (3 * W)) / W)]![Math.floor(i / (3 * W)) * W + (i % W)]!,
      );
      const tapsOf = array(`${c}.taps`).data; // (D, Kc)
      const taps = Float32Array.from({ length: Kc * W }, (_, i) => (i % W < D ? tapsOf[(i % W) * Kc + Math.floor(i / W)]! : 0));
      const sequence = { bcu, state: rows("state") };
      const [y] = step(lab, { D: W, Kc, taps, bias: inputs.includes("bias") ? rows("bias") : undefined }, [sequence], 1);
      const [want, after] = [array(`${c}.y`).data, array(`${c}.state_after`).data];
      close(columnsOf(y!, W, D), want, (i) => 1e-6 * (1 + Math.abs(want[i]!)), `case ${c}`);
      close(columnsOf(sequence.state, W, D), after, (i) => 2e-7 * Math.abs(after[i]!), `case ${c} state`);
    }
  });
});
