// ln and e^x in float64 from + - × ÷ alone: engines' own differ in the last bits, and a score must not.

const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;
const scratch = new DataView(new ArrayBuffer(8));

/** @returns ln x for a normal x > 0, to 1e-15 relative or 1e-16 near 1 */
export function ln(x: number): number {
  scratch.setFloat64(0, x);
  const high = scratch.getUint32(0);
  let exponent = (high >>> 20) - 1023;
  scratch.setUint32(0, (high & 0xfffff) | 0x3ff00000);
  let mantissa = scratch.getFloat64(0);
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  // ln m = 2 artanh((m-1)/(m+1)), |argument| < 0.172
  const s = (mantissa - 1) / (mantissa + 1);
  const z = s * s;
  let tail = 0;
  for (let n = 23; n >= 3; n -= 2) tail = (tail + 1 / n) * z;
  return exponent * LN2_HIGH + (exponent * LN2_LOW + 2 * s * tail + 2 * s);
}

/** @returns e^x for |x| below 700, to 1e-15 relative */
export function exp(x: number): number {
  const n = Math.round(x / (LN2_HIGH + LN2_LOW));
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let sum = 1;
  for (let k = 18; k >= 1; k--) sum = 1 + (sum * r) / k;
  scratch.setUint32(0, (n + 1023) << 20);
  scratch.setUint32(4, 0);
  return sum * scratch.getFloat64(0);
}

/** @returns x^y for x > 0 */
export const power = (x: number, y: number): number => exp(y * ln(x));
