// Cache write, attention and attention_merge: every cache, odd head counts and sizes, any chunking, ragged sequences, shared segments, pages full of NaN.
import assert from "node:assert/strict";
import { attention, type Heads } from "../reference/attention.ts";
import { f16ToBits, toF16 } from "../reference/convert.ts";
import { pick } from "../scale.ts";
import { golden, pages, rowTable, type Sequence } from "./fixtures.ts";
import { close, columnsOf, normal, type Sandbox, spread, suite } from "./harness.ts";

type Kv = "f32" | "f16" | "q8";
const KV = ["f32", "f16", "q8"] as const;
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

/** Bytes of K, or of V, of one head in a page. */
const tileBytes = (hd: number, kv: Kv): number => 32 * { f32: 4 * hd, f16: 2 * hd, q8: hd + 4 }[kv];
const layerBytes = ({ G, hd }: Heads, kv: Kv): number => G * 2 * tileBytes(hd, kv);

/** A head's values as int8 with their scale. */
function quantized(x: Float32Array): { q: number[]; scale: number } {
  const most = x.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
  const even = (v: number): number => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));
  return { q: Array.from(x, (v) => even(Math.fround(v * Math.fround(127 / most)))), scale: Math.fround(most / 127) };
}

/** Rows of heads of hd values as a cache keeps them. */
function kept(x: Float32Array, hd: number, kv: Kv): Float32Array {
  if (kv === "f32") return x;
  if (kv === "f16") return x.map(toF16);
  return Float32Array.from({ length: x.length / hd }, (_, h) => h).reduce((out, h) => {
    const { q, scale } = quantized(x.subarray(h * hd, (h + 1) * hd));
    out.set(
      q.map((v) => v * scale),
      h * hd,
    );
    return out;
  }, new Float32Array(x.length));
}

/**
 * Distance to the reference on what the cache keeps. q8's integers for q round as well, by 2⁻¹⁵ of a head's largest, 3.5: with a scale of 0.3 and 48 values a score is off by
 * 1.3e-4 in standard deviation, and so is its probability.
 */
const BOUND = { f32: 4e-6, f16: 4e-6, q8: 4e-4 } as const;

/** Some rows of some sequences, computed by one append and one attention. */
interface Part {
  readonly heads: Heads;
  readonly kv: Kv;
  readonly nth: number;
  /** Threads share segments. */
  readonly split?: boolean;
  /** For each sequence its data, its page table, from where on and how many rows. */
  readonly sequences: readonly { data: Data; table: number; position: number; count: number }[];
}

/** The cache write as it is, without norm and rotation: an eps that drowns the mean square, a gain that undoes it, a rotation by 0. */
function append(
  lab: Sandbox,
  { heads: { H, G, hd }, kv, nth }: Omit<Part, "sequences">,
  qkv: number,
  stride: number,
  rows: number,
  table: number,
  sequences: number,
  offset: number,
): void {
  const [gain, cos] = [
    lab.put(new Float32Array(hd).fill(2 ** 30)),
    lab.put(Float32Array.from({ length: rows * hd }, (_, i) => (i % hd < hd / 2 ? 1 : 0))),
  ];
  lab.run(`norm_rope_append_${kv}`, [qkv, stride, gain, gain, cos, table, sequences, offset, H, G, hd, { f: 2 ** 60 }], nth);
}

/** Attention over what is in the pages, merged where threads share segments. @returns the address of the rows, outStride floats apart */
function attend(
  lab: Sandbox,
  { heads: { H, G, hd, scale }, kv, nth, split = false }: Omit<Part, "sequences">,
  q: number,
  stride: number,
  entries: readonly Sequence[],
  offset: number,
): { out: number; outStride: number } {
  const total = entries.reduce((sum, s) => sum + s.count, 0);
  const segments = Math.max(...entries.map((s) => Math.ceil((s.position + s.count) / 512)));
  const [table, outStride, slotCount] = [rowTable(lab, entries), H * hd + 8, split ? total * H * segments : 0];
  const out = lab.floats(total * outStride);
  const slots = lab.room(slotCount * lab.kernels.attention_slot_bytes(hd));
  const scratch = lab.room(nth * lab.kernels.attention_scratch_bytes(H, G, hd));
  const n = entries.length;
  lab.run(`attention_${kv}`, [out, outStride, q, stride, table, n, offset, slots, slotCount, scratch, H, G, hd, { f: scale }], nth);
  lab.run("attention_merge", [out, outStride, table, n, slots, slotCount, H, hd], nth);
  return { out, outStride };
}

