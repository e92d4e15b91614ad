// The tokenizer beyond the goldens: plain text stays plain, bytes of tokens, and every way a tokenizer.json or a GGUF's tokenizer can be wrong.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { FormatError, InputError, UnsupportedError } from "../../src/errors.ts";
import { BYTE_ALPHABET } from "../../src/text/byte-level.ts";
import { tokenizerFromGguf } from "../../src/text/gguf-tokenizer.ts";
import { AddedTokenFinder } from "../../src/text/segments.ts";
import { type AddedToken, Tokenizer } from "../../src/text/tokenizer.ts";
import { LFM2_SPLIT_PATTERN } from "../../src/text/tokenizer-json.ts";
import { parseJsonBytes } from "../../src/weights/json-scan.ts";
import { pick } from "../scale.ts";
import { fuzz, random } from "./fuzz.ts";

const text = readFileSync("tests/golden/data/text/tokenizer.json", "utf8");
const tokenizer = Tokenizer.fromJson(JSON.parse(text));

/** The golden vocabulary's file as plain data that a test may break. */
interface Json {
  [key: string]: unknown;
  added_tokens: Record<string, unknown>[];
  pre_tokenizer: { pretokenizers: Record<string, unknown>[] };
  model: { vocab: Record<string, unknown>; merges: unknown[]; [key: string]: unknown };
}
const changed = (edit: (json: Json) => void): Json => {
  const json = JSON.parse(text) as Json;
  edit(json);
  return json;
};

