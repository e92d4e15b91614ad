// The cache and processes: a kill at any moment of a download, a write (of a packed image too), the replacement of an old version and an eviction; two at once; an interrupted command.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type LoadOptions, listModels, load, removeModel } from "lfm2-wasm";
import { installed } from "../runtimes/index.mjs";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { IMPATIENT } from "./network.ts";
import { Plain } from "./plain-server.ts";

const mini = readFileSync("dist/mini.gguf");
const KILLS = pick({ gate: 10, full: 200 });
/** Of plain addresses' downloads, of replacements, of packed images' evictions: each of these. */
const MORE_KILLS = pick({ gate: 1, full: 60 });

/** Numbers from 0 to 1 that are the same in every run. */
function randoms(seed: number): () => number {
  let x = seed;
  return () => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    return x / 2 ** 32;
  };
}

const withArgs = (code: string, args: object): string => `const args = ${JSON.stringify(args)};\n${code}`;

/** A process of its own that runs `code`, a module's text, with `args` as `args`. */
const run = (code: string, args: object): Running => listening(process.execPath, ["--input-type=module", "-e", withArgs(code, args)]);

type Running = ChildProcess & { readonly output: Promise<string> };

function listening(binary: string, flags: readonly string[]): Running {
  const child = spawn(binary, flags, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout?.on("data", (bytes: Buffer) => {
    said += bytes.toString();
  });
  return Object.assign(child, { output: once(child, "close").then(() => said) });
}

/** Writes an empty line when it waits for another, and what came of it at the end. */
const LOAD = `
import { load } from "lfm2-wasm";
const phases = new Set();
const { source = "org/mini", ...options } = args;
const onProgress = ({ phase }) => {
  if (phase === "wait" && !phases.has(phase)) console.log();
  phases.add(phase);
};
const model = await load(source, { ...options, onProgress });
const { tokens } = await model.generate("Hello", { maxTokens: 4, temperature: 0 });
console.log(JSON.stringify({ tokens: [...tokens], phases: [...phases] }));
model.dispose();
`;
const LIST = `
import { listModels, removeModel } from "lfm2-wasm";
const { remove, ...query } = args;
const models = await listModels(query);
const removed = remove && (await removeModel(remove, query));
console.log(JSON.stringify({ ids: models.map(({ id }) => id), freeBytes: models.freeBytes, removedBytes: removed?.sizeBytes }));
`;
const REMOVE = `
import { listModels, removeModel } from "lfm2-wasm";
await listModels(args); // the code is there
console.log("begin");
await removeModel("org/mini", args);
`;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const filesIn = (dir: string): string[] =>
  existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((f) => !lstatSync(join(dir, f)).isDirectory()) : [];

describe("the cache and processes", () => {
  let root: string;
  let dir: string;
  let server: BadServer;
  let count = 0;
  let right: readonly number[];
  const network = { ...IMPATIENT, windowBytes: 1 << 19 };
  const args = (more: object = {}): object => ({ endpoint: server.hub, network, cache: { dir, packed: true }, ...more });
  const sent = (): number => server.log.filter((r) => r.host === "cdn").reduce((sum, r) => sum + r.sentBytes, 0);
  const blobs = (): string => join(dir, "models--org--mini", "blobs");
  const partial = (): number => {
    const name = filesIn(blobs()).find((f) => f.endsWith(".incomplete"));
    return name === undefined ? 0 : statSync(join(blobs(), name)).size;
  };
  let packedImage: string | undefined;
  const start = async (): Promise<readonly number[]> => {
    const model = await load("org/mini", args());
    const { tokens } = await model.generate("Hello", { maxTokens: 4, temperature: 0 });
    packedImage = model.info.packedImage;
    model.dispose();
    return [...tokens];
  };
  const images = (): string[] => filesIn(join(dir, ".lfm2-wasm", "packed")).filter((name) => name.endsWith(".safetensors"));
  const kill = async (child: ChildProcess): Promise<void> => {
    const over = child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined;
    child.kill("SIGKILL");
    await over;
  };

  before(async () => {
    root = mkdtempSync(join(tmpdir(), "lfm2-kill-"));
    server = await serve({ "org/mini": { "mini.gguf": mini } });
    dir = join(root, "right");
    right = await start();
  });
  after(async () => {
    await server.close();
    rmSync(root, { recursive: true, force: true });
  });
  beforeEach(() => {
    dir = join(root, `cache${count++}`);
    server.set({});
    server.log.length = 0;
  });

  /** Whatever was killed: what lies there under its name is whole, and a start brings the rest and no more. */
  async function checkRestart(what: string): Promise<void> {
    for (const name of filesIn(blobs()))
      if (!name.endsWith(".incomplete")) assert.ok(readFileSync(join(blobs(), name)).equals(mini), `${what}: torn`);
    const isWhole = filesIn(blobs()).some((name) => !name.endsWith(".incomplete"));
    const kept = isWhole ? mini.length : partial();
    server.set({});
    server.log.length = 0;
    assert.deepEqual(await start(), right, what);
    assert.equal(sent(), mini.length - kept, `${what}: ${kept} bytes were there`);
    // killed between the file's name and the lock's removal, a dead holder's lock stays: nobody asks for it beside a whole file
    const left = isWhole ? /incomplete/ : /incomplete|\.lock/;
    assert.deepEqual(
      filesIn(dir).filter((f) => left.test(f)),
      [],
      what,
    );
  }

  it("go on at the byte where a download or a write was killed, whenever that was", async () => {
    const random = randoms(7);
    let resumed = 0;
    for (let i = 0; i < KILLS; i++) {
      dir = join(root, `kill${i}`);
      server.set({ drip: [65_536, 1] });
      server.log.length = 0;
      // at a byte, and a moment later: the last ones hit the proof and the name
      const at = Math.floor(random() * 1.1 * mini.length);
      const delayMs = random() * 20;
      const child = run(LOAD, args());
      while (sent() < Math.min(at, mini.length) && child.exitCode === null) await sleep(1);
      await sleep(delayMs);
      await kill(child);
      if (partial() > 0) resumed++;
      await checkRestart(`kill ${i} at ${at} + ${delayMs.toFixed(1)} ms`);
    }
    assert.ok(resumed >= KILLS / 2, `only ${resumed} kills left a part`);
  });

  it("survive a kill again and again, never from the start", async () => {
    const random = randoms(11);
    let before = 0;
    server.set({ drip: [16_384, 1] });
    for (let i = 0; i < pick({ gate: 4, full: 30 }); i++) {
      const child = run(LOAD, args());
      const goal = before + Math.floor((random() * mini.length) / 8) + 1;
      while (partial() < goal && child.exitCode === null) await sleep(1);
      await kill(child);
      if (sent() >= mini.length) break; // the rest may have come before the kill
      assert.ok(partial() >= before, `${partial()} after ${before}`);
      before = partial();
    }
    const total = sent();
    await checkRestart("many kills");
    assert.ok(total < 2 * mini.length, `${total} bytes for ${before}`);
  });

  it("find a model whole or not at all where its removal was killed", async () => {
    const random = randoms(13);
    dir = join(root, "evict");
    await start();
    const states = new Set<string>();
    for (let i = 0; i < KILLS; i++) {
      const child = run(REMOVE, { cacheDir: dir });
      await once(child.stdout as NodeJS.ReadableStream, "data");
      // every other time once the model is gone, and its image may be on the way
      for (let until = Date.now() + 5000; i % 2 === 1 && existsSync(join(dir, "models--org--mini")) && Date.now() < until; );
      await sleep(random() * (i % 2 === 1 ? 1.5 : 8));
      await kill(child);
      const there = await listModels({ cacheDir: dir });
      assert.ok(there.length <= 1);
      assert.ok(!readdirSync(dir).some((name) => name.includes("trash")), "the rest is swept");
      // its image goes last: one that is left is of the same bytes, and serves them again
      const isPacked = images().length === 1;
      assert.ok(isPacked || there.length === 0);
      states.add(`${there.length} ${isPacked}`);
      server.log.length = 0;
      assert.deepEqual(await start(), right);
      assert.equal(sent(), there.length === 1 ? 0 : mini.length);
      assert.equal(packedImage, isPacked ? "read" : "written");
      assert.equal(images().length, 1);
    }
    assert.ok(states.size > 1, [...states].join(", "));
    const removed = await removeModel("org/mini", { cacheDir: dir });
    assert.equal(removed?.sizeBytes, mini.length + 40, "the file, and the commit's name");
    assert.equal(await removeModel("org/mini", { cacheDir: dir }), undefined);
    assert.deepEqual(await listModels({ cacheDir: dir }), []);
  });

  describe("at a plain address", () => {
    const other = Buffer.from(mini);
    other[other.length - 1]! ^= 1;
    let plain: Plain;
    let address: string;
    before(async () => {
      plain = new Plain();
      address = `${await plain.start()}/models/mini.gguf`;
    });
    after(() => plain.close());

    const serveVersion = (bytes: Buffer, etag: string, drip: number): void => {
      plain.files.set("/models/mini.gguf", { bytes, etag });
      Object.assign(plain, { sentBytes: 0, drip });
    };
    const options = (): LoadOptions => ({ network, cache: { dir } });
    const startAt = async (more: LoadOptions = {}): Promise<void> => {
      const model = await load(address, { ...options(), ...more });
      assert.deepEqual([...(await model.generate("Hello", { maxTokens: 4, temperature: 0 })).tokens], right);
      model.dispose();
    };
    const kept = (): string[] => filesIn(dir).filter((name) => name.includes("blobs"));
    const keptPart = (): number => {
      const name = kept().find((file) => file.endsWith(".incomplete"));
      return name === undefined ? 0 : (statSync(join(dir, name), { throwIfNoEntry: false })?.size ?? 0);
    };
    /** What lies there under its name is one of the versions, whole. @returns which */
    const whole = (what: string): string[] =>
      kept()
        .filter((name) => !name.endsWith(".incomplete"))
        .map((name) => {
          const bytes = readFileSync(join(dir, name));
          assert.ok(bytes.equals(mini) || bytes.equals(other), `${what}: torn`);
          return bytes.equals(other) ? "new" : "old";
        });
    /** Kills a load of `address` when so many bytes were sent, and a moment later. */
    const killAt = async (bytes: number, delayMs: number): Promise<void> => {
      const child = run(LOAD, { ...options(), source: address });
      while (plain.sentBytes < Math.min(bytes, mini.length) && child.exitCode === null) await sleep(1);
      await sleep(delayMs);
      await kill(child);
    };
    /** The server may send the first piece of its first answer for nothing, and what is on its way when a connection is closed. */
    const SLACK = 1 << 17;

    // the gate has the replacement, which is a download as well
    const downloads = pick({ gate: [], full: [MORE_KILLS] });
    for (const kills of downloads)
      it("go on at the byte where a download was killed", async () => {
        const random = randoms(17);
        for (let i = 0; i < kills; i++) {
          dir = join(root, `address${i}`);
          serveVersion(mini, '"one"', 1);
          const [at, delayMs] = [Math.floor((0.2 + 0.9 * random()) * mini.length), random() * 20];
          await killAt(at, delayMs);
          const what = `kill ${i} at ${at} + ${delayMs.toFixed(1)} ms`;
          const there = whole(what).length > 0 ? mini.length : keptPart();
          if (at > mini.length / 2 && at < mini.length) assert.ok(there > mini.length / 4, `${what}: ${there} bytes were kept`);
          serveVersion(mini, '"one"', 0);
          await startAt();
          assert.ok(plain.sentBytes <= mini.length - there + SLACK, `${what}: ${plain.sentBytes} bytes, ${there} were kept`);
          assert.deepEqual([whole(what), keptPart()], [["old"], 0], what);
        }
      });

    it("have the old version or the new one where its replacement was killed, without a network too", async () => {
      const random = randoms(19);
      const down = { fetch: () => Promise.reject(new TypeError("no network")) };
      const states = new Set<string>();
      for (let i = 0; i < MORE_KILLS; i++) {
        dir = join(root, `replaced${i}`);
        serveVersion(mini, '"one"', 0);
        await startAt();
        serveVersion(other, '"two"', 1);
        // most of them late: the new version is proved and noted, and the old one goes, in the last milliseconds
        const [at, delayMs] = [Math.floor((0.6 + 0.5 * random()) * mini.length), random() * 60];
        await killAt(at, delayMs);
        const what = `kill ${i} at ${at} + ${delayMs.toFixed(1)} ms`;
        const there = whole(what);
        states.add(there.sort().join());
        assert.ok(there.length > 0, `${what}: none is left`);
        await startAt(down);
        const part = there.includes("new") ? mini.length : keptPart();
        serveVersion(other, '"two"', 0);
        await startAt();
        assert.ok(plain.sentBytes <= mini.length - part + SLACK, `${what}: ${plain.sentBytes} bytes, ${part} were kept`);
        assert.ok(whole(what).includes("new"), what);
      }
      if (MORE_KILLS > 10) assert.ok(states.has("old") && states.has("new"), [...states].join(" | "));
    });
  });

  it("have room and whole images where the eviction of packed ones was killed", async () => {
    const random = randoms(23);
    const [count, sizeBytes, mostBytes] = [400, 1 << 26, 2 ** 34];
    const folder = (): string => join(dir, ".lfm2-wasm", "packed");
    const names = Array.from({ length: count }, (_, i) => `${i.toString(16).padStart(16, "0")}.safetensors`);
    const bytesKept = (): number => images().reduce((sum, name) => sum + statSync(join(folder(), name)).size, 0);
    dir = join(root, "images");
    await start();
    const [own = assert.fail()] = images();
    const content = readFileSync(join(folder(), own));
    const isOwn = (name: string): boolean => name === own;
    let between = 0;
    for (let i = 0; i < MORE_KILLS; i++) {
      // files of zeros that take no room on the disk: 25 GiB, the first the longest unused
      rmSync(folder(), { recursive: true });
      mkdirSync(folder());
      for (const [n, name] of names.entries()) {
        writeFileSync(join(folder(), name), "");
        truncateSync(join(folder(), name), sizeBytes);
        utimesSync(join(folder(), name), 1_700_000_000 + n, 1_700_000_000 + n);
      }
      const child = run(LOAD, args());
      const left = Math.floor(count - random() * (count - mostBytes / sizeBytes));
      while (readdirSync(folder()).length > left && child.exitCode === null) await sleep(0);
      if (i % 4 === 3) await sleep(random() * 20); // while the new image is written, or named
      await kill(child);
      const there = images();
      const others = there.filter((name) => !isOwn(name));
      assert.deepEqual(others, names.slice(count - others.length), `kill ${i}: the longest unused go first, and only those that must`);
      assert.ok(others.length * sizeBytes > mostBytes - 2 * sizeBytes, `kill ${i}: ${others.length} are left`);
      assert.ok(others.length < count, `kill ${i}: none was evicted`);
      if (others.length * sizeBytes > mostBytes) between++;
      if (there.some(isOwn)) assert.ok(readFileSync(join(folder(), own)).equals(content), `kill ${i}: torn`);
      assert.deepEqual(await start(), right);
      assert.equal(packedImage, there.some(isOwn) ? "read" : "written");
      assert.ok(readFileSync(join(folder(), own)).equals(content));
      assert.ok(bytesKept() <= mostBytes, `kill ${i}: ${bytesKept()} bytes`);
    }
    if (MORE_KILLS > 10) assert.ok(between > MORE_KILLS / 4, `only ${between} were killed between two files`);
  });

  it("download once where two start at once; the second says that it waits", async () => {
    server.set({ drip: [65_536, 2] });
    const two = [run(LOAD, args()), run(LOAD, args()), run(LOAD, args())];
    const said = (await Promise.all(two.map((child) => child.output))).map(
      (text) => JSON.parse(text) as { tokens: number[]; phases: string[] },
    );
    for (const { tokens } of said) assert.deepEqual(tokens, right);
    assert.equal(sent(), mini.length);
    assert.ok(said.filter(({ phases }) => phases.includes("wait")).length >= 1);
  });

  it("take over from one that dies, at its byte", async () => {
    server.set({ drip: [8192, 10] });
    const first = run(LOAD, args());
    while (partial() < 300_000) await sleep(1);
    const second = run(LOAD, args());
    await sleep(300);
    await kill(first);
    const kept = partial();
    const before = sent();
    const { tokens } = JSON.parse(await second.output) as { tokens: number[] };
    assert.deepEqual(tokens, right);
    assert.ok(sent() - before <= mini.length - kept + 500_000, "what was in flight to the first may still have been sent");
    assert.ok(sent() < 2 * mini.length - kept, `${sent()} bytes in all, ${kept} were kept`);
  });

  /** How each runs a program. */
  const FLAGS = { deno: ["run", "--quiet", "--no-lock", "-A"], bun: ["run", "--no-install"] } as const;
  for (const { name, binary } of installed(pick({ gate: [], full: ["deno", "bun"] as const }), "the cache in Deno and Bun"))
    it(`share a download with ${name}, take over from it and it from them, and read what it keeps`, async () => {
      const entry = pathToFileURL(resolve("dist", `${name}.js`)).href;
      const mains: string[] = [];
      const there = (code: string, args: object): Running => {
        const main = resolve("build", `cache-${name}-${process.pid}-${mains.length}.mjs`); // below the package's dependencies
        mains.push(main);
        writeFileSync(main, withArgs(code, args).replace('"lfm2-wasm"', JSON.stringify(entry)));
        return listening(binary, [...FLAGS[name as keyof typeof FLAGS], main]);
      };
      const listed = async (more: object = {}): Promise<{ ids: string[]; freeBytes: number; removedBytes?: number }> =>
        JSON.parse(await there(LIST, { cacheDir: dir, ...more }).output);
      const told = async (child: Running): Promise<{ tokens: number[]; phases: string[] }> => JSON.parse(await child.output);
      try {
        for (const [first, second] of [
          [there, run],
          [run, there],
        ] as const) {
          server.set({ drip: [4096, 10] });
          server.log.length = 0;
          const dies = first(LOAD, args());
          while (partial() < 300_000) await sleep(1);
          const goesOn = second(LOAD, args());
          await once(goesOn.stdout as NodeJS.ReadableStream, "data"); // it waits
          await kill(dies);
          const kept = partial();
          server.set({});
          const { tokens, phases } = await told(goesOn);
          assert.deepEqual([tokens, phases.includes("wait")], [right, true]);
          assert.ok(kept < mini.length && sent() < 2 * mini.length - kept, `${sent()} bytes in all, ${kept} were kept`);
          // whoever wrote them: file and packed image are those of the other, too
          server.log.length = 0;
          assert.deepEqual((await told(there(LOAD, args()))).tokens, right);
          assert.deepEqual([await start(), packedImage, sent()], [right, "read", 0]);
          const { ids, freeBytes, removedBytes } = await listed({ remove: "org/mini" });
          assert.deepEqual([ids, removedBytes], [["org/mini"], mini.length + 40]);
          assert.ok(freeBytes > 0);
          assert.deepEqual([await listModels({ cacheDir: dir }), images()], [[], []]);
        }
        server.set({ drip: [65_536, 2] });
        server.log.length = 0;
        const both = await Promise.all([told(there(LOAD, args())), told(run(LOAD, args())), told(there(LOAD, args()))]);
        for (const { tokens } of both) assert.deepEqual(tokens, right);
        assert.equal(sent(), mini.length);
      } finally {
        for (const main of mains) rmSync(main);
      }
    });

  it("refuse to remove what is being downloaded", async () => {
    server.set({ drip: [16_384, 2] });
    const child = run(LOAD, args());
    while (partial() < 300_000) await sleep(1);
    await assert.rejects(removeModel("org/mini", { cacheDir: dir }), { name: "StorageError", code: "in-use" });
    await kill(child);
    assert.ok(((await removeModel("org/mini", { cacheDir: dir }))?.partialBytes ?? 0) >= 300_000);
  });

  it("put up with a lock that is torn or whose holder is silent", async () => {
    await start();
    rmSync(join(dir, "models--org--mini"), { recursive: true });
    const lock = (text: string, ageS: number): void => {
      const folder = join(dir, ".locks", "models--org--mini");
      mkdirSync(folder, { recursive: true });
      const hash = readdirSync(join(root, "right", "models--org--mini", "blobs"))[0];
      const path = join(folder, `${hash}.lfm2-wasm.lock`);
      writeFileSync(path, text);
      utimesSync(path, Date.now() / 1000 - ageS, Date.now() / 1000 - ageS);
    };
    for (const [text, ageS] of [
      ["", 60],
      ["{", 60],
      [JSON.stringify({ token: "x", pid: process.pid, space: "another machine" }), 60],
    ] as const) {
      lock(text, ageS);
      assert.deepEqual(await start(), right);
      rmSync(join(dir, "models--org--mini"), { recursive: true });
    }
    // one who lives: waited for until the caller gives up
    lock(JSON.stringify({ token: "x", pid: process.pid, space: "another machine" }), 0);
    const phases: string[] = [];
    const loading = load("org/mini", { ...args(), signal: AbortSignal.timeout(400), onProgress: (p) => phases.push(p.phase) });
    await assert.rejects(loading, { name: "AbortError" });
    assert.deepEqual([...new Set(phases)], ["open", "wait"]);
  });
});
