// Wrong tokenizer.json files.
import { DIM, json, rawJson, utf8, VOCAB, validTokenizer } from "./valid.mjs";
import { F, HTML, OK, U } from "./words.mjs";

const tok = (change) => () => {
  const t = validTokenizer();
  return change(t) ?? json(t);
};
export const TOKENIZER = [
  ["tk-empty", F, "tokenizer", "0 bytes", () => new Uint8Array(0)],
  ["tk-html", F, "tokenizer|JSON", "an HTML error page", () => utf8(HTML)],
  ["tk-cut", F, "tokenizer|JSON", "cut in the middle", () => json(validTokenizer()).slice(0, 3000)],
  [
    "tk-first-byte-then-nul",
    F,
    "tokenizer|JSON",
    "{ and then only NUL, as a poisoned browser cache has delivered",
    () => {
      const b = new Uint8Array(json(validTokenizer()).length);
      b[0] = 0x7b;
      return b;
    },
  ],
  [
    "tk-no-model",
    F,
    "model",
    "no model",
    tok((t) => {
      delete t.model;
    }),
  ],
  [
    "tk-model-unigram",
    U,
    "Unigram",
    "model type Unigram",
    tok((t) => {
      t.model.type = "Unigram";
    }),
  ],
  [
    "tk-vocab-missing",
    F,
    "vocab",
    "no vocab",
    tok((t) => {
      delete t.model.vocab;
    }),
  ],
  [
    "tk-vocab-array",
    F,
    "vocab",
    "vocab is an array",
    tok((t) => {
      t.model.vocab = Object.keys(t.model.vocab);
    }),
  ],
  [
    "tk-vocab-proto",
    OK,
    "",
    "a reserved token is renamed __proto__",
    tok((t) => {
      const id = DIM.V - 1;
      delete t.model.vocab[VOCAB[id]];
      t.added_tokens.pop();
      return utf8(JSON.stringify(t).replace('"vocab":{', `"vocab":{"__proto__":${id},`));
    }),
  ],
  [
    "tk-id-negative",
    F,
    "vocab|-1",
    "an id is -1",
    tok((t) => {
      t.model.vocab.a = -1;
    }),
  ],
  [
    "tk-id-fraction",
    F,
    "vocab|id",
    "an id is 1.5",
    tok((t) => {
      t.model.vocab.a = 1.5;
    }),
  ],
  [
    "tk-id-string",
    F,
    "vocab|id",
    "an id is a string",
    tok((t) => {
      t.model.vocab.a = "79";
    }),
  ],
  [
    "tk-id-2p31",
    F,
    "vocab|id|embed",
    "an id is 2^31: would read far outside the embedding",
    tok((t) => {
      t.model.vocab.a = 2 ** 31;
    }),
  ],
  [
    "tk-id-one-over",
    F,
    "vocab|id|embed",
    "an id equals the number of embedding rows",
    tok((t) => {
      t.model.vocab.extra = DIM.V;
    }),
  ],
  [
    "tk-id-duplicate",
    F,
    "duplicate|id",
    "two tokens share an id",
    tok((t) => {
      t.model.vocab.a = t.model.vocab.b;
    }),
  ],
  [
    "tk-byte-missing",
    F,
    "byte",
    "the token of one byte is missing: text would vanish silently",
    tok((t) => {
      delete t.model.vocab.Z;
    }),
  ],
  [
    "tk-token-string-bomb",
    F,
    "token|length|limit",
    "a token of 2 MiB",
    tok((t) => {
      delete t.model.vocab[VOCAB.at(-1)];
      t.added_tokens.pop();
      t.model.vocab["x".repeat(2 ** 21)] = DIM.V - 1;
    }),
  ],
  [
    "tk-merge-unknown-part",
    F,
    "merge",
    "a merge names a token that is not in the vocabulary",
    tok((t) => {
      t.model.merges.push(["zz", "q"]);
    }),
  ],
  [
    "tk-merge-unknown-result",
    F,
    "merge",
    "a merge's result is not in the vocabulary",
    tok((t) => {
      t.model.merges.push(["x", "q"]);
    }),
  ],
  [
    "tk-merge-one-part",
    F,
    "merge",
    "a merge has one part",
    tok((t) => {
      t.model.merges.push(["the"]);
    }),
  ],
  [
    "tk-merge-three-parts",
    F,
    "merge",
    "a merge has three parts",
    tok((t) => {
      t.model.merges.push("t h e");
    }),
  ],
  [
    "tk-merge-number",
    F,
    "merge",
    "a merge is a number",
    tok((t) => {
      t.model.merges.push(5);
    }),
  ],
  [
    "tk-merges-as-strings",
    OK,
    "",
    'merges in the older form "a b"',
    tok((t) => {
      t.model.merges = t.model.merges.map((m) => m.join(" "));
    }),
  ],
  [
    "tk-merges-object",
    F,
    "merge",
    "merges is an object",
    tok((t) => {
      t.model.merges = { 0: ["t", "h"] };
    }),
  ],
  [
    "tk-regex-catastrophic",
    U,
    "regex|pattern|pre_tokenizer",
    "split pattern (a+)+$: exponential on a…ab",
    tok((t) => {
      t.pre_tokenizer.pretokenizers[0].pattern.Regex = "(?:(a+)+$)|[^a]+|a";
    }),
  ],
  [
    "tk-regex-invalid",
    U,
    "regex|pattern|pre_tokenizer",
    "split pattern does not compile",
    tok((t) => {
      t.pre_tokenizer.pretokenizers[0].pattern.Regex = "(a";
    }),
  ],
  [
    "tk-regex-huge",
    U,
    "regex|pattern|pre_tokenizer",
    "split pattern of 1 MiB",
    tok((t) => {
      t.pre_tokenizer.pretokenizers[0].pattern.Regex = "a|".repeat(2 ** 19);
    }),
  ],
  [
    "tk-pretokenizer-unknown",
    U,
    "pre_tokenizer|Evil",
    "unknown pre-tokenizer",
    tok((t) => {
      t.pre_tokenizer = { type: "Evil" };
    }),
  ],
  [
    "tk-pretokenizer-deep",
    F,
    "nest|depth|pre_tokenizer",
    "20,000 nested Sequences",
    tok((t) => {
      t.pre_tokenizer = "@@@";
      return utf8(rawJson(t, { "@@@": `${'{"type":"Sequence","pretokenizers":['.repeat(20000)}${"]}".repeat(20000)}` }));
    }),
  ],
  [
    "tk-normalizer-regex",
    U,
    "normalizer",
    "a normalizer that replaces by a catastrophic pattern",
    tok((t) => {
      t.normalizer = { type: "Replace", pattern: { Regex: "(x+x+)+y" }, content: "" };
    }),
  ],
  [
    "tk-added-empty",
    F,
    "added_tokens",
    "an added token with no text: would match everywhere",
    tok((t) => {
      t.added_tokens[3].content = "";
    }),
  ],
  [
    "tk-added-null",
    F,
    "added_tokens",
    "an added token's text is null",
    tok((t) => {
      t.added_tokens[3].content = null;
    }),
  ],
  [
    "tk-added-id-out-of-range",
    F,
    "added_tokens|embed",
    "an added token's id is 4e9",
    tok((t) => {
      t.added_tokens.push({ ...t.added_tokens[0], content: "<|x|>", id: 4e9 });
    }),
  ],
  [
    "tk-added-id-disagrees",
    F,
    "added_tokens",
    "an added token's id differs from its id in the vocabulary",
    tok((t) => {
      t.added_tokens[6].id = 9;
    }),
  ],
  [
    "tk-added-not-array",
    F,
    "added_tokens",
    "added_tokens is an object",
    tok((t) => {
      t.added_tokens = {};
    }),
  ],
  [
    "tk-post-processor-unknown",
    F,
    "post_processor",
    "post-processor names a token that does not exist",
    tok((t) => {
      t.post_processor = {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<|nope|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: {},
      };
    }),
  ],
];
