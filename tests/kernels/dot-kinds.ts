// Engines of other processors: the relaxed build with its relaxed dots replaced by functions that compute what such an engine's would, so that the module itself
// answers another dot_operand_kind, and packs and multiplies accordingly.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

/** -1 as Arm with dot product, 0 as x86 without VNNI, 1 as x86 with it. */
export type DotKind = -1 | 0 | 1;

const leb = (n: number): number[] => (n < 128 ? [n] : [(n & 127) | 128, ...leb(n >>> 7)]);
const sized = (bytes: readonly number[]): number[] => [...leb(bytes.length), ...bytes];
const simd = (code: number, ...immediates: number[]): number[] => [0xfd, ...leb(code), ...immediates];
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const V128 = 0x7b;

const SHUFFLE = 0x0d;
const I16X8_NARROW_S = 0x85; // saturates
const I16X8_EXTEND = { low: { s: 0x87, u: 0x89 }, high: { s: 0x88, u: 0x8a } };
const I32X4_EXTADD_PAIRWISE_S = 0x7e;
const I32X4_ADD = 0xae;
const I32X4_DOT_I16X8_S = 0xba;
const RELAXED_PAIRS = simd(0x112);
const RELAXED_DOT = simd(0x113);

/** Sums of two products, as i32: of the lower or the upper eight bytes of the locals 0 and 1. */
const sums = (half: "low" | "high", sign: "s" | "u"): number[] => [
  ...[...get(0), ...simd(I16X8_EXTEND[half].s)],
  ...[...get(1), ...simd(I16X8_EXTEND[half][sign])],
  ...simd(I32X4_DOT_I16X8_S),
];

/** Every second piece of `bytes` bytes of the two locals, from the first or the second on. */
function everySecond(bytes: number, from: number, a: number, b: number): number[] {
  const lanes = Array.from({ length: 16 }, (_, i) => (2 * Math.floor(i / bytes) + from) * bytes + (i % bytes));
  return [...get(a), ...get(b), ...simd(SHUFFLE, ...lanes)];
}

/** i16x8.relaxed_dot_i8x16_i7x16_s(0, 1), with locals 2 and 3: x86 saturates (pmaddubsw), Arm wraps. */
function pairs(kind: DotKind, low: number, high: number): number[] {
  const sign = kind < 0 ? "s" : "u";
  const halves = [...sums("low", sign), ...set(low), ...sums("high", sign), ...set(high)];
  return [...halves, ...(kind < 0 ? everySecond(2, 0, low, high) : [...get(low), ...get(high), ...simd(I16X8_NARROW_S)])];
}

/** i32x4.relaxed_dot_i8x16_i7x16_add_s(0, 1, 2): without VNNI by way of saturated pairs. */
function dot(kind: DotKind): number[] {
  const four =
    kind === 0 ? simd(I32X4_EXTADD_PAIRWISE_S) : [0x1a, ...everySecond(4, 0, 3, 4), ...everySecond(4, 1, 3, 4), ...simd(I32X4_ADD)]; // drop; the sums are in the locals still
  return [...pairs(kind, 3, 4), ...four, ...get(2), ...simd(I32X4_ADD)];
}

const body = (code: readonly number[]): number[] => sized([1, 2, V128, ...code, 0x0b]); // two locals

/** Replaces each `from`, three bytes, by a call of the function `index`. @returns how often */
function replace(code: Uint8Array, from: readonly number[], index: number): number {
  let count = 0;
  for (let i = 0; i + 2 < code.length; i++) {
    if (code[i] !== from[0] || code[i + 1] !== from[1] || code[i + 2] !== from[2]) continue;
    code.set([0x10, (index & 127) | 128, index >> 7], i);
    count++;
  }
  return count;
}

/** @returns the relaxed build as an engine of that kind would run it */
export function emulated(kind: DotKind): Uint8Array<ArrayBuffer> {
  const file = readFileSync("dist/kernels.relaxed.wasm");
  let at = 8;
  const number = (): number => {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = file[at++] ?? assert.fail("the file ends");
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const plain = new WebAssembly.Module(readFileSync("dist/kernels.plain.wasm")); // imports the same, and compiles everywhere
  const imports = WebAssembly.Module.imports(plain).filter((i) => i.kind === "function").length;
  const out: Uint8Array[] = [file.subarray(0, 8)];
  let [types, functions] = [0, 0];
  while (at < file.length) {
    const id = file[at++] ?? 0;
    const end = number() + at;
    const start = at;
    // types, functions and their code start with a count, which two more join
    const counted = [1, 3, 10].includes(id);
    const count = counted ? number() : 0;
    const rest = Uint8Array.from(file.subarray(counted ? at : start, end));
    const added: number[] = [];
    if (id === 1) {
      types = count;
      added.push(0x60, ...sized([V128, V128]), 1, V128, 0x60, ...sized([V128, V128, V128]), 1, V128);
    } else if (id === 3) {
      functions = imports + count;
      added.push(...leb(types), ...leb(types + 1));
    } else if (id === 10) {
      assert.ok(replace(rest, RELAXED_PAIRS, functions) > 100 && replace(rest, RELAXED_DOT, functions + 1) > 100, "no relaxed dots");
      added.push(...body(pairs(kind, 2, 3)), ...body(dot(kind)));
    }
    const head = counted ? leb(count + 2) : [];
    out.push(Uint8Array.of(id, ...leb(head.length + rest.length + added.length), ...head), rest, Uint8Array.from(added));
    at = end;
  }
  return Uint8Array.from(Buffer.concat(out));
}
