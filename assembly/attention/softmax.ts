// One step of the online softmax over a page's scores, and how two parts of a row are put together.
import { exp_f32x4, sum_f32x4 } from "../lib/math";
import { CONST, CONST_ABS, CONST_ROUND } from "../lib/simd";
import { factor_for, scale_for } from "./page";
import { STATE_ALPHA, STATE_SCALE, STATE_SUM } from "./panel";

const LANES: usize = memory.data<u32>([0, 1, 2, 3], 16);

/** Probabilities become integers up to this; 32 of them times 127 stay below 2^27. */
const P_TOP: f32 = 32767;

// @ts-ignore: decorator
@inline function lanes_below(n: usize): v128 { return i32x4.lt_u(v128.load(LANES), i32x4.splat(<i32>n)); }

// @ts-ignore: decorator
@inline function swap_halves(v: v128): v128 { return i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7); }
// @ts-ignore: decorator
@inline function swap_pairs(v: v128): v128 { return i8x16.shuffle(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11); }

/**
 * Largest of n scores and of the maximum so far, which advances, in every lane; keys past n, whatever was there, become -Infinity.
 * f32x4.max takes eight instructions where pmax takes one, which loses NaN: that is looked for apart.
 */
// @ts-ignore: decorator
@inline function advance(s: usize, st: usize, n: usize): v128 {
  const rest = n & 3;
  if (rest) {
    const p = s + ((n - rest) << 2);
    v128.store(p, v128.bitselect(v128.load(p), f32x4.splat(-Infinity), lanes_below(rest)));
  }
  const before = v128.load32_splat(st);
  let top = before, ordered = f32x4.eq(top, top);
  for (const e = s + (n << 2); s < e; s += 16) {
    const v = v128.load(s);
    top = f32x4.pmax(top, v);
    ordered = v128.and(ordered, f32x4.eq(v, v));
  }
  top = f32x4.pmax(top, swap_halves(top));
  top = f32x4.pmax(top, swap_pairs(top));
  if (!i32x4.all_true(ordered)) top = f32x4.splat(NaN);
  v128.store32_lane(st, top, 0);
  v128.store32_lane(st, exp_f32x4(f32x4.sub(before, top)), 0, STATE_ALPHA); // 0 at the first page: e^-Infinity
  return top;
}

// @ts-ignore: decorator
@inline function add_sum(st: usize, sum: v128): void {
  store<f32>(st, load<f32>(st, STATE_SUM) * load<f32>(st, STATE_ALPHA) + sum_f32x4(sum), STATE_SUM);
}

/** n scores become e^(s - max) · up. */
export function softmax_f32(s: usize, st: usize, n: usize, up: f32): void {
  const mv = advance(s, st, n), uv = f32x4.splat(up);
  let sum = f32x4.splat(0);
  for (const e = s + (n << 2); s < e; s += 16) {
    const v = exp_f32x4(f32x4.sub(v128.load(s), mv));
    v128.store(s, f32x4.mul(v, uv));
    sum = f32x4.add(sum, v);
  }
  add_sum(st, sum);
}

/** n scores become i16: e^(s - max) times the key's scale of V, in units of the state's scale; 0 up to the next multiple of 4. */
export function softmax_q8(s: usize, st: usize, n: usize, scales: usize): void {
  const mv = advance(s, st, n), abs = v128.load(CONST + CONST_ABS), full = n >> 2 << 4;
  let sum = f32x4.splat(0), top = f32x4.splat(0);
  for (let i: usize = 0; i < full; i += 16) {
    const v = exp_f32x4(f32x4.sub(v128.load(s + i), mv)), w = f32x4.mul(v, v128.load(scales + i));
    v128.store(s + i, w);
    sum = f32x4.add(sum, v);
    top = i32x4.max_s(top, v128.and(w, abs)); // of bits: NaN is the largest
  }
  if (n & 3) { // scales of keys past n may be anything
    const v = exp_f32x4(f32x4.sub(v128.load(s + full), mv)), w = f32x4.mul(v, v128.and(v128.load(scales + full), lanes_below(n & 3)));
    v128.store(s + full, w);
    sum = f32x4.add(sum, v);
    top = i32x4.max_s(top, v128.and(w, abs)); // of bits: NaN is the largest
  }
  add_sum(st, sum);
  top = i32x4.max_s(top, swap_halves(top));
  const most = f32x4.extract_lane(i32x4.max_s(top, swap_pairs(top)), 0), r = f32x4.splat(factor_for(most, P_TOP)), magic = v128.load(CONST + CONST_ROUND);
  store<f32>(st, scale_for(most, P_TOP), STATE_SCALE);
  for (let o = s, e = s + (n << 2); s < e; s += 16, o += 8) {
    const i = i32x4.sub(f32x4.add(f32x4.mul(v128.load(s), r), magic), magic);
    v128.store64_lane(o, i16x8.narrow_i32x4_s(i, i), 0);
  }
}

/** (total, out) += (part, o): (maximum, sum) pairs and rows of `bytes` of values relative to the maximum. */
export function combine(out: usize, total: usize, o: usize, part: usize, bytes: usize): void {
  const M = load<f32>(total), m = load<f32>(part), most = max<f32>(M, m);
  const a = exp_f32x4(f32x4.splat(M - most)), b = exp_f32x4(f32x4.splat(m - most));
  store<f32>(total, most);
  store<f32>(total, load<f32>(total, 4) * f32x4.extract_lane(a, 0) + load<f32>(part, 4) * f32x4.extract_lane(b, 0), 4);
  for (let i: usize = 0; i < bytes; i += 16) v128.store(out + i, f32x4.add(f32x4.mul(v128.load(out + i), a), f32x4.mul(v128.load(o + i), b)));
}
