// Every kernel by itself: checked against float64 on sampled rows, then timed against the ceilings of the same process.
import { leastMs } from "../lib/ceilings.mjs";
import { fused } from "../lib/fused.mjs";
import { percent } from "../lib/goals.mjs";
import { CODES, EPS, Lab, near, rms, storedRows, up } from "../lib/lab.mjs";
import { check, time, timeInTurns } from "../lib/measure.mjs";
import * as shapes from "../shapes.mjs";

/** What decoding reads comes from memory: products of few rows go through copies of the matrix that fill this much. */
const STREAM_BYTES = 192 << 20;
const FEW_ROWS = 4;

/**
 * Goals, lenient for a shared machine: of the roof with one row of int4 and int8 in large matrices (the plain build's int4 is bound by its decoding), of the tile by itself with 128 rows, of the
 * rate of four rows with two and three (without their tiles int4 would have 0.5 to 0.65 and 0.75 to 0.78), of the read bandwidth for weights that packing only moves: it reads and writes them.
 */
const GOALS = { oneRow: { relaxed: 0.6, plain: 0.35 }, tile: 0.7, fewRows: { 2: 0.78, 3: 0.82 }, moved: 0.25 };
const LARGE_BYTES = 2 << 20;
/** The machine is shared: the best of so many is a small tile's rate. */
const TILE_ROUNDS = 20;

const isQuantized = (dtype) => dtype.startsWith("q");
const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);

const roundToEven = (x) => {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
};

/** What a row of activations stands for after its quantization in blocks of 32, with the kernel's f32 steps. */
function quantized(x) {
  return Float64Array.from(x, (_, i) => {
    const block = x.subarray(i & ~31, (i & ~31) + 32);
    const top = block.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
    return top < 2 ** -100 ? 0 : roundToEven(Math.fround(x[i] * Math.fround(127 / top))) * Math.fround(top / 127);
  });
}

function checkProduct(lab, { y, x, N, K, M, dtype, row }, what) {
  const result = lab.floats(y, M * N);
  for (const m of new Set([0, M - 1]))
    for (const n of new Set([0, 5, N >> 1, N - 1])) {
      const w = row(n);
      const input = x.subarray(m * K, m * K + K);
      const used = isQuantized(dtype) ? quantized(input) : input;
      const expected = dot(w, used);
      const size = w.reduce((sum, v, k) => sum + Math.abs(v * used[k]), 0);
      const got = result[m * N + n];
      check(Math.abs(got - expected) <= 2e-5 * size, `${what}: row ${m}, column ${n}: expected ${expected}, got ${got}`);
    }
}

/** One product, ready to run; `run` goes through the copies. It stands behind what the lab holds. */
function product(lab, dtype, N, K, M, copies) {
  const matrix = lab.matrix(dtype, N, K, 7, copies);
  const x = lab.random(M * K, 3);
  const input = lab.put(x);
  const xq = lab.room(M * lab.kernels.qd8_row_bytes(K));
  const y = lab.room(4 * M * N);
  lab.record(["quantize", { out: xq, x: input, M, Kp: K, xStride: K }])();
  const use = isQuantized(dtype) ? { xq } : { x: input };
  const runs = matrix.descriptors.map((d) => lab.record(["matmul", { ...use, y, matrix: d, M, yStride: N, xStride: K }]));
  let next = 0;
  const run = () => runs[next++ % runs.length]();
  run();
  return { run, bytes: matrix.bytes, check: (what) => checkProduct(lab, { y, x, N, K, M, dtype, row: matrix.row }, what) };
}

/** The rate of a dtype's product tile: 128 rows against a matrix that stays in the second cache. */
export function tileRate(lab, dtype) {
  const [N, K, M] = [isQuantized(dtype) ? 256 : 64, 1024, 128];
  lab.reset();
  return (M * N * K) / time(product(lab, dtype, N, K, M, 1).run, { ms: 40 }) / 1e6;
}

