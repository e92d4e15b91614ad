// The reference's models by their names: configuration, forward and generate over the package's Model. Here are its defaults and its shapes; what computes is load()'s.
import {
  type DType,
  type ForwardInput,
  type ForwardOutput,
  type GenerateOptions,
  InputError,
  type LoadOptions,
  load,
  type Model,
  type ModelSource,
  type Tensor,
} from "lfm2-wasm";
import { checkNames } from "../checks.ts";
import { GENERATION_KEYS, type GenerationDefaults, generationDefaults, present } from "../generation-config.ts";
import { isRecord, kindOf } from "../values.ts";
import { Lfm2Config } from "./config.ts";
import { randomCheckpoint } from "./random.ts";

const TORCH_DTYPES = { float32: "f32", bfloat16: "bf16", float16: "f16", auto: undefined } as const;

/** Options of `fromPretrained`: those of `load`, and the reference's names of dtypes. */
export interface FromPretrainedOptions extends Omit<LoadOptions, "dtype"> {
  /** `"bfloat16"`, `"float16"`, `"float32"`, or as for `load`; default, and `"auto"`, as the file stores them. */
  readonly dtype?: DType | keyof typeof TORCH_DTYPES | undefined;
}

/** Options of a new model: those of `fromPretrained` and a seed. */
export interface NewModelOptions extends FromPretrainedOptions {
  /** Names the random numbers of the weights, a whole number from 0; default 0. */
  readonly seed?: number | undefined;
  /** A model that is loaded already. @internal */
  readonly loaded?: Model | undefined;
  /** What its generation_config.json says. @internal */
  readonly generation?: GenerationDefaults | undefined;
}

/** Output of the bare model. */
export interface BaseModelOutput extends Omit<ForwardOutput, "loss" | "logits"> {
  /** The final norm's output (B,T,D). */
  readonly lastHiddenState: Tensor;
}

/** A call of `generate`, with the reference's names. What it leaves out, a checkpoint's generation_config.json says; else the reference's defaults count. */
export interface GenerationConfig extends GenerationDefaults, Pick<GenerateOptions, "stoppingCriteria" | "seed" | "signal"> {
  /** Token ids (B,T) or (T,). */
  readonly inputIds: NonNullable<ForwardInput["inputIds"]>;
  /** 1 at real tokens, 0 at padding (B,T) or (T,); default all ones. */
  readonly attentionMask?: ForwardInput["attentionMask"];
  /** Functions on the logits before each token, after all other rules. */
  readonly logitsProcessor?: GenerateOptions["processors"];
}

function loadOptions({ dtype, ...rest }: FromPretrainedOptions): LoadOptions {
  const known = typeof dtype === "string" && Object.hasOwn(TORCH_DTYPES, dtype);
  return { ...rest, dtype: known ? TORCH_DTYPES[dtype as keyof typeof TORCH_DTYPES] : (dtype as DType | undefined) };
}

async function loadPretrained(source: ModelSource, options: FromPretrainedOptions = {}): Promise<[Lfm2Config, NewModelOptions]> {
  if (!isRecord(options)) throw new InputError(`fromPretrained: expected an object with options, got ${kindOf(options)}.`);
  const loaded = await load(source, loadOptions(options));
  try {
    return [Lfm2Config.of(loaded.config), { loaded, generation: generationDefaults(loaded.generationConfig) }];
  } catch (error) {
    loaded.dispose();
    throw error;
  }
}

/** What both models are: a configuration, and weights that are loaded or drawn. */
class Lfm2PreTrainedModel {
  readonly config: Lfm2Config;
  /** What `generate` does where a call says nothing: a checkpoint's generation_config.json. */
  readonly generationConfig: GenerationDefaults;
  readonly #options: NewModelOptions;
  #loading: Promise<Model> | undefined;
  #isDisposed = false;

