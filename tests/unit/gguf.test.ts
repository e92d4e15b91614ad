// The GGUF header: every field that can lie, in files built by hand.
import assert from "node:assert/strict";
import { FormatError, UnsupportedError } from "../../src/errors.ts";
import { type GgufFile, readGguf } from "../../src/weights/gguf.ts";
import { type ByteSource, bytesSource } from "../../src/weights/source.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";
import { array, concat, f32, ggufBytes, type Parts, string, T, u32, u64, validParts } from "./gguf-file.ts";

const read = (bytes: Uint8Array): Promise<GgufFile> => readGguf(bytesSource(bytes, "m.gguf"));
const change = (edit: (p: Parts) => void): Uint8Array => {
  const parts = validParts();
  edit(parts);
  return ggufBytes(parts).bytes;
};

/** A source that remembers what was asked for, over a file whose end need not exist. */
function watched(head: Uint8Array, size: number): { source: ByteSource; asked: [number, number][] } {
  const asked: [number, number][] = [];
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    asked.push([offset, length]);
    const out = new Uint8Array(length);
    out.set(head.subarray(offset, offset + length));
    return out;
  };
  return { source: { name: "m.gguf", size, read }, asked };
}

describe("GGUF header", () => {
  it("gives every kind of value", async () => {
    const { metadata, version } = await read(ggufBytes(validParts()).bytes);
    assert.equal(version, 3);
    assert.deepEqual(Object.fromEntries(metadata), {
      "general.architecture": "lfm2",
      "general.name": "tiny é",
      "x.u8": 200,
      "x.i8": -56,
      "x.u16": 65281,
      "x.i16": -255,
      "x.u32": 4294967295,
      "x.i32": -1,
      "x.f32": 0.5,
      "x.bool": true,
      "x.u64": 2n ** 53n,
      "x.i64": -5,
      "x.f64": 1e-5,
      "x.ints": [0, 2, -1],
      "x.strings": ["a", "Ġb"],
      "x.bools": [false, true],
      "x.none": [],
      ["__proto__"]: "polluted",
    });
  });

  it("reads short texts as TextDecoder does, wherever a window ends", async () => {
    const texts = [
      "",
      "a",
      "Ġthe",
      "ÿĀ\u07ff",
      "\u0800",
      "日本",
      "🦊",
      "x".repeat(64),
      "y".repeat(65),
      "Ġ".repeat(32),
      "Ġ".repeat(33),
      "\0",
    ];
    const all = Array.from({ length: 4000 }, (_, i) => texts[(i * 7) % texts.length]!);
    const list: Parts["keys"][number] = ["k", T.array, array(T.string, all.length, ...all.map(string))];
    assert.deepEqual((await read(change((p) => p.keys.push(list)))).metadata.get("k"), all);
    const broken = [[0x80], [0xc4], [0x61, 0xc4], [0xc4, 0x41], [0xc0, 0x80], [0xc1, 0xbf], [0xe0, 0x80, 0x80], [0xf8, 0x80]];
    for (const bytes of broken) {
      const file = change((p) => p.keys.push(["k", T.array, array(T.string, 2, string(Uint8Array.from(bytes)), string("\u00a0"))]));
      await assert.rejects(read(file), /"k": expected UTF-8/, String(bytes));
    }
  });

  it("gives name, type, shape (rows first) and place of every tensor", async () => {
    const { bytes, dataStart } = ggufBytes(validParts());
    const { tensors, unsupported } = await read(bytes);
    assert.deepEqual(
      [...tensors.values()].map((t) => [t.name, t.type, t.shape, t.offsetBytes - dataStart, t.bytes]),
      [
        ["f32", "F32", [5], 0, 20],
        ["f16", "F16", [2, 3], 32, 12],
        ["q4", "Q4_0", [3, 64], 64, 108],
        ["q8", "Q8_0", [2, 32], 192, 68],
        ["bf16", "BF16", [4, 3, 2], 288, 48],
      ],
    );
    assert.equal(unsupported.size, 0);
  });

  it("takes version 2, other alignments, any order, and an end without padding", async () => {
    const variants: ((p: Parts) => void)[] = [
      (p) => {
        p.version = u32(2);
      },
      (p) => {
        p.keys.push(["general.alignment", T.u32, u32(64)]);
        p.alignment = 64;
      },
      (p) => {
        p.keys.push(["general.alignment", T.u32, u32(8)]);
        p.alignment = 8;
      },
      (p) => {
        p.tensors.at(-1)!.type = 0; // (4,3,2) F32 are 96 bytes: no padding at the end
        p.tensors.at(-1)!.bytes = 96;
      },
      (p) => {
        p.cut = 16; // the padding after 48 bytes
      },
      (p) => {
        p.keys.push(["split.count", T.u16, Uint8Array.of(1, 0)]);
      },
      (p) => {
        let at = 0;
        for (const t of [...p.tensors].reverse()) {
          t.offset = at;
          at += Math.ceil(t.bytes / 32) * 32;
        }
      },
    ];
    for (const edit of variants) assert.equal((await read(change(edit))).tensors.size, 5, edit.toString());
    const none = await read(change((p) => Object.assign(p, { keys: [], tensors: [] })));
    assert.deepEqual([none.metadata.size, none.tensors.size], [0, 0]);
  });

  it("sets tensors of other types aside, with a sentence that names type and file to use", async () => {
    const bytes = change((p) => {
      p.tensors.push({ name: "blk.0.x", dims: [256, 2], type: 17, bytes: 148 }, { name: "ids", dims: [3], type: 26, bytes: 12 });
    });
    const { tensors, unsupported } = await read(bytes);
    assert.equal(tensors.size, 5);
    assert.deepEqual(
      [...unsupported],
      [
        [
          "blk.0.x",
          'm.gguf: tensor "blk.0.x" has type IQ2_XS; expected one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL. Use the Q4_K_M, Q8_0 or BF16 file.',
        ],
        [
          "ids",
          'm.gguf: tensor "ids" has type I32; expected one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL. Use the Q4_K_M, Q8_0 or BF16 file.',
        ],
      ],
    );
  });

  it("reads a large header by growing ranges, each byte once, and stops within one range of its end", async () => {
    const parts = validParts();
    const one = string("x".repeat(40));
    parts.keys.push(["long", T.array, array(T.string, 60_000, ...Array.from({ length: 60_000 }, () => one))]);
    parts.tensors = [{ name: "big", dims: [32, 50_000_000], type: 2, bytes: 0 }];
    const { bytes, dataStart } = ggufBytes(parts);
    const { source, asked } = watched(bytes, dataStart + 50_000_000 * 18);
    assert.equal(((await readGguf(source)).metadata.get("long") as string[]).length, 60_000);
    const ends = asked.map(([offset, length]) => offset + length);
    assert.ok(asked.length >= 4 && asked.length <= 8, `${asked.length}`);
    assert.equal(asked[0]?.[1], 64 * 1024);
    assert.ok(asked.every(([, length], i) => length <= 1024 * 1024 && (i === 0 || length >= asked[i - 1]![1])));
    assert.ok(
      asked.every(([offset], i) => i === 0 || (offset <= ends[i - 1]! && offset > ends[i - 1]! - 64)),
      "ranges overlap by less than one value",
    );
    assert.ok(ends.at(-1)! <= dataStart + 1024 * 1024);
  });

  it("asks for nothing more when the header is short, however large the file", async () => {
    const parts = validParts();
    const rows = 50_000_000;
    parts.tensors = [{ name: "big", dims: [32, rows], type: 2, bytes: 0 }];
    const { bytes, dataStart } = ggufBytes(parts);
    const { source, asked } = watched(bytes, dataStart + Math.ceil((rows * 18) / 32) * 32);
    assert.equal((await readGguf(source)).tensors.get("big")?.bytes, rows * 18);
    assert.deepEqual(asked, [[0, 64 * 1024]]);
  });
});

