// Kernels that work row by row: norms, rotation, activation, convolution, sampling, and packing. Each row alone and among others, sequences in any pieces, any number of threads.
import { codeOf, DTYPES, type DType, isKDType, isQuantized, K_DTYPES, type Lab, up } from "./lab.ts";
import { descriptor, packed } from "./matmul.ts";
import { type Kind, numbers, Random, seedOf, storedBlocks } from "./random.ts";

const KINDS: readonly Kind[] = ["uniform", "wide", "tiny", "huge", "special"];
const f = (value: number): { f: number } => ({ f: value });

/** One sequence of a row table. */
export interface Sequence {
  readonly first: number;
  readonly count: number;
  readonly position: number;
  readonly pages?: number;
  readonly state?: number;
}

/** Writes a row table. @returns its address */
export function rowTable(lab: Lab, sequences: readonly Sequence[]): number {
  return lab.put(Uint32Array.from(sequences.flatMap((s) => [s.first, s.count, s.position, s.pages ?? 0, s.state ?? 0, 0, 0, 0])));
}

/** Cuts of n rows into steps: each a list that is repeated as needed. */
export function* steps(n: number, sizes: readonly number[]): Generator<{ at: number; count: number }> {
  for (let at = 0, i = 0; at < n; i++) {
    const count = Math.min(n - at, sizes[i % sizes.length] ?? 1);
    yield { at, count };
    at += count;
  }
}

/** Rows that a kernel quantized, seen through a product with them: what the bytes are is each build's own affair. */
class Quantized {
  readonly #lab: Lab;
  readonly #matrix: number;
  readonly #rows: number;
  readonly #y: number;
  readonly #stride: number;
  readonly #group: string;
  /** Where M rows go, `stride` values each. */
  readonly address: number;

  constructor(lab: Lab, group: string, M: number, stride: number) {
    const bytes = M * lab.kernels.qd8_row_bytes(stride);
    const name = `quantized ${stride}`;
    const segments = (["q8", "q4"] as const).map((dtype) => packed(lab, dtype, 8, stride, "uniform", name));
    this.#lab = lab;
    this.#rows = M;
    this.#stride = stride;
    this.#group = `${group}, quantized`;
    this.#matrix = descriptor(lab, stride, segments);
    this.#y = lab.floats(M * 16);
    this.address = lab.room(bytes);
  }

