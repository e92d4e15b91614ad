// Every malformed file of tests/bad-files: the right error at the right moment, or, where a file is only odd, the same tokens. Whatever the outcome, in little time and
// memory, within its folder, without a request, and with a clean Object.prototype.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { inspectWith } from "../../src/inspect.ts";
import { loadWith, type Platform } from "../../src/lfm2.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { planModel } from "../../src/models/load-model.ts";
import { type ByteSource, type Folder, isPlainPath } from "../../src/weights/source.ts";
import { type Case, cases, type FileContent, type Files, validGguf, validRepo, validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { kernels } from "../golden/support.ts";

/** Time of the processor for a case (a busy machine takes longer), and memory beside the file's own size. */
const LIMIT_MS = 2000;
const LIMIT_BYTES = 64 * 1024 * 1024;

const statusBytes = (field: string): number =>
  1024 * Number(new RegExp(`^${field}:\\s*(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "utf8"))?.[1]);

/** @returns a function that tells by how many bytes the process has been larger at most than it is now: on Linux since now, elsewhere since its largest */
function watchMemory(): () => number {
  try {
    writeFileSync("/proc/self/clear_refs", "5"); // the mark of the most memory begins anew
    const now = statusBytes("VmRSS");
    return () => statusBytes("VmHWM") - now;
  } catch {
    const most = process.resourceUsage().maxRSS;
    return () => 1024 * (process.resourceUsage().maxRSS - most);
  }
}

const platform: Platform = {
  runtime: "node",
  open: () => assert.fail("a path was opened"),
  kernels,
};

/** Files in memory that remember what was done with them. */
class Watched implements Folder {
  readonly name = "folder";
  readonly opened: string[] = [];
  /** Sources that are open. */
  held = 0;
  readonly #files: Files;

  constructor(files: Files) {
    this.#files = files;
  }

  async open(path: string): Promise<ByteSource | undefined> {
    this.opened.push(path);
    const content = Object.hasOwn(this.#files, path) ? this.#files[path] : undefined;
    return content && this.#source(path, content);
  }

  async list(): Promise<string[]> {
    return Object.keys(this.#files);
  }

  #source(name: string, content: FileContent): ByteSource {
    const { head, size } = content instanceof Uint8Array ? { head: content, size: content.length } : content;
    this.held++;
    return {
      name,
      size,
      read: async (offset, length) => {
        const out = new Uint8Array(Math.min(length, size - offset));
        out.set(head.subarray(offset, offset + length));
        return out;
      },
      close: async () => {
        this.held--;
      },
    };
  }
}

const STAGES = ["open", "load", "chat", "generate"] as const;

/** Greedy ids of a reply to the same question. */
async function reply(folder: Folder, reached: (stage: number) => void): Promise<readonly number[]> {
  const checkpoint = await openCheckpoint(folder);
  try {
    await planModel(checkpoint, kernels);
  } finally {
    await checkpoint.close();
  }
  reached(1);
  const model = await loadWith(platform, folder);
  try {
    reached(2);
    const { tokens } = await model.generate([{ role: "user", content: "the cat" }], {
      temperature: 0,
      repetitionPenalty: 1,
      maxTokens: 12,
    });
    return [...tokens];
  } finally {
    model.dispose();
  }
}

const bytesOf = (files: Files): number => Object.values(files).reduce((sum, f) => sum + (f instanceof Uint8Array ? f.length : 0), 0);
const prototype = Object.getOwnPropertyNames(Object.prototype);

describe("bad files", () => {
  let safetensors: readonly number[];
  let gguf: readonly number[];
  const requests: unknown[] = [];
  const { fetch } = globalThis;

  before(async () => {
    globalThis.fetch = (address) => {
      requests.push(address);
      return Promise.reject(new Error("no request was expected"));
    };
    safetensors = await reply(new Watched(validRepo()), () => {});
    gguf = await reply(new Watched({ "model.gguf": validGguf() }), () => {});
    assert.equal(safetensors.length, 12);
    assert.ok(new Set(safetensors).size > 1, `${safetensors}`);
    assert.equal(gguf.length, 12);
  });
  after(() => {
    globalThis.fetch = fetch;
  });

  it("the valid ones load in every form, and shards and parts give the same tokens", async () => {
    assert.deepEqual(await reply(new Watched(validSharded()), () => {}), safetensors);
    assert.deepEqual(await reply(new Watched(validSplit()), () => {}), gguf);
    for (const files of [validRepo(), validSharded(), validSplit()]) {
      const { tensors, memory } = await inspectWith(platform, new Watched(files));
      assert.deepEqual([tensors.length, memory.length], [21, 6]);
      assert.ok(tensors.every((t) => t.memoryDtype !== undefined));
    }
  });

  if (process.platform === "linux")
    it("memory is measured case by case: a peak is seen after a higher one", async () => {
      for (const bytes of [4 * LIMIT_BYTES, 3 * LIMIT_BYTES]) {
        const before = statusBytes("VmRSS");
        const grownBytes = watchMemory();
        new Uint8Array(bytes).fill(1);
        assert.ok(grownBytes() > LIMIT_BYTES, `${grownBytes()} bytes of ${bytes}`);
        // What is freed goes back to the system on another thread: the next measure begins when it has gone.
        for (gc?.(); statusBytes("VmRSS") > before + LIMIT_BYTES / 2; gc?.()) await new Promise((resolve) => setTimeout(resolve, 10));
      }
    });

  async function check(c: Case): Promise<void> {
    const { files } = c;
    const folder = new Watched(files);
    let stage = 0;
    let answer: { tokens: readonly number[] } | { error: unknown };
    const grownBytes = watchMemory();
    const start = process.cpuUsage();
    try {
      const tokens = await reply(folder, (n) => {
        stage = n;
      });
      answer = { tokens };
    } catch (error) {
      answer = { error };
    }
    const { user, system } = process.cpuUsage(start);
    const grown = grownBytes();
    if (c.expect === "accept") {
      assert.ok("tokens" in answer, "error" in answer ? String(answer.error) : "");
      assert.deepEqual(answer.tokens, c.format === "gguf" || c.format === "split" ? gguf : safetensors);
    } else {
      assert.ok("error" in answer, "it was accepted");
      const { name, message } = answer.error as Error;
      assert.equal(name, c.expect, message);
      assert.ok(message.startsWith("[lfm2] "), message);
      assert.match(message, new RegExp(c.field, "is"));
      assert.ok(message.length < 1000, `a message of ${message.length} characters`);
      const latest = c.expect === "MemoryError" ? 1 : STAGES.indexOf(c.stage); // memory is a matter of the plan: nothing has been read
      assert.ok(stage <= latest, `it came at ${STAGES[stage]}: ${message}`);
    }
    assert.ok((user + system) / 1000 < LIMIT_MS, `${(user + system) / 1000} ms`);
    assert.ok(grown < bytesOf(files) + LIMIT_BYTES, `${grown} bytes of memory`);
    assert.equal(folder.held, 0, "a file is still open");
    for (const path of folder.opened) assert.ok(isPlainPath(path), `opened ${path}`);
    assert.deepEqual(requests, []);
    assert.deepEqual(Object.getOwnPropertyNames(Object.prototype), prototype);
    assert.equal(({} as { polluted?: unknown }).polluted, undefined);
    assert.equal((globalThis as { polluted?: unknown }).polluted, undefined);
  }

  for (const c of cases()) it(`${c.id}: ${c.wrong}`, () => check(c));
});
