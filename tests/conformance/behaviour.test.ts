// What a caller counts on and no text shows at a glance: which history is kept, which random number draws which token, what the penalty counts, what a raw text becomes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { type GenerateOptions, load, type Message, type Model, type Reply } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { dropOldest } from "../../src/context.ts";
import { random } from "../../src/generate/philox.ts";
import { checkpointFolder, goldenJson } from "../golden/support.ts";

const STORY = "Tell me a story about a fox.";
const user = (content: string): Message => ({ role: "user", content });
const same = (a: ArrayLike<number>, b: ArrayLike<number>): boolean => a.length === b.length && Array.from(a).every((id, i) => id === b[i]);

/** The conversation as the bundled model's template writes it, up to the reply. */
function rendered(messages: readonly Message[]): string {
  const turns = messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`);
  return `<|startoftext|>${turns.join("")}<|im_start|>assistant\n`;
}

describe("behaviour of the bundled model", () => {
  let model: Model;
  /** Computes every prompt from its first token on. */
  let cold: Model;
  before(async () => {
    model = await load(mini);
    cold = await load(mini, { prefixCacheBytes: 0 });
  });
  after(() => {
    model.dispose();
    cold.dispose();
  });

  const idsOf = (messages: readonly Message[]): number[] => [...model.tokenizer.encode(rendered(messages), { controlTokens: true })];

  describe("history of a chat", () => {
    it("is kept up to where the text of a reply gives other ids than were generated", async () => {
      let found = 0;
      for (let seed = 1; seed <= 100 && found < 4; seed++) {
        const chat = model.chat();
        const first = await chat.prompt(STORY, { temperature: 1.8, seed, maxTokens: 12, stopIds: [] });
        // the last token was not fed; an earlier one must differ
        const held = first.tokens.subarray(0, -1);
        if (!same(held, model.tokenizer.encode(first.text).slice(0, held.length))) {
          found++;
          const before = chat.tokens;
          const second = await chat.prompt("What is my name? I told you before we talked about the fox and all the others.");
          const kept = chat.tokens.findIndex((id, i) => id !== before[i]);
          assert.ok(kept < before.length && kept > first.usage.inputTokens - 1, `seed ${seed}`);
          assert.equal(second.usage.cachedTokens, kept, `seed ${seed}`);
          const whole = await cold.generate(chat.messages.slice(0, 3));
          assert.deepEqual([second.text, [...second.tokens]], [whole.text, [...whole.tokens]], `seed ${seed}`);
          assert.equal(second.usage.inputTokens, idsOf(chat.messages.slice(0, 3)).length);
        }
        chat.dispose();
      }
      assert.equal(found, 4, "replies whose text is encoded otherwise");
    });

    it("leaves a reply a quarter of the context, or all of maxTokens where that is less", async () => {
      const messages = ["user", "assistant", "user"].map((role) => ({ role, content: "" })) as Message[];
      for (const [length, maxTokens, dropped] of [
        [75, Number.POSITIVE_INFINITY, 0],
        [76, Number.POSITIVE_INFINITY, 2],
        [90, 10, 0],
        [91, 10, 2],
      ] as const) {
        const encode = async (list: readonly Message[]): Promise<Uint32Array> => new Uint32Array(list.length === 3 ? length : 5);
        const room = { maxContextTokens: 100, maxTokens, droppedMessages: 0 };
        assert.equal((await dropOldest(messages, encode, room)).droppedMessages, dropped, `${length} tokens, ${maxTokens} more`);
      }
    });

    it("is kept to the last token where the ids are the same", async () => {
      const chat = model.chat();
      const first = await chat.prompt("My name is Tom.");
      const second = await chat.prompt("What is my name?");
      // all but the token that ended the reply, which was never fed
      assert.equal(second.usage.cachedTokens, first.usage.inputTokens + first.usage.outputTokens - 1);
      chat.dispose();
    });
  });

  describe("random numbers", () => {
    const hot = (seed: number, maxTokens: number): GenerateOptions => ({ temperature: 1.2, seed, maxTokens, stopIds: [] });

    it("a warm cache draws what an empty one draws", async () => {
      for (const seed of [1, 2, 3, 4, 5]) {
        const chat = model.chat();
        const first = await chat.prompt("My name is Tom.");
        const second = await chat.prompt(STORY, hot(seed, 40));
        assert.ok(second.usage.cachedTokens > 10);
        const whole = await cold.generate(
          [user("My name is Tom."), { role: "assistant", content: first.text }, user(STORY)],
          hot(seed, 40),
        );
        assert.equal(whole.usage.cachedTokens, 0);
        assert.deepEqual([...second.tokens], [...whole.tokens], `seed ${seed}`);
        chat.dispose();
      }
    });

    it("calls that overlap draw what they draw alone", async () => {
      const calls = [
        [STORY, hot(11, 60)],
        [STORY, hot(12, 30)],
        ["My name is Tom.", hot(11, 50)],
        ["What is 3 + 4?", hot(13, 40)],
      ] as const;
      const alone: Reply[] = [];
      for (const [prompt, options] of calls) alone.push(await cold.generate(prompt, options));
      const together = await Promise.all(calls.map(([prompt, options]) => model.generate(prompt, options)));
      const ids = (replies: readonly Reply[]): number[][] => replies.map((r) => [...r.tokens]);
      assert.deepEqual(ids(together), ids(alone));
      assert.ok(!same(alone[0]!.tokens.subarray(0, 30), alone[1]!.tokens), "another seed, another text");
    });

    it("belong to (seed, absolute position): float64 draws the same tokens from the logits", async () => {
      const temperature = 2.5; // so that nearly every seed tells another story
      let compared = 0;
      const seen = new Set<string>();
      for (let seed = 21; seed <= 32; seed++) {
        const chat = model.chat();
        await chat.prompt("My name is Tom.");
        const { tokens, usage } = await chat.prompt(STORY, { ...hot(seed, 4), temperature });
        const ids = idsOf(chat.messages.slice(0, 3));
        assert.ok(usage.cachedTokens > 10 && usage.inputTokens === ids.length);
        for (const id of tokens) {
          const { logits } = await model.forward({ inputIds: ids, logitsToKeep: 1 });
          const { id: drawn, margin } = drawExactly(logits.data, temperature, random(seed, ids.length));
          if (margin > 1e-5) {
            assert.equal(id, drawn, `seed ${seed}, position ${ids.length}`);
            compared++;
          }
          ids.push(id);
        }
        seen.add(tokens.join());
        chat.dispose();
      }
      assert.ok(compared >= 44 && seen.size >= 10, `${compared} draws compared, ${seen.size} different`);
    });
  });

  describe("a raw text", () => {
    /** Whether the text is fed as `ids`: the same length, the same draws at a heat at which nearly every logit counts. */
    async function isFedAs(text: string, ids: readonly number[]): Promise<void> {
      const hot = { temperature: 1.5, seed: 5, maxTokens: 24, stopIds: [] };
      const raw = await model.generate(text, { ...hot, raw: true });
      const exact = await model.generate(Uint32Array.from(ids), hot);
      assert.equal(raw.usage.inputTokens, ids.length, JSON.stringify(text));
      assert.deepEqual([...raw.tokens], [...exact.tokens], JSON.stringify(text));
    }

    const { examples } = JSON.parse(readFileSync("models/lfm2-mini/examples.json", "utf8")) as {
      examples: { prompt: string; prompt_ids: number[] }[];
    };

    it("gets the start token in front, unless it begins with it", async () => {
      for (const { prompt, prompt_ids } of examples.slice(0, 6).concat(examples.slice(-2))) {
        assert.ok(prompt.startsWith("<|startoftext|>") && prompt_ids[0] === 1);
        await isFedAs(prompt, prompt_ids);
        await isFedAs(prompt.slice("<|startoftext|>".length), prompt_ids);
      }
      const words = [...model.tokenizer.encode("Once upon a time")];
      assert.ok(!words.includes(1));
      await isFedAs("Once upon a time", [1, ...words]);
      await isFedAs("Once upon a time<|startoftext|>", [1, ...words, 1]);
    });

    it("has its control tokens honoured, wherever they stand", async () => {
      const { tokenizer } = model;
      const id = (token: string): number => tokenizer.tokenId(token) ?? assert.fail(token);
      const [open, close] = [id("<|im_start|>"), id("<|im_end|>")];
      assert.ok(open < 14 && close < 14 && open !== close);
      const [a, b] = [[...tokenizer.encode("one fox")], [...tokenizer.encode("two wolves")]];
      await isFedAs("one fox<|im_end|>two wolves<|im_start|>", [1, ...a, close, ...b, open]);
      await isFedAs("<|im_start|><|im_start|>one fox", [1, open, open, ...a]);
    });

    it("is no user's message", async () => {
      const framed = await model.generate("Hello", { maxTokens: 1 });
      const raw = await model.generate("Hello", { maxTokens: 1, raw: true });
      assert.equal(raw.usage.inputTokens, 1 + model.tokenizer.encode("Hello").length);
      assert.equal(framed.usage.inputTokens, idsOf([user("Hello")]).length);
    });
  });
});

/** The token in whose share of the mass `u` falls, likeliest first, in plain float64; `margin` is how far `u` is from the next share. */
function drawExactly(logits: Float32Array, temperature: number, u: number): { id: number; margin: number } {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const max = logits[order[0]!]!;
  const weights = order.map((id) => Math.exp((logits[id]! - max) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (const [i, weight] of weights.entries()) {
    const before = sum / total;
    sum += weight;
    if (sum / total > u) return { id: order[i]!, margin: Math.min(u - before, sum / total - u) };
  }
  return { id: order.at(-1)!, margin: 0 };
}

describe("repetition penalty", () => {
  interface Golden {
    readonly greedy_prompt: number[];
    readonly greedy: number[];
    readonly greedy_with_penalty: { repetition_penalty: number; prompt: number[]; ids: number[] };
  }

  for (const name of ["tiny-conv-first", "tiny-attn-first", "tiny-gqa3", "tiny-deep"]) {
    it(`counts the prompt and what was generated: ${name} as the reference`, async () => {
      const golden = goldenJson<Golden>("models", name, "golden.json");
      const model = await load(checkpointFolder(name), { dtype: "f32", kvDtype: "f32" });
      const greedy = { temperature: 0, stopIds: [] };
      const { repetition_penalty: repetitionPenalty, prompt, ids } = golden.greedy_with_penalty;
      const penalized = await model.generate(Uint32Array.from(prompt), { ...greedy, repetitionPenalty, maxTokens: ids.length });
      assert.deepEqual([...penalized.tokens], ids);
      const plain = { ...greedy, repetitionPenalty: 1, maxTokens: golden.greedy.length };
      assert.deepEqual([...(await model.generate(Uint32Array.from(golden.greedy_prompt), plain)).tokens], golden.greedy);
      model.dispose();
    });
  }
});
