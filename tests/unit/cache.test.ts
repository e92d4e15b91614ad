// The cache of downloaded models on a disk: its layout, what is used from it, one download for all, what happens when it cannot be written, offline.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { getEventListeners, once } from "node:events";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { downloadFileToCacheDir, scanCacheDir } from "@huggingface/hub";
import { build } from "esbuild";
import { availability, inspect, type LoadOptions, type LoadProgress, listModels, load, type Model, pull, removeModel } from "lfm2-wasm";
import { openPath } from "../../src/adapters/node/files.ts";
import { threadsOf } from "../../src/adapters/node/threads.ts";
import { availabilityWith } from "../../src/downloads.ts";
import { validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { writeFiles } from "../bad-files/write.ts";
import { checkpointFolder, kernels } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { type BadServer, SCENARIOS, type Scenario, serve } from "../tools/bad-server.ts";
import { allOf, IMPATIENT, noise, STALL_MS, untilQuiet } from "./network.ts";

const mini = readFileSync("dist/mini.gguf");
const content = noise(700_001);
const filesOf = (dir: string): Record<string, Uint8Array> =>
  Object.fromEntries(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name))]));
const everyFile = (dir: string): string[] =>
  existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((f) => !lstatSync(join(dir, f)).isDirectory()) : [];

