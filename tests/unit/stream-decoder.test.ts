// The stream decoder is TextDecoder, cut at any byte.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { InputError } from "../../src/errors.ts";
import { packByteTable, tokensOfTable } from "../../src/text/byte-level.ts";
import { decodeIds, StreamDecoder } from "../../src/text/stream-decoder.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { pick } from "../scale.ts";
import { random } from "./fuzz.ts";

/** A vocabulary of the 256 bytes, an empty id 256, and the special token <x> as 257. */
const tokens = tokensOfTable(
  packByteTable([
    ...Array.from({ length: 256 }, (_, b) => ({ bytes: Uint8Array.of(b), special: false })),
    undefined,
    { bytes: new TextEncoder().encode("<x>"), special: true },
  ]),
);
const whole = (bytes: readonly number[]): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));

/** Feeds byte by byte; checks that nothing is shown too early, and nothing held back without need. */
function stream(bytes: readonly number[]): string {
  const decoder = new StreamDecoder(tokens);
  let shown = "";
  for (let i = 0; i < bytes.length; i++) {
    shown += decoder.push(bytes[i]!);
    const all = whole(bytes.slice(0, i + 1));
    const isComplete = shown === all;
    const holdsBack = `${shown}\ufffd` === all; // TextDecoder ends an open character with one U+FFFD
    assert.ok(isComplete || holdsBack, `${bytes.slice(0, i + 1)}: shown ${JSON.stringify(shown)}, whole ${JSON.stringify(all)}`);
    if (holdsBack && !isComplete) {
      const isBeginning = [0x80, 0x90, 0xa0, 0xbf].some((b) => [...whole([...bytes.slice(0, i + 1), b])].length - [...shown].length <= 1);
      assert.ok(isBeginning, `${bytes.slice(0, i + 1)}: held back without need`);
    }
  }
  return shown + decoder.flush();
}

describe("stream decoder", () => {
  it("equals TextDecoder for every two bytes, and for three and four at the edges", () => {
    for (let a = 0; a < 256; a++) for (let b = 0; b < 256; b++) assert.equal(stream([a, b]), whole([a, b]), `${a} ${b}`);
    const edges = [
      0, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
    ];
    for (const a of edges)
      for (const b of edges) for (const c of edges) for (const d of edges) assert.equal(stream([a, b, c, d]), whole([a, b, c, d]));
  });

  it("equals TextDecoder for random mixtures of text and rubbish", () => {
    const next = random(3);
    const pieces = ["é", "日", "🦊", "a", "\ufeff", "\u200d", "\ud7ff", "\u{10ffff}"].map((s) => [...new TextEncoder().encode(s)]);
    for (let n = 0; n < pick({ gate: 2000, full: 200_000 }); n++) {
      const bytes = Array.from({ length: 1 + (next() % 12) }, () => {
        const piece = pieces[next() % pieces.length]!;
        return next() % 3 === 0 ? [next() % 256] : piece.slice(0, 1 + (next() % piece.length));
      }).flat();
      assert.equal(stream(bytes), whole(bytes), `${bytes}`);
    }
  });

  it("shows a character with the byte that completes it", () => {
    const decoder = new StreamDecoder(tokens);
    assert.deepEqual(
      [0xf0, 0x9f, 0xa6, 0x8a, 0x21].map((b) => decoder.push(b)),
      ["", "", "", "🦊", "!"],
    );
    assert.equal(decoder.flush(), "");
  });

  it("flushes an open character once and can go on", () => {
    const decoder = new StreamDecoder(tokens);
    assert.equal(decoder.push(0xe6) + decoder.push(0x97), "");
    assert.equal(decoder.flush(), "\ufffd");
    assert.equal(decoder.flush(), "");
    assert.equal(decoder.push(0xa5) + decoder.push(0x61), "\ufffda");
  });

  it("leaves special tokens out, or shows them", () => {
    const ids = [0x61, 257, 0xc3, 257, 0xa9, 256, 0x62];
    assert.equal(decodeIds(tokens, ids), "aéb");
    assert.equal(decodeIds(tokens, ids, { skipSpecialTokens: false }), "a<x>\ufffd<x>\ufffdb");
    assert.equal(decodeIds(tokens, []), "");
    assert.equal(decodeIds(tokens, Uint32Array.of(0x61, 0x62)), "ab");
  });

  it("refuses ids outside the vocabulary", () => {
    for (const id of [-1, 258, 1.5, Number.NaN, 2 ** 32])
      assert.throws(
        () => decodeIds(tokens, [id]),
        (e) => e instanceof InputError && /token id/.test(e.message),
        `${id}`,
      );
  });

  it("streams every text that a tokenizer encodes", () => {
    const tokenizer = Tokenizer.fromJson(JSON.parse(readFileSync("tests/golden/data/text/tokenizer.json", "utf8")));
    const text = "Grüße, 日本語 🦊👩‍👩‍👧 – naïve\r\n\t<think>…</think> 1234567 <|im_end|> \u0000 end";
    const ids = tokenizer.encode(text);
    const decoder = new StreamDecoder(tokenizer, { skipSpecialTokens: false });
    const pieces = ids.map((id) => decoder.push(id));
    assert.equal(pieces.join("") + decoder.flush(), text);
    assert.ok(pieces.every((p) => !p.includes("\ufffd")));
  });
});
