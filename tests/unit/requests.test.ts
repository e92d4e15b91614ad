// No telemetry, and no request but the model's own: whatever leaves a process that loads, generates and chats is written down, and held against the list.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { Plain } from "./plain-server.ts";

const PRELOAD = pathToFileURL(resolve("tests/tools/watch-connections.mjs")).href;

describe("what leaves the process", () => {
  const dir = mkdtempSync(join(tmpdir(), "lfm2-requests-"));
  after(() => rmSync(dir, { recursive: true }));
  const log = join(dir, "log");

  /** @returns each connection, look-up and child of a run of Node, in its own words */
  async function leaving(args: readonly string[]): Promise<readonly string[]> {
    writeFileSync(log, "");
    const env: NodeJS.ProcessEnv = { PATH: process.env.PATH, WATCH_LOG: log, HF_HOME: join(dir, "hf"), HOME: dir };
    const child = spawn(process.execPath, ["--import", PRELOAD, ...args], { env, stdio: ["ignore", "ignore", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (text) => (stderr += text));
    const status = await new Promise((done) => child.on("close", done));
    assert.equal(status, 0, stderr);
    return readFileSync(log, "utf8").split("\n").filter(Boolean);
  }
  const program = (body: string): readonly string[] => [
    "--input-type=module",
    "-e",
    `import { availability, inspect, listModels, load, pull, removeModel } from "lfm2-wasm"; import { mini } from "lfm2-wasm/mini"; import { readFileSync } from "node:fs"; ${body}`,
  ];
  const use = `
    await model.generate("Tell me a story.", { maxTokens: 3 });
    const chat = model.chat({ system: "Be kind." });
    for await (const text of chat.stream("See https://example.org/x.gguf", { maxTokens: 3 }).textStream) text.length;
    model.dispose();`;

  it("is nothing where the model is here: the bundled one, a path, bytes, a File", async () => {
    const sources = ["mini", '"dist/mini.gguf"', 'readFileSync("dist/mini.gguf")', 'new Blob([readFileSync("dist/mini.gguf")])'];
    const loads = sources.map((source) => `{ const model = await load(${source}, { threads: 2 }); ${use} }`);
    assert.deepEqual(await leaving(program(`await inspect(mini); ${loads.join("\n")}`)), []);
  });

  it("is nothing from the command line either", async () => {
    for (const args of [
      ["generate", "-m", "dist/mini.gguf", "-p", "Hi", "-n", "2"],
      ["inspect", "dist/mini.gguf"],
    ])
      assert.deepEqual(await leaving([join("dist", "cli.js"), ...args]), [], args.join(" "));
  });

  describe("where the model is on a hub", () => {
    let server: BadServer;
    before(async () => {
      server = await serve({ "org/mini": { "mini.gguf": readFileSync("dist/mini.gguf") } });
    });
    after(() => server.close());
    const asksForModel = ({ url }: { readonly url: string }): boolean =>
      /^\/(?:api\/models\/|repos\/)?org\/mini(?:-GGUF)?[/?]/.test(`${url}/`);

    it("is what asks the hub for that model, and where the hub sends it", async () => {
      const went = await leaving(program(`const model = await load("org/mini", { endpoint: "${server.hub}" }); ${use}`));
      const own = new Set([server.hub, server.cdn].map((address) => `tcp ${new URL(address).host}`));
      assert.ok(went.length >= 2 && went.every((line) => own.has(line)), went.join(", "));
      assert.ok(server.log.length > 2 && server.log.every(asksForModel));
    });

    it("is the same for availability and pull, and nothing for listModels and removeModel", async () => {
      server.log.length = 0;
      const mark = `process.getBuiltinModule("node:fs").appendFileSync(process.env.WATCH_LOG, "mark\\n");`;
      const steps = [
        `await removeModel("org/mini");`, // which the test before may have left
        `await availability("org/mini", at);`,
        `await pull("org/mini", at);`,
        `if (!(await listModels()).some(({ id }) => id === "org/mini")) throw new Error("it is not listed"); await removeModel("org/mini");`,
      ];
      const went = await leaving(program(`const at = { endpoint: "${server.hub}" }; ${steps.join(mark)}`));
      const [before, asked, pulled, after] = went
        .join("\n")
        .split("mark")
        .map((lines) => lines.split("\n").filter(Boolean));
      assert.deepEqual([before, after], [[], []]);
      const own = new Set([server.hub, server.cdn].map((address) => `tcp ${new URL(address).host}`));
      assert.deepEqual(new Set([...(asked ?? []), ...(pulled ?? [])]), own); // the second may go on with the first one's connections
      assert.ok(server.log.length > 2 && server.log.every(asksForModel));
    });
  });

  it("is what asks for the file where the model is at a plain address", async () => {
    const plain = new Plain();
    const base = await plain.start();
    try {
      plain.files.set("/models/mini.gguf", { bytes: readFileSync("dist/mini.gguf"), etag: '"one"' });
      const source = JSON.stringify(`${base}/models/mini.gguf`);
      const went = await leaving(
        program(`await availability(${source}); await inspect(${source}); const model = await load(${source}); ${use} await listModels();`),
      );
      assert.deepEqual([new Set(went), plain.paths], [new Set([`tcp ${new URL(base).host}`]), new Set(["/models/mini.gguf"])]);
    } finally {
      await plain.close();
    }
  });

  it("would be seen if it were something else", async () => {
    const other = createServer((_, res) => res.end("ok"));
    await new Promise<void>((done) => void other.listen(0, "127.0.0.1", done));
    const { port } = other.address() as AddressInfo;
    const address = `http://127.0.0.1:${port}/`;
    const ways: readonly (readonly [string, string])[] = [
      [`tcp 127.0.0.1:${port}`, `await (await fetch("${address}")).text();`],
      [`tcp localhost:${port}`, `await fetch("http://localhost:${port}/").catch(() => {});`],
      ["dns example.invalid", `await (await import("node:dns")).promises.lookup("example.invalid").catch(() => {});`],
      [
        "udp send",
        `const s = (await import("node:dgram")).createSocket("udp4"); await new Promise((r) => s.send("x", ${port}, "127.0.0.1", r)); s.close();`,
      ],
      ["child node", `(await import("node:child_process")).spawnSync("node", ["--version"]);`],
      [
        `tcp 127.0.0.1:${port}`,
        `const { Worker } = await import("node:worker_threads"); await new Promise((r) => new Worker('fetch("${address}")', { eval: true }).on("exit", r));`,
      ],
    ];
    const went = await leaving(program(ways.map(([, body]) => `{ ${body} }`).join("\n")));
    for (const [line] of ways) assert.ok(went.includes(line), `${line} in ${went}`);
    assert.equal(went.filter((line) => line === `tcp 127.0.0.1:${port}`).length, 2, "a worker's too");
    other.closeAllConnections();
    other.close();
  });
});
