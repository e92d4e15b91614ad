// The goals of issue 4 that peers.mjs measures: ratios of its cells, one row a goal, and the report as Markdown.
import { existsSync } from "node:fs";
import { fileBytes } from "../lib/checkpoints.mjs";
import { median } from "../lib/measure.mjs";
import { table } from "../lib/report.mjs";
import { macsPerToken, tileOf } from "../lib/tile.mjs";

export const cross = (...lists) => lists.reduce((all, list) => all.flatMap((head) => list.map((item) => [...head, item])), [[]]);
const times = (x) => `${x.toFixed(2)}×`;
const percent = (x) => `${Math.round(100 * x)} %`;
const threadsText = (n) => `${n} thread${n > 1 ? "s" : ""}`;

/** How many times faster ours is than `peer`, the median of the rounds' pairs; undefined where the cell was not measured. */
function ratio(cells, key, peer) {
  const { ms } = cells[key] ?? {};
  if (!ms?.ours || !ms[peer]) return undefined;
  return median(ms[peer].map((theirs, i) => theirs / ms.ours[i])); // a slow peer has fewer rounds
}

/** Measured values of the goals, each a list of { value, name }. */
class Values {
  constructor(cells, options, machine, asks) {
    Object.assign(this, { cells, options, machine, asks });
  }

  /** All ratios to a peer of the cells named `whats`; without a value those that were asked for and not measured. */
  ratios(peer, type, whats) {
    const { models, threads } = this.options;
    return cross(models, threads, whats).flatMap(([shape, n, what]) => {
      const value = ratio(this.cells, `${shape} ${type} ${n}t ${what}`, peer);
      return value === undefined && !this.asks(peer, shape, type, what) ? [] : [{ value, name: `${shape}, ${threadsText(n)}, ${what}` }];
    });
  }

  starts(peer) {
    return this.options.types.flatMap((type) =>
      this.ratios(peer, type, ["start"]).map(({ value, name }) => ({ value, name: `${type}, ${name}` })),
    );
  }

  /** From the packed image, in native's time from the file. */
  warmStarts() {
    return cross(this.options.models, this.options.types, this.options.threads).flatMap(([shape, type, n]) => {
      const value = ratio(this.cells, `${shape} ${type} ${n}t warm start`, "native");
      if (value === undefined && !this.asks("native", shape, type, "warm start")) return [];
      return [{ value: value && 1 / value, name: `${type}, ${shape}, ${threadsText(n)}` }];
    });
  }

  /** The whole step of a prompt against the tile by itself, one thread. */
  ofTile() {
    const list = cross(this.options.models, this.options.prefills).filter(([s, n]) => this.cells[`${s} Q4_0 1t prefill ${n}`]?.ms?.ours);
    if (!list.length) return [];
    const tile = this.machine.tile();
    return list.map(([shape, tokens]) => ({
      value: (macsPerToken(shape) * tokens) / median(this.cells[`${shape} Q4_0 1t prefill ${tokens}`].ms.ours) / 1e6 / tile,
      name: `${shape}, prefill ${tokens}, tile ${tile.toFixed(1)} GMAC/s`,
    }));
  }

  /** Weights that a decode step at an empty context streams, as a share of what as many threads read. */
  ofRead() {
    const { models, types, threads } = this.options;
    return cross(models, types, threads).flatMap(([shape, type, n]) => {
      const { ms } = this.cells[`${shape} ${type} ${n}t decode 0`] ?? {};
      const bytes = ms?.ours && this.machine.weightBytes(shape, type);
      const rate = bytes && (n === 1 ? this.machine.read(bytes) : this.machine.together?.[n]);
      return rate ? [{ value: bytes / median(ms.ours) / 1e6 / rate, name: `${shape} ${type}, ${threadsText(n)}` }] : [];
    });
  }

  scaling(whats) {
    return cross(this.options.models, this.options.types, whats).flatMap(([shape, type, what]) => {
      const [one, two] = [1, 2].map((n) => this.cells[`${shape} ${type} ${n}t ${what}`]?.ms?.ours);
      return one && two ? [{ value: median(one) / median(two), name: `${shape} ${type}, ${what}` }] : [];
    });
  }

  memory() {
    return cross(this.options.models, this.options.types, this.options.threads).flatMap(([shape, type, n]) => {
      const { peak, fileBytes: file, kvBytes } = this.cells[`${shape} ${type} ${n}t start`] ?? {};
      return peak?.ours ? [{ value: peak.ours / (file + kvBytes), name: `${shape} ${type}, ${threadsText(n)}` }] : [];
    });
  }
}

