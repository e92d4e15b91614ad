// `npm run bench` itself: what it measures and how it compares, on one small kernel; and what `npm run bench:peers` says of its cells.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Goals, percent, times } from "../../bench/lib/goals.mjs";
import { bars, roofline } from "../../bench/lib/svg.mjs";
import { type Cell, goalsOf, report } from "../../bench/peers/goals.mjs";
import { outside } from "../../bench/peers/scratch.mjs";
import { larger } from "../../scripts/checkpoints/larger.mjs";
import { fromPreset, writeGguf } from "../../scripts/checkpoints/make-gguf.mjs";
import { distance, feed, sameBits, withModel } from "../golden/support.ts";
import { pick } from "../scale.ts";

interface Row {
  readonly key: string;
  readonly ms: number;
  readonly gbps: number;
  readonly roof: number;
  value: number;
}

const bench = (...args: string[]) => spawnSync(process.execPath, ["bench/bench.mjs", ...args], { encoding: "utf8" });
/** @returns the picture that a run says it drew */
const drawn = (stderr: string, name: string): string => {
  const path = `bench/results/${name}.svg`;
  assert.ok(stderr.includes(`drew ${path}\n`), stderr);
  return readFileSync(path, "utf8");
};
const ONE = ["kernels", "--quick", "--models", "350m", "--only", "^rmsnorm 350m .1,"];

