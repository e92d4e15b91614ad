// npm run bench [-- SUITES] [-- options]: what the kernels, whole steps, loading and the package's size are, each checked first. bench/README.md lists the options.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "../scripts/build.mjs";
import { measureCeilings } from "./lib/ceilings.mjs";
import { Goals } from "./lib/goals.mjs";
import { readOptions } from "./lib/options.mjs";
import { compare, machine, table } from "./lib/report.mjs";
import { bars, roofline } from "./lib/svg.mjs";
import * as shapes from "./shapes.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const SUITES = ["kernels", "generate", "steps", "batch", "cache", "load", "size"];
const { words, options } = readOptions({
  json: "",
  compare: "",
  only: "",
  quick: false,
  rounds: 5,
  variant: "",
  models: ["350m", "1.2b"],
  shapes: ["350m"],
  dtypes: shapes.generateDtypes,
  threads: availableParallelism() > 1 ? [1, 2] : [1],
  prefills: shapes.prefills,
  contexts: shapes.contexts,
});
const unknown = words.find((word) => !SUITES.includes(word));
if (unknown) throw new Error(`bench: expected some of ${SUITES.join(", ")}, got ${JSON.stringify(unknown)}`);
if (options.quick) {
  options.rounds = 1;
  options.models = options.models.slice(0, 1);
  options.prefills = options.prefills.filter((n) => n <= 512);
  options.contexts = options.contexts.filter((n) => n <= 512);
}
const pattern = new RegExp(options.only);
Object.assign(options, {
  isQuick: options.quick,
  ms: options.quick ? 8 : 25,
  wants: (title) => pattern.test(title),
});

await ensureBuilt();
const note = (line) => console.error(line);
const about = machine();
const ceilings = await measureCeilings();
const rate = (x) => (x === undefined ? "–" : x.toFixed(1));
console.log(`${about.cpu}, ${about.cores} cores, ${about.runtime}, ${about.date}`);
console.log(
  `one thread reads ${Object.entries(ceilings.bandwidth)
    .map(([bytes, gbps]) => `${bytes / 1024} KiB at ${rate(gbps)}`)
    .join(
      ", ",
    )} GB/s, the last ${rate(ceilings.sequential(2 ** 28))} from first to last; integer dot ${rate(ceilings.dot.plain)} plain, ${rate(ceilings.dot.relaxed)} relaxed, f32 ${rate(ceilings.muladd)} GMAC/s\n`,
);

const results = {};
const missed = [];
for (const name of SUITES.filter((suite) => !words.length || words.includes(suite))) {
  note(`\n== ${name}`);
  const suite = await import(`./suites/${name}.mjs`);
  const goals = new Goals(note);
  results[name] = { ...(await suite[name]({ ceilings, options, note, goals })), goals: goals.rows };
  missed.push(...goals.missed);
}

const percent = (x) => (x === undefined ? "" : `${Math.round(100 * x)} %`);
const TABLES = {
  kernels: ({ rows, tiles }) => {
    console.log(
      table(
        ["kernel", "build", "µs", "GB/s", "GMAC/s", "of roof", "of tile"],
        rows.map((r) => [
          r.name,
          r.variant,
          (1000 * r.ms).toFixed(r.ms < 0.1 ? 1 : 0),
          rate(r.gbps),
          r.macs ? rate(r.gmacs) : "",
          percent(r.roof),
          percent(r.ofTile),
        ]),
      ),
    );
    const each = Object.entries(tiles).map(([name, gmacs]) => `${name} ${rate(gmacs)}`);
    if (each.length) console.log(`\nThe tiles by themselves, 128 rows and a matrix in the second cache, GMAC/s: ${each.join(", ")}`);
  },
  generate: ({ rows, reference }) => {
    console.log(
      table(
        ["model", "how", "what", "tokens/s", "GB/s", "of read", "time / time at 0", "slowest step, ms"],
        rows.map((r) => [
          `${r.shape} ${r.dtype}`,
          r.name,
          r.what,
          rate(r.tps),
          r.gbps ? rate(r.gbps) : "",
          percent(r.ofRead),
          r.againstZero ? r.againstZero.toFixed(2) : "",
          r.slowestMs ? r.slowestMs.toFixed(0) : "",
        ]),
      ),
    );
    const each = reference.map(({ dtype, name, far }) => `${dtype}, ${name}: ${far.toPrecision(2)}`);
    if (each.length)
      console.log(`\nChecked before, on a golden model, the largest distance of a logit from the float64 reference's: ${each.join("; ")}`);
  },
  steps: ({ rows }) =>
    console.log(
      table(
        ["what", "took"],
        rows.map((r) => [r.key, r.text]),
      ),
    ),
  batch: ({ rows }) =>
    console.log(
      table(
        ["what", "rate"],
        rows.map((r) => [r.key, r.text]),
      ),
    ),
  cache: ({ rows }) =>
    console.log(
      table(
        ["what", "ms", "MB", "prefill / this"],
        rows.map((r) => [r.key, r.ms.toFixed(2), r.bytes === undefined ? "" : (r.bytes / 1e6).toFixed(2), r.ofPrefill.toFixed(1)]),
      ),
    ),
  load: ({ rows }) =>
    console.log(
      table(
        [
          "model",
          "load ms",
          "MB/s",
          "first touch of so much memory, ms",
          "start to first token ms",
          "MB above the runtime's",
          "× file + cache",
        ],
        rows.map((r) => [
          r.key,
          Math.round(r.ms),
          Math.round(r.mbps),
          Math.round(r.touchMs),
          r.ttftMs === undefined ? "–" : Math.round(r.ttftMs),
          r.aboveRuntime === undefined ? "–" : (r.aboveRuntime / 1e6).toFixed(1),
          r.ofFile?.toFixed(2) ?? "–",
        ]),
      ),
    ),
  size: ({ rows }) =>
    console.log(
      table(
        ["what", "kB", "gzip kB", "brotli kB", "ms"],
        rows.map((r) => [
          r.key,
          ...[r.bytes, r.gzip, r.brotli].map((n) => (n === undefined ? "" : (n / 1e3).toFixed(1))),
          r.ms === undefined ? "" : r.ms.toFixed(2),
        ]),
      ),
    ),
};
for (const [name, result] of Object.entries(results)) {
  console.log(`\n## ${name}\n`);
  TABLES[name](result);
  if (result.goals.length)
    console.log(
      `\n${table(
        ["goal", "measured", "", ""],
        result.goals.map((g) => [g.key, g.text, g.limit, g.isMet ? "met" : "missed"]),
      )}`,
    );
}

