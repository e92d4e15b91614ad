// The limits on what a file, an index, a template or a server may claim: what stands at a limit is taken, one more is refused with the limit in the sentence. What a limit is for is said
// beside it (src/weights/limits.ts, src/text/limits.ts); tests/bad-files has what lies far beyond.
import assert from "node:assert/strict";
import { FormatError, NetworkError } from "../../src/errors.ts";
import { inspectWith } from "../../src/inspect.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { JinjaTemplate } from "../../src/text/jinja.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { findHub } from "../../src/weights/hub.ts";
import { parseHubId } from "../../src/weights/hub-id.ts";
import { parseJson } from "../../src/weights/json-scan.ts";
import { rightError } from "../../src/weights/opened.ts";
import { Interrupted, type Network } from "../../src/weights/request.ts";
import { Retries } from "../../src/weights/retry.ts";
import { readSafetensors } from "../../src/weights/safetensors.ts";
import { readShards } from "../../src/weights/shards.ts";
import { type ByteSource, bytesSource, type Folder } from "../../src/weights/source.ts";
import type { Store } from "../../src/weights/store.ts";
import { validRepo, validSharded } from "../bad-files/catalogue.mjs";
import { kernels } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { array, concat, ggufBytes, type Parts, T, u32, u64, validParts } from "./gguf-file.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** Takes what is `n`, as a limit counts, or refuses it. */
type Take = (n: number) => unknown;
interface Limit {
  readonly what: string;
  readonly limit: number;
  readonly take: Take;
  readonly says: RegExp;
  /** Takes a tenth of a second and more: for the full run. The bad files have one far beyond each. */
  readonly isHeavy?: boolean;
}

const utf8 = new TextEncoder();
function safetensors(header: string, dataBytes = 0): ByteSource {
  return bytesSource(concat(u64(header.length), utf8.encode(header), new Uint8Array(dataBytes)), "m.safetensors");
}
const entry = { dtype: "F32", shape: [1], data_offsets: [0, 4] };
const gguf = (edit: (p: Parts) => void): Promise<unknown> => {
  const parts = validParts();
  edit(parts);
  return readGguf(bytesSource(ggufBytes(parts).bytes, "m.gguf"));
};
const key = (type: number, value: Uint8Array) => gguf((p) => p.keys.push(["k", type, value]));

/** A folder in memory; one file's size is what it is said to be, and nobody may read it where that is too much. */
function folder(files: Readonly<Record<string, unknown>>): Folder {
  return {
    name: "folder",
    open: async (path) => {
      const content = Object.hasOwn(files, path) ? (files[path] as Uint8Array) : undefined;
      return content && bytesSource(content, path);
    },
  };
}
const repo = validRepo() as Readonly<Record<string, Uint8Array>>;
/** A file of `repo` with so many bytes of white space behind it that it has `bytes`. */
const padded = (files: Readonly<Record<string, unknown>>, name: string, bytes: number): Folder => {
  const content = new Uint8Array(bytes).fill(0x20);
  content.set(files[name] as Uint8Array);
  return folder({ ...files, [name]: content });
};
const opened = async (source: Folder): Promise<void> => (await openCheckpoint(source)).close();

const render = (source: string): string => new JinjaTemplate(source).render(new Map([["messages", []]]));
const doubled = (items: string, times: number, rest: string): string =>
  `{% set n = namespace(v=${items}) %}{% for i in range(${times}) %}{% set n.v = n.v + n.v %}{% endfor %}${rest}`;

const tokenizerWith = (token: string, id?: number): Tokenizer => {
  const json = JSON.parse(new TextDecoder().decode(repo["tokenizer.json"]));
  json.added_tokens.push({ ...json.added_tokens[0], id: id ?? Object.keys(json.model.vocab).length, content: token });
  return Tokenizer.fromJson(json);
};

