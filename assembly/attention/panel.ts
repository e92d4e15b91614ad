// The two products of attention, q·Kᵀ and p·V: rows of a over columns of b, one chain of sums a value, so that tiles never change a bit.
// a: rows of f32, or (q8) of i16 read in pairs · b: panels of 16 columns, their rows f32, f16 (widened here), or (q8) two of int8 interleaved.
// T: element of the cache, f32, u16 (f16) or i8 (q8): a type argument, for the compiler does not fold constant arguments of inlined functions, but sizeof<T>.
// f16 is widened without its factor 2^112 (three instructions instead of four): q and p carry it.
import { CONST, CONST_F16_MASK } from "../lib/simd";

/** State of a row's head: maximum and sum in this segment, what earlier values are multiplied by, (q8) scale of p's integers; maximum and sum of the segments before, (q8) scale of q's. */
export const STATE_BYTES: usize = 32;
export const STATE_SUM: usize = 4;
export const STATE_ALPHA: usize = 8;
export const STATE_SCALE: usize = 12;
export const STATE_TOTAL: usize = 16;
export const STATE_QUERY: usize = 24;

/** 2^13 for the low half of a word, 0 for the high one: their product's sum is the low half at bit 13, by one instruction where shifts take two. */
const LOW13: usize = memory.data<u32>([0x2000, 0x2000, 0x2000, 0x2000], 16);
// @ts-ignore: decorator
@inline function low_half(w: v128, low: v128, mask: v128): v128 { return v128.and(i32x4.dot_i16x8_s(w, low), mask); }
// @ts-ignore: decorator
@inline function high_half(w: v128, mask: v128): v128 { return v128.and(i32x4.shr_s(w, 3), mask); }

/** n values (n % 16 == 0) of f16 panels to f32 · 2^-112. */
export function widen(out: usize, p: usize, n: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), low = v128.load(LOW13);
  for (const e = p + (n << 1); p < e; p += 32, out += 64) {
    let w = v128.load(p);
    v128.store(out, low_half(w, low, mask));
    v128.store(out, high_half(w, mask), 16);
    w = v128.load(p, 16);
    v128.store(out, low_half(w, low, mask), 32);
    v128.store(out, high_half(w, mask), 48);
  }
}

// Columns 0.., 4.., 8.. and 12.. of a row of b: loads (f16: eight at a time, so that the odd ones take what is there), then what they hold.
// @ts-ignore: decorator
@inline function load0<T>(b: usize): v128 { return sizeof<T>() == 1 ? v128.load8x8_s(b) : v128.load(b); }
// @ts-ignore: decorator
@inline function load1<T>(b: usize, w: v128): v128 { return sizeof<T>() == 1 ? v128.load8x8_s(b, 8) : sizeof<T>() == 2 ? w : v128.load(b, 16); }
// @ts-ignore: decorator
@inline function load2<T>(b: usize): v128 { return sizeof<T>() == 1 ? v128.load8x8_s(b, 16) : sizeof<T>() == 2 ? v128.load(b, 16) : v128.load(b, 32); }
// @ts-ignore: decorator
@inline function load3<T>(b: usize, w: v128): v128 { return sizeof<T>() == 1 ? v128.load8x8_s(b, 24) : sizeof<T>() == 2 ? w : v128.load(b, 48); }
/** What only f16 needs. */
// @ts-ignore: decorator
@inline function constant<T>(p: usize): v128 { return sizeof<T>() == 2 ? v128.load(p) : f32x4.splat(0); }
// @ts-ignore: decorator
@inline function even<T>(w: v128, low: v128, mask: v128): v128 { return sizeof<T>() == 2 ? low_half(w, low, mask) : w; }
// @ts-ignore: decorator
@inline function odd<T>(w: v128, mask: v128): v128 { return sizeof<T>() == 2 ? high_half(w, mask) : w; }
// @ts-ignore: decorator
@inline function step<T>(acc: v128, x: v128, w: v128): v128 {
  return sizeof<T>() == 1 ? i32x4.add(acc, i32x4.dot_i16x8_s(x, w)) : f32x4.add(acc, f32x4.mul(x, w));
}

/** The two products, as type arguments. */
type Scores = i32;
type Values = i64;
// @ts-ignore: decorator
@inline function isValues<P>(): bool { return sizeof<P>() == 8; }