/** Appends and attends; the sequences' rows stand in the order of the list, the table lists them backwards. @returns each one's rows (count, H·hd) */
function step(lab: Sandbox, { heads, kv, nth, split = false, sequences }: Part): Float32Array[] {
  const { H, G, hd } = heads;
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
  const [qkv, table] = [lab.put(rows), rowTable(lab, [...entries].reverse())];
  const offset = (LAYERS - 1) * layerBytes(heads, kv);
  append(lab, { heads, kv, nth }, qkv, stride, total, table, entries.length, offset);
  const { out, outStride } = attend(lab, { heads, kv, nth, split }, qkv, stride, [...entries].reverse(), offset);
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
  const out = new Float32Array(S * heads.H * heads.hd);
  parts.reduce((at, rows) => {
    out.set(rows, at);
    return at + rows.length;
  }, 0);
  return out;
}

/** The last `rows` of S rows. */
const reference = (heads: Heads, kv: Kv, d: Data, S: number, rows = S): Float64Array =>
  attention(heads, d.q.subarray((S - rows) * heads.H * heads.hd), kept(d.k, heads.hd, kv), kept(d.v, heads.hd, kv), rows, S - rows);

const references = new Map<string, Float64Array>();
/** The same, computed once for every build and place. @param key what there is no second of with other data */
function referenceOnce(key: string, ...of: Parameters<typeof reference>): Float64Array {
  const made = references.get(key) ?? reference(...of);
  references.set(key, made);
  return made;
}

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
  for (const kv of KV) {
    lab.it(`${kv} cache: float64 reference, same bits for every chunking and thread share, whatever the rest of a page holds`, () => {
      for (const shape of lab.some(shapes, 1)) {
        const { S } = shape;
        const d = data(shape, S, 1);
        const key = `${shape.H}/${shape.G} heads of ${shape.hd}`;
        const got = whole(lab, shape, kv, d, [S]);
        close(got, referenceOnce(`${key}, ${kv}`, shape, kv, d, S), BOUND[kv], key);
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
        const want = kv === "f32" ? y : attention(heads, q, kept(k, hd, kv), kept(v, hd, kv), T, P);
        const scores = Math.max(...q.map(Math.abs)) * Math.max(...k.map(Math.abs)); // large scores lose absolute accuracy in f32
        close(got!, want, BOUND[kv] * Math.max(1, scores / 4), `case ${c}`);
        lab.reset();
      }
    });
  }

  lab.it("a thread keeps to its own scratch and heads", () => {
    if (lab.variant.threads > 1) return; // one share alone would wait for the other
    const heads = { H: 4, G: 2, hd: 16, scale: 0.25 };
    const d = data(heads, 3, 80);
    const table = cache(lab, heads, "f16", 3);
    step(lab, { heads, kv: "f16", nth: 1, sequences: [{ data: d, table, position: 0, count: 3 }] });
    const bytes = lab.kernels.attention_scratch_bytes(4, 2, heads.hd);
    const rows = rowTable(lab, [{ first: 0, count: 3, position: 0, pages: table }]);
    const [q, out, scratch] = [lab.put(d.q), lab.floats(3 * 64), lab.room(2 * bytes)];
    const offset = (LAYERS - 1) * layerBytes(heads, "f16");
    const op = Number(lab.kernels.Op.attention_f16);
    const words = Int32Array.of(op, out, 64, q, 64, rows, 1, offset, 0, 0, scratch, 4, 2, heads.hd, 0x3e800000, 0);
    const command = lab.put(words);
    lab.kernels.run(command, 1, 1, 2); // the second of two threads alone
    assert.ok(
      lab.bytes(scratch, bytes).every((b) => b === 0xff),
      "the first thread's scratch was written",
    );
    const got = lab.read(out, 3 * 64);
    assert.ok(columnsOf(got, 64, 32).every(Number.isNaN) && columnsOf(got, 64, 32, 32).every(Number.isFinite));
    assert.deepEqual(lab.read(q, 3 * 64), d.q);
  });

  lab.it(
    "the slots of a page hold the values (f16: rounded to nearest even, q8: in 127ths of a head's largest), and nothing else changes",
    () => {
      const heads = { H: 2, G: 2, hd: 32, scale: 1 };
      const { G, hd } = heads;
      /** Place of column c in a panel's row of 16: f16 keeps columns i and i + 4 of eight in one word. */
      const column = (kv: Kv, c: number): number => (kv === "f16" ? (c & 8) + 2 * (c & 3) + ((c >> 2) & 1) : c);
      /** Elements before value i of the key in slot j, and of the value. */
      const placeOf: Record<"k" | "v", (kv: Kv, j: number, i: number) => number> = {
        k: (kv, j, i) =>
          kv === "q8" ? ((j >> 4) * (hd / 2) + (i >> 1)) * 32 + 2 * (j & 15) + (i & 1) : ((j >> 4) * hd + i) * 16 + column(kv, j & 15),
        v: (kv, j, i) => (i >> 4) * 512 + (kv === "q8" ? (j >> 1) * 32 + 2 * (i & 15) + (j & 1) : j * 16 + column(kv, i & 15)),
      };
      for (const kv of lab.some(KV))
        for (const nth of [1, 3]) {
          const [S, position, count] = [64, 30, 5];
          const d = data(heads, S, 50);
          const table = cache(lab, heads, kv, S);
          step(lab, { heads, kv, nth, sequences: [{ data: d, table, position, count }] });
          const size = { f32: 4, f16: 2, q8: 1 }[kv];
          const scaleBytes = kv === "q8" ? 128 : 0; // of a head; all heads' stand in front of K, and of V
          const half = layerBytes(heads, kv) / 2;
          for (let p = 0; p < S; p++)
            for (let g = 0; g < G; g++)
              for (const part of ["k", "v"] as const) {
                const values = d[part].subarray((p * G + g) * hd, (p * G + g + 1) * hd);
                const { q, scale } = quantized(values);
                const inside = p >= position && p < position + count;
                const start = new Uint32Array(lab.memory.buffer, table, 2)[p >> 5]! + layerBytes(heads, kv) + (part === "v" ? half : 0);
                const view = new DataView(lab.memory.buffer, start, half);
                if (kv === "q8") assert.ok(Object.is(view.getFloat32(scaleBytes * g + 4 * (p & 31), true), inside ? scale : Number.NaN));
                for (let i = 0; i < hd; i++) {
                  const at = scaleBytes * G + g * (half / G - scaleBytes) + size * placeOf[part](kv, p & 31, i);
                  if (kv === "f32") assert.ok(Object.is(view.getFloat32(at, true), inside ? values[i] : Number.NaN));
                  else if (kv === "f16") assert.equal(view.getUint16(at, true), inside ? f16ToBits(values[i]!) : 0xffff);
                  else assert.equal(view.getInt8(at), inside ? q[i]! + 0 : -1);
                }
              }
          lab.check();
          lab.reset();
        }
    },
  );

  for (const kv of KV)
    lab.it(`${kv} cache: more than one segment, alone or shared by threads: float64 reference, same bits for any rows in a call`, () => {
      const S = 1100;
      // not once a buffer: the next test is for the places
      for (const heads of lab.some(
        [
          { H: 4, G: 2, hd: 16, scale: 0.25 },
          { H: 3, G: 1, hd: 32, scale: 0.4 },
        ],
        0,
      )) {
        const [Q, E] = [heads.H * heads.hd, heads.G * heads.hd];
        const d = data(heads, S, 90);
        const table = cache(lab, heads, kv, S);
        const offset = (LAYERS - 1) * layerBytes(heads, kv);
        const stride = Q + 2 * E;
        const rows = new Float32Array(S * stride);
        for (let p = 0; p < S; p++) {
          rows.set(d.k.subarray(p * E, (p + 1) * E), p * stride + Q);
          rows.set(d.v.subarray(p * E, (p + 1) * E), p * stride + Q + E);
        }
        append(
          lab,
          { heads, kv, nth: 1 },
          lab.put(rows),
          stride,
          S,
          rowTable(lab, [{ first: 0, count: S, position: 0, pages: table }]),
          1,
          offset,
        );
        const from = (position: number, count: number, nth: number, split: boolean): Float32Array => {
          const q = lab.put(d.q.slice(position * Q, (position + count) * Q));
          const { out, outStride } = attend(lab, { heads, kv, nth, split }, q, Q, [{ first: 0, count, position, pages: table }], offset);
          return columnsOf(lab.read(out, count * outStride), outStride, Q);
        };
        const whole = from(S - 90, 90, 1, false); // from segment 1 into segment 2
        const want = referenceOnce(`segments, ${heads.H} heads, ${kv}`, heads, kv, d, S, 90);
        close(whole, want, BOUND[kv]);
        lab.agree(`${heads.H} heads`, whole);
        for (const nth of [1, 2, 3, 7])
          for (const split of [false, true])
            for (const [position, count] of lab.some(
              [
                [S - 1, 1],
                [1023, 1],
                [1022, 5],
                [S - 90, 90],
              ] as const,
              2,
            ))
              assert.deepEqual(
                from(position, count, nth, split),
                whole.slice((position - S + 90) * Q, (position - S + 90 + count) * Q),
                `${count} rows from ${position}, ${nth} threads, ${split ? "shared" : "whole"}`,
              );
        lab.check();
        lab.reset();
      }
    });

  lab.it("several sequences whose threads share segments equal each alone", () => {
    const heads = { H: 2, G: 1, hd: 16, scale: 0.25 };
    const lengths = lab.some(
      [
        [510, 4],
        [0, 3],
        [1020, 6],
        [511, 1],
      ] as const,
      1,
    );
    const sequences = lengths.map(([position, count], i) => {
      const d = data(heads, position + count, 10 * i);
      const table = cache(lab, heads, "f16", position + count);
      if (position) step(lab, { heads, kv: "f16", nth: 1, sequences: [{ data: d, table, position: 0, count: position }] });
      return { data: d, table, position, count };
    });
    const alone = sequences.map((s) => step(lab, { heads, kv: "f16", nth: 1, sequences: [s] })[0]);
    for (const nth of [1, 3]) assert.deepEqual(step(lab, { heads, kv: "f16", nth, split: true, sequences }), alone);
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

  lab.it("a not-a-number query, key or value makes its own row not-a-number and no other", () => {
    const heads = { H: 2, G: 1, hd: 16, scale: 0.25 };
    const S = 40;
    const clean = data(heads, S, 70);
    const bad = { q: clean.q.slice(), k: clean.k.slice(), v: clean.v.slice() };
    bad.q[35 * 32 + 3] = Number.NaN; // row 35, head 0
    bad.v[37 * 16 + 2] = Number.NaN; // seen by row 37 and those behind it: a column, where a head has no scale
    bad.k[38 * 16] = Number.NaN; // seen by rows 38 and 39
    for (const kv of ["f32", "q8"] as const) {
      const [ref, got] = [whole(lab, heads, kv, clean, [S]), whole(lab, heads, kv, bad, [S])];
      for (let t = 0; t < S; t++)
        for (let h = 0; h < 2; h++)
          for (let i = 0; i < 16; i++) {
            const at = (2 * t + h) * 16 + i;
            const isBad = t >= 38 || (t === 35 && h === 0) || (t === 37 && (kv === "q8" || i === 2));
            assert.ok(Object.is(got[at], isBad ? Number.NaN : ref[at]), `${kv}: row ${t} head ${h} column ${i}`);
          }
    }
  });
});
