// What quantization costs in quality, held to what was measured: the bundled model on held-out text, golden models on their own. `npm run quality` prints the table.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import { encodeDocuments, measure, quantizedFile, type Row } from "../../bench/quality/measure.mjs";
import { pick } from "../scale.ts";
import { checkpointFolder, ggufFile, goldenJson } from "./support.ts";

/** Mean divergences from f32 in nats a token, and the share of tokens with the same first choice. */
interface Measured {
  /** Over replies, by rounded weights with exact activations, and as the kernels run them. */
  readonly replies?: readonly [weights: number, kernels: number];
  readonly sameChoiceInReplies?: number;
  /** Weights alone where a file has them rounded. */
  readonly all: readonly [weights: number | undefined, kernels: number];
  /** Of the kernels' path from the model with the same rounded weights and exact activations, where a file has them. */
  readonly activations?: number;
  readonly sameChoice: number;
  /** Perplexity of the text over all its tokens, as the kernels run them, against that of f32. */
  readonly perplexity: number;
}

/** A change that costs more than this against what was measured is no accident of rounding. */
const MARGIN = 1.5;
/** Few tokens carry the divergence in replies: other roundings of the same quality shift it by more. */
const REPLIES_MARGIN = 3;
/** So many tokens of the replies may get another first choice beside their share. */
const REPLIES_SLACK = 2;
/** Perplexity rises and falls with single tokens: by so much around what was measured. */
const PERPLEXITY_MARGIN = 0.01;
/** f16 keys and values. */
const F16_KV = 3e-6;

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
  const { kl } = find(rows, "f32", "f32", "q8").all;
  if (int8Cache === 0) assert.equal(kl, 0, "no attention, no keys and values");
  else near(kl, int8Cache, MARGIN, "int8 keys and values");
  for (const [name, m] of Object.entries(measured)) {
    if (m.all[0] !== undefined) {
      const weights = find(rows, name, "f32");
      near(weights.all.kl, m.all[0], MARGIN, `${name}, weights alone`);
      if (m.replies && weights.replies) near(weights.replies.kl, m.replies[0], REPLIES_MARGIN, `${name}, replies, weights alone`);
    }
    if (m.activations !== undefined) {
      const alone = find(rows, name, "int8").activationsAlone ?? assert.fail();
      near(alone.all.kl, m.activations, MARGIN, `${name}, activations alone`);
    }
    const asKernelsRun = kernelsOf(rows, name);
    assert.deepEqual(
      asKernelsRun.map((row) => row.kv),
      ["f32", "f16", "q8"],
    );
    for (const row of asKernelsRun) {
      near(row.all.kl, m.all[1], MARGIN, `${name}, keys and values ${row.kv}`);
      const ratio = row.all.perplexity / exact;
      const expected = `${m.perplexity} times that of f32, ${exact}`;
      assert.ok(
        Math.abs(ratio - m.perplexity) < PERPLEXITY_MARGIN,
        `${name}, keys and values ${row.kv}: perplexity ${row.all.perplexity}, measured before: ${expected}`,
      );
      assert.ok(1 - row.all.top1 < MARGIN * (1 - m.sameChoice), `${name}, keys and values ${row.kv}: same choice in ${row.all.top1}`);
      if (!m.replies || m.sameChoiceInReplies === undefined) continue;
      const { kl, top1, tokens } = row.replies ?? assert.fail();
      near(kl, m.replies[1], REPLIES_MARGIN, `${name}, replies, keys and values ${row.kv}`);
      assert.ok(
        (1 - top1) * tokens < MARGIN * (1 - m.sameChoiceInReplies) * tokens + REPLIES_SLACK,
        `${name}, replies, keys and values ${row.kv}: same choice in ${top1} of ${tokens}`,
      );
    }
  }
}