if (!Object.values(results).some(({ rows }) => rows.length)) {
  process.exitCode = 1;
  console.log("\nnothing was measured: no cell is named as --only and --shapes want it");
}

const RESULTS = "bench/results";
mkdirSync(RESULTS, { recursive: true });
const draw = (name, svg) => {
  writeFileSync(`${RESULTS}/${name}.svg`, svg);
  note(`drew ${RESULTS}/${name}.svg`);
};
const where = `${about.cpu}, ${about.runtime}, ${about.date}`;
const products = (results.kernels?.rows ?? []).filter((r) => r.macs > 0);
if (products.length) {
  const { plain, relaxed } = ceilings.dot;
  draw(
    "roofline",
    roofline({
      title: "Products and attention against the machine, one thread",
      about: where,
      points: products.map((r) => ({
        x: r.macs / r.bytes,
        y: r.gmacs,
        series: r.kernel === "attention" ? "attention" : `${r.dtype} weights`,
        title: `${r.key}: ${rate(r.gbps)} GB/s, ${rate(r.gmacs)} GMAC/s`,
      })),
      slopes: [
        ["L2", ceilings.near],
        ["memory", ceilings.far],
      ],
      flats: [
        ["integer dot", Math.max(plain, relaxed ?? 0)],
        ["f32", ceilings.muladd],
      ],
    }),
  );
}
for (const shape of new Set((results.generate?.rows ?? []).map((r) => r.shape)))
  for (const what of ["prefill", "decode"]) {
    const rows = results.generate.rows.filter((r) => r.shape === shape && r.what.startsWith(what) && r.slowestMs === undefined);
    const series = [...new Set(rows.map((r) => r.name))];
    const groups = [...new Set(rows.map((r) => `${r.dtype}, ${r.what.split(" ").at(-1)}`))].map((name) => ({
      name,
      values: series.map((s) => rows.find((r) => r.name === s && `${r.dtype}, ${r.what.split(" ").at(-1)}` === name)?.tps),
    }));
    if (rows.length)
      draw(
        `${what}-${shape}`,
        bars({
          title: `${what}, ${shape} shape, by weights and ${what === "prefill" ? "prompt" : "context"}`,
          about: where,
          unit: "tokens/s",
          series,
          groups,
        }),
      );
  }

const all = { ...about, ceilings, ...results };
if (options.json) writeFileSync(options.json, `${JSON.stringify(all, null, 1)}\n`);
if (options.compare) {
  const { lines, slower, both, alone } = compare(results, JSON.parse(readFileSync(options.compare, "utf8")));
  console.log(`\n## against ${options.compare}: new / old, larger is better\n\n${lines.join("\n")}`);
  if (alone.length) console.log(`\nin one of both only:\n\n${alone.join("\n")}`);
  if (slower.length || !both) process.exitCode = 1;
  const verdict = slower.length ? `${slower.length} became slower by more than 5 %` : "nothing became slower by more than 5 %";
  console.log(both ? `\n${verdict}, of ${both} that both have` : "\nnothing to compare: no key stands in both");
}
if (missed.length) {
  process.exitCode = 1;
  console.log(`\n## missed\n\n${missed.map(({ key, text, limit }) => `${key}: ${text}, ${limit}`).join("\n")}`);
}
