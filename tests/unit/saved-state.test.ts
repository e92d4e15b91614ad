// The format of saved sessions: what later versions must read, what tells models apart, what a damaged state meets.
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Chat, load } from "lfm2-wasm";
import { openPath } from "../../src/adapters/node/files.ts";
import { restoreSession, saveSession } from "../../src/generate/saved-session.ts";
import { Session } from "../../src/generate/session.ts";
import { Hash } from "../../src/memory/hash.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { type LoadModelOptions, loadModel } from "../../src/models/load-model.ts";
import { decodeState, encodeState, STATE_VERSION } from "../../src/models/saved-state.ts";
import { Random } from "../bits/random.ts";
import { checkpointFolder, feed, kernels, sameBits, threads, variants } from "../golden/support.ts";

const FIXTURES = join("tests", "golden", "data", "saved");
/** Saved by each version of the format: `tiny-gqa3`, seed 1, as bf16, keys and values in f16, after the ids below. */
const VERSIONS = [1, 2];
const fixture = (version: number): string => join(FIXTURES, `tiny-gqa3-v${version}.lfm2chat`);
/** `tiny-attn-first`, seed 1, as bf16, with two heads of keys and values in f32, after the first of these ids: from version 2 on. */
const fixtureF32 = (version: number): string => join(FIXTURES, `tiny-attn-first-f32-v${version}.lfm2chat`);
const F32_VERSIONS = [2];
const F32_IDS = 40;
const IDS = Array.from({ length: 75 }, (_, i) => (i * i * 7 + 3 * i + 11) % 257);
const MORE = [5, 4, 3, 2, 1];

async function tiny(options: LoadModelOptions = {}, preset = "tiny-gqa3"): Promise<LanguageModel> {
  const checkpoint = await openCheckpoint(await openPath(checkpointFolder(preset)));
  const { model } = await loadModel(checkpoint, kernels, options);
  await checkpoint.close();
  return model;
}

function sessionOf(model: LanguageModel, ids: readonly number[]): Session {
  const session = new Session(model.openCache());
  model.step([{ cache: session.cache, ids }], { logitsOf: [] });
  session.follow(0, ids);
  return session;
}

/** Logits (V,) after all tokens and `more`. */
function next(model: LanguageModel, session: Session, more: readonly number[]): Float32Array {
  const ids = [...session.tokens.toArray(), ...more].slice(session.cache.statePosition);
  model.step([{ cache: session.cache, ids }], { logitsOf: [ids.length - 1] });
  return model.logits().copy();
}

/** A chat on the bundled checkpoint as it is, keys and values in q8, saved by each version: with its messages, marks and options. */
const chatFixture = (version: number): string => join(FIXTURES, `lfm2-mini-chat-v${version}.lfm2chat`);
/** From version 2 on: one of which the oldest turns have been dropped, and the same gone back to before that, so that marks say where turns ended whose tokens are gone. */
const pastFixture = (what: "dropped" | "rewound", version: number): string => join(FIXTURES, `lfm2-mini-chat-${what}-v${version}.lfm2chat`);
const PAST_VERSIONS = [2];
/** Nobody takes over what another session holds: a restored chat goes on from its own pages. */
const ALONE = { kvDtype: "q8", threads: 1, prefixCacheBytes: 0 } as const;

/** Writes the fixture of the newest version where there is none yet and the environment asks for it. */
function written(path: string, bytes: () => Uint8Array | Promise<Uint8Array>): Promise<void> | undefined {
  if (!process.env.LFM2_WRITE_FIXTURE || existsSync(path)) return undefined;
  return (async () => writeFileSync(path, await bytes()))();
}

