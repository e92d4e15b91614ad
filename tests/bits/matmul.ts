// A row's product with a matrix: alone, among others, with any number of threads, in every build.
import { codeOf, DTYPES, type DType, isKDType, isQuantized, K_DTYPES, type Lab, up } from "./lab.ts";
import { type Kind, numbers, storedBlocks } from "./random.ts";

/** Rows of weights in one dtype. */
interface Segment {
  readonly dtype: DType;
  readonly rows: number;
  readonly address: number;
}

/** What x is made of, and w: a kind of numbers that the packer rounds, or stored bytes as they are. */
interface Inputs {
  readonly name: string;
  readonly x: Kind;
  readonly w: Kind | "stored" | "extreme";
  /** Fewer runs: denormals cost a hundred times as much. */
  readonly few?: boolean;
}

const INPUTS: readonly Inputs[] = [
  { name: "uniform", x: "uniform", w: "uniform" },
  { name: "wide", x: "wide", w: "wide12" },
  { name: "tiny", x: "tiny", w: "tiny", few: true },
  { name: "huge", x: "huge", w: "uniform" },
  { name: "special", x: "special", w: "ties" },
  { name: "saturated", x: "flat", w: "extreme" },
  { name: "stored", x: "ties", w: "stored" },
];

/** Packs N rows of K values. @returns the segment */
export function packed(lab: Lab, dtype: DType, N: number, K: number, w: Inputs["w"], name: string): Segment {
  const Kp = up(K, 32);
  const address = lab.room((up(N, 8) / 8) * (Kp / 32) * lab.kernels.packed_block_bytes(codeOf(dtype)));
  const scratch = lab.floats(8 * Kp);
  const asStored = isKDType(dtype) || ((w === "stored" || w === "extreme") && isQuantized(dtype) && K === Kp);
  const kind = w === "stored" ? "wide12" : w === "extreme" ? "flat" : w;
  const src = lab.put(asStored ? storedBlocks(dtype, N * K, name, w === "extreme") : numbers(kind, N * K, name));
  lab.kernels.pack_rows(address, codeOf(dtype), 0, src, asStored ? codeOf(dtype) : 0, N, K, scratch);
  return { dtype, rows: N, address };
}

/** Writes the descriptor. @returns its address */
export function descriptor(lab: Lab, K: number, segments: readonly Segment[]): number {
  const total = segments.reduce((sum, s) => sum + up(s.rows, 8), 0);
  return lab.put(
    Uint32Array.from([
      segments.length,
      K,
      up(K, 32),
      total,
      ...segments.flatMap((s) => [codeOf(s.dtype), s.rows, up(s.rows, 8), s.address]),
    ]),
  );
}

/** Rows of x at `stride`, zero behind column K. */
function rowsOf(kind: Kind, M: number, K: number, stride: number, name: string): Float32Array {
  const data = numbers(kind, M * K, name);
  const out = new Float32Array(M * stride);
  for (let m = 0; m < M; m++) out.set(data.subarray(m * K, (m + 1) * K), m * stride);
  return out;
}

interface Product {
  readonly group: string;
  readonly K: number;
  readonly segments: readonly Segment[];
  readonly x: Float32Array;
  readonly rows: number;
  readonly stride: number;
  readonly bias: boolean;
  readonly few: boolean;
}

