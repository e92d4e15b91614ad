// What reaches the kernels: every address range lies in the tensor, buffer or page that it is meant for, ids and positions are in range, and what is not is refused before a step begins.
// The full run does the same once more with assertions in the kernels.
import assert from "node:assert/strict";
import { openPath } from "../../src/adapters/node/files.ts";
import { OP } from "../../src/kernels/commands.ts";
import type { KernelSource } from "../../src/kernels/variants.ts";
import { loadWith, type Platform } from "../../src/lfm2.ts";
import type { Cache } from "../../src/models/cache.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel, StepInput } from "../../src/models/language-model.ts";
import { type LoadModelOptions, loadModel } from "../../src/models/load-model.ts";
import { bytesSource, type Folder } from "../../src/weights/source.ts";
import { cases, type FileContent, type Files, validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { Random, seedOf } from "../bits/random.ts";
import { checkpointFolder, ggufFile, kernels, sameBits, threads } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { debugBuild } from "../tools/debug-build.ts";
import { type KernelWatch, watchKernels } from "../tools/kernel-watch.ts";

const debugKernels = (): KernelSource => {
  const bytes = debugBuild();
  return async () => bytes;
};
const BUILDS = pick<readonly (readonly [string, () => KernelSource])[]>({
  gate: [["the build that is fastest", () => kernels]],
  full: [
    ["the build that is fastest", () => kernels],
    ["the build with assertions", debugKernels],
  ],
});

/** Every kind of command: both operators first, GQA, biases, taps of 2 to 4, a head of its own; block types that kernels multiply by. */
const SHAPES: readonly (readonly [string, () => string, LoadModelOptions])[] = [
  ["tiny-attn-first", () => checkpointFolder("tiny-attn-first"), { kvDtype: "q8", dtype: "q8" }],
  ["tiny-quant, Q4_K", () => ggufFile("tiny-quant", "Q4_K"), {}],
  ["tiny-deep", () => checkpointFolder("tiny-deep"), { chunkTokens: 64 }],
  ["tiny-conv-only", () => checkpointFolder("tiny-conv-only"), { dtype: "f16" }],
  ["tiny-attn-only", () => checkpointFolder("tiny-attn-only"), { kvDtype: "f32", dtype: "q4" }],
  ["tiny-gqa3", () => checkpointFolder("tiny-gqa3"), { kvDtype: "f16", dtype: "f32" }],
  ["tiny-quant, Q6_K", () => ggufFile("tiny-quant", "Q6_K"), { kvDtype: "q8" }],
  ["tiny-quant, Q3_K, two threads", () => ggufFile("tiny-quant", "Q3_K"), { threads: threads(2) }],
  ["tiny-conv-first, a long context", () => checkpointFolder("tiny-conv-first"), { maxContextTokens: 2048, chunkTokens: 512 }],
];

async function modelOf(path: string, source: KernelSource, options: LoadModelOptions): Promise<LanguageModel> {
  const checkpoint = await openCheckpoint(await openPath(path));
  const isPlain = source !== kernels;
  const { model } = await loadModel(checkpoint, source, { ...options, ...(isPlain ? { variant: "plain", threads: undefined } : {}) });
  await checkpoint.close();
  return model;
}

/** Sessions that grow, fork, go back, keep states and end, together and alone, up to the last position; then what sampling asks of the kernels. */
function program(model: LanguageModel, seed: number, rounds: number): void {
  const r = new Random(seedOf(`kernel-calls ${seed}`));
  const { vocabSize: V, hiddenSize: D } = model.config;
  const { chunkTokens, maxContextTokens } = model.options;
  const ids = (n: number): number[] => Array.from({ length: n }, () => r.below(V));
  let open: Cache[] = [model.openCache()];
  const room = (cache: Cache): number => maxContextTokens - cache.statePosition;
  const step = (inputs: readonly StepInput[]): void => {
    const T = inputs.reduce((sum, { ids, hidden }) => sum + (ids?.length ?? hidden!.length / D), 0);
    const kinds = [undefined, [], [T - 1], T <= model.logitsRows ? Array.from({ length: T }, (_, i) => i) : [0]];
    const logitsOf = kinds[r.below(kinds.length)];
    const taps = r.below(6) === 0 ? new Map() : undefined;
    const largest = logitsOf?.length && !taps ? r.below(3) * 3 : 0;
    model.step(inputs, { ...(logitsOf && { logitsOf }), largest, taps });
    if (!largest || !logitsOf) return;
    const found = logitsOf.map((_, i) => [...model.largest(i).ids]);
    model.logitsAfterAll();
    for (const [i, ids] of found.entries()) assert.deepEqual(ids, [...model.logits(i).topK(largest).ids]);
  };
  for (let n = 0; n < rounds; n++) {
    const cache = open[r.below(open.length)]!;
    const what = r.below(10);
    if (what < 3) {
      const count = Math.min(1 + r.below(chunkTokens), room(cache));
      if (count > 0) step([{ cache, ids: ids(count) }]);
    } else if (what < 5) {
      const inputs = open.flatMap((each) => (room(each) > 3 ? [{ cache: each, ids: ids(1 + r.below(3)) }] : []));
      if (inputs.length) step(inputs);
    } else if (what === 5) {
      const count = Math.min(5, room(cache));
      const hidden = Float32Array.from({ length: count * D }, () => r.below(1000) / 1000);
      if (count > 0) step([{ cache, hidden, positions: Array.from({ length: count }, (_, t) => 3 * t) }]);
    } else if (what === 6) {
      if (r.below(2)) cache.keepStates();
      cache.rewind(r.below(cache.position + 1));
    } else if (what === 7 && open.length < 4) open.push(cache.fork());
    else if (what === 8 && open.length < 4) open.push(model.openCache());
    else if (what === 9 && open.length > 1) {
      cache.dispose();
      open = open.filter((each) => each !== cache);
    }
  }
  const last = open[0]!;
  while (room(last) > 0) step([{ cache: last, ids: ids(Math.min(chunkTokens, room(last))) }]);
  assert.equal(last.position, maxContextTokens, "up to the last position");
  last.rewind(maxContextTokens - 1);
  model.step([{ cache: last, ids: ids(maxContextTokens - last.statePosition) }], { logitsOf: [0] });
  const logits = model.logits();
  logits.penalize([0, V - 1, V, -1, 2 ** 32, 3], 1.2);
  logits.divide(0.7);
  for (const k of [1, V]) logits.topK(k);
  logits.softmax();
  logits.weigh(new Float32Array(3));
  assert.ok(logits.isFinite() && logits.argmax() < V);
  for (const each of open) each.dispose();
}

for (const [build, source] of BUILDS) {
  describe(`calls of the kernels, ${build}`, () => {
    let used: KernelSource;
    before(() => {
      used = source();
    });
    const seen = new Set<string>();

    for (const [name, path, options] of SHAPES.slice(0, pick({ gate: 2, full: SHAPES.length })))
      it(`${name}: every range lies in its region, ids below V, positions below the capacity, entries among the session's pages`, () =>
        watchKernels(async (watch) => {
          watch.clears = true;
          const model = await modelOf(path(), used, { maxContextTokens: 320, ...options });
          assert.ok((watch.calls.get("pack_rows") ?? 0) > 5, "a load packs");
          for (let seed = 0; seed < pick({ gate: 1, full: 8 }); seed++) program(model, seed, pick({ gate: 30, full: 120 }));
          assert.equal(model.caches.pages.used, 0);
          assert.ok(watch.steps > 15, `${watch.steps} steps`);
          for (const op of watch.commands.keys()) seen.add(op);
          model.dispose();
        }));

    it("all kinds of commands were among them", () => {
      const missing = Object.keys(OP).filter((op) => !seen.has(op));
      // the merges are recorded for threads
      const others = ["nop", ...["merge_largest", "attention_merge"].filter((op) => !seen.has(op))];
      assert.deepEqual(
        missing.sort(),
        pick({ gate: [...others, "norm_rope_append_f32", "attention_f32"].filter((op) => !seen.has(op)), full: others }).sort(),
      );
    });

    it("ids and positions that are out of range are refused before a step, and change nothing", () =>
      watchKernels(async (watch) => {
        const model = await modelOf(checkpointFolder("tiny-attn-first"), used, { maxContextTokens: 64 });
        const { vocabSize: V } = model.config;
        const cache = model.openCache();
        const good = Array.from({ length: 60 }, (_, i) => i);
        model.step([{ cache, ids: good }], { logitsOf: [59] });
        const before = model.logits().copy();
        const { steps } = watch;
        const state = (): unknown => [cache.position, cache.statePosition, [...cache.pages]];
        const was = state();
        for (const id of [
          -1,
          V,
          V + 1,
          1.5,
          Number.NaN,
          Number.POSITIVE_INFINITY,
          2 ** 31,
          2 ** 32,
          -(2 ** 32),
          2 ** 53,
          "1" as never,
          undefined as never,
        ])
          assert.throws(() => model.step([{ cache, ids: [1, id] }]), {
            name: "InputError",
            message: new RegExp(`ids from 0 to ${V - 1}, got .* at index 1`),
          });
        assert.throws(() => model.step([{ cache, ids: [1, 2, 3, 4, 5] }]), { name: "InputError", code: "context-full" });
        for (const rows of [[2], [-1], [1, 0]]) {
          const ids = [1, 2];
          assert.throws(() => model.step([{ cache, ids }], { logitsOf: rows }), RangeError, `${rows}`);
        }
        assert.deepEqual([watch.steps, state()], [steps, was]);
        cache.rewind(59);
        model.step([{ cache, ids: good.slice(cache.statePosition) }], { logitsOf: [59 - cache.statePosition] });
        assert.ok(sameBits(model.logits().copy(), before));
        model.dispose();
      }));

    /** Changes a word of a step that is to be run: what the watch says of it, and what the kernels with assertions say. */
    type Sabotage = readonly [
      what: string,
      change: (words: Uint32Array, at: (op: string) => number, V: number) => void,
      watched: RegExp,
      asserted: RegExp,
    ];
    const table = (words: Uint32Array, command: number): number => words[command + 6]! / 4; // of norm_rope_append
    const SABOTAGES: readonly Sabotage[] = [
      ["an id of V", (words, at, V) => (words[words[at("gather") + 2]! / 4] = V), /id \d+ of \d+/, /an id that is no row/],
      ["an id of -1", (words, at) => (words[words[at("gather") + 2]! / 4] = 0xffffffff), /id \d+ of \d+/, /an id that is no row/],
      [
        "a position beyond the session's pages",
        (words, at) => (words[table(words, at("norm_rope_append_f16")) + 2] = 319),
        /page \d+: .* bytes at 4294967295/,
        /an entry that is no page/,
      ],
      [
        "a position beyond the capacity",
        (words, at) => (words[table(words, at("norm_rope_append_f16")) + 2] = 2 ** 20),
        /position 1048576 of 320/,
        /an entry that is no page|a page table outside/,
      ],
      [
        "a page table entry of 0",
        (words, at) => (words[words[table(words, at("norm_rope_append_f16")) + 3]! / 4] = 0),
        /page 0/,
        /an entry that is no page/,
      ],
      [
        "a page table entry at the memory's end",
        (words, at) => (words[words[table(words, at("norm_rope_append_f16")) + 3]! / 4] = 4 * words.length - 16),
        /page 0/,
        /an entry that is no page/,
      ],
      [
        "a convolution state outside the memory",
        (words, at) => (words[words[at("shortconv") + 6]! / 4 + 4] = 4 * words.length - 64),
        /the state/,
        /a convolution state outside/,
      ],
    ];

    it("a step that is spoilt on its way is told, and the next one is well", () =>
      watchKernels(async (watch) => {
        watch.clears = true;
        watch.looks = used === kernels;
        const model = await modelOf(checkpointFolder("tiny-attn-first"), used, { maxContextTokens: 320 });
        const cache = model.openCache();
        for (const [what, change, watched, asserted] of SABOTAGES) {
          watch.onStep = undefined;
          for (const ids of [[1, 2, 3], [4]]) model.step([{ cache, ids }]);
          watch.onStep = (words, commands, count) => {
            const at = (op: string): number => {
              for (let i = 0; i < count; i++) if (words[commands / 4 + 16 * i] === OP[op as keyof typeof OP]) return commands / 4 + 16 * i;
              return assert.fail(`no ${op}`);
            };
            change(words, at, model.config.vocabSize);
          };
          assert.throws(
            () => model.step([{ cache, ids: [5] }]),
            (error: Error) => {
              assert.equal(error.name, "PlatformError");
              assert.match(String((error.cause as Error).message), watch.looks ? watched : asserted, what);
              return true;
            },
          );
        }
        model.dispose();
      }));
  });
}

/** Files in memory. */
const folderOf = (files: Files): Folder => ({
  name: "folder",
  open: async (path) => {
    const content: FileContent | undefined = Object.hasOwn(files, path) ? files[path] : undefined;
    return content && (content instanceof Uint8Array ? bytesSource(content, path) : assert.fail("a sparse file was accepted"));
  },
  list: async () => Object.keys(files),
});

describe("calls of the kernels for odd files", () => {
  const platform: Platform = { runtime: "node", open: () => assert.fail("a path was opened"), kernels };
  const some = [validSharded(), validSplit()];
  it("a file that is odd but accepted leads to none outside its tensors", () =>
    watchKernels(async (watch: KernelWatch) => {
      const odd = pick({ gate: () => [], full: () => [...cases()].filter((c) => c.expect === "accept") })();
      for (const files of [...some, ...odd.map((c) => c.files)]) {
        const { steps } = watch;
        const model = await loadWith(platform, folderOf(files));
        await model.generate([{ role: "user", content: "the cat" }], { maxTokens: 3 });
        model.dispose();
        assert.ok(watch.steps >= steps + 3);
      }
    }));
});
