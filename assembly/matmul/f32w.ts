// f32 weights, f32 activations: y = x · Wᵀ.
// Layout of w: for each group of 8 rows, for each k: 8 floats, one a row.
// Even and odd k have a sum each (one chain of additions would be bound by latency); the two are added at the end: one order for every tile.
// The tile of several rows is 3x4 and not 2x8: six sums, six x and a weight fit V8's 15 registers even where it loads all operands of a loop first
// (Node 20: 16 GMAC/s against 9; Node 24: 18 against 20).
import { F32W_BYTES } from "../lib/blocks";

/** Consecutive groups of w against one row of x. */
function tile__1x8(y: usize, x: usize, w: usize, blocks: usize, groups: usize): void {
  const xe = x + (blocks << 7);
  for (; groups > 0; groups--, y += 32) {
    let e0 = f32x4.splat(0), e1 = e0, o0 = e0, o1 = e0;
    for (let xp = x; xp < xe; xp += 8, w += 64) {
      let v = v128.load32_splat(xp); e0 = f32x4.add(e0, f32x4.mul(v, v128.load(w))); e1 = f32x4.add(e1, f32x4.mul(v, v128.load(w, 16)));
      v = v128.load32_splat(xp, 4); o0 = f32x4.add(o0, f32x4.mul(v, v128.load(w, 32))); o1 = f32x4.add(o1, f32x4.mul(v, v128.load(w, 48)));
    }
    v128.store(y, f32x4.add(e0, o0)); v128.store(y, f32x4.add(e1, o1), 16);
  }
}

/** One group of w, half of it after the other, against three rows of x; a row gets the same bits as from the 1x8 tile. */
function tile__3x4(y: usize, yRow: usize, x: usize, xRow: usize, w: usize, blocks: usize): void {
  for (let half: usize = 0; half < 2; half++, y += 16) {
    let e0 = f32x4.splat(0), e1 = e0, e2 = e0, o0 = e0, o1 = e0, o2 = e0, wp = w + (half << 4), x0 = x, x1 = x0 + xRow, x2 = x1 + xRow;
    for (const xe = x + (blocks << 7); x0 < xe; x0 += 8, x1 += 8, x2 += 8, wp += 64) {
      let a = v128.load(wp);
      e0 = f32x4.add(e0, f32x4.mul(v128.load32_splat(x0), a)); e1 = f32x4.add(e1, f32x4.mul(v128.load32_splat(x1), a));
      e2 = f32x4.add(e2, f32x4.mul(v128.load32_splat(x2), a));
      a = v128.load(wp, 32);
      o0 = f32x4.add(o0, f32x4.mul(v128.load32_splat(x0, 4), a)); o1 = f32x4.add(o1, f32x4.mul(v128.load32_splat(x1, 4), a));
      o2 = f32x4.add(o2, f32x4.mul(v128.load32_splat(x2, 4), a));
    }
    v128.store(y, f32x4.add(e0, o0)); v128.store(y + yRow, f32x4.add(e1, o1)); v128.store(y + 2 * yRow, f32x4.add(e2, o2));
  }
}

/**
 * y = x · Wᵀ
 * y (M, 8·groups) f32, rows yRow bytes apart · x (M, 32·blocks) f32, rows xRow bytes apart · w (8·groups, 32·blocks) f32w
 * needs: 16-byte alignment of y and w; reads nothing past the end
 * cost:  streams N·K·4 bytes of w once a call from memory, once per 3 rows of x from cache
 */
export function matmul_f32_f32w(y: usize, yRow: usize, x: usize, xRow: usize, w: usize, M: usize, blocks: usize, groups: usize): void {
  if (M == 1) return tile__1x8(y, x, w, blocks, groups);
  const group = blocks * F32W_BYTES;
  for (; groups > 0; groups--, w += group, y += 32) { // the group stays in cache while x passes
    let m = M, xp = x, yp = y;
    for (; m >= 3; m -= 3, xp += 3 * xRow, yp += 3 * yRow) tile__3x4(yp, yRow, xp, xRow, w, blocks);
    for (; m > 0; m--, xp += xRow, yp += yRow) tile__1x8(yp, xp, w, blocks, 1);
  }
}
