// What quantization costs in quality, held to what was measured: the bundled model on held-out text, golden models on their own. `npm run quality` prints the table.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import { encodeDocuments, measure, quantizedFile, type Row } from "../../bench/quality/measure.mjs";
import { pick } from "../scale.ts";
import { ggufFile, goldenJson } from "./support.ts";

/** Mean divergences from f32 in nats a token, and the share of tokens with the same first choice. */
interface Measured {
  /** Over replies, by rounded weights with exact activations, and as the kernels run them. */
  readonly replies?: readonly [weights: number, kernels: number];
  readonly all: readonly [weights: number, kernels: number];
  /** Of the kernels' path from the model with the same rounded weights and exact activations. */
  readonly activations: number;
  readonly sameChoice: number;
  /** Perplexity of the text over all its tokens, as the kernels run them, against that of f32. */
  readonly perplexity: number;
}

/** A change that costs more than this against what was measured is no accident of rounding. */
const MARGIN = 1.5;
/** Few tokens carry the divergence in replies: other roundings of the same quality shift it by more. */
const REPLIES_MARGIN = 3;
/** Perplexity rises and falls with single tokens: by so much around what was measured. */
const PERPLEXITY_MARGIN = 0.01;
/** f16 keys and values. */
const F16_KV = 1e-6;

const kernelsOf = (rows: readonly Row[], name: string): Row[] => rows.filter((r) => r.name === name && r.activations === "int8");
const find = (rows: readonly Row[], name: string, activations: string, kv = "f32"): Row =>
  rows.find((r) => r.name === name && r.activations === activations && r.kv === kv) ?? assert.fail(`no row ${name} ${activations} ${kv}`);

/** Near what was measured: neither worse by `margin`, nor so much better that something else is being measured. */
function near(value: number, measured: number, margin: number, what: string): void {
  assert.ok(value < margin * measured, `${what}: ${value}, measured before: ${measured}`);
  assert.ok(value > measured / (2 * margin), `${what}: ${value} is too good to be true, measured before: ${measured}`);
}

/** @param int8Cache divergence with exact weights and activations and an int8 cache */
function check(rows: readonly Row[], measured: Readonly<Record<string, Measured>>, int8Cache: number): void {
  assert.equal(find(rows, "f32", "f32").all.kl, 0);
  const exact = find(rows, "f32", "f32").all.perplexity;
  assert.equal(find(rows, "bf16", "f32").all.kl, 0, "bf16 weights are the original's, and activations stay f32");
  assert.ok(find(rows, "f32", "f32", "f16").all.kl < F16_KV);
  near(find(rows, "f32", "f32", "q8").all.kl, int8Cache, MARGIN, "int8 keys and values");
  for (const [name, m] of Object.entries(measured)) {
    const weights = find(rows, name, "f32");
    near(weights.all.kl, m.all[0], MARGIN, `${name}, weights alone`);
    const alone = find(rows, name, "int8").activationsAlone ?? assert.fail();
    near(alone.all.kl, m.activations, MARGIN, `${name}, activations alone`);
    for (const row of kernelsOf(rows, name)) {
      near(row.all.kl, m.all[1], MARGIN, `${name}, keys and values ${row.kv}`);
      const ratio = row.all.perplexity / exact;
      const expected = `${m.perplexity} times that of f32, ${exact}`;
      assert.ok(
        Math.abs(ratio - m.perplexity) < PERPLEXITY_MARGIN,
        `${name}, keys and values ${row.kv}: perplexity ${row.all.perplexity}, measured before: ${expected}`,
      );
      assert.ok(1 - row.all.top1 < MARGIN * (1 - m.sameChoice), `${name}, keys and values ${row.kv}: same choice in ${row.all.top1}`);
      if (m.replies && row.replies) near(row.replies.kl, m.replies[1], REPLIES_MARGIN, `${name}, replies, keys and values ${row.kv}`);
    }
    if (m.replies && weights.replies) near(weights.replies.kl, m.replies[0], REPLIES_MARGIN, `${name}, replies, weights alone`);
  }
}

