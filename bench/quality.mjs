// What quantization costs in quality: divergence from f32, agreement and perplexity, of the bundled model on held-out text for each element type of weights and cache,
// and of the golden models, whose weights are random, on the ids of their goldens.
//
//   npm run quality                   Markdown, over all held-out documents
//   npm run quality -- --json         the same as JSON
//   npm run quality -- --documents 20 fewer of them
//   npm run quality -- --golden       the golden models alone
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "../scripts/build.mjs";
import { presetOf, writeCheckpoint } from "../scripts/checkpoints/make-checkpoint.mjs";
import { encodeDocuments, measure, quantizedFile } from "./quality/measure.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const args = process.argv.slice(2);
const at = args.indexOf("--documents");
const known = (a, i) => a === "--json" || a === "--golden" || (at >= 0 && (i === at || i === at + 1));
if (!args.every(known)) throw new Error(`usage: npm run quality -- [--json] [--golden] [--documents N]; got ${args.join(" ")}`);
const documents = JSON.parse(readFileSync("bench/quality/heldout.json", "utf8")).slice(0, at >= 0 ? Number(args[at + 1]) : undefined);
if (documents.length === 0) throw new Error(`--documents: expected a number from 1, got ${args[at + 1]}`);

await ensureBuilt();
const { load } = await import("lfm2-wasm");
const folder = join("models", "lfm2-mini");
const made = new Map();
const file = (type, head) => {
  const out = join("build", "quality", `lfm2-mini-${type}-${head}.gguf`);
  if (!made.has(out)) {
    mkdirSync(join("build", "quality"), { recursive: true });
    quantizedFile(folder, type, head, out);
    made.set(out, true);
  }
  return out;
};

const kl = (v) => (v < 1e-9 ? "0" : v.toPrecision(2));
const percent = (v) => `${(100 * v).toFixed(2)} %`;

/** The bundled model's table. */
function printBundled(rows) {
  const { replies, all } = rows[0];
  console.log(
    `lfm2-mini (4 M weights), ${documents.length} held-out documents: ${replies.tokens} tokens of replies, ${all.tokens} in all.\n`,
  );
  console.log(
    "| weights | keys, values | activations | KL to f32, replies | all | same first choice, replies | all | perplexity, replies | all |",
  );
  console.log("|---|---|---|---|---|---|---|---|---|");
  for (const { name, kv, activations, replies: r, all: a } of rows) {
    const perplexities = `${r.perplexity.toFixed(4)} | ${a.perplexity.toFixed(3)}`;
    console.log(
      `| ${name} | ${kv} | ${activations} | ${kl(r.kl)} | ${kl(a.kl)} | ${percent(r.top1)} | ${percent(a.top1)} | ${perplexities} |`,
    );
  }
  for (const { name, activationsAlone, ...row } of rows.filter((r) => r.activationsAlone)) {
    const weights = rows.find((r) => r.name === name && r.activations === "f32");
    const share = (part) => percent(1 - weights[part].kl / row[part].kl);
    const alone = `${kl(activationsAlone.replies.kl)} and ${kl(activationsAlone.all.kl)}`;
    console.log(
      `\n${name}: int8 activations make ${share("replies")} of the KL in replies, ${share("all")} over all; alone, from the same weights, ${alone} nats.`,
    );
  }
}

/** @returns the rows of each golden model, as a load quantizes it */
async function measureGolden() {
  const models = {};
  const goldens = join("tests", "golden", "data", "models");
  for (const name of readdirSync(goldens).filter((entry) => entry.startsWith("tiny-"))) {
    const { long: ids } = JSON.parse(readFileSync(join(goldens, name, "golden.json"), "utf8"));
    const dir = join("build", "quality", name);
    rmSync(dir, { recursive: true, force: true });
    writeCheckpoint(presetOf(name), { seed: 1, dtype: "bf16", dir });
    models[name] = await measure({ load, folder: dir, texts: () => [{ ids, isReply: ids.map(() => false) }] });
  }
  return models;
}

/** One line a model: as the kernels run it, with f16 keys and values. */
function printGolden(models) {
  console.log("\n| golden model | KL to f32, q8 | q4 | same first choice, q8 | q4 | perplexity, f32 | q8 | q4 |");
  console.log("|---|---|---|---|---|---|---|---|");
  for (const [name, rows] of Object.entries(models)) {
    const [q8, q4] = ["q8", "q4"].map((type) => rows.find((r) => r.name === type && r.kv === "f16").all);
    const perplexities = [rows[0].all, q8, q4].map((a) => a.perplexity.toFixed(1)).join(" | ");
    console.log(`| ${name} | ${kl(q8.kl)} | ${kl(q4.kl)} | ${percent(q8.top1)} | ${percent(q4.top1)} | ${perplexities} |`);
  }
}

const rows = args.includes("--golden")
  ? undefined
  : await measure({ load, file, texts: (model) => encodeDocuments(model.tokenizer, documents) });
const golden = await measureGolden();
if (args.includes("--json")) console.log(JSON.stringify({ documents: documents.length, rows, golden }, null, 1));
else {
  if (rows) printBundled(rows);
  printGolden(golden);
}
