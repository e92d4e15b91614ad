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

/** Q8_0: d = max|x| / 127 rounded to f16, q = round(x / unrounded d), halves away from zero. x.length % 32 == 0. */
export function quantizeQ8(x: Float32Array): Quantized {
  const q = new Int8Array(x.length);
  const d = new Float64Array(x.length / 32);
  for (let b = 0; b < d.length; b++) {
    const block = x.subarray(b * 32, b * 32 + 32);
    const scale = block.reduce((top, v) => Math.max(top, Math.abs(v)), 0) / 127;
    d[b] = toF16(scale);
    block.forEach((v, i) => {
      q[b * 32 + i] = scale ? Math.sign(v) * Math.floor(Math.abs(v / scale) + 0.5) : 0;
    });
  }
  return { q, d };
}

/** Q4_0: d = (value of largest size) / -8 rounded to f16, q = min(15, ⌊x / unrounded d + 8.5⌋) - 8. x.length % 32 == 0. */
export function quantizeQ4(x: Float32Array): Quantized {
  const q = new Int8Array(x.length);
  const d = new Float64Array(x.length / 32);
  for (let b = 0; b < d.length; b++) {
    const block = x.subarray(b * 32, b * 32 + 32);
    const scale = block.reduce((top, v) => (Math.abs(v) > Math.abs(top) ? v : top), 0) / -8;
    d[b] = toF16(scale);
    block.forEach((v, i) => {
      q[b * 32 + i] = scale ? Math.min(15, Math.trunc(v / scale + 8.5)) - 8 : 0;
    });
  }
  return { q, d };
}

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
