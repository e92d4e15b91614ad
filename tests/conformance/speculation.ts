// Guessed tokens change how many steps a reply takes, and nothing else: the same on any engine and in any runtime.
import assert from "node:assert/strict";
import type { GenerateOptions, LoadOptions, Model, Reply } from "lfm2-wasm";

type Speculate = GenerateOptions["speculate"];

const STORY = "Tell me a story about a fox.";
/** Whose reply repeats it. */
const COPY = "Repeat this: apple, pear, plum.";

/** Ways to guess: as a user would, and always as many as can be, of which nearly all are wrong. */
const WAYS: readonly Speculate[] = ["prompt-lookup", { ngram: 1, max: 5, adaptive: false }, { ngram: 1, adaptive: false }];
const SAMPLINGS: readonly GenerateOptions[] = [
  { temperature: 0 },
  { temperature: 1.3, seed: 7 },
  { temperature: 0.8, seed: 8, topK: 40, topP: 0.95, minP: 0.02, repetitionPenalty: 1.1 },
  { temperature: 0.7, seed: 9, typicalP: 0.9, presencePenalty: 0.3, noRepeatNgramSize: 4 },
];

const told = ({ text, tokens, finishReason, logprobs, usage }: Reply): unknown => [
  text,
  [...tokens],
  finishReason,
  logprobs,
  usage.outputTokens,
];

/** Adds the shortest of these checks, for every runtime: greedy text with guesses from the prompt, and from a draft model. */
export function guessesSuite(load: (options?: LoadOptions) => Promise<Model>, draft: LoadOptions["draft"]): void {
  it("guesses from the prompt and from a draft model change no greedy text", async () => {
    const model = await load({ prefixCacheBytes: 0, draft });
    for (const [prompt, by] of [
      [COPY, "prompt-lookup"],
      [STORY, "draft"],
    ] as const) {
      const options = { temperature: 0, maxTokens: 16, logprobs: true } as const;
      const want = await model.generate(prompt, { ...options, speculate: false });
      const got = await model.generate(prompt, { ...options, speculate: { by, adaptive: false } });
      assert.deepEqual(told(got), told(want));
      assert.ok((got.usage.acceptedTokens ?? 0) > 0, `${by}: guesses were right`);
    }
    model.dispose();
  });
}

