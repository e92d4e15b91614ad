// Lays out the header of a GGUF file (version 3) and says where each tensor's bytes go. Knows neither models nor how the bytes are written.
import type { GgufValue } from "./gguf.ts";
import { GGML_TYPES } from "./gguf-types.ts";
import { MAX_GGUF_HEADER_BYTES } from "./limits.ts";
import type { StoredType } from "./tensor.ts";

/** Value types of the metadata, by their numbers in a file. */
export const GGUF_TYPE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;

/** A key of the metadata; the type of a list is that of its items. */
export type GgufEntry = readonly [key: string, type: number, value: GgufValue];

/** A tensor to be written: rows first, as everywhere but in the file. */
export interface GgufTensor {
  readonly name: string;
  readonly type: StoredType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** Where tensors begin: multiples of this. */
export const GGUF_ALIGNMENT = 32;

/** @returns bytes from the end of a tensor to where the next may begin */
export const ggufPadding = (bytes: number): number => (GGUF_ALIGNMENT - (bytes % GGUF_ALIGNMENT)) % GGUF_ALIGNMENT;

const utf8 = new TextEncoder();

/** Bytes that grow. */
class Bytes {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  /** Room for `count` more. @returns where it begins */
  #take(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.length, 2 * this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  u32(value: number): void {
    const at = this.#take(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#take(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  bytes(value: Uint8Array): void {
    const at = this.#take(value.length);
    this.#bytes.set(value, at);
  }

  text(value: string): void {
    const bytes = utf8.encode(value);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  scalar(type: number, value: number | bigint | boolean): void {
    const put = SCALARS.get(type);
    if (!put) throw new TypeError(`no scalar type ${type}`);
    const at = this.#take(put[0]);
    put[1](this.#view, at, value as never);
  }

  done(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}

/** Bytes of a scalar, and how it is written. */
const SCALARS: ReadonlyMap<number, readonly [bytes: number, put: (view: DataView, at: number, value: never) => void]> = new Map([
  [GGUF_TYPE.u8, [1, (v: DataView, at: number, x: number) => v.setUint8(at, x)]],
  [GGUF_TYPE.i8, [1, (v: DataView, at: number, x: number) => v.setInt8(at, x)]],
  [GGUF_TYPE.u16, [2, (v: DataView, at: number, x: number) => v.setUint16(at, x, true)]],
  [GGUF_TYPE.i16, [2, (v: DataView, at: number, x: number) => v.setInt16(at, x, true)]],
  [GGUF_TYPE.u32, [4, (v: DataView, at: number, x: number) => v.setUint32(at, x, true)]],
  [GGUF_TYPE.i32, [4, (v: DataView, at: number, x: number) => v.setInt32(at, x, true)]],
  [GGUF_TYPE.f32, [4, (v: DataView, at: number, x: number) => v.setFloat32(at, x, true)]],
  [GGUF_TYPE.bool, [1, (v: DataView, at: number, x: boolean) => v.setUint8(at, Number(x))]],
  [GGUF_TYPE.u64, [8, (v: DataView, at: number, x: number | bigint) => v.setBigUint64(at, BigInt(x), true)]],
  [GGUF_TYPE.i64, [8, (v: DataView, at: number, x: number | bigint) => v.setBigInt64(at, BigInt(x), true)]],
  [GGUF_TYPE.f64, [8, (v: DataView, at: number, x: number) => v.setFloat64(at, x, true)]],
] as const) as never;

function putValue(out: Bytes, type: number, value: GgufValue): void {
  const put = (item: string | number | bigint | boolean): void => {
    if (typeof item === "string") out.text(item);
    else out.scalar(type, item);
  };
  if (Array.isArray(value)) {
    out.u32(GGUF_TYPE.array);
    out.u32(type);
    out.u64(value.length);
    for (const item of value) put(item);
  } else {
    out.u32(type);
    put(value as string | number | bigint | boolean);
  }
}

const TYPE_NUMBERS: ReadonlyMap<string, number> = new Map([...GGML_TYPES].map(([number, [name]]) => [name, number]));

/**
 * @param tensors in the order in which their bytes will follow, each padded by `ggufPadding`
 * @returns everything before the first tensor's bytes
 * @throws RangeError for more than a reader takes
 */
export function ggufHeader(entries: readonly GgufEntry[], tensors: readonly GgufTensor[]): Uint8Array {
  const out = new Bytes();
  out.bytes(utf8.encode("GGUF"));
  out.u32(3);
  out.u64(tensors.length);
  out.u64(entries.length);
  for (const [key, type, value] of entries) {
    out.text(key);
    putValue(out, type, value);
  }
  let offset = 0;
  for (const { name, type, shape, bytes } of tensors) {
    out.text(name);
    out.u32(shape.length);
    for (const n of [...shape].reverse()) out.u64(n);
    out.u32(TYPE_NUMBERS.get(type) ?? 0);
    out.u64(offset);
    offset += bytes + ggufPadding(bytes);
  }
  out.bytes(new Uint8Array(ggufPadding(out.length)));
  if (out.length > MAX_GGUF_HEADER_BYTES) throw new RangeError(`a header of ${out.length} bytes`);
  return out.done();
}
