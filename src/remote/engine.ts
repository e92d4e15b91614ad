// The engine as seen over a channel, and the other end of it. A new method of `Engine` costs one line here.

import type { Engine } from "../generate/engine.ts";
import { disposed } from "../generate/local-engine.ts";
import type { Channel, Handler } from "./channel.ts";

/** Methods that answer once; the compiler misses none. */
const CALLS: Readonly<Record<Exclude<keyof Engine, "generate" | "forward" | "dispose">, true>> = {
  open: true,
  fork: true,
  rewind: true,
  tokens: true,
  save: true,
  restore: true,
  close: true,
  supply: true,
  cancel: true,
  status: true,
  profile: true,
};

type Method = (...args: readonly unknown[]) => unknown;

/** @returns what the side that computes does for the other; `engine` is asked at every call */
export function engineHandlers(engine: () => Engine): Record<string, Handler> {
  const methods = [...Object.keys(CALLS), "generate", "forward"] as (keyof Engine)[];
  return Object.fromEntries(methods.map((name) => [name, (args) => (engine()[name] as Method).apply(engine(), args as unknown[])]));
}

/**
 * @param channel to a side with `engineHandlers`
 * @param end ends that side
 */
export function remoteEngine(channel: Channel, end: () => void): Engine {
  const calls = Object.fromEntries(
    Object.keys(CALLS).map((name) => [name, (...args: readonly unknown[]) => channel.call(name, args)]),
  ) as unknown as Omit<Engine, "generate" | "forward" | "dispose">;
  return {
    ...calls,
    generate: (call, session, request) =>
      channel.stream("generate", [call, session, request], request.inStep ? 1 : undefined) as ReturnType<Engine["generate"]>,
    forward: (call, request) => channel.stream("forward", [call, request], request.inStep ? 1 : undefined) as ReturnType<Engine["forward"]>,
    dispose: async () => {
      end();
      channel.fail(disposed());
    },
  };
}
