// The side that computes: loads one model when it is told to, then runs its engine. What a worker's file does, and nothing else.
import { PlatformError } from "../errors.ts";
import { loadParts, type Platform } from "../lfm2.ts";
import type { ModelParts } from "../model.ts";
import type { LoadProgress } from "../progress.ts";
import type { TemplateText } from "../text/chat-template.ts";
import type { Segment } from "../text/segments.ts";
import { Channel, type Post } from "./channel.ts";
import { engineHandlers } from "./engine.ts";
import { remoteFetch } from "./fetch.ts";
import type { LoadedFacts, PackedOptions } from "./in-worker.ts";
import { type PackedSource, unpackSource } from "./sources.ts";

function factsOf({ config, info, generationConfig, tokenizer }: ModelParts): LoadedFacts {
  return { config, generationConfig, info: { ...info, engine: "worker" }, tokenizer: tokenizer?.pack() };
}

/**
 * Serves the one who started this worker.
 * @param platformOf what the runtime gives, which may ask the other side
 * @param batchMs how long parts of a reply may wait for others: a frame where they are shown, 0 elsewhere
 * @param onEnd is called when the model is disposed of: nothing more comes
 * @returns what takes the messages that come from there
 */
export function serveEngine(
  platformOf: (channel: Channel) => Platform,
  post: Post,
  batchMs: number = 0,
  onEnd: () => void = () => {},
): (message: unknown) => void {
  let parts: ModelParts | undefined;
  const use = (): ModelParts => {
    if (parts) return parts;
    throw new PlatformError("worker: expected a model to be loaded first, got a call before. Call load.");
  };
  const channel: Channel = new Channel(
    post,
    {
      load: async ([source, options], signal) => {
        const { hasFetch, draft, ...plain } = options as PackedOptions;
        const own = {
          ...plain,
          signal,
          draft: draft && unpackSource(channel, draft),
          ...(hasFetch ? { fetch: remoteFetch(channel) } : {}),
          onProgress: (progress: LoadProgress) => channel.tell("progress", [progress]),
        };
        const readTemplate = (text: TemplateText) => channel.call("template", [text]).then(() => undefined); // prompts are rendered over there
        parts = await loadParts(platform, unpackSource(channel, source as PackedSource), own, readTemplate);
        return factsOf(parts);
      },
      end: () => {
        parts?.engine.dispose().catch(() => {}); // whoever waits for it has gone
        onEnd();
      },
      encode: ([segments]) => use().tokenizer?.encodeSegments(segments as readonly Segment[]),
      ...engineHandlers(() => use().engine),
    },
    { batchMs },
  );
  const platform = platformOf(channel);
  channel.tell("ready", []);
  return (message) => channel.receive(message);
}