describe("npm run bench", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-bench-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("measures what is asked for, against ceilings of the same process, and tells what became slower", () => {
    const path = join(dir, "old.json");
    const first = bench(...ONE, "--json", path);
    assert.equal(first.status, 0, first.stderr);
    const old = JSON.parse(readFileSync(path, "utf8")) as { kernels: { rows: Row[] }; ceilings: { near: number; far: number } };
    const [row, ...others] = old.kernels.rows;
    assert.ok(row && others.length === 0);
    assert.match(row.key, /^rmsnorm 350m \(1, 1024\) (plain|relaxed)$/);
    assert.ok(Math.abs(row.gbps - (8 * 1024) / row.ms / 1e6) < 1e-6 * row.gbps);
    assert.ok(row.roof > 0 && old.ceilings.near > 0 && old.ceilings.far > 0);
    assert.ok(first.stdout.includes("| rmsnorm 350m (1, 1024) "));

    old.kernels.rows.push({ ...row, key: "a kernel of old" });
    row.value *= 1e6; // as if it had been much faster: the machine is shared
    writeFileSync(path, JSON.stringify(old));
    const slower = bench(...ONE, "--compare", path);
    assert.equal(slower.status, 1);
    assert.match(slower.stdout, /^0\.000 SLOWER rmsnorm 350m \(1, 1024\)/m);
    assert.match(
      slower.stdout,
      /\nin one of both only:\n\ngone {3}a kernel of old\n\n1 became slower by more than 5 %, of 1 that both have\n/,
    );

    if (!pick({ gate: false, full: true })) return; // each run measures the machine's ceilings
    const products = bench("kernels", "--quick", "--models", "350m", "--only", "^matmul q[48] .*M 1$");
    assert.match(drawn(products.stderr, "roofline"), /<title>matmul q8 [^<]*: [\d.]+ GB\/s, [\d.]+ GMAC\/s<\/title>/);
    row.value /= 1e12;
    writeFileSync(path, JSON.stringify(old));
    const faster = bench(...ONE, "--compare", path);
    assert.equal(faster.status, 0);
    assert.match(faster.stdout, /nothing became slower by more than 5 %/);
  });

  it("tells a missed goal at once, and goes on", () => {
    const lines: string[] = [];
    const goals = new Goals((line: string) => lines.push(line));
    goals.add("a", 1.5, { atMost: 1, show: times });
    assert.deepEqual(lines, ["GOAL MISSED: a: 1.50 ×, at most 1.00 ×"]);
    goals.add("b", 0.9, { atLeast: 0.9, show: percent, text: "just 90 %" });
    goals.add("c", Number.NaN, { atLeast: 0, show: percent });
    assert.deepEqual(lines.slice(1), ["goal met: b: just 90 %, at least 90 %", "GOAL MISSED: c: NaN %, at least 0 %"]);
    assert.deepEqual(
      goals.missed.map(({ key }) => key),
      ["a", "c"],
    );
  });

  it("draws a mark for each value, all numbers", () => {
    const points = [1, 30, 400].map((x, i) => ({ x, y: 5 * x ** 0.5, series: i ? "many rows" : "one row", title: `<${i}>` }));
    const plot = roofline({
      title: "a & b",
      about: "here",
      points,
      slopes: [
        ["memory", 25],
        ["L2", 100],
      ],
      flats: [
        ["dot", 109],
        ["f32", 27],
      ],
    });
    assert.equal(plot.match(/<circle /g)?.length, 3);
    assert.equal(plot.match(/<line class="r/g)?.length, 4);
    const groups = [
      { name: "q4", values: [90, 8] },
      { name: "q8", values: [undefined, 0.5] },
    ];
    const chart = bars({ title: "decode", about: "here", unit: "tokens/s", series: ["one", "two"], groups });
    assert.equal(chart.match(/<rect [^>]*rx="2"><title>/g)?.length, 3);
    for (const svg of [plot, chart]) {
      assert.match(svg, /^<svg [^>]*>\n[\s\S]*<\/svg>\n$/);
      assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
    }
    assert.match(plot, /<title>a &#38; b<\/title>/);
  });

  // each prints its rows; goals may be missed where others want the machine
  for (const [suite, ...args] of pick<readonly (readonly string[])[]>({
    gate: [],
    full: [
      ["size"],
      ["generate", "--quick", "--dtypes", "q4,q8"],
      ["load", "--dtypes", "q4", "--rounds", "1", "--threads", "1"],
      ["steps", "--quick", "--dtypes", "q4"],
      ["batch", "--quick", "--dtypes", "q4", "--threads", "1"],
      ["cache", "--quick"],
    ],
  }))
    it(`runs the suite ${suite} on the bundled model`, () => {
      const path = join(dir, `${suite}.json`);
      const { status, stdout, stderr } = bench(suite ?? "", "--shapes", "mini", ...args, "--json", path);
      assert.equal(status, stdout.includes("\n## missed\n") ? 1 : 0, stderr);
      const text = readFileSync(path, "utf8");
      assert.doesNotMatch(text, /\bnull\b/, "a value that is no number"); // JSON has none for NaN
      const { rows } = JSON.parse(text)[suite ?? ""] as { rows: Row[] };
      assert.ok(rows.length > 0, stderr);
      for (const { key, value } of rows) assert.ok(value > 0 && value < Number.POSITIVE_INFINITY, `${key}: ${value}`);
      const table = stdout.split(`\n## ${suite}\n\n`)[1]?.split("\n\n")[0];
      assert.equal(table?.trim().split("\n").length, rows.length + 2, stdout);
      if (suite !== "generate") return;
      for (const what of ["prefill", "decode"]) assert.match(drawn(stderr, `${what}-mini`), /tokens\/s/);
      assert.match(stdout, /the largest distance of a logit from the float64 reference's: q4, (plain|relaxed), 1 thread: 0\.\d/);
    });

  it("refuses a suite that it has not", () => {
    const { status, stderr } = bench("kernel");
    assert.notEqual(status, 0);
    assert.match(stderr, /expected some of kernels, generate, steps, batch, cache, load, size, got "kernel"/);
  });
});

describe("a larger model that says what a smaller one says", () => {
  const small = fromPreset("tiny-conv-first", 1);
  const { V } = small.shape;
  const IDS = Array.from({ length: 24 }, (_, i) => (i * 37 + 5) % V);
  const shape = { ...small.shape, F: 320, V: 2 * V, layers: "cAccAAcA" };
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-larger-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  function logits(source: typeof small, type: string): Promise<Float32Array> {
    const out = join(dir, `${source.shape.D}-${type}.gguf`);
    writeGguf(source, { type, head: type, out });
    return withModel(out, { chunkTokens: 64 }, (model) => feed(model, IDS));
  }

  /** Of the smaller model's logits those which the larger one has at `at`. */
  const rowOf = (expected: Float32Array, at: number): Float32Array => {
    const first = Math.floor(at / (2 * V)) * V;
    return expected.subarray(first, first + V);
  };

  for (const type of pick({ gate: [], full: ["Q4_0", "Q8_0", "BF16"] }))
    it(`has the logits of the smaller one once for each time that the vocabulary repeats: ${type}`, async () => {
      const expected = await logits(small, type);
      const four = await logits(larger(small, { ...shape, D: 512, H: 8, G: 4 }), type);
      for (let at = 0; at < four.length; at += V)
        assert.ok(sameBits(four.subarray(at, at + V), rowOf(expected, at)), `logits from ${at} on`);
      if (type !== "BF16") return; // norms end in other bits where the share is no power of four, which int8 activations make more of
      const two = await logits(larger(small, { ...shape, D: 256, H: 4, G: 2 }), type);
      for (let at = 0; at < two.length; at += V)
        assert.ok(distance(two.subarray(at, at + V), rowOf(expected, at)) < 0.005, `twice as wide: logits from ${at} on`);
    });

  it("refuses a shape that has no room for it", () => {
    for (const [change, message] of [
      [{ D: 512 }, /expected as many values a head/],
      [{ V: V - 1 }, /expected at least as many columns/],
      [{ layers: "AccAA" }, /expected the layers ccAcA in this order among its own, got AccAA/],
    ] as const)
      assert.throws(() => larger(small, { ...shape, ...change }), { message });
  });
});

describe("npm run bench:peers", () => {
  /** Cells that nobody measured. @returns the goals' rows and the whole report, with single spaces */
  function reportOf(cells: Record<string, Cell>, tile = 1): { rows: (what: string) => string[][]; text: string } {
    const options = {
      models: ["350m"],
      types: ["Q4_0", "Q8_0"],
      threads: [1, 2],
      prefills: [128],
      contexts: [0, 4096],
      peers: ["native", "wllama"],
      rounds: 3,
      slowRounds: 1,
    };
    const run = { cells, options, ceilings: { read: () => 25, together: { 2: 60 } }, firstPrompt: 128 };
    const goals = goalsOf(run, { tile: () => tile, weightBytes: (_, type) => (type === "Q4_0" ? 200e6 : undefined) });
    const about = { date: "2026-11-30", cpu: "a CPU", cores: 2, runtime: "Node", build: "plain", versions: { peer: "1" } };
    const text = report({ ...run, about, goals, command: "npm run bench:peers" }).replace(/ +/g, " ");
    const table = text.split("\n").filter((line) => line.startsWith("| "));
    const cellsOf = (line: string): string[] =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim());
    return { rows: (what) => table.filter((line) => line.startsWith(`| ${what}`)).map(cellsOf), text };
  }

  it("says of each goal whether it was met, by how much and where it was missed, or that it was not measured", () => {
    const { rows } = reportOf({
      "350m Q4_0 1t decode 0": { tokens: 1, ms: { ours: [10, 10, 10], native: [14, 14, 14], wllama: [81] } }, // a slow peer: one round
      "350m Q4_0 2t decode 0": { tokens: 1, ms: { ours: [5, 5, 5], native: [6, 6, 6] } },
      "350m Q8_0 1t decode 0": { tokens: 1, ms: { ours: [1, 2, 4], native: [6, 2, 4] } }, // 6, 1 and 1 times: of the medians it were twice
      "350m Q4_0 1t warm start": { tokens: 1, ms: { ours: [200, 200, 200], native: [100, 100, 100] }, note: "a note" },
      "350m Q4_0 1t start": {
        tokens: 1,
        ms: { ours: [100, 100, 100], native: [151, 151, 151] },
        peak: { ours: 110, native: 300 },
        load: { ours: 50, native: 60 },
        fileBytes: 90,
        kvBytes: 10,
      },
    });
    const one = "(350m, 1 thread, decode 0)";
    assert.deepEqual(rows("decode q4, context 0–512"), [
      ["decode q4, context 0–512: ≥ 1.30× native", `1.20× (350m, 2 threads, decode 0) to 1.40× ${one}`, "missed by 8 %, in 1 of 2 cells"],
      ["decode q4, context 0–512: ≥ 8.00× wllama", `8.10× ${one}`, "met"],
    ]);
    assert.deepEqual(rows("decode q4, context 4096"), [["decode q4, context 4096: ≥ 2.00× native", "not measured", ""]]);
    assert.deepEqual(rows("decode q8: ≥ 1.50× native"), [["decode q8: ≥ 1.50× native", `1.00× ${one}`, "missed by 33 %"]]);
    assert.deepEqual(rows("decode, two threads"), [["decode, two threads: ≥ 1.70× one", "2.00× (350m Q4_0, decode 0)", "met"]]);
    assert.deepEqual(rows("prefill q4, whole step")[0]?.slice(1), ["not measured", ""]);
    const streamed = ["67 % (350m Q4_0, 2 threads) to 80 % (350m Q4_0, 1 thread)", "missed by 17 %, in 1 of 2 cells"]; // just so; of Q8_0 the file is gone
    assert.deepEqual(rows("weights streamed")[0]?.slice(1), streamed);
    assert.deepEqual(rows("peak memory")[0]?.slice(1), ["1.10× (350m Q4_0, 1 thread)", "met"]); // at most: just so
    const [[image, measured, verdict] = []] = rows("start to first token after 128, ours from the packed image");
    assert.match(image ?? "", /of the file, in time: ≤ 1\.50× native's from the file$/);
    assert.deepEqual([measured, verdict], ["2.00× (Q4_0, 350m, 1 thread)", "missed by 33 %"]);
    assert.deepEqual(rows("start to first token after 128: ≥ 1.50× native")[0]?.slice(1), ["1.51× (Q4_0, 350m, 1 thread, start)", "met"]);
  });

  it("names the cells that were asked for and not measured", () => {
    const options = {
      models: ["350m"],
      types: ["Q4_0"],
      threads: [1],
      prefills: [128],
      contexts: [0],
      peers: ["wllama"],
      rounds: 1,
      slowRounds: 1,
    };
    const cells = { "350m Q4_0 1t decode 0": { tokens: 1, ms: { ours: [1] } } };
    const asks = (peer: string, shape: string, type: string, what: string) =>
      `${peer} ${shape} ${type} ${what}` === "wllama 350m Q4_0 decode 0";
    const run = { cells, options, ceilings: { read: () => 25 }, firstPrompt: 128, asks };
    const missing = goalsOf(run, { tile: () => 1, weightBytes: () => undefined }).filter((goal) => goal.missing.length);
    assert.deepEqual(
      missing.map(({ what, against, missing: names, isReached }) => [what, against, names, isReached]),
      [["decode q4, context 0–512", "wllama", ["350m, 1 thread, decode 0"], undefined]],
    );
  });

  it("refuses a scratch folder inside of the repository, also behind a link", () => {
    const dir = mkdtempSync(join(tmpdir(), "lfm2-scratch-"));
    try {
      assert.equal(outside(".", join(dir, "a", "b")), join(dir, "a", "b"));
      symlinkSync(process.cwd(), join(dir, "link"));
      for (const path of [".", "build/peers", join(dir, "link"), join(dir, "link", "build", "none", "here")])
        assert.throws(() => outside(".", path), { message: /--scratch: expected a folder outside of the repository, got / });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it("has every cell: rates and ratios, starts, notes", () => {
    const macs = 287_309_824; // of a token in the layers of 350M
    const { rows, text } = reportOf(
      {
        "350m Q4_0 1t agreement": { same: { native: 7 }, note: "as native's after 7 of 8 prompts" },
        "350m Q4_0 1t prefill 128": { tokens: 128, ms: { ours: [500, 500, 500], native: [250, 250, 250] } },
        "350m Q4_0 1t decode 0": { tokens: 1, ms: { ours: [10, 10, 10] } },
        "350m Q4_0 1t start": {
          tokens: 1,
          ms: { ours: [1000] },
          peak: { ours: 260e6 },
          load: { ours: 500 },
          fileBytes: 200e6,
          kvBytes: 1e6,
        },
      },
      (macs * 128) / 500 / 1e6 / 0.7,
    );
    assert.deepEqual(rows("prefill q4, whole step")[0]?.[2], "missed by 7 %");
    assert.deepEqual(rows("350m Q4_0, 1 thread"), [
      ["350m Q4_0, 1 thread, prefill 128", "256.0", "512.0", "–", "0.50×", "–"],
      ["350m Q4_0, 1 thread", "1000 / – / –", "500 / – / –", "260 / – / –", "200"],
    ]);
    assert.deepEqual(rows("decode 0"), [["decode 0", "100.0", "–", "–", "–", "–"]]);
    assert.match(text, /^2026-11-30, a CPU, 2 cores, Node, plain build; peer 1\. .*\nMedians of 3 rounds in turns, of 1 for wllama/);
    assert.ok(text.endsWith("The same weights: 350m Q4_0 1t: as native's after 7 of 8 prompts."));
  });
});