  /** Compares what lies at `address` now. */
  agree(how: string, M: number = this.#rows, first = 0): void {
    const lab = this.#lab;
    lab.run("matmul", [this.#y, 0, this.address, this.#matrix, M, 16, this.#stride, 0]);
    for (let m = 0; m < M; m++) lab.agree(this.#group, first + m, how, lab.read(this.#y + 64 * m, 16));
  }

  /** Compares what `quantize` makes of `y`. */
  agreeOf(y: number, M: number, first: number): void {
    this.#lab.run("quantize", [this.address, y, M, this.#stride, this.#stride]);
    this.agree("by quantize", M, first);
  }
}

function rmsnorm(lab: Lab): void {
  for (const D of lab.pick({ gate: [16, 112, 1024], full: [16, 48, 112, 1024, 1536, 2048] })) {
    for (const kind of KINDS) {
      lab.reset();
      const group = `rmsnorm ${D} ${kind}`;
      const [rows, stride] = [9, up(D, 32) + 32];
      const padded = new Float32Array(rows * stride);
      const data = numbers(kind, rows * D, group);
      for (let m = 0; m < rows; m++) padded.set(data.subarray(m * D, (m + 1) * D), m * stride);
      const [x, g, y] = [lab.put(padded), lab.put(numbers("wide", D, group)), lab.floats(rows * stride)];
      const yq = new Quantized(lab, group, rows, stride);
      for (let m = 0; m < rows; m++) {
        lab.run("rmsnorm", [y, 0, x + 4 * m * stride, 0, g, 0, 1, D, stride, f(1e-5)]);
        lab.agree(group, m, "alone", lab.read(y, stride));
        yq.agreeOf(y, 1, m);
      }
      const order = Int32Array.from({ length: rows }, (_, m) => (m * 4) % rows);
      const at = lab.put(order);
      for (const nth of [1, ...lab.threads([2, 3, 5])]) {
        lab.run("rmsnorm", [y, 0, x, 0, g, at, rows, D, stride, f(1e-5)], nth);
        for (let m = 0; m < rows; m++) lab.agree(group, order[m] ?? 0, `by number, ${nth} threads`, lab.read(y + 4 * m * stride, stride));
        lab.run("rmsnorm", [y, yq.address, x, 0, g, 0, rows, D, stride, f(1e-5)], nth);
        for (let m = 0; m < rows; m++) lab.agree(group, m, `quantizing, ${nth} threads`, lab.read(y + 4 * m * stride, stride));
        yq.agree(`${nth} threads`);
      }
      addAndNorm(lab, { group, rows, D, stride, x, g, y, padded });
      lab.write(x, padded);
      lab.run("rmsnorm", [x, 0, x, 0, g, 0, rows, D, stride, f(1e-5)]);
      for (let m = 0; m < rows; m++) lab.agree(group, m, "in place", lab.read(x + 4 * m * stride, stride));
    }
  }
}

interface Norm {
  readonly group: string;
  readonly rows: number;
  readonly D: number;
  readonly stride: number;
  readonly x: number;
  readonly g: number;
  readonly y: number;
  readonly padded: Float32Array;
}

/** x += r, then the norm: by two commands, by one. */
function addAndNorm(lab: Lab, { group, rows, D, stride, x, g, y, padded }: Norm): void {
  const added = new Float32Array(padded.length);
  for (let m = 0; m < rows; m++) added.set(numbers("wide", D, `${group} r ${m}`), m * stride);
  const r = lab.put(added);
  const both = (how: string, nth: number, fused: boolean): void => {
    lab.write(x, padded);
    if (!fused) lab.run("add", [x, r, rows * stride], nth);
    lab.run("rmsnorm", [y, 0, x, fused ? r : 0, g, 0, rows, D, stride, f(1e-5)], nth);
    lab.agree(`add, ${group}`, "x", how, lab.read(x, rows * stride));
    for (let m = 0; m < rows; m++) lab.agree(`add, ${group}`, m, how, lab.read(y + 4 * m * stride, stride));
  };
  both("two commands", 1, false);
  for (const nth of [1, ...lab.threads([2, 3, 5])]) both(`one command, ${nth} threads`, nth, true);
}

/** Tables of angles at any place of a step, then norm and rotation with them. */
function rope(lab: Lab): void {
  for (const [hd, theta, factor] of [
    [16, 1e4, 1],
    [64, 1e6, 1],
    [128, 5e5, 0.75],
  ] as const) {
    lab.reset();
    const freq = lab.room(4 * hd);
    lab.kernels.rope_frequencies(freq, theta, hd);
    lab.agree(`rope_frequencies ${hd}`, "all", "once", lab.readBytes(freq, 4 * hd));
    // far ones in a row: where a rounding of the angle in f64 is large enough to reach the f32
    const far = Array.from({ length: 48 }, (_, i) => 1_000_003 + i);
    const positions = [0, 1, 2, 31, 32, 33, 4095, 32767, 127999, ...far];
    const table = lab.floats(positions.length * hd);
    const all = rowTable(
      lab,
      positions.map((position, first) => ({ first, count: 1, position })),
    );
    for (const nth of [1, ...lab.threads([2, 3])]) {
      lab.run("rope_table", [table, all, positions.length, freq, hd, f(factor)], nth);
      positions.forEach((p, i) => {
        lab.agree(`rope_table ${hd}`, p, `a sequence each, ${nth} threads`, lab.read(table + 4 * i * hd, hd));
      });
    }
    for (const list of [[31, 32, 33], far]) {
      const one = rowTable(lab, [{ first: 0, count: list.length, position: list[0] ?? 0 }]);
      lab.run("rope_table", [table, one, 1, freq, hd, f(factor)]);
      for (const [i, p] of list.entries()) lab.agree(`rope_table ${hd}`, p, "one sequence", lab.read(table + 4 * i * hd, hd));
    }

    lab.run("rope_table", [table, all, positions.length, freq, hd, f(factor)]);
    for (const kind of KINDS) for (const kv of lab.caches) normRope(lab, { hd, kv, kind, table, rows: 10 });
  }
}

/** Norm and rotation of q and k in place, k and v into the cache, of 10 rows that end a page and begin the next. */
function normRope(lab: Lab, c: { hd: number; kv: string; kind: Kind; table: number; rows: number }): void {
  const { hd, table, rows, kv } = c;
  for (const [H, G] of [
    [1, 1],
    [6, 2],
  ] as const) {
    const group = `norm_rope_append ${kv} ${H}/${G}x${hd} ${c.kind}`;
    const [stride, position, pageBytes] = [(H + 2 * G) * hd + 16, 32 - 4, 64 + 2 * G * 32 * (4 * hd + 16)];
    const data = numbers(c.kind, rows * stride, group);
    const [x, gq, gk] = [lab.put(data), lab.put(numbers("uniform", hd, `${group} q`)), lab.put(numbers("uniform", hd, `${group} k`))];
    const pages = [lab.room(pageBytes), lab.room(pageBytes)];
    const pageTable = lab.put(Uint32Array.from(pages));
    const run = (sizes: readonly number[], nth: number): void => {
      const how = `steps of ${sizes}, ${nth} threads`;
      lab.write(x, data);
      for (const page of pages) lab.write(page, new Uint8Array(pageBytes));
      for (const { at, count } of steps(rows, sizes)) {
        const rowsTable = rowTable(lab, [{ first: 0, count, position: position + at, pages: pageTable }]);
        const from = [x + 4 * at * stride, stride, gq, gk, table + 4 * at * hd];
        lab.run(`norm_rope_append_${kv}`, [...from, rowsTable, 1, 64, H, G, hd, f(1e-5)], nth);
      }
      for (let t = 0; t < rows; t++) lab.agree(group, t, how, lab.read(x + 4 * t * stride, (H + 2 * G) * hd));
      // read as floats, in which a NaN has no sign: what else a cache keeps of one is each machine's own affair
      if (kv === "f32" || c.kind !== "special")
        for (const [i, page] of pages.entries()) lab.agree(group, `page ${i}`, how, lab.read(page, pageBytes / 4));
    };
    for (const sizes of [[rows], [1], [3, 2]]) for (const nth of [1, ...lab.threads([2, 3, 5])]) run(sizes, nth);
  }
}

function siluMul(lab: Lab): void {
  for (const F8 of [8, 40, 64, 1000]) {
    for (const kind of KINDS) {
      for (const times of [1, 100]) {
        lab.reset();
        const group = `silu_mul ${F8} ${kind} times ${times}`;
        const [T, abStride, yStride] = [7, 2 * F8 + 16, up(F8, 32)];
        const [ab, y] = [lab.put(numbers(kind, T * abStride, group, times)), lab.floats(T * yStride)];
        const yq = new Quantized(lab, group, T, yStride);
        for (let t = 0; t < T; t++) {
          lab.run("silu_mul", [y, yStride, 0, ab + 4 * t * abStride, abStride, 1, F8]);
          lab.agree(group, t, "alone", lab.read(y, yStride));
          yq.agreeOf(y, 1, t);
        }
        for (const nth of [1, ...lab.threads([2, 3, 5])]) {
          lab.run("silu_mul", [y, yStride, nth === 2 ? 0 : yq.address, ab, abStride, T, F8], nth);
          for (let t = 0; t < T; t++) lab.agree(group, t, `${nth} threads`, lab.read(y + 4 * t * yStride, yStride));
          if (nth !== 2) yq.agree(`${nth} threads`);
        }
        if (F8 !== yStride) continue;
        for (const nth of lab.threads([2])) {
          lab.run("silu_mul", [0, yStride, yq.address, ab, abStride, T, F8], nth);
          yq.agree(`without y, ${nth} threads`);
        }
      }
    }
  }
}

function addAndCopy(lab: Lab): void {
  for (const kind of KINDS) {
    lab.reset();
    const n = 1028;
    const data = numbers(kind, n, "add y");
    const [x, y, z] = [lab.put(numbers(kind, n, "add x")), lab.floats(n), lab.floats(n)];
    for (const nth of [1, ...lab.threads([2, 3, 5])]) {
      lab.write(y, data);
      lab.run("add", [y, x, n], nth);
      lab.agree(`add ${kind}`, "all", `${nth} threads`, lab.read(y, n));
      lab.run("copy", [z, y, 4 * n], nth);
      lab.agree(`copy ${kind}`, "all", `${nth} threads`, lab.readInts(z, n));
    }
    lab.write(y, data);
    for (const { at, count } of steps(n, [4, 8, 100])) lab.run("add", [y + 4 * at, x + 4 * at, count]);
    lab.agree(`add ${kind}`, "all", "in pieces", lab.read(y, n));
  }
}

function shortconv(lab: Lab): void {
  for (const Kc of [2, 3, 4]) {
    for (const D of [12, 64, 1024]) {
      for (const kind of KINDS) {
        for (const biased of [false, true]) {
          lab.reset();
          const group = `shortconv ${Kc} ${D} ${kind}${biased ? " bias" : ""}`;
          const [T, yStride, stride, offset] = [23, up(D, 32) + 32, 3 * D + 16, 64];
          const stateBytes = 4 * (Kc - 1) * D;
          const bcu = lab.put(numbers(kind, T * stride, group));
          const taps = lab.put(numbers("uniform", Kc * D, group));
          const bias = biased ? lab.put(numbers("uniform", D, `${group} bias`)) : 0;
          const [y, state] = [lab.floats(T * yStride), lab.room(offset + stateBytes)];
          const yq = new Quantized(lab, group, T, yStride);
          const run = (sizes: readonly number[], nth: number, quantizing: boolean): void => {
            const how = `steps of ${sizes}, ${nth} threads`;
            lab.write(state, new Uint8Array(offset + stateBytes));
            for (const { at, count } of steps(T, sizes)) {
              const table = rowTable(lab, [{ first: at, count, position: at, state }]);
              const to = [y, yStride, quantizing ? yq.address : 0, bcu, stride];
              lab.run("shortconv", [...to, table, 1, offset, taps, bias, D, Kc], nth);
            }
            for (let t = 0; t < T; t++) lab.agree(group, t, how, lab.read(y + 4 * t * yStride, yStride));
            lab.agree(group, "state", how, lab.read(state + offset, stateBytes / 4));
            if (quantizing) yq.agree(how);
          };
          for (const sizes of [[T], [1], [2], [3, 1], [7], [16]]) {
            for (const nth of [1, ...lab.threads([2, 5])]) run(sizes, nth, nth !== 5);
          }
          yq.agreeOf(y, T, 0);
        }
      }
    }
  }
}

/** Logits: what sampling reads. */
function sampling(lab: Lab): void {
  const k = 40;
  for (const N of lab.pick({ gate: [40, 515, 8192], full: [40, 515, 8192, 65536] })) {
    for (const kind of [...KINDS, "ties"] as const) {
      lab.reset();
      const [M, stride, group] = [5, up(N, 16) + 16, `${N} ${kind}`];
      const data = numbers(kind, M * stride, group, kind === "uniform" ? 20 : 1);
      const [x, values, indices, p] = [lab.put(data), lab.floats(k), lab.floats(k), lab.floats(N)];
      for (let m = 0; m < M; m++) byName(lab, { x: x + 4 * m * stride, values, indices, p, N, k, m, group });
    }
  }
}

function byName(
  lab: Lab,
  c: { x: number; values: number; indices: number; p: number; N: number; k: number; m: number; group: string },
): void {
  const { x, values, indices, p, N, k, m, group } = c;
  const { kernels } = lab;
  lab.agree(`argmax ${group}`, m, "by name", Int32Array.of(kernels.argmax_f32(x, N)));
  kernels.topk_f32(values, indices, x, N, k);
  lab.agree(`topk values ${group}`, m, "by name", lab.read(values, k));
  lab.agree(`topk indices ${group}`, m, "by name", lab.readInts(indices, k));
  lab.agree(`all_finite ${group}`, m, "by name", Int32Array.of(kernels.all_finite_f32(x, N)));
  const sum = kernels.softmax_f32(p, x, N);
  lab.agree(`softmax ${group}`, m, "by name", lab.read(p, N));
  lab.agree(`softmax sum ${group}`, m, "by name", new Uint8Array(Float64Array.of(sum).buffer));
  const r = new Random(seedOf(group));
  const ids = Int32Array.from(new Set(Array.from({ length: 30 }, () => r.below(N))));
  kernels.penalize_f32(x, lab.put(ids), ids.length, Math.fround(1.05));
  kernels.divide_f32(x, N, Math.fround(0.7));
  lab.agree(`penalize, divide ${group}`, m, "by name", lab.read(x, N));
}

/** Stored rows of every type to every packed one, all at once and in two calls; read back by gather. */
function packing(lab: Lab): void {
  for (const src of [...DTYPES, ...K_DTYPES]) {
    const [rows, K] = [21, isKDType(src) ? 512 : 96];
    const kinds: readonly Kind[] = isQuantized(src) ? ["uniform", "flat"] : ["uniform", "wide12", "tiny", "ties", "flat"];
    for (const dst of isKDType(src) ? [...DTYPES, src] : DTYPES) {
      for (const kind of kinds) {
        lab.reset();
        const group = `pack ${src} to ${dst} ${kind}`;
        const bytes = stored(src, rows * K, kind, group);
        const [from, scratch] = [lab.put(bytes), lab.floats(8 * K)];
        const size = (up(rows, 8) / 8) * (K / 32) * lab.kernels.packed_block_bytes(codeOf(dst));
        const rowBytes = lab.kernels.stored_row_bytes(codeOf(src), K);
        const wide = lab.floats(rows * K);
        lab.kernels.decode_rows(wide, K, from, codeOf(src), rows, K);
        lab.agree(`decode ${src} ${kind} for ${dst}`, "all", "at once", lab.read(wide, rows * K));
        for (const cut of [rows, 8, 16]) {
          const to = lab.room(size);
          let fine = 1;
          for (const { at, count } of steps(rows, [cut])) {
            fine &= lab.kernels.pack_rows(to, codeOf(dst), at, from + at * rowBytes, codeOf(src), count, K, scratch);
          }
          lab.agree(group, "finite", `${cut} rows at a time`, Int32Array.of(fine));
          // qb8w stores other bytes in the relaxed build, so it is compared by what they mean
          if (dst !== "q8") lab.agree(group, "bytes", `${cut} rows at a time`, lab.readBytes(to, size));
          const matrix = descriptor(lab, K, [{ dtype: dst, rows, address: to }]);
          const ids = lab.put(Int32Array.from({ length: rows }, (_, i) => i));
          const out = lab.floats(rows * K);
          lab.run("gather", [out, ids, matrix, rows, K]);
          for (let t = 0; t < rows; t++) lab.agree(group, t, `${cut} rows at a time`, lab.read(out + 4 * t * K, K));
        }
      }
    }
  }
}

/** n values as a file stores them; f16 and bf16 as any bits that are finite. */
function stored(dtype: DType, n: number, kind: Kind, name: string): Float32Array | Uint16Array | Uint8Array {
  if (isQuantized(dtype)) return storedBlocks(dtype, n, name, kind === "flat");
  const data = numbers(kind, n, name);
  if (dtype === "f32") return data;
  const words = new Uint32Array(data.buffer);
  // the upper half of an f32 is a bf16; its lowest 16 bits make an f16 as good as any
  return Uint16Array.from(words, (w) => (dtype === "bf16" ? w >>> 16 : (w & 0x7c00) === 0x7c00 ? w & 0x83ff : w & 0xffff));
}

export function rowCases(lab: Lab): void {
  rmsnorm(lab);
  rope(lab);
  siluMul(lab);
  addAndCopy(lab);
  shortconv(lab);
  sampling(lab);
  packing(lab);
}
