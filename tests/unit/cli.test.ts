// The command line as a user meets it: the built dist/cli.js in a process of its own, on the bundled model.
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { type Inspection, load } from "lfm2-wasm";
import { ggufFile } from "../golden/support.ts";
import { needPython } from "./python.ts";

const FOLDER = "models/lfm2-mini";
/** The examples were made in f32. */
const F32 = ["-m", FOLDER, "--dtype", "f32"];
/** So hot that the end comes late: some thousand tokens. */
const ENDLESS = ["--temp", "100", "--seed", "3"];

interface Example {
  readonly messages?: readonly { readonly role: string; readonly content: string }[];
  readonly prompt: string;
  readonly prompt_ids: readonly number[];
  readonly output: string;
  readonly output_ids: readonly number[];
}

/** Those that are conversations; the others are bare text. */
const examples = (JSON.parse(readFileSync(`${FOLDER}/examples.json`, "utf8")) as { examples: Example[] }).examples.filter(
  (e) => e.messages,
);
const roles = (example: Example): string => (example.messages ?? []).map(({ role }) => role).join(" ");
const single = examples.filter((example) => roles(example) === "user");
const [hello, who] = single as [Example, Example];
const question = (example: Example): string => example.messages?.at(-1)?.content ?? "";
const answer = (example: Example): string => example.output.replace("<|im_end|>", "");

interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What is still running when a test fails. */
const children = new Set<ChildProcess>();
after(() => {
  for (const child of children) child.kill("SIGKILL");
});

function start(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): { child: ChildProcess; outcome: Promise<Outcome>; seen: { stdout: string; stderr: string } } {
  const child = spawn(process.execPath, ["dist/cli.js", ...args], { env: { ...process.env, ...env }, stdio: "pipe" });
  children.add(child);
  child.on("close", () => children.delete(child));
  const seen = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (seen.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (seen.stderr += text));
  child.stdin.on("error", () => {});
  const outcome = new Promise<Outcome>((resolve) => child.on("close", (code, signal) => resolve({ code, signal, ...seen })));
  return { child, outcome, seen };
}

async function lfm2(args: readonly string[], input = ""): Promise<Outcome> {
  const { child, outcome } = start(args);
  child.stdin?.end(input);
  return outcome;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail(`waited for ${what}`);
}

