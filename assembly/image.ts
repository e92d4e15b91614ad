// What the packed image needs: a checksum of what was read, and how this engine reads int8 (README.md: the byte of q8 depends on its dot).
import { Q8_FLIP } from "./lib/blocks";

const PRIME_1: u32 = 2654435761;
const PRIME_2: u32 = 2246822519;

/** One step of a chain: multiply-add, rotate, multiply, all of which can be undone: a changed word always changes the chain's end. */
// @ts-ignore: decorator
@inline function mixed(state: v128, data: v128): v128 {
  const s = i32x4.add(state, i32x4.mul(data, i32x4.splat(PRIME_2)));
  return i32x4.mul(v128.or(i32x4.shl(s, 13), i32x4.shr_u(s, 19)), i32x4.splat(PRIME_1));
}

/**
 * Continues a checksum: sixteen chains of 32 bits, word i of each 64 bytes into chain i mod 16
 * state (16) u32, updated · p: bytes to add, a multiple of 16
 * cost:  reads each byte once, far faster than a disk
 */
export function checksum(state: usize, p: usize, bytes: usize): void {
  let a = v128.load(state), b = v128.load(state, 16), c = v128.load(state, 32), d = v128.load(state, 48);
  const e = p + (bytes & ~63), rest = bytes & 63;
  for (; p < e; p += 64) {
    a = mixed(a, v128.load(p)); b = mixed(b, v128.load(p, 16)); c = mixed(c, v128.load(p, 32)); d = mixed(d, v128.load(p, 48));
  }
  if (rest > 0) a = mixed(a, v128.load(p));
  if (rest > 16) b = mixed(b, v128.load(p, 16));
  if (rest > 32) c = mixed(c, v128.load(p, 32));
  v128.store(state, a); v128.store(state, b, 16); v128.store(state, c, 32); v128.store(state, d, 48);
}

/** What this build, on this engine, adds to int8 weights (exclusive or): 0, or 128 where its dot reads unsigned bytes. */
export function q8_flip(): i32 { return Q8_FLIP; }
