// f16 weights, f32 activations: y = x · Wᵀ, for weights kept as they are published.
// Layout of w: for each group of 8 rows, for each pair of k: 8 words of 32 bits, one a row, low half the even k, high half the odd k.
// Even and odd k have a sum each (one chain of additions would be bound by latency); the two are added at the end: one order for every tile.
// The tile of several rows is 3x4 and not 2x8: six sums, six x and a weight fit V8's 15 registers even where it loads all operands of a loop first
// (Node 20: 16 GMAC/s against 9; Node 24: 18 against 20).
import { F16W_BYTES } from "../lib/blocks";
import { CONST, CONST_F16_MASK, CONST_F16_SCALE } from "../lib/simd";

// A half is widened exactly: shifted right by three its exponent stands where f32 has its own (its sign is copied on the way), a mask drops what is
// not its own, and 2^112 mends the bias, subnormals included (the packer reports weights that are not finite).
// @ts-ignore: decorator
@inline function even(w: v128, mask: v128, up: v128): v128 { return f32x4.mul(v128.and(i32x4.shr_s(i32x4.shl(w, 16), 3), mask), up); }
// @ts-ignore: decorator
@inline function odd(w: v128, mask: v128, up: v128): v128 { return f32x4.mul(v128.and(i32x4.shr_s(w, 3), mask), up); }

/** Consecutive groups of w against one row of x. */
function tile__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  const xe = x + (blocks << 7);
  for (; groups > 0; groups--, y += 32) {
    let e0 = f32x4.splat(0), e1 = e0, o0 = e0, o1 = e0;
    for (let xp = x; xp < xe; xp += 16, w += 64) {
      let w0 = v128.load(w), w1 = v128.load(w, 16), v = v128.load32_splat(xp), u = v128.load32_splat(xp, 4);
      e0 = f32x4.add(e0, f32x4.mul(v, even(w0, mask, up))); o0 = f32x4.add(o0, f32x4.mul(u, odd(w0, mask, up)));
      e1 = f32x4.add(e1, f32x4.mul(v, even(w1, mask, up))); o1 = f32x4.add(o1, f32x4.mul(u, odd(w1, mask, up)));
      w0 = v128.load(w, 32); w1 = v128.load(w, 48); v = v128.load32_splat(xp, 8); u = v128.load32_splat(xp, 12);
      e0 = f32x4.add(e0, f32x4.mul(v, even(w0, mask, up))); o0 = f32x4.add(o0, f32x4.mul(u, odd(w0, mask, up)));
      e1 = f32x4.add(e1, f32x4.mul(v, even(w1, mask, up))); o1 = f32x4.add(o1, f32x4.mul(u, odd(w1, mask, up)));
    }
    v128.store(y, f32x4.add(e0, o0)); v128.store(y, f32x4.add(e1, o1), 16);
  }
}

/** One group of w, half of it after the other, against three rows of x; a row gets the same bits as from the 1x8 tile. */
function tile__3x4(y: usize, yRow: usize, x: usize, xRow: usize, w: usize, blocks: usize): void {
  const mask = v128.load(CONST + CONST_F16_MASK), up = v128.load(CONST + CONST_F16_SCALE);
  for (let half: usize = 0; half < 2; half++, y += 16) {
    let e0 = f32x4.splat(0), e1 = e0, e2 = e0, o0 = e0, o1 = e0, o2 = e0, wp = w + (half << 4), x0 = x, x1 = x0 + xRow, x2 = x1 + xRow;
    for (const xe = x + (blocks << 7); x0 < xe; x0 += 8, x1 += 8, x2 += 8, wp += 32) {
      const v = v128.load(wp);
      let a = even(v, mask, up);
      e0 = f32x4.add(e0, f32x4.mul(v128.load32_splat(x0), a)); e1 = f32x4.add(e1, f32x4.mul(v128.load32_splat(x1), a));
      e2 = f32x4.add(e2, f32x4.mul(v128.load32_splat(x2), a));
      a = odd(v, mask, up);
      o0 = f32x4.add(o0, f32x4.mul(v128.load32_splat(x0, 4), a)); o1 = f32x4.add(o1, f32x4.mul(v128.load32_splat(x1, 4), a));
      o2 = f32x4.add(o2, f32x4.mul(v128.load32_splat(x2, 4), a));
    }
    v128.store(y, f32x4.add(e0, o0)); v128.store(y + yRow, f32x4.add(e1, o1)); v128.store(y + 2 * yRow, f32x4.add(e2, o2));
  }
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) f32, rows xRow bytes apart · w (8·groups, 32·blocks) f16w
 * needs: 16-byte alignment of y and w; reads nothing past the end
 * cost:  streams N·K·2 bytes of w once a call from memory, once per 3 rows of x from cache
 */
export function matmul_f32_f16w(y: usize, yRow: usize, x: usize, xRow: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  if (M == 1) return tile__1x8(y, x, w, blocks, groups);
  const group = blocks * F16W_BYTES;
  for (; groups > 0; groups--, w += group, y += 32) { // the group stays in cache while x passes
    let m = M, xp = x, yp = y;
    for (; m >= 3; m -= 3, xp += 3 * xRow, yp += 3 * yRow) tile__3x4(yp, yRow, xp, xRow, w, blocks);
    for (; m > 0; m--, xp += xRow, yp += yRow) tile__1x8(yp, xp, w, blocks, 1);
  }
}
