// The boundary between the façade and whatever computes: asynchronous calls at the grain of a turn, whose arguments and results all survive `structuredClone`.
// The engine may run in this thread, in a worker or behind a service; who calls numbers the sessions and calls.
import type { KernelTime } from "../kernels/profile.ts";
import type { TokenLogprob } from "./logprobs.ts";
import type { ProcessorOptions } from "./processors.ts";
import type { SamplingOptions } from "./sampler.ts";

/** How beams are searched. @internal */
export interface BeamRequest {
  /** Sequences that run at a time, 2 or more. */
  readonly count: number;
  /** A finished sequence's score is Σ ln p / tokens^lengthPenalty: above 0 favours longer ones. */
  readonly lengthPenalty: number;
  /** Ends with as many finished sequences as there are beams (true), once no running one can beat them at its present length (false) or at any length ("never"). */
  readonly earlyStopping: boolean | "never";
  /** Sequences to give back, at most `count`. */
  readonly returned: number;
  /** Draws continuations, each by its share of all beams' probability behind temperature and cuts, in the place of taking the best. */
  readonly isSampled?: boolean | undefined;
}

/** How tokens are guessed, so that one pass checks several. It changes no token. @internal */
export interface SpeculationRequest {
  /** Guesses come from what the sequence's end has met before, from the draft model, or are those of `ids`. */
  readonly by: "prompt-lookup" | "draft" | "given";
  /** Tokens that must match at least, for prompt lookup. */
  readonly ngram: number;
  /** Tokens that are guessed at a time, at most. */
  readonly max: number;
  /** Guesses fewer, or none, where they do not pay. */
  readonly isAdaptive: boolean;
  /** With "given": the reply as somebody expects it. */
  readonly ids?: Uint32Array | undefined;
}

/** What came of guesses. */
export interface SpeculationCount {
  /** Tokens that were guessed and computed. */
  readonly drafted: number;
  /** Of these, the ones that were right. */
  readonly accepted: number;
}

/** A turn: continue a session so that it holds `ids`, then generate. @internal */
export interface GenerateRequest {
  /** The whole sequence so far, prompt and history. What the session already holds of it is not computed again. */
  readonly ids: Uint32Array;
  /** Tokens to generate at most; the context's end is a limit too. */
  readonly maxTokens: number;
  /** Ids that end the turn; they count as generated and have no text. */
  readonly stopIds: readonly number[];
  /** Texts that end the turn; they are cut off. */
  readonly stop: readonly string[];
  readonly sampling: SamplingOptions;
  /** Rules on the logits beside those of sampling. */
  readonly processing?: ProcessorOptions | undefined;
  /** Ids that end a reply for rules that look at them; default `stopIds`. */
  readonly endIds?: readonly number[] | undefined;
  /**
   * Logits go to the caller before each choice, to be seen or changed: a `"logits"` event comes, which the caller answers by `supply` before it pulls the next one. Where they may
   * be changed, it is the caller's fault when none is left to choose.
   */
  readonly asksForLogits?: "to-see" | "to-change" | undefined;
  /** With beams: a `"candidates"` event comes before each step, which the caller answers by `supply`, 1 for each that ends and else 0. */
  readonly asksForEnds?: boolean | undefined;
  /** Nothing is computed before it is pulled, wherever the engine lives: the caller decides by each event. Else an engine that lives elsewhere works some events ahead. */
  readonly inStep?: boolean | undefined;
  /** Log-probabilities come with each token: its own, and those of so many likeliest ones. */
  readonly topLogprobs?: number | undefined;
  /** Searches several sequences instead of sampling one; temperature and cuts count only where their continuations are drawn. */
  readonly beams?: BeamRequest | undefined;
  /** Checks guessed tokens in the steps that sample; not with beams. */
  readonly speculation?: SpeculationRequest | undefined;
}

/** Why a turn ended. */
export type FinishReason = "stop" | "length" | "interrupted";

