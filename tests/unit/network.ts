// What the network suites share: a network of our own making, a fetch under watch, ways to read a source to its end.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { inspect } from "node:util";
import { fetchRanges } from "../../src/adapters/node/ranges.ts";
import type { Fetch, FetchResponse, Network, NetworkOptions } from "../../src/weights/request.ts";
import type { ByteSource } from "../../src/weights/source.ts";
import type { BadServer } from "../tools/bad-server.ts";

/** Impatient, so that a suite of broken connections ends soon; silence is a fault only where a test is about it, for the machine may be busy. */
export const IMPATIENT: NetworkOptions = { stallMs: 20_000, backoffMs: 2, maxRetries: 3 };
/** Of a connection that is silent on purpose. */
export const STALL_MS = 150;

/** A network as the Node adapter makes it, with small pieces. */
export function networkTo(endpoint: string, options: NetworkOptions = {}, more: Partial<Network> = {}): Network {
  return {
    fetch: fetchRanges,
    createHash: (algorithm) => {
      const hash = createHash(algorithm);
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") };
    },
    endpoint,
    hasBackpressure: true,
    options: { ...IMPATIENT, windowBytes: 1 << 19, ...options },
    ...more,
  };
}

/** Bytes that look like nothing. */
export function noise(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let x = seed;
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/** Reads a source as a load does: windows from front to back that overlap a little. Then proves and closes it. */
export async function readToEnd(source: ByteSource, window = 50_000, signal?: AbortSignal): Promise<Uint8Array> {
  const all = new Uint8Array(source.size);
  try {
    for (let at = 0; at < all.length; at += window - 100) {
      const length = Math.min(window, all.length - at);
      all.set(await source.read(at, length, signal), at);
    }
    await source.verify?.(signal);
    return all;
  } finally {
    await source.close?.();
  }
}

/** Waits until no answer is under way: a closed connection takes a moment to be seen on the other side. */
export async function untilQuiet(server: BadServer): Promise<void> {
  for (let i = 0; i < 200 && server.busy > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(server.busy, 0, "answers are still under way");
}

/** Everything that an error says, causes and hidden fields too. */
export const allOf = (error: unknown): string => `${inspect(error, { depth: 20, showHidden: true })} ${(error as Error).stack}`;

/** A fetch that counts its awaits: the call, and each read of a body. */
export class WatchedFetch {
  /** Calls and reads so far. */
  operations = 0;
  /** Of these, not settled. */
  pending = 0;
  readonly #fault: (n: number) => void;

  /** @param fault called at operation `n` (from 1) before it begins; what it throws, the operation rejects with */
  constructor(fault: (n: number) => void = () => {}) {
    this.#fault = fault;
  }

  async #watch<T>(run: () => Promise<T>): Promise<T> {
    this.pending++;
    try {
      this.#fault(++this.operations);
      return await run();
    } finally {
      this.pending--;
    }
  }

  readonly fetch: Fetch = async (url, init) => {
    const response = await this.#watch(() => fetch(url, init));
    const stream = response.body;
    const body = stream && {
      cancel: () => stream.cancel(),
      getReader: () => {
        const reader = stream.getReader();
        return { read: () => this.#watch(() => reader.read()), cancel: () => reader.cancel() };
      },
    };
    const { status, type, url: from, headers } = response;
    return { status, type, url: from, headers, body } satisfies FetchResponse;
  };
}
