// Keys read back from the pages of a cache, for whoever wants to look: the layout of assembly/attention/page.ts, in TypeScript. Slow; no step uses it.
import { type Heads, layerPageBytes, PAGE_POSITIONS } from "../kernels/commands.ts";
import type { KvDType } from "../memory/dtype.ts";

/** Columns of a panel. */
const PANEL = 16;

/** @returns the value of an IEEE half */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return (
    sign *
    (exponent === 0
      ? fraction / 0x100_0000
      : ((1024 + fraction) / 1024) * (exponent < 15 ? 1 / (1 << (15 - exponent)) : 1 << (exponent - 15)))
  );
}

/** @returns where value `i` of key `j` (0 to 31) lies behind the first value of a head's keys, in bytes */
function keyOffset(kvDtype: KvDType, j: number, i: number, dim: number): number {
  const panel = Math.floor(j / PANEL);
  const column = j % PANEL;
  if (kvDtype === "f32") return panel * dim * 64 + i * 64 + column * 4;
  if (kvDtype === "f16") return panel * dim * 32 + i * 32 + (column & 8) * 2 + (column & 3) * 4 + (column & 4) / 2;
  return panel * dim * 16 + (i >> 1) * 32 + column * 2 + (i & 1);
}

/**
 * @param pages addresses of the sequence's pages
 * @param layer number of the attention layer among attention layers
 * @param S positions to read
 * @returns the keys (G,S,hd) as the cache holds them, rotated
 */
export function readKeys(
  buffer: ArrayBufferLike,
  pages: readonly number[],
  heads: Heads,
  layer: number,
  kvDtype: KvDType,
  S: number,
): Float32Array {
  const { kv: G, dim } = heads;
  const view = new DataView(buffer);
  const out = new Float32Array(G * S * dim);
  const headBytes = layerPageBytes(heads, kvDtype) / (2 * G);
  const scaleBytes = kvDtype === "q8" ? 4 * PAGE_POSITIONS : 0;
  for (let g = 0; g < G; g++) {
    for (let s = 0; s < S; s++) {
      const part = (pages[Math.floor(s / PAGE_POSITIONS)] ?? 0) + layer * layerPageBytes(heads, kvDtype);
      const base = part + G * scaleBytes + g * (headBytes - scaleBytes);
      const j = s % PAGE_POSITIONS;
      for (let i = 0; i < dim; i++) {
        const at = base + keyOffset(kvDtype, j, i, dim);
        const to = (g * S + s) * dim + i;
        if (kvDtype === "f32") out[to] = view.getFloat32(at, true);
        else if (kvDtype === "f16") out[to] = half(view.getUint16(at, true));
        else out[to] = view.getInt8(at) * view.getFloat32(part + g * scaleBytes + 4 * j, true);
      }
    }
  }
  return out;
}
