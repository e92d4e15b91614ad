// The engine in this thread: sessions by number, calls that can be cancelled, turns on one session in order.

import { AbortError, InputError } from "../errors.ts";
import type { KernelTime } from "../kernels/profile.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { part } from "../part.ts";
import type { ByteTable } from "../text/byte-level.ts";
import type {
  CancelCheck,
  Engine,
  EngineStatus,
  FinishReason,
  ForwardEvent,
  ForwardRequest,
  GenerateEvent,
  GenerateRequest,
  RestoredSession,
} from "./engine.ts";
import { checkPrompt, generate, type TurnPlace } from "./generate.ts";
import { PrefixTree } from "./prefixes.ts";
import { Scheduler } from "./scheduler.ts";
import { Session } from "./session.ts";
import type { Speculation, Speculator } from "./speculation.ts";

interface SessionSlot {
  readonly session: Session;
  /** Resolves when the last turn that was queued has ended. */
  last: Promise<void>;
}

const savedSession = (): Promise<typeof import("./saved-session.ts")> => part("saved-session", () => import("./saved-session.ts"));

/** @returns the error of every call on an engine that is gone */
export function disposed(): AbortError {
  return new AbortError("model: the model was disposed while this call ran, or before. Load it again.", { code: "disposed" });
}

function fail(): never {
  throw disposed();
}

/** Bytes of closed sessions' pages that are kept for prompts that begin as they did: 5,461 tokens of LFM2-350M with f16 keys and values. */
const PREFIX_CACHE_BYTES = 64 << 20;

/** How an engine looks after its sessions. */
export interface LocalEngineOptions {
  /** Bytes of closed sessions' pages that are kept; 0: no session takes anything over from another. */
  readonly prefixCacheBytes?: number | undefined;
  /** A smaller model of the same vocabulary, for turns that ask for its guesses. The engine ends it. */
  readonly draftModel?: LanguageModel | undefined;
}

/** Runs turns on a model in this thread. */
export class LocalEngine implements Engine {
  #model: LanguageModel | undefined;
  readonly #table: ByteTable | undefined;
  readonly #scheduler: Scheduler;
  readonly #prefixes: PrefixTree | undefined;
  readonly #sessions = new Map<number, SessionSlot>();
  readonly #cancelled = new Map<number, FinishReason>();
  readonly #supplied = new Map<number, Float32Array>();
  readonly #running = new Set<number>();
  #draftModel: LanguageModel | undefined;
  #speculator: Promise<Speculator> | undefined;
  readonly #reuse = { prompts: 0, promptTokens: 0, hits: 0, cachedTokens: 0 };

  /** @param table bytes of the tokens; undefined for a model without tokenizer */
  constructor(model: LanguageModel, table: ByteTable | undefined, options: LocalEngineOptions = {}) {
    const { prefixCacheBytes = PREFIX_CACHE_BYTES, draftModel } = options;
    this.#model = model;
    this.#draftModel = draftModel;
    this.#table = table;
    this.#scheduler = new Scheduler(() => this.#use());
    const { pages, size } = model.caches;
    if (prefixCacheBytes === 0 || size.pageBytes === 0) return;
    this.#prefixes = new PrefixTree(pages, size.pageBytes, prefixCacheBytes);
    pages.reclaim = () => this.#prefixes?.evict() ?? false;
  }

  async open(session: number): Promise<void> {
    this.#add(session, new Session(this.#use().openCache()));
  }

  async fork(session: number, copy: number): Promise<void> {
    await this.#inOrder(session, (slot) => this.#add(copy, slot.session.fork()));
  }

  async rewind(session: number, position: number): Promise<void> {
    await this.#inOrder(session, (slot) => slot.session.rewind(position));
  }

