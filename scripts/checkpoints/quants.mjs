// GGUF block formats: encoders that are simple and deterministic, not the best that can be done. They follow the published
// layouts, so any reader must decode them; llama.cpp's own quantizer would pick slightly better scales for the K formats.
import { encode, toF16 } from "./make-checkpoint.mjs";

/** GGUF type number, values per block, bytes per block. */
export const types = {
  F32: { id: 0, block: 1, bytes: 4 },
  F16: { id: 1, block: 1, bytes: 2 },
  BF16: { id: 30, block: 1, bytes: 2 },
  Q4_0: { id: 2, block: 32, bytes: 18 },
  Q8_0: { id: 8, block: 32, bytes: 34 },
  Q4_1: { id: 3, block: 32, bytes: 20 },
  Q5_0: { id: 6, block: 32, bytes: 22 },
  Q5_1: { id: 7, block: 32, bytes: 24 },
  IQ4_NL: { id: 20, block: 32, bytes: 18 },
  Q2_K: { id: 10, block: 256, bytes: 84 },
  Q3_K: { id: 11, block: 256, bytes: 110 },
  Q4_K: { id: 12, block: 256, bytes: 144 },
  Q5_K: { id: 13, block: 256, bytes: 176 },
  Q6_K: { id: 14, block: 256, bytes: 210 },
};

/** Half bits → number. */
export function fromF16(h) {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >>> 10) & 31;
  const fraction = h & 0x3ff;
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const half = (view, at, x) => {
  const bits = toF16(x);
  view.setUint16(at, bits, true);
  return fromF16(bits);
};
const clamp = (x, lo, hi) => Math.min(hi, Math.max(lo, x));
/** Nearest, halves away from zero, as C's roundf. */
const round = (x) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);

function q8_0(x, at, view, out) {
  let top = 0;
  for (let j = 0; j < 32; j++) top = Math.max(top, Math.abs(x[at + j]));
  const d = top / 127;
  half(view, out, d);
  for (let j = 0; j < 32; j++) view.setInt8(out + 2 + j, d ? round(x[at + j] / d) : 0);
}

function q4_0(x, at, view, out) {
  let top = 0;
  for (let j = 0; j < 32; j++) if (Math.abs(x[at + j]) > Math.abs(top)) top = x[at + j];
  const d = top / -8;
  half(view, out, d);
  const q = (j) => (d ? Math.min(15, Math.trunc(x[at + j] / d + 8.5)) : 8);
  for (let j = 0; j < 16; j++) view.setUint8(out + 2 + j, q(j) | (q(j + 16) << 4));
}

/** The value of largest size among n from `at` on, with its sign. */
function farthest(x, at, n) {
  let top = 0;
  for (let j = at; j < at + n; j++) if (Math.abs(x[j]) > Math.abs(top)) top = x[j];
  return top;
}

/** [smallest, largest] of n values from `at` on. */
const range = (x, at, n) => {
  const part = x.subarray(at, at + n);
  return [Math.min(...part), Math.max(...part)];
};

/** 32 values of four or five bits: nibbles at `nibbles`, fifth bits at `fifth` when given. */
function put32(view, nibbles, fifth, q) {
  for (let j = 0; j < 16; j++) view.setUint8(nibbles + j, (q(j) & 15) | ((q(j + 16) & 15) << 4));
  if (fifth === undefined) return;
  let bits = 0;
  for (let j = 0; j < 32; j++) bits |= (q(j) >> 4) << j;
  view.setUint32(fifth, bits >>> 0, true);
}

/** Q4_1 and Q5_1: from the smallest value on, in `levels` steps. */
function affine(x, at, view, out, levels, nibbles, fifth) {
  const [low, high] = range(x, at, 32);
  const d = half(view, out, (high - low) / levels);
  const m = half(view, out + 2, low);
  put32(view, out + nibbles, fifth && out + fifth, (j) => (d ? clamp(round((x[at + j] - m) / d), 0, levels) : 0));
}
const q4_1 = (x, at, view, out) => affine(x, at, view, out, 15, 4);
const q5_1 = (x, at, view, out) => affine(x, at, view, out, 31, 8, 4);

function q5_0(x, at, view, out) {
  const d = half(view, out, farthest(x, at, 32) / -16);
  put32(view, out + 6, out + 2, (j) => (d ? clamp(round(x[at + j] / d) + 16, 0, 31) : 16));
}

const IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
function iq4_nl(x, at, view, out) {
  const d = half(view, out, farthest(x, at, 32) / -127);
  const nearest = (v) => IQ4.reduce((best, q, i) => (Math.abs(q - v) < Math.abs(IQ4[best] - v) ? i : best), 0);
  put32(view, out + 2, undefined, (j) => nearest(d ? x[at + j] / d : 0));
}

/** Two-bit value i of a Q2_K or Q3_K block: 32 bytes hold four groups of 32. */
function putPairs(view, out, q) {
  for (let i = 0; i < 64; i++) {
    const from = 128 * (i >> 5) + (i & 31);
    view.setUint8(out + i, q(from) | (q(from + 32) << 2) | (q(from + 64) << 4) | (q(from + 96) << 6));
  }
}

function q2_k(x, at, view, out) {
  const ranges = Array.from({ length: 16 }, (_, g) => range(x, at + 16 * g, 16)).map(([low, high]) => [Math.min(0, low), high]);
  const d = half(view, out + 80, Math.max(...ranges.map(([low, high]) => (high - low) / 3)) / 15);
  const dmin = half(view, out + 82, Math.max(...ranges.map(([low]) => -low)) / 15);
  const s = ranges.map(([low, high]) => (d ? clamp(round((high - low) / 3 / d), 0, 15) : 0));
  const m = ranges.map(([low]) => (dmin ? clamp(round(-low / dmin), 0, 15) : 0));
  for (let g = 0; g < 16; g++) view.setUint8(out + g, s[g] | (m[g] << 4));
  const step = (i) => d * s[i >> 4];
  putPairs(view, out + 16, (i) => (step(i) ? clamp(round((x[at + i] + dmin * m[i >> 4]) / step(i)), 0, 3) : 0));
}

