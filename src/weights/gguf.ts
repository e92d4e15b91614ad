// The header of a GGUF file: metadata, and which tensors lie where. Must not know architectures, nor read tensor data.
import { FormatError, UnsupportedError } from "../errors.ts";
import { quoted } from "../values.ts";
import { HeaderReader } from "./gguf-reader.ts";
import { GGML_TYPES, REMOVED_GGML_TYPES } from "./gguf-types.ts";
import {
  MAX_GGUF_ALIGNMENT,
  MAX_GGUF_ARRAY_ITEMS,
  MAX_GGUF_KEY_BYTES,
  MAX_GGUF_KEYS,
  MAX_GGUF_RANK,
  MAX_GGUF_STRING_BYTES,
  MAX_GGUF_TOTAL_ITEMS,
  MAX_NAME_BYTES,
  MAX_TENSORS,
  MIN_GGUF_ALIGNMENT,
} from "./limits.ts";
import { type ByteSource, commonMistake } from "./source.ts";
import { elementCount, isStoredType, STORED_TYPES, type StoredTensor, type WeightFile } from "./tensor.ts";

/** A value of the metadata. 64-bit integers are numbers when a number holds them exactly. */
export type GgufValue = string | boolean | number | bigint | readonly string[] | readonly boolean[] | readonly (number | bigint)[];

/** What a GGUF file says about itself. */
export interface GgufFile extends WeightFile {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** Each value's type, by its number in the format; of a list, that of its items. */
  readonly types: ReadonlyMap<string, number>;
}

const STRING = 8;
const ARRAY = 9;
/** Value types: bytes of a scalar, and how it is read. */
const scalars: ReadonlyMap<number, readonly [bytes: number, read: (r: HeaderReader) => number | bigint | boolean]> = new Map([
  [0, [1, (r: HeaderReader) => r.u8()]],
  [1, [1, (r: HeaderReader) => r.i8()]],
  [2, [2, (r: HeaderReader) => r.u16()]],
  [3, [2, (r: HeaderReader) => r.i16()]],
  [4, [4, (r: HeaderReader) => r.u32()]],
  [5, [4, (r: HeaderReader) => r.i32()]],
  [6, [4, (r: HeaderReader) => r.f32()]],
  [7, [1, (r: HeaderReader) => r.u8()]],
  [10, [8, (r: HeaderReader) => exact(r.u64())]],
  [11, [8, (r: HeaderReader) => exact(r.i64())]],
  [12, [8, (r: HeaderReader) => r.f64()]],
] as const);
const BOOL = 7;

const exact = (n: bigint): number | bigint => (Number.isSafeInteger(Number(n)) ? Number(n) : n);

/**
 * Reads and checks the header of a GGUF file (version 2 or 3, little-endian). The tensors must tile the data: no overlap, no hole, nothing left over.
 * @param source - the file; only its header is read, by ranges that grow from 64 KiB
 * @returns metadata and tensors by name. Tensors of a type that cannot be packed are listed apart, with a sentence.
 * @throws FormatError naming the place; UnsupportedError for another version or a tensor type that ggml does not have.
 */
export async function readGguf(source: ByteSource, signal?: AbortSignal): Promise<GgufFile> {
  const reader = new HeaderReader(source, signal);
  const { version, tensorCount, keyCount } = await readPreamble(reader, source);
  const { metadata, types } = await readMetadata(reader, keyCount, source.name);
  const alignment = readAlignment(metadata, source.name);
  const infos = await readInfos(reader, tensorCount, alignment, source.name);
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  checkTiling(infos, source.size - dataStart, alignment, source.name);
  return { version, metadata, types, ...sortByUse(infos, source, dataStart) };
}

