// The safetensors header: every field that can lie, in files built by hand.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { FormatError } from "../../src/errors.ts";
import { readSafetensors, type SafetensorsFile } from "../../src/weights/safetensors.ts";
import { type ByteSource, bytesSource } from "../../src/weights/source.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";

type Header = Record<string, unknown>;
const utf8 = new TextEncoder();

/** A file from its header (text, or an object to write as JSON) and `dataBytes` of data; `declared` overrides the length. */
function file(header: Header | string, dataBytes: number, declared?: bigint): Uint8Array {
  const text = utf8.encode(typeof header === "string" ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + text.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, declared ?? BigInt(text.length), true);
  out.set(text, 8);
  return out;
}

const valid = (): Record<string, { dtype: unknown; shape: unknown; data_offsets: unknown }> => ({
  a: { dtype: "BF16", shape: [2, 3], data_offsets: [0, 12] },
  b: { dtype: "F32", shape: [4], data_offsets: [12, 28] },
  c: { dtype: "F16", shape: [], data_offsets: [28, 30] },
});
const read = (bytes: Uint8Array): Promise<SafetensorsFile> => readSafetensors(bytesSource(bytes, "m.safetensors"));
const change = (edit: (header: ReturnType<typeof valid>) => void): Uint8Array => {
  const header = valid();
  edit(header);
  return file(header, 30);
};

describe("safetensors header", () => {
  it("gives name, type, shape and place", async () => {
    const bytes = file({ __metadata__: { format: "pt" }, ...valid() }, 30);
    const { tensors, metadata, unsupported } = await read(bytes);
    const dataStart = bytes.length - 30;
    assert.deepEqual(
      [...tensors.values()].map(({ name, type, shape, offsetBytes, bytes }) => [name, type, shape, offsetBytes - dataStart, bytes]),
      [
        ["a", "BF16", [2, 3], 0, 12],
        ["b", "F32", [4], 12, 16],
        ["c", "F16", [], 28, 2],
      ],
    );
    assert.deepEqual([...metadata], [["format", "pt"]]);
    assert.equal(unsupported.size, 0);
  });

  it("takes any order, padding, odd places, empty tensors and strange names", async () => {
    const reversed = Object.fromEntries(Object.entries(valid()).reverse());
    assert.equal((await read(file(`${JSON.stringify(reversed)}   `, 30))).tensors.size, 3);
    const odd = `{"__proto__":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"constructor":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`;
    const { tensors } = await read(file(odd, 4));
    assert.deepEqual([...tensors.keys()], ["__proto__", "constructor"]);
    assert.equal(tensors.get("toString"), undefined);
  });

  it("sets tensors of other dtypes aside, with a sentence", async () => {
    for (const [dtype, bytes] of [
      ["I8", 4],
      ["F8_E4M3", 4],
      ["I64", 32],
      ["F4", 2],
      ["XF7", 13],
      ["bf16", 8],
      ["constructor", 5],
    ] as const) {
      const { tensors, unsupported } = await read(file({ x: { dtype, shape: [4], data_offsets: [0, bytes] } }, bytes));
      assert.equal(tensors.size, 0);
      const sentence = unsupported.get("x") ?? "";
      assert.ok(sentence.startsWith(`m.safetensors: tensor "x" has dtype "${dtype}"; expected one of F32, F16, BF16.`), sentence);
    }
  });

  it("reads nothing but the header", async () => {
    const values = 1.25e9;
    const head = file({ ...valid(), d: { dtype: "F32", shape: [values], data_offsets: [30, 30 + 4 * values] } }, 0);
    const asked: [number, number][] = [];
    const source: ByteSource = {
      name: "m.safetensors",
      size: head.length + 30 + 4 * values,
      read: async (offset, length) => {
        asked.push([offset, length]);
        const out = new Uint8Array(length);
        out.set(head.subarray(offset, offset + length));
        return out;
      },
    };
    assert.equal((await readSafetensors(source)).tensors.get("d")?.bytes, 4 * values);
    assert.deepEqual(asked, [[0, 64 * 1024]]);
  });

  it("reads a header longer than the first range", async () => {
    const many = Object.fromEntries(
      Array.from({ length: 5000 }, (_, i) => [`tensor.${i}`, { dtype: "F16", shape: [1], data_offsets: [2 * i, 2 * i + 2] }]),
    );
    const { tensors } = await read(file(many, 10_000));
    assert.equal(tensors.size, 5000);
  });

  it("reads the goldens' file", async () => {
    const name = "tests/golden/data/models/tiny-attn-first/golden.safetensors";
    const bytes = readFileSync(name);
    const { tensors } = await readSafetensors(bytesSource(bytes, name));
    assert.ok(tensors.size > 0);
    assert.ok([...tensors.values()].every((t) => t.offsetBytes + t.bytes <= bytes.length));
  });
});

