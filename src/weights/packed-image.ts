// Packed weights kept as a file, so that the next start reads them straight into place. docs/loading.md draws it byte by byte. Knows no runtime: an adapter gives the store.
import { AbortError, FormatError, throwIfAborted } from "../errors.ts";
import type { Kernels } from "../kernels/variants.ts";
import { BLOCK, GROUP_ROWS, packedBlockBytes, packedBytes, roundUp, type WeightDType } from "../memory/dtype.ts";
import type { WasmMemory } from "../memory/wasm.ts";
import type { WeightProgress } from "./load.ts";
import type { WeightList } from "./plan.ts";
import { readSafetensorsHeader } from "./safetensors.ts";
import type { FileSink } from "./sink.ts";
import { type ByteSource, fill } from "./source.ts";
import type { StoredTensor } from "./tensor.ts";

/** Where packed images are kept. What it throws costs the image, never the load. */
export interface ImageStore {
  /** @returns the image of that name, if it is there whole */
  open(name: string): Promise<ByteSource | undefined>;
  /** @returns where to write it; undefined where it should not be kept: no room, no right */
  create(name: string, sizeBytes: number): Promise<FileSink | undefined>;
  remove(name: string): Promise<void>;
  /** Names of all that are there. */
  names(): Promise<readonly string[]>;
}

/** What is in an image's `__metadata__` beside key and checksum; `layout` is that of the packed blocks in assembly/README.md: a new number for every change of theirs. */
const ABOUT = { format: "lfm2-wasm packed image", version: "1", layout: "1" } as const;
/** Bytes read or written between two looks at the signal. */
const PIECE_BYTES = 8 << 20;
/** Pieces that are read at a time: their memory is new, and its first touch takes longer than the copy; reads under way share it among the runtime's threads. */
const READS = 2;
/** The data starts at a multiple of it, as memory's regions do. */
const ALIGNMENT = 64;

/** A region of memory that the image holds. */
interface Region {
  readonly name: string;
  readonly dtype: WeightDType;
  readonly shape: readonly number[];
  readonly address: number;
  readonly bytes: number;
}

/** The weights' regions in the order in which they lie in memory. */
function regionsOf(list: WeightList): Region[] {
  const matrices = list.matrices.flatMap((m) =>
    m.segments.map(({ name, dtype, rows, address }): Region => {
      const shape = [Math.ceil(rows / GROUP_ROWS), Math.ceil(m.columns / BLOCK), packedBlockBytes[dtype]];
      return { name, dtype, shape, address, bytes: packedBytes(dtype, rows, m.columns) };
    }),
  );
  const vectors = list.vectors.map(({ name, length, taps, address }): Region => {
    const shape = [taps, roundUp(length, BLOCK)];
    return { name, dtype: "f32", shape, address, bytes: 4 * taps * roundUp(length, BLOCK) };
  });
  return [...matrices, ...vectors];
}

/** What an image is known by. */
export interface ImageKey {
  /** For a file's name. */
  readonly name: string;
  /** The sources that it was packed from, whole. */
  readonly sources: string;
}

/** 64 bits that name a text: two FNV-1a hashes of different starts. What they name is compared as a whole, too. */
function shortHash(text: string): string {
  let [a, b] = [0x811c9dc5, 0x050c5d1f];
  for (let i = 0; i < text.length; i++) {
    a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(i), 0x01000193);
  }
  return [a, b].map((n) => (n >>> 0).toString(16).padStart(8, "0")).join("");
}

/** @returns the image's key; undefined where a source does not know whether it is still the same */
export function imageKey(list: WeightList, tensors: ReadonlyMap<string, StoredTensor>): ImageKey | undefined {
  const sources = new Set<string>();
  const parts: string[] = [];
  for (const { name, dtype } of regionsOf(list)) {
    const identity = tensors.get(name)?.source.identity;
    if (identity === undefined) return undefined;
    sources.add(identity);
    parts.push(name, dtype);
  }
  const all = JSON.stringify([...sources]);
  return { name: shortHash([ABOUT.version, ABOUT.layout, all, ...parts].join("\n")), sources: all };
}

