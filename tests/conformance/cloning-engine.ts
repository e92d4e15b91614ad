// An engine behind a channel: every argument, result, event and error goes through structuredClone, as it would between threads.
import { packError, unpackError } from "../../src/errors.ts";
import type { Engine, EngineStatus, ForwardRequest, GenerateRequest } from "../../src/generate/engine.ts";

/** Messages that crossed, to show that the suite really went this way. */
export const crossed = { count: 0 };

function clone<T>(value: T): T {
  crossed.count++;
  return structuredClone(value);
}

async function across<T>(call: () => Promise<T>): Promise<T> {
  try {
    return clone(await call());
  } catch (error) {
    throw unpackError(clone(packError(error)));
  }
}

async function* cloned<T>(events: () => AsyncIterable<T>): AsyncGenerator<T> {
  try {
    for await (const event of events()) yield clone(event);
  } catch (error) {
    throw unpackError(clone(packError(error)));
  }
}

/** @returns `engine` as if it lived elsewhere */
export function cloningEngine(engine: Engine): Engine {
  return {
    open: (session) => across(() => engine.open(clone(session))),
    fork: (session, copy) => across(() => engine.fork(clone(session), clone(copy))),
    rewind: (session, position) => across(() => engine.rewind(clone(session), clone(position))),
    save: (session, note) => across(() => engine.save(clone(session), clone(note))),
    restore: (session, bytes) => across(() => engine.restore(clone(session), clone(bytes))),
    tokens: (session) => across(() => engine.tokens(clone(session))),
    close: (session) => across(() => engine.close(clone(session))),
    supply: (call, logits) => across(() => engine.supply(clone(call), clone(logits))),
    cancel: (call, reason) => across(() => engine.cancel(clone(call), clone(reason))),
    status: (): Promise<EngineStatus> => across(() => engine.status()),
    profile: (isOn) => across(() => engine.profile(clone(isOn))),
    dispose: () => across(() => engine.dispose()),
    generate: (call, session, request: GenerateRequest) => cloned(() => engine.generate(clone(call), clone(session), clone(request))),
    forward: (call, request: ForwardRequest) => cloned(() => engine.forward(clone(call), clone(request))),
  };
}
