// The residual addition, copies, and what the sampler does to each logit.
import { share } from "./lib/threads";

/**
 * y += x
 * y (n) f32 · x (n) f32
 * needs: n % 4 == 0, 16-byte alignment
 * cost:  reads 8, writes 4 bytes a value. Threads share vectors.
 */
export function add_f32(y: usize, x: usize, n: usize, ith: usize, nth: usize): void {
  assert(n % 4 == 0);
  const begin = share(n >> 2, ith, nth), count = share(n >> 2, ith + 1, nth) - begin;
  y += begin << 4; x += begin << 4;
  let i = count;
  for (; i >= 2; i -= 2, y += 32, x += 32) {
    v128.store(y, f32x4.add(v128.load(y), v128.load(x)));
    v128.store(y, f32x4.add(v128.load(y, 16), v128.load(x, 16)), 16);
  }
  if (i) v128.store(y, f32x4.add(v128.load(y), v128.load(x)));
}

/** dst = src, bytes of it; the two do not overlap. Threads share bytes. */
export function copy(dst: usize, src: usize, bytes: usize, ith: usize, nth: usize): void {
  const begin = share(bytes, ith, nth), end = share(bytes, ith + 1, nth);
  memory.copy(dst + begin, src + begin, end - begin);
}

/** x[id] becomes x·penalty where it is negative, x/penalty elsewhere, for each of the n ids (i32), which the caller lists once each. */
export function penalize_f32(x: usize, ids: usize, n: usize, penalty: f32): void {
  for (; n > 0; n--, ids += 4) {
    const p = x + (load<usize>(ids) << 2), v = load<f32>(p);
    store<f32>(p, v < 0 ? v * penalty : v / penalty);
  }
}

/** x (n) f32 /= t; any n. */
export function divide_f32(x: usize, n: usize, t: f32): void {
  const tv = f32x4.splat(t);
  for (; n >= 4; n -= 4, x += 16) v128.store(x, f32x4.div(v128.load(x), tv));
  for (; n > 0; n--, x += 4) store<f32>(x, load<f32>(x) / t);
}
