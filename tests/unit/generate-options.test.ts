// Every option of generate by both of its names: the package's and the reference's do what the published formula says, written here as a caller's own function.
import assert from "node:assert/strict";
import type { GenerateOptions, Model } from "lfm2-wasm";
import { AutoTokenizer, type GenerationConfig, Lfm2ForCausalLM } from "lfm2-wasm/transformers";
import { checkpointFolder, goldenJson } from "../golden/support.ts";

const MINI = "models/lfm2-mini";
const NEW_TOKENS = 14;

/** Changes logits before the token behind `ids` is chosen, of which `promptTokens` are the prompt's. */
type Formula = (logits: Float32Array, ids: readonly number[], promptTokens: number) => unknown;

interface Rule {
  readonly ours: GenerateOptions;
  /** Where the reference has it; `ours` by default. */
  readonly theirs?: Partial<GenerationConfig> | "none";
  readonly formula: Formula;
  readonly prompt?: readonly number[];
}

const ban = (logits: Float32Array, id: number | undefined): void => void (id !== undefined && (logits[id] = Number.NEGATIVE_INFINITY));

/** Probabilities of a row, and its ids, the likeliest first. */
function distribution(logits: Float32Array, temperature: number): { p: number[]; order: number[] } {
  const largest = logits.reduce((a, b) => Math.max(a, b)) / temperature;
  const weights = Array.from(logits, (x) => Math.exp(x / temperature - largest));
  const total = weights.reduce((a, b) => a + b);
  const p = weights.map((w) => w / total);
  return { p, order: [...p.keys()].sort((a, b) => p[b]! - p[a]! || a - b) };
}

/** A cut at temperature T: `keeps` tells which ids stay. */
const cut =
  (temperature: number, keeps: (p: readonly number[], order: readonly number[]) => ReadonlySet<number>): Formula =>
  (logits) => {
    const { p, order } = distribution(logits, temperature);
    const kept = keeps(p, order);
    for (const id of order) logits[id] = kept.has(id) ? logits[id]! / temperature : Number.NEGATIVE_INFINITY;
  };
const entropy = (p: readonly number[]): number => p.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);
/** The first of `order` whose probabilities come to `mass`, the one that reaches it included. */
function upTo(mass: number, p: readonly number[], order: readonly number[]): ReadonlySet<number> {
  const kept = new Set<number>();
  let sum = 0;
  for (const id of order) {
    kept.add(id);
    sum += p[id]!;
    if (sum >= mass) break;
  }
  return kept;
}
const above = (bound: number, p: readonly number[], order: readonly number[]): ReadonlySet<number> =>
  new Set(order.filter((id, i) => i === 0 || p[id]! >= bound));

