// Byte sources: ranges, short answers, abort, and what lies where weights should.
import assert from "node:assert/strict";
import { AbortError, FormatError, UnsupportedError } from "../../src/errors.ts";
import { type ByteSource, bytesSource, commonMistake, readExactly } from "../../src/weights/source.ts";
import { elementCount, requireTensor } from "../../src/weights/tensor.ts";

const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
const source = bytesSource(bytes, "x.bin");

describe("byte sources", () => {
  it("read any range, by copy and into a target", async () => {
    assert.deepEqual(await readExactly(source, 10, 5), bytes.subarray(10, 15));
    assert.equal((await readExactly(source, 100, 0)).length, 0);
    assert.equal((await readExactly(source, 0, 100)).length, 100);
    const target = new Uint8Array(4);
    await source.readInto?.(96, target);
    assert.deepEqual(target, bytes.subarray(96));
  });

  it("refuse ranges outside the file before asking for them", async () => {
    let asked = 0;
    const counting: ByteSource = {
      name: "x.bin",
      size: 100,
      read: (offset, length) => {
        asked++;
        return source.read(offset, length);
      },
    };
    for (const [offset, length] of [
      [-1, 5],
      [0, 101],
      [96, 5],
      [101, 0],
      [0, -1],
      [0.5, 1],
      [Number.MAX_SAFE_INTEGER, 10],
      [Number.NaN, 1],
      [0, Number.POSITIVE_INFINITY],
    ] as const) {
      await assert.rejects(
        readExactly(counting, offset, length),
        (e) => e instanceof FormatError && /x\.bin: truncated/.test(e.message),
        `${offset} ${length}`,
      );
    }
    assert.equal(asked, 0);
  });

  it("call a short answer truncated", async () => {
    const short: ByteSource = { name: "x.bin", size: 100, read: (o, n) => source.read(o, n - 1) };
    await assert.rejects(readExactly(short, 0, 10), (e) => e instanceof FormatError && /expected 10 bytes at 0, got 9/.test(e.message));
  });

  it("end with an AbortError before and after reading", async () => {
    const before = new AbortController();
    before.abort("enough");
    await assert.rejects(readExactly(source, 0, 1, before.signal), (e) => e instanceof AbortError && e.cause === "enough");
    const during = new AbortController();
    const slow: ByteSource = {
      name: "x.bin",
      size: 100,
      read: (offset, length) => {
        during.abort();
        return source.read(offset, length);
      },
    };
    await assert.rejects(readExactly(slow, 0, 1, during.signal), AbortError);
  });
});

describe("what lies in the place of weights", () => {
  const phrase = (text: string): string | undefined => commonMistake(new TextEncoder().encode(text));
  it("is recognised", () => {
    assert.match(phrase("version https://git-lfs.github.com/spec/v1\noid sha256:00\n") ?? "", /Git LFS pointer/);
    for (const html of ["<!DOCTYPE html><html>", "  \n<html>", "<HTML>", "<?xml version='1.0'?>"])
      assert.match(phrase(html) ?? "", /HTML/, html);
    for (const other of ["", "GGUF", '{"a":1}', "<think>", "version 2"]) assert.equal(phrase(other), undefined, other);
  });
});

describe("tensors of a file", () => {
  it("count their elements only as far as a number is exact", () => {
    assert.equal(elementCount([]), 1);
    assert.equal(elementCount([3, 0, 5]), 0);
    assert.equal(elementCount([2 ** 26, 2 ** 26]), 2 ** 52);
    assert.equal(elementCount([2 ** 27, 2 ** 26]), undefined);
    assert.equal(elementCount([2 ** 32, 2 ** 32]), undefined);
  });

  it("are given to whoever needs them, or a sentence says why not", () => {
    const tensor = { name: "a", type: "F32", shape: [1], source, offsetBytes: 0, bytes: 4 } as const;
    const file = { tensors: new Map([["a", tensor]]), unsupported: new Map([["b", "x.bin: b has type Q6_K."]]) };
    assert.equal(requireTensor(file, "a", "x.bin"), tensor);
    assert.throws(
      () => requireTensor(file, "b", "x.bin"),
      (e) => e instanceof UnsupportedError && /Q6_K/.test(e.message),
    );
    assert.throws(
      () => requireTensor(file, "constructor", "x.bin"),
      (e) => e instanceof FormatError && /x\.bin.*"constructor".*missing/.test(e.message),
    );
  });
});
