// Loading, each time in a process of its own: ms, MB/s, memory at its peak, and the time from the start of the process to the first token.
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { load as loadHere } from "lfm2-wasm";
import { presetOf } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { checkpointOf, fileBytes, folder } from "../lib/checkpoints.mjs";
import { times } from "../lib/goals.mjs";
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
/** The packed image is read in so much of the time that quantizing takes, at most. */
const OF_QUANTIZING = 0.5;

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const rateText = (mbps) => `${Math.round(mbps)} MB/s`;

/** Start, load, one prompt of 128 tokens, in a new process. */
async function once(path, dtype, threads, vocabulary, cache = false) {
  const start = performance.now();
  const remote = await startNode(worker("ours"));
  try {
    const loaded = await remote.call("load", { path, dtype, threads, cache });
    const first = await remote.call("start", { ids: prompt(PROMPT_TOKENS, 5, vocabulary), count: 1 });
    const ttftMs = performance.now() - start;
    const more = await remote.call("more", { count: CHECKED_TOKENS - 1 });
    const peak = await remote.call("peakBytes");
    return {
      ms: loaded.ms,
      ttftMs,
      packedImage: loaded.packedImage,
      weightBytes: loaded.weightBytes,
      kvBytes: PROMPT_TOKENS * loaded.kvBytesPerToken,
      ids: [...first.ids, ...more.ids],
      peak,
      touchMs: await remote.call("firstTouchMs", { bytes: loaded.weightBytes }),
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

/** What new memory of the weights' size costs by itself, in the same process: a page at a time, by one thread, which a load may share with its reads. */
const touchText = ({ ms, touchMs }) =>
  `first touch of new memory for the weights takes ${Math.round(touchMs)} ms, ${Math.round((100 * touchMs) / ms)} % of that`;

/** A bf16 original: quantized on load, and read from the packed image of an earlier start, each on one thread, with the same first ids. */
async function converted(shape, dtype, { options, note, goals }) {
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
        touchMs: of("touchMs"),
        fileBytes: bytes,
      };
      note(
        `${row.key}: ${Math.round(row.ms)} ms, ${rateText(row.mbps)}; ${touchText(row)}; ${Math.round(row.ttftMs)} ms from start to first token`,
      );
      return { ...row, value: 1 / row.ttftMs };
    });
    const [quantized, packed] = rows;
    goals.add(`${quantized.key}, of the source`, quantized.mbps, {
      atLeast: QUANTIZE_MBPS,
      show: rateText,
      text: `${rateText(quantized.mbps)} (${touchText(quantized)})`,
    });
    goals.add(`${packed.key}, of the time of quantizing`, packed.ms / quantized.ms, { atMost: OF_QUANTIZING, show: times });
    return rows;
  } finally {
    rmSync(cache.dir, { recursive: true, force: true });
  }
}

/** Of what a `fetch` that keeps the bytes reaches on the same server, a load from it reaches this at least. */
const OF_FETCH = 0.9;
/** Beside the model's own memory and an idle process, a load from a server takes so much at most. */
const HTTP_SPARE_BYTES = 64 * 1024 * 1024;

/** The server has one core, whoever downloads another; where the machine has several and a way to say so. */
const CORES = { server: 0, client: availableParallelism() - 1 };

/**
 * A GGUF from a server on this machine, not kept, as it is, with a checksum to prove, and as fast as a link of 1 Gbit/s, against a `fetch` that reads the body into one buffer of the file's size, and
 * against one that drops what it reads: each in a process of its own, each way beside a fetch, which of the two is first by turns.
 */