/** Asked before every step. @returns why the call is to end, if it is. @throws AbortError when the engine is gone @internal */
export type CancelCheck = () => FinishReason | undefined;

/** Durations of a turn in ms, by the engine's clock. */
export interface Timings {
  /** From the engine's start on the turn to the prompt's last chunk. */
  readonly prefillMs: number;
  /** From there to the end. */
  readonly decodeMs: number;
  /** From the engine's start on the turn to the first token. */
  readonly firstTokenMs: number;
}

/** What a turn tells while it goes on. @internal */
export type GenerateEvent =
  /** After each chunk of the prompt; `cachedTokens` of `totalTokens` were there already and count as processed. */
  | { readonly type: "prefill"; readonly processedTokens: number; readonly totalTokens: number; readonly cachedTokens: number }
  /** A token, with the text that may be shown now: none while a character or a stop string is incomplete. */
  | { readonly type: "token"; readonly id: number; readonly text: string; readonly logprob?: TokenLogprob }
  /** Only with `asksForLogits`: a copy of the logits (V,) after all rules, before temperature and cuts. With beams log-probabilities, and the sequence that they follow. */
  | { readonly type: "logits"; readonly logits: Float32Array; readonly tokens?: Uint32Array }
  /** Only with `asksForEnds`: prompt and reply of each sequence that may go on or end here. */
  | { readonly type: "candidates"; readonly sequences: readonly Uint32Array[] }
  /** The end; `text` is what was still held back. */
  | {
      readonly type: "finish";
      readonly reason: FinishReason;
      readonly text: string;
      readonly timings: Timings;
      /** With `speculation`. */
      readonly speculation?: SpeculationCount;
      /** With `beams`: what was found, best first; the tokens before are those of the first. */
      readonly sequences?: readonly {
        readonly ids: readonly number[];
        readonly text: string;
        readonly score: number;
        readonly logprobs?: readonly TokenLogprob[] | undefined;
      }[];
    };

/** A sequence of a forward pass: `ids`, or `embeds` in the place of their embeddings. @internal */
export interface ForwardRow {
  readonly ids?: Uint32Array | undefined;
  /** (T,D) f32 */
  readonly embeds?: Float32Array | undefined;
  /** (T,) for the rotary embedding; default the places in the sequence. */
  readonly positions?: Uint32Array | undefined;
  /** Where further sequences begin that are packed into the row: attention does not cross, the convolution does, as in the reference. */
  readonly borders?: readonly number[] | undefined;
  /** The session that it continues, which then holds it too; default one of its own, which is closed afterwards. */
  readonly session?: number | undefined;
  /** (T,) the id whose log-probability is wanted at each position, below 0 for none. */
  readonly targets?: Int32Array | undefined;
}

/** A forward pass over a batch of sequences. @internal */
export interface ForwardRequest {
  readonly rows: readonly ForwardRow[];
  /** Length of the context that scaled rotary frequencies go by; default each row's own end, its highest position plus one. */
  readonly ropeLength?: number | undefined;
  /** Positions whose logits are wanted: all, or these of each row, in this order. */
  readonly logits: "all" | readonly (readonly number[])[];
  /** Also the residual stream: after every layer, or behind the final norm only. */
  readonly hiddenStates?: "all" | "last" | undefined;
  /** Also the attention probabilities. */
  readonly attentions?: boolean | undefined;
  /** Nothing is computed before it is pulled, wherever the engine lives: up to the result the caller may end the call. */
  readonly inStep?: boolean | undefined;
}

/** What a forward pass gives for a row. @internal */
export interface ForwardRowResult {
  /** (wanted positions, V) */
  readonly logits: Float32Array;
  /** (L+1) × (T,D): the embeddings, the outputs of all layers but the last, the final norm's output; only the latter for "last". */
  readonly hiddenStates?: readonly Float32Array[];
  /** (T,D): the last layer's output, before the final norm; with "all". */
  readonly lastLayer?: Float32Array;
  /** (H, T, past + T) for each attention layer. */
  readonly attentions?: readonly Float32Array[];
  /** (T,): ln p of the targets, NaN where there is none. */
  readonly logprobs?: Float64Array;
}

