// What bench/runtimes.mjs runs in every runtime: bundled by it, or importing the installed package. Plain JavaScript of no runtime in particular.

const PROMPT = "Tell me a story about a fox.";
const TOKENS = { mini: 200, large: 24 };

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Tokens a second behind the first one, by the engine's clock; the median of rounds after one that warms up. */
async function tokensPerSecond(model, input, maxTokens, rounds) {
  const rates = [];
  for (let round = 0; round <= rounds; round++) {
    const { tokens, timings } = await model.generate(input, { temperature: 0, stopIds: [], maxTokens });
    if (tokens.length !== maxTokens) throw new Error(`expected ${maxTokens} tokens, got ${tokens.length}`);
    if (round > 0) rates.push(((maxTokens - 1) * 1000) / timings.decodeMs);
  }
  return median(rates);
}

/** @param {{ mini?: string, large?: string, rounds: number }} given addresses or paths; without `mini` the package's own export, without `large` none is loaded */
export async function run(_files, { mini, large, rounds }) {
  const start = performance.now();
  const { load } = await import("lfm2-wasm");
  const model = await load(mini ?? (await import("lfm2-wasm/mini")).mini);
  let firstTokenMs;
  for await (const part of model.stream(PROMPT, { maxTokens: 2 })) {
    if (part.type === "text-delta") firstTokenMs ??= performance.now() - start;
  }
  const answer = (await model.generate("What is 3 + 4?", { temperature: 0 })).text;
  if (answer !== "3 + 4 = 7") throw new Error(`expected 3 + 4 = 7, got ${answer}`);
  const { variant, threads } = model.info;
  const out = { firstTokenMs, variant, threads, mini: await tokensPerSecond(model, PROMPT, TOKENS.mini, rounds) };
  model.dispose();
  if (!large) return out;
  const wide = await load(large, { cache: false, threads: 1 });
  const ids = Uint32Array.from({ length: 16 }, (_, i) => 300 + i);
  const result = { ...out, large: await tokensPerSecond(wide, ids, TOKENS.large, rounds) };
  wide.dispose();
  return result;
}
