// The store of downloaded models on a shelf: what lies where, and how a removal that was interrupted ends. Knows no runtime.
//
// models/<org%2Fname>/blobs/<sha256, or git's sha1>/   pieces of the bytes, then `whole` (pile.ts)
//                     snapshots/<commit>/<path>        which blob it is, and its size; the path is encoded as in an address, and so are the names below
//                     refs/<branch or tag>             the commit that it pointed to
// removed/<org%2Fname>                                 while it is there, nothing of the model is
// packed/<name>/                                       packed images (shelf-images.ts)
import { StorageError } from "../errors.ts";
import { beginningBytes, openPile, removePile, wholeBytes } from "./pile.ts";
import { PileWriter } from "./pile-writer.ts";
import { revisionsOf } from "./revisions.ts";
import { megabytes, type Shelf, textOf, writeText } from "./shelf.ts";
import type { ByteSource } from "./source.ts";
import type { LockOptions, Store, StoredFile, StoredModel, StoreFile, StoreLock, StorePart } from "./store.ts";

const encode = encodeURIComponent;
const removedMark = (repo: string): string => `removed/${encode(repo)}`;
const REF = /^[0-9a-f]{40}$/;
const BLOB = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** What stands in a snapshot for a file. */
interface Entry {
  readonly sizeBytes: number;
  readonly blob: string;
}

function entryOf(text: string | undefined): Entry | undefined {
  const [, blob = "", size] = /^([0-9a-f]{40,64}) (\d{1,15})\n$/.exec(text ?? "") ?? [];
  return BLOB.test(blob) ? { sizeBytes: Number(size), blob } : undefined;
}

/** Models on a shelf. */
export class ShelfStore implements Store {
  readonly place: string;
  readonly #shelf: Shelf;

  constructor(shelf: Shelf) {
    this.#shelf = shelf;
    this.place = shelf.place;
  }