function* products({ labs, ceilings, options, tiles }) {
  for (const model of options.models)
    for (const { name, N, K, rows = shapes.rows } of shapes.matrices[model])
      for (const dtype of shapes.dtypes)
        for (const M of rows.filter((m) => !options.isQuick || [1, 128].includes(m))) {
          const title = `matmul ${dtype} ${model} ${name} (${N}, ${K}) M ${M}`;
          if (!options.wants(title)) continue;
          const copies = M <= FEW_ROWS ? Math.max(1, Math.ceil(STREAM_BYTES / labs[0].packedBytes(dtype, N, K))) : 1;
          const variants = isQuantized(dtype) ? labs : labs.slice(0, 1); // float products are the same code in both builds
          if (M > FEW_ROWS) for (const lab of variants) tiles[`${dtype} ${lab.variant}`] ??= tileRate(lab, dtype); // uses the lab's memory: before the product
          const ready = variants.map((lab) => {
            lab.reset();
            return product(lab, dtype, N, K, M, copies);
          });
          ready.forEach((p, i) => {
            p.check(`${title}, ${variants[i].variant}`);
          });
          const times = timeInTurns(
            ready.map((p) => p.run),
            options,
          );
          const macs = M * N * K;
          const bytes = ready[0].bytes + M * (K * (isQuantized(dtype) ? 1.5 : 4) + 4 * N);
          for (const [i, lab] of variants.entries()) {
            const rate = isQuantized(dtype) ? ceilings.dot[lab.variant] : ceilings.muladd;
            const least = leastMs(ceilings, { bytes, from: copies * ready[0].bytes, macs, rate });
            const row = {
              name: title,
              kernel: "matmul",
              dtype,
              M,
              variant: lab.variant,
              ms: times[i],
              bytes,
              macs,
              roof: least / times[i],
            };
            if (M > FEW_ROWS) row.ofTile = macs / times[i] / 1e6 / tiles[`${dtype} ${lab.variant}`];
            yield row;
          }
        }
}

/** The tiles of two and three rows against that of four, in turns, on a matrix in the second cache. */
function* fewRows({ labs: [lab], ceilings, options }) {
  const [N, K, counts] = [256, 1024, [2, 3, 4]];
  for (const dtype of ["q4", "q8"]) {
    const title = `tile ${dtype} (${N}, ${K})`;
    if (!options.wants(title)) continue;
    lab.reset();
    const ready = counts.map((M) => product(lab, dtype, N, K, M, 1));
    ready.forEach((p, i) => {
      p.check(`${title} M ${counts[i]}`);
    });
    const runs = ready.map((p) => p.run);
    const each = Array.from({ length: TILE_ROUNDS }, () => timeInTurns(runs, { rounds: 3, ms: 1 }));
    const times = counts.map((_, i) => Math.min(...each.map((list) => list[i])));
    for (const [i, M] of counts.entries()) {
      const [bytes, macs, ms] = [ready[i].bytes + M * (1.5 * K + 4 * N), M * N * K, times[i]];
      const least = leastMs(ceilings, { bytes, macs, rate: ceilings.dot[lab.variant] });
      const ofFour = macs / ms / ((4 * N * K) / times.at(-1));
      yield { name: `${title} M ${M}`, kernel: "tile", dtype, M, variant: lab.variant, ms, bytes, macs, roof: least / ms, ofFour };
    }
  }
}

/** Keys and values of `S` positions in pages, normed and turned by nothing (cosines 1, sines 0) as the cache commands do it. */
function fillPages(lab, { G, hd, H }, S, kvDtype) {
  const headBytes = { f32: 4 * hd, f16: 2 * hd, q8: hd + 4 }[kvDtype];
  const pageCount = Math.ceil(S / 32);
  const pages = Array.from({ length: pageCount }, () => lab.room(2 * 32 * G * headBytes));
  const table = lab.put(Uint32Array.from(pages));
  const AT_ONCE = 512;
  const stride = (H + 2 * G) * hd;
  const qkv = lab.room(4 * AT_ONCE * stride);
  const gain = lab.put(new Float32Array(hd).fill(1));
  const turn = new Float32Array(AT_ONCE * hd).map((_, i) => (i % hd < hd / 2 ? 1 : 0));
  const rope = lab.put(turn);
  const rowTable = lab.room(32);
  const kept = { k: [], v: [] }; // of kv head 0 and of the last, for the reference
  for (let at = 0; at < S; at += AT_ONCE) {
    const n = Math.min(AT_ONCE, S - at);
    const values = lab.random(n * stride, 1000 + at);
    lab.floats(qkv, n * stride).set(values);
    new Uint32Array(lab.memory.buffer, rowTable, 8).set([0, n, at, table, 0, 0, 0, 0]);
    lab.record([`norm_rope_append_${kvDtype}`, { qkv, stride, gq: gain, gk: gain, table: rope, rowTable, nseq: 1, H, G, hd, eps: EPS }])();
    for (let t = 0; t < n; t++)
      for (const g of [0, G - 1]) {
        const from = t * stride + (H + g) * hd;
        const key = values.subarray(from, from + hd);
        const r = rms(key);
        kept.k.push(Float64Array.from(key, (v) => v / r));
        kept.v.push(Float64Array.from(values.subarray(from + G * hd, from + (G + 1) * hd)));
      }
  }
  return { table, bytes: 2 * S * G * headBytes, kept };
}

