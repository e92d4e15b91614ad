// `lfm2 bench`: how fast this machine reads and writes with a model, and with --profile where the time goes. Knows the engine, for single steps; no kernel.
import { readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import type { ArgsDef } from "citty";
import { AbortError, type Model } from "lfm2-wasm";
import type { Engine, GenerateEvent } from "../generate/engine.ts";
import type { KernelTime } from "../kernels/profile.ts";
import { formatBytes } from "../memory/arena.ts";
import { HELP_ARG, MODEL_ARGS, type Options, refuseWords, UsageError } from "./args.ts";
import { openCeilings } from "./ceilings.ts";
import { loadModel } from "./model.ts";
import { drawProfile, type Profile, printProfile, profileOf } from "./profile.ts";
import { harmless, interruptible, StatusLine, write } from "./terminal.ts";

/** Options of `lfm2 bench`. */
export const BENCH_ARGS: ArgsDef = {
  ...MODEL_ARGS,
  variant: { type: "string", valueHint: "NAME", description: "kernels: relaxed or plain (default: the faster one)" },
  prefill: { type: "string", valueHint: "N", description: "tokens of the prompt that is timed (default 512)" },
  decode: { type: "string", valueHint: "N", description: "tokens that are generated in a round (default 128)" },
  context: { type: "string", alias: "c", valueHint: "N", description: "tokens in the context before they are generated (default 0)" },
  rounds: { type: "string", valueHint: "N", description: "rounds; the median counts (default 5)" },
  json: { type: "boolean", description: "print one JSON object" },
  profile: { type: "boolean", description: "also time every kernel, and compare it with what the machine can do" },
  svg: { type: "string", valueHint: "FILE", description: "draw the profile" },
  ...HELP_ARG,
};

/** V8 compiles for speed what has run a few times: steps before anything is timed. */
const WARM_UP_STEPS = 16;
const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

interface Setup {
  readonly prefill: number;
  readonly decode: number;
  readonly context: number;
  readonly rounds: number;
}

/** The result, as `--json` prints it. Rates in tokens and 10^9 bytes a second; bytes are of resident memory unless they say what of. */
interface Result {
  readonly prefill_tps: number;
  readonly decode_tps: number;
  /** From the call of `load` to its end. */
  readonly load_ms: number;
  /** From the start of this process to the first token after a prompt of `prefill` tokens, nothing warmed up. */
  readonly ttft_ms: number;
  /** Peak of this process, and what it had before the load. */
  readonly peak_bytes: number;
  readonly baseline_bytes: number;
  /** Linear memory. */
  readonly memory_bytes: number;
  readonly weight_bytes: number;
  readonly kv_bytes_per_token: number;
  /** Weights and cache that a generated token reads, a second; and that as a share of the rate at which one thread reads as much memory. */
  readonly decode_gbps: number;
  readonly read_gbps: number;
  readonly decode_read_share: number;
  readonly prefill: number;
  readonly decode: number;
  readonly context: number;
  readonly rounds: number;
  /** Steps before anything was timed but the first token. */
  readonly warm_up: number;
  readonly model: string;
  readonly dtypes: readonly string[];
  readonly kv_dtype: string;
  readonly variant: string;
  readonly threads: number;
  readonly runtime: string;
  readonly cpu: string;
  readonly profile?: { readonly prefill: Profile; readonly decode: Profile };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

function count(options: Options, name: string, otherwise: number, least: number): number {
  const value = options.integer(name) ?? otherwise;
  if (value >= least) return value;
  throw new UsageError(`--${name} expects a whole number of at least ${least}, got ${value}`);
}

function setupOf(options: Options, model: Model): Setup {
  const limit = model.info.maxContextTokens;
  const context = count(options, "context", 0, 0);
  const setup = {
    context,
    prefill: count(options, "prefill", 512, 1),
    decode: count(options, "decode", 128, 1),
    rounds: count(options, "rounds", 5, 1),
  };
  const most = Math.max(setup.prefill + 1, context + 1 + setup.decode);
  if (most > limit)
    throw new UsageError(
      `the model's context of ${limit} tokens is too short for ${most}: expected less for --prefill, --context or --decode`,
    );
  return setup;
}

/** Peak of resident memory. `maxRSS` would begin with what the parent process had. */
function peakBytes(): number {
  try {
    const kilobytes = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (kilobytes) return 1024 * Number(kilobytes);
  } catch {} // no Linux
  return 1024 * process.resourceUsage().maxRSS;
}

/** Turns on one session of the engine, step by step. */
class Stepper {
  readonly #engine: Engine;
  readonly #vocabulary: number;
  readonly #signal: AbortSignal;
  #events: AsyncIterator<GenerateEvent> | undefined;
  /** The number of the session that is open, or of the last one. */
  #session = 0;
  #isOpen = false;
  #prompt = new Uint32Array(0);
  /** Tokens that the session holds. */
  position = 0;

  constructor(model: Model, signal: AbortSignal) {
    this.#engine = model.engine;
    this.#vocabulary = model.config.vocabSize;
    this.#signal = signal;
  }

  /** Feeds a new prompt of `tokens` tokens. @returns ms to the first token */
  async start(tokens: number, salt: number): Promise<number> {
    await this.close();
    await this.#engine.open(++this.#session);
    this.#isOpen = true;
    this.#prompt = Uint32Array.from({ length: tokens }, (_, i) => (salt * 101 + i * 7919) % this.#vocabulary);
    return this.#feed();
  }

  /** Goes back to the end of the prompt: the session finds that it holds it, and feeds its last token again. */
  async back(): Promise<void> {
    await this.#events?.return?.();
    await this.#feed();
  }

  async #feed(): Promise<number> {
    const ids = this.#prompt;
    const request = { ids, maxTokens: Number.MAX_SAFE_INTEGER, stopIds: [], stop: [], sampling: GREEDY };
    const start = performance.now();
    this.#events = this.#engine.generate(this.#session, this.#session, request)[Symbol.asyncIterator]();
    await this.next();
    this.position = ids.length;
    return performance.now() - start;
  }

  /** One token more. */
  async next(): Promise<void> {
    for (;;) {
      if (this.#signal.aborted) throw new AbortError();
      const event = (await this.#events?.next())?.value as GenerateEvent | undefined;
      if (event?.type === "prefill") continue;
      if (event?.type !== "token") throw new Error(`bench: expected a token, got ${event?.type ?? "the end"}`);
      this.position++;
      return;
    }
  }

  async close(): Promise<void> {
    await this.#events?.return?.();
    this.#events = undefined;
    if (this.#isOpen) await this.#engine.close(this.#session);
    this.#isOpen = false;
  }
}

async function timeSteps(stepper: Stepper, steps: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < steps; i++) await stepper.next();
  return performance.now() - start;
}

interface Rates {
  readonly prefillMs: number;
  readonly stepMs: number;
}

async function measure(stepper: Stepper, { prefill, decode, context, rounds }: Setup, status: StatusLine): Promise<Rates> {
  const prompts: number[] = [];
  for (let round = 0; round < rounds; round++) {
    status.show(`prefill, round ${round + 1} of ${rounds}`);
    prompts.push(await stepper.start(prefill, round));
  }
  const steps: number[] = [];
  for (let round = 0; round < rounds; round++) {
    status.show(`decode, round ${round + 1} of ${rounds}`);
    if (round === 0) await stepper.start(Math.max(1, context), 0);
    else await stepper.back(); // every round begins at the same context
    steps.push((await timeSteps(stepper, decode)) / decode);
  }
  return { prefillMs: median(prompts), stepMs: median(steps) };
}

/** Kernels of one prompt, and of `decode` steps. */
async function timeKernels(model: Model, stepper: Stepper, setup: Setup): Promise<Record<"prefill" | "decode", readonly KernelTime[]>> {
  const { engine } = model;
  await engine.profile(true);
  await stepper.start(setup.prefill, 0);
  const prefill = await engine.profile(false);
  await stepper.start(Math.max(1, setup.context), 0);
  await engine.profile(true);
  await timeSteps(stepper, setup.decode);
  return { prefill, decode: await engine.profile(false) };
}

async function run(model: Model, options: Options, loadMs: number, baseline: number, signal: AbortSignal): Promise<Result> {
  const { info } = model;
  const setup = setupOf(options, model);
  const status = new StatusLine();
  const stepper = new Stepper(model, signal);
  try {
    status.show("first prompt");
    await stepper.start(setup.prefill, 0);
    const ttftMs = performance.now(); // from the start of the process
    const limit = info.maxContextTokens;
    if (setup.prefill + WARM_UP_STEPS > limit) await stepper.start(1, 0); // behind the prompt is no room for them
    const warmUp = Math.min(WARM_UP_STEPS, limit - stepper.position);
    await timeSteps(stepper, warmUp);
    const { prefillMs, stepMs } = await measure(stepper, setup, status);
    const { memoryBytes } = await model.status();
    const peak = peakBytes(); // the probes take memory too
    status.show("what the machine can do");
    const ceilings = openCeilings(info.variant);
    const stepBytes = info.weightBytes + info.kvBytesPerToken * (setup.context + setup.decode / 2);
    const read = ceilings.read(stepBytes);
    const wantsProfile = options.flag("profile") || options.text("svg") !== undefined;
    if (wantsProfile) status.show("kernel by kernel");
    const times = wantsProfile ? await timeKernels(model, stepper, setup) : undefined;
    const round = (x: number, digits = 1): number => Number(x.toFixed(digits));
    return {
      prefill_tps: round((1000 * setup.prefill) / prefillMs),
      decode_tps: round(1000 / stepMs),
      load_ms: round(loadMs),
      ttft_ms: round(ttftMs),
      peak_bytes: peak,
      baseline_bytes: baseline,
      memory_bytes: memoryBytes,
      weight_bytes: info.weightBytes,
      kv_bytes_per_token: info.kvBytesPerToken,
      decode_gbps: round(stepBytes / stepMs / 1e6, 2),
      read_gbps: round(read, 2),
      decode_read_share: round(stepBytes / stepMs / 1e6 / read, 3),
      ...setup,
      warm_up: warmUp,
      model: info.name,
      dtypes: info.dtypes,
      kv_dtype: info.kvDtype,
      variant: info.variant,
      threads: info.threads,
      runtime: `Node ${process.version}`,
      cpu: cpus()[0]?.model.trim() ?? "",
      ...(times && {
        profile: {
          prefill: profileOf(times.prefill, 1, ceilings, stepBytes),
          decode: profileOf(times.decode, setup.decode, ceilings, stepBytes),
        },
      }),
    };
  } finally {
    status.clear();
    await stepper.close();
  }
}

function print(result: Result): void {
  const { prefill, decode, context, threads } = result;
  const lines: readonly (readonly [string, string])[] = [
    [
      "model",
      `${harmless(result.model)}, ${result.dtypes.join("+")} weights, ${result.kv_dtype} cache, ${result.variant} kernels, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    ],
    ["machine", `${result.cpu}, ${result.runtime}`],
    ["prefill", `${result.prefill_tps} tokens/s, ${prefill} tokens`],
    ["decode", `${result.decode_tps} tokens/s, ${decode} tokens from context ${context} on`],
    [
      "",
      `${result.decode_gbps} GB/s, ${Math.round(100 * result.decode_read_share)} % of the ${result.read_gbps} GB/s at which one thread reads as much`,
    ],
    ["load", `${Math.round(result.load_ms)} ms`],
    ["first", `${Math.round(result.ttft_ms)} ms from the start of the process to the first token after ${prefill}`],
    [
      "memory",
      `${formatBytes(result.peak_bytes)} at most, ${formatBytes(result.baseline_bytes)} before the load; weights ${formatBytes(result.weight_bytes)}`,
    ],
  ];
  write(lines.map(([left, right]) => `${left.padEnd(9)}${right}\n`).join(""));
}

/** @returns the exit code */
export async function bench(options: Options): Promise<number> {
  refuseWords(options, "bench");
  const variant = options.choice("variant", ["relaxed", "plain"]);
  const baseline = peakBytes();
  return interruptible(async (signal) => {
    const start = performance.now();
    const model = await loadModel(options, signal, { variant, maxContextTokens: undefined, prefixCacheBytes: 0 }); // --context is where decoding begins
    try {
      const result = await run(model, options, performance.now() - start, baseline, signal);
      const svg = options.text("svg");
      if (svg !== undefined && result.profile) writeFileSync(svg, drawProfile(result.profile, result));
      if (options.flag("json")) write(`${JSON.stringify(result)}\n`);
      else {
        print(result);
        if (result.profile) write(printProfile(result.profile, result.threads));
      }
      return 0;
    } finally {
      model.dispose();
    }
  });
}
