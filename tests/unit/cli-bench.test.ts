// `lfm2 bench` as a user meets it: the built dist/cli.js on the bundled model, in rounds so short that only the form of the figures counts.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pick } from "../scale.ts";

const SHORT = ["bench", "--rounds", "1", "--prefill", "40", "--decode", "8"];

const lfm2 = (args: readonly string[]) => spawnSync(process.execPath, ["dist/cli.js", ...args], { encoding: "utf8" });

interface Row {
  readonly kernel: string;
  readonly share: number;
  readonly us: number;
  readonly calls: number;
  readonly roof: number;
}

describe("lfm2 bench", () => {
  it("prints one object with --json", () => {
    const { stdout, stderr, status } = lfm2([...SHORT, "--context", "200", "--json", "--threads", "1"]);
    assert.deepEqual([status, stderr], [0, ""]);
    const result = JSON.parse(stdout);
    for (const name of ["prefill_tps", "decode_tps", "load_ms", "read_gbps", "decode_gbps", "decode_read_share", "kv_bytes_per_token"])
      assert.ok(result[name] > 0, name);
    assert.ok(result.ttft_ms > result.load_ms);
    assert.ok(result.memory_bytes > result.weight_bytes && result.weight_bytes > 2e6);
    assert.ok(result.peak_bytes > result.baseline_bytes && result.baseline_bytes > 1e7);
    assert.deepEqual([result.prefill, result.decode, result.context, result.rounds, result.warm_up], [40, 8, 200, 1, 16]);
    assert.deepEqual([result.threads, result.kv_dtype, result.dtypes], [1, "f16", ["q8", "q4"]]);
    assert.equal(result.profile, undefined);
  });

  it("warms up where a prompt leaves no room for it; every round fits that ends where the context does", () => {
    if (!pick({ gate: false, full: true })) return; // prompts as long as the bundled model takes
    const { stdout, stderr, status } = lfm2([
      "bench",
      "--rounds",
      "5",
      "--prefill",
      "2047",
      "--context",
      "1919",
      "--decode",
      "128",
      "--json",
    ]);
    assert.deepEqual([status, stderr], [0, ""]);
    const result = JSON.parse(stdout);
    assert.deepEqual([result.warm_up, result.context, result.rounds], [16, 1919, 5]);
    assert.ok(result.decode_tps > 0 && result.prefill_tps > 0);
  });

  it("runs what the options name", () => {
    const { stdout } = lfm2([...SHORT, "-m", "models/lfm2-mini", "--dtype", "bf16", "--kv-dtype", "f32", "--variant", "plain", "--json"]);
    const result = JSON.parse(stdout);
    assert.deepEqual([result.dtypes, result.kv_dtype, result.variant], [["bf16"], "f32", "plain"]);
  });

  it("tells people", () => {
    const { stdout, status } = lfm2(SHORT);
    assert.equal(status, 0);
    assert.match(
      stdout,
      /^model .*\nmachine .*\nprefill +[\d.]+ tokens\/s, 40 tokens\ndecode +[\d.]+ tokens\/s, 8 tokens from context 0 on\n/,
    );
    assert.match(stdout, /\nmemory .*weights 2\.6 MiB\n$/);
  });

  it("profiles kernel by kernel, as a table, as JSON and as a picture", () => {
    const dir = mkdtempSync(join(tmpdir(), "lfm2-bench-"));
    try {
      const svg = join(dir, "profile.svg");
      const { stdout, status } = lfm2([...SHORT, "--svg", svg, "--json", "--threads", "1"]);
      assert.equal(status, 0);
      const { profile } = JSON.parse(stdout) as { profile: Record<"prefill" | "decode", { us: number; kernels: Row[]; kinds: Row[] }> };
      for (const { us, kernels, kinds } of Object.values(profile)) {
        for (const rows of [kernels, kinds]) {
          assert.ok(Math.abs(rows.reduce((sum, r) => sum + r.share, 0) - 1) < 1e-6);
          assert.ok(Math.abs(rows.reduce((sum, r) => sum + r.us, 0) - us) < 1e-6 * us);
          assert.deepEqual(
            rows,
            rows.toSorted((a, b) => b.us - a.us),
          );
        }
        assert.ok(kernels.length > kinds.length);
        const matmul = kinds.find((r) => r.kernel === "matmul q4");
        assert.ok(matmul && matmul.roof > 0 && matmul.roof < Number.POSITIVE_INFINITY, JSON.stringify(matmul));
      }
      assert.equal(profile.decode.kinds.find((r) => r.kernel === "gather")?.calls, 1);
      const picture = readFileSync(svg, "utf8");
      assert.match(picture, /^<svg [^>]*>\n[\s\S]*<\/svg>\n$/);
      const bars = profile.decode.kernels.length + profile.prefill.kernels.length;
      assert.equal(picture.match(/<rect class="b"/g)?.length, bars);
      assert.ok(!picture.includes("NaN"));
      const table = lfm2([...SHORT, "--profile", "--threads", "1"]).stdout;
      assert.match(table, /\ndecode, one token, .* calls +µs +of step +GB\/s +GMAC\/s +of roof\n/);
      assert.match(table, /\nmatmul q4 {2}ffn down \(256, 512\) +6 /);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it("refuses what it cannot measure", () => {
    for (const [args, message] of [
      [["--prefill", "0"], /--prefill expects a whole number of at least 1, got 0/],
      [["--decode", "x"], /--decode expects a whole number, got "x"/],
      [["--context", "3000"], /the model's context of 2048 tokens is too short for 3129/],
      [["--variant", "fast"], /--variant expects one of relaxed, plain, got "fast"/],
      [["word"], /bench expects options only/],
    ] as const) {
      const { status, stderr, stdout } = lfm2(["bench", ...args]);
      assert.deepEqual([status, stdout], [2, ""]);
      assert.match(stderr, message);
    }
  });

  it("ends at Ctrl-C", async () => {
    const child = spawn(process.execPath, ["dist/cli.js", "bench", "--rounds", "1000"], { stdio: "pipe" });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk;
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    child.kill("SIGINT");
    assert.deepEqual([await ended, text], [130, ""]);
  });
});
