// The bundled checkpoint: its examples word for word in f32, and how far its quantized forms are from that.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LanguageModel } from "../../src/models/language-model.ts";
import type { Message } from "../../src/text/messages.ts";
import { feed, greedy, variants, withModel } from "./support.ts";

interface Example {
  readonly task: string;
  /** Absent where the example is a raw prompt. */
  readonly messages?: Message[];
  readonly tools?: unknown[];
  readonly prompt: string;
  readonly prompt_ids: number[];
  readonly output: string;
  readonly output_ids: number[];
}

const folder = join("models", "lfm2-mini");
const { examples } = JSON.parse(readFileSync(join(folder, "examples.json"), "utf8")) as { examples: Example[] };
const asMessages = examples.flatMap(({ messages, tools, ...rest }) => (messages ? [{ messages, tools, ...rest }] : []));
const f32 = { dtype: "f32", kvDtype: "f32", chunkTokens: 256 } as const;

/** Mean divergence in nats a token: over the replies, which is what the model generates and was trained on, and over prompts too. */
interface Divergence {
  readonly replies: number;
  readonly all: number;
}

function logSoftmax(x: Float32Array): Float64Array {
  const max = x.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const norm = Math.log(x.reduce((a, b) => a + Math.exp(b - max), 0)) + max;
  return Float64Array.from(x, (v) => v - norm);
}

/** Mean of Σ p ln(p / q), p from `exact` and q from `other`, in float64. */
function divergence(exact: readonly Float32Array[], other: readonly Float32Array[], V: number): Divergence {
  const sum = { replies: 0, all: 0 };
  const rows = { replies: 0, all: 0 };
  examples.forEach((example, n) => {
    const logits = exact[n] ?? new Float32Array(0);
    for (let t = 0; (t + 1) * V <= logits.length; t++) {
      const p = logSoftmax(logits.subarray(t * V, (t + 1) * V));
      const q = logSoftmax(other[n]?.subarray(t * V, (t + 1) * V) ?? new Float32Array(V));
      const d = p.reduce((a, v, i) => a + Math.exp(v) * (v - (q[i] ?? 0)), 0);
      const isReply = t >= example.prompt_ids.length - 1 && (t + 2) * V <= logits.length;
      for (const key of isReply ? (["replies", "all"] as const) : (["all"] as const)) {
        sum[key] += d;
        rows[key]++;
      }
    }
  });
  return { replies: sum.replies / rows.replies, all: sum.all / rows.all };
}

const runs = (model: LanguageModel): Float32Array[] => examples.map((e) => feed(model, [...e.prompt_ids, ...e.output_ids]));

describe("the bundled checkpoint", () => {
  for (const variant of variants) {
    it(`gives every example's ids in f32 (${variant})`, () =>
      withModel(folder, { ...f32, variant }, (model) => {
        for (const e of examples) assert.deepEqual(greedy(model, e.prompt_ids, e.output_ids.length), e.output_ids, e.prompt);
      }));
  }

  it("renders and encodes every example's messages to its prompt ids, decodes its output", () =>
    withModel(folder, f32, (_, { tokenizer, template }) => {
      assert.ok(tokenizer && template);
      assert.ok(asMessages.length > 40);
      for (const e of asMessages) {
        const segments = template.render(e.messages, { addGenerationPrompt: true, ...(e.tools ? { tools: e.tools } : {}) });
        assert.equal(segments.map((s) => s.text).join(""), e.prompt);
        assert.deepEqual([...tokenizer.encodeSegments(segments)], e.prompt_ids);
        assert.equal(tokenizer.decode(e.output_ids, { skipSpecialTokens: false }), e.output);
      }
    }));

  it("its tokenizer and template are the same in the GGUF", async () => {
    await withModel(join("dist", "mini.gguf"), {}, (_, gguf) =>
      withModel(folder, f32, (__, original) => {
        for (const e of asMessages) {
          const prompt = gguf.template?.render(e.messages, { addGenerationPrompt: true, ...(e.tools ? { tools: e.tools } : {}) }) ?? [];
          assert.deepEqual([...(gguf.tokenizer?.encodeSegments(prompt) ?? [])], e.prompt_ids);
        }
        assert.deepEqual({ ...gguf.config, intermediateSize: 0, normEps: 0 }, { ...original.config, intermediateSize: 0, normEps: 0 });
      }),
    );
  });

  // Prompts count apart: the loss of the training was on replies alone, so what the model predicts inside a question is broad and moves easily.
  const bounds = [
    { what: "bf16", path: folder, dtype: "bf16", replies: 1e-6, all: 1e-6 },
    { what: "q8", path: folder, dtype: "q8", replies: 0.0001, all: 0.001 },
    { what: "q4", path: folder, dtype: "q4", replies: 0.003, all: 0.08 },
    { what: "the bundled GGUF", path: join("dist", "mini.gguf"), dtype: undefined, replies: 0.003, all: 0.08 },
  ] as const;
  for (const { what, path, dtype, replies, all } of bounds) {
    it(`${what}: mean divergence from f32 below ${replies} nats a token in replies, ${all} over everything`, () =>
      withModel(folder, f32, (exact) =>
        withModel(path, { dtype, chunkTokens: 256 }, (model) => {
          const d = divergence(runs(exact), runs(model), exact.config.vocabSize);
          assert.ok(d.replies < replies && d.all < all, `${d.replies} in replies, ${d.all} over everything`);
        }),
      ));
  }
});