describe("tokenizer", () => {
  it("takes control tokens in text for text, unless told otherwise", () => {
    for (const { content, id } of tokenizer.addedTokens) {
      for (const around of [content, `a${content}b`, ` ${content}\n${content}`, `<${content}>`]) {
        const ids = tokenizer.encode(around);
        assert.ok(!ids.includes(id), around);
        assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), around);
        assert.ok(tokenizer.encode(around, { controlTokens: true }).includes(id), around);
      }
    }
  });

  it("takes no word for a control token that the vocabulary holds whole", () => {
    const json = changed((j) => {
      Object.assign(j.model.vocab, { Ġsecret: 515, secret: 516 });
      j.added_tokens.push({ id: 516, content: "secret", special: true }, { id: 512, content: "zebra", special: false });
    });
    const t = Tokenizer.fromJson(json);
    assert.deepEqual(t.encode(" secret"), [515]); // an ordinary word, by ignore_merges
    assert.ok(!t.encode("secret zebra").some((id) => id === 516 || id === 512));
    assert.equal(t.decode(t.encode("secret zebra"), { skipSpecialTokens: false }), "secret zebra");
    assert.deepEqual(t.encode("secret", { controlTokens: true }), [516]);
    assert.deepEqual(t.encode("zebra", { controlTokens: true }), [512]);
  });

  it("builds no special token by merges", () => {
    const json = changed((j) => j.added_tokens.push({ id: j.model.vocab.he as number, content: "he", special: true }));
    const t = Tokenizer.fromJson(json);
    const id = t.tokenId("he")!;
    assert.ok(tokenizer.encode("hehe she").includes(id)); // before, it was a word
    assert.ok(!t.encode("he hehe she").includes(id));
    assert.equal(t.decode(t.encode("he hehe she")), "he hehe she");
  });

  it("adds the start token only when asked", () => {
    assert.deepEqual(tokenizer.encode("a", { addSpecialTokens: true }), [1, ...tokenizer.encode("a")]);
    assert.deepEqual(tokenizer.encode("", { addSpecialTokens: true }), [1]);
    assert.deepEqual(tokenizer.encode(""), []);
  });

  it("finds added tokens in segments only where all their characters are trusted", () => {
    const of = (...parts: [string, boolean][]): number[] => tokenizer.encodeSegments(parts.map(([t, trusted]) => ({ text: t, trusted })));
    assert.deepEqual(of(["<|im_", true], ["end|>", true]), [7]);
    for (const at of [1, 5, 9]) {
      const parts: [string, boolean][] = [
        ["<|im_end|>".slice(0, at), true],
        ["<|im_end|>".slice(at, at + 1), false],
        ["<|im_end|>".slice(at + 1), true],
      ];
      assert.deepEqual(of(...parts), tokenizer.encode("<|im_end|>"));
    }
    assert.deepEqual(of(["<|im_end|>", false], ["<|im_end|>", true]), [...tokenizer.encode("<|im_end|>"), 7]);
    assert.deepEqual(of(), []);
    assert.deepEqual(of(["hel", true], ["lo", false]), tokenizer.encode("hello"), "text is encoded as one piece, whoever wrote it");
  });

  it("prefers the leftmost and the longest token, as the reference does, and eats white space where a token says so", () => {
    const token = (id: number, content: string, rest: Partial<AddedToken> = {}): AddedToken => ({
      id,
      content,
      special: true,
      lstrip: false,
      rstrip: false,
      ...rest,
    });
    const finder = new AddedTokenFinder([
      token(1, "ab"),
      token(2, "abc"),
      token(3, "bcd"),
      token(4, "x", { lstrip: true }),
      token(5, "y", { rstrip: true }),
    ]);
    const split = (s: string): (string | number)[] =>
      finder.split(s, new Uint8Array(s.length).fill(1)).map((p) => ("token" in p ? p.token.id : p.text));
    assert.deepEqual(split("abcd"), [2, "d"]);
    assert.deepEqual(split("zbcdab"), ["z", 3, 1]);
    assert.deepEqual(split("p  x q"), ["p", 4, " q"]);
    assert.deepEqual(split("p y \n q"), ["p ", 5, "q"]);
  });

  it("decodes empty and typed arrays, and whatever can be iterated", () => {
    assert.equal(tokenizer.decode([]), "");
    const ids = tokenizer.encode("hello world");
    for (const form of [ids, Uint32Array.from(ids), Int32Array.from(ids), new Set(ids).values(), ids.values()])
      assert.equal(tokenizer.decode(form), "hello world");
  });

  it("knows tokens by id and by text", () => {
    assert.equal(tokenizer.vocabularySize, 515);
    assert.equal(tokenizer.tokenId("<|im_end|>"), 7);
    assert.equal(tokenizer.idToToken(7), "<|im_end|>");
    assert.equal(tokenizer.idToToken(510), "Ġharbour");
    assert.deepEqual(new TextDecoder().decode(tokenizer.tokenBytes(510)), " harbour");
    assert.equal(new TextDecoder().decode(tokenizer.tokenBytes(513)), "<think>");
    assert.deepEqual([tokenizer.isSpecial(7), tokenizer.isSpecial(513), tokenizer.isSpecial(510)], [true, false, false]);
    for (const name of ["constructor", "__proto__", "nope"]) assert.equal(tokenizer.tokenId(name), undefined);
    for (let byte = 0; byte < 256; byte++) {
      const id = tokenizer.tokenId(BYTE_ALPHABET[byte]!)!;
      assert.deepEqual([...tokenizer.tokenBytes(id)], [byte]);
    }
  });

  it("refuses ids outside the vocabulary, and gives nothing for ids that no token has", () => {
    for (const id of [-1, 515, 1.5, Number.NaN, 2 ** 32]) {
      for (const call of [() => tokenizer.tokenBytes(id), () => tokenizer.isSpecial(id), () => tokenizer.decode([id])]) {
        assert.throws(call, (e) => e instanceof InputError && /token id: expected a whole number from 0 to 514/.test(e.message));
      }
    }
    const padded = Tokenizer.fromJson(JSON.parse(text), { vocabularySize: 600 });
    assert.equal(padded.vocabularySize, 600);
    assert.equal(padded.decode([113, 599, 113]), "aa");
    assert.equal(padded.idToToken(599), undefined);
    assert.throws(() => padded.decode([600]), InputError);
    assert.throws(() => tokenizer.encode(5 as unknown as string), InputError);
    assert.throws(() => tokenizer.decode(5 as never), { name: "InputError", message: /decode: expected token ids .* got number/ });
    assert.throws(() => tokenizer.decode(null as never), InputError);
    assert.throws(() => tokenizer.encode("a", null as never), { name: "InputError", message: /encode: expected an object.* got null/ });
    assert.throws(() => tokenizer.decode([5], null as never), InputError);
  });

  it("gives any text back", () => {
    const next = random(11);
    const words = [
      "Hello",
      " ",
      "\n",
      "é",
      "日本",
      "🦊",
      "1234",
      "'s",
      "\t",
      "<|im_end|>",
      "\u0000",
      "\ufeff",
      "\u00a0",
      "ſ",
      "  ",
      "zebra",
      " harbour",
      "-",
    ];
    for (let n = 0; n < pick({ gate: 20_000, full: 2_000_000 }); n++) {
      const sample = Array.from({ length: next() % 12 }, () => words[next() % words.length]!).join("");
      assert.equal(tokenizer.decode(tokenizer.encode(sample), { skipSpecialTokens: false }), sample, JSON.stringify(sample));
    }
    assert.equal(tokenizer.decode(tokenizer.encode("a\ud800b")), "a\ufffdb");
  });
});