/** Where a sum starts: at zero, or (values in floats) at what the row has so far. */
// @ts-ignore: decorator
@inline function start<T, P>(o: usize, alpha: v128): v128 {
  return isValues<P>() && sizeof<T>() != 1 ? f32x4.mul(v128.load(o), alpha) : f32x4.splat(0);
}

/** Where it goes. scale: of the row's integers (q8), of the scores (floats). */
// @ts-ignore: decorator
@inline function finish<T, P>(o: usize, acc: v128, alpha: v128, scale: v128, columnScale: usize): void {
  if (sizeof<T>() == 1) {
    const f = f32x4.convert_i32x4_s(acc);
    if (isValues<P>()) v128.store(o, f32x4.add(f32x4.mul(v128.load(o), alpha), f32x4.mul(f, scale)));
    else v128.store(o, f32x4.mul(f, f32x4.mul(scale, v128.load(columnScale))));
  } else {
    v128.store(o, isValues<P>() ? acc : f32x4.mul(acc, scale));
  }
}

// @ts-ignore: decorator
@inline function tile__2x4<T, P>(
  out: usize, outRow: usize, a: usize, aRow: usize, b: usize, steps: usize, st: usize, scales: usize, up: f32,
): void {
  const o = out + outRow, mask = constant<T>(CONST + CONST_F16_MASK), low = constant<T>(LOW13);
  const own = isValues<P>() ? STATE_SCALE : STATE_QUERY;
  const alpha0 = v128.load32_splat(st, STATE_ALPHA), alpha1 = v128.load32_splat(st, STATE_BYTES + STATE_ALPHA);
  let a0 = start<T, P>(out, alpha0), a1 = start<T, P>(out + 16, alpha0);
  let a2 = start<T, P>(out + 32, alpha0), a3 = start<T, P>(out + 48, alpha0);
  let b0 = start<T, P>(o, alpha1), b1 = start<T, P>(o + 16, alpha1);
  let b2 = start<T, P>(o + 32, alpha1), b3 = start<T, P>(o + 48, alpha1);
  const bRow: usize = sizeof<T>() == 4 ? 64 : 32;
  let r = a + aRow, x = a0, y = a0, w = a0, v = a0;
  for (const e = a + (steps >> 1 << 3); a < e; a += 8, r += 8, b += bRow << 1) {
    x = v128.load32_splat(a), y = v128.load32_splat(r);
    w = load0<T>(b); v = even<T>(w, low, mask); a0 = step<T>(a0, x, v); b0 = step<T>(b0, y, v);
    w = load1<T>(b, w); v = odd<T>(w, mask); a1 = step<T>(a1, x, v); b1 = step<T>(b1, y, v);
    w = load2<T>(b); v = even<T>(w, low, mask); a2 = step<T>(a2, x, v); b2 = step<T>(b2, y, v);
    w = load3<T>(b, w); v = odd<T>(w, mask); a3 = step<T>(a3, x, v); b3 = step<T>(b3, y, v);
    x = v128.load32_splat(a, 4), y = v128.load32_splat(r, 4);
    w = load0<T>(b + bRow); v = even<T>(w, low, mask); a0 = step<T>(a0, x, v); b0 = step<T>(b0, y, v);
    w = load1<T>(b + bRow, w); v = odd<T>(w, mask); a1 = step<T>(a1, x, v); b1 = step<T>(b1, y, v);
    w = load2<T>(b + bRow); v = even<T>(w, low, mask); a2 = step<T>(a2, x, v); b2 = step<T>(b2, y, v);
    w = load3<T>(b + bRow, w); v = odd<T>(w, mask); a3 = step<T>(a3, x, v); b3 = step<T>(b3, y, v);
  }
  if (steps & 1) {
    x = v128.load32_splat(a), y = v128.load32_splat(r);
    w = load0<T>(b); v = even<T>(w, low, mask); a0 = step<T>(a0, x, v); b0 = step<T>(b0, y, v);
    w = load1<T>(b, w); v = odd<T>(w, mask); a1 = step<T>(a1, x, v); b1 = step<T>(b1, y, v);
    w = load2<T>(b); v = even<T>(w, low, mask); a2 = step<T>(a2, x, v); b2 = step<T>(b2, y, v);
    w = load3<T>(b, w); v = odd<T>(w, mask); a3 = step<T>(a3, x, v); b3 = step<T>(b3, y, v);
  }
  const s0 = sizeof<T>() == 1 ? v128.load32_splat(st + own) : f32x4.splat(up);
  finish<T, P>(out, a0, alpha0, s0, scales); finish<T, P>(out + 16, a1, alpha0, s0, scales + 16);
  finish<T, P>(out + 32, a2, alpha0, s0, scales + 32); finish<T, P>(out + 48, a3, alpha0, s0, scales + 48);
  const s1 = sizeof<T>() == 1 ? v128.load32_splat(st + STATE_BYTES + own) : s0;
  finish<T, P>(o, b0, alpha1, s1, scales); finish<T, P>(o + 16, b1, alpha1, s1, scales + 16);
  finish<T, P>(o + 32, b2, alpha1, s1, scales + 32); finish<T, P>(o + 48, b3, alpha1, s1, scales + 48);
}