const LIMITS: readonly Limit[] = [
  {
    what: "bytes of a safetensors header",
    limit: 8 * MIB,
    take: (n) => readSafetensors(safetensors(JSON.stringify({ a: entry }).padEnd(n), 4)),
    says: /a length of at most 8388608 bytes, the limit, got 8388609/,
    isHeavy: true,
  },
  {
    what: "tensors",
    limit: 65_536,
    take: (n) =>
      readSafetensors(safetensors(`{${Array.from({ length: n }, (_, i) => `"${i}":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`)}}`)),
    says: /at most 65536 tensors, the limit, got 65537/,
    isHeavy: true,
  },
  {
    what: "dimensions of a tensor in safetensors",
    limit: 8,
    take: (n) => readSafetensors(safetensors(JSON.stringify({ a: { ...entry, shape: Array(n).fill(1) } }), 4)),
    says: /at most 8 dimensions, got 9/,
  },
  {
    what: "bytes of a tensor's name",
    limit: 256,
    take: (n) => readSafetensors(safetensors(JSON.stringify({ ["a".repeat(n)]: entry }), 4)),
    says: /a name of 1 to 256 bytes/,
  },
  {
    what: "keys of a GGUF",
    limit: 4096,
    take: (n) =>
      gguf((p) => p.keys.push(...Array.from({ length: n - p.keys.length }, (_, i) => [`k${i}`, T.u8, Uint8Array.of(0)] as const))),
    says: /key count: expected at most 4096, the limit, got 4097/,
    isHeavy: true,
  },
  {
    what: "bytes of a key",
    limit: 65_535,
    take: (n) => gguf((p) => p.keys.push(["k".repeat(n), T.u8, Uint8Array.of(0)])),
    says: /string length: expected at most 65535, the limit, got 65536/,
  },
  {
    what: "bytes of a string",
    limit: 16 * MIB,
    take: (n) => key(T.string, concat(u64(n), new Uint8Array(n).fill(0x61))),
    says: /string length: expected at most 16777216, the limit, got 16777217/,
    isHeavy: true,
  },
  {
    what: "items of an array",
    limit: MIB,
    take: (n) => key(T.array, array(T.u8, n, new Uint8Array(n))),
    says: /array length: expected at most 1048576, the limit, got 1048577/,
    isHeavy: true,
  },
  {
    what: "items of all arrays",
    limit: 2 * MIB,
    take: (n) =>
      gguf((p) => {
        const had = 7; // of validParts
        const sizes = [MIB, MIB - had, n - 2 * MIB];
        for (const [i, size] of sizes.entries()) p.keys.push([`k${i}`, T.array, array(T.u8, size, new Uint8Array(size))]);
      }),
    says: /at most 2097152 array items in all, the limit/,
    isHeavy: true,
  },
  {
    what: "bytes of a GGUF's header",
    limit: 64 * MIB,
    take: (n) =>
      gguf((p) => {
        const around = 24 + 5 * (8 + "k0".length + 4 + 8); // magic, version and counts; of each key its length, name, type and the string's length
        const sizes = [16 * MIB, 16 * MIB, 16 * MIB, 15.5 * MIB, n - 63.5 * MIB - around]; // the last within the last range that is read
        p.keys = sizes.map((size, i) => [`k${i}`, T.string, concat(u64(size), new Uint8Array(size).fill(0x61))]);
        p.tensors = [];
      }),
    says: /expected a header of at most 67108864 bytes, the limit, got more/,
    isHeavy: true,
  },
  {
    what: "alignment of a GGUF's tensors",
    limit: 65_536,
    take: (n) =>
      gguf((p) => {
        p.alignment = n > 65_536 ? 131_072 : n; // the next power of two
        p.keys.push(["general.alignment", T.u32, u32(p.alignment)]);
      }),
    says: /general\.alignment: expected a power of two from 8 to 65536, got 131072/,
  },
  {
    what: "dimensions of a tensor in a GGUF",
    limit: 4,
    take: (n) => gguf((p) => p.tensors.splice(0, 99, { name: "a", dims: Array(n).fill(1), type: 0, bytes: 4 })),
    says: /expected 1 to 4 dimensions, got 5/,
  },
  {
    what: "bytes of config.json",
    limit: MIB,
    take: (n) => opened(padded(repo, "config.json", n)),
    says: /config\.json: expected at most 1048576 bytes, the limit, got 1048577/,
  },
  {
    what: "bytes of the index",
    limit: 4 * MIB,
    take: (n) => opened(padded(validSharded(), "model.safetensors.index.json", n)),
    says: /index\.json: expected at most 4194304 bytes, the limit, got 4194305/,
    isHeavy: true,
  },
  {
    what: "bytes of tokenizer.json",
    limit: 32 * MIB,
    take: (n) => opened(padded(repo, "tokenizer.json", n)),
    says: /tokenizer\.json: expected at most 33554432 bytes, the limit, got 33554433/,
    isHeavy: true,
  },
  {
    what: "levels of JSON",
    limit: 64,
    take: (n) => parseJson(`${"[".repeat(n)}${"]".repeat(n)}`, "x", { maxBytes: MIB }),
    says: /a nesting depth of at most 64, got more/,
  },
  {
    what: "shards",
    limit: 1024,
    take: (n) => {
      const names = Array.from({ length: n }, (_, i) => `s/${i}.safetensors`);
      const map = Object.fromEntries(names.map((name, i) => [`t${i}`, name]));
      const index = utf8.encode(JSON.stringify({ weight_map: map }));
      const open: Folder["open"] = async (path) => {
        if (path.endsWith(".index.json")) return bytesSource(index, path);
        assert.ok(n <= 1024, `${path} was opened`);
        return safetensors(JSON.stringify({ [`t${/\d+/.exec(path)?.[0]}`]: entry }), 4);
      };
      return readShards({ name: "folder", open });
    },
    says: /at most 1024 shards, the limit, got 1025/,
  },
  {
    what: "bytes of a template",
    limit: 64 * KIB,
    take: (n) => render("x".repeat(n)),
    says: /at most 65536 bytes, the limit, got 65537/,
  },
  {
    what: "white space in a row in a template",
    limit: 1024,
    take: (n) => render(`{{ bos${" ".repeat(n)}}}`),
    says: /at most 1024 white-space characters in a row/,
  },
  {
    what: "numbers of a range",
    limit: 10_000,
    take: (n) => render(`{{ range(${n}) | length }}`),
    says: /at most a range of 10000, the limit, got 10001/,
  },
  {
    what: "characters that a template makes",
    limit: 4 * MIB,
    take: (n) => render(doubled("'x'", 22, n > 4 * MIB ? "{% set n.v = n.v + 'x' %}" : "")),
    says: /at most 4194304 characters of output, the limit, got 4194305/,
  },
  {
    what: "items that a template makes",
    limit: 100_000,
    take: (n) => render(doubled("range(6250)", 4, n > 100_000 ? "{% set n.v = n.v + [1] %}" : "")),
    says: /at most 100000 items, the limit, got 100001/,
  },
  {
    what: "token ids",
    limit: MIB,
    take: (n) => assert.equal(tokenizerWith("<|last|>", n - 1).vocabularySize, n),
    says: /expected a whole id from 0 to 1048575 for "<\|last\|>", got 1048576/,
    isHeavy: true,
  },
  {
    what: "special tokens around a text",
    limit: 64,
    take: (n) => {
      const json = JSON.parse(new TextDecoder().decode(repo["tokenizer.json"]));
      const around = (ids: readonly number[], times: number): Tokenizer => {
        const single = [...Array(times).fill({ SpecialToken: { id: "x" } }), { Sequence: { id: "A" } }];
        const step = { type: "TemplateProcessing", single, special_tokens: { x: { ids } } };
        return Tokenizer.fromJson({ ...json, post_processor: step });
      };
      if (n > 64) assert.throws(() => around(Array(300_000).fill(0), 9), FormatError); // more than a call has room for
      assert.equal(around([0], n).encode("", { addSpecialTokens: true }).length, n);
      around(Array(n).fill(0), 1);
    },
    says: /post_processor: expected at most 64 special tokens, the limit/,
  },
  {
    what: "characters of added tokens",
    limit: 256 * KIB,
    take: (n) => {
      const json = JSON.parse(new TextDecoder().decode(repo["tokenizer.json"]));
      let left = n - json.added_tokens.reduce((sum: number, { content }: { content: string }) => sum + content.length, 0);
      for (let id = Object.keys(json.model.vocab).length; left > 0; id++) {
        const content = `${id}`.padEnd(Math.min(left, 4096), "<");
        json.added_tokens.push({ ...json.added_tokens[0], id, content });
        left -= content.length;
      }
      assert.equal(left, 0);
      return Tokenizer.fromJson(json);
    },
    says: /added_tokens: expected at most 262144 characters, the limit/,
    isHeavy: true,
  },
  {
    what: "bytes of a token",
    limit: 4096,
    take: (n) => tokenizerWith("é".repeat(n >> 1) + "x".repeat(n & 1)),
    says: /a token of at most 4096 bytes, the limit/,
  },
];

