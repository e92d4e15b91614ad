// A model over a network that misbehaves, in each form in which files come: one file, shards with their index, a split GGUF, one GGUF. The right tokens or the right error, and nothing of a damaged file is kept.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import type { Lfm2Error } from "../../src/errors.ts";
import { type Files, validGguf, validRepo, validSharded, validSplit } from "../bad-files/catalogue.mjs";
import { pick } from "../scale.ts";
import { type BadServer, type Fault, SCENARIOS, type Scenario, serve } from "../tools/bad-server.ts";
import { IMPATIENT, STALL_MS, untilQuiet } from "./network.ts";

const FORMS: Readonly<Record<string, Files>> = {
  one: validRepo(),
  shards: validSharded(),
  split: validSplit(),
  gguf: { "model.gguf": validGguf() },
};
/** Bytes of a piece, an eighth of the window. */
const PIECE = 65_536;
/** What the gate leaves to unit/http and to the full run: forms in one file, and most scenarios. */
const LAYOUTS = Object.entries(FORMS).filter(([, files]) =>
  Object.keys(files).some((name) => pick({ gate: /-of-/, full: /./ }).test(name)),
);
const NAMES = pick({ gate: ["flip-a-bit-always", "file-changes"], full: Object.keys(SCENARIOS) });

type Result = readonly number[] | Lfm2Error;

describe("a model in several files over the network", () => {
  let server: BadServer;
  let root: string;
  let count = 0;
  const right = new Map<string, Result>();

  const bytesOf = (files: Files): [string, Uint8Array][] =>
    Object.entries(files).map(([name, bytes]) => [name, bytes instanceof Uint8Array ? bytes : assert.fail(name)]);

  async function start(layout: string, fault: Scenario | Fault, cache: object | false): Promise<Result> {
    server.set(fault);
    server.log.length = 0;
    const isSilent = fault.stall !== undefined || fault.trickleHeaders === true;
    const network = { ...IMPATIENT, windowBytes: 8 * PIECE, ...(isSilent ? { stallMs: STALL_MS } : {}) };
    try {
      const model = await load(`org/${layout}`, { endpoint: server.hub, network, cache: cache as false, threads: 1 });
      const { tokens } = await model.generate("the cat", { maxTokens: 5, temperature: 0 });
      model.dispose();
      return [...tokens];
    } catch (error) {
      return error as Lfm2Error;
    } finally {
      await untilQuiet(server);
    }
  }

  /** Files that a cache holds under the name of their content, and those that are on their way. */
  const kept = (dir: string): string[] =>
    readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((path) => /[/\\]blobs[/\\]/.test(path));

  before(async () => {
    root = mkdtempSync(join(tmpdir(), "lfm2-layouts-"));
    server = await serve(Object.fromEntries(LAYOUTS.map(([name, files]) => [`org/${name}`, Object.fromEntries(bytesOf(files))])));
    for (const [layout] of LAYOUTS) right.set(layout, await start(layout, {}, false));
    for (const result of right.values()) assert.ok(!(result instanceof Error), String(result));
  });
  after(async () => {
    await server.close();
    rmSync(root, { recursive: true, force: true });
  });

  for (const [layout] of LAYOUTS)
    for (const name of NAMES) {
      const scenario = SCENARIOS[name] ?? assert.fail(name);
      it(`${layout}, ${name}: ${scenario.good}`, async () => {
        const dir = join(root, `${count++}`);
        const result = await start(layout, scenario.delay === undefined ? scenario : { delay: 50 }, { dir });
        if (!(result instanceof Error)) {
          assert.notEqual(scenario.good, "no");
          assert.deepEqual(result, right.get(layout));
          return;
        }
        assert.notEqual(scenario.good, "yes", String(result));
        assert.ok(["NetworkError", "FormatError"].includes(result.name), String(result));
        // whatever came of it: the next start is as if nothing had happened
        assert.deepEqual(await start(layout, {}, { dir }), right.get(layout));
      });
    }

  it("tell of damage as damage, whatever a parser takes it for, and keep nothing of it", async () => {
    for (const [layout, files] of LAYOUTS) {
      const weights = bytesOf(files).filter(([name]) => /\.(?:gguf|safetensors)$/.test(name));
      const most = Math.max(...weights.map(([, bytes]) => bytes.length));
      const positions = pick({ gate: 2, full: 200 });
      for (let i = 0; i < positions; i++) {
        // denser where the headers lie
        const flip = Math.floor((most - 1) * (i / positions) ** 2);
        const dir = join(root, `${count++}`);
        const error = await start(layout, { flip, match: "cdn" }, { dir });
        const isDamage = error instanceof Error && error.name === "FormatError" && error.code === "checksum";
        assert.ok(isDamage, `${layout}, byte ${flip}: ${error}`);
        const [, sha256 = assert.fail()] = /of sha256 ([0-9a-f]{64})/.exec(error.message) ?? [];
        assert.ok(!kept(dir).some((path) => path.includes(sha256)), `${layout}, byte ${flip}: ${kept(dir)}`);
      }
    }
  });

  it("go on where the connection drops, at every 64 KiB and a byte before and behind", async () => {
    for (const [layout, files] of LAYOUTS) {
      const most = Math.max(...bytesOf(files).map(([, bytes]) => bytes.length));
      const edges = Array.from({ length: Math.floor(most / PIECE) + 1 }, (_, i) => i * PIECE);
      const drops = pick({ gate: [PIECE + 1], full: edges.flatMap((at) => [at - 1, at, at + 1]) }).filter((at) => at >= 0);
      for (const drop of drops) {
        // an answer that ends there: the whole file's, where ranges are not served, or the range's that holds the byte
        const inRange = { drop: drop % PIECE, after: Math.floor(drop / PIECE), times: 2 };
        for (const fault of [{ drop, times: 2, ignoreRange: true }, inRange])
          assert.deepEqual(await start(layout, fault, false), right.get(layout), `${layout}, ${JSON.stringify(fault)}`);
      }
    }
  });
});
