// The public names. No logic; `load` and `inspect` come from the runtime's adapter.

export { Chat, type ChatOptions } from "./chat.ts";
export type { Availability, CacheQuery } from "./downloads.ts";
export {
  AbortError,
  FormatError,
  InputError,
  Lfm2Error,
  MemoryError,
  NetworkError,
  PlatformError,
  StorageError,
  UnsupportedError,
} from "./errors.ts";
export type { ForwardInput, ForwardOutput, KeyValueCache, Tensor } from "./forward.ts";
export type { FinishReason, Timings } from "./generate/engine.ts";
export type { TokenLogprob } from "./generate/logprobs.ts";
export type { Inspection, InspectOptions } from "./inspect.ts";
export type { LoadOptions, ModelSource } from "./lfm2.ts";
export type { DType, KvDType } from "./memory/dtype.ts";
export { Model, type ModelInfo, type ModelInput } from "./model.ts";
export type { Lfm2Config } from "./models/config.ts";
export type { LoadProgress } from "./progress.ts";
export type { Part, PromptProgress, Reply, ReplySequence, ReplyStream, Usage } from "./reply.ts";
export type { EmbedOptions, Perplexity, PerplexityOptions, Score, ScoreOptions } from "./score.ts";
export type { Message } from "./text/messages.ts";
export type { DecodeOptions } from "./text/stream-decoder.ts";
export type { EncodeOptions, Tokenizer } from "./text/tokenizer.ts";
export type { GenerateOptions, GenerationState, LogitsProcessor, SpeculateOptions, StoppingCriterion } from "./turn.ts";
export type { ByteSource, Folder } from "./weights/source.ts";
export type { StoredModel, StoredModels } from "./weights/store.ts";