describe("a wrong safetensors header", () => {
  const entry = (e: Partial<{ dtype: unknown; shape: unknown; data_offsets: unknown }>): Uint8Array =>
    change((h) => Object.assign(h.b!, e));
  const bad: readonly (readonly [string, () => Uint8Array, RegExp])[] = [
    ["an empty file", () => new Uint8Array(0), /header: expected 8 bytes/],
    ["seven bytes", () => new Uint8Array(7), /header: expected 8 bytes/],
    ["length 0", () => file(valid(), 30, 0n), /header: expected it to begin with \{/],
    ["length 1", () => file(valid(), 30, 1n), /header: expected JSON/],
    ["a length beyond the file", () => file(valid(), 30, 5000n), /header: truncated/],
    ["a length beyond the limit", () => file(valid(), 30, 100_000_001n), /header: .*limit, got 100000001/],
    ...[2n ** 31n, 2n ** 32n + 20n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n].map(
      (n) => [`length ${n}`, () => file(valid(), 30, n), /header: .*limit/] as const,
    ),
    ["a space first", () => file(` ${JSON.stringify(valid())}`, 30), /begin with \{/],
    ["a byte order mark", () => file(`\ufeff${JSON.stringify(valid())}`, 30), /begin with \{/],
    ["NUL for padding", () => file(`${JSON.stringify(valid())}\0`, 30), /header: expected JSON/],
    ["a cut text", () => file(JSON.stringify(valid()).slice(0, -9), 30), /header: expected JSON/],
    ["an array", () => file("[]", 0), /begin with \{/],
    ["a duplicate tensor", () => file(JSON.stringify(valid()).replace(/}$/, ',"a":{}}'), 30), /duplicate key "a"/],
    [
      "a duplicate dtype",
      () => file(JSON.stringify(valid()).replace('"dtype":"F32"', '"dtype":"F32","dtype":"F16"'), 30),
      /duplicate key "dtype"/,
    ],
    ["deep nesting", () => file(`{"a":${"[".repeat(1000)}${"]".repeat(1000)}}`, 0), /depth/],
    ["bytes that are no UTF-8", () => file(valid(), 30).map((b, i) => (i === 10 ? 0xff : b)), /header: expected UTF-8/],
    ["metadata that is a list", () => file({ __metadata__: [] }, 0), /__metadata__/],
    ["metadata with a number", () => file({ __metadata__: { format: 1 } }, 0), /__metadata__.*number for "format"/],
    ["metadata that is null", () => file({ __metadata__: null }, 0), /__metadata__/],
    [
      "too many tensors",
      () => file(Object.fromEntries(Array.from({ length: 65_537 }, (_, i) => [`${i}`, 0])), 0),
      /at most 65536 tensors, the limit, got 65537/,
    ],
    ["an empty name", () => file({ "": valid().a! }, 12), /tensor "": expected a name/],
    ["a long name", () => file({ ["é".repeat(129)]: valid().a! }, 12), /expected a name of 1 to 256 bytes/],
    ["a name with half a character", () => file(JSON.stringify({ x: valid().a! }).replace("x", "\\ud800"), 12), /UTF-8/],
    ["an entry that is null", () => change((h) => Object.assign(h, { b: null })), /tensor "b": expected an object/],
    ["an entry that is a list", () => change((h) => Object.assign(h, { b: [] })), /tensor "b": expected an object/],
    ["no dtype", () => entry({ dtype: undefined }), /tensor "b": expected dtype to be a string, got undefined/],
    ["dtype null", () => entry({ dtype: null }), /tensor "b": .* got null/],
    ["no shape", () => entry({ shape: undefined }), /tensor "b": expected shape/],
    ...[[-4], [4.5], ["4"], [null], "4", { 0: 4, length: 1 }, [2 ** 53]].map(
      (shape) => [`shape ${JSON.stringify(shape)}`, () => entry({ shape }), /tensor "b": expected (shape|a size)/] as const,
    ),
    ["nine dimensions", () => entry({ shape: [4, 1, 1, 1, 1, 1, 1, 1, 1] }), /tensor "b": expected at most 8 dimensions, got 9/],
    ["a shape that wraps", () => entry({ shape: [2 ** 32, 2 ** 32] }), /tensor "b": .*overflow/],
    ["a shape of half the bytes", () => entry({ shape: [2] }), /tensor "b": expected 8 bytes for F32 of shape \[2\]/],
    ...[undefined, [12], [12, 28, 0], [-12, 28], [12.5, 28.5], ["12", "28"], [12, 2 ** 53], "12"].map(
      (data_offsets) =>
        [`offsets ${JSON.stringify(data_offsets)}`, () => entry({ data_offsets }), /tensor "b": expected data_offsets/] as const,
    ),
    ["an infinite offset", () => file(JSON.stringify(valid()).replace("28]", "1e400]"), 30), /tensor "b": expected data_offsets/],
    ["swapped offsets", () => entry({ data_offsets: [28, 12] }), /tensor "b"/],
    ["an overlap", () => entry({ data_offsets: [10, 26] }), /tensor "b": .*begin at 12, got 10 to 26: overlap/],
    ["two tensors on the same bytes", () => change((h) => Object.assign(h, { z: h.b })), /overlap/],
    ["a hole", () => change((h) => delete h.b), /tensor "c": .*begin at 12, got 28 to 30: hole/],
    ["a hole at the start", () => change((h) => delete h.a), /tensor "b": .*begin at 0, got 12 to 28: hole/],
    ["trailing bytes", () => file(valid(), 31), /cover all 31 bytes of data, got 1 trailing/],
    ["a byte too few", () => file(valid(), 29), /truncated: expected 30 bytes of data up to the end of "c", got 29/],
    ["a Git LFS pointer", () => utf8.encode("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 7\n"), /Git LFS pointer/],
    ["an HTML page", () => utf8.encode("<!DOCTYPE html><html></html>\n"), /HTML page/],
  ];
  for (const [name, build, message] of bad) {
    it(name, () =>
      assert.rejects(
        read(build()),
        (e) => e instanceof FormatError && e.message.startsWith("[lfm2] m.safetensors: ") && message.test(e.message),
      ),
    );
  }

  it("at every length that a cut can leave", async () => {
    const whole = file(valid(), 30);
    for (let n = 0; n < whole.length; n++) await assert.rejects(read(whole.slice(0, n)), FormatError, `${n}`);
  });

  it("under mutation ends with one of our errors, or with tensors that lie in the file", async () => {
    const seen = await fuzz(
      file({ __metadata__: { format: "pt" }, ...valid() }, 30),
      210,
      pick({ gate: 20_000, full: 2_000_000 }),
      read,
      ({ tensors }, bytes) => {
        let sum = 0;
        for (const t of tensors.values()) {
          assert.ok(t.offsetBytes >= 8 && t.bytes >= 0 && t.offsetBytes + t.bytes <= bytes.length);
          sum += t.bytes;
        }
        assert.ok(sum <= bytes.length);
      },
    );
    assert.ok(seen.accepted > 5 && seen.refused > 500, JSON.stringify(seen));
  });
});