/** Bytes of a file that the cells were measured with; undefined where it is gone. */
function weightBytes(shape, type) {
  const path = `build/bench/${shape}-${type}.gguf`;
  return existsSync(path) ? fileBytes(path) : undefined;
}

/**
 * @param run its cells by key, its options, the ceilings of its machine (`together`: GB/s by threads beyond one), tokens of its first prompt
 * @param run.asks whether a peer was to be measured at a cell: (peer, shape, type, what); where it is absent nothing was asked for
 * @param machine what else the machine says: `tile()`, GMAC/s of the int4 tile by itself, and `weightBytes(shape, type)`
 * @returns the goals, each with all `values` that were measured for it, the worst first, whether that one `isReached`: undefined where there is none, and the names of cells `missing`, which
 * were asked for and not measured
 */
export function goalsOf(
  { cells, options, ceilings, firstPrompt, asks = () => false },
  machine = { tile: () => tileOf("q4"), weightBytes },
) {
  const v = new Values(cells, options, { ...machine, read: ceilings.read, together: ceilings.together }, asks);
  const prefills = options.prefills.map((n) => `prefill ${n}`);
  const near = options.contexts.filter((n) => n <= 512).map((n) => `decode ${n}`);
  const decodes = options.contexts.map((n) => `decode ${n}`);
  const first = `start to first token after ${firstPrompt}`;
  const [isMost, share] = [{ isMost: true }, { show: percent }];
  const goals = [
    ["decode q4, context 0–512", "native", 1.3, v.ratios("native", "Q4_0", near)],
    ["decode q4, context 0–512", "wllama", 8, v.ratios("wllama", "Q4_0", near)],
    ["decode q4, context 4096", "native", 2, v.ratios("native", "Q4_0", ["decode 4096"])],
    ["decode q8", "native", 1.5, v.ratios("native", "Q8_0", decodes)],
    ["decode q8", "wllama", 6, v.ratios("wllama", "Q8_0", decodes)],
    ["prefill q4", "native", 0.7, v.ratios("native", "Q4_0", prefills)],
    ["prefill q4", "wllama", 15, v.ratios("wllama", "Q4_0", prefills)],
    ["prefill q4, whole step", "its tile", 0.75, v.ofTile(), share],
    ["prefill q8", "native", 1.5, v.ratios("native", "Q8_0", prefills)],
    ["prefill q8", "wllama", 15, v.ratios("wllama", "Q8_0", prefills)],
    ["prefill q8", "onnxruntime-web", 2, v.ratios("onnxruntime-web", "Q8_0", prefills)],
    [first, "native", 1.5, v.starts("native")],
    [first, "wllama", 8, v.starts("wllama")],
    [`${first}, ours from the packed image of the file, in time`, "native's from the file", 1.5, v.warmStarts(), isMost],
    ["peak memory above the runtime's", "file + KV", 1.1, v.memory(), isMost],
    ["weights streamed by decode at 0", "the read bandwidth", 0.8, v.ofRead(), share],
    ["prefill, two threads", "one", 1.85, v.scaling(prefills)],
    ["decode, two threads", "one", 1.7, v.scaling(decodes)],
  ];
  return goals.map(([what, against, goal, list, { isMost = false, show = times } = {}]) => {
    const values = list.filter((v) => v.value !== undefined).sort((a, b) => (isMost ? b.value - a.value : a.value - b.value));
    const missing = list.filter((v) => v.value === undefined).map(({ name }) => name);
    const isReached = values.length ? reaches(values[0].value, { goal, isMost }) : undefined;
    return { what, against, goal, isMost, show, values, missing, isReached };
  });
}

const reaches = (value, { goal, isMost }) => (isMost ? value <= goal : value >= goal);

/** By how much the worst value misses, and in how many of the cells. */
function missed(goal) {
  const { values } = goal;
  const by = 100 * Math.abs(1 - values[0].value / goal.goal);
  const share = `missed by ${by < 1 ? by.toPrecision(1) : Math.round(by)} %`;
  const count = values.filter(({ value }) => !reaches(value, goal)).length;
  if (values.length === 1) return share;
  return count === values.length ? `${share}, in all ${count} cells` : `${share}, in ${count} of ${values.length} cells`;
}

