// Ceilings of the machine as WebAssembly sees them, for benchmarks only: a module of its own, in both builds, never part of the kernels.

// @ts-ignore: decorator
@inline function line(a: v128, p: usize): v128 {
  return i32x4.add(a, i32x4.add(i32x4.add(v128.load(p), v128.load(p, 16)), i32x4.add(v128.load(p, 32), v128.load(p, 48))));
}

/** Reads bytes (a multiple of 256) at p, from first to last. Returns a checksum, so that nothing is left out. */
export function read(p: usize, bytes: usize): i32 {
  let a = i32x4.splat(0), b = a, c = a, d = a;
  for (const end = p + bytes; p < end; p += 256) { a = line(a, p); b = line(b, p + 64); c = line(c, p + 128); d = line(d, p + 192); }
  return lanes(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)));
}

/** The same as four runs, one behind the other, that are read at the same time: from memory faster, since page walks and prefetches overlap. */
export function read_runs(p: usize, bytes: usize): i32 {
  let a = i32x4.splat(0), b = a, c = a, d = a;
  const run = bytes >> 2;
  for (const end = p + run; p < end; p += 64) { a = line(a, p); b = line(b, p + run); c = line(c, p + 2 * run); d = line(d, p + 3 * run); }
  return lanes(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)));
}

/** Multiply-adds of one `dot` step. */
export function dot_macs(): i32 { return ASC_FEATURE_RELAXED_SIMD ? 16 * 12 : 8 * 12; }

/** n times twelve integer dots (the best that the build has) with the 32 bytes at p, on accumulators of their own. Returns the sum of all lanes. */
export function dot(p: usize, n: i32): i32 {
  const x = v128.load(p), w = v128.load(p, 16);
  let a = i32x4.add(x, w), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  for (; n > 0; n--) {
    a = step(x, w, a); b = step(x, w, b); c = step(x, w, c); d = step(x, w, d); e = step(x, w, e); f = step(x, w, f);
    g = step(x, w, g); h = step(x, w, h); i = step(x, w, i); j = step(x, w, j); k = step(x, w, k); l = step(x, w, l);
  }
  a = i32x4.add(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)), i32x4.add(i32x4.add(e, f), i32x4.add(g, h)));
  return lanes(i32x4.add(a, i32x4.add(i32x4.add(i, j), i32x4.add(k, l))));
}

/** The same with sums of pairs in 16 bits, which some engines do faster; relaxed build only. */
export function dot_pairs(p: usize, n: i32): i32 {
  const w = v128.load(p, 16);
  let a = v128.load(p), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  for (; n > 0; n--) {
    a = pairs(w, a); b = pairs(w, b); c = pairs(w, c); d = pairs(w, d); e = pairs(w, e); f = pairs(w, f);
    g = pairs(w, g); h = pairs(w, h); i = pairs(w, i); j = pairs(w, j); k = pairs(w, k); l = pairs(w, l);
  }
  a = i16x8.add(i16x8.add(i16x8.add(a, b), i16x8.add(c, d)), i16x8.add(i16x8.add(e, f), i16x8.add(g, h)));
  return lanes(i16x8.add(a, i16x8.add(i16x8.add(i, j), i16x8.add(k, l))));
}

/** Multiply-adds of one `muladd` step. */
export function muladd_macs(): i32 { return 4 * 12; }

/** n times twelve: accumulator = accumulator · x + w in f32, rounded twice as in every kernel; x and w are the 32 bytes at p. Returns the first lanes' sum. */
export function muladd(p: usize, n: i32): f32 {
  const x = v128.load(p), w = v128.load(p, 16);
  let a = f32x4.splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  for (; n > 0; n--) {
    a = mad(a, x, w); b = mad(b, x, w); c = mad(c, x, w); d = mad(d, x, w); e = mad(e, x, w); f = mad(f, x, w);
    g = mad(g, x, w); h = mad(h, x, w); i = mad(i, x, w); j = mad(j, x, w); k = mad(k, x, w); l = mad(l, x, w);
  }
  a = f32x4.add(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), f32x4.add(f32x4.add(e, f), f32x4.add(g, h)));
  return f32x4.extract_lane(f32x4.add(a, f32x4.add(f32x4.add(i, j), f32x4.add(k, l))), 0);
}

// @ts-ignore: decorator
@inline function step(x: v128, w: v128, acc: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, acc);
  return i32x4.add(acc, i32x4.dot_i16x8_s(acc, w)); // acc: a product of two constants would leave the loop
}

// @ts-ignore: decorator
@inline function pairs(w: v128, acc: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.add(acc, i16x8.relaxed_dot_i8x16_i7x16_s(acc, w));
  return acc;
}

// @ts-ignore: decorator
@inline function mad(acc: v128, x: v128, w: v128): v128 { return f32x4.add(f32x4.mul(acc, x), w); }

function lanes(a: v128): i32 {
  return i32x4.extract_lane(a, 0) + i32x4.extract_lane(a, 1) + i32x4.extract_lane(a, 2) + i32x4.extract_lane(a, 3);
}
