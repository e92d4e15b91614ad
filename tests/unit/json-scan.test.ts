// JSON from strangers: depth, equal keys, size, encoding, against JSON.parse.
import assert from "node:assert/strict";
import { FormatError } from "../../src/errors.ts";
import { quoted } from "../../src/values.ts";
import { decodeUtf8, parseJson, parseJsonBytes } from "../../src/weights/json-scan.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";

const limits = { maxBytes: 1 << 20 };
const parse = (text: string): unknown => parseJson(text, "x.json", limits);
const refused = (message: RegExp) => (e: unknown) =>
  e instanceof FormatError && e.message.startsWith("[lfm2] x.json: ") && message.test(e.message);

describe("parseJson", () => {
  it("gives what JSON.parse gives", () => {
    for (const text of [
      '{"a":[1,{"a":2}],"b":{"a":3}}',
      "[]",
      '"x"',
      "null",
      ' {"a\\"":"\\\\","\\u0062":1} ',
      '[{"a":1},{"a":1}]',
      '{"a":"{\\"a\\":1,\\"a\\":2}"}',
    ]) {
      assert.deepEqual(parse(text), JSON.parse(text), text);
    }
  });

  it("finds equal keys however they are written, at any depth", () => {
    for (const text of [
      '{"a":1,"a":2}',
      '{"a":1,"\\u0061":2}',
      '[{"x":{"b":[],"c":"","b":0}}]',
      '{"":1,"":2}',
      '{"__proto__":1,"__proto__":2}',
      '{"\\"":1,"\\u0022":2}',
    ]) {
      assert.throws(() => parse(text), refused(/duplicate key/), text);
    }
  });

  it("keeps __proto__ a name", () => {
    const value = parse('{"__proto__":{"polluted":1},"constructor":2}') as object;
    assert.deepEqual(Object.keys(value), ["__proto__", "constructor"]);
    assert.equal(Object.hasOwn(Object.prototype, "polluted"), false);
  });

  it("limits depth before anything recurses", () => {
    const nested = (n: number): string => "[".repeat(n) + "]".repeat(n);
    assert.doesNotThrow(() => parse(nested(64)));
    assert.throws(() => parse(nested(65)), refused(/depth of at most 64/));
    assert.throws(() => parse(nested(500_000)), refused(/depth/));
    assert.throws(() => parse('{"a":'.repeat(65)), refused(/depth/));
    assert.throws(() => parseJson("[[1]]", "x.json", { maxBytes: 9, maxDepth: 1 }), refused(/depth of at most 1/));
    assert.deepEqual(parse(`"${"[".repeat(100)}"`), "[".repeat(100));
  });

  it("limits size", () => {
    assert.throws(() => parseJson(" ".repeat(11), "x.json", { maxBytes: 10 }), refused(/at most 10 bytes.*limit, got 11/));
    assert.throws(() => parseJsonBytes(new Uint8Array(11), "x.json", { maxBytes: 10 }), refused(/limit/));
  });

  it("refuses what is no JSON, with the cause", () => {
    for (const text of ["", " ", "{", '{"a"', '{"a":1,}', "{'a':1}", "[1]]", "NaN", '{"a":1}{}', '"', '"\\"', "}", "\0"]) {
      assert.throws(
        () => parse(text),
        (e) => refused(/expected JSON/)(e) && (e as Error).cause instanceof SyntaxError,
        text,
      );
    }
  });

  it("names pages and pointers, and bytes that are no UTF-8", () => {
    const of = (text: string) => () => parseJsonBytes(new TextEncoder().encode(text), "x.json", limits);
    assert.throws(of("<!doctype html>"), refused(/HTML/));
    assert.throws(of("version https://git-lfs.github.com/spec/v1\n"), refused(/LFS/));
    assert.throws(() => parseJsonBytes(Uint8Array.of(0x22, 0xff, 0x22), "x.json", limits), refused(/UTF-8/));
    assert.throws(() => decodeUtf8(Uint8Array.of(0xc0, 0xaf), "x.json"), refused(/UTF-8/));
    assert.deepEqual(parseJsonBytes(new TextEncoder().encode("\ufeff[1]"), "x.json", limits), [1]);
    assert.equal(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61), "x.json", true), "\ufeffa");
  });

  it("keeps what it quotes short", () => {
    assert.equal(quoted('a"b'), '"a\\"b"');
    assert.ok(quoted("x".repeat(1e6)).length < 100);
  });

  it("accepts nothing under mutation that JSON.parse would read otherwise", async () => {
    const valid = new TextEncoder().encode('{"a":[1,-2.5e3,{"b":"x\\u0041\\n","c":null}],"d":{"e":true,"f":[[],{}]},"g":"é🦊"}');
    const seen = await fuzz(
      valid,
      valid.length,
      pick({ gate: 20_000, full: 2_000_000 }),
      (bytes) => parseJsonBytes(bytes, "x.json", limits),
      (value, bytes) => assert.deepEqual(value, JSON.parse(new TextDecoder().decode(bytes))),
    );
    assert.ok(seen.accepted > 20 && seen.refused > 20, JSON.stringify(seen));
  });
});