function goalRow(goal) {
  const { what, against, isMost, show, values, isReached } = goal;
  const name = `${what}: ${isMost ? "≤" : "≥"} ${show(goal.goal)} ${against}`;
  if (!values.length) return [name, "not measured", goal.missing.length ? "asked for" : ""];
  const [worst, best] = [values[0], values.at(-1)].map((v) => `${show(v.value)} (${v.name})`);
  if (values.length === 1) return [name, worst, isReached ? "met" : missed(goal)];
  return [name, `${worst} to ${best}`, isReached ? `met in all ${values.length} cells` : missed(goal)];
}

const rate = (cell, engine) => {
  if (!cell.ms[engine]) return "–";
  const tps = (1000 * cell.tokens) / median(cell.ms[engine]);
  return tps.toFixed(tps < 10 ? 2 : 1);
};

/** Names of the cells "SHAPE TYPE Nt WHAT" for the first column: what is as in the row above is left out. */
function rowNames(keys) {
  let above = "";
  return keys.map((key) => {
    const [, shape, type, threads, what] = /^(\S+) (\S+) (\d+)t (.*)$/.exec(key);
    const model = `${shape} ${type}, ${threadsText(Number(threads))}`;
    const name = model === above ? what : `${model}, ${what}`;
    above = model;
    return name;
  });
}

function speedTable(cells, peers) {
  const list = Object.entries(cells).filter(([key]) => / (prefill|decode) \d+$/.test(key));
  if (!list.length) return [];
  const names = rowNames(list.map(([key]) => key));
  const over = (key, peer) => {
    const x = ratio(cells, key, peer);
    return x === undefined ? "–" : times(x);
  };
  const head = ["tokens/s", "ours", ...peers, ...peers.map((p) => `ours / ${p}`)];
  const rows = list.map(([key, cell], i) => [names[i], ...["ours", ...peers].map((e) => rate(cell, e)), ...peers.map((p) => over(key, p))]);
  return ["", table(head, rows)];
}

function startTable(cells, peers, firstPrompt) {
  const list = Object.entries(cells).filter(([, cell]) => cell.peak);
  if (!list.length) return [];
  const engines = ["ours", ...peers];
  const each = (value) => engines.map((e) => value(e) ?? "–").join(" / ");
  const rows = list.map(([key, cell]) => [
    rowNames([key])[0].replace(/, start$/, ""),
    each((e) => cell.ms[e] && median(cell.ms[e]).toFixed(0)),
    each((e) => cell.load[e]?.toFixed(0)),
    each((e) => cell.peak[e] && (cell.peak[e] / 1e6).toFixed(0)),
    (cell.fileBytes / 1e6).toFixed(0),
  ]);
  const head = [engines.join(" / "), `start to first token of ${firstPrompt}, ms`, "load, ms", "peak above the runtime's, MB", "file, MB"];
  return ["", table(head, rows)];
}

/** Sentences on the cells that compare more than a rate: first ids, and starts from a packed image. */
function sentences(cells) {
  const notes = (pattern) =>
    Object.entries(cells)
      .filter(([key]) => pattern.test(key))
      .map(([key, cell]) => `${key.replace(pattern, "")}: ${cell.note}`)
      .join("; ");
  const [same, warm] = [notes(/ agreement$/), notes(/ warm start$/)];
  return [...(same ? ["", `The same weights: ${same}.`] : []), ...(warm ? ["", `From a packed image: ${warm}.`] : [])];
}

/** The report as Markdown: what ran, the goals, each met or by how much missed, every cell. It knows no causes: those stand around it. */
export function report({ about, cells, goals, options, firstPrompt, command }) {
  const { peers, rounds, slowRounds } = options;
  const { date, cpu, cores, runtime, build, commit } = about;
  const versions = Object.entries(about.versions).map((pair) => pair.join(" "));
  const few = slowRounds < rounds ? `, of ${slowRounds} for wllama and onnxruntime-web` : "";
  return [
    `${date}, ${cpu}, ${cores} cores, ${runtime}, ${build} build${commit ? `, ${commit}` : ""}; ${versions.join(", ")}. The same random weights.`,
    `Medians of ${rounds} rounds in turns${few}; a ratio is the median of its rounds' ratios. \`${command}\``,
    "",
    table(["goal", "measured, worst to best", ""], goals.map(goalRow)),
    "",
    "Not here: the time behind 32,768 tokens, the plain build against its prototypes. `npm run bench -- generate --shapes 350m` has them and asserts their goals.",
    ...speedTable(cells, peers),
    ...startTable(cells, peers, firstPrompt),
    ...sentences(cells),
  ].join("\n");
}
