// Who waits for whom: overlapping calls take turns step by step, turns of one chat run in order, and a signal reaches one that still waits.
import assert from "node:assert/strict";
import { type GenerateOptions, load, type Model, type ReplyStream } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";

const STORY = "Tell me a story about a fox.";
const LONG: GenerateOptions = { stopIds: [], maxTokens: 1500 };

describe("the queue", () => {
  let model: Model;
  before(async () => {
    model = await load(mini);
  });
  after(() => model.dispose());

  /** Reads streams at full speed, all at once; returns the texts and how many parts the first was ahead of the last at most. */
  async function race(streams: readonly ReplyStream[]): Promise<{ texts: string[]; lead: number; parts: number[] }> {
    const parts = streams.map(() => 0);
    let running = streams.length;
    let lead = 0;
    const read = async (stream: ReplyStream, i: number): Promise<string> => {
      for await (const _ of stream) {
        parts[i]!++;
        if (running === streams.length) lead = Math.max(lead, Math.max(...parts) - Math.min(...parts));
      }
      running--;
      return (await stream.reply).text;
    };
    return { texts: await Promise.all(streams.map(read)), lead, parts };
  }

  for (const count of [2, 4]) {
    it(`gives ${count} equal streams turns: none is ever more than 3 parts ahead`, async () => {
      const options: GenerateOptions = { stopIds: [], maxTokens: 150, temperature: 1, seed: 4 };
      const alone = (await model.generate(STORY, options)).text;
      for (let round = 0; round < 2; round++) {
        const { texts, lead, parts } = await race(Array.from({ length: count }, () => model.stream(STORY, options)));
        assert.deepEqual(texts, new Array(count).fill(alone));
        assert.ok(parts[0]! > 75);
        assert.ok(lead <= 3, `${lead} parts ahead in round ${round}`);
      }
    });
  }

  it("lets one that comes later join at once", async () => {
    let ofLong = 0;
    const long = model.stream(STORY, LONG);
    const reader = (async () => {
      for await (const _ of long) ofLong++;
    })();
    while (ofLong < 20) await new Promise((resolve) => setTimeout(resolve, 1));
    const before = ofLong;
    const { tokens } = await model.generate("What is 3 + 4?", { stopIds: [], maxTokens: 50 });
    const meanwhile = ofLong - before;
    assert.equal(tokens.length, 50);
    assert.ok(meanwhile > 25 && meanwhile < 100, `${meanwhile} parts of the long reply while 50 tokens of the short one came`);
    await long[Symbol.asyncIterator]().return?.();
    await reader;
  });

  it("a long prompt does not hold up a reply that is under way", async () => {
    const prompt = "apple pear plum ".repeat(300);
    let prefilled = 0;
    let seen = 0;
    const stream = model.stream(STORY, { stopIds: [], maxTokens: 400 })[Symbol.asyncIterator]();
    await stream.next();
    const reading = (async () => {
      for await (const part of model.stream(prompt, { maxTokens: 1 })) if (part.type === "prefill") prefilled++;
      return seen;
    })();
    let isOver = false;
    reading.then(() => {
      isOver = true;
    });
    while (!isOver && !(await stream.next()).done) seen++;
    assert.ok(prefilled >= 4 && (await reading) >= prefilled - 1, `${prefilled} chunks, ${seen} parts meanwhile`);
    await stream.return?.();
  });
});

describe("a turn that waits behind another one of its chat", () => {
  let model: Model;
  before(async () => {
    model = await load(mini);
  });
  after(() => model.dispose());

  it("is ended by its signal at once; the turn before it goes on and is right", async () => {
    const alone = await model.generate(STORY, LONG);
    const chat = model.chat();
    const first = chat.stream(STORY, LONG);
    const reader = first[Symbol.asyncIterator]();
    for (let n = 0; n < 20; n++) await reader.next(); // its reader stops half-way
    const control = new AbortController();
    const waiting = chat.prompt("What is my name?", { signal: control.signal });
    setTimeout(() => control.abort(new Error("enough")), 20);
    await assert.rejects(waiting, (error: Error) => error.name === "AbortError" && (error.cause as Error).message === "enough");
    assert.equal(chat.messages.length, 0, "the first turn is far from its end");
    const reply = await first.reply;
    assert.deepEqual([reply.text, reply.tokens.length], [alone.text, 1500]);
    assert.deepEqual(
      chat.messages.map((m) => m.content),
      [STORY, alone.text],
    );
    chat.dispose();
  });

  it("is ended at once also when the signal has fired before it", async () => {
    const chat = model.chat();
    const first = chat.stream(STORY, LONG);
    await first[Symbol.asyncIterator]().next();
    await assert.rejects(chat.prompt("Hi", { signal: AbortSignal.abort() }), { name: "AbortError" });
    assert.equal(chat.messages.length, 0);
    await first[Symbol.asyncIterator]().return?.();
    chat.dispose();
  });

  it('gives nothing with onAbort "return", and leaves the history alone', async () => {
    const chat = model.chat();
    const first = chat.stream(STORY, { ...LONG, maxTokens: 300 });
    await first[Symbol.asyncIterator]().next();
    const control = new AbortController();
    const waiting = chat.prompt("Hi", { signal: control.signal, onAbort: "return" });
    control.abort();
    const { text, finishReason, tokens } = await waiting;
    assert.deepEqual([text, finishReason, tokens.length], ["", "interrupted", 0]);
    assert.equal(chat.messages.length, 0);
    await first.reply;
    assert.equal(chat.messages.length, 2);
    const after = await chat.prompt("What is 3 + 4?", { maxTokens: 8 });
    assert.equal(after.text, (await model.generate(chat.messages.slice(0, 3), { maxTokens: 8 })).text);
    chat.dispose();
  });
});
