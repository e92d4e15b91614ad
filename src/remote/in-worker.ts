// A load whose engine will live in a worker: the whole of it happens there; what a user hands over as functions stays on this side.
import { Lfm2Error, PlatformError, throwIfAborted } from "../errors.ts";
import type { LoadOptions, ModelSource } from "../lfm2.ts";
import { Model, type ModelParts } from "../model.ts";
import type { LoadProgress } from "../progress.ts";
import { ChatTemplate, type TemplateText } from "../text/chat-template.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { unlessAborted } from "../turn.ts";
import { Channel, type Handler } from "./channel.ts";
import { remoteEngine } from "./engine.ts";
import { fetchHandlers } from "./fetch.ts";
import { type PackedSource, ServedSources } from "./sources.ts";
import { serveThreads } from "./threads.ts";
import type { EngineWorker, EngineWorkers } from "./workers.ts";

/** What a worker tells of the model that it has loaded. */
export interface LoadedFacts extends Pick<ModelParts, "config" | "info" | "generationConfig"> {
  /** `Tokenizer.pack()`: some megabytes, unpacked when somebody asks for the tokenizer. */
  readonly tokenizer: string | undefined;
}

/** What a channel does not carry becomes what it does: an address its text, an answer its bytes. */
async function packWasm(wasm: LoadOptions["wasm"]): Promise<LoadOptions["wasm"]> {
  if (typeof wasm !== "object" || wasm === null) return wasm;
  if (wasm instanceof URL) return wasm.href;
  if ("arrayBuffer" in wasm && typeof wasm.arrayBuffer === "function") return (wasm.arrayBuffer as () => Promise<ArrayBuffer>)();
  if (Object.getPrototypeOf(wasm) !== Object.prototype) return wasm;
  const builds = await Promise.all(Object.entries(wasm).map(async ([name, build]) => [name, await packWasm(build as LoadOptions["wasm"])]));
  return Object.fromEntries(builds) as LoadOptions["wasm"];
}

/** Options of a load as they cross: no functions. */
export type PackedOptions = Omit<LoadOptions, "engine" | "draft" | "fetch" | "onProgress" | "signal"> & {
  readonly draft: PackedSource | undefined;
  readonly hasFetch: boolean;
};

/** A load that is to end is waited for so long: what it holds, locks in the cache among it, it gives back itself. */
const MOST_END_MS = 2000;

/** Nobody holds the model any more, and nobody disposed of it: its worker goes with it. */
const dropped: FinalizationRegistry<() => void> = new FinalizationRegistry((end) => end());

function ended(cause: unknown): PlatformError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PlatformError(`engine: expected the worker to go on, got one that ended: ${reason}. Load the model again.`, {
    code: "worker-ended",
    cause,
  });
}

/** Waits for `promise` to end in either way, so long at most. */
async function withinMs(ms: number, promise: Promise<unknown> | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const time = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise?.catch(() => {}), time]);
  clearTimeout(timer);
}

interface Started {
  readonly channel: Channel;
  /** Ends the worker, and the threads that were started for it. */
  readonly end: () => void;
}

/** Starts a worker. @returns when it listens */
async function start(
  workers: EngineWorkers,
  handlers: Readonly<Record<string, Handler>>,
  cannotStart: (cause: unknown) => PlatformError,
): Promise<Started> {
  let worker: EngineWorker | undefined;
  const threads = workers.startThread && serveThreads(workers.startThread);
  const end = (): void => {
    channel.tell("end", []);
    threads?.end();
    worker?.end();
  };
  let isReady = false;
  let say: { readonly ready: () => void; readonly failed: (error: Error) => void } | undefined;
  const ready = new Promise<void>((resolve, reject) => {
    say = { ready: resolve, failed: reject };
  });
  const channel = new Channel(
    (message, transfer) => worker?.post(message, transfer),
    {
      ...handlers,
      ...threads?.handlers,
      ready: () => {
        isReady = true;
        say?.ready();
      },
    },
    { onBusy: (isBusy) => worker?.hold?.(isBusy) },
  );
  try {
    worker = workers.start(
      (message) => channel.receive(message),
      (cause) => {
        const error = isReady ? ended(cause) : cannotStart(cause);
        end();
        say?.failed(error);
        channel.fail(error);
      },
    );
  } catch (cause) {
    throw cannotStart(cause);
  }
  await ready;
  return { channel, end };
}

/**
 * @param cannotStart makes the error of a worker that never answered
 * @throws as `loadModelWith`
 */
export async function loadInWorker(
  workers: EngineWorkers,
  source: ModelSource,
  options: LoadOptions,
  cannotStart: (cause: unknown) => PlatformError,
): Promise<Model> {
  const { engine: _, fetch, onProgress, signal, ...plain } = options;
  throwIfAborted(signal);
  const served = new ServedSources();
  const stop: { failed?: (error: unknown) => void } = {};
  const failed = new Promise<never>((_, reject) => {
    stop.failed = reject;
  });
  failed.catch(() => {}); // whoever waits below hears it
  const leave = new AbortController();
  const progress: Handler = ([told]) => {
    if (leave.signal.aborted) return;
    try {
      onProgress?.(told as LoadProgress);
    } catch (error) {
      stop.failed?.(error);
    }
  };
  let template: ChatTemplate | undefined;
  const read: Handler = ([text]) => {
    template = ChatTemplate.of(text as TemplateText);
  };
  const handlers = { ...served.handlers, ...(fetch ? fetchHandlers(fetch) : {}), progress, template: read };
  const { channel, end } = await start(workers, handlers, cannotStart);
  let loading: Promise<unknown> | undefined;
  try {
    const load = async (): Promise<unknown> => {
      const pack = (from: ModelSource): Promise<PackedSource> => served.pack(from, workers.crosses ?? (() => false), signal);
      const { draft } = plain;
      const packed: PackedOptions = {
        ...plain,
        draft: draft === undefined ? undefined : await pack(draft),
        wasm: await packWasm(plain.wasm),
        hasFetch: fetch !== undefined,
      };
      return channel.call("load", [await pack(source), packed], leave.signal);
    };
    loading = load();
    const facts = await unlessAborted(Promise.race([loading, failed]), signal);
    return modelOf(facts as LoadedFacts, template, channel, end);
  } catch (error) {
    leave.abort();
    await withinMs(MOST_END_MS, loading);
    end();
    channel.fail(error instanceof Lfm2Error ? error : ended(error));
    throw error;
  } finally {
    await served.closeAll();
  }
}

/** @returns the model whose engine is at the other end of `channel`; what it needs of the tokenizer is made of plain data */
function modelOf(facts: LoadedFacts, template: ChatTemplate | undefined, channel: Channel, end: () => void): Model {
  const { config, info, generationConfig, tokenizer: packed } = facts;
  const engine = remoteEngine(channel, end);
  dropped.register(engine, end);
  let tokenizer: Tokenizer | undefined;
  return new Model({
    engine,
    config,
    info,
    generationConfig,
    get tokenizer() {
      if (packed !== undefined) tokenizer ??= Tokenizer.unpack(packed);
      return tokenizer;
    },
    template,
    ...(packed === undefined ? {} : { encode: async (segments) => (await channel.call("encode", [segments])) as readonly number[] }),
  });
}
