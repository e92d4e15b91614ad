// The public API from the built package, and once more with the engine behind a channel that clones every message.
import assert from "node:assert/strict";
import { type LoadOptions, load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { openPath } from "../../src/adapters/node/files.ts";
import * as errors from "../../src/errors.ts";
import { loadWith } from "../../src/lfm2.ts";
import { kernels } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { apiSuite } from "./api.ts";
import { cloningEngine, crossed } from "./cloning-engine.ts";
import { generationSuite } from "./generation.ts";
import { sessionsSuite } from "./sessions.ts";
import { speculationSuite } from "./speculation.ts";

apiSuite("engine in this thread", load, mini);
generationSuite("engine in this thread", () => load(mini));
const PROGRAMS = pick({ gate: 2, full: 200 });
sessionsSuite("engine in this thread", (options) => load(mini, options), PROGRAMS);
speculationSuite("engine in this thread", (options) => load(mini, options), mini);
/** Threads on cores that other tests use take long; the gate has them in tests/runtimes, where one suite runs in every runtime that has threads. */
const hasThreads = pick({ gate: false, full: true });
if (hasThreads)
  speculationSuite("engine in a worker, two threads", (options) => load(mini, { engine: "worker", threads: 2, ...options }), mini);
/** What is no options object is for load() to refuse. */
const withTwo = (options: LoadOptions | undefined): LoadOptions | undefined =>
  options === undefined || (typeof options === "object" && options !== null) ? { threads: 2, ...options } : options;
if (hasThreads) apiSuite("two threads", (source, options) => load(source, withTwo(options)), mini);
/** What is no options object is for load() to refuse. */
const inWorker = (options: LoadOptions | undefined): LoadOptions | undefined =>
  options === undefined || (typeof options === "object" && options !== null) ? { engine: "worker", ...options } : options;
apiSuite("engine in a worker", (source, options) => load(source, inWorker(options)), mini);
it("a caller's processors see a copy of the logits of an engine in a worker, and what they change counts", async () => {
  const replies = [];
  for (const engine of ["here", "worker"] as const) {
    const model = await load(mini, { engine, threads: 1 });
    const sizes: number[] = [];
    const ban = (logits: Float32Array): void => {
      sizes.push(logits.length);
      logits.fill(Number.NEGATIVE_INFINITY, 0, 500);
    };
    const { tokens } = await model.generate("Tell me a story.", { temperature: 0, maxTokens: 8, processors: [ban] });
    assert.ok(tokens.every((id) => id >= 500));
    replies.push([...tokens], sizes);
    model.dispose();
  }
  assert.deepEqual(replies.slice(2), replies.slice(0, 2));
});

/** A worker speaks as the channel below does: its share of these is for the full run. */
if (pick({ gate: false, full: true })) generationSuite("engine in a worker", () => load(mini, { engine: "worker" }));

describe("public API through structuredClone", () => {
  apiSuite(
    "engine behind a channel",
    (source, options) => loadWith({ runtime: "node", open: openPath, kernels, placeEngine: cloningEngine }, source, options),
    mini,
    undefined,
    errors,
  );
  generationSuite("engine behind a channel", () =>
    loadWith({ runtime: "node", open: openPath, kernels, placeEngine: cloningEngine }, mini),
  );
  sessionsSuite(
    "engine behind a channel",
    (options) => loadWith({ runtime: "node", open: openPath, kernels, placeEngine: cloningEngine }, mini, options),
    PROGRAMS,
  );
  if (pick({ gate: false, full: true }))
    speculationSuite(
      "engine behind a channel",
      (options) => loadWith({ runtime: "node", open: openPath, kernels, placeEngine: cloningEngine }, mini, options),
      mini,
    );

  after(() => assert.ok(crossed.count > 1000, `only ${crossed.count} messages crossed the channel`));
});

describe("paths", () => {
  const cases = [
    ["a file that is no model", "package.json", "FormatError", /GGUF/],
    ["a folder without one", "tests", "FormatError", /config\.json/],
    ["a safetensors file of another name", "models/other.safetensors", "StorageError", /other/],
  ] as const;
  for (const [what, path, name, message] of cases) it(`${what}: ${name}`, () => assert.rejects(load(path), { name, message }));
});