describe("quality under quantization", () => {
  const documents = pick({ gate: 8, full: 160 });
  const measured = pick<Record<string, Measured>>({
    gate: {
      q8: { replies: [1.6e-6, 6e-6], all: [0.000155, 0.00053], activations: 0.00038, sameChoice: 0.986, perplexity: 1.005 },
      q4: { replies: [0.0004, 0.00041], all: [0.049, 0.0495], activations: 0.00036, sameChoice: 0.89, perplexity: 1.024 },
      "q4, embedding q8": { replies: [0.00018, 0.0002], all: [0.0351, 0.0355], activations: 0.00037, sameChoice: 0.9, perplexity: 1.0085 },
    },
    full: {
      q8: { replies: [1.3e-6, 4.4e-6], all: [0.0002, 0.00063], activations: 0.00043, sameChoice: 0.986, perplexity: 1.0013 },
      q4: { replies: [0.00038, 0.00038], all: [0.06, 0.06], activations: 0.00043, sameChoice: 0.879, perplexity: 0.983 },
      "q4, embedding q8": { replies: [0.00024, 0.00024], all: [0.043, 0.044], activations: 0.00047, sameChoice: 0.902, perplexity: 0.989 },
    },
  });

  it(`lfm2-mini on ${documents} held-out documents: divergence, same first choice and perplexity as measured`, async () => {
    const text = JSON.parse(readFileSync(join("bench", "quality", "heldout.json"), "utf8")).slice(0, documents);
    const folder = join("models", "lfm2-mini");
    const out = join("build", "quality", String(process.pid));
    mkdirSync(out, { recursive: true });
    const made = new Set<string>();
    const file = (type: string, head: string): string => {
      const path = join(out, `${type}-${head}.gguf`);
      if (!made.has(path)) quantizedFile(folder, type, head, path);
      made.add(path);
      return path;
    };
    const rows = await measure({ load, file, texts: (model) => encodeDocuments(model.tokenizer, text) });
    rmSync(out, { recursive: true, force: true });
    check(rows, measured, pick({ gate: 0.000065, full: 0.000076 }));
    const exact = find(rows, "f32", "f32").replies ?? assert.fail();
    assert.ok(exact.tokens > 50 * documents);
    assert.ok(exact.perplexity > 1 && exact.perplexity < 1.2, `${exact.perplexity}: it was trained to write such replies`);
    // the true replies stay as likely: measured 1.0907 to 1.0916 in the gate, 1.0249 to 1.0254 in the full run
    for (const row of rows) {
      const ratio = (row.replies?.perplexity ?? Number.NaN) / exact.perplexity;
      assert.ok(
        Math.abs(ratio - 1) < 0.003,
        `${row.name}, keys and values ${row.kv}: perplexity ${row.replies?.perplexity}, in f32 ${exact.perplexity}`,
      );
    }
  });

  // Random weights spread every rounding over flat predictions: here the numbers only hold the kernels to what they were. The other golden models have a bias, or a size that is no
  // multiple of 32, for which GGUF has no form.
  const golden: Record<string, { readonly int8Cache: number; readonly types: Record<string, Measured> }> = {
    "tiny-quant": {
      int8Cache: 0.000066,
      types: {
        q8: { all: [0.00127, 0.0029], activations: 0.0016, sameChoice: 0.9, perplexity: 0.996 },
        q4: { all: [0.32, 0.32], activations: 0.00164, sameChoice: 0.49, perplexity: 1.003 },
      },
    },
    "tiny-attn-only": {
      int8Cache: 0.00038,
      types: {
        q8: { all: [0.00084, 0.00185], activations: 0.00089, sameChoice: 0.94, perplexity: 1.003 },
        q4: { all: [0.21, 0.211], activations: 0.00078, sameChoice: 0.56, perplexity: 1.002 },
      },
    },
    "tiny-deep": {
      int8Cache: 0.000041,
      types: {
        q8: { all: [0.00253, 0.00606], activations: 0.00322, sameChoice: 0.83, perplexity: 1.0015 },
        q4: { all: [0.265, 0.266], activations: 0.00224, sameChoice: 0.09, perplexity: 1.123 },
      },
    },
    "tiny-conv-first": {
      int8Cache: 0.000027,
      types: {
        q8: { all: [0.00153, 0.0035], activations: 0.00194, sameChoice: 0.83, perplexity: 0.9935 },
        q4: { all: [0.299, 0.299], activations: 0.00172, sameChoice: 0.2, perplexity: 1.003 },
      },
    },
  };
  for (const name of Object.keys(golden).slice(0, pick({ gate: 2, full: 4 }))) {
    it(`golden model ${name}: divergence and same first choice as measured`, async () => {
      const { long } = goldenJson<{ long: number[] }>("models", name, "golden.json");
      const text = { ids: long, isReply: long.map(() => false) };
      const rows = await measure({ load, file: (type, head) => ggufFile(name, type, { head, isSearched: true }), texts: () => [text] });
      check(rows, golden[name]?.types ?? {}, golden[name]?.int8Cache ?? 0);
    });
  }
});