describe("each option of generate, by the package's name and by the reference's", () => {
  let theirs: Lfm2ForCausalLM;
  let model: Model;
  let story: number[];
  let question: number[];
  let plain: number[];
  before(async () => {
    theirs = await Lfm2ForCausalLM.fromPretrained(MINI, { threads: 1 });
    model = await theirs.ready();
    const tokenizer = await AutoTokenizer.fromPretrained(MINI);
    const ask = (content: string): number[] => tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true });
    [story, question] = [ask("Tell me a story about a fox."), ask("What is 3 + 4?")];
    plain = await reply(story, {});
  });
  after(() => theirs.dispose());

  const reply = async (prompt: readonly number[], options: GenerateOptions): Promise<number[]> => [
    ...(await model.generate(Uint32Array.from(prompt), { temperature: 0, maxTokens: NEW_TOKENS, ...options })).tokens,
  ];
  const end = 7;
  const ends: Formula = (logits) => ban(logits, end);

  const rules: Readonly<Record<string, () => Rule>> = {
    repetitionPenalty: () => ({
      ours: { repetitionPenalty: 3 },
      formula: (logits, ids) => {
        for (const id of new Set(ids)) logits[id]! *= logits[id]! < 0 ? 3 : 1 / 3;
      },
    }),
    presencePenalty: () => ({
      ours: { presencePenalty: 30 },
      theirs: "none",
      formula: (logits, ids, from) => {
        for (const id of new Set(ids.slice(from))) logits[id]! -= 30;
      },
    }),
    frequencyPenalty: () => ({
      ours: { frequencyPenalty: -5 },
      theirs: "none",
      formula: (logits, ids, from) => {
        for (const id of ids.slice(from)) logits[id]! += 5;
      },
    }),
    noRepeatNgramSize: () => ({
      ours: { noRepeatNgramSize: 1 },
      formula: (logits, ids) => {
        for (const id of ids) ban(logits, id);
      },
    }),
    badWordsIds: () => ({
      ours: { badWordsIds: [[plain[5]!], [plain[1]!, plain[2]!]] },
      formula: (logits, ids) => {
        ban(logits, plain[5]);
        if (ids.at(-1) === plain[1]) ban(logits, plain[2]);
      },
    }),
    suppressTokens: () => ({
      ours: { suppressTokens: [plain[0]!, plain[3]!] },
      formula: (logits) => {
        for (const id of [plain[0], plain[3]]) ban(logits, id);
      },
    }),
    beginSuppressTokens: () => ({
      ours: { beginSuppressTokens: [plain[0]!] },
      formula: (logits, ids, from) => ban(logits, ids.length === from ? plain[0] : undefined),
    }),
    logitBias: () => ({
      ours: { logitBias: { [plain[2]!]: -40 } },
      theirs: { sequenceBias: [[[plain[2]!], -40]] },
      formula: (logits) => void (logits[plain[2]!]! -= 40),
    }),
    sequenceBias: () => ({
      ours: { sequenceBias: [[[plain[3]!, plain[4]!], -40]] },
      formula: (logits, ids) => {
        if (ids.at(-1) === plain[3]) logits[plain[4]!]! -= 40;
      },
    }),
    forcedBosTokenId: () => ({
      ours: { forcedBosTokenId: 99 },
      prompt: [1],
      formula: (logits, ids) => {
        if (ids.length === 1) logits.fill(Number.NEGATIVE_INFINITY).fill(0, 99, 100);
      },
    }),
    forcedEosTokenId: () => ({
      ours: { forcedEosTokenId: 98 },
      formula: (logits, ids, from) => {
        if (ids.length === from + NEW_TOKENS - 1) logits.fill(Number.NEGATIVE_INFINITY).fill(0, 98, 99);
      },
    }),
    minTokens: () => ({
      ours: { minTokens: 12 },
      theirs: { minNewTokens: 12 },
      prompt: question,
      formula: (logits, ids, from) => (ids.length < from + 12 ? ends(logits, ids, from) : undefined),
    }),
    minLength: () => ({
      ours: { minLength: question.length + 12 },
      prompt: question,
      formula: (logits, ids, from) => (ids.length < question.length + 12 ? ends(logits, ids, from) : undefined),
    }),
    exponentialDecayLengthPenalty: () => ({
      ours: { exponentialDecayLengthPenalty: [3, 1.9] },
      formula: (logits, ids, from) => {
        const over = ids.length - (from + 3);
        if (over > 0) logits[end]! += Math.abs(logits[end]!) * (1.9 ** over - 1);
      },
    }),
    temperature: () => ({ ours: { temperature: 3 }, formula: (logits) => logits.map((x) => x / 3) }),
    topK: () => ({ ours: { temperature: 3, topK: 4 }, formula: cut(3, (_, order) => new Set(order.slice(0, 4))) }),
    topP: () => ({ ours: { temperature: 3, topP: 0.5 }, formula: cut(3, (p, order) => upTo(0.5, p, order)) }),
    minP: () => ({ ours: { temperature: 3, minP: 0.3 }, formula: cut(3, (p, order) => above(0.3 * p[order[0]!]!, p, order)) }),
    topNSigma: () => ({
      ours: { temperature: 3, topNSigma: 2 },
      theirs: "none",
      formula: (logits) => {
        const mean = logits.reduce((a, b) => a + b) / logits.length;
        const deviation = Math.sqrt(logits.reduce((sum, x) => sum + (x - mean) ** 2, 0) / logits.length);
        const least = logits.reduce((a, b) => Math.max(a, b)) - 2 * deviation;
        return logits.map((x) => (x < least ? Number.NEGATIVE_INFINITY : x / 3));
      },
    }),
    typicalP: () => ({
      ours: { temperature: 3, typicalP: 0.5 },
      formula: cut(3, (p) => {
        const mean = entropy(p);
        const off = p.map((x) => Math.abs(-Math.log(x) - mean));
        return upTo(
          0.5,
          p,
          [...p.keys()].sort((a, b) => off[a]! - off[b]! || a - b),
        );
      }),
    }),
    epsilonCutoff: () => ({ ours: { temperature: 3, epsilonCutoff: 0.01 }, formula: cut(3, (p, order) => above(0.01, p, order)) }),
    etaCutoff: () => ({
      ours: { temperature: 3, etaCutoff: 0.2 },
      formula: cut(3, (p, order) => above(Math.min(0.2, Math.sqrt(0.2) * Math.exp(-entropy(p))), p, order)),
    }),
  };

  for (const [name, rule] of Object.entries(rules))
    it(name, async () => {
      const { ours, theirs: other = ours, formula, prompt = story } = rule();
      const isSampled = ours.temperature !== undefined;
      const off: GenerateOptions = { topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 11 };
      const processors = [
        (logits: Float32Array, { tokens, promptTokens }: { tokens: readonly number[]; promptTokens: number }) =>
          formula(logits, tokens, promptTokens),
      ];
      const byHand = await reply(prompt, { ...off, temperature: isSampled ? 1 : 0, processors });
      assert.deepEqual(await reply(prompt, { ...off, ...ours }), byHand, "the package's name");
      const without = { ...off, temperature: isSampled && name !== "temperature" ? 3 : isSampled ? 1 : 0 };
      assert.notDeepEqual(byHand, await reply(prompt, without), "it changes the reply");
      if (other === "none") return;
      const call = { inputIds: [...prompt], maxNewTokens: NEW_TOKENS, ...(isSampled ? { doSample: true, topK: 0, seed: 11 } : {}) };
      const [row = []] = await theirs.generate({ ...call, ...(other as object) });
      assert.deepEqual(row.slice(prompt.length), byHand, "the reference's name");
    });

  it("several stop strings and several ids: the first of them to come ends the reply", async () => {
    const distinct = [...new Set(plain)];
    const [early, late] = [distinct[4]!, distinct[7]!];
    const toEarly = plain.slice(0, plain.indexOf(early) + 1);
    assert.deepEqual(await reply(story, { repetitionPenalty: 1, stopIds: [late, early] }), toEarly);
    const call = { inputIds: story, maxNewTokens: NEW_TOKENS };
    assert.deepEqual(await theirs.generate({ ...call, eosTokenId: [late, early] }), [[...story, ...toEarly]]);
    const text = model.tokenizer.decode(plain);
    const stop = [text.slice(-4), "no such text", text.slice(9, 14)];
    const stopped = await model.generate(Uint32Array.from(story), { temperature: 0, repetitionPenalty: 1, maxTokens: NEW_TOKENS, stop });
    assert.deepEqual([stopped.text, stopped.finishReason], [text.slice(0, text.indexOf(stop[2]!)), "stop"]);
    assert.deepEqual(await theirs.generate({ ...call, stopStrings: stop }), [[...story, ...stopped.tokens]]);
    assert.ok(stopped.tokens.length < NEW_TOKENS);
  });

  it("numBeams, numReturnSequences, lengthPenalty, earlyStopping: the reference's own searches", async () => {
    const cases = goldenJson<
      readonly {
        readonly model: string;
        readonly prompt: number[];
        readonly max_new_tokens: number;
        readonly eos_token_id: number[];
        readonly num_beams: number;
        readonly num_return_sequences: number;
        readonly length_penalty?: number;
        readonly early_stopping?: boolean | "never";
        readonly processors?: object;
        readonly sequences: number[][];
        readonly scores: number[];
      }[]
    >("processors", "beam.json").filter((c) => c.model === "tiny-conv-first" && Object.keys(c.processors ?? {}).length === 0);
    using tiny = await Lfm2ForCausalLM.fromPretrained(checkpointFolder("tiny-conv-first"), { threads: 1, dtype: "f32", kvDtype: "f32" });
    const inner = await tiny.ready();
    const seen = new Set<unknown>();
    for (const c of cases) {
      const search = {
        numBeams: c.num_beams,
        numReturnSequences: c.num_return_sequences,
        lengthPenalty: c.length_penalty,
        earlyStopping: c.early_stopping,
      };
      for (const value of [c.length_penalty, c.early_stopping]) seen.add(value);
      const { sequences = [] } = await inner.generate(Uint32Array.from(c.prompt), {
        ...search,
        ...{ temperature: 0, repetitionPenalty: 1, maxTokens: c.max_new_tokens, stopIds: c.eos_token_id },
      });
      assert.deepEqual(
        sequences.map(({ tokens }) => [...tokens]),
        c.sequences,
      );
      for (const [i, { score = 0 }] of sequences.entries())
        assert.ok(Math.abs(score - c.scores[i]!) <= 1e-4 * Math.max(1, Math.abs(c.scores[i]!) / 10), `${score}, expected ${c.scores[i]}`);
      const rows = await tiny.generate({ inputIds: c.prompt, ...search, maxNewTokens: c.max_new_tokens, eosTokenId: c.eos_token_id });
      assert.deepEqual(
        rows.map((row, i) => row.slice(c.prompt.length, c.prompt.length + c.sequences[i]!.length)),
        c.sequences,
      );
    }
    assert.ok(seen.has(true) && seen.has("never") && [...seen].filter((x) => typeof x === "number").length >= 2, [...seen].join());
  });
});
