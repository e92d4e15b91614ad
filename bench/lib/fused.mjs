// Kernels as a step runs them, two commands in one pass, and the ones beside them: what to run, how many bytes, how to check. Part of the suite `kernels`.
import * as shapes from "../shapes.mjs";
import { EPS, near, rms } from "./lab.mjs";
import { check } from "./measure.mjs";

/** Whether `xq` holds the (M, K) floats at `y` as `quantize` makes it of them, byte for byte. */
function checkQuantized(lab, xq, y, M, K, what) {
  const bytes = M * lab.kernels.qd8_row_bytes(K);
  const expected = lab.room(bytes);
  lab.record(["quantize", { out: expected, x: y, M, Kp: K, xStride: K }])();
  const [got, wanted] = [xq, expected].map((at) => new Uint8Array(lab.memory.buffer, at, bytes));
  check(Buffer.compare(got, wanted) === 0, `${what}: not what quantize makes of the floats`);
}

/** What a step really runs: two commands in one pass, as the encoder of commands joins them. And what it runs once a step or once a layer beside them. */
export function* fused(lab, model) {
  const { D, F } = shapes.widths[model];
  const { H, G, hd } = shapes.heads[model];
  const quantizedBytes = lab.kernels.qd8_row_bytes(D) / D; // a value, also in rows of F: both are whole 256
  for (const M of [1, 128]) {
    lab.reset();
    const [values, addends] = [lab.random(M * D, 15), lab.random(M * D, 16)];
    const [x, r, g, y, yq] = [
      lab.put(values),
      lab.put(addends),
      lab.put(lab.random(D, 12)),
      lab.room(4 * M * D),
      lab.room(M * D * quantizedBytes),
    ];
    const sums = values.map((v, i) => v + addends[i]);
    yield {
      name: `rmsnorm, added and quantized ${model} (${M}, ${D})`,
      run: lab.record(["rmsnorm", { y, yq, x, r, g, M, D, stride: D, eps: EPS }]),
      bytes: M * D * (16 + quantizedBytes), // x and r in, x and y out
      check(what) {
        const row = sums.subarray((M - 1) * D);
        const gain = lab.floats(g, D);
        for (const i of [0, D - 1]) {
          near(lab.floats(x, M * D)[(M - 1) * D + i], row[i], 1e-6, what);
          near(lab.floats(y, M * D)[(M - 1) * D + i], (row[i] / rms(row)) * gain[i], 1e-5, what);
        }
        checkQuantized(lab, yq, y, M, D, what);
        lab.floats(r, M * D).fill(0); // or x would grow with every run
      },
    };
    lab.reset();
    // a in -1..-1/2 and b = 1 + exp(-a): silu(a) ⊙ b is a, so that it stays what it is however often it is overwritten
    const pairs = lab.random(M * 2 * F, 11).map((v) => -0.5 - Math.abs(v) / 4);
    for (let t = 0; t < M; t++) for (let i = 0; i < F; i++) pairs[2 * F * t + F + i] = 1 + Math.exp(-pairs[2 * F * t + i]);
    const other = lab.random(M * 2 * F, 17);
    const [ab, act, actq] = [lab.put(pairs), lab.room(4 * M * F), lab.room(M * F * quantizedBytes)];
    const silu = lab.record(["silu_mul", { y: 0, yq: actq, yStride: F, ab, abStride: 2 * F, T: M, F8: F }]);
    yield {
      name: `silu_mul, quantized ${model} (${M}, ${F})`,
      run: silu,
      bytes: M * F * (12 + quantizedBytes), // a and b in, a out
      check(what) {
        lab.floats(ab, M * 2 * F).set(other);
        lab.record(["silu_mul", { y: act, yStride: F, ab, abStride: 2 * F, T: M, F8: F }])();
        for (const i of [0, F - 1]) {
          const [a, b] = [other[(M - 1) * 2 * F + i], other[(M - 1) * 2 * F + F + i]];
          near(lab.floats(act, M * F)[(M - 1) * F + i], (a / (1 + Math.exp(-a))) * b, 1e-5, what);
        }
        silu();
        checkQuantized(lab, actq, act, M, F, what);
        lab.floats(ab, M * 2 * F).set(pairs);
      },
    };
    lab.reset();
    const [state, gates, convY, convQ] = [
      lab.put(new Float32Array(2 * D)),
      lab.put(lab.random(M * 3 * D, 13)),
      lab.room(4 * M * D),
      lab.room(M * D * quantizedBytes),
    ];
    const rowTable = lab.put(Uint32Array.of(0, M, 0, 0, state, 0, 0, 0));
    const taps = lab.put(lab.random(3 * D, 14));
    const shape = { yStride: D, bcu: gates, bcuStride: 3 * D, rowTable, nseq: 1, taps, D, Kc: 3 };
    yield {
      name: `shortconv, quantized ${model} (${M}, ${D})`,
      run: lab.record(["shortconv", { ...shape, y: convY, yq: convQ }]),
      bytes: M * D * (16 + quantizedBytes),
      check(what) {
        const alone = lab.room(4 * M * D);
        lab.floats(state, 2 * D).fill(0);
        lab.record(["shortconv", { ...shape, y: alone }])();
        const [one, two] = [convY, alone].map((at) => new Uint8Array(lab.memory.buffer, at, 4 * M * D));
        check(Buffer.compare(one, two) === 0, `${what}: other floats than without quantization`);
        checkQuantized(lab, convQ, convY, M, D, what);
      },
    };
    yield* positions(lab, { model, M, H, G, hd });
  }
}