function q3_k(x, at, view, out) {
  const scale = Array.from({ length: 16 }, (_, g) => farthest(x, at + 16 * g, 16) / -4);
  const d = half(view, out + 108, farthest(scale, 0, 16) / -32);
  const s = scale.map((v) => (d ? clamp(round(v / d), -32, 31) + 32 : 32));
  for (let g = 0; g < 8; g++) view.setUint8(out + 96 + g, (s[g] & 15) | ((s[g + 8] & 15) << 4));
  for (let g = 0; g < 4; g++)
    view.setUint8(
      out + 104 + g,
      [0, 4, 8, 12].reduce((b, k) => b | ((s[g + k] >> 4) << (k / 2)), 0),
    );
  const q = (i) => (d * (s[i >> 4] - 32) ? clamp(round(x[at + i] / (d * (s[i >> 4] - 32))), -4, 3) + 4 : 4);
  putPairs(view, out + 32, (i) => q(i) & 3);
  for (let j = 0; j < 32; j++)
    view.setUint8(
      out + j,
      [0, 1, 2, 3, 4, 5, 6, 7].reduce((b, g) => b | ((q(32 * g + j) >> 2) << g), 0),
    );
}

/** Scales and minima of the eight groups of 32 in a Q4_K or Q5_K block; writes d, dmin and the 12 packed bytes. */
function groups(x, at, view, out, levels) {
  const scale = new Float64Array(8);
  const low = new Float64Array(8);
  for (let g = 0; g < 8; g++) {
    let min = 0;
    let max = -Infinity;
    for (let j = 0; j < 32; j++) {
      min = Math.min(min, x[at + g * 32 + j]);
      max = Math.max(max, x[at + g * 32 + j]);
    }
    scale[g] = Math.max(0, max - min) / levels;
    low[g] = -min;
  }
  const d = half(view, out, Math.max(...scale) / 63);
  const dmin = half(view, out + 2, Math.max(...low) / 63);
  const s = Array.from(scale, (v) => (d ? clamp(round(v / d), 0, 63) : 0));
  const m = Array.from(low, (v) => (dmin ? clamp(round(v / dmin), 0, 63) : 0));
  for (let g = 0; g < 4; g++) {
    view.setUint8(out + 4 + g, s[g] | ((s[g + 4] >> 4) << 6));
    view.setUint8(out + 8 + g, m[g] | ((m[g + 4] >> 4) << 6));
    view.setUint8(out + 12 + g, (s[g + 4] & 15) | ((m[g + 4] & 15) << 4));
  }
  return (i) => {
    const g = i >> 5;
    const step = d * s[g];
    return step ? clamp(round((x[at + i] + dmin * m[g]) / step), 0, levels) : 0;
  };
}

function q4_k(x, at, view, out) {
  const q = groups(x, at, view, out, 15);
  for (let pair = 0; pair < 4; pair++)
    for (let j = 0; j < 32; j++) view.setUint8(out + 16 + pair * 32 + j, q(pair * 64 + j) | (q(pair * 64 + 32 + j) << 4));
}

function q5_k(x, at, view, out) {
  const q = groups(x, at, view, out, 31);
  for (let j = 0; j < 32; j++) {
    let high = 0;
    for (let g = 0; g < 8; g++) high |= (q(g * 32 + j) >> 4) << g;
    view.setUint8(out + 16 + j, high);
    for (let pair = 0; pair < 4; pair++)
      view.setUint8(out + 48 + pair * 32 + j, (q(pair * 64 + j) & 15) | ((q(pair * 64 + 32 + j) & 15) << 4));
  }
}

function q6_k(x, at, view, out) {
  const scale = new Float64Array(16);
  for (let g = 0; g < 16; g++) for (let j = 0; j < 16; j++) scale[g] = Math.max(scale[g], Math.abs(x[at + g * 16 + j]) / 31);
  const d = half(view, out + 208, Math.max(...scale) / 127);
  const s = Array.from(scale, (v) => (d ? clamp(round(v / d), 0, 127) : 0));
  for (const [g, v] of s.entries()) view.setInt8(out + 192 + g, v);
  const q = (i) => (d * s[i >> 4] ? clamp(round(x[at + i] / (d * s[i >> 4])), -32, 31) + 32 : 32);
  for (let side = 0; side < 2; side++)
    for (let j = 0; j < 32; j++) {
      const [a, b, c, e] = [0, 32, 64, 96].map((k) => q(side * 128 + k + j));
      view.setUint8(out + side * 64 + j, (a & 15) | ((c & 15) << 4));
      view.setUint8(out + side * 64 + 32 + j, (b & 15) | ((e & 15) << 4));
      view.setUint8(out + 128 + side * 32 + j, (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((e >> 4) << 6));
    }
}

const encoders = {
  Q8_0: q8_0,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  IQ4_NL: iq4_nl,
  Q2_K: q2_k,
  Q3_K: q3_k,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
};

/** Encodes whole blocks of `values` (Float32Array) as `type`. */
export function quantize(values, type) {
  if (!encoders[type]) return encode(values, type.toLowerCase());
  const { block, bytes } = types[type];
  const out = new Uint8Array((values.length / block) * bytes);
  const view = new DataView(out.buffer);
  for (let i = 0; i * block < values.length; i++) encoders[type](values, i * block, view, i * bytes);
  return out;
}