async function readPreamble(reader: HeaderReader, source: ByteSource): Promise<{ version: number; tensorCount: number; keyCount: number }> {
  const file = source.name;
  if (source.size < 4) throw new FormatError(`${file}: expected the magic GGUF, got a file of ${source.size} bytes. Fetch the file again.`);
  await reader.need(Math.min(source.size, 24), "the header");
  const magic = reader.bytes(4);
  if (String.fromCharCode(...magic) !== "GGUF") {
    const head = Uint8Array.from([...magic, ...reader.bytes(Math.min(20, source.size - 4))]);
    throw new FormatError(`${file}: expected the magic GGUF, got ${commonMistake(head) ?? "other bytes. This is no GGUF file"}.`);
  }
  await reader.need(20, "version and counts");
  const version = readVersion(reader, file);
  const tensorCount = readCount(reader.u64(), MAX_TENSORS, reader.remaining - 8, 24, `${file}: tensor count`);
  const keyCount = readCount(reader.u64(), MAX_GGUF_KEYS, reader.remaining, 13, `${file}: metadata key count`);
  return { version, tensorCount, keyCount };
}

function readVersion(reader: HeaderReader, file: string): number {
  const version = reader.u32();
  if (version === 2 || version === 3) return version; // one layout; 3 only allows big-endian files
  if (version === 0) throw new FormatError(`${file}: expected version 3, got 0. The file is damaged.`);
  if (version % 0x1000000 === 0) throw new UnsupportedError(`${file}: expected little-endian, got a big-endian version. Convert the file.`);
  throw new UnsupportedError(`${file}: expected GGUF version 2 or 3, got version ${version}. Convert the model with a current converter.`);
}

/** A count that a file claims: compared with the limit, and with what the rest of the file could hold, before anything is done by it. */
function readCount(count: bigint, limit: number, remaining: number, eachBytes: number, what: string): number {
  if (count > BigInt(limit)) throw new FormatError(`${what}: expected at most ${limit}, the limit, got ${count}. This is no LFM2 file.`);
  const claimed = Number(count) * eachBytes;
  if (claimed > remaining) throw new FormatError(`${what}: truncated: expected ${claimed} bytes or more for ${count}, got ${remaining}.`);
  return Number(count);
}

async function readString(reader: HeaderReader, limit: number, what: string): Promise<string> {
  if (!reader.has(8)) await reader.need(8, `the length of ${what}`);
  const length = readCount(reader.u64(), limit, reader.remaining, 1, `${what}: string length`);
  if (!reader.has(length)) await reader.need(length, what);
  return reader.text(length, what);
}

async function readMetadata(reader: HeaderReader, count: number, file: string): Promise<Pick<GgufFile, "metadata" | "types">> {
  const metadata = new Map<string, GgufValue>();
  const types = new Map<string, number>();
  let items = 0;
  for (let i = 0; i < count; i++) {
    const key = await readString(reader, MAX_GGUF_KEY_BYTES, `${file}: metadata key ${i}`);
    if (key === "") throw new FormatError(`${file}: metadata key ${i}: expected a name, got an empty one. The file is damaged.`);
    const at = `${file}: ${quoted(key)}`;
    if (metadata.has(key)) throw new FormatError(`${at}: expected every key once, got a duplicate. The file is damaged.`);
    await reader.need(4, `the type of ${at}`);
    const { value, type } = await readValue(reader, reader.u32(), at);
    if (typeof value === "object") items += value.length;
    if (items > MAX_GGUF_TOTAL_ITEMS)
      throw new FormatError(`${at}: expected at most ${MAX_GGUF_TOTAL_ITEMS} array items in all, the limit, got more.`);
    metadata.set(key, value);
    types.set(key, type);
  }
  return { metadata, types };
}

/** A value, and its type or that of its items. */
interface Typed {
  readonly value: GgufValue;
  readonly type: number;
}

async function readValue(reader: HeaderReader, type: number, at: string): Promise<Typed> {
  if (type === STRING) return { value: await readString(reader, MAX_GGUF_STRING_BYTES, at), type };
  if (type === ARRAY) return readArray(reader, at);
  return { value: (await readScalars(reader, type, 1, at))[0]!, type };
}