  /**
   * A new model: weights from normal(0, initializerRange), norms one, biases and the pad token's row zero, in f32 unless `dtype` says otherwise. They are
   * drawn with the first call that needs them, or with `ready()`: the same seed gives the same weights everywhere.
   */
  constructor(config: Lfm2Config = new Lfm2Config(), options: NewModelOptions = {}) {
    if (!(config instanceof Lfm2Config))
      throw new InputError(`${new.target.name}: expected an Lfm2Config, got ${kindOf(config)}. Pass new Lfm2Config({ … }).`);
    if (!isRecord(options)) throw new InputError(`${new.target.name}: expected an object with options, got ${kindOf(options)}.`);
    const { seed = 0, loaded, generation = {} } = options as NewModelOptions; // isRecord made it unknown
    if (!(Number.isSafeInteger(seed) && seed >= 0))
      throw new InputError(`${new.target.name}: seed: expected a whole number of 0 or more, got ${String(seed)}.`);
    this.config = config;
    this.generationConfig = generation;
    this.#options = options;
    if (loaded) this.#loading = Promise.resolve(loaded);
  }

  /**
   * Loads what the first call would load.
   * @returns the package's own model, with `stream`, `chat` and all else
   * @throws as `load`; InputError when this model is disposed
   */
  async ready(): Promise<Model> {
    if (this.#isDisposed) throw new InputError("model: expected an open model, got one that was disposed of. Make another.");
    this.#loading ??= this.#load();
    return this.#loading;
  }

  /** Frees the memory. Twice does no harm. */
  dispose(): void {
    this.#isDisposed = true;
    this.#loading?.then(
      (model) => model.dispose(),
      () => {}, // who called has the error
    );
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #load(): Promise<Model> {
    const { seed = 0, loaded: _, generation: __, ...options } = this.#options;
    try {
      return await load(randomCheckpoint(this.config, seed), loadOptions(options));
    } catch (error) {
      this.#loading = undefined;
      throw error;
    }
  }
}

/**
 * The bare model: hidden states, no head.
 * @example
 * const model = new Lfm2Model(new Lfm2Config({ hiddenSize: 256, numAttentionHeads: 4, numKeyValueHeads: 2 }));
 * const { lastHiddenState } = await model.forward({ inputIds: [1, 2, 3] });   // (1, 3, 256)
 */
export class Lfm2Model extends Lfm2PreTrainedModel {
  static override readonly name = "Lfm2Model";
  /** Loads a checkpoint. @param source as for `load` @throws as `load` */
  static async fromPretrained(source: ModelSource, options?: FromPretrainedOptions): Promise<Lfm2Model> {
    return new Lfm2Model(...(await loadPretrained(source, options)));
  }

  /** One forward pass. Gives `pastKeyValues` unless `useCache` says otherwise. @throws InputError, AbortError */
  async forward(input: Omit<ForwardInput, "labels" | "numItemsInBatch" | "logitsToKeep">): Promise<BaseModelOutput> {
    const model = await this.ready();
    const all = await model.forward({ useCache: this.config.useCache, ...input, logitsToKeep: [], outputHiddenStates: true });
    const { logits: _, loss: __, hiddenStates = [], lastLayerOutput, ...rest } = all;
    const states = input.outputHiddenStates && lastLayerOutput ? { hiddenStates, lastLayerOutput } : {};
    return { lastHiddenState: hiddenStates.at(-1)!, ...states, ...rest };
  }
}

/**
 * The model with its language head.
 * @example
 * const model = await Lfm2ForCausalLM.fromPretrained("LiquidAI/LFM2-1.2B", { dtype: "bfloat16" });
 * const tokenizer = await AutoTokenizer.fromPretrained("LiquidAI/LFM2-1.2B");
 * const inputIds = tokenizer.applyChatTemplate([{ role: "user", content: "What is C. elegans?" }], { addGenerationPrompt: true });
 * const [row = []] = await model.generate({ inputIds, doSample: true, temperature: 0.3, minP: 0.15, repetitionPenalty: 1.05, maxNewTokens: 512 });
 * console.log(tokenizer.decode(row));
 */
export class Lfm2ForCausalLM extends Lfm2PreTrainedModel {
  static override readonly name = "Lfm2ForCausalLM";
  /** Loads a checkpoint. @param source as for `load` @throws as `load` */
  static async fromPretrained(source: ModelSource, options?: FromPretrainedOptions): Promise<Lfm2ForCausalLM> {
    return new Lfm2ForCausalLM(...(await loadPretrained(source, options)));
  }