/** What a forward pass tells: how many tokens of all rows it has taken in, after each step, and at its end what came of each row. @internal */
export type ForwardEvent =
  | { readonly type: "progress"; readonly processedTokens: number; readonly totalTokens: number }
  | { readonly type: "result"; readonly rows: readonly ForwardRowResult[] };

/** What a restored session holds. @internal */
export interface RestoredSession {
  readonly tokens: Uint32Array;
  /** What was saved with it. */
  readonly note: string;
}

/** Prompts since the load, and what of them was there already. */
export interface ReuseCount {
  readonly prompts: number;
  /** Tokens of all prompts. */
  readonly promptTokens: number;
  /** Prompts whose beginning was held somewhere: by their own session, by another one, or by pages of a closed one. */
  readonly hits: number;
  /** Tokens that were not computed again. */
  readonly cachedTokens: number;
}

/** The engine's state, for whoever looks after memory. */
export interface EngineStatus {
  /** Linear memory in bytes. */
  readonly memoryBytes: number;
  readonly openSessions: number;
  /** KV pages that open sessions hold, each counted once. */
  readonly usedPages: number;
  /** Pages of closed sessions that are kept for prompts that begin as they did. */
  readonly cachedPages: number;
  /** What has been saved so far. */
  readonly reuse: ReuseCount;
  /** Guesses since the load. */
  readonly speculation: SpeculationCount;
}

/** Runs turns. Calls on one session are executed in order; sessions take turns step by step. @internal */
export interface Engine {
  /** Opens session number `session`, empty. */
  open(session: number): Promise<void>;
  /** Opens session number `copy` with what `session` holds after its turns so far. Nothing is computed, no key or value is copied. */
  fork(session: number, copy: number): Promise<void>;
  /** Cuts a session to its first `position` tokens, after its turns so far. @throws InputError when it has not so many */
  rewind(session: number, position: number): Promise<void>;
  /** @returns a session as bytes, after its turns so far; `note` is kept with it */
  save(session: number, note: string): Promise<Uint8Array>;
  /** Opens session number `session` with what `save` gave. @throws FormatError when it is not this model's; InputError when it is too long; MemoryError */
  restore(session: number, bytes: Uint8Array): Promise<RestoredSession>;
  /** @returns the ids that a session holds now; a turn that runs adds to them */
  tokens(session: number): Promise<Uint32Array>;
  /** Closes a session and frees what it held. */
  close(session: number): Promise<void>;
  /**
   * Runs a turn as call number `call`. A step is computed when an event is pulled; turns that are pulled at the same time share it. What any session holds of
   * the prompt's beginning is not computed again.
   */
  generate(call: number, session: number, request: GenerateRequest): AsyncIterable<GenerateEvent>;
  /** Runs a forward pass as call number `call`; a step is computed when an event is pulled. One that ends before its result leaves the sessions of its rows as they were. */
  forward(call: number, request: ForwardRequest): AsyncIterable<ForwardEvent>;
  /** Answers a `"logits"` event: these (V,) take the place of the model's; or a `"candidates"` event. */
  supply(call: number, answer: Float32Array): Promise<void>;
  /** Ends a call before its next step: a turn finishes for that reason, by default as "interrupted"; a forward pass throws AbortError. The session stays usable. */
  cancel(call: number, reason?: "interrupted" | "stop"): Promise<void>;
  status(): Promise<EngineStatus>;
  /** Times each kernel of the next steps, or no more. @returns what was measured since it was last turned on */
  profile(isOn: boolean): Promise<readonly KernelTime[]>;
  /** Ends every call and frees everything. */
  dispose(): Promise<void>;
}