async function readArray(reader: HeaderReader, at: string): Promise<Typed> {
  await reader.need(12, `the array of ${at}`);
  const type = reader.u32();
  const length = reader.u64();
  if (type === ARRAY) throw new FormatError(`${at}: expected an array of plain values, got a nested array. This is no LFM2 file.`);
  const each = type === STRING ? 8 : (scalars.get(type)?.[0] ?? 1);
  const count = readCount(length, MAX_GGUF_ARRAY_ITEMS, reader.remaining, each, `${at}: array length`);
  if (type !== STRING) return { value: (await readScalars(reader, type, count, at)) as GgufValue, type };
  const items: string[] = [];
  for (let i = 0; i < count; i++) items.push(reader.shortText() ?? (await readString(reader, MAX_GGUF_STRING_BYTES, at)));
  return { value: items, type };
}

async function readScalars(reader: HeaderReader, type: number, count: number, at: string): Promise<(number | bigint | boolean)[]> {
  const scalar = scalars.get(type);
  if (!scalar) throw new FormatError(`${at}: expected a value type of 0 to 12, got type ${type}. The file is damaged.`);
  const [bytes, read] = scalar;
  const values: (number | bigint | boolean)[] = [];
  for (let i = 0; i < count; i++) {
    if (!reader.has(bytes)) await reader.need(bytes, at);
    values.push(read(reader));
  }
  return type === BOOL ? values.map((v) => asBoolean(v, at)) : values;
}

function asBoolean(value: number | bigint | boolean, at: string): boolean {
  if (value === 0 || value === 1) return value === 1;
  throw new FormatError(`${at}: expected a bool of 0 or 1, got ${value}. The file is damaged.`);
}

function readAlignment(metadata: ReadonlyMap<string, GgufValue>, file: string): number {
  const alignment = metadata.get("general.alignment") ?? 32;
  const isPower = typeof alignment === "number" && Number.isInteger(alignment) && Number.isInteger(Math.log2(alignment));
  if (isPower && alignment >= MIN_GGUF_ALIGNMENT && alignment <= MAX_GGUF_ALIGNMENT) return alignment;
  const got = typeof alignment === "number" ? `${alignment}` : typeof alignment;
  throw new FormatError(
    `${file}: general.alignment: expected a power of two from ${MIN_GGUF_ALIGNMENT} to ${MAX_GGUF_ALIGNMENT}, got ${got}. The file is damaged.`,
  );
}

