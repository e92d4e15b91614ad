// Number formats, slow and obvious: f16, bf16, and the blocks Q8_0 and Q4_0. Nothing here imports from src/ or assembly/.

const word = new Float32Array(1);
const wordBits = new Uint32Array(word.buffer);

/** The bits of `x` as f32. */
export function f32Bits(x: number): number {
  word[0] = x;
  return wordBits[0]!;
}

/** The f32 of these bits. */
export function f32FromBits(bits: number): number {
  wordBits[0] = bits;
  return word[0]!;
}

/** `x` rounded to the nearest integer, halves to even. */
export function roundToEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest > 0.5 ? floor + 1 : floor;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** A half's value. */
export function f16FromBits(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >>> 10) & 31;
  const fraction = h & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The half nearest to an f32, ties to even, as bits. */
export function f16ToBits(value: number): number {
  const x = Math.fround(value);
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  if (Number.isNaN(x)) return 0x7e00;
  const a = Math.abs(x);
  if (a >= 65520) return sign | 0x7c00;
  if (a < 2 ** -14) return sign | roundToEven(a * 2 ** 24);
  const exponent = Math.floor(Math.log2(a));
  const mantissa = roundToEven(a * 2 ** (10 - exponent)); // 1024..2048; 2048 carries into the exponent by addition
  return sign | (((exponent + 14) << 10) + mantissa);
}

/** `x` rounded to f16 and back. */
export const toF16 = (x: number): number => f16FromBits(f16ToBits(x));

/** The bf16 nearest to an f32, ties to even, as bits. */
export function bf16ToBits(value: number): number {
  const bits = f32Bits(value);
  if (Number.isNaN(value)) return 0x7fc0;
  const low = bits & 0xffff;
  const high = bits >>> 16;
  return low > 0x8000 || (low === 0x8000 && high & 1) ? high + 1 : high;
}

/** A bf16's value. */
export const bf16FromBits = (bits: number): number => f32FromBits((bits << 16) >>> 0);

/** `x` rounded to bf16 and back. */
export const toBf16 = (x: number): number => bf16FromBits(bf16ToBits(x));

/** Integers and scales of rows that are quantized in blocks of 32: q (values), d (one a block, exact in f16). */
export interface Quantized {
  readonly q: Int8Array;
  readonly d: Float64Array;
}

/** Values of `blocks`: q · d. */
export function dequantize({ q, d }: Quantized): Float32Array {
  return Float32Array.from(q, (v, i) => v * d[i >> 5]!);
}

/** What the kernels try for a block's scale, in the order in which the first of equally good ones wins (lanes 0, 2, 1, 3 of two vectors of trials). */
const TRIALS = { q8: [1019, 997, 1008, 985, 1013, 991, 1002, 980], q4: [71, 62, 66, 57, 69, 59, 64, 54] } as const;
const RANGE = { q8: [-127, 127], q4: [-8, 7] } as const;
const FINE = 4095;

/** The scale of the least squared error among the trials, before its rounding to f16. */
function bestScale(block: Float32Array, dtype: "q8" | "q4"): number {
  const f = Math.fround;
  const top = block.reduce((a, v) => (Math.abs(v) > Math.abs(a) ? v : a), 0);
  const most = dtype === "q8" ? Math.abs(top) : -top;
  if (!(Math.abs(most) > 2 ** -40 && Math.abs(most) < 2 ** 40)) return Math.abs(top);
  const [low, high] = RANGE[dtype];
  const x = Array.from(block, (v) => roundToEven(f(v * f(FINE / most))));
  let [best, scale] = [0, 0];
  for (const trial of TRIALS[dtype]) {
    const q = x.map((v) => Math.min(high, Math.max(low, Math.floor(v * (trial / 2 ** 15) + 0.5))));
    const xq = x.reduce((sum, v, i) => sum + v * q[i]!, 0);
    const s = f(f(xq) / f(q.reduce((sum, v) => sum + v * v, 0)));
    const gain = f(f(xq) * s);
    if (gain > best) [best, scale] = [gain, s];
  }
  return f(scale * f(most / FINE));
}

/** Blocks of 32: d of the least squared error rounded to f16, then q = x / d to the nearest integer in range. x.length % 32 == 0. */
function quantize(x: Float32Array, dtype: "q8" | "q4"): Quantized {
  const f = Math.fround;
  const [low, high] = RANGE[dtype];
  const q = new Int8Array(x.length);
  const d = new Float64Array(x.length / 32);
  for (let b = 0; b < d.length; b++) {
    const block = x.subarray(b * 32, b * 32 + 32);
    const scale = toF16(bestScale(block, dtype));
    d[b] = scale;
    block.forEach((v, i) => {
      q[b * 32 + i] = scale ? Math.min(high, Math.max(low, roundToEven(f(v * f(1 / scale))))) : 0;
    });
  }
  return { q, d };
}

/** Q8_0, q in -127..127. */
export const quantizeQ8 = (x: Float32Array): Quantized => quantize(x, "q8");

/** Q4_0, q in -8..7; the largest value becomes negative. */
export const quantizeQ4 = (x: Float32Array): Quantized => quantize(x, "q4");

/** Bytes of Q8_0 blocks: f16 scale, 32 signed bytes. */
export function encodeQ8({ q, d }: Quantized): Uint8Array {
  const out = new DataView(new ArrayBuffer(34 * d.length));
  d.forEach((scale, b) => {
    out.setUint16(34 * b, f16ToBits(scale), true);
    for (let i = 0; i < 32; i++) out.setInt8(34 * b + 2 + i, q[b * 32 + i]!);
  });
  return new Uint8Array(out.buffer);
}

/** Bytes of Q4_0 blocks: f16 scale, 16 bytes; byte i holds value i + 8 in its low and value 16 + i, + 8, in its high nibble. */
export function encodeQ4({ q, d }: Quantized): Uint8Array {
  const out = new DataView(new ArrayBuffer(18 * d.length));
  d.forEach((scale, b) => {
    out.setUint16(18 * b, f16ToBits(scale), true);
    for (let i = 0; i < 16; i++) out.setUint8(18 * b + 2 + i, (q[b * 32 + i]! + 8) | ((q[b * 32 + 16 + i]! + 8) << 4));
  });
  return new Uint8Array(out.buffer);
}

/** Reads Q8_0 blocks. */
export function decodeQ8(bytes: Uint8Array): Quantized {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blocks = bytes.length / 34;
  const d = Float64Array.from({ length: blocks }, (_, b) => f16FromBits(view.getUint16(34 * b, true)));
  const q = Int8Array.from({ length: 32 * blocks }, (_, i) => view.getInt8(34 * (i >> 5) + 2 + (i & 31)));
  return { q, d };
}

/** Reads Q4_0 blocks. */
export function decodeQ4(bytes: Uint8Array): Quantized {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blocks = bytes.length / 18;
  const d = Float64Array.from({ length: blocks }, (_, b) => f16FromBits(view.getUint16(18 * b, true)));
  const q = Int8Array.from({ length: 32 * blocks }, (_, i) => {
    const byte = view.getUint8(18 * (i >> 5) + 2 + (i & 15));
    return (i & 16 ? byte >> 4 : byte & 15) - 8;
  });
  return { q, d };
}
