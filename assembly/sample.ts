// Over the logits: the largest, the k largest, unnormalised probabilities. Any N: what lies behind it (padding columns) is never read.
import { exp_f32x4 } from "./lib/math";

// @ts-ignore: decorator
@inline function max4(v: v128): f32 {
  return max<f32>(max<f32>(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)), max<f32>(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)));
}

/** The largest of n values; NaN never wins: pmax(top, NaN) is top. -Infinity when there is nothing else. */
export function largest(x: usize, n: usize): f32 {
  let a = f32x4.splat(-Infinity), b = a, c = a, d = a;
  for (; n >= 16; n -= 16, x += 64) {
    a = f32x4.pmax(a, v128.load(x)); b = f32x4.pmax(b, v128.load(x, 16)); c = f32x4.pmax(c, v128.load(x, 32)); d = f32x4.pmax(d, v128.load(x, 48));
  }
  let m = max4(f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d)));
  for (; n > 0; n--, x += 4) { const v = load<f32>(x); if (v > m) m = v; }
  return m;
}

/** Index of the largest of n values; the lowest index wins a tie; NaN never wins; 0 when there are only NaN. */
export function argmax_f32(x: usize, n: usize): i32 {
  const m = largest(x, n), mv = f32x4.splat(m);
  let i: usize = 0;
  for (; i + 4 <= n; i += 4) {
    const mask = i32x4.bitmask(f32x4.eq(v128.load(x + (i << 2)), mv));
    if (mask) return <i32>i + ctz(mask);
  }
  for (; i < n; i++) if (load<f32>(x + (i << 2)) == m) return <i32>i;
  return 0;
}

/** Puts (v, index) into its place among the k pairs, which are sorted; the last falls out. Equal values stay before it. */
export function insert(values: usize, indices: usize, last: usize, v: f32, index: i32): void {
  let o = last;
  for (; o > 0 && load<f32>(values + o - 4) < v; o -= 4) {
    store<f32>(values + o, load<f32>(values + o - 4));
    store<i32>(indices + o, load<i32>(indices + o - 4));
  }
  store<f32>(values + o, v);
  store<i32>(indices + o, index);
}

/** The places that no value above -Infinity has taken get the remaining indices in ascending order. */
function fill_rest(indices: usize, x: usize, n: usize, k: usize): void {
  let o: usize = 0;
  while (o < k && load<i32>(indices + (o << 2)) >= 0) o++;
  for (let i: usize = 0; o < k && i < n; i++) if (!(load<f32>(x + (i << 2)) > -Infinity)) store<i32>(indices + (o++ << 2), <i32>i);
}

/**
 * The k largest of n values, largest first, ties by index. -Infinity and NaN come last, by index, both with value -Infinity.
 * values (k) f32 · indices (k) i32 · x (n) f32
 * needs: 0 < k ≤ n
 * cost:  reads x once; each value among the k largest so far moves at most k pairs
 */
export function topk_f32(values: usize, indices: usize, x: usize, n: usize, k: usize): void {
  assert(k > 0 && k <= n);
  const last = (k - 1) << 2;
  for (let i: usize = 0; i <= last; i += 4) store<f32>(values + i, -Infinity), store<i32>(indices + i, -1);
  let bar = f32x4.splat(-Infinity), i: usize = 0;
  for (; i + 16 <= n; i += 16) {
    const p = x + (i << 2), low = v128.or(f32x4.gt(v128.load(p), bar), f32x4.gt(v128.load(p, 16), bar));
    if (!v128.any_true(v128.or(low, v128.or(f32x4.gt(v128.load(p, 32), bar), f32x4.gt(v128.load(p, 48), bar))))) continue;
    for (let j = i; j < i + 16; j++) {
      const v = load<f32>(x + (j << 2));
      if (v > load<f32>(values + last)) insert(values, indices, last, v, <i32>j);
    }
    bar = v128.load32_splat(values + last);
  }
  for (; i < n; i++) {
    const v = load<f32>(x + (i << 2));
    if (v > load<f32>(values + last)) insert(values, indices, last, v, <i32>i);
  }
  if (load<i32>(indices + last) < 0) fill_rest(indices, x, n, k);
}

/**
 * p = e^(x - max x), not normalised; returns Σp, added in f64 in one fixed order
 * p (n) f32, may be x · x (n) f32; -Infinity and NaN give 0; the sum is 0 when nothing is above -Infinity
 * cost: reads x twice; exp has an error below 2 ulp
 */
export function softmax_f32(p: usize, x: usize, n: usize): f64 {
  const m = f32x4.splat(largest(x, n));
  let a = f64x2.splat(0), b = a;
  for (; n >= 4; n -= 4, x += 16, p += 16) {
    const e = exp_f32x4(f32x4.sub(v128.load(x), m));
    v128.store(p, e);
    a = f64x2.add(a, f64x2.promote_low_f32x4(e));
    b = f64x2.add(b, f64x2.promote_low_f32x4(i8x16.shuffle(e, e, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)));
  }
  a = f64x2.add(a, b);
  let sum = f64x2.extract_lane(a, 0) + f64x2.extract_lane(a, 1);
  for (; n > 0; n--, x += 4, p += 4) {
    const e = f32x4.extract_lane(exp_f32x4(f32x4.sub(v128.load32_splat(x), m)), 0);
    store<f32>(p, e);
    sum += e;
  }
  return sum;
}

/** 1 unless NaN or +Infinity occurs among the n values (-Infinity is a masked logit). */
export function all_finite_f32(x: usize, n: usize): i32 {
  const limit = f32x4.splat(Infinity);
  let ok = f32x4.eq(limit, limit);
  for (; n >= 4; n -= 4, x += 16) ok = v128.and(ok, f32x4.lt(v128.load(x), limit));
  let fine = i32x4.all_true(ok);
  for (; n > 0; n--, x += 4) fine = fine && load<f32>(x) < Infinity;
  return fine;
}