async function overHttp(shape, dtype, { options, note, goals }) {
  const title = `load ${shape} ${dtype} over http`;
  if (!options.wants(title)) return [];
  const path = await checkpointOf(shape, dtype);
  const bytes = fileBytes(path);
  const server = await startNode(worker("file-server"), { core: CORES.server });
  const timed = async (name, args) => {
    const remote = await startNode(worker(name), { core: CORES.client });
    try {
      const { ms, memoryBytes } = await remote.call("load", args);
      const peakBytes = await remote.call("peakBytes");
      return { ms, memoryBytes, peakBytes, touchMs: await remote.call("firstTouchMs", { bytes }) };
    } finally {
      await remote.stop();
    }
  };
  try {
    const { url, checkedUrl, linkUrl } = await server.call("load", { path });
    const kept = (from = url) => timed("fetch", { path: from, isKept: true });
    const ours = (args) => timed("ours", { threads: 1, cache: false, ...args });
    const pairs = {
      load: { way: () => ours({ path: url }), against: () => kept() },
      checked: { way: () => ours({ path: checkedUrl }), against: () => kept() },
      link: { way: () => ours({ path: linkUrl }), against: () => kept(linkUrl) },
      direct: { way: () => ours({ path }), against: () => timed("fetch", { path: url }) },
    };
    const runs = Object.fromEntries(Object.keys(pairs).map((name) => [name, []]));
    await kept(); // the file is in the server's memory, and its code compiled
    for (let i = 0; i < options.rounds; i++)
      for (const [name, pair] of Object.entries(pairs)) {
        const run = {};
        for (const side of i % 2 ? ["against", "way"] : ["way", "against"]) run[side] = await pair[side]();
        runs[name].push(run);
      }
    const all = (name, side, value) => median(runs[name].map((run) => run[side][value]));
    const rate = (name, side) => Math.round(bytes / all(name, side, "ms") / 1e3);
    const idleBytes = await baseline();
    note(
      `${title}: a fetch that keeps the bytes ${rate("load", "against")} MB/s, one that drops them ${rate("direct", "against")}; from the file ${Math.round(all("direct", "way", "ms"))} ms; ` +
        `first touch of so much new memory ${Math.round(all("load", "way", "touchMs"))} ms; packing and start included:`,
    );
    const rows = [];
    for (const [name, key] of Object.entries({ load: title, checked: `${title}, SHA-256 proved`, link: `${title}, 1 Gbit/s` })) {
      const spareBytes = median(runs[name].map(({ way }) => way.peakBytes - way.memoryBytes - idleBytes));
      const ofFetch = median(runs[name].map(({ way, against }) => against.ms / way.ms));
      const ofDropping = name === "link" ? undefined : all("direct", "against", "ms") / all(name, "way", "ms");
      const [ms, touchMs] = [all(name, "way", "ms"), all(name, "way", "touchMs")];
      rows.push({
        key,
        shape,
        dtype,
        threads: 1,
        fileBytes: bytes,
        ms,
        touchMs,
        mbps: bytes / ms / 1e3,
        ofFetch,
        ofDropping,
        spareBytes,
        value: ofFetch,
      });
      note(
        `${key}: ${rate(name, "way")} MB/s, ${ofFetch.toFixed(2)} of a fetch that keeps${ofDropping ? `, ${ofDropping.toFixed(2)} of one that drops` : ""}; ` +
          `at its peak ${(spareBytes / 1e6).toFixed(1)} MB beside the model's memory and the ${(idleBytes / 1e6).toFixed(1)} of an idle process`,
      );
      goals.add(`${key}, peak beside the model and an idle process`, spareBytes, { atMost: HTTP_SPARE_BYTES, show: megabytes });
    }
    for (const { key, ofFetch } of [rows[0], rows[2]])
      goals.add(`${key}, of a fetch that keeps the bytes`, ofFetch, { atLeast: OF_FETCH, show: times });
    return rows;
  } finally {
    await server.stop();
  }
}

/** A load that is aborted ends within so much, ms. */
const ABORTED_MS = 100;
/** Moments of a load at which it is aborted. */
const ABORTS = 12;

/** Loads that are aborted, one after another in one process, at moments spread over the time that one takes. */
async function aborted(shape, dtype, { options, note, goals }) {
  const title = `load ${shape} ${dtype} aborted`;
  if (!options.wants(title)) return;
  const path = await checkpointOf(shape, dtype);
  const server = await startNode(worker("file-server"));
  const remote = await startNode(worker("ours"));
  try {
    const { url } = await server.call("load", { path });
    for (const [way, args] of [
      ["from the file", { path }],
      ["over http", { path: url }],
      ["bf16 quantized", { path: await folder(shape), dtype }],
    ]) {
      const all = { threads: 1, cache: false, ...args };
      const { ms } = await remote.call("load", all);
      const late = [];
      for (let i = 0; i < ABORTS; i++) {
        const { lateMs } = await remote.call("abort", { ...all, afterMs: (ms * (i + 0.5)) / ABORTS });
        if (lateMs !== undefined) late.push(lateMs);
      }
      check(late.length > ABORTS / 2, `${title}, ${way}: only ${late.length} loads were not over before`);
      note(`${title}, ${way}: ${late.length} aborts, their errors after ${late.map((each) => each.toFixed(1)).join(", ")} ms`);
      goals.add(`${title}, ${way}, at the latest`, Math.max(...late), { atMost: ABORTED_MS, show: (value) => `${value.toFixed(1)} ms` });
    }
  } finally {
    await Promise.all([remote.stop(), server.stop()]);
  }
}

export async function load({ options, note, goals }) {
  const rows = [];
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
          ...{
            touchMs: of("touchMs"),
            peakBytes: of("peak"),
            aboveRuntime: above,
            ofFile: above / (file + of("kvBytes")),
            value: 1 / of("ttftMs"),
          },
        };
        rows.push(row);
        if (shape !== "mini")
          goals.add(`${title}, peak above the runtime's against file + cache`, row.ofFile, { atMost: MEMORY, show: times });
        note(
          `${title}: ${Math.round(row.ms)} ms, ${rateText(row.mbps)}; ${touchText(row)}; ${Math.round(row.ttftMs)} ms from start to first token; ` +
            `${(above / 1e6).toFixed(1)} MB above the runtime's ${(empty / 1e6).toFixed(1)}, ${row.ofFile.toFixed(2)} × file + cache`,
        );
      }
  for (const shape of options.shapes.filter((name) => name !== "mini"))
    for (const dtype of options.dtypes.filter((name) => name.startsWith("q")))
      rows.push(...(await converted(shape, dtype, { options, note, goals })));
  for (const shape of options.shapes.filter((name) => name !== "mini"))
    for (const dtype of options.dtypes.filter((name) => name.startsWith("q"))) {
      rows.push(...(await overHttp(shape, dtype, { options, note, goals })));
      await aborted(shape, dtype, { options, note, goals });
    }
  return { rows, baselineBytes: empty };
}
