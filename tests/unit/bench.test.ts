// `npm run bench` itself: what it measures and how it compares, on one small kernel.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Goals, percent, times } from "../../bench/lib/goals.mjs";
import { pick } from "../scale.ts";

interface Row {
  readonly key: string;
  readonly ms: number;
  readonly gbps: number;
  readonly roof: number;
  value: number;
}

const bench = (...args: string[]) => spawnSync(process.execPath, ["bench/bench.mjs", ...args], { encoding: "utf8" });
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

    row.value *= 1e6; // as if it had been much faster: the machine is shared
    writeFileSync(path, JSON.stringify(old));
    const slower = bench(...ONE, "--compare", path);
    assert.equal(slower.status, 1);
    assert.match(slower.stdout, /^0\.000 SLOWER rmsnorm 350m \(1, 1024\)/m);

    if (!pick({ gate: false, full: true })) return; // each run measures the machine's ceilings
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

  it("refuses a suite that it has not", () => {
    const { status, stderr } = bench("kernel");
    assert.notEqual(status, 0);
    assert.match(stderr, /expected some of kernels, generate, steps, batch, cache, load, size, got "kernel"/);
  });
});