describe("lfm2 generate", () => {
  it("streams the answer, and only the answer, to stdout", async () => {
    for (const args of [["generate", "-p", question(hello)], ["generate", ...question(hello).split(" ")], [question(hello)]]) {
      assert.deepEqual(await lfm2([...args, ...F32]), { code: 0, signal: null, stdout: `${answer(hello)}\n`, stderr: "" });
    }
  });

  it("takes the prompt from stdin", async () => {
    const { stdout, code } = await lfm2(["generate", ...F32], `${question(who)}\n`);
    assert.deepEqual([code, stdout], [0, `${answer(who)}\n`]);
  });

  it("answers with the bundled model when none is named", async () => {
    const { stdout, code, stderr } = await lfm2(["-p", question(hello)]);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /^\S.*\n$/s);
  });

  it("feeds a raw prompt as it is, and puts a system message before another", async () => {
    const tokens = async (args: readonly string[]) => JSON.parse((await lfm2(["generate", "--json", ...args, ...F32])).stdout);
    const raw = await tokens(["--raw", "-p", hello.prompt]);
    assert.deepEqual([raw.usage.inputTokens, raw.tokens], [hello.prompt_ids.length, hello.output_ids]);
    const system = await tokens(["--system", "Be kind.", "-p", question(hello)]);
    const same = await tokens([
      "--raw",
      "-p",
      hello.prompt.replace("<|im_start|>", "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>"),
    ]);
    assert.deepEqual([system.usage, system.tokens], [same.usage, same.tokens]);
    assert.ok(system.usage.inputTokens > raw.usage.inputTokens);
    assert.equal((await lfm2(["generate", "--raw", "--system", "x", "-p", "y"])).code, 2);
  });

  it("prints one object with --json", async () => {
    const { stdout, stderr, code } = await lfm2(["generate", "--json", "-p", question(hello), "--seed", "7", ...F32]);
    assert.deepEqual([code, stderr], [0, ""]);
    const reply = JSON.parse(stdout);
    assert.equal(reply.text, answer(hello));
    assert.deepEqual(reply.tokens, hello.output_ids);
    assert.equal(reply.finishReason, "stop");
    assert.deepEqual(reply.usage, { inputTokens: hello.prompt_ids.length, cachedTokens: 0, outputTokens: hello.output_ids.length });
    for (const name of ["prefillMs", "decodeMs", "firstTokenMs"]) assert.ok(reply.timings[name] >= 0, name);
    assert.equal(reply.seed, 7);
    assert.deepEqual(reply.model.dtypes, ["f32"]);
  });

  it("stops at --max-tokens and samples by seed", async () => {
    const args = [
      "generate",
      "--json",
      "-p",
      "Tell me a story about a fox.",
      "-n",
      "12",
      "--temp",
      "1.5",
      "--top-k",
      "40",
      "--top-p",
      "0.99",
      "--min-p",
      "0.001",
      ...F32,
    ];
    const reply = async (seed: string) => JSON.parse((await lfm2([...args, "--seed", seed])).stdout);
    const [one, again, two] = [await reply("1"), await reply("1"), await reply("2")];
    assert.equal(one.finishReason, "length");
    assert.equal(one.tokens.length, 12);
    assert.deepEqual(one.tokens, again.tokens);
    assert.notDeepEqual(one.tokens, two.tokens);
  });

  it("guesses tokens with --speculate, tells how many with --stats, and changes none", async () => {
    const greedy = ["generate", "--temp", "0", "--stats", "-p", "Repeat this: apple, pear, plum."];
    const plain = await lfm2(greedy);
    const guessed = await lfm2([...greedy, "--speculate"]);
    assert.deepEqual([guessed.code, guessed.stdout], [0, plain.stdout]);
    assert.doesNotMatch(plain.stderr, /guessed/);
    assert.match(guessed.stderr, /guessed +[1-9]\d* tokens, [1-9]\d* of them right/);
  });

  it("prints figures to stderr with --stats", async () => {
    const { stdout, stderr } = await lfm2(["generate", "--stats", "-p", question(hello), ...F32]);
    assert.equal(stdout, `${answer(hello)}\n`);
    for (const line of [
      /prefill .*tokens\/s/,
      /decode .*tokens\/s/,
      /first .*ms to the first token/,
      /memory .*MiB/,
      /model .*f32 weights.*seed \d+/,
    ])
      assert.match(stderr, line);
    // Not a terminal: no colours, no line that is written over.
    assert.ok(!stderr.includes("\u001b") && !stderr.includes("\r"));
  });

  it("ends with 2 when the command line is wrong, and says how", async () => {
    const wrong: readonly (readonly [RegExp, readonly string[]])[] = [
      [/unknown option --frob/, ["generate", "--frob", "x"]],
      [/unknown option -z/, ["-z", "hello"]],
      [/--seed expects a whole number, got "abc"/, ["generate", "-p", "x", "--seed", "abc"]],
      [/--max-tokens expects a whole number, got "1.5"/, ["generate", "-p", "x", "-n", "1.5"]],
      [/--temperature expects a number, got "warm"/, ["generate", "-p", "x", "--temp", "warm"]],
      [/--dtype expects one of f32, bf16, f16, q8, q4, got "q5"/, ["generate", "-p", "x", "--dtype", "q5"]],
      [/--prompt expects a value/, ["generate", "--prompt"]],
      [/expected one prompt/, ["generate", "-p", "x", "words"]],
      [/expected a prompt/, ["generate"]],
      [/inspect expects one model/, ["inspect"]],
      [/chat expects options only/, ["chat", "hello"]],
    ];
    for (const [message, args] of wrong) {
      const { code, stdout, stderr } = await lfm2(args);
      assert.deepEqual([code, stdout], [2, ""], args.join(" "));
      assert.match(stderr, message);
      assert.equal(stderr.trim().split("\n").length, 1, stderr);
    }
  });

  it("ends with 1 and the sentence when the library refuses", async () => {
    for (const args of [
      ["-m", "no/such/file.gguf", "hi"],
      ["-p", "x", "--temp", "-1"],
      ["-p", "x", "--threads", "0"],
      ["inspect", "no/such/file.gguf"],
      ["chat", "-m", "package.json"],
    ]) {
      const { code, stdout, stderr } = await lfm2(args);
      assert.deepEqual([code, stdout], [1, ""], `${args.join(" ")}: ${stderr}`);
      assert.match(stderr, /^\[lfm2\] [^\n]*expected [^\n]*\.\n$/);
    }
  });

  it("stops at Ctrl-C with 130 and keeps what it has said", async () => {
    const { child, outcome, seen } = start(["generate", "-p", "Tell me a story about a fox.", ...ENDLESS, ...F32]);
    child.stdin?.end();
    await until(() => seen.stdout.length > 10, "the first words");
    child.kill("SIGINT");
    const { code, stdout, stderr } = await outcome;
    assert.deepEqual([code, stderr], [130, ""]);
    assert.ok(stdout.endsWith("\n"));
  });

  it("ends quietly when nobody reads on", async () => {
    const { child, outcome, seen } = start(["generate", "-p", "Tell me a story about a fox.", ...ENDLESS, ...F32]);
    child.stdin?.end();
    await until(() => seen.stdout.length > 0, "the first words");
    child.stdout?.destroy();
    const { code, signal, stderr } = await outcome;
    assert.deepEqual([code, signal, stderr], [0, null, ""]);
  });

  it("explains itself", async () => {
    assert.match((await lfm2(["--version"])).stdout, /^\d+\.\d+\.\d+\n$/);
    for (const args of [["--help"], ["-h"], ["help"]])
      assert.match((await lfm2(args)).stdout, /lfm2 chat .*\n.*lfm2 generate .*\n.*lfm2 inspect/);
    const { stdout } = await lfm2(["generate", "--help"]);
    for (const option of [
      "-m, --model MODEL",
      "-p, --prompt TEXT",
      "-n, --max-tokens N",
      "-c, --context N",
      "-t, --threads N",
      "--temp, --temperature X",
      "--top-k",
      "--top-p",
      "--min-p",
      "--seed",
      "--system",
      "--dtype",
      "--json",
      "--raw",
      "--stats",
    ]) {
      assert.ok(stdout.includes(option), option);
    }
  });
});

