// Faults at every await: a load is aborted, or its source fails, at operation 1, 2, 3 …; a trap in the kernels leaves a session empty and the model usable.
import assert from "node:assert/strict";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import { openPath } from "../../src/adapters/node/files.ts";
import { Lfm2Error } from "../../src/errors.ts";
import { generate } from "../../src/generate/generate.ts";
import { Scheduler } from "../../src/generate/scheduler.ts";
import { Session } from "../../src/generate/session.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { ByteSource, Folder } from "../../src/weights/source.ts";
import { validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { PART_NAMES, writeFiles } from "../bad-files/write.ts";
import { checkpointFolder, kernels, sameBits, threads } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { Watch } from "./watched-source.ts";

/** Positions 1 to `count`, or so many of them, evenly spread, both ends among them. */
function positions(count: number): number[] {
  const most = pick({ gate: 40, full: 100_000 });
  if (count <= most) return Array.from({ length: count }, (_, i) => i + 1);
  return Array.from({ length: most }, (_, i) => 1 + Math.round((i * (count - 1)) / (most - 1)));
}

/** Of a source, with `readInto` and without: the two ways by which bytes come in. */
const plain = (source: ByteSource): ByteSource => ({
  name: source.name,
  size: source.size,
  read: (offset, length, signal) => source.read(offset, length, signal),
  close: async () => source.close?.(),
});
const isFolder = (source: ByteSource | Folder): source is Folder => "open" in source;
const plainly = (source: ByteSource | Folder): ByteSource | Folder =>
  isFolder(source)
    ? {
        name: source.name,
        open: async (path) => {
          const file = await source.open(path);
          return file && plain(file);
        },
      }
    : plain(source);

type Source = ByteSource | Folder;
const asIs = (source: Source): Source => source;
const each = ["a folder", join("models", "lfm2-mini"), asIs] as const;
const other = ["a GGUF that only reads", join("dist", "mini.gguf"), plainly] as const;
const parts = ["a split GGUF", join(writeFiles(join("build", "faults", "split"), validSplit()), PART_NAMES[1]), asIs] as const;
const more = [
  ["shards", writeFiles(join("build", "faults", "shards"), validSharded()), asIs] as const,
  ["a GGUF", join("dist", "mini.gguf"), asIs] as const,
  ["a folder whose files only read", join("models", "lfm2-mini"), plainly] as const,
];

for (const [what, path, via] of pick({ gate: [each, other, parts], full: [each, other, parts, ...more] })) {
  describe(`a load from ${what}`, () => {
    let operations = 0;
    const open = async (): Promise<ByteSource | Folder> => via(await openPath(path));
    before(async () => {
      const watch = new Watch();
      (await load(watch.wrap(await open()))).dispose();
      assert.equal(watch.open, 0);
      operations = watch.operations;
      assert.ok(operations > 20, `only ${operations} operations`);
    });

    for (const [turn, when] of (["before", "after"] as const).entries()) {
      it(`ends in AbortError where the signal fires ${when} an operation, whichever it is`, async () => {
        const some = positions(operations).filter((_, i) => pick({ gate: i % 2 === turn, full: true }));
        for (const position of some) {
          const control = new AbortController();
          const fire = (): void => control.abort(new Error(`at ${position}`));
          let readsAtAbort = 0;
          const watch: Watch = new Watch((n) => {
            if (n !== position) return undefined;
            readsAtAbort = watch.reads;
            if (when === "after") return fire;
            fire();
            return undefined;
          });
          const loading = load(watch.wrap(await open()), { signal: control.signal });
          await assert.rejects(
            loading,
            (error: Error) => error.name === "AbortError" && (error.cause as Error).message === `at ${position}`,
            `operation ${position} of ${operations}`,
          );
          assert.deepEqual([watch.open, watch.reads - readsAtAbort], [0, 0], `open files and later reads, operation ${position}`);
        }
        const untouched = new Watch();
        (await load(untouched.wrap(await open()), { signal: new AbortController().signal })).dispose();
        assert.deepEqual([untouched.operations, untouched.open], [operations, 0]);
      });
    }

    it("ends in that error, or one of ours, where an operation fails, whichever it is", async () => {
      for (const position of positions(operations)) {
        const fault = new Error(`operation ${position} failed`);
        const watch = new Watch((n) => {
          if (n === position) throw fault;
          return undefined;
        });
        await assert.rejects(
          load(watch.wrap(await open())),
          (error: Error) => error === fault || (error instanceof Lfm2Error && error.cause === fault),
          `operation ${position} of ${operations}`,
        );
        assert.deepEqual([watch.open, watch.operations], [0, position], `open files and later operations, operation ${position}`);
      }
      const model = await load(await open());
      assert.equal((await model.generate("Hello", { maxTokens: 3 })).tokens.length, 3);
      model.dispose();
    });
  });
}

/** The words of linear memory at which the descriptor of a matrix with one segment of (rows, columns) lies; the last such one. */
function lastDescriptor({ caches: { memory } }: LanguageModel, rows: number, columns: number): number {
  const words = new Uint32Array(memory.buffer);
  const up = (n: number, to: number): number => Math.ceil(n / to) * to;
  for (let at = words.length - 8; at >= 0; at--) {
    const isIt =
      words[at] === 1 &&
      words[at + 1] === columns &&
      words[at + 2] === up(columns, 32) &&
      words[at + 3] === up(rows, 8) &&
      words[at + 5] === rows;
    if (isIt) return at;
  }
  assert.fail("no such descriptor");
}

for (const count of [1, 2])
  describe(`a trap in the kernels, ${count} threads`, () => {
    let model: LanguageModel;
    /** Breaks the head, so that a step traps after all layers have advanced their states; returns what mends it. */
    function breakHead(): () => void {
      const { vocabSize, hiddenSize } = model.config;
      const at = lastDescriptor(model, vocabSize, hiddenSize) + 7; // the segment's address
      const words = (): Uint32Array => new Uint32Array(model.caches.memory.buffer);
      const address = words()[at]!;
      assert.ok(address > 65_536 && address < model.memoryBytes);
      words()[at] = 0xffff0000;
      return () => {
        words()[at] = address;
      };
    }

    const isTrap = (error: Error): boolean => {
      assert.equal(error.name, "PlatformError");
      if (count === 1 || error.cause !== undefined) assert.ok(error.cause instanceof WebAssembly.RuntimeError, String(error.cause)); // else another thread's
      assert.match(error.message, /^\[lfm2\] .*expected .*got a trap/);
      return true;
    };
    const ids = [1, 76, 107, 88, 30, 200, 170, 115, 157, 208, 184, 182, 33, 41];
    const logitsOf = (cache: ReturnType<LanguageModel["openCache"]>, part: readonly number[]): Float32Array => {
      model.step([{ cache, ids: part }], { logitsOf: [part.length - 1] });
      return model.logits().copy();
    };

    before(async () => {
      // untied: the embedding stays whole when the head is broken
      const checkpoint = await openCheckpoint(await openPath(checkpointFolder("tiny-gqa3")));
      ({ model } = await loadModel(checkpoint, kernels, count > 1 ? { threads: threads(count) } : {}));
      await checkpoint.close();
    });

    it("empties every session of the step, and no other; a healthy step then works", () => {
      const [one, two, other] = [model.openCache(), model.openCache(), model.openCache()];
      const right = logitsOf(one, ids);
      one.reset();
      for (const cache of [one, two, other]) logitsOf(cache, ids.slice(0, 9));
      const pages = model.caches.pages.used;
      const mend = breakHead();
      const step = (): number =>
        model.step(
          [
            { cache: one, ids: ids.slice(9) },
            { cache: two, ids: ids.slice(9, 11) },
          ],
          { logitsOf: [4] },
        );
      assert.throws(step, isTrap);
      assert.deepEqual([one.position, two.position, other.position], [0, 0, 9]);
      assert.equal(model.caches.pages.used, pages - 2);
      mend();
      assert.ok(sameBits(logitsOf(other, ids.slice(9)), right), "the session that was not in the step goes on");
      for (const cache of [one, two]) {
        assert.ok(sameBits(logitsOf(cache, ids), right), "a session that was emptied starts again");
        assert.equal(cache.position, ids.length);
      }
      for (const cache of [one, two, other]) cache.dispose();
      assert.equal(model.caches.pages.used, 0);
    });

    it("ends a turn, and the next one starts from nothing", async () => {
      const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
      const turn = async (session: Session, mendAfter = () => {}): Promise<{ tokens: number[]; cached: number }> => {
        const out = { tokens: [] as number[], cached: -1 };
        const request = { ids: Uint32Array.from(ids), maxTokens: 12, stopIds: [], stop: [], sampling };
        for await (const event of generate({
          scheduler: new Scheduler(() => model),
          begin: async () => ({ session, isCancelled: () => undefined, end: () => {} }),
          request,
          table: undefined,
          takeSupplied: () => undefined,
        })) {
          if (event.type === "prefill") out.cached = event.cachedTokens;
          if (event.type === "token" && out.tokens.push(event.id) === 6) mendAfter();
        }
        return out;
      };
      const session = new Session(model.openCache());
      const right = await turn(session);
      session.rewind(0);
      let mend = (): void => {};
      await assert.rejects(
        turn(session, () => {
          mend = breakHead();
        }),
        isTrap,
      );
      assert.deepEqual([session.cache.position, session.tokens.length], [0, 0]);
      mend();
      assert.deepEqual(await turn(session), { tokens: right.tokens, cached: 0 });
      session.cache.dispose();
    });
  });