/** Softmax of q·k over `keys` keys, times v, in float64; `which` of the two heads that were kept. */
function attend(q, { k, v }, keys, which) {
  const scores = Array.from({ length: keys }, (_, s) => dot(q, k[2 * s + which]));
  const top = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s - top));
  const sum = weights.reduce((a, b) => a + b, 0);
  return q.map((_, i) => weights.reduce((a, w, s) => a + w * v[2 * s + which][i], 0) / sum);
}

const ATTENTION_ERROR = { f32: 1e-4, f16: 4e-3, q8: 6e-2 };

function* attentions({ labs, ceilings, options }) {
  const [lab] = labs;
  for (const model of options.models)
    for (const kvDtype of shapes.kvDtypes.filter((d) => lab.has(`attention_${d}`)))
      for (const { T, S } of shapes.attention.filter(({ S }) => !options.isQuick || S <= 4096)) {
        const title = `attention ${kvDtype} ${model} T ${T} S ${S}`;
        if (!options.wants(title)) continue;
        lab.reset();
        const { H, G, hd } = shapes.heads[model];
        const { table, bytes: kvBytes, kept } = fillPages(lab, shapes.heads[model], S, kvDtype);
        const q = lab.random(T * H * hd, 5).map((v) => v / Math.sqrt(hd));
        const out = lab.room(4 * T * H * hd);
        const scratch = lab.room(lab.kernels.attention_scratch_bytes(H, G, hd));
        const rowTable = lab.put(Uint32Array.of(0, T, S - T, table, 0, 0, 0, 0));
        const args = {
          out,
          outStride: H * hd,
          q: lab.put(q),
          qStride: H * hd,
          rowTable,
          nseq: 1,
          layerOffset: 0,
          scratch,
        };
        const run = lab.record([`attention_${kvDtype}`, { ...args, H, G, hd, scale: 1 }]);
        run();
        const result = lab.floats(out, T * H * hd).slice();
        for (const t of new Set([0, T - 1]))
          for (const [which, h] of [
            [0, 0],
            [1, H - 1],
          ]) {
            const at = (t * H + h) * hd;
            const expected = attend(Float64Array.from(q.subarray(at, at + hd)), kept, S - T + t + 1, which);
            const worst = expected.reduce((a, v, i) => Math.max(a, Math.abs(v - result[at + i])), 0);
            check(worst < ATTENTION_ERROR[kvDtype], `${title}: row ${t}, head ${h}: off by ${worst}`);
          }
        const ms = time(run, options);
        const pairs = T * (S - T) + (T * (T + 1)) / 2;
        const [macs, bytes] = [2 * pairs * H * hd, kvBytes + 8 * T * H * hd];
        yield {
          name: title,
          kernel: "attention",
          dtype: `${kvDtype} cache`,
          M: T,
          variant: lab.variant,
          ms,
          bytes,
          macs,
          roof: leastMs(ceilings, { bytes, macs }) / ms,
        };
      }
}