describe("npm start", () => {
  it("runs the command with the words given, and passes its exit code on", () => {
    const start = (...args: string[]) => spawnSync(process.execPath, ["scripts/start.mjs", ...args], { input: "", encoding: "utf8" });
    assert.equal(start(...F32, question(hello)).stdout, `${answer(hello)}\n`);
    assert.equal(start("--frob").status, 2);
    assert.deepEqual([start().status, start().stdout], [0, ""], "a chat in which nothing is said");
  });
});

describe("lfm2 inspect", () => {
  it("describes a folder and a GGUF", async () => {
    for (const [path, format, dtype] of [
      [FOLDER, "safetensors", "BF16"],
      ["dist/mini.gguf", "gguf", "Q8_0"],
    ] as const) {
      const { code, stdout, stderr } = await lfm2(["inspect", path]);
      assert.deepEqual([code, stderr], [0, ""]);
      assert.match(stdout, new RegExp(`^[^\\n]*${format}`));
      assert.match(stdout, /hiddenSize +256\n/);
      using model = await load(path);
      const { variant, threads } = model.info;
      assert.match(stdout, new RegExp(`\nhere it would run on the ${variant} kernels with ${threads} thread`));
      assert.match(stdout, new RegExp(`model\\.embed_tokens\\.weight +${dtype} +2048 × 256 +[\\d.]+ (K|M)iB\\n`));
      for (const row of ["f32", "bf16", "q8", "q4"]) assert.match(stdout, new RegExp(`\\n  ${row} +[\\d.]+ MiB`));
    }
  });

  it("says what blocks that no kernel multiplies by become", async () => {
    const path = ggufFile("tiny-quant", "Q4_K_M");
    const { stdout } = await lfm2(["inspect", path]);
    assert.match(stdout, /model\.embed_tokens\.weight +Q6_K +515 × 256 /);
    assert.match(stdout, /feed_forward\.w1\.weight +Q4_K +256 /);
    assert.match((await lfm2(["inspect", ggufFile("tiny-quant", "Q5_K_M")])).stdout, /feed_forward\.w1\.weight +Q5_K → q8 /);
    assert.match(stdout, /model\.embedding_norm\.weight +F32 +256 /);
    const { tensors } = JSON.parse((await lfm2(["inspect", path, "--json"])).stdout);
    const embedding = tensors.find(({ name }: { name: string }) => name === "model.embed_tokens.weight");
    assert.deepEqual([embedding.dtype, embedding.memoryDtype], ["Q6_K", "q6k"]);
  });

  it("lists the tensors that keep more bits than asked for, and why", async () => {
    for (const path of [FOLDER, "dist/mini.gguf"]) {
      const { tensors, config } = JSON.parse((await lfm2(["inspect", path, "--json"])).stdout) as Inspection;
      const kept = tensors.filter(({ keeps }) => keeps !== undefined);
      // two norms a layer, two more or the taps by its kind, the last norm
      const attention = config.layerTypes.filter((type) => type === "full_attention").length;
      const convolution = config.numHiddenLayers - attention;
      assert.equal(kept.length, 2 * config.numHiddenLayers + 2 * attention + convolution + 1);
      for (const { name, shape, keeps } of tensors) {
        assert.equal(keeps !== undefined, /norm\.weight$|\.conv\.conv\.weight$/.test(name), name);
        if (keeps)
          assert.deepEqual([keeps.dtype, /norm scales|taps/.exec(keeps.why)?.[0]], ["f32", shape.length > 1 ? "taps" : "norm scales"]);
      }
      const { stdout } = await lfm2(["inspect", path]);
      assert.match(stdout, new RegExp(`\\n +${convolution}  f32: a few taps a channel`));
      assert.match(stdout, new RegExp(`\\n +${kept.length - convolution}  f32: each weight of a norm`));
      assert.match(stdout, /model\.embedding_norm\.weight .* keeps f32\n/);
      assert.doesNotMatch(stdout, /embed_tokens\.weight .*keeps/);
    }
  });

  it("prints one object with --json", async () => {
    const { stdout } = await lfm2(["inspect", FOLDER, "--json"]);
    const { config, tensors, memory, tensorBytes } = JSON.parse(stdout);
    assert.equal(config.hiddenSize, 256);
    assert.deepEqual(tensors.find(({ name }: { name: string }) => name === "model.embed_tokens.weight")?.shape, [2048, 256]);
    assert.ok(tensorBytes > 1e6);
    const weights = new Map(memory.map(({ dtype, weightBytes }: { dtype: string; weightBytes: number }) => [dtype, weightBytes]));
    assert.ok(
      (weights.get("q4") as number) < (weights.get("q8") as number) && (weights.get("q8") as number) < (weights.get("f32") as number),
    );
  });
});

