// SHA-256 and SHA-1 (FIPS 180-4), block by block: the checksums of a hub's files where a runtime has no streaming hash of its own. A module of its own, outside the
// kernels; src/weights/hash.ts drives it. Rounds are written out, sixteen at a time: the words of a block stay in registers, and nothing is shifted from name to name.

/** Fractions of the cube roots of the first 64 primes. */
const K = memory.data<u32>([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
], 16);

/** Where the state lies: eight words, the digest in the end. */
export const STATE: usize = memory.data(32, 16);
/** Bytes of whole blocks for one call. */
export const INPUT_BYTES: i32 = 1 << 14;
/** The 80 words of a block of SHA-1. */
const WORDS: usize = memory.data(320, 16);
export const INPUT: usize = memory.data(1 << 14, 16);

@inline
function sum0(x: u32): u32 {
  return rotr<u32>(x, 2) ^ rotr<u32>(x, 13) ^ rotr<u32>(x, 22);
}

@inline
function sum1(x: u32): u32 {
  return rotr<u32>(x, 6) ^ rotr<u32>(x, 11) ^ rotr<u32>(x, 25);
}

@inline
function rotated(x: v128, by: i32): v128 {
  return v128.or(i32x4.shr_u(x, by), i32x4.shl(x, 32 - by));
}

@inline
function mix0(x: v128): v128 {
  return v128.xor(v128.xor(rotated(x, 7), rotated(x, 18)), i32x4.shr_u(x, 3));
}

@inline
function mix1(x: v128): v128 {
  return v128.xor(v128.xor(rotated(x, 17), rotated(x, 19)), i32x4.shr_u(x, 10));
}

