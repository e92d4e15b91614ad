// Words and options of a benchmark's command line.
import { relative } from "node:path";
import { parseArgs } from "node:util";

const list = (text) => text.split(",").filter(Boolean);
const numbers = (text) =>
  list(text).map((word) => {
    const n = Number(word);
    if (Number.isInteger(n) && n >= 0) return n;
    throw new Error(`bench: expected whole numbers, got ${JSON.stringify(text)}`);
  });

/**
 * @param defaults option name → default value: a flag, a text, or a list of words or numbers, given with commas between
 * @returns words and options; `--help` prints them and ends the process
 */
export function readOptions(defaults, argv = process.argv.slice(2)) {
  const kinds = Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [name, { type: typeof value === "boolean" ? "boolean" : "string" }]),
  );
  if (argv.includes("--help") || argv.includes("-h")) {
    const lines = Object.entries(defaults).map(([name, value]) => `  --${name}${typeof value === "boolean" ? "" : ` ${value}`}`);
    console.log(
      `node ${relative(process.cwd(), process.argv[1])} [WORDS] [OPTIONS], explained in bench/README.md; by default:\n${lines.join("\n")}`,
    );
    process.exit(0);
  }
  const { values, positionals } = parseArgs({ args: argv, options: kinds, allowPositionals: true, strict: true });
  const options = Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => {
      const given = values[name];
      if (given === undefined) return [name, value];
      if (typeof value === "number") return [name, numbers(given)[0]];
      if (!Array.isArray(value)) return [name, given];
      return [name, typeof value[0] === "number" ? numbers(given) : list(given)];
    }),
  );
  return { words: positionals, options };
}