  async save(session: number, note: string): Promise<Uint8Array> {
    return this.#inOrder(session, async (slot) => {
      const { saveSession } = await savedSession();
      return saveSession(slot.session, this.#use(), note);
    });
  }

  async restore(session: number, bytes: Uint8Array): Promise<RestoredSession> {
    const { restoreSession } = await savedSession();
    const { session: restored, note } = restoreSession(this.#use(), bytes);
    this.#add(session, restored);
    return { tokens: restored.tokens.toArray(), note };
  }

  async tokens(session: number): Promise<Uint32Array> {
    this.#use();
    return this.#slot(session).session.tokens.toArray();
  }

  async close(session: number): Promise<void> {
    const slot = this.#sessions.get(session);
    if (!slot) return;
    this.#sessions.delete(session); // first: a turn that comes now finds it closed
    await slot.last;
    this.#retire(slot.session);
    slot.session.cache.dispose();
    (await this.#speculator)?.close(slot.session);
  }

  generate(call: number, session: number, request: GenerateRequest): AsyncIterableIterator<GenerateEvent, undefined> {
    const begin = (): Promise<TurnPlace> => this.#begin(call, session, request);
    return generate({ scheduler: this.#scheduler, begin, request, table: this.#table, takeSupplied: () => this.#takeSupplied(call) });
  }

  async *forward(call: number, request: ForwardRequest): AsyncGenerator<ForwardEvent> {
    const isCancelled = this.#start(call);
    const turns: { slot: SessionSlot; end: () => void }[] = [];
    try {
      // all at once: two calls on the same sessions must not wait for each other
      const asked = await Promise.allSettled(request.rows.map(({ session }) => (session !== undefined ? this.#turn(session) : undefined)));
      for (const turn of asked) if (turn.status === "fulfilled" && turn.value) turns.push(turn.value);
      const failed = asked.find((turn) => turn.status === "rejected");
      if (failed) throw failed.reason;
      const sessions = asked.map((turn) => (turn.status === "fulfilled" ? turn.value?.slot.session : undefined));
      const { forward } = await part("engine-forward", () => import("./forward.ts"));
      yield* forward(() => this.#use(), sessions, request, isCancelled);
    } finally {
      this.#end(call);
      for (const { end } of turns) end();
    }
  }

  async supply(call: number, answer: Float32Array): Promise<void> {
    if (this.#running.has(call)) this.#supplied.set(call, answer);
  }

  async cancel(call: number, reason: FinishReason = "interrupted"): Promise<void> {
    if (this.#running.has(call) && !this.#cancelled.has(call)) this.#cancelled.set(call, reason);
  }

  async status(): Promise<EngineStatus> {
    const model = this.#use();
    const cachedPages = this.#prefixes?.ownPages ?? 0;
    return {
      memoryBytes: model.memoryBytes,
      openSessions: this.#sessions.size,
      usedPages: model.caches.pages.used - cachedPages,
      cachedPages,
      reuse: { ...this.#reuse },
      speculation: (await this.#speculator)?.counts ?? { drafted: 0, accepted: 0 },
    };
  }

  async profile(isOn: boolean): Promise<readonly KernelTime[]> {
    return this.#use().profile(isOn);
  }

  async dispose(): Promise<void> {
    this.#model?.dispose();
    this.#model = undefined;
    this.#draftModel?.dispose();
    this.#draftModel = undefined;
    this.#sessions.clear();
  }

  #use(): LanguageModel {
    if (!this.#model) throw disposed();
    return this.#model;
  }

  /** Waits for a turn on a session, and prepares it for a request. */
  async #begin(call: number, session: number, request: GenerateRequest): Promise<TurnPlace> {
    const isCancelled = this.#start(call); // before any wait: a cancel may come while an earlier turn runs
    let endTurn = (): void => {};
    const end = (): void => {
      endTurn();
      this.#end(call);
    };
    try {
      const turn = await this.#turn(session);
      endTurn = turn.end;
      checkPrompt(this.#use(), request.ids);
      if (!isCancelled()) this.#resume(turn.slot.session, request.ids);
      const speculation = await this.#speculation(turn.slot.session, request, isCancelled);
      return { session: turn.slot.session, isCancelled, speculation, end };
    } catch (error) {
      end();
      throw error;
    }
  }

  /** Lets a session begin with the longest prefix of `ids` that it, another open session or a closed one's pages hold. */
  #resume(session: Session, ids: Uint32Array): void {
    const held = session.heldOf(ids);
    if (held < session.cache.position) this.#retire(session); // another branch of the conversation: it may come back
    let best = { length: held, pages: session.cache.pages };
    if (this.#prefixes) {
      for (const { session: other } of this.#sessions.values()) {
        const length = other.heldOf(ids);
        if (length > best.length) best = { length, pages: other.cache.pages };
      }
      const closed = this.#prefixes.find(ids);
      if (closed.length > best.length) best = closed;
    }
    if (best.length > held) session.adopt(ids, best.length, best.pages);
    const kept = session.keep(ids);
    this.#reuse.prompts++;
    this.#reuse.promptTokens += ids.length;
    this.#reuse.hits += kept > 0 ? 1 : 0;
    this.#reuse.cachedTokens += kept;
  }

  /** What guesses in a turn, where its request asks for it. */
  async #speculation(session: Session, request: GenerateRequest, isCancelled: CancelCheck): Promise<Speculation | undefined> {
    const { speculation, beams } = request;
    if (!speculation || beams) return undefined;
    this.#speculator ??= part("speculation", () => import("./speculation.ts")).then(({ Speculator }) => {
      const draft = this.#draftModel && new Scheduler(() => this.#draftModel ?? fail());
      return new Speculator(this.#scheduler, draft);
    });
    const speculator = this.#speculator;
    speculator.catch(() => {
      if (this.#speculator === speculator) this.#speculator = undefined; // the next turn asks for its part again
    });
    return (await speculator).begin(session, request, speculation, isCancelled);
  }

  /** Keeps what a session holds for prompts to come. */
  #retire({ cache, tokens }: Session): void {
    this.#prefixes?.insert(tokens.toArray(), cache.position, cache.pages);
  }

  #start(call: number): CancelCheck {
    this.#running.add(call);
    return () => {
      this.#use();
      return this.#cancelled.get(call);
    };
  }

  #end(call: number): void {
    this.#running.delete(call);
    this.#cancelled.delete(call);
    this.#supplied.delete(call);
  }

  #takeSupplied(call: number): Float32Array | undefined {
    const answer = this.#supplied.get(call);
    this.#supplied.delete(call);
    return answer;
  }

  /** Waits for the session's earlier turns; `end` lets the next one start. */
  async #turn(session: number): Promise<{ slot: SessionSlot; end: () => void }> {
    this.#use();
    const slot = this.#slot(session);
    const before = slot.last;
    let end = (): void => {};
    slot.last = new Promise((resolve) => {
      end = resolve;
    });
    await before;
    return { slot, end };
  }

  #add(number: number, session: Session): void {
    this.#sessions.set(number, { session, last: Promise.resolve() });
  }

  #slot(session: number): SessionSlot {
    const slot = this.#sessions.get(session);
    if (slot) return slot;
    throw new InputError(`session: expected an open session, got number ${session}, which is closed. Open a new chat.`, { code: "closed" });
  }

  async #inOrder<T>(session: number, run: (slot: SessionSlot) => T | Promise<T>): Promise<T> {
    const { slot, end } = await this.#turn(session);
    try {
      this.#use();
      return await run(slot);
    } finally {
      end();
    }
  }
}
