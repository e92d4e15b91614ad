// node bench/page.mjs: a page in Chromium with the package and no bundler, whose thread must stay free while a prompt of 512 tokens is read and 100 tokens stream from the
// bundled model: no task above 50 ms, 99 % of the gaps between frames below 33 ms, over all replies of all rounds. For comparison with the engine in the page's
// own thread, of which nothing is asked. The tokens are checked against this Node's. `--shape 350m` takes random weights of that shape in q4: there the page's own thread
// must miss the goals, or nothing would have been measured. `--rounds N` instead of 5, `--replies N` in a round instead of 10, or 2 of a large shape.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ensureBuilt } from "../scripts/build.mjs";
import { openBrowser } from "../tests/bundlers/browser.mjs";
import { RUNTIMES } from "../tests/runtimes/index.mjs";
import { ISOLATED, serveFolders } from "../tests/runtimes/server.mjs";
import { gguf } from "./lib/checkpoints.mjs";
import { check, median } from "./lib/measure.mjs";
import { machine } from "./lib/report.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const PROMPT_TOKENS = 512;
const REPLY_TOKENS = 100;
const { values } = parseArgs({
  options: { shape: { type: "string", default: "mini" }, rounds: { type: "string", default: "5" }, replies: { type: "string" } },
});
const ROUNDS = Number(values.rounds);
const { shape } = values;
const isMini = shape === "mini";
const GOALS = { longestTaskMs: 50, gapMs: 33, share: 0.99 };
/** One after the other in a round: one is over after a dozen frames. */
const REPLIES = Number(values.replies ?? (isMini ? 10 : 2));

const ids = Array.from({ length: PROMPT_TOKENS }, (_, i) => 20 + ((i * 7) % 400));
const request = { maxTokens: REPLY_TOKENS, stopIds: [], temperature: 0 };

/** Runs in the page: a reply that is shown as it comes, beside a clock of frames and of long tasks. */
const PROGRAM = `async (ids, request, engine, replies, address) => {
  const { load } = await import("lfm2-wasm");
  const source = address ?? (await import("lfm2-wasm/mini")).mini;
  const tasks = [];
  const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => duration)));
  observer.observe({ type: "longtask" });
  const out = document.querySelector("#out");
  const gaps = [];
  const long = [];
  let isOver = false;
  let reply = 0;
  let start = 0;
  const model = await load(source, { engine, prefixCacheBytes: 0, cache: false });
  await model.generate(Uint32Array.from(ids.slice(0, 8)), { ...request, maxTokens: 4 });
  await new Promise((resolve) => setTimeout(resolve, 300));
  tasks.length = 0;
  let last = await new Promise(requestAnimationFrame);
  const frame = (now) => {
    gaps.push(now - last);
    if (now - last >= ${GOALS.gapMs}) long.push({ reply, atMs: now - start, ms: now - last });
    last = now;
    if (!isOver) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  const firstMs = [];
  const allMs = [];
  const tokens = [];
  for (reply = 1; reply <= replies; reply++) {
    start = performance.now();
    let first = 0;
    out.textContent = "";
    for await (const part of model.stream(Uint32Array.from(ids), request)) {
      if (part.type === "text-delta") {
        first ||= performance.now() - start;
        out.textContent += part.delta;
      } else if (part.type === "finish") tokens.push([...part.reply.tokens]);
    }
    firstMs.push(first);
    allMs.push(performance.now() - start);
  }
  isOver = true;
  tasks.push(...observer.takeRecords().map(({ duration }) => duration));
  observer.disconnect();
  model.dispose();
  return { tokens, engine: model.info.engine, tasks, gaps, long, firstMs, allMs };
}`;

await ensureBuilt();
const { load } = await import("lfm2-wasm");
const { mini } = await import("lfm2-wasm/mini");
const file = isMini ? mini : resolve(await gguf(shape, "Q4_0"));
const here = await load(file, { cache: false });
const expected = [...(await here.generate(Uint32Array.from(ids), request)).tokens];
here.dispose();