  /** One forward pass: `model.forward`, which gives `pastKeyValues` unless `useCache` says otherwise. @throws InputError, AbortError */
  async forward(input: ForwardInput): Promise<ForwardOutput> {
    const model = await this.ready();
    return model.forward({ useCache: this.config.useCache, ...input });
  }

  /**
   * Goes on with each row; they share steps, and each is what it would be alone. Row b's samples have the seeds that follow `seed + b · numReturnSequences`.
   * @returns ids of prompt, as given, and reply, the id that ended it included: numReturnSequences rows for each of the input, padded on the right to one length
   * @throws InputError for options out of range or a prompt that does not fit; AbortError
   */
  async generate(options: GenerationConfig): Promise<number[][]> {
    const rows = rowsOf(options);
    const T = rows[0]?.columns.length ?? 0;
    const call = { ...this.generationConfig, ...present(options) };
    // one limit of a call is not undone by the other one of the file
    const limits = options.maxLength !== undefined || options.maxNewTokens !== undefined ? options : call;
    const { padTokenId = this.config.padTokenId, numReturnSequences = 1, seed, minLength = 0, ...rest } = call;
    const ends = endIdsOf(call, this.config);
    const shared = turnOptions({ ...rest, numReturnSequences, maxLength: limits.maxLength, maxNewTokens: limits.maxNewTokens }, T, ends);
    const model = await this.ready();
    const each = rows.map(
      ({ ids }, b): GenerateOptions => ({
        ...shared,
        minLength: minLength < 0 ? minLength : Math.max(0, minLength - (T - ids.length)), // what is no number is refused further on
        seed: seed === undefined ? undefined : seed + b * numReturnSequences,
      }),
    );
    const prompts = rows.map(({ ids }) => ids);
    const replies = await model.generate(prompts, each).catch((error: unknown) => {
      throw inTheirNames(error);
    });
    const out = replies.flatMap(({ tokens, sequences = [{ tokens }] }, b) =>
      sequences.map((sequence) => [...rows[b]!.columns, ...sequence.tokens]),
    );
    const longest = Math.max(...out.map((row) => row.length));
    const own = (rest.numBeams ?? 1) > 1 ? padTokenId || undefined : padTokenId;
    const pad = own ?? ends[0] ?? 0;
    return out.map((row) => [...row, ...new Array<number>(longest - row.length).fill(pad)]);
  }
}

function endIdsOf({ eosTokenId }: GenerationDefaults, { checked }: Lfm2Config): readonly number[] {
  if (eosTokenId === undefined) return checked.eosTokenIds;
  return typeof eosTokenId === "number" ? [eosTokenId] : eosTokenId;
}

const isList = (value: unknown): value is ArrayLike<unknown> => Array.isArray(value) || ArrayBuffer.isView(value);

function matrix(name: string, batch: unknown): number[][] {
  if (!isList(batch) || batch.length === 0)
    throw new InputError(`generate: ${name}: expected rows of numbers, got ${isList(batch) ? "none" : kindOf(batch)}. Pass (B,T) or (T,).`);
  const rows = isList(batch[0]) ? Array.from(batch, (row) => (isList(row) ? Array.from(row) : [])) : [Array.from(batch)];
  const odd = rows.find(
    (row) => row.length === 0 || row.length !== rows[0]?.length || !row.every((n) => Number.isSafeInteger(n) && Number(n) >= 0),
  );
  if (odd)
    throw new InputError(
      `generate: ${name}: expected rows of one length with ids, got [${odd.slice(0, 8)}]. Pad them, with an attentionMask.`,
    );
  return rows as number[][];
}

/** What a call says, and no file. */
const CALL_KEYS: Readonly<Record<Exclude<keyof GenerationConfig, keyof GenerationDefaults>, 1>> = {
  inputIds: 1,
  attentionMask: 1,
  logitsProcessor: 1,
  stoppingCriteria: 1,
  seed: 1,
  signal: 1,
};

