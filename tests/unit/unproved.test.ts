// A hub's files without a checksum: they load, and that they were not proved is told; nothing is kept that a cache could not know again.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LoadOptions, load, pull } from "lfm2-wasm";
import { checkpointFolder } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { serve } from "../tools/bad-server.ts";
import { IMPATIENT } from "./network.ts";
import { Plain } from "./plain-server.ts";

const COMMIT = "c".repeat(40);
const names = ["config.json", "model.safetensors"] as const;
const files = new Map(names.map((name) => [name, readFileSync(join(checkpointFolder("tiny-gqa3"), name))]));
const UNPROVED = /^load: model\.safetensors: the hub tells no checksum of it/;

describe("a hub's file without a checksum", () => {
  const plain = new Plain();
  const dir = mkdtempSync(join(tmpdir(), "lfm2-unproved-"));
  let endpoint: string;
  before(async () => {
    endpoint = await plain.start();
    for (const [name, bytes] of files) plain.files.set(`/org/tiny/resolve/${COMMIT}/${name}`, { bytes, etag: `"${name}"` });
  });
  after(async () => {
    await plain.close();
    rmSync(dir, { recursive: true });
  });
  const options = (more: LoadOptions = {}): LoadOptions => ({ endpoint, network: IMPATIENT, cache: false, ...more });
  const warningsOf = async (source: string, more?: LoadOptions): Promise<readonly string[]> => {
    const model = await load(source, options(more));
    model.dispose();
    return model.info.warnings;
  };
  const only = (warnings: readonly string[]): void => {
    assert.equal(warnings.length, 1, warnings.join("\n"));
    assert.match(warnings[0] ?? "", UNPROVED);
  };

  it("is named where the hub does not list it, by load, pull and the command line, and from the cache", async () => {
    const id = `org/tiny@${COMMIT}`;
    only(await warningsOf(id));
    const cache = { dir };
    only((await pull(id, options({ cache }))).warnings);
    only(await warningsOf(id, { cache }));
    if (!pick({ gate: false, full: true })) return;
    const env = { ...process.env, HF_ENDPOINT: endpoint };
    for (const args of [
      ["pull", id],
      ["perplexity", "-m", id, "package.json"],
    ]) {
      const child = spawn(process.execPath, [join("dist", "cli.js"), ...args, "--cache-dir", dir], {
        env,
        stdio: ["ignore", "ignore", "pipe"],
      });
      let stderr = "";
      child.stderr.on("data", (text) => (stderr += text));
      await new Promise((done) => child.on("close", done));
      assert.match(stderr, /^lfm2: load: model\.safetensors: the hub tells no checksum/m, args.join(" "));
    }
  });

  it("is named where the hub lists it so, and not pulled", async () => {
    const list = [...files].map(([path, { length }]) => ({ type: "file", path, size: length }));
    const json = (value: unknown): { bytes: Uint8Array; etag: string } => ({ bytes: Buffer.from(JSON.stringify(value)), etag: '"j"' });
    plain.files.set("/api/models/org/tiny/revision/main", json({ sha: COMMIT }));
    plain.files.set(`/api/models/org/tiny/tree/${COMMIT}`, json(list));
    only(await warningsOf("org/tiny@main"));
    await assert.rejects(pull("org/tiny@main", options({ cache: { dir } })), {
      ...{ name: "StorageError", code: "no-version" },
      message: /^\[lfm2\] pull: config\.json: expected a server that tells its checksum/,
    });
  });

  it("is not what a hub lists with one, or what tells it with its answer, or lies at a plain address", async () => {
    const hub = await serve({ "org/tiny": Object.fromEntries(files) });
    try {
      assert.deepEqual(await warningsOf("org/tiny", { endpoint: hub.hub }), []);
      const [commit] = hub.log.flatMap(({ url }) => /resolve\/(\w{40})/.exec(url)?.[1] ?? []);
      hub.set({ match: "api", status: 404 });
      assert.deepEqual(await warningsOf(`org/tiny@${commit}`, { endpoint: hub.hub }), []);
    } finally {
      await hub.close();
    }
    assert.deepEqual(await warningsOf(`${endpoint}/org/tiny/resolve/${COMMIT}/`), []);
  });
});
