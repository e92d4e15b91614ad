// The head where only the largest logits are wanted: the product is made some columns at a time and looked through while they are in the first cache, never written as a whole.
import { BLOCK, GROUP } from "../lib/blocks";
import { claim, claim_end, share } from "../lib/threads";
import { all_finite_f32, argmax_f32, insert, largest } from "../sample";
import { FEW_ROWS, groups_of_matrix, LEAST_GROUPS, padded_columns, padded_rows } from "./matrix";

/** Puts what is among the k largest of n values into the list, whose places are as `insert` leaves them; `first` is the index of the first value. NaN or Infinity makes the list's first value NaN for good. */
function take_largest(values: usize, indices: usize, k: usize, x: usize, n: usize, first: usize): void {
  const last = (k - 1) << 2;
  if (k == 1) {
    const m = largest(x, n);
    if (m > load<f32>(values)) { store<f32>(values, m); store<i32>(indices, <i32>first + argmax_f32(x, n)); }
  } else {
    let bar = v128.load32_splat(values + last), i: usize = 0;
    for (; i + 8 <= n; i += 8) {
      const p = x + (i << 2);
      if (!v128.any_true(v128.or(f32x4.gt(v128.load(p), bar), f32x4.gt(v128.load(p, 16), bar)))) continue;
      for (let j = i; j < i + 8; j++) {
        const v = load<f32>(x + (j << 2));
        if (v > load<f32>(values + last)) insert(values, indices, last, v, <i32>(first + j));
      }
      bar = v128.load32_splat(values + last);
    }
    for (; i < n; i++) {
      const v = load<f32>(x + (i << 2));
      if (v > load<f32>(values + last)) insert(values, indices, last, v, <i32>(first + i));
    }
  }
  if (!all_finite_f32(x, n)) store<f32>(values, NaN);
}

/**
 * The k largest of each row of x · Wᵀ, largest first, ties by index: each thread's own, for `merge_largest` to put together.
 * lists (nth) of: values (M,k) f32, then indices (M,k) i32; places that nothing above -Infinity took: -Infinity and -1; the first value of a row with NaN or +Infinity: NaN
 * room (nth, M, columns) f32, columns a multiple of 8 · x, xq, matrix, M, xStride as in matmul · N columns of the product count, its padding not
 * needs: k > 0; 16-byte alignment
 * cost:  streams every packed byte of W once a call. Threads share groups of 8 rows.
 */
export function largest_of_product(
  lists: usize, room: usize, columns: usize, x: usize, xq: usize, matrix: usize, M: usize, xStride: usize, N: usize, k: usize, ith: usize, nth: usize,
): void {
  const blocks = padded_columns(matrix) / BLOCK, groups = padded_rows(matrix) / GROUP, most = columns / GROUP, part: usize = M > FEW_ROWS ? 2 : 1;
  assert(most > 0 && columns % GROUP == 0);
  const values = lists + ith * (M * k << 3), indices = values + (M * k << 2), y = room + ith * (M * columns << 2);
  for (let i: usize = 0, end = M * k << 2; i < end; i += 4) store<f32>(values + i, -Infinity), store<i32>(indices + i, -1);
  for (let run = 0, begin = claim(groups, LEAST_GROUPS, part, ith, nth, 0); begin < groups; begin = claim(groups, LEAST_GROUPS, part, ith, nth, ++run)) {
    const end = claim_end(begin, groups, LEAST_GROUPS, part, ith, nth);
    if (begin == end) return; // an empty share
    for (let g = begin, next = g; g < end; g = next) {
      next = min(g + most, end);
      groups_of_matrix(y - (g << 5), x, xq, matrix, M, columns, xStride, blocks, g, next);
      const first = g * GROUP, n = min<usize>(next * GROUP, N) - min<usize>(first, N);
      for (let m: usize = 0; m < M; m++) take_largest(values + (m * k << 2), indices + (m * k << 2), k, y + (m * columns << 2), n, first);
    }
  }
}

/**
 * Puts the lists of the nth threads that the step runs on together, into the first.
 * lists as in largest_of_product. Threads share rows.
 */
export function merge_largest(lists: usize, M: usize, k: usize, ith: usize, nth: usize): void {
  const last = (k - 1) << 2, half = M * k << 2;
  for (let m = share(M, ith, nth), e = share(M, ith + 1, nth); m < e; m++) {
    const values = lists + (m * k << 2), indices = values + half;
    for (let t: usize = 1; t < nth; t++) {
      const from = values + t * (half << 1);
      if (load<f32>(from) != load<f32>(from)) store<f32>(values, NaN);
      for (let o: usize = 0; o <= last && load<i32>(from + half + o) >= 0; o += 4) insert_by_index(values, indices, last, load<f32>(from + o), load<i32>(from + half + o));
    }
  }
}

/** As `insert`, but that equal values are sorted by index. */
function insert_by_index(values: usize, indices: usize, last: usize, v: f32, index: i32): void {
  let o = last + 4;
  for (; o > 0; o -= 4) {
    const u = load<f32>(values + o - 4);
    if (!(u < v || u == v && (load<i32>(indices + o - 4) < 0 || load<i32>(indices + o - 4) > index))) break;
    if (o > last) continue;
    store<f32>(values + o, u);
    store<i32>(indices + o, load<i32>(indices + o - 4));
  }
  if (o > last) return;
  store<f32>(values + o, v);
  store<i32>(indices + o, index);
}