/** Adds the suite for one way to load the bundled model. */
export function speculationSuite(name: string, load: (options?: LoadOptions) => Promise<Model>, draft: LoadOptions["draft"]): void {
  describe(`speculation, ${name}`, () => {
    let model: Model;
    before(async () => {
      model = await load({ prefixCacheBytes: 0 }); // what an earlier call held is no difference then
    });
    after(() => model.dispose());

    /** The same reply with and without. @returns the count of guesses in all ways */
    async function same(input: string, options: GenerateOptions): Promise<{ drafted: number; accepted: number }> {
      const want = await model.generate(input, options);
      assert.deepEqual([want.usage.draftedTokens, want.usage.acceptedTokens], [undefined, undefined]);
      const count = { drafted: 0, accepted: 0 };
      for (const speculate of WAYS) {
        const got = await model.generate(input, { ...options, speculate });
        assert.deepEqual(told(got), told(want), JSON.stringify({ speculate, ...options }));
        const { draftedTokens = -1, acceptedTokens = -1 } = got.usage;
        assert.ok(draftedTokens >= acceptedTokens && acceptedTokens >= 0, "told");
        count.drafted += draftedTokens;
        count.accepted += acceptedTokens;
      }
      return count;
    }

    it("changes no token, greedy or sampled, nor what is told of it", async () => {
      for (const sampling of SAMPLINGS) {
        const { drafted, accepted } = await same(STORY, { ...sampling, maxTokens: 40, topLogprobs: 2 });
        assert.ok(drafted > accepted, "some were wrong");
      }
      const { accepted } = await same(COPY, { temperature: 0, logprobs: true });
      assert.ok(accepted >= 8, `${accepted} were right`);
    });

    it("stops where the reply stops: at strings, ids and limits", async () => {
      const options = { temperature: 0 } as const;
      const { text, tokens } = await model.generate(STORY, { ...options, maxTokens: 24 });
      for (const stop of [text.slice(9, 12), text.slice(20, 21)]) await same(STORY, { ...options, maxTokens: 24, stop });
      for (const at of [3, 8, 13]) await same(STORY, { ...options, maxTokens: 24, stopIds: [tokens[at]!] });
      for (const maxTokens of [1, 2, 3, 7, 11]) await same(STORY, { ...options, maxTokens });
      await same(STORY, { ...options, maxTokens: 12, forcedEosTokenId: tokens[0]! });
    });

    it("shows the caller's own functions the same logits of the same sequences", async () => {
      const seen = async (speculate: Speculate): Promise<unknown> => {
        const log: unknown[] = [];
        const reply = await model.generate(STORY, {
          minTokens: 30,
          temperature: 0.7,
          seed: 3,
          maxTokens: 30,
          repetitionPenalty: 1.1,
          speculate,
          processors: [
            (logits, { tokens, promptTokens }) => {
              log.push([logits[5], logits[77], tokens.length, tokens.at(-1), promptTokens]);
              logits[tokens.at(-1)!] = Number.NEGATIVE_INFINITY; // no token twice in a row
            },
          ],
          stoppingCriteria: [
            ({ tokens, promptTokens }) => {
              log.push(tokens.length - promptTokens);
              return tokens.length - promptTokens === 23;
            },
          ],
        });
        assert.equal(reply.tokens.length, 23);
        return [log, told(reply)];
      };
      const want = await seen(false);
      for (const speculate of WAYS) assert.deepEqual(await seen(speculate), want);
    });

    it("leaves a chat where it stands without: position, marks, cache", async () => {
      const play = async (speculate: Speculate): Promise<unknown> => {
        using chat = model.chat({ system: "You are kind." });
        const log: unknown[] = [];
        for (const [text, options] of [
          [STORY, { maxTokens: 30 }],
          ["And then? And then? And then?", { maxTokens: 9, temperature: 1, seed: 4 }],
          ["What is 3 + 4?", { stop: "7" }],
        ] as const) {
          const reply = await chat.prompt(text, { temperature: 0, ...options, speculate });
          log.push(told(reply), reply.usage.cachedTokens, chat.position, [...chat.tokens], [...chat.marks]);
        }
        using fork = chat.fork();
        await chat.rewind(chat.marks.at(-2)!);
        for (const each of [chat, fork]) log.push(told(await each.prompt("Why?", { temperature: 0, maxTokens: 12, speculate })));
        const again = await model.restore(await fork.save());
        log.push([...again.tokens], told(await again.prompt("Who?", { temperature: 0, maxTokens: 12, speculate })));
        again.dispose();
        return log;
      };
      const want = await play(undefined);
      for (const speculate of WAYS) assert.deepEqual(await play(speculate), want, JSON.stringify(speculate));
    });

    it("beside other calls, and in a batch", async () => {
      const options = (i: number): GenerateOptions => ({ maxTokens: 20 + i, temperature: 0.9, seed: i, raw: i % 2 === 0 });
      const prompts = [COPY, STORY, COPY, STORY, COPY];
      const want = await Promise.all(prompts.map((prompt, i) => model.generate(prompt, options(i))));
      for (const speculate of WAYS) {
        const got = await model.generate(
          prompts,
          prompts.map((_, i) => ({ ...options(i), speculate })),
        );
        assert.deepEqual(got.map(told), want.map(told));
      }
    });

    it("a model as its own draft is always right", async () => {
      const twice = await load({ draft });
      assert.equal(twice.info.draft, twice.info.name);
      let drafted = 0;
      for (const sampling of SAMPLINGS)
        for (const speculate of [undefined, { by: "draft", max: 6, adaptive: false }] as const) {
          const want = await model.generate(STORY, { ...sampling, maxTokens: 40 });
          const got = await twice.generate(STORY, { ...sampling, maxTokens: 40, ...(speculate && { speculate }) });
          assert.deepEqual(told(got), told(want));
          assert.equal(got.usage.acceptedTokens, got.usage.draftedTokens);
          if (speculate) assert.ok(got.usage.draftedTokens! >= 24, `${got.usage.draftedTokens} of 40`);
          drafted += got.usage.draftedTokens!;
        }
      const { speculation, openSessions } = await twice.status();
      assert.deepEqual([speculation, openSessions], [{ drafted, accepted: drafted }, 0]);
      twice.dispose();
    });

    it("holds for a whole model when the load says so; refuses what it does not know", async () => {
      const always = await load({ speculate: { ngram: 1, max: 3, adaptive: false } });
      const [want, got] = [await model.generate(STORY, { temperature: 0 }), await always.generate(STORY, { temperature: 0 })];
      assert.deepEqual(told(got), told(want));
      assert.ok(got.usage.draftedTokens! > 0);
      assert.equal((await always.generate(STORY, { speculate: false, maxTokens: 3 })).usage.draftedTokens, undefined);
      assert.equal((await always.generate(STORY, { numBeams: 2, maxTokens: 3 })).usage.draftedTokens, undefined);
      always.dispose();
      for (const [speculate, message] of [
        ["draft", /with the option draft/],
        ["magic", /expected "prompt-lookup" or "draft", got "magic"/],
        [3, /an object, got/],
        [{ ngram: 0 }, /ngram: expected a whole number from 1 to 16, got 0/],
        [{ max: 16 }, /max: expected a whole number from 1 to 15, got 16/],
        [{ adaptive: 1 }, /adaptive: expected true or false/],
        [{ n: 3 }, /speculate: expected names that SpeculateOptions lists, got "n"/],
      ] as const)
        await assert.rejects(model.generate(STORY, { speculate: speculate as Speculate }), (error: Error) => {
          return error.name === "InputError" && message.test(error.message);
        });
    });
  });
}
