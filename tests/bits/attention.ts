// Attention over a paged cache: a row's result for any cut of its sequence into steps, any company of other sequences, any number of threads, in every build.
import type { Lab } from "./lab.ts";
import { type Kind, numbers } from "./random.ts";
import { rowTable, type Sequence, steps } from "./rows.ts";

interface Case {
  readonly H: number;
  readonly G: number;
  readonly hd: number;
  /** Positions of the sequence. */
  readonly S: number;
  readonly cuts: readonly (readonly number[])[];
}

const CASES: readonly Case[] = [
  { H: 4, G: 2, hd: 64, S: 170, cuts: [[170], [1], [3], [32], [33], [7, 1, 1], [128]] },
  { H: 3, G: 1, hd: 16, S: 101, cuts: [[101], [1], [5], [31, 2]] },
  { H: 4, G: 4, hd: 32, S: 70, cuts: [[70], [1], [2], [64]] },
  { H: 8, G: 1, hd: 128, S: 67, cuts: [[67], [1], [4], [16]] },
  { H: 6, G: 2, hd: 48, S: 97, cuts: [[97], [1], [96, 1]] },
  { H: 2, G: 1, hd: 80, S: 66, cuts: [[66], [1], [9]] },
  { H: 5, G: 1, hd: 112, S: 40, cuts: [[40], [1], [11]] },
];
/** Many pages: the last rows one at a time and together, behind steps of several sizes. */
const LONG: readonly Case[] = [
  { H: 2, G: 1, hd: 64, S: 1100, cuts: [[1100], [128], [1000, ...Array.from({ length: 32 }, () => 1)], [512, 500, 3]] },
];
const LONGER: readonly Case[] = [
  { H: 4, G: 2, hd: 64, S: 4200, cuts: [[4200], [128], [4150, ...Array.from({ length: 50 }, () => 1)], [512, 7]] },
  { H: 2, G: 1, hd: 64, S: 9000, cuts: [[9000], [128], [8900, ...Array.from({ length: 100 }, () => 1)]] },
];

/** Two and three segments: every key is written, rows of the last positions attend. */
const LAST: readonly Case[] = [
  { H: 2, G: 1, hd: 16, S: 1030, cuts: [[4], [1]] },
  { H: 4, G: 2, hd: 64, S: 1541, cuts: [[24], [1], [5]] },
];

/** Inputs: name, kind of q, k and v, factor on q. `spiky` puts all weight on few keys; `level` on all alike. */
interface Inputs {
  readonly name: string;
  readonly q: Kind;
  readonly k: Kind;
  readonly v: Kind;
  readonly times: number;
}
const UNIFORM: Inputs = { name: "uniform", q: "uniform", k: "uniform", v: "uniform", times: 4 };
const INPUTS: readonly Inputs[] = [
  UNIFORM,
  { name: "spiky", q: "wide", k: "uniform", v: "wide12", times: 100 },
  { name: "level", q: "uniform", k: "flat", v: "wide12", times: 0 },
  { name: "tiny", q: "tiny", k: "tiny", v: "tiny", times: 1 },
  { name: "huge", q: "huge", k: "wide12", v: "huge", times: 1 },
  { name: "special", q: "uniform", k: "special", v: "special", times: 1 },
];
/** Beside them, over many segments: `peaked` weighs these very differently, but none with zero. `special` would make every value a NaN: with `seldom` few columns have one or an infinity. */
const MANY_KEYS: readonly Inputs[] = [
  ...INPUTS,
  { name: "peaked", q: "uniform", k: "uniform", v: "uniform", times: 80 },
  { name: "seldom", q: "uniform", k: "uniform", v: "seldom", times: 800 },
];

/** A layer's part of a page begins here: not at its start. */
const LAYER_OFFSET = 128;
const MOST_THREADS = 3;

interface Data {
  readonly q: Float32Array;
  /** q, k, v side by side, as the cache write takes them; only k and v matter there. */
  readonly qkv: Float32Array;
}

/** Runs sequences step by step. */
class Sequences {
  readonly #lab: Lab;
  readonly #kv: string;
  readonly #c: Case;
  readonly #rows: number;
  readonly #q: number;
  readonly #qkv: number;
  readonly #out: number;
  readonly #scratch: number;
  readonly #slots: readonly [address: number, count: number];
  readonly #gain: number;
  readonly #angles: number;

