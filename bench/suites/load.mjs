// Loading, each time in a process of its own: ms, MB/s, memory at its peak, and the time from the start of the process to the first token.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load as loadHere } from "lfm2-wasm";
import { presetOf } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { checkpointOf, fileBytes, folder } from "../lib/checkpoints.mjs";
import { assertGoals, goal, times } from "../lib/goals.mjs";
import { check, median } from "../lib/measure.mjs";
import { greedy, prompt, take } from "../lib/stepper.mjs";
import { startNode } from "../peers/remote.mjs";

const PROMPT_TOKENS = 128;
const CHECKED_TOKENS = 4;

const worker = (name) => new URL(`../peers/${name}.mjs`, import.meta.url).pathname;

/** Peak of resident memory above an empty process's, in times file and cache, at most. */
const MEMORY = 1.1;
/** Source bytes a second that quantizing on load reads at least, on one thread, MB. */
const QUANTIZE_MBPS = 400;

/** Start, load, one prompt of 128 tokens, in a new process. */
async function once(path, dtype, threads, vocabulary, cache = false) {
  const start = performance.now();
  const remote = await startNode(worker("ours"));
  try {
    const loaded = await remote.call("load", { path, dtype, threads, cache });
    const first = await remote.call("start", { ids: prompt(PROMPT_TOKENS, 5, vocabulary), count: 1 });
    const ttftMs = performance.now() - start;
    const more = await remote.call("more", { count: CHECKED_TOKENS - 1 });
    return {
      ms: loaded.ms,
      ttftMs,
      packedImage: loaded.packedImage,
      weightBytes: loaded.weightBytes,
      kvBytes: PROMPT_TOKENS * loaded.kvBytesPerToken,
      ids: [...first.ids, ...more.ids],
      peak: await remote.call("peakBytes"),
    };
  } finally {
    await remote.stop();
  }
}

async function baseline() {
  const remote = await startNode(worker("nothing"));
  const bytes = await remote.call("peakBytes");
  await remote.stop();
  return bytes;
}

/** A bf16 original: quantized on load, and read from the packed image of an earlier start, each on one thread, with the same first ids. */
async function converted(shape, dtype, options, note) {
  const title = `load ${shape} bf16 to ${dtype}`;
  if (!options.wants(title)) return [];
  const path = await folder(shape);
  const vocabulary = presetOf(shape).V;
  const cache = { dir: mkdtempSync(join(tmpdir(), "lfm2-bench-load-")), packed: true };
  try {
    const runs = { quantized: [], packed: [] };
    check((await once(path, dtype, 1, vocabulary, cache)).packedImage === "written", `${title}: expected an image to be written`);
    for (let i = 0; i < options.rounds; i++) {
      runs.quantized.push(await once(path, dtype, 1, vocabulary));
      runs.packed.push(await once(path, dtype, 1, vocabulary, cache));
    }
    const [{ ids }] = runs.quantized;
    for (const run of [...runs.quantized, ...runs.packed])
      check(String(run.ids) === String(ids), `${title}: ids ${run.ids}, expected ${ids}`);
    check(
      runs.packed.every((run) => run.packedImage === "read"),
      `${title}: expected the image to be read`,
    );
    const rows = Object.entries(runs).map(([way, list]) => {
      const of = (name) => median(list.map((run) => run[name]));
      const bytes = way === "packed" ? list[0].weightBytes : fileBytes(path);
      const row = {
        key: `${title}, ${way}`,
        shape,
        dtype,
        threads: 1,
        ms: of("ms"),
        mbps: bytes / of("ms") / 1e3,
        ttftMs: of("ttftMs"),
        fileBytes: bytes,
      };
      note(`${row.key}: ${Math.round(row.ms)} ms, ${Math.round(row.mbps)} MB/s; ${Math.round(row.ttftMs)} ms from start to first token`);
      return { ...row, value: 1 / row.ttftMs };
    });
    check(rows[0].mbps >= QUANTIZE_MBPS, `${title}: ${Math.round(rows[0].mbps)} MB/s of the source, goal ${QUANTIZE_MBPS}`);
    check(rows[1].ms < rows[0].ms / 2, `${title}: the packed image gains nothing`);
    return rows;
  } finally {
    rmSync(cache.dir, { recursive: true, force: true });
  }
}

/** Of what plain `fetch` reaches on the same server, a load from it reaches this at least. */
const OF_FETCH = 0.9;
/** Beside the model's own memory and what plain `fetch` makes a process grow to, a load from a server takes so much at most. */
const HTTP_SPARE_BYTES = 64 * 1024 * 1024;