describe("a wrong GGUF header", () => {
  const key = (type: number, value: Uint8Array): Uint8Array => change((p) => p.keys.push(["k", type, value]));
  const tensor = (edit: (t: Parts["tensors"][number]) => void): Uint8Array => change((p) => edit(p.tensors[2]!));
  const bad: readonly (readonly [string, () => Uint8Array, RegExp])[] = [
    ["an empty file", () => new Uint8Array(0), /expected the magic GGUF, got a file of 0 bytes/],
    ["three bytes", () => new Uint8Array(3), /magic GGUF/],
    ["another magic", () => change((p) => Object.assign(p, { magic: "GGUX" })), /magic GGUF/],
    ["a Git LFS pointer", () => new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\n"), /Git LFS pointer/],
    ["an HTML page", () => new TextEncoder().encode("<!DOCTYPE html><html></html>"), /HTML page/],
    ["version 0", () => change((p) => Object.assign(p, { version: u32(0) })), /version/],
    ...[2n ** 32n + 5n, 2n ** 63n, 2n ** 64n - 1n, 1_000_000n].map(
      (n) => [`${n} tensors`, () => change((p) => Object.assign(p, { tensorCount: n })), /tensor count: expected at most 65536/] as const,
    ),
    ["more tensors than fit", () => change((p) => Object.assign(p, { tensorCount: 60_000n })), /tensor count: truncated/],
    ["one tensor more than there is", () => change((p) => Object.assign(p, { tensorCount: 6n })), /tensor/],
    ["one tensor less than there is", () => change((p) => Object.assign(p, { tensorCount: 4n })), /trailing|offset/],
    ...[2n ** 64n - 1n, 1_000_000n].map(
      (n) => [`${n} keys`, () => change((p) => Object.assign(p, { keyCount: n })), /metadata key count/] as const,
    ),
    ["more keys than fit", () => change((p) => Object.assign(p, { keyCount: 4000n })), /metadata key count: truncated/],
    ["an empty key", () => change((p) => p.keys.push(["", T.u8, Uint8Array.of(0)])), /metadata key 18: expected a name/],
    [
      "a key of 70,000 bytes",
      () => change((p) => p.keys.push(["k".repeat(70_000), T.u8, Uint8Array.of(0)])),
      /string length: expected at most 65535/,
    ],
    ["a duplicate key", () => change((p) => p.keys.push(["general.name", T.string, string("x")])), /"general.name": .*duplicate/],
    [
      "a key that is no UTF-8",
      () => change((p) => p.keys.push([Uint8Array.of(97, 255), T.u8, Uint8Array.of(0)])),
      /key 18: expected UTF-8/,
    ],
    ["a string that is no UTF-8", () => key(T.string, string(Uint8Array.of(255))), /"k": expected UTF-8/],
    ...[2n ** 40n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n].map(
      (n) => [`a string of ${n} bytes`, () => key(T.string, concat(u64(n), u32(0))), /"k": string length/] as const,
    ),
    ...[13, 99, 0xffffffff].map(
      (type) => [`value type ${type}`, () => key(type, u32(0)), /"k": expected a value type of 0 to 12, got type/] as const,
    ),
    ["a bool of 2", () => key(T.bool, Uint8Array.of(2)), /"k": expected a bool/],
    ["an array of arrays", () => key(T.array, array(T.array, 1, array(T.u8, 0))), /"k": .*nested array/],
    ["an array of type 77", () => key(T.array, array(77, 1, u32(0))), /"k": .*got type 77/],
    ...[2n ** 64n - 1n, 2n ** 61n + 4n, 4_000_000_000n].map(
      (n) => [`an array of ${n}`, () => key(T.array, array(T.i32, n, u32(0))), /"k": array length/] as const,
    ),
    ["an array longer than the file", () => key(T.array, array(T.u64, 1000, u32(0))), /"k": array length: truncated/],
    ...[0, 4, 13, 2 ** 31].map(
      (n) => [`alignment ${n}`, () => change((p) => p.keys.push(["general.alignment", T.u32, u32(n)])), /general.alignment/] as const,
    ),
    ["alignment 32.5", () => change((p) => p.keys.push(["general.alignment", T.f32, f32(32.5)])), /general.alignment/],
    [
      "alignment as a string",
      () => change((p) => p.keys.push(["general.alignment", T.string, string("32")])),
      /general.alignment: .*got string/,
    ],
    ["an empty tensor name", () => tensor((t) => Object.assign(t, { name: "" })), /tensor 2: expected a name/],
    ["a long tensor name", () => tensor((t) => Object.assign(t, { name: "n".repeat(300) })), /tensor 2 name/],
    ["a duplicate tensor", () => tensor((t) => Object.assign(t, { name: "f16" })), /tensor "f16": .*duplicate/],
    ["no dimensions", () => tensor((t) => Object.assign(t, { dims: [] })), /tensor "q4": expected 1 to 4 dimensions, got 0/],
    [
      "five dimensions",
      () => tensor((t) => Object.assign(t, { dims: [32, 1, 1, 1, 1] })),
      /tensor "q4": expected 1 to 4 dimensions, got 5/,
    ],
    ["a dimension of 0", () => tensor((t) => Object.assign(t, { dims: [64, 0] })), /tensor "q4": expected dimensions of 1/],
    ["a dimension of 2^63", () => tensor((t) => Object.assign(t, { dims: [64, 2n ** 63n] })), /tensor "q4": expected dimensions of 1/],
    ["dimensions that wrap", () => tensor((t) => Object.assign(t, { dims: [64, 2n ** 52n] })), /tensor "q4": .*overflow/],
    [
      "a row of half a block",
      () => tensor((t) => Object.assign(t, { dims: [48, 3] })),
      /tensor "q4": .*whole blocks of 32 values for Q4_0, got 48/,
    ],
    [
      "a row of a quarter of a block",
      () => tensor((t) => Object.assign(t, { type: 12 })),
      /tensor "q4": .*whole blocks of 256 values for Q4_K, got 64/,
    ],
    [
      "an offset off the alignment",
      () => tensor((t) => Object.assign(t, { offset: 65 })),
      /tensor "q4": .*multiple of the alignment 32, got 65/,
    ],
    ["an offset of 2^64 - 32", () => tensor((t) => Object.assign(t, { offset: 2n ** 64n - 32n })), /tensor "q4": expected an offset/],
    ["an offset beyond the file", () => tensor((t) => Object.assign(t, { offset: 2 ** 30 })), /offset/],
    ["an overlap", () => tensor((t) => Object.assign(t, { offset: 32 })), /overlap/],
    ["a hole", () => change((p) => p.tensors.splice(2, 1, { ...p.tensors[2]!, dims: [32, 3], bytes: 108 })), /hole/],
    ["trailing bytes", () => change((p) => Object.assign(p, { tail: 1 })), /1 trailing/],
    ["a byte too few", () => change((p) => Object.assign(p, { cut: 17 })), /truncated: tensor "bf16"/],
    ["no data at all", () => ggufBytes(validParts()).bytes.slice(0, ggufBytes(validParts()).dataStart), /truncated/],
  ];
  for (const [name, build, message] of bad) {
    it(name, () =>
      assert.rejects(read(build()), (e) => e instanceof FormatError && e.message.startsWith("[lfm2] m.gguf: ") && message.test(e.message)),
    );
  }

  const unsupported: readonly (readonly [string, () => Uint8Array, RegExp])[] = [
    ["version 1", () => change((p) => Object.assign(p, { version: u32(1) })), /version 1/],
    ["version 99", () => change((p) => Object.assign(p, { version: u32(99) })), /version 99/],
    ["big-endian", () => change((p) => Object.assign(p, { version: Uint8Array.of(0, 0, 0, 3) })), /big-endian/],
    ["type 200", () => tensor((t) => Object.assign(t, { type: 200 })), /tensor "q4": has type 200; expected one of F32/],
    ["type -1", () => tensor((t) => Object.assign(t, { type: 0xffffffff })), /tensor "q4": has type 4294967295/],
    ["a removed type", () => tensor((t) => Object.assign(t, { type: 4 })), /tensor "q4": has type 4, which was removed/],
    [
      "another block type that its rows do not fit",
      () => tensor((t) => Object.assign(t, { type: 23 })),
      /tensor "q4" has type IQ4_XS; expected one of F32/,
    ],
  ];
  for (const [name, build, message] of unsupported) {
    it(`unsupported: ${name}`, () =>
      assert.rejects(
        read(build()),
        (e) => e instanceof UnsupportedError && e.message.startsWith("[lfm2] m.gguf: ") && message.test(e.message),
      ));
  }

  it("at every length that a cut can leave", async () => {
    const { bytes } = ggufBytes(validParts());
    const lastData = bytes.length - 16;
    for (let n = 0; n < lastData; n++) await assert.rejects(read(bytes.slice(0, n)), FormatError, `${n}`);
  });

  it("under mutation ends with one of our errors, or with tensors that lie in the file", async () => {
    const { bytes, dataStart } = ggufBytes(validParts());
    const seen = await fuzz(bytes, dataStart, pick({ gate: 20_000, full: 2_000_000 }), read, ({ tensors }, file) => {
      for (const t of tensors.values()) assert.ok(t.offsetBytes + t.bytes <= file.length && t.offsetBytes >= 24);
    });
    assert.ok(seen.accepted > 20 && seen.refused > 500, JSON.stringify(seen));
  });
});
