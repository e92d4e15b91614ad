// Models by their name on a hub: the name's parts, the file that is taken, one commit for all, and listings that a stranger wrote.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { availability, inspect, type LoadOptions, type LoadProgress, load, pull, removeModel } from "lfm2-wasm";
import { FormatError, NetworkError } from "../../src/errors.ts";
import type { DType } from "../../src/memory/dtype.ts";
import { findHub } from "../../src/weights/hub.ts";
import { chooseFile, fileType, type HubFile } from "../../src/weights/hub-choice.ts";
import { type HubId, parseHubId } from "../../src/weights/hub-id.ts";
import type { FetchResponse } from "../../src/weights/request.ts";
import { isPlainPath } from "../../src/weights/source.ts";
import { checkpointFolder } from "../golden/support.ts";
import { installed } from "../runtimes/index.mjs";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { allOf, IMPATIENT, networkTo } from "./network.ts";

const filesOf = (dir: string): Record<string, Uint8Array> =>
  Object.fromEntries(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name))]));

/** Runs with variables of the environment set, or without those that are undefined. */
async function withVariables(variables: Readonly<Record<string, string | undefined>>, run: () => Promise<void>): Promise<void> {
  const set = (values: Readonly<Record<string, string | undefined>>): void => {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
  const before = Object.fromEntries(Object.keys(variables).map((name) => [name, process.env[name]]));
  try {
    set(variables);
    await run();
  } finally {
    set(before);
  }
}

describe("a hub's id", () => {
  it("is org/name, a revision, and a file or a type", () => {
    const none = { revision: undefined, file: undefined, dtype: undefined, type: undefined };
    const cases: readonly (readonly [string, Partial<HubId>])[] = [
      ["LiquidAI/LFM2-350M", { repo: "LiquidAI/LFM2-350M" }],
      ["org/name@main", { repo: "org/name", revision: "main" }],
      ["org/name@refs/pr/1:q8", { repo: "org/name", revision: "refs/pr/1", dtype: "q8" }],
      ["org/name:Q4_K_M", { repo: "org/name", type: "Q4_K_M" }],
      ["org/name:sub/x.gguf", { repo: "org/name", file: "sub/x.gguf" }],
      ["org/name@v1.0:model.safetensors", { repo: "org/name", revision: "v1.0", file: "model.safetensors" }],
    ];
    for (const [text, parts] of cases) assert.deepEqual(parseHubId(text), { ...none, ...parts }, text);
  });

  it("is no path, no file, no address", () => {
    for (const text of [
      ..."name a/b/c ./a/b ../a /a/b a/b.gguf a/model.safetensors https://a/b a\\b C:\\a a/.. a/b:../x.gguf a/b:/x.gguf a/b@../c a/b: a/b@ a//b".split(
        " ",
      ),
      "a/b c",
      "",
      `a/${"b".repeat(97)}`,
    ])
      assert.equal(parseHubId(text), undefined, text);
  });

  it("and paths in a repository stay inside it", () => {
    for (const path of ["a", "a.b", "a/b-c_d.gguf", "..a", "a..b"]) assert.ok(isPlainPath(path), path);
    for (const path of ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a:b", "a?b", "a%2e", "ä", "//host/a", "a".repeat(1025)])
      assert.ok(!isPlainPath(path), path);
  });
});

describe("the file that is taken", () => {
  const file = (path: string, sizeBytes = 1000): HubFile => ({ path, sizeBytes, oid: undefined, sha256: undefined });
  const folder = ["config.json", "tokenizer.json", "model.safetensors", "README.md"];
  const official = ["F16", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"].map((t) => `LFM2-350M-${t}.gguf`);
  const taken = (paths: readonly string[], wish: { dtype?: DType; type?: string; file?: string } = {}): string | undefined =>
    chooseFile(
      paths.map((p) => file(p)),
      wish,
    )?.file.path;

  it("suits the element type", () => {
    assert.equal(taken(official, { dtype: "q8" }), "LFM2-350M-Q8_0.gguf");
    assert.equal(taken(official, { dtype: "f16" }), "LFM2-350M-F16.gguf");
    assert.equal(taken(official, { dtype: "bf16" }), "LFM2-350M-F16.gguf");
    assert.equal(taken([...official, ...folder], { dtype: "bf16" }), "model.safetensors");
    for (const files of [official, [...folder, ...official].reverse()]) {
      assert.equal(taken(files), "LFM2-350M-Q4_K_M.gguf", "a small one where nothing is asked for");
      assert.equal(taken(files, { dtype: "q4" }), "LFM2-350M-Q4_0.gguf");
    }
    assert.equal(taken([...folder, "a-Q8_0.gguf"]), "a-Q8_0.gguf", "and one of eight bits where there is no smaller one");
    assert.equal(taken([...folder, "a-Q8_0.gguf"], { dtype: "q4" }), "a-Q8_0.gguf");
    assert.equal(taken([...folder, "a-Q8_0.gguf"], { dtype: "f32" }), "model.safetensors");
    assert.equal(taken(["a-Q8_0.gguf"], { dtype: "f32" }), "a-Q8_0.gguf");
  });

  it("is the named one", () => {
    assert.equal(taken(official, { type: "q4_k_m" }), "LFM2-350M-Q4_K_M.gguf");
    assert.equal(taken(official, { type: "Q3_K_S" }), undefined);
    assert.equal(taken(official, { file: "LFM2-350M-Q6_K.gguf" }), "LFM2-350M-Q6_K.gguf");
    assert.equal(taken(official, { file: "other.gguf" }), undefined);
    assert.equal(taken(folder, { file: "model.safetensors" }), "model.safetensors");
  });

  it("is a whole model", () => {
    assert.equal(taken(["mmproj-x-F16.gguf", "x-Q8_0-00002-of-00002.gguf"]), undefined);
    assert.equal(taken(["sub/x-Q8_0.gguf", "y-Q8_0.gguf"]), "y-Q8_0.gguf");
    assert.equal(taken(["mini.gguf"]), "mini.gguf");
    assert.equal(taken(["model.safetensors"]), undefined, "no config");
    assert.equal(taken(["README.md"]), undefined);
    assert.equal(taken(["x-IQ1_S.gguf", ...folder]), "model.safetensors");
  });

  it("has all its parts, whichever of them is named", () => {
    const parts = ["d/x-Q8_0-00001-of-00002.gguf", "d/x-Q8_0-00002-of-00002.gguf"];
    for (const wish of [{}, { type: "q8_0" }, { file: parts[1] }]) {
      const choice = chooseFile([...parts, "d/y-00001-of-00003.gguf"].map((p) => file(p)).reverse(), wish);
      assert.deepEqual([choice?.file.path, choice?.files.map((f) => f.path)], [parts[0], parts]);
    }
    const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"];
    for (const wish of [{}, { file: shards[0] }, { file: shards[2] }]) {
      const choice = chooseFile(
        ["config.json", "README.md", ...shards].map((p) => file(p)),
        wish,
      );
      assert.deepEqual([choice?.file.path, choice?.files.map((f) => f.path)], [shards[2], ["config.json", ...shards]]);
    }
  });

  it("tells its quantization by its name", () => {
    for (const [path, type] of [
      ["LFM2-350M-Q4_K_M.gguf", "Q4_K_M"],
      ["a.q8_0.gguf", "Q8_0"],
      ["x/y-BF16.gguf", "BF16"],
      ["lfm2-iq4_nl.gguf", "IQ4_NL"],
      ["mini.gguf", undefined],
      ["q8_0.gguf.txt", undefined],
    ] as const)
      assert.equal(fileType(path), type, path);
  });
});

describe("a model on a hub", () => {
  let server: BadServer;
  const mini = readFileSync("dist/mini.gguf");
  const tiny = filesOf(checkpointFolder("tiny-gqa3"));
  before(async () => {
    const whole = filesOf(join("models", "lfm2-mini"));
    const repos = {
      "org/mini": whole,
      "org/mini-GGUF": { "README.md": "hello", "mini-Q8_0.gguf": mini },
      "org/tiny": tiny,
      "org/none": { "README.md": "hello" },
      "org/carded": { ...tiny, "README.md": "---\nlicense: other\nlicense_name: lfm1.0\n---\n# A model\n" },
    };
    server = await serve(repos);
  });
  after(() => server.close());
  beforeEach(() => {
    server.set({});
    server.log.length = 0;
  });
  const options = () => ({ cache: false as const, endpoint: server.hub, network: { ...IMPATIENT, windowBytes: 4 << 20 } });

  it("is not the name of this package's entry with the bundled model", async () => {
    server.log.length = 0;
    for (const call of [load, inspect, availability])
      await assert.rejects(call("lfm2-wasm/mini", options()), { name: "InputError", message: /import \{ mini \} from "lfm2-wasm\/mini"/ });
    assert.equal(server.log.length, 0);
  });

  it("loads from a folder, at one commit, every file proved", async () => {
    const events: LoadProgress[] = [];
    const model = await load("org/mini", { ...options(), dtype: "bf16", onProgress: (p) => events.push(p) });
    const local = await load(join("models", "lfm2-mini"), { dtype: "bf16" });
    const answer = { maxTokens: 6, temperature: 0 };
    assert.deepEqual((await model.generate("Hello", answer)).tokens, (await local.generate("Hello", answer)).tokens);
    assert.equal(model.info.name, "mini");
    for (const m of [model, local]) m.dispose();
    const commits = new Set(server.log.filter((r) => r.url.includes("/resolve/")).map((r) => r.url.split("/")[4]));
    assert.deepEqual(
      [...commits].map((c) => /^[0-9a-f]{40}$/.test(c ?? "")),
      [true],
    );
    const [first] = events;
    assert.deepEqual([first?.phase, first?.file, first?.loadedBytes], ["open", "model.safetensors", 0]);
    const sent = server.log.filter((r) => r.url.includes("/repos/") || r.status === 206).reduce((sum, r) => sum + r.sentBytes, 0);
    assert.equal(sent, first?.totalBytes, "what was foretold is what came");
    assert.ok(events.every((e, i) => i === 0 || e.loadedBytes >= (events[i - 1]?.loadedBytes ?? 0)));
    assert.equal(events.at(-1)?.phase, "ready");
  });

  it("is taken from the repository of quantized files beside it, unless a revision or another type is asked for", async () => {
    const chosen = async (id: string, dtype?: DType): Promise<string> => {
      let file = "";
      const stop = new AbortController();
      const onProgress = (p: LoadProgress): void => {
        file = p.file;
        stop.abort();
      };
      await assert.rejects(load(id, { ...options(), dtype, onProgress, signal: stop.signal }), { name: "AbortError" });
      return file;
    };
    assert.equal(await chosen("org/mini"), "mini-Q8_0.gguf");
    assert.equal(await chosen("org/mini:q4"), "mini-Q8_0.gguf");
    assert.equal(await chosen("org/mini", "f16"), "model.safetensors");
    assert.equal(await chosen("org/mini@main"), "model.safetensors");
    assert.equal(await chosen("org/mini:model.safetensors"), "model.safetensors");
    assert.equal(await chosen("org/tiny"), "model.safetensors", "nothing is beside it");
  });

  it("loads with the element type that its id names", async () => {
    const model = await load("org/mini:q8", options());
    assert.deepEqual(model.info.dtypes, ["q8"]);
    model.dispose();
    await assert.rejects(load("org/mini:q8", { ...options(), dtype: "q4" }), {
      name: "InputError",
      message: /"q8" as in the id, got "q4"/,
    });
  });

  it("is listed page by page", async () => {
    server.set({ pageFiles: 2 });
    const inspection = await inspect("org/mini@main", { ...options(), dtype: "bf16" });
    assert.equal(inspection.format, "safetensors");
    assert.equal(server.log.filter((r) => r.url.includes("/tree/")).length, 5);
  });

  it("is inspected by its header", async () => {
    const events: LoadProgress[] = [];
    const onProgress = (event: LoadProgress): void => void events.push(event);
    const { name } = await inspect("org/mini-GGUF", { ...options(), network: { windowBytes: 1 << 17 }, onProgress });
    assert.equal(name, "lfm2-mini");
    checkHeaders(events.slice(1), ["mini-Q8_0.gguf"]);
    assert.deepEqual([events[0]?.phase, events[0]?.file, events[0]?.totalBytes], ["open", "mini-Q8_0.gguf", mini.length]);
    assert.ok((events.at(-1)?.totalBytes ?? 0) < mini.length / 3, "of the header alone");
    const sent = server.log.filter((r) => r.host === "cdn").reduce((sum, r) => sum + r.sentBytes, 0);
    assert.ok(sent < mini.length / 3, `${sent} of ${mini.length} bytes`);
  });

  it("loads by the address of its file or folder, too", async () => {
    const at = `${server.hub}/org/mini/resolve/main/`;
    for (const source of [at, new URL(`${at}model.safetensors`), `${server.hub}/org/mini-GGUF/resolve/main/mini-Q8_0.gguf`]) {
      const model = await load(source, options());
      assert.equal((await model.generate("What is 3 + 4?", { maxTokens: 8, temperature: 0 })).text.length > 0, true);
      model.dispose();
    }
    const refused = (url: string, init: object) => (url.endsWith("README.md") ? new Response("", { status: 403 }) : fetch(url, init));
    const plain = await load(`${server.hub}/org/tiny/resolve/main/`, { ...options(), fetch: async (url, init) => refused(url, init) });
    assert.equal(plain.info.license, undefined, "none is the worse for a card that cannot be had");
    plain.dispose();
    await assert.rejects(load(`${at}weights.safetensors`, options()), { name: "UnsupportedError" });
    await assert.rejects(load(`${server.hub}/org/none/resolve/main/`, options()), {
      name: "FormatError",
      message: /expected a config\.json/,
    });
    await assert.rejects(load(`${server.hub}/org/mini/resolve/main/x.gguf`, options()), { name: "NetworkError", message: /404/ });
  });

  it("is asked for at Hugging Face's hub where nothing names another", async () => {
    const asked: string[] = [];
    const fetch: LoadOptions["fetch"] = async (url) => {
      asked.push(url);
      throw new Error("no network here");
    };
    const { HF_ENDPOINT: before } = process.env;
    delete process.env.HF_ENDPOINT;
    try {
      await assert.rejects(load("org/mini@main", { fetch, cache: false, network: { maxRetries: 0 } }), { name: "NetworkError" });
    } finally {
      if (before !== undefined) process.env.HF_ENDPOINT = before;
    }
    assert.deepEqual(asked, ["https://huggingface.co/api/models/org/mini/revision/main"]);
  });

  it("is found by what the environment says, and its token goes nowhere else", async () => {
    await withVariables({ HF_ENDPOINT: `${server.hub}/`, HF_TOKEN: "hf_SECRET" }, async () => {
      server.set({ token: "hf_SECRET" });
      (await load("org/tiny", { cache: false, network: options().network })).dispose();
      await assert.rejects(load(`${server.cdn}/x.gguf`, { network: options().network }), { name: "NetworkError" });
      assert.ok(server.log.every((r) => (r.host === "hub") === (r.authorization === "Bearer hf_SECRET")));
    });
  });

  it("is asked for with the token of who has logged in on this machine, which goes nowhere else", async () => {
    const home = mkdtempSync(join(tmpdir(), "lfm2-login-"));
    const [stored, other, folder, text] = ["token", "other", "folder", "text"].map((name) => join(home, name)) as [
      string,
      string,
      string,
      string,
    ];
    writeFileSync(stored, "hf_STORED\n");
    writeFileSync(other, "hf_OTHER");
    mkdirSync(folder);
    writeFileSync(text, "no token at all");
    const none = {
      HF_TOKEN: undefined,
      HF_TOKEN_PATH: undefined,
      HF_HUB_DISABLE_IMPLICIT_TOKEN: undefined,
      HF_HOME: join(home, "nowhere"),
    };
    try {
      for (const [variables, sent] of [
        [{ HF_HOME: home }, "Bearer hf_STORED"],
        [{ HF_HOME: home, HF_TOKEN_PATH: other }, "Bearer hf_OTHER"],
        [{ HF_HOME: home, HF_TOKEN: "hf_MINE" }, "Bearer hf_MINE"],
        [{ HF_HOME: home, HF_TOKEN: "hf_MINE", HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }, undefined],
        [{ HF_TOKEN_PATH: folder }, undefined],
        [{ HF_TOKEN_PATH: text }, undefined],
        [{}, undefined],
      ] as const) {
        server.log.length = 0;
        await withVariables({ ...none, ...variables }, async () => {
          await inspect("org/mini-GGUF", options());
          await assert.rejects(inspect(`${server.cdn}/x.gguf`, options()), { name: "NetworkError" });
        });
        const right = server.log.every((r) => r.authorization === (r.host === "hub" ? sent : undefined));
        assert.ok(right && server.log.some((r) => r.host === "cdn"), JSON.stringify(variables));
      }
      server.set({ token: "hf_NEW" });
      await withVariables({ ...none, HF_HOME: home }, () =>
        assert.rejects(inspect("org/mini-GGUF", options()), (e: Error) => e.name === "NetworkError" && !allOf(e).includes("hf_STORED")),
      );
    } finally {
      rmSync(home, { recursive: true });
    }
  });

  for (const { binary } of installed(pick({ gate: [], full: ["deno"] }), "a stored token in Deno"))
    it("is asked for without it in Deno, unless the file may be read", async () => {
      const home = mkdtempSync(join(tmpdir(), "lfm2-login-"));
      writeFileSync(join(home, "token"), "hf_STORED");
      const module = pathToFileURL(resolve("dist", "deno.js")).href;
      const program = `import { inspect } from ${JSON.stringify(module)}; await inspect("org/mini-GGUF", { endpoint: "${server.hub}", cache: false });`;
      const main = resolve("build", `deno-token-${process.pid}.mjs`); // below the package's dependencies
      writeFileSync(main, program);
      try {
        for (const [files, sent] of [
          [[], undefined],
          [[join(home, "token")], "Bearer hf_STORED"],
        ] as const) {
          server.log.length = 0;
          const path = `--allow-read=${["org", ...files].map((name) => resolve(name)).join(",")}`;
          const args = ["run", "--quiet", "--no-lock", "--allow-net", "--allow-env", path, main];
          await promisify(execFile)(binary, args, { env: { ...process.env, HF_HOME: home, HF_TOKEN: "" } });
          const atHub = server.log.filter((r) => r.host === "hub");
          assert.ok(atHub.length > 0 && atHub.every((r) => r.authorization === sent), JSON.stringify(files));
        }
      } finally {
        rmSync(main);
        rmSync(home, { recursive: true });
      }
    });

  for (const { binary } of installed(pick({ gate: [], full: ["deno"] }), "a hub's id in Deno without files"))
    it("is found in Deno without a permission to look for a path of that name", async () => {
      const module = pathToFileURL(resolve("dist", "deno.js")).href;
      const main = resolve("build", `deno-denied-${process.pid}.mjs`);
      writeFileSync(
        main,
        `import { availability, inspect, load } from ${JSON.stringify(module)};
         const options = { endpoint: "${server.hub}", threads: 1, network: { windowBytes: 4 << 20 } };
         const loaded = async (id, more) => { const model = await load(id, { ...options, ...more }); model.dispose(); return model.info; };
         const failed = (id) => loaded(id).then(() => "", (e) => e.name + ": " + e.message);
         console.log(JSON.stringify({
           infos: [await loaded("org/tiny"), await loaded("org/tiny", { cache: false })],
           format: (await inspect("org/tiny", options)).format,
           status: (await availability("org/tiny", options)).status,
           errors: [await failed("org/nowhere"), await failed("./org/tiny"), await failed("org/mini.gguf"), await failed("/org/tiny"), await failed("org/a/b")],
         }));`,
      );
      const home = mkdtempSync(join(tmpdir(), "lfm2-denied-"));
      // what would be asked of somebody at a terminal is refused without one
      const deno = async (...permissions: readonly string[]): Promise<Record<string, unknown>> => {
        const args = ["run", "--quiet", "--no-lock", "--allow-net", ...permissions, main];
        const { stdout } = await promisify(execFile)(binary, args, {
          env: { ...process.env, HF_TOKEN: "", HF_HUB_CACHE: join(home, "hub") },
        });
        return JSON.parse(stdout) as Record<string, unknown>;
      };
      try {
        const seen = 'load: "org/tiny" was taken for a model on a hub: Deno may not look for a path of that name (--allow-read).';
        const { infos, format, status, errors } = await deno("--no-prompt");
        const warnings = (infos as { warnings: string[] }[]).map((info) => info.warnings);
        assert.deepEqual(warnings, [[`${seen} What is downloaded is not kept.`], [seen]]);
        assert.deepEqual([format, status], ["safetensors", "downloadable"]);
        const [nowhere, ...paths] = errors as string[];
        assert.match(nowhere ?? "", /^NetworkError: .*org\/nowhere on the hub.*401.*taken for a model on a hub: Deno may not look/);
        assert.equal(paths.length, 4);
        for (const path of paths) assert.match(path, /^StorageError: .*expected to open .*--allow-read/);
        const cached = await deno(`--allow-read=${home}`, `--allow-write=${home}`, "--allow-env", "--no-prompt");
        assert.deepEqual(
          (cached.infos as { warnings: string[] }[]).map((info) => info.warnings),
          [[seen], [seen]],
          "the cache may be used",
        );
        assert.ok(readdirSync(join(home, "hub")).includes("models--org--tiny"));
      } finally {
        rmSync(main);
        rmSync(home, { recursive: true });
      }
    });

  it("that is not there, or has no such file, is a sentence", async () => {
    for (const [id, name, pattern] of [
      ["org/nowhere", "NetworkError", /org\/nowhere on the hub.*401.*does not exist, or needs a token/],
      ["org/mini@v9", "NetworkError", /404.*revision/],
      ["org/none", "FormatError", /expected a GGUF file or config\.json and model\.safetensors, got none/],
      ["org/mini-GGUF:Q4_K_M", "FormatError", /expected "Q4_K_M", got "mini-Q8_0\.gguf"/],
      ["org/mini:other.gguf", "FormatError", /expected "other\.gguf", got "model\.safetensors"/],
    ] as const)
      await assert.rejects(load(id, options()), (e: Error) => e.name === name && pattern.test(e.message), id);
    await assert.rejects(load("no/such/path", options()), { name: "StorageError" });
  });

  it("loads at a commit of which the hub tells nothing, or whose files it does not list", async () => {
    const at = (repo: string, rest = ""): string => `${repo}@${createHash("sha1").update(repo).digest("hex")}${rest}`;
    const asked = (what: string): number => server.log.filter((r) => r.url.includes(what)).length;
    const dir = mkdtempSync(join(tmpdir(), "lfm2-unlisted-"));
    const kept = { ...options(), cache: { dir } };
    try {
      for (const status of pick({ gate: [404], full: [403, 404, 405, 410, 501] })) {
        server.log.length = 0;
        server.set({ match: "api", status, times: 1 });
        const listed = await load(at("org/tiny"), options());
        assert.equal(listed.info.license, undefined, "a list of files, and no card");
        listed.dispose();
        assert.equal(asked("/tree/"), 1);

        server.set({ match: "api", status });
        const ids = [
          [at("org/carded", ":model.safetensors"), "carded"],
          [at("org/tiny", ":q8"), "tiny"],
          [at("org/tiny"), "tiny"],
          [at("org/mini-GGUF", ":mini-Q8_0.gguf"), "lfm2-mini"],
        ] as const;
        for (const [id, name] of ids.slice(0, pick({ gate: 2, full: 4 }))) {
          const found: LoadProgress[] = [];
          const model = await load(id, { ...options(), onProgress: (p) => found.push(p) });
          assert.equal(model.info.dtypes.includes("q8"), id.endsWith(":q8") || name === "lfm2-mini");
          assert.deepEqual([found[0]?.phase, found[0]?.totalBytes === 0], ["open", false]);
          assert.equal(found[0]?.license, model.info.license);
          assert.equal(model.info.license, name === "carded" ? "lfm1.0" : undefined, "its README tells");
          model.dispose();
        }
        const { format, license } = await inspect(at("org/carded"), options());
        assert.deepEqual([format, license], ["safetensors", "lfm1.0"]);
        assert.equal((await availability(at("org/carded"), options())).status, "downloadable");
        const pulled = await pull(at("org/carded"), kept);
        assert.deepEqual([pulled.file, pulled.license], ["model.safetensors", "lfm1.0"]);
        server.log.length = 0;
        (await load(at("org/carded"), kept)).dispose();
        assert.equal(asked("/repos/"), 1, "for the version; it was all there");
        assert.equal((await removeModel(pulled.id, { cacheDir: dir }))?.id, pulled.id);

        await assert.rejects(load(at("org/none"), options()), { name: "NetworkError", status, message: /org\/none on the hub/ });
        await assert.rejects(pull(at("org/none"), kept), { name: "NetworkError", status });
        await assert.rejects(load(at("org/mini-GGUF", ":Q8_0"), options()), { name: "NetworkError", status, message: /name the file/ });
        await assert.rejects(load(at("org/mini-GGUF", ":x.gguf"), options()), { name: "NetworkError", status: 404 });
        await assert.rejects(load("org/tiny@main", options()), { name: "NetworkError", status });
      }
      for (const fault of [{ token: "hf_RIGHT" }, { match: "api", status: 500 }]) {
        server.set(fault);
        server.log.length = 0;
        await assert.rejects(load(at("org/tiny"), options()), { name: "NetworkError", status: fault.status ?? 401 });
        assert.equal(asked("/resolve/"), 0, "that is no hub without a list");
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it("tells how far its headers have been read, those of a folder too", async () => {
    const sources = [`${server.hub}/org/mini/resolve/main/`, "org/mini@main", join("models", "lfm2-mini")];
    for (const source of sources.slice(0, pick({ gate: 1, full: 3 }))) {
      const events: LoadProgress[] = [];
      await inspect(source, { ...options(), dtype: "bf16", onProgress: (event) => events.push(event) });
      const texts = ["config.json", "tokenizer.json", "chat_template.jinja"].map(
        (file) => statSync(join("models", "lfm2-mini", file)).size,
      );
      checkHeaders(
        events.filter((event) => event.phase !== "open"),
        ["config.json", "model.safetensors", "tokenizer.json"],
      );
      const total = events.at(-1)?.totalBytes ?? 0;
      assert.ok(total > texts.reduce((sum, bytes) => sum + bytes, 0) && total < 2e6, `${total} bytes`);
    }
  });

  /** Reads that never go back and never exceed what is known to be read, and the end. */
  function checkHeaders(events: readonly LoadProgress[], files: readonly string[]): void {
    for (const [i, { phase, loadedBytes, totalBytes }] of events.entries()) {
      assert.equal(phase, i === events.length - 1 ? "ready" : "read");
      assert.ok(loadedBytes <= totalBytes && loadedBytes >= (events[i - 1]?.loadedBytes ?? 0), `${loadedBytes} of ${totalBytes}`);
    }
    assert.equal(events.at(-1)?.loadedBytes, events.at(-1)?.totalBytes);
    const read = new Set(events.map(({ file }) => file));
    assert.ok(
      files.every((file) => read.has(file)),
      [...read].join(),
    );
  }

  it("is asked for again when its list does not come", async () => {
    server.set({ match: "api", status: 503, times: 2 });
    (await load("org/tiny", options())).dispose();
    server.set({ match: "api", status: 503 });
    await assert.rejects(load("org/tiny", options()), { name: "NetworkError" });
  });
});

describe("a hub's listing that a stranger wrote", () => {
  const COMMIT = "c".repeat(40);
  const file = { type: "file", path: "x-Q8_0.gguf", size: 10, oid: "a".repeat(40) };

  /** A hub that answers with these. */
  async function open(tree: unknown, { link, sha = COMMIT }: { link?: string; sha?: unknown } = {}): Promise<string> {
    const asked: string[] = [];
    const answer = (text: string, headers: Record<string, string> = {}): FetchResponse => {
      const { status, headers: sent, body } = new Response(text, { headers });
      return { status, url: "", headers: sent, body };
    };
    const network = networkTo(
      "http://hub.test",
      {},
      {
        fetch: async (url) => {
          asked.push(url);
          if (asked.length > 50) assert.fail("asks for ever");
          if (url.includes("/revision/")) return answer(JSON.stringify({ sha }));
          return answer(typeof tree === "string" ? tree : JSON.stringify(tree), link === undefined ? {} : { link });
        },
      },
    );
    const { file: chosen } = await findHub(network, parseHubId("org/model")!, { dtype: "f32" });
    return chosen;
  }

  it("counts only what is a file with a plain name and a size", async () => {
    assert.equal(await open([file]), "x-Q8_0.gguf");
    for (const entry of [
      { ...file, path: "../x-Q8_0.gguf" },
      { ...file, path: "//evil.test/x-Q8_0.gguf" },
      { ...file, path: 5 },
      { ...file, size: -1 },
      { ...file, size: 2 ** 60 },
      { ...file, size: "10" },
      { ...file, type: "directory" },
      null,
      [],
      "x",
    ])
      await assert.rejects(open([entry]), (e) => e instanceof FormatError && e.code === "missing-file", JSON.stringify(entry));
  });

  it("is refused when it is no list, too long, too deep, or goes on elsewhere", async () => {
    for (const tree of [{}, "nonsense", "", "<!doctype html>", `${"[".repeat(100)}${"]".repeat(100)}`])
      await assert.rejects(open(tree), (e) => e instanceof FormatError, JSON.stringify(tree));
    await assert.rejects(open(Array(10_001).fill(file)), (e) => e instanceof FormatError && /at most 10000 files/.test(e.message));
    await assert.rejects(open(" ".repeat(5 << 20)), (e) => e instanceof NetworkError || e instanceof FormatError);
    for (const link of ['<http://evil.test/x>; rel="next"', '</api/models/org/other/tree/main>; rel="next"'])
      await assert.rejects(open([file], { link }), (e) => e instanceof FormatError && /another address/.test(e.message));
    await assert.rejects(
      open([file], { link: `</api/models/org/model/tree/${COMMIT}?cursor=1>; rel="next"` }),
      FormatError,
      "a listing without end",
    );
    for (const sha of [null, 5, "main", "../x", "C".repeat(40)]) await assert.rejects(open([file], { sha }), FormatError, String(sha));
  });
});