const binary = RUNTIMES.chromium.find();
if (!binary) throw new Error(`page: expected Chromium, got none: ${RUNTIMES.chromium.install}`);
const folder = mkdtempSync(join(tmpdir(), "lfm2-bench-page-"));
const imports = {
  "lfm2-wasm": "/dist/browser.js",
  "lfm2-wasm/mini": "/dist/mini.js",
  "@huggingface/jinja": "/node_modules/@huggingface/jinja/dist/index.js",
  "@huggingface/tokenizers": "/node_modules/@huggingface/tokenizers/dist/tokenizers.mjs",
};
writeFileSync(
  join(folder, "index.html"),
  `<!doctype html><link rel="icon" href="data:,"><script type="importmap">${JSON.stringify({ imports })}</script><p id="out"></p>`,
);
const folders = { "/": folder, "/dist/": "dist", "/node_modules/": "node_modules", ...(isMini ? {} : { "/model/": dirname(file) }) };
const server = await serveFolders(folders, { headers: ISOLATED });
const address = isMini ? undefined : `${server.url}model/${basename(file)}`;
const browser = await openBrowser(binary);
const { cpu, cores, date } = machine();
console.log(
  `${cpu}, ${cores} cores, ${await browser.version()}, ${date}; ${shape}, ${PROMPT_TOKENS} tokens of prompt, ${REPLY_TOKENS} of reply\n`,
);
console.log("| engine | longest task, ms | frame gaps below 33 ms | 99th gap, ms | first text, ms | all, ms |\n|---|---|---|---|---|---|");
let isMet = true;
try {
  for (const engine of ["auto", "here"]) {
    const rounds = [];
    for (let i = 0; i < ROUNDS; i++) {
      const page = await browser.newPage();
      await page.goto(server.url);
      const given = [ids, request, engine, REPLIES, ...(address ? [address] : [])].map((value) => JSON.stringify(value));
      const told = await page.evaluate(`(${PROGRAM})(${given})`);
      await page.close();
      check(told.engine === (engine === "here" ? "here" : "worker"), "the engine is where it was asked for");
      check(
        told.tokens.length === REPLIES && told.tokens.every((tokens) => `${tokens}` === `${expected}`),
        "the page's tokens are this Node's",
      );
      rounds.push(told);
    }
    const all = (name) => rounds.flatMap((round) => round[name]).toSorted((a, b) => a - b);
    const gaps = all("gaps");
    const longest = all("tasks").at(-1) ?? 0;
    const share = gaps.filter((gap) => gap < GOALS.gapMs).length / gaps.length;
    const firstMs = median(all("firstMs")); // 0: random weights say tokens without text
    const gap = gaps[Math.floor(0.99 * (gaps.length - 1))];
    console.log(
      `| ${rounds[0].engine} | ${longest.toFixed(0)} | ${(100 * share).toFixed(1)} % of ${gaps.length} | ${gap.toFixed(1)} | ${firstMs ? firstMs.toFixed(0) : "–"} | ${median(all("allMs")).toFixed(0)} |`,
    );
    const meets = longest <= GOALS.longestTaskMs && share >= GOALS.share;
    if (engine === "here" && !isMini) check(!meets, "the page's own thread cannot meet the goals with a model of this size");
    if (engine !== "auto") continue;
    isMet = meets;
    for (const [i, { long }] of rounds.entries())
      for (const { reply, atMs, ms } of long)
        console.error(`  round ${i + 1}, reply ${reply}: ${ms.toFixed(0)} ms without a frame, up to ${atMs.toFixed(0)} ms after its start`);
  }
} finally {
  await browser.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
}
if (!isMet) {
  console.error("\nmissed: no task above 50 ms, 99 % of the frame gaps below 33 ms");
  process.exitCode = 1;
}