/** Four big-endian words. */
@inline
function words(from: usize): v128 {
  const x = v128.load(from);
  return i8x16.shuffle(x, x, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
}

/** The next four words of the schedule from the last sixteen. */
@inline
function next(w0: v128, w4: v128, w8: v128, w12: v128): v128 {
  const zero = i32x4.splat(0);
  let w = i32x4.add(w0, mix0(i32x4.shuffle(w0, w4, 1, 2, 3, 4)));
  w = i32x4.add(w, i32x4.shuffle(w8, w12, 1, 2, 3, 4));
  w = i32x4.add(w, mix1(i32x4.shuffle(w12, zero, 2, 3, 4, 5))); // of nothing it is nothing
  return i32x4.add(w, mix1(i32x4.shuffle(zero, w, 0, 1, 4, 5)));
}

/** Words and constants of a block, added up. */
@inline
function schedule(from: usize): void {
  let w0 = words(from);
  let w4 = words(from + 16);
  let w8 = words(from + 32);
  let w12 = words(from + 48);
  for (let i: usize = 0; ; i += 64) {
    v128.store(WORDS + i, i32x4.add(w0, v128.load(K + i)));
    v128.store(WORDS + i, i32x4.add(w4, v128.load(K + i, 16)), 16);
    v128.store(WORDS + i, i32x4.add(w8, v128.load(K + i, 32)), 32);
    v128.store(WORDS + i, i32x4.add(w12, v128.load(K + i, 48)), 48);
    if (i == 192) return;
    w0 = next(w0, w4, w8, w12);
    w4 = next(w4, w8, w12, w0);
    w8 = next(w8, w12, w0, w4);
    w12 = next(w12, w0, w4, w8);
  }
}

@inline
function choose(x: u32, y: u32, z: u32): u32 {
  return z ^ (x & (y ^ z));
}

@inline
function majority(x: u32, y: u32, z: u32): u32 {
  return (x & y) | (z & (x | y));
}

/** Takes `blocks` blocks of 64 bytes at `INPUT` into the state. */
export function sha256(blocks: i32): void {
  let a = load<u32>(STATE);
  let b = load<u32>(STATE, 4);
  let c = load<u32>(STATE, 8);
  let d = load<u32>(STATE, 12);
  let e = load<u32>(STATE, 16);
  let f = load<u32>(STATE, 20);
  let g = load<u32>(STATE, 24);
  let h = load<u32>(STATE, 28);
  for (let from = INPUT, end = INPUT + (<usize>blocks << 6); from < end; from += 64) {
    schedule(from);
    for (let at = WORDS, last = WORDS + 256; at < last; at += 32) {
      h += sum1(e) + choose(e, f, g) + load<u32>(at, 0);
      d += h;
      h += sum0(a) + majority(a, b, c);
      g += sum1(d) + choose(d, e, f) + load<u32>(at, 4);
      c += g;
      g += sum0(h) + majority(h, a, b);
      f += sum1(c) + choose(c, d, e) + load<u32>(at, 8);
      b += f;
      f += sum0(g) + majority(g, h, a);
      e += sum1(b) + choose(b, c, d) + load<u32>(at, 12);
      a += e;
      e += sum0(f) + majority(f, g, h);
      d += sum1(a) + choose(a, b, c) + load<u32>(at, 16);
      h += d;
      d += sum0(e) + majority(e, f, g);
      c += sum1(h) + choose(h, a, b) + load<u32>(at, 20);
      g += c;
      c += sum0(d) + majority(d, e, f);
      b += sum1(g) + choose(g, h, a) + load<u32>(at, 24);
      f += b;
      b += sum0(c) + majority(c, d, e);
      a += sum1(f) + choose(f, g, h) + load<u32>(at, 28);
      e += a;
      a += sum0(b) + majority(b, c, d);
    }
    a += load<u32>(STATE);
    b += load<u32>(STATE, 4);
    c += load<u32>(STATE, 8);
    d += load<u32>(STATE, 12);
    e += load<u32>(STATE, 16);
    f += load<u32>(STATE, 20);
    g += load<u32>(STATE, 24);
    h += load<u32>(STATE, 28);
    store<u32>(STATE, a);
    store<u32>(STATE, b, 4);
    store<u32>(STATE, c, 8);
    store<u32>(STATE, d, 12);
    store<u32>(STATE, e, 16);
    store<u32>(STATE, f, 20);
    store<u32>(STATE, g, 24);
    store<u32>(STATE, h, 28);
  }
}

/** As `sha256`: git's checksum of a small file. */
export function sha1(blocks: i32): void {
  for (let from = INPUT, end = INPUT + (<usize>blocks << 6); from < end; from += 64) {
    for (let i: usize = 0; i < 64; i += 4) store<u32>(WORDS + i, bswap<u32>(load<u32>(from + i)));
    for (let i: usize = 64; i < 320; i += 4) {
      const at = WORDS + i;
      const x = load<u32>(at - 12) ^ load<u32>(at - 32) ^ load<u32>(at - 56) ^ load<u32>(at - 64);
      store<u32>(at, rotl<u32>(x, 1));
    }
    let a = load<u32>(STATE);
    let b = load<u32>(STATE, 4);
    let c = load<u32>(STATE, 8);
    let d = load<u32>(STATE, 12);
    let e = load<u32>(STATE, 16);
    for (let i = 0; i < 80; i++) {
      let f: u32;
      let k: u32;
      if (i < 20) {
        f = choose(b, c, d);
        k = 0x5a827999;
      } else if (i < 40) {
        f = b ^ c ^ d;
        k = 0x6ed9eba1;
      } else if (i < 60) {
        f = majority(b, c, d);
        k = 0x8f1bbcdc;
      } else {
        f = b ^ c ^ d;
        k = 0xca62c1d6;
      }
      const next = rotl<u32>(a, 5) + f + e + k + load<u32>(WORDS + (<usize>i << 2));
      e = d;
      d = c;
      c = rotl<u32>(b, 30);
      b = a;
      a = next;
    }
    store<u32>(STATE, load<u32>(STATE) + a);
    store<u32>(STATE, load<u32>(STATE, 4) + b, 4);
    store<u32>(STATE, load<u32>(STATE, 8) + c, 8);
    store<u32>(STATE, load<u32>(STATE, 12) + d, 12);
    store<u32>(STATE, load<u32>(STATE, 16) + e, 16);
  }
}