/** Commands that only move and change rows: what to run, how many bytes, how to check. */
function* moves(lab, model) {
  const { D, F, V } = shapes.widths[model];
  for (const M of [1, 128]) {
    lab.reset();
    const values = lab.random(M * 2 * F, 11);
    const [x, y, g] = [lab.put(values), lab.room(4 * M * Math.max(F, D)), lab.put(lab.random(D, 12))];
    yield {
      name: `rmsnorm ${model} (${M}, ${D})`,
      run: lab.record(["rmsnorm", { y, x, g, M, D, stride: D, eps: EPS }]),
      bytes: 8 * M * D,
      check(what) {
        const row = values.subarray((M - 1) * D, M * D);
        const gain = lab.floats(g, D);
        for (const i of [0, D - 1]) near(lab.floats(y, M * D)[(M - 1) * D + i], (row[i] / rms(row)) * gain[i], 1e-5, what);
      },
    };
    const rowBytes = lab.kernels.qd8_row_bytes(F);
    const xq = lab.room(M * rowBytes);
    yield {
      name: `quantize ${model} (${M}, ${F})`,
      run: lab.record(["quantize", { out: xq, x, M, Kp: F, xStride: 2 * F }]),
      bytes: M * (4 * F + rowBytes),
      check(what) {
        const scale = lab.floats(xq + M * rowBytes - 32 * Math.floor(F / 256) - 16, 1)[0]; // of the last block: values, scale, its sums; then those of 256 values
        const top = values.subarray((M - 1) * 2 * F + F - 32, (M - 1) * 2 * F + F).reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        near(scale, top / 127, 1e-6, what);
      },
    };
    yield {
      name: `silu_mul ${model} (${M}, ${F})`,
      run: lab.record(["silu_mul", { y, yStride: F, ab: x, abStride: 2 * F, T: M, F8: F }]),
      bytes: 12 * M * F,
      check(what) {
        for (const i of [0, F - 1]) {
          const [a, b] = [values[(M - 1) * 2 * F + i], values[(M - 1) * 2 * F + F + i]];
          near(lab.floats(y, M * F)[(M - 1) * F + i], (a / (1 + Math.exp(-a))) * b, 1e-5, what);
        }
      },
    };
    const bcu = lab.random(M * 3 * D, 13);
    const tapValues = lab.random(3 * D, 14);
    const state = lab.put(new Float32Array(2 * D));
    const rowTable = lab.put(Uint32Array.of(0, M, 0, 0, state, 0, 0, 0));
    yield {
      name: `shortconv ${model} (${M}, ${D})`,
      run: lab.record([
        "shortconv",
        { y, yStride: D, bcu: lab.put(bcu), bcuStride: 3 * D, rowTable, nseq: 1, taps: lab.put(tapValues), D, Kc: 3 },
      ]),
      bytes: 16 * M * D,
      check(what) {
        for (const i of M >= 3 ? [0, D - 1] : []) {
          const at = (row, column) => bcu[(M - 1 - row) * 3 * D + column * D + i];
          const conv = [2, 1, 0].reduce((sum, back, tap) => sum + tapValues[tap * D + i] * at(back, 0) * at(back, 2), 0);
          near(lab.floats(y, M * D)[(M - 1) * D + i], at(0, 1) * conv, 1e-5, what);
        }
      },
    };
  }
  yield* fused(lab, model);
  for (const dtype of ["q4", "q4k", "q6k", "q8", "bf16"]) {
    lab.reset();
    const [N, T] = [4096, 128];
    const matrix = lab.matrix(dtype, N, D, 21);
    const ids = Int32Array.from({ length: T }, (_, i) => (i * 1237) % N);
    const out = lab.room(4 * T * D);
    yield {
      name: `gather ${dtype} ${model} (${T}, ${D})`,
      run: lab.record(["gather", { out, ids: lab.put(ids), matrix: matrix.descriptors[0], T, outStride: D }]),
      bytes: (T * matrix.bytes) / N + 4 * T * D,
      from: matrix.bytes,
      check(what) {
        const row = matrix.row(ids[T - 1]);
        for (const i of [0, 17, D - 1]) near(lab.floats(out, T * D)[(T - 1) * D + i], row[i], 1e-6, what);
      },
    };
  }
  for (const [from, to] of [
    ["q4", "q4"],
    ["q8", "q8"],
    ["q4k", "q4k"],
    ["q6k", "q6k"],
    ["bf16", "bf16"],
    ["bf16", "q8"],
    ["bf16", "q4"],
    ["f16", "f16"],
    ["f32", "q8"],
    ["f32", "q4"],
    ["f32", "f32"],
  ]) {
    lab.reset();
    const N = 4096;
    const stored = storedRows(from, N, D, 31);
    const source = lab.put(stored.bytes);
    const packed = lab.room(lab.packedBytes(to, N, D));
    const scratch = lab.room(8 * up(D, 32) * 4);
    const bytes = stored.bytes.length + lab.packedBytes(to, N, D);
    const out = lab.room(4 * D);
    const read = lab.record([
      "gather",
      { out, ids: lab.put(Int32Array.of(N - 1)), matrix: lab.descriptor(to, N, D, packed), T: 1, outStride: D },
    ]);
    yield {
      name: `pack ${from} to ${to} ${model} (${N}, ${D})`,
      run: () => lab.kernels.pack_rows(packed, CODES[to], 0, source, CODES[from], N, D, scratch),
      bytes,
      check(what) {
        read();
        const row = stored.row(N - 1);
        const top = row.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        const error = from === to ? 0 : top / { q8: 200, q4: 7, f32: 1e9, f16: 2000, bf16: 200 }[to];
        for (const i of [0, 17, D - 1]) {
          const got = lab.floats(out, D)[i];
          check(Math.abs(got - row[i]) <= error, `${what}: expected ${row[i]}, got ${got}`);
        }
      },
    };
    // as a load does it: from memory, in turns with others, into memory
    const copies = Math.ceil(STREAM_BYTES / bytes);
    const places = Array.from({ length: copies - 1 }, () => [lab.put(stored.bytes), lab.room(lab.packedBytes(to, N, D))]);
    places.push([source, packed]);
    let next = 0;
    const packNext = () => {
      const [source, packed] = places[next++ % copies];
      lab.kernels.pack_rows(packed, CODES[to], 0, source, CODES[from], N, D, scratch);
    };
    yield {
      name: `pack ${from} to ${to} ${model} (${N}, ${D}), from memory`,
      run: packNext,
      bytes,
      from: copies * bytes,
      check(what) {
        for (let i = 0; i < copies; i++) packNext(); // the first touch of memory is a load's own row
        const [, other] = places[0];
        const one = new Uint8Array(lab.memory.buffer, packed, lab.packedBytes(to, N, D));
        const two = new Uint8Array(lab.memory.buffer, other, one.length);
        check(Buffer.compare(one, two) === 0, `${what}: other bytes than those of the row above`);
      },
    };
  }
  lab.reset();
  const logits = lab.random(V, 41);
  const [x, values, indices] = [lab.put(logits), lab.room(4 * V), lab.room(4 * V)];
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  yield {
    name: `argmax ${model} (${V})`,
    run: () => lab.kernels.argmax_f32(x, V),
    bytes: 4 * V,
    check: (what) => check(lab.kernels.argmax_f32(x, V) === order[0], what),
  };
  yield {
    name: `topk ${model} (${V}) k 50`,
    run: () => lab.kernels.topk_f32(values, indices, x, V, 50),
    bytes: 4 * V,
    check: (what) =>
      check(
        new Int32Array(lab.memory.buffer, indices, 50).every((id, i) => id === order[i]),
        what,
      ),
  };
  yield {
    name: `softmax ${model} (${V})`,
    run: () => lab.kernels.softmax_f32(values, x, V),
    bytes: 8 * V,
    check: (what) =>
      near(
        lab.kernels.softmax_f32(values, x, V),
        logits.reduce((sum, v) => sum + Math.exp(v - logits[order[0]]), 0),
        1e-5,
        what,
      ),
  };
}

