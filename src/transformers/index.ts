// lfm2-wasm/transformers: the model by the names of the reference's documentation, in camelCase. Which runtime it is, "lfm2-wasm" knows.

export type { GenerationDefaults } from "../generation-config.ts";
export { Lfm2Config, type Lfm2ConfigOptions } from "./config.ts";
export {
  type BaseModelOutput,
  type FromPretrainedOptions,
  type GenerationConfig,
  Lfm2ForCausalLM,
  Lfm2Model,
  type NewModelOptions,
} from "./model.ts";
export {
  type ApplyChatTemplateOptions,
  AutoTokenizer,
  type BatchEncoding,
  type CallTokenizer,
  type DecodeTextOptions,
  type EncodeTextOptions,
  Lfm2Tokenizer,
  type TokenizeOptions,
} from "./tokenizer.ts";