describe("a wrong tokenizer.json", () => {
  type Bad = readonly [string, (json: Json) => void, RegExp];
  const seq = (edit: (split: Record<string, unknown>, bytes: Record<string, unknown>) => void) => (j: Json) =>
    edit(j.pre_tokenizer.pretokenizers[0]!, j.pre_tokenizer.pretokenizers[1]!);
  const regex = (Regex: string) => seq((split) => Object.assign(split, { pattern: { Regex } }));
  const format: readonly Bad[] = [
    ["no model", (j) => Object.assign(j, { model: undefined }), /model: expected an object, got undefined/],
    ["no vocab", (j) => Object.assign(j.model, { vocab: null }), /model.vocab: expected an object, got null/],
    ["a vocab that is a list", (j) => Object.assign(j.model, { vocab: [] }), /model.vocab: .* got a list/],
    ...[-1, 1.5, "79", null, 2 ** 31, Number.POSITIVE_INFINITY].map(
      (id) => [`id ${id}`, (j: Json) => Object.assign(j.model.vocab, { a: id }), /model.vocab: expected a whole id/] as const,
    ),
    ["an id twice", (j) => Object.assign(j.model.vocab, { a: j.model.vocab.b }), /duplicate id/],
    ["a missing byte", (j) => delete j.model.vocab.Z, /expected a token for every byte, got none for byte 90/],
    ["a long token", (j) => Object.assign(j.model.vocab, { ["x".repeat(5000)]: 515 }), /at most 4096 bytes, the limit/],
    ["an empty token", (j) => Object.assign(j.model.vocab, { "": 515 }), /expected the text of a token, got an empty one/],
    ["merges that are an object", (j) => Object.assign(j.model, { merges: { 0: ["t", "h"] } }), /model.merges: expected a list/],
    ["a merge of unknown tokens", (j) => j.model.merges.push(["zz", "q"]), /merges: .*none for "zz"/],
    ["a merge whose result is unknown", (j) => j.model.merges.push(["x", "q"]), /merges: .*none for "xq"/],
    ...[["the"], "t h e", "the", 5, null, ["t", 5], [], { 0: "t", 1: "h" }].map(
      (m) => [`merge ${JSON.stringify(m)}`, (j: Json) => j.model.merges.push(m), /expected merge \d+ to be two tokens/] as const,
    ),
    ["added tokens that are an object", (j) => Object.assign(j, { added_tokens: {} }), /added_tokens: expected a list/],
    ["an added token that is a string", (j) => j.added_tokens.push("x" as never), /added_tokens\[18\]: expected an object/],
    [
      "an added token without text",
      (j) => Object.assign(j.added_tokens[3]!, { content: "" }),
      /added_tokens\[3\]: expected the text of a token/,
    ],
    ["an added token whose text is null", (j) => Object.assign(j.added_tokens[3]!, { content: null }), /added_tokens\[3\]: .*got null/],
    [
      "an added token with another id than in the vocab",
      (j) => Object.assign(j.added_tokens[6]!, { id: 9 }),
      /added_tokens\[6\]: expected id 6/,
    ],
    [
      "an added token with an id of another",
      (j) => j.added_tokens.push({ content: "new", id: 100 }),
      /added_tokens\[18\]: .*duplicate id 100/,
    ],
    ["an added token with a huge id", (j) => j.added_tokens.push({ content: "new", id: 4e9 }), /added_tokens\[18\]: expected a whole id/],
    ["an added token twice", (j) => j.added_tokens.push({ ...j.added_tokens[0]! }), /added_tokens\[18\]: .*duplicate/],
    [
      "a post-processor with an unknown token",
      (j) =>
        Object.assign(j, {
          post_processor: {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "<|nope|>" } }, { Sequence: { id: "A" } }],
            special_tokens: {},
          },
        }),
      /post_processor: .*"<\|nope\|>"/,
    ],
    [
      "a post-processor with a token of the prototype",
      (j) =>
        Object.assign(j, {
          post_processor: {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "constructor" } }, { Sequence: { id: "A" } }],
            special_tokens: {},
          },
        }),
      /post_processor: .*"constructor"/,
    ],
    [
      "a post-processor without text",
      (j) => Object.assign(j, { post_processor: { type: "TemplateProcessing", single: [] } }),
      /post_processor: .*hold the text/,
    ],
  ];
  const unsupported: readonly Bad[] = [
    ["Unigram", (j) => Object.assign(j.model, { type: "Unigram" }), /model.type: expected BPE, got "Unigram"/],
    ["byte fallback", (j) => Object.assign(j.model, { byte_fallback: true }), /byte_fallback/],
    ["a word suffix", (j) => Object.assign(j.model, { end_of_word_suffix: "</w>" }), /end_of_word_suffix/],
    ["a normalizer", (j) => Object.assign(j, { normalizer: { type: "NFC" } }), /normalizer: expected none, got "NFC"/],
    ["no pre-tokenizer", (j) => Object.assign(j, { pre_tokenizer: null }), /pre_tokenizer/],
    ["another pre-tokenizer", (j) => Object.assign(j, { pre_tokenizer: { type: "Evil" } }), /pre_tokenizer: .*"Evil"/],
    ["a third step", (j) => j.pre_tokenizer.pretokenizers.push({ type: "Digits" }), /pre_tokenizer/],
    ["an exponential pattern", regex("(?:(a+)+$)|[^a]+|a"), /pre_tokenizer: .*regex/],
    ["a pattern that does not compile", regex("(a"), /pre_tokenizer: .*regex/],
    ["a huge pattern", regex("a|".repeat(2 ** 19)), /pre_tokenizer: .*regex/],
    ["another behaviour", seq((split) => Object.assign(split, { behavior: "Removed" })), /pre_tokenizer/],
    ["a prefix space", seq((_, bytes) => Object.assign(bytes, { add_prefix_space: true })), /pre_tokenizer/],
    ["no decoder", (j) => Object.assign(j, { decoder: null }), /decoder: expected ByteLevel, got null/],
    ["another decoder", (j) => Object.assign(j, { decoder: { type: "Metaspace" } }), /decoder/],
    [
      "another post-processor",
      (j) => Object.assign(j, { post_processor: { type: "BertProcessing" } }),
      /post_processor: .*"BertProcessing"/,
    ],
    [
      "a token that must be a single word",
      (j) => Object.assign(j.added_tokens[3]!, { single_word: true }),
      /added_tokens\[3\]: .*single_word/,
    ],
  ];
  for (const [Class, cases] of [
    [FormatError, format],
    [UnsupportedError, unsupported],
  ] as const) {
    for (const [name, edit, message] of cases) {
      it(`${Class.name}: ${name}`, () =>
        assert.throws(
          () => Tokenizer.fromJson(changed(edit)),
          (e) => e instanceof Class && e.message.startsWith("[lfm2] tokenizer.json: ") && message.test(e.message),
        ));
    }
  }

  it("is no object", () => {
    for (const json of [null, [], 5, "x", undefined]) assert.throws(() => Tokenizer.fromJson(json), FormatError);
  });

  it("has ids beyond the embedding's rows", () => {
    assert.throws(
      () => Tokenizer.fromJson(JSON.parse(text), { vocabularySize: 514 }),
      (e) => e instanceof FormatError && /embedding's rows.*got 514/.test(e.message),
    );
  });

  it("is not wrong in any of the forms that files have", () => {
    const forms: ((j: Json) => void)[] = [
      (j) => Object.assign(j.model, { merges: j.model.merges.map((m) => (m as string[]).join(" ")) }),
      (j) => Object.assign(j.model, { merges: j.model.merges.map((m, i) => (i % 2 ? (m as string[]).join(" ") : m)) }),
      (j) => delete j.model.type,
      (j) => Object.assign(j, { post_processor: { type: "Sequence", processors: [{ type: "ByteLevel" }, j.post_processor] } }),
      (j) => Object.assign(j, { truncation: { max_length: 5 }, padding: {} }),
      (j) => delete j.normalizer,
    ];
    for (const edit of forms) {
      const t = Tokenizer.fromJson(changed(edit));
      assert.deepEqual(
        t.encode("The ferry leaves the harbour", { addSpecialTokens: true }),
        tokenizer.encode("The ferry leaves the harbour", { addSpecialTokens: true }),
      );
    }
    const proto = Tokenizer.fromJson(
      JSON.parse(text.replace('"vocab":', '"__proto__":{"x":1},"vocab":').replace(/("vocab":\s*\{)/, '$1"__proto__":515,')),
    );
    assert.equal(proto.tokenId("__proto__"), 515);
    assert.equal(Object.hasOwn(Object.prototype, "x"), false);
  });

  it("under mutation is refused, or gives text back", async () => {
    const small = changed((j) => {
      const kept = Object.entries(j.model.vocab).filter(([token]) => [...token].length === 1 || token.startsWith("<|"));
      j.model.vocab = Object.fromEntries([...kept.map(([token], i) => [token, i] as const), ["th", kept.length], ["the", kept.length + 1]]);
      j.model.merges = [
        ["t", "h"],
        ["th", "e"],
      ];
      j.added_tokens = j.added_tokens.filter((t) => t.special).map((t) => ({ ...t, id: j.model.vocab[t.content as string] }));
      j.post_processor = null;
    });
    const bytes = new TextEncoder().encode(JSON.stringify(small));
    const seen = await fuzz(
      bytes,
      bytes.length,
      pick({ gate: 20_000, full: 2_000_000 }),
      (b) => Tokenizer.fromJson(parseJsonBytes(b, "tokenizer.json", { maxBytes: 1 << 20 })),
      (t) => {
        const ids = t.encode("the <|im_end|> théâtre");
        assert.ok(ids.every((id) => Number.isInteger(id) && id >= 0 && id < t.vocabularySize));
        assert.equal(t.decode(ids, { skipSpecialTokens: false }), "the <|im_end|> théâtre");
      },
    );
    assert.ok(seen.accepted > 10 && seen.refused > 100, JSON.stringify(seen));
  });
});