  /** @param copies of the case's sequence, one below the other */
  constructor(lab: Lab, kv: string, c: Case, data: Data, copies = 1) {
    const { H, hd, S } = c;
    this.#lab = lab;
    this.#kv = kv;
    this.#c = c;
    this.#rows = copies * S;
    this.#q = lab.put(repeated(data.q, copies));
    this.#qkv = lab.put(repeated(data.qkv, copies));
    this.#out = lab.floats(this.#rows * this.#outStride);
    this.#scratch = lab.room(MOST_THREADS * lab.kernels.attention_scratch_bytes(H, c.G, hd));
    const slotCount = this.#rows * H * Math.ceil(S / lab.segment); // by the rows' numbers, of which a step has some
    this.#slots = [lab.room(slotCount * lab.kernels.attention_slot_bytes(hd)), slotCount];
    // no norm and no rotation to speak of: an eps that drowns the mean square, a gain that undoes it, angles of 0
    this.#gain = lab.put(new Float32Array(hd).fill(2 ** 30));
    const angles = new Float32Array(this.#rows * hd);
    for (let row = 0; row < this.#rows; row++) angles.fill(1, row * hd, row * hd + hd / 2);
    this.#angles = lab.put(angles);
  }

  get #outStride(): number {
    return this.#c.H * this.#c.hd + 32;
  }

  get #stride(): number {
    return (this.#c.H + 2 * this.#c.G) * this.#c.hd;
  }

  /** Pages for `positions`, full of NaN. @returns the page table's address */
  pages(positions: number): number {
    const { G, hd } = this.#c;
    const bytes = LAYER_OFFSET + G * 2 * 32 * (4 * hd + 16);
    return this.#lab.put(Uint32Array.from({ length: Math.ceil(positions / 32) }, () => this.#lab.room(bytes)));
  }

  /** Writes the rows of every sequence to the cache, then attends. @param isSplit whether threads may share segments of a row's keys */
  step(sequences: readonly Sequence[], nth: number, isSplit: boolean): void {
    this.append(sequences, nth);
    this.attend(sequences, nth, isSplit);
  }

  append(sequences: readonly Sequence[], nth: number): void {
    const { H, G, hd } = this.#c;
    const from = [this.#qkv, this.#stride, this.#gain, this.#gain, this.#angles, rowTable(this.#lab, sequences), sequences.length];
    this.#lab.run(`norm_rope_append_${this.#kv}`, [...from, LAYER_OFFSET, H, G, hd, { f: 2 ** 60 }], nth);
  }

  attend(sequences: readonly Sequence[], nth: number, isSplit: boolean): void {
    const { H, G, hd } = this.#c;
    const lab = this.#lab;
    const n = sequences.length;
    const table = rowTable(lab, sequences);
    const to = [this.#out, this.#outStride];
    const shared = isSplit ? this.#slots : [0, 0];
    const scale = { f: Math.fround(1 / 8) };
    const q = [this.#q, H * hd];
    lab.run(`attention_${this.#kv}`, [...to, ...q, table, n, LAYER_OFFSET, ...shared, this.#scratch, H, G, hd, scale], nth);
    lab.run("attention_merge", [...to, table, n, ...shared, H, hd], nth);
  }

  /** Fills what was computed with NaN, as it was. */
  forget(): void {
    this.#lab.read(this.#out, this.#rows * this.#outStride).fill(Number.NaN);
  }

  row(t: number): Float32Array {
    return this.#lab.read(this.#out + 4 * t * this.#outStride, this.#outStride);
  }
}

function repeated(data: Float32Array, copies: number): Float32Array {
  if (copies === 1) return data;
  const out = new Float32Array(copies * data.length);
  for (let i = 0; i < copies; i++) out.set(data, i * data.length);
  return out;
}

function interleave(c: Case, q: Float32Array, k: Float32Array, v: Float32Array): Float32Array {
  const [nq, nk] = [c.H * c.hd, c.G * c.hd];
  const out = new Float32Array(c.S * (nq + 2 * nk));
  for (let t = 0; t < c.S; t++) {
    const at = t * (nq + 2 * nk);
    out.set(q.subarray(t * nq, (t + 1) * nq), at);
    out.set(k.subarray(t * nk, (t + 1) * nk), at + nq);
    out.set(v.subarray(t * nk, (t + 1) * nk), at + nq + nk);
  }
  return out;
}

function compare(lab: Lab, kv: string, c: Case, input: Inputs): void {
  const group = `attention ${kv} ${c.H}/${c.G}x${c.hd} over ${c.S} ${input.name}`;
  const { S, H, G, hd } = c;
  const q = numbers(input.q, S * H * hd, `${group} q`, input.times);
  const data = { q, qkv: interleave(c, q, numbers(input.k, S * G * hd, `${group} k`), numbers(input.v, S * G * hd, `${group} v`)) };
  const threads = [1, ...lab.threads([2, 3])];
  for (const [i, cut] of (lab.isLight ? c.cuts.slice(0, 2) : c.cuts).entries()) {
    for (const nth of i < 2 && S < 500 ? threads : [threads[i % threads.length] ?? 1]) {
      // of the first cut, the rows as they are when no segment is shared
      for (const isSplit of S > lab.segment ? (i === 0 ? [false, true] : [i % 4 !== 2]) : [false]) {
        lab.reset();
        const run = new Sequences(lab, kv, c, data);
        const pages = run.pages(S);
        for (const { at, count } of steps(S, cut)) run.step([{ first: at, count, position: at, pages }], nth, isSplit);
        const how = `steps of ${cut.slice(0, 3)}, ${nth} threads${isSplit ? ", segments shared" : ""}`;
        for (let t = 0; t < S; t++) lab.agree(group, t, how, run.row(t));
      }
    }
  }
  if (S <= 101 && !lab.isLight) together(lab, group, kv, c, data);
}

/** Rows of the last positions, in steps of several sizes, with segments shared and not. */
function compareLast(lab: Lab, kv: string, c: Case, input: Inputs): void {
  const group = `attention ${kv} ${c.H}/${c.G}x${c.hd} over the last of ${c.S} ${input.name}`;
  const { S, H, G, hd } = c;
  const q = numbers(input.q, S * H * hd, `last ${S} q`, input.times);
  const data = { q, qkv: interleave(c, q, numbers(input.k, S * G * hd, `last ${S} k`), numbers(input.v, S * G * hd, `last ${S} v`)) };
  const attending = Math.max(...c.cuts.map((cut) => cut[0] ?? 1));
  lab.reset();
  const run = new Sequences(lab, kv, c, data);
  const pages = run.pages(S);
  run.append([{ first: 0, count: S, position: 0, pages }], 1);
  for (const cut of c.cuts) {
    for (const isSplit of [false, true]) {
      for (const nth of isSplit ? lab.threads([1, 2, 3]) : [1]) {
        run.forget();
        for (const { at, count } of steps(attending, cut)) {
          const first = S - attending + at;
          run.attend([{ first, count, position: first, pages }], nth, isSplit);
        }
        const how = `steps of ${cut}, ${nth} threads${isSplit ? ", segments shared" : ""}`;
        for (let t = S - attending; t < S; t++) lab.agree(group, t, how, run.row(t));
      }
    }
  }
}

/** The sequence in company: a copy that is one step behind, and another that now and then has no row at all. Rows lie in reverse order of the sequences. */
function together(lab: Lab, group: string, kv: string, c: Case, data: Data): void {
  const { S } = c;
  lab.reset();
  const run = new Sequences(lab, kv, c, data, 3);
  const tables = [run.pages(S), run.pages(S), run.pages(S)];
  const threads = lab.threads([1, 2, 3]);
  const at = [0, 0, 0];
  for (let n = 0; at.some((t) => t < S); n++) {
    const counts = [Math.min(7, S - (at[0] ?? 0)), n < 1 ? 0 : Math.min(5, S - (at[1] ?? 0)), Math.min(n % 3, S - (at[2] ?? 0))];
    const sequences = counts.map((count, i) => ({ first: (2 - i) * S + (at[i] ?? 0), count, position: at[i] ?? 0, pages: tables[i] ?? 0 }));
    run.step(sequences, threads[n % threads.length] ?? 1, false);
    counts.forEach((count, i) => {
      at[i] = (at[i] ?? 0) + count;
    });
  }
  for (let i = 0; i < 3; i++) for (let t = 0; t < S; t++) lab.agree(group, t, `sequence ${i} of three`, run.row((2 - i) * S + t));
}

export function attentionCases(lab: Lab): void {
  for (const kv of lab.caches) {
    for (const c of CASES) for (const input of INPUTS) compare(lab, kv, c, input);
    if (lab.isLight) continue;
    for (const c of lab.pick({ gate: LONG, full: [...LONG, ...LONGER] })) compare(lab, kv, c, UNIFORM);
    for (const input of MANY_KEYS) for (const c of lab.pick({ gate: LAST.slice(0, 1), full: LAST })) compareLast(lab, kv, c, input);
    for (const c of lab.pick({ gate: [], full: LONG })) for (const input of MANY_KEYS.slice(1)) compare(lab, kv, c, input);
  }
}
