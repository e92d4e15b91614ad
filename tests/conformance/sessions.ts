// Chats as values, through the public API: whatever is rewound, forked, saved, restored and interleaved, the next turn is that of a conversation that never paused.
import assert from "node:assert/strict";
import type { Chat, GenerateOptions, LoadOptions, Message, Model, Reply } from "lfm2-wasm";
import { Random, seedOf } from "../bits/random.ts";

const WORDS = ["the", "fox", "and", "a", "small", "bear", "7", "+", "went", "home,", "who", "is", "Tom?", "你好", "🦊", "Zwölf", "\n"];
/** What a program does, in any order. */
const OPERATIONS = [
  "append",
  "append",
  "append",
  "rewind",
  "rewind",
  "rewind",
  "fork",
  "fork",
  "save and restore",
  "save and restore",
] as const;
const MOST_CHATS = 3;
const KV_DTYPES = ["f16", "f32", "q8"] as const;
/** What the model of program `n` keeps keys and values in: as its seed says. The gate's two have f32 and, alone, q8; those below f16. */
const kvDtypeOf = (n: number): (typeof KV_DTYPES)[number] => KV_DTYPES[new Random(seedOf(`kept as ${n}`)).below(KV_DTYPES.length)]!;
/** Whether no chat of program `n` takes over what another one holds. */
const isAlone = (n: number): boolean => n % 2 === 1;
/** Programs that once failed, in f16: after a reply that is no text, the next turn reads it anew, and the mark at its end has fewer tokens. */
const FOUND = [100, 106];
/** Longer conversations are no longer continued: the reference computes each turn from its first token. */
const LONGEST_TOKENS = 200;

/** Positions of a page: a saved chat holds whole ones, and the next turn computes what was in the last one. */
const PAGE_POSITIONS = 32;
/** Tokens that a restored chat's cache holds until its next turn. */
const stored = new WeakMap<Chat, number>();

/** What a chat's messages were at the end of each turn, the start first. */
interface Past {
  turns: readonly { readonly at: number; readonly messages: readonly Message[] }[];
  /** Whether a turn was read anew, of whose end the cache may hold less since. */
  isReadAnew: boolean;
}
const pasts = new WeakMap<Chat, Past>();

/** A chat that begins with what another has behind it. */
function follow<T extends Chat>(chat: T, past: Past = { turns: [{ at: 0, messages: chat.messages }], isReadAnew: false }): T {
  pasts.set(chat, { ...past });
  return chat;
}

/** Holds the messages of a chat that went back to `position` to those that it had there; from there on it has no other past. */
function checkMessages(chat: Chat, position: number): void {
  const past = pasts.get(chat)!;
  const { turns, isReadAnew } = past;
  const at = turns.findLastIndex((turn) => turn.at === position);
  // of a turn that was read anew the cache may hold less than up to its end: its messages may stay
  const least = at >= 0 ? at : turns.findLastIndex((turn) => turn.at < position);
  const most = at < 0 && isReadAnew ? turns.length - 1 : least;
  const last = turns.findIndex(({ messages }, i) => i >= least && i <= most && messages.length === chat.messages.length);
  assert.deepEqual(chat.messages, turns[last]?.messages, `messages at ${position} of ${turns.map((turn) => turn.at)}`);
  past.turns = turns.slice(0, last + 1);
}

/** What programs have done, by name. */
type Count = Map<string, number>;

const told = ({ text, tokens, finishReason, logprobs, usage }: Reply): unknown => [
  text,
  [...tokens],
  finishReason,
  logprobs,
  usage.inputTokens,
];

/** @returns how many ids the two begin with in common */
function commonPrefix(a: Uint32Array, b: Uint32Array): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

/** Says something to `chat` and to a new chat with the same past, whose cache is empty: the same ids, log-probabilities and tokens in the cache. */
async function append(cold: Model, chat: Chat, r: Random, alone: boolean): Promise<void> {
  const text = Array.from({ length: 1 + r.below([2, 6, 20][r.below(3)] ?? 1) }, () => WORDS[r.below(WORDS.length)]).join(" ");
  const options: GenerateOptions = {
    seed: r.below(1000),
    temperature: r.below(3) === 0 ? 0 : 1.5,
    maxTokens: 1 + r.below(10),
    logprobs: true,
  };
  const held = chat.tokens;
  const fresh = cold.chat({ messages: chat.messages });
  const want = await fresh.prompt(text, options);
  const speculate = r.below(3) === 0 ? ({ ngram: 1, max: 4, adaptive: false } as const) : false;
  const got = await chat.prompt(text, { ...options, speculate });
  assert.deepEqual(told(got), told(want));
  assert.deepEqual([...chat.tokens], [...fresh.tokens]);
  assert.deepEqual(chat.messages, fresh.messages);
  assert.equal(want.usage.cachedTokens, 0, "the reference has computed it all");
  const common = commonPrefix(held, fresh.tokens.subarray(0, want.usage.inputTokens - 1));
  const kept = Math.min(common, stored.get(chat) ?? common);
  stored.delete(chat);
  const past = pasts.get(chat)!;
  past.turns = [...past.turns, { at: chat.position, messages: fresh.messages }];
  past.isReadAnew ||= common < held.length;
  if (alone) assert.equal(got.usage.cachedTokens, kept);
  else assert.ok(got.usage.cachedTokens >= kept, `${got.usage.cachedTokens} of ${kept}`);
  fresh.dispose();
}