describe("limits", () => {
  for (const { what, limit, take, says } of pick({ gate: LIMITS.filter(({ isHeavy }) => !isHeavy), full: LIMITS }))
    it(`${what}: ${limit}, and not one more`, async () => {
      await assert.rejects(
        async () => take(limit + 1),
        (e) => e instanceof FormatError && says.test(e.message),
      );
      await take(limit);
    });

  it("bytes of a model's card that are read: 65536, and not one more", async () => {
    for (const [headBytes, license] of [
      [64 * KIB, "mit"],
      [64 * KIB + 1, undefined],
    ] as const) {
      const [start, end] = ["---\nlicense: mit\n#", "\n---"];
      const card = utf8.encode(`${start.padEnd(headBytes - end.length, "x")}${end}\n${"text ".repeat(100_000)}`);
      let readBytes = 0;
      const source: ByteSource = {
        ...{ name: "README.md", size: card.length },
        read: async (offset, length) => {
          readBytes += length;
          return card.slice(offset, offset + length);
        },
      };
      const files = folder(repo);
      const open: Folder["open"] = async (path) => (path === "README.md" ? source : files.open(path));
      const about = await inspectWith({ runtime: "node", open: () => assert.fail(), kernels }, { name: "folder", open });
      assert.deepEqual([about.license, readBytes], [license, 64 * KIB]);
    }
  });

  it("bytes of a file that is brought to its end to prove a refusal: 67108864, and not one more", async () => {
    const refusal = new FormatError("x");
    const damaged = new FormatError("damaged", { code: "checksum" });
    for (const [size, proved] of [
      [64 * MIB, true],
      [64 * MIB + 1, false],
    ] as const) {
      let proofs = 0;
      const source: ByteSource = {
        ...{ name: "x", size, read: () => assert.fail("it was read") },
        verify: async () => {
          proofs++;
          throw damaged;
        },
      };
      const right = (await rightError(refusal, [source], undefined)) as FormatError;
      assert.deepEqual([proofs, right.message, right.cause], proved ? [1, damaged.message, refusal] : [0, refusal.message, undefined]);
    }
  });

  it("arrays in arrays are none", () =>
    assert.rejects(key(T.array, array(T.array, 1, u32(T.u8), u64(0))), { name: "FormatError", message: /nested array/ }));

  it("a template's steps end it, whatever they do; messages bring steps of their own", () => {
    const loop = (turns: number): string => `{% for i in range(${turns}) %}{% for j in range(100) %}{% endfor %}{% endfor %}`;
    assert.throws(() => render(loop(500)), { name: "FormatError", message: /budget of evaluation steps/ });
    // what a value is made of costs steps whenever it is looked at: a filter over 4 Mi characters takes most of a second
    const looked = (times: number): string => doubled("'x'", 20, `{% for i in range(${times}) %}{{ n.v | length }}{% endfor %}`);
    assert.throws(() => render(looked(25)), { name: "FormatError", message: /budget of evaluation steps/ });
    assert.equal(render(looked(10)), "1048576".repeat(10));
    if (pick({ gate: false, full: true })) new JinjaTemplate(loop(500)).render(new Map([["messages", []]]), 100_000);
  });

  it("no split pattern but LFM2's", () => {
    const json = JSON.parse(new TextDecoder().decode(repo["tokenizer.json"]));
    json.pre_tokenizer.pretokenizers[0].pattern.Regex += "|x";
    assert.throws(() => Tokenizer.fromJson(json), { name: "UnsupportedError", message: /split pattern/ });
  });
});