describe("saved sessions", () => {
  it("of chats of every version so far load with their messages, and go on as chats that were not saved", async () => {
    using model = await load("models/lfm2-mini", ALONE);
    const greedy = { temperature: 0, maxTokens: 12 };
    const fresh = model.chat({ system: "You are kind.", onContextFull: "drop-oldest" });
    await fresh.prompt("My name is Tom.", greedy);
    await fresh.prompt("What is 3 + 4?", greedy);
    await written(chatFixture(STATE_VERSION), () => fresh.save());
    const said = (await fresh.fork().prompt("What is my name?", greedy)).tokens;
    for (const version of VERSIONS) {
      const again = await model.restore(new Uint8Array(readFileSync(chatFixture(version))));
      assert.deepEqual([again.messages, again.marks, again.tokens], [fresh.messages, fresh.marks, fresh.tokens], `version ${version}`);
      assert.ok(again.tokens.length >= 32, "a page at least is stored");
      const { tokens, usage } = await again.prompt("What is my name?", greedy);
      assert.deepEqual([tokens, usage.cachedTokens], [said, 32], "its own page");
    }
  });

  it("of chats that dropped turns, and that went back to before, load with marks of turns whose tokens are gone", async () => {
    using model = await load("models/lfm2-mini", { ...ALONE, maxContextTokens: 100 });
    const greedy = { temperature: 0, maxTokens: 8, logprobs: true } as const;
    const fresh = model.chat({ system: "You are kind.", onContextFull: "drop-oldest" });
    for (const text of ["My name is Tom.", "What is 3 + 4?", "Tell me a story about a fox.", "What is my name?"])
      await fresh.prompt(text, greedy);
    const rewound = fresh.fork();
    await rewound.rewind(rewound.marks[3]!);
    await written(pastFixture("dropped", STATE_VERSION), () => fresh.save());
    await written(pastFixture("rewound", STATE_VERSION), () => rewound.save());
    assert.deepEqual(PAST_VERSIONS.at(-1), STATE_VERSION, "a new version of the format needs fixtures of its own");
    for (const version of PAST_VERSIONS)
      for (const [what, chat, kept] of [
        ["dropped", fresh, 32],
        ["rewound", rewound, 0],
      ] as const) {
        const bytes = new Uint8Array(readFileSync(pastFixture(what, version)));
        const note = Buffer.from(bytes).toString("latin1");
        assert.ok(
          /\\"at\\":80/.test(note) && /\\"droppedMessages\\":4/.test(note) === (what === "dropped"),
          `${what}: what it is there for`,
        );
        const open = (): Promise<Chat> => model.restore(bytes);
        const state = ({ messages, marks, tokens, position }: Chat): unknown => [messages, marks, tokens, position];
        assert.deepEqual(state(await open()), state(chat), `${what}, version ${version}`);
        const next = async (of: Chat, text: string) => {
          const { tokens, logprobs, usage } = await of.prompt(text, greedy);
          return { cached: usage.cachedTokens, said: [tokens, logprobs, usage.droppedMessages, state(of)] };
        };
        const again = await next(await open(), "And a small bear?");
        assert.deepEqual(again.said, (await next(chat.fork(), "And a small bear?")).said, `${what}: goes on`);
        assert.equal(again.cached, kept, `${what}: from its own pages`);
        const [back, other] = [await open(), chat.fork()];
        for (const mark of chat.marks.slice(1, -1).reverse()) {
          for (const each of [back, other]) await each.rewind(mark);
          assert.deepEqual(state(back), state(other), `${what}: back to ${mark}`);
        }
        assert.deepEqual((await next(back, "Who?")).said, (await next(other, "Who?")).said, `${what}: on from there`);
      }
  });

  it("of every version so far load, and go on to the last bit", async () => {
    const model = await tiny();
    const V = model.config.vocabSize;
    const expected = feed(model, [...IDS, ...MORE]).slice(-V);
    await written(fixture(STATE_VERSION), () => saveSession(sessionOf(model, IDS), model, "first"));
    assert.deepEqual(VERSIONS.at(-1), STATE_VERSION, "a new version of the format needs a fixture of its own");
    for (const version of VERSIONS) {
      const bytes = new Uint8Array(readFileSync(fixture(version)));
      const { session, note } = restoreSession(model, bytes);
      assert.equal(note, "first");
      assert.deepEqual([...session.tokens.toArray()], IDS);
      assert.equal(session.cache.position, 64);
      assert.ok(sameBits(next(model, session, MORE), expected), `version ${version}`);
      if (version === STATE_VERSION)
        assert.deepEqual(Buffer.from(saveSession(sessionOf(model, IDS), model, "first")), Buffer.from(bytes), "the same bytes");
    }
    model.dispose();
  });

  it("hold no convolution state: without attention, pages and layers of any number take the same bytes", async () => {
    const model = await tiny({}, "tiny-conv-only");
    const { stateBytes } = model.caches.size;
    const bytes = saveSession(sessionOf(model, IDS), model, "").length;
    assert.ok(
      stateBytes > 0 && bytes - 4 * IDS.length < Math.min(1024, stateBytes),
      `${bytes} bytes, of which the state alone would be ${stateBytes}`,
    );
    const { session } = restoreSession(model, saveSession(sessionOf(model, IDS), model, ""));
    assert.ok(sameBits(next(model, session, MORE), feed(model, [...IDS, ...MORE]).slice(-model.config.vocabSize)));
    model.dispose();
  });

  it("with keys and values in f32 load, and go on to the last bit", async () => {
    const model = await tiny({ kvDtype: "f32" }, "tiny-attn-first");
    const ids = IDS.slice(0, F32_IDS);
    const expected = feed(model, [...ids, ...MORE]).slice(-model.config.vocabSize);
    const save = (): Uint8Array => saveSession(sessionOf(model, ids), model, "in f32");
    await written(fixtureF32(STATE_VERSION), save);
    assert.deepEqual(F32_VERSIONS.at(-1), STATE_VERSION, "a new version of the format needs a fixture of its own");
    for (const version of F32_VERSIONS) {
      const bytes = new Uint8Array(readFileSync(fixtureF32(version)));
      const { session, note } = restoreSession(model, bytes);
      assert.deepEqual([note, [...session.tokens.toArray()], session.cache.position], ["in f32", ids, 32]);
      assert.ok(sameBits(next(model, session, MORE), expected), `version ${version}`);
      if (version === STATE_VERSION) assert.deepEqual(Buffer.from(save()), Buffer.from(bytes), "the same bytes");
    }
    model.dispose();
  });

  it("load in every build and with every number of threads", async () => {
    const bytes = new Uint8Array(readFileSync(fixture(STATE_VERSION)));
    const seen: Float32Array[] = [];
    for (const variant of variants)
      for (const count of [1, 2]) {
        const model = await tiny({ variant, ...(count > 1 ? { threads: threads(count) } : {}) });
        seen.push(next(model, restoreSession(model, bytes).session, MORE));
        model.dispose();
      }
    assert.ok(seen.length >= 2 && seen.every((logits) => sameBits(logits, seen[0]!)));
  });

  it("belong to weights, dtypes and shapes: each has a fingerprint of its own, the same in every build", async () => {
    const prints = new Map<string, string>();
    for (const preset of ["tiny-gqa3", "tiny-attn-first", "tiny-conv-only", "tiny-quant"])
      for (const dtype of ["f32", "bf16", "f16", "q8", "q4"] as const) {
        const ofBuilds = new Set<string>();
        for (const variant of variants) {
          const model = await tiny({ dtype, variant }, preset);
          ofBuilds.add(model.fingerprint);
          model.dispose();
        }
        assert.equal(ofBuilds.size, 1, `${preset} ${dtype}`);
        prints.set([...ofBuilds][0]!, `${preset} ${dtype}`);
      }
    assert.equal(prints.size, 20);
  });

  it("of a model in which one tensor has changed are refused", async () => {
    const model = await tiny();
    const bytes = saveSession(sessionOf(model, IDS), model, "");
    const floats = new Float32Array(model.caches.memory.buffer);
    // one of the first norm's gains: they lie in front, near 1
    const at = floats.findIndex((x, i) => i > 16_384 && Math.abs(x - 1) < 0.5 && Math.abs((floats[i + 1] ?? 0) - 1) < 0.5);
    assert.ok(at > 0);
    floats[at] = (floats[at] ?? 0) + 0.25;
    assert.throws(() => restoreSession(model, bytes), { name: "FormatError", code: "other-model" });
    model.dispose();
  });

  it("of more tokens than the memory has room for are a MemoryError, and leave nothing", async () => {
    const big = await tiny({ kvDtype: "f32" }, "tiny-attn-only");
    const bytes = saveSession(sessionOf(big, IDS), big, "");
    const limit = big.caches.memory.buffer.byteLength;
    const small = await tiny({ kvDtype: "f32", maxMemoryBytes: limit }, "tiny-attn-only");
    const restored: Session[] = [];
    const fill = (): void => {
      for (;;) restored.push(restoreSession(small, bytes).session);
    };
    assert.throws(fill, { name: "MemoryError" });
    assert.ok(restored.length > 0);
    assert.equal(small.caches.pages.used, 2 * restored.length);
    for (const model of [big, small]) model.dispose();
  });

  it("survive no change of a bit, no cut, no other length in the header", () => {
    const heads = { query: 2, kv: 1, dim: 16 };
    const owner = { model: "0123456789abcdef", kvDtype: "f16", pageBytes: 256, heads } as const;
    const r = new Random(3);
    const page = (): Uint8Array => Uint8Array.from({ length: 256 }, () => r.below(256));
    const state = { tokens: Uint32Array.from(IDS), pages: [page(), page()], note: 'a "note" – ünïcode' };
    const bytes = encodeState(owner, state);
    assert.deepEqual(decodeState(bytes, owner), state);
    const odd = new Uint8Array(bytes.length + 3).subarray(3);
    odd.set(bytes);
    assert.deepEqual(decodeState(odd, owner), state, "at an odd address");
    assert.deepEqual(decodeState(Buffer.from(odd.buffer, 3), owner), state, "a Buffer there, whose slice is no copy");
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const changed = bytes.slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(() => decodeState(changed, owner), { name: "FormatError" }, `bit ${bit}`);
    }
    for (let length = 0; length < bytes.length; length++)
      assert.throws(() => decodeState(bytes.slice(0, length), owner), { name: "FormatError" });
    // with a checksum that fits
    const sealed = (change: (json: string) => string): Uint8Array => {
      const out = bytes.slice();
      const words = new Uint32Array(out.buffer);
      const json = change(Buffer.from(out.subarray(16, 16 + words[3]!)).toString());
      assert.equal(Buffer.byteLength(json), words[3]);
      out.set(Buffer.from(json), 16);
      words.set(new Hash().add(words.subarray(0, -2)).words, words.length - 2);
      return out;
    };
    assert.deepEqual(
      decodeState(
        sealed((json) => json),
        owner,
      ),
      state,
    );
    for (const [from, to] of [
      ['"tokens":75', '"tokens":95'],
      ['"pages":2', '"pages":9'],
      ['"pageBytes":256', '"pageBytes":-56'],
      ['"pages":2', '"pages":"'],
      ['"kvDtype":"f16"', '"kvDtype":["f"]'],
    ] as const)
      assert.throws(
        () =>
          decodeState(
            sealed((json) => json.replace(from, to)),
            owner,
          ),
        { name: "FormatError", code: "checksum" },
        to,
      );
  });

  it("of version 1 have K and V of a head side by side in a page, its scales in front of each", () => {
    const [heads, layers] = [{ query: 4, kv: 3, dim: 16 }, 2];
    const r = new Random(4);
    for (const [kvDtype, valueBytes, scaleBytes] of [
      ["f32", 2048, 0],
      ["f16", 1024, 0],
      ["q8", 512, 128],
    ] as const) {
      const owner = { model: "0123456789abcdef", kvDtype, pageBytes: 2 * layers * heads.kv * (valueBytes + scaleBytes), heads };
      const now: Uint8Array[] = [];
      const before: Uint8Array[] = [];
      for (let layer = 0; layer < layers; layer++) {
        const random = (bytes: number) => Array.from({ length: heads.kv }, () => Uint8Array.from({ length: bytes }, () => r.below(256)));
        const [kScales, k, vScales, v] = [random(scaleBytes), random(valueBytes), random(scaleBytes), random(valueBytes)];
        now.push(...kScales, ...k, ...vScales, ...v);
        for (let g = 0; g < heads.kv; g++) before.push(kScales[g]!, k[g]!, vScales[g]!, v[g]!);
      }
      const page = (parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
      const state = { tokens: Uint32Array.from(IDS), note: "" };
      const bytes = encodeState(owner, { ...state, pages: [page(before)] });
      const words = new Uint32Array(bytes.buffer);
      words[2] = 1;
      words.set(new Hash().add(words.subarray(0, -2)).words, words.length - 2);
      assert.deepEqual(decodeState(bytes, owner), { ...state, pages: [page(now)] }, kvDtype);
    }
  });
});