/** A GGUF from a server on this machine, not kept, with and without a checksum to prove, against plain `fetch` of the same file: round by round, each in a process of its own. */
async function overHttp(shape, dtype, options, note) {
  const title = `load ${shape} ${dtype} over http`;
  if (!options.wants(title)) return [];
  const path = await checkpointOf(shape, dtype);
  const bytes = fileBytes(path);
  const server = await startNode(worker("file-server"));
  const timed = async (name, args) => {
    const remote = await startNode(worker(name));
    try {
      const { ms, memoryBytes } = await remote.call("load", args);
      return { ms, memoryBytes, peakBytes: await remote.call("peakBytes") };
    } finally {
      await remote.stop();
    }
  };
  try {
    const { url, checkedUrl } = await server.call("load", { path });
    const ways = {
      direct: () => timed("ours", { path, threads: 1, cache: false }),
      fetch: () => timed("fetch", { path: url }),
      kept: () => timed("fetch", { path: url, isKept: true }),
      load: () => timed("ours", { path: url, threads: 1, cache: false }),
      checked: () => timed("ours", { path: checkedUrl, threads: 1, cache: false }),
    };
    const runs = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
    for (let i = 0; i < options.rounds; i++) for (const [way, run] of Object.entries(ways)) runs[way].push(await run());
    const msOf = (way) => median(runs[way].map(({ ms }) => ms));
    const mbps = (way) => Math.round(bytes / msOf(way) / 1e3);
    const against = (way, other) => median(runs[way].map(({ ms }, i) => runs[other][i].ms / ms));
    note(
      `${title}: plain fetch ${mbps("fetch")} MB/s, ${mbps("kept")} where it keeps the bytes; from the file ${Math.round(msOf("direct"))} ms; packing and start included:`,
    );
    const runtimeBytes = median(runs.fetch.map(({ peakBytes }) => peakBytes));
    const rows = [];
    for (const [way, key] of Object.entries({ load: title, checked: `${title}, SHA-256 proved` })) {
      const spareBytes = median(runs[way].map(({ peakBytes, memoryBytes }) => peakBytes - memoryBytes - runtimeBytes));
      const ofFetch = against(way, "fetch");
      const figures = { ms: msOf(way), mbps: bytes / msOf(way) / 1e3, ofFetch, ofKeptFetch: against(way, "kept"), spareBytes };
      rows.push({ key, shape, dtype, threads: 1, fileBytes: bytes, ...figures, value: ofFetch });
      note(
        `${key}: ${mbps(way)} MB/s, ${ofFetch.toFixed(2)} of plain fetch, ${figures.ofKeptFetch.toFixed(2)} of one that keeps; ` +
          `at its peak ${(spareBytes / 1e6).toFixed(1)} MB beside the model's memory and the ${(runtimeBytes / 1e6).toFixed(1)} of plain fetch`,
      );
      check(spareBytes <= HTTP_SPARE_BYTES, `${key}: ${Math.round(spareBytes / 1e6)} MB beside the model, bound ${HTTP_SPARE_BYTES / 1e6}`);
    }
    check(rows[0].ofFetch >= OF_FETCH, `${title}: ${rows[0].ofFetch.toFixed(2)} of plain fetch, goal ${OF_FETCH}`);
    return rows;
  } finally {
    await server.stop();
  }
}

export async function load({ options, note }) {
  const rows = [];
  const goals = [];
  const empty = median([await baseline(), await baseline(), await baseline()]);
  for (const shape of options.shapes)
    for (const dtype of options.dtypes)
      for (const threads of options.threads) {
        const title = `load ${shape} ${dtype}, ${threads} thread${threads > 1 ? "s" : ""}`;
        if (!options.wants(title)) continue;
        const path = await checkpointOf(shape, dtype);
        const asked = shape === "mini" && dtype === "q4" ? undefined : dtype;
        const model = await loadHere(path, { dtype: asked, threads: 1 });
        const { vocabSize } = model.config;
        const expected = (await take(greedy(model, prompt(PROMPT_TOKENS, 5, vocabSize)), CHECKED_TOKENS)).ids;
        model.dispose();
        const runs = [];
        try {
          for (let i = 0; i < options.rounds; i++) runs.push(await once(path, asked, threads, vocabSize));
        } catch (error) {
          note(`left out: ${title}: ${error.message.split("\n")[0]}`);
          continue;
        }
        for (const { ids } of runs) check(String(ids) === String(expected), `${title}: ids ${ids}, expected ${expected}`);
        const of = (name) => median(runs.map((run) => run[name]));
        const file = fileBytes(path);
        const above = of("peak") - empty;
        const row = {
          ...{ key: title, shape, dtype, threads, ms: of("ms"), mbps: file / of("ms") / 1e3, ttftMs: of("ttftMs"), fileBytes: file },
          ...{ peakBytes: of("peak"), aboveRuntime: above, ofFile: above / (file + of("kvBytes")), value: 1 / of("ttftMs") },
        };
        rows.push(row);
        if (shape !== "mini")
          goals.push(goal(`${title}, peak above the runtime's against file + cache`, row.ofFile, { atMost: MEMORY, show: times }));
        note(
          `${title}: ${Math.round(row.ms)} ms, ${Math.round(row.mbps)} MB/s; ${Math.round(row.ttftMs)} ms from start to first token; ` +
            `${(above / 1e6).toFixed(1)} MB above the runtime's ${(empty / 1e6).toFixed(1)}, ${row.ofFile.toFixed(2)} × file + cache`,
        );
      }
  for (const shape of options.shapes.filter((name) => name !== "mini"))
    for (const dtype of options.dtypes.filter((name) => name.startsWith("q"))) rows.push(...(await converted(shape, dtype, options, note)));
  for (const shape of options.shapes.filter((name) => name !== "mini"))
    for (const dtype of options.dtypes.filter((name) => name.startsWith("q"))) rows.push(...(await overHttp(shape, dtype, options, note)));
  assertGoals(goals, note);
  return { rows, goals, baselineBytes: empty };
}
