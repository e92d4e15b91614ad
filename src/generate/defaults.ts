// Sampling that Liquid AI recommends, by a checkpoint's name. The table is in the model cards; the files carry none of it.
import { FormatError } from "../errors.ts";
import { isRecord } from "../values.ts";
import { checkSampling, type SamplingOptions } from "./sampler.ts";

/** Sampling options that a checkpoint recommends; what is absent is off. */
export type SamplingDefaults = Omit<SamplingOptions, "seed">;

const GREEDY: SamplingDefaults = { temperature: 0 };
const LFM2_TEXT: SamplingDefaults = { temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05 };
const LFM25_INSTRUCT: SamplingDefaults = { temperature: 0.1, topK: 50, repetitionPenalty: 1.05 };
const LFM25_THINKING: SamplingDefaults = { ...LFM25_INSTRUCT, topP: 0.1 };
const LFM25_LARGE: SamplingDefaults = { temperature: 0.2, topK: 80, repetitionPenalty: 1.05 };

/** The first row that fits counts. Names are lower case with single hyphens, so that "LFM2.5 1.2B Instruct" and "LFM2.5-1.2B-Instruct" are one. */
const table: readonly (readonly [RegExp, SamplingDefaults])[] = [
  [/\blfm2-mini\b/, GREEDY],
  [/\blfm2.*-(extract|rag|pii)\b/, GREEDY],
  [/\blfm2\.5.*-jp\b/, LFM2_TEXT],
  [/\blfm2\.5.*-thinking\b/, LFM25_THINKING],
  [/\blfm2\.5-(2\.6b|8b)\b/, LFM25_LARGE],
  [/\blfm2\.5\b/, LFM25_INSTRUCT],
];

/** Keys of generation_config.json and what they are called here. */
const keys = {
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  typical_p: "typicalP",
  epsilon_cutoff: "epsilonCutoff",
  eta_cutoff: "etaCutoff",
  repetition_penalty: "repetitionPenalty",
} as const satisfies Record<string, keyof SamplingDefaults>;

/**
 * @param names where a checkpoint may say what it is, best first: GGUF's `general.name`, the config's `_name_or_path`, the folder
 * @param generationConfig contents of generation_config.json; its values win, `do_sample: false` means greedy
 * @returns the recommended sampling; an lfm2 checkpoint of unknown name gets that of LFM2's text models
 * @throws FormatError when generation_config.json holds a value of the wrong kind or range
 */
export function recommendedSampling(names: readonly (string | undefined)[], generationConfig?: unknown): SamplingDefaults {
  return { ...byName(names), ...fromGenerationConfig(generationConfig) };
}

/**
 * @param configured end tokens of config.json
 * @returns those that end a reply where a call says nothing: generation_config.json's, where it names any
 * @throws FormatError when what it names are no ids
 */
export function recommendedStopIds(configured: readonly number[], generationConfig?: unknown): readonly number[] {
  const named = isRecord(generationConfig) ? (generationConfig.eos_token_id ?? undefined) : undefined;
  if (named === undefined) return configured;
  const ids: unknown[] = [named].flat();
  if (ids.every((id): id is number => Number.isSafeInteger(id) && Number(id) >= 0)) return ids;
  throw new FormatError(
    `generation_config.json: "eos_token_id": expected a token id or a list of them, got ${JSON.stringify(named)}. Download the file again.`,
  );
}

function byName(names: readonly (string | undefined)[]): SamplingDefaults {
  for (const name of names) {
    const plain = (name ?? "").toLowerCase().replace(/[\s_-]+/g, "-");
    const row = table.find(([pattern]) => pattern.test(plain));
    if (row) return row[1];
    if (/\blfm2\b/.test(plain)) break;
  }
  return LFM2_TEXT;
}

function fromGenerationConfig(config: unknown): SamplingDefaults {
  if (config === undefined || config === null) return {};
  const where = "generation_config.json";
  if (typeof config !== "object" || Array.isArray(config))
    throw new FormatError(
      `${where}: expected an object, got ${Array.isArray(config) ? "an array" : typeof config}. Download the file again.`,
    );
  const values = config as Readonly<Record<string, unknown>>;
  const found: Record<string, unknown> = {};
  for (const [key, name] of Object.entries(keys)) if (values[key] !== undefined && values[key] !== null) found[name] = values[key];
  checkSampling(found as SamplingOptions, where, FormatError);
  return values.do_sample === false ? { ...found, temperature: 0 } : found;
}
