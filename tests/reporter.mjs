// Dots, and at the end the seconds that the tests and hooks of each suite took, of the slowest files and the slowest tests. Files run side by side, so these add up to more than the run.
import { basename, dirname } from "node:path";
import Mocha from "mocha";

const SLOWEST = 8;
const SLOWEST_TESTS = 24;

function add(sums, name, ms) {
  sums.set(name, (sums.get(name) ?? 0) + ms / 1000);
}

function print(sums, rows) {
  for (const [name, s] of [...sums].sort(([, a], [, b]) => b - a).slice(0, rows)) console.log(`${s.toFixed(1).padStart(8)}  ${name}`);
}

export default class extends Mocha.reporters.Dot {
  constructor(runner, options) {
    super(runner, options);
    process.exitCode = 1; // until mocha itself tells how the run went: one that is interrupted may end without a word
    const suites = new Map();
    const files = new Map();
    const tests = new Map();
    const count = (test) => {
      const { file, duration } = test;
      if (!file || !duration) return;
      const suite = basename(dirname(file));
      add(suites, suite, duration);
      add(files, `${suite}/${basename(file, ".test.mjs")}`, duration);
      add(tests, test.fullTitle(), duration);
    };
    const { EVENT_TEST_FAIL, EVENT_TEST_END, EVENT_HOOK_END, EVENT_RUN_END } = Mocha.Runner.constants;
    runner.on(EVENT_TEST_FAIL, (test, error) => console.log(`\n  ${test.fullTitle()}: ${error.message}`)); // at once, as a run that hangs never ends
    runner.on(EVENT_TEST_END, count);
    runner.on(EVENT_HOOK_END, count);
    runner.once(EVENT_RUN_END, () => {
      console.log("\nseconds per suite");
      print(suites, suites.size);
      console.log("the slowest files");
      print(files, SLOWEST);
      console.log("the slowest tests");
      print(tests, SLOWEST_TESTS);
    });
  }
}
