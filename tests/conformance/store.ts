// What every store of downloaded models must do, as checks that throw. Knows no test runner and no runtime: a new store costs a function that opens it.
import type { Store, StoreFile, StorePart } from "../../src/weights/store.ts";

/** One property of a store. */
export interface StoreCheck {
  readonly name: string;
  /** Rejects when the store does not have the property. */
  run(): Promise<void>;
}

const HEX = "0123456789abcdef";
const hex = (digits: number, seed: number): string =>
  Array.from({ length: digits }, (_, i) => HEX[(seed * 7 + i * i * 5 + i) % 16]).join("");

function expect(isTrue: unknown, what: string): asserts isTrue {
  if (!isTrue) throw new Error(`expected ${what}`);
}

const equal = (got: unknown, right: unknown, what: string): void =>
  expect(JSON.stringify(got) === JSON.stringify(right), `${what}: ${JSON.stringify(right)}, got ${JSON.stringify(got)}`);

function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = length; i < length; i++) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i]);

async function rejects(promise: Promise<unknown>, name: string, code: string | undefined, what: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e as Error & { code?: string },
  );
  expect(
    error?.name === name && (code === undefined || error.code === code),
    `${what}: ${name} ${code ?? ""}, got ${error?.name} ${error?.code}: ${error?.message}`,
  );
}

async function contentOf(store: Store, file: StoreFile): Promise<Uint8Array | undefined> {
  const source = await store.open(file);
  try {
    return source && (await source.read(0, source.size));
  } finally {
    await source?.close?.();
  }
}

/**
 * @param open opens the store anew, as a start does: what was kept is there
 * @param sizeBytes of a file: more than a store writes at once
 */
