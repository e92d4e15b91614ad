// `lfm2 perplexity`: the figure of a text against logits summed here, from a file and from stdin, with the bar and Ctrl-C on a terminal.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "lfm2-wasm";
import { needPython } from "./python.ts";

const FOLDER = "models/lfm2-mini";
const TEXT = "Once upon a time there was a fox. It lived in the woods, and it liked to run.\n";

describe("lfm2 perplexity", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-perplexity-"));
  });
  after(() => rmSync(dir, { recursive: true }));

  const file = (name: string, content: string | Uint8Array): string => {
    writeFileSync(join(dir, name), content);
    return join(dir, name);
  };
  const run = (args: readonly string[], input = "") => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/cli.js", "perplexity", ...args], { input, encoding: "utf8" });
    return { code: status, stdout, stderr };
  };

  it("tells what the model's logits say of a file, for each type of weights", async () => {
    const path = file("own.txt", TEXT);
    const losses: number[] = [];
    for (const dtype of ["bf16", "q4"] as const) {
      using model = await load(FOLDER, { dtype });
      const inputIds = [1, ...model.tokenizer.encode(TEXT)];
      const { data, dims } = (await model.forward({ inputIds })).logits;
      const [, T = 0, V = 0] = dims;
      let surprise = 0;
      for (let t = 0; t + 1 < T; t++) {
        const row = data.subarray(t * V, (t + 1) * V);
        surprise += Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - row[inputIds[t + 1]!]!;
      }
      const wanted = surprise / (T - 1);
      const { code, stdout, stderr } = run([path, "--json", "-m", FOLDER, "--dtype", dtype]);
      assert.deepEqual([code, stderr], [0, ""]);
      const { perplexity, loss, tokens, model: about } = JSON.parse(stdout);
      assert.ok(Math.abs(loss - wanted) < 1e-5, `${dtype}: ${loss}, expected ${wanted}`);
      assert.ok(Math.abs(perplexity - Math.exp(wanted)) < 1e-3);
      assert.equal(tokens, T - 1);
      assert.deepEqual(about.dtypes, [dtype]);
      losses.push(loss);
      if (dtype === "bf16") continue;
      const plain = run(["-m", FOLDER, "--dtype", dtype, path]);
      assert.match(plain.stdout, new RegExp(`^  perplexity +${perplexity.toFixed(4)}\n  loss +${loss.toFixed(5)} nats a token\n`));
    }
    assert.notEqual(losses[0], losses[1]);
  });

  it("reads stdin for -, and windows as they are asked for", async () => {
    using model = await load(FOLDER);
    const { model: _, ...figures } = JSON.parse(run(["-", "--json", "-m", FOLDER, "--window", "12", "--stride", "3"], TEXT).stdout);
    assert.deepEqual(figures, await model.perplexity(TEXT, { contextTokens: 12, stride: 3 }));
    assert.notEqual(figures.loss, (await model.perplexity(TEXT)).loss);
  });

  it("says what is wrong with the line, the file or the text", () => {
    const cases: readonly (readonly [code: number, message: RegExp, args: readonly string[]])[] = [
      [2, /perplexity expects one file, or - for stdin, got 2/, ["a", "b"]],
      [2, /perplexity expects a file of text, got .*nothing.*ENOENT/, [join(dir, "nothing")]],
      [2, /expects text in UTF-8/, [file("bytes", Uint8Array.of(0x61, 0xff))]],
      [1, /stride: expected a whole number from 1 to 2047, got 0/, ["-", "--stride", "0"]],
    ];
    for (const [code, message, args] of cases) {
      const got = run(args, TEXT);
      assert.deepEqual([got.code, got.stdout], [code, ""]);
      assert.match(got.stderr, message);
      assert.equal(got.stderr.trim().split("\n").length, 1, got.stderr);
    }
    assert.match(run(["-"], "").stderr, /perplexity: expected a text of two tokens at least, got 1/);
  });

  it("draws a bar on a terminal, and ends at Ctrl-C with 130", function () {
    needPython(this);
    const path = file("long.txt", TEXT.repeat(5000));
    const { status, stdout, stderr } = spawnSync("python3", ["-c", PTY, process.execPath, "dist/cli.js", "perplexity", path], {
      env: { ...process.env, TERM: "xterm" },
      encoding: "utf8",
    });
    assert.deepEqual([status, stderr], [130, ""], stdout);
    assert.match(stdout, /reading [█░]{24} [\d,]+ of [\d,]{7,} tokens, \d+ tokens\/s/);
    assert.doesNotMatch(stdout, /perplexity +\d/);
  });
});

/** Presses Ctrl-C when the bar is there, and passes on what was shown. */
const PTY = `
import os, pty, select, signal, sys, time
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
end = time.time() + 60
isStopped = False
while time.time() < end:
    if not isStopped and "tokens/s" in seen.decode("utf8", "replace"):
        os.write(fd, b"\\x03")
        isStopped = True
    if not select.select([fd], [], [], 0.05)[0]: continue
    try: data = os.read(fd, 65536)
    except OSError: data = b""
    if not data: break
    seen += data
else:
    os.kill(pid, signal.SIGKILL)
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;
