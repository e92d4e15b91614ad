// The goals of issue 4 that peers.mjs measures: ratios of its cells, one row a goal, and the report as Markdown.
import { existsSync } from "node:fs";
import { fileBytes } from "../lib/checkpoints.mjs";
import { median } from "../lib/measure.mjs";
import { table } from "../lib/report.mjs";
import { int4Tile, macsPerToken } from "../lib/tile.mjs";

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
  constructor(cells, options, ceilings) {
    Object.assign(this, { cells, options, ceilings });
  }

  /** All ratios to a peer of the cells named `whats`. */
  ratios(peer, type, whats) {
    const { models, threads } = this.options;
    return cross(models, threads, whats).flatMap(([shape, n, what]) => {
      const value = ratio(this.cells, `${shape} ${type} ${n}t ${what}`, peer);
      return value === undefined ? [] : [{ value, name: `${shape}, ${threadsText(n)}, ${what}` }];
    });
  }

  starts(peer) {
    return this.options.types.flatMap((type) =>
      this.ratios(peer, type, ["start"]).map(({ value, name }) => ({ value, name: `${type}, ${name}` })),
    );
  }

  /** From the packed image, in native's time from its file. */
  warmStarts() {
    return cross(this.options.models, this.options.threads).flatMap(([shape, n]) => {
      const value = ratio(this.cells, `${shape} q4 ${n}t warm start`, "native");
      return value === undefined ? [] : [{ value: 1 / value, name: `${shape}, ${threadsText(n)}` }];
    });
  }

  /** The whole step of a prompt against the tile by itself, one thread. */
  ofTile() {
    const list = cross(this.options.models, this.options.prefills).filter(([s, n]) => this.cells[`${s} Q4_0 1t prefill ${n}`]?.ms?.ours);
    if (!list.length) return [];
    const tile = int4Tile();
    return list.map(([shape, tokens]) => ({
      value: (macsPerToken(shape) * tokens) / median(this.cells[`${shape} Q4_0 1t prefill ${tokens}`].ms.ours) / 1e6 / tile,
      name: `${shape}, prefill ${tokens}, tile ${tile.toFixed(1)} GMAC/s`,
    }));
  }

  /** Weights that a decode step at an empty context streams, as a share of what one thread reads. */
  ofRead() {
    return cross(this.options.models, this.options.types).flatMap(([shape, type]) => {
      const { ms } = this.cells[`${shape} ${type} 1t decode 0`] ?? {};
      const path = `build/bench/${shape}-${type}.gguf`;
      if (!ms?.ours || !existsSync(path)) return [];
      const bytes = fileBytes(path);
      return [{ value: bytes / median(ms.ours) / 1e6 / this.ceilings.read(bytes), name: `${shape} ${type}` }];
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

/** @returns the goals, each with its worst and best measured value, and `isReached` where it was measured */
export function goalsOf({ cells, options, ceilings, firstPrompt }) {
  const v = new Values(cells, options, ceilings);
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
    [`${first}, packed image, time`, "native", 1.5, v.warmStarts(), isMost],
    ["peak memory above the runtime's", "file + KV", 1.1, v.memory(), isMost],
    ["weights streamed by decode at 0", "read bandwidth", 0.8, v.ofRead(), share],
    ["prefill, two threads", "one", 1.85, v.scaling(prefills)],
    ["decode, two threads", "one", 1.7, v.scaling(decodes)],
  ];
  return goals.map(([what, against, goal, list, { isMost = false, show = times } = {}]) => {
    const sorted = list.toSorted((a, b) => (isMost ? b.value - a.value : a.value - b.value));
    const [worst, best] = [sorted[0], sorted.at(-1)];
    const isReached = worst && (isMost ? worst.value <= goal : worst.value >= goal);
    return { what, against, goal, isMost, show, worst, best, count: sorted.length, isReached };
  });
}

function goalRow({ what, against, goal, isMost, show, worst, best, count, isReached }) {
  const limit = `${isMost ? "≤" : "≥"} ${show(goal)}`;
  if (!count) return [what, against, limit, "not measured", ""];
  const from = `${show(worst.value)} (${worst.name})`;
  return [what, against, limit, count > 1 ? `${from} to ${show(best.value)}` : from, isReached ? "met" : "missed"];
}

const rate = (cell, engine) => {
  if (!cell.ms[engine]) return "–";
  const tps = (1000 * cell.tokens) / median(cell.ms[engine]);
  return tps.toFixed(tps < 10 ? 2 : 1);
};

function speedTable(cells, peers) {
  const list = Object.entries(cells).filter(([key, cell]) => cell.ms && !cell.peak && !key.endsWith("warm start"));
  const over = (key, peer) => {
    const x = ratio(cells, key, peer);
    return x === undefined ? "–" : times(x);
  };
  return table(
    ["tokens/s", "ours", ...peers, ...peers.map((p) => `ours / ${p}`)],
    list.map(([key, cell]) => [key, ...["ours", ...peers].map((e) => rate(cell, e)), ...peers.map((p) => over(key, p))]),
  );
}

function startTable(cells, peers, firstPrompt) {
  const list = Object.entries(cells).filter(([, cell]) => cell.peak);
  if (!list.length) return [];
  const engines = ["ours", ...peers];
  const each = (value) => engines.map((e) => value(e) ?? "–").join(" / ");
  const rows = list.map(([key, cell]) => [
    key.replace(/ start$/, ""),
    each((e) => cell.ms[e] && median(cell.ms[e]).toFixed(0)),
    each((e) => cell.load[e]?.toFixed(0)),
    each((e) => cell.peak[e] && (cell.peak[e] / 1e6).toFixed(0)),
    (cell.fileBytes / 1e6).toFixed(0),
  ]);
  const head = ["weights", "start to first token, ms", "load, ms", "peak above the runtime's, MB", "file, MB"];
  return ["", `Start of the process, load and first token after ${firstPrompt} tokens: ${engines.join(" / ")}.`, "", table(head, rows)];
}

/** The report as Markdown. */
export function report({ about, cells, goals, options, firstPrompt, command }) {
  const { peers, rounds, slowRounds } = options;
  const versions = Object.entries(about.versions).map((pair) => pair.join(" "));
  const few = slowRounds < rounds ? ` (${slowRounds} of wllama and onnxruntime-web)` : "";
  const lines = [
    `${about.date}, ${about.cpu}, ${about.cores} cores, ${about.runtime}; ${versions.join(", ")}. Medians of ${rounds} rounds in turns${few}; ratios are medians of the rounds' pairs.`,
    `\`${command}\``,
    "",
    table(["goal", "against", "", "measured: worst to best", ""], goals.map(goalRow)),
    "",
    speedTable(cells, peers),
    ...startTable(cells, peers, firstPrompt),
  ];
  const agreements = Object.entries(cells).filter(([, cell]) => cell.same);
  if (agreements.length)
    lines.push("", `The same weights: ${agreements.map(([key, cell]) => `${key.replace(" agreement", "")}: ${cell.note}`).join("; ")}.`);
  return lines.join("\n");
}