describe("a tokenizer from a GGUF", () => {
  const base = (): Map<string, unknown> => {
    const tokens = ["<|pad|>", "<|bos|>", "<|end|>", "<think>", ...BYTE_ALPHABET, "th", "the", "[PAD262]"];
    return new Map<string, unknown>([
      ["tokenizer.ggml.model", "gpt2"],
      ["tokenizer.ggml.pre", "lfm2"],
      ["tokenizer.ggml.tokens", tokens],
      ["tokenizer.ggml.token_type", tokens.map((_, i) => (i < 3 ? 3 : i === 3 ? 4 : i === tokens.length - 1 ? 5 : 1))],
      ["tokenizer.ggml.merges", ["t h", "th e"]],
      ["tokenizer.ggml.bos_token_id", 1],
      ["tokenizer.ggml.eos_token_id", 2],
      ["tokenizer.ggml.padding_token_id", 0],
      ["tokenizer.ggml.add_bos_token", true],
      ["tokenizer.chat_template", "{{ bos_token }}"],
    ]);
  };
  const key = (name: string): string => (name === "chat_template" ? `tokenizer.${name}` : `tokenizer.ggml.${name}`);
  const list = (m: Map<string, unknown>, name: string): unknown[] => [...(m.get(key(name)) as unknown[])];

  it("has the ids, the marks and the template of the file", () => {
    const gguf = tokenizerFromGguf(base());
    const t = Tokenizer.fromJson(gguf.tokenizer, { vocabularySize: gguf.tokenCount });
    assert.deepEqual(
      { ...gguf, tokenizer: undefined },
      {
        tokenizer: undefined,
        tokenCount: 263,
        chatTemplate: "{{ bos_token }}",
        bosId: 1,
        eosIds: [2],
        padId: 0,
        bosToken: "<|bos|>",
        eosToken: "<|end|>",
      },
    );
    assert.deepEqual(t.encode("the<think>", { addSpecialTokens: true, controlTokens: true }), [1, 261, 3]);
    assert.deepEqual([t.isSpecial(2), t.isSpecial(3), t.tokenBytes(262).length], [true, false, 0]);
    assert.equal(t.decode([1, 261, 3, 262, 2]), "the<think>");
  });

  it("does without what files may leave out", () => {
    const m = base();
    for (const name of ["bos_token_id", "eos_token_id", "padding_token_id", "add_bos_token", "token_type", "chat_template"])
      m.delete(key(name));
    const gguf = tokenizerFromGguf(m);
    assert.deepEqual(
      [gguf.bosId, gguf.eosIds, gguf.padId, gguf.chatTemplate, gguf.bosToken],
      [undefined, [], undefined, undefined, undefined],
    );
    assert.deepEqual(Tokenizer.fromJson(gguf.tokenizer).encode("the", { addSpecialTokens: true }), [261]);
    const two = base().set(key("eot_token_id"), 0).set(key("add_eos_token"), true);
    assert.deepEqual(tokenizerFromGguf(two).eosIds, [2, 0]);
    assert.deepEqual(Tokenizer.fromJson(tokenizerFromGguf(two).tokenizer).encode("", { addSpecialTokens: true }), [1, 2]);
    assert.equal(tokenizerFromGguf(base()).tokenizer.pre_tokenizer === null, false);
    assert.ok(JSON.stringify(tokenizerFromGguf(base()).tokenizer).includes(JSON.stringify(LFM2_SPLIT_PATTERN)));
  });

  const bad: readonly (readonly [string, string, (m: Map<string, unknown>) => unknown, new (m: string) => Error, RegExp])[] = [
    ["no model", "model", () => undefined, FormatError, /tokenizer\.ggml\.model/],
    ["a number for a model", "model", () => 5, FormatError, /tokenizer\.ggml\.model: expected a string/],
    ["SentencePiece", "model", () => "llama", UnsupportedError, /tokenizer\.ggml\.model: .*"llama"/],
    ["another split", "pre", () => "evil", UnsupportedError, /tokenizer\.ggml\.pre: .*"evil"/],
    ["no tokens", "tokens", () => undefined, FormatError, /tokens: expected a list of strings, got none/],
    ["empty tokens", "tokens", () => [], FormatError, /tokens: expected a list of strings/],
    ["tokens that are numbers", "tokens", () => [1, 2], FormatError, /tokens: expected a list of strings/],
    ["a token twice", "tokens", (m) => list(m, "tokens").with(100, "the"), FormatError, /tokens: .*duplicate "the"/],
    ["too few types", "token_type", (m) => list(m, "token_type").slice(1), FormatError, /token_type: expected 263 types, .* got 262/],
    ["types that are a string", "token_type", () => "3", FormatError, /token_type: .* got string/],
    ["an unknown type", "token_type", (m) => list(m, "token_type").with(9, 6), UnsupportedError, /token_type: .* got "6"/],
    ["no merges", "merges", () => undefined, FormatError, /merges: expected a list of strings/],
    ["an id outside the list", "eos_token_id", () => 263, FormatError, /eos_token_id: expected an id from 0 to 262, got "263"/],
    ["an id that is a string", "bos_token_id", () => "1", FormatError, /bos_token_id/],
    ["an id that is a big integer", "padding_token_id", () => 2n ** 60n, FormatError, /padding_token_id/],
    ["a flag that is a number", "add_bos_token", () => 1, FormatError, /add_bos_token: expected a bool/],
    ["a template that is a list", "chat_template", () => ["x"], FormatError, /tokenizer\.chat_template: expected a string/],
  ];
  for (const [name, field, value, Class, message] of bad) {
    it(`${Class.name}: ${name}`, () => {
      const m = base();
      m.set(key(field), value(m));
      assert.throws(
        () => tokenizerFromGguf(m),
        (e) => e instanceof Class && message.test(e.message),
      );
    });
  }

  it("takes no byte's token as a special one, and none whose text would be another: what users write would change", () => {
    const marked = (token: string, type: number, merge?: string): Map<string, unknown> => {
      const m = base();
      const tokens = list(m, "tokens") as string[];
      const at = merge === undefined ? tokens.indexOf(token) : tokens.length - 1;
      if (merge !== undefined) m.set(key("merges"), [...list(m, "merges"), merge]);
      return m.set(key("tokens"), tokens.with(at, token)).set(key("token_type"), list(m, "token_type").with(at, type));
    };
    const [control, userDefined] = [3, 4];
    for (const [what, m] of [
      ["a byte's token", marked("_", control)],
      ["a byte's token", marked("Ġ", control)],
      ["a byte's token", marked("Ġ", userDefined)],
      ["one that merges make", marked("Ġt", userDefined, "Ġ t")],
    ] as const)
      assert.throws(() => Tokenizer.fromJson(tokenizerFromGguf(m).tokenizer), {
        name: "FormatError",
        message: new RegExp(`added_tokens: expected tokens of their own, got ${what}, `),
      });
    for (const m of [marked("_", userDefined), marked("the", userDefined), marked("the", control), marked("Ġt", control, "Ġ t")]) {
      const t = Tokenizer.fromJson(tokenizerFromGguf(m).tokenizer);
      for (const controlTokens of [true, false])
        assert.equal(t.decode(t.encode("the _ the Ġt", { controlTokens }), { skipSpecialTokens: false }), "the _ the Ġt");
    }
  });
});
