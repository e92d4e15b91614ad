// append and attention: both caches, odd head counts and sizes, any chunking, ragged sequences, pages full of NaN.
import assert from "node:assert/strict";
import { attention, type Heads } from "../reference/attention.ts";
import { f16ToBits, toF16 } from "../reference/convert.ts";
import { pick } from "../scale.ts";
import { golden, pages, rowTable, type Sequence } from "./fixtures.ts";
import { close, columnsOf, normal, type Sandbox, spread, suite } from "./harness.ts";

type Kv = "f32" | "f16";
const LAYERS = 2; // a page serves several layers; the tests use the second and look at the first

/** q, k, v of a whole sequence. */
interface Data {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

const data = ({ H, G, hd }: Heads, S: number, seed: number): Data => ({
  q: normal(S * H * hd, seed),
  k: normal(S * G * hd, seed + 1),
  v: normal(S * G * hd, seed + 2),
});

const layerBytes = ({ G, hd }: Heads, kv: Kv): number => G * 2 * 32 * hd * (kv === "f32" ? 4 : 2);

/** Some rows of some sequences, computed by one append and one attention. */
interface Part {
  readonly heads: Heads;
  readonly kv: Kv;
  readonly nth: number;
  /** For each sequence its data, its page table, from where on and how many rows. */
  readonly sequences: readonly { data: Data; table: number; position: number; count: number }[];
}

/** Appends and attends; the sequences' rows stand in the order of the list, the table lists them backwards. @returns each one's rows (count, H·hd) */
function step(lab: Sandbox, { heads, kv, nth, sequences }: Part): Float32Array[] {
  const { H, G, hd, scale } = heads;
  const [Q, E] = [H * hd, G * hd];
  const total = sequences.reduce((sum, s) => sum + s.count, 0);
  const stride = Q + 2 * E + 4; // q, k, v side by side, as the fused matmul leaves them
  const rows = new Float32Array(total * stride).fill(Number.NaN);
  let at = 0;
  const entries: Sequence[] = sequences.map((s) => {
    const first = at;
    for (let t = 0; t < s.count; t++, at++) {
      const p = s.position + t;
      rows.set(s.data.q.subarray(p * Q, p * Q + Q), at * stride);
      rows.set(s.data.k.subarray(p * E, p * E + E), at * stride + Q);
      rows.set(s.data.v.subarray(p * E, p * E + E), at * stride + Q + E);
    }
    return { first, count: s.count, position: s.position, pages: s.table };
  });
  const [qkv, table, outStride] = [lab.put(rows), rowTable(lab, [...entries].reverse()), Q + 8];
  const [out, ml] = [lab.floats(total * outStride), lab.room(total * H * 8)];
  const scratch = lab.room(nth * lab.kernels.attention_scratch_bytes(hd));
  const offset = (LAYERS - 1) * layerBytes(heads, kv);
  lab.run(`append_${kv}`, [table, entries.length, qkv + 4 * Q, qkv + 4 * (Q + E), stride, G, hd, offset], nth);
  lab.run(`attention_${kv}`, [out, outStride, qkv, stride, table, entries.length, offset, ml, scratch, H, G, hd, { f: scale }], nth);
  const got = lab.read(out, total * outStride);
  assert.ok(
    columnsOf(got, outStride, 8, Q).every((v) => v === 0),
    "columns behind the heads are 0",
  );
  const values = columnsOf(got, outStride, Q);
  return entries.map((e) => values.slice(e.first * Q, (e.first + e.count) * Q));
}

/** A sequence's pages for S positions. */
const cache = (lab: Sandbox, heads: Heads, kv: Kv, S: number): number => pages(lab, S, LAYERS * layerBytes(heads, kv));

/** A whole sequence in the given chunks. @returns (S, H·hd) */
function whole(lab: Sandbox, heads: Heads, kv: Kv, d: Data, chunks: readonly number[], nth = 1): Float32Array {
  const S = chunks.reduce((a, n) => a + n, 0);
  const table = cache(lab, heads, kv, S);
  let position = 0;
  const parts = chunks.map((count) => {
    const [rows] = step(lab, { heads, kv, nth, sequences: [{ data: d, table, position, count }] });
    position += count;
    return rows!;
  });
  const first = new Uint32Array(lab.memory.buffer, table, Math.ceil(S / 32));
  for (const page of first)
    assert.ok(
      lab.bytes(page, layerBytes(heads, kv)).every((b) => b === 0xff),
      "another layer's part of the page was written",
    );
  lab.check();
  lab.reset();
  return Float32Array.from(parts.flatMap((p) => [...p]));
}

const reference = (heads: Heads, kv: Kv, d: Data, S: number): Float64Array => {
  const store = (x: Float32Array): Float32Array => (kv === "f32" ? x : x.map(toF16));
  return attention(heads, d.q, store(d.k), store(d.v), S, 0);
};

const shapes: readonly (Heads & { S: number })[] = pick({
  gate: [
    { H: 4, G: 2, hd: 64, S: 70, scale: 0.125 },
    { H: 3, G: 1, hd: 48, S: 33, scale: 0.3 },
    { H: 2, G: 2, hd: 16, S: 65, scale: 0.25 },
    { H: 5, G: 1, hd: 80, S: 40, scale: 0.1 },
  ],
  full: [
    { H: 4, G: 2, hd: 64, S: 200, scale: 0.125 },
    { H: 3, G: 1, hd: 48, S: 97, scale: 0.3 },
    { H: 2, G: 2, hd: 16, S: 128, scale: 0.25 },
    { H: 5, G: 1, hd: 80, S: 65, scale: 0.1 },
    { H: 32, G: 8, hd: 64, S: 65, scale: 0.125 },
    { H: 2, G: 1, hd: 128, S: 130, scale: 0.09 },
    { H: 6, G: 2, hd: 32, S: 64, scale: 0.17 },
  ],
});

suite("attention", (lab) => {
  for (const kv of ["f32", "f16"] as const) {
    lab.it(`${kv} cache: float64 reference, same bits for every chunking and thread share, whatever the rest of a page holds`, () => {
      for (const shape of lab.some(shapes, 1)) {
        const { S } = shape;
        const d = data(shape, S, 1);
        const key = `${shape.H}/${shape.G} heads of ${shape.hd}`;
        const got = whole(lab, shape, kv, d, [S]);
        close(got, reference(shape, kv, d, S), 4e-6, key);
        lab.agree(key, got);
        for (const chunks of lab.some([[17, S - 17], Array<number>(S).fill(1), [32, S - 32], [31, 2, S - 33]], 1))
          lab.agree(
            key,
            whole(
              lab,
              shape,
              kv,
              d,
              chunks.filter((n) => n > 0),
            ),
          );
        for (const nth of [2, 3]) lab.agree(key, whole(lab, shape, kv, d, [S], nth));
      }
    });

    lab.it(`${kv} cache: three ragged sequences in one row table equal each alone`, () => {
      const heads = { H: 4, G: 2, hd: 32, scale: 0.2 };
      const lengths = [
        [40, 5],
        [0, 3],
        [95, 1],
      ] as const; // kept positions, new rows
      const alone = lengths.map(([kept, count], i) =>
        whole(lab, heads, kv, data(heads, kept + count, 10 * i), kept ? [kept, count] : [count]),
      );
      for (const nth of [1, 2, 3]) {
        const sequences = lengths.map(([kept, count], i) => ({
          data: data(heads, kept + count, 10 * i),
          table: cache(lab, heads, kv, kept + count),
          position: kept,
          count,
        }));
        for (const s of sequences) if (s.position) step(lab, { heads, kv, nth: 1, sequences: [{ ...s, position: 0, count: s.position }] });
        step(lab, { heads, kv, nth, sequences }).forEach((rows, i) => {
          assert.deepEqual(rows, alone[i]!.subarray(alone[i]!.length - rows.length), `sequence ${i}`);
        });
        lab.check();
        lab.reset();
      }
    });

    lab.it(`${kv} cache: golden attention`, () => {
      const { cases, array } = golden<{ case: number; T: number; P: number; H: number; G: number; hd: number }>("attention");
      for (const { case: c, T, P, H, G, hd } of lab.some(cases)) {
        const heads = { H, G, hd, scale: Math.fround(hd ** -0.5) };
        const [q, k, v, y] = ["q", "k", "v", "y"].map((n) => array(`${c}.${n}`).data) as [
          Float32Array,
          Float32Array,
          Float32Array,
          Float32Array,
        ];
        const d = { q: spread(q, H * hd * T, (P + T) * H * hd, 0), k, v };
        d.q.copyWithin(P * H * hd, 0, T * H * hd);
        const table = cache(lab, heads, kv, P + T);
        if (P) step(lab, { heads, kv, nth: 1, sequences: [{ data: d, table, position: 0, count: P }] });
        const [got] = step(lab, { heads, kv, nth: 1, sequences: [{ data: d, table, position: P, count: T }] });
        const want = kv === "f32" ? y : attention(heads, q, k.map(toF16), v.map(toF16), T, P);
        const scores = Math.max(...q.map(Math.abs)) * Math.max(...k.map(Math.abs)); // large scores lose absolute accuracy in f32
        close(got!, want, 4e-6 * Math.max(1, scores / 4), `case ${c}`);
        lab.reset();
      }
    });
  }

  lab.it("a thread keeps to its own scratch and heads", () => {
    const heads = { H: 4, G: 2, hd: 16, scale: 0.25 };
    const d = data(heads, 3, 80);
    const table = cache(lab, heads, "f16", 3);
    step(lab, { heads, kv: "f16", nth: 1, sequences: [{ data: d, table, position: 0, count: 3 }] });
    const bytes = lab.kernels.attention_scratch_bytes(heads.hd);
    const rows = rowTable(lab, [{ first: 0, count: 3, position: 0, pages: table }]);
    const [q, out, ml, scratch] = [lab.put(d.q), lab.floats(3 * 64), lab.room(3 * 4 * 8), lab.room(2 * bytes)];
    const offset = (LAYERS - 1) * layerBytes(heads, "f16");
    const words = Int32Array.of(
      Number(lab.kernels.Op.attention_f16),
      out,
      64,
      q,
      64,
      rows,
      1,
      offset,
      ml,
      scratch,
      4,
      2,
      heads.hd,
      0x3e800000,
      0,
      0,
    );
    const command = lab.put(words);
    lab.kernels.run(command, 1, 1, 2); // the second of two threads alone
    assert.ok(
      lab.bytes(scratch, bytes).every((b) => b === 0xff),
      "the first thread's scratch was written",
    );
    const got = lab.read(out, 3 * 64);
    assert.ok(columnsOf(got, 64, 32).every(Number.isNaN) && columnsOf(got, 64, 32, 32).every(Number.isFinite));
    assert.deepEqual(lab.read(q, 32), d.q.slice(0, 32));
  });

  lab.it("append: the slots hold the values (f16: rounded to nearest even), and nothing else changes", () => {
    const heads = { H: 2, G: 2, hd: 16, scale: 1 };
    const E = heads.G * heads.hd;
    for (const kv of ["f32", "f16"] as const)
      for (const nth of [1, 3]) {
        const [S, position, count] = [64, 30, 5];
        const d = data(heads, S, 50);
        const table = cache(lab, heads, kv, S);
        step(lab, { heads, kv, nth, sequences: [{ data: d, table, position, count }] });
        const [size, tile] = kv === "f32" ? [4, 32 * heads.hd * 4] : [2, 32 * heads.hd * 2];
        for (let p = 0; p < S; p++)
          for (let g = 0; g < heads.G; g++)
            for (let i = 0; i < heads.hd; i++)
              for (const part of [0, 1]) {
                const page = new Uint32Array(lab.memory.buffer, table, 2)[p >> 5]! + layerBytes(heads, kv);
                const at = page + (2 * g + part) * tile + ((p & 31) * heads.hd + i) * size;
                const view = new DataView(lab.memory.buffer, at, size);
                const value = (part ? d.v : d.k)[p * E + g * heads.hd + i]!;
                const inside = p >= position && p < position + count;
                if (kv === "f32") assert.ok(Object.is(view.getFloat32(0, true), inside ? value : Number.NaN));
                else assert.equal(view.getUint16(0, true), inside ? f16ToBits(value) : 0xffff);
              }
        lab.check();
        lab.reset();
      }
  });

  lab.it("f16 cache: values beyond f16 saturate, subnormals are exact, a long run of equal scores does not overflow", () => {
    const heads = { H: 1, G: 1, hd: 16, scale: 0.25 };
    const S = 100;
    const q = new Float32Array(S * 16);
    const k = normal(S * 16, 60);
    const v = Float32Array.from({ length: S * 16 }, (_, i) => (i % 16 < 8 ? 2 ** -24 * (i % 7) : 60000));
    const got = whole(lab, heads, "f16", { q, k, v }, [S]);
    const want = reference(heads, "f16", { q, k, v }, S);
    close(got, want, (i) => 1e-6 * Math.abs(want[i]!) + 1e-12);
  });

  lab.it("a not-a-number query or key makes its own row not-a-number and no other", () => {
    const heads = { H: 2, G: 1, hd: 16, scale: 0.25 };
    const S = 40;
    const clean = data(heads, S, 70);
    const ref = whole(lab, heads, "f32", clean, [S]);
    const bad = { ...clean, q: clean.q.slice(), k: clean.k.slice() };
    bad.q[35 * 32 + 3] = Number.NaN; // row 35, head 0
    bad.k[38 * 16] = Number.NaN; // seen by rows 38 and 39
    const got = whole(lab, heads, "f32", bad, [S]);
    for (let t = 0; t < S; t++)
      for (let h = 0; h < 2; h++) {
        const row = got.subarray((2 * t + h) * 16, (2 * t + h + 1) * 16);
        if (t >= 38 || (t === 35 && h === 0)) assert.ok(row.every(Number.isNaN), `row ${t} head ${h}`);
        else assert.deepEqual(row, ref.subarray((2 * t + h) * 16, (2 * t + h + 1) * 16));
      }
  });
});
