// What a decode step costs beside its kernels, and how it fares where others want the cores. Goals are asserted.
import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { load } from "lfm2-wasm";
import { checkpointOf } from "../lib/checkpoints.mjs";
import { check, median } from "../lib/measure.mjs";
import { greedy, prompt, take } from "../lib/stepper.mjs";

const JAVASCRIPT_MS = 0.03;
const SWITCH_SHARE = 0.01;
const BUSY = 1.3;

/** What takes less than a nanosecond counts as one: ratios to other runs stay numbers. */
const LEAST = 1e-6;

const CHECKED_TOKENS = 24;
const QUIET_STEPS = 32;
const BUSY_STEPS = 48;
const SETTLE_MS = 300;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Whether this process runs before all others whatever they want: then nobody can keep its cores busy, and who tries never ends. */
function isRealTime() {
  try {
    return Number(readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ")[38]) > 0;
  } catch {
    return false; // no Linux
  }
}

function* outside(path, dtype, title, options) {
  for (const threads of options.threads) {
    const args = [new URL("../lib/between.mjs", import.meta.url).pathname, path, JSON.stringify({ dtype, threads })];
    const runs = Array.from({ length: options.rounds }, () => JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" })));
    const of = (name) => median(runs.map((run) => run[name]));
    const name = `${title}, ${runs[0].variant}, ${threads} thread${threads > 1 ? "s" : ""}`;
    const us = (ms) => `${(1000 * ms).toFixed(1)} µs`;
    const javascript = of("javascript");
    yield { key: `${name}: JavaScript a step`, value: javascript, text: us(javascript), goal: { atMost: JAVASCRIPT_MS, show: us } };
    yield { key: `${name}: the event loop's turn`, value: of("loop"), text: us(of("loop")) };
    yield { key: `${name}: sampling, greedy`, value: of("sampling"), text: us(of("sampling")) };
    const share = of("empty") / of("run");
    const text = `${us(of("empty"))}, ${(100 * share).toFixed(2)} % of the step`;
    yield {
      key: `${name}: ${runs[0].commands} commands that do nothing`,
      value: share,
      text,
      goal: { atMost: SWITCH_SHARE, show: (x) => `${100 * x} %` },
    };
  }
}

/** A process for each core that does nothing but compute. */
const occupy = (cores) => Array.from({ length: cores }, () => spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" }));

const TICK_MS = 10;

/** Time that processes have spent on a core so far, ms; undefined where there is no /proc. */
function cpuMs(processes) {
  try {
    return processes.map(({ pid }) => {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
      return TICK_MS * (Number(fields[11]) + Number(fields[12]));
    });
  } catch {
    return undefined; // no Linux
  }
}

/** ms of each of the next steps. */
async function eachMs(generator, count) {
  const list = [];
  for (let i = 0; i < count; i++) list.push((await take(generator, 1)).ms);
  return list;
}

async function* busy(path, dtype, title, options, note) {
  if (isRealTime()) return note(`left out: ${title} with busy cores: this process has real-time priority`);
  const cores = availableParallelism();
  let expected;
  for (const threads of options.threads) {
    const model = await load(path, { dtype, threads });
    const generator = greedy(model, prompt(1, 3, model.config.vocabSize));
    const { ids } = await take(generator, CHECKED_TOKENS);
    expected ??= ids;
    check(String(ids) === String(expected), `${title}, ${threads} threads: other ids than with ${options.threads[0]}`);
    const [ratios, fair] = [[], []];
    for (let round = 0; round < options.rounds; round++) {
      const quiet = (await eachMs(generator, QUIET_STEPS)).toSorted((a, b) => a - b)[QUIET_STEPS >> 2]; // somebody else may be busy already
      const others = occupy(cores);
      await wait(SETTLE_MS);
      const before = cpuMs(others);
      const { ms } = await take(generator, BUSY_STEPS);
      const after = cpuMs(others);
      for (const other of others) other.kill("SIGKILL");
      ratios.push(ms / BUSY_STEPS / quiet);
      // what each of the others got of a core is what each thread is due
      const got = after?.map((used, i) => (used - before[i]) / ms);
      fair.push(got ? got.length / got.reduce((a, b) => a + b, 0) : (threads + cores) / cores);
      await wait(SETTLE_MS);
    }
    await generator.return();
    model.dispose();
    const value = median(ratios.map((ratio, i) => ratio / fair[i]));
    const name = `${title}, ${threads} thread${threads > 1 ? "s" : ""}: ${cores} cores busy`;
    yield {
      key: name,
      value,
      text: `${median(ratios).toFixed(2)} × the time, each of the others ${(100 / median(fair)).toFixed(0)} % of a core: ${value.toFixed(2)} × fair share`,
      goal: { atMost: BUSY, show: (x) => `${x} × fair share` },
    };
  }
}

/** @returns rows with a value each */
export async function steps({ options, note, goals }) {
  const rows = [];
  for (const shape of options.shapes)
    for (const dtype of options.dtypes.filter((d) => !options.isQuick || d === "q4")) {
      const title = `${shape} ${dtype}`;
      const path = await checkpointOf(shape, dtype);
      const asked = shape === "mini" && dtype === "q4" ? undefined : dtype;
      for (const part of [outside, busy])
        for await (const { goal, ...row } of part(path, asked, title, options, note)) {
          if (!options.wants(row.key)) continue;
          rows.push({ ...row, cost: row.value, value: 1 / Math.max(row.value, LEAST) });
          if (goal) goals.add(row.key, row.value, { ...goal, text: row.text });
          else note(`${row.key}: ${row.text}`);
        }
    }
  return { rows };
}
