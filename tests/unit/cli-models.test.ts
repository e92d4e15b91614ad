// The commands about downloaded models: pull, list, remove, and inspect of a model on a hub; with a terminal and without, interrupted and gone on with.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkpointFolder } from "../golden/support.ts";
import { pick } from "../scale.ts";
import { type BadServer, serve } from "../tools/bad-server.ts";
import { needPython } from "./python.ts";

const mini = readFileSync("dist/mini.gguf");

/** Runs a command on a terminal, types Ctrl-C after so many seconds (0: never), passes on what it shows. */
const ON_TERMINAL = `
import fcntl, os, pty, select, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
stop = float(sys.argv[1])
start = time.time()
while True:
    if stop and time.time() - start > stop:
        os.write(fd, b"\\x03")
        stop = 0
    if not select.select([fd], [], [], 0.05)[0]: continue
    try: data = os.read(fd, 65536)
    except OSError: data = b""
    if not data: break
    sys.stdout.buffer.write(data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

describe("the commands about downloaded models", () => {
  let server: BadServer;
  let dir: string;
  let where: readonly string[];
  before(async () => {
    const card = "---\nlicense: other\nlicense_name: lfm1.0\n---\n";
    const tiny = checkpointFolder("tiny-gqa3");
    const folder = Object.fromEntries(readdirSync(tiny).map((name) => [name, readFileSync(join(tiny, name))]));
    server = await serve({
      "org/mini": { "mini.gguf": mini },
      "org/none": { "README.md": "hello" },
      "org/folder": { ...folder, "README.md": card },
    });
  });
  after(() => server.close());
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "lfm2-cli-models-"));
    where = ["--cache-dir", dir];
    server.set({});
    server.log.length = 0;
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  async function run(command: string, args: readonly string[], interrupt?: Promise<void>) {
    const env = { ...process.env, HF_ENDPOINT: server.hub, NO_COLOR: "1", TERM: "xterm", CI: "" };
    const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    const out = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (out.stderr += text));
    void interrupt?.then(() => child.kill("SIGINT"));
    const code = await new Promise((resolve) => child.on("close", resolve));
    return { code, ...out };
  }
  const lfm2 = (...args: readonly string[]) => run(process.execPath, ["dist/cli.js", ...args]);
  const sent = (): number => server.log.filter((r) => r.host === "cdn").reduce((sum, r) => sum + r.sentBytes, 0);
  const blobs = (): string => join(dir, "models--org--mini", "blobs");
  const kept = (): number => (existsSync(blobs()) ? readdirSync(blobs()).reduce((sum, f) => sum + statSync(join(blobs(), f)).size, 0) : 0);
  const until = async (bytes: number): Promise<void> => {
    for (let i = 0; i < 5000 && kept() < bytes; i++) await new Promise((resolve) => setTimeout(resolve, 2));
  };

  it("pull, list, inspect and remove a model, in lines and as JSON", async () => {
    const none = await lfm2("list", ...where);
    assert.deepEqual([none.code, none.stdout], [0, ""]);
    assert.match(none.stderr, /^no models here; lfm2 pull org\/name downloads one, [\d.]+ [KMGT]iB of the disk are free\n$/);
    const before = await lfm2("inspect", "org/mini", ...where);
    assert.match(before.stdout, /licence lfm1\.0\n\non the hub: mini\.gguf, 2\.6 MiB to download\n/);
    const pulled = await lfm2("pull", "org/mini", ...where);
    assert.deepEqual(
      { ...pulled },
      {
        code: 0,
        stdout: "",
        stderr: "mini.gguf: 2.6 MiB to download, licence lfm1.0\norg/mini: mini.gguf, 2.6 MiB, 2.6 MiB downloaded, licence lfm1.0\n",
      },
    );
    const again = await lfm2("pull", "org/mini", "--json", ...where);
    const { commit, ...rest } = JSON.parse(again.stdout) as { commit: string };
    assert.match(commit, /^[0-9a-f]{40}$/);
    assert.deepEqual(rest, {
      id: "org/mini",
      file: "mini.gguf",
      license: "lfm1.0",
      sizeBytes: mini.length,
      downloadedBytes: 0,
      warnings: [],
    });
    const list = await lfm2("list", ...where);
    assert.equal(list.stdout, "  org/mini  2.6 MiB  mini.gguf\n");
    assert.match(list.stderr, /^2\.6 MiB in all, [\d.]+ [KMGT]iB of the disk are free\n$/);
    const [model] = JSON.parse((await lfm2("list", "--json", ...where)).stdout) as { id: string; sizeBytes: number }[];
    assert.deepEqual([model?.id, model?.sizeBytes], ["org/mini", mini.length + 40]);
    assert.match((await lfm2("inspect", "org/mini", ...where)).stdout, /on the hub: mini\.gguf, all of it is here/);
    server.log.length = 0;
    const generated = await lfm2("generate", "-m", "org/mini", "-p", "What is 3 + 4?", ...where);
    assert.deepEqual([generated.stdout, generated.stderr], ["3 + 4 = 7\n", ""]);
    assert.equal(sent(), 0);
    assert.deepEqual(await lfm2("remove", "org/mini", ...where), { code: 0, stdout: "", stderr: "org/mini removed, 2.6 MiB\n" });
    assert.equal((await lfm2("remove", "org/mini", ...where)).code, 1);
  });

  it("pull takes an address, and generate tells the licence before it downloads", async () => {
    const at = `${server.hub}/org/mini/resolve/main/mini.gguf`;
    const pulled = await lfm2("pull", at, "--json", ...where);
    const { commit, ...rest } = JSON.parse(pulled.stdout) as { commit: string };
    assert.match(commit, /^[0-9a-f]{40}$/);
    const id = at.slice(0, -"mini.gguf".length);
    assert.deepEqual(rest, { id, file: "mini.gguf", sizeBytes: mini.length, downloadedBytes: mini.length, warnings: [] });
    assert.match(pulled.stderr, /^mini\.gguf: 2\.6 MiB to download, licence not told\n/);
    const generated = await lfm2("generate", "-m", "org/mini", "-p", "What is 3 + 4?", ...where);
    assert.deepEqual([generated.stdout, generated.stderr], ["3 + 4 = 7\n", "mini.gguf: 2.6 MiB to download, licence lfm1.0\n"]);
    if (pick({ gate: true, full: false })) return;
    assert.ok((await lfm2("list", ...where)).stdout.includes(`  ${id} `));
    assert.match((await lfm2("inspect", at, ...where)).stdout, /lfm2-mini: gguf, /);
    assert.equal((await lfm2("remove", id, ...where)).stderr, `${id} removed, 2.6 MiB\n`);
    assert.ok(!(await lfm2("list", ...where)).stdout.includes(id));
  });

  it("pull tells the licence of a folder at an address before it downloads", async function () {
    if (pick({ gate: true, full: false })) this.skip();
    const at = `${server.hub}/org/folder/resolve/main/`;
    const { code, stderr } = await lfm2("pull", at, ...where);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^model\.safetensors: [\d.]+ MiB to download, licence lfm1\.0\n.* downloaded, licence lfm1\.0\n$/);
  });

  it("say what is wrong", async () => {
    for (const [args, code, pattern] of [
      [["pull"], 2, /pull expects one model/],
      [["pull", "nonsense"], 1, /expected a hub's id/],
      [["pull", "org/none"], 1, /expected a GGUF file or config\.json/],
      [["pull", "org/nowhere"], 1, /401/],
      [["pull", "org/mini", "--dtype", "q3"], 2, /--dtype expects one of/],
      [["remove", "mini"], 1, /expected the id of a model in the cache/],
      [["list", "x"], 2, /expects options only/],
    ] as const) {
      const result = await lfm2(...args, ...where);
      assert.equal(result.code, code, args.join(" "));
      assert.match(result.stderr, pattern);
    }
  });

  it("an interrupted pull says that it goes on, and the next one does", async () => {
    server.set({ drip: [16_384, 5] });
    const stopped = await run(process.execPath, ["dist/cli.js", "pull", "org/mini", ...where], until(500_000));
    assert.equal(stopped.code, 130);
    assert.match(stopped.stderr, /stopped; what has come is kept: lfm2 pull org\/mini goes on from there\n$/);
    const before = kept();
    assert.match((await lfm2("list", ...where)).stdout, /org\/mini .* of an unfinished download/);
    server.set({});
    server.log.length = 0;
    assert.equal((await lfm2("pull", "org/mini", ...where)).code, 0);
    assert.equal(sent(), mini.length - before);
  });

  it("a terminal shows a bar, and Ctrl-C ends it well", async function () {
    needPython(this);
    server.set({ drip: [16_384, 5] });
    const command = [process.execPath, "dist/cli.js", "pull", "org/mini", ...where];
    const whole = await run("python3", ["-c", ON_TERMINAL, "0", ...command]);
    assert.equal(whole.code, 0, whole.stdout);
    assert.match(whole.stdout, /█+ mini\.gguf [\d.]+ (?:KiB|MiB) of 2\.6 MiB/);
    assert.match(whole.stdout, /org\/mini: mini\.gguf, 2\.6 MiB, 2\.6 MiB downloaded/);
    rmSync(blobs(), { recursive: true });
    server.set({ drip: [4096, 50] });
    const stopped = await run("python3", ["-c", ON_TERMINAL, "4", ...command]);
    assert.equal(stopped.code, 130, stopped.stdout);
    assert.match(stopped.stdout, /stopped; what has come is kept/);
    if (pick({ gate: true, full: false })) return;
    server.set({ drip: [4096, 50] });
    const inspected = await run("python3", ["-c", ON_TERMINAL, "0", process.execPath, "dist/cli.js", "inspect", "org/mini", ...where]);
    assert.equal(inspected.code, 0, inspected.stdout);
    assert.match(
      inspected.stdout,
      /reading the header of org\/mini[\s\S]*█* mini\.gguf [\d.]+ (?:B|KiB) of [\d.]+ KiB[\s\S]*lfm2-mini: gguf, /,
    );
  });
});
