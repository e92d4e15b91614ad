// What a call may ask of generation beyond plain sampling, on any engine: rules, the caller's own functions, log-probabilities.
import assert from "node:assert/strict";
import type { GenerateOptions, GenerationState, Model } from "lfm2-wasm";
import { pooled, windowLoss } from "../reference/windows.ts";

const STORY = "Tell me a story about a fox.";

const throwsInput = (model: Model, options: GenerateOptions, message: RegExp): Promise<void> =>
  assert.rejects(model.generate(STORY, options), (error: Error) => error.name === "InputError" && message.test(error.message));

/** Adds the suite for one way to load the bundled model. */
export function generationSuite(name: string, load: () => Promise<Model>): void {
  describe(`generation, ${name}`, () => {
    let model: Model;
    before(async () => {
      model = await load();
    });
    after(() => model.dispose());

    const greedy = async (options: GenerateOptions = {}) => model.generate(STORY, { maxTokens: 24, ...options, temperature: 0 });
    const ids = async (options: GenerateOptions = {}) => [...(await greedy(options)).tokens];

    it("obeys rules on tokens", async () => {
      const plain = await ids();
      assert.equal(plain.length, 24);
      const third = plain[2]!;
      assert.ok(!(await ids({ suppressTokens: [third] })).includes(third));
      assert.ok(!(await ids({ logitBias: { [third]: -100 } })).includes(third));
      assert.notEqual((await ids({ beginSuppressTokens: [plain[0]!] }))[0], plain[0]);
      const without = await ids({ badWordsIds: [plain.slice(1, 4)] });
      assert.deepEqual(without.slice(0, 3), plain.slice(0, 3), "the words before the last stay");
      assert.notEqual(without[3], plain[3]);
      assert.deepEqual(await ids({ maxTokens: 2, forcedEosTokenId: third }), [plain[0], third]);
      const seen = await ids({ maxTokens: 40, noRepeatNgramSize: 2 });
      const pairs = seen.slice(1).map((id, i) => `${seen[i]} ${id}`);
      assert.equal(new Set(pairs).size, pairs.length);
    });

    it("holds end tokens back, and counts the prompt where it should", async () => {
      const whole = await model.generate(STORY, { temperature: 0 });
      assert.equal(whole.finishReason, "stop");
      const more = await model.generate(STORY, { temperature: 0, minTokens: whole.tokens.length + 5 });
      assert.ok(more.tokens.length >= whole.tokens.length + 5);
      const { inputTokens } = whole.usage;
      const short = await model.generate(STORY, { temperature: 0, maxLength: inputTokens + 3 });
      assert.deepEqual([short.tokens.length, short.finishReason], [3, "length"]);
      for (const [maxTokens, expected] of [
        [9, 3],
        [2, 2],
      ] as const) {
        const { tokens } = await model.generate(STORY, { temperature: 0, maxTokens, maxLength: inputTokens + 3 });
        assert.equal(tokens.length, expected, "what ends first");
      }
      await throwsInput(model, { maxLength: inputTokens }, /maxLength: expected a whole number above the prompt's/);
    });

    it("asks the caller's own processors and criteria", async () => {
      const plain = await ids();
      const banned = plain[4]!;
      const places: number[] = [];
      const ban = (logits: Float32Array, { tokens, promptTokens }: { tokens: readonly number[]; promptTokens: number }): void => {
        assert.equal(logits.length, model.config.vocabSize);
        places.push(tokens.length - promptTokens);
        logits[banned] = Number.NEGATIVE_INFINITY;
      };
      const other = await ids({ processors: [ban] });
      assert.ok(!other.includes(banned));
      assert.deepEqual(other, await ids({ suppressTokens: [banned] }), "as the rule does");
      assert.deepEqual(places, Array.from(other.keys()), "once a token");
      assert.deepEqual(await ids({ processors: [(logits) => logits.slice(), () => undefined] }), plain, "a returned array counts");
      const seen: Float32Array[] = [];
      const spoilsThoseBefore = (logits: Float32Array): void => {
        for (const before of seen) before.fill(Number.NaN);
        seen.push(logits);
      };
      assert.deepEqual(await ids({ processors: [spoilsThoseBefore] }), plain, "what is kept is a copy");
      assert.equal(new Set(seen.map(({ buffer }) => buffer)).size, seen.length);

      const reply = await greedy({ stoppingCriteria: [({ tokens, promptTokens }) => tokens.length - promptTokens === 5] });
      assert.deepEqual([[...reply.tokens], reply.finishReason], [plain.slice(0, 5), "stop"]);
      assert.equal(reply.text, model.tokenizer.decode(plain.slice(0, 5)));

      const chosen: (number | undefined)[] = [];
      const sees = ({ tokens }: GenerationState, logits: Float32Array): boolean => {
        assert.deepEqual(
          [logits.length, logits[banned]],
          [model.config.vocabSize, Number.NEGATIVE_INFINITY],
          "as the processors left them",
        );
        chosen.push(logits.indexOf(Math.max(...logits)));
        return chosen.length === 6 || tokens.at(-1) === banned;
      };
      const spoils = (_: GenerationState, logits: Float32Array): boolean => logits.fill(0).length === 0;
      assert.deepEqual(await ids({ processors: [ban], stoppingCriteria: [spoils, sees] }), other.slice(0, 6), "each has a copy");
      assert.deepEqual(chosen, other.slice(0, 6), "each token is the largest of its logits");
    });

    it("gives them the logits behind all rules, before the temperature and what cuts", async () => {
      const seen: { logits: Float32Array; tokens: readonly number[] }[] = [];
      const processors = [
        (logits: Float32Array, { tokens }: { tokens: readonly number[] }) => void seen.push({ logits: logits.slice(), tokens }),
      ];
      await model.generate(STORY, { temperature: 0, maxTokens: 1, processors });
      const [raw] = seen.splice(0);
      assert.ok(raw);
      const largest = raw.logits.indexOf(Math.max(...raw.logits));
      await model.generate(STORY, {
        ...{ maxTokens: 1, temperature: 3, topK: 4, topP: 0.5, minP: 0.2, seed: 1 },
        ...{ repetitionPenalty: 1.5, suppressTokens: [largest], processors },
      });
      const expected = raw.logits.map((x, i) =>
        i === largest ? Number.NEGATIVE_INFINITY : raw.tokens.includes(i) ? (x < 0 ? x * 1.5 : x / 1.5) : x,
      );
      assert.deepEqual(seen[0]?.logits, expected);
    });

    it("ends a call with what the caller's function throws, or by what it should not return", async () => {
      const mine = new Error("mine");
      const fails = {
        processors: [
          () => {
            throw mine;
          },
        ],
      };
      await assert.rejects(model.generate(STORY, fails), (error) => error === mine);
      await throwsInput(model, { processors: [(async () => {}) as never] }, /returns a Float32Array or nothing/);
      await throwsInput(model, { processors: [() => new Float32Array(3)] }, /expected \d+ values from the processor, got 3/);
      await throwsInput(model, { stoppingCriteria: [7 as never] }, /stoppingCriteria: expected a list of functions/);
      for (const numBeams of [1, 2])
        for (const returned of [Promise.resolve(false), undefined, 1])
          await throwsInput(model, { numBeams, stoppingCriteria: [() => returned as never] }, /functions that return true or false, got/);
      assert.equal((await model.status()).openSessions, 0);
    });

    it("tells log-probabilities under the model's own distribution", async () => {
      const { logprobs = [], tokens } = await model.generate(STORY, {
        maxTokens: 6,
        temperature: 1,
        seed: 3,
        topLogprobs: 20,
        repetitionPenalty: 1.5,
      });
      assert.deepEqual(
        logprobs.map((l) => l.id),
        [...tokens],
      );
      const prompt = model.tokenizer.encode("x").length; // the tokenizer is there; ids of the prompt come from forward below
      assert.ok(prompt > 0);
      for (const { id, logprob, top } of logprobs) {
        assert.ok(logprob <= 0 && top.length === 20);
        assert.ok(top.every((t, i) => i === 0 || t.logprob <= top[i - 1]!.logprob));
        assert.equal(top.find((t) => t.id === id)?.logprob ?? logprob, logprob);
        assert.ok(top.reduce((sum, t) => sum + Math.exp(t.logprob), 0) <= 1 + 1e-6);
      }
      assert.equal((await greedy({ maxTokens: 2 })).logprobs, undefined);
      assert.deepEqual(
        (await greedy({ maxTokens: 2, logprobs: true })).logprobs?.map((l) => l.top.length),
        [0, 0],
      );
    });

    it("tells the prompt's own log-probabilities beside the reply", async () => {
      const ids = Uint32Array.from([1, ...model.tokenizer.encode("Once upon a time there was a fox.")]);
      const { promptLogprobs, tokens } = await model.generate(ids, { maxTokens: 4, temperature: 0, promptLogprobs: true });
      assert.deepEqual(promptLogprobs, (await model.score(ids)).logprobs);
      const plain = await model.generate(ids, { maxTokens: 4, temperature: 0 });
      assert.deepEqual([plain.promptLogprobs, plain.tokens], [undefined, tokens]);
      assert.equal((await model.generate(ids.subarray(0, 1), { maxTokens: 1, promptLogprobs: true })).promptLogprobs?.length, 0);
      await throwsInput(model, { promptLogprobs: 1 as never }, /promptLogprobs: expected true or false/);
      const aborted = { promptLogprobs: true, signal: AbortSignal.abort(), onAbort: "return" } as const;
      assert.equal((await model.generate(ids, aborted)).finishReason, "interrupted");
    });

    it("gives the log-probabilities of forward's logits", async () => {
      const inputIds = Uint32Array.from([1, ...model.tokenizer.encode("Once upon a time")]);
      const { logits } = await model.forward({ inputIds, logitsToKeep: 1 });
      const largest = logits.data.reduce((a, b) => Math.max(a, b));
      const sum = logits.data.reduce((total, x) => total + Math.exp(x - largest), 0);
      const { logprobs = [] } = await model.generate(inputIds, { maxTokens: 1, temperature: 0, topLogprobs: 5 });
      for (const { id, logprob } of logprobs[0]!.top)
        assert.ok(Math.abs(logprob - (logits.data[id]! - largest - Math.log(sum))) < 1e-5, `${id}: ${logprob}`);
    });

    it("searches with beams", async () => {
      const one = await greedy({ maxTokens: 12 });
      const { sequences = [], tokens, text, finishReason, usage } = await greedy({ maxTokens: 12, numBeams: 4, numReturnSequences: 3 });
      assert.equal(sequences.length, 3);
      assert.deepEqual(sequences[0]?.tokens, tokens);
      assert.equal(sequences[0]?.text, text);
      assert.deepEqual([finishReason, usage.outputTokens], ["length", 12]);
      assert.equal(new Set(sequences.map((s) => s.tokens.join())).size, 3);
      const scores = sequences.map((s) => s.score ?? Number.NaN);
      assert.ok(scores[0]! >= scores[1]! && scores[1]! >= scores[2]!);
      const ids = Uint32Array.from([1, ...model.tokenizer.encode("Once upon a time")]);
      const [best] = (await model.generate(ids, { maxTokens: 4, numBeams: 3, stopIds: [] })).sequences ?? [];
      const { logits } = await model.forward({ inputIds: [...ids, ...best!.tokens] });
      const V = model.config.vocabSize;
      const logprob = (id: number, i: number): number => {
        const row = logits.data.subarray((ids.length - 1 + i) * V, (ids.length + i) * V);
        return row[id]! - Math.log(row.reduce((total, x) => total + Math.exp(x), 0));
      };
      const mean = Array.from(best!.tokens, logprob).reduce((a, b) => a + b) / 4;
      assert.ok(Math.abs(best!.score! - mean) < 1e-4, `${best!.score} is the mean log-probability, ${mean}`);
      assert.equal(one.sequences, undefined);
      const never = (logits: Float32Array) => void (logits[tokens[0]!] = Number.NEGATIVE_INFINITY);
      assert.ok(!(await greedy({ maxTokens: 4, numBeams: 3, processors: [never] })).tokens.includes(tokens[0]!));
      const { openSessions, usedPages } = await model.status();
      assert.deepEqual({ openSessions, usedPages }, { openSessions: 0, usedPages: 0 });
      await throwsInput(model, { numBeams: 2, numReturnSequences: 3 }, /numReturnSequences: expected at most numBeams, 2, got 3/);
    });

    it("ends beams by criteria, stop strings and ids alike, and tells their log-probabilities", async () => {
      const beams = { numBeams: 3, numReturnSequences: 3, maxTokens: 12, stopIds: [], temperature: 0 };
      const search = (more: GenerateOptions) => model.generate(STORY, { ...beams, ...more });
      const short = await search({ maxTokens: 5 });
      const five = await search({ stoppingCriteria: [() => false, ({ tokens, promptTokens }) => tokens.length - promptTokens >= 5] });
      assert.deepEqual([five.sequences, five.finishReason], [short.sequences, "stop"]);
      const { tokens } = await search({});
      const end = tokens[4]!;
      const byId = await search({ stopIds: [end], topLogprobs: 2, repetitionPenalty: 1 });
      const byCriterion = await search({ stoppingCriteria: [(s) => s.tokens.at(-1) === end], topLogprobs: 2, repetitionPenalty: 1 });
      const plain = ({ sequences = [] }: typeof byId) => sequences.map(({ text: _, ...rest }) => rest);
      assert.deepEqual(plain(byCriterion), plain(byId));
      const totals = new Map<string, number>();
      const add = ({ tokens, promptTokens }: GenerationState, logits: Float32Array): boolean => {
        const [before, id = -1] = [tokens.slice(promptTokens, -1), tokens.at(-1)];
        totals.set(String(tokens.slice(promptTokens)), (totals.get(String(before)) ?? 0) + (logits[id] ?? Number.NaN));
        return false;
      };
      const returned = new Float32Array(model.config.vocabSize);
      const returns = (logits: Float32Array): Float32Array => {
        returned.set(logits);
        return returned;
      };
      for (const processors of [[], [returns]]) {
        totals.clear();
        const { sequences = [] } = await search({
          stoppingCriteria: [add, (_, logits) => logits.fill(0).length === 0],
          processors,
          maxTokens: 5,
        });
        for (const { tokens, score = 0 } of sequences)
          assert.ok(Math.abs((totals.get(String(tokens)) ?? Number.NaN) / tokens.length - score) < 1e-5, "a beam's own log-probabilities");
      }
      assert.deepEqual(byCriterion.logprobs, byCriterion.sequences?.[0]?.logprobs);
      for (const { tokens, score = 0, logprobs = [] } of byId.sequences ?? []) {
        assert.deepEqual(
          logprobs.map(({ id, top }) => [id, top.length]),
          [...tokens].map((id) => [id, 2]),
        );
        const mean = logprobs.reduce((sum, { logprob }) => sum + logprob, 0) / tokens.length;
        assert.ok(Math.abs(score - mean) < 1e-5, `${score}, expected ${mean}`);
      }

      const word = (text: string): string => text.slice(3, 11);
      const stop = word((await search({})).text);
      const textOf = (ids: readonly number[]): string => model.tokenizer.decode([...ids]);
      const byText = await search({ stop });
      const same = await search({ stoppingCriteria: [(s) => textOf(s.tokens.slice(s.promptTokens)).includes(stop)] });
      assert.deepEqual(
        byText.sequences?.map((s) => [s.tokens, s.score, s.text]),
        same.sequences?.map((s) => [s.tokens, s.score, s.text.split(stop)[0]]),
      );
      const stopped = same.sequences?.filter((s) => s.text.includes(stop)) ?? [];
      assert.ok(stopped.length > 0 && byText.sequences?.every((s) => !s.text.includes(stop)), `a beam says ${JSON.stringify(stop)}`);
      assert.equal(byText.text, byText.sequences?.[0]?.text);
      const ended = stopped.some((s) => String(s.tokens) === String(byText.tokens));
      assert.equal(byText.finishReason, ended ? "stop" : "length");
      const { usedPages } = await model.status();
      assert.equal(usedPages, 0);
    });

    it("draws with beams, and the seed draws it again", async () => {
      const options = { maxTokens: 8, numBeams: 3, numReturnSequences: 3, sampleBeams: true, temperature: 1.5, topK: 20, seed: 5 };
      const replyOf = async (more: GenerateOptions) => (await model.generate(STORY, { ...options, ...more })).sequences;
      const drawn = await replyOf({});
      assert.deepEqual(await replyOf({}), drawn);
      assert.notDeepEqual(await replyOf({ seed: 6 }), drawn);
      assert.notDeepEqual(await replyOf({ sampleBeams: false }), drawn);
      await throwsInput(model, { sampleBeams: true }, /sampleBeams: expected true or false, and for true numBeams above 1/);
      await throwsInput(model, { sampleBeams: true, numBeams: 2, temperature: 0 }, /a temperature above 0/);
    });

    it("samples several replies", async () => {
      const options = { maxTokens: 10, temperature: 1.5, seed: 40, logprobs: true };
      const { sequences = [] } = await model.generate(STORY, { ...options, numReturnSequences: 3 });
      assert.deepEqual(
        sequences.map((s) => s.seed),
        [40, 41, 42],
      );
      for (const { tokens, text, seed, logprobs } of sequences) {
        const alone = await model.generate(STORY, { ...options, seed });
        assert.deepEqual([alone.tokens, alone.text], [tokens, text]);
        assert.deepEqual([logprobs?.length, logprobs], [tokens.length, alone.logprobs]);
      }
    });

    it("returns those of several replies that were whole by the signal, and says that they are not all", async () => {
      for (const whole of [1, 2]) {
        const controller = new AbortController();
        let told = 0;
        const processors = [() => void (told++ === 5 * whole + 2 && controller.abort())];
        const options = { numReturnSequences: 4, maxTokens: 5, stopIds: [], temperature: 1.5, seed: 40 };
        const all = (await model.generate(STORY, options)).sequences ?? [];
        const cut = await model.generate(STORY, { ...options, processors, signal: controller.signal, onAbort: "return" });
        assert.deepEqual([cut.finishReason, cut.sequences, cut.text], ["interrupted", all.slice(0, whole), all[0]?.text]);
      }
    });

    it("ends several replies by the signal", async () => {
      for (const more of [{ numReturnSequences: 8, temperature: 1 }, { numBeams: 3 }]) {
        const controller = new AbortController();
        const processors = [
          (_: Float32Array, { tokens, promptTokens }: { tokens: readonly number[]; promptTokens: number }) =>
            void (tokens.length - promptTokens === 5 && controller.abort()),
        ];
        await assert.rejects(
          model.generate(STORY, { ...more, processors, signal: controller.signal }),
          (error: Error) => error.name === "AbortError",
        );
        assert.equal((await model.status()).usedPages, 0);
      }
    });

    it("scores texts as forward's logits do", async () => {
      const { tokens, logprobs } = await model.score("Once upon a time there was a fox.");
      assert.equal(logprobs.length, tokens.length - 1);
      const { logits } = await model.forward({ inputIds: tokens });
      const V = model.config.vocabSize;
      for (const [i, logprob] of logprobs.entries()) {
        const row = logits.data.subarray(i * V, (i + 1) * V);
        const largest = row.reduce((a, b) => Math.max(a, b));
        const sum = row.reduce((total, x) => total + Math.exp(x - largest), 0);
        assert.ok(Math.abs(logprob - (row[tokens[i + 1]!]! - largest - Math.log(sum))) < 1e-5, `token ${i + 1}`);
      }
      const whole = await model.perplexity(tokens);
      const mean = -logprobs.reduce((a, b) => a + b) / logprobs.length;
      assert.ok(Math.abs(whole.loss - mean) < 1e-12 && Math.abs(whole.perplexity / Math.exp(mean) - 1) < 1e-12);
      assert.equal(whole.tokens, logprobs.length);
      await assert.rejects(model.score(Uint32Array.of(1)), /two tokens at least/);
    });

    it("tells how far a forward pass is, and ends it between two chunks", async () => {
      const ids = Uint32Array.from({ length: 300 }, (_, i) => 20 + ((i * 37) % 400));
      const inputIds = [ids, ids.map((id) => id + 1)];
      const seen: string[] = [];
      const note = ({ processedTokens, totalTokens }: { processedTokens: number; totalTokens: number }): void =>
        void seen.push(`${processedTokens}/${totalTokens}`);
      await model.forward({ inputIds, logitsToKeep: 1, onProgress: note });
      assert.deepEqual(seen, ["128/600", "256/600", "384/600", "512/600", "600/600"]);
      const mine = new Error("mine");
      const fail = (): never => {
        throw mine;
      };
      await assert.rejects(model.forward({ inputIds, onProgress: fail }), (error) => error === mine);
      for (const useCache of [false, true]) {
        const controller = new AbortController();
        seen.length = 0;
        const stop = (progress: { processedTokens: number; totalTokens: number }): void => {
          note(progress);
          if (seen.length === 2) controller.abort(mine);
        };
        const call = model.forward({ inputIds, logitsToKeep: 1, useCache, signal: controller.signal, onProgress: stop });
        await assert.rejects(call, (error: Error) => error.name === "AbortError" && error.cause === mine);
        assert.equal(seen.length, 2);
      }
      await new Promise((resolve) => setTimeout(resolve, 1)); // its cache closes its sessions
      const { openSessions, usedPages } = await model.status();
      assert.deepEqual([openSessions, usedPages], [0, 0]);
    });

    it("leaves a cache as it was where a forward pass ends before its end", async () => {
      const text = (from: number, length: number): number[] => Array.from({ length }, (_, i) => 20 + (((from + i) * 37) % 400));
      const { hiddenStates } = await model.forward({ inputIds: text(9, 40), outputHiddenStates: true, logitsToKeep: 1 });
      const mine = new Error("mine");
      const fail = (): never => {
        throw mine;
      };
      for (const first of [{ inputIds: text(1, 40) }, { inputsEmbeds: hiddenStates![0]! }]) {
        const [begin, next] = [
          { ...first, logitsToKeep: 1 },
          { inputIds: text(3, 140), logitsToKeep: 1 },
        ];
        const { pastKeyValues: straight } = await model.forward({ ...begin, useCache: true });
        const { pastKeyValues } = await model.forward({ ...begin, useCache: true });
        const controller = new AbortController();
        const stop = (): void => controller.abort(mine);
        await assert.rejects(model.forward({ ...next, pastKeyValues, onProgress: fail }), (error) => error === mine);
        await assert.rejects(model.forward({ ...next, pastKeyValues, onProgress: stop, signal: controller.signal }), {
          name: "AbortError",
        });
        let calls = 0;
        const late = (): void => void (++calls === 2 && fail());
        await assert.rejects(model.forward({ ...next, pastKeyValues, onProgress: late }), (error) => error === mine);
        assert.deepEqual(pastKeyValues?.lengths, [40]);
        const again = await model.forward({ ...next, pastKeyValues, onProgress: () => {} });
        assert.deepEqual(again.logits, (await model.forward({ ...next, pastKeyValues: straight })).logits);
        for (const cache of [straight, pastKeyValues]) cache?.dispose();
      }
    });

    it("slides a window over a long text and scores each token once", async () => {
      const text = Uint32Array.from({ length: 100 }, (_, i) => 20 + ((i * 37) % 400));
      const [contextTokens, stride] = [40, 16];
      const rowsOf = (data: Float32Array, width: number): Float32Array[] =>
        Array.from({ length: data.length / width }, (_, t) => data.subarray(t * width, (t + 1) * width));
      const want = await windowLoss([...text], contextTokens, stride, async (inputIds) =>
        rowsOf((await model.forward({ inputIds: [...inputIds] })).logits.data, model.config.vocabSize),
      );
      const seen: number[] = [];
      const { loss, tokens } = await model.perplexity(text, { contextTokens, stride, onProgress: (p) => seen.push(p.processedTokens) });
      assert.deepEqual([tokens, want.tokens], [99, 99]);
      assert.ok(Math.abs(loss - want.loss) < 1e-6, `${loss}, expected ${want.loss}`);
      assert.deepEqual(seen, [40, 56, 72, 88, 100]);
      seen.length = 0;
      const long = Uint32Array.from({ length: 450 }, (_, i) => 20 + ((i * 37) % 400));
      await model.perplexity(long, { contextTokens: 300, onProgress: (p) => seen.push(p.processedTokens) });
      assert.deepEqual(seen, [128, 256, 300, 364, 428, 450], "within a window, too; the next begins half of one later");
      await assert.rejects(model.perplexity(text, { stride: 0 }), /stride: expected a whole number/);
    });

    it("embeds texts by the final norm's output", async () => {
      const text = "A fox and a bear.";
      const { tokens } = await model.score(text);
      const { hiddenStates } = await model.forward({ inputIds: tokens, outputHiddenStates: true, logitsToKeep: 1 });
      const rows = hiddenStates!.at(-1)!.data;
      const D = model.config.hiddenSize;
      const [all] = await model.embed([text], { pooling: "none" });
      assert.deepEqual(all, rows);
      const [last, other] = await model.embed([text, "Two small birds sat on a tree."], { pooling: "last" });
      assert.equal(other?.length, D);
      const [mean] = await model.embed([text]);
      const states = Array.from(tokens, (_, t) => rows.subarray(t * D, (t + 1) * D));
      assert.deepEqual([...last!], pooled(states, "last"));
      pooled(states, "mean").forEach((want, i) => {
        assert.ok(Math.abs(mean![i]! - want) < 1e-6, `element ${i}: ${mean![i]}, expected ${want}`);
      });
    });

    it("refuses what is no rule", async () => {
      await throwsInput(model, { badWordsIds: [[]] }, /badWordsIds: expected a list of lists of token ids, none of them empty/);
      for (const logitBias of [{ x: 1 }, { "": 1 }, { "1e2": 1 }, { 1: "2" }, new Map([[1, 2]]), [1, 2], new Float32Array(2), null])
        await throwsInput(model, { logitBias: logitBias as never }, /logitBias: expected an object \(no Map\) from token ids/);
      await throwsInput(model, { exponentialDecayLengthPenalty: [1, 0] }, /exponentialDecayLengthPenalty/);
      await throwsInput(model, { topLogprobs: 21 }, /topLogprobs: expected a whole number from 0 to 20/);
      await throwsInput(model, { typicalP: 2 }, /typicalP/);
      const { vocabSize } = model.config;
      await throwsInput(
        model,
        { forcedBosTokenId: vocabSize },
        new RegExp(`forcedBosTokenId: expected token ids from 0 to ${vocabSize - 1}`),
      );
      await throwsInput(model, { forcedEosTokenId: [1, vocabSize], numBeams: 2 }, /forcedEosTokenId: expected token ids from 0/);
    });

    it("tells the call whose rules leave no token, and no damaged file", async () => {
      const suppressTokens = Array.from({ length: model.config.vocabSize }, (_, id) => id);
      const nothing = [(logits: Float32Array) => void logits.fill(Number.NaN)];
      for (const more of [{ temperature: 0 }, { temperature: 1 }, { numBeams: 2 }, { numBeams: 2, sampleBeams: true, temperature: 1 }])
        for (const rule of [{ suppressTokens }, { processors: nothing }])
          await throwsInput(model, { maxTokens: 3, ...more, ...rule }, /a token that the call's rules leave/);
      const [end = 0] = model.info.stopIds;
      const ended = {
        numBeams: 2,
        maxTokens: 6,
        temperature: 0,
        logitBias: { [end]: 30 },
        processors: [
          (logits: Float32Array, { tokens, promptTokens }: { tokens: readonly number[]; promptTokens: number }) =>
            void (tokens.length > promptTokens && logits.fill(Number.NaN)),
        ],
      };
      assert.equal((await model.generate(STORY, ended)).finishReason, "stop", "what has ended counts, though nothing can go on");
    });
  });
}
