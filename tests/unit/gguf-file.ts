// Writes GGUF files by hand, right and wrong, for the tests of the reader.

/** Value types of the format. */
export const T = { u8: 0, i8: 1, u16: 2, i16: 3, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10, i64: 11, f64: 12 } as const;

const utf8 = new TextEncoder();
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
const scalar = (bytes: number, set: (view: DataView) => void): Uint8Array => {
  const out = new Uint8Array(bytes);
  set(new DataView(out.buffer));
  return out;
};
export const u32 = (n: number): Uint8Array => scalar(4, (v) => v.setUint32(0, n, true));
export const u64 = (n: bigint | number): Uint8Array => scalar(8, (v) => v.setBigUint64(0, BigInt.asUintN(64, BigInt(n)), true));
export const string = (text: string | Uint8Array): Uint8Array => {
  const bytes = typeof text === "string" ? utf8.encode(text) : text;
  return concat(u64(bytes.length), bytes);
};
export const f32 = (n: number): Uint8Array => scalar(4, (v) => v.setFloat32(0, n, true));
export const array = (type: number, count: number | bigint, ...items: readonly Uint8Array[]): Uint8Array =>
  concat(u32(type), u64(count), ...items);

/** A key with its value type and the value's bytes. */
export type Key = readonly [key: string | Uint8Array, type: number, value: Uint8Array];
export interface TensorInfo {
  name: string;
  dims: (number | bigint)[];
  type: number;
  /** Bytes of data. */
  bytes: number;
  offset?: number | bigint;
}

/** The parts of a valid file; change them, then `ggufBytes`. */
export interface Parts {
  magic: string;
  version: Uint8Array;
  keyCount?: bigint;
  tensorCount?: bigint;
  keys: Key[];
  tensors: TensorInfo[];
  alignment: number;
  /** Bytes after the last tensor's padding. */
  tail: number;
  /** Bytes taken off the end. */
  cut: number;
}

export function validParts(): Parts {
  return {
    magic: "GGUF",
    version: u32(3),
    keys: [
      ["general.architecture", T.string, string("lfm2")],
      ["general.name", T.string, string("tiny é")],
      ["x.u8", T.u8, Uint8Array.of(200)],
      ["x.i8", T.i8, Uint8Array.of(200)],
      ["x.u16", T.u16, Uint8Array.of(1, 255)],
      ["x.i16", T.i16, Uint8Array.of(1, 255)],
      ["x.u32", T.u32, u32(0xffffffff)],
      ["x.i32", T.i32, u32(0xffffffff)],
      ["x.f32", T.f32, f32(0.5)],
      ["x.bool", T.bool, Uint8Array.of(1)],
      ["x.u64", T.u64, u64(2n ** 53n)],
      ["x.i64", T.i64, u64(-5)],
      ["x.f64", T.f64, scalar(8, (v) => v.setFloat64(0, 1e-5, true))],
      ["x.ints", T.array, array(T.i32, 3, u32(0), u32(2), u32(0xffffffff))],
      ["x.strings", T.array, array(T.string, 2, string("a"), string("Ġb"))],
      ["x.bools", T.array, array(T.bool, 2, Uint8Array.of(0, 1))],
      ["x.none", T.array, array(T.string, 0)],
      ["__proto__", T.string, string("polluted")],
    ],
    tensors: [
      { name: "f32", dims: [5], type: 0, bytes: 20 },
      { name: "f16", dims: [3, 2], type: 1, bytes: 12 },
      { name: "q4", dims: [64, 3], type: 2, bytes: 108 },
      { name: "q8", dims: [32, 2], type: 8, bytes: 68 },
      { name: "bf16", dims: [2, 3, 4], type: 30, bytes: 48 },
    ],
    alignment: 32,
    tail: 0,
    cut: 0,
  };
}

const padding = (at: number, alignment: number): number => (alignment - (at % alignment)) % alignment;

/** @returns the file's bytes and where its data begins. */
export function ggufBytes(p: Parts): { bytes: Uint8Array; dataStart: number } {
  const keys = p.keys.map(([key, type, value]) => concat(string(key), u32(type), value));
  let at = 0;
  const infos = p.tensors.map((t) => {
    const offset = t.offset ?? at;
    at += t.bytes + padding(t.bytes, p.alignment);
    return concat(string(t.name), u32(t.dims.length), ...t.dims.map(u64), u32(t.type), u64(offset));
  });
  const counts = concat(u64(p.tensorCount ?? p.tensors.length), u64(p.keyCount ?? p.keys.length));
  const head = concat(utf8.encode(p.magic), p.version, counts, ...keys, ...infos);
  const dataStart = head.length + padding(head.length, p.alignment);
  const bytes = new Uint8Array(dataStart + at + p.tail - p.cut);
  bytes.set(head.subarray(0, bytes.length));
  return { bytes, dataStart };
}
