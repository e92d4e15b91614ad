// Tables, and what has changed since an older run.
import { cpus } from "node:os";

/** What a result is of: date, machine, runtime. */
export function machine() {
  const { node, v8 } = process.versions;
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model.trim() ?? "",
    cores: cpus().length,
    runtime: `Node ${node} (V8 ${v8})`,
  };
}

/** A Markdown table, columns as wide as they need to be. */
export function table(head, rows) {
  const cells = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, i) => Math.max(3, ...cells.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((text, i) => text.padEnd(widths[i])).join(" | ")} |`;
  return [line(cells[0]), line(widths.map((w) => "-".repeat(w))), ...cells.slice(1).map(line)].join("\n");
}

/** Slower than before by more than this is worth a look. */
const TOLERANCE = 0.05;

/**
 * Ratios to an older run, by key; larger is better everywhere (`value`).
 * @returns lines, the keys that became slower, how many both have, and the lines of those that stand in only one of them
 */
export function compare(suites, old) {
  const lines = [];
  const slower = [];
  const alone = [];
  let both = 0;
  for (const [name, { rows }] of Object.entries(suites)) {
    const before = new Map((old[name]?.rows ?? []).map((row) => [row.key, row.value]));
    for (const { key, value } of rows) {
      if (!before.has(key)) {
        alone.push(`new    ${key}`);
        continue;
      }
      both++;
      const ratio = value / before.get(key);
      const isSlower = ratio < 1 - TOLERANCE;
      if (isSlower) slower.push(key);
      lines.push(`${ratio.toFixed(3)} ${isSlower ? "SLOWER" : ratio > 1 + TOLERANCE ? "faster" : "      "} ${key}`);
    }
    const now = new Set(rows.map(({ key }) => key));
    for (const key of before.keys()) if (!now.has(key)) alone.push(`gone   ${key}`);
  }
  return { lines, slower, both, alone };
}