/**
 * Runs one random program of appends, rewinds, forks, saves and switches.
 * @param alone no chat of `model` takes over what another one holds
 */
async function program(model: Model, cold: Model, r: Random, alone: boolean, count: Count): Promise<void> {
  const chats = [follow(model.chat(r.below(2) === 0 ? {} : { system: "You are kind." }))];
  const did = (name: string): unknown => count.set(name, (count.get(name) ?? 0) + 1);
  const deck = OPERATIONS.map((what) => ({ what, at: r.next() })).sort((a, b) => a.at - b.at);
  for (const { what } of deck) {
    const at = r.below(chats.length); // switch
    const chat = chats[at]!;
    if (chat.position === 0 || (what === "append" && chat.position < LONGEST_TOKENS)) {
      await append(cold, chat, r, alone);
      did("append");
    } else if (what === "rewind") {
      const { tokens: held, marks } = chat;
      const position = r.below(3) === 0 ? marks[r.below(marks.length)]! : r.below(held.length + 1);
      await chat.rewind(position);
      // of the end of a turn that was read anew since, the cache may hold less
      const kept = marks.includes(position) ? chat.tokens.length : position;
      assert.deepEqual([chat.position, [...chat.tokens]], [position, [...held.subarray(0, kept)]]);
      assert.ok(kept <= position, `${kept} tokens at ${position}`);
      checkMessages(chat, position);
      did("rewind");
    } else if (what === "fork" && chats.length < MOST_CHATS) {
      const fork = follow(chat.fork(), pasts.get(chat));
      if (stored.has(chat)) stored.set(fork, stored.get(chat)!);
      chats.push(fork);
      did("fork");
    } else {
      const back = follow(await model.restore(await chat.save()), pasts.get(chat));
      assert.deepEqual([[...back.tokens], back.messages, back.marks], [[...chat.tokens], chat.messages, chat.marks]);
      stored.set(back, Math.min(stored.get(chat) ?? back.position, PAGE_POSITIONS * Math.floor(back.position / PAGE_POSITIONS)));
      chat.dispose();
      chats[at] = back;
      did("save and restore");
    }
  }
  for (const chat of chats) {
    await append(cold, chat, r, alone);
    chat.dispose();
  }
}

/**
 * Adds the suite for one way to load the bundled model.
 * @param programs how many; half of them where chats share what they hold
 */
export function sessionsSuite(name: string, load: (options?: LoadOptions) => Promise<Model>, programs: number): void {
  describe(`chats as values, ${name}`, () => {
    it("random programs, keys and values in each type: every turn is that of a conversation that never paused", async () => {
      const count: Count = new Map();
      const random = Array.from({ length: programs }, (_, n) => ({ n, kvDtype: kvDtypeOf(n) }));
      const all = [...random, ...FOUND.map((n) => ({ n, kvDtype: "f16" as const }))];
      for (const kvDtype of KV_DTYPES) {
        const these = all.filter((each) => each.kvDtype === kvDtype);
        if (these.length === 0) continue;
        const cold = await load({ kvDtype, prefixCacheBytes: 0 });
        const shared = these.every(({ n }) => isAlone(n)) ? cold : await load({ kvDtype });
        assert.deepEqual([shared.info.kvDtype, cold.info.kvDtype], [kvDtype, kvDtype]);
        for (const { n } of these) await program(isAlone(n) ? cold : shared, cold, new Random(seedOf(`chats ${n}`)), isAlone(n), count);
        for (const each of [shared, cold]) each.dispose();
      }
      for (const each of ["append", "rewind", "fork", "save and restore"])
        assert.ok((count.get(each) ?? 0) >= programs / 2, `${each}: ${count.get(each)} in ${programs} programs`);
    });
  });
}