/** The rotation's table, and norms, rotation and the way into the pages by type of the cache. */
function* positions(lab, { model, M, H, G, hd }) {
  const FIRST = 1000;
  const theta = 1e6;
  const turn = (position, i) => position * theta ** ((-2 * i) / hd);
  lab.reset();
  const frequencies = lab.room(4 * hd);
  lab.kernels.rope_frequencies(frequencies, theta, hd);
  const table = lab.room(4 * M * hd);
  const pages = Array.from({ length: Math.ceil((FIRST + M) / 32) }, () => lab.room(2 * 32 * G * 4 * hd));
  const rowTable = lab.put(Uint32Array.of(0, M, FIRST, lab.put(Uint32Array.from(pages)), 0, 0, 0, 0));
  const rope = lab.record(["rope_table", { table, rowTable, nseq: 1, freq: frequencies, hd, factor: 1 }]);
  const last = FIRST + M - 1;
  yield {
    name: `rope_table ${model} (${M}, ${hd})`,
    run: rope,
    bytes: 4 * M * hd,
    check(what) {
      const row = lab.floats(table, M * hd).subarray((M - 1) * hd);
      for (const i of [0, 3, hd / 2 - 1]) {
        near(row[i], Math.cos(turn(last, i)), 1e-6, what);
        near(row[hd / 2 + i], Math.sin(turn(last, i)), 1e-6, what);
      }
    },
  };
  const stride = (H + 2 * G) * hd;
  const gain = lab.put(new Float32Array(hd).fill(1)); // then the second run norms what is normed, and every run takes the same time
  for (const kvDtype of shapes.kvDtypes) {
    rope();
    const values = lab.random(M * stride, 18);
    const qkv = lab.put(values);
    const sizes = { G, H, hd, eps: EPS };
    const kvBytes = { f32: 4, f16: 2, q8: 1 + 4 / hd }[kvDtype];
    yield {
      name: `norm_rope_append ${kvDtype} ${model} (${M}, ${stride})`,
      run: lab.record([`norm_rope_append_${kvDtype}`, { qkv, stride, gq: gain, gk: gain, table, rowTable, nseq: 1, ...sizes }]),
      bytes: 4 * M * (2 * (H + G) + G) * hd + 2 * M * G * hd * kvBytes, // q and k in and out, v in, k and v into the pages
      check(what) {
        const result = lab.floats(qkv, M * stride).subarray((M - 1) * stride);
        for (const head of [0, H - 1, H, H + G - 1]) {
          const from = values.subarray((M - 1) * stride + head * hd, (M - 1) * stride + (head + 1) * hd);
          const r = rms(from);
          for (const i of [0, hd / 2 - 1]) {
            const [a, b, angle] = [from[i] / r, from[hd / 2 + i] / r, turn(last, i)];
            near(result[head * hd + i], a * Math.cos(angle) - b * Math.sin(angle), 1e-5, what);
            near(result[head * hd + hd / 2 + i], b * Math.cos(angle) + a * Math.sin(angle), 1e-5, what);
          }
        }
      },
    };
  }
}