describe("patience", () => {
  const failure = (retryAfterMs?: number) => new Interrupted(new NetworkError("x", { status: 503, retryable: true }), { retryAfterMs });
  const network = { options: {} } as Network;
  const { signal } = new AbortController();

  /** Runs attempt after attempt that fails; timers fire at once. @returns the waits in ms */
  async function waits(retries: Retries, fail: () => unknown, gained = 0, most = 50): Promise<{ waited: number[]; error: unknown }> {
    const { setTimeout: real } = globalThis;
    const waited: number[] = [];
    globalThis.setTimeout = ((run: () => void, ms: number) => {
      waited.push(ms);
      return real(run, 0);
    }) as typeof setTimeout;
    try {
      for (let i = 0; i < most; i++) await retries.next(fail(), gained, signal);
      return { waited, error: undefined };
    } catch (error) {
      return { waited, error };
    } finally {
      globalThis.setTimeout = real;
    }
  }

  it("five retries, after 0.5 s and twice as long each time, with jitter", async () => {
    const { random } = Math;
    try {
      for (const [draw, share] of [
        [0, 0.5],
        [0.999999, 1],
      ] as const) {
        Math.random = () => draw;
        const { waited, error } = await waits(new Retries(network), () => failure());
        assert.equal((error as NetworkError).status, 503);
        assert.deepEqual(
          waited.map((ms) => Math.round(ms)),
          [500, 1000, 2000, 4000, 8000].map((ms) => ms * share),
        );
      }
      const many = await waits(new Retries({ options: { maxRetries: 12 } } as Network), () => failure());
      assert.equal(Math.round(Math.max(...many.waited)), 30_000, "30 s at most");
    } finally {
      Math.random = random;
    }
  });

  it("a retry that gained bytes begins to count anew, but not one stall after the other", async () => {
    assert.equal((await waits(new Retries(network), () => failure(), 1)).error, undefined);
    const stall = (): Interrupted => new Interrupted(new NetworkError("x"), { isStall: true });
    assert.equal((await waits(new Retries(network), stall, 1)).waited.length, 5);
    assert.equal((await waits(new Retries(network), stall, MIB)).error, undefined);
  });

  it("Retry-After up to 60 s is waited for, longer ones are told", async () => {
    const { waited } = await waits(new Retries(network), () => failure(60_000));
    assert.deepEqual(new Set(waited), new Set([60_000]));
    const { waited: none, error } = await waits(new Retries(network), () => failure(60_001));
    assert.deepEqual(none, []);
    assert.equal((error as NetworkError).code, "retry-after");
    assert.match((error as NetworkError).message, /wait 61 s; 60 s is the most that is waited/);
  });

  it("a hub that is silent for 10 s is out of reach where the cache has the model, for 30 s where it has not", async () => {
    const { setTimeout: real } = globalThis;
    for (const [what, isKept, longest] of [
      ["kept", true, 10_000],
      ["not kept", false, 30_000],
    ] as const) {
      const waited: number[] = [];
      const control = new AbortController();
      const store = {
        revision: async () => (isKept ? "c".repeat(40) : undefined),
        files: async () => [{ path: "x.gguf", sizeBytes: 1, blob: "b".repeat(64) }],
      } as unknown as Store;
      const silent = { fetch: () => new Promise<never>(() => control.abort()), endpoint: "http://hub.test" } as unknown as Network;
      globalThis.setTimeout = ((run: () => void, ms: number) => {
        waited.push(ms);
        return real(run, ms);
      }) as typeof setTimeout;
      try {
        const cache = { store, onWait: () => {}, onSkip: () => {} };
        const finding = findHub(silent, parseHubId("org/model:x.gguf")!, { cache }, control.signal);
        await assert.rejects(finding, { name: "AbortError" }, what);
      } finally {
        globalThis.setTimeout = real;
      }
      assert.equal(Math.max(...waited), longest, `${what}: ${waited}`);
    }
  });

  it("what is no interruption is thrown at once", async () => {
    const { waited, error } = await waits(new Retries(network), () => new FormatError("x"));
    assert.deepEqual([waited, (error as Error).name], [[], "FormatError"]);
  });
});