export function storeChecks(open: () => Promise<Store>, sizeBytes: number): readonly StoreCheck[] {
  const bytes = noise(sizeBytes);
  let count = 0;
  const newFile = (more: Partial<StoreFile> = {}): StoreFile => {
    count++;
    return { repo: `org/model-${count}`, commit: hex(40, count), path: "dir/x.gguf", sizeBytes, blob: hex(64, count), ...more };
  };
  const STEP = 1 << 18;
  const fill = async (part: StorePart, to: number): Promise<void> => {
    for (let at = part.sizeBytes; at < to; at = part.sizeBytes) await part.append(bytes.subarray(at, Math.min(to, at + STEP)));
  };
  const keep = async (store: Store, file: StoreFile): Promise<void> => {
    const part = await store.begin(file);
    await fill(part, sizeBytes);
    await part.commit();
    await part.close();
  };
  const half = Math.floor(sizeBytes / 2) + 1;
  return [
    {
      name: "a file is found once it is committed, whole, by name and by commit",
      run: async () => {
        const file = newFile();
        const store = await open();
        equal([await store.open(file), await store.files(file.repo, file.commit)], [undefined, []], "nothing at first");
        const part = await store.begin(file);
        await fill(part, sizeBytes);
        equal([await store.open(file), await (await open()).files(file.repo, file.commit)], [undefined, []], "nothing before the commit");
        await part.commit();
        const again = new Uint8Array(1000);
        await part.readInto(sizeBytes - 1000, again);
        expect(same(again, bytes.subarray(sizeBytes - 1000)), "what was written to be readable until close");
        await part.close();
        const later = await open();
        expect(same((await contentOf(later, file)) ?? new Uint8Array(0), bytes), "the bytes");
        equal(await later.files(file.repo, file.commit), [{ path: file.path, sizeBytes, blob: file.blob }], "the listing");
        equal(await later.partBytes(file), 0, "no part");
      },
    },
    {
      name: "a beginning stays, is readable, and is gone on with",
      run: async () => {
        const file = newFile();
        const store = await open();
        const first = await store.begin(file);
        await fill(first, half);
        await first.close();
        equal(await (await open()).partBytes(file), half, "bytes of the part");
        const second = await (await open()).begin(file);
        equal(second.sizeBytes, half, "bytes that it begins with");
        await fill(second, half + 1000);
        const all = new Uint8Array(half + 1000);
        await second.readInto(0, all);
        expect(same(all, bytes.subarray(0, half + 1000)), "both parts' bytes");
        await second.readInto(half - 7, all.subarray(0, 14));
        expect(same(all.subarray(0, 14), bytes.subarray(half - 7, half + 7)), "bytes across the border");
        await fill(second, sizeBytes);
        await second.commit();
        await second.close();
        expect(same((await contentOf(store, file)) ?? new Uint8Array(0), bytes), "the whole");
      },
    },
    {
      name: "clear begins anew, discard leaves nothing",
      run: async () => {
        const file = newFile();
        const store = await open();
        const part = await store.begin(file);
        await fill(part, half);
        await part.clear();
        equal(part.sizeBytes, 0, "bytes after clear");
        await fill(part, 1000);
        await part.close();
        equal(await store.partBytes(file), 1000, "bytes of the part");
        const other = await store.begin(file);
        await fill(other, half);
        await other.discard();
        await other.close();
        equal(await (await open()).partBytes(file), 0, "bytes after discard");
        equal(await store.open(file), undefined, "no file");
      },
    },
    {
      name: "a lock is one's at a time; who waits is told, gives up at its signal, or gets it",
      run: async () => {
        const file = newFile();
        const store = await open();
        const other = await open();
        equal(await store.isLocked(file), false, "free at first");
        const held = await store.lock(file);
        equal([await held.isHeld(), await other.isLocked(file)], [true, true], "held");
        let waits = 0;
        const control = new AbortController();
        const given = other.lock(file, { signal: control.signal, onWait: () => waits++ });
        setTimeout(() => control.abort(), 100);
        await rejects(given, "AbortError", undefined, "a wait that ends with its signal");
        const gets = other.lock(file, { onWait: () => waits++ });
        setTimeout(() => void held.release(), 100);
        const second = await gets;
        equal([waits, await second.isHeld(), await held.isHeld()], [2, true, false], "handed over");
        const free = await store.lock(newFile());
        await free.release();
        await second.release();
        equal(await store.isLocked(file), false, "free again");
      },
    },
    {
      name: "revisions are known by name, and change",
      run: async () => {
        const { repo } = newFile();
        const store = await open();
        equal(await store.revision(repo, "main"), undefined, "unknown at first");
        for (const name of ["main", "refs/pr/1"])
          for (const commit of [hex(40, 1), hex(40, 2)]) {
            await store.setRevision(repo, name, commit);
            equal(await (await open()).revision(repo, name), commit, name);
          }
      },
    },
    {
      name: "a content is known from another commit, not at another size, and not after drop",
      run: async () => {
        const file = newFile();
        const store = await open();
        await keep(store, file);
        equal(await store.open({ ...file, sizeBytes: sizeBytes + 1 }), undefined, "none of another size");
        const other = { ...file, commit: hex(40, 99) };
        expect(same((await contentOf(store, other)) ?? new Uint8Array(0), bytes), "the bytes by another commit");
        equal((await store.files(file.repo, other.commit)).length, 1, "listed there, too");
        await store.drop(file);
        equal(await (await open()).open(file), undefined, "nothing after drop");
      },
    },
    {
      name: "models are listed with sizes and parts, and removed; not while a download is under way",
      run: async () => {
        const file = newFile();
        const begun = { ...file, path: "y.gguf", blob: hex(40, 77) };
        const store = await open();
        await keep(store, file);
        await store.setRevision(file.repo, "main", file.commit);
        const part = await store.begin(begun);
        await fill(part, half);
        await part.close();
        const model = (await store.list()).find(({ id }) => id === file.repo);
        expect(
          model && model.sizeBytes >= sizeBytes + half && model.sizeBytes < sizeBytes + half + 1000,
          `a size of both, got ${model?.sizeBytes}`,
        );
        equal(model.partialBytes, half, "bytes of parts");
        const free = await store.freeBytes();
        expect(Number.isSafeInteger(free) && Number(free) > 0, `bytes of room, got ${free}`);
        equal(
          model.revisions,
          [{ commit: file.commit, names: ["main"], files: [{ path: file.path, sizeBytes, blob: file.blob }] }],
          "revisions",
        );
        const held = await store.lock(begun);
        await rejects((await open()).remove(file.repo), "StorageError", "in-use", "a removal beside a download");
        await held.release();
        equal((await store.remove(file.repo))?.sizeBytes, model.sizeBytes, "what was removed");
        const later = await open();
        equal(
          [await later.open(file), await later.partBytes(begun), await later.revision(file.repo, "main")],
          [undefined, 0, undefined],
          "nothing is left",
        );
        equal([await later.remove(file.repo), (await later.list()).some(({ id }) => id === file.repo)], [undefined, false], "not there");
        await keep(later, file);
        expect(same((await contentOf(later, file)) ?? new Uint8Array(0), bytes), "it comes again");
      },
    },
  ];
}