// @ts-ignore: decorator
@inline function tile__1x4<T, P>(
  out: usize, a: usize, b: usize, steps: usize, st: usize, scales: usize, up: f32,
): void {
  const mask = constant<T>(CONST + CONST_F16_MASK), low = constant<T>(LOW13), alpha = v128.load32_splat(st, STATE_ALPHA);
  const own = isValues<P>() ? STATE_SCALE : STATE_QUERY;
  let a0 = start<T, P>(out, alpha), a1 = start<T, P>(out + 16, alpha);
  let a2 = start<T, P>(out + 32, alpha), a3 = start<T, P>(out + 48, alpha);
  const bRow: usize = sizeof<T>() == 4 ? 64 : 32;
  let w = a0;
  for (const e = a + (steps << 2); a < e; a += 4, b += bRow) {
    const x = v128.load32_splat(a);
    w = load0<T>(b); a0 = step<T>(a0, x, even<T>(w, low, mask));
    w = load1<T>(b, w); a1 = step<T>(a1, x, odd<T>(w, mask));
    w = load2<T>(b); a2 = step<T>(a2, x, even<T>(w, low, mask));
    w = load3<T>(b, w); a3 = step<T>(a3, x, odd<T>(w, mask));
  }
  const s = sizeof<T>() == 1 ? v128.load32_splat(st + own) : f32x4.splat(up);
  finish<T, P>(out, a0, alpha, s, scales); finish<T, P>(out + 16, a1, alpha, s, scales + 16);
  finish<T, P>(out + 32, a2, alpha, s, scales + 32); finish<T, P>(out + 48, a3, alpha, s, scales + 48);
}

/** count rows of a over `columns` columns of b, 16 at a time. */
// @ts-ignore: decorator
@inline function panel<T, P>(
  out: usize, outRow: usize, a: usize, aRow: usize, b: usize, bPanel: usize, steps: usize, columns: usize, count: usize,
  st: usize, scales: usize, up: f32,
): void {
  for (; count >= 2; count -= 2, out += outRow << 1, a += aRow << 1, st += STATE_BYTES << 1) {
    for (let c: usize = 0; c < columns; c += 16) {
      tile__2x4<T, P>(out + (c << 2), outRow, a, aRow, b + (c >> 4) * bPanel, steps, st, scales + (c << 2), up);
    }
  }
  if (count) {
    for (let c: usize = 0; c < columns; c += 16) {
      tile__1x4<T, P>(out + (c << 2), a, b + (c >> 4) * bPanel, steps, st, scales + (c << 2), up);
    }
  }
}

/** Scores of count rows of q (of f32, or i16) against n keys (rounded up to 16: the surplus is computed from stale bytes, softmax masks it); 128 bytes a row. */
export function scores<T>(s: usize, q: usize, K: usize, scales: usize, n: usize, hd: usize, count: usize, st: usize, up: f32): void {
  const steps = sizeof<T>() == 1 ? hd >> 1 : hd;
  panel<T, Scores>(s, 128, q, steps << 2, K, hd * 16 * sizeof<T>(), steps, n, count, st, scales, up);
}

/** o = o · alpha + p · V: count rows of p, 128 bytes apart, over n keys; rows of hd floats. */
export function values<T>(o: usize, s: usize, V: usize, n: usize, hd: usize, count: usize, st: usize): void {
  panel<T, Values>(o, hd << 2, s, 128, V, 512 * sizeof<T>(), sizeof<T>() == 1 ? (n + 1) >> 1 : n, hd, count, st, 0, 1);
}
