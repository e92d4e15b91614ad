// Where a checkpoint is, told to another side: a name crosses as it is, and so does what the runtime clones by reference (a File, a handle); everything else stays
// and is read over the channel, range by range.
import type { ModelSource } from "../lfm2.ts";
import { part } from "../part.ts";
import { type ByteSource, type Folder, sourceOf } from "../weights/source.ts";
import type { Channel, Handler } from "./channel.ts";

/** Bytes of a range at most: a thread that must not block copies so many at a time. */
const RANGE_BYTES = 4 << 20;

/** A source as plain data. */
export type PackedSource =
  | { readonly kind: "clone"; readonly value: unknown }
  | { readonly kind: "url"; readonly href: string }
  | ({ readonly kind: "file" } & ServedFile)
  | { readonly kind: "folder"; readonly id: number; readonly name: string; readonly hasList: boolean };

/** A file that the other side reads. */
interface ServedFile {
  readonly id: number;
  readonly name: string;
  readonly size: number;
  readonly hasSibling: boolean;
  readonly hasVerify: boolean;
}

/** Serves sources of this side to the other. */
export class ServedSources {
  readonly #files = new Map<number, ByteSource>();
  readonly #folders = new Map<number, Folder>();
  #ids = 0;

  /**
   * @param crosses tells what the runtime clones by reference
   * @returns `source` as the other side can take it
   * @throws InputError, StorageError as `openObject`
   */
  async pack(source: ModelSource, crosses: (source: object) => boolean, signal?: AbortSignal): Promise<PackedSource> {
    if (source instanceof URL) return { kind: "url", href: source.href };
    if (typeof source === "string" || source === null || source === undefined || crosses(source)) return { kind: "clone", value: source };
    const { openObject } = await part("objects", () => import("../weights/objects.ts"));
    const opened = await openObject(source, signal);
    if (!("open" in opened)) return this.#file(opened);
    const id = this.#ids++;
    this.#folders.set(id, opened);
    return { kind: "folder", id, name: opened.name, hasList: opened.list !== undefined };
  }

  /** What the other side asks for. */
  get handlers(): Record<string, Handler> {
    return {
      "source.read": async ([id, offset, length], signal) => {
        const bytes = await this.#files.get(id as number)?.read(offset as number, length as number, signal);
        return new Uint8Array(bytes ?? []); // a copy, which may move
      },
      "source.sibling": async ([id, name]) => this.#found(await this.#files.get(id as number)?.sibling?.(name as string)),
      "source.verify": async ([id], signal) => this.#files.get(id as number)?.verify?.(signal),
      "source.close": ([id]) => this.#close(id as number),
      "folder.open": async ([id, path]) => this.#found(await this.#folders.get(id as number)?.open(path as string)),
      "folder.list": async ([id]) => this.#folders.get(id as number)?.list?.(),
    };
  }

  /** Closes what the other side left open. */
  async closeAll(): Promise<void> {
    await Promise.allSettled([...this.#files.keys()].map((id) => this.#close(id)));
  }

  #found(source: ByteSource | undefined): PackedSource | undefined {
    return source && this.#file(source);
  }

  #file(source: ByteSource): { readonly kind: "file" } & ServedFile {
    const id = this.#ids++;
    this.#files.set(id, source);
    const { name, size, sibling, verify } = source;
    return { kind: "file", id, name, size, hasSibling: sibling !== undefined, hasVerify: verify !== undefined };
  }

  async #close(id: number): Promise<void> {
    const source = this.#files.get(id);
    this.#files.delete(id);
    await source?.close?.();
  }
}

/** @returns the source that `packed` tells of, read through `channel` where it stayed */
export function unpackSource(channel: Channel, packed: PackedSource): ModelSource {
  if (packed.kind === "clone") return packed.value as ModelSource;
  if (packed.kind === "url") return new URL(packed.href);
  if (packed.kind === "file") return remoteFile(channel, packed);
  const { id, name, hasList } = packed;
  const opened = async (call: string, args: readonly unknown[]): Promise<ByteSource | undefined> =>
    fileOf(channel, (await channel.call(call, args)) as PackedSource | undefined);
  return {
    name,
    open: (path) => opened("folder.open", [id, path]),
    ...(hasList ? { list: async () => (await channel.call("folder.list", [id])) as readonly string[] } : {}),
  };
}

function fileOf(channel: Channel, packed: PackedSource | undefined): ByteSource | undefined {
  return packed?.kind === "file" ? remoteFile(channel, packed) : undefined;
}

/** One range after the other: whoever reads slowly is not sent more. */
function remoteFile(channel: Channel, { id, name, size, hasSibling, hasVerify }: ServedFile): ByteSource {
  const part = async (offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> =>
    (await channel.call("source.read", [id, offset, length], signal)) as Uint8Array;
  const sibling: ByteSource["sibling"] = async (other) =>
    fileOf(channel, (await channel.call("source.sibling", [id, other])) as PackedSource | undefined);
  return {
    ...sourceOf(name, size, part, RANGE_BYTES),
    ...(hasSibling ? { sibling } : {}),
    ...(hasVerify ? { verify: async (signal?: AbortSignal) => void (await channel.call("source.verify", [id], signal)) } : {}),
    close: async () => void (await channel.call("source.close", [id])),
  };
}