/** Each row as it is, and its real tokens. */
function rowsOf(options: GenerationConfig): { columns: number[]; ids: Uint32Array }[] {
  if (!isRecord(options)) throw new InputError(`generate: expected an object with inputIds, got ${kindOf(options)}.`);
  checkNames("generate", options, "GenerationConfig", CALL_KEYS, GENERATION_KEYS);
  const rows = matrix("inputIds", options.inputIds);
  const mask = options.attentionMask === undefined ? undefined : matrix("attentionMask", options.attentionMask);
  if (mask && (mask.length !== rows.length || mask[0]?.length !== rows[0]?.length || mask.some((row) => row.some((n) => n > 1))))
    throw new InputError(`generate: attentionMask: expected 0 and 1 in (${rows.length},${rows[0]?.length}), got other shapes or numbers.`);
  return rows.map((columns, b) => ({ columns, ids: Uint32Array.from(columns.filter((_, t) => mask?.[b]?.[t] !== 0)) }));
}

/** What a call leaves out when it generates no more than this. */
const DEFAULT_NEW_TOKENS = 20;

/** The package's options that have another name here. */
const THEIRS: Readonly<Record<string, string>> = {
  maxTokens: "maxNewTokens",
  minTokens: "minNewTokens",
  stop: "stopStrings",
  stopIds: "eosTokenId",
  processors: "logitsProcessor",
};

/** @returns an error about an option, with the name that it has here, and whatever else it is given as it is */
function inTheirNames(error: unknown): unknown {
  if (!(error instanceof InputError)) return error;
  const { message, code, cause } = error;
  const named = message
    .replace(/^\[lfm2\] (?:options: )?(\w+)(?=: )/, (text, name: string) =>
      Object.hasOwn(THEIRS, name) ? `generate: ${THEIRS[name]}` : text,
    )
    .replace("to generate up to the end of the context", `for ${DEFAULT_NEW_TOKENS}, or what generation_config.json says`);
  return named === message ? error : new InputError(named, { code, cause });
}
const DEFAULT_TOP_K = 50;

/** The reference's options as the package's, but for each row's own. Nothing is left to a checkpoint's recommendation. */
function turnOptions(options: Omit<GenerationConfig, "seed" | "minLength">, T: number, ends: readonly number[]): GenerateOptions {
  const { inputIds: _, attentionMask: __, eosTokenId: ___, padTokenId: ____, ...call } = options;
  const { doSample = false, maxNewTokens, maxLength, minNewTokens, stopStrings, logitsProcessor, ...rest } = call;
  const { temperature = 1, topK = DEFAULT_TOP_K, repetitionPenalty = 1, numBeams = 1, numReturnSequences = 1 } = rest;
  if (typeof doSample !== "boolean") throw new InputError(`generate: doSample: expected true or false, got ${kindOf(doSample)}.`);
  if (!doSample && numBeams === 1 && numReturnSequences !== 1)
    throw new InputError("generate: numReturnSequences: expected 1 for greedy, which has one answer, got more. Set doSample or numBeams.");
  if (doSample && !(temperature > 0))
    throw new InputError(`generate: temperature: expected a number above 0, got ${String(temperature)}. doSample: false is greedy.`);
  if (maxNewTokens === undefined && maxLength !== undefined && !(Number.isSafeInteger(maxLength) && maxLength > T))
    throw new InputError(`generate: maxLength: expected a whole number above the prompt's ${T} columns, got ${String(maxLength)}.`);
  const { topP = 1, minP = 0, typicalP = 1, epsilonCutoff = 0, etaCutoff = 0 } = rest;
  const cuts = doSample
    ? { temperature, topK, topP, minP, typicalP, epsilonCutoff, etaCutoff }
    : { temperature: 0, topK: 0, topP: 1, minP: 0, typicalP: 1, epsilonCutoff: 0, etaCutoff: 0 };
  return {
    ...rest,
    ...cuts,
    repetitionPenalty,
    maxTokens: maxNewTokens ?? (maxLength === undefined ? DEFAULT_NEW_TOKENS : maxLength - T),
    minTokens: minNewTokens,
    sampleBeams: doSample && numBeams > 1,
    stop: stopStrings,
    processors: logitsProcessor,
    stopIds: ends,
    endIds: ends,
  };
}