/** What reading or writing needs of memory for itself. */
export const IMAGE_SCRATCH_BYTES = 64;

/** Where an image is read to or written from. */
export interface ImageTarget {
  readonly kernels: Kernels;
  readonly memory: WasmMemory;
  /** Address of IMAGE_SCRATCH_BYTES that nothing else uses now. */
  readonly scratch: number;
}

/** Options of `readImage` and `writeImage`. */
export interface ImageOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: WeightProgress) => void) | undefined;
}

const dtypesOf = (regions: readonly Region[]): string => regions.map(({ dtype }) => dtype).join(" ");
const operandOf = (kernels: Kernels): string => (kernels.q8_flip() === 0 ? "signed" : "unsigned");

/** The checksum of regions, as they lie in memory. */
class Checksum {
  readonly #target: ImageTarget;

  constructor(target: ImageTarget) {
    this.#target = target;
    this.#state.fill(0);
  }

  get #state(): Uint32Array {
    return new Uint32Array(this.#target.memory.buffer, this.#target.scratch, 16);
  }

  add(address: number, bytes: number): void {
    this.#target.kernels.checksum(this.#target.scratch, address, bytes);
  }

  digest(): string {
    return Array.from(this.#state, (word) => word.toString(16).padStart(8, "0")).join("");
  }
}

const text = new TextEncoder();

/** Everything before the data: the length, the JSON, spaces up to the alignment. */
function headerOf(regions: readonly Region[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, shape, bytes } of regions) {
    header[name] = { dtype: shape.length === 2 ? "F32" : "U8", shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = text.encode(JSON.stringify(header));
  const out = new Uint8Array(roundUp(8 + json.length, ALIGNMENT)).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(out.length - 8), true);
  out.set(json, 8);
  return out;
}

/**
 * Keeps the weights of a list that has been loaded. The memory is not changed.
 * @returns whether it was written: what goes wrong costs the next start some time, and nothing else
 * @throws AbortError
 */
export async function writeImage(
  store: ImageStore,
  { name, sources }: ImageKey,
  list: WeightList,
  target: ImageTarget,
  { signal }: ImageOptions = {},
): Promise<boolean> {
  const regions = regionsOf(list);
  const sum = new Checksum(target);
  for (const { address, bytes } of regions) sum.add(address, bytes);
  const header = headerOf(regions, {
    ...ABOUT,
    operand: operandOf(target.kernels),
    dtypes: dtypesOf(regions),
    sources,
    checksum: sum.digest(),
  });
  let sink: FileSink | undefined;
  try {
    sink = await store.create(
      name,
      regions.reduce((size, { bytes }) => size + bytes, header.length),
    );
    if (!sink) return false;
    await sink.write(header);
    for (const { address, bytes } of regions)
      for (let at = 0; at < bytes; at += PIECE_BYTES) {
        throwIfAborted(signal);
        await sink.write(new Uint8Array(target.memory.buffer, address + at, Math.min(PIECE_BYTES, bytes - at)));
      }
    throwIfAborted(signal);
    await sink.commit();
    return true;
  } catch (error) {
    await sink?.discard().catch(() => {}); // nobody misses it
    if (error instanceof AbortError) throw error;
    return false;
  }
}

/**
 * Fills the regions of a list that `placeWeights` has placed from its image, and writes no descriptors. An image of the other reading of int8 is converted; one that is
 * damaged, of another version, or of other weights is removed.
 * @returns whether there was one. If not, the regions may hold anything.
 * @throws AbortError
 */
export async function readImage(
  store: ImageStore,
  key: ImageKey,
  list: WeightList,
  target: ImageTarget,
  options: ImageOptions = {},
): Promise<boolean> {
  let image: ByteSource | undefined;
  try {
    image = await store.open(key.name);
    if (!image) return false;
    await readRegions(image, key, regionsOf(list), target, options);
    return true;
  } catch (error) {
    if (error instanceof AbortError) throw error;
    await store.remove(key.name).catch(() => {}); // it will be replaced
    return false;
  } finally {
    await image?.close?.().catch(() => {});
  }
}

/** Removes the images that were packed from any of these sources, by their identities. What cannot be read stays. */
export async function removeImagesOf(store: ImageStore, identities: ReadonlySet<string>): Promise<void> {
  for (const name of await store.names()) {
    if ((await sourcesOf(store, name).catch(() => [])).some((source) => identities.has(String(source)))) await store.remove(name);
  }
}

async function sourcesOf(store: ImageStore, name: string): Promise<readonly unknown[]> {
  const image = await store.open(name);
  try {
    const sources: unknown = image && JSON.parse((await readSafetensorsHeader(image)).metadata.get("sources") ?? "");
    return Array.isArray(sources) ? sources : [];
  } finally {
    await image?.close?.();
  }
}

async function readRegions(
  image: ByteSource,
  { sources }: ImageKey,
  regions: readonly Region[],
  target: ImageTarget,
  { signal, onProgress }: ImageOptions,
): Promise<void> {
  const { kernels, memory } = target;
  const { metadata, entries, dataStart } = await readSafetensorsHeader(image, signal);
  const operand = metadata.get("operand");
  const isSame = Object.entries({ ...ABOUT, dtypes: dtypesOf(regions), sources }).every(([name, value]) => metadata.get(name) === value);
  if (!isSame || (operand !== "signed" && operand !== "unsigned")) throw stale(image);
  if (entries.length !== regions.length) throw stale(image);
  const pieces: { readonly address: number; readonly offset: number; readonly bytes: number }[] = [];
  let end = 0;
  for (const [i, { name, shape, address, bytes }] of regions.entries()) {
    const entry = entries[i];
    if (entry?.name !== name || String(entry.shape) !== String(shape) || entry.begin !== end || entry.end !== end + bytes)
      throw stale(image);
    for (let at = 0; at < bytes; at += PIECE_BYTES)
      pieces.push({ address: address + at, offset: dataStart + end + at, bytes: Math.min(PIECE_BYTES, bytes - at) });
    end += bytes;
  }
  const sum = new Checksum(target);
  const reads: Promise<void>[] = [];
  const readOn = (): void => {
    const piece = pieces[reads.length];
    if (!piece) return;
    const read = fill(image, piece.offset, new Uint8Array(memory.buffer, piece.address, piece.bytes), signal);
    read.catch(() => {}); // heard of when its turn comes
    reads.push(read);
  };
  try {
    while (reads.length < Math.min(READS, pieces.length)) readOn();
    let loadedBytes = 0;
    for (const [i, { address, bytes }] of pieces.entries()) {
      await reads[i];
      readOn();
      throwIfAborted(signal);
      sum.add(address, bytes);
      loadedBytes += bytes;
      onProgress?.({ loadedBytes, totalBytes: end, file: image.name });
    }
  } finally {
    await Promise.allSettled(reads); // whoever fills the regions in another way must not be written over
  }
  if (sum.digest() !== metadata.get("checksum")) throw new FormatError(`${image.name}: expected the checksum of its header, got another.`);
  if (operand !== operandOf(kernels))
    for (const r of regions) if (r.dtype === "q8") flip(new Uint32Array(memory.buffer, r.address, r.bytes / 4));
}

/** Packed blocks of q8 from one reading of int8 to the other; their 8 scales stay. */
function flip(words: Uint32Array): void {
  for (let block = 0; block < words.length; block += packedBlockBytes.q8 / 4)
    for (let i = block + 4; i < block + packedBlockBytes.q8 / 4; i++) words[i] = (words[i] ?? 0) ^ 0x80808080;
}

const stale = (image: ByteSource): FormatError => new FormatError(`${image.name}: expected the image of these weights, got another.`);
