// Files at plain addresses in the cache: by version, once for all loads, resumed, offline; and what removeModel takes along.
import assert from "node:assert/strict";
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { availability, type LoadOptions, type LoadProgress, listModels, load, type Model, pull, removeModel } from "lfm2-wasm";
import { validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { PART_NAMES, writeFiles } from "../bad-files/write.ts";
import { checkpointFolder } from "../golden/support.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { IMPATIENT, untilQuiet } from "./network.ts";
import { Plain } from "./plain-server.ts";

const mini = readFileSync("dist/mini.gguf");
const filesOf = (dir: string): Record<string, Uint8Array> =>
  Object.fromEntries(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name))]));
const everyFile = (dir: string): string[] =>
  existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((f) => !lstatSync(join(dir, f)).isDirectory()) : [];

describe("the cache and plain addresses", () => {
  let root: string;
  let dir: string;
  let base: string;
  let right: readonly number[];
  let count = 0;
  let plain: Plain;
  let hub: BadServer;
  const options = (more: LoadOptions = {}): LoadOptions => ({ network: { ...IMPATIENT, windowBytes: 1 << 19 }, cache: { dir }, ...more });
  const tokensOf = async (loading: Promise<Model>): Promise<readonly number[]> => {
    const model = await loading;
    const { tokens } = await model.generate("Tell me a story about a fox.", { maxTokens: 5, temperature: 0 });
    model.dispose();
    return [...tokens];
  };
  const address = (): string => `${base}/models/mini.gguf`;
  const partBytes = (): number =>
    everyFile(dir)
      .filter((f) => f.endsWith(".incomplete"))
      .reduce((sum, f) => sum + (statSync(join(dir, f), { throwIfNoEntry: false })?.size ?? 0), 0);

  before(async () => {
    root = mkdtempSync(join(tmpdir(), "lfm2-address-"));
    plain = new Plain();
    base = await plain.start();
    hub = await serve({ "org/mini": { "mini.gguf": mini } });
    right = await tokensOf(load(new Uint8Array(mini)));
  });
  after(async () => {
    await Promise.all([plain.close(), hub.close()]);
    rmSync(root, { recursive: true, force: true });
  });
  beforeEach(() => {
    dir = join(root, `cache${count++}`);
    plain.files.clear();
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: '"one"' });
    Object.assign(plain, { sentBytes: 0, requests: 0, drip: 0 });
    hub.set({});
    hub.log.length = 0;
  });

  it("a file comes once; the second start asks for its version only", async () => {
    const before = await availability(address(), options());
    assert.deepEqual([before.status, before.downloadBytes], ["downloadable", mini.length]);
    plain.sentBytes = 0;
    assert.deepEqual(await tokensOf(load(address(), options())), right);
    assert.equal(plain.sentBytes, mini.length, "every byte once");
    plain.sentBytes = 0;
    assert.deepEqual(await tokensOf(load(address(), options())), right);
    assert.ok(plain.sentBytes <= 1 << 16, `the first piece at most, got ${plain.sentBytes}`);
    assert.deepEqual((await availability(address(), options())).downloadBytes, 0);
    assert.deepEqual(
      everyFile(dir).filter((f) => /incomplete|lock/.test(f)),
      [],
    );
  });

  it("a folder too, and one that the server does not answer for is there all the same", async () => {
    for (const [name, bytes] of Object.entries(filesOf(join("models", "lfm2-mini"))))
      plain.files.set(`/folder/${name}`, { bytes, etag: `"${name}"` });
    const folder = `${base}/folder/`;
    assert.deepEqual(
      await tokensOf(load(folder, options({ dtype: "bf16" }))),
      await tokensOf(load(folder, options({ dtype: "bf16", cache: false }))),
    );
    await tokensOf(load(address(), options()));
    const down = { fetch: () => Promise.reject(new TypeError("no network")) };
    assert.deepEqual(await tokensOf(load(address(), options(down))), right);
    await assert.rejects(load(`${base}/other.gguf`, options(down)), { name: "NetworkError", code: "dropped" });
  });

  it("availability counts every file that a load of a folder, a split file or shards would bring", async () => {
    const put = (folder: string, files: Readonly<Record<string, Uint8Array>>): void => {
      for (const [name, bytes] of Object.entries(files)) plain.files.set(`/${folder}/${name}`, { bytes, etag: `"${folder}/${name}"` });
    };
    put("folder", filesOf(checkpointFolder("tiny-gqa3")));
    put("split", filesOf(writeFiles(join(root, "split"), validSplit())));
    put("sharded", filesOf(writeFiles(join(root, "sharded"), validSharded())));
    for (const source of [
      `${base}/folder/model.safetensors`,
      `${base}/split/${PART_NAMES[1]}`,
      `${base}/sharded/model.safetensors.index.json`,
    ]) {
      dir = join(root, `cache${count++}`);
      const before = await availability(source, options());
      assert.equal(before.status, "downloadable", source);
      plain.sentBytes = 0;
      (await load(source, options())).dispose();
      assert.equal(before.downloadBytes, plain.sentBytes, `${source}: what is foretold comes`);
      const after = await availability(source, options());
      assert.deepEqual([after.status, after.downloadBytes], ["available", 0], source);
    }
    // what no cache can hold comes again each time
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: undefined });
    (await load(address(), options())).dispose();
    assert.equal((await availability(address(), options())).downloadBytes, mini.length);
    assert.equal((await availability(`${base}/split/${PART_NAMES[0]}`, options({ cache: false }))).status, "downloadable");
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: '"one"' });
    plain.drip = 2;
    const control = new AbortController();
    const loading = load(address(), options({ signal: control.signal }));
    while (partBytes() === 0) await new Promise((go) => setTimeout(go, 1));
    assert.equal((await availability(address(), options())).status, "downloading");
    control.abort();
    await assert.rejects(loading, { name: "AbortError" });
  });

  it("pull brings all that a load reads, and refuses what no cache could hold", async () => {
    for (const [name, bytes] of Object.entries(filesOf(writeFiles(join(root, "pulled"), validSharded()))))
      plain.files.set(`/pulled/${name}`, { bytes, etag: `"${name}"` });
    const source = `${base}/pulled/`;
    const events: LoadProgress[] = [];
    const pulled = await pull(source, options({ onProgress: (p) => events.push(p) }));
    assert.deepEqual([pulled.id, pulled.sizeBytes, pulled.downloadedBytes], [source, plain.sentBytes, plain.sentBytes]);
    assert.deepEqual(
      [events[0]?.phase, events[0]?.totalBytes],
      ["open", (await pull(source, options({ cache: { dir: join(dir, "x") } }))).downloadedBytes],
    );
    assert.ok(events.every((e, i) => e.phase === "open" || e.loadedBytes >= (events[i - 1]?.loadedBytes ?? 0)));
    assert.deepEqual([events.at(-1)?.phase, events.at(-1)?.loadedBytes], ["ready", pulled.sizeBytes]);
    assert.equal((await pull(source, options())).downloadedBytes, 0);
    assert.equal((await availability(source, options())).status, "available");
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: undefined });
    await assert.rejects(pull(address(), options()), { name: "StorageError", code: "no-version" });
    await assert.rejects(pull("models/lfm2-mini/x", options()), { name: "InputError" });
  });

  it("loads at once share one download, and an aborted one goes on at its byte", async () => {
    plain.drip = 1;
    const control = new AbortController();
    const aborted = load(address(), options({ signal: control.signal }));
    const stop = (async () => {
      while (partBytes() < 300_000) await new Promise((go) => setTimeout(go, 1));
      control.abort();
    })();
    const both = [tokensOf(load(address(), options())), tokensOf(load(address(), options({ dtype: "f32" })))];
    await assert.rejects(aborted, { name: "AbortError" });
    await stop;
    assert.deepEqual(await both[0], right);
    await both[1];
    const asked = 3 * (1 << 16); // the first answers of the two that joined, which were closed
    assert.ok(plain.sentBytes <= mini.length + asked + (1 << 17), `${plain.sentBytes}`);

    dir = join(root, `cache${count++}`);
    const again = new AbortController();
    const cut = load(address(), options({ signal: again.signal }));
    while (partBytes() < 1_000_000) await new Promise((go) => setTimeout(go, 1));
    again.abort();
    await assert.rejects(cut, { name: "AbortError" });
    const kept = partBytes();
    Object.assign(plain, { sentBytes: 0, drip: 0 });
    assert.deepEqual(await tokensOf(load(address(), options())), right);
    assert.ok(plain.sentBytes <= mini.length - kept + (1 << 17), `${plain.sentBytes} bytes, ${kept} were kept`);
  });

  it("another version is another file, never a mixture, and takes the old one's place", async () => {
    await tokensOf(load(address(), options()));
    const other = readFileSync("dist/mini.gguf");
    other[other.length - 1]! ^= 1;
    plain.files.set("/models/mini.gguf", { bytes: other, etag: '"two"' });
    plain.sentBytes = 0;
    await tokensOf(load(address(), options()));
    assert.equal(plain.sentBytes, other.length);
    const blobs = everyFile(dir).filter((f) => f.includes("blobs"));
    assert.equal(blobs.length, 1);
    assert.ok(readFileSync(join(dir, blobs[0] ?? "")).equals(other));
    // begun as one version, gone on with as another
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: '"three"' });
    plain.drip = 1;
    const control = new AbortController();
    const cut = load(address(), options({ signal: control.signal }));
    while (partBytes() < 500_000) await new Promise((go) => setTimeout(go, 1));
    plain.files.set("/models/mini.gguf", { bytes: other, etag: '"four"' });
    control.abort();
    await assert.rejects(cut, { name: "AbortError" });
    plain.drip = 0;
    await tokensOf(load(address(), options()));
    for (const file of everyFile(dir).filter((f) => f.includes("blobs") && !f.endsWith(".incomplete")))
      assert.ok([mini, other].some((right) => readFileSync(join(dir, file)).equals(right)));
  });

  it("what tells no version is not kept; what follows ? is written nowhere", async () => {
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: undefined });
    assert.deepEqual(await tokensOf(load(address(), options())), right);
    assert.deepEqual(everyFile(dir), []);
    plain.files.set("/models/mini.gguf", { bytes: mini, etag: '"one"' });
    await tokensOf(load(`${address()}?signature=SECRET`, options({ token: "hf_SECRET" })));
    const files = everyFile(dir);
    assert.ok(files.length >= 2);
    for (const file of files) assert.ok(!file.includes("SECRET") && !readFileSync(join(dir, file)).includes("SECRET"), file);
  });

  it("a damaged file that made a load fail comes anew", async () => {
    const { writeFileSync } = await import("node:fs");
    await tokensOf(load(address(), options()));
    const blob = everyFile(dir).find((f) => f.includes("blobs")) ?? assert.fail();
    const damaged = Buffer.from(mini);
    damaged.fill(255, 24, 64);
    writeFileSync(join(dir, blob), damaged);
    assert.deepEqual(await tokensOf(load(address(), options())), right);
    assert.ok(readFileSync(join(dir, blob)).equals(mini));
  });

  it("a hub's address is known by the content's sha256", async () => {
    const at = `${hub.hub}/org/mini/resolve/main/mini.gguf`;
    assert.deepEqual(await tokensOf(load(at, options())), right);
    hub.set({ flip: 9, match: "cdn" });
    assert.deepEqual(await tokensOf(load(at, options())), right, "nothing of it comes again");
    await untilQuiet(hub);
  });

  it("models of addresses are listed by their folder's address; removeModel takes packed images along", async () => {
    const packed = options({ endpoint: hub.hub, cache: { dir, packed: true }, dtype: "q8" });
    await tokensOf(load(address(), packed));
    await tokensOf(load("org/mini", packed));
    const images = (): number => everyFile(join(dir, ".lfm2-wasm", "packed")).length;
    assert.equal(images(), 2);
    const models = await listModels({ cacheDir: dir });
    assert.deepEqual(
      models.map(({ id }) => id),
      ["org/mini", `${base}/models/`],
    );
    assert.deepEqual(models[1]?.revisions[0]?.names, ["mini.gguf"]);
    assert.ok((await removeModel("org/mini", { cacheDir: dir }))?.sizeBytes);
    assert.equal(images(), 1, "of the other model only");
    assert.ok(((await removeModel(`${base}/models/`, { cacheDir: dir }))?.sizeBytes ?? 0) >= mini.length);
    assert.deepEqual([images(), await listModels({ cacheDir: dir })], [0, []]);
  });
});
