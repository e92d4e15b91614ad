// The header of one safetensors file: which tensors lie where. Must not know models, nor read tensor data.
import { FormatError } from "../errors.ts";
import { isRecord, quoted } from "../values.ts";
import { decodeUtf8, parseJson } from "./json-scan.ts";
import { MAX_NAME_BYTES, MAX_RANK, MAX_SAFETENSORS_HEADER_BYTES, MAX_TENSORS, MIN_HEADER_WINDOW_BYTES } from "./limits.ts";
import { type ByteSource, commonMistake, readExactly } from "./source.ts";
import { elementCount, type StoredTensor, type StoredType, type WeightFile } from "./tensor.ts";

/** What a safetensors file says about itself. */
export interface SafetensorsFile extends WeightFile {
  /** The `__metadata__` of the header. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** Bits of an element of every dtype that the format knows; the sizes prove that the tensors tile the data, even those that nobody needs. */
const DTYPE_BITS: ReadonlyMap<string, number> = new Map([
  ...(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"].map((d) => [d, 8]) as [string, number][]),
  ...(["I16", "U16", "F16", "BF16"].map((d) => [d, 16]) as [string, number][]),
  ...(["I32", "U32", "F32"].map((d) => [d, 32]) as [string, number][]),
  ...(["I64", "U64", "F64", "C64"].map((d) => [d, 64]) as [string, number][]),
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
]);
const readable: readonly StoredType[] = ["F32", "F16", "BF16"];

/** One entry of the header, checked on its own; where its bytes lie counts from the start of the data. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** A header as it stands. */
export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  readonly entries: readonly SafetensorsEntry[];
  readonly dataStart: number;
}

/**
 * Reads and checks the header of a safetensors file. The tensors must tile the data exactly: no overlap, no hole, no byte left over.
 * @param source - the file; only its header is read
 * @returns the tensors by name. Those of a dtype other than F32, F16, BF16 are listed apart, with a sentence.
 * @throws FormatError naming the place.
 */
export async function readSafetensors(source: ByteSource, signal?: AbortSignal): Promise<SafetensorsFile> {
  const { metadata, entries, dataStart } = await readSafetensorsHeader(source, signal);
  return { metadata, ...sortByUse(entries, source, dataStart) };
}

/** @returns the header's entries, of any element type, and where the data starts @throws FormatError as `readSafetensors` */
export async function readSafetensorsHeader(source: ByteSource, signal?: AbortSignal): Promise<SafetensorsHeader> {
  const { header, dataStart } = await readHeader(source, signal);
  const where = `${source.name}: header`;
  const json = parseJson(header, where, { maxBytes: MAX_SAFETENSORS_HEADER_BYTES });
  if (!isRecord(json)) throw new FormatError(`${where}: expected a JSON object, got something else. This is no safetensors file.`);
  const metadata = readMetadata(Object.hasOwn(json, "__metadata__") ? json.__metadata__ : {}, where);
  const named = Object.entries(json).filter(([name]) => name !== "__metadata__");
  if (named.length > MAX_TENSORS) {
    throw new FormatError(`${where}: expected at most ${MAX_TENSORS} tensors, the limit, got ${named.length}. This is no LFM2 checkpoint.`);
  }
  const entries = named.map(([name, value]) => readEntry(name, value, where));
  checkTiling(entries, source.size - dataStart, source.name);
  return { metadata, entries, dataStart };
}

async function readHeader(source: ByteSource, signal: AbortSignal | undefined): Promise<{ header: string; dataStart: number }> {
  const where = `${source.name}: header`;
  const first = await readExactly(source, 0, Math.min(source.size, MIN_HEADER_WINDOW_BYTES), signal);
  const mistake = commonMistake(first);
  if (mistake !== undefined) throw new FormatError(`${source.name}: expected safetensors weights, got ${mistake}.`);
  if (first.length < 8) {
    throw new FormatError(`${where}: expected 8 bytes that give its length, got a file of ${source.size} bytes. Fetch the file again.`);
  }
  const declared = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (declared > BigInt(MAX_SAFETENSORS_HEADER_BYTES)) {
    throw new FormatError(
      `${where}: expected a length of at most ${MAX_SAFETENSORS_HEADER_BYTES} bytes, the limit, got ${declared}. This is no safetensors file.`,
    );
  }
  const length = Number(declared);
  if (8 + length > source.size) {
    throw new FormatError(`${where}: truncated: expected ${length} bytes, got ${source.size - 8}. Fetch the file again.`);
  }
  const rest = 8 + length > first.length ? await readExactly(source, first.length, 8 + length - first.length, signal) : undefined;
  const bytes = joined(first.subarray(8, 8 + length), rest);
  if (bytes[0] !== 0x7b) throw new FormatError(`${where}: expected it to begin with {, got something else. This is no safetensors file.`);
  return { header: decodeUtf8(bytes, where, true), dataStart: 8 + length };
}

function joined(a: Uint8Array, b: Uint8Array | undefined): Uint8Array {
  if (!b) return a;
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

function readMetadata(value: unknown, where: string): Map<string, string> {
  if (!isRecord(value)) throw new FormatError(`${where}: expected __metadata__ to be an object of strings, got something else.`);
  return new Map(
    Object.entries(value).map(([key, text]) => {
      if (typeof text === "string") return [key, text] as const;
      throw new FormatError(`${where}: expected __metadata__ to be an object of strings, got ${typeof text} for ${quoted(key)}.`);
    }),
  );
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const utf8 = new TextEncoder();

function readEntry(name: string, value: unknown, where: string): SafetensorsEntry {
  const at = `${where}: tensor ${quoted(name)}`;
  if (name === "" || name.length > MAX_NAME_BYTES || utf8.encode(name).length > MAX_NAME_BYTES || /\p{Surrogate}/u.test(name)) {
    throw new FormatError(`${at}: expected a name of 1 to ${MAX_NAME_BYTES} bytes of UTF-8, got another. The file is damaged.`);
  }
  if (!isRecord(value)) throw new FormatError(`${at}: expected an object with dtype, shape and data_offsets, got something else.`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string")
    throw new FormatError(`${at}: expected dtype to be a string, got ${dtype === null ? "null" : typeof dtype}.`);
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw new FormatError(`${at}: expected shape to be a list of whole numbers, got another value. The file is damaged.`);
  }
  if (shape.length > MAX_RANK) throw new FormatError(`${at}: expected at most ${MAX_RANK} dimensions, got ${shape.length}.`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw new FormatError(`${at}: expected data_offsets to be two whole numbers, got another value. The file is damaged.`);
  }
  const [begin, end] = offsets as [number, number];
  checkEntrySize(at, dtype, shape, begin, end);
  return { name, dtype, shape, begin, end };
}

function checkEntrySize(at: string, dtype: string, shape: readonly number[], begin: number, end: number): void {
  const count = elementCount(shape);
  const bits = DTYPE_BITS.get(dtype);
  if (bits === undefined) return; // the size is unknown: the tensor takes what its offsets say, and nobody can use it
  const size = count === undefined ? undefined : (count * bits) / 8;
  if (size === undefined || !Number.isSafeInteger(size)) {
    throw new FormatError(`${at}: expected a size below 2^53 bytes, got shape [${shape.join(", ")}]: overflow. The file is damaged.`);
  }
  if (end - begin === size) return;
  throw new FormatError(
    `${at}: expected ${size} bytes for ${dtype} of shape [${shape.join(", ")}], got data_offsets [${begin}, ${end}]. The file is damaged.`,
  );
}

function checkTiling(entries: readonly SafetensorsEntry[], dataBytes: number, file: string): void {
  const order = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const e of order) {
    const what = e.begin < at ? "overlap" : "hole";
    if (e.begin !== at || e.end < e.begin) {
      throw new FormatError(
        `${file}: header: tensor ${quoted(e.name)}: expected its data_offsets to begin at ${at}, got ${e.begin} to ${e.end}: ${what}. The file is damaged.`,
      );
    }
    at = e.end;
  }
  if (at > dataBytes) {
    const last = quoted(order.at(-1)?.name ?? "");
    throw new FormatError(
      `${file}: truncated: expected ${at} bytes of data up to the end of ${last}, got ${dataBytes}. Fetch the file again.`,
    );
  }
  if (at < dataBytes) {
    throw new FormatError(`${file}: expected the tensors to cover all ${dataBytes} bytes of data, got ${dataBytes - at} trailing bytes.`);
  }
}

function sortByUse(entries: readonly SafetensorsEntry[], source: ByteSource, dataStart: number): WeightFile {
  const tensors = new Map<string, StoredTensor>();
  const unsupported = new Map<string, string>();
  for (const { name, dtype, shape, begin, end } of entries) {
    const type = readable.find((t) => t === dtype);
    if (type) tensors.set(name, { name, type, shape, source, offsetBytes: dataStart + begin, bytes: end - begin });
    else {
      const sentence = `${source.name}: tensor ${quoted(name)} has dtype ${quoted(dtype)}; expected one of ${readable.join(", ")}. Use the bf16 checkpoint or a GGUF.`;
      unsupported.set(name, sentence);
    }
  }
  return { tensors, unsupported };
}