function* others({ labs, ceilings, options }) {
  const [lab] = labs;
  for (const model of options.models)
    for (const { name, run, bytes, from, check: checkMove } of moves(lab, model)) {
      if (!options.wants(name)) continue;
      run();
      checkMove(name);
      const ms = time(run, options);
      const least = leastMs(ceilings, { bytes, from: from ?? bytes });
      yield { name, kernel: name.split(" ")[0], dtype: "", variant: lab.variant, ms, bytes, macs: 0, roof: least / ms };
    }
}

/** What a row says of the goals. */
function addGoals(goals, { key, name, kernel, dtype, M, variant, bytes, roof, ofTile, ofFour }) {
  const add = (what, value, atLeast) => goals.add(`${key}${what}`, value, { atLeast, show: percent });
  if (kernel === "matmul" && ["q4", "q8"].includes(dtype) && bytes >= LARGE_BYTES) {
    if (M === 1) add(", of roof", roof, GOALS.oneRow[variant]);
    if (M === 128) add(", of its tile", ofTile, GOALS.tile);
  }
  if (kernel === "tile" && M < 4) add(", of 4 rows' rate", ofFour, GOALS.fewRows[M]);
  if (/^pack (\S+) to \1 .*from memory$/.test(name) && !/^pack q\dk/.test(name)) add(", of roof", roof, GOALS.moved);
}

/** @returns rows with ms, GB/s, GMAC/s and the share of the roof, and the rate of each dtype's tile */
export async function kernels({ ceilings, options, note, goals }) {
  const builds = ceilings.dot.relaxed === undefined ? ["plain"] : ["relaxed", "plain"];
  const labs = (options.variant ? builds.filter((b) => b === options.variant) : builds).map((variant) => new Lab(variant));
  if (!labs.length) throw new Error(`bench: this engine has no ${options.variant} kernels`);
  const tiles = {};
  const rows = [];
  for (const row of (function* () {
    const context = { labs, ceilings, options, tiles };
    yield* fewRows(context);
    yield* products(context);
    yield* attentions(context);
    yield* others(context);
  })()) {
    const full = {
      ...row,
      key: `${row.name} ${row.variant}`,
      gbps: row.bytes / row.ms / 1e6,
      gmacs: row.macs / row.ms / 1e6,
      value: 1 / row.ms,
    };
    rows.push(full);
    note(
      `${full.key}: ${full.ms.toFixed(3)} ms, ${full.gbps.toFixed(1)} GB/s, ${full.gmacs.toFixed(1)} GMAC/s, ${Math.round(100 * full.roof)} % of roof`,
    );
    addGoals(goals, full);
  }
  return { rows, tiles };
}