describe("lfm2 chat", () => {
  it("answers line by line over a pipe, with commands", async () => {
    const lines = [question(hello), "/stats", "/clear", question(who), "/nonsense", "", "/exit", question(hello)];
    const { code, stdout, stderr } = await lfm2(["chat", ...F32], `${lines.join("\n")}\n`);
    assert.equal(code, 0);
    assert.equal(stdout, `${answer(hello)}\n${answer(who)}\n`);
    assert.match(stderr, /decode .*tokens\/s/);
    assert.match(stderr, /reused +0 of \d+ prompt tokens so far; 0 of 1 prompts began as one before, 0 %\n/);
    assert.match(stderr, /Forgotten\.\n/);
    assert.match(stderr, /\/nonsense is no command/);
  });

  it("takes several lines between quotes and ends with its input", async () => {
    const { code, stdout, stderr } = await lfm2(["chat", ...F32], `"""\n${question(hello)}\n"""\n"""${question(who)}"""\n/stats\n`);
    assert.match(stderr, /reused +[1-9]\d* of \d+ prompt tokens so far; 1 of 2 prompts began as one before, 50 %\n/);
    const alone = await lfm2(["chat", ...F32], `${question(hello)}\n${question(who)}`);
    assert.equal(code, 0);
    assert.equal(stdout, alone.stdout);
    assert.ok(stdout.startsWith(`${answer(hello)}\n`));
  });

  it("opens without any argument", async () => {
    const { code, stdout } = await lfm2([], "/help\n");
    assert.deepEqual([code, stdout], [0, ""]);
  });

  it("goes on after a message that does not fit", async () => {
    const { code, stdout, stderr } = await lfm2(["chat", "-c", "40", ...F32], `${"word ".repeat(200)}\n${question(hello)}\n`);
    assert.equal(code, 1, "somebody reads the exit code only");
    assert.equal(stdout, `${answer(hello)}\n`);
    assert.match(stderr, /\[lfm2\] context: expected a prompt of at most 40 tokens/);
  });

  it("stops an answer at Ctrl-C and goes on; at the prompt it leaves with 130", async () => {
    const { child, outcome, seen } = start(["chat", ...ENDLESS, ...F32]);
    child.stdin?.write("Tell me a story about a fox.\n");
    await until(() => seen.stdout.length > 10, "the first words");
    child.kill("SIGINT");
    await until(() => seen.stderr.includes("(stopped)"), "the end of the answer");
    const said = seen.stdout.length;
    child.stdin?.write("And now?\n");
    await until(() => seen.stdout.length > said + 10, "the next answer");
    child.kill("SIGINT");
    await until(() => seen.stderr.split("(stopped)").length === 3, "the end of the second answer");
    await new Promise((resolve) => setTimeout(resolve, 100));
    child.kill("SIGINT");
    assert.deepEqual([(await outcome).code, (await outcome).signal], [130, null]);
  });

  it("edits lines on a terminal, where Ctrl-C is a key", async function () {
    needPython(this);
    const args = ["-c", PTY, process.execPath, "dist/cli.js", "chat", ...ENDLESS, ...F32];
    const child = spawn("python3", args, { env: { ...process.env, TERM: "xterm", NO_COLOR: "1" } });
    children.add(child);
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text: string) => (output += text));
    const code = await new Promise((resolve) => child.on("close", resolve));
    assert.deepEqual([code, output], [0, "left with 130\n"]);
  });
});

