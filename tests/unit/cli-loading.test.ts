// What the command shows while a model loads and while it reads a long prompt, with a terminal and without, and the memory that `inspect` foretells.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { load } from "lfm2-wasm";
import { needPython } from "./python.ts";

const GGUF = "dist/mini.gguf";

async function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const out = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (out.stderr += text));
  const code = await new Promise((resolve) => child.on("close", resolve));
  return { code, ...out };
}

/** A disk on which every read takes 12 ms: the bundled model, some 60 reads, is there after most of a second. */
const SLOW_DISK = `
import { open } from "node:fs/promises";
const handle = await open(process.execPath);
const prototype = Object.getPrototypeOf(handle);
const { read } = prototype;
prototype.read = async function (...args) {
  await new Promise((resolve) => setTimeout(resolve, 12));
  return read.apply(this, args);
};
await handle.close();
`;
const slowly = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(SLOW_DISK)}` };

/** A machine on which every step takes 60 ms more: a prompt of some chunks takes a while. */
const SLOW_STEPS = `
const { setImmediate: now } = globalThis;
globalThis.setImmediate = (callback) => void setTimeout(() => now(callback), 60);
`;

/** Runs a command on a terminal and passes on what it shows. */
const ON_TERMINAL = `
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
`;

describe("the progress bar", () => {
  const command = ["dist/cli.js", "generate", "-m", GGUF, "-n", "4", "Hello"];
  const clear = "\r\u001b[2K";

  it("shows on a terminal how far a load is, and is gone before the answer", async function () {
    needPython(this);
    const env = { ...slowly, NO_COLOR: "1", TERM: "xterm" };
    const plain = await run(process.execPath, command);
    const { code, stdout } = await run("python3", ["-c", ON_TERMINAL, process.execPath, ...command], env);
    assert.equal(code, 0, stdout);
    const lines = stdout.split(clear);
    const answer = lines.pop();
    assert.equal(answer?.replaceAll("\r\n", "\n"), plain.stdout, "the bar was wiped, then the answer came");
    const bars = lines.filter((line) => line !== "");
    assert.ok(bars.length >= 3, JSON.stringify(stdout));
    let last = 0;
    let rates = 0;
    for (const bar of bars) {
      const parsed = /^mini\.gguf (█*)(░*) (\d+) % of 2\.6 MiB(, [\d.]+ (?:KiB|MiB)\/s)?$/.exec(bar);
      assert.ok(parsed, JSON.stringify(bar));
      const [, full = "", empty = "", percent, rate] = parsed;
      if (rate) rates++; // of the first bytes nothing is known yet
      assert.equal(full.length + empty.length, 24);
      assert.ok(Math.abs(full.length / 24 - Number(percent) / 100) < 0.04, bar);
      assert.ok(Number(percent) >= last && Number(percent) <= 100, `${percent} % after ${last} %`);
      last = Number(percent);
    }
    assert.ok(last > 50, stdout);
    assert.ok(rates >= bars.length - 2, stdout);
  });

  it("shows how far a long prompt has been read, and is gone before the answer", async function () {
    needPython(this);
    const long = ["dist/cli.js", "generate", "-m", GGUF, "-n", "2", "Repeat this: apple, pear, plum. ".repeat(50)];
    const plain = await run(process.execPath, long);
    assert.deepEqual([plain.code, plain.stderr], [0, ""]);
    const NODE_OPTIONS = `--import data:text/javascript,${encodeURIComponent(SLOW_STEPS)}`;
    const { code, stdout } = await run("python3", ["-c", ON_TERMINAL, process.execPath, ...long], {
      NODE_OPTIONS,
      NO_COLOR: "1",
      TERM: "xterm",
    });
    assert.equal(code, 0, stdout);
    const lines = stdout.split(clear);
    assert.equal(lines.pop()?.replaceAll("\r\n", "\n"), plain.stdout, "the bar was wiped, then the answer came");
    const bars = lines.filter((line) => line.startsWith("reading"));
    assert.ok(bars.length >= 3, JSON.stringify(stdout));
    let last = 0;
    for (const bar of bars) {
      const parsed = /^reading (█*)(░*) ([\d,]+) of ([\d,]+) tokens, (\d+) tokens\/s$/.exec(bar);
      assert.ok(parsed, JSON.stringify(bar));
      const [, full = "", empty = "", ...counts] = parsed;
      const [processed = 0, total = 0, perSecond = 0] = counts.map((text) => Number(text.replace(",", "")));
      assert.equal(full.length + empty.length, 24);
      assert.ok(Math.abs(full.length / 24 - processed / total) < 0.04, bar);
      assert.ok(processed > last && processed < total && perSecond > 0, bar);
      last = processed;
    }
  });

  it("does not show without a terminal, and costs the answer nothing", async () => {
    const start = performance.now();
    const { code, stdout, stderr } = await run(process.execPath, command, slowly);
    assert.ok(performance.now() - start > 600, "the load takes long enough for a bar");
    assert.deepEqual([code, stderr], [0, ""]);
    assert.equal(stdout, (await run(process.execPath, command)).stdout);
  });
});

describe("lfm2 inspect --json: memory", () => {
  interface Estimate {
    readonly dtype: "as stored" | "f32" | "bf16" | "f16" | "q8" | "q4";
    readonly weightBytes: number;
    readonly byContext: readonly { readonly tokens: number; readonly bytes: number }[];
  }

  async function memory(...args: readonly string[]): Promise<readonly Estimate[]> {
    const { stdout, code } = await run(process.execPath, ["dist/cli.js", "inspect", GGUF, "--json", ...args]);
    assert.equal(code, 0);
    return (JSON.parse(stdout) as { memory: Estimate[] }).memory;
  }

  /** Keys and values of a token in 3 attention layers of 2 heads of 64 columns. */
  const values = 2 * 3 * 2 * 64;
  const PAGE = 32;

  it("grows with the context by the bytes of keys and values, page by page", async () => {
    const pages = (tokens: number): number => Math.ceil(tokens / PAGE);
    const [standard, f16, f32] = [await memory(), await memory("--kv-dtype", "f16"), await memory("--kv-dtype", "f32")];
    assert.deepEqual(standard, f16);
    assert.deepEqual(
      f16.map((e) => e.dtype),
      ["as stored", "f32", "bf16", "f16", "q8", "q4"],
    );
    for (const [i, { dtype, byContext }] of f16.entries()) {
      assert.deepEqual(
        byContext.map((c) => c.tokens),
        [512, 2048],
      );
      for (const [estimates, bytes] of [
        [f16, 2],
        [f32, 4],
      ] as const) {
        const [short, long] = estimates[i]!.byContext;
        assert.equal(long!.bytes - short!.bytes, (pages(2048) - pages(512)) * PAGE * values * bytes, dtype);
      }
      for (const [n, { tokens, bytes }] of byContext.entries()) {
        assert.equal(f32[i]!.byContext[n]!.bytes - bytes, pages(tokens) * PAGE * values * 2, `${dtype}, ${tokens} tokens, f32 over f16`);
      }
    }
  });

  it("is what a load then takes", async () => {
    for (const { dtype, weightBytes, byContext } of await memory()) {
      const model = await load(GGUF, dtype === "as stored" ? {} : { dtype });
      assert.equal(model.info.weightBytes, weightBytes, dtype);
      for (const { tokens, bytes } of byContext.slice(0, dtype === "as stored" ? 2 : dtype === "f32" ? 1 : 0)) {
        await model.forward({ inputIds: new Uint32Array(tokens).fill(20), logitsToKeep: 1 });
        const { memoryBytes } = await model.status();
        // linear memory grows by 1 MiB at least
        assert.ok(Math.abs(memoryBytes - bytes) <= 1 << 20, `${dtype}, ${tokens} tokens: ${memoryBytes} bytes, ${bytes} foretold`);
      }
      model.dispose();
    }
  });
});