  #in(repo: string, ...path: readonly string[]): string {
    return ["models", encode(repo), ...path].join("/");
  }

  #blob({ repo, blob }: Pick<StoreFile, "repo" | "blob">): string {
    return this.#in(repo, "blobs", blob);
  }

  #shown({ repo, commit, path }: StoreFile): string {
    return this.#in(repo, "snapshots", commit, encode(path));
  }

  #lockName(repo: string, blob = ""): string {
    return `lfm2-wasm ${this.place} ${encode(repo)} ${blob}`;
  }

  async #isMarkedRemoved(repo: string): Promise<boolean> {
    return (await textOf(this.#shelf, removedMark(repo))) !== undefined;
  }

  /** Whether a model is there; one whose removal was interrupted is not, and what is left of it goes now. */
  async #isThere(repo: string): Promise<boolean> {
    if (!(await this.#isMarkedRemoved(repo))) return true;
    await this.#sweep(repo).catch(() => {}); // somebody still reads from it
    return !(await this.#isMarkedRemoved(repo));
  }

  /** Ends a removal: one at a time, and none that another has ended and a download come after. */
  async #sweep(repo: string): Promise<void> {
    const held = await this.#shelf.host.lock(`lfm2-wasm removal ${this.place} ${encode(repo)}`);
    try {
      if (!(await this.#isMarkedRemoved(repo))) return;
      await this.#shelf.remove(this.#in(repo));
      await this.#shelf.remove(removedMark(repo));
    } finally {
      await held.release();
    }
  }

  async revision(repo: string, name: string): Promise<string | undefined> {
    if (!(await this.#isThere(repo))) return undefined;
    return REF.exec((await textOf(this.#shelf, this.#in(repo, "refs", encode(name)))) ?? "")?.[0];
  }

  async setRevision(repo: string, name: string, commit: string): Promise<void> {
    if ((await this.revision(repo, name)) !== commit) await writeText(this.#shelf, this.#in(repo, "refs", encode(name)), commit);
  }

  async files(repo: string, commit: string): Promise<readonly StoredFile[]> {
    if (!(await this.#isThere(repo))) return [];
    const files: StoredFile[] = [];
    for (const name of (await this.#shelf.list(this.#in(repo, "snapshots", commit))).keys()) {
      const entry = entryOf(await textOf(this.#shelf, this.#in(repo, "snapshots", commit, name)));
      const isWhole = entry && (await wholeBytes(this.#shelf, this.#blob({ repo, ...entry }))) === entry.sizeBytes;
      if (isWhole) files.push({ path: decodeURIComponent(name), ...entry });
    }
    return files;
  }

  async open(file: StoreFile): Promise<ByteSource | undefined> {
    if (!(await this.#isThere(file.repo))) return undefined;
    const entry = entryOf(await textOf(this.#shelf, this.#shown(file)));
    const blob = file.blob || entry?.blob;
    if (blob === undefined) return undefined;
    const source = await openPile(this.#shelf, this.#blob({ repo: file.repo, blob }), file.path);
    if (source?.size !== file.sizeBytes) {
      await source?.close?.();
      return undefined;
    }
    if (entry?.blob !== blob) await this.#show({ ...file, blob }).catch(() => {}); // it can be read all the same
    return source;
  }

  #show(file: StoreFile): Promise<void> {
    return writeText(this.#shelf, this.#shown(file), `${file.blob} ${file.sizeBytes}\n`);
  }

  async drop(file: StoreFile): Promise<void> {
    const { blob = file.blob } = entryOf(await textOf(this.#shelf, this.#shown(file))) ?? {};
    await this.#shelf.remove(this.#shown(file));
    if (blob !== "") await removePile(this.#shelf, this.#blob({ repo: file.repo, blob }));
  }

  async partBytes(file: StoreFile): Promise<number> {
    return (await this.#isThere(file.repo)) ? beginningBytes(this.#shelf, this.#blob(file)) : 0;
  }

  lock({ repo, blob }: StoreFile, options?: LockOptions): Promise<StoreLock> {
    return this.#shelf.host.lock(this.#lockName(repo, blob), options);
  }

  async isLocked({ repo, blob }: StoreFile): Promise<boolean> {
    const name = this.#lockName(repo, blob);
    return (await this.#shelf.host.heldLocks(name)).includes(name);
  }

  async begin(file: StoreFile): Promise<StorePart> {
    if (!(await this.#isThere(file.repo)))
      throw new StorageError(`cache: expected ${file.repo} to be removed, got it open in another tab. Close it, or load again later.`, {
        code: "in-use",
      });
    const part = await PileWriter.begin(this.#shelf, this.#blob(file), () => this.#show(file));
    const missingBytes = file.sizeBytes - part.sizeBytes;
    if (missingBytes > ((await this.freeBytes()) ?? Number.POSITIVE_INFINITY))
      throw await this.#shelf.host.full(`the ${megabytes(missingBytes)} of ${file.path} that are still to come`); // rather than after hours
    return part;
  }

  freeBytes(): Promise<number | undefined> {
    return this.#shelf.host.freeBytes();
  }

  async list(): Promise<readonly StoredModel[]> {
    for (const name of (await this.#shelf.list("removed")).keys()) await this.#isThere(decodeURIComponent(name)); // or what is left would be listed once more
    const repos = new Set<string>();
    const all = await this.#shelf.list("models");
    for (const path of all.keys()) repos.add(path.slice(0, path.indexOf("/")));
    const models: StoredModel[] = [];
    for (const name of [...repos].sort()) {
      const repo = decodeURIComponent(name);
      if (await this.#isThere(repo)) models.push(await this.#model(repo, all));
    }
    return models;
  }

  async #model(repo: string, all: ReadonlyMap<string, number>): Promise<StoredModel> {
    const prefix = `${encode(repo)}/`;
    const files = [...all].flatMap(([path, bytes]) => (path.startsWith(prefix) ? [{ path: path.slice(prefix.length), bytes }] : []));
    const blobs = new Set(files.flatMap(({ path }) => /^blobs\/([0-9a-f]+)\//.exec(path)?.[1] ?? []));
    let partialBytes = 0;
    for (const blob of blobs) partialBytes += await beginningBytes(this.#shelf, this.#blob({ repo, blob }));
    const paths = files.map(({ path }) => path);
    const revisions = await revisionsOf(this, repo, paths, decodeURIComponent);
    return { id: repo, sizeBytes: files.reduce((sum, { bytes }) => sum + bytes, 0), partialBytes, revisions };
  }

  async remove(repo: string): Promise<StoredModel | undefined> {
    if (!(await this.#isThere(repo))) return undefined;
    const all = await this.#shelf.list("models");
    if (![...all.keys()].some((path) => path.startsWith(`${encode(repo)}/`))) return undefined;
    const model = await this.#model(repo, all);
    if ((await this.#shelf.host.heldLocks(this.#lockName(repo))).length > 0)
      throw new StorageError(
        `cache: expected ${repo} to be at rest, got a download under way, here or in another tab. End it first, or wait.`,
        { code: "in-use" },
      );
    await writeText(this.#shelf, removedMark(repo), "removed"); // gone at once, whenever this page ends
    await this.#sweep(repo).catch((error) => {
      if (!(error instanceof StorageError)) throw error; // what is open elsewhere goes when it is next looked for
    });
    return model;
  }
}
