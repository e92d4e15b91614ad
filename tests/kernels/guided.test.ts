// Guided runs: threads claim a product's groups of rows in runs that get shorter, so that one who comes late has less to do, and nobody waits for its share.
import assert from "node:assert/strict";
import { Worker } from "node:worker_threads";
import { OP } from "../../src/kernels/commands.ts";
import { DTYPE_CODE, GROUP_ROWS, packedBytes } from "../../src/memory/dtype.ts";
import { instantiate, type Kernels, threaded, type Variant } from "./harness.ts";

const PAGE_BYTES = 65_536;
const PAGES = 8;
/** Where assembly/lib/threads.ts counts the units of a command that are claimed, in words. */
const NEXT_UNIT = 448 / 4;
const K = 32;
const GROUPS = 203;
const FLOATS = GROUPS * GROUP_ROWS;
const [COMMAND, MATRIX, X, Y, WEIGHTS] = [PAGE_BYTES, PAGE_BYTES + 256, PAGE_BYTES + 1024, 2 * PAGE_BYTES, 3 * PAGE_BYTES] as const;
/** Groups that are worth a start of their own. */
const LEAST = 4;

/** A product of M rows of ones with GROUPS groups of rows, those of group g full of g + 1, into `y`. */
function product(variant: Variant, M: number, y: number): { k: Kernels; memory: WebAssembly.Memory; words: Int32Array } {
  const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES, shared: true });
  const words = new Int32Array(memory.buffer);
  const floats = new Float32Array(memory.buffer);
  words.set([OP.matmul, y, X, 0, MATRIX, M, FLOATS, K, 0], COMMAND / 4);
  words.set([1, K, K, FLOATS, DTYPE_CODE.f32, FLOATS, FLOATS, WEIGHTS], MATRIX / 4);
  floats.fill(1, X / 4, X / 4 + M * K);
  const size = packedBytes("f32", GROUP_ROWS, K) / 4;
  for (let g = 0; g < GROUPS; g++) floats.fill(g + 1, WEIGHTS / 4 + g * size, WEIGHTS / 4 + (g + 1) * size);
  return { k: instantiate(variant.module, memory), memory, words };
}

/** A helper that comes when all is done, or two seconds after the first group: it erases what thread 0 has computed, then does its own part of the step. */
const LATE = `const { workerData: { module, memory, command, y, floats } } = require("node:worker_threads");
  const k = new WebAssembly.Instance(module, { env: { memory, abort() {} } }).exports;
  const out = new Float32Array(memory.buffer, y, floats);
  k.ready();
  while (out.every(Number.isNaN));
  for (const end = Date.now() + 2000; out.some(Number.isNaN) && Date.now() < end; );
  for (let i = 0; i < floats; i++) if (!Number.isNaN(out[i])) out[i] = -1;
  k.run(command, 1, 1, 2);`;

describe("guided runs", () => {
  for (const variant of threaded) {
    for (const M of [1, 5])
      it(`${variant.name}, ${variant.threads} threads, ${M} rows: they get shorter, and each group is in one`, () => {
        // the result lies behind the memory: each run traps at its first group, and what is claimed by then tells where it would have ended
        const { k, words } = product(variant, M, PAGES * PAGE_BYTES);
        const runs: number[] = [];
        for (let from = 0; from < GROUPS; from = Atomics.load(words, NEXT_UNIT)) {
          assert.throws(() => k.run(COMMAND, 1, 0, variant.threads), WebAssembly.RuntimeError);
          const run = Atomics.load(words, NEXT_UNIT) - from;
          assert.ok(run > 0, `a run of ${run} groups from ${from}`);
          runs.push(run);
        }
        assert.equal(
          runs.reduce((a, b) => a + b),
          GROUPS,
        );
        // few rows are over in microseconds: longer runs
        assert.equal(runs[0], Math.floor(GROUPS / variant.threads / (M === 1 ? 1 : 2)));
        for (const [i, run] of runs.entries())
          assert.ok(run <= (runs[i - 1] ?? run) && (run >= LEAST || i === runs.length - 1), runs.join());
        assert.ok((runs.at(-1) ?? GROUPS) <= LEAST, runs.join());
      });

    if (variant.threads === 2)
      it(`${variant.name}: with a helper that is late, the first thread computes more than its half, and no group is computed twice`, async () => {
        const { k, memory } = product(variant, 1, Y);
        const out = new Float32Array(memory.buffer, Y, FLOATS).fill(Number.NaN);
        const workerData = { module: variant.module, memory, command: COMMAND, y: Y, floats: FLOATS };
        const helper = new Worker(LATE, { eval: true, workerData });
        try {
          assert.equal(k.recover(1), 1);
          assert.equal(k.run_all(COMMAND, 1, 2), 0);
        } finally {
          await helper.terminate();
        }
        const groups = Array.from({ length: GROUPS }, (_, g) => [...new Set(out.subarray(g * GROUP_ROWS, (g + 1) * GROUP_ROWS))]);
        for (const [g, values] of groups.entries())
          assert.ok(values.length === 1 && [-1, K * (g + 1)].includes(values[0] ?? 0), `group ${g}: ${values}`);
        const first = groups.filter(([value]) => value === -1).length;
        assert.ok(first > 0.6 * GROUPS, `${first} of ${GROUPS} groups`);
      });
  }
});