/** Plays the user: a message, Ctrl-C into the answer, text that Ctrl-C clears, Ctrl-C at the empty prompt. */
const PTY = `
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = ""
def wait(what, after=0):
    global seen
    end = time.time() + 20
    while what not in seen[after:]:
        if time.time() > end:
            sys.exit("waited for %r, saw %r" % (what, seen[-300:]))
        if select.select([fd], [], [], 0.1)[0]:
            try:
                seen += os.read(fd, 65536).decode("utf8", "replace")
            except OSError:
                sys.exit("ended early, saw %r" % seen[-300:])
    return seen.index(what, after) + len(what)
wait("> ")
os.write(fd, b"Tell me a story about a fox.\\r")
at = wait("\\n", wait("fox."))
while len(seen) < at + 20:
    seen += os.read(fd, 65536).decode("utf8", "replace")
os.write(fd, b"\\x03")
at = wait("(stopped)")
wait("> ", at)
os.write(fd, b"half a line")
at = wait("half a line", at)
os.write(fd, b"\\x03")
wait("> ", at)
if any(ord(c) < 32 and c not in "\\t\\r\\n\\x1b" for c in seen):
    sys.exit("control characters of the model reach the terminal: %r" % seen)
os.write(fd, b"/stats\\r")
at = wait("memory ", at)
wait("> ", at)
os.write(fd, b"\\x03")
while True:
    try:
        if not os.read(fd, 65536):
            break
    except OSError:
        break
print("left with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;