/** A server in another process. */
async function serveElsewhere(): Promise<{ hub: string; stop: () => void }> {
  const built = join("build", `bad-server-${process.pid}.mjs`);
  await build({
    entryPoints: ["tests/tools/bad-server.ts"],
    outfile: built,
    bundle: true,
    platform: "node",
    format: "esm",
    tsconfigRaw: {},
  });
  const text = `import { readFileSync } from "node:fs";
    import { serve } from ${JSON.stringify(pathToFileURL(built).href)};
    console.log((await serve({ "org/mini": { "mini.gguf": readFileSync("dist/mini.gguf") } })).hub);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", text], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return {
    hub: line.toString().trim(),
    stop: () => {
      child.kill();
      rmSync(built);
    },
  };
}

describe("the cache on a disk", () => {
  let root: string;
  let dir: string;
  let server: BadServer;
  let right: readonly number[];
  let count = 0;
  const network = { ...IMPATIENT, windowBytes: 1 << 19 };
  const options = (more: LoadOptions = {}): LoadOptions => ({ endpoint: server.hub, network, cache: { dir }, ...more });
  const tokensOf = async (model: Model): Promise<readonly number[]> => {
    const { tokens } = await model.generate("Tell me a story about a fox.", { maxTokens: 5, temperature: 0 });
    model.dispose();
    return [...tokens];
  };
  /** Bytes of weights that the server sent. */
  const sent = (): number => server.log.filter((r) => r.host === "cdn").reduce((sum, r) => sum + r.sentBytes, 0);
  const partials = (): string[] => everyFile(dir).filter((f) => f.endsWith(".incomplete"));
  const locks = (): string[] => everyFile(dir).filter((f) => f.includes(".lock"));
  const untilKept = async (bytes: number): Promise<void> => {
    const size = (): number => partials().reduce((sum, f) => sum + (statSync(join(dir, f), { throwIfNoEntry: false })?.size ?? 0), 0);
    while (size() < bytes) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  const model = (repo: string): string => join(dir, `models--${repo.replace("/", "--")}`);
  const commitOf = (repo: string): string => readFileSync(join(model(repo), "refs", "main"), "utf8");

  before(async () => {
    root = mkdtempSync(join(tmpdir(), "lfm2-cache-"));
    const sharded = filesOf(writeFiles(join(root, "sharded"), validSharded()));
    const split = filesOf(writeFiles(join(root, "split"), validSplit()));
    server = await serve({
      "org/mini": { "mini.gguf": mini },
      "org/noted": { "draft.gguf": mini },
      "org/noise": { "x.gguf": content },
      "org/folder": filesOf(join("models", "lfm2-mini")),
      "org/tiny": filesOf(checkpointFolder("tiny-gqa3")),
      "org/sharded": sharded,
      "org/split": split,
    });
    right = await tokensOf(await load(new Uint8Array(mini)));
  });
  after(async () => {
    await server.close();
    rmSync(root, { recursive: true, force: true });
  });
  beforeEach(() => {
    dir = join(root, `cache${count++}`);
    server.set({});
    server.replace("org/mini", "mini.gguf", mini);
    server.log.length = 0;
  });

  it("has the layout of Hugging Face's tools: blobs by their checksum, snapshots of links, refs", async () => {
    (await load("org/mini", options())).dispose();
    (await load("org/tiny", options())).dispose();
    for (const [repo, name] of [
      ["org/mini", "mini.gguf"],
      ["org/tiny", "model.safetensors"],
      ["org/tiny", "config.json"],
    ] as const) {
      const shown = join(model(repo), "snapshots", commitOf(repo), name);
      assert.match(readlinkSync(shown), /^\.\.\/\.\.\/blobs\/(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
      assert.ok(statSync(shown).isFile());
    }
    assert.deepEqual(readFileSync(join(model("org/mini"), "snapshots", commitOf("org/mini"), "mini.gguf")), mini);
    assert.deepEqual([partials(), locks()], [[], []]);
  });

  it("is a cache that Hugging Face's own client reads: every file by its name, size and revision, without a request", async () => {
    (await load("org/mini", options())).dispose();
    (await load("org/tiny", options())).dispose();
    const { repos, warnings } = await scanCacheDir(dir);
    assert.deepEqual(warnings, []);
    assert.deepEqual(repos.map(({ id }) => `${id.type} ${id.name}`).sort(), ["model org/mini", "model org/tiny"]);
    for (const { id, revisions } of repos) {
      assert.deepEqual(
        revisions.map(({ commitOid, refs }) => [commitOid, refs]),
        [[commitOf(id.name), ["main"]]],
      );
      for (const { path, blob } of revisions[0]!.files) assert.equal(blob.size, statSync(path).size);
    }
    const found = await downloadFileToCacheDir({
      repo: { type: "model", name: "org/mini" },
      path: "mini.gguf",
      revision: commitOf("org/mini"),
      cacheDir: dir,
      fetch: async () => assert.fail("a request"),
    });
    assert.deepEqual(readFileSync(found), mini);
  });

  it("is filled and read in one pass, and the second start asks for no byte of the files", async () => {
    for (const [repo, dtype] of [
      ["org/mini", undefined],
      ["org/folder", "bf16"],
      ["org/sharded", undefined],
      ["org/split", undefined],
    ] as const) {
      server.log.length = 0;
      const events: LoadProgress[] = [];
      (await load(repo, options({ dtype, onProgress: (p) => events.push(p) }))).dispose();
      const foretold = events[0]?.totalBytes ?? 0;
      const came = server.log.filter((r) => r.host === "cdn" || r.status === 206).reduce((sum, r) => sum + r.sentBytes, 0);
      assert.equal(came, foretold, `${repo}: every byte once`);
      assert.ok(events.every((e) => e.phase !== "cache-skipped"));
      server.log.length = 0;
      const again: LoadProgress[] = [];
      (await load(repo, options({ dtype, onProgress: (p) => again.push(p) }))).dispose();
      assert.deepEqual([again[0]?.phase, again[0]?.totalBytes, again.at(-1)?.phase], ["open", 0, "ready"]);
      assert.ok(
        server.log.every((r) => r.url.startsWith("/api/")),
        "the listing only",
      );
    }
  });

  it("uses files that another program put there, as links or as copies", async () => {
    (await load("org/mini", options())).dispose();
    const other = join(root, "other");
    cpSync(dir, other, { recursive: true, dereference: true }); // as where links cannot be made
    rmSync(join(other, "models--org--mini", "blobs"), { recursive: true });
    for (const cache of [dir, other]) {
      server.log.length = 0;
      assert.deepEqual(await tokensOf(await load("org/mini", options({ cache: { dir: cache } }))), right);
      assert.equal(sent(), 0);
    }
  });

  it("does not use a file of another length, and not one of another content once it made a load fail", async () => {
    (await load("org/mini", options())).dispose();
    const blob = everyFile(join(model("org/mini"), "blobs"))[0] ?? assert.fail();
    const path = join(model("org/mini"), "blobs", blob);
    truncateSync(path, 1000);
    assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
    assert.deepEqual(readFileSync(path), mini);
    const damaged = Buffer.from(mini);
    damaged.fill(255, 24, 64); // the first key's length
    writeFileSync(path, damaged);
    server.log.length = 0;
    assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
    assert.deepEqual([readFileSync(path).equals(mini), sent()], [true, mini.length]);
  });

  it("answers while the hub is out of reach, and instead of it where HF_HUB_OFFLINE says so", async () => {
    (await load("org/mini", options())).dispose();
    (await load("org/folder", options({ dtype: "bf16" }))).dispose();
    const down = { fetch: () => Promise.reject(new TypeError("no network")) };
    assert.deepEqual(await tokensOf(await load("org/mini", options(down))), right);
    (await load("org/folder", options({ ...down, dtype: "bf16" }))).dispose();
    (await load(`org/mini@${commitOf("org/mini")}:mini.gguf`, options(down))).dispose();
    await assert.rejects(load("org/tiny", options(down)), { name: "NetworkError", code: "dropped" });
    await assert.rejects(load("org/mini:Q4_K_M", options(down)), { name: "FormatError", message: /in the cache.*got "mini\.gguf"/ });
    server.set({ match: "api", status: 503 });
    assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
    server.set({});
    server.log.length = 0;
    process.env.HF_HUB_OFFLINE = "1";
    try {
      assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
      await assert.rejects(load("org/tiny", options()), { name: "NetworkError", code: "offline", message: /HF_HUB_OFFLINE/ });
      await assert.rejects(load("org/mini", options({ cache: false })), { name: "NetworkError", code: "offline" });
      assert.equal(server.log.length, 0);
    } finally {
      delete process.env.HF_HUB_OFFLINE;
    }
  });

  it("a commit and a file need no answer of the hub", async () => {
    (await load("org/mini", options())).dispose();
    server.log.length = 0;
    (await load(`org/mini@${commitOf("org/mini")}:mini.gguf`, options())).dispose();
    assert.equal(server.log.length, 0);
  });

  it("what has changed comes anew, and the old bytes stay", async () => {
    (await load("org/mini", options())).dispose();
    const changed = Buffer.from(mini);
    changed[changed.length - 1]! ^= 1;
    server.replace("org/mini", "mini.gguf", changed);
    (await load("org/mini", options())).dispose();
    const blobs = everyFile(join(model("org/mini"), "blobs"));
    assert.equal(blobs.length, 2);
  });

  it("where it lies is what the environment says", async () => {
    const saved = Object.fromEntries(["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"].map((n) => [n, process.env[n]]));
    const set = (values: Record<string, string | undefined>): void => {
      for (const [name, value] of Object.entries(values)) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    };
    try {
      for (const [values, place] of [
        [{ HF_HUB_CACHE: join(dir, "a"), HF_HOME: join(dir, "x") }, join(dir, "a")],
        [{ HF_HUB_CACHE: undefined, HF_HOME: join(dir, "b") }, join(dir, "b", "hub")],
        [{ HF_HOME: undefined, XDG_CACHE_HOME: join(dir, "c") }, join(dir, "c", "huggingface", "hub")],
      ] as const) {
        set(values);
        (await load("org/mini", { endpoint: server.hub, network })).dispose();
        assert.ok(existsSync(join(place, "models--org--mini", "refs", "main")), place);
      }
    } finally {
      set(saved);
    }
  });

  it("inspect leaves it alone", async () => {
    await inspect("org/mini", options());
    assert.ok(!existsSync(dir));
  });

  it("is no place for what is no model: a token is nowhere in it", async () => {
    server.set({ token: "hf_SECRETSECRET" });
    (await load("org/tiny", options({ token: "hf_SECRETSECRET" }))).dispose();
    for (const name of pick({ gate: ["drop-once", "flip-a-bit-always"], full: Object.keys(SCENARIOS) })) {
      server.set({ ...(SCENARIOS[name] ?? {}), token: "hf_SECRETSECRET" });
      await load("org/mini", options({ token: "hf_SECRETSECRET" })).then(tokensOf, (e) => assert.doesNotMatch(allOf(e), /SECRET/));
    }
    for (const file of everyFile(dir)) {
      assert.doesNotMatch(file, /SECRET/);
      assert.ok(!readFileSync(join(dir, file)).includes("SECRET"), file);
    }
  });

  describe("in every scenario of the network", () => {
    const blobs = (): string => join(model("org/noise"), "blobs");
    for (const [name, scenario] of Object.entries<Scenario>(SCENARIOS)) {
      it(`${name}: ${scenario.good}`, async () => {
        const isSilent = scenario.stall !== undefined || scenario.trickleHeaders === true;
        server.set(scenario.delay === undefined ? scenario : { delay: 50 });
        const patience = isSilent ? { network: { ...network, stallMs: STALL_MS } } : {};
        const error = await pull("org/noise", options(patience)).then(
          () => undefined,
          (e: unknown) => e as Error,
        );
        await untilQuiet(server);
        if (error) {
          assert.ok(["NetworkError", "FormatError"].includes(error.name), String(error));
          assert.notEqual(scenario.good, "yes", String(error));
        } else assert.notEqual(scenario.good, "no");
        assert.deepEqual(locks(), []);
        for (const file of everyFile(blobs()).filter((f) => !f.endsWith(".incomplete")))
          assert.ok(readFileSync(join(blobs(), file)).equals(content));
        server.set({});
        await pull("org/noise", options());
        assert.deepEqual([everyFile(blobs()).length, locks()], [1, []], "the next one mends it");
        assert.ok(readFileSync(join(blobs(), everyFile(blobs())[0] ?? "")).equals(content));
      });
    }

    it("a load gets over a bit that flips in the header, and does not go on with it later", async () => {
      const scenario = SCENARIOS["flip-a-bit-always"] ?? assert.fail();
      server.set({ ...scenario, times: 1 });
      assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
      rmSync(dir, { recursive: true });
      server.set(scenario);
      await assert.rejects(load("org/mini", options()), { name: "FormatError" });
      server.set({});
      assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
      assert.deepEqual([partials(), locks()], [[], []]);
    });
  });

  it("loads at once in one process share one download, whoever leaves", async () => {
    server.set({ drip: [16_384, 1] });
    const control = new AbortController();
    const aborted = load("org/mini", options({ signal: control.signal }));
    void untilKept(500_000).then(() => control.abort());
    const others = [load("org/mini", options()), load("org/mini", options({ dtype: "f32" })), pull("org/mini", options())] as const;
    await assert.rejects(aborted, { name: "AbortError" });
    for (const loaded of await Promise.all([others[0], others[1]])) assert.equal((await tokensOf(loaded)).length, 5);
    await others[2];
    assert.equal(sent(), mini.length);
    assert.deepEqual([partials(), locks()], [[], []]);
    await untilQuiet(server);
  });

  it("an abort leaves a part that the next start goes on from, at its byte, and nothing open", async () => {
    let kept = 0;
    for (let i = 1; i <= 3; i++) {
      const control = new AbortController();
      server.set({ drip: [16_384, 1] });
      void untilKept(kept + 300_000).then(() => control.abort());
      await assert.rejects(load("org/mini", options({ signal: control.signal })), { name: "AbortError" });
      await untilQuiet(server);
      assert.equal(getEventListeners(control.signal, "abort").length, 0);
      const [part = assert.fail("no part")] = partials();
      assert.ok(statSync(join(dir, part)).size > kept);
      kept = statSync(join(dir, part)).size;
      assert.deepEqual(locks(), []);
    }
    server.set({});
    server.log.length = 0;
    assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
    assert.equal(sent(), mini.length - kept);
  });

  it("nor does a load in a worker that is aborted, or whose progress throws: the next one waits for nobody", async () => {
    for (const end of pick({ gate: ["abort"], full: ["abort", "throw"] })) {
      const control = new AbortController();
      server.set({ drip: [16_384, 1] });
      let isOver = false;
      const onProgress = ({ phase }: LoadProgress): void => {
        assert.ok(!isOver, "told after its end");
        if (phase !== "download" && phase !== "read") return;
        isOver = end === "throw";
        if (isOver) throw new RangeError("enough");
        control.abort();
      };
      const aborted = load("org/mini", options({ engine: "worker", signal: control.signal, onProgress }));
      await assert.rejects(aborted, { name: end === "abort" ? "AbortError" : "RangeError" });
      assert.deepEqual(locks(), []);
      await removeModel("org/mini", { cacheDir: dir });
    }
  });

  it("a part that has all the bytes, left by a kill before its last step, needs none from the server", async () => {
    const control = new AbortController();
    server.set({ drip: [16_384, 1] });
    void untilKept(300_000).then(() => control.abort());
    await assert.rejects(load("org/mini", options({ signal: control.signal })), { name: "AbortError" });
    await untilQuiet(server);
    const [part = assert.fail("no part")] = partials();
    writeFileSync(join(dir, part), mini);
    server.set({});
    server.log.length = 0;
    assert.deepEqual(await tokensOf(await load("org/mini", options())), right);
    assert.deepEqual([sent(), partials()], [0, []]);
  });

  it("a draft is found, told, proved and fetched again as its model is", async () => {
    const events: LoadProgress[] = [];
    const both = options({ draft: "org/noted", onProgress: (p) => events.push(p) });
    (await load("org/mini", both)).dispose();
    assert.deepEqual(
      events.filter((p) => p.phase === "open").map((p) => [p.file, p.totalBytes, p.license]),
      [
        ["mini.gguf", mini.length, "lfm1.0"],
        ["draft.gguf", mini.length, "lfm1.0"],
      ],
    );
    assert.ok(
      events.every((p, i) => p.phase === "open" || (p.loadedBytes <= p.totalBytes && p.loadedBytes >= (events[i - 1]?.loadedBytes ?? 0))),
    );
    assert.equal(events.filter((p) => p.phase === "ready").length, 1);
    const read = events.filter((p) => p.phase === "read");
    assert.deepEqual([...new Set(read.map((p) => p.file))], ["draft.gguf", "mini.gguf"]);
    assert.equal(new Set(read.map((p) => p.totalBytes)).size, 1);
    const blob = join(model("org/noted"), "snapshots", commitOf("org/noted"), "draft.gguf");
    writeFileSync(blob, Buffer.from(mini).fill(7, 0, 64));
    (await load("org/mini", both)).dispose();
    assert.deepEqual(readFileSync(blob), mini);
  });

  it("a draft of other tokens is refused once, and stays in the cache; availability says so, and pull tells of a wrong one before it downloads", async () => {
    const other = options({ draft: "org/tiny" });
    const refused = { name: "UnsupportedError", code: "other-tokens" };
    await pull("org/tiny", options());
    const { status, reason, memoryBytes } = await availability("org/mini", other);
    assert.deepEqual([status, memoryBytes > 0], ["unavailable", true]);
    assert.match(reason ?? "", /^\[lfm2\] draft: expected a model with the same tokens, got /);
    await assert.rejects(load("org/mini", other), refused);
    const asked = (): number => server.log.filter((r) => r.url.includes("/api/models/org/tiny")).length;
    server.log.length = 0;
    await pull("org/tiny", options());
    const once = asked();
    server.log.length = 0;
    await assert.rejects(load("org/mini", other), refused);
    assert.deepEqual([asked(), once > 0, sent()], [once, true, 0]);
    await removeModel("org/mini", { cacheDir: dir });
    server.log.length = 0;
    for (const draft of ["org/none", "./none.gguf"]) await assert.rejects(pull("org/mini", options({ draft })), /none/);
    assert.equal(sent(), 0);
  });

  it("pull and availability answer for the draft, too", async () => {
    const both = options({ draft: "org/noted" });
    const own = await availability("org/mini", options());
    const before = await availability("org/mini", both);
    assert.deepEqual([before.status, before.downloadBytes, before.memoryBytes], ["downloadable", 2 * mini.length, 2 * own.memoryBytes]);
    const short = await availability("org/mini", options({ maxContextTokens: 64 }));
    const shorts = await availability("org/mini", { ...both, maxContextTokens: 64 });
    assert.deepEqual([shorts.memoryBytes, short.memoryBytes < own.memoryBytes], [2 * short.memoryBytes, true]);
    const maxMemoryBytes = 2 * own.memoryBytes - 1;
    const tight = await availability("org/mini", { ...both, maxMemoryBytes });
    assert.deepEqual([tight.status, /needs /.test(tight.reason ?? "")], ["unavailable", true]);
    const events: LoadProgress[] = [];
    const pulled = await pull("org/mini", { ...both, onProgress: (p) => events.push(p) });
    assert.deepEqual([pulled.id, pulled.sizeBytes, pulled.downloadedBytes], ["org/mini", 2 * mini.length, 2 * mini.length]);
    assert.deepEqual(
      events.filter((p) => p.phase === "open").map((p) => p.file),
      ["mini.gguf", "draft.gguf"],
    );
    const downloads = events.filter((p) => p.phase === "download");
    assert.ok(downloads.every((p, i) => p.loadedBytes <= p.totalBytes && p.loadedBytes >= (downloads[i - 1]?.loadedBytes ?? 0)));
    assert.equal(events.at(-1)?.loadedBytes, 2 * mini.length);
    assert.deepEqual(
      events.filter((p) => p.phase === "ready").map((p) => p.totalBytes),
      [2 * mini.length],
    );
    server.log.length = 0;
    assert.equal((await availability("org/mini", both)).status, "available");
    (await load("org/mini", both)).dispose();
    assert.equal(sent(), 0);
  });

  it("availability plans with the threads of a load", async () => {
    const bytes = async (threads: number): Promise<number> => (await availability("models/lfm2-mini", { threads })).memoryBytes;
    const [one, two] = [await bytes(1), await bytes(2)];
    assert.ok(two > one);
    // a page's own thread has none, the worker that it starts has
    const workerThreads = threadsOf(pathToFileURL(join("dist", "thread.js")));
    const page = { runtime: "browser", open: openPath, kernels, noThreads: "a page", workerThreads } as const;
    const planned = async (more: LoadOptions): Promise<number> =>
      (await availabilityWith(page, "models/lfm2-mini", { threads: 2, ...more })).memoryBytes;
    assert.deepEqual([await planned({}), await planned({ engine: "here" })], [two, one]);
  });

  it("availability tells what is missing, what fits, and what cannot be, without the weights", async () => {
    const ask = (source: string, more: LoadOptions = {}): ReturnType<typeof availability> => availability(source, options(more));
    const before = await ask("org/mini");
    assert.deepEqual([before.status, before.downloadBytes, before.reason], ["downloadable", mini.length, undefined]);
    assert.ok(sent() < mini.length / 2, "only the header");
    assert.ok(!existsSync(dir), "and nothing is kept");
    const loaded = await load("org/mini", options());
    assert.ok(before.memoryBytes > 4e6 && before.memoryBytes <= loaded.info.memoryBytes);
    loaded.dispose();
    server.log.length = 0;
    assert.deepEqual(await ask("org/mini"), {
      ...{ status: "available", downloadBytes: 0 },
      ...{ memoryBytes: before.memoryBytes, license: "lfm1.0" },
    });
    assert.equal(sent(), 0);
    const small = await ask("org/mini", { maxMemoryBytes: 1e6 });
    assert.deepEqual([small.status, /needs /.test(small.reason ?? "")], ["unavailable", true]);
    assert.match((await ask("org/nowhere")).reason ?? "", /401/);
    assert.equal((await availability(join("models", "lfm2-mini"))).status, "available");
    await assert.rejects(ask("org/mini", { dtype: "q3" as "q4" }), { name: "InputError" });
    server.set({ drip: [8192, 5] });
    rmSync(model("org/mini"), { recursive: true });
    const control = new AbortController();
    const loading = load("org/mini", options({ signal: control.signal }));
    while (partials().length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    assert.equal((await ask("org/mini")).status, "downloading");
    await untilKept(200_000);
    control.abort();
    await assert.rejects(loading, { name: "AbortError" });
    const [part = assert.fail("no part")] = partials();
    const left = mini.length - statSync(join(dir, part)).size;
    const after = await ask("org/mini");
    assert.deepEqual([after.status, after.downloadBytes], ["downloadable", left]);
    assert.equal((await inspect("org/mini", options())).downloadBytes, left);
  });

  it("listModels shows what this package runs, whoever downloaded it, and removeModel removes it", async () => {
    assert.deepEqual(await listModels({ cacheDir: dir }), []);
    (await load("org/mini", options())).dispose();
    (await load("org/tiny", options())).dispose();
    const other = join(model("org/other"), "snapshots", "0".repeat(40));
    mkdirSync(other, { recursive: true });
    writeFileSync(join(other, "config.json"), '{"model_type":"bert"}');
    mkdirSync(join(dir, "datasets--org--data"), { recursive: true });
    const models = await listModels({ cacheDir: dir });
    assert.deepEqual(
      models.map((m) => [m.id, m.revisions[0]?.names]),
      [
        ["org/mini", ["main"]],
        ["org/tiny", ["main"]],
      ],
    );
    assert.equal(models[0]?.sizeBytes, mini.length + 40, "the file, and the commit's name");
    assert.equal((await removeModel("org/mini", { cacheDir: dir }))?.sizeBytes, mini.length + 40);
    assert.deepEqual(
      (await listModels({ cacheDir: dir })).map((m) => m.id),
      ["org/tiny"],
    );
    for (const id of ["org/mini:q4", "mini", "../x", ""]) await assert.rejects(removeModel(id, { cacheDir: dir }), { name: "InputError" });
    const query = { cache_dir: dir } as never;
    for (const call of [listModels(query), removeModel("org/tiny", query)])
      await assert.rejects(call, {
        name: "InputError",
        message: /Models?: expected names that CacheQuery lists, got "cache_dir"\. Write cacheDir\./,
      });
  });

  describe("that cannot be written", () => {
    it("costs the next start, not this one, and is told once", async () => {
      writeFileSync(dir, "a file in its place");
      const events: LoadProgress[] = [];
      assert.deepEqual(await tokensOf(await load("org/folder", options({ dtype: "q4", onProgress: (p) => events.push(p) }))), right);
      const skipped = events.filter((e) => e.phase === "cache-skipped");
      assert.equal(skipped.length, 1);
      assert.match(skipped[0]?.reason ?? "", /error of the file system/);
      await assert.rejects(pull("org/mini", options()), { name: "StorageError" });
      rmSync(dir);
    });

    /** A process that may write files of at most so many KiB: the same error as of a full disk, without one. */
    const limited = (kib: number, code: string): { status: number | null; output: string } => {
      const text = `process.on("SIGXFSZ", () => {});\nconst options = ${JSON.stringify(options())};\n${code}`;
      const run = spawnSync("bash", ["-c", `ulimit -f ${kib}; exec "$0" --input-type=module -e "$1"`, process.execPath, text], {
        encoding: "utf8",
      });
      assert.equal(run.stderr, "");
      return { status: run.status, output: run.stdout };
    };

    it("a full disk costs the next start, not this one; a pull fails, and nothing is half-written", async () => {
      // the server is in this process: another one must serve while spawnSync blocks it
      const helper = await serveElsewhere();
      try {
        const code = `options.endpoint = ${JSON.stringify(helper.hub)};
          import { load, pull } from "lfm2-wasm";
          const skipped = [];
          const model = await load("org/mini", { ...options, onProgress: (p) => p.phase === "cache-skipped" && skipped.push(p.reason) });
          const { tokens } = await model.generate("Tell me a story about a fox.", { maxTokens: 5, temperature: 0 });
          const error = await pull("org/mini", options).catch((e) => e);
          console.log(JSON.stringify({ tokens: [...tokens], skipped, error: [error.name, error.code, error.message] }));
          model.dispose();`;
        for (const kib of [1, 700, 2000]) {
          const { output } = limited(kib, code);
          const { tokens, skipped, error } = JSON.parse(output) as { tokens: number[]; skipped: string[]; error: string[] };
          assert.deepEqual(tokens, right);
          assert.equal(skipped.length, 1);
          assert.deepEqual(error.slice(0, 2), ["StorageError", "storage-full"], error[2]);
          assert.match(error[2] ?? "", /Free some space/);
          assert.deepEqual([partials(), locks()], [[], []]);
        }
      } finally {
        helper.stop();
      }
    });
  });
});