/** The bundled model on eight documents, and on all of them. */
const SAMPLE: Readonly<Record<string, Measured>> = {
  q8: {
    replies: [1.6e-6, 6e-6],
    sameChoiceInReplies: 0.998,
    all: [0.000155, 0.00053],
    activations: 0.00038,
    sameChoice: 0.986,
    perplexity: 1.005,
  },
  q4: {
    replies: [0.0004, 0.00041],
    sameChoiceInReplies: 0.9855,
    all: [0.049, 0.0495],
    activations: 0.00036,
    sameChoice: 0.89,
    perplexity: 1.024,
  },
  "q4, embedding q8": {
    replies: [0.00018, 0.0002],
    sameChoiceInReplies: 0.9938,
    all: [0.0351, 0.0355],
    activations: 0.00037,
    sameChoice: 0.9,
    perplexity: 1.0085,
  },
};
const WHOLE: Readonly<Record<string, Measured>> = {
  q8: {
    replies: [1.3e-6, 4.4e-6],
    sameChoiceInReplies: 0.9996,
    all: [0.0002, 0.00063],
    activations: 0.00043,
    sameChoice: 0.986,
    perplexity: 1.0013,
  },
  q4: {
    replies: [0.00038, 0.00038],
    sameChoiceInReplies: 0.9966,
    all: [0.06, 0.06],
    activations: 0.00043,
    sameChoice: 0.879,
    perplexity: 0.983,
  },
  "q4, embedding q8": {
    replies: [0.00024, 0.00024],
    sameChoiceInReplies: 0.9982,
    all: [0.043, 0.044],
    activations: 0.00047,
    sameChoice: 0.902,
    perplexity: 0.989,
  },
};
/** Perplexity of all replies in f32. */
const EXACT_REPLIES = 1.0249;

/** What README and docs/architecture.md say: rows of Markdown tables by their first cell, each cell's number, a percentage as a share. */
function tableRows(file: string, heading: string): Map<string, number[]> {
  const lines = readFileSync(file, "utf8").split("\n");
  const from = lines.findIndex((line) => line.startsWith(heading));
  assert.ok(from >= 0, `${file}: no table ${heading}`);
  const length = lines.slice(from).findIndex((line) => !line.startsWith("|"));
  const number = (cell: string): number => Number.parseFloat(cell) / (cell.includes("%") ? 100 : 1);
  return new Map(
    lines.slice(from + 2, from + length).map((line) => {
      const [name = "", ...cells] = line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim());
      return [name, cells.map(number)];
    }),
  );
}

/** Fails unless a figure of a table is what was measured, but for its last digit and what other keys and values change. */
function told(value: number | undefined, measured: number, by: number, what: string): void {
  assert.ok(value !== undefined && Math.abs(value - measured) <= by, `${what}: told ${value}, measured ${measured}`);
}