/** All ways to compute the rows of one product. */
function compare(lab: Lab, p: Product): void {
  const { group, K, segments, rows, stride } = p;
  const few = p.few || lab.isLight;
  const Kp = up(K, 32);
  const matrix = descriptor(lab, K, segments);
  const N = segments.reduce((sum, s) => sum + up(s.rows, 8), 0);
  const yStride = N + 8;
  const x = lab.put(p.x);
  const bias = p.bias ? lab.put(numbers("wide", N, group)) : 0;
  const quantized = segments.some((s) => isQuantized(s.dtype));
  const y = lab.floats(rows * yStride);
  const xq = lab.room(rows * lab.kernels.qd8_row_bytes(Kp));
  const multiply = (first: number, M: number, nth: number): void => {
    const from = x + 4 * first * stride;
    if (quantized) lab.run("quantize", [xq, from, M, Kp, stride], nth);
    lab.run("matmul", [y, from, quantized ? xq : 0, matrix, M, yStride, stride, bias], nth);
    for (let m = 0; m < M; m++) lab.agree(group, first + m, `${M} rows, ${nth} threads`, lab.read(y + 4 * m * yStride, N));
  };
  const k = 5;
  const [lists, room] = [lab.floats(2 * 5 * 7 * k), lab.floats(5 * 7 * 16)];
  const largest = (first: number, M: number, nth: number): void => {
    lab.run("largest", [lists, room, 16, x + 4 * first * stride, quantized ? xq : 0, matrix, M, stride, N, k], nth);
    lab.run("merge_largest", [lists, M, k], nth);
    for (let m = 0; m < M; m++) {
      const isDefined = !Number.isNaN(lab.read(lists + 4 * k * m, 1)[0]); // of a row that is not, the list tells no more
      const ids = isDefined ? lab.readInts(lists + 4 * k * (M + m), k) : Int32Array.of(-2);
      lab.agree(`${group}, largest`, first + m, `${M} rows, ${nth} threads`, ids);
    }
  };
  const counts = [1, 2, 3, 4, 5, 6, 7, 8, 9, ...lab.pick({ gate: [33], full: [12, 13, 15, 16, 17, 31, 32, 33, 48, 64, 65, 70] })];
  for (let first = 0; first < rows; first++) {
    multiply(first, 1, 1); // each row alone
    if (first < lab.pick({ gate: 2, full: rows })) largest(first, 1, 1);
  }
  for (const M of counts) if (M <= rows && !(few && M > 9)) multiply((M * 5) % (rows - M + 1), M, 1);
  for (const [i, nth] of lab.threads([2, 3, 5]).entries())
    for (const M of few ? [1, 3] : [1, 2, 4, 7, rows]) {
      const first = (M * 3 + i) % (rows - M + 1); // of i, not nth: a build with threads meets rows that the others meet
      multiply(first, M, nth);
      if (M <= lab.pick({ gate: 2, full: 7 })) largest(first, M, nth);
    }
}

/** Rows and columns of the matrices: tails, a hidden size, the sizes of ffn, the longest sum. */
const SHAPES: readonly (readonly [N: number, K: number, rows: number])[] = [
  [24, 64, 70],
  [17, 100, 33],
  [40, 1024, 70],
  [16, 4608, 17],
  [24, 8192, 17],
];
const MORE_SHAPES = [
  [8, 32, 70],
  [72, 2048, 70],
  [200, 1024, 33],
  [16, 10752, 33],
  [1024, 256, 17],
] as const;

export function matmulCases(lab: Lab): void {
  const shapes = lab.pick({ gate: SHAPES, full: [...SHAPES, ...MORE_SHAPES] });
  for (const dtype of [...DTYPES, ...K_DTYPES]) {
    for (const [N, K, most] of shapes) {
      if (isKDType(dtype) && K % 256) continue;
      for (const { name, x, w, few = false } of INPUTS) {
        lab.reset();
        const group = `matmul ${dtype} ${N}x${K} ${name}`;
        const rows = few ? Math.min(most, 9) : most;
        const segments = [packed(lab, dtype, N, K, w, group)];
        compare(lab, { group, K, segments, x: rowsOf(x, rows, K, up(K, 32) + 32, group), rows, stride: up(K, 32) + 32, bias: false, few });
      }
    }
  }
  mixed(lab);
}

/** Matrices of several segments, with a bias, and the rows that gather reads back from them. */
function mixed(lab: Lab): void {
  const K = 512;
  const orders: readonly (readonly DType[])[] = [
    ["q8", "q4", "f32", "bf16", "f16"],
    ["f16", "q4", "q8"],
    ["q4k", "q4", "q6k"],
    ["q4k", "q6k", "q8", "f16"],
  ];
  for (const order of orders) {
    for (const { name, x, w, few = false } of INPUTS) {
      lab.reset();
      const group = `matmul ${order.join("|")} ${name}`;
      const segments = order.map((dtype, i) => packed(lab, dtype, [9, 24, 5, 8, 16][i] ?? 8, K, w, `${group} ${i}`));
      const stride = K + 32;
      compare(lab, { group, K, segments, x: rowsOf(x, 17, K, stride, group), rows: 17, stride, bias: true, few });
      const ids = Int32Array.from({ length: segments.reduce((n, s) => n + s.rows, 0) }, (_, i) => i).reverse();
      const [at, matrix, out] = [lab.put(ids), descriptor(lab, K, segments), lab.floats(ids.length * stride)];
      for (const nth of [1, ...lab.threads([3])]) {
        lab.run("gather", [out, at, matrix, ids.length, stride], nth);
        for (let t = 0; t < ids.length; t++) lab.agree(`gather ${group}`, ids[t] ?? 0, `${nth} threads`, lab.read(out + 4 * t * stride, K));
        lab.run("gather", [out, at + 4, matrix, 1, stride], nth);
        lab.agree(`gather ${group}`, ids[1] ?? 0, `alone, ${nth} threads`, lab.read(out, K));
      }
    }
  }
}