/** One tensor info, checked on its own; the offset counts from the start of the data. */
interface Info {
  readonly name: string;
  readonly typeName: string;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

async function readInfos(reader: HeaderReader, count: number, alignment: number, file: string): Promise<Info[]> {
  const infos: Info[] = [];
  const names = new Set<string>();
  for (let i = 0; i < count; i++) {
    const name = await readString(reader, MAX_NAME_BYTES, `${file}: tensor ${i} name`);
    const at = `${file}: tensor ${quoted(name)}`;
    if (name === "") throw new FormatError(`${file}: tensor ${i}: expected a name, got an empty one. The file is damaged.`);
    if (names.has(name)) throw new FormatError(`${at}: expected every tensor once, got a duplicate. The file is damaged.`);
    names.add(name);
    infos.push(await readInfo(reader, name, alignment, at));
  }
  return infos;
}

async function readInfo(reader: HeaderReader, name: string, alignment: number, at: string): Promise<Info> {
  await reader.need(4, `the dimensions of ${at}`);
  const rank = reader.u32();
  if (rank < 1 || rank > MAX_GGUF_RANK)
    throw new FormatError(`${at}: expected 1 to ${MAX_GGUF_RANK} dimensions, got ${rank}. The file is damaged.`);
  await reader.need(rank * 8 + 12, `the dimensions of ${at}`);
  const claimed = Array.from({ length: rank }, () => reader.u64());
  const type = reader.u32();
  const offset = reader.u64();
  const dims = claimed.map((n) => dimension(n, at));
  const { typeName, bytes } = sizeOf(type, dims, at);
  if (offset % BigInt(alignment) !== 0n || offset > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new FormatError(
      `${at}: expected an offset that is a multiple of the alignment ${alignment}, got ${offset}. The file is damaged.`,
    );
  }
  return { name, typeName, shape: dims.reverse(), offset: Number(offset), bytes };
}

function dimension(n: bigint, at: string): number {
  if (n >= 1n && n <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(n);
  throw new FormatError(`${at}: expected dimensions of 1 to 2^53 - 1, got ${n}. The file is damaged.`);
}

function sizeOf(type: number, dims: readonly number[], at: string): { typeName: string; bytes: number } {
  const known = GGML_TYPES.get(type);
  if (!known) {
    const removed = REMOVED_GGML_TYPES.has(type) ? ", which was removed from the format" : "";
    throw new UnsupportedError(`${at}: has type ${type}${removed}; expected one of ${readable}. Convert the model again.`);
  }
  const [typeName, blockValues, blockBytes] = known;
  if (dims[0]! % blockValues !== 0) {
    if (!isStoredType(typeName)) throw new UnsupportedError(unsupportedSentence(at, typeName));
    throw new FormatError(
      `${at}: expected rows of whole blocks of ${blockValues} values for ${typeName}, got ${dims[0]}. The file is damaged.`,
    );
  }
  const count = elementCount(dims);
  const bytes = count === undefined ? undefined : (count / blockValues) * blockBytes;
  if (bytes !== undefined && Number.isSafeInteger(bytes)) return { typeName, bytes };
  throw new FormatError(`${at}: expected a size below 2^53 bytes, got dimensions ${dims.join(" × ")}: overflow. The file is damaged.`);
}

const padded = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

function checkTiling(infos: readonly Info[], dataBytes: number, alignment: number, file: string): void {
  let at = 0;
  let next = 0;
  for (const info of [...infos].sort((a, b) => a.offset - b.offset)) {
    const { name, offset, bytes } = info;
    if (offset !== next) {
      const what = offset < next ? "overlap" : "hole";
      throw new FormatError(
        `${file}: tensor ${quoted(name)}: expected its offset at ${next}, got ${offset}: ${what}. The file is damaged.`,
      );
    }
    at = offset + bytes;
    next = padded(at, alignment);
    if (at > dataBytes) {
      throw new FormatError(
        `${file}: truncated: tensor ${quoted(name)} ends at ${at} of the data, got ${Math.max(0, dataBytes)} bytes. Fetch it again.`,
      );
    }
  }
  if (dataBytes > next)
    throw new FormatError(`${file}: expected ${next} bytes of tensor data, got ${dataBytes - next} trailing bytes more.`);
}

const readable = Object.keys(STORED_TYPES).join(", ");
/** @returns whether tensors of a type can be loaded */
export const isReadable = (typeName: string): typeName is keyof typeof STORED_TYPES => Object.hasOwn(STORED_TYPES, typeName);
const unsupportedSentence = (at: string, typeName: string): string =>
  `${at} has type ${typeName}; expected one of ${readable}. Use the Q4_K_M, Q8_0 or BF16 file.`;

function sortByUse(infos: readonly Info[], source: ByteSource, dataStart: number): WeightFile {
  const tensors = new Map<string, StoredTensor>();
  const unsupported = new Map<string, string>();
  for (const { name, typeName, shape, offset, bytes } of infos) {
    if (isStoredType(typeName)) tensors.set(name, { name, type: typeName, shape, source, offsetBytes: dataStart + offset, bytes });
    else unsupported.set(name, unsupportedSentence(`${source.name}: tensor ${quoted(name)}`, typeName));
  }
  return { tensors, unsupported };
}