describe("quality under quantization", () => {
  const documents = pick({ gate: 8, full: 160 });
  const measured = pick({ gate: SAMPLE, full: WHOLE });

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
    if (pick({ gate: false, full: true }))
      for (const [name, [kl, top1, perplexity]] of tableRows("README.md", "| weights | KL to f32, nats a token of a reply |")) {
        const row = name.startsWith("f32") ? find(rows, "f32", "f32") : find(rows, name, "int8", "f16");
        const now = row.replies ?? assert.fail();
        told(kl, now.kl, 0.06 * now.kl, `${name}, divergence`);
        told(top1, now.top1, 0.00015, `${name}, same first choice`);
        told(perplexity, now.perplexity, 0.0001, `${name}, perplexity`);
      }
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

  it("README's figures of the bundled model are those that are held here, and it says how small that is", () => {
    const readme = readFileSync("README.md", "utf8");
    assert.match(readme, /the bundled model, which has 4 M weights/);
    const rows = tableRows("README.md", "| weights | KL to f32, nats a token of a reply |");
    assert.deepEqual([...rows.keys()].slice(1), Object.keys(WHOLE));
    assert.deepEqual([...rows.values()][0], [0, 1, EXACT_REPLIES]);
    for (const [name, { replies, sameChoiceInReplies = 0 }] of Object.entries(WHOLE)) {
      const [kl, top1, perplexity] = rows.get(name) ?? [];
      told(kl, replies?.[1] ?? 0, 0.06 * (replies?.[1] ?? 0), `${name}, divergence`);
      told(top1, sameChoiceInReplies, 0.00005, `${name}, same first choice`);
      told(perplexity, EXACT_REPLIES, 0.0006, `${name}, perplexity`);
    }
    const all = tableRows("docs/architecture.md", "| weights | KL | same first choice | perplexity | replies |");
    const exact = [...all.values()][0]?.[2] ?? 0;
    for (const [name, { all: kls, sameChoice, perplexity }] of Object.entries(WHOLE)) {
      const row = all.get(name) ?? [];
      told(row[0], kls[1], 0.06 * kls[1], `${name}, divergence over all tokens`);
      told(row[1], sameChoice, 0.0006, `${name}, same first choice over all tokens`);
      told((row[2] ?? 0) / exact, perplexity, 0.0006, `${name}, perplexity over all tokens`);
    }
  });

  // Random weights spread every rounding over flat predictions: here the numbers only hold the kernels to what they were. Four have a bias, or a size that is no multiple of 32, for
  // which GGUF has no form, or not throughout: a load quantizes them.
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
        q8: { all: [undefined, 0.0069], sameChoice: 0.78, perplexity: 0.9973 },
        q4: { all: [undefined, 0.2765], sameChoice: 0.078, perplexity: 1.1 },
      },
    },
    "tiny-conv-first": {
      int8Cache: 0.000027,
      types: {
        q8: { all: [0.00153, 0.0035], activations: 0.00194, sameChoice: 0.83, perplexity: 0.9935 },
        q4: { all: [0.299, 0.299], activations: 0.00172, sameChoice: 0.2, perplexity: 1.003 },
      },
    },
    "tiny-gqa3": {
      int8Cache: 0.00009,
      types: {
        q8: { all: [undefined, 0.0042], sameChoice: 0.935, perplexity: 1.001 },
        q4: { all: [undefined, 0.443], sameChoice: 0.35, perplexity: 1.066 },
      },
    },
    "tiny-attn-first": {
      int8Cache: 0.00112,
      types: {
        q8: { all: [undefined, 0.0079], sameChoice: 0.87, perplexity: 1.0144 },
        q4: { all: [undefined, 0.806], sameChoice: 0.245, perplexity: 1.1345 },
      },
    },
    "tiny-conv-only": {
      int8Cache: 0,
      types: {
        q8: { all: [undefined, 0.00087], sameChoice: 0.96, perplexity: 1.0016 },
        q4: { all: [undefined, 0.102], sameChoice: 0.436, perplexity: 0.9126 },
      },
    },
  };
  const BY_DTYPE = ["tiny-deep", "tiny-gqa3", "tiny-attn-first", "tiny-conv-only"];
  for (const name of pick({ gate: ["tiny-quant", "tiny-gqa3"], full: Object.keys(golden) })) {
    it(`golden model ${name}: divergence and same first choice as measured`, async () => {
      const { long } = goldenJson<{ long: number[] }>("models", name, "golden.json");
      const text = { ids: long, isReply: long.map(() => false) };
      const file = (type: string, head: string): string => ggufFile(name, type, { head, isSearched: true });
      const source = BY_DTYPE.includes(name) ? { folder: checkpointFolder(name) } : { file };
      const rows = await measure({ load, ...source, texts: () => [text] });
      check(rows, golden[name]?.types ?? {}, golden[name]?.int8Cache ?? 0);
    });
  }

  it("docs/architecture.md has every golden model, with the figures that are held here", () => {
    const rows = tableRows("docs/architecture.md", "| golden model |");
    assert.deepEqual([...rows.keys()].sort(), Object.keys(golden).sort());
    for (const [name, [kl8 = 0, kl4 = 0, top8, top4, exact = 0, ppl8 = 0, ppl4 = 0]] of rows)
      for (const [type, kl, top1, perplexity] of [
        ["q8", kl8, top8, ppl8],
        ["q4", kl4, top4, ppl4],
      ] as const) {
        const m = golden[name]?.types[type] ?? assert.fail();
        told(kl, m.all[1], 0.15 * m.all[1], `${name}, ${type}, divergence`);
        told(top1, m.sameChoice, MARGIN * (1 - m.sameChoice) - (1 - m.sameChoice), `${name}, ${type}, same first choice`);
        told(perplexity / exact, m.perplexity, PERPLEXITY_MARGIN, `${name}, ${type}, perplexity`);
      }
  });
});
